"""Bodies that a client may send to the model of `bundles.MIXED`, right and wrong, and what each
gets."""

import json
from typing import Any, NamedTuple

from support.bundles import MIXED

RIGHT: dict[str, Any] = {
    "island": "Dream",
    "mass": 4000.5,
    "count": 3,
    "sex": "MALE",
    "zone": 20,
    "wet": True,
}
VECTOR = list(RIGHT.values())
NAMES = [column["name"] for column in MIXED]
MOST_ROWS = 20
"""The corpus is written for a server with `max_rows` 20."""


class Case(NamedTuple):
    """One body; `code`, `path` and `says` are empty for bodies that are right."""

    name: str
    body: bytes
    status: int
    code: str = ""
    path: str = ""
    says: tuple[str, ...] = ()
    """What the sentence for people must name: field, row, what came, what was expected."""


def record(**changes: Any) -> dict[str, Any]:
    """The right record with other values."""
    return RIGHT | changes


def dumped(value: Any) -> bytes:
    """A value as JSON."""
    return json.dumps(value, ensure_ascii=False).encode()


def raw(name: str, text: str) -> bytes:
    """The right record with one value spelled by hand."""
    return dumped(record(**{name: "@"})).replace(b'"@"', text.encode())


def without(name: str) -> dict[str, Any]:
    """The right record less one column."""
    return {key: value for key, value in RIGHT.items() if key != name}


def _vector(*values: Any) -> bytes:
    return dumped({"features": list(values)})


_TEXT = dumped(RIGHT)
_KNOWN_ISLANDS = "one of Biscoe, Dream, Torgersen"
_ALL_NAMES = ", ".join(NAMES)

ACCEPTED = [
    Case("a record", _TEXT, 200),
    Case("records", dumped([RIGHT, record(sex=None), record(mass=None)]), 200),
    Case("a vector", _vector(*VECTOR), 200),
    Case("vectors", dumped({"features": [VECTOR, VECTOR]}), 200),
    Case("as many rows as there may be", dumped([RIGHT] * MOST_ROWS), 200),
    Case("another order", dumped(dict(reversed(RIGHT.items()))), 200),
    Case("white space", b" \t\r\n" + json.dumps(RIGHT, indent=8).encode() + b"\n\n", 200),
    Case("white space before features", b" " * 100 + _vector(*VECTOR), 200),
    Case("an escaped name", _TEXT.replace(b'"island"', b'"\\u0069sland"'), 200),
    Case("an escaped features", b'{"\\u0066eatures":' + dumped(VECTOR) + b"}", 200),
    Case("an escaped text", raw("island", '"\\u0044ream"'), 200),
    Case("an integer for a number", dumped(record(mass=4000)), 200),
    Case("minus zero", raw("mass", "-0"), 200),
    Case("an exponent", raw("mass", "4.0E+3"), 200),
    Case("too small for a float", raw("mass", "1e-999"), 200),
    Case("the largest float32", raw("mass", "3.4028235e38"), 200),
    Case("an integer beyond 64 bits that fits a float32", raw("count", "1" + "0" * 30), 200),
]

