"""Load runs that the documentation shows: kept whole next to the bench's, so that every reader can
judge them again.

`keep` copies a run, or all repeats of its set, without its reports; `sets` reads them back. What is
kept is the record itself, packed: some hundred kilobytes for 10,000 users.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadlab.record.read import Log, RecordError, read
from loadlab.record.write import RUN_FILE, SAMPLES_FILE, SECONDS_FILE, compress
from loadlab.report import library
from loadlab.verdict.judge import VERDICT_FILE, Verdict, judge, store
from loadlab.verdict.repeats import Judged, SetVerdict, combine

_FILES = (RUN_FILE, VERDICT_FILE, f"{SECONDS_FILE}.gz", f"{SAMPLES_FILE}.gz")


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


def keep(name: str, runs: Path, kept: Path) -> list[Path]:
    """Copy a run of the folder `runs`, or with it all repeats of its set, into `kept`; returns the
    folders.

    Raises:
        NoSuchRun, RecordError: no run of that name, or one that has not ended.
    """
    run = library.find(runs, name)
    log = read(run)
    if log.run.ended is None:
        raise RecordError(f"{run}: the run has not ended")
    mates = (
        [
            run.parent / entry.id
            for entry in library.history(run.parent)
            if entry.set_id == log.run.set_id
        ]
        if log.run.set_id
        else [run]
    )
    return [_copy(mate, kept / mate.name) for mate in mates]


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


def _copy(run: Path, target: Path) -> Path:
    compress(run)  # where a full disk kept its end from doing so
    if not (run / VERDICT_FILE).exists():
        store(judge(read(run)), run)
    target.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        shutil.copyfile(run / name, target / name)
    return target
