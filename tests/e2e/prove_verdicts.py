"""Whole load runs against servers with planted faults and against servers that cheat: each must be
caught by what is meant for it. `just prove-verdicts`, or some of them by name.

A real generator, a real server in half a core, and a fault in one of the two. The runs without a
fault must pass, so that every other verdict is the fault's. The cheats are tried with every engine
(`--engines`). A run takes one to two minutes, all of them more than an hour; on a busy machine the
rules call an honest run INVALID, as they should. The exit code is 0 if every verdict is as
expected, 4 without control groups.
"""

import argparse
import dataclasses
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from loadlab.record import cgroup
from loadlab.record.cgroup import Limits
from loadlab.record.schema import EndKind, PhaseName, Run
from loadlab.target.process import control_group
from loadlab.verdict.judge import Outcome, Verdict
from support.labs import CHECKOUT, Lab, left_over, process_of

Act = Callable[[Run, ExitStack], None]
"""Done to a run; what it makes on the way ends with the stack."""
_MOST_S = 300
_SURVIVAL, _MEMORY = "ends, hangs or restarts of the server", "kills for want of memory"
_ERRORS, _WRONG, _WINDOWS = (
    "errors in ramp and steady",
    "wrong answers",
    "windows whose p99 is above 250 ms",
)


@dataclass(frozen=True)
class Case:
    """One fault and what has to come of it.

    Attributes:
        fault: of the server, as `tests/support/faulty` names it.
        act: what is done to the run's processes, in the phase.
        missed: the lines of the objective that have to be missed, and no other; None: any.
        rules: that have to be broken; for a FAIL others that only a PASS needs may be.
        failures: the only kind of failure there may be; empty: any.
        ended: how the run has to end; None: early or not.
        named: what the verdict's sentence has to say.
        at_rest: the fault is there before any load.
    """

    what: str
    words: tuple[str, ...]
    outcome: Outcome
    fault: str = ""
    phase: PhaseName = "ramp"
    act: Act | None = None
    missed: frozenset[str] | None = frozenset()
    rules: frozenset[str] = frozenset()
    failures: str = ""
    ended: EndKind | None = "complete"
    memory: str = "512M"
    named: str = ""
    at_rest: bool = False


def _kill(role: str, number: signal.Signals) -> Act:
    return lambda run, _: os.kill(process_of(run, role), number)


def _starve(run: Run, stack: ExitStack) -> None:
    """Leave the generator a fiftieth of a core, as a container's limit would."""
    group = stack.enter_context(control_group("starving", Limits(cpus=0.02)))
    for folder in group.folders():
        (folder / "cgroup.procs").write_text(str(process_of(run, "generator")))


_USUAL = ("users=2000", "rate=125", "duration=40s")
"""Arriving over more than two think times, users spread evenly: those of a short ramp come back in
waves, and nothing would be steady."""
CASES = {
    "nothing": Case("no fault", _USUAL, "PASS"),
    "wrong": Case(
        "1 % of the answers wrong",
        _USUAL,
        "FAIL",
        fault="wrong:100",
        missed=frozenset({_ERRORS, _WRONG}),
        failures="wrong_prediction",
    ),
    "errors": Case(
        "1 % of the answers 500",
        _USUAL,
        "FAIL",
        fault="error:100",
        missed=frozenset({_ERRORS}),
        failures="status_500",
    ),
    "stall": Case(
        "the server stands still for 300 ms every 10 s",
        ("users=6000", "rate=375", "duration=60s"),
        "FAIL",
        fault="stall:0.3:10",
        missed=frozenset({_WINDOWS}),
    ),
    "starved": Case(
        "the generator gets 2 % of a core",
        _USUAL,
        "INVALID",
        phase="steady",
        act=_starve,
        rules=frozenset({"V2", "V3", "V4"}),
        ended=None,
    ),
    "keep-alive": Case(
        "a client that loses its keep-alive beyond 1,024 files",
        (*_USUAL, "user=fast-unmended"),
        "INVALID",
        rules=frozenset({"V7"}),
    ),
    "killed": Case(
        "the server is killed in the ramp",
        _USUAL,
        "FAIL",
        act=_kill("server", signal.SIGKILL),
        missed=frozenset({_SURVIVAL}),
        ended="server_died",
    ),
    "memory": Case(
        "the server takes memory without end",
        _USUAL,
        "FAIL",
        fault="hoard",
        missed=frozenset({_SURVIVAL, _MEMORY}),
        ended="server_died",
        memory="256M",
    ),
    "hang": Case(
        "the server is stopped and answers nothing",
        _USUAL,
        "FAIL",
        phase="steady",
        act=_kill("server", signal.SIGSTOP),
        missed=frozenset({_SURVIVAL, _ERRORS}),
        ended="server_hung",
    ),
    "worker": Case(
        "a worker of the generator is killed",
        _USUAL,
        "INVALID",
        act=_kill("generator", signal.SIGKILL),
        ended="generator_broke",
    ),
}

