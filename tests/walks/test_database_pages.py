"""docs/prediction-log.md and docs/catalogue.md, as their readers live them: a real server, a real
PostgreSQL, and all the SQL."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.bundles import write_bundle
from support.postgres import Postgres
from support.walks.catalogue import Command
from support.walks.walker import Walker, walks

BOTH_LOGGED = "SELECT count(*), count(challenger_answer) FROM halfcore.prediction_log"
FOUR = [
    {"name": f"x{index}", "kind": "number", "nullable": False, "example": 1.0} for index in range(4)
]
PENGUINS: list[dict[str, Any]] = [
    {
        "name": "island",
        "kind": "category",
        "nullable": True,
        "categories": ["Biscoe", "Dream", "Torgersen"],
        "example": "Biscoe",
    },
    {"name": "body_mass_g", "kind": "number", "nullable": True, "example": 3750.0},
]


@contextmanager
def roles(postgres: Postgres, database: str, *names: str) -> Iterator[None]:
    """Roles that a page makes, gone after the block: they belong to the whole cluster, which other
    tests use."""
    try:
        yield
    finally:
        for name in names:
            postgres.terminate(f"usename = '{name}'")
            postgres.sql(f"DROP OWNED BY {name}; DROP ROLE {name}", database)


@walks(
    "DATABASE_URL=postgresql://… uv run halfcore migrate",
    "DATABASE_URL=postgresql://… HALFCORE_PREDICTION_LOG=true uv run halfcore serve",
    "GRANT USAGE ON SCHEMA halfcore TO halfcore_server;*",
    "INSERT INTO halfcore.feedback *",
    "SELECT *",
)
def test_predictions_are_logged_and_every_query_answers(
    walker: Walker, postgres: Postgres, tmp_path: Path
) -> None:
    """The tables are made, a role with the page's grants suffices, and each query says what was
    asked and answered."""
    database = postgres.create_database()
    made = walker.run(walker.find("* uv run halfcore migrate"), database=postgres.dsn(database))
    assert "applied, the schema is up to date" in made.out
    postgres.sql("CREATE ROLE halfcore_server LOGIN PASSWORD 'change-me'", database)
    bundles = tmp_path / "bundles"
    write_bundle(bundles, "iris", version="2", inputs=FOUR, classes=["x", "y", "z"])
    write_bundle(
        bundles,
        "iris",
        version="1",
        inputs=FOUR,
        classes=["a", "b", "c"],
        created_at="2026-02-01T00:00:00Z",
    )
    walker.values["bundles"] = str(bundles)
    with roles(postgres, database, "halfcore_server"):
        ask(walker, postgres, database, walker.find("GRANT*"))
        serve = walker.find("*uv run halfcore serve")
        environment = {"HALFCORE_CHALLENGERS": "iris=version:2"}
        url = postgres.dsn(database, user="halfcore_server", password="change-me")
        one, many = ask_with_shadow(walker, serve, environment, url, postgres, database)
        ask(walker, postgres, database, walker.find("INSERT INTO halfcore.feedback *"))
        answers = {
            command.text: ask(walker, postgres, database, command)
            for command in walker.commands
            if "SELECT" in command.text[:7]
        }

    def answer(part: str) -> list[tuple[str, ...]]:
        (found,) = [rows for text, rows in answers.items() if part in text]
        return found

    ((version, label, count, latency_s),) = answer("mean_latency_s")
    assert (version, label, count) == ("1", one["prediction"], "1")
    assert 0 < float(latency_s) < 60
    ((_, model, version, inputs, logged),) = answer("order-4711")
    assert (model, version, json.loads(inputs), json.loads(logged)) == (
        "iris",
        "1",
        {"features": [1, 2, 3, 4]},
        one,
    )
    ((_, model, *_, logged),) = answer("WHERE trace_id")
    assert (model, json.loads(logged)) == ("iris", many)
    assert [row[1] for row in answer("date_trunc")] == ["1"]
    assert [row[1:] for row in answer("row.ordinality")] == [
        (str(n), label) for n, label in enumerate(many["prediction"], 1)
    ]
    ((champion, challenger, count),) = answer("AS champion")
    assert champion == one["prediction"]
    assert (challenger in {"x", "y", "z"}, count) == (True, "1")
    assert [row[1:] for row in answer("accuracy")] == [
        ("1", "1", "1" if one["prediction"] == "a" else "0")
    ]
    assert answer("AS missing") == []
    assert answer("drop_before") == [("0",)]


def ask_with_shadow(
    walker: Walker,
    serve: Command,
    environment: dict[str, str],
    url: str,
    postgres: Postgres,
    database: str,
) -> tuple[Any, Any]:
    """The answers to a request of one row and one of two, logged with the shadow's answers. On a
    busy machine the shadow may have no time; then both are asked again from the beginning."""
    while True:
        with walker.start(serve, database=url, environment=environment) as server:
            http = server.ready()
            one = http.post(
                "/predict", json={"features": [1, 2, 3, 4]}, headers={"X-Request-Id": "order-4711"}
            ).json()
            many = http.post(
                "/predict",
                json={"features": [[1, 2, 3, 4], [4, 3, 2, 1]]},
                headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
            ).json()
            server.until(
                lambda: postgres.sql(BOTH_LOGGED, database)[0][0] == "2", "logging both requests"
            )
            server.end()
        if postgres.sql(BOTH_LOGGED, database) == [("2", "2")]:
            return one, many
        postgres.sql("TRUNCATE halfcore.prediction_log, halfcore.prediction_log_offsets", database)


def ask(
    walker: Walker, postgres: Postgres, database: str, command: Command, before: str = ""
) -> list[tuple[str, ...]]:
    """Type SQL of a page as the tables' owner; returns the last rows."""
    rows = postgres.sql(before + command.text, database)
    walker.executed.add(command.text)
    return rows


