"""The outputs of the inference protocol: which of them a request asks for, and their values.

With the parameter `classification`, as Triton has it, the probabilities become the most probable
classes: texts `probability:index:label`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from halfcore.bundle import Manifest
from halfcore.models.served import LoadedModel
from halfcore.pipeline.engine import Result
from halfcore.predict.protocols.binary import NUMBERS, Answers, Outputs, element, label_type
from halfcore.predict.protocols.tensors import (
    DTYPES,
    Parameters,
    bad,
    refuse_shared_memory,
)
from halfcore.problem import listed, shown

ALIASES = {"predict": "label", "predict_proba": "probabilities"}
"""Names that MLServer's scikit-learn runtime gives to its outputs. Who asks for them gets them as
from there: with two dimensions, numbers as FP64, and MLServer's name of the encoding."""
_OF_REGRESSOR = {"predict": "value"}
"""Those of a model without labels."""
CLASSIFICATION = "classification"
"""The parameter of an output that says how many of the most probable classes are wanted."""
_CLASSIFIED = "probabilities"


class Output(msgspec.Struct):
    """One output that is asked for."""

    name: str
    parameters: Parameters | None = None


class Wanted(NamedTuple):
    """What the answer must hold."""

    id: str
    outputs: Outputs
    classes: Mapping[str, int] = {}
    """Name of an output → how many of the most probable classes it holds in place of values."""


def wanted_of(
    model: LoadedModel,
    request_id: str | None,
    asked: Sequence[Output] | None,
    parameters: Parameters | None,
) -> Wanted:
    """The outputs that a request asks for; all of them if it names none. Raises `Problem`, 400."""
    manifest = model.manifest
    all_binary = _flag(parameters, "binary_data_output", where="parameters", otherwise=False)
    if not asked:
        answers = model.encoder.derived(Answers)
        return Wanted(request_id or "", answers.all_binary if all_binary else answers.all_json)
    outputs: dict[str, tuple[str, str, bool]] = {}
    classes: dict[str, int] = {}
    aliases = ALIASES if manifest.classes else _OF_REGRESSOR
    for output in asked:
        name = aliases.get(output.name, output.name)
        if name not in manifest.outputs:
            raise bad(
                f"unexpected inference output '{shown(output.name)}' for model "
                f"'{manifest.name}', expected {listed(list(manifest.outputs))}"
            )
        if output.name in outputs:  # each would be made of all rows again
            raise bad(f"the output '{shown(output.name)}' was asked for twice, expected once")
        where = f"output '{output.name}': parameters"
        refuse_shared_memory(output.parameters, where)
        binary = _flag(output.parameters, "binary_data", where=where, otherwise=all_binary)
        outputs[output.name] = (output.name, name, binary)
        if count := _classes(output):
            classes[output.name] = count
    return Wanted(request_id or "", tuple(outputs.values()), classes)


def _flag(parameters: Parameters | None, name: str, *, where: str, otherwise: bool) -> bool:
    value = (parameters or {}).get(name)
    if value is None:
        return otherwise
    if not isinstance(value, bool):
        raise bad(f"{where}.{name} is {shown(value)}, expected true or false")
    return value


def _classes(output: Output) -> int:
    """How many classes an output is asked for; 0: its values."""
    count = (output.parameters or {}).get(CLASSIFICATION) or 0
    where = f"output '{output.name}': parameters.{CLASSIFICATION} is {shown(count)}"
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise bad(f"{where}, expected how many classes are wanted, at least 1")
    if count and output.name != _CLASSIFIED:
        raise bad(f"{where}, expected it for the output {_CLASSIFIED} alone; leave it out")
    return count


def output_of(
    manifest: Manifest, name: str, results: Sequence[Result], classes: int = 0
) -> tuple[str, Any, list[int]]:
    """An output's datatype, its values in row order, and its shape.

    Args:
        manifest: of the model.
        name: the output's name in it.
        results: of all rows.
        classes: the most probable classes of which it holds; 0: it holds its values.
    """
    if name == "label":
        labels = [manifest.classes[result[0]] for result in results]
        return label_type(manifest.classes), labels, [len(labels)]
    number = NUMBERS[manifest.dtype]
    values = np.array([result[-1] for result in results], DTYPES[number])
    if classes:
        return _classified(values, manifest.classes, classes)
    return number, values.ravel(), list(values.shape)


def _classified(values: Any, labels: Sequence[Any], count: int) -> tuple[str, Any, list[int]]:
    """Probabilities [N, F] as Triton's classes [N, count]; of equal ones the first class first."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    texts = [
        f"{value:f}:{index}:{labels[index]}"
        for row, indexes in zip(values.tolist(), order.tolist(), strict=True)
        for index in indexes
        for value in (row[index],)
    ]
    return "BYTES", texts, list(order.shape)


def as_mlserver(datatype: str, values: Any, shape: list[int]) -> tuple[str, Any, list[int]]:
    """An output in MLServer's form: see `ALIASES`."""
    if datatype == "FP32":
        datatype, values = "FP64", values.astype(np.float64)
    return datatype, values, [*shape, 1] if len(shape) == 1 else shape


def packed(values: Any) -> bytes:
    """The values of an output as a binary tensor."""
    if isinstance(values, np.ndarray):
        return values.tobytes()
    return b"".join(map(element, values))
