"""Writing: a run's folder, where every line reaches the file at once, so that a killed run keeps
all but the last; and one JSON file for results of several runs, written whole, checked when read.
"""

import gzip
import shutil
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from loadlab.record.schema import Ended, Phase, PhaseName, Run, Sample, Second

RUN_FILE, SECONDS_FILE, SAMPLES_FILE = "run.json", "seconds.jsonl", "samples.jsonl"
VERDICT_FILE = "verdict.json"
S = TypeVar("S", bound=msgspec.Struct)


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


def read(file: Path, kind: type[S], form: int) -> S:
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
