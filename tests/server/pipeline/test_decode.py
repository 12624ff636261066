"""The two decoders of a body: the fast one for right bodies, and the one that explains what is
wrong."""

import json
import math
from functools import partial
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given

from halfcore.bundle import Input
from halfcore.pipeline.columns import value_problem
from halfcore.pipeline.decode import Decoder, Rows
from halfcore.pipeline.explain import Explainer
from halfcore.pipeline.schema import Rule, Schema
from halfcore.problem import MOST_ERRORS, Problem
from support.bodies import ACCEPTED, MOST_ROWS, REFUSED, RIGHT, VECTOR, Case, dumped, record
from support.bundles import MIXED, NUMBERS
from support.examples import examples

MAX_ROWS = 4


def schema_of(
    inputs: list[dict[str, Any]], dtype: str = "float32", rules: dict[str, Rule] | None = None
) -> Schema:
    """A schema without a manifest around it."""
    return Schema(msgspec.convert(inputs, list[Input]), dtype, rules)


MIXED_DECODER = Decoder(schema_of(MIXED), max_rows=MOST_ROWS)
PACKED = np.array([1, 4000.5, 3, 1, 1, 1], "<f4").tobytes()


def test_rows_packed_together_are_those_packed_one_by_one() -> None:
    """Of every kind of column, with null, unknown categories, and ignored values at the end."""
    schema = schema_of(
        [
            {"name": "a", "kind": "number", "nullable": True, "example": None},
            {"name": "b", "kind": "integer", "nullable": False, "example": None},
            {"name": "c", "kind": "boolean", "nullable": True, "example": None},
            {"name": "d", "kind": "category", "nullable": True, "example": None}
            | {"categories": ["x", "y"], "accepts_unknown": True},
            {"name": "e", "kind": "category", "nullable": False, "example": None}
            | {"categories": [1, 2]},
        ]
    )
    rows = [(0.1, 7, True, "x", 2), (None, -7, None, None, 1), (1e38, 0, False, "?", 1)]

    assert schema.pack_rows(rows) == b"".join(map(schema.pack, rows))
    assert schema.pack_rows([]) == b""
    with pytest.raises(KeyError):
        schema.pack_rows([*rows, (0.0, 0, True, "x", 3)])
    with pytest.raises(OverflowError):
        schema.pack_rows([*rows, (1e39, 0, True, "x", 1)])


# -- the two ways agree ----------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "x0",
        "x1",
        "features",
        "feature",
        "f0",
        "é",
        "日本",
        "a b",
        "%s",
        "$",
        "a/b",
        "__class__",
        "\u2028",
        "😀",
    ]
)
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "b",
        "Dream",
        'say "hi"',
        "back\\slash",
        "%d",
        "é",
        "e\u0301",
        "日本",
        "\n",
        "\x00",
        "null",
        "features",
        "😀",
    ]
)
INTEGERS = st.integers(-3, 20) | st.sampled_from([-(2**63), 2**63 - 1, 2**31])