ENGINES = {
    "raw": ("engine=raw",),
    "locust-raw": ("user=raw",),
    "locust-fast": ("user=fast",),
    "locust-stock": ("user=stock",),
}
_SHORT = ("users=1000", "rate=125", "duration=20s")
_LIES = "wrong answers"


def _cheat(what: str, fault: str, named: str) -> Case:
    """A server that does not work right under load."""
    return Case(what, _SHORT, "FAIL", fault=fault, missed=None, named=named)


def _at_rest(what: str, fault: str) -> Case:
    """A server that does not answer by its model, and is found before any load."""
    return Case(
        what,
        _SHORT,
        "FAIL",
        fault=fault,
        missed=None,
        ended="wrong_answer",
        named="wrong answers before any load",
        at_rest=True,
    )


def _cache(what: str, fault: str) -> Case:
    return Case(what, _SHORT, "INVALID", fault=fault, missed=None, rules=frozenset({"V15"}))


CHEATS = {
    "honest": Case("an honest server", _SHORT, "PASS"),
    "honest-1ms": Case("an honest server, 1 ms more an answer", _SHORT, "PASS", fault="work:1"),
    "constant": _at_rest("a server without a model", "constant"),
    "shipped": _at_rest("right answers for the shipped rows only", "shipped"),
    "prefix": dataclasses.replace(
        _cheat("an error before the right bytes of every answer", "prefix:1", _LIES), ended=None
    ),
    "label": _cheat("0.5 % of the answers name another class", "label:200", _LIES),
    "truncate": _cheat("0.5 % of the answers lack a byte", "truncate:200", _LIES),
    "double": _cheat("0.5 % of the answers are sent twice", "double:200", _LIES),
    "status": _cheat("0.5 % of the answers are errors", "error:200", "error statuses (status_500)"),
    "reset": _cheat("0.5 % of the connections are broken off", "reset:200", "broken off"),
    "silent": _cheat("0.5 % of the requests get no answer", "hang:200", "without an answer"),
    "slow": dataclasses.replace(
        _cheat("every 200th answer is 3 s late", "slow:200:3", "max"), missed=frozenset({"max"})
    ),
    "cache": _cache("answers from a cache of all bodies, over 1 ms of work", "cache:1"),
    "first": _cache("a cache of the first 500 bodies, over 1 ms of work", "first:1:500"),
    "escape": Case(
        "the server leaves its limits",
        _SHORT,
        "INVALID",
        fault="escape",
        missed=None,
        rules=frozenset({"V11"}),
    ),
}
"""Servers that would like to pass without doing the work, each tried with every engine."""


def cases(names: list[str], engines: list[str]) -> dict[str, Case]:
    """The chosen cases by name; a cheat once for each engine."""
    chosen = {name: CASES[name] for name in names if name in CASES}
    for name in names:
        if name in CHEATS:
            case = CHEATS[name]
            chosen |= {
                f"{name}, {engine}": dataclasses.replace(case, words=case.words + ENGINES[engine])
                for engine in engines
            }
    return chosen


