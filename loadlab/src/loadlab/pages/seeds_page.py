"""The table of the course projects: what they reported, what the baseline does here, what Halfcore
does."""

from loadlab.experiments.cells import Configuration, configurations
from loadlab.experiments.studies import Row, Study, number

INTRO = """What five public course projects reported of their FastAPI services, and the same limits
here with the baseline and with Halfcore. Here replicas run behind HAProxy, whose CPU time is
charged; the projects had none. The baseline is our own code with a model like theirs: their figures
and ours are of different machines, models and users, and only show the order of magnitude. Where a
project did not report something, the last column says what was assumed here."""

_HEADER = """| configuration | users | what they reported | `{against}` here | Halfcore here | not reported, and assumed |
| --- | ---: | --- | --- | --- | --- |"""  # noqa: E501  a table's row


def table(study: Study) -> str:
    """One line for every configuration that there is, run or not."""
    lines = [_HEADER.format(against=_against(study))]
    for config in configurations():
        shape = f"{config.key}: {config.replicas} × {config.cpus:g} CPU, {config.memory_mib:,} MiB"
        if config.workers:
            shape += f", {config.workers} workers"
        cells = (
            shape,
            f"{config.users:,}",
            config.reported,
            _cell(study, config, _against(study)),
            _cell(study, config, "halfcore"),
            config.assumed,
        )
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


def sentences(study: Study) -> list[str]:
    """How many of the configurations each service carries, of those that both could be judged
    in."""
    judged = [
        (ours, theirs)
        for config in configurations()
        for ours, theirs in zip(
            _rows(study, config, "halfcore"),
            _rows(study, config, _against(study)),
            strict=False,
        )
        if _judged(ours) and _judged(theirs)
    ]
    passed = [
        sum(bool(row.trial and row.trial.outcome == "PASS") for row in side)
        for side in zip(*judged, strict=True)
    ] or [0, 0]
    too_large = [
        config
        for config in configurations()
        if any(row.reason for row in _rows(study, config, "halfcore"))
    ]
    said = [
        (
            f"Of {len(judged)} runs in which both could be judged, Halfcore passes {passed[0]} "
            f"and `{_against(study)}` {passed[1]}."
        )
    ]
    if too_large:
        said.append(
            f"{len(too_large)} of {len(configurations())} configurations are too large for this "
            "machine and were not run."
        )
    return said


def _cell(study: Study, config: Configuration, service: str) -> str:
    return "; ".join(_words(row) for row in _rows(study, config, service)) or "not run yet"


def _words(row: Row) -> str:
    if row.trial is None:
        return f"**INVALID**, not run: {row.reason}"
    trial = row.trial
    if not trial.could_start:
        return f"**cannot start**: {_short(trial.sentence)}"
    if trial.outcome == "ERROR":
        return f"**ERROR**: {_short(trial.sentence)}"
    latencies = f"p50 / p99 {number(row.p50_ms)} / {number(trial.p99_ms)} ms"
    used = f"{number(trial.cpu_us, ',.0f')} µs CPU/answer, {number(trial.memory_mib, ',.0f')} MiB"
    numbers = (
        f"{number(row.answers_hz, ',.0f')} answers/s, {latencies}, {trial.figures.errors:,} "
        f"errors, {used}"
    )
    return f"**{trial.outcome}**: {numbers}"


def _short(sentence: str) -> str:
    """A server's last words can be long; the list below the table has them whole."""
    return sentence if len(sentence) <= 160 else f"{sentence[:159]}…"


def _rows(study: Study, config: Configuration, service: str) -> list[Row]:
    return [row for row in study.rows if (row.key, row.service) == (config.key, service)]


def _judged(row: Row) -> bool:
    """Passed, failed, or could not even start."""
    return bool(row.trial and (row.trial.outcome in {"PASS", "FAIL"} or not row.trial.could_start))


def _against(study: Study) -> str:
    return next(
        (cell.order.service for cell in study.cells if cell.order.service != "halfcore"), "typical"
    )
