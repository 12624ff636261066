"""The table of the course projects: what they reported, what the baseline does here, what Halfcore
does."""

from loadlab.studies.form import Row, Study
from loadlab.studies.seeds import Configuration, read
from loadlab.studies.summary import number

INTRO = """What five public course projects reported of their FastAPI services, and the same limits
here with the baseline and with Halfcore. Replicas stand behind HAProxy, whose CPU time is charged
and which theirs had not. The baseline is our own code with a model near theirs, not theirs: a
figure of theirs and one of ours are of different machines, models and users, and stand beside each
other to show the order of magnitude. Where a project did not tell something, the last column says
what stands here instead."""

_HEADER = """| configuration | users | what they reported | `{against}` here | Halfcore here | not told, and assumed |
| --- | ---: | --- | --- | --- | --- |"""  # noqa: E501  a table's row


def table(study: Study) -> str:
    """One line for every configuration that there is, run or not."""
    lines = [_HEADER.format(against=_against(study))]
    for told in read():
        shape = f"{told.key}: {told.replicas} × {told.cpus:g} CPU, {told.memory_mib:,} MiB"
        if told.workers:
            shape += f", {told.workers} workers"
        cells = (
            shape,
            f"{told.users:,}",
            told.reported,
            _cell(study, told, _against(study)),
            _cell(study, told, "halfcore"),
            told.assumed,
        )
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


def sentences(study: Study) -> list[str]:
    """How many of the configurations each service carries, of those that both could be judged
    in."""
    judged = [
        (ours, theirs)
        for told in read()
        for ours, theirs in zip(
            _rows(study, told, "halfcore"), _rows(study, told, _against(study)), strict=False
        )
        if _judged(ours) and _judged(theirs)
    ]
    passed = [
        sum(bool(row.trial and row.trial.outcome == "PASS") for row in side)
        for side in zip(*judged, strict=True)
    ] or [0, 0]
    too_large = [
        told for told in read() if any(row.reason for row in _rows(study, told, "halfcore"))
    ]
    said = [
        (
            f"Of {len(judged)} runs in which both could be judged, Halfcore passes {passed[0]} "
            f"and `{_against(study)}` {passed[1]}."
        )
    ]
    if too_large:
        said.append(
            f"{len(too_large)} of {len(read())} configurations are too large for this machine and "
            "were not run."
        )
    return said


def _cell(study: Study, told: Configuration, service: str) -> str:
    return "; ".join(_words(row) for row in _rows(study, told, service)) or "not run yet"


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


def _rows(study: Study, told: Configuration, service: str) -> list[Row]:
    return [row for row in study.rows if (row.key, row.service) == (told.key, service)]


def _judged(row: Row) -> bool:
    """Passed, failed, or could not even start."""
    return bool(row.trial and (row.trial.outcome in {"PASS", "FAIL"} or not row.trial.could_start))


def _against(study: Study) -> str:
    return next(
        (cell.order.service for cell in study.cells if cell.order.service != "halfcore"), "typical"
    )
