"""The feature catalogue: what the table says is applied to requests, and what contradicts the model
is not."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest

from halfcore import bundle
from halfcore.catalog import snapshot
from halfcore.catalog.entries import Entry
from halfcore.catalog.state import Catalog
from halfcore.metrics.counters import CatalogMetrics, Metrics, ModelMetrics
from halfcore.metrics.exposition import Snapshot
from halfcore.models.loading import Limits, load
from halfcore.models.served import LoadedModel, Models
from support import log
from support.bodies import RIGHT, record, without
from support.bundles import MIXED, write_bundle
from support.client import app_client, samples, until
from support.postgres import Postgres

EMPTY: dict[str, Any] = dict.fromkeys(field.name for field in msgspec.structs.fields(Entry))
NEVER = 86400.0
"""Seconds between reads in tests where only a notification may bring a change."""


@pytest.fixture
def url(postgres: Postgres, database: str) -> str:
    """A database with an empty catalogue."""
    return postgres.dsn(database)


@pytest.fixture
async def client(tmp_path: Path, url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serves `mixed` (the default), with a catalogue."""
    async with serving_mixed(tmp_path, url) as client:
        yield client


def serving_mixed(directory: Path, url: str, **changes: Any) -> Any:
    """A client of an app that serves `mixed`, its bundles and its state in a directory."""
    write_bundle(directory / "bundles", "mixed", inputs=MIXED)
    chosen: dict[str, Any] = {
        "database_url": url,
        "catalog_refresh_s": NEVER,
        "state": directory / "state",
    } | changes
    return app_client(directory / "bundles", **chosen)


