"""How the server's image starts: which model it serves, what it says of a wrong mount, where it is
asked, and how soon it ends."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.bundles import write_bundle
from support.containers import (
    EXPORT,
    MLFLOW,
    SERVER,
    ask,
    await_ready,
    container,
    docker,
    inspect,
    until,
)

PENGUIN = json.dumps(
    {
        "island": "Biscoe",
        "culmen_length_mm": 50.0,
        "culmen_depth_mm": 18.5,
        "flipper_length_mm": 200.0,
        "body_mass_g": 4000.0,
        "sex": "MALE",
    }
).encode()
ROW = b'{"features": [1, 2, 3, 4]}'
ANOTHER_USER = 1000
"""Neither root, who runs the tests, nor the image's user."""


def readable(root: Path) -> Path:
    """Let every user read a folder, as a folder of the host mostly is; pytest's own are closed."""
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


def mounted(root: Path) -> tuple[str, str]:
    """Put a folder in the place of the examples."""
    return ("-v", f"{root}:/bundles:ro")


def health(port: int) -> dict[str, Any]:
    """What the server says of itself."""
    document: dict[str, Any] = json.loads(ask(port, "/health", None)[1])
    return document


def await_alive(port: int) -> None:
    """Wait until the server answers at all."""

    def alive() -> bool:
        try:
            return ask(port, "/health/live", None, timeout_s=5)[0] == 200
        except OSError:
            return False

    until(alive, "the server does not answer")


# -- which model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "model"),
    [
        (["MODEL_NAME=penguins-svm"], "penguins-svm"),
        (["MODEL_NAME=penguins-svm", "HALFCORE_DEFAULT_MODEL=penguins-lr"], "penguins-lr"),
    ],
)
def test_the_model_that_is_named_is_the_default(variables: list[str], model: str) -> None:
    """MODEL_NAME counts more than the image's own default, and HALFCORE_DEFAULT_MODEL more than
    both."""
    with container(*(word for variable in variables for word in ("-e", variable))) as (_, port):
        await_ready(port)
        status, body = ask(port, body=PENGUIN)
    assert (status, json.loads(body)["model"]) == (200, model)


def test_one_own_model_is_served_without_naming_it(tmp_path: Path) -> None:
    """Mounted over the examples; the log says why it is the default."""
    write_bundle(tmp_path, "own")
    with container(*mounted(readable(tmp_path))) as (name, port):
        await_ready(port)
        status, body = ask(port, body=ROW)
        assert (status, json.loads(body)["model"]) == (200, "own")
        assert (
            "POST /predict serves own: the only model (the fallback iris is not there)"
            in docker("logs", name, check=False)
        )


def test_several_own_models_need_a_name(tmp_path: Path) -> None:
    """They are served under their own; /health and the log say what to set."""
    for name in ("one", "two"):
        write_bundle(tmp_path, name)
    with container(*mounted(readable(tmp_path))) as (name, port):
        await_ready(port)
        document = health(port)
        assert ask(port, "/models/two/predict", ROW)[0] == 200
        assert ask(port, body=ROW)[0] == 404
        (reason,) = document["reasons"]
        assert document["default_model"] is None
        assert "set MODEL_NAME to one of one, two" in reason
        assert reason in docker("logs", name, check=False)


# -- a wrong mount ---------------------------------------------------------------------------------


def closed(root: Path) -> Path:
    """A folder that only its owner may enter."""
    write_bundle(root, "own")
    readable(root)
    docker(
        "run",
        "--rm",
        "--user",
        "0",
        "-v",
        f"{root}:/it",
        "--entrypoint",
        "chown",
        SERVER,
        "-R",
        str(ANOTHER_USER),
        "/it",
    )
    root.chmod(0o700)
    return root


def one_file_closed(root: Path) -> Path:
    """A graph that only its owner may read."""
    file = write_bundle(root, "own") / "model.onnx"
    readable(root)
    docker(
        "run",
        "--rm",
        "--user",
        "0",
        "-v",
        f"{root}:/it",
        "--entrypoint",
        "chown",
        SERVER,
        "-R",
        str(ANOTHER_USER),
        "/it",
    )
    file.chmod(0o600)
    return root


def empty(root: Path) -> Path:
    """Nothing, as Docker makes it of a path that does not exist."""
    return readable(root)


def too_deep(root: Path) -> Path:
    """The folder of one model."""
    write_bundle(root, "own")
    return readable(root) / "own"


def a_bundle(root: Path) -> Path:
    """The folder of one bundle."""
    return write_bundle(readable(root), "own")


