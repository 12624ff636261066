"""The way to the tracking server: proxies of the environment, and certificates of one's own."""

from pathlib import Path
from typing import Any

import pytest

from halfcore.process.checks import checked
from halfcore.registry.client import Client
from halfcore.registry.connection import ConnectionSettingError, proxy_for, trust
from halfcore.registry.errors import Unavailable
from halfcore.settings.groups import Settings
from halfcore.settings.reading import SettingsError
from support.bundles import write_bundle
from support.certificates import certificate
from support.fake_registry import API, FakeRegistry, fake_registry

PROXY = "http://proxy:3128"
URI = "http://mlflow.corp:5000"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget those of the machine that runs the tests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("uri", "environ", "expected"),
    [
        (URI, {}, None),
        (URI, {"HTTP_PROXY": PROXY}, PROXY),
        (URI, {"HTTP_PROXY": "proxy:3128"}, PROXY),
        (URI, {"HTTP_PROXY": "http://other", "http_proxy": PROXY}, PROXY),
        (URI, {"HTTP_PROXY": PROXY, "http_proxy": ""}, None),
        (URI, {"HTTP_PROXY": ""}, None),
        (URI, {"HTTPS_PROXY": PROXY}, None),
        (URI, {"HTTPS_PROXY": "ftp://proxy"}, None),
        (URI, {"ALL_PROXY": PROXY}, PROXY),
        ("https://mlflow.corp", {"HTTP_PROXY": "http://other", "HTTPS_PROXY": PROXY}, PROXY),
    ],
)
def test_the_proxy_is_that_of_the_scheme(
    uri: str, environ: dict[str, str], expected: str | None
) -> None:
    """As MLflow's own client and curl find it."""
    found = proxy_for(uri, environ)
    assert (found and found.url) == expected


@pytest.mark.parametrize(
    ("uri", "no_proxy", "direct"),
    [
        (URI, "*", True),
        (URI, "mlflow.corp", True),
        (URI, "MLflow.Corp:5000", True),
        (URI, "mlflow.corp:5001", False),
        (URI, "localhost,.corp", True),
        (URI, "localhost corp", True),
        (URI, "*.corp", True),
        (URI, "flow.corp", False),
        (URI, ",, [::1],fe80::/10,10.0.0.0/8,http://elsewhere/", False),
        ("http://10.1.2.3:5000", "localhost,10.0.0.0/8", True),
        ("http://11.1.2.3:5000", "localhost,10.0.0.0/8", False),
        ("http://10.1.2.3:5000", "10.1.2.3", True),
        ("http://[::1]:5000", "::1", True),
        ("http://[::1]:5000", "[::1]:5000", True),
        ("http://[fe80::5]:5000", "fe80::/10", True),
        ("https://mlflow.corp", "mlflow.corp:443", True),
    ],
)
def test_hosts_that_need_no_proxy(uri: str, no_proxy: str, direct: bool) -> None:
    """Names, domains, addresses and networks; no list stops the start."""
    environ = {"ALL_PROXY": PROXY, "NO_PROXY": no_proxy}
    assert (proxy_for(uri, environ) is None) == direct


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("socks5://me:secret@proxy:1080", "ALL_PROXY='socks5://proxy:1080': a SOCKS proxy needs"),
        ("ftp://proxy", "ALL_PROXY='ftp://proxy': not a proxy's address, expected http://HOST"),
        ("http://me:secret@proxy:99999", "ALL_PROXY='http://proxy:99999': not a proxy's address"),
        ("http://[::1", "list mlflow.corp in NO_PROXY to connect without a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, url: str, says: str
) -> None:
    """With a sentence that names the variable and no password."""
    monkeypatch.setenv("ALL_PROXY", url)
    with pytest.raises(SettingsError) as raised:
        checked(Settings(follow="models:/iris@champion", tracking_uri=URI, port=0))
    assert says in str(raised.value)
    assert "secret" not in str(raised.value)

    monkeypatch.setenv("NO_PROXY", "mlflow.corp")
    assert checked(Settings(follow="models:/iris@champion", tracking_uri=URI, port=0)).port > 0


