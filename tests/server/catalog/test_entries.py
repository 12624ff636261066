"""Rows of the feature catalogue: what fits a model becomes rules, what does not is told why."""

from contextlib import suppress
from math import inf
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from halfcore.bundle import Input
from halfcore.catalog.entries import CatalogError, Entry, parse, rules_for
from halfcore.pipeline.decode import Decoder
from halfcore.pipeline.schema import Rule, Schema
from halfcore.problem import Problem
from support.bodies import RIGHT, dumped
from support.bundles import MIXED
from support.examples import examples

INPUTS = msgspec.convert(MIXED, list[Input])


def test_rows_that_fit_become_rules() -> None:
    """NULL says nothing; the bounds of an integer column are the integers within."""
    rows = [
        {
            "column_name": "mass",
            "position": 2,
            "kind": "number",
            "default_value": "null",
            "minimum": 2700.0,
        },
        {"column_name": "count", "minimum": 0.5, "maximum": 9.5, "default_value": "9"},
        {"column_name": "zone", "categories": "[20]"},
        {"column_name": "wet", "kind": "boolean"},
    ]

    rules = rules_for("mixed", parse("mixed", [EMPTY | row for row in rows]), INPUTS, "float32")

    assert rules == {
        "mass": Rule(default=None, minimum=2700.0),
        "count": Rule(default=9, minimum=1, maximum=9),
        "zone": Rule(categories=(20,)),
    }


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    (
        {"column_name": "Mass"},
        "column_name is 'Mass', expected one of island, mass, count, sex, zone, wet",
    ),
    ({"column_name": "mass", "position": 1}, "position is 1, expected 2, as in the model"),
    (
        {"column_name": "mass", "kind": "integer"},
        "kind is 'integer', expected number, as in the model",
    ),
    (
        {"column_name": "mass", "default_value": '"heavy"'},
        "default_value is 'heavy', expected a number",
    ),
    ({"column_name": "mass", "default_value": "true"}, "default_value is True, expected a number"),
    (
        {"column_name": "mass", "default_value": "1e39"},
        "default_value is 1e+39, expected a number between -3.40282e+38 and",
    ),
    (
        {"column_name": "mass", "default_value": "1", "minimum": 2.0},
        "default_value is 1, expected a number at least 2",
    ),
    (
        {"column_name": "mass", "default_value": "3", "maximum": 2.5},
        "default_value is 3, expected a number at most 2.5",
    ),
    (
        {"column_name": "mass", "minimum": 2.0, "maximum": 1.0},
        "minimum is 2.0, expected at most the maximum, 1",
    ),
    ({"column_name": "mass", "minimum": inf}, "minimum is inf, expected a finite number"),
    ({"column_name": "mass", "maximum": float("nan")}, "maximum is nan, expected a finite number"),
    ({"column_name": "mass", "minimum": "1"}, "minimum is '1', expected a number or NULL"),
    ({"column_name": "mass", "categories": "[1]"}, "categories is 1, expected NULL for a number"),
    ({"column_name": "count", "default_value": "1.5"}, "default_value is 1.5, expected an integer"),
    (
        {"column_name": "count", "default_value": "null"},
        "default_value is None, expected an integer",
    ),
    (
        {"column_name": "count", "minimum": 0.2, "maximum": 0.8},
        "minimum is 0.2, expected at most the maximum, 0.8, and an integer between them",
    ),
    (
        {"column_name": "count", "maximum": 1e30},
        "maximum is 1e+30, expected between -9007199254740992 and 9007199254740992",
    ),
    ({"column_name": "wet", "minimum": 0.0}, "minimum is 0.0, expected NULL for a boolean"),
    ({"column_name": "wet", "default_value": "1"}, "default_value is 1, expected true or false"),
    ({"column_name": "island", "maximum": 1.0}, "maximum is 1.0, expected NULL for a category"),
    (
        {"column_name": "island", "categories": '["Java"]'},
        "categories is Java, expected some of Biscoe, Dream, Torgersen",
    ),
    (
        {"column_name": "island", "categories": '["Dream", "Dream"]'},
        "categories is Dream, Dream, expected some of Biscoe, Dream, Torgersen, each once",
    ),
    (
        {"column_name": "island", "categories": '["Dream"]', "default_value": '"Biscoe"'},
        "default_value is 'Biscoe', expected one of Dream",
    ),
    (
        {"column_name": "island", "categories": "[]"},
        "categories is '[]', expected a JSON array of strings or integers",
    ),
    (
        {"column_name": "island", "categories": '"Dream"'},
        """categories is '"Dream"', expected a JSON array of strings or integers""",
    ),
    ({"column_name": "zone", "categories": '["10"]'}, "categories is 10, expected some of 10, 20"),
    (
        {"column_name": "zone", "categories": "[true]"},
        "categories is '[true]', expected a JSON array",
    ),
    (
        {"column_name": "zone", "default_value": '"10"'},
        "default_value is '10', expected an integer, one of 10, 20",
    ),
    (
        {"column_name": "sex", "default_value": "[]"},
        "default_value is '[]', expected a JSON string, number, boolean or null",
    ),
    ({"column_name": "sex", "default_value": "{"}, "default_value is '{', expected a JSON string"),
    (
        {"column_name": "sex", "kind": "text"},
        "kind is 'text', expected number, integer, boolean, category or NULL",
    ),
    ({"column_name": "sex", "position": 0}, "position is 0, expected a whole number from 1"),
]
EMPTY: dict[str, Any] = dict.fromkeys(field.name for field in msgspec.structs.fields(Entry))


@pytest.mark.parametrize(("row", "says"), CONTRADICTIONS)
def test_a_row_that_contradicts_the_model_is_told_why(row: dict[str, Any], says: str) -> None:
    """Model, column, field, what came and what was expected."""
    with pytest.raises(CatalogError) as raised:
        rules_for("mixed", parse("mixed", [EMPTY | row]), INPUTS, "float32")

    assert str(raised.value).startswith(f'model "mixed", column "{row["column_name"]}": {says}')


JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(['"Dream"', "[10]", "null", "[" * 2000])
)
ROWS = st.fixed_dictionaries(
    {"column_name": st.sampled_from([column.name for column in INPUTS]) | JUNK},
    optional=dict.fromkeys([*EMPTY][1:], JUNK),
)


@examples(100)
@given(st.lists(ROWS, max_size=3))
def test_rows_of_rubbish_are_refused_or_make_a_decoder(rows: list[dict[str, Any]]) -> None:
    """Nothing but `CatalogError` is raised, and what is accepted compiles and answers."""
    try:
        rules = rules_for("mixed", parse("mixed", [EMPTY | row for row in rows]), INPUTS, "float32")
    except CatalogError:
        return
    with suppress(Problem):
        assert Decoder(Schema(INPUTS, "float32", rules), max_rows=1).decode(dumped(RIGHT)).size == 1