NOT_JSON = [
    Case("empty", b"", 400, "invalid_json"),
    Case("white space only", b"  \n", 400, "invalid_json"),
    Case("truncated", _TEXT[:-1], 400, "invalid_json"),
    Case("truncated in a text", _TEXT[:14], 400, "invalid_json"),
    Case("trailing garbage", _TEXT + b"x", 400, "invalid_json"),
    Case("two bodies", _TEXT + _TEXT, 400, "invalid_json"),
    Case("trailing comma", _TEXT[:-1] + b",}", 400, "invalid_json"),
    Case("trailing NUL", _TEXT + b"\0", 400, "invalid_json"),
    Case("single quotes", _TEXT.replace(b'"', b"'"), 400, "invalid_json"),
    Case("a comment", b"/* hi */" + _TEXT, 400, "invalid_json"),
    Case("a form", b"island=Dream&mass=1", 400, "invalid_json"),
    Case("form feed", b"\x0c" + _TEXT, 400, "invalid_json"),
    Case("a leading zero", raw("mass", "01"), 400, "invalid_json"),
    Case("a plus sign", raw("mass", "+1"), 400, "invalid_json"),
    Case("a bare point", raw("mass", "1."), 400, "invalid_json"),
    Case("hexadecimal", raw("mass", "0x10"), 400, "invalid_json"),
    Case("NaN", raw("mass", "NaN"), 400, "invalid_json", says=("NaN",)),
    Case("Infinity", raw("mass", "Infinity"), 400, "invalid_json", says=("Infinity",)),
    Case("minus Infinity", raw("mass", "-Infinity"), 400, "invalid_json", says=("-Infinity",)),
    Case("5,000 digits", raw("mass", "1" * 5000), 400, "invalid_json", says=("4,300 digits",)),
    Case("a control character in a text", raw("island", '"Dream\x01"'), 400, "invalid_json"),
    Case("a newline in a text", raw("island", '"Dream\n"'), 400, "invalid_json"),
    Case("a wrong escape", raw("island", '"\\x44ream"'), 400, "invalid_json"),
    Case("a byte order mark", b"\xef\xbb\xbf" + _TEXT, 400, "invalid_json"),
    Case("UTF-16", _TEXT.decode().encode("utf-16"), 400, "invalid_utf8"),
    Case(
        "Latin-1", dumped(record(island="Biscoé")).decode().encode("latin-1"), 400, "invalid_utf8"
    ),
    Case(
        "an overlong encoding", raw("island", '"@"').replace(b"@", b"\xc0\xaf"), 400, "invalid_utf8"
    ),
    Case(
        "an encoded surrogate",
        raw("island", '"@"').replace(b"@", b"\xed\xa0\x80"),
        400,
        "invalid_utf8",
    ),
    Case("invalid UTF-8 in a name", _TEXT.replace(b"island", b"\xffsland"), 400, "invalid_utf8"),
    Case("100,000 arrays deep", b"[" * 100_000, 400, "too_deep"),
    Case("100,000 arrays deep and closed", b"[" * 100_000 + b"]" * 100_000, 400, "too_deep"),
    Case("100,000 objects deep", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "too_deep"),
    Case("100,000 arrays deep in features", b'{"features":' + b"[" * 100_000, 400, "too_deep"),
    Case("100,000 arrays deep in a column", raw("mass", "[" * 100_000), 400, "too_deep"),
    Case("a name twice", _TEXT[:-1] + b',"mass":1}', 400, "duplicate_key", says=('"mass"',)),
    Case(
        "a name twice, one of them escaped",
        _TEXT[:-1] + b',"m\\u0061ss":1}',
        400,
        "duplicate_key",
        says=('"mass"',),
    ),
    Case(
        "a name twice, an empty text",
        _TEXT[:-1] + b',"sex":null}',
        400,
        "duplicate_key",
        says=('"sex"',),
    ),
    Case(
        "features twice",
        b'{"features":[1],"features":' + dumped(VECTOR) + b"}",
        400,
        "duplicate_key",
        says=('"features"',),
    ),
    Case(
        "a name twice in the second row",
        b"[" + _TEXT + b"," + _TEXT[:-1] + b',"mass":1}]',
        400,
        "duplicate_key",
    ),
    Case(
        "an unknown name twice", _TEXT[:-1] + b',"a":1,"a":2}', 400, "duplicate_key", says=('"a"',)
    ),
]

TOO_MANY = [
    Case(
        "too many records",
        dumped([RIGHT] * (MOST_ROWS + 1)),
        413,
        "too_many_rows",
        says=("more than 20 rows", "at most 20"),
    ),
    Case(
        "too many vectors",
        dumped({"features": [VECTOR] * (MOST_ROWS + 1)}),
        413,
        "too_many_rows",
        says=("more than 20 rows", "at most 20"),
    ),
]

