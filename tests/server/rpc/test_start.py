"""What a start says of a port for gRPC that cannot be served."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from halfcore.process.checks import check_grpc
from halfcore.settings.reading import SettingsError
from support.serving import free_port

WITHOUT_GRPC = "import sys; sys.modules['grpc'] = None; from halfcore.__main__ import main; main()"


def test_without_the_extra_the_start_names_it(tmp_path: Path) -> None:
    """One sentence, and exit status 2."""
    port = free_port()
    environment = os.environ | {
        "HALFCORE_BUNDLES": str(tmp_path),
        "HALFCORE_PORT": "0",
        "HALFCORE_GRPC_PORT": str(port),
    }
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_GRPC, "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
    )
    expected = (
        f"halfcore: grpc_port={port}: gRPC is not installed; install the extra halfcore[grpc], or "
        "build the image with SERVER_EXTRAS=grpc"
    )
    assert (run.returncode, run.stderr.strip()) == (2, expected)


def test_the_port_of_http_is_refused() -> None:
    """gRPC needs one of its own."""
    with pytest.raises(SettingsError, match="grpc_port=8000: HTTP has this port"):
        check_grpc(8000, "127.0.0.1", 8000)


def test_a_port_of_another_process_is_refused() -> None:
    """gRPC would share it silently."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        with pytest.raises(
            SettingsError, match=rf"grpc_port={taken}: Address already in use; end the"
        ):
            check_grpc(taken, "127.0.0.1", 0)
