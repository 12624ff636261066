"""An alias that moves to a version with other columns: swapped with a warning, or kept out, as the
setting says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.bundles import write_bundle
from support.client import parsed, wait_until
from support.fake_registry import FakeRegistry, fake_registry
from support.postgres import Postgres
from support.serving import Server, serving

COLUMNS = [
    {"name": name, "kind": "number", "nullable": False, "example": 1.0}
    for name in ("width", "height", "depth")
]
MASS = {"name": "mass", "kind": "number", "nullable": True, "example": 1.0}
OTHERS = [*COLUMNS[:2], MASS]
"""Without `depth`, with `mass`."""
VERSIONS = ((COLUMNS, "abc"), (OTHERS, "abd"), (COLUMNS, "abc"), ([*COLUMNS, MASS], "abc"))
BODY = {"width": 1, "height": 2, "depth": 3}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeRegistry]:
    """Versions of the model `boxes`: 1 with three columns, 2 with other columns and classes, 3 as
    1, 4 with one column more."""
    with fake_registry() as registry:
        for version, inputs, classes in (
            ("1", COLUMNS, "abc"),
            ("2", OTHERS, "abd"),
            ("3", COLUMNS, "abc"),
            ("4", [*COLUMNS, MASS], "abc"),
        ):
            registry.publish(
                write_bundle(
                    tmp_path / "exported",
                    "boxes",
                    version=version,
                    inputs=inputs,
                    classes=list(classes),
                )
            )
        registry.point("boxes", "1")
        yield registry


def settings(registry: FakeRegistry, tmp_path: Path, **more: object) -> dict[str, object]:
    """Of a server that follows the champion closely."""
    follow = {
        "follow": "models:/boxes@champion",
        "tracking_uri": registry.url,
        "follow_period_s": 0.1,
    }
    return follow | {"store": tmp_path / "store", "state": tmp_path / "state"} | more


def following(server: Server) -> dict[str, Any]:
    """What GET /models/boxes tells of the following."""
    found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{server.port}/models/boxes").json()[
        "following"
    ]["champion"]
    return found


def post(server: Server, **more: float) -> httpx.Response:
    """A record with version 1's columns, and more."""
    headers = {"content-type": "application/json"}
    return httpx.post(
        f"http://127.0.0.1:{server.port}/predict", content=json.dumps(BODY | more), headers=headers
    )


def metric(server: Server, *name: str) -> float:
    """A sample of /metrics; 0 if there is none."""
    return parsed(httpx.get(f"http://127.0.0.1:{server.port}/metrics").text).get(name, 0.0)


def serves(server: Server, version: str) -> bool:
    """Whether it is this version that answers."""
    return bool((served := following(server)["served"]) and served["version"] == version)


def test_a_version_with_other_columns_is_swapped_in_and_said(
    tmp_path: Path, registry: FakeRegistry
) -> None:
    """By default: a warning that names what was added, removed and changed; the same in GET
    /models/NAME; a metric; and again on the way back. A version with the same columns says
    nothing."""
    with serving(tmp_path / "none", **settings(registry, tmp_path)) as server:
        assert post(server).status_code == 200
        assert following(server)["schema_change"] is None
        for version in ("2", "3", "1"):
            registry.point("boxes", version)
            wait_until(lambda version=version: serves(server, version))
            change = following(server)["schema_change"]
            if version == "2":
                assert change == {
                    "from_version": "1",
                    "compatible": False,
                    "added": ['"mass" (required)'],
                    "removed": ['"depth"'],
                    "changed": ["classes are gone: c", "classes are new: d"],
                }
                assert post(server).json()["code"] == "unknown_column"
            else:
                assert (change and change["added"]) == (
                    ['"depth" (required)'] if version == "3" else None
                )
        assert (
            metric(server, "halfcore_model_schema_changes_total", "false", "boxes", "champion") == 2
        )
        server.stop()
        assert server.process.stderr is not None
        warnings = [
            line for line in server.process.stderr if " WARNING " in line and "boxes" in line
        ]
    assert len(warnings) == 2
    assert (
        "version 2 is not compatible with version 1, and clients may get 422 or other "
        'answers: added "mass" (required)'
    ) in warnings[0]
    assert (
        'removed "depth"; classes are gone: c; classes are new: d. Point '
        "models:/boxes@champion back to undo it"
    ) in warnings[0]


@pytest.mark.slow
def test_a_version_with_other_columns_can_be_kept_out(
    tmp_path: Path, registry: FakeRegistry, postgres: Postgres, database: str
) -> None:
    """With `refuse` version 1 serves on and says why; what is compatible comes in; a default of the
    feature catalogue's makes a new column compatible, without another start; the store is not
    fetched into again and again."""
    more = {
        "follow_schema_changes": "refuse",
        "database_url": postgres.dsn(database),
        "catalog_refresh_s": 0.5,
    }
    with serving(tmp_path / "none", **settings(registry, tmp_path, **more)) as server:
        registry.point("boxes", "2")
        refused = wait_until(lambda: following(server)["refused"])
        assert (refused["version"], refused["code"]) == ("2", "schema_changed")
        assert refused["reason"].startswith(
            'it is not compatible with version 1, which is still served: added "mass" (required); '
            'removed "depth"'
        )
        assert "HALFCORE_FOLLOW_SCHEMA_CHANGES=allow" in refused["reason"]
        assert post(server).json()["version"] == "1"
        assert httpx.get(f"http://127.0.0.1:{server.port}/health").json()["status"] == "degraded"
        polls = len(registry.asked)
        wait_until(lambda: len(registry.asked) > polls + 3)
        assert len([path for path in registry.asked if "/boxes/2/model.onnx" in path]) == 1
        assert (
            metric(server, "halfcore_model_swaps_total", "boxes", "schema_changed", "champion") == 1
        )

        registry.point("boxes", "3")
        wait_until(lambda: serves(server, "3"))
        assert following(server)["refused"] is None

        registry.point("boxes", "4")
        wait_until(lambda: (now := following(server)["refused"]) and now["version"] == "4")
        assert post(server).json()["version"] == "3"
        columns = (
            "INSERT INTO halfcore.feature_catalogue (model, column_name, default_value) VALUES "
            "('boxes', 'mass', '4050')"
        )
        postgres.sql(columns, database)
        wait_until(lambda: serves(server, "4"))
        assert post(server).json()["version"] == "4"
        assert following(server)["schema_change"]["compatible"] is True
        assert (
            metric(server, "halfcore_model_schema_changes_total", "true", "boxes", "champion") == 1
        )
