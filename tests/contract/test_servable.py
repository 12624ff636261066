"""What the exporter's own check of a bundle accepts, the server's loader accepts; and the same for
what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from halfcore import bundle
from halfcore.bundle import BundleError
from halfcore.models.preparing import prepare
from halfcore.pipeline.engine import EngineError
from model_export.bundle.check import (
    MOST_MANIFEST_BYTES,
    NotServableError,
    problems,
    require_servable,
)
from support import damage
from support.bundles import write_bundle

NUMBER = {"name": "mass", "kind": "number", "nullable": False, "example": 1.5}
PLACE = {
    "name": "place",
    "kind": "category",
    "nullable": True,
    "example": "marsh",
    "categories": ["cliff", "marsh"],
}
QUOTED = {"name": 'screen 15" é \\', "kind": "number", "nullable": True, "example": 2.0}
COUNT = {"name": "n", "kind": "integer", "nullable": False, "example": 3}
FLAG = {"name": "tame", "kind": "boolean", "nullable": False, "example": True}

GOOD: dict[str, dict[str, Any]] = {
    "numbers": {},
    "a category": {"inputs": [NUMBER, PLACE], "classes": ["a", "b"]},
    "every kind": {"inputs": [NUMBER, PLACE, COUNT, FLAG], "classes": ["a", "b", "c"]},
    "a quote in a name": {"inputs": [NUMBER, QUOTED], "classes": ["a", 'b"']},
    "doubles": {"inputs": [NUMBER, COUNT], "dtype": "float64", "classes": [0, 1]},
    "booleans": {"inputs": [NUMBER], "classes": [False, True]},
    "a regressor": {"inputs": [NUMBER, COUNT], "classes": [], "task": "regression"},
}
_OF_THE_MODEL = (
    "a newer manifest",
    "a manifest without a field",
    "a failed parity",
    "a newer opset",
    "an unknown operator domain",
    "no golden rows",
    "HTML instead of ONNX",
    "half a model, signed",
    "an input of another name",
    "an input too many",
    "another width",
    "another dtype",
    "an output of another name",
    "another golden answer",
    "a graph that fails",
    "a flipped bit",
    "a model cut short",
    "a model too long",
)
BROKEN: dict[str, Callable[[Path], object]] = {
    **{name: damage.BAD[name].damage for name in _OF_THE_MODEL},
    "infinite answers": damage.valued(
        [
            helper.make_node("ReduceSum", ["rows", "axis"], ["sum"], keepdims=0),
            helper.make_node("Div", ["sum", "zero"], ["value"]),
        ],
        axis=np.array([1], np.int64),
        zero=np.array(0, np.float32),
    ),
    "another name": damage.changed(name="not a folder"),
    "an empty version": damage.changed(version=""),
    "two columns of one name": damage.changed(inputs__1__name="x0"),
    "an empty column name": damage.changed(inputs__0__name=""),
    "an unknown kind": damage.changed(inputs__0__kind="text"),
    "a category without values": damage.changed(inputs__0__kind="category"),
    "classes for a regressor": damage.changed(classes=["a"]),
    "outputs of another task": damage.changed(outputs=["label"]),
    "text as a golden value": damage.changed(golden__0__prediction="a"),
    "a golden row without a column": damage.changed(golden__0__row={}),
    "a golden number too large": damage.changed(golden__0__row__x0=1e300),
    "a newer IR": damage.changed(onnx__ir_version=99),
}


def exporter_says(path: Path) -> list[str]:
    """What the exporter's check finds."""
    manifest = json.loads((path / "manifest.json").read_text())
    return list(problems(manifest, (path / "model.onnx").read_bytes()))


def server_says(path: Path) -> str | None:
    """What the server's loader refuses it for."""
    try:
        prepare(bundle.read(path), max_batch_size=4)
    except (BundleError, EngineError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", GOOD)
def test_both_sides_accept_a_good_bundle(name: str, tmp_path: Path) -> None:
    """Each kind of column, class and task."""
    path = write_bundle(tmp_path, **GOOD[name])

    assert (exporter_says(path), server_says(path)) == ([], None)


@pytest.mark.parametrize("name", BROKEN)
def test_both_sides_refuse_a_broken_bundle(name: str, tmp_path: Path) -> None:
    """Each field and each part of the graph that the server looks at."""
    inputs = [{**NUMBER, "name": f"x{i}"} for i in range(4)]
    path = write_bundle(tmp_path, inputs=inputs, classes=[], task="regression")
    assert exporter_says(path) == []
    BROKEN[name](path)

    assert server_says(path) is not None
    assert exporter_says(path) != []


def test_a_manifest_that_servers_would_not_download_is_refused(tmp_path: Path) -> None:
    """Servers that follow a registry read at most 8 MiB."""
    path = write_bundle(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["source"]["uri"] = "x" * MOST_MANIFEST_BYTES

    with pytest.raises(NotServableError, match="the server would refuse the bundle"):
        require_servable(manifest, (path / "model.onnx").read_bytes())
