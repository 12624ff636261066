"""Small models, saved as MLflow saves them, and exported with a gate of few rows where its size is
not the point."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
SMALL_GATE_ROWS = 3_000
TRUSTED = [
    "numpy.dtype",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.tree._tree.Tree",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """MLflow's store configures SQLAlchemy with a loader that SQLAlchemy deprecates: neither is
    ours, and it happens on first use."""
    mlflows_own = pytest.mark.filterwarnings(
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
    )
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(mlflows_own)


@pytest.fixture(scope="session")
def birds() -> pd.DataFrame:
    """300 made-up birds: two measures (some missing), a count, a flag, a place and a ring colour
    (some missing)."""
    rng = np.random.default_rng(7)
    size = 300
    frame = pd.DataFrame(
        {
            "wing": rng.normal(20.0, 4.0, size),
            "weight": rng.normal(300.0, 90.0, size),
            "eggs": rng.integers(0, 9, size),
            "tame": rng.random(size) < 0.5,
            "place": rng.choice(["cliff", "marsh", "wood"], size),
            "ring": rng.choice(["blue", "red"], size),
        }
    )
    frame.loc[rng.random(size) < 0.1, "weight"] = np.nan
    frame["ring"] = frame["ring"].where(rng.random(size) > 0.1)
    return frame


@pytest.fixture(scope="session")
def species(birds: pd.DataFrame) -> np.ndarray[Any, Any]:
    """A label that depends on the measures, but not only on them."""
    score = (
        birds["wing"]
        + 0.01 * birds["weight"].fillna(300.0)
        + 2.0 * (birds["place"] == "marsh")
        + 0.3 * birds["eggs"]
    )
    return np.asarray(pd.cut(score, 3, labels=["auk", "gull", "tern"]).astype(str))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save a fitted estimator as an MLflow model folder with a signature; returns the folder."""
    return _save_in(tmp_path)


@pytest.fixture(scope="module")
def save_shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """As `save`, for a model that all tests of a module share."""
    return _save_in(tmp_path_factory.mktemp("shared"))


def _save_in(root: Path) -> Callable[..., Path]:
    import mlflow.sklearn
    from mlflow.models import infer_signature

    def save(estimator: Any, x: Any, name: str = "model", **options: Any) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # MLflow's hints about integers and pickles are not under test
            signature = options.pop("signature", infer_signature(x, estimator.predict(x[:5])))
            options.setdefault("skops_trusted_types", TRUSTED)
            mlflow.sklearn.save_model(
                estimator,
                root / name,
                signature=signature,
                input_example=x,
                pip_requirements=["scikit-learn"],
                **options,
            )
        return root / name

    return save


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Exported]:
    """Export an MLflow model folder with a small gate; returns the bundle."""
    return _export_in(tmp_path)


@pytest.fixture(scope="module")
def export_shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """As `export`, for a bundle that all tests of a module share."""
    return _export_in(tmp_path_factory.mktemp("shared"))


def _export_in(root: Path) -> Callable[..., Exported]:
    from model_export.export import ExportRequest
    from model_export.export import export as run
    from model_export.report import Reporter

    def export(folder: Path, **options: Any) -> Exported:
        output = io.StringIO()
        options.setdefault("gate_rows", SMALL_GATE_ROWS)
        order = ExportRequest(str(folder), root / "bundles", **options)
        return Exported(run(order, Reporter(Console(file=output, width=200))), output.getvalue())

    return export


class Exported:
    """A bundle, read without the exporter's help."""

    def __init__(self, folder: Path, output: str) -> None:
        """Read it."""
        import onnxruntime as ort

        self.folder, self.output = folder, output
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.session = ort.InferenceSession(
            folder / "model.onnx", providers=["CPUExecutionProvider"]
        )

    def inputs(self, name: str) -> dict[str, Any]:
        """One entry of `inputs`."""
        return next(entry for entry in self.manifest["inputs"] if entry["name"] == name)

    def answer(self, *records: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
        """Pack records as docs/bundle-format.md says, and run them."""
        rows = [
            [_pack(entry, record[entry["name"]]) for entry in self.manifest["inputs"]]
            for record in records
        ]
        return list(self.session.run(None, {"rows": np.array(rows, dtype=self.manifest["dtype"])}))

    def labels(self, frame: pd.DataFrame) -> list[Any]:
        """The labels for the rows of a table, sent as a client would write them."""
        records = [
            {k: None if pd.isna(v) else v for k, v in row.items()}
            for row in frame.to_dict("records")
        ]
        return [self.manifest["classes"][i] for i in self.answer(*records)[0]]


def _pack(entry: dict[str, Any], value: Any) -> float:
    if entry["kind"] != "category":
        return float("nan") if value is None else float(value)
    return float(len(entry["categories"]) if value is None else entry["categories"].index(value))
