"""Record what MLServer answers to the requests of `tensors`: `just record-protocols mlserver`.

MLServer gets an environment of its own, with the versions of mlserver-requirements.txt, below
.halfcore/mlserver. The examples must be registered (`just examples light`): each is loaded from the
registry and given to MLServer's scikit-learn runtime, on its default settings but for the ports.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import joblib
import mlflow
from rich.console import Console

from protocols.compare import answer
from protocols.models import examples
from protocols.serving import STORE, await_answer
from protocols.tensors import VERSION, calls
from support.serving import free_port

FILE = Path(__file__).with_name("mlserver.json")
REQUIREMENTS = Path(__file__).with_name("mlserver-requirements.txt")
FOLDER = Path(".halfcore/mlserver").resolve()
PYTHON = "3.11"


def record(console: Console) -> None:
    """Record all models."""
    programs = _install()
    models = examples()
    for model in models:
        _write_model(model.name, FOLDER / "models" / model.name)
    console.print(f"mlserver start, with {', '.join(model.name for model in models)}")
    with _serving(programs, FOLDER / "models") as client:
        version = client.get("/v2").json()["version"]
        recorded = [
            {"model": model.name, **call._asdict(), **answer(client, call)}
            for model in models
            for call in calls(model.name, model.columns, model.rows)
        ]
    document = {"mlserver": version, "recorded": recorded}
    FILE.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(f"{len(recorded)} answers of MLServer {version} in {FILE.name}")


def _install() -> Path:
    """MLServer's programs, installed if they are not yet."""
    environment = FOLDER / "environment"
    programs = environment / "bin"
    if not (programs / "mlserver").exists():
        venv = ["uv", "venv", "--clear", "--python", PYTHON, str(environment)]
        subprocess.run(venv, check=True)
    install = ["uv", "pip", "install", "--quiet", "--python", str(programs / "python")]
    subprocess.run([*install, "--requirement", str(REQUIREMENTS)], check=True)
    return programs


def _write_model(name: str, folder: Path) -> None:
    """The registered model as MLServer reads it."""
    mlflow.set_tracking_uri(STORE)
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(mlflow.sklearn.load_model(f"models:/{name}@champion"), folder / "model.joblib")
    settings = {
        "name": name,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": VERSION},
    }
    (folder / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")


@contextmanager
def _serving(programs: Path, models: Path) -> Iterator[httpx.Client]:
    port = free_port()
    ports = {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(free_port()),
        "MLSERVER_METRICS_PORT": str(free_port()),
    }
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [str(programs / "mlserver"), "start", str(models)],
        cwd=FOLDER,  # where it leaves files of its metrics
        env=environment | ports,
        start_new_session=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            await_answer(client, process, "/v2/health/ready")
            yield client
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it holds nothing, and may wait for its workers
        process.wait(60)
