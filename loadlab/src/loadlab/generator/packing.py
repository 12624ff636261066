"""A request's row as the graph takes it, and texts that nobody has sent: docs/bundle-format.md,
read a second time. The lab does not ask the server under test how to count tokens.
"""

import json
import math
import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Column = dict[str, Any]
"""An entry of the manifest's `inputs`."""
Pack = Callable[[Any], list[float]]
"""Takes a value of a column; returns its part of the row."""


def numbers(manifest: dict[str, Any], bodies: Iterable[str]) -> Iterator[list[float]]:
    """Each body as the graph's row: see `_packer`."""
    names = [column["name"] for column in manifest["inputs"]]
    packers = [_packer(column) for column in manifest["inputs"]]
    for row in map(json.loads, bodies):
        values = [row[name] for name in names] if manifest["named"] else row["features"]
        packed = (pack(value) for pack, value in zip(packers, values, strict=True))
        yield [number for part in packed for number in part]


def draw_text(column: Column, draw: random.Random) -> str:
    """A text of known tokens, half to twice as long as the column's example."""
    how, example = column["text"], column["example"]
    words = how["analyzer"] == "word"
    usual = max(len(example.split() if words else example), 1)
    parts = draw.choices(how["tokens"], k=draw.randint((usual + 1) // 2, 2 * usual))
    while True:
        text = (" " if words else "").join(parts)
        if len(text) <= how["max_length"] and len(_tokens(how, text)) <= how["slots"]:
            return text
        parts = parts[: len(parts) // 2]


def _packer(column: Column) -> Pack:
    """Numbers are as they are, null is NaN; categories are their index, a null's and then an
    unknown one's follow the last; a text is the numbers of its tokens."""
    if column["kind"] == "text":
        how = column["text"]
        known = {token: float(number) for number, token in enumerate(how["tokens"], 1)}
        return lambda value: _slots(how, known, value)
    if categories := column.get("categories"):
        codes = {value: float(index) for index, value in enumerate([*categories, None])}
        unknown = float(len(codes))
        return lambda value: [codes.get(value, unknown)]
    return lambda value: [math.nan if value is None else float(value)]


def _slots(how: dict[str, Any], known: dict[str, float], text: str) -> list[float]:
    """An unknown token is 0, and so are the slots that are left."""
    found = [known.get(token, 0.0) for token in _tokens(how, text)]
    return found + [0.0] * (how["slots"] - len(found))


def _tokens(how: dict[str, Any], text: str) -> list[str]:
    """As the bundle's format defines them."""
    if how["lowercase"]:
        text = text.lower()
    if how["strip_accents"] and not text.isascii():
        parts = unicodedata.normalize("NFKD", text)
        if how["strip_accents"] == "ascii":
            text = parts.encode("ascii", "ignore").decode()
        else:
            text = "".join(each for each in parts if not unicodedata.combining(each))
    if how["analyzer"] == "word":
        stop_words = frozenset(how["stop_words"])
        return [each for each in re.findall(how["pattern"], text) if each not in stop_words]
    text = re.sub(r"\s\s+", " ", text)
    if how["analyzer"] == "char":
        return list(text)
    return [token for word in text.split() for token in ("", " ", *word, " ")]
