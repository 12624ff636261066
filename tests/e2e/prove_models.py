"""A matrix of models as people register them: which are exported, and does the server answer as
they do? `just prove-models`, or some of them by name or pattern.

Each model is trained on little data, logged to an MLflow store, and exported in a process with
limits of time and memory. Real servers then serve the bundles, and their answers to 600 fresh rows
of each model are compared with `mlflow.pyfunc`'s. All are exported at default settings, as a user
does it; in the short form every tenth model and those of text are, and the others have a shorter
proof, which `--gate-rows` sets.

A run of all models is stored in docs/runs and writes the table in docs/export.md; others are stored
in .halfcore/proofs. The exit code is 1 if a model cannot be logged, an export ends with an
unexpected error, a refusal's text is not plain (`support.refusals`), a bundle is served
differently, or too few are exported.
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
from loadlab.record.machine import versions
from support.matrix import catalogue, page
from support.matrix.exported import ANSWERS, RESULT
from support.matrix.processes import Limits, run_all
from support.matrix.served import Connection, differences
from support.proof import ROOT, STORE, Check, begin, conclude
from support.refusals import faults
from support.serving import serving

WORK = ROOT / ".halfcore/models"
KEPT = ROOT / "docs/runs"
"""Of the runs of all models, from which the page is written."""
_SHORT_ROWS = 2_000
"""Of the proofs in the short form that are not at default settings: the comparison over HTTP is the
same."""
_MOST_S, _MOST_MB = 300, 4_096
"""CPU time and memory of one model."""
_EXPORTED, _ROWS_EACH = 160, 600
"""How many models of all must be exported, and on how many rows each is compared."""
_SHOWN = 3
"""Differences of a model that are shown."""
_AT_ONCE = 40
"""Bundles that one server serves."""
_FAULTS = ("traceback", "served differently", "not logged")
_STORED = ("kind", "outcome", "message", "rows", "seconds", "compared", "commit")
"""What is stored of a result: no path of this machine."""


def main() -> int:
    """Run; 0 if every check holds."""
    asked = _arguments()
    names = _chosen(asked)
    console = Console(width=160)
    if not names:
        console.print(
            f"prove-models: no model is named {' or '.join(asked.names)}: --list prints the names",
            markup=False,
        )
        return 2
    begun = begin(console)
    work: Path = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    limits = Limits(_MOST_S, _MOST_MB, asked.processes)
    rows, commit = _rows(asked, names), begun.fingerprint.commit
    results = _kept(rows, work) if asked.resume else {}
    results = _exported(rows, results, work, limits, commit, console)
    _serve(results, work, console)
    _show(results, console)
    every = len(names) == len(catalogue.cases())
    status = conclude(
        begun,
        "models",
        f"{len(names)} models as people register them",
        _checks(results, every=every),
        _figures(results),
        console=console,
        store=KEPT if every else STORE,
    )
    if every and (stored := page.latest(KEPT)):
        page.write(ROOT / "docs/export.md", stored)
    return status


def _figures(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    models = {name: {key: result.get(key) for key in _STORED} for name, result in results.items()}
    return {"packages": versions(page.PACKAGES), "models": models}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="or a pattern such as 'xgboost-*'; default: all",
    )
    parser.add_argument("--short", action="store_true", help="a quarter of each kind, short proofs")
    parser.add_argument("--list", action="store_true", help="print the names, and run nothing")
    parser.add_argument(
        "--resume", action="store_true", help="keep the results of an interrupted run"
    )
    parser.add_argument(
        "--gate-rows",
        type=int,
        metavar="N",
        help="rows of the proofs, except of every tenth model and those of text unless models are "
        f"named; default: as many as an export has by default, with --short {_SHORT_ROWS}",
    )
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


def _rows(asked: argparse.Namespace, names: list[str]) -> dict[str, int | None]:
    """Name → rows of the proof; None: at default settings."""
    fewer = asked.gate_rows or (_SHORT_ROWS if asked.short and not asked.names else None)
    usual = () if asked.names else catalogue.at_defaults(names)
    return {name: None if name in usual else fewer for name in names}


def _kept(asked: dict[str, int | None], work: Path) -> dict[str, dict[str, Any]]:
    """The results of an earlier run that had the same rows, or the default's, which are more; what
    went wrong is tried again."""
    found = {}
    for name, rows in asked.items():
        if (file := work / name / RESULT).exists():
            result = json.loads(file.read_text())
            fits = "commit" in result and result["rows"] in (rows, None)
            if fits and result["outcome"] in ("exported", "refused"):
                found[name] = result
    return found


def _exported(
    asked: dict[str, int | None],
    results: dict[str, dict[str, Any]],
    work: Path,
    limits: Limits,
    commit: str,
    console: Console,
) -> dict[str, dict[str, Any]]:
    """Name → result of the export, in the order of the names; `results` are there already."""
    left = {name: rows for name, rows in asked.items() if name not in results}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("exports", total=len(asked), completed=len(results))

        def ended(name: str, result: dict[str, Any]) -> None:
            kind = catalogue.cases()[name].kind
            results[name] = result | {"kind": kind, "rows": asked[name], "commit": commit}
            (work / name / RESULT).write_text(json.dumps(results[name]))
            said = page.reason(name, result["message"]) if result["message"] else ""
            line = f"{name}: {result['outcome']} in {result['seconds']:.1f} s {said}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
            progress.advance(task)

        run_all(left, work, limits, ended)
    return {name: results[name] for name in asked}


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
                answers = json.loads((work / name / ANSWERS).read_text())
                results[name]["compared"] = len(answers["records"])
                found = differences(connection, Path(results[name]["bundle"]), answers)
                if found:
                    results[name]["outcome"] = "served differently"
                    results[name]["message"] = f"{len(found)} answers: {found[0]}"
                for line in found[:_SHOWN]:
                    console.print(f"{name}: {line}", markup=False, highlight=False)


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


def _checks(results: dict[str, dict[str, Any]], *, every: bool) -> list[Check]:
    counts = Counter(result["outcome"] for result in results.values())
    exported, least = counts["exported"], _EXPORTED if every else 0
    shown = f"{exported} of {len(results)}"
    rows, fewest = [each["compared"] for each in results.values() if "compared" in each], _ROWS_EACH
    compared = min(rows, default=fewest)
    usual = sum(result["rows"] is None for result in results.values())
    refusals = {n: faults(r["message"]) for n, r in results.items() if r["outcome"] == "refused"}
    unclear = [name for name, found in refusals.items() if found]
    plain = refusals.keys() - unclear
    return [
        Check("exported and equal", shown, f"at least {least}" if every else "", exported >= least),
        Check("rows compared of each", str(compared), f"at least {fewest}", compared >= fewest),
        Check("exported at default settings", str(usual), "", held=True),
        Check("refused with a reason", str(counts["refused"]), "", held=True),
        Check("refusals in plain words", str(len(plain)), str(counts["refused"]), held=not unclear),
        *(Check(fault, str(counts[fault]), "0", held=not counts[fault]) for fault in _FAULTS),
    ]


if __name__ == "__main__":
    sys.exit(main())
