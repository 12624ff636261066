"""The packages, as somebody has them who installs them and has no clone."""

import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from support.bundles import write_bundle
from support.walks.catalogue import ROOT, Command
from support.walks.walker import Walker, clean_checkout, walks

pytestmark = [pytest.mark.xdist_group("lab"), pytest.mark.slow]
PROGRAMS = ("halfcore", "model-export", "loadlab")
USER = """
from pathlib import Path

from halfcore.bundle import Manifest, read_manifest
from loadlab.verdict.judge import Verdict
from model_export.errors import ExportError


def columns(folder: Path) -> list[str]:
    manifest: Manifest = read_manifest(folder)
    return [column.name for column in manifest.inputs]


shown: type[Exception] = ExportError
judged: type = Verdict
"""
"""A user's file: with a package that is not typed, `mypy --strict` refuses its imports."""


@walks("just packages", "just version")
def test_the_packages_install_and_serve_without_a_clone(walker: Walker, tmp_path: Path) -> None:
    """An index accepts them; in an environment of its own each program starts, a bundle is served
    under the packages' version, and a user's typed code is checked."""
    checked = walker.run(walker.find("just packages")).out
    assert checked.count("PASSED") == 6
    version = walker.run(walker.find("just version")).out.strip()
    wheels = sorted((walker.folder / "dist").glob("*.whl"))
    for wheel in wheels:
        assert_complete(wheel, version)
    bin_ = installed(with_exporter(wheels), tmp_path)
    for program in PROGRAMS:
        assert "usage: " in typed(bin_ / program, "--help")
    assert typed(bin_ / "halfcore", "--version").strip() == version
    (tmp_path / "user.py").write_text(USER)
    typed(bin_ / "mypy", "--strict", "user.py", folder=tmp_path)
    walker.values["bundles"] = str(write_bundle(tmp_path / "bundles", "iris").parents[1])
    with walker.start(Command(f"{bin_}/halfcore serve", ())) as server:
        assert server.ready().get("/health").json()["version"] == version
        server.end()


@walks("just version 1.2.3")
def test_the_version_is_set_everywhere(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """In each package, in the code and in the lock, of which no other line changes."""
    (command,) = request.node.get_closest_marker("walks").args[0]
    folder = clean_checkout(tmp_path / "halfcore")
    assert Walker(folder, [command]).run(command).out.strip() == "1.2.3"
    diff = typed("git", "diff", "--unified=0", folder=folder)
    added = re.findall(r"^\+(?!\+)(.*)$", diff, re.MULTILINE)
    assert sorted(added) == sorted(['__version__ = "1.2.3"', *['version = "1.2.3"'] * 8])


def assert_complete(wheel: Path, version: str) -> None:
    """Licence, types, version and a page without a link into a tree that is not there."""
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        metadata = files.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert any(name.endswith("/py.typed") for name in names)
    assert f"\nVersion: {version}\n" in metadata
    assert "\nClassifier: Typing :: Typed\n" in metadata
    assert not re.search(r"\]\((?!https?:|#)", metadata)


def with_exporter(wheels: list[Path]) -> list[str]:
    """What to install for all programs: the exporter arrives by the server's extra `export`."""
    own = {wheel.name.split("-")[0]: str(wheel) for wheel in wheels}
    del own["halfcore_export"]
    return [f"{own.pop('halfcore')}[export]", *own.values()]


def installed(wheels: list[str], folder: Path) -> Path:
    """The wheels and mypy in a new environment, with the locked versions of what they need; returns
    the folder of its programs."""
    environment = folder / "environment"
    locked = folder / "locked.txt"
    flags = ["--frozen", "--all-packages", "--no-emit-workspace", "--no-hashes", "--quiet"]
    typed("uv", "export", *flags, "--output-file", locked)
    typed("uv", "venv", "--quiet", environment)
    python, dist = environment / "bin/python", Path(wheels[-1]).parent
    flags = ["--quiet", "-c", str(locked), "--find-links", str(dist), "--python", str(python)]
    typed("uv", "pip", "install", *flags, *wheels, "mypy")
    return environment / "bin"


def typed(*command: str | Path, folder: Path = ROOT) -> str:
    """What a command prints; it succeeds, in no other environment than its own."""
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout
