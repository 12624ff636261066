"""Every refusal that the exporter's code holds ends with what to do, and names a section that
exists. What a model does to get each is in test_plain_refusals.py and in `just prove-models`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.refusals import advises, sections

CODE = Path(__file__).parents[2] / "model_export/src/model_export"
PARTS = {f"study/{name}.py" for name in ("data", "download", "example", "rows", "tables")}
"""Their texts say why one source of rows is not used, amid a line that ends with what to do."""
KINDS = {"ExportError", "DataError", "NotServableError"}
HOLE = "…"


def written(node: ast.expr) -> str:
    """A text as the code writes it, with `HOLE` for each value in it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(written, node.values))
    return HOLE


def refusals() -> Iterator[tuple[str, str]]:
    """File and line, and the text of each refusal."""
    for file in sorted(CODE.rglob("*.py")):
        place = file.relative_to(CODE).as_posix()
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in KINDS and node.args and place not in PARTS:
                yield f"{place}:{node.lineno}", written(node.args[0])


REFUSALS = list(refusals())
OWN = [(place, text) for place, text in REFUSALS if not text.endswith((f": {HOLE}", f"; {HOLE}"))]
"""Of the others the advice is a value, or the whole text is another error's."""


def test_the_refusals_are_found() -> None:
    """Many, in many files."""
    assert len(OWN) > 70
    assert len({place.partition(":")[0] for place, _ in OWN}) > 20


@pytest.mark.parametrize("folder", sorted({place.partition("/")[0] for place, _ in OWN}))
def test_each_ends_with_what_to_do(folder: str) -> None:
    """In a clause of its own, which begins with a verb."""
    texts = [(p, text) for p, text in OWN if p.startswith(folder) and text.strip(HOLE + " ()")]

    assert not [f"{place}: {text}" for place, text in texts if not advises(text)]


def test_each_names_a_section_that_exists() -> None:
    """Of docs/export.md, in whatever part of the code."""
    named = [
        section
        for file in CODE.rglob("*.py")
        for section in re.findall(r'(?:docs/export\.md|\{_PAGE\}), "([^"]+)"', file.read_text())
    ]

    assert len(named) >= 2
    assert set(named) <= sections()
