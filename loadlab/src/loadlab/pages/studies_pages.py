"""The studies' sections of docs/benchmarks.md, from stored studies only."""

import os
from pathlib import Path

from loadlab.experiments import runner, studies
from loadlab.experiments.studies import Study, What, reasons
from loadlab.pages import quota_page, scale_page, seeds_page
from loadlab.run.order import Order

_TITLES: dict[What, str] = {
    "seeds": "## What the course projects reported",
    "scale": "## One replica or several: horizontal against vertical",
    "quota-study": "## The quota's period and burst, and replicas under keep-alive",
}


def sections(runs: Path, out: Path) -> tuple[list[str], list[Path]]:
    """Text and pictures of the newest study of each kind. Pictures are written next to `out`.
    Raises `StoreError`."""
    parts: list[str] = []
    pictures: list[Path] = []
    for what in studies.KINDS:
        if file := studies.newest(runs, what):
            study, picture = runner.load(file, Study), out.with_name(f"{out.stem}-{what}.svg")
            drawn = what == "scale" and scale_page.plot(study, picture)
            parts.append(
                markdown(
                    study,
                    Path(os.path.relpath(file, out.parent)).as_posix(),
                    picture.name if drawn else "",
                )
            )
            pictures += [picture] if drawn else []
    return parts, pictures


def markdown(study: Study, link: str, picture: str) -> str:
    """One study; the same study gives the same text."""
    plot = f"![CPU time per answer]({picture})" if picture else ""
    not_passed = reasons(study)
    why = f"### Runs that did not pass\n\n{_bullets(not_passed)}" if not_passed else ""
    parts = [_TITLES[study.kind], *_body(study, link), plot, _bullets(sentences(study)), why]
    return "\n\n".join(part for part in parts if part)


def sentences(study: Study) -> list[str]:
    """What may be said, and how much is missing."""
    missing = (
        [f"{study.missing} of {len(study.cells) * study.blocks} runs have not been made yet."]
        if study.missing
        else []
    )
    say = {
        "seeds": seeds_page.sentences,
        "scale": scale_page.sentences,
        "quota-study": quota_page.sentences,
    }
    return [*missing, *say[study.kind](study)]


def _body(study: Study, link: str) -> list[str]:
    where = _provenance(study, link)
    if study.kind == "seeds":
        return [seeds_page.INTRO, where, seeds_page.table(study)]
    if study.kind == "scale":
        return [scale_page.INTRO, where, scale_page.table(study)]
    return [
        where,
        quota_page.QUOTA,
        quota_page.quota_table(study),
        quota_page.DEALING,
        quota_page.dealing_table(study),
    ]


def _provenance(study: Study, link: str) -> str:
    machine, orders = study.fingerprint, [cell.order for cell in study.cells]
    blocks = "1 block" if study.blocks == 1 else f"{study.blocks} blocks, each in a random order"
    models, engines = (
        dict.fromkeys(getattr(order, name) for order in orders) for name in ("model", "engine")
    )
    lines = [
        f"Machine: {machine.hardware}; Linux {machine.kernel}.",
        (
            f"Commit {machine.checkout}; `{study.command}`; {study.started_at}, {study.minutes:g} "
            f"minutes of runs, seed {study.seed}."
        ),
        f"{blocks}, a fresh server for every run, {orders[0].steady_s:g} s steady.",
        (
            f"Load: {'; '.join(dict.fromkeys(map(_load, orders)))}. Models: {', '.join(models)}. "
            f"Generators: {', '.join(engines)}."
        ),
        (
            "Figures are of everything from the first user to the end of the steady phase, "
            f"throttling of the steady one. [Every run]({link})."
        ),
    ]
    return _bullets(lines)


def _load(order: Order) -> str:
    think = "–".join(f"{each:g}" for each in order.scenario.think)
    return (
        f"{order.users:,} users who think {think} s"
        if order.users > 1
        else f"one user who thinks {think} s"
    )


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