async def column(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """What GET /models/mixed says of a column."""
    inputs = (await client.get("/models/mixed")).json()["inputs"]
    return next(dict(column) for column in inputs if column["name"] == name)


async def catalogue(client: httpx.AsyncClient) -> dict[str, Any]:
    """What GET /models/mixed says of the catalogue."""
    return dict((await client.get("/models/mixed")).json()["catalogue"])


INSERT = (
    "INSERT INTO halfcore.feature_catalogue (model, column_name, {}) VALUES ('mixed', '{}', {})"
)


# -- applied to requests ---------------------------------------------------------------------------


async def test_a_default_fills_an_absent_column(
    client: httpx.AsyncClient, postgres: Postgres, database: str
) -> None:
    """Of a record or of records, but not of a vector; the answer is that of the default."""
    before = await client.post("/predict", json=without("mass"))
    postgres.sql(INSERT.format("default_value", "mass", "'3000.5'"), database)
    await until(lambda: column(client, "mass"), lambda mass: mass.get("default") == 3000.5)

    one = await client.post("/predict", json=without("mass"))
    many = await client.post("/predict", json=[without("mass"), RIGHT])
    short = await client.post("/predict", json={"features": list(without("mass").values())})

    assert before.json()["code"] == "missing_column"
    assert one.json() == (await client.post("/predict", json=record(mass=3000.5))).json()
    assert many.json()["probabilities"] == [
        one.json()["probabilities"],
        (await client.post("/predict", json=RIGHT)).json()["probabilities"],
    ]
    assert short.json()["code"] == "wrong_length"


async def test_a_value_out_of_range_is_refused_by_name(
    client: httpx.AsyncClient, postgres: Postgres, database: str
) -> None:
    """With 422, the field, the row, what came and what was expected; the bounds themselves are
    legal."""
    postgres.sql(INSERT.format("minimum, maximum", "mass", "2700, 6300.5"), database)
    await until(
        lambda: column(client, "mass"),
        lambda mass: mass.get("allowed") == {"minimum": 2700, "maximum": 6300.5},
    )

    answers = [
        await client.post("/predict", json=record(mass=mass))
        for mass in (2700, 6300.5, None, 2699.9, 6301)
    ]
    bulk = await client.post("/predict", json=[RIGHT, record(mass=9000)])

    assert [answer.status_code for answer in answers] == [200, 200, 200, 422, 422]
    error = {
        "code": "out_of_range",
        "path": "$[1].mass",
        "row": 1,
        "field": "mass",
        "got": 9000,
        "expected": "between 2700 and 6300.5",
    }
    assert bulk.json()["errors"] == [
        error | {"message": 'row 1: "mass" is 9000, expected a number between 2700 and 6300.5'}
    ]


async def test_a_category_that_is_no_longer_allowed_is_refused(
    client: httpx.AsyncClient, postgres: Postgres, database: str
) -> None:
    """The others keep their codes, so their answers are as before."""
    before = await client.post("/predict", json=record(island="Torgersen"))
    postgres.sql(INSERT.format("categories", "island", """'["Torgersen", "Biscoe"]'"""), database)
    await until(
        lambda: column(client, "island"),
        lambda island: island["categories"] == ["Torgersen", "Biscoe"],
    )

    after = await client.post("/predict", json=record(island="Torgersen"))
    refused = await client.post("/predict", json=record(island="Dream"))

    assert after.json() == before.json()
    assert refused.json()["detail"] == '"island" is "Dream", expected one of Torgersen, Biscoe'
    assert refused.json()["code"] == "unknown_category"


async def test_a_model_tells_what_the_catalogue_says_of_it(
    client: httpx.AsyncClient, postgres: Postgres, database: str
) -> None:
    """Column by column with its source; the example stays a legal request; the OpenAPI document
    says the same."""
    assert (await column(client, "mass"))["source"] == "bundle"
    postgres.sql(
        INSERT.format("default_value, minimum, maximum", "mass", "'5000', 4500, 6000"), database
    )
    mass = await until(lambda: column(client, "mass"), lambda mass: mass["source"] == "catalogue")

    assert mass == MIXED[1] | {
        "source": "catalogue",
        "default": 5000,
        "allowed": {"minimum": 4500, "maximum": 6000},
        "example": 4500,
    }
    assert (await column(client, "island"))["source"] == "bundle"
    document = (await client.get("/models/mixed")).json()
    assert (await client.post("/predict", json=document["example"])).status_code == 200
    assert document["catalogue"]["connected"]
    assert not document["catalogue"]["from_disk"]
    assert document["catalogue"]["refused"] is None
    description = (await client.get("/docs/openapi.json")).json()
    body = description["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    assert body["oneOf"][0] == {"$ref": "#/components/schemas/mixed-record"}
    form = description["components"]["schemas"]["mixed-record"]
    assert form["required"] == [name for name in RIGHT if name != "mass"]
    assert form["properties"]["mass"] == {
        "type": ["number", "null"],
        "minimum": 4500,
        "maximum": 6000,
        "default": 5000,
        "examples": [4500],
    }


async def test_rows_that_are_disabled_or_deleted_leave_the_bundles_own(
    client: httpx.AsyncClient, postgres: Postgres, database: str
) -> None:
    """As if they had never been."""
    for statement in (
        "UPDATE halfcore.feature_catalogue SET enabled = false",
        "DELETE FROM halfcore.feature_catalogue",
    ):
        postgres.sql(
            "TRUNCATE halfcore.feature_catalogue;" + INSERT.format("maximum", "mass", "1"), database
        )
        await until(
            lambda: client.post("/predict", json=RIGHT), lambda answer: answer.status_code == 422
        )
        postgres.sql(statement, database)
        await until(
            lambda: client.post("/predict", json=RIGHT), lambda answer: answer.status_code == 200
        )
    assert (await column(client, "mass")) == MIXED[1] | {"source": "bundle"}


async def test_a_change_comes_without_a_notification_too(
    tmp_path: Path, url: str, postgres: Postgres, database: str
) -> None:
    """The table is read every period, whatever the triggers do."""
    postgres.sql("ALTER TABLE halfcore.feature_catalogue DISABLE TRIGGER ALL", database)
    async with serving_mixed(tmp_path, url, catalog_refresh_s=0.1) as client:
        postgres.sql(INSERT.format("maximum", "mass", "1"), database)

        await until(
            lambda: client.post("/predict", json=RIGHT), lambda answer: answer.status_code == 422
        )


async def test_what_a_read_brought_is_counted(
    client: httpx.AsyncClient, postgres: Postgres, database: str
) -> None:
    """By result; with the time of the last read and whether the rows are applied."""
    first = await samples(client)
    postgres.sql(INSERT.format("maximum", "mass", "1"), database)
    await until(lambda: column(client, "mass"), lambda mass: "allowed" in mass)
    postgres.sql(INSERT.format("maximum", "weight", "1"), database)
    await until(lambda: catalogue(client), lambda state: state["refused"])
    last = await samples(client)

    assert (
        first["halfcore_catalog_refreshes_total", "changed"] == 1
    )  # from nothing to an empty table
    assert last["halfcore_catalog_refreshes_total", "changed"] == 2
    assert last["halfcore_catalog_refreshes_total", "refused"] == 1
    assert (
        first["halfcore_catalog_refused", "mixed"],
        last["halfcore_catalog_refused", "mixed"],
    ) == (0, 1)
    assert (
        last["halfcore_catalog_read_timestamp_seconds",]
        > first["halfcore_catalog_read_timestamp_seconds",]
        > 1e9
    )
    assert last["halfcore_catalog_connected",] == 1


# -- malformed -------------------------------------------------------------------------------------


async def test_a_refused_row_leaves_the_old_metadata_whole(
    client: httpx.AsyncClient, postgres: Postgres, database: str
) -> None:
    """Not even the other, right rows of the model are applied; once mended, all are."""
    postgres.sql(INSERT.format("default_value", "mass", "'3000'"), database)
    await until(lambda: column(client, "mass"), lambda mass: mass.get("default") == 3000)

    also = INSERT.format("categories", "island", """'["Java"]'""")
    postgres.sql(
        f"BEGIN; UPDATE halfcore.feature_catalogue SET default_value = '4000'; {also}; COMMIT",  # noqa: S608
        database,
    )
    state = await until(lambda: catalogue(client), lambda state: state["refused"])

    assert state["refused"] == (
        'model "mixed", column "island": categories is Java, expected some of Biscoe, Dream, '
        "Torgersen, each once"
    )
    assert (await column(client, "mass"))["default"] == 3000
    assert (await client.post("/predict", json=without("mass"))).status_code == 200
    postgres.sql("DELETE FROM halfcore.feature_catalogue WHERE column_name = 'island'", database)
    await until(lambda: column(client, "mass"), lambda mass: mass.get("default") == 4000)
    assert (await catalogue(client))["refused"] is None


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (
            "ALTER COLUMN minimum TYPE text; UPDATE halfcore.feature_catalogue SET minimum = 'low'",
            "minimum is 'low', expected a number",
        ),
        (
            (
                "ALTER COLUMN categories TYPE text; UPDATE halfcore.feature_catalogue SET "
                "categories = 'a, b'"
            ),
            "expected a JSON array of strings",
        ),
        (
            (
                "ALTER COLUMN position TYPE numeric; UPDATE halfcore.feature_catalogue SET "
                "position = 1.5"
            ),
            "expected a whole number from 1",
        ),
    ],
    ids=["number", "JSON", "integer"],
)
async def test_a_table_that_was_altered_is_refused(
    client: httpx.AsyncClient, postgres: Postgres, database: str, alter: str, says: str
) -> None:
    """What the table's own types and checks let through no longer, the server still catches, and
    keeps what it has."""
    postgres.sql(INSERT.format("default_value", "mass", "'3000'"), database)
    await until(lambda: column(client, "mass"), lambda mass: mass.get("default") == 3000)
    checks = postgres.sql(
        "SELECT conname FROM pg_constraint WHERE conrelid = "
        "'halfcore.feature_catalogue'::regclass AND contype = 'c'",
        database,
    )
    drops = ", ".join(f'DROP CONSTRAINT "{name}"' for (name,) in checks)

    postgres.sql(
        f"ALTER TABLE halfcore.feature_catalogue {drops}; ALTER TABLE halfcore.feature_catalogue "
        f"{alter}",
        database,
    )
    state = await until(lambda: catalogue(client), lambda state: state["refused"])

    assert says in state["refused"]
    assert (await column(client, "mass"))["default"] == 3000


