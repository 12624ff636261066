"""The Open Inference Protocol, version 2, over REST: `POST /v2/models/NAME/infer`, with binary
tensors as Triton's clients send them.

The rows are one tensor [N, F], or one tensor [N] or [N, 1] per column. A binary tensor of numbers
is checked and packed as a whole, without a Python object per value.
"""

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from halfcore.bundle import Input, Manifest
from halfcore.models.served import LoadedModel
from halfcore.pipeline.decode import REFUSED, SHORT_BODY_BYTES, Rows
from halfcore.pipeline.engine import Result
from halfcore.pipeline.explain import too_many_rows
from halfcore.pipeline.json_slices import json_in_slices
from halfcore.pipeline.scan import BrokenText
from halfcore.pipeline.table import Table
from halfcore.pipeline.values import as_sent, unchanged
from halfcore.predict.admission import (
    BINARY_HEADER,
    MOST_DIGITS,
    Head,
    check_length,
    check_not_encoded,
    is_plain,
)
from halfcore.predict.prediction import Answer, Headers, json_headers
from halfcore.predict.protocols.binary import BINARY_TYPE, NUMBERS, Answers, Matrices, label_type
from halfcore.predict.protocols.outputs import (
    ALIASES,
    Output,
    as_mlserver,
    output_of,
    packed,
    wanted_of,
)
from halfcore.predict.protocols.protocol import JSON_TYPE, Call, Reserve, headers
from halfcore.predict.protocols.tensors import (
    BINARY_SIZE,
    Parameters,
    Tensor,
    bad,
    with_data,
)
from halfcore.problem import UNKNOWN_VERSION, Problem, listed, shown

ONE_TENSOR = "input"
"""The name of the input of a model without column names."""
TIMEOUT = "timeout"
"""The parameter of a request, as Triton has it, that says how long its client waits."""
_LONGEST_US = 10**15
"""Thirty years, as which any longer time counts: a float cannot hold every integer of JSON."""


