"""`loadlab render`: docs/benchmarks.md and its plots, from stored runs only."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from loadlab.experiments import runner
from loadlab.experiments import search as said
from loadlab.experiments.compare import Comparison
from loadlab.experiments.search import Search
from loadlab.pages import compare_page as comparison_page
from loadlab.pages import (
    kept,
    kept_page,
    ladder_page,
    memory_page,
    readme,
    search_page,
    studies_pages,
)
from loadlab.pages.ablation import sentences
from loadlab.pages.bench_goals import findings
from loadlab.pages.bench_plot import plot
from loadlab.pages.bench_tables import doubts, provenance, tables
from loadlab.pages.frontier import frontier
from loadlab.record import store
from loadlab.record.store import Run, StoreError

_INTRO = """# Benchmarks

*Written by `loadlab render` from stored runs; not edited by hand. `just bench`, `just ablate` and
`just load-keep` make new ones.*

The figure is the server's CPU time per request: what its control group used in the measured window,
divided by the right answers in it; it does not depend on how fast the generator is. Server and
generator share one machine over loopback, so the generator pays a part of the kernel's work. Every
answer is checked: status, label and length. Latency counts from the moment the request was meant to
go (sparse) or went (saturated); failures count from the first connection on. Memory is what the
kernel charged to the group; pages of files that were in memory before, shared libraries above all,
are charged to the group that read them first. Each server runs one worker process; figures are
medians over the rounds, spreads are smallest and largest."""


_LADDER = """From the service that the course begins with to halfcore, each step against the one
before, all on one core. The first services call a real MLflow server and a real PostgreSQL, which
run on the other core, over loopback: their work is not charged to the service, and a network's
delay is not in the figures. [The baselines](comparison.md) says what each step is."""

_COMPARED = """## In the same limits

halfcore and a baseline in one tier, under the load runs' own rules: a run that proves nothing is
INVALID and counts for neither side. Ratios are medians over the blocks in which both sides were
measured validly, with bootstrap intervals over these blocks. A side that fails spends CPU time on
answers that are too late: its time per right answer includes the overload. The bench and the ladder
show its cost without overload."""

_SEARCHED = """## How little is enough

The least limits in which a run with so many users passes: first the CPU limit with ample memory,
then memory at the least CPU limit that passed. A minimum passed three of three runs at full length,
each on a fresh server; one failure refutes it ([how](search.md)). `just search rerun=yes` runs it
again."""


_Chapter = tuple[Sequence[str], Sequence[Path]]
"""Sections of the page, and the pictures that they show."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `loadlab render`."""
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("docs/runs"),
        help="where runs are stored (default: %(default)s)",
    )
    parser.add_argument("--bench", type=Path, help="stored run to show (default: the newest)")
    parser.add_argument(
        "--ablate", type=Path, help="stored ablation to show (default: the newest, if there is one)"
    )
    parser.add_argument(
        "--ladder", type=Path, help="stored ladder to show (default: the newest, if there is one)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs/benchmarks.md"),
        help="page to write (default: %(default)s)",
    )


def main(asked: argparse.Namespace) -> list[Path]:
    """Write the document and, next to it, the plots; returns the files; raises `StoreError`."""
    bench = asked.bench or store.latest(asked.runs, "bench")
    ablation = asked.ablate or store.latest(asked.runs, "ablate")
    if bench is None:
        raise StoreError(
            f"no stored run in {asked.runs}: `loadlab bench` makes one; smoke tests are shown "
            "only when named with --bench"
        )
    ladder = asked.ladder or store.latest(asked.runs, "ladder")
    written = render(
        bench,
        ablation,
        asked.out,
        ladder=ladder,
        compared=_newest(asked.runs, "compare"),
        searched=_newest(asked.runs, "search"),
        loads=kept.sets(asked.runs),
        studies=studies_pages.sections(asked.runs, asked.out),
    )
    operations = asked.out.with_name("operations.md")
    return [*written, *([operations] if memory_page.fill(operations, asked.runs) else [])]


