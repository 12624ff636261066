"""What stops a start with one sentence, rather than a worker with a stack."""

from pathlib import Path

import pytest

from halfcore.process.checks import checked
from halfcore.settings.groups import Settings
from halfcore.settings.reading import SettingsError


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "mlflow:5000",
        "sqlite:///mlflow.db",
        "http://",
        "http://:5000",
        "http://mlflow:port",
        "http://mlflow:0",
        "http://mlflow:70000",
        "http://[::1",
        "http://my mlflow:5000",
        'http://"mlflow:5000"',
        "http://mlflow:5000 ",
    ],
)
def test_the_address_of_a_registry_must_be_one(uri: str) -> None:
    """It is shown, with what is expected and for which model."""
    with pytest.raises(SettingsError) as error:
        checked(Settings(follow="models:/iris@champion", tracking_uri=uri, port=0))
    assert str(error.value) == (
        f"tracking_uri={uri!r}: expected http://HOST:PORT or https://HOST:PORT, the MLflow server "
        "of models:/iris@champion; set MLFLOW_TRACKING_URI"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "http://mlflow",
        "https://mlflow.example:443/a/path",
        "http://[::1]:5000",
        "http://user:p%20w@mlflow:5000/",
    ],
)
def test_an_address_may_have_a_path_and_a_login(uri: str) -> None:
    """Or none of them, not even a port."""
    assert checked(Settings(follow="models:/iris@champion", tracking_uri=uri, port=0)).port > 0


def test_a_password_in_a_wrong_address_is_not_shown() -> None:
    """The log may be read by others."""
    with pytest.raises(SettingsError) as error:
        checked(Settings(follow="models:/iris@champion", tracking_uri="http://u:secret@a:b"))
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("unix:/run/halfcore.sock", "a Unix socket cannot be listened on: expected a name"),
        ("/run/halfcore.sock", "a Unix socket cannot be listened on: expected a name"),
        ("[::1]", "expected an IPv6 address without brackets, such as ::1"),
        ("127.0.0.1:8080", "expected the host alone: HALFCORE_PORT=8080 or --port 8080 sets"),
        ("http://127.0.0.1", "without a scheme or a port"),
        ("nosuch.invalid", "expected a name or an address of this machine"),
    ],
)
def test_what_is_no_address_gets_advice(host: str, says: str, tmp_path: Path) -> None:
    """On what is often written there; any other is a name that this machine does not have."""
    with pytest.raises(SettingsError) as raised:
        checked(Settings(host=host, port=0, bundles=tmp_path))
    assert f"host={host!r}" in str(raised.value)
    assert says in str(raised.value)
