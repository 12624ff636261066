"""docs/style.md holds: its unwanted words are in no source and no page, and code stays small."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = {
    "server": ("server/src",),
    "exporter": ("model_export/src", "model_export/README.md"),
    "lab": ("loadlab/src", "loadlab/baseline", "loadlab/locustfile.py"),
    "pages": ("docs/*.md", "docs/decisions", "README*.md", "CONTRIBUTING.md", "SECURITY.md"),
    "set-up": ("compose", "kubernetes", "justfile", "Dockerfile", ".github", "pyproject.toml"),
}
EXEMPT = {
    "docs/style.md": "its tables name the words",
    "server/src/halfcore/postgres/migrations/0001_feature_catalogue.sql": (
        "databases keep the checksum of an applied migration"
    ),
}
STORED = 'name="beside_cores"'
"""A field of stored runs, whose files are not changed."""
NOT_TEXT = (".svg", ".png", ".csv", ".lock", ".gz", ".svgz", ".binpb")
SOURCES = ("server/src", "model_export/src", "loadlab/src", "loadlab/baseline")
MOST_COLUMNS, USUAL_COLUMNS = 100, 90
MOST_FUNCTION_LINES, USUAL_FUNCTION_LINES = 50, 20
MOST_FILE_LINES = 400
USUAL = 0.9
"""Share of the lines and functions that keep to the usual length."""
PRAGMA = re.compile(r"  # (noqa|type: ignore).*$")


def unwanted() -> re.Pattern[str]:
    """The words in the left column of the page's last table."""
    page = (ROOT / "docs/style.md").read_text()
    table = page.partition("## Words")[2].partition("## Code")[0].rpartition("| not | but |")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if re.match(r"\| [a-z]", line)]
    words = [word.strip() for row in rows for word in row.split(",")]
    assert len(words) > 10
    # An underscore ends a word too: names in code count.
    return re.compile(rf"(?<![A-Za-z])({'|'.join(words)})(?![A-Za-z])", re.IGNORECASE)


def tracked(*places: str) -> Iterator[Path]:
    """The text files that git tracks or would track below these places."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        file = ROOT / name
        if file.is_file() and file.suffix not in NOT_TEXT:
            yield file


@pytest.mark.parametrize("place", PLACES)
def test_the_unwanted_words_are_nowhere(place: str) -> None:
    """Neither in code nor in comments, messages and pages; a pattern finds them in names too."""
    pattern, lines, found = unwanted(), 0, []
    for file in tracked(*PLACES[place]):
        name = str(file.relative_to(ROOT))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            lines += 1
            if pattern.search(line.replace(STORED, "")) and name not in EXEMPT:
                found.append(f"{name}:{number}: {line.strip()}")
    assert lines > 100
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["it came late", "def _told(x):", "beside_families = 1", "For ever and a day"]
)
def test_an_unwanted_word_is_found(text: str) -> None:
    """Alone, in a name, in capitals, and if it is two words."""
    assert unwanted().search(text)


@pytest.mark.parametrize("text", ["outcome", "become", "foretell", "accompany"])
def test_a_part_of_another_word_is_not_found(text: str) -> None:
    """`outcome` holds `come`, and is a good word."""
    assert not unwanted().search(text)


@pytest.mark.parametrize("package", SOURCES)
def test_lines_are_short(package: str) -> None:
    """At most 100 columns, without the remarks for the tools, and nine of ten at most 90."""
    lengths, long = [], []
    for file in tracked(f"{package}/*.py"):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            length = len(PRAGMA.sub("", line))
            if line.strip():
                lengths.append(length)
            if length > MOST_COLUMNS and not line.startswith("_HEADER"):  # the head of a table
                long.append(f"{file.relative_to(ROOT)}:{number}: {length}")
    assert not long, "\n".join(long)
    assert sorted(lengths)[int(len(lengths) * USUAL)] <= USUAL_COLUMNS


@pytest.mark.parametrize("package", SOURCES)
def test_functions_and_files_are_short(package: str) -> None:
    """No function over 50 lines, nine of ten at most 20, their docstrings not counted; no file over
    400."""
    lengths: list[int] = []
    long: list[str] = []
    for file in tracked(f"{package}/*.py"):
        text = file.read_text(encoding="utf-8")
        if (count := len(text.splitlines())) > MOST_FILE_LINES:
            long.append(f"{file.relative_to(ROOT)}: {count} lines")
        for function in ast.walk(ast.parse(text)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(lines_of(function))
                if lengths[-1] > MOST_FUNCTION_LINES:
                    long.append(f"{file.relative_to(ROOT)}: {function.name}: {lengths[-1]} lines")
    assert lengths
    assert not long, "\n".join(long)
    assert sum(each <= USUAL_FUNCTION_LINES for each in lengths) / len(lengths) >= USUAL


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A function's lines, from its first to its last, without its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or 0) - docstring.lineno + 1
    return lines
