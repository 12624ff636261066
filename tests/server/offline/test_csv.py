"""Columns that are cut from bytes are those of Python's reader and of `float`."""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfcore.offline import csv_rows, sources
from halfcore.offline.cells import Cells, Codes, cut
from halfcore.offline.sources import FileError, Wanted
from support.examples import examples

HEADER = b"a,b\n"
ALPHABET = [b",", b",", b"\n", b"\n", b"\r\n", b"\r", b'"', b"a", b"1", b" ", b"\xc3\xa9", b"\xff"]
ALPHABET += [b"1,2\n", b"\0"]
"""What files are made of: rows of the right width are frequent."""
Row = tuple[int, list[str] | str]
"""Its line, and its cells or why it has none."""


def cells_of(texts: Sequence[str]) -> Cells:
    """A column in the middle of others."""
    lines = "".join(f"x,{text},y\n" for text in texts)
    block = cut(lines.encode("utf-8", "surrogateescape"), 3, 1000)
    assert block is not None
    return block.column(1)


def by_python(content: bytes) -> list[Row]:
    """The rows of a file with two columns, one by one."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", "surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    next(reader)
    found: list[Row] = []
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return found
        except csv.Error as error:
            until = f" (up to line {reader.line_num})" if reader.line_num > line else ""
            found.append((line, f"not CSV: {error}{until}"))
            continue
        if row:
            found.append((line, row if len(row) == 2 else f"{len(row)} cells, expected 2"))


def as_read(file: Path) -> list[Row]:
    """The rows of a file with the columns a and b."""
    found: list[Row] = []
    for chunk in csv_rows.read_csv(str(file), "file", Wanted(["a", "b"], by_position=False)):
        rows = zip(*(list(chunk.columns[name]) for name in "ab"), strict=True)
        for i, (line, row) in enumerate(zip(chunk.lines, rows, strict=True)):
            found.append((line, chunk.broken.get(i, list(row))))
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Is written again for each example."""
    return tmp_path_factory.mktemp("csv") / "rows.csv"


@pytest.fixture(scope="module", params=[3, 8192], ids="{} lines at once".format)
def chunk_rows(request: pytest.FixtureRequest) -> Any:
    """With few lines, most rows that span lines span chunks too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_rows, "CHUNK_ROWS", request.param)
        patch.setattr(sources, "BLOCK_BYTES", request.param)
        yield


@pytest.mark.usefixtures("chunk_rows")
@examples(150)
@given(st.lists(st.sampled_from(ALPHABET), max_size=30), st.booleans())
@example([b'1,2\n1,"2\n'] + [b"1,2\n"] * 9 + [b'",3\n4,5\n'], False)
@example([b"1,2\r", b"\n3,4", b"\r5,6"], False)
def test_rows_are_those_of_python_s_reader(file: Path, parts: list[bytes], marked: bool) -> None:
    """Also with quotes, other ends of lines, wrong widths, and a mark of byte order."""
    content = codecs.BOM_UTF8 * marked + HEADER + b"".join(parts)
    file.write_bytes(content)
    assert as_read(file) == by_python(content)


def test_ends_of_lines_as_old_computers_wrote_them(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the header's; and a row whose quote never ends."""
    monkeypatch.setattr(sources, "BLOCK_BYTES", 7)
    for content in (b"a,b\r" + b"1,2\r" * 50, b'"a",b\n' + b"1,2\n" * 9 + b'"1,2\n' * 3):
        file.write_bytes(content)
        assert as_read(file) == by_python(content)
    file.write_bytes(b'"a')
    with pytest.raises(FileError, match="the header is not CSV: unexpected end of data"):
        as_read(file)


def test_a_cell_that_is_too_long(file: Path) -> None:
    """Only its row is refused; also if the file has no quotes."""
    long = b"x" * (1 << 20)
    file.write_bytes(HEADER + b"1," + long + b"\n2," + long + b"x\n3,4\n")
    one, two, three = as_read(file)
    assert one == (2, ["1", long.decode()])
    assert two == (3, "not CSV: field larger than field limit (1048576)")
    assert three == (4, ["3", "4"])


@pytest.mark.parametrize("text", [b"", b"1,2\n3\n", b"1,2,3\n", b'"1",2\n', b"1\r,2\n", b"\n"])
def test_what_is_not_cut(text: bytes) -> None:
    """Quotes, other widths, and ends of lines that are not all alike."""
    assert cut(text, 2, 9) is None
    assert cut(b"1\n\n2\n", 1, 9) is None


@examples(100)
@given(st.lists(st.text("0123456789.-+e_ na\xe9", max_size=20) | st.floats().map(str), min_size=1))
@example(["-0", "-0.0", "0.1", "123456789012345", "1234567890123456", "-.5", "5.", ".", "-", ""])
@example([""])
@example(["0.3", "12345678.9012345", "000000000000001", "-12345678901234.5", "x" * 60])
def test_numbers_are_those_of_float(texts: list[str]) -> None:
    """To the bit; only what is not plain is read one by one."""
    asked = []

    def convert(text: str) -> float:
        asked.append(text)
        try:
            return float(text)
        except ValueError:
            return np.inf

    found = cells_of(texts).numbers(convert)
    ours, asked = asked, []
    assert found.tobytes() == np.array([convert(text) for text in texts]).tobytes()
    digits = [text.removeprefix("-").replace(".", "", 1) for text in texts]
    plain = [each.isascii() and each.isdigit() and len(each) < 16 for each in digits]
    others = [text for text, known in zip(texts, plain, strict=True) if not known]
    # Where most are long, all are others.
    assert ours in ([], others) or (ours == texts and sum(len(each) > 17 for each in texts) > 0)


@examples(100)
@given(
    st.dictionaries(st.text("ab\xe9\0,\udcff", max_size=12), st.floats(0, 99), max_size=9),
    st.lists(st.text("ab\xe9\udcff", max_size=12)),
)
@example({"a" * 300: 1.0, "b": 2.0}, ["b", "a" * 90])
def test_categories_are_found(numbers: dict[str, float], others: list[str]) -> None:
    """Every key that can be a cell; those that are long or not UTF-8 are read one by one."""
    texts = ["a", *others, *(key for key in numbers if not set(key) & set("\0,"))]
    found = cells_of(texts).coded(Codes({None: 5.0} | numbers))
    expected = [
        -1.0 if "\udcff" in text or len(text) > 256 else numbers.get(text, -1.0) for text in texts
    ]
    assert found.tolist() == expected
