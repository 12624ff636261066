"""`just demo-swap`: a real MLflow server, two versions of a model registered and exported, a server
that follows the alias, 300 requests/s, and the alias moved there and back. Shows what is served as
it changes; the exit code tells whether everything held.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.load import Load, percentile
from support.mlflow_registry import Registry
from support.mlflow_server import mlflow_server
from support.serving import serving

NAME = "demo-iris"
PERIOD_S = 2.0
RATE = 300.0
TRAIN = """
import sys, warnings
warnings.simplefilter("ignore")
import json, mlflow, pandas
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
frame, target = load_iris(as_frame=True, return_X_y=True)
mlflow.set_tracking_uri(sys.argv[1])
answers = {}
for version, strength in (("1", 0.05), ("2", 5.0)):
    model = LogisticRegression(C=strength, max_iter=1000).fit(frame, target)
    signature = mlflow.models.infer_signature(frame, model.predict(frame))
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=sys.argv[2],
            signature=signature,
            input_example=frame.head(3),
        )
    answers[version] = model.predict_proba(frame).tolist()
json.dump({"rows": frame.to_dict("records"), "probabilities": answers}, open(sys.argv[3], "w"))
"""
CLOSE = 1e-5
"""The parity gate's tolerance for a logistic regression."""


class Oracle:
    """What scikit-learn itself answers, per version."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.bodies = [_dumped(row) for row in document["rows"]]
        self._probabilities: dict[str, list[list[float]]] = document["probabilities"]

    def versions(self, answer: dict[str, Any], row: int) -> list[str]:
        """The versions whose answer this is."""
        given = list(answer["probabilities"].values())
        return [
            version
            for version, rows in self._probabilities.items()
            if max(abs(a - b) for a, b in zip(given, rows[row], strict=True)) <= CLOSE
        ]


def _dumped(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode()


def main() -> int:
    """Run; 0 if everything held."""
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.print("starting MLflow …")
        with mlflow_server(folder / "mlflow") as mlflow:
            registry = Registry(mlflow.url)
            oracle = _prepare(console, folder, mlflow.url)
            registry.set_alias(NAME, "champion", "1")
            settings = {
                "follow": f"models:/{NAME}@champion",
                "tracking_uri": mlflow.url,
                "follow_period_s": PERIOD_S,
            }
            with serving(folder / "none", store=folder / "store", **settings) as server:
                load = Load(server.port, oracle.bodies, rate=RATE)
                with load.running():
                    changes = _move(console, registry, load)
    return _judge(console, oracle, load, changes)


def _prepare(console: Console, folder: Path, url: str) -> Oracle:
    """Train, register and export two versions."""
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": url,
        "PYTHONWARNINGS": "ignore",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    console.print("training and registering versions 1 and 2 …")
    subprocess.run(
        [sys.executable, "-c", TRAIN, url, NAME, str(folder / "oracle.json")],
        env=environment,
        check=True,
        capture_output=True,
    )
    for version in ("1", "2"):
        console.print(f"exporting version {version} with its proof, and uploading it …")
        export = ["export", f"models:/{NAME}/{version}", "--upload"]
        subprocess.run(
            [sys.executable, "-m", "model_export", *export],
            env=environment,
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return Oracle(json.loads((folder / "oracle.json").read_text()))


def _move(console: Console, registry: Registry, load: Load) -> list[tuple[str, float]]:
    """Move the alias to 2 and back; return what was served after which seconds."""
    changes = []
    with Live(_shown(load, "1"), console=console, refresh_per_second=8) as live:
        _watch(live, load, "1", 3.0)
        for version in ("2", "1"):
            registry.set_alias(NAME, "champion", version)
            moved = time.monotonic()
            while (
                not (load.sent[-1].answer and load.sent[-1].answer.get("version") == version)
                and time.monotonic() < moved + 60
            ):
                live.update(_shown(load, version))
                time.sleep(0.05)
            changes.append((version, time.monotonic() - moved))
            _watch(live, load, version, 3.0)
    return changes


def _watch(live: Live, load: Load, alias: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        live.update(_shown(load, alias))
        time.sleep(0.1)


def _shown(load: Load, alias: str) -> Table:
    latest = load.sent[-int(RATE) :]
    table = Table(title=f"{RATE:g} requests/s; the alias champion stands on version {alias}")
    for heading in ("answered", "failed", "last second: version × answers", "p99"):
        table.add_column(heading)
    versions = Counter(one.answer["version"] for one in latest if one.status == 200)
    by_version = ", ".join(f"{version} × {number}" for version, number in sorted(versions.items()))
    p99 = f"{percentile([one.latency_s for one in latest], 0.99) * 1e3:.1f} ms" if latest else ""
    table.add_row(str(len(load.sent)), str(len(load.failed)), by_version, p99)
    return table


def _judge(console: Console, oracle: Oracle, load: Load, changes: list[tuple[str, float]]) -> int:
    strangers = [
        one
        for one in load.sent
        if one.status == 200 and oracle.versions(one.answer, one.row) != [one.answer["version"]]
    ]
    checks = [
        (
            (
                f"version {version} served {seconds:.1f} s after the alias moved (2 polls: "
                f"{2 * PERIOD_S:g} s)"
            ),
            seconds <= 2 * PERIOD_S,
        )
        for version, seconds in changes
    ]
    checks.append((f"{len(load.failed)} of {len(load.sent)} requests failed", not load.failed))
    checks.append(
        (
            f"{len(strangers)} answers are not exactly one version's, as scikit-learn gives them",
            not strangers,
        )
    )
    for text, held in checks:
        console.print(f"{'[green]held[/]  ' if held else '[red]broken[/]'} {text}")
    return 0 if all(held for _, held in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
