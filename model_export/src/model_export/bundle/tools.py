"""The packages whose versions decide the result of an export; cheap to import."""

from __future__ import annotations

import platform
from importlib.metadata import version

NAMES = (
    "halfcore-export",
    "mlflow",
    "scikit-learn",
    "skl2onnx",
    "onnx",
    "onnxruntime",
    "numpy",
    "pandas",
    "skops",
)


def versions() -> dict[str, str]:
    """The version of each package, and of Python."""
    return {name: version(name) for name in NAMES} | {"python": platform.python_version()}
