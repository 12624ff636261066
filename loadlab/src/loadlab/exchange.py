"""Requests and their right answers: real rows as prepared requests, each with the answer
that it must get.

The source of the right answers: the bundle's golden rows carry predictions that the *registered*
model gave when it was exported, on scikit-learn, not on this server. Before a run the server at
rest answers all of them (`prove`); only a server that gives those very predictions is then asked
for the answers to the other rows, and under load every answer has to be the same again. (`just
prove-answers` compares all rows of all example models with `mlflow.pyfunc`; that takes an installed
MLflow, which a load lab should not need.)
"""

import csv
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

ROWS = Path(__file__).with_name("rows")
MOST = 1000
"""Different requests in a run: enough that no cache of answers would stay unseen, few enough to be
asked before it."""
TOLERANCE = 1e-5
"""Largest difference of a probability or a value: float32 and the order of summation in batches."""


class WrongAnswer(RuntimeError):
    """The server at rest answers wrongly or refuses a row; the message shows the request and
    the answer."""


class NoAnswer(WrongAnswer):
    """It does not answer at all, or refuses the rows: they may be another model's."""


class Exchange(msgspec.Struct, frozen=True):
    """One request's body and the body of its right answer, both JSON."""

    body: str
    answer: str = ""


def bodies(model: str, manifest: dict[str, Any] | None, seed: int) -> list[str]:
    """Bodies in an order drawn by `seed`: golden rows and, for the example models, rows of their
    data; at most `MOST`."""
    named = manifest["named"] if manifest else not model.startswith("iris")
    golden = [each["row"] for each in manifest["golden"]] if manifest else []
    found = list(
        dict.fromkeys(encode(row, named=named) for row in [*golden, *_rows(model, manifest)])
    )
    random.Random(seed).shuffle(found)  # noqa: S311  an order, not a secret
    return found[:MOST]


def encode(row: dict[str, Any], *, named: bool) -> str:
    """One row as a request's body: a record, or `{"features": […]}`."""
    return json.dumps(row if named else {"features": list(row.values())}, separators=(",", ":"))


def prove(manifest: dict[str, Any], ask: Callable[[str], tuple[int, bytes]]) -> int:
    """Compare the server's answers to the golden rows with the registered model's; returns how
    many; raises `WrongAnswer`."""
    for golden in manifest["golden"]:
        body = encode(golden["row"], named=manifest["named"])
        answer = _answer(ask, body)
        if not same(json.loads(answer), _golden_answer(manifest, golden)):
            raise WrongAnswer(
                f"golden row {body}: answer is {answer[:200]}, expected "
                f"{golden['prediction']!r} as the registered model says"
            )
    return len(manifest["golden"])


def learn(wanted: Iterable[str], ask: Callable[[str], tuple[int, bytes]]) -> list[Exchange]:
    """Ask the server at rest for the answer to every body; raises `WrongAnswer` for one that it
    refuses."""
    return [Exchange(body, _answer(ask, body)) for body in wanted]


def expect(exchange: Exchange, ask: Callable[[str], tuple[int, bytes]]) -> None:
    """Ask once more; raises `WrongAnswer` if the answer is another one now."""
    answer = _answer(ask, exchange.body)
    if not is_right(answer.encode(), exchange.answer.encode()):
        raise WrongAnswer(
            f"the server at rest gives two answers to {exchange.body}: {exchange.answer[:200]} "
            f"and {answer[:200]}"
        )


def is_right(answer: bytes, expected: bytes) -> bool:
    """Whether a body is the right answer: the same bytes, or the same prediction and values within
    `TOLERANCE`."""
    if answer == expected:
        return True
    try:
        return same(json.loads(answer), json.loads(expected))
    except ValueError:
        return False


def same(received: Any, expected: Any) -> bool:
    """Whether `received` has all that `expected` has: texts and labels exactly, floats within
    `TOLERANCE`."""
    if isinstance(expected, dict):
        return isinstance(received, dict) and all(
            key in received and same(received[key], value) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(received, list)
            and len(received) == len(expected)
            and all(map(same, received, expected))
        )
    if isinstance(received, float) or isinstance(expected, float):  # JSON writes 1.0 as 1
        return (
            _is_number(received)
            and _is_number(expected)
            and abs(received - expected) <= TOLERANCE * max(1.0, abs(expected))
        )
    return type(received) is type(expected) and bool(received == expected)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _golden_answer(manifest: dict[str, Any], golden: dict[str, Any]) -> dict[str, Any]:
    """As the server writes it: probabilities by class."""
    expected = {key: value for key, value in golden.items() if key != "row"}
    if isinstance(probabilities := expected.get("probabilities"), list):
        expected["probabilities"] = dict(
            zip(map(str, manifest["classes"]), probabilities, strict=True)
        )
    return expected


def _rows(model: str, manifest: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Rows of the data that an example model was trained on; none for other models, whose golden
    rows must do."""
    file = ROWS / f"{model.split('-', maxsplit=1)[0]}.csv"
    if not file.exists():
        return []
    with file.open() as lines:
        rows = [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(lines)]
    columns = [column["name"] for column in manifest["inputs"]] if manifest else list(rows[0])
    return rows if columns == list(rows[0]) else []


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _answer(ask: Callable[[str], tuple[int, bytes]], body: str) -> str:
    try:
        status, answer = ask(body)
    except (OSError, ValueError) as error:
        raise NoAnswer(f"the server at rest gave no answer: {error}") from None
    if status != 200:
        refused = NoAnswer if 400 <= status < 500 else WrongAnswer
        raise refused(
            f"the server refuses a row of this model: {body} got {status} "
            f"{answer[:200].decode(errors='replace')}"
        )
    return answer.decode()
