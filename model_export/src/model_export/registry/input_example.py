"""Loads the input example that was logged with a model."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

from model_export.errors import sentence

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel


def load(saved: Model, folder: Path, pyfunc: PyFuncModel) -> tuple[Any | None, list[str]]:
    """The model's input example.

    Returns:
        the example, and a note that says why there is none although one was logged.
    """
    if pyfunc.input_example is not None:
        return pyfunc.input_example, []
    # MLflow does not read an example that the signature does not permit, such as a null in a
    # column of integers. Its other rows are still good.
    unchecked = copy.copy(saved)
    unchecked.signature = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return saved.load_input_example(str(folder)), []
            except Exception:  # noqa: BLE001 - as below
                return unchecked.load_input_example(str(folder)), []
    except Exception as error:  # noqa: BLE001 - any file may be there, and the example is optional
        return None, [f"the model's input example cannot be read: {sentence(error, 200)}"]
