"""The log of a real server with a real database: what clients were answered is in the table,
once."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.bundles import write_bundle
from support.client import parsed
from support.logged import BODY, Client, migrated, rows
from support.postgres import Postgres
from support.serving import Server, request, serving

LOG = "halfcore_prediction_log_"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
PAGE = Path(__file__).parents[3] / "docs/prediction-log.md"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`numbers` in two versions: 1 was exported last and is served, 2 names the classes the other
    way round."""
    root = tmp_path_factory.mktemp("bundles")
    write_bundle(root, version="1", created_at="2026-02-02T00:00:00Z")
    write_bundle(root, version="2", classes=["c", "b", "a"])
    return root


@pytest.fixture
def name(postgres: Postgres) -> str:
    """A database of the test's own."""
    return migrated(postgres)


def metric(server: Server, what: str) -> float:
    """A sample of the log."""
    answer = server.send(request("/metrics", method="GET")).partition(b"\r\n\r\n")[2].decode()
    return parsed(answer)[(LOG + what,)]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a state of the server."""
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def settings(postgres: Postgres, name: str, spool: Path, **others: object) -> dict[str, Any]:
    """What makes a server log."""
    return {
        "database_url": postgres.dsn(name),
        "prediction_log": "true",
        "prediction_log_spool": spool,
    } | others


def logged(postgres: Postgres, name: str) -> list[str]:
    """The logged ids in the order of the rows' numbers."""
    return [row["request_id"] for row in rows(postgres, name)]


def test_every_answer_is_logged_once_through_every_outage(
    postgres: Postgres, name: str, bundles: Path, tmp_path: Path
) -> None:
    """The database stops, hangs, loses its sessions and stops again; the server ends while it is
    away, and begins again.

    The table then has each answered request once and in order, and no request failed.
    """
    answered: list[str] = []
    with serving(bundles, **settings(postgres, name, tmp_path)) as server:
        with Client(server, "first") as client:
            until(lambda: metric(server, "written_rows_total") > 0)
            for outage in (postgres.stopped, postgres.hung):
                with outage():
                    before = metric(server, "spooled_rows_total")
                    # Awaited within the turn
                    until(lambda: metric(server, "spooled_rows_total") > before)  # noqa: B023
                until(lambda: metric(server, "spool_rows") == 0)
            postgres.terminate(f"datname = '{name}'")
            postgres.stop()
        answered += client.answered
        assert client.failed == []
        assert server.stop() == 0
    assert list(tmp_path.glob("*/*.segment"))
    postgres.start()
    with serving(bundles, **settings(postgres, name, tmp_path)) as server:
        with Client(server, "second") as client:
            until(lambda: metric(server, "written_rows_total") > 0)
        answered += client.answered
        assert client.failed == []
        assert server.stop() == 0

    found = logged(postgres, name)
    assert sorted(found) == sorted(answered)
    for run in ("first", "second"):
        assert [each for each in found if each.startswith(run)] == [
            each for each in answered if each.startswith(run)
        ]
    assert list(tmp_path.iterdir()) == []


def test_a_killed_server_loses_only_what_was_in_memory(
    postgres: Postgres, name: str, bundles: Path, tmp_path: Path
) -> None:
    """What was on the disk is written by its successor, once; what is missing is the end."""
    with postgres.stopped(), serving(bundles, **settings(postgres, name, tmp_path)) as server:
        with Client(server) as client:
            until(lambda: metric(server, "spooled_rows_total") > 100)
            safe = metric(server, "spooled_rows_total")
        server.process.kill()
        server.process.wait()
    with serving(bundles, **settings(postgres, name, tmp_path)) as server:
        until(lambda: metric(server, "written_rows_total") >= safe)
    found = logged(postgres, name)
    assert len(found) >= safe
    assert found == client.answered[: len(found)]


