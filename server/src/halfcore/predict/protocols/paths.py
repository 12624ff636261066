"""Which protocol answers a path."""

import re
from typing import NamedTuple

from halfcore.predict.protocols.inference import Inference
from halfcore.predict.protocols.kserve import Instances
from halfcore.predict.protocols.mlflow import Scoring
from halfcore.predict.protocols.protocol import Wire

INVOCATIONS = "/invocations"
PREDICT = ":predict"
"""What follows a model's name in a path of KServe's older protocol."""
_SCORING, _INSTANCES, _INFERENCE = Scoring(), Instances(), Inference()
_ENDPOINT = re.compile(r"/endpoints/([^/]+)/invocations\Z")
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer\Z")
_PREDICT = re.compile(rf"/v1/models/([^/]+){PREDICT}\Z")


_FORMS: tuple[tuple[str, Wire], ...] = (
    ("/invocations/", _SCORING),
    ("/endpoints/", _SCORING),
    ("/v1/", _INSTANCES),
    ("/v2/", _INFERENCE),
)
"""Beginnings of paths, and the protocol whose clients ask there."""


class Route(NamedTuple):
    """What a path asks for."""

    wire: Wire
    model: str | None
    """None: the default model."""


def route_of(path: str) -> Route | None:
    """The protocol and the model of a POST's path; None if no protocol has the path."""
    if path == INVOCATIONS:
        return Route(_SCORING, None)
    if (match := _INFER.match(path)) is not None:
        name, version = match.groups()
        return Route(_INFERENCE if version is None else Inference(version), name)
    if (match := _ENDPOINT.match(path)) is not None:
        return Route(_SCORING, match[1])
    if (match := _PREDICT.match(path)) is not None:
        return Route(_INSTANCES, match[1])
    return None


def form_of(path: str) -> Wire | None:
    """The protocol in whose form a path's errors are answered, whatever is wrong with the request;
    None for Halfcore's own."""
    return next((wire for start, wire in _FORMS if f"{path}/".startswith(start)), None)
