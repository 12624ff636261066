"""Whatever exception ends an export, what is shown or tagged is one readable line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from model_export.errors import (
    ExportError,
    InfrastructureError,
    is_infrastructure_error,
    is_memory_error,
    sentence,
    understood,
)
from model_export.stages import MemoryLimitError, enter, while_exporting

if TYPE_CHECKING:
    from collections.abc import Callable


def raised(action: Callable[[], Any]) -> BaseException:
    """The exception that an action ends in."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whichever it is
        action()
    return caught.value


def throw(error: BaseException) -> Callable[[], Any]:
    """An action that ends in the exception."""

    def action() -> None:
        raise error

    return action


TABLE = np.arange(300).reshape(30, 10)

CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "a class alone": (
        throw(NotImplementedError()),
        f"this is not implemented (NotImplementedError in {__name__}.action)",
    ),
    "a class that nobody knows": (
        throw(StopAsyncIteration()),
        f"an error without a message (StopAsyncIteration in {__name__}.action)",
    ),
    "a key": (lambda: {}["x"], f"a key does not exist: x (KeyError in {__name__}.<lambda>)"),
    "a word": (throw(ValueError("x")), f"an error: x (ValueError in {__name__}.action)"),
    "no memory": (
        throw(MemoryError()),
        f"there is not enough memory (MemoryError in {__name__}.action)",
    ),
    "a file": (
        lambda: Path("/nowhere/x.csv").read_text(),
        "/nowhere/x.csv: No such file or directory",
    ),
    "a sentence": (lambda: float("abc"), "could not convert string to float: 'abc'"),
    "an array": (throw(ValueError(f"cannot take {TABLE} here")), "cannot take […] here"),
    "an array that is cut": (
        throw(ValueError(f"cannot take {str(TABLE)[:150]}")),
        "cannot take […",
    ),
    "a table": (
        throw(ValueError(f"cannot take {json.dumps({'x': list(range(99))})}")),
        "cannot take {…}",
    ),
    "a short list": (throw(ValueError("expected one of ['a', 'b']")), "expected one of ['a', 'b']"),
    "two lines": (
        throw(ValueError("Input X contains NaN.\nIt must not.")),
        "Input X contains NaN. It must not.",
    ),
    "paragraphs": (throw(ValueError("It failed.\n\nRead the manual.")), "It failed."),
    "a traceback": (
        throw(RuntimeError('boom in C\nTraceback (most recent call last):\n  File "x"')),
        "boom in C",
    ),
    "a code of MLflow": (
        throw(RuntimeError("RESOURCE_DOES_NOT_EXIST: Run 'x' not found")),
        "Run 'x' not found",
    ),
    "ONNX Runtime": (
        throw(RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no kernel")),
        "no kernel",
    ),
    "a secret": (
        throw(
            ValueError("cannot open https://me:secret@host.org/a/b.csv?X-Amz-Signature=secret now")
        ),
        "cannot open https://host.org/a/b.csv now",
    ),
    "no connection": (
        throw(
            ConnectionError(
                "HTTPConnectionPool(host='127.0.0.1', port=9): Max retries exceeded "
                "with url: /x (Caused by N"
                "ewConnectionError('<urllib3…>: Failed to establish: [Errno 111] "
                "Connection refused'))"
            )
        ),
        "no connection to 127.0.0.1:9 (Connection refused)",
    ),
    "a driver": (
        throw(ModuleNotFoundError("No module named 'boto3'", name="boto3")),
        "this needs the Python package 'boto3': install halfcore-export[s3]",
    ),
    "a package": (
        throw(ModuleNotFoundError("No module named 'xgboost'", name="xgboost.sklearn")),
        "this needs the Python package 'xgboost', which has to be installed here",
    ),
    "a foreseen error": (throw(ExportError("two\nlines")), "two lines"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_exception_is_one_readable_line(name: str) -> None:
    """No bare class, no dump, no traceback, no secret."""
    action, expected = CASES[name]

    assert sentence(raised(action)).startswith(expected)
    assert "secret" not in sentence(raised(action))
    assert "\n" not in sentence(raised(action))


def test_a_long_text_ends_with_a_whole_sentence() -> None:
    """Cut at a full stop where there is one, else with an ellipsis."""
    assert sentence(ValueError("One two. Three four. Five six."), 22) == "One two. Three four."
    assert sentence(ValueError("one two three four five"), 10) == "one two t…"


UNDERSTOOD = {
    "a sentence": (ValueError("It must be positive."), "It must be positive"),
    "a dump amid words": (
        ValueError(f"No rows for array({list(range(99))}), you can try a larger radius."),
        "No rows for …, you can try a larger radius",
    ),
    "a short array": (
        ValueError("expected one of array([0, 1], dtype=int64)"),
        "expected one of [0, 1]",
    ),
    "a class path in the second sentence": (
        ValueError("Input X contains NaN. You might consider sklearn.ensemble.HistX instead."),
        "Input X contains NaN",
    ),
    "a class alone": (RuntimeError("Own"), ""),
    "no text": (StopIteration(), ""),
    "an exception's name": (RuntimeError("it failed with a KeyError here"), ""),
    "a matrix": (ValueError("cannot take [0.1 0.2] here"), ""),
    "a number of NumPy": (ValueError("cannot take np.float64(0.1) here"), ""),
    "a class of the converter": (RuntimeError("got FloatTensorType([None, 4]) here"), ""),
    "the runtime": (RuntimeError("index is out of range: Y[4] (-1) must be in [0, 300)"), ""),
    "pandas": (KeyError("['b'] not in index"), "['b'] not in index"),
}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_of_a_librarys_error_only_what_users_understand_is_shown(name: str) -> None:
    """Whole sentences, up to the first in words of a library's own code."""
    error, expected = UNDERSTOOD[name]

    assert understood(error) == expected


def test_pandas_says_which_columns() -> None:
    """A KeyError with a whole sentence in it keeps the sentence."""
    assert "['b']" in sentence(raised(lambda: pd.DataFrame({"a": [1]})[["b"]]))


def test_a_shortage_of_memory_is_known_wherever_it_shows() -> None:
    """Python's, NumPy's and ONNX Runtime's own, and an error that follows from one of them; nothing
    else."""
    import onnxruntime
    from onnx import TensorProto, helper

    node = helper.make_node("ConstantOfShape", ["shape"], ["y"])
    ends = [("shape", TensorProto.INT64, [1]), ("y", TensorProto.FLOAT, ["N"])]
    body = helper.make_graph([node], "g", *([helper.make_tensor_value_info(*end)] for end in ends))
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    follows = ExportError("step 'x' cannot be converted")
    follows.__cause__ = MemoryError()

    assert is_memory_error(raised(lambda: session.run(None, {"shape": np.array([10**13])})))
    assert is_memory_error(raised(lambda: np.empty((10**8, 10**6))))
    assert is_memory_error(RuntimeError("std::bad_alloc"))
    assert is_memory_error(follows)
    assert not is_memory_error(ValueError("memory is short"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotImplementedError(), ExportError),
        (ValueError("a b"), ExportError),
        (ModuleNotFoundError("No module named 'xgboost'", name="xgboost"), ExportError),
        (SystemExit(0), ExportError),
        (ModuleNotFoundError("No module named 'google'", name="google.cloud"), InfrastructureError),
        (OSError(28, "No space left on device"), InfrastructureError),
        (ConnectionResetError(), InfrastructureError),
        (MemoryError(), MemoryLimitError),
    ],
    ids=str,
)
def test_what_nobody_foresaw_names_the_stage(error: BaseException, kind: type[ExportError]) -> None:
    """Model and stage, then the sentence; what a service or the disk does is no verdict on the
    model."""

    def convert() -> None:
        with while_exporting("models:/iris/1"):
            enter("convert")
            raise error

    with pytest.raises(ExportError) as refusal:
        convert()

    assert type(refusal.value) is kind
    assert "models:/iris/1, convert" in str(refusal.value)
    assert is_infrastructure_error(refusal.value) == (kind is InfrastructureError)


def test_what_was_foreseen_stays_as_it_is() -> None:
    """Its text says already what it is about."""
    with (
        pytest.raises(ExportError, match=r"^step 'x' cannot be converted$"),
        while_exporting("models:/iris/1"),
    ):
        raise ExportError("step 'x' cannot be converted")
