"""One run, phase by phase.

null server (`floor` in records) → start → warm-up → ramp → settle → steady (→ overload → recovery)
→ pool and fresh by turns → drain → cool-down.
"""

import itertools
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from loadlab.generator import exchange
from loadlab.generator.exchange import Exchange, Fresh
from loadlab.generator.http import Client
from loadlab.generator.launch import Generator, Part, generating, witnessing
from loadlab.generator.ledger import Host, Tick
from loadlab.generator.plan import Load, Steer
from loadlab.generator.witness import CONNECTIONS
from loadlab.record.schema import (
    Drain,
    PhaseName,
    ProcessInfo,
    ProcessSample,
    Role,
    Workers,
)
from loadlab.record.store import Recorder
from loadlab.run import null_server
from loadlab.run.order import Order
from loadlab.run.timeline import HUNG_S, Book, Fault, LiveLine, hopeless
from loadlab.target.serving import Sampler, Serving
from loadlab.verdict.stats import PAIRS
from loadlab.verdict.steadiness import WINDOWS, agreement, windows

WARMUP_S, WARMUP_HZ = 5.0, 200.0
SETTLE_MOST_S = 60
DRAIN_MOST_S = 30.0
_TURNS: tuple[PhaseName, PhaseName] = ("pool", "fresh")
"""The steady phase's bodies and ones that nobody has sent, neighbours in time: a machine that is
slower for a while is so for both."""
_LONG_STEADY_S = 60.0
"""From here on a turn lasts 2 s, else 1 s: it takes up to 0.3 s until all users have the order."""
_LEARN_MOST_S = 60.0
"""A server that takes a second for an answer gets some 60 bodies instead of 1,000, which would take
it a quarter of an hour before the first user."""
_START_MOST_S = 60.0
_POLL_S = 0.1
_MOST_LOGGED = 1 << 18
"""Bytes that are kept of a process's log."""


def caching_s(steady_s: float) -> float:
    """How long the phases that look for a cache take together."""
    return 2.0 * PAIRS * _turn_s(steady_s)


def _turn_s(steady_s: float) -> float:
    return 2.0 if steady_s >= _LONG_STEADY_S else 1.0


