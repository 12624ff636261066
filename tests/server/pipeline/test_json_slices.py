"""A long JSON text is parsed in slices: into the same values, in bounded pieces of work and memory,
and what cannot be right is refused early."""

import json
from itertools import product
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from halfcore.pipeline import json_slices
from halfcore.pipeline.decode import all_at_once
from halfcore.pipeline.json_slices import MAX_OPENED, SLICE_BYTES, json_in_slices
from halfcore.pipeline.scan import STRING, BrokenText, end_of_string
from halfcore.problem import Problem
from support.examples import examples

MOST_ROWS = 10_000
LENGTH = 400_000
MANY_DIGITS = "9" * 5000
SPARE_BYTES = 4_096
"""Of a text that may be parsed next to a slice: brackets, a name."""


def of(text: bytes, max_rows: int = MOST_ROWS) -> Any:
    """The value, or that there is none."""
    steps = json_in_slices(
        text, max_rows=max_rows, reserve=lambda _: None, decode=msgspec.json.decode
    )
    try:
        return all_at_once(steps)
    except BrokenText as error:
        return error


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
).filter(lambda value: value not in (float("inf"), -float("inf"))) | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
EDITS = st.lists(st.tuples(st.integers(0, 500), st.sampled_from('[]{},:"\\ 1é')), max_size=3)
"""Characters that are put in the place of others."""


@examples(1_000)
@given(VALUES, st.booleans(), EDITS, st.sampled_from([1, 5, 40, SLICE_BYTES]))
def test_the_value_is_that_of_one_parse(
    value: Any, ascii_only: bool, edits: list[tuple[int, str]], size: int
) -> None:
    """However short a slice is; and what is not JSON is refused as such."""
    characters = list(json.dumps(value, ensure_ascii=ascii_only))
    for at, other in edits:
        characters[at % len(characters)] = other
    text = "".join(characters).encode("utf-8", "surrogatepass")
    try:
        wanted = repr(msgspec.json.decode(text))
    except ValueError:
        wanted = ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_slices, "SLICE_BYTES", size)
        found = of(text)

    assert ("" if isinstance(found, BrokenText) else repr(found)) == wanted


REPEATED = {
    "empty records": ('{"a":[%s]}', "{}"),
    "rows": ('{"a":[%s]}', "[1,2,3,4]"),
    "numbers": ('{"a":[%s]}', "1.5"),
    "texts": ('{"a":[%s]}', '"a]b"'),
    "deep rows": ('{"a":[%s]}', "[[[[[]]]]]"),
    "deep values": ('{"a":[[[%s]]]}', "[[[[]]],1]"),
    "members": ("{%s}", '"a":[[1]]'),
}
"""Texts: the frame, and what it holds again and again."""


@pytest.mark.parametrize("name", REPEATED)
def test_no_slice_parses_more_than_its_length(name: str) -> None:
    """And it opens no more arrays than its length allows, before others have their turn."""
    frame, part = REPEATED[name]
    text = (frame % ",".join([part] * (LENGTH // (len(part) + 1)))).encode()
    parsed = [0]

    def decode(piece: bytes) -> Any:
        parsed[-1] += len(piece)
        return msgspec.json.decode(piece)

    steps = json_in_slices(text, max_rows=10**9, reserve=lambda _: None, decode=decode)
    slices = 0
    for _ in steps:
        slices += 1
        parsed.append(0)

    assert slices >= LENGTH // SLICE_BYTES - 1
    assert max(parsed) <= 2 * SLICE_BYTES + SPARE_BYTES
    assert of(text, max_rows=10**9) == msgspec.json.decode(text)


@pytest.mark.parametrize("row", ["{}", "[]", "[[[[1]]]]", "[" + "1," * 30_000 + "1]"])
def test_too_many_rows_are_refused_before_they_are_parsed(row: str) -> None:
    """Whatever follows them; as many as are allowed are not, and numbers are no rows."""
    most = 50
    rows = ("[" + ",".join([row] * most) + "]").encode()
    assert len(of(rows, most)) == most
    with pytest.raises(Problem, match="more than 50 rows") as refused:
        of(rows[:-1] + b"," + (row + "," * 40_000).encode(), most)
    assert refused.value.status == 413
    assert len(of(b"[" + b"1," * 40_000 + b"1]", most)) == 40_001


def test_arrays_that_are_nested_too_deeply_are_refused() -> None:
    """At once, wherever they are."""
    error = of(b"[" * LENGTH)
    assert isinstance(error, BrokenText)
    assert (error.position, error.reason) == (MAX_OPENED, "it is nested too deeply")


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        (b'{"a":[1,2,,3]}', 10, "JSON is malformed: invalid character"),
        (b"[1]x", 3, "unexpected character"),
        (b'{"a":1', 6, "unexpected character"),
        (b"[[1],NaN]", 5, "JSON is malformed: invalid character"),
        (b'["a",1,"b\xff"]', 9, "it is not UTF-8"),
        (b'{"a":[1,1e400]}', 1, "Number out of range, here or later"),
        pytest.param(
            b'{"a":[1,%b]}' % MANY_DIGITS.encode(),
            1,
            "Integer value out of range, here or later",
            id="many digits",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(text: bytes, position: int, reason: str) -> None:
    """The byte of the whole text."""
    error = of(text)
    assert isinstance(error, BrokenText)
    assert (error.position, error.reason) == (position, reason)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ('["é",1,-,3]', 8, "Expecting value"),
        ('{"é":1,"b":2.}', 13, "Expecting ',' delimiter"),
        pytest.param(
            f"[[1],{MANY_DIGITS}]",
            1,
            "it holds an integer of more than 4,300 digits, here or later",
            id="many digits",
        ),
    ],
)
def test_python_s_own_parser_names_the_place_as_well(text: str, position: int, reason: str) -> None:
    """In bytes, as which it does not count."""
    steps = json_in_slices(
        text.encode(),
        max_rows=MOST_ROWS,
        reserve=lambda _: None,
        decode=lambda piece: json.loads(piece.decode()),
    )
    with pytest.raises(BrokenText) as caught:
        all_at_once(steps)
    assert (caught.value.position, caught.value.reason) == (position, reason)


@pytest.mark.parametrize("at", [0, 3])
def test_a_string_ends_where_the_pattern_says(at: int) -> None:
    """Whatever is escaped in it: every text of seven of these letters."""
    for letters in product(b'"\\a,', repeat=7):
        text = b" " * at + bytes(letters)
        found = STRING.match(text, at)
        assert end_of_string(text, at) == (found.end() if found else -1), text
    for length in (65_534, 65_535, 65_536, 262_144):  # the end, and an escape, where a look ends
        for more in (b"", b"\\\\", b'\\"', b'\\\\\\"'):
            text = b'"' + b"a" * (length - len(more)) + more + b'" "'
            assert end_of_string(text, 0) == len(text) - 2
            assert end_of_string(text[:-3], 0) == -1
