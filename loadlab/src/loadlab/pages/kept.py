"""Load runs that the documentation shows: kept whole next to the bench's, so that every reader can
judge them again.

`loadlab keep` copies a run, or all repeats of its set, without its reports; `sets` reads them back.
What is kept is the record itself, packed: some hundred kilobytes for 10,000 users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadlab.record.read import Log, read
from loadlab.record.write import RUN_FILE
from loadlab.verdict.judge import Verdict, judge
from loadlab.verdict.repeats import Judged, SetVerdict, combine


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


def sets(folder: Path) -> list[KeptSet]:
    """Everything kept, judged again, oldest first."""
    groups: dict[str, list[Kept]] = {}
    for file in sorted(folder.glob(f"*/{RUN_FILE}")):
        log = read(file.parent)
        groups.setdefault(log.run.set_id or log.run.id, []).append(
            Kept(file.parent, log, judge(log))
        )
    return [
        KeptSet(runs, combine([Judged(each.log.run, each.verdict) for each in runs]))
        for runs in groups.values()
    ]


def newest(found: Sequence[KeptSet]) -> list[KeptSet]:
    """Of sets that asked the same of the same, the last."""
    return list({_asked(each): each for each in found}.values())


def _asked(each: KeptSet) -> tuple[object, ...]:
    run = each.runs[0].log.run
    return run.tier.name, run.scenario.name, run.scenario.users, run.backend, run.engine
