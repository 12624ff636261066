"""`loadlab render`: docs/benchmarks.md and its pictures, and what stands between marks in README
and docs/operations.md, from stored runs only."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from loadlab.experiments.compare import form as comparisons
from loadlab.experiments.search import form as searches
from loadlab.experiments.studies import form as studies
from loadlab.pages import bench, loads, plots, sections, stored
from loadlab.pages.loads import KeptSet
from loadlab.pages.template import link, page
from loadlab.record import store
from loadlab.record.store import StoreError

S = TypeVar("S")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `loadlab render`."""
    options = {
        "--runs": (Path("docs/runs"), "where runs are stored (default: %(default)s)"),
        "--bench": (None, "stored run to show (default: the newest)"),
        "--ablate": (None, "stored ablation to show (default: the newest, if there is one)"),
        "--ladder": (None, "stored ladder to show (default: the newest, if there is one)"),
        "--out": (Path("docs/benchmarks.md"), "page to write (default: %(default)s)"),
    }
    for name, (default, text) in options.items():
        parser.add_argument(name, type=Path, default=default, help=text)


def main(asked: argparse.Namespace) -> list[Path]:
    """Write the pages and, next to them, the pictures; returns the files; raises `StoreError`."""
    runs = asked.runs
    newest = asked.bench or store.latest(runs, "bench")
    if newest is None:
        raise StoreError(
            f"no stored run in {runs}: `loadlab bench` makes one; smoke tests are shown "
            "only when named with --bench"
        )
    written = render(
        newest,
        asked.ablate or store.latest(runs, "ablate"),
        asked.out,
        ladder=asked.ladder or store.latest(runs, "ladder"),
        compared=stored.newest(runs, "compare"),
        searched=stored.newest(runs, "search"),
        loaded=loads.sets(runs),
        studied=stored.newest_studies(runs),
    )
    operations = asked.out.with_name("operations.md")
    memories = sorted(runs.glob("*-memory-*.json"))
    if memories and fill(operations, "memory", lambda: sections.memory(memories[-1], operations)):
        written.append(operations)
    return written


def render(
    newest: Path,
    ablation: Path | None,
    out: Path,
    *,
    ladder: Path | None = None,
    compared: Sequence[Path] = (),
    loaded: Sequence[KeptSet] = (),
    searched: Sequence[Path] = (),
    studied: Sequence[Path] = (),
) -> list[Path]:
    """Write the page of these files, its pictures, and README; returns what was written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    chapters = Chapters(out)
    shown = loads.to_draw(loaded)
    curve = chapters.draw("load", plots.latency, shown) if shown else None
    text = page(
        "benchmarks",
        loads=loads.section(loaded, out) if loaded else "",
        benches=[chapters.bench(file) for file in (newest, ablation, ladder) if file],
        compared=[chapters.compare(file) for file in compared],
        searched=[chapters.search(file) for file in searched],
        studied=[chapters.study(file) for file in studied],
    )
    out.write_text(f"{text}\n")
    readme = out.parent.parent / "README.md"

    def figures() -> str:
        return sections.first_page(
            readme, newest, loaded, curve, ladder=ladder, comparing=compared, searched=searched
        )

    return [out, *chapters.pictures, *([readme] if fill(readme, "figures", figures) else [])]


def fill(file: Path, mark: str, text: Callable[[], str]) -> bool:
    """Write a text between the two marks of a page; False, and no text is made, where there is no
    such file, or no marks."""
    marked = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- /{mark} -->)", re.DOTALL)
    before = file.read_text() if file.exists() else ""
    if not marked.search(before):
        return False
    file.write_text(marked.sub(lambda _: f"{text()}\n", before))
    return True


class Chapters:
    """Writes stored experiments as sections of a page, and their pictures next to it."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.pictures: list[Path] = []

    def draw(self, name: str, plot: Callable[[S, Path], bool], subject: S) -> Path | None:
        """The picture; None if there was nothing to draw."""
        file = self._out.with_name(f"{self._out.stem}-{name}.svg")
        if not plot(subject, file):
            return None
        self.pictures.append(file)
        return file

    def bench(self, file: Path) -> str:
        """Or an ablation, or a ladder."""
        run = store.load(file)
        kind = stored.kind(run)
        plot = plots.waterfall if kind == "ladder" else plots.cpu_time
        return bench.section(run, *self._links(file, self.draw(kind, plot, run)))

    def compare(self, file: Path) -> str:
        """Halfcore and a baseline in the same limits."""
        found, name = comparisons.load(file), f"compare-{stored.about(file, 'compare')}"
        return sections.compare(found, *self._links(file, self.draw(name, plots.forest, found)))

    def search(self, file: Path) -> str:
        """The least limits, with what was found before and since."""
        found, name = searches.load(file), f"search-{stored.about(file, 'search')}"
        links = self._links(file, self.draw(name, plots.frontier, found))
        return sections.search(found, *links, sections.history(file, self._out))

    def study(self, file: Path) -> str:
        """One of the studies; only `scale` has a picture."""
        found = studies.load(file)
        kind = stored.kind(found)
        drawn = self.draw(kind, plots.scale, found) if kind == "scale" else None
        return sections.study(found, *self._links(file, drawn))

    def _links(self, file: Path, picture: Path | None) -> tuple[str, str]:
        return link(file, self._out), picture.name if picture else ""
