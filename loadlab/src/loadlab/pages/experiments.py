"""Comparisons and searches: sections of docs/benchmarks.md, tables for a terminal, lines of README,
and which files are shown."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from loadlab.experiments import compare as comparisons
from loadlab.experiments import runner
from loadlab.experiments import searching as searches
from loadlab.experiments.compare import Comparison
from loadlab.experiments.search import Search
from loadlab.pages.template import link, page


def newest(runs: Path, what: str) -> list[Path]:
    """The newest comparison of every tier, baseline and number of users, or search of every server,
    scenario and number of users."""
    found = {name(file): file for file in sorted(runs.glob(f"*-{what}-*.json"))}
    return [found[each] for each in sorted(found)]


def name(file: Path) -> str:
    """Kind, and what distinguishes it from others of its kind: its file's name without the time."""
    return file.stem.split("-", 4)[4]


def compare(comparison: Comparison, link: str = "", picture: str = "") -> str:
    """A section; `link` leads to the stored file, `picture` is its plot's name, or empty."""
    return page(
        "compare",
        comparison=comparison,
        blocks=comparison.made,
        trials=comparison.rows,
        sentences=comparisons.sentences(comparison),
        link=link,
        picture=picture,
    )


def search(found: Search, link: str = "", picture: str = "", history: Sequence[str] = ()) -> str:
    """The same of a search; `history` is what its reruns and earlier searches say."""
    return page(
        "search",
        search=found,
        probes=[(probe, found.goal.steady_s(probe)) for probe in found.rows],
        sentences=[*searches.sentences(found), *history],
        link=link,
        picture=picture,
    )


def history(file: Path, out: Path) -> list[str]:
    """What a search's reruns say, and what searches of the same kind found before it."""
    same = sorted(file.parent.glob(f"*-{name(file)}.json"))
    before = [each for each in same if each.name < file.name]
    earlier = [searches.earlier(runner.load(each, Search), link(each, out)) for each in before]
    return [*map(searches.again, searches.reruns(file)), *reversed(earlier)]


def compare_table(comparison: Comparison) -> Table:
    """Every run, for a terminal."""
    return _table(compare(comparison))


def search_table(found: Search) -> Table:
    """Every probe, for a terminal."""
    return _table(search(found))


def _table(section: str) -> Table:
    lines = [each.strip("|") for each in section.splitlines() if each.startswith("|")]
    heads, _, *rows = [[escape(cell.strip()) for cell in each.split("|")] for each in lines]
    shown = Table(*heads, box=None)
    for row in rows:
        shown.add_row(*row)
    return shown


def least(readme: Path, files: Sequence[Path]) -> list[str]:
    """How little is enough."""
    lines = []
    for file in files:
        minimum = searches.sentences(runner.load(file, Search))[0].rstrip(".")
        if reruns := searches.reruns(file):
            minimum += f"; {searches.counted(reruns)}"
        lines.append(f"{minimum} ([search]({link(file, readme)})).")
    return lines


def compared(readme: Path, files: Sequence[Path]) -> list[str]:
    """What the baselines do in the same limits."""
    lines = []
    for file in files:
        found = runner.load(file, Comparison)
        sides = [
            f"{side} {comparisons.counted(found, side)}" for side in ("halfcore", found.against)
        ]
        lines.append(
            f"{found.users:,} users, tier {found.tier} ({found.limits}): {', '.join(sides)} "
            f"([compare]({link(file, readme)}))."
        )
    return lines
