"""Writing a run: every line reaches the file at once, so that a killed run keeps all but the
last."""

import gzip
import os
import shutil
from pathlib import Path
from typing import Self

import msgspec

from loadlab.record import store
from loadlab.record.schema import Ended, Phase, PhaseName, Run, Sample, Second

RUN_FILE, SECONDS_FILE, SAMPLES_FILE = "run.json", "seconds.jsonl", "samples.jsonl"
VERDICT_FILE = "verdict.json"


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
        self.close()

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
        store.write(self.run, self.folder / RUN_FILE)

    def close(self) -> None:
        """Close the files; idempotent."""
        self._seconds.close()
        self._samples.close()

    def _end_phase(self, at_s: float) -> None:
        if self.run.phases and self.run.phases[-1].end_s is None:
            self.run.phases[-1] = msgspec.structs.replace(self.run.phases[-1], end_s=at_s)


def store_verdict(verdict: msgspec.Struct, folder: Path) -> None:
    """Write the verdict into its run's folder."""
    (folder / VERDICT_FILE).write_bytes(
        msgspec.json.format(msgspec.json.encode(verdict), indent=1) + b"\n"
    )


def compress(folder: Path) -> None:
    """Pack the lines of a run that has ended: a fraction of the size. What is packed already
    stays."""
    for name in (SECONDS_FILE, SAMPLES_FILE):
        plain = folder / name
        if not plain.exists():
            continue
        packed = folder / f".{name}.gz"
        with (
            plain.open("rb") as source,
            packed.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as target,
        ):
            shutil.copyfileobj(source, target)
        os.replace(packed, folder / f"{name}.gz")  # noqa: PTH105
        plain.unlink()
