"""What a service prints about every request while it is being written, and still prints when it
is served."""

from typing import Any

import pandas as pd

_WARNING = """WARNING: columns that the model was trained with are filled with zero.
WARNING: values are not checked against the range that was seen in training.
WARNING: this is a development server."""


def say(record: dict[str, Any]) -> None:
    """Eighteen prints, four of them of a DataFrame, flushed as a terminal or a container's log has
    them."""
    frame = pd.DataFrame([record])
    lines = [
        "=== new request ===",
        f"received: {record}",
        f"type: {type(record)}",
        f"number of fields: {len(record)}",
    ]
    lines += [f"field {name}: {value!r}" for name, value in list(record.items())[:4]]
    lines += ["frame as received:", frame, "after conversion:", frame.head(), _WARNING]
    lines += ["columns:", frame.dtypes.to_frame(), "values:", frame.T]
    for line in [*lines, "=== predicting ==="]:
        print(line, flush=True)  # noqa: T201  this is what it is about
