"""The packages have one version, one licence, and pages without links that lead nowhere."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from halfcore import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = ("server", "model_export", "loadlab")


@pytest.fixture(scope="module")
def packages() -> ModuleType:
    """The script behind `just packages`."""
    spec = importlib.util.spec_from_file_location("packages", ROOT / ".ci/packages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_the_version_and_the_licence_of_all(package: str) -> None:
    """`just version` sets them; a wheel holds the licence of the tree."""
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert (ROOT / package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert project["license-files"] == ["LICENSE"]
    assert list((ROOT / package).glob("src/*/py.typed"))


def test_the_classifiers_name_the_versions_that_are_tested() -> None:
    """Those of the workflow's matrix."""
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    tested = re.findall(r'"([\d.]+)"', re.findall(r"python: \[(.+)\]", workflow)[0])
    for package in PACKAGES:
        project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
        names = [name for name in project["classifiers"] if ":: 3." in name]
        assert names == [f"Programming Language :: Python :: {each}" for each in tested]


def test_links_of_a_package_are_absolute_or_words(packages: ModuleType) -> None:
    """Where the repository's address is known they lead to the tag; elsewhere nothing is broken."""
    text = "See [it](../docs/a.md#b), [data](src/c), [out](https://x.y/z) and [here](#d)."
    base = "https://host.example/o/n/blob/v1.2.3"
    assert packages.linked(text, "server", base) == (
        f"See [it]({base}/docs/a.md#b), [data]({base}/server/src/c), [out](https://x.y/z) "
        "and [here](#d)."
    )
    assert packages.linked(text, "server", "/blob/v1.2.3") == (
        "See it, data, [out](https://x.y/z) and [here](#d)."
    )
    assert 'Source = "https://host.example/o/n"' in packages.urls("https://host.example/o/n", "1")


def test_a_release_needs_a_tag_that_is_the_version() -> None:
    """Packages and images are published after that was checked."""
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    assert 'test "v$(just version)" = "$GITHUB_REF_NAME"' in workflow
    assert workflow.count("needs: version") == 2
