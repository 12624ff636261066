"""Binary tensors: the short way gives what the long one gives, and answers hold the values."""

import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfcore.bundle import Manifest
from halfcore.models.served import LoadedModel
from halfcore.pipeline.decode import Rows, all_at_once
from halfcore.pipeline.encode import Encoder
from halfcore.pipeline.schema import Rule, Schema
from halfcore.pipeline.table import SLICE_VALUES
from halfcore.predict.admission import NO_HEAD, Head
from halfcore.predict.protocols.inference import Inference
from halfcore.predict.protocols.outputs import Wanted
from halfcore.predict.protocols.protocol import Call
from halfcore.predict.protocols.tensors import Tensor, unpacked
from halfcore.problem import Problem
from support.bundles import NUMBERS, PARITY
from support.calls import calls
from support.examples import examples

MOST_ROWS = 4
NULLABLE = [column | {"nullable": True} for column in NUMBERS]
CODES = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}


def model(dtype: str = "float32", classes: Any = ("a", "b", "ü"), **more: Any) -> LoadedModel:
    """What the protocol looks at of a loaded model."""
    inputs = more.pop("inputs", NUMBERS)
    document = {
        "format": 1,
        "name": "numbers",
        "version": "1",
        "created_at": "2026-01-01T00:00:00Z",
        "task": "classification" if classes else "regression",
        "source": {"uri": "a", "resolved": "a", "flavor": "a", "model_class": "a"},
        "inputs": inputs,
        "named": False,
        "dtype": dtype,
        "classes": list(classes),
        "outputs": ["label", "probabilities"] if classes else ["value"],
        "onnx": {"file": "model.onnx", "sha256": "0" * 64, "size_bytes": 1, "ir_version": 1}
        | {"opset": {}},
        "tools": {},
        "parity": PARITY,
        "golden": [{"row": {}, "prediction": 1.0}],
    }
    manifest = msgspec.convert(document, Manifest)
    schema = Schema(manifest.inputs, dtype, more.get("rules"))
    decoder = SimpleNamespace(max_rows=MOST_ROWS)
    encoder = Encoder(manifest)
    parts = {"schema": schema, "manifest": manifest, "decoder": decoder, "encoder": encoder}
    found = SimpleNamespace(**parts, role="champion")
    return cast(LoadedModel, found)


MODELS = [
    model(),
    model("float64"),
    model(inputs=NULLABLE),
    model(rules={"x1": Rule(minimum=0.0, maximum=5.0)}),
]


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Head]:
    """A binary request: mostly right, and wrong in every place now and then."""
    datatype = draw(st.sampled_from(["FP32", "FP32", "FP64", "INT64"]))
    rows, columns = draw(st.integers(0, MOST_ROWS + 1)), draw(st.sampled_from([4, 4, 4, 3]))
    numbers = st.floats(width=32) if datatype.startswith("FP") else st.integers(-5, 5)
    values = draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
    raw = np.array(values, CODES[datatype]).tobytes()
    size = draw(st.sampled_from([len(raw)] * 6 + [len(raw) + 1, float(len(raw)), True, None, "4"]))
    shape = draw(st.sampled_from([[rows, columns]] * 6 + [[rows], [columns, rows], [-1, 4], []]))
    tensor = {
        "name": draw(st.sampled_from(["input", "input", "x0"])),
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    } | draw(st.sampled_from([{}, {}, {"data": []}, {"data": None}]))
    count = draw(st.sampled_from([1, 1, 1, 2, 0]))
    document: dict[str, Any] = {"inputs": [tensor] * count}
    document |= draw(
        st.sampled_from([{}, {"id": "7"}, {"parameters": {"binary_data_output": True}}])
    )
    text = json.dumps(document).encode()
    length = draw(st.sampled_from([str(len(text))] * 6 + ["0", "99999", "-1", "x", "1" * 30]))
    return text + raw, Head(None, None, None, None, length)


def as_binary(texts: list[str]) -> bytes:
    """Texts as a binary tensor has them."""
    raw = [text.encode() for text in texts]
    return b"".join([len(text).to_bytes(4, "little") + text for text in raw])


def test_many_binary_texts_are_read_in_slices() -> None:
    """Others are answered in between, however short the texts are."""
    texts = ["", "a", "ü", "Torgersen"] * 5_000
    steps = unpacked(Tensor("x", [len(texts)], "BYTES"), memoryview(as_binary(texts)))
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found = end.value
            break
        pauses += 1
    assert found == texts
    assert pauses == len(texts) // SLICE_VALUES


