"""Tries a bundle in another process (`halfcore.registry.sandbox_child`): a crash, a hang or
too much memory there does not affect the server."""

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from halfcore.host import memory_kills, memory_left
from halfcore.log import reason_of
from halfcore.registry.errors import Refusal, Unavailable

_NICE = 19
_LEAST_BYTES = 64 << 20
"""Less than the interpreter and the runtime take, so that a trial could only fail."""
_STOPPED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
"""What ends a sandbox from outside: systemd, for example, stops all processes of a service."""
_MEMORY_RETRY_S = 60.0
"""Each attempt takes some of the memory that is short."""


class Verdict(msgspec.Struct):
    """The one line that the sandbox prints."""

    ok: bool
    code: str = ""
    reason: str = ""


class Sandbox:
    """Runs sandboxes.

    Args:
        memory_bytes: most memory of one; less if the control group has less left.
        timeout_s: most seconds of one, of wall-clock time and of CPU time.
        max_batch_size: rows of the largest batch that it tries.
    """

    def __init__(self, *, memory_bytes: int, timeout_s: float, max_batch_size: int) -> None:
        self._memory_bytes = memory_bytes
        self._timeout_s = timeout_s
        self._max_batch_size = max_batch_size

    async def run(
        self, bundle: Path, in_thread: Callable[..., Awaitable[tuple[int, bytes]]]
    ) -> None:
        """Try a bundle. Cancelling ends the sandbox.

        Raises:
            Refusal: the bundle is not good, or the sandbox returned no verdict.
            Unavailable: the sandbox did not start, or was stopped, or memory is short now, which
                says nothing about the bundle.
        """
        memory_bytes = self._memory_limit()
        kills = memory_kills()
        process = _start(
            bundle,
            memory_bytes=memory_bytes,
            cpu_s=self._timeout_s,
            max_batch_size=self._max_batch_size,
        )
        try:
            returncode, output = await in_thread(_wait, process, self._timeout_s)
        except subprocess.TimeoutExpired:
            raise Refusal(
                "sandbox_timeout",
                f"the sandbox did not finish within {self._timeout_s:g} s; raise "
                "HALFCORE_SANDBOX_TIMEOUT_S if the model needs longer",
            ) from None
        finally:
            process.kill()
        if returncode == -signal.SIGKILL and memory_kills() > kills:
            raise _memory_short(
                "the kernel killed the sandbox (signal SIGKILL) because memory was short"
            )
        self._judge(returncode, output, memory_bytes)

    def _memory_limit(self) -> int:
        """Bytes that a sandbox gets now."""
        left = memory_left()
        memory_bytes = self._memory_bytes if left is None else min(self._memory_bytes, left)
        if memory_bytes < _LEAST_BYTES:
            raise _memory_short(
                f"less than {_LEAST_BYTES >> 20} MiB of the memory limit are left for the sandbox"
            )
        return memory_bytes

    def _judge(self, returncode: int, output: bytes, memory_bytes: int) -> None:
        if returncode == -signal.SIGXCPU:
            raise Refusal(
                "sandbox_timeout",
                f"the sandbox did not finish within {self._timeout_s:g} s of CPU time; raise "
                "HALFCORE_SANDBOX_TIMEOUT_S if the model needs longer",
            )
        try:
            verdict = msgspec.json.decode(output, type=Verdict)
        except msgspec.DecodeError:
            raise _without_verdict(returncode) from None
        if verdict.code == "sandbox_memory":
            if memory_bytes < self._memory_bytes:
                raise _memory_short(
                    "the sandbox ran out of memory, as the memory limit left it less than "
                    f"HALFCORE_SANDBOX_MEMORY_MB ({self._memory_bytes >> 20})"
                )
            raise Refusal(
                verdict.code,
                f"the sandbox ran out of memory: it had {memory_bytes >> 20} MiB; raise "
                "HALFCORE_SANDBOX_MEMORY_MB if the model needs more",
            )
        if not verdict.ok or returncode != 0:
            raise Refusal(
                verdict.code or "sandbox_crashed",
                verdict.reason or f"the sandbox ended with exit code {returncode}",
            )


def _memory_short(what: str) -> Unavailable:
    return Unavailable(
        "memory_short",
        f"{what}; raise the memory limit, or free memory",
        retry_after_s=_MEMORY_RETRY_S,
    )


def _without_verdict(returncode: int) -> Refusal | Unavailable:
    how = (
        f"signal {signal.Signals(-returncode).name}"
        if returncode < 0
        else f"exit code {returncode}"
    )
    if -returncode in _STOPPED:
        return Unavailable(
            "sandbox_failed",
            f"the sandbox was stopped from outside ({how}); if that goes on, see what ends "
            "processes on this machine",
        )
    return Refusal(
        "sandbox_crashed", f"the sandbox crashed ({how}) while it loaded or ran the model"
    )


def _environment() -> dict[str, str]:
    """Without this process's secrets, because the sandbox runs a graph from outside. It imports
    from where this process does, and so not from its working directory."""
    names = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ", "TMPDIR")
    passed = {name: os.environ[name] for name in names if name in os.environ}
    return passed | {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


def _start(
    bundle: Path, *, memory_bytes: int, cpu_s: float, max_batch_size: int
) -> subprocess.Popen[bytes]:
    limits = [
        f"--memory-bytes={memory_bytes}",
        f"--cpu-s={int(cpu_s) + 1}",
        f"--max-batch-size={max_batch_size}",
    ]
    command = [sys.executable, "-P", "-m", "halfcore.registry.sandbox_child", str(bundle)]
    try:
        # The module is this package's own, and so are the numbers and the path
        process = subprocess.Popen(  # noqa: S603
            [*command, f"--parent={os.getpid()}", *limits],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            # Ctrl-C in the server's terminal would reach it, too
            start_new_session=True,
        )
    except OSError as error:
        # Without the file's name, which clients could read in /health
        raise Unavailable(
            "sandbox_failed",
            f"the sandbox could not be started: {error.strerror or reason_of(error)}; see the "
            "limits of processes and memory, and whether Python is still where it was at the start",
        ) from None
    # Set here and not by the child, so that its imports, which take most of its CPU time, already
    # yield to predictions.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
    return process


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[int, bytes]:
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, output
