"""Finds which columns are categories, and tabulates the fitted encoders' output for each category.

An encoder sees one of finitely many values per column. So the exporter does not translate it to
ONNX's string operators: it asks the encoder once for every value, null included, and the graph
looks the output up. The table holds the registered encoder's own output, with `handle_unknown`,
infrequent groups and imputed nulls, and no string is made per row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.preprocessing import FunctionTransformer

from model_export.errors import ExportError, plain, shorten
from model_export.registry.native import NativeBooster
from model_export.study import own_categories, texts
from model_export.study.arrays import same_values
from model_export.study.own_categories import HistCategories, PandasCategories
from model_export.study.rows import null_of, to_model_input, unknown_of

if TYPE_CHECKING:
    from model_export.study.anatomy import Anatomy, Branch, Step
    from model_export.study.arrays import Flags, Values
    from model_export.study.schema import Category, Column, Schema


_NUMBERS = (int, float, np.number, Decimal)
_BOOSTERS = ("catboost", "lightgbm", "xgboost")


@dataclass(frozen=True)
class Table:
    """The part of a branch's features that one column determines."""

    column: int
    values: np.ndarray[Any, np.dtype[np.float64]]
    """float64[values + 1, W]: a row per category (for a boolean: False, True), then one for null,
    and one for unknown categories if they are accepted."""


def find_categories(schema: Schema, anatomy: Anatomy) -> Schema:
    """Give every encoded column its categories.

    Raises:
        ExportError: no encoder reads a column of text, a category is not a string or integer, or a
            column is read both as category and as number.
    """
    found: dict[int, Column] = {}
    for branch in anatomy.leaves():
        if branch.vectorizer is not None:
            found.update(texts.text_columns(branch, schema, found))
        if branch.encoder is not None:
            found.update(_encoded_columns(branch, schema, found))
    known = replace(schema.with_columns(found), takes_texts=anatomy.takes_texts)
    _refuse_text(known, anatomy)
    return known


def _encoded_columns(branch: Branch, schema: Schema, found: dict[int, Column]) -> dict[int, Column]:
    learned = branch.encoder.categories_  # type: ignore[union-attr]  # the caller has checked
    flags = sum(_indicators(step) for _, step in branch.encode)
    # An imputer's flags of missing values follow its columns; they are no columns of the row.
    learned = learned[: len(learned) - flags]
    if len(learned) != len(branch.columns):
        raise ExportError(
            f"step {branch.name!r} changes the number of columns before it encodes them: encode "
            "the columns first"
        )
    columns = {}
    for i, values in zip(branch.columns, learned, strict=True):
        if i in found and found[i].kind == "text":
            raise texts.two_uses(found[i], branch.name)
        own, read = branch.encoder, found.get(i, schema.columns[i])
        is_lightgbm = isinstance(own, PandasCategories) and own.lenient
        if is_lightgbm and read.is_numeric and read.type and own_categories.is_text(values):
            raise own_categories.of_another_column(read.name, values)
        column = _with_categories(read, values, branch.name)
        # XGBoost takes no other type than that of its training table, LightGBM any.
        if isinstance(own, PandasCategories) and not (column.pandas and own.lenient):
            column = replace(column, pandas=str(own.values.dtype))
        columns[i] = column
    return columns


def _indicators(step: Any) -> int:
    """How many flags of missing values an imputer adds to its columns."""
    indicator = getattr(step, "indicator_", None)
    return 0 if indicator is None else len(indicator.features_)


def _with_categories(column: Column, learned: Any, step: str) -> Column:
    values = np.asarray(learned, dtype=object).tolist()
    nulls = [v for v in values if v is None or v != v]  # NaN is what differs from itself
    known = [_category(v, column, step) for v in values if not (v is None or v != v)]
    if column.type and column.is_numeric and any(isinstance(v, str) for v in known):
        raise ExportError(
            f"column {column.name!r} holds numbers, of which a function makes text before step "
            f"{step!r} encodes them: encode the numbers themselves, or make them text before "
            "the model is called"
        )
    if known and all(isinstance(v, bool) for v in values) and not column.type:
        return replace(column, kind="boolean", dtype="bool")  # a model without a signature
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
    if not isinstance(value, _NUMBERS):
        raise ExportError(
            f"column {column.name!r}: step {step!r} takes {shorten(str(value), 60)!r} as a "
            f"category, a {type(value).__name__}, expected strings or integers: train it on a "
            "column of strings, such as frame[column].astype(str), and send strings"
        )
    if float(value).is_integer():
        return int(value)
    raise ExportError(
        f"column {column.name!r}: step {step!r} takes {value!r} as a category, expected strings or "
        "integers: pass the numbers on without an encoder, or turn them into strings"
    )


