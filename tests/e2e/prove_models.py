"""A matrix of models as people register them: which are exported, and does the server answer as
they do? `just prove-models`, or some of them by name or pattern.

Each model is trained on little data, logged to an MLflow store, and exported in a process with
limits of time and memory. Real servers then serve the bundles, and their answers to 600 fresh rows
of each model are compared with `mlflow.pyfunc`'s. A run of all models writes the table in
docs/export.md; every run is stored in .halfcore/proofs. The exit code is 1 if an export ends with
an unexpected error, a refusal's text is not plain (`support.refusals`), or a bundle is served
differently.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from model_export.prove.draw import GATE_ROWS
from support.matrix import catalogue, page
from support.matrix.exported import ANSWERS, RESULT
from support.matrix.processes import Limits, run_all
from support.matrix.served import Connection, differences
from support.proof import ROOT, Check, begin, conclude
from support.refusals import faults
from support.serving import serving

WORK = ROOT / ".halfcore/models"
_SHORT_ROWS = 2_000
"""Of the proof in the short form: the comparison over HTTP is the same."""
_MOST_S, _MOST_MB = 300.0, 4_096
_SHOWN = 3
"""Differences of a model that are shown."""
_AT_ONCE = 40
"""Bundles that one server serves."""
_FAULTS = ("traceback", "served differently", "not logged")


def main() -> int:
    """Run; 0 if no export ended unexpectedly and nothing was served differently."""
    asked = _arguments()
    names = _chosen(asked)
    console = Console(width=160)
    if not names:
        console.print(f"prove-models: no model is named {' or '.join(asked.names)}", markup=False)
        return 2
    begun = begin(console)
    work: Path = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    rows = asked.gate_rows or (_SHORT_ROWS if asked.short else GATE_ROWS)
    limits = Limits(_MOST_S, _MOST_MB, rows, asked.processes)
    results = _exported(names, work, limits, console, resume=asked.resume)
    _serve(results, work, console)
    _show(results, console)
    if len(names) == len(catalogue.cases()):
        page.write(ROOT / "docs/export.md", results)
    title = f"{len(names)} models as people register them"
    figures = {"models": {name: results[name] for name in names}}
    return conclude(begun, "models", title, _checks(results), figures, console=console)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="or a pattern such as 'xgboost-*'; default: all",
    )
    parser.add_argument("--short", action="store_true", help="a quarter of each kind, few rows")
    parser.add_argument("--list", action="store_true", help="print the names, and run nothing")
    parser.add_argument(
        "--resume", action="store_true", help="keep the results of an interrupted run"
    )
    parser.add_argument("--gate-rows", type=int, metavar="N", help="rows of each export's proof")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--work", type=Path, default=WORK, metavar="FOLDER", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.list:
        sys.stdout.write("\n".join(_chosen(asked)) + "\n")
        sys.exit(0)
    return asked


def _chosen(asked: argparse.Namespace) -> list[str]:
    known = catalogue.short() if asked.short else list(catalogue.cases())
    if not asked.names:
        return known
    return [name for name in catalogue.cases() if any(fnmatch(name, each) for each in asked.names)]


def _exported(
    names: list[str], work: Path, limits: Limits, console: Console, *, resume: bool
) -> dict[str, dict[str, Any]]:
    """Name → result of the export, in the order of the names."""
    results: dict[str, dict[str, Any]] = {}
    if resume:
        for name in names:
            if (file := work / name / RESULT).exists():
                results[name] = json.loads(file.read_text())
    left = [name for name in names if name not in results]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("exports", total=len(names), completed=len(results))

        def ended(name: str, result: dict[str, Any]) -> None:
            results[name] = result
            said = page.reason(name, result["message"]) if result["message"] else ""
            line = f"{name}: {result['outcome']} in {result['seconds']:.1f} s {said}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
            progress.advance(task)

        run_all(left, work, limits, ended)
    return {name: results[name] for name in names}


def _serve(results: dict[str, dict[str, Any]], work: Path, console: Console) -> None:
    """Serve what was exported, and mark what is answered differently."""
    exported = [name for name, result in results.items() if result["outcome"] == "exported"]
    for position, part in enumerate(_parts(exported)):
        folder = work / f"served-{position}"
        folder.mkdir(exist_ok=True)
        for link in folder.iterdir():
            link.unlink()
        for name in part:
            (folder / name).symlink_to(Path(results[name]["bundle"]).parent)
        with serving(folder, path="/health/live", default_model=part[0]) as server:
            connection = Connection(server.port)
            for name in part:
                found = _differences(connection, results[name], work / name)
                if found:
                    results[name]["outcome"] = "served differently"
                    results[name]["message"] = f"{len(found)} answers: {found[0]}"
                for line in found[:_SHOWN]:
                    console.print(f"{name}: {line}", markup=False, highlight=False)


def _differences(connection: Connection, result: dict[str, Any], folder: Path) -> list[str]:
    answers = json.loads((folder / ANSWERS).read_text())
    return differences(connection, Path(result["bundle"]), answers)


def _parts(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]


def _show(results: dict[str, dict[str, Any]], console: Console) -> None:
    table = Table("model", "outcome", "reason", box=None)
    for name, result in results.items():
        if result["outcome"] != "exported":
            table.add_row(name, result["outcome"], page.reason(name, result["message"]))
            for fault in faults(result["message"]) if result["outcome"] == "refused" else ():
                table.add_row(name, "unclear refusal", fault)
    console.print(table, highlight=False, markup=False)


def _checks(results: dict[str, dict[str, Any]]) -> list[Check]:
    counts = Counter(result["outcome"] for result in results.values())
    refusals = {n: faults(r["message"]) for n, r in results.items() if r["outcome"] == "refused"}
    unclear = [name for name, found in refusals.items() if found]
    plain = refusals.keys() - unclear
    return [
        Check("exported and equal", f"{counts['exported']} of {len(results)}", "", held=True),
        Check("refused with a reason", str(counts["refused"]), "", held=True),
        Check("refusals in plain words", str(len(plain)), str(counts["refused"]), held=not unclear),
        *(Check(fault, str(counts[fault]), "0", held=not counts[fault]) for fault in _FAULTS),
    ]


if __name__ == "__main__":
    sys.exit(main())
