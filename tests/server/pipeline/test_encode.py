"""Results become JSON that says what the engine said."""

import json
import math
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given

from halfcore.bundle import Manifest
from halfcore.pipeline.encode import Encoder
from support.bundles import NUMBERS, PARITY
from support.examples import examples

LABELS: list[list[Any]] = [
    ["a", "b", "c"],
    ['say "hi"', "50 % off", "%s%d%(x)s", "back\\slash"],
    ["日本", "é", "😀", "\u2028"],
    ["", " ", "\n", "\x00"],
    [3, -1, 0, 2**53],
    [False, True],
]


def encoder(classes: list[Any], outputs: list[str], name: str = "numbers") -> Encoder:
    """An encoder for a model with these classes."""
    sources = {"uri": "u", "resolved": "r", "flavor": "skops", "model_class": "Test"}
    onnx = {
        "file": "model.onnx",
        "sha256": "0" * 64,
        "size_bytes": 1,
        "ir_version": 10,
        "opset": {"ai.onnx": 21},
    }
    manifest = {
        "format": 1,
        "name": name,
        "version": "1.0",
        "created_at": "2026-01-01T00:00:00Z",
        "source": sources,
        "inputs": NUMBERS,
        "task": "classification" if classes else "regression",
        "named": False,
        "dtype": "float32",
        "classes": classes,
        "outputs": outputs,
        "onnx": onnx,
        "tools": {},
        "parity": PARITY,
        "golden": [{"row": {}, "prediction": 0}],
    }
    return Encoder(msgspec.convert(manifest, Manifest))


def key(label: Any) -> str:
    """A class's name among the probabilities."""
    return label if isinstance(label, str) else str(label)


@pytest.mark.parametrize("classes", LABELS, ids=str)
def test_one_row_gets_its_label_and_every_class(classes: list[Any]) -> None:
    """Whatever the class is called, the answer is JSON, the label has its own type, and every class
    has its probability."""
    probabilities = (
        np.random.default_rng(7).dirichlet([1.0] * len(classes)).astype(np.float32).tolist()
    )

    for index, label in enumerate(classes):
        answer = json.loads(
            encoder(classes, ["label", "probabilities"]).encode(
                [(index, probabilities)], many=False
            )
        )

        assert list(answer) == ["prediction", "probabilities", "model", "version"]
        assert answer["prediction"] == label
        assert type(answer["prediction"]) is type(label)
        assert list(answer["probabilities"]) == [key(name) for name in classes]
        assert list(answer["probabilities"].values()) == pytest.approx(probabilities, abs=1e-6)
        assert (answer["model"], answer["version"]) == ("numbers", "1.0")


@pytest.mark.parametrize("classes", LABELS, ids=str)
def test_a_list_gets_a_list(classes: list[Any]) -> None:
    """Rows keep their order, also a list of one."""
    results = [
        (i, [1.0 if i == j else 0.0 for j in range(len(classes))]) for i in range(len(classes))
    ][::-1]

    for rows in (results, results[:1]):
        answer = json.loads(encoder(classes, ["label", "probabilities"]).encode(rows, many=True))

        assert answer["prediction"] == [classes[i] for i, _ in rows]
        assert [
            [name for name, value in row.items() if value == 1.0] for row in answer["probabilities"]
        ] == [[key(classes[i])] for i, _ in rows]


@examples(200)
@given(
    st.lists(
        st.floats(0, 1, width=32) | st.sampled_from([1e-45, 1e-38, 1e-7, 0.99999994]),
        min_size=2,
        max_size=2,
    )
)
def test_a_probability_is_within_a_millionth_of_the_float32(probabilities: list[float]) -> None:
    """Seven digits are written, which distinguish nearly every float32 from its neighbours."""
    answer = json.loads(
        encoder(["a", "b"], ["label", "probabilities"]).encode([(0, probabilities)], many=False)
    )

    for name, value in zip("ab", probabilities, strict=True):
        assert answer["probabilities"][name] == pytest.approx(value, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("classes", LABELS, ids=str)
def test_a_classifier_without_probabilities_gives_the_label(classes: list[Any]) -> None:
    """The answer then has no probabilities, for one row or many."""
    encode = encoder(classes, ["label"]).encode

    assert json.loads(encode([(1,)], many=False)) == {
        "prediction": classes[1],
        "model": "numbers",
        "version": "1.0",
    }
    assert json.loads(encode([(1,), (0,)], many=True)) == {
        "prediction": [classes[1], classes[0]],
        "model": "numbers",
        "version": "1.0",
    }


@pytest.mark.parametrize("value", [0.1, -0.0, 1e-45, 3.4028235e38, 16777216.0, 123456.789, 1 / 3])
def test_a_float32_is_written_in_its_shortest_text(value: float) -> None:
    """0.1 is 0.1 and not 0.10000000149011612, and reading it back gives the same float32."""
    encode = encoder([], ["value"]).encode
    single = np.float32(value)

    body = encode([(single,)], many=False)

    written = body.split(b":")[1].split(b",")[0].decode()
    assert np.float32(written).tobytes() == single.tobytes()
    assert "e" in written or written == np.format_float_positional(single, unique=True, trim="0")
    assert (
        json.loads(encode([(single,), (single,)], many=True))["prediction"] == [float(written)] * 2
    )


@examples(100)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float64_is_written_in_full(value: float) -> None:
    """Reading a regression value back gives the same float64."""
    assert (
        json.loads(encoder([], ["value"]).encode([(np.float64(value),)], many=False))["prediction"]
        == value
    )


def test_several_values_per_row_are_an_array_each() -> None:
    """K outputs of a regressor: an array for a row, an array of arrays for rows."""
    encode = encoder([], ["value"]).encode
    rows = np.array([[1.5, 0.1], [2.5, 0.2]], np.float32)

    assert encode([(rows[0],)], many=False).startswith(b'{"prediction":[1.5,0.1],')
    assert encode([(row,) for row in rows], many=True).startswith(
        b'{"prediction":[[1.5,0.1],[2.5,0.2]],'
    )


def test_small_probabilities_stay_numbers() -> None:
    """An exponent is JSON too."""
    body = encoder(["a", "b"], ["label", "probabilities"]).encode([(0, [1.0, 1e-12])], many=False)

    assert math.isclose(json.loads(body)["probabilities"]["b"], 1e-12)
