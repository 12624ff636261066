"""A registered model is served under any name: the one before the `=`, after a rename, and as a
copy of another model's version."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from halfcore import challenger_spec
from halfcore.registry.client import Client
from halfcore.registry.errors import Refusal
from halfcore.registry.identity import Proven, Source, check
from halfcore.registry.resolve import Offer, Origin, Version, offer, resolve
from halfcore.registry.sources import parse, parse_one
from support.client import parsed, wait_until
from support.fake_registry import FakeRegistry, fake_registry
from support.mlflow_registry import Registry
from support.mlflow_server import MlflowServer
from support.postgres import Postgres
from support.serving import Server, serving
from support.versions import BODIES, expected, told, write_version


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry in memory."""
    with fake_registry() as registry:
        yield registry


def get(server: Server, path: str) -> Any:
    """A GET's JSON."""
    return httpx.get(f"http://127.0.0.1:{server.port}{path}", timeout=30).json()


def ask(server: Server, path: str, row: int = 0) -> dict[str, Any]:
    """A prediction, which must be its version's own."""
    headers = {"content-type": "application/json"}
    answer = httpx.post(
        f"http://127.0.0.1:{server.port}{path}", content=BODIES[row], headers=headers, timeout=30
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def following(server: Server, name: str, role: str = "champion") -> dict[str, Any]:
    """What /health tells of a followed model; it is asked before the model is served, too."""
    found: dict[str, Any] = get(server, "/health")["models"][name]["following"][role]
    return found


@pytest.mark.slow
def test_a_model_is_known_by_the_name_before_the_equals_sign(
    tmp_path: Path, fake: FakeRegistry, postgres: Postgres, database: str
) -> None:
    """In the answer, /models, /docs, the metrics and the prediction log; `source` has the bundle's
    own name. Two names are two models, and a challenger goes by its champion's name."""
    for version in (1, 2):
        fake.publish(write_version(tmp_path / "exported", version, name="penguins-svm"))
    fake.point("penguins-svm", "1")
    fake.point("penguins-svm", "2", "next")
    settings = {
        "follow": "flowers=models:/penguins-svm@champion,blooms=models:/penguins-svm@next",
        "challengers": "flowers=models:/penguins-svm@next",
        "default_model": "flowers",
        "tracking_uri": fake.url,
        "follow_period_s": 0.2,
        "database_url": postgres.dsn(database),
        "prediction_log": "true",
    }
    folders = {name: tmp_path / name for name in ("store", "state", "prediction_log_spool")}
    with serving(tmp_path / "none", **settings, **folders) as server:
        wait_until(lambda: get(server, "/models/blooms").get("name"))
        wait_until(lambda: get(server, "/models/flowers")["challenger"]["version"])
        assert {ask(server, path)["model"] for path in ("/predict", "/models/flowers/predict")} == {
            "flowers"
        }
        assert told(ask(server, "/models/blooms/predict"), 0) == "2"
        listed = get(server, "/models")
        assert (listed["default_model"], sorted(one["name"] for one in listed["models"])) == (
            "flowers",
            ["blooms", "flowers"],
        )
        shown = get(server, "/models/flowers")
        assert (shown["name"], shown["source"]["name"], shown["source"]["resolved"]) == (
            "flowers",
            "penguins-svm",
            "models:/penguins-svm/1",
        )
        assert {"/models/flowers/predict", "/models/blooms/predict"} <= get(
            server, "/docs/openapi.json"
        )["paths"].keys()
        assert httpx.get(f"http://127.0.0.1:{server.port}/models/penguins-svm").status_code == 404
        metrics = parsed(httpx.get(f"http://127.0.0.1:{server.port}/metrics").text)
        assert metrics["halfcore_model_served_workers", "flowers", "champion", "1"] == 1
        assert metrics["halfcore_requests_total", "flowers", "200", "predict"] == 2
        logged = "SELECT DISTINCT model, version FROM halfcore.prediction_log ORDER BY 1"
        assert wait_until(lambda: len(rows := postgres.sql(logged, database)) == 2 and rows) == [
            ("blooms", "2"),
            ("flowers", "1"),
        ]

    with serving(
        tmp_path / "none", **settings | {"tracking_uri": "http://127.0.0.1:9"}, **folders
    ) as server:
        assert (
            ask(server, "/predict")["model"] == "flowers"
        )  # from the store, while the registry is away


def test_a_challenger_of_a_name_that_is_not_served_is_reported(
    tmp_path: Path, fake: FakeRegistry
) -> None:
    """The registered name is no public name: the log says which names there are."""
    fake.publish(write_version(tmp_path / "exported", 1, name="penguins-svm"))
    fake.point("penguins-svm", "1")
    settings = {
        "follow": "flowers=models:/penguins-svm@champion",
        "challengers": "penguins-svm=models:/penguins-svm@champion",
    }
    with serving(
        tmp_path / "none",
        store=tmp_path / "store",
        tracking_uri=fake.url,
        follow_period_s=0.2,
        **settings,
    ) as server:
        server.stop()
        assert server.process.stderr is not None
        log = server.process.stderr.read()
    assert (
        "the challenger of penguins-svm is never asked: no model of that name is served, but "
        "flowers; "
    ) in log


def test_a_copy_is_served_as_the_version_that_it_is(tmp_path: Path, fake: FakeRegistry) -> None:
    """A copy of a copy, too, under its own name and number; also from disk, while the registry is
    away."""
    for version in (1, 2, 3):
        fake.publish(write_version(tmp_path / "exported", version, name="dev"))
    copied = fake.copy("staging", fake.copy("dev", "3", to="staging"), to="prod")
    fake.point("prod", copied)
    settings = {
        "follow": "models:/prod@champion",
        "follow_period_s": 0.2,
        "store": tmp_path / "store",
    }
    for url in (fake.url, "http://127.0.0.1:9"):
        with serving(tmp_path / "none", tracking_uri=url, **settings) as server:
            answer = ask(server, "/predict", row=7)
            assert (answer["model"], answer["version"], answer["prediction"]) == (
                "prod",
                "1",
                expected("3", 7),
            )
            source = get(server, "/models/prod")["source"]
            assert (source["name"], source["version"], source["resolved"]) == (
                "dev",
                "3",
                "models:/dev/3",
            )
            assert following(server, "prod")["served"]["version"] == "1"


PROVEN = Proven("3", Source("models:/dev/3", "run", "m-1"))


@pytest.mark.parametrize(
    "offered",
    [
        Offer("3", "", "", ""),  # a registry that tells nothing
        Offer("3", "", "", "", Origin("file:///somewhere", "run", "")),
        Offer("9", "", "", "", Origin("models:/dev/3")),
        Offer("9", "", "", "", Origin("models:/staging/1", "run")),
        Offer("9", "abc", "", "", Origin("models:/renamed since/3")),
        Offer("9", "", "", "", Origin("models:/m-1", "run", "m-1")),
    ],
)
async def test_a_bundle_is_taken_for_its_version_and_for_copies_of_it(
    fake: FakeRegistry, offered: Offer
) -> None:
    """By the version, by the copies' sources, by the original's tags, by the logged model."""
    fake.versions["staging"] = {"1": {}}
    fake.origins["staging", "1"] = {"source": "models:/dev/3"}
    fake.versions["renamed since"] = {"3": {"halfcore.manifest_sha256": "abc"}}
    client = Client(fake.url, timeout_s=10.0)
    await check(client, offered, PROVEN)
    await client.close()


@pytest.mark.parametrize(
    ("offered", "says"),
    [
        (Offer("9", "", "", ""), "does not say that it is a copy"),
        (
            Offer("9", "", "", "", Origin("file:///somewhere", "run")),
            "does not say that it is a copy",
        ),
        (Offer("9", "", "", "", Origin("models:/dev/4", "run")), "does not say that it is a copy"),
        (Offer("9", "", "", "", Origin("models:/loop/1", "run")), "does not say that it is a copy"),
        (
            Offer("9", "abc", "", "", Origin("models:/re-exported/3")),
            "does not say that it is a copy",
        ),
        (
            Offer("9", "abc", "", "", Origin("models:/re-exported/4")),
            "does not say that it is a copy",
        ),
        (
            Offer("3", "", "", "", Origin("models:/dev/3", "other")),
            "the version's run is other, the bundle's run",
        ),
        (
            Offer("3", "", "", "", Origin("models:/dev/3", "run", "m-2")),
            "the version's logged model is m-2, the bundle's m-1",
        ),
    ],
)
async def test_a_bundle_of_another_model_is_refused_with_the_way_on(
    fake: FakeRegistry, offered: Offer, says: str
) -> None:
    """Tags that somebody copied by hand, say; a copy of itself ends, too."""
    fake.versions["loop"] = {"1": {}}
    fake.versions["re-exported"] = {
        "3": {"halfcore.manifest_sha256": "abd"},
        "4": {"halfcore.manifest_sha256": "abc"},
    }
    fake.origins["loop", "1"] = {"source": "models:/loop/1"}
    client = Client(fake.url, timeout_s=10.0)
    with pytest.raises(Refusal, match=says) as raised:
        await check(client, offered, PROVEN)
    await client.close()
    assert raised.value.code == "other_version"
    assert "the bundle of models:/dev/3" in str(raised.value)
    assert "delete its tag halfcore.export, and `model-export watch` exports it" in str(
        raised.value
    )


def test_a_refusal_that_was_copied_is_told_as_one() -> None:
    """The exporter refused the original; the copy's own verdict is still to come."""
    tags = {"halfcore.export": "refused", "halfcore.export.reason": "3 labels differ"}
    with pytest.raises(
        Refusal,
        match=r"refused it: 3 labels differ \(perhaps a verdict on models:/dev/3, from which",
    ):
        offer(Version("1", "READY", tags, Origin("models:/dev/3")))
    with pytest.raises(Refusal, match=r"refused it: 3 labels differ$"):
        offer(Version("1", "READY", tags, Origin("file:///somewhere")))


@pytest.mark.parametrize(
    "name", ["My Model", "50% off", "a+b&c=d", "größe", "what?", "#1", "a@b", "a,b;c", "a%20b"]
)
async def test_any_registered_name_is_found_over_rest(
    tracking: MlflowServer, registry: Registry, name: str
) -> None:
    """By alias and by version, however it is spelt in a URL; a comma and a semicolon are written
    %2C and %3B in the settings."""
    version = registry.create_version(name)
    registry.set_alias(name, "champion", version)
    client = Client(tracking.url, timeout_s=30.0)
    written = name.replace(",", "%2C").replace(";", "%3B")
    for reference in ("@champion", f"/{version}"):
        (one,) = parse(f"flowers=models:/{written}{reference}")
        assert (one.registered, (await resolve(client, one)).version) == (name, version)
    (spec,) = challenger_spec.parse(f"flowers=models:/{written}@champion;mode=canary;share=0.5")
    assert parse_one(f"flowers={spec.source}").registered == name
    await client.close()


@pytest.mark.parametrize("between", [",", " , ", " ", "\n  ", ",\n"])
def test_entries_are_separated_by_commas_or_white_space(between: str) -> None:
    """As the watch's are; a registered name may hold blanks."""
    entries = ["models:/iris@champion", "wine=models:/My Wine/3", "models:/beer/Production"]
    followed = parse(f" {between.join(entries)}\n")
    assert [one.registered for one in followed] == ["iris", "My Wine", "beer"]
    assert [one.name for one in followed] == ["iris", "wine", "beer"]
    specs = challenger_spec.parse(f"a=models:/My Wine@next;share=0.5{between}b=version:2")
    assert [(one.name, one.source) for one in specs] == [
        ("a", "models:/My Wine@next"),
        ("b", "version:2"),
    ]


def test_renamed_and_copied_models_of_a_real_registry_are_served(
    tmp_path: Path, tracking: MlflowServer, registry: Registry
) -> None:
    """MLflow's own rename and copy, a stage, and a name with a blank: four models, all from two
    bundles."""
    for version in (1, 2, 3):
        registry.publish(
            "Mixed case dev", write_version(tmp_path / "exported", version, name="Mixed-case-dev")
        )
    registry.set_stage("Mixed case dev", "2", "Production")
    registry.publish("before", write_version(tmp_path / "exported", 1, name="before"))
    registry.set_alias("before", "champion", "1")
    registry.call("POST", "registered-models/rename", name="before", new_name="after")
    copied = MlflowClient(tracking.url, tracking.url).copy_model_version(
        "models:/Mixed case dev/3", "prod"
    )
    registry.set_alias("prod", "champion", str(copied.version))
    follow = (
        "flowers=models:/Mixed case dev/Production, dev=models:/Mixed case "
        "dev/1,models:/after@champion,models:/prod@champion"
    )
    settings = {
        "follow": follow,
        "tracking_uri": tracking.url,
        "follow_period_s": 0.5,
        "store": tmp_path / "store",
    }
    with serving(tmp_path / "none", path="/health/live", **settings) as server:
        for name, version, oracle in (
            ("flowers", "2", "2"),
            ("dev", "1", "1"),
            ("after", "1", "1"),
            ("prod", "1", "3"),
        ):
            wait_until(lambda name=name: following(server, name)["served"])
            answer = ask(server, f"/models/{name}/predict")
            assert (answer["model"], answer["version"], answer["prediction"]) == (
                name,
                version,
                expected(oracle, 0),
            )