def main() -> int:
    """Run; 0 if every fault was caught as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = [*CASES, *CHEATS]
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(known)} (default: all)"
    )
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=ENGINES,
        default=list(ENGINES),
        help="for the cheats and the honest servers (default: all)",
    )
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="each so often (default: 1)"
    )
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = cases(asked.names or known, asked.engines)
    try:
        cgroup.version()
    except cgroup.Unavailable as error:
        sys.stderr.write(f"prove-verdicts: no server can be held to limits here: {error}\n")
        return 4
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # as an exception: the lab that runs is ended
    console = Console(width=160)
    table = Table(
        "planted",
        "expected",
        "verdict",
        "objective missed",
        "rules broken",
        "as expected",
        box=None,
    )
    failed = 0
    for name, case in list(chosen.items()) * asked.repeat:
        with tempfile.TemporaryDirectory() as folder:
            verdict, complaints = _prove(case, Path(folder), console)
        failed += bool(complaints)
        missed, broken = _missed(verdict), sorted(_broken(verdict), key=lambda rule: int(rule[1:]))
        console.print(
            f"{name}: {verdict.outcome}: {verdict.sentence}", highlight=False, markup=False
        )
        table.add_row(
            f"{case.what} ({name})",
            _expected(case),
            verdict.outcome,
            "; ".join(sorted(missed)) or "–",
            ", ".join(broken) or "–",
            "; ".join(complaints) or "yes",
        )
    console.print(table)
    return 1 if failed else 0


def _prove(case: Case, folder: Path, console: Console) -> tuple[Verdict, list[str]]:
    """Carry out one run; its verdict, and what is not as it should be."""
    lab = Lab(folder / "place")
    lab.bundles.symlink_to(CHECKOUT / ".halfcore/bundles")
    trigger = lab.plant(case.fault, memory=case.memory) if case.fault else None
    with ExitStack() as stack:
        stack.callback(lab.end)
        process = lab.start(*case.words)
        if not case.at_rest:
            run = lab.await_phase(case.phase, process)
            if trigger:
                trigger.touch()
            if case.act:
                case.act(run, stack)
        said, _ = process.communicate(timeout=_MOST_S)
    verdict, run = lab.verdict(), lab.stored().run
    complaints = [
        *_differences(case, verdict, run),
        *(f"left: {each}" for each in left_over(process, run)),
    ]
    if process.returncode != verdict.exit_code:
        complaints.append(f"exit code {process.returncode}")
    if complaints:
        console.print(said, highlight=False, markup=False)
    return verdict, complaints


def _differences(case: Case, verdict: Verdict, run: Run) -> Iterator[str]:
    if verdict.outcome != case.outcome:
        yield f"the verdict is {verdict.outcome}"
    if case.named not in verdict.sentence:
        yield f"the verdict does not say {case.named}"
    if case.outcome != "INVALID" and case.missed not in (None, _missed(verdict)):
        yield f"missed {', '.join(sorted(_missed(verdict))) or 'nothing'}"
    if case.failures and list(verdict.figures.failures) != [case.failures]:
        yield f"failures {', '.join(verdict.figures.failures) or 'none'}"
    if not case.rules <= _broken(verdict):
        yield f"{', '.join(sorted(case.rules - _broken(verdict)))} not broken"
    if run.ended is None or case.ended not in (None, run.ended.kind):
        yield f"it ended as {run.ended.kind if run.ended else 'nothing'}, not as {case.ended}"


def _missed(verdict: Verdict) -> frozenset[str]:
    """Lines of the objective that were measured and are not met."""
    return frozenset(
        check.what for check in verdict.objective if check.measured is not None and not check.holds
    )


def _broken(verdict: Verdict) -> frozenset[str]:
    """Rules of which something was measured beyond its limit."""
    return frozenset(
        each.rule
        for each in verdict.findings
        if any(check.measured is not None and not check.holds for check in each.checks)
    )


def _expected(case: Case) -> str:
    return ": ".join(
        part
        for part in (
            case.outcome,
            case.named or "; ".join(sorted(case.missed or ())) or ", ".join(sorted(case.rules)),
        )
        if part
    )


if __name__ == "__main__":
    sys.exit(main())
