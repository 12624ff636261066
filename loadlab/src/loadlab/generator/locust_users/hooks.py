"""What ties Locust's processes to the lab. Imported by `locustfile.py`.

The master reads the load from a file and sends it to every worker that connects, so that workers on
other machines need no files. Each worker sends one `Tick` a second; the master appends them to a
file, which the lab follows. The lab steers through a file too, which the master watches and passes
on. Without the lab (`locust -f loadlab/locustfile.py`), options choose the scenario and nothing is
written.
"""

import gc
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import gevent
import msgspec
from gevent.event import AsyncResult, Event
from locust import argument_parser, events
from locust.runners import MasterRunner, WorkerRunner

from loadlab.generator import plan
from loadlab.generator.http import meaning
from loadlab.generator.ledger import Host, Tick
from loadlab.generator.locust_users import (
    FastHttpUser,
    RawHttpUser,
    Session,
    StockHttpUser,
    ThinkingUser,
    count_connections,
    mend_keep_alive,
)
from loadlab.generator.plan import Load, Steer
from loadlab.record import counters
from loadlab.record.histogram import merge
from loadlab.record.schema import Workers
from loadlab.record.store import write

KINDS: dict[str, type[ThinkingUser]] = {
    "raw": RawHttpUser,
    "fast": FastHttpUser,
    "fast-unmended": FastHttpUser,
    "stock": StockHttpUser,
}
_OPTIONS = (
    ("--scenario", "steady", "how users think, without the lab: steady (the default), second, …"),
    ("--model", "iris", "whose rows are sent, without the lab: iris (the default), penguins-lr, …"),
    ("--load", "", "the lab's plan for this run; replaces --scenario and --model"),
    ("--ticks", "", "file that the master appends counts to, a line per worker and second"),
    ("--steer", "", "file that the master watches for changes of pace"),
)
_ON_PAGE = {"--scenario", "--model"}
_ASK, _LOAD, _TICK, _STEER = "loadlab_ask", "loadlab_load", "loadlab_tick", "loadlab_steer"
_TIME = "loadlab_time"
_CLOCK_QUESTIONS = 10
_REMOTE = "LOADLAB_PARENT" not in os.environ
"""Whether this process was started on another machine, and not by the lab."""
_METHOD, _NAME = "POST", "predict"
_LOG = logging.getLogger(__name__)
_SAY_EVERY = 12
"""Of the times that a worker tries to reach its master, 5 s each."""
_LOOP_PROBE_S = 0.01
_WATCH_S = 0.1


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    group = parser.add_argument_group("load lab")
    group.add_argument(
        "--user", choices=sorted(KINDS), default="raw", help="user class (default: %(default)s)"
    )
    for name, default, text in _OPTIONS:
        action = group.add_argument(name, default=default, help=text)
        action.include_in_web_ui = name in _ON_PAGE


@events.init.add_listener
def _start(environment: Any, runner: Any, **_: Any) -> None:
    options = environment.parsed_options
    if isinstance(runner, WorkerRunner):
        _be_worker(environment, runner)
        return
    environment.user_classes[:] = [KINDS[options.user]]
    load = plan.read(Path(options.load)) if options.load else _by_hand(environment)
    if isinstance(runner, MasterRunner):
        change = _be_master(runner, load, options)
    else:
        Session.load = load
        _open(environment, options.user, "local")
        change = partial(Session.change, place=0)
    if not options.load:
        # Somebody may have changed the fields of the page, and the host's name may resolve by now.
        environment.events.test_start.add_listener(lambda **_: change(_by_hand(environment)))


def _by_hand(environment: Any) -> Load:
    """The load of the options, as the command line or the page has them now."""
    options, runner = environment.parsed_options, environment.runner
    load = plan.by_hand(
        environment.host or "http://127.0.0.1:8000",
        options.scenario,
        options.model,
        rate=float(options.spawn_rate or 1),
        workers=max(runner.worker_count, 1) if isinstance(runner, MasterRunner) else 1,
    )
    if load.problem:
        _LOG.warning(f"{load.problem}; correct it on the page or on the command line")
    return load


