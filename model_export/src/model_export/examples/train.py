"""Trains the examples and registers them as a team would, with signature, input example, data,
accuracy, alias and stage."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import mlflow
import numpy as np
from mlflow.data.pandas_dataset import from_pandas
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.model_selection import train_test_split

from model_export.examples import cover, iris, penguins, pines
from model_export.registry.client import version_number
from model_export.registry.names import versions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    import pandas as pd

    from model_export.report import Reporter

EXPERIMENT = "halfcore-examples"
ALIAS = "champion"
_TEST_SHARE = 0.2
_TREE = "sklearn.tree._tree.Tree"
_LIGHTGBM = (
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
)
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
    """Types that skops loads only if they are named: a forged tree, for example, can crash the
    process that loads it. These models were made here."""
    packages: tuple[str, ...] = ("scikit-learn", "skops", "numpy")
    """What loads it."""


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
    "cover-lightgbm": _Example(
        pines, pines.build, _LIGHTGBM, ("scikit-learn", "skops", "numpy", "lightgbm")
    ),
}


def is_registered(name: str) -> bool:
    """True if the registry has the model with its alias."""
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
        reporter: gets the progress and the accuracy.
    """
    example = _EXAMPLES[name]
    frame = example.data.load()
    x, y = example.data.features(frame), frame[example.data.TARGET].to_numpy()
    with reporter.stage(f"train {name}"):
        accuracy = _held_out_accuracy(example.build(), x, y)
        # The registered model is for serving: for one row, threads cost more time than they save.
        model = _without_threads(example.build().fit(x, y))
    reporter.note(
        f"{name}: accuracy {accuracy:.1%} on the fifth that was held out; then trained on all "
        f"{len(y):,} rows"
    )
    with reporter.stage(f"register {name}"):
        _use_experiment(artifacts)
        with mlflow.start_run(run_name=name), _expected_warnings_ignored():
            _log_run(name, model, frame, accuracy)
            _log_model(name, model, x, example)
        _promote(name)


def _held_out_accuracy(model: Any, x: Any, y: np.ndarray[Any, Any]) -> float:
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=_TEST_SHARE, shuffle=True, stratify=y, random_state=20
    )
    return float(np.mean(model.fit(x_train, y_train).predict(x_test) == y_test))


def _without_threads(model: Any) -> Any:
    threads = {
        key: None
        for key, value in model.get_params().items()
        if key.rpartition("__")[2] == "n_jobs" and value != 1
    }
    return model.set_params(**threads)


def _use_experiment(artifacts: Path) -> None:
    """Select the examples' experiment; make it if it is missing."""
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        # A tracking server chooses the place of its artifacts itself.
        local = mlflow.get_tracking_uri().startswith("sqlite:")
        mlflow.create_experiment(
            EXPERIMENT, artifact_location=artifacts.resolve().as_uri() if local else None
        )
    mlflow.set_experiment(EXPERIMENT)


@contextmanager
def _expected_warnings_ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        # MLflow warns that an integer column cannot hold missing values: that is intended here.
        warnings.filterwarnings("ignore", message=".*integer column", category=UserWarning)
        warnings.filterwarnings(
            "ignore",
            message="The specified dataset source can be interpreted in multiple ways",
            category=UserWarning,
        )
        yield


def _log_run(name: str, model: Any, frame: pd.DataFrame, accuracy: float) -> None:
    """Log parameters, accuracy and data."""
    mlflow.log_params(
        {
            key: value
            for key, value in model.get_params().items()
            if isinstance(value, int | float | str)
        }
    )
    mlflow.log_metric("accuracy", accuracy)
    _log_data(name, frame)


def _log_model(name: str, model: Any, x: Any, example: _Example) -> None:
    """Log the model and register it."""
    mlflow.sklearn.log_model(
        model,
        name=name,
        signature=infer_signature(x, model.predict(x)),
        input_example=x[:5],
        skops_trusted_types=list(example.trusted),
        registered_model_name=name,
        # Without these MLflow would load the model in another process to find them out.
        pip_requirements=[f"{each}=={installed_version(each)}" for each in example.packages],
    )


def _log_data(name: str, frame: pd.DataFrame) -> None:
    """Log the table that the model was trained on, so that an export can be proven on it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.csv"
        frame.to_csv(path, index=False)
        mlflow.log_artifact(str(path), "data")
    source = mlflow.get_artifact_uri(f"data/{name}.csv")
    if source.startswith("mlflow-artifacts:"):
        # MLflow 3.17 accepts no such source of data, but the same file at its server's address.
        source = (
            f"{mlflow.get_tracking_uri()}/api/2.0/mlflow-artifacts/artifacts{urlsplit(source).path}"
        )
    mlflow.log_input(from_pandas(frame, source=source, name=name), context="training")


def _promote(name: str) -> None:
    client = mlflow.MlflowClient()
    newest = max(client.search_model_versions(versions_of(name)), key=version_number)
    client.set_registered_model_alias(name, ALIAS, newest.version)
    with warnings.catch_warnings():
        # Stages are deprecated, but MODEL_STAGE=Production still needs one.
        warnings.simplefilter("ignore", FutureWarning)
        client.transition_model_version_stage(
            name, newest.version, "Production", archive_existing_versions=True
        )
