"""`python -m halfcore.registry.sandbox_child BUNDLE`: tries a bundle as the server would use it,
within limits, and prints one line of JSON.

A graph from outside can crash the runtime, loop forever or ask for all memory. It does so here
first, in a process that no request waits for, that the kernel ends before any other, and that has
no secrets.
"""

import argparse
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from halfcore import bundle, host
from halfcore.bundle import BundleError
from halfcore.models.preparing import prepare


def main() -> None:
    """Exit 0 if the bundle is good, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="halfcore.registry.sandbox_child", description="Tries a bundle within limits."
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--parent", type=int, required=True, help="process without which this one ends"
    )
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--cpu-s", type=int, required=True)
    parser.add_argument("--max-batch-size", type=int, required=True)
    arguments = parser.parse_args()
    confine(parent=arguments.parent, memory_bytes=arguments.memory_bytes, cpu_s=arguments.cpu_s)
    verdict = judge(arguments.bundle, max_batch_size=arguments.max_batch_size)
    sys.stdout.buffer.write(orjson.dumps(verdict) + b"\n")
    sys.stdout.flush()
    # Without the interpreter's orderly shutdown: a refused graph may have left threads or locks
    # behind.
    os._exit(0 if verdict["ok"] else 1)


def confine(*, parent: int, memory_bytes: int, cpu_s: int) -> None:
    """Limit this process, and make it the first to be killed when memory is short."""
    host.die_with(parent)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for limit, value in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        # The soft limit on CPU time ends the process by SIGXCPU, the hard one by SIGKILL, which
        # does not identify the cause.
        resource.setrlimit(
            limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard)
        )


def judge(path: Path, *, max_batch_size: int) -> dict[str, Any]:
    """Read and load the bundle, run its golden rows and the largest batch; return the verdict."""
    try:
        # Any name: a followed model may be served under another name than its bundle's; the server
        # has checked the bundle's identity.
        prepare(bundle.read(path, any_name=True), max_batch_size=max_batch_size)
    except MemoryError:
        return {"ok": False, "code": "sandbox_memory"}
    except BundleError as error:
        if _out_of_memory(error):
            return {"ok": False, "code": "sandbox_memory"}
        code = error.code if error.code in ("golden", "graph") else "bundle"
        return {"ok": False, "code": code, "reason": error.reason}
    except Exception as error:  # noqa: BLE001  whatever the runtime raises on a warm-up run
        return {
            "ok": False,
            "code": "sandbox_memory" if _out_of_memory(error) else "golden",
            "reason": f"the model failed: {type(error).__name__}",
        }
    return {"ok": True}


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether the runtime failed because memory was short: only a message somewhere in the chain of
    causes says so."""
    while error is not None:
        if isinstance(error, MemoryError) or any(
            words in str(error)
            for words in ("bad_alloc", "Failed to allocate", "Failed to reserve")
        ):
            return True
        error = error.__cause__
    return False


if __name__ == "__main__":
    main()
