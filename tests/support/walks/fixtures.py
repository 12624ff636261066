"""The fixtures of everything that walks; conftest.py of a folder takes them from here."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.walks.walker import Walker, clean_checkout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean checkout; walks of one process share it."""
    for program in ("bash", "just", "curl", "git"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed, and a walk types it")
    return clean_checkout(tmp_path_factory.mktemp("walks") / "halfcore")


@pytest.fixture
def walker(request: pytest.FixtureRequest, checkout: Path) -> Iterator[Walker]:
    """Types the commands that the test says it executes; one that it leaves out fails it."""
    mark = request.node.get_closest_marker("walks")
    values = (
        {"mlflow": request.getfixturevalue("tracking").url}
        if "tracking" in request.fixturenames
        else {}
    )
    walker = Walker(checkout, mark.args[0] if mark else [], **values)
    yield walker
    left = [str(command) for command in walker.commands if command.text not in walker.executed]
    assert not left, f"the test was to execute: {left}"
