"""docs/catalogue.md, as its readers live it: its SQL is run, and what it shows is what comes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.bundles import write_bundle
from support.client import app_client, samples, until
from support.postgres import Postgres

PAGE = (Path(__file__).parents[3] / "docs/catalogue.md").read_text()
ROLES, CHANGE, WRONG = re.findall(r"```sql\n(.+?)```", PAGE, re.DOTALL)
(REFUSAL,) = re.findall(r"```json\n(.+)\n```", PAGE)
(REASON,) = re.findall(r"```text\n(.+)\n```", PAGE)
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


@pytest.fixture
def url(postgres: Postgres, database: str) -> Iterator[str]:
    """The database as the page sets it up, for the server's own role."""
    postgres.sql(ROLES, database)
    yield postgres.dsn(database, user="halfcore_server", password="change-me")
    postgres.terminate("usename = 'halfcore_server'")
    for role in ("halfcore_server", "data_team"):
        postgres.sql(f"DROP OWNED BY {role}; DROP ROLE {role}", database)


async def test_the_page_does_what_it_says(
    tmp_path: Path, postgres: Postgres, database: str, url: str
) -> None:
    """The two roles suffice; the change, the refusal and the reason are those that are shown."""
    write_bundle(tmp_path / "bundles", "penguins-svm", inputs=PENGUINS)
    async with app_client(
        tmp_path / "bundles", database_url=url, state=tmp_path / "state"
    ) as client:
        postgres.sql(f"SET ROLE data_team; {CHANGE}", database)
        heavy = {"island": "Dream", "body_mass_g": 9000}
        refused = await until(
            lambda: client.post("/predict", json=heavy), lambda answer: answer.status_code == 422
        )
        filled = await client.post("/predict", json={"island": "Dream"})
        assert refused.json()["errors"] == [json.loads(REFUSAL)]
        assert (
            filled.json()
            == (await client.post("/predict", json={"island": "Dream", "body_mass_g": 4050})).json()
        )

        postgres.sql(f"SET ROLE data_team; {WRONG}", database)
        shown = await until(
            lambda: client.get("/models/penguins-svm"),
            lambda answer: answer.json()["catalogue"]["refused"],
        )
        assert shown.json()["catalogue"]["refused"] == REASON


def test_the_table_is_described_column_by_column(postgres: Postgres, database: str) -> None:
    """No column of the table is missing on the page, nor there without being in the table."""
    found = postgres.sql(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'feature_catalogue'",
        database,
    )
    described = PAGE.partition("## The table")[2].partition("\n## ")[0]

    assert {name for (name,) in found} == {
        name
        for row in re.findall(r"^\| (`.+?) \|", described, re.M)
        for name in re.findall(r"`(\w+)`", row)
    }


async def test_every_metric_is_described(tmp_path: Path, url: str) -> None:
    """And every one that is described exists."""
    write_bundle(tmp_path / "bundles", "penguins-svm", inputs=PENGUINS)
    async with app_client(
        tmp_path / "bundles", database_url=url, state=tmp_path / "state"
    ) as client:
        exposed = {
            name for name, *_ in await samples(client) if name.startswith("halfcore_catalog_")
        }

    assert exposed - {"halfcore_catalog_refreshes_created"} == set(
        re.findall(r"\| `(halfcore_catalog_\w+)` \|", PAGE)
    )
