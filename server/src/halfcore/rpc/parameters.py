"""Reads the parameters of the inputs and outputs of a serialized `ModelInferRequest`.

inference.proto does not declare them: as maps they would take twenty times their length in memory.
So they are read here, part by part, and only in a message that holds one of the names that matter.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from halfcore.predict.protocols.outputs import CLASSIFICATION
from halfcore.predict.protocols.tensors import SHARED_MEMORY, Parameters, bad, refuse_shared_memory
from halfcore.problem import shown
from halfcore.rpc.envelope import MOST_PARTS, malformed, part
from halfcore.rpc.messages import message

_NAME = 1
_INPUTS, _OF_INPUT = 5, 4
"""Numbers of the fields: the inputs of a request, and the parameters of one."""
_OUTPUTS, _OF_OUTPUT = 6, 2
_KEY, _VALUE = 1, 2
_SHARED, _CLASSES = SHARED_MEMORY.encode(), CLASSIFICATION.encode()


def of_outputs(request: bytes) -> Iterator[Parameters]:
    """The parameters of each output that a request asks for, as far as they matter, in order; none
    where no output has any.

    Args:
        request: the serialized message, which protobuf has accepted.

    Raises:
        Problem: 400: a parameter that is not supported, or too many parts.
    """
    shared = _SHARED in request
    if not shared and _CLASSES not in request:
        return
    reader = _Reader()
    for field, tensor in reader.parts(request):
        if field == _INPUTS and shared:
            name, sent = reader.tensor(tensor, _OF_INPUT)
            refuse_shared_memory(sent, f"input '{shown(name)}': parameters")
        elif field == _OUTPUTS:
            yield reader.tensor(tensor, _OF_OUTPUT)[1]


def value_of(sent: Any) -> Any:
    """What an `InferParameter` holds; None: nothing."""
    kind = sent.WhichOneof("parameter_choice")
    return getattr(sent, kind) if kind else None


class _Reader:
    """Reads parts of one request, of which there may be `MOST_PARTS`."""

    def __init__(self) -> None:
        self._count = 0

    def parts(self, of: bytes) -> Iterator[tuple[int, bytes]]:
        """The number and the value of each field of a message."""
        at = 0
        while at < len(of):
            self._count += 1
            if self._count > MOST_PARTS:
                raise bad(
                    f"the inputs and outputs have more than {MOST_PARTS} parts, expected fewer "
                    "inputs or parameters"
                )
            try:
                at, field, begin = part(of, at)
            except IndexError:
                raise malformed() from None
            yield field, of[begin:at]

    def tensor(self, of: bytes, field: int) -> tuple[str, Parameters]:
        """The name of an input or output, and its parameters that matter."""
        name, found = "", {}
        for number, value in self.parts(of):
            if number == _NAME:
                name = value.decode(errors="replace")
            elif number == field and (_SHARED in value or _CLASSES in value):
                entry = dict(self.parts(value))
                key = entry.get(_KEY, b"").decode(errors="replace")
                found[key] = _value(entry.get(_VALUE, b""))
        return name, found


def _value(serialized: bytes) -> Any:
    try:
        return value_of(message("inference.InferParameter").FromString(serialized))
    except DecodeError:
        raise malformed() from None
