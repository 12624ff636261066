"""Models whose description is hard for a client generator: every kind of column, labels of every
type, and texts that give equal names, or none."""

from pathlib import Path
from typing import Any

from support.bundles import MIXED, NUMBERS, write_bundle

ODD_TEXTS = ["Male", "male", "", "<5", ">5", "a b", "a-b", "Ä", 'with "quotes"', "1"]
ODD: list[dict[str, Any]] = [
    {
        "name": "class",
        "kind": "category",
        "nullable": True,
        "categories": ODD_TEXTS,
        "example": "<5",
    },
    {"name": "sepal length (cm)", "kind": "number", "nullable": True, "example": None},
    {"name": "1st", "kind": "integer", "nullable": True, "example": 3},
    {"name": "größe", "kind": "boolean", "nullable": True, "example": False},
    {
        "name": "open",
        "kind": "category",
        "nullable": False,
        "categories": ["red", "green"],
        "accepts_unknown": True,
        "example": "red",
    },
]
DEFAULT = "numbers"
VERSION = "1"


def write_models(root: Path) -> list[str]:
    """Write their bundles; returns their names, the default first."""
    write_bundle(root, DEFAULT, inputs=NUMBERS)
    write_bundle(root, "mixed", inputs=MIXED)
    write_bundle(root, "sum", task="regression", dtype="float64")
    write_bundle(root, "odd-columns", inputs=ODD, classes=["<50K", ">50K", "50k"])
    write_bundle(root, "flags", classes=[False, True])
    write_bundle(root, "grades", classes=[1, 2, 3], dtype="float64")
    write_bundle(root, "steps", classes=[0.5, 1.5])
    return [DEFAULT, "mixed", "sum", "odd-columns", "flags", "grades", "steps"]
