"""What a new version changes for clients: compatible means that every record the old one accepted
is accepted, and the decoder agrees."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from halfcore import bundle
from halfcore.bundle import Input, Manifest
from halfcore.pipeline.decode import Decoder
from halfcore.pipeline.schema import Rule, Schema
from halfcore.registry.contract import SchemaChange, compare
from support.bundles import MIXED, NUMBERS, write_bundle


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The manifest of a classifier with named columns of every kind."""
    return bundle.read_manifest(
        write_bundle(tmp_path_factory.mktemp("bundles"), "mixed", inputs=MIXED)
    )


def changed(
    manifest: Manifest, *, inputs: list[dict[str, Any]] | None = None, **fields: Any
) -> Manifest:
    """The manifest with other fields; what a bundle could not hold is not checked."""
    more: dict[str, Any] = (
        {} if inputs is None else {"inputs": [Input(**column) for column in inputs]}
    )
    return msgspec.structs.replace(manifest, **(more | fields))


def column(changed: str, /, **fields: Any) -> list[dict[str, Any]]:
    """MIXED with other fields of one column."""
    return [one | fields if one["name"] == changed else one for one in MIXED]


def difference(
    before: Manifest,
    after: Manifest,
    old: dict[str, Rule] | None = None,
    new: dict[str, Rule] | None = None,
) -> SchemaChange:
    """What changed; the rules are the feature catalogue's."""
    found = compare(
        before,
        Schema(before.inputs, before.dtype, old),
        after,
        Schema(after.inputs, after.dtype, new),
    )
    assert found is not None
    assert found.from_version == before.version
    return found


NEW = {"name": "tail", "kind": "number", "nullable": True, "example": 1.0}
WHOLE = {"domain": (-5.0, 5.0)}
ANSWERS_PROBABILITIES = bundle.Source(
    uri="", resolved="", flavor="", model_class="", predict_function="predict_proba"
)
CASES: dict[str, tuple[bool, str, dict[str, Any]]] = {
    "a column more": (False, 'added "tail" (required)', {"inputs": [*MIXED, NEW]}),
    "a column more with a default": (
        True,
        'added "tail" (has a default)',
        {"inputs": [*MIXED, NEW], "new": {"tail": Rule(default=1.0)}},
    ),
    "a column less": (False, 'removed "wet"', {"inputs": MIXED[:-1]}),
    "a column by another name": (
        False,
        'added "wetness" (required); removed "wet"',
        {"inputs": column("wet", name="wetness")},
    ),
    "another order": (False, "a features vector means something else", {"inputs": MIXED[::-1]}),
    "null allowed": (True, '"count": null is allowed', {"inputs": column("count", nullable=True)}),
    "null forbidden": (
        False,
        '"mass": null is no longer allowed',
        {"inputs": column("mass", nullable=False)},
    ),
    "an integer becomes a number": (
        True,
        '"count": number, before integer',
        {"inputs": column("count", kind="number")},
    ),
    "a number becomes an integer": (
        False,
        '"mass": integer, before number',
        {"inputs": column("mass", kind="integer")},
    ),
    "a category more": (
        True,
        '"zone": categories are new: 30',
        {"inputs": column("zone", categories=[10, 20, 30])},
    ),
    "a category less": (
        False,
        '"zone": categories are gone: 20',
        {"inputs": column("zone", categories=[10])},
    ),
    "a range": (
        False,
        '"mass": between -5 and 5, before any number',
        {"inputs": column("mass", **WHOLE)},
    ),
    "a default of the catalogue's is gone": (
        False,
        '"mass": has no default any more',
        {"old": {"mass": Rule(default=1.0)}},
    ),
    "a range of the catalogue's is gone": (
        True,
        '"mass": any number, before at most 9',
        {"old": {"mass": Rule(maximum=9.0)}},
    ),
    "a class more": (False, "classes are new: d", {"classes": ["a", "b", "c", "d"]}),
    "a class less": (False, "classes are gone: c", {"classes": ["a", "b"]}),
    "no probabilities": (False, "answers have no longer probabilities", {"outputs": ["label"]}),
    "another function of the pyfunc": (
        False,
        "/invocations answers probabilities",
        {"source": ANSWERS_PROBABILITIES},
    ),
    "another task": (
        False,
        "the task is regression, before it was classification",
        {"task": "regression", "classes": []},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_change_is_named_and_judged(plain: Manifest, name: str) -> None:
    """One thing at a time."""
    compatible, says, fields = CASES[name]
    rules = {which: fields.get(which) for which in ("old", "new")}
    found = difference(
        plain,
        changed(plain, **{key: value for key, value in fields.items() if key not in rules}),
        **rules,
    )
    assert says in str(found)
    assert found.compatible is compatible, found


def test_the_same_columns_and_answers_are_no_change(plain: Manifest) -> None:
    """Another version, dtype, example and training range; classes in another order."""
    other = changed(
        plain,
        inputs=column("mass", example=1.0, minimum=1.0),
        version="2",
        dtype="float64",
        classes=["c", "b", "a"],
    )
    assert compare(plain, Schema.of(plain), other, Schema.of(other)) is None


def test_more_columns_break_clients_that_can_only_send_vectors(tmp_path: Path) -> None:
    """Without names of their own, a default does not help."""
    before = bundle.read_manifest(write_bundle(tmp_path, "numbers", inputs=NUMBERS))
    after = changed(before, inputs=[*NUMBERS, NEW])
    assert not difference(before, after, new={"tail": Rule(default=1.0)}).compatible


def test_a_wide_model_is_told_in_short(tmp_path: Path) -> None:
    """Of thousands of columns, fifty names and the number of the others."""
    before = bundle.read_manifest(write_bundle(tmp_path, "numbers", inputs=NUMBERS))
    found = difference(
        before, changed(before, inputs=[NEW | {"name": f"y{i}"} for i in range(5000)])
    )
    assert (len(found.added), found.added[-1]) == (51, "… 4950 more")


NUMBER = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["number", "integer"]),
        "nullable": st.booleans(),
        "domain": st.sampled_from([None, (-2, 2), (-2, 7), (0, 2)]),
        "example": st.just(1),
    }
)
CATEGORY = st.fixed_dictionaries(
    {
        "kind": st.just("category"),
        "nullable": st.booleans(),
        "categories": st.sampled_from([["a"], ["a", "b"], ["b", "a"], [1, 2]]),
        "example": st.just("a"),
    }
)
FIELDS = st.one_of(
    NUMBER, CATEGORY, st.just({"kind": "boolean", "nullable": False, "example": True})
)


