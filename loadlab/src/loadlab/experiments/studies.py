"""`loadlab seeds`, `scale` and `quota-study`: each cell once in every block, and what the rows of a
cell say together; exit codes as `loadlab compare`."""

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta
from rich.console import Console

from loadlab import words
from loadlab.experiments import cells, runner, trial
from loadlab.experiments.cells import Cell
from loadlab.experiments.runner import Experiment
from loadlab.experiments.trial import Loaded, Trial
from loadlab.run.order import too_small
from loadlab.run.session import Place
from loadlab.target import start
from loadlab.target.serving import BackendFailed
from loadlab.verdict.figures import balancer_cpu_s
from loadlab.words import Engine, LoadWords, YesNo

What = Literal["seeds", "scale", "quota-study"]
KINDS: tuple[What, ...] = get_args(What)
_HELP: dict[What, str] = {
    "seeds": "what the course projects reported, with halfcore and a baseline in the same limits",
    "scale": "one replica against several behind HAProxy, at equal CPU and memory in all",
    "quota-study": (
        "the CPU quota's period and burst, and what keep-alive does to replicas behind a balancer"
    ),
}


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """Those of every study."""

    duration: Annotated[float, Meta(gt=0, description="of the steady phase")] = 30.0
    engine: Annotated[Engine, Meta(description="who drives the load")] = "raw"
    seed: Annotated[int, Meta(ge=0, le=2**31, description="of the order, and of the users")] = 1
    fresh: Annotated[YesNo, Meta(description="start again")] = "no"
    blocks: Annotated[int, Meta(ge=1, le=100, description="how often every cell is run")] = 3


class SeedsWords(Words, frozen=True, kw_only=True):
    """And those of `just seeds`."""

    only: Annotated[str, Meta(description="beginnings of keys, as 003,000-one")] = ""
    against: Annotated[Literal["typical", "tuned", "onnx"], Meta(description="the other side")] = (
        "typical"
    )
    blocks: Annotated[int, Meta(ge=1, le=100, description="how often every cell is run")] = 1


class QuotaWords(Words, frozen=True, kw_only=True):
    """And those of `just quota-study`."""

    model: Annotated[str, Meta(description="that is asked, by its name")] = "iris"


class ScaleWords(QuotaWords, frozen=True, kw_only=True):
    """And those of `just scale`."""

    scenario: Annotated[str, Meta(description="what the users do, by its name")] = "course"
    users: Annotated[
        int | None, Meta(ge=1, le=1_000_000, description="users at once (as the scenario)")
    ] = None


_WORDS: dict[What, type[Words]] = {
    "seeds": SeedsWords,
    "scale": ScaleWords,
    "quota-study": QuotaWords,
}


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
    def missing(self) -> int:
        """Runs that are still to be made."""
        return len(self.cells) * self.blocks - len(self.rows)

    @property
    def left(self) -> list[tuple[int, Cell]]:
        """(block, cell) of every run that is missing; the order in a block is drawn."""
        return runner.in_blocks(
            self.cells,
            self.blocks,
            self.seed,
            lambda block, cell: self.row(cell, block) is not None,
        )


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    for kind in KINDS:
        words.add_to(commands.add_parser(kind, help=_HELP[kind]), _WORDS[kind])


def main(
    asked: argparse.Namespace,
    root: Path,
    console: Console,
    sentences: Callable[[Study], Sequence[str]],
) -> int:
    """Carry one out, or continue one that was cut off; returns the exit code, 0 whatever the
    verdicts. `sentences` are what the study says."""

    def carry_out(place: Place, command: str) -> int:
        given = parse(asked.command, asked.words)
        made = cells_of(given)
        orders = [cell.order for cell in made]
        fitting = [order for order in orders if not too_small(order.tier)]
        fresh = trial.begin(
            Study,
            fitting or orders[:1],
            place,
            kind=asked.command,
            command=command,
            blocks=given.blocks,
            cells=made,
        )
        found, file = runner.kept(fresh, root, again=given.fresh == "yes")
        if found.rows:
            missing = f"{found.missing} runs are missing (fresh=yes starts again)"
            runner.say(console, f"continuing the study of {found.started_at}: {missing}")
        found = study(found, file, place, console)
        runner.finish(found, file, root, *sentences(found))
        return 0

    return trial.command(asked, root, console, carry_out)


def parse(kind: What, given: Sequence[str]) -> Words:
    """The words of a study; raises `UsageError`."""
    return words.parse(_WORDS[kind], given)


def cells_of(asked: Words) -> list[Cell]:
    """The cells of a study; raises `UsageError`, `ScenarioError`."""
    given = msgspec.structs.asdict(asked)
    shared = {name: given[name] for name in LoadWords.__struct_fields__ if name in given}
    load = LoadWords(**shared, backend="cgroup")
    if isinstance(asked, SeedsWords):
        return cells.seeds(cells.choose(cells.configurations(), asked.only), load, asked.against)
    return cells.scale(load) if isinstance(asked, ScaleWords) else cells.quota(load)


def study(found: Study, file: Path, place: Place, console: Console) -> Study:
    """Make every run that is missing; raises `BackendFailed` if replicas need a balancer, and there
    is none."""
    balanced = [cell.order.tier for _, cell in found.left if cell.order.balancer != "none"]
    needed = any(not too_small(tier) for tier in balanced)
    if needed and (reason := start.no_haproxy()):
        raise BackendFailed(reason)

    def name(missing: tuple[int, Cell]) -> str:
        block, cell = missing
        return f"block {block}, {cell.key}, {cell.order.service}"

    return runner.run(
        found,
        lambda so_far: so_far.left,
        lambda missing: measure(missing, place, console),
        file=file,
        show=runner.progress(console, name),
    )


def newest(folder: Path, kind: What) -> Path | None:
    """The newest stored study of a kind."""
    return max(folder.glob(f"*-{kind}.json"), default=None)


def measure(missing: tuple[int, Cell], place: Place, console: Console) -> Row:
    """A fresh server, and its record; once again where that was INVALID. What this machine cannot
    measure is not run."""
    block, cell = missing
    order = msgspec.structs.replace(cell.order, seed=cell.order.seed + block)
    if sentence := too_small(order.tier):
        return Row(key=cell.key, service=order.service, block=block, reason=sentence)
    first = row(cell, block, trial.load_run(order, place, "cgroup", console))
    if first.trial is None or first.trial.outcome != "INVALID":
        return first
    again = row(cell, block, trial.load_run(order, place, "cgroup", console))
    return msgspec.structs.replace(again, first=first.trial.sentence)


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


def number(value: float | None, form: str = ",.1f") -> str:
    """A value or a dash."""
    return "–" if value is None else format(value, form)


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
