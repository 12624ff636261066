"""`just prove-outages`: a real PostgreSQL is stopped, hung, restarted, cut off and stormed under
300 requests/s that are logged into it.

No prediction may fail; a category that the data team changes is live within 2 s of its commit; and
in the end the log's table holds every answered prediction exactly once, by the client's own count.
The exit code tells.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.bodies import RIGHT, dumped
from support.bundles import MIXED, write_bundle
from support.load import Load, Sent, percentile
from support.logged import migrated
from support.postgres import Postgres
from support.proof import Check, begin, conclude
from support.serving import Server, request, serving

LIVE_S = 2.0
CAUGHT_UP_S = 60.0
BODIES = [
    dumped(RIGHT | {"island": island, "mass": 3000.0 + mass})
    for island in ("Biscoe", "Dream")
    for mass in range(25)
]
PROBE = dumped(RIGHT | {"island": "Torgersen"})
"""Answered while the catalogue allows all categories, refused while it allows two."""
STORM = (
    "DO $$ BEGIN FOR i IN 1..500 LOOP PERFORM pg_notify('halfcore_feature_catalogue', i::text); "
    "END LOOP; END $$;"
)


class Rig(NamedTuple):
    """A server under load, its PostgreSQL, and the database there."""

    server: Server
    postgres: Postgres
    database: str

    def commit(self, *, allowed: bool) -> None:
        """Have the catalogue allow the probe's category, or not."""
        categories = "NULL" if allowed else """'["Biscoe", "Dream"]'"""
        self.postgres.sql(
            "INSERT INTO halfcore.feature_catalogue (model, column_name, categories) VALUES "  # noqa: S608
            f"('mixed', 'island', {categories}) "
            "ON CONFLICT (model, column_name) DO UPDATE SET categories = EXCLUDED.categories",
            self.database,
        )

    def allowed(self) -> bool:
        """Whether a request with that category is answered now."""
        return (
            b" 200 "
            in self.server.send(request("/predict", PROBE, headers={"x-request-id": "probe"}))[:20]
        )

    def change(self, times: int = 1) -> list[float]:
        """Change the category so often; seconds from each commit until a request meets it."""
        found = []
        for _ in range(times):
            wanted = not self.allowed()
            self.commit(allowed=wanted)
            committed = time.monotonic()
            while self.allowed() != wanted:
                if time.monotonic() > committed + 30:
                    raise TimeoutError("a changed category was not live after 30 s")
                time.sleep(0.005)
            found.append(time.monotonic() - committed)
        return found

    def rows(self) -> tuple[int, int]:
        """The load's rows in the log, and how many different ids they have."""
        asked = (
            "SELECT count(*), count(DISTINCT request_id) FROM halfcore.prediction_log WHERE "
            "request_id LIKE 'load-%'"
        )
        rows, ids = self.postgres.sql(asked, self.database)[0]
        return int(rows), int(ids)


class Phase(NamedTuple):
    """What was done, when, and how long each change took to be live while PostgreSQL was up; and
    after it came back."""

    name: str
    began: float
    ended: float
    live_s: list[float]
    back_s: list[float]


def calm(rig: Rig, seconds: float) -> tuple[list[float], list[float]]:
    """Nothing happens but changes of the catalogue."""
    end, live = time.monotonic() + seconds, []
    while time.monotonic() < end:
        live += rig.change()
        time.sleep(0.2)
    return live, []


def stopped(rig: Rig, seconds: float) -> tuple[list[float], list[float]]:
    """Down, every connection cut."""
    with rig.postgres.stopped():
        time.sleep(seconds)
    return [], rig.change()


def hung(rig: Rig, seconds: float) -> tuple[list[float], list[float]]:
    """The kernel takes connections and bytes, and nobody answers."""
    with rig.postgres.hung():
        time.sleep(seconds)
    return [], rig.change()


def restarted(rig: Rig, seconds: float) -> tuple[list[float], list[float]]:
    """Down and up at once, three times."""
    back = []
    for _ in range(3):
        rig.postgres.restart()
        back += rig.change()
        time.sleep(seconds / 6)
    return [], back


def terminated(rig: Rig, seconds: float) -> tuple[list[float], list[float]]:
    """An administrator ends the server's sessions, the listener's among them, again and again."""
    end, back = time.monotonic() + seconds, []
    while time.monotonic() < end:
        rig.postgres.terminate(f"application_name = 'halfcore' AND datname = '{rig.database}'")
        back += rig.change()
        time.sleep(0.5)
    return [], back