async def test_a_table_without_a_column_is_not_read(
    client: httpx.AsyncClient, postgres: Postgres, database: str
) -> None:
    """What was read holds on, predictions go on, and the read is counted as failed."""
    postgres.sql(INSERT.format("default_value", "mass", "'3000'"), database)
    await until(lambda: column(client, "mass"), lambda mass: mass.get("default") == 3000)

    postgres.sql(
        "ALTER TABLE halfcore.feature_catalogue DROP COLUMN maximum; UPDATE "
        "halfcore.feature_catalogue SET minimum = 1",
        database,
    )
    await until(
        lambda: samples(client),
        lambda found: found.get(("halfcore_catalog_refreshes_total", "failed"), 0) >= 1,
    )

    assert (await client.post("/predict", json=without("mass"))).status_code == 200
    postgres.sql(
        "ALTER TABLE halfcore.feature_catalogue ADD COLUMN maximum double precision", database
    )
    await until(lambda: column(client, "mass"), lambda mass: "allowed" in mass)


# -- swaps, starts and ends ------------------------------------------------------------------------

LIMITS = Limits(
    max_rows=10,
    max_batch_size=8,
    max_queue_size=100,
    max_queue_delay_s=0,
    solo_after_s=inf,
    queue_timeout_s=5,
    queue_target_s=0,
    inline_budget_s=1,
)