class Request(msgspec.Struct):
    """The JSON of a request. What may be left out may also be null: some clients write all
    fields."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Output] | None = None
    parameters: Parameters | None = None


class Inference:
    """See `protocol.Wire`.

    Args:
        version: the model version that the path names; None: the served one.
    """

    def __init__(self, version: str | None = None) -> None:
        self._version = version

    def check_head(self, head: Head, *, max_body_bytes: int) -> None:
        """Accept a body of any content type: the protocol's clients send JSON without one."""
        check_not_encoded(head)
        check_length(head, max_body_bytes=max_body_bytes)

    def is_plain(self, get: Callable[[str], str | None], *, max_body_bytes: int) -> bool:
        """A body of a known length, of any content type."""
        return is_plain(get, max_body_bytes=max_body_bytes, any_type=True)

    def quick(self, model: LoadedModel, body: bytes, head: Head) -> Call | None:
        """Read one binary tensor of the model's own type."""
        length = head.json_length
        if (
            length is None
            or not _answers(model, self._version)
            or not length.isdecimal()
            or len(length) > MOST_DIGITS
        ):
            return None
        end = int(length)
        try:
            request = _request(body[:end])
        except REFUSED:
            return None
        matrices = model.schema.derived(Matrices)
        rows = matrices.rows(request.inputs, body[end:], max_rows=model.decoder.max_rows)
        if rows is None:
            return None
        wanted = wanted_of(model, request.id, request.outputs, request.parameters)
        return Call(rows, wanted, timeout_of(request.parameters))

    def read(
        self, model: LoadedModel, body: bytes, head: Head, reserve: Reserve
    ) -> Generator[None, None, Call]:
        """Read the tensors."""
        check_version(model, self._version)
        text, binary = _parts(body, head.json_length)
        try:
            if len(text) <= SHORT_BODY_BYTES:
                request = _request(text)
            else:
                most = model.decoder.max_rows
                request = yield from long_request(text, max_rows=most, reserve=reserve)
        except (BrokenText, *REFUSED) as error:
            raise bad(f"failed to parse the request JSON buffer: {_why(error)}") from None
        wanted = wanted_of(model, request.id, request.outputs, request.parameters)
        timeout_s = timeout_of(request.parameters)
        tensors = yield from with_data(request.inputs, binary)
        return Call((yield from rows_of(tensors, model)), wanted, timeout_s)

    def answer(
        self, model: LoadedModel, results: Sequence[Result], call: Call
    ) -> tuple[Headers, bytes]:
        """The outputs that were asked for, as JSON, and as binary tensors behind it."""
        manifest, wanted = model.manifest, call.wanted
        answers = model.encoder.derived(Answers)
        if (
            wanted.outputs[0][2]
            and not wanted.classes
            and all(binary and asked not in ALIASES for asked, _, binary in wanted.outputs)
        ):
            return answers.answer(wanted.id, wanted.outputs, results)
        document: dict[str, Any] = {
            "model_name": manifest.name,
            "model_version": manifest.version,
        }
        if wanted.id:
            document["id"] = wanted.id
        outputs, raw = [], []
        for asked, name, binary in wanted.outputs:
            datatype, values, shape = output_of(
                manifest, name, results, wanted.classes.get(asked, 0)
            )
            parameters: dict[str, Any] = {}
            if asked in ALIASES:
                datatype, values, shape = as_mlserver(datatype, values, shape)
                parameters["content_type"] = "np"
            output = {"name": asked, "datatype": datatype, "shape": shape}
            if binary:
                raw.append(packed(values))
                parameters[BINARY_SIZE] = len(raw[-1])
            else:
                output["data"] = values
            outputs.append(output | {"parameters": parameters} if parameters else output)
        text = orjson.dumps(document | {"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        if not raw:
            return json_headers(len(text)), text
        body = b"".join([text, *raw])
        return headers(BINARY_TYPE, body, (BINARY_HEADER, str(len(text)))), body

    def refusal(self, problem: Problem) -> Answer:
        """`{"error": …}`; a wrong value is 400 in this protocol."""
        status = 400 if problem.status == 422 else problem.status
        body = orjson.dumps({"error": problem.detail})
        return Answer(status, headers(JSON_TYPE, body, *problem.headers.items()), body)


_T = TypeVar("_T")
_NAN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|\bNaN\b', re.DOTALL)
"""A text, or NaN between texts. A text that does not end matches too: it is scanned once."""


def _with_nan(decode: Callable[[bytes], _T]) -> Callable[[bytes], _T]:
    """Decodes JSON in which a bare NaN is null: Triton's clients write it, and Triton reads it."""

    def decoded(text: bytes) -> _T:
        if not text.isascii():
            text.decode()  # msgspec does not look at texts in fields that it skips
        try:
            return decode(text)
        except msgspec.DecodeError:
            if b"NaN" not in text:
                raise
        return decode(_NAN.sub(lambda found: b"null" if found[0] == b"NaN" else found[0], text))

    return decoded


_request = _with_nan(msgspec.json.Decoder(Request).decode)
_any = _with_nan(msgspec.json.decode)


def long_request(text: bytes, *, max_rows: int, reserve: Reserve) -> Generator[None, None, Request]:
    """The JSON of a long request, parsed in slices; raises as `json_in_slices` and msgspec."""
    document = yield from json_in_slices(text, max_rows=max_rows, reserve=reserve, decode=_any)
    inputs = document.get("inputs") if isinstance(document, dict) else None
    tensors = [one for one in inputs if isinstance(one, dict)] if isinstance(inputs, list) else []
    # The values need no check of their types: they are kept apart, which saves a copy
    data = [one["data"] if isinstance(one.get("data"), list) else None for one in tensors]
    for one, values in zip(tensors, data, strict=True):
        if values is not None:
            one["data"] = []
    request = msgspec.convert(document, Request)
    for tensor, values in zip(request.inputs, data, strict=True):
        if values is not None:
            tensor.data = values
    return request


def _why(error: Exception) -> str:
    """What is wrong with the JSON of a request."""
    known = isinstance(error, BrokenText | msgspec.DecodeError)
    return str(error) if known else "it is not UTF-8"


def check_version(model: LoadedModel, version: str | None) -> None:
    """Refuse a version that is not the served one; raises `Problem`, 404."""
    if version is not None and not _answers(model, version):
        name, served = model.manifest.name, model.manifest.version
        message = f"model '{name}' with version '{version[:100]}' is not found, expected {served}"
        raise Problem(404, UNKNOWN_VERSION, message)


def _answers(model: LoadedModel, version: str | None) -> bool:
    """Whether a model answers requests for a version; a canary answers none that name one, because
    its share is drawn from all."""
    return version is None or (version == model.manifest.version and model.role == "champion")


def describe(model: LoadedModel) -> dict[str, Any]:
    """The metadata of a model: its inputs and outputs as tensors."""
    manifest = model.manifest
    number = NUMBERS[manifest.dtype]
    if manifest.named:
        inputs = [
            {"name": column.name, "datatype": _datatype(column, number), "shape": [-1]}
            for column in model.schema.inputs
        ]
    else:
        width = len(model.schema.inputs)
        inputs = [{"name": ONE_TENSOR, "datatype": number, "shape": [-1, width]}]
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": "onnx_onnxv1",
        "inputs": inputs,
        "outputs": [_described(name, manifest, number) for name in manifest.outputs],
    }


def _described(name: str, manifest: Manifest, number: str) -> dict[str, Any]:
    if name == "label":
        return {"name": name, "datatype": label_type(manifest.classes), "shape": [-1]}
    golden = manifest.golden[0].prediction
    width = len(manifest.classes) or (len(golden) if isinstance(golden, list) else 0)
    return {"name": name, "datatype": number, "shape": [-1, width] if width else [-1]}


def _datatype(column: Input, number: str) -> str:
    if column.kind == "text":
        return "BYTES"
    if column.categories:
        return "BYTES" if isinstance(column.categories[0], str) else "INT64"
    return {"number": number, "integer": "INT64", "boolean": "BOOL"}[column.kind]


def _parts(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """The JSON and the binary tensors behind it; raises `Problem`, 400."""
    if length is None:
        return body, memoryview(b"")
    usable = length.isdecimal() and len(length) <= MOST_DIGITS
    if not usable or int(length) > len(body):
        raise bad(
            f"Inference-Header-Content-Length is {length[:40]}, expected the length of the "
            f"JSON, at most {len(body)}"
        )
    return body[: int(length)], memoryview(body)[int(length) :]


def timeout_of(parameters: Parameters | None) -> float:
    """Seconds that a request's client waits, by Triton's parameter `timeout`, which is in
    microseconds; 0: no limit. Raises `Problem`, 400."""
    if parameters is None or (timeout := parameters.get(TIMEOUT)) is None:
        return 0.0
    if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 0:
        raise bad(f"parameters.timeout is {shown(timeout)}, expected microseconds, or 0")
    return min(timeout, _LONGEST_US) / 1e6


def rows_of(
    tensors: Sequence[tuple[Tensor, "NDArray[Any] | list[Any]"]], model: LoadedModel
) -> Generator[None, None, Rows]:
    """The rows of the tensors of a request, each with its values; raises `Problem`."""
    most = model.decoder.max_rows
    if any(tensor.shape[0] > most for tensor, _ in tensors):  # before a look at the values
        raise too_many_rows(most)
    table = Table.of(model.schema)
    if len(tensors) == 1 and tensors[0][0].name not in table.names:
        return (yield from _one_tensor(*tensors[0], table, max_rows=most))
    return (yield from _columns(tensors, model, table, max_rows=most))


def _one_tensor(
    tensor: Tensor, values: "NDArray[Any] | list[Any]", table: Table, *, max_rows: int
) -> Generator[None, None, Rows]:
    """The rows of one tensor [N, F]."""
    width = len(table.names)
    if len(tensor.shape) != 2 or tensor.shape[1] != width:
        raise bad(
            f"unexpected shape for input '{shown(tensor.name)}'. Expected [-1,{width}], got "
            f"[{','.join(map(str, tensor.shape))}]; or send one tensor per column: "
            f"{listed(list(table.names))}"
        )
    if tensor.datatype != "BYTES":
        matrix = _matrix(values)
        if matrix is not None:
            packed = table.pack_matrix(matrix.reshape(tensor.shape), max_rows=max_rows)
            if packed is not None:
                return packed
    flat = values if isinstance(values, list) else values.tolist()
    rows = (flat[at : at + width] for at in range(0, len(flat), width))
    path, quick = "$.inputs[0].data", unchanged if _finite(values) else None
    return (yield from table.pack(rows, as_sent, max_rows=max_rows, path=path, quick=quick))


def _matrix(values: "NDArray[Any] | list[Any]") -> "NDArray[Any] | None":
    """The values as numbers; None if they are not all numbers, or a list is short."""
    if isinstance(values, list):
        if not {*map(type, values)} <= {int, float}:
            return None
        try:
            return np.array(values, np.float64)
        except OverflowError:
            return None
    return None if values.dtype.kind == "b" else values


def _columns(
    tensors: Sequence[tuple[Tensor, "NDArray[Any] | list[Any]"]],
    model: LoadedModel,
    table: Table,
    *,
    max_rows: int,
) -> Generator[None, None, Rows]:
    """The rows of one tensor per column."""
    sent = {tensor.name: (tensor, values) for tensor, values in tensors}
    schema, name = model.schema, model.manifest.name
    if len(sent) < len(tensors):
        ((twice, _),) = Counter(tensor.name for tensor, _ in tensors).most_common(1)
        raise bad(f"the input '{shown(twice)}' was sent twice, expected one tensor per column")
    known = {*table.names, *schema.ignored}
    for unexpected in (each for each in sent if each not in known):  # the first that was sent
        raise bad(
            f"unexpected inference input '{shown(unexpected)}' for model '{name}', expected "
            f"{listed(list(table.names))}"
        )
    defaults = schema.defaults
    missing = [
        column for i, column in enumerate(table.names) if column not in sent and i not in defaults
    ]
    if missing:
        raise bad(
            f"expected {len(table.names)} inputs but got {len(sent)} inputs for model '{name}'. "
            f"Missing: {listed(missing)}"
        )
    sizes = {tensor.shape[0] for tensor, _ in tensors}
    if not sizes:  # every column has a default
        raise bad("no input was sent, expected at least one, which says how many rows there are")
    if len(sizes) > 1 or any(tensor.shape[1:] not in ([], [1]) for tensor, _ in tensors):
        shapes = listed([f"{tensor.name} {tensor.shape}" for tensor, _ in tensors])
        raise bad(f"the inputs' shapes are {shapes}, expected [N] or [N, 1] with the same N")
    (size,) = sizes
    columns = [
        _listed(sent[column][1]) if column in sent else [defaults[i]] * size
        for i, column in enumerate(table.names)
    ]
    rows: Iterable[Sequence[Any]] = zip(*columns, strict=True)
    quick = unchanged if all(_finite(values) for _, values in tensors) else None
    return (yield from table.pack(rows, as_sent, max_rows=max_rows, path="$.inputs", quick=quick))


def _finite(values: "NDArray[Any] | list[Any]") -> bool:
    """Whether no value is NaN or infinite: JSON has neither, and lists are its values or texts."""
    return isinstance(values, list) or values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _listed(values: "NDArray[Any] | list[Any]") -> list[Any]:
    return values if isinstance(values, list) else values.tolist()
