"""Builds the wheels and source archives of the three packages into dist/: `just packages`.

On a package index nothing of this repository is next to a README. So each package is built from a
copy, whose README's links into the repository are absolute and whose metadata names it; where the
repository's address is not known, the links are left out and their words stay.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("server", "model_export", "loadlab")
_LINK = re.compile(r"!?\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")


def main() -> int:
    """Build all; exit code 2 if the address is none."""
    parser = argparse.ArgumentParser(description="build the packages into dist/")
    parser.add_argument("repository", nargs="?", default="", help="repository=https://HOST/NAME")
    address = parser.parse_args().repository.removeprefix("repository=").rstrip("/")
    if address and not re.fullmatch(r"https://[\w.-]+/\S+", address):
        sys.stderr.write(f"packages: repository={address}, expected https://HOST/OWNER/NAME\n")
        return 2
    out = ROOT / "dist"
    for old in out.glob("halfcore*"):
        old.unlink()
    for package in PACKAGES:
        with tempfile.TemporaryDirectory() as scratch:
            build(ROOT / package, Path(scratch) / package, address, out)
    if not address:
        sys.stderr.write("packages: without repository=https://… they link to no repository\n")
    return 0


def build(package: Path, copy: Path, address: str, out: Path) -> None:
    """One package: a source archive, and a wheel from it."""
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(package / name, copy / name)
    shutil.copytree(package / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    project = copy / "pyproject.toml"
    version = tomllib.loads(project.read_text())["project"]["version"]
    readme = copy / "README.md"
    readme.write_text(linked(readme.read_text(), package.name, f"{address}/blob/v{version}"))
    if address:
        project.write_text(f"{project.read_text()}\n{urls(address, version)}")
    command: list[str | Path] = ["uv", "build", "--quiet", "--out-dir", out, copy]
    subprocess.run(command, check=True)  # noqa: S603  our own command


def linked(text: str, folder: str, base: str) -> str:
    """A README of a folder with absolute links, or with their words alone."""

    def absolute(found: re.Match[str]) -> str:
        if not base.startswith("https:"):
            return found[1]
        path = os.path.normpath(f"{folder}/{found[2]}")
        return found[0].replace(f"({found[2]})", f"({base}/{path})")

    return _LINK.sub(absolute, text)


def urls(address: str, version: str) -> str:
    """The links of a package's page."""
    lines = {
        "Documentation": f"{address}/blob/v{version}/docs/quickstart.md",
        "Source": address,
        "Changelog": f"{address}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }
    return "\n".join(["[project.urls]", *(f'{name} = "{url}"' for name, url in lines.items()), ""])


if __name__ == "__main__":
    sys.exit(main())
