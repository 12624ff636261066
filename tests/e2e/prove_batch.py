"""`just prove-batch`: `halfcore predict` over all rows of the forest cover data.

Its labels must be those of `mlflow.pyfunc`. Its CPU time on one core may be 1.2 times that of a
process which only reads the same file and runs ONNX Runtime on it (tests/support/plain_scoring.py),
and ten times the rows must take no more memory. Both are measured from the start of the process to
its end, with one thread, in turn; both find their modules compiled, as after any first run.
`--short` runs each once and judges no time.
"""

import argparse
import csv
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from halfcore.offline.score import newest
from support import plain_scoring
from support.measured import Measured, measured
from support.proof import ROOT, Check, begin, conclude

MODEL = "cover-middle"
SHORT_MODEL = "cover-small"
"""A row of it costs a microsecond, less than writing its answer: its times say nothing."""
TIMES = 10
MOST_RATIO = 1.2
"""CPU time, to that of reading and ONNX Runtime."""
MOST_MORE_BYTES = 16 << 20
"""Peak memory at ten times the rows; an allocator keeps a few megabytes more or less."""
FORMATS = ("csv", "parquet")


class Files(NamedTuple):
    """The rows, once and several times over."""

    once: dict[str, Path]
    """Format → file."""
    many: dict[str, Path]


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = f"default: {MODEL}, with --short {SHORT_MODEL}"
    parser.add_argument("models", nargs="*", metavar="NAME", help=names)
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement; default: 5")
    parser.add_argument("--short", action="store_true", help="one round, no time is judged")
    parser.add_argument("--halfcore", type=Path, default=ROOT / ".halfcore", help="its folder")
    asked = parser.parse_args()
    console = Console(width=140)
    begun = begin(console)
    checks: list[Check] = []
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "compiled")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        files = _files(Path(folder))
        for name in asked.models or [SHORT_MODEL if asked.short else MODEL]:
            found = _prove(name, files, Path(folder), asked)
            figures[name] = found[1]
            checks += found[0]
    title = "halfcore predict over the rows of the forest cover data"
    return conclude(begun, "batch", title, checks, figures, console=console)


def _prove(
    name: str, files: Files, folder: Path, asked: argparse.Namespace
) -> tuple[list[Check], dict[str, Any]]:
    bundle = newest(asked.halfcore / "bundles" / name)
    rounds = 1 if asked.short else asked.rounds
    answers = {kind: _answers(bundle, files.once[kind], folder) for kind in FORMATS}
    expected = _labels(name, files.once["parquet"], asked.halfcore)
    measured(_plain(bundle, files.once["csv"]))  # compiles its modules; the others are by now
    checks = []
    for kind, found in answers.items():
        wrong = sum(a != b for a, b in zip(found, expected, strict=True))
        text = f"{wrong:,} of {len(expected):,} differ"
        checks.append(Check(f"{name}, {kind}: labels of mlflow.pyfunc", text, "0", wrong == 0))
    times = _times(bundle, files, rounds)
    checks += [_ratio(name, size, times, judged=not asked.short) for size in ("once", "many")]
    for kind in FORMATS:
        once, many = (times[f"{kind}, {size}, one core"] for size in ("once", "many"))
        more = max(each.peak_bytes for each in many) - max(each.peak_bytes for each in once)
        text = f"{max(each.peak_bytes for each in once) / 1e6:.0f} MB, {more / 1e6:+.1f} MB"
        allowed = f"≤ {MOST_MORE_BYTES / 1e6:+.1f} MB"
        checks.append(
            Check(
                f"{name}, {kind}: memory at {TIMES} × rows", text, allowed, more <= MOST_MORE_BYTES
            )
        )
    return checks, {key: [each._asdict() for each in runs] for key, runs in times.items()}


def _ratio(name: str, size: str, times: dict[str, list[Measured]], *, judged: bool) -> Check:
    ours, plain, all_cores, plain_all = (
        times[f"{what}, {size}, {cores}"]
        for cores, what in product(("one core", "all cores"), ("csv", "plain"))
    )
    cpu, plain_cpu = (statistics.median(each.cpu_s for each in runs) for runs in (ours, plain))
    wall, plain_wall = (
        statistics.median(each.wall_s for each in runs) for runs in (all_cores, plain_all)
    )
    text = (
        f"{cpu:.2f} s to {plain_cpu:.2f} s: {cpu / plain_cpu:.2f} "
        f"(elapsed on all cores {wall:.2f} s to {plain_wall:.2f} s)"
    )
    rows = "all rows" if size == "once" else f"{TIMES} × all rows"
    allowed = f"≤ {MOST_RATIO}" if judged else "not judged"
    held = not judged or cpu <= MOST_RATIO * plain_cpu
    return Check(f"{name}, {rows}: CPU time to ONNX Runtime and reading", text, allowed, held)


def _times(bundle: Path, files: Files, rounds: int) -> dict[str, list[Measured]]:
    """What each command took in each round; in a round all run one after the other."""
    found: dict[str, list[Measured]] = {}
    one = {min(os.sched_getaffinity(0))}
    for _ in range(rounds):
        for size, cores in product(("once", "many"), ("one core", "all cores")):
            rows: dict[str, Path] = getattr(files, size)
            commands = {kind: _predict(bundle, file, "/dev/null") for kind, file in rows.items()}
            commands["plain"] = _plain(bundle, rows["csv"])
            for what, command in commands.items():
                each = measured(command, cores=one if cores == "one core" else None)
                if each.status:
                    raise SystemExit(f"prove-batch: {' '.join(command)} ended with {each.status}")
                found.setdefault(f"{what}, {size}, {cores}", []).append(each)
    return found


def _plain(bundle: Path, rows: Path) -> list[str]:
    return [sys.executable, plain_scoring.__file__, str(bundle), str(rows)]


def _predict(bundle: Path, rows: Path, out: str) -> list[str]:
    kind = rows.suffix[1:]
    command = [str(Path(sys.executable).with_name("halfcore")), "predict", str(bundle), str(rows)]
    return [*command, "--out", out, "--out-format", kind]


def _answers(bundle: Path, rows: Path, folder: Path) -> Sequence[Any]:
    """The labels of `halfcore predict`, as texts."""
    from pyarrow import parquet  # late, as in the server

    out = folder / f"answers{rows.suffix}"
    status = measured(_predict(bundle, rows, str(out))).status
    if status:
        raise SystemExit(f"prove-batch: halfcore predict ended with {status}")
    if rows.suffix == ".csv":
        with out.open(newline="", encoding="utf-8") as text:
            return [row["prediction"] for row in csv.DictReader(text)]
    return [str(label) for label in parquet.read_table(out)["prediction"].to_pylist()]


def _labels(name: str, rows: Path, halfcore: Path) -> list[str]:
    """The registered model's labels, as texts."""
    import mlflow  # late: it takes seconds
    import pandas as pd

    mlflow.set_tracking_uri(f"sqlite:///{halfcore}/mlflow.db")
    model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    return [str(label) for label in model.predict(pd.read_parquet(rows)).tolist()]


def _files(folder: Path) -> Files:
    """The data as files of each format, once and `TIMES` times."""
    import pandas as pd

    from model_export.examples import cover

    frame = cover.features(cover.load())
    found = []
    for times in (1, TIMES):
        rows = pd.concat([frame] * times)
        files = {kind: folder / f"rows-{times}.{kind}" for kind in FORMATS}
        rows.to_csv(files["csv"], index=False)
        rows.to_parquet(files["parquet"], index=False, row_group_size=len(frame))
        found.append(files)
    return Files(*found)


if __name__ == "__main__":
    sys.exit(main())
