"""Record what other servers answer: `just record-protocols`, or one of them by its name.

`mlflow` serves each example with `mlflow models serve`, sends the requests of `bodies` and writes
tests/protocols/mlflow.json; for `mlserver` see `record_mlserver`. The examples must be registered
(`just examples light`).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import mlflow
from rich.console import Console

from protocols import record_mlserver
from protocols.bodies import bodies
from protocols.models import examples
from protocols.serving import STORE, await_answer
from support.serving import free_port

FILE = Path(__file__).with_name("mlflow.json")


def main(names: list[str]) -> None:
    """Record all servers, or those that are named."""
    servers = {"mlflow": record, "mlserver": record_mlserver.record}
    if unknown := set(names) - servers.keys():
        raise SystemExit(
            f"no server is called {', '.join(sorted(unknown))}: expected {' or '.join(servers)}"
        )
    console = Console()
    for name in names or servers:
        servers[name](console)


def record(console: Console) -> None:
    """Record all models with MLflow's server."""
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
            await_answer(client, process, "/ping")
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


if __name__ == "__main__":
    main(sys.argv[1:])
