"""`loadlab render`: docs/benchmarks.md and its pictures, and what stands between marks in READMEs
and docs/operations.md, from stored runs only. Load runs that the documentation shows are kept whole
next to the bench's, so that every reader can judge them again (`loadlab keep` copies them
there)."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from loadlab.experiments import runner
from loadlab.experiments.bench import command, measure
from loadlab.experiments.bench.peers import Peers
from loadlab.experiments.bench.subjects import BOOSTED
from loadlab.experiments.compare import Comparison
from loadlab.experiments.search import Search
from loadlab.experiments.studies import KINDS, Study
from loadlab.pages import bench, experiments, peers
from loadlab.pages.template import link, page
from loadlab.record.store import RUN_FILE, Log, StoreError, read
from loadlab.verdict.judge import Judged, SetVerdict, Verdict, combine, judge

_MODEL = "iris"
_FIRST = (_MODEL, "saturated")
"""Of the first page's table."""
_MOST_ROWS = 6
"""Of the summary's table of load runs."""
_READMES = {"README.md": "readme", "README.es.md": "readme.es"}
"""First pages, and the templates of what stands between their marks."""


_AGAINST = {"b": "", "d": "onnx", "tuned": "tuned", "e": "typical"}
"""Rows of the first page: a server's key in the bench, and its name in comparisons; empty: ours, in
all of them."""


class Ends(NamedTuple):
    """How runs of one server ended, and in which comparisons they are."""

    passed: int
    runs: int
    names: list[str]


@dataclass(frozen=True)
class Kept:
    """One run that is kept, and its verdict as its record gives it today."""

    folder: Path
    log: Log
    verdict: Verdict


@dataclass(frozen=True)
class KeptSet:
    """The repeats of one command, or a single run."""

    runs: list[Kept]
    together: SetVerdict

    @property
    def missed(self) -> list[str]:
        """What of the objective a run missed, and by how much; the same measure once."""
        checks = [check for one in self.runs for check in one.verdict.objective]
        missed = [check for check in checks if not check.holds and check.measured is not None]
        return list({check.what: check.text for check in missed}.values())

    @property
    def broken(self) -> list[str]:
        """The rules that do not hold in a run."""
        findings = [finding for one in self.runs for finding in one.verdict.findings]
        return list(dict.fromkeys(each.rule for each in findings if not each.holds))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `loadlab render`."""
    says = "where runs are stored (default: %(default)s)"
    parser.add_argument("--runs", type=Path, default=Path("docs/runs"), help=says)
    says = "page to write (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"), help=says)


def render(runs: Path, out: Path) -> list[Path]:
    """Write the page of the newest runs of a folder, its pictures, and what stands between marks in
    READMEs and docs/operations.md; returns what was written; raises `StoreError`.

    The boosted trees may have been measured in a run of their own.
    """
    newest = measure.latest(runs, "bench", _MODEL) or measure.latest(runs, "bench")
    if newest is None:
        raise StoreError(f"no stored run in {runs} but smoke tests: `loadlab bench` makes one")
    boosted, ladder = measure.latest(runs, "bench", BOOSTED), measure.latest(runs, "ladder")
    others = measure.latest(runs, "ablate"), ladder, measure.latest(runs, "protocols")
    compared, searched = (experiments.newest(runs, kind) for kind in ("compare", "search"))
    loaded = load_sets(runs)
    chapters = Chapters(out)
    benches = [chapters.bench(newest)]
    if boosted and boosted != newest:
        benches.append(chapters.bench(boosted, BOOSTED))
    benches += [chapters.bench(file) for file in others if file]
    if peers_run := measure.latest(runs, "peers"):
        benches.append(chapters.peers(peers_run))
    lines = experiments.least(out, searched) + experiments.compared(out, compared)
    for file, said in ((boosted, bench.boosted_lines), (ladder, bench.ladder_lines)):
        lines += said(runner.load(file, measure.Run), link(file, out)) if file else []
    text = page(
        "benchmarks",
        summary=load_summary(loaded, out) if loaded else "",
        lines=lines,
        loads=load_section(loaded, out) if loaded else "",
        benches=benches,
        compared=[chapters.compare(file) for file in compared],
        searched=[chapters.search(file) for file in searched],
        studied=[chapters.study(file) for file in experiments.newest(runs, *KINDS)],
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"{text}\n")
    shown = to_draw(loaded)
    curve = chapters.draw("load", shown) if shown else ""
    places = {out.parent.parent / name: template for name, template in _READMES.items()}
    filled = [
        readme
        for readme, template in places.items()
        if fill(
            readme,
            "figures",
            partial(first_page, readme, template, newest, compared, loaded, peers_run, curve),
        )
    ]
    operations, files = out.with_name("operations.md"), sorted(runs.glob("*-memory-*.json"))
    if files and fill(operations, "memory", lambda: memory(files[-1], operations)):
        filled.append(operations)
    settings = out.with_name("peers.md")
    if fill(settings, "settings", peers.settings):
        filled.append(settings)
    return [out, *chapters.pictures, *filled]


def fill(file: Path, mark: str, text: Callable[[], str]) -> bool:
    """Write a text between the two marks of a page; False, and no text is made, where there is no
    such file, or no marks."""
    marked = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- /{mark} -->)", re.DOTALL)
    before = file.read_text() if file.exists() else ""
    if not marked.search(before):
        return False
    file.write_text(marked.sub(lambda _: f"{text()}\n", before))
    return True


def memory(file: Path, out: Path) -> str:
    """The table of docs/operations.md."""
    run, asked = runner.load(file, command.Memory), command.ASKED
    shown = {"run": run, "held": run.rows, "asked": asked, "rest_s": command.REST_S}
    return page("memory", link=link(file, out), **shown)


def first_page(
    readme: Path,
    template: str,
    newest: Path,
    compared: Sequence[Path],
    loaded: Sequence[KeptSet],
    peers_run: Path | None,
    curve: str,
) -> str:
    """What stands between the marks of a README: one row a server, with its runs in comparisons
    that passed and its CPU time in a bench; other model servers; then a load run that passed, one
    that did not, and a picture."""
    run = runner.load(newest, measure.Run)
    panels = [each for each in bench.panels(run) if (each.model, each.regime) == _FIRST]
    found = [(runner.load(file, Comparison), file) for file in compared]
    files: dict[str, tuple[Comparison, Path]] = {each.against: (each, file) for each, file in found}
    passed = [each for each in loaded if each.together.outcome == "PASS"]
    return page(
        template,
        run=run,
        null_us=panels[0].null_us if panels else None,
        cpu_us={each.key: each.cpu_us for panel in panels for each in panel.measured},
        asked=found[0][0] if found else None,
        ends={key: _ends(files, name) for key, name in _AGAINST.items()},
        passed=max(passed, key=lambda each: len(each.runs), default=None),
        failed=[each for each in newest_sets(loaded) if each.together.outcome == "FAIL"][-1:],
        link=lambda place: link(place, readme),
        files={"bench": newest} | {name: file for name, (_, file) in files.items()},
        peers=peers.at_saturation(runner.load(peers_run, Peers)) if peers_run else [],
        curve=f"docs/{curve}" if curve else "",
    )


def _ends(files: Mapping[str, tuple[Comparison, Path]], other: str) -> Ends:
    """Of halfcore in all comparisons, or of the other side of one."""
    names = [name for name in files if other in ("", name)]
    trials = [each for name in names for each in files[name][0].of(other or "halfcore")]
    return Ends(sum(each.outcome == "PASS" for each in trials), len(trials), names)


class Chapters:
    """Writes stored experiments as sections of a page, and their pictures next to it."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.pictures: list[Path] = []

    def bench(self, file: Path, about: str = "") -> str:
        """Or an ablation, a ladder, the protocols; `about` distinguishes those of a kind."""
        run = runner.load(file, measure.Run)
        drawn = self.draw("-".join(filter(None, (run.kind, about))), run)
        return bench.section(run, link(file, self._out), drawn, about)

    def peers(self, file: Path) -> str:
        """Halfcore and other model servers."""
        found = runner.load(file, Peers)
        return peers.section(found, link(file, self._out), self.draw(found.kind, found))

    def compare(self, file: Path) -> str:
        """Halfcore and a baseline in the same limits."""
        found, name = runner.load(file, Comparison), experiments.name(file)
        return experiments.compare(found, link(file, self._out), self.draw(name, found))

    def search(self, file: Path) -> str:
        """The least limits, with what was found before and since."""
        found, history = runner.load(file, Search), experiments.history(file, self._out)
        drawn = self.draw(experiments.name(file), found)
        return experiments.search(found, link(file, self._out), drawn, history)

    def study(self, file: Path) -> str:
        """One of the studies."""
        found = runner.load(file, Study)
        return experiments.study(found, link(file, self._out), self.draw(found.kind, found))

    def draw(self, name: str, subject: object) -> str:
        """The picture's name; empty if there is none of this kind, or nothing to draw."""
        # Imported late: measuring does without Matplotlib, and it takes its time.
        from loadlab.pages.plots import PLOTS

        plot = PLOTS.get(name.partition("-")[0])
        file = self._out.with_name(f"{self._out.stem}-{name}.svg")
        if plot is None or not plot(subject, file):
            return ""
        self.pictures.append(file)
        return file.name


