"""Requests in the Open Inference Protocol, made from a model's own columns and rows; sent to
MLServer when its answers are recorded, and to Halfcore when they are compared."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

JSON = "application/json"
VERSION = "1"
"""Of every recorded model."""
PREDICT = [{"name": "predict"}]
PROBABILITIES = [{"name": "predict_proba"}]


class Call(NamedTuple):
    """One request."""

    name: str
    method: str
    path: str
    content_type: str | None = None
    text: str | None = None
    """The body; None: there is none."""


Tensors = list[dict[str, Any]]


def calls(model: str, columns: list[str] | None, rows: list[list[Any]]) -> Iterator[Call]:
    """The requests for one model.

    Args:
        model: its name.
        columns: their names; None: the model takes one tensor.
        rows: at least three.
    """
    yield from _states(model)
    infer = _Infer(f"/v2/models/{model}/infer")
    if columns is None:
        yield from _paths(model, _matrix(rows[:2]))
        yield from _structure(infer, _matrix(rows[:1]))
        yield from _matrices(infer, rows)
        yield from _outputs(infer, _matrix(rows[:2]), {})
    else:
        frame = {"parameters": {"content_type": "pd"}}
        yield from _paths(model, _columns(columns, rows[:2]), frame)
        yield from _frames(infer, columns, rows, frame)
        yield from _cells(infer, columns, rows, frame)
        yield from _outputs(infer, _columns(columns, rows[:2]), frame)


class _Infer:
    """Makes inference requests for one path. They ask for one output, with an id, unless they say
    otherwise: what MLServer answers without them is compared once."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, name: str, inputs: Any, **more: Any) -> Call:
        document = {"id": "7", "inputs": inputs, "outputs": PREDICT} | more
        kept = {key: value for key, value in document.items() if value is not ...}
        return self.text(name, json.dumps(kept))

    def text(self, name: str, text: str, content_type: str | None = JSON) -> Call:
        """A request with this body."""
        return Call(f"infer: {name}", "POST", self._path, content_type, text)


def _states(model: str) -> Iterator[Call]:
    """What clients ask before they predict."""
    for name, path in {
        "live": "/v2/health/live",
        "ready": "/v2/health/ready",
        "server": "/v2",
        "model": f"/v2/models/{model}",
        "model of a version": f"/v2/models/{model}/versions/{VERSION}",
        "model ready": f"/v2/models/{model}/ready",
        "version ready": f"/v2/models/{model}/versions/{VERSION}/ready",
        "unknown model": "/v2/models/nobody",
        "unknown version": f"/v2/models/{model}/versions/99",
        "unknown model ready": "/v2/models/nobody/ready",
        "unknown version ready": f"/v2/models/{model}/versions/99/ready",
    }.items():
        yield Call(name, "GET", path)
    for name, text in {
        "index": "{}",
        "index of the ready": '{"ready": true}',
        "index of the others": '{"ready": false}',
    }.items():
        yield Call(name, "POST", "/v2/repository/index", JSON, text)


def _paths(model: str, inputs: Tensors, more: dict[str, Any] | None = None) -> Iterator[Call]:
    """The version in the path, and what is not there."""
    for name, path in {
        "a version": f"/v2/models/{model}/versions/{VERSION}/infer",
        "an unknown version": f"/v2/models/{model}/versions/99/infer",
        "an unknown model": "/v2/models/nobody/infer",
    }.items():
        yield _Infer(path)(name, inputs, **(more or {}))


def _outputs(infer: _Infer, inputs: Tensors, more: dict[str, Any]) -> Iterator[Call]:
    """What the answer holds."""
    yield infer("predict", inputs, **more)
    yield infer("predict_proba", inputs, outputs=PROBABILITIES, **more)
    yield infer("both outputs", inputs, outputs=PREDICT + PROBABILITIES, **more)
    yield infer("both outputs, reversed", inputs, outputs=PROBABILITIES + PREDICT, **more)
    yield infer("no outputs", inputs, outputs=..., **more)
    yield infer("empty outputs", inputs, outputs=[], **more)
    yield infer("an unknown output", inputs, outputs=[{"name": "y"}], **more)
    yield infer("an output of another type", inputs, outputs=["predict"], **more)
    yield infer("no id", inputs, id=..., **more)
    yield infer("an id of another type", inputs, id=7, **more)
    yield infer("an empty id", inputs, id="", **more)
    yield infer("a null id", inputs, id=None, **more)


