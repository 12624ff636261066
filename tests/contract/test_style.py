"""The words that docs/style.md replaces stand in no log line, error or description of the server
and the exporter."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("server/src/halfcore", "model_export/src/model_export")
SPEAKS = re.compile(
    r"(debug|info|warning|error|Problem|FieldError|Meta|Refusal|Unavailable|NotOffered|\w*Error|add_argument|add_parser)$"
)
"""What is called with a text that people read."""


def unwanted() -> re.Pattern[str]:
    """The words in the left column of the page's last table."""
    page = (ROOT / "docs/style.md").read_text()
    table = page.partition("## Words")[2].partition("## Code")[0].rpartition("| not | but |")[2]
    rows = [
        line.split("|")[1]
        for line in table.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    words = [word.strip() for row in rows for word in row.split(",")]
    assert len(words) > 10
    return re.compile(rf"\b({'|'.join(words)})\b", re.IGNORECASE)


def spoken(source: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module that people read, each with its line."""
    for call in ast.walk(ast.parse(source.read_text())):
        if not isinstance(call, ast.Call):
            continue
        name = (
            call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        )
        if SPEAKS.match(name):
            for node in ast.walk(call):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.lineno, node.value


@pytest.mark.parametrize("package", PACKAGES)
def test_what_people_read_has_none_of_the_words(package: str) -> None:
    """Comments and the older pages still have some; they are changed as their files are."""
    pattern, texts = unwanted(), 0
    found = []
    for file in sorted((ROOT / package).rglob("*.py")):
        for number, text in spoken(file):
            texts += 1
            if pattern.search(text):
                found.append(f"{file.relative_to(ROOT)}:{number}: {text}")
    assert texts > 100
    assert not found, "\n".join(found)
