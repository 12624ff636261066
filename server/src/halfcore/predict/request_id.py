"""The id of a request: the client's own where it is fit to be logged, else one made here; it is
returned with the answer."""

from itertools import count
from uuid import uuid4

from halfcore.prediction_log.blocks import is_sane

HEADER = "x-request-id"


class RequestIds:
    """Makes the ids of one worker. Two workers, or two starts, share no id: each begins its own at
    random."""

    def __init__(self) -> None:
        self._prefix = uuid4().hex[:16]
        self._numbers = count()

    def of(self, given: str | None) -> str:
        """The id of a request that came with this one, or with none."""
        if given is not None and is_sane(given):
            return given
        return f"{self._prefix}-{next(self._numbers)}"
