"""A small chart in SVG: lines over a shared axis, shaded phases, limits; text stays text, colours
follow the reader's light or dark.

Own code, for what is wanted is little: a page with eight charts is under 300 kB, opens without a
network, and can be read aloud.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 900, 210
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 44, 24
_LEGEND_STEP = 150
_LEGENDS_A_ROW = 5

_OPEN = (
    f'<svg xmlns="http://www.w3.org/2000/svg" class="chart{{time}}" viewBox="0 0 {WIDTH} {HEIGHT}" '
    'data-name="{name}" role="img" aria-label="{title}">'
)

STYLE = """
svg.chart{--ink:#1f2933;--soft:#7b8794;--grid:#e4e7eb;--band:#f1f4f8;
--c0:#0b6e4f;--c1:#2563c9;--c2:#c2410c;--c3:#8b3fb8;--c4:#64748b;--limit:#c81e1e}
@media (prefers-color-scheme:dark){
svg.chart{--ink:#e4e7eb;--soft:#9aa5b1;--grid:#323f4b;--band:#1c2732;
--c0:#3fc79a;--c1:#7eb0ff;--c2:#ff9d6b;--c3:#d39bf5;--c4:#a3b1c2;--limit:#ff7b7b}}
svg.chart{font:11px system-ui,sans-serif;width:100%;height:auto;display:block}
svg.chart text{fill:var(--ink)}svg.chart .soft{fill:var(--soft)}
svg.chart .title{font-size:13px;font-weight:600}
svg.chart .grid{stroke:var(--grid);stroke-width:1}svg.chart .band{fill:var(--band)}
svg.chart path{fill:none;stroke-width:1.6;stroke-linejoin:round}
svg.chart .limit{stroke:var(--limit);stroke-dasharray:6 4;stroke-width:1.2}
svg.chart text.limit{stroke:none;fill:var(--limit)}
svg.chart .cursor{stroke:var(--soft);visibility:hidden}
""" + "".join(
    f"svg.chart path.c{n}{{stroke:var(--c{n})}}svg.chart text.c{n}{{fill:var(--c{n})}}"
    for n in range(5)
)


@dataclass(frozen=True)
class Line:
    """One curve; None among the values is a gap."""

    label: str
    points: Sequence[tuple[float, float | None]]
    colour: int
    """0–4."""
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """What is to be drawn."""

    name: str
    """Of the file."""
    title: str
    unit: str
    lines: Sequence[Line]
    span: tuple[float, float]
    """Of the horizontal axis."""
    ticks: Sequence[tuple[float, str]]
    """Of the horizontal axis, with their words."""
    bands: Sequence[tuple[float, float, str]] = ()
    """Shaded every other one: begin, end, name."""
    limits: Sequence[tuple[float, str]] = ()
    """Dashed lines across, where they are in sight of the values."""
    logarithmic: bool = False
    time: bool = True
    """The horizontal axis is the run's time."""
    scale: "Scale" = field(init=False)

    def __post_init__(self) -> None:
        values = [value for line in self.lines for _, value in line.points if value is not None]
        object.__setattr__(
            self,
            "scale",
            Scale.of([*values, *(value for value, _ in self.limits)], logarithmic=self.logarithmic),
        )


@dataclass(frozen=True)
class Scale:
    """The vertical axis."""

    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool

    @classmethod
    def of(cls, values: Sequence[float], *, logarithmic: bool) -> "Scale":
        """Round numbers around the values."""
        if logarithmic:
            positive = [value for value in values if value > 0] or [1.0]
            first, last = (
                math.floor(math.log10(min(positive))),
                math.ceil(math.log10(max(positive))),
            )
            powers = range(first, max(last, first + 1) + 1)
            return cls(
                10.0 ** powers[0],
                10.0 ** powers[-1],
                [10.0**power for power in powers],
                logarithmic=True,
            )
        top = max([*values, 0.0]) or 1.0
        step = next(
            size * 10.0**power
            for power in range(-6, 12)
            for size in (1, 2, 5)
            if size * 10.0**power * 4 >= top
        )
        count = math.ceil(top / step - 1e-9)
        return cls(0.0, count * step, [n * step for n in range(count + 1)], logarithmic=False)

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the bottom and 1 at the top."""
        if self.logarithmic:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def draw(chart: Chart, *, standalone: bool) -> str:
    """The chart as an SVG element; standalone: with its style, as a separate file."""
    parts = [
        _OPEN.format(
            time=" time" if chart.time else "", name=chart.name, title=escape(chart.title)
        ),
        f"<style>{STYLE}</style>" if standalone else "",
        *_bands(chart),
        *_grid(chart),
        *(_curve(chart, line) for line in chart.lines),
        *_limits(chart),
        f'<text class="title" x="{LEFT}" y="14">{escape(chart.title)}</text>',
        (
            f'<text class="soft" x="{WIDTH - RIGHT}" y="14" '
            f'text-anchor="end">{escape(chart.unit)}</text>'
        ),
        *(_legend(n, line) for n, line in enumerate(chart.lines)),
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>' if chart.time else "",
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _x(chart: Chart, at: float) -> float:
    first, last = chart.span
    return _exact(LEFT + (WIDTH - LEFT - RIGHT) * (at - first) / (last - first))


def _y(chart: Chart, value: float) -> float:
    return _exact(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * chart.scale.share(value))


def _exact(coordinate: float) -> float:
    """Without the last digits of a logarithm, which depend on the CPU.

    Otherwise they would decide how a coordinate half-way between two tenths is written.
    """
    return round(coordinate, 6)


def _bands(chart: Chart) -> list[str]:
    parts = []
    for n, (start, end, name) in enumerate(chart.bands):
        left, right = _x(chart, start), _x(chart, end)
        if n % 2 == 0:
            parts.append(
                f'<rect class="band" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" '
                f'height="{HEIGHT - TOP - BOTTOM}"/>'
            )
        if right - left > 6 * len(name):
            parts.append(
                f'<text class="soft" x="{(left + right) / 2:.1f}" y="{TOP + 11}" '
                f'text-anchor="middle">{escape(name)}</text>'
            )
    return parts


def _grid(chart: Chart) -> list[str]:
    parts = []
    for value in chart.scale.ticks:
        y = _y(chart, value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text class="soft" x="{LEFT - 6}" y="{y + 4:.1f}" '
            f'text-anchor="end">{_number(value)}</text>'
        )
    for at, word in chart.ticks:
        parts.append(
            f'<text class="soft" x="{_x(chart, at):.1f}" y="{HEIGHT - 8}" '
            f'text-anchor="middle">{escape(word)}</text>'
        )
    return parts


def _curve(chart: Chart, line: Line) -> str:
    steps, pen_up = [], True
    for at, value in line.points:
        if value is None:
            pen_up = True
            continue
        steps.append(f"{'M' if pen_up else 'L'}{_x(chart, at):.1f},{_y(chart, value):.1f}")
        pen_up = False
    dashes = ' stroke-dasharray="4 3"' if line.dashed else ""
    return f'<path class="c{line.colour}"{dashes} d="{"".join(steps)}"/>' if steps else ""


def _limits(chart: Chart) -> list[str]:
    parts = []
    for value, word in chart.limits:
        y = _y(chart, value)
        parts.append(
            f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text class="limit" x="{LEFT + 4}" y="{y + 12:.1f}">{escape(word)}</text>')
    return parts


def _legend(place: int, line: Line) -> str:
    x = LEFT + _LEGEND_STEP * (place % _LEGENDS_A_ROW)
    mark = "┄" if line.dashed else "━"
    y = 30 + 12 * (place // _LEGENDS_A_ROW)
    return (
        f'<text class="c{line.colour}" x="{x}" y="{y}">{mark} {escape(line.label)}<tspan '
        'class="value"></tspan></text>'
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:g}"
