"""The id of a request: the client's own if it may be logged, otherwise a new one. It is returned
with the answer."""

from itertools import count
from uuid import uuid4

from halfcore.prediction_log.blocks import is_sane

HEADER = "x-request-id"


class RequestIds:
    """Makes the ids of one worker. Each worker and each start has a random prefix, so no two share
    an id."""

    def __init__(self) -> None:
        self._prefix = uuid4().hex[:16]
        self._numbers = count()

    def of(self, given: str | None) -> str:
        """The id of a request; `given` is the client's, if it sent one."""
        if given is not None and is_sane(given):
            return given
        return f"{self._prefix}-{next(self._numbers)}"