WRONG_VALUES = [
    Case("a number alone", b"1", 422, "wrong_type", "$", ("an integer", "an object")),
    Case("a text alone", b'"hi"', 422, "wrong_type", "$", ("a string", "an object")),
    Case("null alone", b"null", 422, "wrong_type", "$", ("null", "an object")),
    Case("no rows", b"[]", 422, "no_rows", "$", ("at least one row",)),
    Case("an empty record", b"{}", 422, "missing_column", "$.island", ('"island"', _ALL_NAMES)),
    Case(
        "an empty vector",
        b'{"features":[]}',
        422,
        "wrong_length",
        "$.features",
        ("0 values", "expected 6", _ALL_NAMES),
    ),
    Case(
        "features is a text",
        b'{"features":"1,2"}',
        422,
        "wrong_type",
        "$.features",
        ("a string", "an array"),
    ),
    Case(
        "features is null",
        b'{"features":null}',
        422,
        "wrong_type",
        "$.features",
        ("null", "an array"),
    ),
    Case(
        "features is an object",
        b'{"features":{}}',
        422,
        "wrong_type",
        "$.features",
        ("an object", "an array"),
    ),
    Case(
        "something beside features",
        b'{"features":' + dumped(VECTOR) + b',"model":1}',
        422,
        "unknown_column",
        "$.model",
        ('"model"',),
    ),
    Case(
        "a vector that is short",
        _vector(*VECTOR[:5]),
        422,
        "wrong_length",
        "$.features",
        ("5 values", "expected 6", _ALL_NAMES),
    ),
    Case(
        "a vector that is long",
        _vector(*VECTOR, 1),
        422,
        "wrong_length",
        "$.features",
        ("7 values", "expected 6"),
    ),
    Case(
        "a second vector that is short",
        dumped({"features": [VECTOR, VECTOR[1:]]}),
        422,
        "wrong_length",
        "$.features[1]",
        ("row 1", "5"),
    ),
    Case(
        "vectors and values",
        dumped({"features": [VECTOR, 1]}),
        422,
        "wrong_type",
        "$.features[1]",
        ("row 1", "an integer", "an array"),
    ),
    Case(
        "a list of numbers",
        b"[1,2,3]",
        422,
        "wrong_type",
        "$[0]",
        ("row 0", "an integer", "an object"),
    ),
    Case(
        "a missing column",
        dumped(without("zone")),
        422,
        "missing_column",
        "$.zone",
        ('"zone"', "missing", _ALL_NAMES),
    ),
    Case(
        "a missing column in row 1",
        dumped([RIGHT, without("zone")]),
        422,
        "missing_column",
        "$[1].zone",
        ("row 1", '"zone"'),
    ),
    Case(
        "an unknown column",
        dumped(record(colour="red")),
        422,
        "unknown_column",
        "$.colour",
        ('"colour"', _ALL_NAMES),
    ),
    Case(
        "an unknown column in row 1",
        dumped([RIGHT, record(colour=1)]),
        422,
        "unknown_column",
        "$[1].colour",
        ("row 1", '"colour"'),
    ),
    Case(
        "a name in other letters",
        dumped(without("mass") | {"Mass": 1}),
        422,
        "unknown_column",
        "$.Mass",
        ('"Mass"',),
    ),
    Case("an empty name", dumped(record(**{"": 1})), 422, "unknown_column", "$.", ('""',)),
    Case(
        "a nested unknown column",
        dumped(record(a={"b": [1] * 1000})),
        422,
        "unknown_column",
        "$.a",
        ('"a"',),
    ),
    Case(
        "a text for a number",
        dumped(record(mass="4000")),
        422,
        "wrong_type",
        "$.mass",
        ('"mass"', '"4000"', "a number"),
    ),
    Case(
        "true for a number",
        dumped(record(mass=True)),
        422,
        "wrong_type",
        "$.mass",
        ('"mass"', "true", "a number"),
    ),
    Case(
        "an array for a number",
        dumped(record(mass=[1])),
        422,
        "wrong_type",
        "$.mass",
        ('"mass"', "an array of 1", "a number"),
    ),
    Case(
        "an object for a number",
        dumped(record(mass={"a": 1})),
        422,
        "wrong_type",
        "$.mass",
        ('"mass"', "an object of 1", "a number"),
    ),
    Case(
        "a number with a comma",
        dumped(record(mass="4,5")),
        422,
        "wrong_type",
        "$.mass",
        ('"mass"', '"4,5"', "a number"),
    ),
    Case(
        "a fraction for an integer",
        dumped(record(count=3.5)),
        422,
        "wrong_type",
        "$.count",
        ('"count"', "3.5", "an integer"),
    ),
    Case(
        "a text for an integer",
        dumped(record(count="3")),
        422,
        "wrong_type",
        "$.count",
        ('"count"', '"3"', "an integer"),
    ),
    Case(
        "false for an integer",
        dumped(record(count=False)),
        422,
        "wrong_type",
        "$.count",
        ('"count"', "false", "an integer"),
    ),
    Case(
        "1 for a boolean",
        dumped(record(wet=1)),
        422,
        "wrong_type",
        "$.wet",
        ('"wet"', "1", "true or false"),
    ),
    Case(
        "a text for a boolean",
        dumped(record(wet="true")),
        422,
        "wrong_type",
        "$.wet",
        ('"wet"', '"true"', "true or false"),
    ),
    Case(
        "a number for a text",
        dumped(record(island=1)),
        422,
        "wrong_type",
        "$.island",
        ('"island"', "1", _KNOWN_ISLANDS),
    ),
    Case(
        "true for an integer category",
        dumped(record(zone=True)),
        422,
        "wrong_type",
        "$.zone",
        ('"zone"', "true", "one of 10, 20"),
    ),
    Case(
        "a text for an integer category",
        dumped(record(zone="10")),
        422,
        "wrong_type",
        "$.zone",
        ('"zone"', '"10"', "one of 10, 20"),
    ),
    Case(
        "null for an integer",
        dumped(record(count=None)),
        422,
        "null_not_allowed",
        "$.count",
        ('"count"', "null", "an integer"),
    ),
    Case(
        "null for a category",
        dumped(record(island=None)),
        422,
        "null_not_allowed",
        "$.island",
        ('"island"', "null", _KNOWN_ISLANDS),
    ),
    Case(
        "null for a boolean",
        dumped(record(wet=None)),
        422,
        "null_not_allowed",
        "$.wet",
        ('"wet"', "null", "true or false"),
    ),
    Case(
        "null in a vector",
        _vector(*VECTOR[:5], None),
        422,
        "null_not_allowed",
        "$.features[5]",
        ('"wet"', "null"),
    ),
    Case(
        "null for a row",
        dumped([RIGHT, None]),
        422,
        "wrong_type",
        "$[1]",
        ("row 1", "null", "an object"),
    ),
    Case(
        "an unknown category",
        dumped(record(island="Java")),
        422,
        "unknown_category",
        "$.island",
        ('"Java"', _KNOWN_ISLANDS),
    ),
    Case(
        "an empty category",
        dumped(record(island="")),
        422,
        "unknown_category",
        "$.island",
        ('"island"', '""', _KNOWN_ISLANDS),
    ),
    Case(
        "a category in other letters",
        dumped(record(island="dream")),
        422,
        "unknown_category",
        "$.island",
        ('"dream"',),
    ),
    Case(
        "a category with a space",
        dumped(record(island="Dream ")),
        422,
        "unknown_category",
        "$.island",
        ('"Dream "',),
    ),
    Case(
        "an unknown integer category",
        dumped(record(zone=30)),
        422,
        "unknown_category",
        "$.zone",
        ('"zone"', "30", "one of 10, 20"),
    ),
    Case(
        "an unknown category in row 1",
        dumped([RIGHT, record(island="Java")]),
        422,
        "unknown_category",
        "$[1].island",
        ("row 1",),
    ),
    Case(
        "an unknown category in vectors",
        dumped({"features": [VECTOR, ["Java", *VECTOR[1:]]]}),
        422,
        "unknown_category",
        "$.features[1][0]",
        ("row 1", '"island"', '"Java"'),
    ),
    Case(
        "a lone surrogate",
        raw("island", '"\\ud800"'),
        422,
        "unknown_category",
        "$.island",
        ('"island"', _KNOWN_ISLANDS),
    ),
    Case("a lone surrogate as a name", _TEXT[:-1] + b',"\\udfff":1}', 422, "unknown_column"),
    Case(
        "a quote in a text",
        raw("island", '"\\"Dream\\""'),
        422,
        "unknown_category",
        "$.island",
        ('"island"',),
    ),
    Case(
        "NUL in a text",
        raw("island", '"Dream\\u0000"'),
        422,
        "unknown_category",
        "$.island",
        ('"island"',),
    ),
    Case(
        "a text of a megabyte",
        dumped(record(island="x" * 1_000_000)),
        422,
        "unknown_category",
        "$.island",
        ("xxx…",),
    ),
    Case(
        "a name of a megabyte",
        dumped(record(**{"x" * 1_000_000: 1})),
        422,
        "unknown_column",
        "",
        ("xxx…",),
    ),
    Case(
        "a name of many brackets",
        dumped(record(**{"{" * 1_000_000: 1})),
        422,
        "unknown_column",
        "",
        ("{{{…",),
    ),
    Case(
        "10,000 unknown columns",
        dumped(record(**{f"c{i}": i for i in range(10_000)})),
        422,
        "unknown_column",
        "$.c0",
        ("least 9 more",),
    ),
    Case(
        "above float32",
        raw("mass", "3.5e38"),
        422,
        "out_of_range",
        "$.mass",
        ('"mass"', "3.5e+38", "3.40282e+38", "float32"),
    ),
    Case(
        "below float32",
        raw("mass", "-3.5e38"),
        422,
        "out_of_range",
        "$.mass",
        ('"mass"', "-3.5e+38", "float32"),
    ),
    Case(
        "above float64", raw("mass", "1e999"), 422, "out_of_range", "$.mass", ('"mass"', "float32")
    ),
    Case(
        "below float64", raw("mass", "-1e999"), 422, "out_of_range", "$.mass", ('"mass"', "float32")
    ),
    Case(
        "400 digits",
        raw("mass", "1" + "0" * 400),
        422,
        "out_of_range",
        "$.mass",
        ('"mass"', "float32"),
    ),
    Case(
        "an integer of 400 digits",
        raw("count", "1" + "0" * 400),
        422,
        "out_of_range",
        "$.count",
        ('"count"', "an integer", "float32"),
    ),
    Case(
        "an integer above float32",
        raw("count", "1" + "0" * 39),
        422,
        "out_of_range",
        "$.count",
        ('"count"', "an integer", "float32"),
    ),
    Case(
        "400 digits in an integer category",
        raw("zone", "1" + "0" * 400),
        422,
        "unknown_category",
        "$.zone",
        ('"zone"', "one of 10, 20"),
    ),
    Case(
        "60 arrays deep",
        raw("mass", "[" * 60 + "]" * 60),
        422,
        "wrong_type",
        "$.mass",
        ('"mass"', "an array"),
    ),
    Case("900 arrays deep", raw("mass", "[" * 900 + "]" * 900), 400, "too_deep"),
    Case(
        "several things wrong",
        dumped(record(mass="a", count="b")),
        422,
        "wrong_type",
        "$.mass",
        ("1 more",),
    ),
]

REFUSED = NOT_JSON + TOO_MANY + WRONG_VALUES
