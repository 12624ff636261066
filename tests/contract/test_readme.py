"""The READMEs are short, say the same, and their badges are true."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.es.md")
MOST_LINES, MOST_COLUMNS = 150, 120
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"  # .*$", re.MULTILINE)
_TARGET = re.compile(r"\]\(([^)]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)


def text_of(name: str) -> str:
    """A README."""
    return (ROOT / name).read_text()


def code_of(name: str) -> list[tuple[str, str]]:
    """Its code blocks with their languages, without the comments, which are translated."""
    return [(kind, _COMMENT.sub("", code)) for kind, code in _BLOCK.findall(text_of(name))]


@pytest.mark.parametrize("name", READMES)
def test_a_readme_is_one_short_page(name: str) -> None:
    """At most 150 lines of at most 120 columns."""
    lines = text_of(name).splitlines()
    assert len(lines) <= MOST_LINES
    assert not [line for line in lines if len(line) > MOST_COLUMNS]


def test_both_readmes_have_the_same_commands_and_answers() -> None:
    """The walks type the English ones, and so the Spanish ones too."""
    english, spanish = map(code_of, READMES)
    assert english == spanish
    assert len(english) >= 7


def test_both_readmes_have_the_same_pictures_and_figures() -> None:
    """And as many sections; the Spanish one may link to more, and shows the page in Spanish."""
    english, spanish = (set(map("".join, _TARGET.findall(text_of(name)))) for name in READMES)
    assert "docs/images/home-es.png" in spanish
    assert english - {"README.es.md", "docs/images/home.png"} <= spanish
    heads = [re.findall(r"^#+ ", text_of(name), re.MULTILINE) for name in READMES]
    assert heads[0] == heads[1]
    tables = [re.findall(r"^\|.*\|$", text_of(name), re.MULTILINE) for name in READMES]
    assert [row.count("[") for row in tables[0]] == [row.count("[") for row in tables[1]]


def test_the_badges_say_what_the_files_say() -> None:
    """Versions of Python, the licence, and where CI is described; they are files of our own."""
    images = ROOT / "docs/images"
    server = tomllib.loads(text_of("server/pyproject.toml"))["project"]
    versions = re.findall(r"python: \[(.+)\]", text_of(".github/workflows/test.yml"))
    tested = re.findall(r'"([\d.]+)"', versions[0])
    assert server["requires-python"] == f">={tested[0]}"
    assert f"Python: {tested[0]} – {tested[-1]}" in (images / "badge-python.svg").read_text()
    assert f"licence: {server['license']}" in (images / "badge-licence.svg").read_text()
    assert text_of("LICENSE").startswith(server["license"])
    assert "CI: .ci/run" in (images / "badge-ci.svg").read_text()
    assert (ROOT / ".ci/run").exists()


def test_every_picture_is_small_and_shown() -> None:
    """Each PNG of the documentation lies in docs/images, with at most 250 kB, and a page shows it
    or links to it."""
    pictures = {file.name: file for file in (ROOT / "docs").rglob("*.png")}
    pages = "".join(text_of(name) for name in READMES)
    pages += "".join(file.read_text() for file in (ROOT / "docs").glob("*.md"))
    for name, file in pictures.items():
        assert file.parent == ROOT / "docs/images"
        assert file.stat().st_size <= 250_000
        assert f"images/{name})" in pages
