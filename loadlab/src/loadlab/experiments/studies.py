"""`loadlab seeds`, `scale` and `quota-study`: what the course projects reported, one replica or
several, and the quota's period and burst with what keep-alive does to replicas behind a balancer.

The cells are tables, `seeds.toml` and `studies.toml`. Each cell runs once in every block; exit
codes as `loadlab compare`.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import replace
from rich.console import Console

from loadlab import words
from loadlab.experiments import runner, trial
from loadlab.experiments.runner import Experiment
from loadlab.experiments.trial import Loaded, Trial
from loadlab.generator.plan import scenarios
from loadlab.parser import add_command
from loadlab.record.cgroup import PERIOD_US
from loadlab.run.order import Order, too_small, understand
from loadlab.run.session import Place
from loadlab.target import start
from loadlab.target.serving import BackendFailed
from loadlab.target.tiers import Tier
from loadlab.verdict.figures import balancer_cpu_s
from loadlab.words import LONGEST_S, Balancer, EngineWord, LoadWords, UsageError, YesNo

What = Literal["seeds", "scale", "quota-study"]
KINDS: tuple[What, ...] = get_args(What)
_HELP: dict[What, str] = {
    "seeds": "what the course projects reported, with halfcore and a baseline in the same limits",
    "scale": "one replica against several behind HAProxy, at equal CPU and memory in all",
    "quota-study": (
        "the CPU quota's period and burst, and what keep-alive does to replicas behind a balancer"
    ),
}
_TAKEN: dict[What, set[str]] = {
    "seeds": {"duration", "engine", "seed"},
    "scale": {"duration", "engine", "seed", "scenario", "users", "model"},
    "quota-study": {"duration", "engine", "seed", "model"},
}
"""Words of a load run that a study takes."""


class Words(LoadWords, frozen=True, kw_only=True):
    """Those of every study; which ones of a load run it takes depends on the study."""

    scenario: Annotated[
        str, Meta(description="what the users do: a scenario (a wrong name lists all)")
    ] = "course"
    duration: Annotated[
        float, Meta(gt=0, le=LONGEST_S, description="length of each run's steady phase")
    ] = 30.0
    engine: EngineWord = "raw"
    seed: Annotated[
        int, Meta(ge=0, le=2**31, description="seed of the random order, think times and bodies")
    ] = 1
    fresh: Annotated[
        YesNo, Meta(description="yes: begin again, without what was kept of the same study")
    ] = "no"
    blocks: Annotated[
        int, Meta(ge=1, le=100, description="how often every configuration is run")
    ] = 3


class SeedsWords(Words, frozen=True, kw_only=True):
    """And those of `just seeds`."""

    only: Annotated[
        str, Meta(description="some: beginnings of configurations' keys, as 003,000-one")
    ] = ""
    against: Annotated[
        Literal["typical", "tuned", "onnx"],
        Meta(description="the service that halfcore is compared with"),
    ] = "typical"
    blocks: Annotated[
        int, Meta(ge=1, le=100, description="how often every configuration is run")
    ] = 1


class Planned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of a study's table; the tables say what the fields mean."""

    key: str
    cpus: float
    memory_mib: float
    replicas: int = 1
    period_us: int = PERIOD_US
    burst_us: int = 0
    scenario: str | None = None
    users: int | None = None
    balancer: Balancer | None = None
    late: bool = False


