"""Which models the bench can measure: known before anything is trained or started."""

from collections.abc import Collection, Iterable
from pathlib import Path

from loadlab.bundles import read_manifest
from loadlab.experiments.bench.measure import Refused
from loadlab.target import programs
from loadlab.target.programs import CaseError


def check(bundles: Path, models: Iterable[str], made: Collection[str] = ()) -> None:
    """Whether each of these models can be measured, by its bundle; `made`: those whose bundle will
    be made first, if there is none. Raises `Refused` or `CaseError`."""
    for model in dict.fromkeys(models):
        try:
            found = read_manifest(programs.case(bundles, model).bundle)
        except CaseError:
            if model in made:
                continue
            raise
        if not found["classes"]:
            raise Refused(
                f"--models {model}: it answers numbers, and answers are compared as texts here: "
                f"expected a classifier. `just load tier=half-core model={model}` measures it"
            )