def too_high(root: Path) -> Path:
    """The folder above the bundles."""
    write_bundle(root / "mine", "own")
    return readable(root)


def misnamed(root: Path) -> Path:
    """A bundle in a folder of another name."""
    write_bundle(root, "own")
    (root / "own").rename(root / "other")
    return readable(root)


WRONG: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "closed": (closed, ("/bundles: user 65532", "mode 0700, owner 1000", "chmod -R a+rX")),
    "a file closed": (
        one_file_closed,
        ("model.onnx: user 65532", "mode 0600, owner 1000", "chmod -R a+rX"),
    ),
    "empty": (empty, ("/bundles is empty", "expected /bundles/NAME/VERSION-HASH/manifest.json")),
    "one level too deep": (
        too_deep,
        ("/bundles/1-", "one level too high", "mount the folder one level above"),
    ),
    "itself a bundle": (a_bundle, ("/bundles is itself a bundle", "two levels above")),
    "one level too high": (too_high, ("/bundles holds no bundle, but /bundles/mine does",)),
    "misnamed": (
        misnamed,
        ("bundle other/1-", "name 'own', expected the directory's name 'other'"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_mount_is_told_with_path_and_reason(case: str, tmp_path: Path) -> None:
    """In /health and in the log of a server that lives and is not ready."""
    make, says = WRONG[case]
    with container(*mounted(make(tmp_path))) as (name, port):
        await_alive(port)
        document = health(port)
        log = docker("logs", name, check=False)
    told = [*document["reasons"], *(each["reason"] for each in document["models"].values())]
    assert document["status"] == "not_ready"
    assert [word for word in says if not any(word in reason for reason in told)] == []
    assert [reason for reason in told if reason not in log] == []


# -- where it is asked -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "command", "inside"),
    [
        (("-e", "HALFCORE_PORT=9000"), (), 9000),
        ((), ("serve", "--port", "9000"), 9000),
        (("-e", "HALFCORE_HOST=::"), (), 8000),
        (("-e", "HALFCORE_HOST=localhost"), (), 8000),
    ],
)
def test_the_health_check_asks_where_the_server_listens(
    arguments: tuple[str, ...], command: tuple[str, ...], inside: int
) -> None:
    """Set by a variable or by a flag, on any address."""
    locked = ("--read-only", "--health-interval", "500ms")
    with container(*locked, *arguments, command=command, inside=inside) as (name, port):
        until(lambda: inspect(name)["State"]["Health"]["Status"] == "healthy", "not healthy")
        if "localhost" not in " ".join(arguments):
            assert ask(port, "/health/ready", None)[0] == 200


# -- open files ------------------------------------------------------------------------------------


def test_it_takes_the_open_files_that_the_engine_allows() -> None:
    """A hard limit of 4096 is no error: the soft one is raised to it, and the log says what that
    allows."""
    with container("--ulimit", "nofile=1024:4096") as (name, port):
        await_ready(port)
        log = docker("logs", name, check=False)
        limits = docker("exec", name, "sh", "-c", "cat /proc/[0-9]*/limits")
    assert "nofile 4096: the hard limit" in log
    assert "max_connections 4032: nofile allows no more" in log
    soft = [line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")]
    assert "4096" in soft


# -- its end ---------------------------------------------------------------------------------------

CODES = {0, 143}
"""Ended by itself, or by the signal; 137 is what Docker's patience makes of a signal that was
lost."""


@pytest.mark.parametrize("wait_s", [0, 0.1, 0.4, 1.0])
def test_a_stop_in_the_first_second_is_not_lost(wait_s: float) -> None:
    """On a tenth of a core, where the imports take 6 s: it ends within Docker's patience, here 3 s
    instead of 10."""
    assert ended_after(wait_s, "--cpus", "0.1", SERVER) in CODES


@pytest.mark.parametrize("image", [EXPORT, MLFLOW])
def test_the_other_images_end_as_soon(image: str) -> None:
    """Each has the same init."""
    words = ("watch", "models:/iris@champion") if image == EXPORT else ()
    assert ended_after(0.1, image, *words) in CODES


def ended_after(wait_s: float, *arguments: str) -> int:
    """Start a container, stop it so much later, and return its exit code.

    The time counts from when the init has started the program. Until the init blocks signals, the
    kernel drops a SIGTERM: the first process of a container has no default for it.
    """
    name = docker("run", "-d", *arguments)
    try:
        until(lambda: len(docker("top", name, "-eo", "pid").split()) > 2, "init and program")
        time.sleep(wait_s)
        docker("stop", "-t", "3", name)
        return int(inspect(name)["State"]["ExitCode"])
    finally:
        docker("rm", "-f", name)
