"""Requests and their right answers: rows as prepared requests, each with the answer that it must
get.

The right answers have two sources, and neither is the server under test. The bundle's golden rows
carry predictions that the *registered* model gave when it was exported, on scikit-learn (`prove`).
The answers to the other rows, of which many are made fresh by the seed, are computed by the
bundle's graph in the lab's own process (`answers`), where the lab can read the bundle. The server
at rest is asked for all of them (`learn`), must agree (`agree`), and under load every answer is
compared whole with those. (`just prove-answers` compares all rows of all example models with
`mlflow.pyfunc`; that takes an installed MLflow, which a load lab should not need.)
"""

import csv
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from loadlab.generator.http import fields, is_right, same

ROWS = Path(__file__).with_name("rows")
MOST = 1000
"""Different requests in a run: enough that no cache of answers would stay unseen, few enough to be
asked before it."""


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
    """Bodies in an order drawn by `seed`: golden rows, for the example models rows of their data,
    and rows that are made by the seed; `MOST`, of which at least half are fresh if the manifest is
    known."""
    named = manifest["named"] if manifest else not model.startswith("iris")
    golden = [each["row"] for each in manifest["golden"]] if manifest else []
    found = list(
        dict.fromkeys(encode(row, named=named) for row in [*golden, *_rows(model, manifest)])
    )
    draw = random.Random(seed)  # noqa: S311  an order and rows, not a secret
    draw.shuffle(found)
    if manifest:
        found = found[: MOST // 2]
        rows = (fresh_row(manifest["inputs"], draw) for _ in range(MOST - len(found)))
        found = list(dict.fromkeys([*found, *(encode(row, named=named) for row in rows)]))
        draw.shuffle(found)
    return found[:MOST]


def fresh_row(inputs: list[dict[str, Any]], draw: random.Random) -> dict[str, Any]:
    """A row that no list holds: each value drawn from the range or the categories of its column."""
    return {column["name"]: _drawn(column, draw) for column in inputs}


def _drawn(column: dict[str, Any], draw: random.Random) -> Any:
    if column["kind"] == "category":
        return draw.choice(column["categories"])
    if column["kind"] == "boolean":
        return draw.random() < 0.5
    low, high = column.get("minimum"), column.get("maximum")
    if low is None or high is None:
        return column["example"]
    if column["kind"] == "integer":
        return draw.randint(int(low), int(high))
    drawn = float(f"{draw.uniform(low, high):.6g}")
    return min(max(drawn, low), high)


def encode(row: dict[str, Any], *, named: bool) -> str:
    """One row as a request's body: a record, or `{"features": […]}`."""
    return json.dumps(row if named else {"features": list(row.values())}, separators=(",", ":"))


def prove(manifest: dict[str, Any], ask: Callable[[str], tuple[int, bytes]]) -> int:
    """Compare the server's answers to the golden rows with the registered model's; returns how
    many; raises `WrongAnswer`."""
    for golden in manifest["golden"]:
        body = encode(golden["row"], named=manifest["named"])
        answer = _answer(ask, body)
        if not _has(answer, _golden_answer(manifest, golden)):
            raise WrongAnswer(
                f"golden row {body}: answer is {answer[:200]}, expected "
                f"{golden['prediction']!r} as the registered model says"
            )
    return len(manifest["golden"])


def learn(wanted: Iterable[str], ask: Callable[[str], tuple[int, bytes]]) -> list[Exchange]:
    """Ask the server at rest for the answer to every body; raises `WrongAnswer` for one that it
    refuses."""
    return [Exchange(body, _answer(ask, body)) for body in wanted]


def agree(exchanges: Iterable[Exchange], expected: Iterable[dict[str, Any]]) -> int:
    """Compare what the server at rest answered with computed answers; returns how many; raises
    `WrongAnswer`."""
    count = 0
    for exchange, computed in zip(exchanges, expected, strict=True):
        if not _has(exchange.answer, computed):
            raise WrongAnswer(
                f"{exchange.body}: answer is {exchange.answer[:200]}, expected {computed} as the "
                "bundle's graph answers"
            )
        count += 1
    return count


def expect(exchange: Exchange, ask: Callable[[str], tuple[int, bytes]]) -> None:
    """Ask once more; raises `WrongAnswer` if the answer is another one now."""
    answer = _answer(ask, exchange.body)
    if not is_right(answer.encode(), exchange.answer.encode()):
        raise WrongAnswer(
            f"the server at rest gives two answers to {exchange.body}: {exchange.answer[:200]} "
            f"and {answer[:200]}"
        )


def _has(answer: str, golden: dict[str, Any]) -> bool:
    """Whether an answer has a golden row's fields; model and version, which it has too, are the
    server's."""
    received = fields(answer.encode())
    if not isinstance(received, dict):
        return False
    return same({key: received[key] for key in golden if key in received}, golden)


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
