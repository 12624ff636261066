"""Checks a bundle as the server does when it loads it, so that whatever is exported can be served.

The server is a separate program, and neither imports the other: `tests/contract/` compares the two
checks on a corpus of good and broken bundles. The rules are those of docs/bundle-format.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from model_export.bundle.golden import golden_problems
from model_export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_export.bundle.golden import Cuts

MOST_MANIFEST_BYTES = 8 << 20
"""Servers that follow a registry accept no larger manifest."""
_NEWEST_IR = 10
_NEWEST_OPSET = {"ai.onnx": 22, "ai.onnx.ml": 5}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OUTPUTS = {
    "classification": (["label"], ["label", "probabilities"]),
    "regression": (["value"],),
}
_FIELDS = (
    "format",
    "name",
    "version",
    "created_at",
    "task",
    "source",
    "inputs",
    "named",
    "dtype",
    "classes",
    "outputs",
    "onnx",
    "tools",
    "parity",
    "golden",
)
_KINDS = ("number", "integer", "boolean", "category", "text")


class NotServableError(ExportError):
    """The server would refuse this bundle."""


def require_servable(manifest: dict[str, Any], model: bytes, cuts: Cuts | None = None) -> None:
    """Check a bundle that is about to be written.

    Args:
        manifest: as in docs/bundle-format.md.
        model: the serialized graph.
        cuts: how the texts of each column are cut into tokens.

    Raises:
        NotServableError: the first thing for which the server would refuse it.
    """
    for problem in problems(manifest, model, cuts):
        raise NotServableError(
            f"the server would refuse the bundle ({problem}), so it was not written; report "
            "this as a fault of the exporter, with the model's pipeline"
        )


def problems(manifest: dict[str, Any], model: bytes, cuts: Cuts | None = None) -> Iterator[str]:
    """Everything for which the server would refuse the bundle, the cheap checks first."""
    try:
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        yield f"the manifest cannot be written as JSON: {error}"
        return
    if len(text) > MOST_MANIFEST_BYTES:
        yield (
            f"the manifest has {len(text):,} bytes, expected at most {MOST_MANIFEST_BYTES:,}: "
            "the model has too many columns or categories"
        )
    if missing := [field for field in _FIELDS if field not in manifest]:
        yield f"the manifest lacks {', '.join(missing)}"
        return
    yield from _names(manifest)
    yield from _file(manifest["onnx"], model)
    yield from _outputs(manifest)
    yield from _columns(manifest)
    yield from golden_problems(manifest, model, cuts or {})


def _names(manifest: dict[str, Any]) -> Iterator[str]:
    for field in ("name", "version"):
        if not _NAME.fullmatch(manifest[field]):
            yield f"{field} {manifest[field]!r}, expected a name of {_NAME.pattern}"
    if manifest["format"] != 1:
        yield f"format {manifest['format']!r}, expected 1"
    if manifest["parity"]["passed"] is not True:
        yield "parity.passed is not true"


def _file(onnx: dict[str, Any], model: bytes) -> Iterator[str]:
    if onnx["size_bytes"] != len(model) or not model:
        yield f"size_bytes {onnx['size_bytes']}, and the graph has {len(model)} bytes"
    if onnx["sha256"] != hashlib.sha256(model).hexdigest():
        yield "the graph's sha256 is another one"
    if onnx["ir_version"] > _NEWEST_IR:
        yield f"onnx.ir_version {onnx['ir_version']}, expected at most {_NEWEST_IR}"
    for domain, version in onnx["opset"].items():
        newest = _NEWEST_OPSET.get(domain)
        if newest is None:
            yield f"onnx.opset {domain}, expected one of {', '.join(_NEWEST_OPSET)}"
        elif version > newest:
            yield f"onnx.opset {domain} {version}, expected at most {newest}"


def _outputs(manifest: dict[str, Any]) -> Iterator[str]:
    task, classes = manifest["task"], manifest["classes"]
    if manifest["outputs"] not in _OUTPUTS[task]:
        yield f"outputs {manifest['outputs']} for {task}"
    if (task == "classification") != bool(classes):
        yield f"{len(classes)} classes for {task}"
    if len(set(map(str, classes))) < len(classes):
        yield "two classes have the same text"
    for number, golden in enumerate(manifest["golden"]):
        if task == "classification" and golden["prediction"] not in classes:
            yield f"golden[{number}].prediction {golden['prediction']!r} is none of the classes"
        if task == "regression" and isinstance(golden["prediction"], str):
            yield f"golden[{number}].prediction {golden['prediction']!r}, expected a number"
    if not manifest["golden"]:
        yield "no golden row"


def _columns(manifest: dict[str, Any]) -> Iterator[str]:
    columns = manifest["inputs"]
    names = [column["name"] for column in (*columns, *manifest.get("ignored", []))]
    if not columns:
        yield "no input"
    if len(set(names)) < len(names):
        yield "two columns have the same name"
    if "" in names:
        yield "a column has an empty name"
    for column in columns:
        yield from _column(column)


def _column(column: dict[str, Any]) -> Iterator[str]:
    name, kind, categories = column["name"], column["kind"], column.get("categories") or []
    if kind not in _KINDS:
        yield f"inputs.{name}.kind {kind!r}, expected one of {', '.join(_KINDS)}"
    if (kind == "category") != bool(categories):
        yield f"inputs.{name} is a {kind} with {len(categories)} categories"
    if len(set(categories)) < len(categories):
        yield f"inputs.{name}.categories hold a value twice"
    if (kind == "text") != (column.get("text") is not None):
        yield f"inputs.{name} is a {kind}, and its entry text says otherwise"
    if column.get("accepts_unknown") and kind != "category":
        yield f"inputs.{name} is a {kind}, and accepts unknown categories"
    if len({type(value) for value in categories}) > 1:
        yield f"inputs.{name}.categories hold strings and integers"
