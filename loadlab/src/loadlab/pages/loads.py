"""Load runs that the documentation shows: kept whole next to the bench's, so that every reader can
judge them again (`loadlab keep` copies them there)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadlab.pages.template import link, page
from loadlab.record.read import Log, read
from loadlab.record.store import RUN_FILE
from loadlab.verdict.judge import Verdict, judge
from loadlab.verdict.repeats import Judged, SetVerdict, combine

_MOST_ROWS = 6
"""Of the first page."""


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


def sets(folder: Path) -> list[KeptSet]:
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


def newest(found: Sequence[KeptSet]) -> list[KeptSet]:
    """Of sets that asked the same of the same, the last; oldest first."""
    last = {_asked(each): each for each in found}.values()
    return sorted(last, key=lambda each: each.runs[0].log.run.started_at)


def _asked(each: KeptSet) -> tuple[object, ...]:
    run = each.runs[0].log.run
    return run.tier.name, run.scenario.name, run.scenario.users, run.backend, run.engine


def section(found: Sequence[KeptSet], out: Path) -> str:
    """All sets for the page `out`: for each run a row, its verdict and its provenance."""
    links = {one.folder: link(one.folder, out) for each in found for one in each.runs}
    return page("load_runs", sets=found, links=links)


def summary(found: Sequence[KeptSet], readme: Path) -> str:
    """One row for each of the newest sets, medians over its repeats, for the first page."""
    shown = newest(found)[-_MOST_ROWS:]
    links = {one.folder: link(one.folder, readme) for each in shown for one in each.runs}
    return page("readme_loads", sets=shown, links=links)


def to_draw(found: Sequence[KeptSet]) -> Log | None:
    """The last run that passed with the most users."""
    passed = [one.log for each in found for one in each.runs if one.verdict.outcome == "PASS"]
    return max(passed, key=lambda log: (log.run.scenario.users, log.run.started_at), default=None)
