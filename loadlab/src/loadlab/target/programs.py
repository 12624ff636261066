"""What the lab starts: halfcore, the null server and the baselines as commands for one port, and
the model with one request that they are asked."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from loadlab.target.process import Command

BASELINE = Path("loadlab/baseline")
BASELINE_PACKAGES = [
    "fastapi",
    "mlflow",
    "numpy",
    "onnxruntime",
    "pandas",
    "pydantic",
    "scikit-learn",
    "sqlalchemy",
    "uvicorn",
]
_OURS = ("HALFCORE_", "MODEL_", "MLFLOW_", "DATABASE_URL")
"""Variables of the caller that would change a server."""


class CaseError(ValueError):
    """There is no such bundle; the message says how to make it."""


@dataclass(frozen=True)
class Case:
    """One model and one request for it: a real row, from the bundle's golden rows."""

    model: str
    bundle: Path
    """Directory with model.onnx and manifest.json."""
    body: str
    """The request's body, JSON."""
    prefix: str
    """How the body of a right answer begins: with the registered model's own label."""
    others: tuple[tuple[str, str], ...] = ()
    """The same of the bundle's other golden rows."""


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


def hold(held: Case, folder: Path) -> Case:
    """The case with a copy of its bundle, alone in `folder`/MODEL: what is exported during a run
    changes nothing, and the memory of other models is not part of the comparison."""
    copy = folder / held.model / held.model / held.bundle.name
    shutil.copytree(held.bundle, copy)
    return replace(held, bundle=copy)


def clean_environment() -> dict[str, str]:
    """The caller's environment without what configures one of the servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


def halfcore(folder: Path, bundles: Path, port: int, settings: Mapping[str, str]) -> Command:
    """Our server with some settings, in a working folder."""
    where = {"HALFCORE_BUNDLES": str(bundles), "HALFCORE_PORT": str(port)}
    return Command(
        [sys.executable, "-m", "halfcore", "serve"],
        clean_environment() | where | dict(settings),
        folder,
        "/health/ready",
    )


def null_server(folder: Path, answer: Path, port: int, *flags: str) -> Command:
    """A constant answer, the text of a file; for the flags see `null_server.py`."""
    words = ["loadlab.target.null_server", "--port", str(port), "--answer", str(answer), *flags]
    return Command([sys.executable, "-m", *words], clean_environment(), folder)


def baseline(
    root: Path,
    variant: str,
    served: Case,
    port: int,
    *,
    tracking_uri: str,
    database: str = "",
    workers: int = 1,
) -> Command:
    """A FastAPI service of `loadlab/baseline`; `workers`: 0 as the variant chooses."""
    sources = ["--tracking-uri", tracking_uri, "--database", database]
    model = ["--model", served.model, "--bundle", str(served.bundle)]
    words = ["--port", str(port), "--workers", str(workers), *model, *sources]
    return baseline_program(root, "rival", variant, *words)


def baseline_program(root: Path, module: str, *words: str) -> Command:
    """A program of the baseline's own environment, which `prepare_baseline` installs."""
    python = str(root / BASELINE / ".venv/bin/python")
    return Command([python, "-m", module, *words], clean_environment(), root / BASELINE, "/health")


def prepare_baseline(root: Path) -> dict[str, str]:
    """Install the baseline as locked, for this very Python; returns its packages' versions; raises
    `subprocess.CalledProcessError`."""
    folder, environment = root / BASELINE, clean_environment()
    environment.pop("VIRTUAL_ENV", None)
    words = ["uv", "sync", "--frozen", "--quiet", "--group", "surroundings"]
    project = ["--project", str(folder), "--python", sys.executable]
    subprocess.run([*words, *project], check=True, env=environment)  # noqa: S603  our own words
    path = [str(site) for site in folder.glob(".venv/lib/*/site-packages")]
    found = {name: distributions(name=name, path=path) for name in BASELINE_PACKAGES}
    return {name: next(iter(each)).version for name, each in found.items()}


def _question(golden: dict[str, Any], *, named: bool) -> tuple[str, str]:
    """The body that asks for a golden row, and how its answer begins."""
    body = golden["row"] if named else {"features": list(golden["row"].values())}
    prefix = '{"prediction":' + json.dumps(golden["prediction"])
    return json.dumps(body, separators=(",", ":")), prefix