def test_more_binary_texts_than_the_shape_says_are_not_read() -> None:
    """A million empty ones are four megabytes."""
    tensor = Tensor("x", [1], "BYTES")

    def refused() -> None:
        with pytest.raises(Problem, match=r"input 'x' has more than 1 texts, expected 1 for"):
            all_at_once(unpacked(tensor, memoryview(bytes(4_000_000))))

    assert calls(refused) < 1_000
    with pytest.raises(Problem, match="a text is longer than the tensor's bytes"):
        all_at_once(unpacked(tensor, memoryview(b"\1\0\0")))
    with pytest.raises(Problem, match=r"shape is \[1, 1, 1\], expected"):
        all_at_once(unpacked(Tensor("x", [1, 1, 1], "BYTES"), memoryview(bytes(4))))


@examples(300)
@given(st.sampled_from(MODELS), requests())
def test_the_short_way_gives_what_the_long_one_gives(
    served: LoadedModel, request: tuple[bytes, Head]
) -> None:
    """The same rows and the same outputs; whatever the short way does not take, the other decides
    alone."""
    quick = _outcome(lambda: Inference().quick(served, *request))
    if quick is not None:
        assert quick == _outcome(lambda: all_at_once(_read(served, *request)))


def _read(served: LoadedModel, body: bytes, head: Head) -> Any:
    return Inference().read(served, body, head, lambda _: None)


def _outcome(ask: Any) -> Any:
    try:
        call = ask()
    except Problem as problem:
        return problem.status, problem.detail
    if call is None:
        return None
    rows = (call.rows.payload, call.rows.size, call.rows.many)
    return rows, call.wanted.id, list(call.wanted.outputs)


