"""The exporter's image: any user of the host may run it, and a folder that it may not write to is
told."""

import subprocess
from pathlib import Path

import pytest

from support.containers import EXPORT, docker


def export(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`docker run --rm … halfcore-export export models:/iris@champion --out bundles`, with a
    registry that is never asked."""
    words = [
        "docker",
        "run",
        "--rm",
        *arguments,
        "-e",
        "MLFLOW_TRACKING_URI=http://127.0.0.1:1",
        EXPORT,
    ]
    return subprocess.run(
        [*words, "export", "models:/iris@champion", "--out", "bundles"],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(("owner", "mode"), [(1000, 0o755), (0, 0o755)])
def test_a_folder_of_another_user_is_told_with_both_remedies(
    tmp_path: Path, owner: int, mode: int
) -> None:
    """Before anything is fetched: the folder, who owns it, who runs this, and what to do. Docker's
    own folders are root's."""
    folder = tmp_path / "bundles"
    folder.mkdir(mode=mode)
    docker(
        "run",
        "--rm",
        "--user",
        "0",
        "-v",
        f"{folder}:/it",
        "--entrypoint",
        "chown",
        EXPORT,
        str(owner),
        "/it",
    )
    result = export("-v", f"{folder}:/work/bundles")
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1
    for word in (
        "cannot write to /work/bundles",
        f"belongs to user {owner}",
        "user 65532",
        '--user "$(id -u):$(id -g)"',
        "chmod a+rwX",
    ):
        assert word in result.stderr


def test_a_folder_that_is_mounted_to_be_read_is_told(tmp_path: Path) -> None:
    """No chmod helps."""
    tmp_path.chmod(0o755)
    result = export("-v", f"{tmp_path}:/work/bundles:ro")
    assert result.returncode == 3
    assert (
        "cannot write to /work/bundles: it is on a read-only file system; mount a folder "
        "there without :ro"
    ) in result.stderr


def test_any_user_has_a_home_and_places_to_write() -> None:
    """A user that the image does not know: what the libraries keep goes to a folder of theirs."""
    code = (
        "import getpass, os, pathlib, tempfile, matplotlib, boto3, mlflow, sklearn; "
        "places = [pathlib.Path.home(), tempfile.gettempdir(), matplotlib.get_cachedir(), "
        "os.getcwd()]; "
        "print([str(place) for place in places if not os.access(place, os.W_OK)], os.getuid())"
    )
    said = docker(
        "run",
        "--rm",
        "--user",
        "4321:4321",
        "--entrypoint",
        "python",
        EXPORT,
        "-W",
        "error::UserWarning",
        "-c",
        code,
    )
    assert said == "[] 4321"


@pytest.mark.parametrize("module", ["boto3", "lightgbm", "xgboost"])
def test_the_driver_for_s3_and_the_boosters_are_in_it(module: str) -> None:
    """A registry whose artifacts are at s3:// needs the driver, and such models their library."""
    said = docker(
        "run", "--rm", "--entrypoint", "python", EXPORT, "-c", f"import {module}; print('loaded')"
    )
    assert said == "loaded"