class Conductor:
    """Carries out one run on a server that was started for it.

    Args:
        order: what was asked.
        recorder: keeps the run; its epoch is `start`.
        start: of the run, on the monotonic clock.
        line: shows how it goes.
        deadline_s: when the run is stopped, whatever it does.
    """

    def __init__(
        self, order: Order, recorder: Recorder, start: float, line: LiveLine, deadline_s: float
    ) -> None:
        self._order, self._recorder, self.start, self._line = order, recorder, start, line
        self._deadline_s = deadline_s
        self.book = Book(recorder, workers=1)
        self.sampler = Sampler(recorder.sample, start)
        self._serving: Serving | None = None
        self._generator: Generator | None = None

    def now(self) -> float:
        """Seconds since the run's start."""
        return time.monotonic() - self.start

    def begin(self, name: PhaseName, at_s: float | None = None, users: int = 0) -> None:
        """Begin a phase now, or at a second that is about to begin or just passed."""
        self.book.begin(name, self.now() if at_s is None else at_s, users)
        self._line.phase = name

    def measure_null_server(
        self, folder: Path, load: Load, parts: Callable[[Path, Load], list[Part]], cpus: str
    ) -> None:
        """What the null server answers and uses under the same load."""
        self.begin("floor")
        seconds = load.users / load.rate + null_server.STEADY_S[1]
        self._line.say(f"the null server is driven first, for about {seconds:.0f} s")
        ticks, used = null_server.measure(
            folder, load, parts, cpus, self._order.steady_s, self._order.listen
        )
        self.book.take(ticks, "floor")
        self._recorder.run.null_server = used
        if used is None and self._order.remote:
            most_s = null_server.most_s(load.users, load.rate)
            raise Fault(
                "generator_broke",
                f"not all {load.workers} workers and their users were there within {most_s:.0f} s: "
                f"start `just load-worker master={self._order.listen}` on each of the other "
                "machines first, in a clone of the same commit",
            )

    def warm_up(self, serving: Serving) -> tuple[list[Exchange], Fresh | None]:
        """Prove the server right on golden rows, learn the answers to the others, and let it run a
        while; returns what users shall ask, and bodies that nobody has sent before."""
        self._serving = serving
        run = self._recorder.run
        run.replicas = serving.replicas()
        run.details |= serving.details
        self.begin("warmup")
        clients = [Client(*address, serving.path) for address in serving.addresses]
        try:
            exchanges = self._warm_up(serving, clients)
            return exchanges, self._fresh(serving, exchanges)
        finally:
            for client in clients:
                client.close()

    def load(self, folder: Path, load: Load, parts: list[Part]) -> None:
        """Ramp, settle, steady, and what belongs after; ends with everything stopped. `folder` is
        for the processes' files."""
        serving = self._serving
        assert serving  # noqa: S101  `warm_up` ran before
        self.book = Book(self._recorder, load.workers, self.book)
        with ExitStack() as stack:
            stack.callback(self._keep_logs, folder)
            self.sampler.server, self.sampler.uncounted = serving, CONNECTIONS
            self.sampler.start()
            stack.callback(self.sampler.stop)
            stack.callback(self._read_back, serving, serving.cpu_s())
            self.book.ramp_users = load.users
            generator = self._generator = stack.enter_context(
                generating(folder / "generator", load, parts)
            )
            self._witness = stack.enter_context(witnessing(folder / "witness", load))
            # Also for a run that ends early: without it there is no FAIL.
            stack.callback(self._note_workers, generator, load.workers)
            self._name_processes(serving, generator)
            self._ramp(load)
            serving.settled()
            stack.callback(self._note_answered, serving, serving.answered())
            self._settle()
            self._look_for_cache(self._steady(), load)
            self._drain(generator)
        self._generator = None
        self.begin("cooldown")

    def check(self) -> None:
        """Read what the processes reported, show it, and check the run; raises `Fault`."""
        generator, serving = self._generator, self._serving
        if generator and serving:
            ticks = generator.ticks()
            self._note_hosts(ticks)
            self.book.take(ticks)
            self.book.take(self._witness.ticks(), "witness")
            self._line.show(self.book, self.sampler.latest)
            if sentence := serving.ended():
                raise Fault("server_died", sentence)
            if sentence := generator.broken() or self._witness.broken():
                raise Fault("generator_broke", sentence)
            # On this machine a worker that is only late is the rules' matter
            if self._order.remote and (sentence := generator.lost()):
                raise Fault("generator_broke", sentence)
        if self.sampler.failure:
            raise self.sampler.failure
        if self.now() > self._deadline_s:
            raise Fault("aborted", f"stopped at the hard limit of {self._deadline_s:.0f} s")

    def _note_hosts(self, ticks: Sequence[Tick]) -> None:
        """What workers on other machines report of themselves, next to what is sampled here."""
        run, sampler = self._recorder.run, self.sampler
        for tick in ticks:
            if tick.host is None:
                continue
            if tick.worker not in sampler.remote:
                run.processes.append(_remote_info(tick.worker, tick.host))
                error_ms = tick.host.clock_error_s * 1e3
                run.details[f"clock of {tick.worker}"] = f"within {error_ms:.2f} ms of the lab's"
            sampler.remote[tick.worker] = ProcessSample(cpu_s=tick.host.cpu_s)
            sampler.hosts[tick.host.name] = tick.host.sample

    def _warm_up(self, serving: Serving, clients: list[Client]) -> list[Exchange]:
        golden = (
            sum(exchange.prove(serving.manifest, client.ask) for client in clients)
            if serving.manifest
            else 0
        )
        self._recorder.run.details["golden_rows_proven"] = str(golden)
        rows_of = serving.manifest or serving.rows_of
        bodies = exchange.bodies(self._order.model, rows_of, self._order.seed)
        exchanges = exchange.learn(bodies, clients[0].ask, most_s=_LEARN_MOST_S)
        bodies = [each.body for each in exchanges]
        if serving.manifest and serving.graph:
            expected = exchange.expected(serving.graph, serving.manifest, bodies)
            computed = exchange.agree(exchanges, expected)
            self._recorder.run.details["answers_computed"] = str(computed)
        self._ask_all(exchanges, clients)
        return exchanges

    def _fresh(self, serving: Serving, pool: list[Exchange]) -> Fresh | None:
        """Bodies for the turns that look for a cache, with answers where the lab has the graph."""
        order, details = self._order, self._recorder.run.details
        if serving.manifest is None:
            return None
        found = Fresh.find(serving.manifest, pool, order.seed)
        if found and serving.graph:
            rate_hz = order.users / order.scenario.mean_think_s
            # Users do not ask evenly: some more than on average.
            expected = round(1.5 * rate_hz * caching_s(order.steady_s) / 2) + order.users
            found, (of_pool, of_fresh) = found.compute(
                serving.graph, serving.manifest, pool, expected
            )
            details |= {"inference_us": f"{of_pool:.1f}", "fresh_inference_us": f"{of_fresh:.1f}"}
        count = f"{len(found.answers)} with answers" if found else "none: too few different rows"
        details["fresh_bodies"] = count
        return found

    def _ask_all(self, exchanges: list[Exchange], clients: list[Client]) -> None:
        """Ask at `WARMUP_HZ` for `WARMUP_S`, and check every answer."""
        end = time.monotonic() + min(WARMUP_S, self._order.steady_s)
        for client, each in zip(itertools.cycle(clients), itertools.cycle(exchanges), strict=False):
            if time.monotonic() >= end:
                return
            exchange.expect(each, client.ask)
            time.sleep(1 / WARMUP_HZ)

    def _name_processes(self, serving: Serving, generator: Generator) -> None:
        named: list[tuple[str, Role, int, str]] = [("lab", "lab", os.getpid(), "loadlab load")]
        named += [
            (part.name, part.role, generator.processes[part.name].pid, " ".join(part.command))
            for part in generator.parts
        ]
        witness = self._witness.processes["witness"].pid
        named.append(("witness", "witness", witness, "loadlab.generator.witness"))
        named += [
            (f"server-{number}", "server", pid, "halfcore serve")
            for number, pid in enumerate(serving.pids, 1)
        ]
        if serving.balancer_pid:
            named.append(("balancer", "server", serving.balancer_pid, "haproxy"))
        self.sampler.processes = {name: pid for name, _, pid, _ in named}
        self.sampler.generators = [pid for _, role, pid, _ in named if role == "generator"]
        held = sorted(serving.cpus())
        self._recorder.run.processes = [
            ProcessInfo(
                name=name,
                role=role,
                pid=pid,
                cpus=(held if role == "server" else []) or sorted(os.sched_getaffinity(pid)),
                nofile=_most_files(pid),
                command=command,
            )
            for name, role, pid, command in named
        ]

    def _ramp(self, load: Load) -> None:
        self._line.phase = "ramp"  # the record's phase begins with the first user
        deadline = time.monotonic() + _START_MOST_S
        while self.book.first_s is None:
            self._poll()
            if time.monotonic() > deadline:
                raise Fault(
                    "generator_broke",
                    f"no user was there {_START_MOST_S:.0f} s after the generator's start",
                )
        deadline = time.monotonic() + load.users / load.rate * 2 + 10
        while self._users() < load.users and time.monotonic() < deadline:
            self._poll()

    def _settle(self) -> None:
        rules = self._recorder.run.criteria.rules
        start = self.book.next
        self.begin("settle", float(start), self._order.users)
        most_s = min(SETTLE_MOST_S, max(self._order.steady_s, rules.v13_window_s * WINDOWS + 1))
        while self.book.whole < start + most_s:
            self._poll()
            lines = list(itertools.chain.from_iterable(self.book.since(start)))
            found = windows(lines, start, self.book.whole + 1, rules.v13_window_s)
            if len(found) >= WINDOWS and all(check.holds for check in agreement(found, rules)):
                return

    def _steady(self) -> float:
        """The seconds that count; returns the second in which they end."""
        order, surge = self._order, self._order.scenario.surge
        start = self.book.next
        self.begin("steady", float(start), order.users)
        self._until(start + (surge.after if surge else order.steady_s))
        if surge and self._generator:
            self._generator.steer(Steer(pace=surge.factor))
            self.begin("overload", float(start + surge.after), order.users)
            self._until(start + surge.after + surge.seconds)
            self._generator.steer(Steer())
            self.begin("recovery", float(start + surge.after + surge.seconds), order.users)
            self._until(start + order.steady_s)
        return start + order.steady_s

    def _look_for_cache(self, start: float, load: Load) -> None:
        """The same load with the same bodies and with new ones, by turns: is the server cheaper
        where it could remember answers? Which is first is drawn, for half of the pairs each."""
        turns = [*[_TURNS] * (PAIRS // 2), *[_TURNS[::-1]] * (PAIRS // 2)]
        random.Random(self._order.seed).shuffle(turns)  # noqa: S311  an order, reproducible
        for name in itertools.chain.from_iterable(turns) if load.fresh else ():
            if self._generator:
                self._generator.steer(Steer(bodies="pool" if name == "pool" else "fresh"))
            self.begin(name, start, self._order.users)
            start += _turn_s(self._order.steady_s)
            self._until(start)

    def _drain(self, generator: Generator) -> None:
        generator.steer(Steer(pace=0))
        # Users stop now: a second that has hardly begun is none of their load
        start = round(self.now())
        self.begin("drain", float(start))
        deadline = time.monotonic() + DRAIN_MOST_S
        while time.monotonic() < deadline:
            self._poll(hopeless_too=False)
            last = self.book.since(start)
            if len(last) > 1 and not any(tick.in_flight or tick.sent for tick in last[-1]):
                break
        waiting = [sum(tick.in_flight for tick in each) for each in self.book.since(start)] or [0]
        self._recorder.run.drain = Drain(in_flight=waiting[0], unfinished=waiting[-1])

    def _note_answered(self, serving: Serving, before: Sequence[int | None]) -> None:
        """Whatever ends the load: which replica answered how much of it since all users were
        there."""
        run, counts = self._recorder.run, zip(before, serving.answered(), strict=True)
        answered = [None if b is None or a is None else a - b for b, a in counts]
        if answered:
            run.replicas = [
                msgspec.structs.replace(each, answered=count)
                for each, count in zip(run.replicas, answered, strict=True)
            ]

    def _read_back(self, serving: Serving, cpu_s_before: list[float]) -> None:
        """Whatever ends the load: the limits now, and the CPU time that it took."""
        run = self._recorder.run
        run.replicas = serving.read_back(run.replicas, cpu_s_before)

    def _keep_logs(self, folder: Path) -> None:
        """Whatever ends the load: the last part of what its processes said, in the run's folder."""
        with suppress(OSError):  # the disk is full
            for log in (*folder.glob("generator/*.log"), *folder.glob("witness/*.log")):
                with log.open("rb") as file:
                    file.seek(max(log.stat().st_size - _MOST_LOGGED, 0))
                    if said := file.read():
                        (self._recorder.folder / log.name).write_bytes(said)

    def _note_workers(self, generator: Generator, expected: int) -> None:
        reported = expected if self.book.since(self.book.whole) else 0
        found = generator.workers() or Workers(expected=expected)
        self._recorder.run.workers = msgspec.structs.replace(found, reported=reported)

    def _until(self, t: float) -> None:
        """Continue until second `t` has begun."""
        while self.now() < t:
            self._poll()

    def _poll(self, *, hopeless_too: bool = True) -> None:
        time.sleep(_POLL_S)
        self.check()
        if hopeless_too and not self._order.scenario.surge:
            since, criteria = self.book.whole + 1 - HUNG_S, self._recorder.run.criteria
            last, witnessed = self.book.since(since), self.book.witnessed(since)
            if fault := hopeless(last, criteria.objective, witnessed):
                raise fault

    def _users(self) -> int:
        return sum(
            tick.users or 0 for second in self.book.since(self.book.whole) for tick in second
        )


def _most_files(pid: int) -> int:
    """A process's soft limit on open files; `prlimit` needs root for another user's."""
    (soft,) = re.findall(r"^Max open files +(\S+)", Path(f"/proc/{pid}/limits").read_text(), re.M)
    return 1 << 30 if soft == "unlimited" else int(soft)


def _remote_info(worker: str, host: Host) -> ProcessInfo:
    """Without a limit on open files, for those that it has open are not known here (V9)."""
    command = f"Locust worker on {host.name}, {host.cores} cores"
    return ProcessInfo(name=worker, role="generator", pid=0, cpus=[], nofile=0, command=command)
