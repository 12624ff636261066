"""Requests and their right answers: rows as prepared requests, each with the answer that it must
get.

The right answers have two sources, and neither is the server under test. The bundle's golden rows
carry predictions that the *registered* model gave when it was exported, on scikit-learn (`prove`).
The answers to the other rows, of which many are made fresh by the seed, are computed by the
bundle's graph in the lab's own process (`expected`), where the lab can read the bundle: the
exporter proved that this graph answers as the registered model does. So a server without a model,
or one that knows only the golden rows, is found before any load. The server at rest is asked for
all answers (`learn`), must agree (`agree`), and under load every answer is compared whole with
those. (`just prove-answers` compares all rows of all example models with `mlflow.pyfunc`; that
takes an installed MLflow, which a load lab should not need.)
"""

import csv
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadlab.bundles import unread
from loadlab.generator.http import InChunks, fields, is_right, same
from loadlab.generator.packing import draw_text, numbers

ROWS = Path(__file__).with_name("rows")
MOST = 1000
"""Different requests in a run: enough that no cache of answers would stay unseen, few enough to be
asked before it."""
_TIMED = 200
"""Rows of each kind whose inference is timed: their mean is known within some per cent."""
_MOST_ANSWERS = 4000
"""To fresh bodies, computed for one run: half a megabyte that every worker gets."""
_COMPUTING_S = 5.0
"""The most that computing them may take; the server waits meanwhile."""
_DIFFERENT, _LOOKED_AT = 0.9, 500
"""Share of so many fresh bodies that must differ from one another and from the pool: a model of
three yes-or-no columns has no bodies that nobody sent."""

Ask = Callable[[str], tuple[int, bytes]]
"""Sends a body; returns status and body of the answer."""
Manifest = dict[str, Any]
"""A bundle's; docs/bundle-format.md says what is in it, and how a row is packed."""


class WrongAnswer(RuntimeError):
    """The server at rest answers wrongly or refuses a row; the message shows the request and
    the answer."""


class NoAnswer(WrongAnswer):
    """It does not answer at all, or refuses the rows, which may be another model's; or there are no
    rows to ask.

    Args:
        message: see `WrongAnswer`.
        status: of its answer; 0: there was none; None: the message says what to do.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Broken(WrongAnswer):
    """It answers a row with an error of its own, as many do for rows of another model.

    Args:
        message: see `WrongAnswer`.
        status: of its answer.
    """

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


class Exchange(msgspec.Struct, frozen=True):
    """One request's body and the body of its right answer, both JSON."""

    body: str
    answer: str = ""


