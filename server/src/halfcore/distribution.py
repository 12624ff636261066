"""How a model's columns and answers are distributed in its data: a part of the manifest."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Shares(msgspec.Struct, frozen=True, kw_only=True):
    """How one column or the answers are distributed. Numbers: below the first limit, from each
    limit to the next, from the last on, null; categories: each, null, unknown; labels: each."""

    shares: Annotated[list[float], Meta(min_length=1)]
    limits: list[float] | None = None


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """How the columns and the answers are distributed in the data of the proof."""

    rows: int
    inputs: dict[str, Shares]
    answers: Shares | None = None
