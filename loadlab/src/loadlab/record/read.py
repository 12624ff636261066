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

from loadlab.record.histogram import merge
from loadlab.record.schema import FORMAT, Phase, PhaseName, Run, Sample, Second, Series
from loadlab.record.write import RUN_FILE, SAMPLES_FILE, SECONDS_FILE

Line = TypeVar("Line", Second, Sample)
LOAD: tuple[PhaseName, ...] = (
    "ramp",
    "settle",
    "steady",
    "repeated",
    "alike",
    "overload",
    "recovery",
    "drain",
)
"""Phases in which the users are there."""


class RecordError(ValueError):
    """Not a run of ours, or of a form that this version does not know; the message names file and
    field."""


@dataclass(frozen=True)
class Log:
    """One run as it was recorded."""

    run: Run
    seconds: list[Second]
    """In time; lines of several workers in the order of arrival: they add up."""
    samples: list[Sample]
    missing: list[str] = field(default_factory=list)
    """One sentence for everything that a whole run has and this one lacks."""
    _merged: dict[tuple[str, ...], Counter[int]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Histograms that were asked for before: rules and reports look at the same ones."""

    def phase(self, name: PhaseName) -> Phase | None:
        """The phase, its first turn if it alternated with another, or None if it never began."""
        return next((phase for phase in self.run.phases if phase.name == name), None)

    def end_of(self, phase: Phase) -> float:
        """When it ended; for one that was cut off, the last thing known."""
        if phase.end_s is not None:
            return phase.end_s
        known = [float(line.t + 1) for line in self.seconds[-1:]] + [
            line.t for line in self.samples[-1:]
        ]
        return max([*known, phase.start_s])

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
        """Not to be changed: counts per microsecond of `response`, `service`, `failed`, `connect`,
        `lag` or `loop_lag`."""
        key = (series, kind, *phases)
        if key not in self._merged:
            self._merged[key] = merge(getattr(line, kind) for line in self.of(series, *phases))
        return self._merged[key]

    def sampled(self, *phases: PhaseName) -> list[Sample]:
        """Samples taken within the phases."""
        return self._within([phase for phase in self.run.phases if phase.name in phases])

    def turns(self, name: PhaseName) -> list[tuple[float, list[Sample]]]:
        """Length and samples of each turn of a phase."""
        return [
            (self.end_of(phase) - phase.start_s, self._within([phase]))
            for phase in self.run.phases
            if phase.name == name
        ]

    def _within(self, phases: list[Phase]) -> list[Sample]:
        edges = [(phase.start_s, self.end_of(phase)) for phase in phases]
        return [
            sample
            for sample in self.samples
            if any(start <= sample.t <= end for start, end in edges)
        ]


def read(folder: Path) -> Log:
    """Read the folder of a run; raises `RecordError` if there is no run.json, or one of another
    form."""
    run = read_run(folder)
    missing: list[str] = []
    seconds = list(_lines(folder / SECONDS_FILE, Second, missing))
    samples = list(_lines(folder / SAMPLES_FILE, Sample, missing))
    if run.ended is None:
        missing.append("the run's end: it was killed, or it still runs")
    missing += [
        f"the phase {name}"
        for name in ("ramp", "settle", "steady", "drain")
        if name not in {phase.name for phase in run.phases}
    ]
    return Log(
        run,
        sorted(seconds, key=lambda line: line.t),
        sorted(samples, key=lambda line: line.t),
        missing,
    )


def read_run(folder: Path) -> Run:
    """Only `run.json`; raises as `read`."""
    file = folder / RUN_FILE
    try:
        content = file.read_bytes()
        form = msgspec.json.decode(content, type=dict[str, object]).get("format")
        if form != FORMAT:
            raise RecordError(f"{file}: format is {form}, expected {FORMAT}")
        return msgspec.json.decode(content, type=Run)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"{file}: {error}") from None


def _lines(file: Path, kind: type[Line], missing: list[str]) -> Iterator[Line]:
    """Every line that is whole. The last may be cut off; one in the middle that is not ours is
    counted as missing."""
    decoder = msgspec.json.Decoder(kind)
    broken = 0
    for line in _raw_lines(file, missing):
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError:
            broken += 1
    if broken:
        missing.append(f"{broken} unreadable {'line' if broken == 1 else 'lines'} of {file.name}")


def _raw_lines(file: Path, missing: list[str]) -> Iterator[bytes]:
    packed = file.with_name(f"{file.name}.gz")
    try:
        with gzip.open(packed) if packed.exists() else file.open("rb") as lines:
            yield from lines
    except (OSError, EOFError, zlib.error) as error:
        missing.append(
            f"{file.name}: "
            f"{error.strerror if isinstance(error, OSError) and error.strerror else error}"
        )
