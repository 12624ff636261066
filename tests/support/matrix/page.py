"""Writes the table "Can my model be served?" in docs/export.md, from the results of a run."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_export.errors import MORE
from support.matrix.catalogue import cases

BEGIN, END = "<!-- models -->", "<!-- /models -->"
_SHORT = 220


def table(results: Mapping[str, dict[str, Any]]) -> str:
    """Kinds of models, what is exported, and what is refused with its reason."""
    kinds: dict[str, list[str]] = {}
    for case in cases().values():
        if case.name in results:
            kinds.setdefault(case.kind, []).append(case.name)
    exported = sum(each["outcome"] == "exported" for each in results.values())
    lines = [
        f"Of {len(results)} models, {exported} are exported and served with equal answers.",
        "",
        "| kind of model | served | refused |",
        "| --- | --- | --- |",
        *(_row(kind, names, results) for kind, names in kinds.items()),
        "",
        "The refusals:",
        "",
        *_refusals(kinds, results),
    ]
    return "\n".join(lines)


def _row(kind: str, names: list[str], results: Mapping[str, dict[str, Any]]) -> str:
    served = [name for name in names if results[name]["outcome"] == "exported"]
    refused = [name for name in names if name not in served]
    return (
        f"| {kind} | {len(served)} of {len(names)}: {', '.join(served) or '–'} "
        f"| {', '.join(refused) or '–'} |"
    )


def _refusals(kinds: dict[str, list[str]], results: Mapping[str, dict[str, Any]]) -> list[str]:
    """One line for each reason, with the models that have it."""
    reasons: dict[str, list[str]] = {}
    for names in kinds.values():
        for name in names:
            result = results[name]
            if result["outcome"] != "exported":
                said = reason(name, result["message"])
                mark = "" if result["outcome"] == "refused" else f"**{result['outcome']}**: "
                reasons.setdefault(mark + said, []).append(name)
    return [
        f"- {', '.join(names)}: {said}"
        for said, names in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[1]))
    ]


def reason(name: str, message: str) -> str:
    """A refusal in one line, without the model's own name and as Markdown shows it."""
    line = re.sub(rf"models:/{re.escape(name)}/1(, [a-z ]+)?:? ?", "", " ".join(message.split()))
    line = line.removesuffix(f" {MORE}")  # that is the page's own section
    if message.startswith("refused: "):  # by the proof: the cause, not the counts and the row
        line = line.partition(" cause: ")[2]
    line = line if len(line) <= _SHORT else f"{line[:_SHORT].rsplit(' ', 1)[0]} …"
    return re.sub(r"([|<>*_`\[\]])", r"\\\1", line)


def write(page: Path, results: Mapping[str, dict[str, Any]]) -> None:
    """Replace what is between the marks."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")
