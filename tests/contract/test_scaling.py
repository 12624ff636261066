"""docs/scaling.md calculates from stored figures: those of the pages that are written from runs."""

import math
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "scaling.md").read_text()
WRITTEN = (DOCS / "benchmarks.md").read_text()
STEADY_US, BALANCER_US = 82, 40
PAUSE_S, MB_AT_REST, KB_PER_CONNECTION, CONNECTIONS = 6.5, 59, 13.6, 12_000


@pytest.mark.parametrize("run", re.findall(r"\(runs/(\S+-half-core-\w+)\) \| (\d+) \|", PAGE))
def test_a_stored_run_has_the_time_per_request(run: tuple[str, str]) -> None:
    """The load run's row names it."""
    name, microseconds = run
    (row,) = [line for line in WRITTEN.splitlines() if f"(runs/{name})" in line and "µs |" in line]
    assert f"| {microseconds} µs |" in row


def test_the_other_stored_figures_are_those_of_their_pages() -> None:
    """Bench, scale, search and memory."""
    assert "| never (64 connections)" in PAGE
    assert re.search(r"hot lane \| 34,881 \| \*\*28\.6 µs", WRITTEN)
    assert (
        "| 0.5 CPU | 1 × 0.5 | HAProxy | 1 PASS | 88.6 | 39.6 | 3.5 | 9.3 | 0.0% | 60 |" in WRITTEN
    )
    assert round(88.6 - 39.6) == 49
    assert round(39.6) == BALANCER_US
    assert "| 0.5 CPU | 1 × 0.5 | none | 1 PASS | 59.2 | – | 3.0 | 7.3 | 0.0% | 196 |" in WRITTEN
    assert "minimum that passes 3/3: 0.17 CPU, 240 MiB" in WRITTEN
    assert "1 × 1 | none | 1 PASS | 131.7 |" in WRITTEN
    memory = (DOCS / "operations.md").read_text()
    assert f"ready, no connection | {MB_AT_REST} |" in memory
    assert f"({KB_PER_CONNECTION} kB each)" in memory


def test_the_table_is_what_the_formulas_give() -> None:
    """For each number of users."""
    rows = re.findall(r"^\| 10(.) \| (.*) \|$", PAGE, re.MULTILINE)
    assert [row[0] for row in rows] == list("⁴⁵⁶⁷")
    for exponent, (_, cells) in enumerate(rows, start=4):
        users = 10**exponent
        rate = users / PAUSE_S
        cores = rate * STEADY_US / 1e6
        servers = max(math.ceil(cores / 0.35), math.ceil(users / CONNECTIONS))
        expected = (
            rate,
            cores,
            servers,
            servers * MB_AT_REST + users * KB_PER_CONNECTION / 1000,
            rate * BALANCER_US / 1e6,
        )
        written = [float(cell.replace(",", "")) for cell in cells.split(" | ")]
        assert written == pytest.approx(expected, rel=0.04)
