"""The servers that the first baselines call on every request: a real MLflow server and a real
PostgreSQL, on loopback.

They run outside the measured server's group and away from its CPU: the services that the
baselines represent had registry and database on other machines, so their work is not the
server's. `BASELINE_TRACKING_URI` and `BASELINE_DATABASE_URL` name others instead.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from loadlab.experiments.bench.subjects import BASELINE, Place, baseline_python, clean_environment
from loadlab.record.limits import Limits
from loadlab.target.process import CannotStart, Command, free_port, running

_SQLITE = "sqlite:///"
_START_S = 120.0


@contextmanager
def surrounded(place: Place) -> Iterator[Place]:
    """Start both and yield the place with their addresses; both end with this context.

    Raises:
        CannotStart: one of them does not start, or the registry is no SQLite file to serve.
        cgroup.Unavailable: see `running`.
    """
    given = os.environ.get("BASELINE_TRACKING_URI"), os.environ.get("BASELINE_DATABASE_URL")
    if given[0] and given[1]:
        yield replace(place, tracking_uri=given[0], database=given[1])
        return
    if not place.tracking_uri.startswith(_SQLITE):
        raise CannotStart(
            f"registry {place.tracking_uri}: expected {_SQLITE}FILE, or BASELINE_TRACKING_URI and "
            "BASELINE_DATABASE_URL"
        )
    registry, database = free_port(), free_port()
    command = _command(place, Path(place.tracking_uri.removeprefix(_SQLITE)), registry, database)
    cpus = str((os.cpu_count() or 1) - 1)
    with running(
        "surroundings", command, port=registry, limits=Limits(), cpus=cpus, ready_timeout_s=_START_S
    ):
        time.sleep(
            1.0
        )  # the registry's first seconds are busy, and would be the first server's noise
        yield replace(
            place,
            tracking_uri=given[0] or f"http://127.0.0.1:{registry}",
            database=given[1] or f"postgresql+psycopg://rival@127.0.0.1:{database}/postgres",
        )


def _command(place: Place, store: Path, registry: int, database: int) -> Command:
    ports = ["--mlflow-port", str(registry), "--postgres-port", str(database)]
    arguments = ["-m", "rival.surroundings", "--store", str(store), *ports]
    return Command(
        [str(baseline_python(place.root)), *arguments],
        clean_environment(),
        place.root / BASELINE,
        "/health",
    )
