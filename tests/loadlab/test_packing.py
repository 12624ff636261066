"""Rows as the graph takes them, of every kind of column: the lab reads the bundle's format itself,
and must read what the server reads."""

import math
import random

import pytest

from halfcore.bundle import Text
from halfcore.pipeline.text import Tokenizer
from loadlab.generator import exchange, packing

WORDS = {
    "analyzer": "word",
    "lowercase": True,
    "strip_accents": None,
    "pattern": r"(?u)\b\w\w+\b",
    "stop_words": ["the"],
    "tokens": ["bad", "café", "good", "service"],
    "max_length": 60,
    "slots": 8,
}
CHARACTERS = WORDS | {"pattern": None, "stop_words": [], "tokens": [" ", "a", "b", "d", "g", "o"]}
TEXTS = ["The GOOD  café\tbad", "cafe\u0301 İo", "good" * 3, "x", "", "bad\nbad 東京 é"]
WAYS = {
    "words": WORDS,
    "words-ascii": WORDS | {"strip_accents": "ascii", "tokens": ["cafe", "good"]},
    "words-unicode": WORDS | {"strip_accents": "unicode", "lowercase": False},
    "characters": CHARACTERS | {"analyzer": "char", "slots": 60},
    "characters-of-words": CHARACTERS | {"analyzer": "char_wb", "slots": 180},
}


def manifest_of(*inputs, named=True):
    """The part of a manifest that says how rows are packed."""
    return {"inputs": list(inputs), "named": named, "golden": [], "classes": []}


def text_column(how, name="comment"):
    """A column of texts."""
    return {"name": name, "kind": "text", "text": how, "example": "good service", "nullable": False}


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_a_text_is_packed_as_the_server_packs_it(how):
    """Two readings of one format: a lab that counted tokens otherwise would call a right server
    wrong."""
    tokenizer = Tokenizer(Text(**how))
    for text in TEXTS:
        body = exchange.encode({"comment": text}, named=True)
        (row,) = packing.numbers(manifest_of(text_column(how)), [body])
        assert row == tokenizer.pack(text), text


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_drawn_texts_fit_the_column_and_differ(how):
    """The server takes every one of them; most are new ones."""
    tokenizer, column, draw = Tokenizer(Text(**how)), text_column(how), random.Random(1)  # noqa: S311
    drawn = [packing.draw_text(column, draw) for _ in range(300)]
    assert all(len(tokenizer.pack(text)) == how["slots"] for text in drawn)
    assert len(set(drawn)) > 20


def test_a_long_example_draws_no_text_that_is_too_long():
    """Neither more characters nor more tokens than the column takes."""
    for how in (WORDS | {"slots": 2}, WORDS | {"max_length": 9}):
        column = text_column(how) | {"example": "good " * 40}
        tokenizer, draw = Tokenizer(Text(**how)), random.Random(1)  # noqa: S311
        for _ in range(50):
            tokenizer.pack(packing.draw_text(column, draw))


def test_a_text_takes_its_slots_between_the_other_columns():
    """In the order of the manifest's inputs, named or not."""
    inputs = (
        {"name": "price", "kind": "number"},
        text_column(WORDS | {"slots": 3}),
        {"name": "city", "kind": "category", "categories": ["A", "B"], "accepts_unknown": True},
    )
    row = {"city": "C", "comment": "good good", "price": None}
    (packed,) = packing.numbers(manifest_of(*inputs), [exchange.encode(row, named=True)])
    assert math.isnan(packed[0])
    assert packed[1:] == [3.0, 3.0, 0.0, 3.0]  # unknown follows null, which follows B
    listed = '{"features":[1.5,"bad",null]}'
    assert list(packing.numbers(manifest_of(*inputs, named=False), [listed])) == [
        [1.5, 1.0, 0.0, 0.0, 2.0]
    ]


def test_a_model_of_texts_has_bodies_that_nobody_has_sent():
    """They are drawn from the known tokens."""
    how = WORDS | {"tokens": [f"word{number}" for number in range(100)]}
    column = text_column(how) | {"example": "good service and bad service"}
    fresh = exchange.Fresh.find(manifest_of(column), [], 1)
    assert fresh is not None