class Fresh(msgspec.Struct, frozen=True):
    """Bodies that nobody has sent before: against them a cache of answers shows.

    A server that remembers answers is cheap for the bodies of the steady phase, which users send
    again and again, and does the whole work for these. They are drawn from the ranges and
    categories of the model's columns, as the fresh half of the pool is, and each is sent once.
    Generators draw them by number, so that no list of them has to travel; some have answers,
    computed in the lab, and are checked as all others are.
    """

    inputs: list[dict[str, Any]]
    """The manifest's columns."""
    named: bool
    seed: int
    unread: dict[str, Any] = {}
    """What each body has for the columns that the model does not read."""
    every: int = 1
    """The answer to each so-many-th body is known; of the others only the status is checked."""
    answers: list[str] = []

    @classmethod
    def find(cls, manifest: Manifest, pool: Sequence[Exchange], seed: int) -> "Fresh | None":
        """Those of a model; None: it has too few different rows. `pool`: what users ask."""
        found = cls(manifest["inputs"], manifest["named"], seed, unread(manifest))
        first = {found.exchange(number).body for number in range(_LOOKED_AT)}
        different = len(first - {each.body for each in pool})
        return found if different >= _DIFFERENT * _LOOKED_AT else None

    def exchange(self, number: int) -> Exchange:
        """The body of this number, from 0, and its answer if that is known."""
        # Reproducible, and cheap enough for the loop of a generator: 10 µs.
        draw = random.Random((self.seed << 40) + number)  # noqa: S311
        body = encode(_fresh_row(self.inputs, draw) | self.unread, named=self.named)
        place, between = divmod(number, self.every)
        known = not between and place < len(self.answers)
        return Exchange(body, self.answers[place] if known else "")

    def compute(
        self, graph: Path, manifest: Manifest, pool: Sequence[Exchange], sent: int
    ) -> "tuple[Fresh, list[float]]":
        """The same bodies with answers to some of them, where so many are expected to be `sent`;
        and the CPU time of one inference, microseconds, of the pool and of fresh bodies."""
        fresh = [self.exchange(number) for number in range(_LOOKED_AT)]
        both = [[each.body for each in exchanges] for exchanges in (pool, fresh)]
        times_us = _inference_us(graph, manifest, both)
        known = min(_MOST_ANSWERS, sent, int(_COMPUTING_S * 1e6 / max(*times_us, 1.0)))
        every = max(-(-sent // max(known, 1)), 1)
        bodies = [self.exchange(place * every).body for place in range(known)]
        model = json.loads(pool[0].answer)  # its name and version, which no graph computes
        texts = [compact(model | each) for each in expected(graph, manifest, bodies)]
        return msgspec.structs.replace(self, every=every, answers=texts), times_us


def bodies(model: str, manifest: Manifest | None, seed: int) -> list[str]:
    """Bodies in an order drawn by `seed`: golden rows, for the example models rows of their data,
    and rows that are made by the seed; `MOST`, of which at least half are fresh if the manifest is
    known. Raises `NoAnswer` where there are none."""
    named = manifest["named"] if manifest else not model.startswith("iris")
    golden = [each["row"] for each in manifest["golden"]] if manifest else []
    rows, more = [*golden, *_data(model, manifest)], unread(manifest) if manifest else {}
    found = list(dict.fromkeys(encode(row | more, named=named) for row in rows))
    draw = random.Random(seed)  # noqa: S311  an order and rows, not a secret
    draw.shuffle(found)
    if manifest:
        found = found[: MOST // 2]
        fresh = (_fresh_row(manifest["inputs"], draw) for _ in range(MOST - len(found)))
        found = list(dict.fromkeys([*found, *(encode(row | more, named=named) for row in fresh)]))
        draw.shuffle(found)
    if not found:
        known = ", ".join(sorted(file.stem for file in ROWS.glob("*.csv")))
        raise NoAnswer(
            f"there are no rows for model={model}: `just export models:/{model}@ALIAS` makes a "
            f"bundle, whose rows the lab sends; without one it has those of {known}"
        )
    return found[:MOST]


def prove(manifest: Manifest, ask: Ask) -> int:
    """Compare the server's answers to the golden rows with the registered model's; returns how
    many; raises `WrongAnswer`."""
    for golden in manifest["golden"]:
        body = encode(golden["row"] | unread(manifest), named=manifest["named"])
        right = {key: value for key, value in golden.items() if key != "row"}
        if isinstance(right.get("probabilities"), list):
            right["probabilities"] = _by_class(manifest, right["probabilities"])
        if not _has(answer := _answer(ask, body), right):
            raise WrongAnswer(
                f"golden row {body}: answer is {answer[:200]}, expected "
                f"{golden['prediction']!r} as the registered model says"
            )
    return len(manifest["golden"])


def learn(wanted: Iterable[str], ask: Ask, *, most_s: float = math.inf) -> list[Exchange]:
    """Ask the server at rest for the answer to every body, or for as many as it answers in this
    time, one at least; raises `WrongAnswer` for one that it refuses."""
    found: list[Exchange] = []
    end = time.monotonic() + most_s
    for body in wanted:
        found.append(Exchange(body, _answer(ask, body)))
        if time.monotonic() >= end:
            break
    return found


def distinguish(manifest: Manifest, ask: Ask) -> None:
    """Look whether a server whose answers may have any form answers with predictions: raises
    `NoAnswer` for one answer to all golden rows, of which the registered model gives several, with
    none of its predictions in it. It may be an error with status 200, or a page."""
    predictions = {compact(golden["prediction"]) for golden in manifest["golden"]}
    first = ""
    for golden in manifest["golden"] if len(predictions) > 1 else ():
        body = encode(golden["row"] | unread(manifest), named=manifest["named"])
        answer = _answer(ask, body)
        if (first and answer != first) or any(each in answer for each in predictions):
            return
        first = answer
    if first:
        raise NoAnswer(
            f"the server gives one answer to {len(manifest['golden'])} rows to which the "
            f"registered model gives {len(predictions)}, and none of these: {first[:200]}",
            status=200,
        )


def agree(exchanges: Sequence[Exchange], computed: Iterable[dict[str, Any]]) -> int:
    """Compare what the server at rest answered with computed answers; returns how many; raises
    `WrongAnswer`."""
    for exchange, right in zip(exchanges, computed, strict=True):
        if not _has(exchange.answer, right):
            raise WrongAnswer(
                f"{exchange.body}: answer is {exchange.answer[:200]}, expected {right} as the "
                "bundle's graph answers"
            )
    return len(exchanges)


def expect(exchange: Exchange, ask: Ask) -> None:
    """Ask once more; raises `WrongAnswer` if the answer is another one now."""
    answer = _answer(ask, exchange.body)
    if not is_right(answer.encode(), exchange.answer.encode()):
        raise WrongAnswer(
            f"the server at rest gives two answers to {exchange.body}: {exchange.answer[:200]} "
            f"and {answer[:200]}. Leave out of answers what changes each time, as a time or an id"
        )


def expected(graph: Path, manifest: Manifest, bodies: Sequence[str]) -> list[dict[str, Any]]:
    """The answers of a bundle's graph, `model.onnx`, to request bodies, one row each, in the form
    of the server's."""
    infer, found = _session(graph, manifest), []
    for row in _packed(manifest, bodies):
        first = (output[0].tolist() for output in infer(row))
        outputs = dict(zip(manifest["outputs"], first, strict=True))
        if "value" in outputs:
            answer = {"prediction": outputs["value"]}
        else:
            answer = {"prediction": manifest["classes"][outputs["label"]]}
        if "probabilities" in outputs:
            answer["probabilities"] = _by_class(manifest, outputs["probabilities"])
        found.append(answer)
    return found


def _inference_us(graph: Path, manifest: Manifest, groups: Sequence[Sequence[str]]) -> list[float]:
    """CPU time of one inference of one row, microseconds: the mean over each group of bodies. The
    groups take turns row by row, so that a machine that is slower for a while is so for all, and a
    first round fills the caches."""
    infer = _session(graph, manifest)
    by_row = list(zip(*(_packed(manifest, bodies[:_TIMED]) for bodies in groups), strict=False))
    for _ in range(2):
        spent_s = [0.0 for _ in groups]
        for rows in by_row:
            for group, row in enumerate(rows):
                began = time.thread_time()
                infer(row)
                spent_s[group] += time.thread_time() - began
    return [spent / len(by_row) * 1e6 for spent in spent_s]


def _session(graph: Path, manifest: Manifest) -> Callable[[Any], list[Any]]:
    """Runs the graph on rows, on one thread."""
    # Late: 60 MB that the processes of the generators do not need.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda rows: list(session.run(manifest["outputs"], {"rows": rows}))


def _packed(manifest: Manifest, bodies: Iterable[str]) -> Iterator[Any]:
    """Each body as an array of one row, as the graph takes it."""
    import numpy as np

    for row in numbers(manifest, bodies):
        yield np.array([row], dtype=manifest["dtype"])


def _by_class(manifest: Manifest, probabilities: Sequence[float]) -> dict[str, float]:
    """As the server writes them."""
    return dict(zip(map(str, manifest["classes"]), probabilities, strict=True))


def _has(answer: str, right: dict[str, Any]) -> bool:
    """Whether an answer has these fields; model and version, which it has too, are the server's."""
    received = fields(answer.encode())
    if not isinstance(received, dict):
        return False
    return same({key: received[key] for key in right if key in received}, right)


def _answer(ask: Ask, body: str) -> str:
    try:
        try:
            status, answer = ask(body)
        except ConnectionError:  # a server may close a connection after any answer: on a new one
            status, answer = ask(body)
    except (OSError, ValueError) as error:
        raise NoAnswer(
            f"the server at rest gave no answer: {error}",
            status=None if isinstance(error, InChunks) else 0,
        ) from None
    if status != 200:
        kind = NoAnswer if 300 <= status < 500 else Broken
        raise kind(
            f"the server refuses a row of this model: {body} got {status} "
            f"{answer[:200].decode(errors='replace')}",
            status=status,
        )
    return answer.decode()


def _data(model: str, manifest: Manifest | None) -> list[dict[str, Any]]:
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
    """A number, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _fresh_row(inputs: list[dict[str, Any]], draw: random.Random) -> dict[str, Any]:
    """A row that no list holds: each value drawn from the range or the categories of its column."""
    return {column["name"]: _drawn(column, draw) for column in inputs}


def _drawn(column: dict[str, Any], draw: random.Random) -> Any:
    if column["kind"] == "category":
        return draw.choice(column["categories"])
    if column["kind"] == "text":
        return draw_text(column, draw)
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
    return compact(row if named else {"features": list(row.values())})


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))
