"""Everything that is known about a model before it is converted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_export import data as data_sources
from model_export.anatomy import Anatomy, dissect
from model_export.categories import find_categories
from model_export.convert import Answers, describe_answers
from model_export.nulls import find_nullable
from model_export.schema import Schema, read_schema, set_aside_unread, with_ignored_values

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.data import Data
    from model_export.registry import Fetched


@dataclass(frozen=True)
class Subject:
    """The model, what goes in, what comes out, what it is made of, and rows to try it on."""

    fetched: Fetched
    schema: Schema
    answers: Answers
    anatomy: Anatomy
    data: Data


def study(fetched: Fetched, data_file: Path | None = None) -> Subject:
    """Find out all of that.

    Args:
        fetched: the registered model.
        data_file: a table to prove it on; by default the data logged to its run, else its input example.

    Raises:
        ExportError: a model that no bundle can hold, or no data.
    """
    answers = describe_answers(fetched.estimator)
    schema = read_schema(fetched.signature, fetched.estimator)
    schema, anatomy = set_aside_unread(schema, dissect(fetched.estimator, schema.names))
    schema = find_categories(schema, anatomy)
    raw = data_sources.find(fetched, data_file)
    schema = with_ignored_values(schema, raw.frame)
    schema = find_nullable(fetched, schema, anatomy, raw.frame)
    return Subject(fetched, schema, answers, anatomy, data_sources.pack(raw, schema))
