"""The registry's client against a real MLflow server: aliases, stages, versions, logins, hosts and
S3."""

import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from halfcore.registry.client import MOST_BYTES_PER_S, Client
from halfcore.registry.errors import NotOffered, Unavailable
from halfcore.registry.fetch import fetch
from halfcore.registry.resolve import Offer, offer, resolve
from halfcore.registry.sources import parse_one
from support.fake_registry import fake_registry
from support.mlflow_registry import Registry
from support.mlflow_server import ADMIN, MlflowServer
from support.versions import write_version


async def in_thread(function, *arguments):  # type: ignore[no-untyped-def]
    """Where the test does not care."""
    return function(*arguments)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def exported(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model `followed`: version 1 is Production, 2 is champion, 3 is not exported; returns the
    folder of the bundles."""
    folder = tmp_path_factory.mktemp("exported")
    for version in (1, 2):
        registry.publish("followed", write_version(folder, version, name="followed"))
    registry.create_version("followed")
    registry.set_alias("followed", "champion", "2")
    registry.set_alias("followed", "next", "3")
    registry.set_stage("followed", "1", "Production")
    return folder


@pytest.fixture
async def client(tracking: MlflowServer) -> AsyncIterator[Client]:
    """Of the server that all tests share."""
    client = Client(tracking.url, timeout_s=60.0)
    yield client
    await client.close()


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        ("models:/followed@champion", "2"),
        ("models:/followed/Production", "1"),
        ("models:/followed/production", "1"),
        ("models:/followed/1", "1"),
        (
            "models:/followed/latest",
            "1",
        ),  # of the stages' latest: 3 is in none, and MLflow's own client says the same of None
    ],
)
@pytest.mark.usefixtures("exported")
async def test_a_uri_leads_to_its_version(client: Client, uri: str, version: str) -> None:
    """As MLflow itself reads it."""
    found = await resolve(client, parse_one(uri))
    assert found.version == ("3" if uri.endswith("latest") else version)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("models:/followed@nobody", "nobody"),
        ("models:/followed/Staging", "Staging"),
        ("models:/followed/99", "99"),
        ("models:/no-such-model@champion", "no-such-model"),
        ("models:/no-such-model/Production", "no-such-model"),
    ],
)
@pytest.mark.usefixtures("exported")
async def test_what_is_not_there_is_named(client: Client, uri: str, says: str) -> None:
    """An unknown model, alias, stage or version is no failure of the registry."""
    with pytest.raises(NotOffered, match=says) as raised:
        await resolve(client, parse_one(uri))
    assert raised.value.code == "not_found"
    assert str(raised.value).startswith(f"{uri} names no version: ")
    assert str(raised.value).endswith(", or correct the setting")


@pytest.mark.usefixtures("exported")
async def test_a_version_that_is_not_exported_waits(client: Client) -> None:
    """It is told what it waits for."""
    found = await resolve(client, parse_one("models:/followed@next"))
    with pytest.raises(NotOffered, match="model-export watch"):
        offer(found)


async def test_a_bundle_comes_as_it_was_sent(
    client: Client, exported: Path, tmp_path: Path
) -> None:
    """Both files, byte by byte, through the artifact proxy."""
    found = offer(await resolve(client, parse_one("models:/followed@champion")))
    await fetch(client, found, tmp_path, most_bytes=1 << 20, timeout_s=60.0, in_thread=in_thread)

    # Nothing else runs on this loop
    assert contents(tmp_path) == contents(next(exported.glob("followed/2-*")))  # noqa: ASYNC240


async def test_a_file_comes_no_faster_than_it_may(tmp_path: Path) -> None:
    """From a registry nearby it would come as fast as the event loop reads, and predictions would
    wait."""
    with fake_registry() as registry:
        bundle = write_version(tmp_path / "exported", 1, megabytes=4)
        registry.publish(bundle)
        (tmp_path / "fetched").mkdir()
        client = Client(registry.url, timeout_s=60.0)
        try:
            found = offer(await resolve(client, parse_one("models:/numbers/1")))
            start = time.monotonic()
            await fetch(
                client,
                found,
                tmp_path / "fetched",
                most_bytes=1 << 24,
                timeout_s=60.0,
                in_thread=in_thread,
            )
            took_s = time.monotonic() - start
        finally:
            await client.close()

    assert contents(tmp_path / "fetched") == contents(bundle)
    assert took_s >= (bundle / "model.onnx").stat().st_size / MOST_BYTES_PER_S


async def test_a_file_that_is_not_there_is_said(
    client: Client, exported: Path, tmp_path: Path
) -> None:
    """Neither the proxy nor the run has it: that may be mended, so it is no refusal."""
    found = offer(await resolve(client, parse_one("models:/followed@champion")))
    with pytest.raises(
        Unavailable, match=r"manifest\.json: the registry does not have it"
    ) as raised:
        await fetch(
            client,
            found._replace(path="halfcore/other"),
            tmp_path,
            most_bytes=1 << 20,
            timeout_s=60.0,
            in_thread=in_thread,
        )
    assert raised.value.code == "bundle_missing"


UNREAD_BUCKET = (
    "the run's artifacts are at s3://bucket/0/run1/artifacts, outside MLflow's artifact proxy, and "
    r"MLflow's server did not read them there \(the registry answered 500\): give MLflow's server "
    r"the driver and the credentials for s3:// \(its log says which is missing\), or start it with "
    "--serve-artifacts and --artifacts-destination s3://…, and export the model again"
)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s3://key:s3cret@bucket/0/run1/artifacts?x=s3cret", UNREAD_BUCKET),
        (
            "/mlruns/0/run1/artifacts",
            "are at /mlruns/0/run1/artifacts, .* mount that folder where MLflow's server runs",
        ),
        (
            "file:///mlruns/0/run1/artifacts",
            (
                "are at file:///mlruns/0/run1/artifacts, .* mount that folder where MLflow's "
                "server runs"
            ),
        ),
    ],
)
async def test_artifacts_outside_the_proxy_that_mlflow_cannot_read_are_named_with_the_way_on(
    tmp_path: Path, uri: str, says: str
) -> None:
    """Where they are, without a password, and what MLflow's server needs; if it can read them, they
    come."""
    with fake_registry() as registry:
        registry.publish(write_version(tmp_path / "exported", 1))
        registry.artifact_uris["run1"] = uri
        client = Client(registry.url, timeout_s=10.0)
        for name in ("read", "unread"):
            (tmp_path / name).mkdir()
        found = offer(await resolve(client, parse_one("models:/numbers/1")))
        await fetch(
            client,
            found,
            tmp_path / "read",
            most_bytes=1 << 20,
            timeout_s=10.0,
            in_thread=in_thread,
        )
        registry.forget("numbers", before=2)
        with pytest.raises(Unavailable, match=says) as raised:
            await fetch(
                client,
                found,
                tmp_path / "unread",
                most_bytes=1 << 20,
                timeout_s=10.0,
                in_thread=in_thread,
            )
        await client.close()
    assert raised.value.code == "bundle_missing"
    assert "s3cret" not in str(raised.value)


def outside(server: MlflowServer, scheme: str, bundle: Path) -> Offer:
    """A bundle of a run whose experiment keeps its artifacts at SCHEME://artifacts; it lies there
    if the tests have such a store."""
    registry = Registry(server.url, ADMIN)
    run_id = registry.create_run(
        registry.create_experiment(f"outside-{scheme}", f"{scheme}://artifacts/outside")
    )
    path = "halfcore/numbers/1"
    if scheme == "s3":
        endpoint = server.environment["MLFLOW_S3_ENDPOINT_URL"]
        store = f"{endpoint}/artifacts/outside/{run_id}/artifacts/{path}"
        for file in bundle.iterdir():
            httpx.put(f"{store}/{file.name}", content=file.read_bytes()).raise_for_status()
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    return Offer("1", digest, run_id, path)


@pytest.mark.slow
async def test_a_bucket_outside_the_proxy_is_read_by_mlflow_itself_if_it_can(
    guarded_tracking: MlflowServer, tmp_path: Path
) -> None:
    """A run of an experiment at s3:// comes, for this MLflow has the driver; one at gs:// does not,
    for it lacks that one."""
    client = Client(guarded_tracking.url, timeout_s=30.0, username=ADMIN[0], password=ADMIN[1])
    bundle = write_version(tmp_path / "exported", 1)
    for scheme in ("s3", "gs"):
        (tmp_path / scheme).mkdir()
        found = outside(guarded_tracking, scheme, bundle)
        fetching = fetch(
            client,
            found,
            tmp_path / scheme,
            most_bytes=1 << 20,
            timeout_s=60.0,
            in_thread=in_thread,
        )
        if scheme == "s3":
            await fetching
            assert contents(tmp_path / scheme) == contents(bundle)
        else:
            with pytest.raises(
                Unavailable,
                match=f"are at gs://artifacts/outside/{found.run_id}/artifacts, outside MLflow's",
            ):
                await fetching
    await client.close()


@pytest.mark.slow  # with the other tests of that server, which takes long to start
async def test_a_login_a_host_and_a_bucket(guarded_tracking: MlflowServer, tmp_path: Path) -> None:
    """Without a login and by another name it is said what to set; with both right the bundle comes
    out of the bucket."""
    known = guarded_tracking.url
    registry = Registry(known, ADMIN)
    registry.publish("followed", write_version(tmp_path, 1, name="followed"))
    one = parse_one("models:/followed/1")

    async def code_of(url: str, **login: str) -> tuple[str, str]:
        client = Client(url, timeout_s=60.0, **login)  # type: ignore[arg-type]
        with pytest.raises(Unavailable) as raised:
            await resolve(client, one)
        await client.close()
        return raised.value.code, str(raised.value)

    stranger = await code_of(known.replace("127.0.0.1", "localhost"))
    assert stranger[0] == "host_not_allowed"
    assert f"--allowed-hosts localhost:{guarded_tracking.port}" in stranger[1]
    assert (await code_of(known))[0] == "unauthorized"
    assert (await code_of(known, username="admin", password="no"))[0] == "unauthorized"

    client = Client(known, timeout_s=60.0, username=ADMIN[0], password=ADMIN[1])
    folder = tmp_path / "fetched"
    folder.mkdir()
    await fetch(
        client,
        offer(await resolve(client, one)),
        folder,
        most_bytes=1 << 20,
        timeout_s=20.0,
        in_thread=in_thread,
    )
    await client.close()
    assert sorted(contents(folder)) == ["manifest.json", "model.onnx"]
