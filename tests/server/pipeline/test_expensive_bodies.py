"""No body is much more expensive than a right one: bounded work, memory and errors for whatever a
client sends.

CPU time is not asserted here (`just prove-bodies` measures it against a real server); what is
asserted does not depend on the machine: calls of Python functions, bytes that Python allocates, the
length of the work between two pauses, errors that are built.
"""

import tracemalloc
from collections.abc import Generator
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, target

from halfcore.bundle import Input
from halfcore.pipeline import json_text, row_checks
from halfcore.pipeline.decode import CHUNK_BYTES, SHORT_BODY_BYTES, Decoder
from halfcore.pipeline.schema import Schema
from halfcore.problem import MOST_ERRORS, FieldError, Problem
from support.bundles import MIXED, NUMBERS
from support.calls import calls
from support.expensive_bodies import KINDS, random_source, right_vectors

WIDE = [
    {"name": f"column_{i}", "kind": "number", "nullable": False, "example": 1.0} for i in range(54)
]
MODELS = {"four numbers": NUMBERS, "mixed": MIXED, "54 columns": WIDE}
DECODERS = {
    name: Decoder(Schema(msgspec.convert(columns, list[Input]), "float32"), max_rows=10_000)
    for name, columns in MODELS.items()
}
SPARE_BYTES = 1 << 20
"""Of memory that a short body may take, whatever its length: ten errors with their texts, one
chunk's values."""
MOST_CALLS_PER_BYTE = 4.0
"""The worst that the search finds has 3.0: rows of one digit, read one by one for the wrong row at
their end."""


def read(decoder: Decoder, body: bytes) -> int:
    """Decode a body as the server does; returns the number of pauses."""
    pauses = 0
    try:
        if len(body) <= SHORT_BODY_BYTES:
            decoder.decode(body)
            return 0
        for _ in decoder.steps(body):
            pauses += 1
    except Problem as problem:
        problem.body()
    return pauses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_memory_is_a_small_multiple_of_the_length(model: str, kind: str) -> None:
    """Reading a body takes at most eight times its length, plus a fixed megabyte."""
    body = KINDS[kind](MODELS[model], 200_000, random_source(kind))
    tracemalloc.start()
    try:
        read(DECODERS[model], body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak <= 8 * len(body) + SPARE_BYTES


@pytest.mark.parametrize(
    "kind", sorted(KINDS.keys() - {"a damaged body", "noise"})
)  # two of them have their fault in different places
@pytest.mark.parametrize("model", MODELS)
def test_work_grows_with_the_length_at_most(model: str, kind: str) -> None:
    """Four times the length has at most five times the calls: nothing is looked at again and
    again."""
    short, long = (
        KINDS[kind](MODELS[model], length, random_source(kind)) for length in (20_000, 80_000)
    )

    few, many = (calls(lambda body=body: read(DECODERS[model], body)) for body in (short, long))  # type: ignore[misc]

    assert many <= 5 * few + 5_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_no_more_errors_are_built_than_shown(
    model: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a body with thousands of wrong values ten errors are made."""
    built: list[FieldError] = []

    def counted(*arguments: Any, **more: Any) -> FieldError:
        built.append(FieldError(*arguments, **more))
        return built[-1]

    monkeypatch.setattr(row_checks, "FieldError", counted)

    read(DECODERS[model], KINDS[kind](MODELS[model], 50_000, random_source(kind)))

    assert len(built) <= MOST_ERRORS


class _Work:
    """Calls between two pauses."""

    def __init__(self, steps: Generator[None, None, object]) -> None:
        self._steps = steps
        self.most = 0

    def run(self) -> None:
        """Until the end, slice by slice."""
        going = True
        while going:
            count = calls(self._slice)
            going = not self._ended
            self.most = max(self.most, count)

    def _slice(self) -> None:
        self._ended = False
        try:
            next(self._steps)
        except (StopIteration, Problem):
            self._ended = True


@pytest.mark.parametrize("kind", KINDS)
def test_the_work_between_two_pauses_is_bounded(kind: str) -> None:
    """However long the body, each slice of its decoding has at most as many calls as a chunk has
    bytes."""
    for model, columns in MODELS.items():
        work = _Work(DECODERS[model].steps(KINDS[kind](columns, 200_000, random_source(kind))))
        work.run()
        assert work.most <= CHUNK_BYTES


ROWS = [
    "[1,2,3,4]",
    "[1,1,1,1]",
    "[1]",
    "[]",
    "{}",
    '{"x0":1,"x1":2,"x2":3,"x3":4}',
    '{"x0":1}',
    '{"\\u0078\\u0030":1}',
    '{"a":1}',
    "1",
    '""',
    "[[]]",
]
ENDS = ["", "]", "]}", ",[]]", ',""]}', ",{}]", "x]", ',{"a":[[[', ',"x0":1}', "\xff"]
PIECES = [
    *ROWS,
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    '"',
    "\\",
    '"x0":',
    '"features":',
    "null",
    " ",
    "\\u0041",
    "é",
    "😀",
    '"\\ud800"',
    '{"a":',
    "[[[[",
]


@st.composite
def _repeated(draw: st.DrawFn) -> bytes:
    """A beginning, a row or some pieces of JSON up to thousands of times, and an end."""
    opening = draw(st.sampled_from(["", "[", "[", '{"features":[', '{"features":[', "{"]))
    pieces = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join)
    repeated = draw(st.sampled_from(ROWS) | pieces)
    times = draw(st.sampled_from([1, 10, 100, 1_000, 5_000]))
    separator = draw(st.sampled_from([",", ",", ",", "", " , "]))
    ending = draw(st.sampled_from(ENDS) | pieces)
    return (opening + separator.join([repeated] * times) + ending).encode("utf-8", "surrogatepass")[
        :60_000
    ]


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(_repeated(), st.sampled_from([1, 4]))
def test_a_search_for_the_most_expensive_body_finds_none(body: bytes, columns: int) -> None:
    """Hypothesis looks for bodies with many calls per byte, and memory per byte."""
    decoder = Decoder(
        Schema(msgspec.convert(NUMBERS[:columns], list[Input]), "float32"), max_rows=10_000
    )

    per_byte = calls(lambda: read(decoder, body)) / (len(body) + 2_000)

    target(per_byte)
    assert per_byte <= MOST_CALLS_PER_BYTE


def test_the_bodies_of_the_search_are_as_long_as_they_should_be() -> None:
    """None of the kinds stays short by mistake, and right bodies are right."""
    for kind in KINDS.values():
        assert len(kind(NUMBERS, 50_000, random_source(1))) >= 15_000
    assert (
        DECODERS["four numbers"].decode(right_vectors(NUMBERS, 50_000, random_source(1))).size
        > 1_000
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"a": "[', 2),
        ('[["a]", 1', 2),
        ('["' + '\\"' * 400, 1),
        ('["a\\', 1),
        ('{"a": [1], "b": {}, "c": [', 2),
    ],
    ids=["in a string", "after a string", "escaped quotes", "a cut escape", "closed ones"],
)
def test_brackets_within_strings_are_not_counted(text: str, expected: int) -> None:
    """Also within a string that the end of the text cuts off."""
    assert json_text._open_at_end(text) == expected