def loaded(root: Path, version: str, inputs: list[dict[str, Any]]) -> LoadedModel:
    """A version of the model `mixed`."""
    source = bundle.read(write_bundle(root, "mixed", version=version, inputs=inputs))
    return load(source, metrics=ModelMetrics(), limits=LIMITS, executor=ThreadPoolExecutor(1))


async def test_a_new_version_takes_the_catalogue_if_it_fits(tmp_path: Path) -> None:
    """Else the last rows that fit, else its bundle's own metadata, and it is told; going back takes
    them up again."""
    catalog = Catalog(CatalogMetrics(), asyncio.Event(), max_rows=10, last=None)
    models = Models(default="mixed", metrics=Metrics(), refine=catalog.refine)
    narrow = [MIXED[0] | {"categories": ["Biscoe", "Dream", "Gorm"]}, *MIXED[1:]]
    one, two, three = (
        loaded(tmp_path, "1", MIXED),
        loaded(tmp_path, "2", MIXED),
        loaded(tmp_path, "3", narrow),
    )
    row = EMPTY | {
        "model": "mixed",
        "column_name": "island",
        "categories": '["Biscoe", "Torgersen"]',
    }
    models.put(one)
    catalog.take([row], models)

    def island(model: LoadedModel) -> list[str | int] | None:
        models.put(model)
        return models.get("mixed").schema.inputs[0].categories

    assert island(two) == ["Biscoe", "Torgersen"]
    assert catalog.describe("mixed")["refused"] is None
    assert island(three) == ["Biscoe", "Dream", "Gorm"]
    assert "Torgersen, expected some of Biscoe, Dream, Gorm" in catalog.describe("mixed")["refused"]
    assert island(one) == ["Biscoe", "Torgersen"]
    # Rows for the version to come are refused by the one that serves, which keeps its own, and wait
    # for theirs.
    catalog.take([row | {"categories": '["Gorm"]'}], models)
    assert island(two) == ["Biscoe", "Torgersen"]
    assert island(three) == ["Gorm"]


async def test_a_model_without_rows_is_not_touched(tmp_path: Path) -> None:
    """It is the very object that was loaded, decoder and all."""
    catalog = Catalog(CatalogMetrics(), asyncio.Event(), max_rows=10, last=None)
    models = Models(default="mixed", metrics=Metrics(), refine=catalog.refine)
    model = loaded(tmp_path, "1", MIXED)
    models.put(model)
    catalog.take([], models)

    assert models.get("mixed") is model


