"""Record what MLflow's own server answers to the requests of `bodies`: `just record-protocols`.

It serves each example with `mlflow models serve`, which must be registered
(`just examples light`), and writes tests/protocols/mlflow.json.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import mlflow
from rich.console import Console

from protocols.bodies import bodies
from protocols.models import examples
from support.serving import free_port

FILE = Path(__file__).with_name("mlflow.json")
STORE = "sqlite:///.halfcore/mlflow.db"
START_S = 180


def main() -> None:
    """Record all models."""
    console = Console()
    recorded = []
    for model in examples():
        console.print(f"mlflow models serve -m models:/{model.name}@champion")
        with _serving(model.name) as client:
            recorded += [
                {
                    "model": model.name,
                    "name": body.name,
                    **_answer(client, body.content_type, body.text),
                }
                for body in bodies(model.columns, model.rows)
            ]
    document = {"mlflow": mlflow.__version__, "recorded": recorded}
    FILE.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(f"{len(recorded)} answers of MLflow {mlflow.__version__} in {FILE.name}")


def _answer(client: httpx.Client, content_type: str, text: str) -> dict[str, Any]:
    answer = client.post("/invocations", content=text, headers={"content-type": content_type})
    kind = answer.headers.get("content-type", "").partition(";")[0]
    found: dict[str, Any] = {
        "content_type": content_type,
        "body": text,
        "status": answer.status_code,
        "answer_type": kind,
    }
    if kind == "application/json":
        document = json.loads(answer.text)
        # The traceback and the message quote files and the whole request.
        kept = ("predictions", "error_code")
        found |= {key: document[key] for key in kept if key in document}
    return found


@contextmanager
def _serving(name: str) -> Iterator[httpx.Client]:
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{name}@champion"),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
    ]
    environment = os.environ | {"MLFLOW_TRACKING_URI": STORE, "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _await(client, process)
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _await(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/ping").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit("mlflow models serve did not start: see its messages above")


if __name__ == "__main__":
    main()
