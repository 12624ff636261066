"""Turns results into the answer's bytes.

The part that is the same in every answer of a model version is made once: a template per class
label, with one `%.7g` per probability. A float32 holds no more than seven significant digits;
regression values are written in full.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson

from halfcore.bundle import Manifest

_T = TypeVar("_T")
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


class Encoder:
    """Encodes the answers of one model version.

    The answer: `{"prediction": …, "probabilities": {class: p, …}, "model": name, "version":
    version}`; for a list of rows, `prediction` and `probabilities` are lists.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._derived: dict[Callable[[Manifest], Any], Any] = {}
        self._tail = (
            b',"model":'
            + orjson.dumps(manifest.name)
            + b',"version":'
            + orjson.dumps(manifest.version)
            + b"}"
        )
        self.labels: list[bytes] = [orjson.dumps(label) for label in manifest.classes]
        """The classes as JSON."""
        self._with_probabilities = "probabilities" in manifest.outputs
        keys = [
            orjson.dumps(label if isinstance(label, str) else str(label))
            for label in manifest.classes
        ]
        members = b",".join(key.replace(b"%", b"%%") + b":%.7g" for key in keys)
        self._probabilities = b"{" + members + b"}"
        tail = self._tail.replace(b"%", b"%%")
        self._templates: list[bytes] = [
            b'{"prediction":'
            + label.replace(b"%", b"%%")
            + b',"probabilities":'
            + self._probabilities
            + tail
            for label in self.labels
        ]
        self._plain: list[bytes] = [b'{"prediction":' + label + self._tail for label in self.labels]

    def derived(self, make: "Callable[[Manifest], _T]") -> _T:
        """What `make` makes of the model's manifest, to write answers in another form: made at the
        first call, then kept with the encoder."""
        made = self._derived.get(make)
        if made is None:
            made = self._derived[make] = make(self._manifest)
        value: _T = made
        return value

    def encode(self, results: Sequence[tuple[Any, ...]], *, many: bool) -> bytes:
        """The answer's body.

        Args:
            results: per row (label index, probabilities), (label index,) or (value,).
            many: whether a list of rows was sent.
        """
        if many:
            return self._encode_many(results)
        result = results[0]
        if self._with_probabilities:
            label: int = result[0]
            return self._templates[label] % tuple(result[1])
        if self.labels:
            return self._plain[int(result[0])]
        return b'{"prediction":' + orjson.dumps(result[0], option=_NUMPY) + self._tail

    def _encode_many(self, results: Sequence[tuple[Any, ...]]) -> bytes:
        if not self.labels:
            return (
                b'{"prediction":'
                + orjson.dumps([value for (value,) in results], option=_NUMPY)
                + self._tail
            )
        answer = (
            b'{"prediction":[' + b",".join([self.labels[result[0]] for result in results]) + b"]"
        )
        if self._with_probabilities:
            answer += (
                b',"probabilities":['
                + b",".join([self._probabilities % tuple(result[1]) for result in results])
                + b"]"
            )
        return answer + self._tail