def published(registry: FakeRegistry, folder: Path) -> None:
    """A version that a client may ask for."""
    registry.point("iris", registry.publish(write_bundle(folder / "exported"), name="iris"))


async def asked(**options: Any) -> dict[str, Any]:
    """The answer to one call."""
    client = Client(timeout_s=60.0, **options)
    try:
        return await client.get("registered-models/alias", name="iris", alias="champion")
    finally:
        await client.close()


async def test_the_registry_is_asked_through_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that only the proxy knows is answered; refusals name the proxy."""
    with fake_registry() as registry:
        published(registry, tmp_path)
        monkeypatch.setenv("HTTP_PROXY", registry.url)
        monkeypatch.setenv("NO_PROXY", "localhost,[::1],10.0.0.0/8")
        answer = await asked(uri=URI)
        assert answer["model_version"]["version"] == "1"
        assert registry.asked[0].startswith(f"{URI}{API}")

        registry.lie = lambda exchange: exchange.answer(502, b"") or True
        place = registry.url.removeprefix("http://")
        with pytest.raises(Unavailable, match=f"502 through the proxy {place} of HTTP_PROXY"):
            await asked(uri=URI)

        registry.lie = lambda exchange: exchange.answer(407, b"") or True
        with pytest.raises(Unavailable, match=r"write http://USER:PASSWORD@.* into HTTP_PROXY"):
            await asked(uri=URI)
    with pytest.raises(Unavailable, match=f"no connection .* through the proxy {place}"):
        await asked(uri=URI)


async def test_an_authority_of_ones_own_is_trusted_once_it_is_named(tmp_path: Path) -> None:
    """Without it the reason says how; the wrong scheme is named as such."""
    chain, key = certificate(tmp_path / "tls")
    with fake_registry((chain, key)) as registry:
        published(registry, tmp_path)
        answer = await asked(uri=registry.url, ca_file=str(chain))
        assert answer["model_version"]["version"] == "1"

        with pytest.raises(Unavailable, match="let HALFCORE_TRACKING_CA_FILE or") as raised:
            await asked(uri=registry.url)
        assert raised.value.code == "tls"

        by_address = registry.url.replace("localhost", "127.0.0.1")
        with pytest.raises(Unavailable, match="use an address that the certificate has"):
            await asked(uri=by_address, ca_file=str(chain))
    no_tls = pytest.raises(Unavailable, match="does not speak TLS there; is http:// right")
    with fake_registry() as plain, no_tls:
        await asked(uri=plain.url.replace("http:", "https:"))


def test_certificates_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    """A file that is not there, one without a certificate, and a folder without an index."""
    text, folder = tmp_path / "text", tmp_path / "folder"
    text.write_text("no certificate")
    folder.mkdir()
    for path, says in (
        (tmp_path / "absent", "absent': No such file or directory; let HALFCORE_TRACKING_CA_FILE"),
        (text, "no certificate in it, expected some as PEM"),
        (folder, "a folder without an index, expected a file"),
    ):
        settings = Settings(
            follow="models:/iris@champion",
            tracking_uri="https://mlflow",
            tracking_ca_file=str(path),
            port=0,
        )
        with pytest.raises(SettingsError, match=says):
            checked(settings)


def test_a_folder_of_certificates_with_an_index_is_trusted(tmp_path: Path) -> None:
    """OpenSSL looks a certificate up when it needs one."""
    (tmp_path / "0a1b2c3d.0").write_bytes(certificate(tmp_path / "tls")[0].read_bytes())
    trust(str(tmp_path))
    with pytest.raises(ConnectionSettingError):
        trust(str(tmp_path / "tls"))
