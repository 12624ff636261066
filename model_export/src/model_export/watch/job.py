"""One export in a process of its own: `python -m model_export.watch.job ORDER RESULT`, both JSON files. Started by `run`.

Limits first, then the imports, then the model: whatever the model does, it does to this process alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_MEMORY_WORDS = ("bad_alloc", "bad allocation", "Unable to allocate", "Failed to allocate memory", "Cannot allocate memory")


def main(order_file: str, result_file: str) -> None:
    """Export as ordered; write `{"outcome": …, "reason": …}`, outcome being passed, refused or failed."""
    order = json.loads(Path(order_file).read_text())
    _limit(order["allocated_mb"], order["parent"])
    result = Path(result_file)
    staging = result.with_suffix(".new")
    staging.write_text(json.dumps(_export(order)))
    staging.replace(result)


def _limit(megabytes: int, parent: int) -> None:
    """Bound what may be allocated, be the first whom the kernel ends when memory is short, and end with the parent."""
    resource.setrlimit(resource.RLIMIT_DATA, (megabytes << 20, megabytes << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # not every container has it
        Path("/proc/self/oom_score_adj").write_text("1000")
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the watch has gone")


def _export(order: dict[str, Any]) -> dict[str, Any]:
    # Imported under the limits. What fails here is no fault of the model's: status 1 without a result.
    from model_export import registry
    from model_export.errors import ExportError, InfrastructureError, shorten
    from model_export.export import Order, export
    from model_export.report import Reporter

    registry.connect(order["tracking_uri"])
    wanted = Order(order["uri"], Path(order["out"]), gate_rows=order["gate_rows"], allow_unpickle=not order["no_unpickle"])
    try:
        export(wanted, Reporter())
    except Exception as error:  # noqa: BLE001 - a model can fail in every way that its classes can
        if _is_of_memory(error):
            return {"outcome": "refused", "reason": f"needed more than the {order['allocated_mb']} MB that an export may allocate"}
        if isinstance(error, InfrastructureError):
            return {"outcome": "failed", "reason": error.reason}
        reason = error.reason if isinstance(error, ExportError) else shorten(f"{type(error).__name__}: {error}")
        return {"outcome": "refused", "reason": reason}
    return {"outcome": "passed"}


def _is_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or any(word in str(error) for word in _MEMORY_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
