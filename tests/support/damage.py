"""What can be wrong with an exported bundle or its tags, as a registry may offer it to a running
server."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from support.bundles import PARITY, graph, regressor

Damage = Callable[[Path], object]


class Bad(NamedTuple):
    """One kind: what is done to the files or the tags, and how the server calls it."""

    code: str
    says: str
    damage: Damage = Path.exists
    tags: dict[str, str | None] = {}  # noqa: RUF012  a constant; None removes the tag


def changed(**fields: Any) -> Damage:
    """Give fields of the manifest other values; a double underscore leads into an object; `...`
    removes the field."""

    def damage(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        for name, value in fields.items():
            *parents, last = name.split("__")
            target = manifest
            for parent in parents:
                target = target[int(parent) if parent.isdecimal() else parent]
            if value is ...:
                del target[last]
            else:
                target[last] = value
        (path / "manifest.json").write_text(json.dumps(manifest))

    return damage


def signed(content: bytes) -> Damage:
    """Other bytes as the model, with their right size and hash."""

    def damage(path: Path) -> None:
        (path / "model.onnx").write_bytes(content)
        changed(onnx__sha256=hashlib.sha256(content).hexdigest(), onnx__size_bytes=len(content))(
            path
        )

    return damage


def model(proto: onnx.ModelProto) -> Damage:
    """Another graph as the model."""
    return signed(proto.SerializeToString())


def cut_and_signed(path: Path) -> None:
    """Half of the model, and a manifest that says so."""
    content = (path / "model.onnx").read_bytes()
    signed(content[: len(content) // 2])(path)


def resized(by: int) -> Damage:
    """The model is longer or shorter than its manifest says."""

    def damage(path: Path) -> None:
        content = (path / "model.onnx").read_bytes()
        (path / "model.onnx").write_bytes(content + b"\0" * by if by > 0 else content[:by])

    return damage


def flipped(path: Path) -> None:
    """One bit of the model is another."""
    content = bytearray((path / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "model.onnx").write_bytes(content)


def renamed(old: str, new: str) -> Damage:
    """Another name for an input or output of the graph."""

    def damage(path: Path) -> None:
        proto = onnx.load(str(path / "model.onnx"))
        for value in (*proto.graph.input, *proto.graph.output):
            value.name = new if value.name == old else value.name
        for node in proto.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        model(proto)(path)

    return damage


def with_second_input(path: Path) -> None:
    """A graph that wants one tensor more."""
    proto = onnx.load(str(path / "model.onnx"))
    proto.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 1]))
    model(proto)(path)


def with_external_data(path: Path) -> None:
    """A graph whose weights lie in another file."""
    proto = onnx.load(str(path / "model.onnx"))
    tensor = next(one for one in proto.graph.initializer if one.name == "table")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/hostname")
    model(proto)(path)


def valued(nodes: list[Any], **constants: Any) -> Damage:
    """A graph `rows` → `value` of these nodes."""
    arrays = {name: np.array(value) for name, value in constants.items()}
    return model(graph(nodes, arrays, 4, "float32", [("value", TensorProto.FLOAT, ["N"])]))


def looping() -> Damage:
    """A graph that loops for ever."""
    condition = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    number = helper.make_tensor_value_info("number", TensorProto.INT64, [])
    carried = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"])
        for name in ("before", "after")
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["again"]),
            helper.make_node("Add", ["before", "before"], ["after"]),
        ],
        "body",
        [number, condition, carried[0]],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, []), carried[1]],
    )
    nodes = [
        helper.make_node("ReduceSum", ["rows", "axis"], ["start"], keepdims=0),
        helper.make_node("Loop", ["", "yes", "start"], ["value"], body=body),
    ]
    return valued(nodes, axis=np.array([1], np.int64), yes=np.array(True))


def hungry(gigabytes: int) -> Damage:
    """A small graph that asks for gigabytes."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["rows", "axis"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "total"], ["value"]),
    ]
    return valued(nodes, shape=np.array([gigabytes << 28], np.int64), axis=np.array([1], np.int64))


def failing() -> Damage:
    """A graph that raises on every row."""
    nodes = [
        helper.make_node("Reshape", ["rows", "shape"], ["wrong"]),
        helper.make_node("ReduceSum", ["wrong", "axis"], ["value"], keepdims=0),
    ]
    return valued(nodes, shape=np.array([7, 13], np.int64), axis=np.array([1], np.int64))


