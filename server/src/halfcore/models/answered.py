"""One answered request, as the prediction log and a shadow get it."""

from collections.abc import Sequence
from typing import NamedTuple

from halfcore.models.served import LoadedModel
from halfcore.pipeline.decode import Rows
from halfcore.pipeline.engine import Result


class AnsweredRequest(NamedTuple):
    """A request and the right answer that it got."""

    model: LoadedModel
    """The model that answered."""
    request_id: str | None
    """The client's id, or the one made for it."""
    body: bytes
    """The request's JSON."""
    rows: Rows
    """Its rows, decoded."""
    results: Sequence[Result]
    """The model's results, one per row, in order."""
    answer: bytes
    """The answer's JSON."""
    latency_s: float
    """Seconds from the body's arrival to the answer."""
    trace_id: str | None = None
    """The id of the trace that the request belongs to, if its client sent one."""
