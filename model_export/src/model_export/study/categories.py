"""Finds which columns are categories, and tabulates what the fitted encoders make of each.

An encoder sees one of finitely many values per column, so instead of translating it to ONNX's
string operators it is asked once for every value, null included, and the graph looks the answer up.
The table holds the registered encoder's own answers: `handle_unknown`, infrequent groups, imputed
nulls and all, and no string is made per row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.errors import ExportError, sentence
from model_export.study.rows import null_of, to_model_input

if TYPE_CHECKING:
    from model_export.study.anatomy import Anatomy, Branch
    from model_export.study.schema import Category, Column, Schema


@dataclass(frozen=True)
class Table:
    """What one column adds to the features of its branch."""

    column: int
    values: np.ndarray[Any, np.dtype[np.float64]]
    """float64[values + 1, W]: a row per category (for a boolean: False, True), the last one for
    null."""


def find_categories(schema: Schema, anatomy: Anatomy) -> Schema:
    """Give every encoded column its categories.

    Raises:
        ExportError: text that no encoder reads, a category that is no string or integer, or a
            column read both as category and as number.
    """
    found: dict[int, Column] = {}
    for branch in anatomy.branches:
        if branch.encoder is not None:
            found.update(_encoded_columns(branch, schema, found))
    known = schema.with_columns(found)
    _refuse_text(known, anatomy)
    return known


def _encoded_columns(branch: Branch, schema: Schema, found: dict[int, Column]) -> dict[int, Column]:
    learned = branch.encoder.categories_  # type: ignore[union-attr]  # the caller has checked
    if len(learned) != len(branch.columns):
        raise ExportError(
            f"step {branch.name!r} changes the number of columns before it encodes them"
        )
    columns = {}
    for i, values in zip(branch.columns, learned, strict=True):
        column = _with_categories(found.get(i, schema.columns[i]), values, branch.name)
        columns[i] = column
    return columns


def _with_categories(column: Column, learned: Any, step: str) -> Column:
    values = np.asarray(learned, dtype=object).tolist()
    nulls = [v for v in values if v is None or v != v]  # NaN is what differs from itself
    known = [_category(v, column, step) for v in values if not (v is None or v != v)]
    if column.kind == "boolean":
        return column
    merged = (*column.categories, *(v for v in known if v not in column.categories))
    dtype = "str" if any(isinstance(v, str) for v in merged) else column.dtype
    return replace(
        column,
        kind="category",
        dtype=dtype,
        categories=merged,
        optional=column.optional or bool(nulls),
        null=None if None in nulls else column.null,
    )


def _category(value: Any, column: Column, step: str) -> Category:
    if isinstance(value, str):
        return value
    if float(value).is_integer():
        return int(value)
    raise ExportError(
        f"column {column.name!r}: step {step!r} takes {value!r} as a category; only strings and "
        "integers can be"
    )


def _refuse_text(schema: Schema, anatomy: Anatomy) -> None:
    steps = {i: b.name for b in anatomy.branches for i in b.columns if b.encoder is None}
    for i, column in enumerate(schema.columns):
        if column.kind != "category":
            continue
        if not column.categories:
            raise ExportError(
                f"column {column.name!r} is free text (step {steps[i]}): no encoder lists its "
                "values"
            )
        if i in steps:
            raise ExportError(
                f"column {column.name!r} is read both as a category and as it is, by step "
                f"{steps[i]!r}"
            )


def tables(branch: Branch, schema: Schema) -> list[Table]:
    """Tabulate a branch's encoding: the features are the sum of one table row per column.

    Raises:
        ExportError: a feature depends on more than one column, or the encoder refuses a value that
            it knows.
    """
    answers = [_answers(branch, schema, position) for position in range(len(branch.columns))]
    moves = np.array(
        [(~_same(answer, answer[:1])).any(axis=0) for answer in answers]
    )  # [columns, W]
    if (moves.sum(axis=0) > 1).any():
        raise ExportError(f"step {branch.name!r} mixes columns while it encodes them")
    moves[0] |= ~moves.any(axis=0)  # a constant feature must come from somewhere
    return [
        Table(column, np.where(own, answer, 0.0))
        for column, answer, own in zip(branch.columns, answers, moves, strict=True)
    ]


def _same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


def _answers(branch: Branch, schema: Schema, position: int) -> np.ndarray[Any, Any]:
    """float64[values + 1, W]: the branch's features for every value of one column, the others held
    at their first value."""
    column = schema.columns[branch.columns[position]]
    count = len(column.categories) if column.is_index else 2
    packed = np.zeros((count + 1, len(branch.columns)))
    packed[:, position] = np.arange(count + 1)
    known = _encode(branch, schema, packed[:count])
    packed[count, position] = null_of(column)
    try:
        null = _encode(branch, schema, packed[count:])
    except (
        TypeError,
        ValueError,
    ):  # the encoder refuses null: so will the server, and this row is never looked up
        null = np.full((1, known.shape[1]), np.nan)
        # A feature of another column must not seem to move with this one: only the column's own
        # features become NaN.
        null = np.where((~_same(known, known[:1])).any(axis=0), null, known[:1])
    return np.vstack([known, null])


def _encode(branch: Branch, schema: Schema, packed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    part = replace(schema, columns=tuple(schema.columns[i] for i in branch.columns))
    block: Any = to_model_input(packed, part)
    if not hasattr(branch.encode[0][1], "feature_names_in_"):
        block = np.asarray(
            block, dtype=object if any(c.dtype == "str" for c in part.columns) else None
        )
    for name, step in branch.encode:
        try:
            block = step.transform(block)
        except AttributeError as error:
            raise ExportError(
                f"step {name!r} ({type(step).__name__}) cannot transform: {sentence(error, 300)}"
            ) from error
    dense = block.toarray() if hasattr(block, "toarray") else block
    return np.asarray(dense, dtype=np.float64)