@walks(
    "* just migrate",
    "halfcore migrate",
    "CREATE ROLE halfcore_server *",
    "INSERT INTO halfcore.feature_catalogue *",
    "UPDATE *",
    "halfcore serve",
)
def test_the_data_team_changes_what_a_model_takes(
    walker: Walker, postgres: Postgres, tmp_path: Path
) -> None:
    """Two runs of the migration are safe; the roles suffice; the change, the refusal and the reason
    are those that the page shows."""
    database = postgres.create_database()
    applied = walker.run(walker.find("* just migrate"), database=postgres.dsn(database)).out
    assert re.search(r"^[1-9]\d* applied, the schema is up to date", applied, re.M)
    again = walker.run(
        walker.find("halfcore migrate"), environment={"DATABASE_URL": postgres.dsn(database)}
    ).out
    assert "0 applied, the schema is up to date" in again
    write_bundle(tmp_path / "bundles", "penguins-svm", inputs=PENGUINS)
    walker.values["bundles"] = str(tmp_path / "bundles")
    change, wrong = walker.find("INSERT *"), walker.find("UPDATE *")
    ask(walker, postgres, database, walker.find("CREATE ROLE*"))
    url = postgres.dsn(database, user="halfcore_server", password="change-me")
    with roles(postgres, database, "halfcore_server", "data_team"):
        environment = {"DATABASE_URL": url, "HALFCORE_STATE": str(tmp_path / "state")}
        with walker.start(walker.find("halfcore serve"), environment=environment) as server:
            http = server.ready()
            ask(walker, postgres, database, change, before="SET ROLE data_team; ")
            heavy = {"island": "Dream", "body_mass_g": 9000}
            refused = server.until(
                lambda: (
                    (answer := http.post("/predict", json=heavy)).status_code == 422
                    and answer.json()["errors"]
                ),
                "refusing 9000 g",
            )
            assert refused == [json.loads(change.shown)]
            filled, full = (
                http.post("/predict", json=row).json()
                for row in ({"island": "Dream"}, heavy | {"body_mass_g": 4050})
            )
            assert filled == full
            ask(walker, postgres, database, wrong, before="SET ROLE data_team; ")
            reason = server.until(
                lambda: http.get("/models/penguins-svm").json()["catalogue"]["refused"],
                "refusing the row",
            )
            assert reason == wrong.shown
            server.end()