@pytest.mark.slow
def test_workers_and_lanes_log_alike(
    postgres: Postgres, name: str, bundles: Path, tmp_path: Path
) -> None:
    """Two workers, and the plain ASGI app: the same columns, and ids that never meet."""
    sent = 0
    for lane in ("true", "false"):
        with serving(
            bundles, **settings(postgres, name, tmp_path, workers=2, hot_lane=lane)
        ) as server:
            while len({row["writer"] for row in rows(postgres, name)}) < (
                2 if lane == "true" else 4
            ):  # until the second worker listens too
                for number in range(40):
                    headers = {"x-request-id": f"mine-{number}"} if number % 2 else {}
                    assert b" 200 " in server.send(request("/predict", BODY, headers=headers))
                sent += 40
                time.sleep(0.3)
            assert b" 422 " in server.send(request("/predict", b'{"features":[1]}'))
            many = b'[{"x0":1,"x1":2,"x2":3,"x3":4},{"x0":1,"x1":2,"x2":3,"x3":4}]'
            traced = request("/models/numbers/predict", many, headers={"traceparent": TRACEPARENT})
            assert b" 200 " in server.send(traced)
    found = rows(postgres, name)
    assert len(found) == sent + 2
    made = [row["request_id"] for row in found if not row["request_id"].startswith("mine-")]
    assert len(set(made)) == len(made) == sent // 2 + 2
    assert {(row["model"], row["version"], row["role"]) for row in found} == {
        ("numbers", "1", "champion")
    }
    assert [row["row_count"] for row in found].count(2) == 2
    assert {(row["row_count"], row["trace_id"]) for row in found} == {(1, None), (2, TRACE)}
    one = next(row for row in found if row["row_count"] == 1)
    assert one["inputs"] == {"features": [1, 2, 3, 4.5]}
    assert set(one["answer"]) == {"prediction", "probabilities", "model", "version"}
    assert 0 < one["latency_s"] < 10


def test_the_log_holds_both_answers_and_the_page_asks_for_them(
    postgres: Postgres, name: str, bundles: Path, tmp_path: Path
) -> None:
    """A shadow's answer stands beside the champion's, and every query of docs/prediction-log.md
    runs."""
    challenged = settings(postgres, name, tmp_path, challengers="numbers=version:2")
    with serving(bundles, **challenged) as server:
        with Client(server, "order") as client:
            until(lambda: len(client.answered) > 50)
        many = request(
            "/predict",
            b'{"features":[[1,2,3,4],[4,3,2,1]]}',
            headers={"x-request-id": "order-4711", "traceparent": TRACEPARENT},
        )
        assert b'"version":"1"' in server.send(many)
        until(lambda: metric(server, "written_rows_total") == len(client.answered) + 1)

    found = rows(postgres, name)
    assert {row["version"] for row in found} == {"1"}
    assert {row["challenger_version"] for row in found} == {"2"}
    both = [row for row in found if row["challenger_outcome"] == "answered"]
    assert both
    assert all(
        row["challenger_answer"]["version"] == "2" and row["challenger_latency_s"] > 0
        for row in both
    )
    (feedback,) = re.findall(r"```sql\n(INSERT.*?)```", PAGE.read_text(), re.DOTALL)
    postgres.sql(feedback, name)
    queries = re.findall(r"```sql\n(SELECT.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(queries) == 9
    for query in queries:
        model = query.replace("'iris'", "'numbers'")
        assert bool(postgres.sql(model, name)) != ("missing" in query), query


def test_inputs_can_be_left_out(
    postgres: Postgres, name: str, bundles: Path, tmp_path: Path
) -> None:
    """The answer is kept, the request's JSON is not."""
    with serving(
        bundles, **settings(postgres, name, tmp_path, prediction_log_inputs="false")
    ) as server:
        server.send(request("/predict", BODY))
    (row,) = rows(postgres, name)
    assert row["inputs"] is None
    assert row["answer"]["model"] == "numbers"
