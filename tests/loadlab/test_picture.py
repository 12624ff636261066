"""Pictures and ratios are the same on every machine; `just test-portable` tries it with other NumPy
code."""

import re

from loadlab.report.picture import Axis, Chart, Line, draw, portable, standalone
from loadlab.verdict.stats import paired_ratio


def test_numbers_in_tags_are_rounded_and_text_is_not():
    """A coordinate is cut to hundredths; what a reader reads, comments included, stays."""
    svg = (
        '<!-- 1.23456 --><g transform="translate(-0.001 141.861177)"><text '
        'x="3.125000">1.23456</text></g>'
    )
    expected = (
        '<!-- 1.23456 --><g transform="translate(0 141.86)"><text x="3.12">1.23456</text></g>'
    )
    assert portable(svg) == expected


def test_what_is_named_by_a_hash_is_numbered():
    """Matplotlib hashes unrounded coordinates: the name would differ where the picture does not."""
    svg = '<path id="{0}"/><use xlink:href="#{0}"/><g clip-path="url(#{1})"/><clipPath id="{1}"/>'
    mine, theirs = ("m0123456789", "pabcdef0123"), ("m1111111111", "p2222222222")
    assert portable(svg.format(*mine)) == portable(svg.format(*theirs))
    assert portable(svg.format(*mine)) == svg.format("shape1", "shape2")


def test_a_curve_half_way_between_two_hundredths_is_drawn_the_same_with_another_last_digit():
    """The logarithm's last digit, which differs between CPUs, does not move a point."""
    half_way = 1.235 / 830  # of 830 points, after a margin of 58: 59.235
    lines = [Line("a", [(half_way + noise, 1.0)]) for noise in (-1e-15, 0.0, 1e-15)]
    drawn = {draw(Chart("a", "a", "", Axis(1.0, []), [line])) for line in lines}
    assert len(drawn) == 1
    assert re.search(r"M 59\.2[34] ", drawn.pop())


def test_a_chart_s_colours_follow_the_reader_and_its_text_stays_text():
    """No colour is fixed, in a file the variables are there, and what a name says is no markup."""
    chart = Chart("a", "<title>", "ms", Axis(1.0, [(0, "0:00")]), [Line("<p50>", [(0, 1), (1, 9)])])
    svg = draw(chart)
    assert "#" not in re.sub(r"url\(#a\d+\)", "", svg)
    assert '<text style="font-size: 11px; text-anchor: start; fill: var(--c0)"' in svg
    assert "━ &lt;p50&gt;</text>" in svg
    assert "<title>" not in svg
    assert "prefers-color-scheme:dark" in standalone(svg)


def test_a_ratio_s_interval_needs_no_logarithm():
    """Between two middle ratios lies their geometric mean, by a square root, which is exact
    everywhere."""
    found = paired_ratio([(1.0, 2.0), (1.0, 8.0)], resamples=100)
    assert (found.estimate, found.low, found.high) == (4.0, 2.0, 8.0)
