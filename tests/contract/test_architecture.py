"""docs/architecture.md draws the tree that is there, in the order that import-linter checks."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "server/src/halfcore"
EXPORTER = ROOT / "model_export/src/model_export"
GROUND = "settings"
"""The last layer: it has this file and others."""


def layers() -> list[list[str]]:
    """The server's layers, the top first; the modules of a layer stand side by side."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    (contract,) = [
        one for one in contracts if one["type"] == "layers" and one["containers"] == ["halfcore"]
    ]
    return [re.split(r"\s*[|:]\s*", layer) for layer in contract["layers"]]


def drawn() -> list[str]:
    """The names of the picture, from top to bottom."""
    page = (ROOT / "docs/architecture.md").read_text()
    picture = page.partition("## The tree of the server")[2].split("```")[1]
    return [line.split()[0] for line in picture.strip().splitlines()]


def test_the_picture_has_the_layers_in_their_order() -> None:
    """All of them; the ground is one line."""
    above = [name for layer in layers()[:-1] for name in layer]
    assert drawn() == [*above, GROUND]
    assert GROUND in layers()[-1]


def test_the_layers_are_the_tree() -> None:
    """Each module and package of the server stands in one layer."""
    found = {path.stem for path in SOURCE.glob("*.py")} | {
        path.parent.name for path in SOURCE.glob("*/__init__.py")
    }
    assert sorted(name for layer in layers() for name in layer) == sorted(found - {"__init__"})


@pytest.mark.parametrize(
    "package", sorted(SOURCE.glob("*/__init__.py")), ids=lambda path: path.parent.name
)
def test_a_folder_says_what_it_is_for(package: Path) -> None:
    """In its docstring, and it holds nothing else."""
    tree = ast.parse(package.read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_every_file_that_the_page_names_is_there() -> None:
    """As a path below the server's or the exporter's source, or below the repository."""
    page = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`([\w/]+/[\w/]+\.py)`", page))
    assert len(named) > 10
    for name in named:
        assert any((folder / name).exists() for folder in (SOURCE, EXPORTER, ROOT)), name