def _structure(infer: _Infer, inputs: Tensors) -> Iterator[Call]:
    """Bodies that are no requests, and parts that are missing or of another type."""
    for name, text in {
        "not JSON": "{",
        "empty": "",
        "null": "null",
        "a list": "[]",
        "a number": "1",
        "an empty object": "{}",
    }.items():
        yield infer.text(name, text)
    yield infer("no inputs", [])
    yield infer("inputs that are an object", {})
    yield infer("inputs that are null", None)
    yield infer("inputs that are numbers", [1])
    (one,) = inputs
    for key in ("name", "shape", "datatype", "data"):
        yield infer(f"without {key}", [{k: v for k, v in one.items() if k != key}])
        yield infer(f"{key} is null", [one | {key: None}])
    yield infer("another key", [one], more=1)
    yield infer("another key in the tensor", [one | {"more": 1}])
    yield infer("parameters", [one], parameters={"a": 1, "b": "x", "c": True, "d": 1.5})
    yield infer("parameters null", [one], parameters=None)
    yield infer("parameters of another type", [one], parameters=[1])
    yield infer("parameters of the tensor", [one | {"parameters": {"a": 1}}])
    yield infer("content type np", [one | {"parameters": {"content_type": "np"}}])
    yield infer("name is a number", [one | {"name": 1}])
    yield infer("another name", [one | {"name": "predictors"}])
    yield infer("an empty name", [one | {"name": ""}])
    yield infer("two tensors", [one, one | {"name": "other"}])
    document = json.dumps({"id": "7", "inputs": [one], "outputs": PREDICT})
    for kind in ("application/json; charset=utf-8", "application/octet-stream", "text/plain"):
        yield infer.text(f"content type {kind}", document, kind)
    yield infer.text("no content type", document, None)


def _matrices(infer: _Infer, rows: list[list[Any]]) -> Iterator[Call]:
    """One tensor of numbers."""
    (one,) = _matrix(rows[:2])
    yield infer("one row", _matrix(rows[:1]))
    yield infer("all rows", _matrix(rows))
    yield infer("nested data", [one | {"data": rows[:2]}])
    for datatype in ("FP32", "FP16"):
        yield infer(datatype, [one | {"datatype": datatype}])
    whole = [round(value) for value in one["data"]]
    for datatype in ("INT64", "INT32", "INT8", "UINT8", "UINT64", "FP64"):
        yield infer(f"{datatype} of whole numbers", [one | {"datatype": datatype, "data": whole}])
    yield infer("INT64 of fractions", [one | {"datatype": "INT64"}])
    yield infer("BOOL", [one | {"datatype": "BOOL", "data": [True] * len(whole)}])
    yield infer("BYTES", [one | {"datatype": "BYTES", "data": list(map(str, one["data"]))}])
    yield infer("an unknown datatype", [one | {"datatype": "FLOAT"}])
    yield infer("a datatype in lower case", [one | {"datatype": "fp64"}])
    for name, shape in {
        "a shape of more rows": [3, 4],
        "a shape of fewer rows": [1, 4],
        "a shape of other columns": [4, 2],
        "a flat shape": [8],
        "an empty shape": [],
        "a shape of three": [2, 2, 2],
        "a negative shape": [-2, -4],
        "a shape of -1": [-1, 4],
        "a shape of fractions": [2.5, 4],
        "a shape of texts": ["2", "4"],
    }.items():
        yield infer(name, [one | {"shape": shape}])
    yield infer("no rows", [one | {"shape": [0, 4], "data": []}])
    for name, value in {"null": None, "a text": "abc", "a list": [1], "true": True}.items():
        yield infer(f"a value that is {name}", [one | {"data": [value, *one["data"][1:]]}])
    for name, number in {"NaN": "NaN", "Infinity": "Infinity", "1e400": "1e400"}.items():
        text = json.dumps({"id": "7", "inputs": [one | {"data": ["?"] * 8}], "outputs": PREDICT})
        yield infer.text(f"a value that is {name}", text.replace('"?"', number))