async def test_a_start_without_the_database_takes_the_last_good_catalogue(
    tmp_path: Path, url: str, postgres: Postgres, database: str
) -> None:
    """From disk, and says so; when the database is back, what it says now."""
    postgres.sql(INSERT.format("default_value", "mass", "'3000'"), database)
    async with serving_mixed(tmp_path, url) as client:
        assert (await column(client, "mass"))["default"] == 3000  # read before the first request
        await until(lambda: asyncio.to_thread((tmp_path / "state/catalogue.json").exists), bool)
    postgres.sql("UPDATE halfcore.feature_catalogue SET default_value = '4000'", database)
    postgres.stop()

    async with serving_mixed(tmp_path, url) as client:
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/predict", json=without("mass"))).status_code == 200
        state = await catalogue(client)
        assert (state["connected"], state["from_disk"]) == (False, True)
        assert state["age_s"] > 0
        await asyncio.to_thread(postgres.start)
        await until(lambda: column(client, "mass"), lambda mass: mass["default"] == 4000)
        assert (await catalogue(client))["from_disk"] is False


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[1]", b'{"read_at": 1, "models": {}}', b"\xff"]
)
async def test_a_start_with_nothing_but_bundles_serves_them(
    tmp_path: Path, content: bytes | None
) -> None:
    """No database, and no snapshot or one that is broken: the bundle's own metadata serve."""
    (tmp_path / "state").mkdir()
    if content is not None:
        (tmp_path / "state/catalogue.json").write_bytes(content)
    async with serving_mixed(tmp_path, "postgresql://nobody@127.0.0.1:1/none") as client:
        assert (await client.post("/predict", json=RIGHT)).status_code == 200
        assert (await catalogue(client))["read_at"] is None


def test_a_snapshot_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """A default of null is not the lack of one."""
    entries = (
        Entry(column_name="a", default_value=None),
        Entry(column_name="b", minimum=1.5, categories=("x", "y")),
        Entry(column_name="c"),
    )
    written = snapshot.Snapshot(
        msgspec.convert("2026-01-01T00:00:00Z", snapshot.datetime), {"mixed": entries}
    )

    snapshot.save(tmp_path / "new/catalogue.json", written)

    assert snapshot.load(tmp_path / "new/catalogue.json") == written
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["catalogue.json"]


def test_containers_that_share_the_folder_save_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is process 1 of its own host: neither writes into the other one's file."""
    log.listen(caplog)
    file = tmp_path / "catalogue.json"
    first, second = (
        snapshot.Snapshot(msgspec.convert("2026-01-01T00:00:00Z", snapshot.datetime), {name: ()})
        for name in ("first", "second")
    )
    flush = os.fsync
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="first"))

    def save_another(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", flush)
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="second"))
        snapshot.save(file, second)
        assert snapshot.load(file) == second
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", save_another)
    snapshot.save(file, first)

    assert snapshot.load(file) == first
    assert [path.name for path in tmp_path.iterdir()] == ["catalogue.json"]
    assert not caplog.records


def test_without_a_database_there_is_no_catalogue(tmp_path: Path) -> None:
    """Nor asyncpg in memory, nor a metric, nor a field that says more than null."""
    code = (
        "import sys; from halfcore import worker; from halfcore.settings.groups import Settings; "
        "worker.Worker(Settings()); "
        "print('asyncpg' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


def test_of_several_workers_the_worst_is_told() -> None:
    """Reads add up; the age is the oldest, and one that is not connected shows."""
    one = CatalogMetrics(
        refreshes={"changed": 1}, refused={"a": 0, "b": 1}, read_at=10.0, connected=True
    )
    metrics = Metrics()
    metrics.catalog = CatalogMetrics(
        refreshes={"changed": 2, "failed": 1}, refused={"a": 1}, read_at=7.0, connected=False
    )

    left = msgspec.msgpack.decode(
        msgspec.msgpack.encode(Snapshot.of(metrics)), type=Snapshot
    )  # as the workers leave it for one another
    assert left.catalog is not None
    one.add(left.catalog)

    assert one == CatalogMetrics(
        refreshes={"changed": 3, "failed": 1},
        refused={"a": 1, "b": 1},
        read_at=7.0,
        connected=False,
    )
