"""The servers that are measured, and how each is started. All run one worker process."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from loadlab.experiments.bench.cases import Case
from loadlab.record.store import REGIMES, Regime
from loadlab.target.process import Command

BASELINE = Path("loadlab/baseline")
BASELINE_PACKAGES = (
    "fastapi",
    "mlflow",
    "numpy",
    "onnxruntime",
    "pandas",
    "pydantic",
    "scikit-learn",
    "sqlalchemy",
    "uvicorn",
)
_OURS = ("HALFCORE_", "MODEL_", "MLFLOW_", "DATABASE_URL")
"""Variables of the caller that would change a server."""


@dataclass(frozen=True)
class Database:
    """A PostgreSQL of this run, on loopback."""

    port: int
    group: str
    """Its control group: no other process is in it."""

    @property
    def url(self) -> str:
        """As halfcore takes it."""
        return f"postgresql://rival@127.0.0.1:{self.port}/postgres"


@dataclass(frozen=True)
class Place:
    """Where things are on this machine."""

    root: Path
    """The checkout."""
    tracking_uri: str
    scratch: Path
    """A temporary directory of this run."""
    database: str = ""
    """URL of the PostgreSQL that some baselines ask on every request."""
    recorder: Database | None = None
    """Takes the prediction log and holds the feature catalogue."""

    def answer_file(self, model: str) -> Path:
        """Holds the body that halfcore answered, for the floor to repeat."""
        return self.scratch / f"{model}.answer"


@dataclass(frozen=True)
class Subject:
    """One server of the comparison."""

    key: str
    title: str
    start: Callable[[Place, Case, int], Command]
    """Makes the command for a port."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the lab sets besides port and bundles; stored with the figures."""
    needs_baseline: bool = False
    needs_surroundings: bool = False
    """It asks an MLflow server and a PostgreSQL on every request."""
    needs_database: bool = False
    """It logs its predictions and reads a feature catalogue."""
    path: str = "/predict"
    prefix: str = ""
    """How a right answer begins, where it is not a prediction."""
    regimes: tuple[Regime, ...] = REGIMES
    """Where it is measured without being asked for."""
    left_out: str = "at saturation it answers far fewer requests than this load asks for"
    """Why it is not measured in the sparse regime."""


def halfcore(
    key: str,
    title: str,
    environment: Mapping[str, str],
    *,
    path: str = "/predict",
    prefix: str = "",
) -> Subject:
    """Our server with some settings."""
    settings = {"HALFCORE_WORKERS": "1", **environment}

    def start(place: Place, case: Case, port: int) -> Command:
        where = {"HALFCORE_BUNDLES": str(case.bundle.parent.parent), "HALFCORE_PORT": str(port)}
        return Command(
            [sys.executable, "-m", "halfcore", "serve"],
            clean_environment() | where | settings,
            place.root,
            "/health/ready",
        )

    return Subject(key, title, start, settings, path=path, prefix=prefix)


def recorded(key: str, title: str) -> Subject:
    """Our server with feature catalogue and prediction log."""
    settings = {"HALFCORE_WORKERS": "1", "HALFCORE_PREDICTION_LOG": "true"}
    plain = halfcore(key, title, settings)

    def start(place: Place, case: Case, port: int) -> Command:
        command, scratch = plain.start(place, case, port), place.scratch / f"{key}-{port}"
        where = {
            "HALFCORE_PREDICTION_LOG_SPOOL": str(scratch / "spool"),
            "HALFCORE_STATE": str(scratch / "state"),
        }
        database = {"DATABASE_URL": place.recorder.url} if place.recorder else {}
        return replace(command, environment={**command.environment, **where, **database})

    left_out = "the question is what both cost a request at saturation"
    return replace(
        plain,
        start=start,
        needs_baseline=True,
        needs_database=True,
        regimes=("saturated",),
        left_out=left_out,
    )


def floor(key: str, title: str, *flags: str, regimes: tuple[Regime, ...] = REGIMES) -> Subject:
    """A constant answer over RSGI."""

    def start(place: Place, case: Case, port: int) -> Command:
        arguments = ["--port", str(port), "--answer", str(place.answer_file(case.model)), *flags]
        return Command(
            [sys.executable, "-m", "loadlab.experiments.bench.floor", *arguments],
            clean_environment(),
            place.root,
        )

    return Subject(key, title, start, regimes=regimes)


def baseline(
    key: str,
    title: str,
    variant: str,
    *,
    regimes: tuple[Regime, ...] = REGIMES,
    workers: int = 1,
    needs_surroundings: bool = False,
) -> Subject:
    """A FastAPI service of `loadlab/baseline`; `workers`: 0 as the variant chooses."""

    def start(place: Place, case: Case, port: int) -> Command:
        sources = [
            "--tracking-uri",
            place.tracking_uri,
            "--database",
            place.database,
            "--bundle",
            str(case.bundle),
        ]
        arguments = [
            "-m",
            "rival",
            variant,
            "--model",
            case.model,
            "--port",
            str(port),
            "--workers",
            str(workers),
            *sources,
        ]
        return Command(
            [str(baseline_python(place.root)), *arguments],
            clean_environment(),
            place.root / BASELINE,
            "/health",
        )

    return Subject(
        key,
        title,
        start,
        needs_baseline=True,
        needs_surroundings=needs_surroundings,
        regimes=regimes,
    )


OURS = halfcore("b", "halfcore, hot lane", {})
SUBJECTS = {
    subject.key: subject
    for subject in (
        floor("a", "granian RSGI, constant answer"),
        floor("a2", "granian RSGI, reads the body, constant answer", "--read"),
        floor(
            "a3",
            "granian RSGI, constant answer, one CPU and SCHED_BATCH",
            "--cpu",
            "0",
            "--batch",
            regimes=("sparse",),
        ),
        OURS,
        recorded("b2", "halfcore, hot lane, with feature catalogue and prediction log"),
        halfcore("c", "halfcore, plain ASGI", {"HALFCORE_HOT_LANE": "false"}),
        baseline("d", "FastAPI, uvicorn[standard], ONNX inline", "onnx"),
        baseline("e", "FastAPI, mlflow.pyfunc, DataFrame", "typical", regimes=("saturated",)),
    )
}


def clean_environment() -> dict[str, str]:
    """The caller's environment without what configures one of the servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


def baseline_python(root: Path) -> Path:
    """The interpreter of the baseline's own environment."""
    return root / BASELINE / ".venv/bin/python"


def prepare_baseline(root: Path) -> dict[str, str]:
    """Install the baseline as locked, for this very Python; returns its packages' versions; raises
    `subprocess.CalledProcessError`."""
    sync = [
        "uv",
        "sync",
        "--frozen",
        "--quiet",
        "--group",
        "surroundings",
        "--project",
        str(root / BASELINE),
        "--python",
        sys.executable,
    ]
    environment = {
        name: value for name, value in clean_environment().items() if name != "VIRTUAL_ENV"
    }
    subprocess.run(sync, check=True, env=environment)  # noqa: S603  our own words
    ask = (
        f"from importlib.metadata import version\nfor name in {BASELINE_PACKAGES}: print(name, "
        "version(name))"
    )
    said = subprocess.run(  # noqa: S603
        [baseline_python(root), "-c", ask], check=True, capture_output=True, text=True
    )
    return dict(line.split() for line in said.stdout.splitlines())
