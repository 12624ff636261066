"""What a refusal's text must be: words that a user understands, the cause, and what to do."""

import inspect
import re
from functools import cache
from pathlib import Path

import skl2onnx.common.data_types
import skl2onnx.common.exceptions

_PAGE = Path(__file__).parents[2] / "docs/export.md"
_END = re.compile(
    r'\(docs/export\.md, "(?P<section>[^"]+)"\)'
    r"( \(trained with scikit-learn .+, loaded with .+\))?$"
)
_VERBS = (
    "add|allow|ask|change|compute|convert|derive|drop|encode|export|fit|give|impute|install|leave|"
    "limit|log|look|name|pass|prepare|put|raise|register|remove|replace|report|round|save|scale|"
    "serve|set|start|train|transform|try|use|write"
)
_ADVICE = re.compile(rf"(^|, so |, or |, and |^or )({_VERBS})\b")
_CLAUSES = re.compile(r"[;:] (?!\d)|\. (?=[A-Z])")
_LAST = 2
"""Clauses at the end of which one is the advice: it may have a part after a colon."""
_WITHOUT_SUFFIX = "StopIteration|StopAsyncIteration|KeyboardInterrupt|GeneratorExit|SystemExit"
_UNWANTED = {
    "an exception's name": re.compile(
        rf"\b([A-Z]\w*(Error|Exception|ExceptionGroup|Warning)|{_WITHOUT_SUFFIX})\b|"
        r"\(\w+ in \w+(\.\w+)+\)"
    ),
    "an array dump": re.compile(
        r"\barray\(|\bdtype[(=]|\[\[|\[\s*-?\d[\d.e+-]*\s+-?\d|\.\.\.[,\]]|…\]|\bnp\.\w+\("
    ),
    "a class path": re.compile(
        r"<class|<function|object at 0x|"
        r"\b(skl2onnx|onnxmltools|numpy|pandas|scipy|onnxruntime|model_export)(\.\w+){2,}|"
        r"(?<!mlflow\.)\bsklearn\.\w+"
    ),
    "words of the runtime": re.compile(
        r"ONNXRuntimeError|Status Message|node\. Name:|must be in \[|onnxruntime_src"
    ),
    "a fault of MLflow's own": re.compile(r"Model implementation is missing"),
    "a traceback": re.compile(r"Traceback|unexpected error|site-packages"),
}
_LIMIT = "the export needed more than"
"""The line about the memory limit names its flag."""
_LABELS_DIFFER = re.compile(r"(?P<count>[\d,]+) of [\d,]+ labels differ")


@cache
def _converter_classes() -> re.Pattern[str]:
    """The converter's own classes, which no user knows."""
    names = {
        name
        for module in (skl2onnx.common.data_types, skl2onnx.common.exceptions)
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and kind.__module__.startswith("skl2onnx")
    }
    assert {"FloatTensorType", "MissingShapeCalculator"} <= names
    return re.compile(rf"\b({'|'.join(sorted(names))}|Sklearn\w+|Onnx[A-Z]\w+|Variable\()")


@cache
def sections() -> frozenset[str]:
    """The headings of docs/export.md."""
    return frozenset(re.findall(r"^#+ (.+)$", _PAGE.read_text(), re.MULTILINE))


def faults(message: str) -> list[str]:
    """What is wrong with the text of a refusal; empty: nothing."""
    found = [f"it holds {what}" for what, pattern in _UNWANTED.items() if pattern.search(message)]
    if _converter_classes().search(message):
        found.append("it names a class of the converter")
    end = _END.search(message)
    if end is None and not message.startswith(_LIMIT):
        found.append("it does not end with a section of docs/export.md")
    elif end is not None and end["section"] not in sections():
        found.append(f"docs/export.md has no section {end['section']!r}")
    if not advises(message):
        found.append("it does not end with what to do")
    differ = _LABELS_DIFFER.search(message)
    if differ and differ["count"] != "0" and "--accept-parity" in message:
        found.append("it advises --accept-parity where labels differ")
    if message.startswith("refused") and "cause: " not in message:
        found.append("it does not say the cause")
    return found


def advises(message: str) -> bool:
    """One of the last clauses, before the section of the page, begins with what to do."""
    body = _END.sub("", message).strip()
    return any(_ADVICE.search(clause) for clause in _CLAUSES.split(body)[-_LAST:])


def assert_plain_refusal(message: str) -> None:
    """The text says in plain words what failed, why, and what to do.

    Raises:
        AssertionError: names what is wrong.
    """
    found = faults(message)
    assert not found, f"{'; '.join(found)}:\n{message}"
