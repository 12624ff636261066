"""The process that tries a bundle: what it imports, and how it may end."""

import asyncio
import errno
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from halfcore.registry.errors import Refusal, Unavailable
from halfcore.registry.sandbox import Sandbox
from halfcore.registry.store import unwritable
from support.client import wait_until
from support.damage import BAD
from support.fake_registry import fake_registry
from support.serving import starting
from support.versions import write_version

SANDBOX = Sandbox(memory_bytes=2 << 30, timeout_s=120, max_batch_size=8)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """As a follower waits for it."""
    return await asyncio.to_thread(function, *args)


async def test_nothing_is_imported_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file there that has the name of a package is neither run nor in the way."""
    (tmp_path / "orjson.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    await SANDBOX.run(write_version(tmp_path / "exported", 1), in_thread)


async def test_a_sandbox_that_does_not_start_says_nothing_about_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version waits, with a reason that names neither the store nor a path."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(Unavailable, match="the sandbox could not be started: No such") as raised:
        await SANDBOX.run(tmp_path, in_thread)
    assert raised.value.code == "sandbox_failed"
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(
    ("sent", "kind", "code", "says"),
    [
        (signal.SIGTERM, Unavailable, "sandbox_failed", "stopped from outside"),
        (signal.SIGHUP, Unavailable, "sandbox_failed", "stopped from outside"),
        (signal.SIGKILL, Unavailable, "sandbox_failed", "stopped from outside"),
        (signal.SIGSEGV, Refusal, "sandbox_crashed", "the sandbox crashed"),
    ],
)
async def test_a_signal_is_not_always_the_bundles_fault(
    tmp_path: Path, sent: signal.Signals, kind: type[Exception], code: str, says: str
) -> None:
    """Whoever stops all processes of a service condemns no version."""

    async def killed(
        wait: Callable[..., Any], process: "subprocess.Popen[bytes]", timeout_s: float
    ) -> Any:
        process.send_signal(sent)
        return await asyncio.to_thread(wait, process, timeout_s)

    with pytest.raises(kind, match=says) as raised:
        await SANDBOX.run(write_version(tmp_path / "exported", 1), killed)
    assert getattr(raised.value, "code", "") == code
    assert sent.name in str(raised.value)


async def test_a_kill_because_memory_is_short_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sandbox is the first to be killed, whoever took the memory. An attempt takes some of it,
    so the next one waits."""
    counts = iter((3, 4))
    monkeypatch.setattr("halfcore.registry.sandbox.memory_kills", lambda: next(counts))

    async def killed(wait: Callable[..., Any], process: "subprocess.Popen[bytes]", _: float) -> Any:
        process.kill()
        return await asyncio.to_thread(wait, process, 60.0)

    with pytest.raises(Unavailable, match="the kernel killed the sandbox") as raised:
        await SANDBOX.run(write_version(tmp_path / "exported", 1), killed)
    assert raised.value.code == "memory_short"
    assert raised.value.retry_after_s


@pytest.mark.parametrize(
    ("left", "says"),
    [
        (1 << 20, "less than 64 MiB of the memory limit are left for the sandbox"),
        (65 << 20, r"the memory limit left it less than HALFCORE_SANDBOX_MEMORY_MB \(2048\)"),
    ],
)
async def test_memory_that_is_short_now_condemns_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, says: str
) -> None:
    """Large requests, for example, may have taken it. The reason holds no figure that changes: the
    log has it once."""
    monkeypatch.setattr("halfcore.registry.sandbox.memory_left", lambda: left)
    bundle = write_version(tmp_path / "exported", 1)
    BAD["a graph of 4 GB"].damage(bundle)
    with pytest.raises(Unavailable, match=says) as raised:
        await SANDBOX.run(bundle, in_thread)
    assert raised.value.code == "memory_short"


def test_the_sandbox_is_in_a_group_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So Ctrl-C in the server's terminal does not reach it."""
    asked: dict[str, Any] = {}

    def popen(*_: Any, **options: Any) -> None:
        asked.update(options)
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(Unavailable, match="see the limits of processes and memory"):
        asyncio.run(SANDBOX.run(tmp_path, in_thread))
    assert asked["start_new_session"] is True


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "make room in HALFCORE_STORE"),
        (errno.EACCES, "let the user who runs this server write to HALFCORE_STORE"),
        (errno.EROFS, "let the user who runs this server write to HALFCORE_STORE"),
    ],
)
def test_what_to_do_about_the_store_depends_on_the_cause(number: int, says: str) -> None:
    """Room helps a full disk and not a folder of another user."""
    assert says in unwritable(OSError(number, "failed", "/srv/store/x"))
    assert "/srv" not in unwritable(OSError(number, "failed", "/srv/store/x"))


def test_one_bundle_at_a_time_is_tried(tmp_path: Path) -> None:
    """A first start with many models would need the memory of as many sandboxes."""
    names = [f"m{number}" for number in range(6)]
    most = 0
    with fake_registry() as registry:
        for name in names:
            path = write_version(tmp_path / "exported", 1, name=name)
            registry.point(name, registry.publish(path, name=name))
        follow = ",".join(f"models:/{name}@champion" for name in names)
        with starting(
            tmp_path / "none", store=tmp_path / "store", tracking_uri=registry.url, follow=follow
        ) as server:

            def ready() -> bool:
                nonlocal most
                most = max(most, sandboxes(server.process.pid))
                with suppress(httpx.HTTPError):
                    return httpx.get(f"http://127.0.0.1:{server.port}/health/ready").is_success
                return False

            wait_until(ready, timeout_s=120)
            listed = httpx.get(f"http://127.0.0.1:{server.port}/models").json()["models"]
    assert sorted(model["name"] for model in listed) == names
    assert most == 1


def sandboxes(server: int) -> int:
    """How many a server has now."""
    found = 0
    for task in Path(f"/proc/{server}/task").iterdir():
        with suppress(OSError):  # it ended meanwhile
            for child in (task / "children").read_text().split():
                found += b"sandbox_child" in Path(f"/proc/{child}/cmdline").read_bytes()
    return found