def _frames(
    infer: _Infer, columns: list[str], rows: list[list[Any]], frame: dict[str, Any]
) -> Iterator[Call]:
    """One tensor per column."""
    some = _columns(columns, rows[:2])
    yield infer("one row", _columns(columns, rows[:1]), **frame)
    yield infer("all rows", _columns(columns, rows), **frame)
    flat = [tensor | {"shape": tensor["shape"][:1]} for tensor in some]
    yield infer("flat columns", flat, **frame)
    yield infer("another order", some[::-1], **frame)
    strings = {"content_type": "str"}
    typed = [t | {"parameters": strings} if t["datatype"] == "BYTES" else t for t in some]
    yield infer("texts by content type", typed, **frame)
    yield infer("no content type", some)
    yield infer("a column is missing", some[1:], **frame)
    yield infer("the last column is missing", some[:-1], **frame)
    yield infer("another column", [*some, some[0] | {"name": "other"}], **frame)
    yield infer("all names are wrong", [t | {"name": t["name"] + "_"} for t in some], **frame)
    longer = some[0] | {"shape": [3, 1], "data": [*some[0]["data"], some[0]["data"][0]]}
    yield infer("a longer column", [longer, *some[1:]], **frame)
    yield infer("one column alone", some[:1], **frame)
    yield infer("a column twice", [*some, some[0]], **frame)
    matrix = [{"name": "x", "shape": [1, len(columns)], "datatype": "BYTES", "data": rows[0]}]
    yield infer("one tensor", matrix)


def _cells(
    infer: _Infer, columns: list[str], rows: list[list[Any]], frame: dict[str, Any]
) -> Iterator[Call]:
    """One row with other values, one column at a time."""
    row = rows[0]
    one = _columns(columns, [row])
    number = next(i for i, value in enumerate(row) if not isinstance(value, str))
    text = next(i for i, value in enumerate(row) if isinstance(value, str))

    def changed(at: int, **change: Any) -> Tensors:
        return [tensor | change if i == at else tensor for i, tensor in enumerate(one)]

    for kind, at in (("number", number), ("text", text)):
        for name, value in {"null": None, "a list": [1], "an object": {"a": 1}}.items():
            yield infer(f"{kind} is {name}", changed(at, data=[value]), **frame)
    yield infer("number is a text", changed(number, data=["abc"]), **frame)
    yield infer("number is a number's text", changed(number, data=[str(row[number])]), **frame)
    yield infer("number is true", changed(number, data=[True]), **frame)
    yield infer("number is a float", changed(number, datatype="FP64"), **frame)
    yield infer("number is FP32", changed(number, datatype="FP32"), **frame)
    whole = [int(row[number])]
    for datatype in ("INT64", "INT32", "UINT16"):
        yield infer(
            f"number is {datatype}", changed(number, datatype=datatype, data=whole), **frame
        )
    yield infer("number is BYTES", changed(number, datatype="BYTES", data=["abc"]), **frame)
    yield infer("text is another", changed(text, data=["abc"]), **frame)
    yield infer("text is empty", changed(text, data=[""]), **frame)
    yield infer("text is a number", changed(text, data=[1]), **frame)
    yield infer("text is FP64", changed(text, datatype="FP64", data=[1.5]), **frame)
    yield infer("no rows", [t | {"shape": [0, 1], "data": []} for t in one], **frame)


def _matrix(rows: list[list[Any]]) -> Tensors:
    data = [value for row in rows for value in row]
    shape = [len(rows), len(rows[0])]
    return [{"name": "input-0", "shape": shape, "datatype": "FP64", "data": data}]


def _columns(columns: list[str], rows: list[list[Any]]) -> Tensors:
    return [
        {
            "name": name,
            "shape": [len(rows), 1],
            "datatype": _datatype([row[i] for row in rows]),
            "data": [row[i] for row in rows],
        }
        for i, name in enumerate(columns)
    ]


def _datatype(values: list[Any]) -> str:
    if any(isinstance(value, str) for value in values):
        return "BYTES"
    return "FP64" if any(isinstance(value, float) for value in values) else "INT64"
