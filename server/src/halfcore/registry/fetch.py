"""Downloads a bundle's files from the registry into a folder, and checks their hashes.

First through MLflow's artifact proxy, which streams; on a server without the proxy, through the
route by which MLflow's server reads a run's artifacts itself.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

import msgspec

from halfcore.bundle import MANIFEST_FILE
from halfcore.bundle_signature import MOST_SIGNATURE_BYTES, SIGNATURE_FILE, UNSIGNED
from halfcore.registry import identity
from halfcore.registry.client import Client
from halfcore.registry.errors import NotOffered, Refusal, Unavailable
from halfcore.registry.resolve import Offer

MOST_MANIFEST_BYTES = 8 << 20
"""A manifest holds some tens of golden rows; 100 times the size of the largest example."""

InThread = Callable[..., Awaitable[object]]
"""Calls a function that blocks, off the event loop."""


class _Size(msgspec.Struct):
    size_bytes: int


class _Manifest(identity.Proven):
    """What must be known before the download of the model file; `bundle` reads the rest."""

    onnx: _Size


async def fetch(
    client: Client,
    offer: Offer,
    folder: Path,
    *,
    most_bytes: int,
    timeout_s: float,
    in_thread: InThread,
    signed: bool = False,
) -> None:
    """Write `manifest.json` and `model.onnx` into an empty folder.

    Args:
        signed: also the manifest's signature, which the caller checks.
        most_bytes: largest model file.
        timeout_s: seconds for one file.
        in_thread: runs what writes to disk.

    Raises:
        Unavailable: a file did not arrive whole, or does not have the hash that was expected.
        Refusal: the manifest has its hash, but describes no bundle of this version, or one that is
            too large; or there is no signature.
        OSError: the disk is full, read-only, and the like.
    """
    artifacts = await _locate(client, offer.run_id)
    download = _Download(client, offer, artifacts, folder, timeout_s, in_thread)
    digest = await download.file(MANIFEST_FILE, None, MOST_MANIFEST_BYTES)
    if digest != offer.manifest_sha256:
        raise Unavailable(
            "manifest_sha256", f"manifest.json: sha256 {digest}, expected {offer.manifest_sha256}"
        )
    if signed:
        await download.signature()
    manifest = _decode((folder / MANIFEST_FILE).read_bytes())
    await identity.check(client, offer, manifest)
    size_bytes = manifest.onnx.size_bytes
    if size_bytes > most_bytes:
        raise Refusal("too_large", f"model.onnx: {size_bytes} bytes, expected at most {most_bytes}")
    await download.file("model.onnx", size_bytes, most_bytes)


def _decode(manifest: bytes) -> _Manifest:
    try:
        return msgspec.json.decode(manifest, type=_Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("manifest", f"manifest.json: {error}") from None


class _Route(NamedTuple):
    """One way to a file: a path of MLflow's server and its query."""

    path: str
    params: dict[str, str]


@dataclass(frozen=True)
class _Download:
    """The download of one bundle; the arguments are those of `fetch`."""

    client: Client
    offer: Offer
    artifacts: "_Artifacts"
    folder: Path
    timeout_s: float
    in_thread: InThread

    async def file(self, name: str, size_bytes: int | None, most_bytes: int) -> str:
        """Download one file by the first route that has it; return its sha256."""
        missing: list[Unavailable] = []
        with (self.folder / name).open("wb") as stream:
            for route in self.artifacts.routes(self.offer.run_id, f"{self.offer.path}/{name}"):
                try:
                    return await self._by(route, stream, size_bytes, most_bytes)
                except NotOffered as error:
                    missing.append(Unavailable("bundle_missing", str(error)))
                except Unavailable as error:
                    if not error.missing:
                        text = f"{name}: {error}{self.artifacts.hint()}"
                        after_s = error.retry_after_s
                        raise Unavailable(error.code, text, retry_after_s=after_s) from None
                    missing.append(error)
                stream.seek(0)
                stream.truncate()
        text = f"{name}: {self.artifacts.missing(missing[0])}"
        raise Unavailable("bundle_missing", text, retry_after_s=missing[0].retry_after_s)

    async def signature(self) -> None:
        """Download the manifest's signature."""
        try:
            await self.file(SIGNATURE_FILE, None, MOST_SIGNATURE_BYTES)
        except Unavailable as error:
            if error.code != "bundle_missing":
                raise
            raise Refusal("signature", UNSIGNED) from None

    async def _by(
        self, route: _Route, stream: BinaryIO, size_bytes: int | None, most_bytes: int
    ) -> str:
        """Download one file by one route; return its sha256."""
        digest = hashlib.sha256()

        def write(chunk: bytes) -> None:
            digest.update(chunk)
            stream.write(chunk)

        async def write_in_thread(chunk: bytes) -> None:
            await self.in_thread(write, chunk)

        await self.client.download(
            route.path,
            params=route.params,
            size_bytes=size_bytes,
            most_bytes=most_bytes,
            timeout_s=self.timeout_s,
            write=write_in_thread,
        )
        return digest.hexdigest()


class _Artifacts(NamedTuple):
    """Where a run's artifacts are stored."""

    proxied: str | None
    """Their path behind MLflow's artifact proxy; None if they are stored elsewhere."""
    uri: str
    """For messages, without a password."""

    def routes(self, run_id: str, path: str) -> list[_Route]:
        """The ways to one of the artifacts, the better one first."""
        direct = _Route("/get-artifact", {"run_id": run_id, "path": path})
        if self.proxied is None:
            return [direct]
        return [_Route(f"/api/2.0/mlflow-artifacts/artifacts/{self.proxied}/{path}", {}), direct]

    def hint(self) -> str:
        """Appended to an error, in case that MLflow's own access to the artifacts is its cause."""
        return "" if self.proxied is not None else f" (MLflow's server reads {self.uri} itself)"

    def missing(self, problem: Unavailable) -> str:
        """That no route has an artifact; outside the proxy, also what to do."""
        if self.proxied is not None:
            return f"the registry does not have it: {problem}"
        scheme = self.uri.partition("://")[0] if "://" in self.uri else "file"
        if scheme == "file":
            remedy = (
                "mount that folder where MLflow's server runs, or start it with --serve-artifacts"
            )
        else:
            remedy = (
                f"give MLflow's server the driver and the credentials for {scheme}:// (its log "
                "says which is missing), or start it with "
                f"--serve-artifacts and --artifacts-destination {scheme}://…"
            )
        return (
            f"the run's artifacts are at {self.uri}, outside MLflow's artifact proxy, and "
            "MLflow's server did not read them there "
            f"({problem}): {remedy}, and export the model again"
        )


async def _locate(client: Client, run_id: str) -> _Artifacts:
    """Where the run's artifacts are stored.

    Raises:
        Unavailable: there is no such run, or the registry did not answer as it should.
    """
    try:
        run = await client.get("runs/get", run_id=run_id)
    except NotOffered as error:
        raise Unavailable("bundle_missing", f"the bundle's run: {error}") from None
    try:
        uri = urlsplit(run["run"]["info"]["artifact_uri"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Unavailable(
            "not_mlflow", "the registry's answer has no artifact_uri, expected MLflow's REST API"
        ) from None
    proxied = uri.path.strip("/") if uri.scheme == "mlflow-artifacts" else None
    return _Artifacts(
        proxied,
        uri._replace(netloc=uri.netloc.rpartition("@")[2], query="", fragment="").geturl()[:200],
    )
