"""The one place where the pages depend on the form of what experiments stored."""

from pathlib import Path

from loadlab.experiments.bench.ladder import ENDPOINTS, LADDER
from loadlab.experiments.bench.memory import Held, Memory
from loadlab.experiments.bench.subjects import SUBJECTS
from loadlab.experiments.bench.variants import VARIANTS
from loadlab.experiments.compare.form import Comparison, Trial
from loadlab.experiments.search.form import Probe, Search
from loadlab.experiments.search.plan import Found, decide
from loadlab.experiments.studies.form import KINDS, Study
from loadlab.record.store import Round, Run


def kind(run: Run | Study) -> str:
    """What was run: `bench`, `ablate`, `ladder`, or a study's name."""
    return run.what


def rounds(run: Run) -> list[Round]:
    """Everything that was measured, or was meant to be."""
    return run.rounds


def titles(run: Run) -> dict[str, str]:
    """What each server of a run is, by its key, in the tables' order."""
    if run.what == "bench":
        return {key: subject.title for key, subject in SUBJECTS.items()}
    if run.what == "ladder":
        return {step.key: step.change for step in (*LADDER, *ENDPOINTS)}
    return {
        name: " ".join(f"`{key}={value}`" for key, value in variant.environment.items())
        or "as it is"
        for name, variant in VARIANTS.items()
    }


def endpoints() -> set[str]:
    """The ladder's servers that predict nothing, and are no steps."""
    return {step.key for step in ENDPOINTS}


def held(run: Memory) -> list[Held]:
    """Every model's server."""
    return run.held


def trials(comparison: Comparison) -> list[Trial]:
    """Every run of both sides."""
    return comparison.trials


def blocks(comparison: Comparison) -> int:
    """That were made."""
    return comparison.blocks


def probes(search: Search) -> list[Probe]:
    """In the order in which they were run."""
    return search.probes


def steady_s(search: Search, probe: Probe) -> float:
    """How long a probe was meant to measure."""
    return search.goal.steady_s(full=probe.full)


def minimum(search: Search) -> tuple[int, int] | None:
    """Hundredths of a core and MiB that passed every time; None: nothing did, or not finished."""
    found = decide(search.goal, search.probes)
    return found.minimum if isinstance(found, Found) else None


def newest(runs: Path, what: str) -> list[Path]:
    """The newest comparison of every tier, baseline and number of users, or search of every server,
    scenario and number of users."""
    found = {about(file, what): file for file in sorted(runs.glob(f"*-{what}-*.json"))}
    return [found[each] for each in sorted(found)]


def about(file: Path, what: str) -> str:
    """What distinguishes a stored experiment from others of its kind."""
    return file.stem.partition(f"-{what}-")[2]


def newest_studies(runs: Path) -> list[Path]:
    """The newest of each kind."""
    found = (max(runs.glob(f"*-{what}.json"), default=None) for what in KINDS)
    return [file for file in found if file]
