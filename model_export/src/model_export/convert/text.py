"""Converts a vectorizer of texts: from the numbers of the tokens to counts or TF-IDF weights.

ONNX's TfIdfVectorizer counts sequences of integers exactly. The weights are computed by plain
operators in the graph's precision, because its own weighting lacks the norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from sklearn.feature_extraction.text import TfidfVectorizer

from model_export.convert.block import ELEMENT, Block
from model_export.convert.graph import Mark
from model_export.study.texts import grams

if TYPE_CHECKING:
    from model_export.convert.graph import GraphBuilder
    from model_export.study.anatomy import Branch
    from model_export.study.schema import Schema
    from model_export.study.texts import Tokens


def terms(rows: Block, branch: Branch, schema: Schema) -> Block:
    """The features of a branch of text.

    Args:
        rows: the columns; the tokens are read from the graph's input.
        branch: has a vectorizer.
        schema: of the graph's input.
    """
    builder, (i,), (path, vectorizer) = rows.builder, branch.columns, branch.encode[0]
    text = schema.columns[i].text
    start = sum(column.slots for column in schema.columns[:i])
    counted = counts(builder, "rows", start, text, vectorizer)  # type: ignore[arg-type]
    if rows.dtype == "float64":
        counted = builder.cast(counted, ELEMENT[rows.dtype])
    name = weighted(builder, counted, rows.dtype, vectorizer)
    builder.marks.append(Mark(path, vectorizer, "features", "", name, i))
    return Block(builder, name, len(vectorizer.vocabulary_), rows.dtype)


def counts(builder: GraphBuilder, rows: str, start: int, text: Tokens, vectorizer: Any) -> str:
    """Count the terms of one text column.

    Args:
        builder: of the graph.
        rows: the graph's input.
        start: first column of the text's tokens in `rows`.
        text: of the column.
        vectorizer: fitted.

    Returns:
        float32[N, terms].
    """
    ends = [builder.constant(np.asarray([x])) for x in (start, start + text.slots, 1)]
    sliced = builder.node("Slice", rows, *ends)
    tokens = builder.cast(sliced, TensorProto.INT64)
    found = sorted(grams(vectorizer).items(), key=lambda item: (len(item[0]), item[1]))
    number = {token: i for i, token in enumerate(text.tokens, 1)}
    longest = max(len(parts) for parts, _ in found)
    pool: list[int] = []
    starts: list[int] = []
    for size in range(1, longest + 1):
        starts.append(len(pool))
        pool += [number[token] for parts, _ in found if len(parts) == size for token in parts]
    # The number of features follows from the largest index, and the last terms may be uncountable.
    width = len(vectorizer.vocabulary_)
    features = [feature for _, feature in found]
    counted = builder.node(
        "TfIdfVectorizer",
        tokens,
        mode="TF",
        min_gram_length=len(found[0][0]),
        max_gram_length=longest,
        max_skip_count=0,
        ngram_counts=starts,
        ngram_indexes=features,
        pool_int64s=pool,
    )
    missing = width - 1 - max(features)
    if missing:
        pads = builder.constant(np.asarray([0, 0, 0, missing]))
        counted = builder.node("Pad", counted, pads)
    if vectorizer.binary:
        counted = builder.node("Min", counted, builder.constant(np.float32(1)))
    return counted


def weighted(builder: GraphBuilder, counted: str, dtype: str, vectorizer: Any) -> str:
    """Weigh the counts as the vectorizer does.

    Args:
        builder: of the graph.
        counted: [N, terms] in `dtype`.
        dtype: float32 or float64.
        vectorizer: fitted.
    """
    if not isinstance(vectorizer, TfidfVectorizer):
        return counted
    if vectorizer.sublinear_tf:
        zero, one = (builder.constant(np.asarray(x, dtype=dtype)) for x in (0, 1))
        logarithm = builder.node("Log", builder.node("Max", counted, one))
        present = builder.node("Greater", counted, zero)
        counted = builder.node("Where", present, builder.node("Add", logarithm, one), zero)
    if vectorizer.use_idf:
        idf = builder.constant(np.asarray(vectorizer.idf_, dtype=dtype))
        counted = builder.node("Mul", counted, idf)
    if vectorizer.norm is None:
        return counted
    axis = builder.constant(np.asarray([1]))
    reduce = "ReduceL2" if vectorizer.norm == "l2" else "ReduceL1"
    size = builder.node(reduce, counted, axis, keepdims=1)
    # A text without a known term stays all zero; the smallest other norm is far larger.
    least = builder.constant(np.asarray(1e-30, dtype=dtype))
    return builder.node("Div", counted, builder.node("Max", size, least))
