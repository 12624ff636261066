"""The rows of one cell together: medians over the blocks that say something about the server."""

import statistics
from collections.abc import Callable
from typing import NamedTuple

from loadlab.experiments.compare.form import Trial
from loadlab.experiments.studies.form import Cell, Row, Study

_ATTEMPTED = ("PASS", "FAIL")
_OUTCOMES = ("PASS", "FAIL", "INVALID", "ERROR")


class Summary(NamedTuple):
    """One cell."""

    cell: Cell
    rows: list[Row]

    @property
    def counted(self) -> list[Row]:
        """Runs that are the server's: passed or failed."""
        return [row for row in self.rows if row.trial and row.trial.outcome in _ATTEMPTED]

    @property
    def outcomes(self) -> str:
        """How often what; or that nothing was run."""
        trials = [row.trial for row in self.rows if row.trial]
        counts = [(kind, sum(trial.outcome == kind for trial in trials)) for kind in _OUTCOMES]
        not_run = sum(row.trial is None for row in self.rows)
        said = [f"{count} {kind}" for kind, count in counts if count] + (
            [f"{not_run} INVALID, not run"] if not_run else []
        )
        return ", ".join(said) or "not run yet"

    def median(self, read: Callable[[Row], float | None]) -> float | None:
        """Over the runs that count and have the value."""
        known = [value for value in map(read, self.counted) if value is not None]
        return statistics.median(known) if known else None

    @property
    def passes(self) -> bool:
        """It ran, and every run passed."""
        return bool(self.rows) and all(
            row.trial and row.trial.outcome == "PASS" for row in self.rows
        )


def summaries(study: Study, prefix: str = "") -> list[Summary]:
    """Every cell whose key begins so, in the study's order."""
    return [
        Summary(
            cell, [row for block in range(1, study.blocks + 1) if (row := study.row(cell, block))]
        )
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
        said = row.reason or (
            row.trial.sentence if row.trial and row.trial.outcome != "PASS" else ""
        )
        outcome = row.trial.outcome if row.trial else "INVALID"
        again = f"INVALID, and repeated once: {row.first}" if row.first else ""
        for reason in filter(None, (again, said and f"{outcome}: {said}")):
            found.setdefault(reason, []).append(f"{row.key}, {row.service}")
    return [f"{'; '.join(dict.fromkeys(cells))}. {reason}" for reason, cells in found.items()]
