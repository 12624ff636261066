"""Matplotlib figures as SVG files that are the same, byte for byte, on every machine.

The last digits of a coordinate depend on the CPU: NumPy has several versions of a function such as
the logarithm, one for each set of CPU instructions, and they round differently. Matplotlib writes
six decimals, and it names clip paths by a hash of their unrounded coordinates. So coordinates are
rounded here to hundredths of a point, which is invisible, and hashed names become numbers.
"""

from __future__ import annotations

import io
import re
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

_TAG = re.compile(r"<[A-Za-z][^>]*>")
_FRACTION = re.compile(r"-?\d+\.\d+")
_HASHED_ID = re.compile(r'\bid="(\w*?[0-9a-f]{10})"')
_HUNDREDTH = Decimal("0.01")


def save(figure: Figure, file: Path) -> None:
    """Write the figure as SVG; the same figure gives the same file."""
    # Imported late: measuring does without it, and it takes its time.
    from matplotlib import rc_context

    written = io.StringIO()
    # Text stays text: small, searchable, and the same on every machine.
    with rc_context({"svg.hashsalt": "loadlab", "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    file.write_text(portable(written.getvalue()))


def portable(svg: str) -> str:
    """The same picture without what depends on the machine; text and comments stay as they are."""
    names = dict.fromkeys(_HASHED_ID.findall(svg))
    for number, name in enumerate(names, 1):
        new = f"shape{number}"
        svg = svg.replace(f'id="{name}"', f'id="{new}"').replace(f"#{name}", f"#{new}")
    return _TAG.sub(lambda tag: _FRACTION.sub(_rounded, tag.group()), svg)


def _rounded(number: re.Match[str]) -> str:
    """A coordinate in hundredths.

    Safe half-way between two hundredths as well: machines differ by about 1e-12, and the six
    decimals that come in no longer show that.
    """
    text = f"{Decimal(number.group()).quantize(_HUNDREDTH):f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
