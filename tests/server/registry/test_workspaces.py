"""MLflow's workspaces: the one that is set is asked for; a server that has none is refused, for it
would give another tenant's model."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import pytest

from halfcore.registry.client import Client
from halfcore.registry.errors import NotOffered, Unavailable
from halfcore.registry.resolve import resolve
from halfcore.registry.sources import parse_one
from halfcore.registry.store import Store
from model_export.publish import publish
from model_export.registry.client import connect, registered_version
from support.client import wait_until
from support.fake_registry import FakeRegistry, fake_registry
from support.mlflow_registry import Registry
from support.mlflow_server import IMPATIENT, MlflowServer, mlflow_server
from support.serving import Server, serving
from support.versions import BODIES, expected, write_version

pytestmark = pytest.mark.slow

IRIS = parse_one("models:/numbers@champion")


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server with the workspaces `default`, where there is a model `numbers`, `team-a`
    and `team-b`."""
    with mlflow_server(tmp_path_factory.mktemp("tenants"), "--enable-workspaces") as server:
        for name in ("team-a", "team-b"):
            httpx.post(
                f"{server.url}/api/3.0/mlflow/workspaces", json={"name": name}, timeout=30.0
            ).raise_for_status()
        Registry(server.url).call("POST", "registered-models/create", name="numbers")
        yield server


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry in memory, which knows nothing of workspaces."""
    with fake_registry() as registry:
        yield registry


def answer(server: Server) -> float:
    """The value that is predicted for the first row."""
    headers = {"content-type": "application/json"}
    return float(
        httpx.post(
            f"http://127.0.0.1:{server.port}/predict", content=BODIES[0], headers=headers
        ).json()["prediction"]
    )


def test_the_workspace_that_is_set_is_exported_and_served(
    tenants: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MLFLOW_WORKSPACE` is the exporter's setting and the server's: both find version 1 of team-a,
    not the default workspace's."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    for number, workspace in enumerate(("default", "team-a"), 1):
        registry = Registry(tenants.url, workspace=workspace)
        experiment = registry.create_experiment("numbers")
        version = registry.create_version("numbers", run_id=registry.create_run(experiment))
        registry.set_alias("numbers", "champion", version)
        bundle = write_version(tmp_path / workspace, number, changes={"version": version})
        with monkeypatch.context() as patched:
            for name, value in (IMPATIENT | {"MLFLOW_WORKSPACE": workspace}).items():
                patched.setenv(name, value)
            connect(tenants.url)
            assert registered_version("models:/numbers@champion").version == version == "1"
            publish(bundle, "numbers", version)
            mlflow.set_tracking_uri(before[0])
            mlflow.set_registry_uri(before[1])

    settings = {
        "follow": IRIS.uri,
        "tracking_uri": tenants.url,
        "follow_period_s": 0.5,
        "store": tmp_path / "store",
    }
    with serving(tmp_path / "none", tracking_workspace="team-a", **settings) as server:
        assert answer(server) == expected("2", 0)  # the second bundle
        following = httpx.get(f"http://127.0.0.1:{server.port}/models/numbers").json()["following"][
            "champion"
        ]
        assert (following["workspace"], following["served"]["version"]) == ("team-a", "1")


@pytest.mark.parametrize(("workspace", "says"), [("team-b", "numbers"), ("team-c", "team-c")])
async def test_what_a_workspace_does_not_have_is_not_there(
    tenants: MlflowServer, workspace: str, says: str
) -> None:
    """A model of another workspace, and a workspace that does not exist."""
    client = Client(tenants.url, timeout_s=30.0, workspace=workspace)
    with pytest.raises(NotOffered, match=says):
        await resolve(client, IRIS)
    await client.close()


async def test_a_server_without_workspaces_is_refused(tracking: MlflowServer) -> None:
    """MLflow of today, started without them."""
    client = Client(tracking.url, timeout_s=30.0, workspace="team-a")
    with pytest.raises(
        Unavailable,
        match="start MLflow with --enable-workspaces, or unset HALFCORE_TRACKING_WORKSPACE",
    ) as raised:
        await resolve(client, IRIS)
    await client.close()
    assert raised.value.code == "no_workspaces"


def test_a_server_that_never_heard_of_workspaces_serves_nobody(
    tmp_path: Path, fake: FakeRegistry
) -> None:
    """An older MLflow ignores the header: nothing of it is served, also not what another
    workspace's server left on disk; and /health says what to do. Once it has workspaces, all is
    well."""
    fake.point("numbers", fake.publish(write_version(tmp_path / "exported", 1)))
    settings = {
        "follow": IRIS.uri,
        "tracking_uri": fake.url,
        "follow_period_s": 0.1,
        "store": tmp_path / "store",
    }
    with serving(tmp_path / "none", **settings) as server:
        assert answer(server) == expected("1", 0)
    with serving(
        tmp_path / "none", tracking_workspace="team-a", path="/health/live", **settings
    ) as server:
        url = f"http://127.0.0.1:{server.port}/health"
        error = wait_until(
            lambda: httpx.get(url).json()["models"]["numbers"]["following"]["champion"]["error"]
        )
        assert "has no workspaces, so nothing of the workspace team-a can be served" in error
        assert httpx.get(f"{url}/ready").status_code == 503
        fake.features = {"workspaces_enabled": True}
        wait_until(lambda: httpx.get(f"{url}/ready").status_code == 200)


async def test_every_call_says_the_workspace_and_a_failure_makes_it_ask_again(
    fake: FakeRegistry,
) -> None:
    """One call more at first, none later; after a failure the server may be another one."""
    fake.point("numbers", "1")
    fake.versions["numbers"] = {"1": {}}
    fake.features = {"workspaces_enabled": True}
    client = Client(fake.url, timeout_s=10.0, workspace="team-a")
    await resolve(client, IRIS)
    await resolve(client, IRIS)
    assert [path.partition("?")[0].rpartition("/")[2] for path in fake.asked] == [
        "server-info",
        "alias",
        "alias",
    ]
    assert set(fake.workspaces) == {"team-a"}

    fake.features = {"workspaces_enabled": False}
    fake.lie = lambda exchange: exchange.answer(500, b"{}") or True
    with pytest.raises(Unavailable):
        await resolve(client, IRIS)
    fake.lie = None
    with pytest.raises(Unavailable) as raised:
        await resolve(client, IRIS)
    await client.close()
    assert raised.value.code == "no_workspaces"


def test_a_way_back_does_not_lead_into_another_workspace(tmp_path: Path) -> None:
    """What served in a workspace is no last known good of another, and no version before it
    either."""
    store = Store(tmp_path, session="s", keep=4)

    def serve(folder: str, workspace: str) -> None:
        path = tmp_path / "numbers" / folder
        path.mkdir(parents=True)
        store.point(
            "numbers",
            "champion",
            path,
            version="1",
            manifest_sha256="",
            uri="",
            workspace=workspace,
        )

    serve("1-a", "team-a")
    serve("1-b", "team-b")
    serve("2-b", "team-b")
    assert store.last_known_good("numbers", "champion", "team-a") == []
    assert [path.name for path, _ in store.last_known_good("numbers", "champion", "team-b")] == [
        "2-b",
        "1-b",
    ]
