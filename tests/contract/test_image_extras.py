"""The extras that an image is built with, without a Docker engine; with one, tests/images has a
server that answers over gRPC."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = {
    "server-dependencies": ("SERVER_EXTRAS", ["", "grpc", "grpc parquet"]),
    "export-dependencies": ("EXPORT_EXTRAS", ["s3", "s3 xgboost lightgbm catboost"]),
}


@pytest.mark.parametrize(
    ("stage", "name", "extras"),
    [(stage, name, value) for stage, (name, values) in STAGES.items() for value in values],
)
def test_the_extras_are_words_of_uv_s_command(
    tmp_path: Path, stage: str, name: str, extras: str
) -> None:
    """The Dockerfile's own command, with a uv that prints what it gets."""
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    uv.chmod(0o755)
    text = (ROOT / "Dockerfile").read_text().partition(f" AS {stage}\n")[2]
    command = re.search(r"uv sync [^\n\\]+", text)
    assert command
    done = subprocess.run(
        ["sh", "-euc", command[0]],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", name: extras},
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.split("\n")[:-1]
    expected = [word for extra in extras.split() for word in ("--extra", extra)]
    assert words[words.index("--package") + 2 :] == expected


@pytest.mark.parametrize("name", ["SERVER_EXTRAS", "EXPORT_EXTRAS"])
def test_every_way_to_build_an_image_passes_them_on(name: str) -> None:
    """`just image`, `just publish` and the release."""
    for file in ("justfile", ".ci/publish"):
        assert f'--build-arg "{name}=${name}"' in (ROOT / file).read_text()
    assert f"{name}: ${{{{ vars.{name} }}}}" in (ROOT / ".github/workflows/release.yml").read_text()


def test_each_extra_that_an_image_can_have_is_explained() -> None:
    """All of the server's, but for Ray, whose jobs run on a cluster's own machines, and the
    exporter, which has an image of its own."""
    page = (ROOT / "docs/deploy.md").read_text()
    table = page.partition("| extra of the server |")[2].partition("\n\n")[0]
    found = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    project = tomllib.loads((ROOT / "server/pyproject.toml").read_text())["project"]
    assert found == project["optional-dependencies"].keys() - {"ray", "export"}
