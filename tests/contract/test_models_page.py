"""The table of models in docs/export.md is what the stored run of `just prove-models` says."""

from pathlib import Path

from support.matrix import page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_models_is_what_the_stored_run_says() -> None:
    """Made again, byte for byte; it names its commit and its command."""
    stored = page.latest(DOCS / "runs")
    assert stored is not None, "`just prove-models` stores a run in docs/runs"
    assert page.between(DOCS / "export.md") == page.section(stored, DOCS / "export.md")


def test_the_stored_run_names_no_place_of_its_machine() -> None:
    """A reader cannot follow a path of ours."""
    stored = page.latest(DOCS / "runs")
    assert stored is not None
    assert str(DOCS.parent) not in stored.read_text()
