"""A model whose library is not installed is refused in one line that names the extra."""

import sys

import mlflow
import numpy as np
import pytest
import xgboost
from mlflow.models import infer_signature

from model_export.errors import ExportError
from model_export.registry.client import fetch
from model_export.registry.flavors import needed


@pytest.mark.filterwarnings("ignore")
def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch):
    """As the user types it."""
    rows = np.random.default_rng(0).normal(size=(40, 3))
    model = xgboost.XGBClassifier(n_estimators=2).fit(rows, rows[:, 0] > 0)
    signature = infer_signature(rows)
    mlflow.xgboost.save_model(
        model, tmp_path / "model", signature=signature, pip_requirements=["xgboost"]
    )
    for module in [name for name in sys.modules if name.partition(".")[0] == "xgboost"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExportError, match=r"install halfcore-export\[xgboost\]"):
        fetch(str(tmp_path / "model"))


def test_a_module_that_an_installed_library_no_longer_has():
    """As of a model that was trained with an older scikit-learn, which is installed after all."""
    said = needed("sklearn.ensemble._gb_losses", "trained with scikit-learn 1.2.3, loaded with 1.9")
    assert "'sklearn.ensemble._gb_losses', which the installed sklearn does not have" in said
    assert "trained with scikit-learn 1.2.3, loaded with 1.9: train and register it again" in said
