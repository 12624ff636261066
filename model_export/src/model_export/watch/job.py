"""One export in a process of its own: `python -m model_export.watch.job ORDER RESULT`, both JSON
files. Started by `run`.

Limits first, then the imports, then the model: whatever the model does, it does to this process
alone.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from model_export.limits import restrict


def main(order_file: str, result_file: str) -> None:
    """Export as ordered; write `{"outcome": …, "reason": …}`, outcome being passed, refused or
    failed."""
    order = json.loads(Path(order_file).read_text())
    restrict(order["memory_limit_mb"], order["parent"])
    result = Path(result_file)
    staging = result.with_suffix(".new")
    staging.write_text(json.dumps(_export(order)))
    staging.replace(result)


def _export(order: dict[str, Any]) -> dict[str, Any]:
    # Imported under the limits. What fails here is no fault of the model's: status 1 without a
    # result.
    from model_export.errors import ExportError, InfrastructureError
    from model_export.export import ExportRequest, export
    from model_export.registry.client import connect
    from model_export.report import Reporter

    connect(order["tracking_uri"])
    wanted = ExportRequest(
        order["uri"],
        Path(order["out"]),
        name=order["name"],
        gate_rows=order["gate_rows"],
        allow_unpickle=not order["no_unpickle"],
    )
    try:
        export(wanted, Reporter())
    except ExportError as error:
        traceback.print_exc()  # into the export's own log; the watch shows it with --debug
        outcome = "failed" if isinstance(error, InfrastructureError) else "refused"
        return {"outcome": outcome, "reason": error.reason}
    return {"outcome": "passed"}


if __name__ == "__main__":
    main(*sys.argv[1:])
