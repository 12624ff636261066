"""Requests in MLflow's scoring protocol, made from a model's own columns and rows; sent to MLflow's
server when the answers are recorded, and to Halfcore when they are compared."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

JSON = "application/json"
CSV = "text/csv"
Records = list[dict[str, Any]]


class Body(NamedTuple):
    """One request to `/invocations`."""

    name: str
    content_type: str
    text: str


def bodies(columns: list[str] | None, rows: list[list[Any]]) -> Iterator[Body]:
    """The requests for one model.

    Args:
        columns: their names; None: the model takes a matrix.
        rows: at least three.
    """
    yield from _structure()
    yield from _positions(rows)
    if columns is not None:
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        yield from _frames(columns, rows, records)
        yield from _values(columns, records)
        yield from _tables(columns, rows)


def _json(name: str, document: Any) -> Body:
    return Body(name, JSON, json.dumps(document))


def _structure() -> Iterator[Body]:
    """Bodies that no model accepts."""
    texts = {
        "not JSON": "{",
        "empty": "",
        "a list": "[]",
        "a number": "1",
        "an empty object": "{}",
        "an unknown form": '{"rows": [[1]]}',
        "two forms": '{"instances": [[1]], "inputs": [[1]]}',
        "records that are an object": '{"dataframe_records": {"a": 1}}',
        "a split that is a list": '{"dataframe_split": [[1]]}',
        "a split without data": '{"dataframe_split": {"columns": ["a"]}}',
        "a split with an unknown key": '{"dataframe_split": {"data": [[1]], "rows": 1}}',
    }
    for name, text in texts.items():
        yield Body(name, JSON, text)
    yield Body("text/plain", "text/plain", "1")
    yield Body("another charset", f"{JSON}; charset=latin-1", "{}")
    yield Body("a parameter", f"{JSON}; format=pandas-split", "{}")


def _positions(rows: list[list[Any]]) -> Iterator[Body]:
    """Rows without names."""
    yield _json("instances: lists", {"instances": rows[:2]})
    yield _json("instances: one list", {"instances": rows[:1]})
    yield _json("inputs: lists", {"inputs": rows[:2]})
    yield _json("inputs: all rows", {"inputs": rows})
    yield _json("instances: params", {"instances": rows[:1], "params": {"top_k": 1}})
    yield _json("instances: params null", {"instances": rows[:1], "params": None})
    yield _json("instances: params a list", {"instances": rows[:1], "params": [1]})
    yield _json("instances: a value too few", {"instances": [rows[0][:-1]]})
    yield _json("instances: a value too many", {"instances": [[*rows[0], 1]]})
    yield _json("instances: a text", {"instances": [["abc"] * len(rows[0])]})
    yield _json("instances: another key", {"instances": rows[:1], "id": "a"})
    yield _json("split: no columns", {"dataframe_split": {"data": rows[:2]}})


def _frames(columns: list[str], rows: list[list[Any]], records: Records) -> Iterator[Body]:
    """Named rows, complete."""
    reverse, backward = columns[::-1], [row[::-1] for row in rows]
    yield _json("split", {"dataframe_split": {"columns": columns, "data": rows[:2]}})
    yield _json("split: one row", {"dataframe_split": {"columns": columns, "data": rows[:1]}})
    yield _json("split: all rows", {"dataframe_split": {"columns": columns, "data": rows}})
    yield _json(
        "split: index", {"dataframe_split": {"columns": columns, "index": [3, 4], "data": rows[:2]}}
    )
    yield _json("split: another order", {"dataframe_split": {"columns": reverse, "data": backward}})
    extra = [[*row, "x"] for row in rows]
    yield _json(
        "split: another column", {"dataframe_split": {"columns": [*columns, "id"], "data": extra}}
    )
    yield _json(
        "split: a column is missing",
        {"dataframe_split": {"columns": columns[1:], "data": [row[1:] for row in rows]}},
    )
    yield _json(
        "split: too few values", {"dataframe_split": {"columns": columns, "data": [rows[0][1:]]}}
    )
    yield _json("split: data an object", {"dataframe_split": {"columns": columns, "data": {}}})
    yield _json(
        "split: params", {"dataframe_split": {"columns": columns, "data": rows}, "params": {}}
    )
    yield _json("records", {"dataframe_records": records[:2]})
    yield _json("records: one", {"dataframe_records": records[:1]})
    yield _json("records: all", {"dataframe_records": records})
    yield _json("records: another key", {"dataframe_records": [r | {"id": 1} for r in records]})
    yield _json(
        "records: another key in one", {"dataframe_records": [records[0] | {"id": 1}, records[1]]}
    )
    short = {key: value for key, value in records[0].items() if key != columns[0]}
    yield _json("records: a key is missing", {"dataframe_records": [short]})
    yield _json("records: all keys are wrong", {"dataframe_records": [{"a": 1}]})
    yield _json("records: one is a list", {"dataframe_records": [records[0], [1]]})
    yield _json("instances: records", {"instances": records[:2]})
    yield _json("instances: records, another key", {"instances": [records[0] | {"id": 1}]})
    yield _json("instances: records, a key is missing", {"instances": [short]})
    yield _json("instances: unequal records", {"instances": [records[0], short]})
    lists = {name: [record[name] for record in records] for name in columns}
    yield _json("inputs: columns", {"inputs": lists})
    yield _json("inputs: columns, another", {"inputs": lists | {"id": [1] * len(records)}})
    yield _json("inputs: scalars", {"inputs": records[0]})
    unequal = lists | {columns[0]: lists[columns[0]][:-1]}
    yield _json("inputs: unequal columns", {"inputs": unequal})
    missing = {key: value for key, value in lists.items() if key != columns[0]}
    yield _json("inputs: a column is missing", {"inputs": missing})


def _values(columns: list[str], records: Records) -> Iterator[Body]:
    """Named rows with values of other types, one column at a time."""
    record = records[0]
    numbers = [name for name in columns if isinstance(record[name], int | float)]
    texts = [name for name in columns if isinstance(record[name], str)]
    others: dict[str, Any] = {"null": None, "a text": "abc", "a list": [1], "an object": {"a": 1}}
    for name in (numbers[0], *texts[:1]):
        kind = "number" if name in numbers else "text"
        for what, value in others.items():
            if (kind, what) != ("text", "a text"):
                yield _json(
                    f"records: {kind} is {what}", {"dataframe_records": [record | {name: value}]}
                )
    number = record[numbers[0]]
    for what, value in {
        "a text of it": str(number),
        "an integer": int(number),
        "a float": float(number),
        "true": True,
    }.items():
        yield _json(
            f"records: number is {what}", {"dataframe_records": [record | {numbers[0]: value}]}
        )
        yield _json(f"inputs: number is {what}", {"inputs": record | {numbers[0]: value}})
    text = json.dumps({"dataframe_records": [record | {numbers[0]: float("nan")}]})
    yield Body("records: number is NaN", JSON, text)
    text = json.dumps({"dataframe_records": [record | {numbers[0]: float("inf")}]})
    yield Body("records: number is Infinity", JSON, text)
    text = json.dumps({"dataframe_records": [record]})
    yield Body("records: a key twice", JSON, text.replace("[{", f'[{{"{columns[0]}": null, ', 1))


def _tables(columns: list[str], rows: list[list[Any]]) -> Iterator[Body]:
    """CSV."""
    yield Body("csv", CSV, _csv([columns, *rows[:2]]))
    yield Body("csv: charset", f"{CSV}; charset=utf-8", _csv([columns, *rows[:2]]))
    yield Body("csv: all rows", CSV, _csv([columns, *rows]))
    yield Body("csv: another order", CSV, _csv([columns[::-1], *[row[::-1] for row in rows]]))
    indexed = [[i, *row] for i, row in enumerate(rows)]
    yield Body("csv: index", CSV, _csv([["", *columns], *indexed]))
    yield Body("csv: another column", CSV, _csv([[*columns, "id"], *[[*row, "x"] for row in rows]]))
    yield Body("csv: a column is missing", CSV, _csv([columns[1:], *[row[1:] for row in rows]]))
    yield Body("csv: empty", CSV, "")
    yield Body("csv: header alone", CSV, _csv([columns]))


def _csv(rows: list[list[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