def render(
    bench: Path,
    ablation: Path | None,
    out: Path,
    *,
    ladder: Path | None = None,
    compared: Sequence[Path] = (),
    loads: Sequence[kept.KeptSet] = (),
    searched: Sequence[Path] = (),
    studies: _Chapter = ((), ()),
) -> list[Path]:
    """See `main`; `studies` are their sections and their pictures, which are already written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn = kept_page.picture(loads, out.with_name(f"{out.stem}-load.svg"))
    chapters = [
        _measurements([file for file in (bench, ablation) if file], ladder, out),
        _comparisons(compared, out),
        _searches(searched, out),
        studies,
    ]
    kept_runs = [kept_page.section(loads, out.parent)] if loads else []
    texts = [_INTRO, *kept_runs, *(text for texts, _ in chapters for text in texts)]
    out.write_text("\n\n".join(texts) + "\n")
    written = [out, *(picture for _, pictures in chapters for picture in pictures)]
    if drawn:
        written.append(drawn)
    first_page = out.parent.parent / "README.md"
    if readme.fill(
        first_page, bench, loads, drawn, ladder=ladder, compared=compared, searched=searched
    ):
        written.append(first_page)
    return written


def _measurements(files: Sequence[Path], ladder: Path | None, out: Path) -> _Chapter:
    texts, pictures = [], []
    for file in files:
        run = store.load(file)
        picture = out.with_name(f"{out.stem}-{run.what}.svg")
        plot(run, picture)
        pictures.append(picture)
        section = _comparison if run.what == "bench" else _ablation
        texts.append(section(run, _link(file, out), picture))
    if ladder is not None:
        run, picture = store.load(ladder), out.with_name(f"{out.stem}-ladder.svg")
        ladder_page.waterfall(run, picture)
        pictures.append(picture)
        texts.append(_ladder(run, _link(ladder, out), picture))
    return texts, pictures


def _comparisons(files: Sequence[Path], out: Path) -> _Chapter:
    texts, pictures = [_COMPARED] if files else [], []
    for file in files:
        comparison = runner.load(file, Comparison)
        picture = out.with_name(f"{out.stem}-{_kind(file, 'compare')}.svg")
        texts.append(comparison_page.markdown(comparison, _link(file, out), picture.name))
        if comparison_page.forest(comparison, picture):
            pictures.append(picture)
    return texts, pictures


def _searches(files: Sequence[Path], out: Path) -> _Chapter:
    texts, pictures = [_SEARCHED] if files else [], []
    for file in files:
        search = runner.load(file, Search)
        picture = out.with_name(f"{out.stem}-{_kind(file, 'search')}.svg")
        history = _history(file, out.parent)
        texts.append(search_page.markdown(search, _link(file, out), picture.name, history))
        frontier(search, picture)
        pictures.append(picture)
    return texts, pictures


def _link(file: Path, out: Path) -> str:
    return Path(os.path.relpath(file, out.parent)).as_posix()


def _newest(runs: Path, what: str) -> list[Path]:
    """The newest comparison of every tier, baseline and number of users, or search of every server,
    scenario and number of users."""
    newest = {_kind(file, what): file for file in sorted(runs.glob(f"*-{what}-*.json"))}
    return [newest[kind] for kind in sorted(newest)]


def _history(file: Path, home: Path) -> list[str]:
    """What a search's reruns say, and what searches of the same kind found before it."""
    before = [
        each
        for each in sorted(file.parent.glob(f"*-{_kind(file, 'search')}.json"))
        if each.name < file.name
    ]
    links = [Path(os.path.relpath(each, home)).as_posix() for each in before]
    earlier = [
        said.earlier(runner.load(each, Search), link)
        for each, link in zip(before, links, strict=True)
    ]
    return [*(said.again(each) for each in said.reruns(file)), *reversed(earlier)]


def _kind(file: Path, what: str) -> str:
    return f"{what}-{file.stem.partition(f'-{what}-')[2]}"


def _comparison(run: Run, link: str, picture: Path) -> str:
    found = findings(run)
    short = [finding.text for finding in found if finding.reached is False]
    return "\n\n".join(
        part
        for part in (
            "## Side by side",
            provenance(run, link),
            f"![CPU time per request]({picture.name})",
            tables(run),
            "### Ratios of CPU time per request, and goals",
            _bullets([f"{_mark(finding.reached)}{finding.text}" for finding in found]),
            "**Short of its goal:**\n\n" + _bullets(short)
            if short
            else "Nothing that was measured is short of its goal.",
            _doubts(run),
        )
        if part
    )


def _ablation(run: Run, link: str, picture: Path) -> str:
    parts = (
        "## The ablation: what each default is worth",
        provenance(run, link),
        f"![The ablation]({picture.name})",
        tables(run),
        "### What the defaults rest on",
        _bullets(sentences(run)),
        _doubts(run),
    )
    return "\n\n".join(part for part in parts if part)


def _ladder(run: Run, link: str, picture: Path) -> str:
    parts = [
        "## The ladder: one change at a time",
        _LADDER,
        provenance(run, link),
        f"![The ladder]({picture.name})",
    ]
    for model in ladder_page.models(run):
        parts += [
            f"### {model}",
            ladder_page.table(run, model),
            _bullets(ladder_page.sentences(run, model)),
        ]
    return "\n\n".join(part for part in [*parts, _doubts(run)] if part)


def _doubts(run: Run) -> str:
    found = doubts(run)
    return f"### Rounds to doubt\n\n{_bullets(found)}" if found else ""


def _mark(reached: bool | None) -> str:
    return {True: "reached: ", False: "**short**: ", None: ""}[reached]


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