def load_sets(folder: Path) -> list[KeptSet]:
    """Everything kept, judged again, oldest first."""
    groups: dict[str, list[Kept]] = {}
    for file in sorted(folder.glob(f"*/{RUN_FILE}")):
        log = read(file.parent)
        kept = Kept(file.parent, log, judge(log))
        groups.setdefault(log.run.set_id or log.run.id, []).append(kept)
    return [
        KeptSet(runs, combine([Judged(each.log.run, each.verdict) for each in runs]))
        for runs in groups.values()
    ]


def newest_sets(found: Sequence[KeptSet]) -> list[KeptSet]:
    """Of sets that asked the same of the same, by whichever engine, the last; oldest first."""
    last = {_asked(each): each for each in found}.values()
    return sorted(last, key=lambda each: each.runs[0].log.run.started_at)


def _asked(each: KeptSet) -> tuple[object, ...]:
    run = each.runs[0].log.run
    return run.tier.name, run.scenario.name, run.scenario.users, run.backend


def load_section(found: Sequence[KeptSet], out: Path) -> str:
    """All sets for the page `out`: for each run a row, its verdict and its provenance."""
    links = {one.folder: link(one.folder, out) for each in found for one in each.runs}
    return page("load_runs", sets=found, links=links)


def load_summary(found: Sequence[KeptSet], out: Path) -> str:
    """One row for each of the newest sets, medians over its repeats, for the page `out`."""
    shown = newest_sets(found)[-_MOST_ROWS:]
    links = {one.folder: link(one.folder, out) for each in shown for one in each.runs}
    return page("load_summary", sets=shown, links=links)


def to_draw(found: Sequence[KeptSet]) -> Log | None:
    """The last run that passed with the most users."""
    passed = [one.log for each in found for one in each.runs if one.verdict.outcome == "PASS"]
    return max(passed, key=lambda log: (log.run.scenario.users, log.run.started_at), default=None)
