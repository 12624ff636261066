"""What a start says of a port for gRPC that cannot be served."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.serving import free_port

WITHOUT_GRPC = "import sys; sys.modules['grpc'] = None; from halfcore.__main__ import main; main()"


def started(folder: Path, program: str, port: int, grpc_port: int) -> tuple[int, str]:
    """The exit status of a start, and what it said."""
    environment = os.environ | {
        "HALFCORE_BUNDLES": str(folder),
        "HALFCORE_PORT": str(port),
        "HALFCORE_GRPC_PORT": str(grpc_port),
    }
    run = subprocess.run(
        [sys.executable, "-c", program, "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
    )
    return run.returncode, run.stderr.strip()


def test_without_the_extra_the_start_names_it(tmp_path: Path) -> None:
    """One sentence, and exit status 2."""
    port = free_port()
    assert started(tmp_path, WITHOUT_GRPC, free_port(), port) == (
        2,
        f"halfcore: grpc_port={port}: gRPC is not installed; install the extra halfcore[grpc]",
    )


@pytest.mark.parametrize("same", [True, False], ids=["HTTP's", "another process's"])
def test_a_port_that_is_taken_stops_the_start(tmp_path: Path, same: bool) -> None:
    """gRPC would share it silently with the other process."""
    program = WITHOUT_GRPC.replace("sys.modules['grpc'] = None; ", "")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        port = free_port()
        status, said = started(tmp_path, program, port, port if same else taken)
    assert status == 2
    assert f"grpc_port={port if same else taken}: " in said
    assert ("HTTP has this port" if same else "Address already in use") in said
