"""`halfcore predict --ray` on a real Ray cluster of two nodes on this machine.

Ray is in no environment of the project: the server's own with the extra is made for these tests,
from the project's lock.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet, table

from support.bundles import write_bundle
from support.serving import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[3]
HOST = "127.0.0.2"
"""Loopback, and not 127.0.0.1, in whose place Ray puts the machine's outer address."""
CLIENT = {
    # Given here, or each part decides by whether the user has a token of an earlier cluster
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
}
SETTINGS = {
    **CLIENT,
    "RAY_USAGE_STATS_ENABLED": "0",
    # For a machine as busy as can be, and below the tests' own limit with all attempts
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
}
STARTED = "Ray runtime started"
_ATTEMPTS = 5
"""Of a node: it ends if its helpers take 15 s to start, which no setting changes."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with `halfcore[ray]`, as locked."""
    folder = tmp_path_factory.mktemp("ray") / "venv"
    settings = os.environ | {"UV_PROJECT_ENVIRONMENT": str(folder)}
    for name in ("VIRTUAL_ENV", "UV_NO_SYNC"):
        settings.pop(name, None)
    command = ["uv", "sync", "--frozen", "--no-dev", "--package", "halfcore", "--extra", "ray"]
    command.append("--compile-bytecode")  # each of Ray's many processes would compile it again
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    return folder


@contextmanager
def node(environment: Path, log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A node of the cluster with one core; ends with the block."""
    command = [environment / "bin/ray", "start", "--block", "--num-cpus", "1"]
    for _ in range(_ATTEMPTS):
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*command, "--node-ip-address", HOST, *arguments],
                env=os.environ | SETTINGS,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        try:
            if _has_started(process, log):
                yield process
                return
        finally:
            process.terminate()
            process.wait(60)
            with suppress(ProcessLookupError):  # what it started, in its own session
                os.killpg(process.pid, signal.SIGKILL)
    pytest.fail(log.read_text())


def _has_started(process: "subprocess.Popen[bytes]", log: Path) -> bool:
    while STARTED not in log.read_text():
        if process.poll() is not None:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="module")
def cluster(
    environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The address of a cluster of two nodes, and the second of them."""
    folder = tmp_path_factory.mktemp("r")
    port = str(free_port())
    head = ("--head", "--port", port, "--include-dashboard", "false", "--temp-dir", str(folder))
    address = f"{HOST}:{port}"
    with (
        node(environment, folder / "head.log", *head),
        node(environment, folder / "second.log", "--address", address) as second,
    ):
        yield address, second


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twelve files; one row of each is wrong."""
    write_bundle(tmp_path)
    folder = tmp_path / "rows"
    for day in range(12):
        values = np.random.default_rng(day).normal(5, 3, (60_000, 4))
        values[7, 1] = np.nan
        columns = {f"x{i}": values[:, i] for i in range(4)}
        (folder / f"day={day}").mkdir(parents=True)
        parquet.write_table(table(columns), folder / f"day={day}/part.parquet")
    return folder


def predict(
    environment: Path, *arguments: object, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command line to its end."""
    return subprocess.run(
        [environment / "bin/halfcore", "predict", *map(str, arguments)],
        env=os.environ | CLIENT | settings,
        capture_output=True,
        text=True,
        timeout=600,
    )


def tables(folder: Path) -> dict[str, Any]:
    """The answers of a folder."""
    found = sorted(folder.rglob("*.parquet"))
    return {file.relative_to(folder).as_posix(): parquet.read_table(file) for file in found}


def test_two_workers_answer_as_one_process_does(
    environment: Path, cluster: tuple[str, Any], rows: Path, tmp_path: Path
) -> None:
    """Each loads the model once; a second run keeps what is finished."""
    address, _ = cluster
    bundle, alone, spread = tmp_path / "numbers", tmp_path / "alone", tmp_path / "spread"
    one = predict(environment, bundle, rows, "--out", alone)
    assert "12 files scored by 1 processes, 0 kept" in one.stderr
    while True:  # until the second worker has started before the first has done it all
        two = predict(environment, bundle, rows, "--out", spread, "--ray", address)
        assert (one.returncode, two.returncode) == (1, 1), two.stderr
        assert "12 files scored by " in two.stderr
        if "by 2 processes, 0 kept" in two.stderr:
            break
        shutil.rmtree(spread)
    expected = tables(alone)
    assert len(expected) == 12
    assert tables(spread) == expected
    assert "halfcore: 12 of 720,000 rows have no answer" in two.stderr
    (spread / "day=3/part.parquet").unlink()
    again = predict(environment, bundle, rows, "--out", spread, "--ray", address)
    assert "1 files scored by 1 processes, 11 kept from an earlier run, 0 failed" in again.stderr
    assert tables(spread) == expected


def test_a_file_that_cannot_be_read_stops_no_other(
    environment: Path, cluster: tuple[str, Any], rows: Path, tmp_path: Path
) -> None:
    """It is named; there are no answers to it."""
    (rows / "day=5/part.parquet").write_bytes(b"PAR1")
    arguments = (tmp_path / "numbers", rows, "--out", tmp_path / "out", "--ray", cluster[0])
    done = predict(environment, *arguments, "--workers", "1")
    assert done.returncode == 2
    assert re.search(r"day=5/part.parquet is not a Parquet file", done.stderr)
    assert len(tables(tmp_path / "out")) == 11


def test_no_such_cluster(environment: Path, rows: Path, tmp_path: Path) -> None:
    """One line that says what to do."""
    address = f"127.0.0.1:{free_port()}"
    arguments = (tmp_path / "numbers", rows, "--out", tmp_path / "out", "--ray", address)
    done = predict(environment, *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("halfcore: the Ray cluster")


def test_a_wrong_token(
    environment: Path, cluster: tuple[str, Any], rows: Path, tmp_path: Path
) -> None:
    """The message names the settings."""
    arguments = (tmp_path / "numbers", rows, "--out", tmp_path / "out", "--ray", cluster[0])
    done = predict(environment, *arguments, RAY_AUTH_TOKEN="f" * 64)
    assert done.returncode == 2
    message = done.stderr.splitlines()[-1]
    assert message.startswith(f"halfcore: the Ray cluster {cluster[0]} cannot be reached: ")
    assert "RAY_AUTH_TOKEN" in message


def test_a_node_that_ends_costs_no_file(
    environment: Path, cluster: tuple[str, "subprocess.Popen[bytes]"], rows: Path, tmp_path: Path
) -> None:
    """What it scored is scored by the other one. The last test: the cluster has one node now."""
    address, second = cluster
    out = tmp_path / "out"
    for copy in range(4):
        for file in list(rows.glob("day=*/part.parquet")):
            (file.parent / f"part-{copy}.parquet").write_bytes(file.read_bytes())
    command = [environment / "bin/halfcore", "predict", tmp_path / "numbers", rows]
    with subprocess.Popen(
        [*command, "--out", out, "--ray", address],
        env=os.environ | CLIENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        while len(list(out.rglob("*.parquet"))) < 2:
            assert started.poll() is None
            time.sleep(0.01)
        os.killpg(second.pid, signal.SIGKILL)
        _, err = started.communicate(timeout=600)
    assert started.returncode == 1, err
    assert len(tables(out)) == 60
    assert "halfcore: 60 of 3,600,000 rows have no answer" in err
