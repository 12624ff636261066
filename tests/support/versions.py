"""Bundles whose every answer tells the version that gave it: value = the row's sum + 1000 ·
version."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from support.bundles import graph, write_bundle

ROWS = [[float(i), 0.5, 2.0, float(i % 7)] for i in range(50)]
BODIES = [f'{{"features":{row}}}'.encode() for row in ROWS]


def expected(version: str, row: int) -> float:
    """The oracle; every value is exact in float32."""
    return sum(ROWS[row]) + 1000.0 * int(version)


def told(answer: dict[str, Any], row: int) -> str:
    """The version whose oracle an answer equals; fails if it is not the one that it names."""
    assert answer["prediction"] == expected(answer["version"], row), answer
    return str(answer["version"])


def write_version(
    root: Path,
    version: int,
    *,
    name: str = "numbers",
    megabytes: float = 0.0,
    changes: dict[str, Any] | None = None,
) -> Path:
    """A bundle of that version, with a table of so many megabytes that it keeps in memory and reads
    one value of, and with other fields of the manifest if `changes` says so."""
    table = np.zeros(max(1, int(megabytes * 250_000)), np.float32)
    table[:] = version * 1000.0
    nodes = [
        helper.make_node("Gather", ["table", "first"], ["offset"]),
        helper.make_node("ReduceSum", ["rows", "axis"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "offset"], ["value"]),
    ]
    constants = {"table": table, "first": np.array(0, np.int64), "axis": np.array([1], np.int64)}
    model = graph(nodes, constants, 4, "float32", [("value", TensorProto.FLOAT, ["N"])])
    return write_bundle(
        root, name, version=str(version), task="regression", model=model, changes=changes
    )
