"""Clients that ask for more than a server can answer: `just prove-overload`. At 1, 2, 3 and 10
times its measured capacity, in an open loop, it goes on answering nearly as many requests as it
can, those that it accepts in time, and refuses the rest quickly and cheaply; afterwards it is as
before.

The model's rows take milliseconds, and each is run alone: if a row cost less among others, the
server would answer more when it is full than the capacity at a low load. The price of a refusal
does not depend on the model, so `--cheap` shows what it means where an answer costs little more.
Below one core (`--cpus 0.5`) a server that uses all of its quota stands still in every period:
answers and refusals may then take a period longer. Needs root and control groups, for the limit;
the exit code is 0 if everything held.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from loadlab.record.cgroup import Group, Limits
from loadlab.target.process import control_group
from support.bundles import expensive, write_bundle
from support.load import Load, Sent, percentile
from support.proof import Check, begin, conclude
from support.serving import Server, request, serving

BODIES = [b'{"features":[1,2,3,4]}', b'{"features":[9,1,1,1]}']
TIMES = (1, 2, 3, 10)
"""Of the capacity. At exactly the capacity a queue that a moment's noise made does not end and does
not grow, so the times are shown there, and only the answers per second are judged."""
OK, REFUSED = 200, 503
TARGET_ROWS = 1.5
"""The server's `queue_target_ms`, in times of one row, so that machines of every speed wait for as
many rows."""
CLOSED = 64
"""Clients without a pause, who measure the capacity."""
SETTLED_S = 2.0
"""Of the beginning of an overload, during which the server finds out: a queue stands after half a
second, and the requests that it then refuses have waited for as long. Shown, and not judged."""
UNLOADED = 0.25
"""Share of the capacity that is no load."""
CONNECTIONS = 4000
GOODPUT, GOODPUT_AT_MOST = 0.9, 0.8
"""Least share of the peak that is answered; the second one at 10 times the capacity."""
PERIOD_S = 0.1
"""Of a CPU quota below one core: for as long a server may stand still, and every answer with it."""
LATER, REFUSAL_S, MOST_COST, NORMAL_S = 3.0, 0.05, 0.2, 2.0


class Normal(NamedTuple):
    """What the server does without overload. Measured before and after each load, in several
    rounds, because the speed of a machine that is shared with others changes within seconds."""

    peak: float
    """Answers per second at the most."""
    answer_s: float
    """CPU time of an answer."""
    latencies_s: list[float]
    """Of answers at a low load."""

    @property
    def p99_s(self) -> float:
        """Of the latencies."""
        return percentile(self.latencies_s, 0.99)

    def with_later(self, later: "Normal") -> "Normal":
        """This one and one that was measured later, together."""
        return Normal(
            (self.peak + later.peak) / 2,
            (self.answer_s + later.answer_s) / 2,
            self.latencies_s + later.latencies_s,
        )


class Overload(NamedTuple):
    """One load of one round."""

    sent: list[Sent]
    cpu_s: float
    normal: Normal
    """Before and after it."""


class Phase(NamedTuple):
    """What happened at one load."""

    times: float
    """Of the capacity."""
    peak: float
    """Answers per second at the most, without overload, before and after this load."""
    answer_s: float
    """CPU time of an answer then."""
    unloaded_p99_s: float
    """Of answers then."""
    goodput: float
    """Answers per second, once the server has settled."""
    p99_s: float
    """Of those answers."""
    answers: int
    """In the whole time, as the next ones."""
    refused: int
    first_refusal_p99_s: float
    """Before it has settled."""
    refusal_p99_s: float
    """Once it has."""
    refusal_s: float
    """CPU time of a refusal."""
    other: int
    """Neither 200 nor 503."""

    def __str__(self) -> str:
        return (
            f"{self.times:g} × capacity of {self.peak:.0f}/s: {self.goodput:.0f} answers/s, "
            f"p99 {self.p99_s * 1e3:.0f} ms; "
            f"{self.refused} refused, p99 {self.refusal_p99_s * 1e3:.0f} ms "
            f"(at first {self.first_refusal_p99_s * 1e3:.0f} ms), "
            f"{self.refusal_s * 1e6:.0f} µs each; {self.other} others"
        )


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cpus", type=float, default=1.0, help="CPU quota of the server, cores (default: 1)"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load (default: 8)")
    parser.add_argument("--rounds", type=int, default=4, help="of all loads (default: 4)")
    parser.add_argument("--cheap", action="store_true", help="a model that costs almost nothing")
    parser.add_argument("--short", action="store_true", help="a few seconds; judge no time")
    given = parser.parse_args()
    if given.short:
        given.seconds, given.rounds = 4.0, 1
    console = Console()
    begun = begin(console)
    with tempfile.TemporaryDirectory() as folder:
        model = None if given.cheap else expensive(4, width=256, layers=2000)
        write_bundle(Path(folder), **({"model": model} if model else {}))
        with control_group("overload", Limits(cpus=given.cpus, memory_bytes=1 << 30)) as group:
            checks, phases = _overloaded(Path(folder), group, given, console)
    figures = {f"{phase.times:g}": phase._asdict() for phase in phases}
    title = f"more requests than {given.cpus:g} CPU can answer"
    return conclude(begun, "overload", title, checks, figures, console=console)


def _overloaded(
    bundles: Path, group: Group, given: argparse.Namespace, console: Console
) -> tuple[list[Check], list[Phase]]:
    """Overload a server, and measure around each load what is normal: its own times at a low load,
    and the capacity of another server, whose queue may stand."""
    # One row a run: a row costs as much in a long queue as in a short one, so there is one peak.
    settings: dict[str, Any] = {"wrap": group.wrap, "workers": 1, "max_batch_size": 1}
    with ExitStack() as servers:
        full = servers.enter_context(serving(bundles, **settings))
        answers, took_s = asyncio.run(_answers(full, 1.0))  # also what is done once
        target_ms = TARGET_ROWS * took_s / answers * 1e3
        console.print(f"a row takes {took_s / answers * 1e3:.1f} ms, may wait {target_ms:.1f} ms")
        server = servers.enter_context(serving(bundles, queue_target_ms=target_ms, **settings))

        def sent(rate: float, seconds: float) -> list[Sent]:
            load = Load(server.port, BODIES, rate=rate, connections=CONNECTIONS)
            with load.running():
                time.sleep(seconds)
            return load.sent

        def measured() -> Normal:
            before = group.usage()
            answers, took_s = asyncio.run(_answers(full, given.seconds / 3))
            answer_s, peak = group.usage().since(before).cpu_s / answers, answers / took_s
            quiet = sent(peak * UNLOADED, given.seconds / 3)
            return Normal(peak, answer_s, [one.latency_s for one in quiet])

        overloads: dict[float, list[Overload]] = {times: [] for times in TIMES}
        found = measured()
        for times in TIMES * given.rounds:
            before = group.usage()
            loaded = sent(found.peak * times, given.seconds)
            cpu_s = group.usage().since(before).cpu_s
            earlier, found = found, measured()
            overloads[times].append(Overload(loaded, cpu_s, earlier.with_later(found)))
            console.print(str(_phase(times, overloads[times][-1:])), highlight=False)
        normal_s = _normal_after(sent(found.peak / 2, 4.0), LATER * found.p99_s)
    phases = [_phase(times, found) for times, found in overloads.items()]
    return _judged(phases, normal_s, given), phases


async def _answers(server: Server, seconds: float) -> tuple[int, float]:
    """How many answers clients get that ask without a pause, and the seconds until the last one:
    those that wait at the end are run after it."""
    begin, answers = time.monotonic(), 0
    end = begin + seconds
    message = request("/predict", BODIES[0])

    async def ask() -> None:
        nonlocal answers
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while time.monotonic() < end:
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            answers += head.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(ask() for _ in range(CLOSED)))
    return answers, time.monotonic() - begin


def _phase(times: float, overloads: Sequence[Overload]) -> Phase:
    """What happened at one load, in all rounds."""
    answered, late, first, settled_s = list[float](), list[float](), list[float](), 0.0
    for one in overloads:
        settles_at = min(sent.at_s for sent in one.sent) + SETTLED_S
        settled_s += max(sent.at_s for sent in one.sent) - settles_at
        settled = [sent for sent in one.sent if sent.at_s > settles_at]
        answered += [sent.latency_s for sent in settled if sent.status == OK]
        late += [sent.latency_s for sent in settled if sent.status == REFUSED]
        first += [
            sent.latency_s
            for sent in one.sent
            if sent.at_s <= settles_at and sent.status == REFUSED
        ]
    statuses = Counter(sent.status for one in overloads for sent in one.sent)
    answers, refused = statuses[OK], statuses[REFUSED]
    peak = mean(one.normal.peak for one in overloads)
    answer_s = mean(one.normal.answer_s for one in overloads)
    left_s = max(0.0, sum(one.cpu_s for one in overloads) - answers * answer_s)
    return Phase(
        times=times,
        peak=peak,
        answer_s=answer_s,
        unloaded_p99_s=percentile([s for one in overloads for s in one.normal.latencies_s], 0.99),
        goodput=len(answered) / settled_s,
        p99_s=percentile(answered, 0.99) if answered else inf,
        answers=answers,
        refused=refused,
        first_refusal_p99_s=percentile(first, 0.99) if first else 0.0,
        refusal_p99_s=percentile(late, 0.99) if late else 0.0,
        refusal_s=left_s / refused if refused else 0.0,
        other=statuses.total() - answers - refused,
    )


def _normal_after(sent: list[Sent], longest_s: float) -> float:
    """Seconds until requests of half the capacity are answered as if nothing had been."""
    begin_s = min(one.at_s for one in sent)
    late = [one.at_s for one in sent if one.status != OK or one.latency_s > longest_s]
    return max(late, default=begin_s) - begin_s


def _judged(phases: list[Phase], normal_s: float, given: argparse.Namespace) -> list[Check]:
    """What must hold; the short form judges no time."""
    checks = []
    still_s = PERIOD_S if given.cpus < 1 else 0.0
    quickest_s = REFUSAL_S + still_s
    for one in phases:
        least = GOODPUT if one.times < max(TIMES) else GOODPUT_AT_MOST
        name, share = f"{one.times:g} ×", one.goodput / one.peak
        cost = one.refusal_s / one.answer_s
        longest_s = LATER * one.unloaded_p99_s + still_s
        checks += [
            Check(f"{name}, goodput", f"{share:.0%} of the peak", f"{least:.0%}", share >= least),
            Check(f"{name}, neither answered nor refused", f"{one.other}", "0", not one.other),
        ]
        times = [_time(f"{name}, p99", one.p99_s, longest_s)]
        if one.refused:
            times.append(_time(f"{name}, refusals, p99", one.refusal_p99_s, quickest_s))
        checks += times if one.times > 1 else map(_shown, times)
        if one.refused > one.answers:  # what the answers leave of the CPU time is then theirs
            part, cheap = f"{cost:.0%} of an answer's", cost <= MOST_COST
            checks.append(Check(f"{name}, CPU time of a refusal", part, f"{MOST_COST:.0%}", cheap))
    back = normal_s <= NORMAL_S
    checks.append(Check("normal again after", f"{normal_s:.1f} s", f"{NORMAL_S:g} s", back))
    if given.short:
        never = "neither answered nor refused"
        return [one if never in one.name else _shown(one) for one in checks]
    return checks


def _time(name: str, found_s: float, most_s: float) -> Check:
    return Check(name, f"{found_s * 1e3:.0f} ms", f"{most_s * 1e3:.0f} ms", found_s <= most_s)


def _shown(check: Check) -> Check:
    """The same without a limit."""
    return check._replace(allowed="", held=True)


if __name__ == "__main__":
    sys.exit(main())
