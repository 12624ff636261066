"""The follower and its swaps under random schedules: two workers share a store and follow an alias
that moves, while the registry fails, files arrive damaged, workers restart and reloads are
requested."""

import asyncio
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from halfcore.metrics.counters import FollowMetrics
from halfcore.registry import swapper
from halfcore.registry.errors import Refusal, Unavailable
from halfcore.registry.follower import Follower
from halfcore.registry.resources import Resources
from halfcore.registry.sources import parse_one
from halfcore.registry.store import Store
from support.bundles import NUMBERS, PARITY
from support.simulated.loop import SeededLoop, Wrong

BAD = "5"
"""The version that the sandbox refuses."""
VERSIONS = ("1", "2", "3", "4", BAD)
PERIOD_S = 5.0
_PAUSES_S = (0.0, 0.0, 0.01, 0.3, 3.0)
_MEMORY = Path("/dev/shm")  # noqa: S108  only faster


def _bundle(version: str) -> dict[str, bytes]:
    """The two files of a version; the graph is never run."""
    graph = f"graph of version {version}".encode()
    sha256 = hashlib.sha256(graph).hexdigest()
    onnx = {"file": "model.onnx", "sha256": sha256, "size_bytes": len(graph)}
    row = {column["name"]: column["example"] for column in NUMBERS}
    resolved = f"models:/numbers/{version}"
    manifest = {
        "format": 1,
        "name": "numbers",
        "version": version,
        "created_at": "2026-01-01T00:00:00Z",
        "task": "regression",
        "source": {"uri": resolved, "resolved": resolved, "flavor": "onnx", "model_class": "None"},
        "inputs": NUMBERS,
        "named": False,
        "dtype": "float32",
        "classes": [],
        "outputs": ["value"],
        "onnx": onnx | {"ir_version": 10, "opset": {"ai.onnx": 21}},
        "tools": {},
        "parity": PARITY,
        "golden": [{"row": row, "prediction": 1.0}],
    }
    return {"model.onnx": graph, "manifest.json": json.dumps(manifest).encode()}


BUNDLES = {version: _bundle(version) for version in VERSIONS}


