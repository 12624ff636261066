"""One export in its own process: `python -m model_export.watch.job ORDER RESULT`, both JSON files.
Started by `run`.

It sets the limits, then imports, then loads the model, so a bad model harms this process only.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from model_export import imports
from model_export.bundle.files import replace_file
from model_export.limits import restrict


def main(order_file: str, result_file: str) -> None:
    """Export as the order says; write `{"outcome": …, "reason": …}`, where outcome is passed,
    refused or failed."""
    order = json.loads(Path(order_file).read_text())
    restrict(order["memory_limit_mb"], order["parent"])
    imports.begin()
    replace_file(Path(result_file), json.dumps(_export(order)).encode())


def _export(order: dict[str, Any]) -> dict[str, Any]:
    # Imported within the limits. A failed import is not the model's fault: the process then ends
    # with status 1 and writes no result.
    from model_export.errors import ExportError, InfrastructureError
    from model_export.export import ExportRequest, export
    from model_export.registry.client import connect
    from model_export.report import Reporter

    connect(order["tracking_uri"])
    request = ExportRequest(
        order["uri"],
        Path(order["out"]),
        name=order["name"],
        gate_rows=order["gate_rows"],  # None: the default
        allow_unpickle=not order["no_unpickle"],
        accept_unknown=order["accept_unknown"],
        signing_key=Path(order["signing_key"]) if order["signing_key"] else None,
    )
    try:
        export(request, Reporter())
    except ExportError as error:
        traceback.print_exc()  # goes to the export's log, which the watch shows with --debug
        outcome = "failed" if isinstance(error, InfrastructureError) else "refused"
        return {"outcome": outcome, "reason": error.reason}
    return {"outcome": "passed"}


if __name__ == "__main__":
    main(*sys.argv[1:])
