"""What a container's health check says of a server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from halfcore.__main__ import write_address
from halfcore.healthcheck import address, url
from halfcore.log import configure
from halfcore.settings.groups import Settings
from support.bundles import write_bundle
from support.serving import free_port, serving


def check(port: int, host: str = "127.0.0.1", **more: str) -> subprocess.CompletedProcess[str]:
    """The health check as a container runs it, with the server's own variables."""
    environment = {
        "PATH": os.environ["PATH"],
        "HALFCORE_PORT": str(port),
        "HALFCORE_HOST": host,
    } | more
    command = [sys.executable, "-I", "-m", "halfcore.healthcheck"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104  nobody listens there
def test_a_ready_server_is_healthy(tmp_path: Path, host: str) -> None:
    """Also where the server listens on every address."""
    write_bundle(tmp_path)
    with serving(tmp_path, host=host) as server:
        assert check(server.port, host).returncode == 0


def test_the_address_that_the_server_left_counts_more_than_the_variables(tmp_path: Path) -> None:
    """A port from the command line is not in the environment of the check."""
    write_bundle(tmp_path / "bundles")
    file = str(tmp_path / "address")
    with serving(tmp_path / "bundles", address_file=file, host="::") as server:
        result = check(free_port(), HALFCORE_ADDRESS_FILE=file)
        assert (result.returncode, Path(file).read_text()) == (0, f"{server.port} ::\n"), (
            result.stderr
        )
        assert [name.name for name in tmp_path.iterdir() if name.name.startswith("address")] == [
            "address"
        ]


def test_a_file_that_cannot_be_written_costs_no_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is said, and the check asks what its variables name."""
    configure(level="info", form="text")
    file = str(tmp_path / "missing/address")
    write_address(Settings(address_file=file))
    assert f"address_file {file} cannot be written: No such file" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("content", "environ", "meant"),
    [
        ("9000 ::1\n", {"HALFCORE_PORT": "1"}, ("::1", 9000, False)),
        ("9000 ::1 tls\n", {}, ("::1", 9000, True)),
        ("9000 ::1\n", {"HALFCORE_TLS_CERTIFICATE": "a.pem"}, ("::1", 9000, False)),
        ("", {"HALFCORE_PORT": "9001"}, ("127.0.0.1", 9001, False)),
        (None, {"HALFCORE_PORT": "9001", "HALFCORE_HOST": "10.0.0.1"}, ("10.0.0.1", 9001, False)),
        (None, {"HALFCORE_TLS_CERTIFICATE": "a.pem"}, ("127.0.0.1", 8000, True)),
        (None, {}, ("127.0.0.1", 8000, False)),
    ],
)
def test_what_is_asked(
    tmp_path: Path, content: str | None, environ: dict[str, str], meant: tuple[str, int, bool]
) -> None:
    """The file, else the variables, else the defaults; a file that is missing or empty is none."""
    file = tmp_path / "address"
    if content is not None:
        file.write_text(content)
    assert address(environ | {"HALFCORE_ADDRESS_FILE": str(file)}) == meant


def test_an_ipv6_address_stands_in_brackets() -> None:
    """In a URL and in the Host header; without them its last part would be a port."""
    assert [url("::1", 8000), url("127.0.0.1", 8000)] == ["[::1]:8000", "127.0.0.1:8000"]


def test_a_port_that_is_no_number_is_said() -> None:
    """In one line."""
    result = check(0, HALFCORE_PORT="tcp://10.0.0.1:8000")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("HALFCORE_PORT: ")


def test_a_server_that_is_not_ready_is_not_healthy(tmp_path: Path) -> None:
    """Alive, but without its default model."""
    write_bundle(tmp_path, "numbers")
    with serving(tmp_path, path="/health/live", default_model="absent") as server:
        assert check(server.port).returncode == 1


def test_nobody_is_not_healthy() -> None:
    """A refused connection is a sentence and exit code 1, not a traceback."""
    result = check(free_port())
    assert result.returncode == 1
    assert "refused" in result.stderr
    assert "Traceback" not in result.stderr


def test_it_imports_next_to_nothing() -> None:
    """On a tenth of a core each import slows the server in the same container."""
    code = "import sys, halfcore.healthcheck; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"asyncio", "http", "email", "ssl", "logging", "litestar", "numpy"} & set(modules)
