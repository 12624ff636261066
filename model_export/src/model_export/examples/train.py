"""Trains the examples and registers them as a team would: signature, input example, data, accuracy,
alias and stage."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import mlflow
import numpy as np
import sklearn
import skops
from mlflow.data.pandas_dataset import from_pandas
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.model_selection import train_test_split

from model_export.examples import cover, iris, penguins

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import pandas as pd

    from model_export.report import Reporter

EXPERIMENT = "halfcore-examples"
ALIAS = "champion"
_TEST_SHARE = 0.2
_TREE = "sklearn.tree._tree.Tree"
_CALIBRATION = (
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
)


@dataclass(frozen=True)
class _Example:
    data: ModuleType
    """Has `load`, `features` and `TARGET`."""
    build: Callable[[], Any]
    trusted: tuple[str, ...]
    """Types that skops loads only by name: a forged tree, say, can crash whoever loads it. These
    models were made here."""


_EXAMPLES = {
    "iris": _Example(iris, iris.build, (_TREE,)),
    "penguins-lr": _Example(penguins, penguins.logistic_regression, ("numpy.dtype",)),
    "penguins-rf": _Example(penguins, penguins.forest, ("numpy.dtype", _TREE)),
    "penguins-svm": _Example(
        penguins, penguins.support_vector_machine, ("numpy.dtype", *_CALIBRATION)
    ),
    "cover-small": _Example(cover, cover.small, (_TREE,)),
    "cover-middle": _Example(cover, cover.middle, (_TREE,)),
    "cover-heavy": _Example(cover, cover.heavy, (_TREE,)),
}


def is_registered(name: str) -> bool:
    """True where the registry has the model under its alias."""
    try:
        mlflow.MlflowClient().get_model_version_by_alias(name, ALIAS)
    except MlflowException:
        return False
    return True


def train(name: str, artifacts: Path, reporter: Reporter) -> None:
    """Train and register one example; MLflow is already connected.

    Args:
        name: of the example, and of the registered model.
        artifacts: folder for the files of a new experiment in a local store.
        reporter: is told of the accuracy.
    """
    example = _EXAMPLES[name]
    frame = example.data.load()
    x, y = example.data.features(frame), frame[example.data.TARGET].to_numpy()
    with reporter.stage(f"train {name}"):
        accuracy = _held_out_accuracy(example.build(), x, y)
        # Threads cost more than they give when one row is asked for; the registered model is for
        # serving.
        model = _without_threads(example.build().fit(x, y))
    reporter.note(
        f"{name}: {accuracy:.1%} right of the fifth that was held out; then trained on all "
        f"{len(y):,} rows"
    )
    with reporter.stage(f"register {name}"):
        _register(name, model, x, frame, accuracy, artifacts, example.trusted)


def _held_out_accuracy(model: Any, x: Any, y: np.ndarray[Any, Any]) -> float:
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=_TEST_SHARE, shuffle=True, stratify=y, random_state=20
    )
    return float(np.mean(model.fit(x_train, y_train).predict(x_test) == y_test))


def _without_threads(model: Any) -> Any:
    threads = {key: None for key in model.get_params() if key.rpartition("__")[2] == "n_jobs"}
    return model.set_params(**threads)


def _register(
    name: str,
    model: Any,
    x: Any,
    frame: pd.DataFrame,
    accuracy: float,
    artifacts: Path,
    trusted: tuple[str, ...],
) -> None:
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        local = mlflow.get_tracking_uri().startswith(
            "sqlite:"
        )  # a tracking server has a place of its own
        mlflow.create_experiment(
            EXPERIMENT, artifact_location=artifacts.resolve().as_uri() if local else None
        )
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=name), warnings.catch_warnings():
        # MLflow warns that an integer column cannot hold a missing value later on: here that is
        # what is meant.
        warnings.filterwarnings("ignore", message=".*integer column", category=UserWarning)
        warnings.filterwarnings(
            "ignore",
            message="The specified dataset source can be interpreted in multiple ways",
            category=UserWarning,
        )
        mlflow.log_params(
            {
                key: value
                for key, value in model.get_params().items()
                if isinstance(value, int | float | str)
            }
        )
        mlflow.log_metric("accuracy", accuracy)
        _log_data(name, frame)
        mlflow.sklearn.log_model(
            model,
            name=name,
            signature=infer_signature(x, model.predict(x)),
            input_example=x[:5],
            skops_trusted_types=list(trusted),
            registered_model_name=name,
            # Given, because MLflow otherwise finds them out by loading the model in a process of
            # its own.
            pip_requirements=[
                f"scikit-learn=={sklearn.__version__}",
                f"skops=={skops.__version__}",
                f"numpy=={np.__version__}",
            ],
        )
    _promote(name)


def _log_data(name: str, frame: pd.DataFrame) -> None:
    """Log the very table that the model saw, so that whoever has the run can prove an export on
    it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.csv"
        frame.to_csv(path, index=False)
        mlflow.log_artifact(str(path), "data")
    source = mlflow.get_artifact_uri(f"data/{name}.csv")
    if source.startswith("mlflow-artifacts:"):
        # MLflow knows no such source of data (3.17), but the same file at its server's address.
        source = (
            f"{mlflow.get_tracking_uri()}/api/2.0/mlflow-artifacts/artifacts{urlsplit(source).path}"
        )
    mlflow.log_input(from_pandas(frame, source=source, name=name), context="training")


def _promote(name: str) -> None:
    client = mlflow.MlflowClient()
    newest = max(
        client.search_model_versions(f"name='{name}'"), key=lambda version: int(version.version)
    )
    client.set_registered_model_alias(name, ALIAS, newest.version)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # stages are deprecated, and what MODEL_STAGE=Production still asks for
        client.transition_model_version_stage(
            name, newest.version, "Production", archive_existing_versions=True
        )