@pytest.mark.parametrize("served", MODELS[:3])
def test_a_usual_tensor_takes_the_short_way(served: LoadedModel) -> None:
    """One row, or several, of the model's own type; the rows are the tensor's bytes."""
    datatype = "FP32" if served.manifest.dtype == "float32" else "FP64"
    for count in (1, MOST_ROWS):
        raw = np.arange(4 * count, dtype=CODES[datatype]).tobytes()
        call = Inference().quick(served, *_request(raw, [count, 4], datatype))
        assert call is not None
        assert call.rows == Rows(raw, count, many=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_takes_the_long_way(value: float) -> None:
    """In every place of a row, and without one of NumPy's warnings."""
    for place in range(4):
        row = np.ones(4, "<f4")
        row[place] = value
        assert Inference().quick(MODELS[0], *_request(row.tobytes(), [1, 4], "FP32")) is None


def test_another_version_takes_the_long_way() -> None:
    """Which refuses it."""
    request = _request(np.ones(4, "<f4").tobytes(), [1, 4], "FP32")
    assert Inference("1").quick(MODELS[0], *request) is not None
    assert Inference("2").quick(MODELS[0], *request) is None


def test_json_takes_the_long_way() -> None:
    """It has no header with the length of the JSON."""
    assert Inference().quick(MODELS[0], b"{}", NO_HEAD) is None


def _request(raw: bytes, shape: list[int], datatype: str, **more: Any) -> tuple[bytes, Head]:
    tensor = {"name": "input", "shape": shape, "datatype": datatype}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({"inputs": [tensor], **more}).encode()
    return text + raw, Head(None, None, None, None, str(len(text)))


ANSWERS: dict[str, tuple[LoadedModel, list[tuple[Any, ...]]]] = {
    "texts": (MODELS[0], [(2, [0.1, 0.2, 0.7]), (0, [0.5, 0.25, 0.25]), (1, [0.0, 1.0, 0.0])]),
    "float64": (MODELS[1], [(1, [0.1, 0.8, 0.1]), (1, [0.2, 0.7, 0.1])]),
    "integers": (model(classes=(1, 20)), [(1, [0.25, 0.75])]),
    "booleans": (model(classes=(False, True)), [(1, [0.25, 0.75]), (0, [1.0, 0.0])]),
    "floats": (model(classes=(0.5, 1.5)), [(1, [0.25, 0.75])]),
    "numbers": (model(classes=()), [(np.float32(1.5),), (np.float32(2.5),)]),
    "several numbers": (model(classes=()), [(np.array([1.5, 2.5], "f4"),)]),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("request_id", ["", 'a"7'])
def test_a_binary_answer_holds_what_a_json_answer_holds(name: str, request_id: str) -> None:
    """The same names, types, shapes and values; twice, because the first description is kept."""
    served, results = ANSWERS[name]
    names = list(served.manifest.outputs)
    for count in (1, len(results), 1):
        shown = _decoded(*_answer(served, results[:count], request_id, names, binary=True))
        assert shown == _decoded(*_answer(served, results[:count], request_id, names, binary=False))


def test_some_outputs_are_binary() -> None:
    """Each as it was asked for, under the client's name."""
    served, results = ANSWERS["texts"]
    outputs = (("predict_proba", "probabilities", True), ("predict", "label", False))
    wanted = Wanted("", outputs)
    answer = Inference().answer(served, results, Call(Rows(b"", 1, many=True), wanted))
    shown = _decoded(*answer)
    plain = _decoded(*_answer(served, results, "", ["label", "probabilities"], binary=False))
    datatype, shape, labels = plain["label"]
    assert shown["predict"] == (datatype, [*shape, 1], labels)  # as MLServer has it
    datatype, shape, values = plain["probabilities"]
    assert shown["predict_proba"] == ("FP64", shape, values)


def test_of_equal_classes_the_first_one_is_first() -> None:
    """Triton's form: the probability, the class's place and its label; no more than there are."""
    for name, count, expected in (
        ("texts", 1, ["0.700000:2:ü", "0.500000:0:a", "1.000000:1:b"]),
        ("booleans", 9, ["0.750000:1:True", "0.250000:0:False", "1.000000:0:False"]),
        ("integers", 2, ["0.750000:1:20", "0.250000:0:1"]),
    ):
        served, results = ANSWERS[name]
        for binary in (True, False):
            outputs = (("probabilities", "probabilities", binary),)
            wanted = Wanted("", outputs, {"probabilities": count})
            answer = Inference().answer(served, results, Call(Rows(b"", 1, many=True), wanted))
            datatype, shape, texts = _decoded(*answer)["probabilities"]
            wide = min(count, len(served.manifest.classes))
            assert (datatype, shape) == ("BYTES", [len(results), wide])
            assert texts[: len(expected)] == expected
    equal = [(0, [0.25, 0.5, 0.25])]
    wanted = Wanted("", (("probabilities", "probabilities", False),), {"probabilities": 3})
    answer = Inference().answer(MODELS[0], equal, Call(Rows(b"", 1, many=True), wanted))
    assert [text[-3:] for text in _decoded(*answer)["probabilities"][2]] == ["1:b", "0:a", "2:ü"]


def _answer(
    served: LoadedModel, results: Any, request_id: str, names: list[Any], *, binary: bool
) -> tuple[list[tuple[str, str]], bytes]:
    wanted = Wanted(request_id, tuple((name, name, binary) for name in names))
    return Inference().answer(served, results, Call(Rows(b"", 1, many=True), wanted))


def _decoded(headers: list[tuple[str, str]], body: bytes) -> dict[str, Any]:
    """The answer's fields, and each output's type, shape and values."""
    fields = dict(headers)
    assert int(fields["content-length"]) == len(body)
    at = int(fields.get("inference-header-content-length", len(body)))
    document = json.loads(body[:at])
    found = {key: value for key, value in document.items() if key != "outputs"}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        values = output.get("data")
        if size is not None:
            values = _values(output["datatype"], body[at : at + size])
            at += size
        if output["datatype"] == "FP32":
            values = np.array(values, "f4").tolist()
        found[output["name"]] = (output["datatype"], output["shape"], values)
    assert at == len(body)
    return found


def _values(datatype: str, raw: bytes) -> list[Any]:
    if datatype != "BYTES":
        values: list[Any] = np.frombuffer(raw, CODES.get(datatype, "?")).tolist()
        return values
    texts = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        texts.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return texts


@pytest.mark.parametrize("size", [0, 20_000], ids=["short", "long"])
def test_json_is_utf_8_in_fields_that_are_not_read(size: int) -> None:
    """The typed parse does not look at them; the parse in slices does."""
    start = b'{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"a":"'

    def read(text: bytes) -> Rows:
        body = start + text + b'"}' + b" " * size
        return all_at_once(Inference().read(MODELS[0], body, NO_HEAD, lambda _: None)).rows

    assert read("é".encode()).size == 1
    with pytest.raises(Problem, match="UTF-8"):
        read(b"\xf0")