def stormed(rig: Rig, seconds: float) -> tuple[list[float], list[float]]:
    """Thousands of notifications a second, and changes among them."""
    end, live = time.monotonic() + seconds, []
    while time.monotonic() < end:
        rig.postgres.sql(STORM * 10, rig.database)
        live += rig.change()
    return live, []


FAULTS: tuple[Callable[[Rig, float], tuple[list[float], list[float]]], ...] = (
    calm,
    stopped,
    hung,
    restarted,
    terminated,
    stormed,
)


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="of each of the six phases, about"
    )
    parser.add_argument("--rate", type=float, default=300.0, help="requests per second")
    arguments = parser.parse_args()
    postgres = Postgres()
    try:
        postgres.start()
        with tempfile.TemporaryDirectory() as folder:
            return prove(Path(folder), postgres, seconds=arguments.seconds, rate=arguments.rate)
    finally:
        postgres.close()


def prove(folder: Path, postgres: Postgres, *, seconds: float, rate: float) -> int:
    """Put the load on, do one thing after the other to PostgreSQL, and count."""
    console = Console()
    begun = begin(console)
    write_bundle(folder / "bundles", "mixed", inputs=MIXED)
    database = migrated(postgres)
    settings = {
        "state": folder / "state",
        "prediction_log": True,
        "prediction_log_spool": folder / "spool",
        "database_url": postgres.dsn(database),
    }
    with serving(folder / "bundles", **settings) as server:
        rig = Rig(server, postgres, database)
        load = Load(server.port, BODIES, rate=rate, ids="load")
        phases = []
        with load.running():
            for fault in FAULTS:
                console.print(f"{fault.__name__} …")
                began = time.monotonic()
                live, back = fault(rig, seconds)
                phases.append(Phase(fault.__name__, began, time.monotonic(), live, back))
        caught_up_s = _await_rows(rig, len(load.sent) - len(load.failed))
        rows, ids = rig.rows()
    after = rig.rows()
    checks, figures = _judge(load.sent, phases, rows=rows, ids=ids, after=after)
    figures["caught_up_s"] = round(caught_up_s, 2)
    title = (
        f"PostgreSQL in {len(phases)} states under {rate:g} logged predictions/s, "
        f"{phases[-1].ended - phases[0].began:.0f} s"
    )
    return conclude(begun, "outages", title, checks, figures, console=console)


def _await_rows(rig: Rig, wanted: int) -> float:
    """Wait until the log has caught up, as long as may be; seconds that it took."""
    began = time.monotonic()
    while rig.rows()[0] < wanted and time.monotonic() < began + CAUGHT_UP_S:
        time.sleep(0.1)
    return time.monotonic() - began


def _judge(
    sent: Sequence[Sent], phases: Sequence[Phase], *, rows: int, ids: int, after: tuple[int, int]
) -> tuple[list[Check], dict[str, Any]]:
    answered = sum(one.status == 200 for one in sent)
    failed = len(sent) - answered
    live, back = (
        [value for phase in phases for value in values(phase)]
        for values in (lambda each: each.live_s, lambda each: each.back_s)
    )
    checks = [
        Check("predictions failed", f"{failed} of {len(sent)}", "0", not failed),
        Check(
            "rows in the log, different ids",
            f"{rows}, {ids}",
            f"{answered} (the client's count)",
            rows == ids == answered,
        ),
        Check(
            "the same after the server's end",
            f"{after[0]}, {after[1]}",
            f"{answered}",
            after == (answered, answered),
        ),
        Check(
            f"{len(live)} changed categories, live after",
            _spread(live),
            f"≤ {LIVE_S:g} s",
            max(live) <= LIVE_S,
        ),
        Check(f"{len(back)} changed as PostgreSQL came back", _spread(back), "told", held=True),
    ]
    figures: dict[str, Any] = {
        "requests": len(sent),
        "failed": failed,
        "rows": rows,
        "ids": ids,
        "phases": {},
    }
    for phase in phases:
        latencies = [one.latency_s for one in sent if phase.began <= one.at_s < phase.ended]
        p50, p99 = (round(percentile(latencies, share) * 1e3, 2) for share in (0.5, 0.99))
        checks.append(
            Check(f"p50, p99 while {phase.name}", f"{p50:.1f}, {p99:.1f} ms", "told", held=True)
        )
        figures["phases"][phase.name] = {
            "requests": len(latencies),
            "p50_ms": p50,
            "p99_ms": p99,
            "live_s": phase.live_s,
            "back_s": phase.back_s,
        }
    return checks, json.loads(json.dumps(figures))


def _spread(seconds: Sequence[float]) -> str:
    return f"median {statistics.median(seconds) * 1e3:.0f}, longest {max(seconds) * 1e3:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
