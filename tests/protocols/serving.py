"""What the recorders of all servers need."""

import subprocess
import time

import httpx

STORE = "sqlite:///.halfcore/mlflow.db"
START_S = 180


def await_answer(client: httpx.Client, process: subprocess.Popen[bytes], path: str) -> None:
    """Wait until a server answers this path with 200.

    Raises:
        SystemExit: it ended, or did not start in time.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get(path).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit("the server did not start: see its messages above")
