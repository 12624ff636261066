"""`loadlab seeds`, `scale` and `quota-study`: each cell once in every block, and what the rows of a
cell say together; exit codes as `loadlab compare`."""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgspec
from rich.console import Console

from loadlab.experiments import cells, runner, trial
from loadlab.experiments.cells import Cell
from loadlab.experiments.runner import Experiment
from loadlab.experiments.trial import Loaded, Trial
from loadlab.run import describe
from loadlab.run.arguments import UsageError
from loadlab.run.session import Place
from loadlab.target import haproxy
from loadlab.target.serving import BackendFailed
from loadlab.verdict.figures import balancer_cpu_s

What = Literal["seeds", "scale", "quota-study"]
KINDS: tuple[What, ...] = get_args(What)
_LOAD = ("duration", "engine", "seed", "scenario", "users", "model")
_COMMON = {"duration": "30s", "engine": "raw", "seed": "1", "fresh": "no"}
_OWN: dict[What, dict[str, str]] = {
    "seeds": {"only": "", "against": "typical", "blocks": "1"},
    "scale": {"scenario": "course", "users": "", "model": "iris", "blocks": "3"},
    "quota-study": {"model": "iris", "blocks": "3"},
}
_HELP: dict[What, str] = {
    "seeds": "what the course projects reported, with halfcore and a baseline in the same limits",
    "scale": "one replica against several behind HAProxy, at equal CPU and memory in all",
    "quota-study": (
        "the CPU quota's period and burst, and what keep-alive does to replicas behind a balancer"
    ),
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
        trial.add_command(commands, kind, _HELP[kind], _COMMON | _OWN[kind])


def main(
    asked: argparse.Namespace,
    root: Path,
    console: Console,
    sentences: Callable[[Study], Sequence[str]],
) -> int:
    """Carry one out, or continue one that was cut off; returns the exit code, 0 whatever the
    verdicts. `sentences` are what the study says."""

    def carry_out(place: Place, command: str) -> int:
        words = parse(asked.command, asked.words)
        made = cells_of(asked.command, words)
        orders = [cell.order for cell in made]
        fitting = [order for order in orders if not describe.too_small(order.tier)]
        fresh = trial.begin(
            Study,
            fitting or orders[:1],
            place,
            kind=asked.command,
            command=command,
            blocks=int(words["blocks"]),
            cells=made,
        )
        found, file = runner.kept(fresh, root, again=words["fresh"] == "yes")
        if found.rows:
            missing = f"{found.missing} runs are missing (fresh=yes starts again)"
            runner.say(console, f"continuing the study of {found.started_at}: {missing}")
        found = study(found, file, place, console)
        runner.finish(found, file, root, *sentences(found))
        return 0

    return trial.command(asked, root, console, carry_out)


def parse(kind: What, words: Sequence[str]) -> dict[str, str]:
    """The words of a study with the defaults filled in; raises `UsageError`. What `just load` knows
    too is checked there."""
    known = _COMMON | _OWN[kind]
    found, others = trial.own_words(words, known, "study")
    if others:
        expected = f"expected key=value with one of {', '.join(known)}"
        raise UsageError(f"{others[0]}: unknown; {expected}")
    trial.whole(found, "blocks", 100)
    trial.one_of(found, "fresh", ("yes", "no"))
    trial.one_of({"against": "typical"} | found, "against", ("typical", "tuned", "onnx"))
    return found


def cells_of(kind: What, words: Mapping[str, str]) -> list[Cell]:
    """The cells of a study; raises `UsageError`, `ScenarioError`."""
    load = {key: words[key] for key in _LOAD if key in words}
    if kind == "seeds":
        chosen = cells.choose(cells.configurations(), words["only"])
        return cells.seeds(chosen, load, words["against"])
    return cells.scale(load) if kind == "scale" else cells.quota(load)


def study(found: Study, file: Path, place: Place, console: Console) -> Study:
    """Make every run that is missing; raises `BackendFailed` if replicas need a balancer, and there
    is none."""
    balanced = [cell.order.tier for _, cell in found.left if cell.order.balancer != "none"]
    needed = any(not describe.too_small(tier) for tier in balanced)
    if needed and (reason := haproxy.missing()):
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
    if sentence := describe.too_small(order.tier):
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