def nan(path: Path) -> None:
    """Weights that make every answer NaN."""
    proto = onnx.load(str(path / "model.onnx"))
    for tensor in proto.graph.initializer:
        if tensor.name == "table":
            tensor.raw_data = np.full(1, np.nan, np.float32).tobytes()
    model(proto)(path)


def emptied(file: str) -> Damage:
    """A file is not there."""
    return lambda path: (path / file).unlink()


BAD: dict[str, Bad] = {
    # what the registry says of it
    "refused by the exporter": Bad(
        "export_refused",
        "3 labels differ",
        tags={"halfcore.export": "refused", "halfcore.export.reason": "3 labels differ"},
    ),
    "another verdict": Bad(
        "bundle_tag", "'maybe', expected passed or refused", tags={"halfcore.export": "maybe"}
    ),
    "another bundle format": Bad(
        "bundle_format", "'2', expected '1'", tags={"halfcore.bundle.format": "2"}
    ),
    "no place": Bad("bundle_tag", "tag halfcore.bundle ''", tags={"halfcore.bundle": None}),
    "a place on the server's own disk": Bad(
        "bundle_tag", "file:///etc", tags={"halfcore.bundle": "file:///etc/passwd"}
    ),
    "a place on another host": Bad(
        "bundle_tag", "http://169", tags={"halfcore.bundle": "http://169.254.169.254/latest"}
    ),
    "a place above the run's": Bad(
        "bundle_tag", "x/../..", tags={"halfcore.bundle": "runs:/a/x/../../b"}
    ),
    "a short hash": Bad(
        "bundle_tag", "64 hexadecimal digits", tags={"halfcore.manifest_sha256": "abc"}
    ),
    # what came of it
    "another manifest's hash": Bad(
        "manifest_sha256", "expected 000", tags={"halfcore.manifest_sha256": "0" * 64}
    ),
    "no manifest": Bad("bundle_missing", "manifest.json: ", emptied("manifest.json")),
    "no model": Bad("bundle_missing", "model.onnx: ", emptied("model.onnx")),
    "a manifest that is HTML": Bad(
        "manifest",
        "manifest.json: ",
        lambda path: (path / "manifest.json").write_text("<html>502</html>"),
    ),
    "another version's manifest": Bad("other_version", "version '99'", changed(version="99")),
    "a model too large": Bad("too_large", "expected at most", changed(onnx__size_bytes=1 << 40)),
    "a model cut short": Bad("wrong_length", "bytes are announced, expected", resized(-9)),
    "a model too long": Bad("wrong_length", "bytes are announced, expected", resized(9)),
    "a flipped bit": Bad("model_sha256", "model.onnx: sha256", flipped),
    # what the manifest says
    "a newer manifest": Bad("bundle", "$.format", changed(format=2)),
    "a manifest without a field": Bad("bundle", "`dtype`", changed(dtype=...)),
    "a failed parity": Bad("bundle", "$.parity.passed", changed(parity=PARITY | {"passed": False})),
    "a newer opset": Bad("bundle", "onnx.opset ai.onnx 99", changed(onnx__opset={"ai.onnx": 99})),
    "an unknown operator domain": Bad(
        "bundle", "com.example", changed(onnx__opset={"ai.onnx": 21, "com.example": 1})
    ),
    "no golden rows": Bad("bundle", "$.golden", changed(golden=[])),
    # what the canary finds
    "HTML instead of ONNX": Bad(
        "graph",
        "cannot load it",
        signed(b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"),
    ),
    "half a model, signed": Bad("graph", "cannot load it", cut_and_signed),
    "weights in another file": Bad("graph", "cannot load it", with_external_data),
    "an input of another name": Bad("graph", "'X'", renamed("rows", "X")),
    "an input too many": Bad("graph", "'more'", with_second_input),
    "another width": Bad("graph", "width 5", model(regressor(5, "float32"))),
    "another dtype": Bad("graph", "tensor(double)", model(regressor(4, "float64"))),
    "an output of another name": Bad("graph", "output value is missing", renamed("value", "Y")),
    "NaN weights": Bad("golden", "not finite", nan),
    "another golden answer": Bad("golden", "golden[0]: answer", changed(golden__0__prediction=7.0)),
    "a graph that fails": Bad("golden", "the model failed", failing()),
    "an endless loop": Bad("sandbox_timeout", "did not finish within", looping()),
    "a graph of 4 GB": Bad("sandbox_memory", "ran out of memory", hungry(4)),
}
