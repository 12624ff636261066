"""What the exporter writes, the server reads, and its answers are the registered model's."""

import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from halfcore import bundle
from halfcore.metrics.counters import ModelMetrics
from halfcore.metrics.drift import ANSWERS, stability_index
from halfcore.models.drift import Drift
from halfcore.models.loading import load
from halfcore.models.served import LoadedModel
from model_export.export import ExportRequest, export
from model_export.report import Reporter
from support.limits import LIMITS

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)  # MLflow's own


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Rows with a number that may be missing, a count, a flag and a place that may be missing."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "mass": rng.normal(300.0, 90.0, 200),
            "count": rng.integers(0, 9, 200),
            "tame": rng.random(200) < 0.5,
            "place": rng.choice(["cliff", "marsh", "wood"], 200),
        }
    )
    frame.loc[::7, "mass"] = np.nan
    frame["place"] = frame["place"].where(rng.random(200) > 0.1)
    return frame


def saved(estimator: Any, frame: pd.DataFrame, path: Path) -> Path:
    """An MLflow model folder."""
    import mlflow.sklearn
    from mlflow.models import infer_signature

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # MLflow's hints about integers and missing values are not under test
        signature = infer_signature(frame, estimator.predict(frame[:5]))
        mlflow.sklearn.save_model(
            estimator,
            path,
            signature=signature,
            input_example=frame,
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
    return path


def pipeline(final: Any) -> Any:
    """Imputers, scaler and one-hot encoder before an estimator."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    return make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer()), ["mass", "count"]),
            ("passthrough", ["tame"]),
            (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["place"]),
        ),
        final,
    )


@pytest.mark.parametrize("task", ["classification", "regression"])
async def test_the_server_reads_what_the_exporter_writes(
    task: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    """Export, read, load (which asks the golden rows), and answer every row of the data as the
    registered model does."""
    from sklearn.linear_model import LogisticRegression, Ridge

    target = frame["mass"].fillna(0.0) + 10.0 * frame["count"]
    labels = np.where(target > 330.0, "heavy", "light")
    estimator = pipeline(LogisticRegression(max_iter=2000) if task == "classification" else Ridge())
    estimator.fit(frame, labels if task == "classification" else target)
    written = export(
        ExportRequest(
            uri=str(saved(estimator, frame, tmp_path / "model")),
            out=tmp_path / "bundles",
            name="birds",
            gate_rows=2000,
        ),
        Reporter(),
    )

    with ThreadPoolExecutor(1) as executor:
        model = load(bundle.read(written), metrics=ModelMetrics(), limits=LIMITS, executor=executor)
        parity = model.manifest.parity
        assert (parity.data_origin, parity.data_rows) == ("the model's input example", 200)
        assert parity.distinct_rows == len(frame.drop_duplicates())
        assert parity.warnings == []
        records = json.loads(frame.to_json(orient="records"))
        answers = [await answer(model, record) for record in records]
        assert drift(model.metrics, json.dumps(records * 4).encode(), model, rounds=2) < 0.02
        shifted = [record | {"count": 8} for record in records]
        assert drift(model.metrics, json.dumps(shifted).encode(), model, rounds=8) > 0.25

    expected = estimator.predict(frame)
    if task == "classification":
        assert [given["prediction"] for given in answers] == expected.tolist()
        given = [
            [answer["probabilities"][label] for label in estimator.classes_] for answer in answers
        ]
        np.testing.assert_allclose(given, estimator.predict_proba(frame), atol=1e-5)
    else:
        np.testing.assert_allclose([given["prediction"] for given in answers], expected, rtol=1e-5)


def drift(metrics: ModelMetrics, body: bytes, model: LoadedModel, *, rounds: int) -> float:
    """The largest index of a column after these records were counted so often."""
    watched = metrics.drift
    assert isinstance(watched, Drift)
    rows = model.decoder.decode(body)
    run = watched.watching(lambda _, size: [(0,)] * size)
    for _ in range(rounds):
        run(rows.payload, rows.size)
        watched.count()
    columns = watched.snapshot().columns
    assert columns.keys() == {"mass", "count", "tame", "place", ANSWERS}
    return max(stability_index(columns[name]) or 0.0 for name in columns if name != ANSWERS)


async def answer(model: LoadedModel, record: dict[str, Any]) -> Any:
    """The server's answer to one record, through its own decoder, batcher and encoder."""
    rows = model.decoder.decode(json.dumps(record).encode())
    return json.loads(
        model.encoder.encode(await model.batcher.infer(rows.payload, rows.size), many=rows.many)
    )