class Configuration(Planned, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a course project reported."""

    seed: str
    reported: str
    memory_mib: int
    users: int
    rate: int
    think: tuple[float, float]
    model: str
    assumed: str
    scenario: str = "steady"
    workers: int = 0
    locust_workers: int = 0


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration of one service; `key` and `order.service` together name it."""

    key: str
    order: Order


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one cell, or why there was none. Figures are of everything from the first user to
    the end of the steady phase."""

    key: str
    service: str
    block: int
    reason: str = ""
    """Without a trial: why."""
    trial: Trial | None = None
    first: str = ""
    """Why the run before this one was INVALID, which proves nothing and was repeated once."""
    answers_hz: float | None = None
    """Right answers a second."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    balancer_us: float | None = None
    """The balancer's CPU time per right answer; it is contained in the trial's."""
    answered: list[int | None] = []
    """By each replica since all users were there, as it counts itself."""


class Study(Experiment[Row], frozen=True, kw_only=True):
    """A stored study."""

    kind: What
    blocks: int
    """How often every cell is run."""
    cells: list[Cell]

    def row(self, cell: Cell, block: int) -> Row | None:
        """What became of one run, if it has been made."""
        wanted = (cell.key, cell.order.service, block)
        return next((row for row in self.rows if (row.key, row.service, row.block) == wanted), None)

    @property
    def left(self) -> list[tuple[int, Cell]]:
        """(block, cell) of every run that is missing; the order in a block is drawn."""
        return runner.in_blocks(
            self.cells,
            self.blocks,
            self.seed,
            lambda block, cell: self.row(cell, block) is not None,
        )


def configurations() -> list[Configuration]:
    """All that were reported."""
    table = Path(__file__).with_name("seeds.toml").read_bytes()
    return msgspec.toml.decode(table, type=dict[str, list[Configuration]])["configuration"]


def choose(found: Sequence[Configuration], only: str) -> list[Configuration]:
    """Those whose key begins with one of the comma-separated words, as 003 or 000-one; all without
    any; raises `UsageError`."""
    wanted = tuple(word for word in only.split(",") if word)
    unknown = [word for word in wanted if not any(each.key.startswith(word) for each in found)]
    if unknown:
        raise UsageError(
            f"only={only}: {', '.join(unknown)} begins no key; there are "
            f"{', '.join(each.key for each in found)}"
        )
    return [each for each in found if not wanted or each.key.startswith(wanted)]


def cells_of(kind: What, asked: Words) -> list[Cell]:
    """The cells of a study; raises `UsageError`."""
    if isinstance(asked, SeedsWords):
        return [
            Cell(key=each.key, order=replace(_reported(each, asked), service=service))
            for each in choose(configurations(), asked.only)
            for service in ("halfcore", asked.against)
        ]
    table = Path(__file__).with_name("studies.toml").read_bytes()
    lines = msgspec.toml.decode(table, type=dict[str, list[Planned]])[kind]
    return [Cell(key=line.key, order=_order(line, asked, line.key)) for line in lines]


def _order(planned: Planned, load: LoadWords, name: str) -> Order:
    """For limits that are in no compose file."""
    tier = Tier(
        name=name,
        cpus=planned.cpus,
        memory_bytes=int(planned.memory_mib * 2**20),
        replicas=planned.replicas,
        period_us=planned.period_us,
        burst_us=planned.burst_us,
    )
    load = replace(
        load,
        tier=name,
        backend="cgroup",
        scenario=planned.scenario or load.scenario,
        users=planned.users or load.users,
        balancer=planned.balancer or ("http" if planned.replicas > 1 else "none"),
    )
    return replace(understand(load, {name: tier}, scenarios()), late=planned.late)


def _reported(found: Configuration, load: LoadWords) -> Order:
    """What a project ran, with its users' think time."""
    load = replace(load, rate=found.rate, model=found.model)
    if found.locust_workers:  # the number of workers is Locust's
        load = replace(load, engine="locust", workers=found.locust_workers)
    order = _order(found, load, f"seed-{found.key}")
    scenario = replace(order.scenario, think=list(found.think), users=order.users)
    return replace(order, scenario=scenario, service_workers=found.workers)


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    for kind in KINDS:
        words.add_to(add_command(commands, kind, _HELP[kind]), *_words(kind))


def parse(kind: What, given: Sequence[str]) -> Words:
    """The words of a study; raises `UsageError`."""
    taken, refused = _words(kind)
    return words.parse(taken, given, refused, {"scenario": scenarios()})


def _words(kind: What) -> tuple[type[Words], dict[str, str]]:
    """What a study takes, and the words of a load run that it refuses, with the reason."""
    keys = [field.encode_name for field in msgspec.structs.fields(LoadWords)]
    refused = [key for key in keys if key not in _TAKEN[kind]]
    reason = "each cell of a study has its own"
    return SeedsWords if kind == "seeds" else Words, dict.fromkeys(refused, reason)


def carry_out(
    typed: argparse.Namespace,
    place: Place,
    console: Console,
    sentences: Callable[[Study], Sequence[str]],
) -> int:
    """Make a study, or continue one that was cut off; returns the exit code, 0 whatever the
    verdicts. `sentences` are what the study says."""
    given = parse(typed.command, typed.words)
    cells = cells_of(typed.command, given)
    orders = [cell.order for cell in cells]
    fresh = trial.begin(
        Study,
        [order for order in orders if not too_small(order.tier)] or orders[:1],
        place,
        typed,
        kind=typed.command,
        blocks=given.blocks,
        cells=cells,
    )
    found, file = study(fresh, place, console, again=given.fresh == "yes")
    runner.finish(found, file, place.root, *sentences(found))
    return 0


def study(
    fresh: Study, place: Place, console: Console, *, again: bool = False
) -> tuple[Study, Path]:
    """Make every run that is missing; returns also the file that keeps them. Raises `BackendFailed`
    if replicas need a balancer, and there is none."""
    balanced = [cell.order.tier for cell in fresh.cells if cell.order.balancer != "none"]
    needed = any(not too_small(tier) for tier in balanced)
    if needed and (reason := start.no_haproxy()):
        raise BackendFailed(reason)
    one = partial(measure, place=place, console=console)
    named = "block {0[0]}, {0[1].key}, {0[1].order.service}".format
    return runner.conduct(fresh, one, named, place.root, console, again=again)


def measure(missing: tuple[int, Cell], place: Place, console: Console) -> Row:
    """A fresh server, and its record; once again where that was INVALID. What this machine cannot
    measure is not run."""
    block, cell = missing
    order = replace(cell.order, seed=cell.order.seed + block)
    if sentence := too_small(order.tier):
        return Row(key=cell.key, service=order.service, block=block, reason=sentence)
    run, first = trial.load_run(order, place, "cgroup", console), ""
    if run.verdict.outcome == "INVALID":
        first = run.verdict.sentence
        run = trial.load_run(order, place, "cgroup", console)
    return replace(row(cell, block, run), first=first)


def row(cell: Cell, block: int, run: Loaded) -> Row:
    """One run in the study's own numbers."""
    return Row(
        key=cell.key,
        service=cell.order.service,
        block=block,
        trial=trial.trial(run, block, cell.order.service),
        answers_hz=run.right / run.lasted_s if run.lasted_s else None,
        p50_ms=run.quantile_ms(0.5),
        p95_ms=run.quantile_ms(0.95),
        balancer_us=run.us_per_answer(balancer_cpu_s),
        answered=[replica.answered for replica in run.log.run.replicas],
    )


class Summary(NamedTuple):
    """The rows of one cell: medians over the blocks that say something about the server."""

    cell: Cell
    rows: list[Row]

    @property
    def outcomes(self) -> str:
        """How often what; or that nothing was run."""
        trials = [row.trial for row in self.rows if row.trial]
        not_run = len(self.rows) - len(trials)
        said = (trial.tally(trials), f"{not_run} INVALID, not run" if not_run else "")
        return ", ".join(filter(None, said)) or "not run yet"

    def median(self, read: Callable[[Row], float | None]) -> float | None:
        """Over the runs that passed or failed and have the value."""
        counted = [row for row in self.rows if row.trial and row.trial.outcome in {"PASS", "FAIL"}]
        known = [value for value in map(read, counted) if value is not None]
        return statistics.median(known) if known else None


def summaries(study: Study, prefix: str = "") -> list[Summary]:
    """Every cell whose key begins so, in the study's order."""
    blocks = range(1, study.blocks + 1)
    return [
        Summary(cell, [row for block in blocks if (row := study.row(cell, block))])
        for cell in study.cells
        if cell.key.startswith(prefix)
    ]


def of(read: Callable[[Trial], float | None]) -> Callable[[Row], float | None]:
    """Reads a row's trial."""
    return lambda row: read(row.trial) if row.trial else None


CPU_US = of(lambda trial: trial.cpu_us)
P99_MS = of(lambda trial: trial.p99_ms)
MEMORY_MIB = of(lambda trial: trial.memory_mib)
THROTTLED = of(lambda trial: trial.figures.throttled)


def reasons(study: Study) -> list[str]:
    """Why runs did not pass, or had to be made again, each reason once, with the cells that it is
    of."""
    found: dict[str, list[str]] = {}
    for row in study.rows:
        outcome = row.trial.outcome if row.trial else "INVALID"
        said = row.trial.sentence if row.trial and outcome != "PASS" else row.reason
        again = f"INVALID, and repeated once: {row.first}" if row.first else ""
        for reason in filter(None, (again, said and f"{outcome}: {said}")):
            found.setdefault(reason, []).append(f"{row.key}, {row.service}")
    return [f"{'; '.join(dict.fromkeys(cells))}. {reason}" for reason, cells in found.items()]
