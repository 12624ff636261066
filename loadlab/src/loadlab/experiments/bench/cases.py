"""The request: one real row of one model, and how a right answer begins; from the bundle's golden
rows."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


class CaseError(ValueError):
    """There is no such bundle; the message says how to make it."""


@dataclass(frozen=True)
class Case:
    """One model and one request for it."""

    model: str
    bundle: Path
    """Directory with model.onnx and manifest.json."""
    body: str
    """The request's body, JSON."""
    prefix: str
    """How the body of a right answer begins: with the registered model's own label."""
    others: tuple[tuple[str, str], ...] = ()
    """The same of the bundle's other golden rows."""


def hold(case: Case, folder: Path) -> Case:
    """The case with a copy of its bundle, alone in `folder`/MODEL.

    What is exported during a run changes nothing, and the memory of other models is not part of the
    comparison.
    """
    held = folder / case.model / case.model / case.bundle.name
    shutil.copytree(case.bundle, held)
    return replace(case, bundle=held)


def case(bundles: Path, model: str) -> Case:
    """The newest bundle of a model and its first golden row; raises `CaseError`."""
    found = [
        (json.loads(file.read_text()), file.parent)
        for file in bundles.glob(f"{model}/[!.]*/manifest.json")
    ]
    if not found:
        raise CaseError(f"no bundle of {model} in {bundles}: `just examples {model}` makes it")
    manifest, bundle = max(found, key=lambda each: each[0]["created_at"])
    first, *others = [_question(golden, named=manifest["named"]) for golden in manifest["golden"]]
    return Case(model, bundle, *first, tuple(others))


def _question(golden: dict[str, Any], *, named: bool) -> tuple[str, str]:
    """The body that asks for a golden row, and how its answer begins."""
    body = golden["row"] if named else {"features": list(golden["row"].values())}
    return json.dumps(body, separators=(",", ":")), '{"prediction":' + json.dumps(
        golden["prediction"]
    )
