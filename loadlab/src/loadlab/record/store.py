"""What is stored. A run's folder, where every line reaches the file at once, so that a killed run
keeps all but the last; it is read whole or broken off, and what is missing is named. And one JSON
file for results of several runs, written whole, checked when read.
"""

import gzip
import math
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from loadlab.record.histogram import merge
from loadlab.record.schema import FORMAT, Ended, Phase, PhaseName, Run, Sample, Second, Series

RUN_FILE, SECONDS_FILE, SAMPLES_FILE = "run.json", "seconds.jsonl", "samples.jsonl"
VERDICT_FILE = "verdict.json"
S = TypeVar("S", bound=msgspec.Struct)
Line = TypeVar("Line", Second, Sample)


class StoreError(ValueError):
    """What is stored cannot be read; the message names the file and the field."""


def stamp(started_at: str) -> str:
    """A date and time in ISO 8601 as file names begin."""
    return started_at[:19].replace(":", "").replace("T", "-")


def write(kept: msgspec.Struct, file: Path) -> Path:
    """Write a file, whole or not at all; makes its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_name(f".{file.name}")
    written.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    return written.replace(file)


def read_file(file: Path, kind: type[S], form: int) -> S:
    """Read a file that `write` wrote, whose field `format` is `form`; raises `StoreError`."""
    try:
        content = file.read_bytes()
        found = msgspec.json.decode(content, type=dict[str, object]).get("format")
        if found != form:
            raise StoreError(
                f"{file} cannot be read: its format is {found}, expected {form}: another version "
                "of the lab wrote it, and that one can read it"
            )
        return msgspec.json.decode(content, type=kind)
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise StoreError(f"{file} cannot be read, it is damaged or no record: {error}") from None


class Recorder:
    """Keeps the folder of one run. One process writes; errors of the disk (`OSError`) reach the
    caller, who ends the run with them.

    Args:
        folder: is made; must not exist.
        run: written at once, and again whole by `save`.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        folder.mkdir(parents=True)
        self.folder, self.run = folder, run
        self._encoder = msgspec.json.Encoder()
        self._seconds = (folder / SECONDS_FILE).open("ab", buffering=0)
        self._samples = (folder / SAMPLES_FILE).open("ab", buffering=0)
        self.save()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._seconds.close()
        self._samples.close()

    def second(self, line: Second) -> None:
        """Append a second."""
        self._seconds.write(self._encoder.encode(line) + b"\n")

    def sample(self, line: Sample) -> None:
        """Append a sample."""
        self._samples.write(self._encoder.encode(line) + b"\n")

    def begin(self, name: PhaseName, at_s: float, users: int = 0) -> None:
        """End the phase that runs, and begin the next."""
        self._end_phase(at_s)
        self.run.phases.append(Phase(name=name, start_s=at_s, users=users))
        self.save()

    def end(self, ended: Ended, at_s: float) -> None:
        """End the last phase, and say how the run ended."""
        self._end_phase(at_s)
        self.run.ended = ended
        self.save()

    def save(self) -> None:
        """Replace `run.json`, whole or not at all."""
        write(self.run, self.folder / RUN_FILE)

    def _end_phase(self, at_s: float) -> None:
        if self.run.phases and self.run.phases[-1].end_s is None:
            self.run.phases[-1] = msgspec.structs.replace(self.run.phases[-1], end_s=at_s)


def compress(folder: Path) -> None:
    """Pack the lines of a run that has ended: a fraction of the size. What is packed already
    stays."""
    for plain in (folder / SECONDS_FILE, folder / SAMPLES_FILE):
        if not plain.exists():
            continue
        packed = folder / f".{plain.name}.gz"
        with (
            plain.open("rb") as source,
            packed.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as target,
        ):
            shutil.copyfileobj(source, target)
        packed.replace(folder / f"{plain.name}.gz")
        plain.unlink()


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
    return read_file(folder / RUN_FILE, Run, FORMAT)


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
