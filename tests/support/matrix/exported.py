"""One model of the matrix in a process of its own: trained, logged, exported, and asked for the
answers that its bundle has to give."""

import io
import json
import os
import resource
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import xgboost
from mlflow.models import infer_signature
from rich.console import Console

from model_export import stages
from model_export.errors import ExportError
from model_export.export import ExportRequest, export
from model_export.prove.neighbours import Neighbours
from model_export.report import Reporter
from support.matrix import catalogue
from support.matrix.case import Trained
from support.matrix.rows import drawn, model_input, probes, records, takes_categories

RESULT, ANSWERS = "result.json", "answers.json"
_HEADROOM_MB = 4_096
"""Memory that is reserved and not used, on top of the limit."""


def run(
    name: str, folder: Path, template: Path, gate_rows: int | None, limit_s: int, limit_mb: int
) -> None:
    """Train, log, export and ask one model; leaves `result.json` and `answers.json`."""
    bound = (limit_mb + _HEADROOM_MB) << 20
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ends it with SIGXCPU; the second limit is only to be higher.
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 10))
    stages.limited_to(limit_mb)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    warnings.simplefilter("ignore")  # the libraries' own about short trainings
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    result = _tried(name, folder, template, gate_rows)
    result["seconds"] = round(time.monotonic() - started, 1)
    (folder / RESULT).write_text(json.dumps(result))


def _tried(name: str, folder: Path, template: Path, gate_rows: int | None) -> dict[str, Any]:
    try:
        trained = catalogue.cases()[name].train()
        uri = _logged(name, trained, folder, template)
    except Exception as error:  # noqa: BLE001  MLflow and the libraries fail in their own ways
        return {"outcome": "not logged", "message": f"{type(error).__name__}: {error}"}
    try:
        path = _exported(uri, folder, gate_rows)
    except ExportError as error:
        unexpected = "unexpected error" in str(error)
        return {"outcome": "traceback" if unexpected else "refused", "message": str(error)}
    except Exception as error:  # noqa: BLE001  what must not happen is what this looks for
        return {"outcome": "traceback", "message": f"{type(error).__name__}: {error}"}
    try:
        _ask(uri, trained, path, folder)
    except Exception as error:  # noqa: BLE001  the rows are drawn from what the bundle accepts
        said = f"the registered model fails on rows that its bundle accepts: {error}"
        return {"outcome": "traceback", "message": said}
    return {"outcome": "exported", "message": "", "bundle": str(path)}


def _logged(name: str, trained: Trained, folder: Path, template: Path) -> str:
    """Register the model as MLflow's tutorials do; returns its URI."""
    shutil.copy(template, folder / "mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("matrix", artifact_location=str(folder / "artifacts"))
    mlflow.set_experiment("matrix")
    with mlflow.start_run():
        if trained.log:
            trained.log(name, trained.model, trained.rows)
        else:
            _log(name, trained)
    return f"models:/{name}/1"


def _log(name: str, trained: Trained) -> None:
    model, rows = trained.model, trained.rows
    options: dict[str, Any] = {
        "input_example": rows,
        "serialization_format": "cloudpickle",
        "pip_requirements": ["scikit-learn"],
    } | trained.options
    if "signature" not in options:
        function = getattr(model, options.get("pyfunc_predict_fn", "predict"))
        options["signature"] = infer_signature(rows, function(rows))
    mlflow.sklearn.log_model(model, name="model", registered_model_name=name, **options)


def _exported(uri: str, folder: Path, gate_rows: int | None) -> Path:
    reporter = Reporter(Console(file=io.StringIO(), width=200))
    request = ExportRequest(uri, folder.parent / "bundles", gate_rows=gate_rows)
    return export(request, reporter)


def _ask(uri: str, trained: Trained, bundle: Path, folder: Path) -> None:
    """Store fresh rows with the registered model's answers."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    # MLflow's check of the signature refuses a table with the types of the training table.
    own = takes_categories(trained.rows)
    served = _Trained(trained.model) if own else mlflow.pyfunc.load_model(uri)
    table = drawn(manifest, trained.rows)
    asked = model_input(table, trained.rows)
    expected, chances = _answers(served, trained, asked)
    tried = [
        {"row": records(row)[0], "expected": _or_error(served, row, trained.rows)}
        for row in probes(manifest, table)
    ]
    content = {
        "records": records(table),
        "expected": expected,
        "probabilities": chances,
        "alternatives": _alternatives(trained.model, asked),
        "probes": tried,
    }
    (folder / ANSWERS).write_text(json.dumps(content))


class _Trained:
    """A model as its users call it, without MLflow."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, rows: Any) -> Any:
        """Its answers."""
        if not isinstance(self._model, xgboost.Booster):
            return self._model.predict(rows)
        return self._model.predict(xgboost.DMatrix(rows, enable_categorical=True))


def _answers(served: Any, trained: Trained, asked: Any) -> tuple[list[Any], list[Any] | None]:
    """The registered model's labels or values, and its probabilities. Of a pyfunc that answers
    probabilities or their logarithms, the labels are the estimator's."""
    answered = served.predict(asked)
    function = trained.options.get("pyfunc_predict_fn", "predict")
    if function == "predict":
        return _plain(answered), _probabilities(trained.model, asked)
    chances = np.exp(answered) if function == "predict_log_proba" else answered
    return _plain(trained.model.predict(asked)), _plain(chances)


def _alternatives(model: Any, asked: Any) -> dict[str, list[Any]]:
    """Row → the other right answers, each with its probabilities: where training rows are equally
    far from the row."""

    def ask(rows: Any) -> list[Any]:
        own = _plain(model.predict(rows))
        return list(zip(own, _probabilities(model, rows) or [None] * len(own), strict=True))

    found: dict[str, list[Any]] = {}
    neighbours = Neighbours(model)
    if not neighbours:  # an ONNX graph, for one, has no `predict`
        return found
    owners, answers = neighbours.alternatives(asked, ask)
    for owner, answer in zip(owners.tolist(), answers or [], strict=True):
        found.setdefault(str(owner), []).append(answer)
    return found


def _or_error(served: Any, row: pd.DataFrame, rows: Any) -> Any:
    """The answer to one row; None where the registered model raises an error."""
    try:
        return _plain(served.predict(model_input(row, rows)))
    except Exception:  # noqa: BLE001  as its libraries do
        return None


def _plain(answer: Any) -> list[Any]:
    if isinstance(answer, dict):  # of a graph of ONNX: output → array
        (answer,) = answer.values()
    array = np.asarray(answer)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    found: list[Any] = array.tolist()
    return found


def _probabilities(model: Any, asked: Any) -> list[Any] | None:
    try:
        return _plain(model.predict_proba(asked))
    except Exception:  # noqa: BLE001  a model without them says so in its own way
        return None
