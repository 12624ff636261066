"""MLflow's flavours: which can be exported, and what to do with a model of another one."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from model_export.errors import MORE, TRAIN_AGAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

FLAVORS = ("sklearn", "xgboost", "lightgbm", "catboost", "onnx")
"""MLflow's flavours whose models can be exported, in the order in which they are looked for."""
EXTRAS = {
    "boto3": "s3",
    "catboost": "catboost",
    "lightgbm": "lightgbm",
    "xgboost": "xgboost",
}
"""Package → the extra of halfcore-export that installs it."""
_LOG_ONNX = "log it with mlflow.onnx.log_model"
_WAYS = {
    "pytorch": f"convert it with torch.onnx.export and {_LOG_ONNX}",
    "keras": f"convert it with tf2onnx and {_LOG_ONNX}",
    "tensorflow": f"convert it with tf2onnx and {_LOG_ONNX}",
    "spark": f"convert it with onnxmltools and {_LOG_ONNX}",
    "statsmodels": "fit the same formula with scikit-learn (LinearRegression, LogisticRegression, "
    "TweedieRegressor) and log it with mlflow.sklearn.log_model",
    "prophet": "a forecast is not answered from one row of numbers; serve it with mlflow models "
    "serve",
    "transformers": "serve it with mlflow models serve: a bundle takes rows, not token streams",
}
_FUNCTIONS = ("predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba")
"""Of the estimator, which a pyfunc may be saved with. MLflow saves one with any other, too, and
then cannot load it."""
_WRAPPED = (
    "log the scikit-learn model inside it with mlflow.sklearn.log_model, or convert it to ONNX and "
    f"{_LOG_ONNX}"
)


def refusal(flavors: set[str]) -> str:
    """Why a model of these flavours cannot be exported, and what is possible.

    Args:
        flavors: MLflow's names for them.
    """
    own = sorted(flavors - {"python_function"})
    what = f"it is a model of {', '.join(own)}" if own else "it is a Python function of your own"
    way = next((_WAYS[name] for name in own if name in _WAYS), _WRAPPED)
    return (
        f"{what}: models of scikit-learn, XGBoost, LightGBM, CatBoost and ONNX can be exported; "
        f"{way} {MORE}"
    )


def exported_as(flavors: Mapping[str, Mapping[str, object]]) -> tuple[str, str]:
    """The flavour by which a model is exported, and why it cannot be; one of the two is empty.

    Args:
        flavors: MLflow's name → its entries in the model's MLmodel file.
    """
    kind = next((name for name in FLAVORS if name in flavors), None)
    if kind is None:
        return "", refusal(set(flavors))
    function = flavors.get("python_function", {}).get("predict_fn", "predict")
    if function not in _FUNCTIONS:
        return "", (
            f"the model is saved with pyfunc_predict_fn={function!r}, expected one of "
            f"{', '.join(_FUNCTIONS)}: log it again with one of them {MORE}"
        )
    return kind, ""


def needed(module: str, other_version: str | None = None) -> str:
    """What to do for a model that imports this module, which is missing.

    Args:
        module: with the names of its packages.
        other_version: both versions of scikit-learn, if the model was trained with another one.
    """
    package = module.partition(".")[0]
    if package != module and find_spec(package):
        versions = f"; {other_version}" if other_version else ""
        return (
            f"loading it needs the Python module {module!r}, which the installed {package} does "
            f"not have{versions}: {TRAIN_AGAIN} {MORE}"
        )
    extra = EXTRAS.get(package)
    command = f"halfcore-export[{extra}]" if extra else f"the package that has {package}"
    return (
        f"loading it needs the Python module {package!r}, which is not installed: install {command}"
    )