def _be_master(runner: MasterRunner, load: Load, options: Any) -> Callable[[Load], None]:
    """Returns what changes the load, for this process's workers too."""
    # Open until the process ends
    ticks = Path(options.ticks).open("ab", buffering=0) if options.ticks else None  # noqa: SIM115
    message = {"load": msgspec.json.encode(load), "user": options.user}

    def change(other: Load) -> None:
        message["load"] = msgspec.json.encode(msgspec.structs.replace(other, start=load.start))
        runner.send_message(_LOAD, message)

    def answer(msg: Any, **_: Any) -> None:
        runner.send_message(_LOAD, message, msg.node_id)

    def answer_time(msg: Any, **_: Any) -> None:
        now_s = time.monotonic() - load.start
        runner.send_message(_TIME, {"now_s": now_s}, msg.node_id)

    def take(msg: Any, **_: Any) -> None:
        if ticks:
            ticks.write(msg.data["tick"] + b"\n")

    for name, listener in ((_ASK, answer), (_TIME, answer_time), (_TICK, take)):
        runner.register_message(name, listener)
    if options.steer:
        report = Path(options.ticks).with_suffix(".workers")
        gevent.spawn(_watch, runner, load.workers, Path(options.steer), report)
    return change


def _watch(runner: MasterRunner, workers: int, file: Path, report: Path) -> None:
    """Pass on every change of the steering file; write down how the workers are."""
    before, missing, silent = b"", set[str](), 0
    while True:
        gevent.sleep(_WATCH_S)
        now = file.read_bytes() if file.exists() else b""
        if now != before:
            runner.send_message(_STEER, {"steer": now})
            before = now
        missing |= {client.id for client in runner.clients.missing}
        silent += sum(client.heartbeat <= 0 for client in runner.clients.all)
        known = {"missing": len(missing), "missed_heartbeats": silent}
        write(Workers(expected=workers, **known), report)


def _connect(
    runner: WorkerRunner, connect: Callable[[WorkerRunner], None] = WorkerRunner.connect_to_master
) -> None:
    """Say that a worker waits for its master: Locust tries for 30 s without a word. It calls this
    again after each time, and counts them."""
    if runner.retry % _SAY_EVERY == 1:
        host = runner.master_host
        _LOG.warning(
            f"no master answers at {host}:{runner.master_port} yet, trying again: start `just load "
            f"tier=… remote=… listen={host}` or `just load-master` there, or correct the address"
        )
    connect(runner)


def _be_worker(environment: Any, runner: WorkerRunner) -> None:
    type(runner).user_classes_count = property(_count_users)  # type: ignore[method-assign, assignment]
    # Locust builds its whole command line once for every option of every message that starts users:
    # 50 ms in which no other user runs.
    argument_parser.default_args_dict = cache(argument_parser.default_args_dict)
    argument_parser.default_args_dict()
    clock, opening = Clock(runner) if _REMOTE else None, Event()

    def take_load(msg: Any, **_: Any) -> None:
        Session.load = msgspec.json.decode(msg.data["load"], type=Load)
        if Session.ready.is_set():
            Session.change(Session.load, max(runner.worker_index, 0))
        elif not opening.is_set():
            opening.set()
            name, user = str(runner.client_id), msg.data["user"]
            gevent.spawn(_open, environment, user, name, runner, clock)

    def take_steer(msg: Any, **_: Any) -> None:
        Session.steer = msgspec.json.decode(msg.data["steer"], type=Steer)

    runner.register_message(_LOAD, take_load)
    runner.register_message(_STEER, take_steer)
    runner.send_message(_ASK)  # asked for: a worker is connected before its listeners are there


