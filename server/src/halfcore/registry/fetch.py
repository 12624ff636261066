"""Fetches a bundle's two files from the registry into a folder, and holds them to their hashes.

First through MLflow's artifact proxy, which streams; where a server proxies nothing, through the
route that reads a run's artifacts itself.
"""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

import msgspec

from halfcore.registry import identity
from halfcore.registry.client import Client
from halfcore.registry.errors import NotOffered, Refusal, Unavailable
from halfcore.registry.resolve import Offer

MOST_MANIFEST_BYTES = 8 << 20
"""A manifest holds some tens of golden rows; 100 times what the largest example takes."""

InThread = Callable[..., Awaitable[object]]
"""Calls a function that blocks, off the event loop."""


class _Size(msgspec.Struct):
    size_bytes: int


class _Manifest(identity.Proven):
    """What must be known before the model file can be fetched; the rest is read by `bundle`."""

    onnx: _Size


async def fetch(
    client: Client,
    offer: Offer,
    folder: Path,
    *,
    most_bytes: int,
    timeout_s: float,
    in_thread: InThread,
) -> None:
    """Write `manifest.json` and `model.onnx` into an empty folder.

    Args:
        most_bytes: largest model file.
        timeout_s: seconds for one file.
        in_thread: what writes to disk.

    Raises:
        Unavailable: a file did not come whole, or is another than the hashes say.
        Refusal: the manifest is what its hash says, and describes no bundle of this version, or too
            large a one.
        OSError: the disk is full, read-only, and the like.
    """
    place = await _place(client, offer.run_id)

    async def get(file: str, size_bytes: int | None, most: int) -> str:
        with (folder / file).open("wb") as stream:
            return await _one(
                client,
                place,
                offer,
                file,
                stream,
                size_bytes=size_bytes,
                most_bytes=most,
                timeout_s=timeout_s,
                in_thread=in_thread,
            )

    digest = await get("manifest.json", None, MOST_MANIFEST_BYTES)
    if digest != offer.manifest_sha256:
        raise Unavailable(
            "manifest_sha256", f"manifest.json: sha256 {digest}, expected {offer.manifest_sha256}"
        )
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=_Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("manifest", f"manifest.json: {error}") from None
    await identity.check(client, offer, manifest)
    if manifest.onnx.size_bytes > most_bytes:
        raise Refusal(
            "too_large",
            f"model.onnx: {manifest.onnx.size_bytes} bytes, expected at most {most_bytes}",
        )
    await get("model.onnx", manifest.onnx.size_bytes, most_bytes)


async def _one(
    client: Client,
    place: "_Place",
    offer: Offer,
    file: str,
    stream: BinaryIO,
    *,
    size_bytes: int | None,
    most_bytes: int,
    timeout_s: float,
    in_thread: InThread,
) -> str:
    """Fetch one file by the first route that has it; return its sha256."""
    path = f"{offer.path}/{file}"
    routes: list[tuple[str, dict[str, str]]] = [
        ("/get-artifact", {"run_id": offer.run_id, "path": path})
    ]
    if place.proxied is not None:
        routes.insert(0, (f"/api/2.0/mlflow-artifacts/artifacts/{place.proxied}/{path}", {}))
    problems: list[Unavailable] = []
    for route, params in routes:
        digest = hashlib.sha256()

        def write(chunk: bytes, digest: "hashlib._Hash" = digest) -> None:
            digest.update(chunk)
            stream.write(chunk)

        async def take(chunk: bytes, write: Callable[[bytes], None] = write) -> None:
            await in_thread(write, chunk)

        try:
            await client.download(
                route,
                params=params,
                size_bytes=size_bytes,
                most_bytes=most_bytes,
                timeout_s=timeout_s,
                write=take,
            )
        except NotOffered as error:
            problems.append(Unavailable("bundle_missing", str(error)))
        except Unavailable as error:
            if not error.missing:
                hint = (
                    ""
                    if place.proxied is not None
                    else f" (MLflow's server reads {place.uri} itself)"
                )
                raise Unavailable(
                    error.code, f"{file}: {error}{hint}", retry_after_s=error.retry_after_s
                ) from None
            problems.append(error)
        else:
            return digest.hexdigest()
        stream.seek(0)
        stream.truncate()
    why = (
        f"the registry does not give it: {problems[0]}"
        if place.proxied is not None
        else place.unread(problems[0])
    )
    raise Unavailable("bundle_missing", f"{file}: {why}", retry_after_s=problems[0].retry_after_s)


class _Place(NamedTuple):
    """Where a run's artifacts lie."""

    proxied: str | None
    """Their path behind MLflow's artifact proxy; None if they do not lie there."""
    uri: str
    """For people, without a password."""

    def unread(self, problem: Unavailable) -> str:
        """That MLflow's server cannot read what lies outside its proxy, and what to do."""
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


async def _place(client: Client, run_id: str) -> _Place:
    """Where the run's artifacts lie."""
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
    return _Place(
        proxied,
        uri._replace(netloc=uri.netloc.rpartition("@")[2], query="", fragment="").geturl()[:200],
    )