def _refuse_text(schema: Schema, anatomy: Anatomy) -> None:
    branches = {
        i: b
        for b in anatomy.leaves()
        for i in b.columns
        if b.encoder is None and b.vectorizer is None
    }
    steps = {i: b.name for i, b in branches.items()}
    for i, column in enumerate(schema.columns):
        if column.kind == "text" and i in steps:
            raise ExportError(
                f"column {column.name!r} is read as a text and, by step {steps[i]!r}, otherwise: "
                "give the two uses two columns"
            )
        if column.kind != "category":
            continue
        if not column.categories:
            path, reader = _first_reader(branches[i], anatomy)
            if type(reader).__module__.partition(".")[0] in _BOOSTERS:
                raise ExportError(_text_in_booster(column.name, reader))
            if isinstance(reader, HistCategories):
                raise ExportError(
                    f"column {column.name!r} holds text, which HistGradientBoosting encodes, and "
                    "the steps before it do not pass the column on in a way that a bundle can: use "
                    "a ColumnTransformer with remainder='passthrough' and "
                    "set_output(transform='pandas'), or encode the column with an OrdinalEncoder"
                )
            if isinstance(reader, BaseEstimator) and not _is_known(reader):
                raise ExportError(
                    f"column {column.name!r} holds text, which {type(reader).__name__} reads, a "
                    "class of your own that cannot be converted to ONNX: do its work before the "
                    "model is called, or use steps of scikit-learn"
                )
            if isinstance(reader, FunctionTransformer):
                raise ExportError(
                    f"column {column.name!r} holds text, which the function of step {path!r} "
                    "(FunctionTransformer) reads, and it cannot be converted to ONNX: do its work "
                    "before the model is called, or use steps of scikit-learn"
                )
            raise ExportError(
                f"column {column.name!r} is free text (step {steps[i]}), which "
                f"{type(reader).__name__} cannot read in a bundle: use a CountVectorizer or "
                "TfidfVectorizer for texts, an encoder for categories, or train without the column"
            )
        if i in steps:
            raise ExportError(
                f"column {column.name!r} is read both as a category and as it is, by step "
                f"{steps[i]!r}: give the two uses two columns"
            )


def _text_in_booster(name: str, reader: Any) -> str:
    """Why a booster's column of text is refused, and what to do."""
    encode = "encode the column before it in a Pipeline, with an OrdinalEncoder or OneHotEncoder"
    if type(reader).__module__.startswith("xgboost"):
        return (
            f"column {name!r} holds text, and XGBoost has not stored its categories: train it "
            f"again with XGBoost 3.1 or newer, or {encode}"
        )
    if type(reader).__module__.startswith("catboost"):
        encode = (
            "train it without cat_features and text_features, behind a ColumnTransformer with "
            "remainder='passthrough' that encodes the column, with a TargetEncoder, OrdinalEncoder "
            "or OneHotEncoder, or counts its words, or use LightGBM or HistGradientBoosting, whose "
            "own categories can be exported"
        )
    return (
        f"column {name!r} holds text, which {type(reader).__name__} turns into categories by rules "
        f"of its own, and a bundle cannot: {encode}"
    )


def _is_known(reader: Any) -> bool:
    """Whether its class is one of a library."""
    return type(reader).__module__.partition(".")[0] in ("sklearn", "imblearn")


def _first_reader(branch: Branch, anatomy: Anatomy) -> Step:
    """The first step that reads a branch's columns; a booster itself."""
    path, first = (*branch.encode, *branch.steps, *anatomy.steps, anatomy.final)[0]
    return path, first.booster if isinstance(first, NativeBooster) else first


def made_by_functions(anatomy: Anatomy) -> dict[int, str]:
    """Columns of which a function makes other values before an encoder reads them → its step."""
    return {
        column: path
        for branch in anatomy.leaves()
        if branch.encoder is not None
        for path, step in branch.encode
        if isinstance(step, FunctionTransformer) and step.func is not None
        for column in branch.columns
    }


def tables(branch: Branch, schema: Schema) -> list[Table]:
    """Tabulate a branch's encoding: its features are the sum of one table row per column.

    Raises:
        ExportError: a feature depends on more than one column, or the encoder refuses a category
            that it knows.
    """
    answers = [_answers(branch, schema, position) for position in range(len(branch.columns))]
    # bool[columns, W]: which features change with which column.
    moves = np.array([_varying(answer) for answer in answers])
    if (moves.sum(axis=0) > 1).any():
        raise ExportError(
            f"step {branch.name!r} mixes columns while it encodes them: use an encoder whose "
            "features each depend on one column"
        )
    moves[0] |= ~moves.any(axis=0)  # a constant feature must be in one of the tables
    return [
        Table(column, np.where(own, answer, 0.0))
        for column, answer, own in zip(branch.columns, answers, moves, strict=True)
    ]


def _varying(answer: Values) -> Flags:
    """bool[W]: the features that are not the same in all rows."""
    return np.asarray((~same_values(answer, answer[:1])).any(axis=0))


def _answers(branch: Branch, schema: Schema, position: int) -> Values:
    """The branch's features for every value of one column, as in `Table`, with the other columns at
    their first value."""
    column = schema.columns[branch.columns[position]]
    count = column.choices
    packed = np.zeros((count + 1, len(branch.columns)))
    packed[:, position] = np.arange(count + 1)
    known = _encode(branch, schema, packed[:count])
    packed[count, position] = null_of(column)
    try:
        null = _encode(branch, schema, packed[count:])
    except (TypeError, ValueError):
        # The encoder refuses null, so the server does too and never looks this row up. Only the
        # column's own features become NaN: those of other columns must not seem to change.
        null = np.where(_varying(known), np.nan, known[:1])
    if not column.unknown:
        return np.vstack([known, null])
    packed[count, position] = unknown_of(column)
    return np.vstack([known, null, _encode(branch, schema, packed[count:])])


def _encode(branch: Branch, schema: Schema, packed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    columns = tuple(schema.columns[i] for i in branch.columns)
    part = replace(schema, columns=columns, ignored=())
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
                f"step {name!r} ({type(step).__name__}) cannot transform a category"
                f"{plain(error, 300)}: train the model again with the installed scikit-learn"
            ) from error
    dense = block.toarray() if hasattr(block, "toarray") else block
    return np.asarray(dense, dtype=np.float64)
