"""`target=`: a server that runs already. Nothing is known of its limits, and nothing of it is
ended."""

from collections.abc import Iterator
from contextlib import contextmanager

from loadlab.target.serving import Serving


@contextmanager
def serving(host: str, port: int) -> Iterator[Serving]:
    """A server that the lab did not start."""
    yield Serving(
        addresses=[(host, port)],
        groups=[],
        pids=[],
        ended=lambda: "",
        details={"server": "given with target=: its limits were not set"},
    )
