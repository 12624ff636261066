"""The two models of `just bench-protocols`: `python -m support.protocol_models FOLDER` writes their
bundles.

Both do next to nothing, so that what is measured is the protocol. Their rows are numbers as a
scaled feature has them: six decimals, around zero.
"""

import random
import sys
from pathlib import Path
from typing import Any

from support.bundles import write_bundle

COLUMNS = {"wide": 100, "narrow": 4}
"""Model → number of columns."""
_SEED = 1


def columns(count: int) -> list[dict[str, Any]]:
    """So many columns; their examples are the row that is asked."""
    draw = random.Random(_SEED)  # noqa: S311  a row, no secret
    return [
        {
            "name": f"x{i}",
            "kind": "number",
            "nullable": False,
            "example": round(draw.gauss(0, 1), 6),
            "minimum": -5.0,
            "maximum": 5.0,
        }
        for i in range(count)
    ]


def write_models(folder: Path) -> None:
    """Write both bundles."""
    for name, count in COLUMNS.items():
        write_bundle(folder, name, inputs=columns(count))


if __name__ == "__main__":
    write_models(Path(sys.argv[1]))
