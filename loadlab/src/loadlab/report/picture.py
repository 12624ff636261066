"""Pictures as SVG that is the same, byte for byte, on every machine.

The last digits of a coordinate depend on the CPU: NumPy has several versions of a function such as
the logarithm, one for each set of CPU instructions, and they round differently. Matplotlib writes
six decimals, and it names clip paths by a hash of their unrounded coordinates. So coordinates are
rounded here to hundredths of a point, which is invisible, and hashed names become numbers.

`save` writes any figure; `draw` makes a `Chart` whose colours follow the reader's light or dark.
Matplotlib is imported late: measuring does without it, and it takes its time.
"""

from __future__ import annotations

import io
import math
import re
from decimal import Decimal
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TEMPLATES = Path(__file__).with_name("templates")
_THEME = (_TEMPLATES / "chart.css").read_text()
_LIGHT = dict(re.findall(r"--(\w+):(#\w{6})", _THEME.partition("@media")[0]))
_KEY_WIDTH, _KEYS_A_ROW = 166, 5

_TAG = re.compile(r"<[A-Za-z][^>]*>")
_FRACTION = re.compile(r"-?\d+\.\d+")
_HASHED_ID = re.compile(r'\bid="(\w*?[0-9a-f]{10})"')
_NEEDLESS = re.compile(r' id="(?!shape)[^"]*"|font-family:[^;"]*; | transform="rot[^"]*"|(?<=\n) +')
"""In a chart: names that nothing refers to, and which other charts of the page have as well; the
font, which is the page's; turns by nothing; indents."""


class Line(NamedTuple):
    """One curve; None among the values is a gap. Of the five colours `C0` to `C4` one."""

    label: str
    points: Sequence[tuple[float, float | None]]
    colour: str = "C0"
    dashed: bool = False


class Axis(NamedTuple):
    """The horizontal one, from 0: where it ends, where it has which words, and begin, end and name
    of what is shaded, every other one."""

    end: float
    ticks: Sequence[tuple[float, str]]
    bands: Sequence[tuple[float, float, str]] = ()


class Chart(NamedTuple):
    """What is to be drawn; `name` is the file's, limits are dashed lines across."""

    name: str
    title: str
    unit: str
    axis: Axis
    lines: Sequence[Line]
    limits: Sequence[tuple[float, str]] = ()
    logarithmic: bool = False


def save(figure: Figure, file: Path) -> None:
    """Write the figure as SVG; the same figure gives the same file."""
    file.write_text(_written(figure))


def standalone(svg: str) -> str:
    """A chart as a file of its own."""
    return svg.replace(">", f"><style>{_THEME}</style>", 1) + "\n"


def draw(chart: Chart) -> str:
    """The chart as an SVG element, for a page that has `chart.css` in its style. Text stays text;
    the names of the lines are of the class `key`."""
    from matplotlib import rc_context

    with rc_context(fname=_TEMPLATES / "chart.mplstyle"):
        svg = _written(_figure(chart))
    svg = _NEEDLESS.sub("", svg.partition("</defs>")[2].replace('id="key"', 'class="key"')).strip()
    svg = re.sub(r'(id="|url\(#)shape', rf"\1{chart.name}", svg)
    for name, colour in _LIGHT.items():
        svg = svg.replace(colour, f"var(--{name})")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 210" data-name="{chart.name}" '
        f'class="chart{" time" if chart.axis.bands else ""}" role="img" '
        f'aria-label="{escape(chart.title)}">{svg}'
    )


def _figure(chart: Chart) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot()
    _scale(axes, chart)
    put = partial(axes.annotate, xycoords="axes fraction", textcoords="offset points")
    for n, (start, end, name) in enumerate(chart.axis.bands):
        if n % 2 == 0:
            axes.axvspan(start, end, fc=_LIGHT["band"], lw=0)
        if (end - start) / chart.axis.end * 830 > 6 * len(name):  # points, 6 for a letter
            middle, over = ((start + end) / 2, 1), ("data", "axes fraction")
            put(name, middle, xycoords=over, xytext=(0, -12), ha="center")
    for n, line in enumerate(chart.lines):
        row, column = divmod(n, _KEYS_A_ROW)
        style, mark = ((0, (4, 3)), "┄") if line.dashed else ("-", "━")
        values = [math.nan if value is None else value for _, value in line.points]
        axes.plot([at for at, _ in line.points], values, c=line.colour, ls=style)
        where = (_KEY_WIDTH * column, 14 - 12 * row)
        put(f"{mark} {line.label}", (0, 1), xytext=where, color=line.colour, gid="key")
    for value, word in chart.limits:
        axes.axhline(value, c=_LIGHT["limit"], ls=(0, (6, 4)), lw=1.2)
        across = ("axes fraction", "data")
        put(word, (0, value), xycoords=across, xytext=(4, -11), color=_LIGHT["limit"])
    axes.set_title(chart.title, y=1, pad=30)
    put(chart.unit, (1, 1), xytext=(0, 30), ha="right")
    return figure


def _scale(axes: Axes, chart: Chart) -> None:
    """Round numbers around the values and limits."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    values = [value for line in chart.lines for _, value in line.points if value is not None]
    values += [value for value, _ in chart.limits]
    if chart.logarithmic:
        powers = [math.log10(value) for value in values if value > 0] or [0.0]
        first, last = math.floor(min(powers)), math.ceil(max(powers))
        ticks = [10.0**power for power in range(first, max(last, first + 1) + 1)]
        axes.set_yscale("log", nonpositive="clip")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        top = max(values, default=0.0) or 1.0
        ticks = [float(tick) for tick in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0.0, top)]
    words = [f"{value:,.0f}" if value >= 10 or value % 1 == 0 else f"{value:g}" for value in ticks]
    axes.set(xlim=(0, chart.axis.end), ylim=(ticks[0], ticks[-1]))
    axes.set_yticks(ticks, words)
    axes.set_xticks([at for at, _ in chart.axis.ticks], [word for _, word in chart.axis.ticks])


def _written(figure: Figure) -> str:
    from matplotlib import rc_context

    written = io.StringIO()
    # Text stays text: small, searchable, and the same on every machine.
    with rc_context({"svg.hashsalt": "loadlab", "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return portable(written.getvalue())


def portable(svg: str) -> str:
    """The same picture without what depends on the machine; text and comments stay as they are."""
    names = dict.fromkeys(_HASHED_ID.findall(svg))
    for number, name in enumerate(names, 1):
        new = f"shape{number}"
        svg = svg.replace(f'id="{name}"', f'id="{new}"').replace(f"#{name}", f"#{new}")
    return _TAG.sub(lambda tag: _FRACTION.sub(_rounded, tag.group()), svg)


def _rounded(number: re.Match[str]) -> str:
    # Safe half-way between two hundredths as well: machines differ by about 1e-12, and the six
    # decimals that are written do not show that.
    text = f"{Decimal(number.group()).quantize(Decimal('0.01')):f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
