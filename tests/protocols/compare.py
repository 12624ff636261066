"""Answers in the Open Inference Protocol, in the form in which they are stored and compared."""

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx

from protocols.tensors import Call

TEXT = "…"
"""Stands for a text that is not compared: an error's message, or an id that the server made."""
RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""Numbers may differ by as much as the proof of an export allows."""


def answer(client: httpx.Client, call: Call) -> dict[str, Any]:
    """Send a request, and return the answer's status, content type and document."""
    headers = {"accept-encoding": "identity"}
    if call.content_type is not None:
        headers["content-type"] = call.content_type
    sent = client.build_request(call.method, call.path, content=call.text, headers=headers)
    received = client.send(sent)
    kind = received.headers.get("content-type", "").partition(";")[0]
    found: dict[str, Any] = {"status": received.status_code, "type": kind}
    if kind != "application/json" or not received.content:
        return found | {"empty": not received.content}
    document = received.json()
    if isinstance(document, list):  # of models, whose order means nothing
        document.sort(key=lambda model: model["name"])
    elif isinstance(document, dict):
        for key in ("error", "detail"):
            if document.get(key):
                document[key] = TEXT
        if "id" in document and not _sent_id(call):
            document["id"] = TEXT
    return found | {"document": document}


def _sent_id(call: Call) -> bool:
    """Whether a request has an id that is a text."""
    try:
        document = json.loads(call.text or "")
    except ValueError:
        return False
    return isinstance(document, dict) and bool(document.get("id"))


def unequal(ours: Any, theirs: Any, path: str = "$") -> Iterator[tuple[str, Any, Any]]:
    """Where two documents differ: path, our value, their value; `None` where one has none."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*theirs, *(ours.keys() - theirs.keys())]:
            if key in ours and key in theirs:
                yield from unequal(ours[key], theirs[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}", ours.get(key), theirs.get(key)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from unequal(one, other, f"{path}[{i}]")
    elif not _same(ours, theirs):
        yield path, ours, theirs


def _same(one: Any, other: Any) -> bool:
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
