"""The README's figures: written between two marks from the same stored runs as docs/benchmarks.md,
and nowhere else."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from loadlab.experiments import runner
from loadlab.experiments.compare import Comparison
from loadlab.experiments.search import Search, counted, reruns, sentences
from loadlab.pages import compare_page as comparison_page
from loadlab.pages import kept_page, ladder_page
from loadlab.pages.bench_tables import servers, titles
from loadlab.pages.kept import KeptSet, newest
from loadlab.record import store
from loadlab.record.store import Run

_MARKED = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)
_MODEL = "iris"


def fill(
    readme: Path,
    bench: Path,
    loads: Sequence[KeptSet],
    drawn: Path | None,
    *,
    ladder: Path | None = None,
    compared: Sequence[Path] = (),
    searched: Sequence[Path] = (),
) -> bool:
    """Write the figures between the marks of a README; False where there is no such file, or no
    marks."""
    text = readme.read_text() if readme.exists() else ""
    if not _MARKED.search(text):
        return False
    parts = [kept_page.summary(newest(loads), readme.parent)] if loads else []
    if drawn:
        parts.append(f"![Response times of a run, second by second]({_relative(drawn, readme)})")
    parts.append(_benched(store.load(bench), _relative(bench, readme)))
    if lines := [*_least(readme, searched), *_compared(readme, ladder, compared)]:
        parts.append("\n".join(f"- {line}" for line in lines))
    readme.write_text(_MARKED.sub(lambda _: "\n\n".join(parts) + "\n", text))
    return True


def _least(readme: Path, searched: Sequence[Path]) -> list[str]:
    """How little is enough."""
    lines = []
    for file in searched:
        minimum = sentences(runner.load(file, Search))[0].rstrip(".")
        again = reruns(file)
        said = f"{minimum}; {counted(again)}" if again else minimum
        lines.append(f"{said} ([search]({_relative(file, readme)})).")
    return lines


def _compared(readme: Path, ladder: Path | None, compared: Sequence[Path]) -> list[str]:
    """What the baseline does in the same limits, and what all steps from the first service to this
    one are worth."""
    lines = [
        comparison_page.line(runner.load(file, Comparison), _relative(file, readme))
        for file in compared
    ]
    if ladder is not None:
        run = store.load(ladder)
        said = {model: ladder_page.sentences(run, model) for model in ladder_page.models(run)}
        lines += [
            f"{about[0]} ([ladder, {model}]({_relative(ladder, readme)}))"
            for model, about in said.items()
            if about
        ]
    return lines


def _benched(run: Run, link: str) -> str:
    """CPU time per request of every server, saturated and over many quiet connections."""
    machine = run.fingerprint
    connections = {load.regime: load.connections for load in run.loads}
    heads = [f"{regime}, {count:,} connections" for regime, count in connections.items()]
    lines = [f"| CPU time per request | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    keys = dict.fromkeys(key for regime in connections for key in servers(run, regime, _MODEL))
    for key in sorted(keys):
        cells = [_cell(run, key, regime) for regime in connections]
        lines.append(f"| {titles(run).get(key, key)} | {' | '.join(cells)} |")
    where = (
        f"{machine.cpu}, {machine.cores} cores; commit `{machine.commit[:12]}`; "
        f"[`{run.command.split()[1]}`]({link})"
    )
    note = (
        f"*{where}; medians over the rounds; spreads, latencies and failures: "
        "[benchmarks](docs/benchmarks.md).*"
    )
    return "\n".join([*lines, "", note])


def _cell(run: Run, key: str, regime: store.Regime) -> str:
    median = store.median_cpu_us(store.figures(run.rounds, server=key, model=_MODEL, regime=regime))
    return "–" if median is None else f"{median:.0f} µs"


def _relative(file: Path, page: Path) -> str:
    return Path(os.path.relpath(file, page.parent)).as_posix()