@st.composite
def versions(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The columns of two versions, of which some are the same."""
    before = [
        {"name": name} | draw(FIELDS)
        for name in draw(st.lists(st.sampled_from("pqr"), min_size=1, unique=True))
    ]
    after = [one if draw(st.booleans()) else {"name": one["name"]} | draw(FIELDS) for one in before]
    return before, draw(st.sampled_from([after, after, after, after[::-1], after[1:] or after]))


def legal(column: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the column takes, those at its edges often."""
    null = [None] if column["nullable"] else []
    if column["kind"] == "boolean":
        return st.booleans()
    if column["kind"] == "category":
        return st.sampled_from([*column["categories"], *null])
    low, high = column["domain"] or (-9, 9)
    between = (
        st.integers(low, high) if column["kind"] == "integer" else st.floats(low, high, width=32)
    )
    return st.one_of(st.sampled_from([low, high, *null]), between)


@settings(max_examples=200)
@given(columns=versions(), vector=st.booleans(), data=st.data())
def test_what_is_called_compatible_takes_all_that_was_taken(
    columns: Any, vector: bool, data: st.DataObject
) -> None:
    """Whatever the columns are: no record, and no vector, that a version took is refused by one
    that is compatible with it."""
    before, after = columns
    old, new = changed(PLAIN, inputs=before), changed(PLAIN, inputs=after)
    found = compare(old, Schema.of(old), new, Schema.of(new))
    assume(found is None or found.compatible)
    row = [data.draw(legal(column)) for column in before]
    record = {column["name"]: value for column, value in zip(before, row, strict=True)}
    body = json.dumps({"features": row} if vector else record).encode()
    for version in (old, new):
        assert Decoder(Schema.of(version), max_rows=1).decode(body).size == 1


PLAIN = Manifest(
    format=1,
    name="mixed",
    version="1",
    created_at="2026-01-01T00:00:00Z",
    task="classification",
    source=bundle.Source(uri="", resolved="", flavor="", model_class=""),
    inputs=[],
    named=True,
    dtype="float32",
    classes=["a"],
    outputs=["label"],
    onnx=bundle.OnnxFile(file="model.onnx", sha256="0" * 64, size_bytes=1, ir_version=10, opset={}),
    tools={},
    parity=bundle.Parity(
        passed=True,
        rows=1,
        threshold_rows=0,
        label_mismatches=0,
        ties=0,
        tie_band=0.0,
        max_abs_diff=0.0,
        tolerance=0.0,
        accepted=None,
        seconds=0.0,
        reference="",
        batch_sizes=[1],
    ),
    golden=[],
)