class Clock:
    """When the lab's run began, on the clock of a worker's machine: asked of the master, for the
    clocks of two machines differ."""

    def __init__(self, runner: WorkerRunner) -> None:
        self._runner, self._answer = runner, AsyncResult()
        self.error_s = 0.0
        runner.register_message(_TIME, lambda msg, **_: self._answer.set(msg.data["now_s"]))

    def epoch(self) -> float:
        """The run's beginning; the fastest answer of several says it best."""
        found = []
        for _ in range(_CLOCK_QUESTIONS):
            self._answer, asked = AsyncResult(), time.monotonic()
            self._runner.send_message(_TIME)
            now_s, answered = float(self._answer.get()), time.monotonic()
            found.append(((answered - asked) / 2, (asked + answered) / 2 - now_s))
        self.error_s, epoch = min(found)
        return epoch

    def host(self) -> Host:
        """This worker and its machine, now."""
        return Host(
            name=socket.gethostname(),
            cores=os.cpu_count() or 1,
            cpu_s=time.process_time(),
            sample=counters.host(),
            clock_error_s=self.error_s,
        )


def _count_users(runner: WorkerRunner) -> dict[str, int]:
    """Users by class.

    Locust's own walks through all of them, five times for every second of a ramp: 50 ms with 10,000
    users, in which no other one runs.
    """
    counts = dict.fromkeys((kind.__name__ for kind in KINDS.values()), 0)
    if Session.ready.is_set():
        counts[Session.kind.__name__] = len(runner.user_greenlets)
    return counts


def _open(
    environment: Any,
    user: str,
    name: str,
    runner: WorkerRunner | None = None,
    clock: Clock | None = None,
) -> None:
    """Prepare for users of the session's load, and start the tasks that run next to them."""
    gc.disable()  # until all users are there: collections over thousands of them show as latency
    kind = KINDS[user]
    if kind is FastHttpUser:
        count_connections()
        if user != "fast-unmended":
            mend_keep_alive()
    epoch = clock.epoch() if clock else Session.load.start
    Session.open(Session.load, kind, name, max(runner.worker_index, 0) if runner else 0, epoch)
    environment.events.user_error.add_listener(_count_error)
    environment.events.spawning_complete.add_listener(_freeze)
    gevent.spawn(_report, environment, runner, clock)
    gevent.spawn(_probe_loop)


def _report(environment: Any, runner: WorkerRunner | None, clock: Clock | None) -> None:
    while True:
        gevent.sleep(Session.ledger.seconds_left())
        tick = Session.ledger.tick()
        tick.host = clock.host() if clock else None
        if Session.kind is RawHttpUser:  # the others report each request to Locust themselves
            _add_to_locust(environment.stats, tick)
        if runner:
            runner.send_message(_TICK, {"tick": msgspec.json.encode(tick)})


def _add_to_locust(stats: Any, tick: Tick) -> None:
    """Give Locust's own statistics (its page, its summary) one second's requests at once; response
    times in whole milliseconds, as Locust keeps them."""
    times = Counter[int]()
    for value_us, count in merge([tick.response, tick.failed]).items():
        times[value_us // 1000] += count
    for kind in Counter(tick.failures).elements():
        stats.log_error(_METHOD, _NAME, meaning(kind, Session.bodies.get(kind, b"")))
    if not times:
        return
    now = time.time()
    for entry in (stats.get(_NAME, _METHOD), stats.total):
        entry.num_requests += times.total()
        entry.num_reqs_per_sec[int(now)] += times.total()
        entry.last_request_timestamp = now
        entry.total_response_time += sum(value * count for value, count in times.items())
        entry.min_response_time = min({entry.min_response_time, *times} - {None})
        entry.max_response_time = max(entry.max_response_time, *times)
        for value_ms, count in times.items():
            entry.response_times[value_ms] += count


def _probe_loop() -> None:
    """How late is this process's event loop?"""
    loop_lag_us, clock, sleep = Session.ledger.loop_lag_us, time.monotonic, gevent.sleep
    while True:
        before = clock()
        sleep(_LOOP_PROBE_S)
        loop_lag_us[max(int((clock() - before - _LOOP_PROBE_S) * 1e6), 0)] += 1


def _count_error(**_: Any) -> None:
    Session.ledger.errors += 1


def _freeze(**_: Any) -> None:
    """From now on the garbage collector leaves the users alone."""
    gc.freeze()
    gc.enable()


WorkerRunner.connect_to_master = _connect  # type: ignore[method-assign]
plan.die_with_asked_parent()
