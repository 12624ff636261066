"""`just prove-pythons` finds the Pythons of this machine, and fails where a thing does not work."""

import sys
from pathlib import Path

import pytest

from e2e import prove_pythons

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_a_python_that_is_installed_is_found() -> None:
    """The one that runs this is; one that there is not, is not."""
    assert RUNNING in prove_pythons.supported()
    found = prove_pythons.interpreter(RUNNING)
    assert found
    assert prove_pythons.full_version(found).startswith(f"{RUNNING}.")
    assert prove_pythons.interpreter("3.99") is None


def test_a_python_of_pyenv_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where pyenv's global version is another one."""
    version = "3.13" if RUNNING != "3.13" else "3.12"
    program = tmp_path / f"versions/{version}.0/bin/python{version}"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    path = prove_pythons.searched(version)
    assert path.split(":")[0] == str(program.parent)


def test_the_short_form_takes_the_newest_other_python() -> None:
    """None where only the running one is installed."""
    found = {"3.9": "/a", RUNNING: "/b", "3.97": "/c", "3.98": None}
    assert prove_pythons.other(found) == ["3.97"]
    assert prove_pythons.other({RUNNING: "/b", "3.98": None}) == []


def test_what_an_index_does_not_have_is_a_failed_check(tmp_path: Path) -> None:
    """With the package and uv's reason."""
    plan = prove_pythons.Plan(dict.fromkeys(prove_pythons.PACKAGES, tmp_path), tmp_path, None)
    check = prove_pythons.wheels_of("3.14", plan)
    assert not check.held
    assert check.found.startswith("halfcore: uv pip: ")
