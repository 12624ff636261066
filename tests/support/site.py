"""The documentation's site: built from this tree as `just site` does, and served on a free port."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).parents[2]
SITE = ROOT / ".halfcore/site/html"


def build() -> Path:
    """Build it; returns its folder."""
    for command in (("docs/site.py",), ("-m", "zensical", "build", "--strict", "--clean")):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    return SITE


@contextmanager
def site_served(folder: Path) -> Iterator[str]:
    """The address of a folder's files, with a slash at its end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""
