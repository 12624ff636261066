"""`ModelInfer`: a serialized request becomes rows, and results become a serialized response."""

from collections.abc import Callable, Generator, Sequence
from itertools import zip_longest
from typing import Any

from google.protobuf.message import DecodeError

from halfcore.models.served import LoadedModel
from halfcore.pipeline.engine import Result
from halfcore.predict.admission import Head
from halfcore.predict.prediction import Answer, Headers
from halfcore.predict.protocols.inference import TIMEOUT, check_version, rows_of, timeout_of
from halfcore.predict.protocols.outputs import Output, output_of, packed, wanted_of
from halfcore.predict.protocols.protocol import Call, Reserve
from halfcore.predict.protocols.tensors import Parameters
from halfcore.problem import Problem
from halfcore.rpc import parameters
from halfcore.rpc.envelope import malformed
from halfcore.rpc.messages import message
from halfcore.rpc.tensors import put, tensors_of

INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED = 3, 4, 5, 8
PERMISSION_DENIED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 7, 13, 14, 16
_STATUS = {
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: NOT_FOUND,
    408: DEADLINE_EXCEEDED,
    429: RESOURCE_EXHAUSTED,
    500: INTERNAL,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
"""gRPC's status by HTTP's; all others are `INVALID_ARGUMENT`."""
_CODES = {"overloaded": RESOURCE_EXHAUSTED, "too_many_bytes": RESOURCE_EXHAUSTED}
"""gRPC's status by a problem's code, which decides before its HTTP status."""
_MOST_CHARACTERS = 1500
"""Of a message: a client refuses metadata of more than 8 KiB, and what is not ASCII is sent as
three or more characters."""


class Infer:
    """See `protocol.Wire`. Bodies are serialized messages, and the status of a refusal is gRPC's
    number.

    Args:
        version: the model version that the request names; empty: the served one.
    """

    def __init__(self, version: str = "") -> None:
        self._version = version

    def check_head(self, head: Head, *, max_body_bytes: int) -> None:
        """Accept every call: gRPC itself refuses a message that is compressed or too long."""

    def is_plain(
        self,
        get: Callable[[str], str | None],  # noqa: ARG002  of HTTP alone
        *,
        max_body_bytes: int,  # noqa: ARG002
    ) -> bool:
        """No: a call has no HTTP head of its own."""
        return False

    def quick(
        self,
        model: LoadedModel,  # noqa: ARG002  `read` decides
        body: bytes,  # noqa: ARG002
        head: Head,  # noqa: ARG002
    ) -> Call | None:
        """None: every message is read by `read`."""
        return None

    def read(
        self,
        model: LoadedModel,
        body: bytes,
        head: Head,  # noqa: ARG002  other protocols need it
        reserve: Reserve,  # noqa: ARG002  of JSON alone
    ) -> Generator[None, None, Call]:
        """Read the tensors."""
        check_version(model, self._version or None)
        request = parsed("inference.ModelInferRequest", body)
        yield
        raw: Parameters = {"binary_data_output": bool(request.raw_input_contents)}
        sent = zip_longest(request.outputs, parameters.of_outputs(body))
        asked = [Output(output.name, found) for output, found in sent]
        wanted = wanted_of(model, request.id, asked, raw)
        timeout_s = timeout_of(_parameters(request))
        tensors = yield from tensors_of(request)
        return Call((yield from rows_of(tensors, model)), wanted, timeout_s)

    def answer(
        self, model: LoadedModel, results: Sequence[Result], call: Call
    ) -> tuple[Headers, bytes]:
        """The outputs that were asked for: raw if an input was, otherwise typed contents."""
        manifest, wanted = model.manifest, call.wanted
        response = message("inference.ModelInferResponse")(
            model_name=manifest.name, model_version=manifest.version, id=wanted.id
        )
        for asked, name, raw in wanted.outputs:
            count = wanted.classes.get(asked, 0)
            datatype, values, shape = output_of(manifest, name, results, count)
            output = response.outputs.add(name=asked, datatype=datatype, shape=shape)
            if raw:
                response.raw_output_contents.append(packed(values))
            else:
                put(output.contents, datatype, values)
        return [], response.SerializeToString()

    def refusal(self, problem: Problem) -> Answer:
        """The status and its message; `retry-after` goes into the trailing metadata."""
        status = _CODES.get(problem.code) or _STATUS.get(problem.status, INVALID_ARGUMENT)
        more = [header for header in problem.headers.items() if header[0] == "retry-after"]
        return Answer(status, more, problem.detail[:_MOST_CHARACTERS].encode())


def _parameters(request: Any) -> Parameters:
    """The parameters of a request that are read."""
    if TIMEOUT not in request.parameters:
        return {}
    return {TIMEOUT: parameters.value_of(request.parameters[TIMEOUT])}


def parsed(name: str, body: bytes) -> Any:
    """The message of this name; raises `Problem`, 400."""
    try:
        return message(name).FromString(body)
    except DecodeError:
        raise malformed() from None
