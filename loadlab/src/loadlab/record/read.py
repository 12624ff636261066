"""Reading a run, whole or broken off: what is there is given, and what is missing is named."""

import gzip
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from loadlab.record import store
from loadlab.record.histogram import merge
from loadlab.record.schema import FORMAT, Phase, PhaseName, Run, Sample, Second, Series
from loadlab.record.store import RUN_FILE, SAMPLES_FILE, SECONDS_FILE

Line = TypeVar("Line", Second, Sample)


@dataclass(frozen=True)
class Log:
    """One run as it was recorded. Seconds and samples are in time; lines of several workers are in
    the order of arrival: they add up."""

    run: Run
    seconds: list[Second]
    samples: list[Sample]
    missing: list[str] = field(default_factory=list)
    """One sentence for everything that a whole run has and this one lacks."""

    def phase(self, name: PhaseName) -> Phase | None:
        """The phase, its first turn if it alternated with another, or None if it never began."""
        return next((phase for phase in self.run.phases if phase.name == name), None)

    def end_of(self, phase: Phase) -> float:
        """When it ended; for one that was cut off, the last thing known."""
        if phase.end_s is not None:
            return phase.end_s
        known = [line.t + 1.0 for line in self.seconds[-1:]]
        return max([*known, *(line.t for line in self.samples[-1:]), phase.start_s])

    def lasted_s(self, name: PhaseName) -> float:
        """Length of a phase, of all its turns together, 0 if it never began."""
        return math.fsum(lasted_s for lasted_s, _ in self.turns(name))

    def of(self, series: Series, *phases: PhaseName) -> list[Second]:
        """Lines of a series; of all phases if none is named."""
        return [
            line
            for line in self.seconds
            if line.series == series and (not phases or line.phase in phases)
        ]

    def histogram(self, series: Series, kind: str, *phases: PhaseName) -> Counter[int]:
        """Counts per microsecond of `response`, `service`, `failed`, `connect`, `lag` or
        `loop_lag`."""
        return merge(getattr(line, kind) for line in self.of(series, *phases))

    def sampled(self, *phases: PhaseName) -> list[Sample]:
        """Samples taken within the phases."""
        return self._within([phase for phase in self.run.phases if phase.name in phases])

    def turns(self, name: PhaseName) -> list[tuple[float, list[Sample]]]:
        """Length and samples of each turn of a phase."""
        turns = [phase for phase in self.run.phases if phase.name == name]
        return [(self.end_of(turn) - turn.start_s, self._within([turn])) for turn in turns]

    def _within(self, phases: list[Phase]) -> list[Sample]:
        edges = [(phase.start_s, self.end_of(phase)) for phase in phases]
        return [
            sample
            for sample in self.samples
            if any(start <= sample.t <= end for start, end in edges)
        ]


def read(folder: Path) -> Log:
    """Read the folder of a run; raises `StoreError` if there is no run.json, or one of another
    form."""
    run = read_run(folder)
    missing: list[str] = []
    seconds = sorted(_lines(folder / SECONDS_FILE, Second, missing), key=lambda line: line.t)
    samples = sorted(_lines(folder / SAMPLES_FILE, Sample, missing), key=lambda line: line.t)
    if run.ended is None:
        missing.append("the run's end: it was killed, or it still runs")
    begun = {phase.name for phase in run.phases}
    whole = ("ramp", "settle", "steady", "drain")
    missing += [f"the phase {name}" for name in whole if name not in begun]
    return Log(run, seconds, samples, missing)


def read_run(folder: Path) -> Run:
    """Only `run.json`; raises as `read`."""
    return store.read(folder / RUN_FILE, Run, FORMAT)


def _lines(file: Path, kind: type[Line], missing: list[str]) -> Iterator[Line]:
    """Every line that is whole. The last may be cut off; one in the middle that is not ours is
    counted as missing."""
    decoder = msgspec.json.Decoder(kind)
    packed, broken = file.with_name(f"{file.name}.gz"), 0
    try:
        with gzip.open(packed) if packed.exists() else file.open("rb") as lines:
            for line in lines:
                try:
                    yield decoder.decode(line)
                except msgspec.DecodeError:
                    broken += 1
    except (OSError, EOFError, zlib.error) as error:
        missing.append(f"{file.name}: {getattr(error, 'strerror', None) or error}")
    if broken:
        missing.append(f"{broken} unreadable {'line' if broken == 1 else 'lines'} of {file.name}")
