"""A registry that lies on demand: MLflow's API as far as a follower uses it, from memory, with an
answer that a test may spoil."""

import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

API, PROXY = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts/"


class Exchange(BaseHTTPRequestHandler):
    """One request; what a test's lie is handed."""

    protocol_version = "HTTP/1.1"
    registry: "FakeRegistry"

    def do_GET(self) -> None:
        """Answer, truly or as the test wants."""
        self.registry.asked.append(self.path)
        self.registry.workspaces.append(self.headers.get("x-mlflow-workspace", ""))
        self.close_connection = True
        try:
            if self.registry.lie is None or not self.registry.lie(self):
                self.answer(*self.registry.truth(self.path))
        except OSError:
            pass  # the other side left

    def answer(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        length: int | None = None,
        **headers: str,
    ) -> None:
        """Send a whole answer, with a Content-Length that need not be true."""
        self.send_response(status)
        fields = {
            "content-type": content_type,
            "content-length": str(len(body) if length is None else length),
            "connection": "close",
        }
        fields |= headers
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Say nothing."""


Lie = Callable[[Exchange], bool]
"""Answers a request itself and returns True, or returns False."""


class FakeRegistry:
    """Models, versions, aliases and artifacts."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.versions: dict[str, dict[str, dict[str, str]]] = {}
        """Model → version → tags."""
        self.origins: dict[tuple[str, str], dict[str, str]] = {}
        """(model, version) → `source`, `run_id` and `model_id`, as far as the registry tells
        them."""
        self.artifact_uris: dict[str, str] = {}
        """Run → where its artifacts are, if they are not behind the proxy."""
        self.aliases: dict[tuple[str, str], str] = {}
        self.artifacts: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.workspaces: list[str] = []
        """Of each request."""
        self.features: dict[str, Any] | None = None
        """What `server-info` answers; None: an older server, which has no such route."""
        self.lie: Lie | None = None

    def publish(self, bundle: Path, *, name: str = "", **tags: str) -> str:
        """Register a bundle as a new version whose number must be the manifest's if it is to be
        taken; return it."""
        name = name or bundle.parent.name
        versions = self.versions.setdefault(name, {})
        version = str(len(versions) + 1)
        folder = f"halfcore/{name}/{version}"
        manifest = (
            (bundle / "manifest.json").read_bytes() if (bundle / "manifest.json").is_file() else b""
        )
        for file in bundle.iterdir():
            if file.is_file():
                self.artifacts[f"0/run{version}/artifacts/{folder}/{file.name}"] = file.read_bytes()
        versions[version] = {
            "halfcore.export": "passed",
            "halfcore.bundle": f"runs:/run{version}/{folder}",
            "halfcore.manifest_sha256": hashlib.sha256(manifest).hexdigest(),
            "halfcore.bundle.format": "1",
        } | tags
        return version

    def copy(self, name: str, version: str, to: str) -> str:
        """What `MlflowClient.copy_model_version` does: a new version with all tags, whose source is
        the original; return its number."""
        versions = self.versions.setdefault(to, {})
        copied = str(len(versions) + 1)
        versions[copied] = dict(self.versions[name][version])
        self.origins[to, copied] = self.origins.get((name, version), {}) | {
            "source": f"models:/{name}/{version}"
        }
        return copied

    def forget(self, name: str, *, before: int) -> None:
        """Let the files of old versions go; they are 16 MB each where memory is watched."""
        for path in [
            path
            for path in self.artifacts
            if f"/halfcore/{name}/" in path and int(path.split("/")[-2]) < before
        ]:
            del self.artifacts[path]

    def point(self, name: str, version: str, alias: str = "champion") -> None:
        """Move an alias."""
        self.aliases[name, alias] = version

    def truth(self, path: str) -> tuple[int, bytes]:
        """What MLflow would answer."""
        url = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/api/3.0/mlflow/server-info" and self.features is not None:
            return _json(self.features)
        if url.path.startswith(PROXY):
            content = self.artifacts.get(url.path.removeprefix(PROXY))
            return (
                (200, content)
                if content is not None
                else _error(404, "RESOURCE_DOES_NOT_EXIST", "no such file")
            )
        if url.path == "/get-artifact":
            content = self.artifacts.get(f"0/{query['run_id']}/artifacts/{query['path']}")
            return (
                (200, content)
                if content is not None
                else (500, b"<html>Internal Server Error</html>")
            )
        match url.path.removeprefix(API):
            case "registered-models/alias":
                version = self.aliases.get((query["name"], query["alias"]))
                return (
                    self._version(query["name"], version)
                    if version
                    else _error(400, "INVALID_PARAMETER_VALUE", "alias not found")
                )
            case "model-versions/get":
                return self._version(query["name"], query["version"])
            case "runs/get":
                proxied = f"mlflow-artifacts:/0/{query['run_id']}/artifacts"
                return _json(
                    {
                        "run": {
                            "info": {
                                "artifact_uri": self.artifact_uris.get(query["run_id"], proxied)
                            }
                        }
                    }
                )
        return _error(404, "ENDPOINT_NOT_FOUND", "no such endpoint")

    def _version(self, name: str, version: str) -> tuple[int, bytes]:
        tags = self.versions.get(name, {}).get(version)
        if tags is None:
            return _error(404, "RESOURCE_DOES_NOT_EXIST", f"{name} has no version {version}")
        listed = [{"key": key, "value": value} for key, value in tags.items()]
        described = {
            "name": name,
            "version": version,
            "status": "READY",
            "tags": listed,
        } | self.origins.get((name, version), {})
        return _json({"model_version": described})


@contextmanager
def fake_registry(tls: tuple[Path, Path] | None = None) -> Iterator[FakeRegistry]:
    """Serve one on a free port until the block ends; with a certificate and its key over TLS."""

    class Handler(Exchange):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.registry = FakeRegistry(server.server_address[1])
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        # The handshake in the thread of its connection, so that one that fails ends only that
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        Handler.registry.url = f"https://localhost:{server.server_address[1]}"
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    ).start()
    try:
        yield Handler.registry
    finally:
        server.shutdown()
        server.server_close()


def _json(document: Any, status: int = 200) -> tuple[int, bytes]:
    return status, json.dumps(document).encode()


def _error(status: int, code: str, message: str) -> tuple[int, bytes]:
    return _json({"error_code": code, "message": message}, status)
