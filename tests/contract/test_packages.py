"""The packages have one version, one licence, and pages without links that lead nowhere."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from halfcore import __version__
from support.bundles import write_bundle
from support.client import app_client

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


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_s_page_names_its_extras(package: str) -> None:
    """All, and the page of deployment those that an image of the server may have."""
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
    page = (ROOT / package / "README.md").read_text()
    for extra in project["optional-dependencies"]:
        assert f"[{extra}]`" in page
    if package == "server":
        deploy = (ROOT / "docs/deploy.md").read_text().partition("### Extras of an image")[2]
        named = re.findall(r"^\| `(\w+)` \|", deploy.partition("## Upgrading")[0], re.M)
        # A container of the server scores no folders, and the exporter has an image of its own.
        assert set(named) == set(project["optional-dependencies"]) - {"ray", "export"}


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


def test_an_image_says_what_it_is_made_of() -> None:
    """Each target that is published has the labels, with the packages' licence; whatever builds one
    passes the version and the commit."""
    project = tomllib.loads((ROOT / "server/pyproject.toml").read_text())["project"]
    dockerfile, recipes = ((ROOT / name).read_text() for name in ("Dockerfile", "justfile"))
    publish = (ROOT / ".ci/publish").read_text()
    names = dict(re.findall(r"\[(\w+)\]=(\S+?)\b(?=[ )])", publish))
    assert set(names) == {"server", "export", "mlflow", "loadlab"}
    for target, name in names.items():
        stage = dockerfile.partition(f"FROM base AS {target}\n")[2].partition("\nFROM ")[0]
        labels = dict(re.findall(r"org\.opencontainers\.image\.(\w+)=\"(.+?)\"", stage))
        assert labels.pop("description")
        assert labels == {
            "title": name,
            "licenses": project["license"],
            "version": "${VERSION}",
            "revision": "${REVISION}",
        }
    assert '--build-arg VERSION="$(uv version --package halfcore --short)"' in recipes
    assert '--build-arg VERSION="$tag"' in publish
    for builds in (recipes, publish):
        assert '--build-arg REVISION="$(git rev-parse HEAD)"' in builds
    assert '--label "org.opencontainers.image.source=$source"' in publish


async def test_health_reports_the_version_of_the_packages(tmp_path: Path) -> None:
    """That of the tag and of the image, too: a release checks it before it builds."""
    write_bundle(tmp_path, "iris")
    async with app_client(tmp_path) as client:
        assert (await client.get("/health")).json()["version"] == __version__


def test_a_release_needs_a_tag_that_is_the_version() -> None:
    """Packages and images are published after that was checked."""
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    assert 'test "v$(just version)" = "$GITHUB_REF_NAME"' in workflow
    assert workflow.count("needs: version") == 2
    assert 'tag="${GITHUB_REF_NAME#v}" source="$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"' in workflow
