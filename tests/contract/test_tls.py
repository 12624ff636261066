"""HTTPS by the server itself: answers, health check, and files that are wrong."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton

from support.bundles import write_bundle
from support.certificates import certificate
from support.client import wait_until
from support.serving import free_port, starting


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_with_a_certificate_speaks_https(tmp_path: Path, workers: int) -> None:
    """A client that trusts it predicts, the health check works, and plain HTTP gets nothing."""
    bundles, address = tmp_path / "bundles", str(tmp_path / "address")
    write_bundle(bundles)
    chain, key = certificate(tmp_path / "tls")
    grpc_port = free_port()
    settings = {
        "tls_certificate": chain,
        "tls_key": key,
        "address_file": address,
        "grpc_port": grpc_port,
    }
    health = {"PATH": os.environ["PATH"], "HALFCORE_ADDRESS_FILE": address}
    check = [sys.executable, "-I", "-m", "halfcore.healthcheck"]
    with starting(bundles, workers=workers, **settings) as server:
        wait_until(
            lambda: subprocess.run(check, env=health, capture_output=True).returncode == 0,
            timeout_s=90,
        )
        trust = ssl.create_default_context(cafile=str(chain))
        with httpx.Client(verify=trust, base_url=f"https://localhost:{server.port}") as client:
            answer = client.post("/predict", json={"features": [1, 2, 3, 4.5]})
            assert (answer.status_code, answer.json()["model"]) == (200, "numbers")
        tensor = triton.InferInput("i", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.array([[1, 2, 3, 4.5]], np.float32))
        with triton.InferenceServerClient(
            f"localhost:{grpc_port}", ssl=True, root_certificates=str(chain)
        ) as calls:
            assert calls.infer("numbers", [tensor]).as_numpy("label").shape == (1,)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{server.port}/health")


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("no certificate", "tls_certificate="),
        ("no key", "only one of tls_certificate and tls_key is set"),
        ("another key", "expected a chain of certificates and the key of the first"),
        ("not PEM", "expected a chain of certificates and the key of the first"),
        ("a password", "it has a password, expected a key without one"),
    ],
)
def test_wrong_files_stop_the_start(tmp_path: Path, case: str, says: str) -> None:
    """One line names the setting."""
    write_bundle(tmp_path / "bundles")
    chain, key = certificate(tmp_path / "one", password=b"x" if case == "a password" else None)
    if case == "no certificate":
        chain.unlink()
    elif case == "another key":
        key = certificate(tmp_path / "two")[1]
    elif case == "not PEM":
        chain.write_text("nothing")
    given = {"HALFCORE_TLS_CERTIFICATE": str(chain), "HALFCORE_TLS_KEY": str(key)}
    if case == "no key":
        del given["HALFCORE_TLS_KEY"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HALFCORE_")}
    ended = subprocess.run(
        [sys.executable, "-m", "halfcore", "serve"],
        env=clean | given | {"HALFCORE_BUNDLES": str(tmp_path / "bundles"), "HALFCORE_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=90,
    )

    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert says in ended.stderr
