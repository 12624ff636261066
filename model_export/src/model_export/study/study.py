"""Collects everything that the exporter needs to know about a model before the conversion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model_export.errors import DataError, ExportError, NoSuchRowError
from model_export.study import data as data_sources
from model_export.study.anatomy import Anatomy, dissect
from model_export.study.answers import Answers, describe_answers
from model_export.study.categories import find_categories, made_by_functions
from model_export.study.nulls import find_nullable
from model_export.study.own_categories import check_columns
from model_export.study.schema import (
    Schema,
    ignore_unread_columns,
    read_schema,
    with_ignored_values,
)
from model_export.study.texts import with_texts
from model_export.study.unknowns import accept_unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from model_export.registry.client import FetchedModel
    from model_export.study.data import Data, Source


@dataclass(frozen=True)
class StudiedModel:
    """A model with its inputs, its outputs, its parts, and rows to prove it with."""

    fetched: FetchedModel
    schema: Schema
    answers: Answers
    anatomy: Anatomy
    data: Data


def study(
    fetched: FetchedModel, data_file: Path | None = None, *, unknown: bool = False
) -> StudiedModel:
    """Study a registered model.

    Args:
        fetched: the registered model.
        data_file: a table to prove it on; default: the data logged to its run, otherwise its input
            example.
        unknown: accept unknown categories where the model does.

    Raises:
        ExportError: the model cannot be exported, or there is no data.
        InfrastructureError: MLflow does not say what was logged.
    """
    answers = describe_answers(fetched.estimator)
    schema = read_schema(fetched.signature, fetched.estimator, fetched.input_example)
    # Text and dates that no step reads are kept apart: the graph has no input for them.
    schema, anatomy = ignore_unread_columns(schema, dissect(fetched.estimator, schema.names))
    schema = find_categories(schema, anatomy)

    def with_rows_of(source: Source) -> StudiedModel:
        table = source.read()
        frame = data_sources.columns_for(table.frame, schema, answers)
        check_columns(anatomy, schema, frame)
        filled = with_texts(with_ignored_values(schema, table.frame), anatomy, frame)
        nullable = find_nullable(fetched, filled, anatomy, frame)
        if unknown:
            nullable = accept_unknown(fetched, nullable, anatomy)
        made = made_by_functions(anatomy)
        data = data_sources.pack(replace(table, frame=frame), source.origin, nullable, made)
        return StudiedModel(fetched, nullable, answers, anatomy, data)

    if data_file is not None:
        try:
            return with_rows_of(data_sources.of_file(data_file, schema))
        except NoSuchRowError:
            raise
        except ExportError as error:
            raise DataError(
                f"--data {data_file}: {error.reason}; give another file, or leave --data out"
            ) from error
    return _best(with_rows_of, data_sources.logged(fetched, schema))


def _best(
    with_rows_of: Callable[[Source], StudiedModel], sources: Iterable[Source]
) -> StudiedModel:
    """The model with the rows of the first source that has enough of them; otherwise of the first
    that has any."""
    unused: list[str] = []
    poor: StudiedModel | None = None
    by_model: NoSuchRowError | None = None
    for source in sources:
        try:
            found = with_rows_of(source)
        except Exception as error:  # noqa: BLE001
            # Users' tables fail in every way; `reason_of` raises errors of another cause.
            unused.append(f"{source.origin} ({data_sources.reason_of(error)})")
            by_model = error if isinstance(error, NoSuchRowError) else by_model
            continue
        found = replace(found, data=replace(found.data, unused=tuple(unused)))
        if found.data.distinct_rows >= data_sources.LEAST_ROWS:
            return found
        poor = poor or found
        unused.append(f"{source.origin} (a single distinct row)")
    if poor is None and by_model is not None:
        raise by_model
    if poor is None:
        raise data_sources.no_data_error(unused)
    return poor
