"""`/invocations` answers what MLflow's own server answers for a model that was logged with
`pyfunc_predict_fn`."""

from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from model_export.export import ExportRequest, export
from model_export.report import Reporter
from support.client import app_client

pytestmark = pytest.mark.filterwarnings("ignore")

_RNG = np.random.default_rng(8)
_X = _RNG.normal(size=(200, 3))
_MODEL = LogisticRegression().fit(_X, np.where(_X.sum(axis=1) > 0.0, "yes", "no"))
_ASKED = _X[:3].tolist()
_PROBABILITIES = {"predict_method": "predict_proba"}
_LABELS = {"predict_method": "predict"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the model that answers probabilities, next to the model in MLflow's format."""
    folder = tmp_path_factory.mktemp("logged")
    mlflow.sklearn.save_model(
        _MODEL,
        folder / "model",
        input_example=_X,
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["scikit-learn"],
    )
    export(ExportRequest(str(folder / "model"), folder / "out", gate_rows=1000), Reporter())
    return folder


async def test_a_model_logged_with_predict_proba_answers_probabilities(folder: Path) -> None:
    """In JSON and CSV; `params` chooses the other, and other protocols keep the label."""
    from mlflow.pyfunc import scoring_server  # its import warns

    body: dict[str, Any] = {"inputs": _ASKED}
    app = scoring_server.init(mlflow.pyfunc.load_model(str(folder / "model")))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://mlflow") as mlflows:
        expected = (await mlflows.post("/invocations", json=body)).json()["predictions"]
    async with app_client(folder / "out") as client:

        async def predictions(path: str, **more: Any) -> Any:
            return (await client.post(path, json=body | more)).json()["predictions"]

        found = await predictions("/invocations")
        accept = {"accept": "text/csv"}
        as_csv = (await client.post("/invocations", json=body, headers=accept)).text
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert [[float(cell) for cell in line.split(",")] for line in as_csv.split()] == found
        assert await predictions("/invocations", params=_PROBABILITIES) == found
        labels = _MODEL.predict(_ASKED).tolist()
        assert await predictions("/invocations", params=_LABELS) == labels
        assert await predictions("/v1/models/model:predict") == labels