@st.composite
def columns(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """One column of any kind."""
    kind = draw(st.sampled_from(["number", "number", "integer", "boolean", "category"]))
    column = {"name": name, "kind": kind, "nullable": draw(st.booleans()), "example": None}
    if kind == "category":
        column["categories"] = draw(
            st.lists(draw(st.sampled_from([TEXTS, INTEGERS])), min_size=1, max_size=5, unique=True)
        )
    return column


@st.composite
def schemas(draw: st.DrawFn, *, ruled: bool = False) -> Schema:
    """One to five columns in either dtype; `ruled` by a catalogue that fits them."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    inputs = [draw(columns(name)) for name in names]
    dtype = draw(st.sampled_from(["float32", "float64"]))
    rules = (
        {column["name"]: draw(rules_for(column, dtype)) for column in inputs if draw(st.booleans())}
        if ruled
        else {}
    )
    return schema_of(inputs, dtype, rules)


BOUNDS = [-(2**53), -1, 0, 1, 3, 10, 20, 100, 2**53]
FRACTIONS = [-1e308, -3.5e38, -0.5, 0.1, 2.5, 16777217.0, 3.4028235e38, 1e300, 5e-324]


@st.composite
def rules_for(draw: st.DrawFn, column: dict[str, Any], dtype: str) -> Rule:
    """A rule that the column can have: bounds, some of its categories, a default that is legal."""
    rule = Rule()
    if column["kind"] in ("number", "integer"):
        bound = (
            st.sampled_from(BOUNDS if column["kind"] == "integer" else BOUNDS + FRACTIONS)
            | st.none()
        )
        low, high = draw(bound), draw(bound)
        if low is not None and high is not None:
            low, high = sorted([low, high])
        rule = Rule(minimum=low, maximum=high)
    elif column["kind"] == "category" and draw(st.booleans()):
        allowed = draw(st.lists(st.sampled_from(column["categories"]), min_size=1, unique=True))
        rule = Rule(categories=tuple(allowed))
    if draw(st.booleans()):
        schema = schema_of([column], dtype, {column["name"]: rule})
        default = draw(right_values(schema.inputs[0], dtype))
        if isinstance(default, int | float) and column["kind"] in ("number", "integer"):
            default = rule.clamp(default)
        if (
            value_problem(schema.inputs[0], default, schema) is None
        ):  # a bound may lie beyond float32
            rule = msgspec.structs.replace(rule, default=default)
    return rule


def right_values(column: Input, dtype: str) -> st.SearchStrategy[Any]:
    """Values that the column allows."""
    numbers = st.floats(
        allow_nan=False, allow_infinity=False, width=32 if dtype == "float32" else 64
    ) | st.integers(-(2**70), 2**70)
    kinds = {
        "number": numbers | st.sampled_from(BOUNDS),
        "integer": st.integers(-(2**70), 2**70) | INTEGERS,
        "boolean": st.booleans(),
    }
    right = st.sampled_from(column.categories) if column.categories else kinds[column.kind]
    return right | st.none() if column.nullable else right


ODD_NUMBERS = [
    "-0",
    "-0.0",
    "0e0",
    "1E5",
    "3.0",
    "10.0",
    "1e1",
    "1e2",
    "01",
    "+1",
    "1.",
    ".5",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1e-999",
    "3.5e38",
    "3.4028235e38",
    "3.40282356779733e38",
    "3.4028235677973366e38",
    "-3.4028235677973366e38",
    "1.7976931348623157e308",
    "1.7976931348623159e308",
    "1e308",
    "1" + "0" * 38,
    "1" + "0" * 39,
    "1" + "0" * 308,
    "1" + "0" * 309,
    "1" + "0" * 400,
    "1" * 4301,
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "9007199254740993",
    "16777217",
    "0.1",
    "5e-324",
    "1e-46",
    "0x1",
    "1_000",
    "true",
    "1 2",
    "10",
    "20",
]
ODD_TEXTS = [
    '"\\u0022"',
    '"\\""',
    '"\\u0061"',
    '"\\ud83d\\ude00"',
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\x01"',
    '"\x7f"',
    '"\\x41"',
    '"\\/"',
    '"\\u00e9"',
    '"Ma\\u006ce"',
    '"Male"',
    '"male"',
    '"Male',
    "Male",
    '""',
    '"\\u0000"',
    '"\\n"',
    '"\n"',
    "'Male'",
    '"10"',
    '"null"',
    '"True"',
    '"\u2028"',
    '"Mâle"',
]
ODD_VALUES = [
    *ODD_NUMBERS,
    *ODD_TEXTS,
    "null",
    "false",
    "[]",
    "{}",
    "[1]",
    '{"a":1,"a":2}',
    '{"a":"a"}',
    "",
    "[" * 3000,
    "[" * 3000 + "]" * 3000,
    "None",
    "1,1",
    "/**/1",
]
SPACE = st.sampled_from(["", "", "", " ", "\n\t", "\r"])


@st.composite
def spelled(draw: st.DrawFn, value: Any) -> str:
    """One of the JSON texts that mean a value."""
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    if isinstance(value, str) and draw(st.integers(0, 5)) == 0:
        text = '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in value) + '"'
    return draw(SPACE) + text


@st.composite
def rows(draw: st.DrawFn, schema: Schema, *, named: bool, defect: str) -> str:
    """One row as an object or an array, with one thing odd about it if a defect is given."""
    values = [draw(spelled(draw(right_values(column, schema.dtype)))) for column in schema.inputs]
    at = draw(st.integers(0, len(values) - 1))
    if defect == "value":
        likely = ODD_TEXTS if at in schema.text_columns else ODD_NUMBERS
        values[at] = draw(st.sampled_from([*likely, *likely, *ODD_VALUES]))
    members = (
        [
            draw(spelled(name)) + ":" + value
            for name, value in zip(schema.names, values, strict=True)
        ]
        if named
        else values
    )
    if defect == "twice":
        members.insert(draw(st.integers(0, len(members))), members[at])
    elif defect == "null twice" and named:
        members.insert(draw(st.integers(0, len(members))), json.dumps(schema.names[at]) + ":null")
    elif defect == "less":
        members.pop(at)
    elif defect == "less and twice":
        members.pop(at)
        members.extend(members[:1])
    elif defect == "several less" and named:
        members = [member for member in members if draw(st.booleans())]
    elif named:
        members = draw(st.permutations(members))
    return ("{%s}" if named else "[%s]") % ",".join(members)


def damaged(draw: st.DrawFn, body: bytes) -> bytes:
    """A body after an accident on the way."""
    at = draw(st.integers(0, len(body)))
    return draw(
        st.sampled_from(
            [
                body[:at],
                body[:at] + b'"' + body[at:],
                body[:at] + b"\\" + body[at:],
                body[:at] + b"0" + body[at:],
                body[:at] + b"\xff" + body[at + 1 :],
                body[:at] + b'"a":1,' + body[at:],
                body[:at] + bytes([draw(st.integers(0, 255))]) + body[at + 1 :],
                body + b"x",
                body + b"\0",
                b"\xef\xbb\xbf" + body,
                body.decode().encode("utf-16"),
            ]
        )
    )


@st.composite
def bodies(draw: st.DrawFn, schema: Schema) -> bytes:
    """A body in one of the four forms: right, odd in one value or name, or damaged."""
    form = draw(st.sampled_from(["record", "records", "vector", "vectors"]))
    defect = draw(
        st.sampled_from(
            [
                "",
                "value",
                "value",
                "value",
                "twice",
                "null twice",
                "less",
                "less and twice",
                "several less",
                "damage",
            ]
        )
    )
    several = (
        draw(st.sampled_from([1, 2, 3, MAX_ROWS, MAX_ROWS + 1, 0])) if form.endswith("s") else 1
    )
    odd = draw(st.integers(0, max(0, several - 1)))
    texts = [
        draw(rows(schema, named=form.startswith("record"), defect=defect if i == odd else ""))
        for i in range(several)
    ]
    text = f"[{','.join(texts)}]" if form.endswith("s") else texts[0]
    if form.startswith("vector"):
        text = f'{{"features":{text}}}'
    body = (draw(SPACE) + text + draw(SPACE)).encode()
    return damaged(draw, body) if defect == "damage" else body


def outcome(decode: Any, body: bytes) -> tuple[Any, ...]:
    """Rows, or the refusal with its document; anything else is raised."""
    try:
        decoded = decode(body)
    except Problem as problem:
        return problem.status, problem.code, problem.body()
    return decoded.payload, decoded.size, decoded.many


def explain(explainer: Explainer, body: bytes) -> Rows:
    """What the explaining decoder alone makes of a body."""
    steps = explainer.steps(body)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return Rows(*end.value)


KINDS: list[dict[str, Any]] = [
    {"kind": "number"},
    {"kind": "integer"},
    {"kind": "boolean"},
    {"kind": "category", "categories": ["Male", 'say "hi"', "", "é", "a"]},
    {"kind": "category", "categories": [10, 20, 0, 1]},
]


RULES = {
    "number": Rule(minimum=3, maximum=10.5, default=10),
    "integer": Rule(minimum=3, maximum=10, default=10),
    "boolean": Rule(default=True),
    "category": Rule(default=10, categories=(10, 0)),
}


@pytest.mark.parametrize("ruled", [False, True], ids=["bundle", "catalogue"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=["number", "integer", "boolean", "text", "code"])
def test_both_ways_agree_on_every_odd_value(
    kind: dict[str, Any], nullable: bool, dtype: str, ruled: bool
) -> None:
    """Each odd value, in each kind of column and each form of body, ends alike on both ways, with a
    catalogue's rule and without."""
    odd_one = {"name": "odd", "nullable": nullable, "example": None} | kind
    rule = (
        Rule(default="a", categories=("a", 'say "hi"'))
        if "Male" in kind.get("categories", [])
        else RULES[kind["kind"]]
    )
    schema = schema_of([NUMBERS[0], odd_one, MIXED[0]], dtype, {"odd": rule} if ruled else {})
    fast, explainer = Decoder(schema, max_rows=MAX_ROWS), Explainer(schema, max_rows=MAX_ROWS)
    record, vector = '{"x0":1,"odd":%s,"island":"Dream"}', '[1,%s,"Dream"]'
    forms = [
        record,
        f"[{record}]",
        f'{{"features":{vector}}}',
        f'{{"features":[{vector}]}}',
        record.replace('"D', '"\\u0044'),
    ]
    forms += (
        [
            '{"x0":1,"island":"Dream"}',
            '[{"x0":1,"island":"Dream"}]',
            '{"x0":1,"island":"Dream","x0":2}',
        ]
        if ruled
        else []
    )

    for body in [
        form.replace("%s", value).encode("utf-8", "surrogatepass")
        for value in ODD_VALUES
        for form in forms
    ]:
        assert_same(schema, body, fast, explainer)


@pytest.mark.parametrize("kind", ["number", "integer"])
@pytest.mark.parametrize(
    "value",
    [2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, 2**63, 2**70, -(2**53), -(2**53) - 1, -(2**70)],
)
def test_both_ways_compare_large_integers_with_bounds_alike(kind: str, value: int) -> None:
    """A number column compares the float that an integer becomes, an integer column the integer."""
    bounds = Rule(minimum=-(2**53), maximum=2**53)
    schema = schema_of([NUMBERS[0] | {"kind": kind}], "float64", {"x0": bounds})

    assert_same(
        schema, dumped({"x0": value}), Decoder(schema, max_rows=1), Explainer(schema, max_rows=1)
    )


def assert_same(schema: Schema, body: bytes, fast: Decoder, explainer: Explainer) -> None:
    """Both decoders give the same, and no infinity passes."""
    found = outcome(fast.decode, body)
    assert found == outcome(partial(explain, explainer), body), body[:200]
    if isinstance(found[0], bytes):
        assert len(found[0]) == found[1] * schema.row_bytes
        assert not np.isinf(
            np.frombuffer(found[0], "<f4" if schema.dtype == "float32" else "<f8")
        ).any(), body[:200]


@examples(150)
@given(st.data())
def test_both_ways_accept_the_same_bodies_and_give_the_same_rows(data: st.DataObject) -> None:
    """Whatever the schema and the body, the fast way and the explaining one end alike, in rows or
    in the same refusal."""
    schema = data.draw(schemas())
    body = data.draw(bodies(schema))

    assert_same(
        schema, body, Decoder(schema, max_rows=MAX_ROWS), Explainer(schema, max_rows=MAX_ROWS)
    )


@examples(120)
@given(st.data())
def test_both_ways_agree_under_a_catalogue(data: st.DataObject) -> None:
    """With defaults, ranges and narrower categories too, both ways end alike."""
    schema = data.draw(schemas(ruled=True))
    body = data.draw(bodies(schema))

    assert_same(
        schema, body, Decoder(schema, max_rows=MAX_ROWS), Explainer(schema, max_rows=MAX_ROWS)
    )


@examples(100)
@given(st.data())
def test_a_right_body_becomes_the_matrix_that_its_values_say(data: st.DataObject) -> None:
    """Numbers are themselves, null is NaN, a category is its index and its null the index after the
    last, as NumPy would store them."""
    schema = data.draw(schemas())
    values = [
        [data.draw(right_values(column, schema.dtype)) for column in schema.inputs]
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    named = data.draw(st.booleans()) or "features" in schema.names
    body = dumped(
        [dict(zip(schema.names, row, strict=True)) for row in values]
        if named
        else {"features": values}
    )

    found = Decoder(schema, max_rows=MAX_ROWS).decode(body)

    expected = [
        [code_of(column, value) for column, value in zip(schema.inputs, row, strict=True)]
        for row in values
    ]
    assert found == Rows(
        np.array(expected, "<f4" if schema.dtype == "float32" else "<f8").tobytes(),
        len(values),
        many=True,
    )


def code_of(column: Input, value: Any) -> float:
    """What docs/bundle-format.md says a value becomes."""
    if column.categories:
        return len(column.categories) if value is None else column.categories.index(value)
    return math.nan if value is None else float(value)


@examples(300)
@given(
    st.binary(max_size=60)
    | st.text(alphabet='{}[]",:\\u0012e-.features ntrl', max_size=60).map(str.encode)
)
def test_no_bytes_get_anything_but_rows_or_a_refusal(body: bytes) -> None:
    """Parsing raises nothing but `Problem`, whatever bytes come."""
    outcome(MIXED_DECODER.decode, body)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in ACCEPTED
        if "escaped" not in case.name and "before features" not in case.name
    ],
    ids=lambda case: case.name,
)
def test_right_bodies_are_read_the_fast_way(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right body without escapes is never read twice."""
    monkeypatch.setattr(Explainer, "steps", lambda *_: pytest.fail("read twice"))

    assert MIXED_DECODER.decode(case.body).size >= 1


# -- what each body gets ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_right_bodies_are_accepted(case: Case) -> None:
    """Every spelling that JSON allows is understood, and as JSON means it."""
    decoded = MIXED_DECODER.decode(case.body)

    assert decoded.many == isinstance(
        json.loads(case.body).get("features", [0])[0] if case.body.lstrip()[:1] == b"{" else [],
        list,
    )
    if (
        "number" not in case.name
        and case.name not in ("minus zero", "an exponent")
        and "float" not in case.name
    ):
        assert decoded.payload[: len(PACKED)] == PACKED


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_wrong_body_gets_what_is_wrong(case: Case) -> None:
    """The refusal names field, row, what was received and what was expected, and does not repeat
    the payload."""
    with pytest.raises(Problem) as raised:
        MIXED_DECODER.decode(case.body)

    problem = raised.value
    document = json.loads(problem.body())
    assert (problem.status, problem.code) == (case.status, case.code)
    assert [word for word in case.says if word not in document["detail"]] == []
    if case.path:
        assert document["errors"][0]["path"] == case.path
    assert len(problem.body()) < 4000


def test_the_first_errors_are_listed_and_the_rest_counted() -> None:
    """Ten errors are listed; others of the same row are counted, and later rows are not read."""
    with pytest.raises(Problem) as raised:
        MIXED_DECODER.decode(dumped([record(mass="a", count="b", wet=1)] * MOST_ROWS))

    document = json.loads(raised.value.body())
    assert document["error_count"] == 12
    assert document["more_errors"] is True
    assert "(and at least 11 more)" in document["detail"]
    assert len(document["errors"]) == MOST_ERRORS
    assert document["errors"][4] == {
        "code": "wrong_type",
        "path": "$[1].count",
        "message": 'row 1: "count" is "b", expected an integer',
        "row": 1,
        "field": "count",
        "got": "b",
        "expected": "integer",
    }


def test_a_column_may_be_called_features() -> None:
    """A record of a model with a column called `features` is a record, not a vector."""
    decoder = Decoder(schema_of([NUMBERS[0] | {"name": "features"}]), max_rows=1)

    assert decoder.decode(b'{"features": 2.5}') == Rows(np.float32(2.5).tobytes(), 1, many=False)


def test_a_vector_and_its_record_are_the_same_row() -> None:
    """The order of a vector is the order of the model's inputs."""
    assert (
        MIXED_DECODER.decode(dumped({"features": VECTOR}))
        == MIXED_DECODER.decode(dumped(RIGHT))
        == Rows(PACKED, 1, many=False)
    )


@pytest.mark.parametrize("position", range(7))
def test_a_wrong_row_does_not_hide_among_right_ones(position: int) -> None:
    """A list with one wrong row is refused as a whole and names that row."""
    body = [RIGHT] * 7
    body[position] = record(island="Java")

    with pytest.raises(Problem) as raised:
        MIXED_DECODER.decode(dumped(body))

    assert raised.value.detail.startswith(f'row {position}: "island" is "Java"')
