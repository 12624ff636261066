"""All stored load runs, a folder each: found by name, listed, and what repeats of one allow to be
claimed."""

from pathlib import Path

import msgspec

from loadlab.record.read import read, read_run
from loadlab.record.schema import Run
from loadlab.record.store import RUN_FILE, VERDICT_FILE, StoreError
from loadlab.verdict.judge import Verdict, judge
from loadlab.verdict.repeats import Judged, combine


class NoSuchRun(LookupError):
    """No run matches; the message quotes the given name and says how to name a run."""


def history(folder: Path, set_id: str = "") -> list[Judged]:
    """All runs of a folder that can be read, oldest first; or the repeats of one set."""
    found = []
    for file in folder.glob(f"*/{RUN_FILE}"):
        try:
            run = read_run(file.parent)
            if not set_id or run.set_id == set_id:
                found.append(Judged(run, _verdict(file.parent)))
        except StoreError:  # of another version of the lab
            continue
    return sorted(found, key=lambda each: (each.run.started_at, each.run.id))


def find(folder: Path, name: str) -> Path:
    """The folder of a run: by path, by id, by the beginning of one id, or `latest`; raises
    `NoSuchRun`."""
    if (Path(name) / RUN_FILE).is_file():
        return Path(name)
    known = sorted(file.parent.name for file in folder.glob(f"*/{RUN_FILE}"))
    if name == "latest":
        matching = known[-1:]
    else:
        begin_so = [each for each in known if each.startswith(name)]
        matching = [name] if name in known else begin_so
    if len(matching) != 1:
        what = f"{len(matching)} runs begin with {name!r}"
        what = what if matching else f"no run {name!r} in {folder}"
        raise NoSuchRun(f"{what}: give an id of `loadlab history`, a folder, or latest")
    return folder / matching[0]


def claim_for(folder: Path, run: Run) -> tuple[str, list[Path]]:
    """What the repeats that a run belongs to allow to be claimed, and the folders of all of them.

    Both are empty if they are not all there, or do not hold.
    """
    repeats = history(folder, run.set_id) if run.set_id else []
    claim = combine(repeats).claim if repeats else ""
    return claim, [folder / each.run.id for each in repeats] if claim else []


def _verdict(run: Path) -> Verdict:
    """As it was stored, or, of a run that was killed before, as its record says."""
    try:
        return msgspec.json.decode((run / VERDICT_FILE).read_bytes(), type=Verdict)
    except (OSError, msgspec.DecodeError):
        return judge(read(run))