class Registry:
    """MLflow's part: an alias that moves, and files; the client of all workers."""

    def __init__(self, loop: SeededLoop) -> None:
        self._loop = loop
        self.history = [loop.dice.choice(VERSIONS)]
        """What the alias named, one after another."""
        self.fails = True

    async def _step(self) -> None:
        await asyncio.sleep(self._loop.dice.choice(_PAUSES_S))
        if self.fails and self._loop.dice.random() < 0.08:
            raise Unavailable("planted", "planted")

    async def get(self, path: str, **_parameters: str) -> dict[str, Any]:
        """A call of the API; its answer is older than its arrival."""
        await self._step()
        if path == "runs/get":
            return {"run": {"info": {"artifact_uri": "mlflow-artifacts:/0/run/artifacts"}}}
        version = self.history[-1]
        manifest = BUNDLES[version]["manifest.json"]
        tags = {
            "halfcore.export": "passed",
            "halfcore.bundle.format": "1",
            "halfcore.bundle": f"runs:/run/{version}",
            "halfcore.manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        }
        await self._step()
        pairs = [{"key": key, "value": value} for key, value in tags.items()]
        return {"model_version": {"version": version, "status": "READY", "tags": pairs}}

    async def download(
        self, path: str, *, write: Callable[[bytes], Awaitable[None]], **_limits: Any
    ) -> None:
        """A file, whole or damaged."""
        version, name = path.split("/")[-2:]
        content = BUNDLES[version][name]
        await self._step()
        await write(content[:5])
        await self._step()
        damaged = self.fails and self._loop.dice.random() < 0.08
        await write(content[5:-1] + b"?" if damaged else content[5:])

    async def close(self) -> None:
        """Nothing is open."""


class Sandbox:
    """Tries bundles, one at a time over all workers."""

    def __init__(self, loop: SeededLoop) -> None:
        self._loop = loop
        self._trying = False

    async def run(self, folder: Path, _in_thread: object) -> None:
        """Try a bundle; refuse the bad one."""
        if self._trying:
            raise Wrong("two workers try a bundle at a time")
        self._trying = True
        try:
            await asyncio.sleep(self._loop.dice.choice(_PAUSES_S))
            if f"version {BAD}".encode() in (folder / "model.onnx").read_bytes():
                raise Refusal("golden", "planted")
        finally:
            self._trying = False


class Model:
    """A loaded model that counts the requests that it has not answered."""

    def __init__(self, version: str, graph: bytes) -> None:
        self.version = version
        self.graph = graph
        self.loaded_at = datetime.now(UTC)
        self.batcher = self
        self.answering = 0
        self._drained = asyncio.Event()
        self._drained.set()

    async def drain(self) -> None:
        """Wait until all is answered."""
        await self._drained.wait()

    async def predict(self, loop: SeededLoop) -> str:
        """Answer with the version, after a while."""
        self.answering += 1
        self._drained.clear()
        try:
            await asyncio.sleep(loop.dice.choice(_PAUSES_S))
            return self.version
        finally:
            self.answering -= 1
            if not self.answering:
                self._drained.set()


class Worker:
    """A follower, and the pointer that it changes."""

    def __init__(self, loop: SeededLoop, registry: Registry, sandbox: Sandbox, root: Path) -> None:
        self._loop, self._registry = loop, registry
        self.model: Model | None = None
        self.wrong: list[str] = []
        self._named = 0
        """Where in the registry's history the served version was named."""
        self._starting = True
        resources: Any = Resources(
            client=registry,  # type: ignore[arg-type]
            store=Store(root, session="one", keep=10),
            sandbox=sandbox,  # type: ignore[arg-type]
            limits=SimpleNamespace(max_batch_size=4),  # type: ignore[arg-type]
            inference=None,  # type: ignore[arg-type]
            threads=object(),  # type: ignore[arg-type]
            period_s=PERIOD_S,
            most_bytes=1000,
            download_timeout_s=10.0,
            workspace="",
        )
        self.follower = Follower(
            parse_one("models:/numbers@champion"),
            resources,
            deliver=self._deliver,  # type: ignore[arg-type]
            model_metrics=None,  # type: ignore[arg-type]
            metrics=FollowMetrics(),
        )
        self.follower.start_from_disk()
        self._starting = False
        self._task = loop.create_task(self.follower.run())

    def _deliver(self, model: Model) -> Model | None:
        """Change the pointer; an older answer of the registry may not overtake a newer one."""
        if model.version == BAD:
            self.wrong.append("the version that the sandbox refuses is served")
        if f"version {model.version}".encode() not in model.graph:
            self.wrong.append(f"version {model.version} has another version's graph")
        if not self._starting:
            later = self._registry.history[self._named :]
            if model.version not in later:
                self.wrong.append(f"version {model.version} was served after a newer answer")
            else:
                self._named += later.index(model.version)
        replaced, self.model = self.model, model
        return replaced

    async def disturb(self) -> None:
        """Request reloads and hints."""
        for _ in range(self._loop.dice.randrange(3)):
            await asyncio.sleep(self._loop.dice.choice(_PAUSES_S))
            if self._loop.dice.random() < 0.5:
                self.follower.hint()
            else:
                await self.follower.reload()

    async def ask(self) -> None:
        """Send requests; each is answered by the model that was served when it arrived."""
        for _ in range(8):
            await asyncio.sleep(self._loop.dice.choice(_PAUSES_S))
            if self.model and await (model := self.model).predict(self._loop) != model.version:
                self.wrong.append("an answer of another version")

    async def stop(self) -> None:
        """End, as a server does."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.follower.close()


def _prepare(source: Any, **_limits: Any) -> Any:
    return SimpleNamespace(graph=source.model_file.read_bytes(), manifest=source.manifest)


def _assemble(prepared: Any, *, version: str, **_rest: Any) -> Model:
    return Model(version, prepared.graph)


@contextmanager
def _parts(loop: SeededLoop) -> Iterator[Path]:
    """A store in memory, without ONNX Runtime."""
    folder = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None))
    try:
        with (
            mock.patch.object(os, "fsync"),
            mock.patch.object(swapper, "prepare", _prepare),
            mock.patch.object(swapper, "assemble", _assemble),
            mock.patch.object(swapper, "give_back_memory"),
        ):
            yield folder
    finally:
        shutil.rmtree(folder)


async def scenario(loop: SeededLoop) -> None:
    """Two workers follow an alias; when it rests, both serve what it names.

    Raises:
        Wrong: an old or a refused version was served, or one of them does not follow.
    """
    registry, sandbox = Registry(loop), Sandbox(loop)
    with _parts(loop) as root:
        workers = [Worker(loop, registry, sandbox, root) for _ in range(2)]
        wrong: list[str] = []
        tasks = [task for worker in workers for task in (worker.ask(), worker.disturb())]
        await asyncio.gather(*tasks, _move(loop, registry))
        if loop.dice.random() < 0.4:
            await workers[0].stop()
            wrong += workers[0].wrong
            workers[0] = Worker(loop, registry, sandbox, root)
        registry.fails = False
        with suppress(TimeoutError):
            async with asyncio.timeout(100 * PERIOD_S):
                # Virtual time
                while not all(_follows(w, registry) for w in workers):  # noqa: ASYNC110
                    await asyncio.sleep(PERIOD_S)
        for worker in workers:
            await worker.stop()
            if not _follows(worker, registry):
                named, served = registry.history[-1], worker.model and worker.model.version
                wrong.append(f"the alias names version {named}, served is {served}")
            wrong += worker.wrong
        await asyncio.sleep(PERIOD_S)  # what was left to threads ends
        wrong += [f"{path.name} was left behind" for path in root.glob("*/.tmp-*")]
    if wrong:
        raise Wrong(wrong[0])


async def _move(loop: SeededLoop, registry: Registry) -> None:
    for _ in range(loop.dice.randrange(6)):
        await asyncio.sleep(loop.dice.choice((0.01, 0.3, 3.0, 7.0)))
        registry.history.append(loop.dice.choice(VERSIONS))


def _follows(worker: Worker, registry: Registry) -> bool:
    if registry.history[-1] == BAD:
        return worker.follower.status.refused is not None
    return worker.model is not None and worker.model.version == registry.history[-1]
