"""Writes the table "Can my model be served?" in docs/export.md, from a stored run of all models."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from os.path import relpath
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- models -->", "<!-- /models -->"
PACKAGES = (
    "mlflow",
    "scikit-learn",
    "xgboost-cpu",
    "xgboost",
    "lightgbm",
    "catboost",
    "imbalanced-learn",
    "skl2onnx",
    "onnx",
    "onnxruntime",
    "numpy",
    "pandas",
)
"""Whose versions a run depends on."""
_SHORT = 700
"""Longest reason that is shown: no refusal is as long, so that its advice is shown as well."""
_COMMIT = 12
"""Letters of a commit that are shown."""


def latest(folder: Path) -> Path | None:
    """The newest stored run of all models."""
    return max(folder.glob("*-models-*.json"), default=None)


def section(file: Path, page: Path) -> str:
    """A stored run as it stands in `page`: what was found, where the run is, and how to repeat
    it."""
    run = json.loads(file.read_text())
    results = run["figures"]["models"]
    return "\n".join([*_summary(run, results, relpath(file, page.parent)), "", table(results)])


def _summary(run: dict[str, Any], results: Mapping[str, dict[str, Any]], link: str) -> list[str]:
    exported = [each for each in results.values() if each["outcome"] == "exported"]
    least = min((each["compared"] for each in exported), default=0)
    usual = sum(each["rows"] is None for each in results.values())
    fewer = sorted({each["rows"] for each in results.values()} - {None})
    how = (
        f"{usual} of all were tried at default settings, the others with `--gate-rows {fewer[0]}`."
        if fewer
        else "All were tried at default settings."
    )
    software = {"Python": run["fingerprint"]["python"], **run["figures"]["packages"]}
    packages = ", ".join(f"{name} {version}" for name, version in software.items())
    counts = f"Of {len(results)} models, {len(exported)} are exported and served with equal answers"
    made = f"Commit {_commits(run, results)}; `{_command(run)}`; {run['started_at']}"
    return [
        f"{counts} to {least:,} rows each; the others are refused.",
        how,
        "",
        f"*{made}; {packages}; every model: [{link}]({link}).*",
    ]


def _commits(run: dict[str, Any], results: Mapping[str, dict[str, Any]]) -> str:
    """The run's commit, and those at which models were exported before."""
    commit, dirty = run["fingerprint"]["commit"], run["fingerprint"]["dirty"]
    others = Counter(each["commit"] for each in results.values() if each["commit"] != commit)
    said = f"`{_short(commit)}`{' with uncommitted changes' if dirty else ''}"
    return ", ".join([said, *(f"{n} models at `{_short(c)}`" for c, n in others.items())])


def _short(commit: str) -> str:
    return commit[:_COMMIT] or "unknown"


def _command(run: dict[str, Any]) -> str:
    return re.sub(r"^python \S*prove_models\.py", "just prove-models", run["command"])


def table(results: Mapping[str, dict[str, Any]]) -> str:
    """Kinds of models, what is exported, and what is refused with its reason."""
    kinds: dict[str, list[str]] = {}
    for name, result in results.items():
        kinds.setdefault(result["kind"], []).append(name)
    lines = [
        "| kind of model | served | refused |",
        "| --- | --- | --- |",
        *(_row(kind, names, results) for kind, names in kinds.items()),
        "",
        "The refusals:",
        "",
        *_refusals(results),
    ]
    return "\n".join(lines)


def _row(kind: str, names: list[str], results: Mapping[str, dict[str, Any]]) -> str:
    served = [name for name in names if results[name]["outcome"] == "exported"]
    refused = [name for name in names if name not in served]
    return (
        f"| {kind} | {len(served)} of {len(names)}: {', '.join(served) or '–'} "
        f"| {', '.join(refused) or '–'} |"
    )


def _refusals(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """One line for each reason, with the models that have it."""
    reasons: dict[str, list[str]] = {}
    for name, result in results.items():
        if result["outcome"] != "exported":
            said = reason(name, result["message"])
            mark = "" if result["outcome"] == "refused" else f"**{result['outcome']}**: "
            reasons.setdefault(mark + said, []).append(name)
    return [
        f"- {', '.join(names)}: {said}"
        for said, names in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[1]))
    ]


def reason(name: str, message: str) -> str:
    """A refusal in one line, without the model's own name and as Markdown shows it: one that many
    models have is one line."""
    line = re.sub(rf"models:/{re.escape(name)}/1(, [a-z ]+)?:? ?", "", " ".join(message.split()))
    line = re.sub(r' \(docs/export\.md, "[^"]+"\)$', "", line)  # the page itself
    line = re.sub(rf"^step '{re.escape(name)}' \({re.escape(name)}\)", "it", line)
    line = line.replace(f" ({name})", "")
    line = re.sub(rf"^{re.escape(name)} is ", "it is ", line)
    if message.startswith("refused: "):  # by the proof: the cause, not the counts and the row
        line = line.partition(" cause: ")[2]
    line = line if len(line) <= _SHORT else f"{line[:_SHORT].rsplit(' ', 1)[0]} …"
    return re.sub(r"([|<>*_`\[\]])", r"\\\1", line)


def write(page: Path, file: Path) -> None:
    """Replace what is between the marks by what a stored run says."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{section(file, page)}\n{END}{after}")


def between(page: Path) -> str:
    """What stands between the marks."""
    return page.read_text().partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]
