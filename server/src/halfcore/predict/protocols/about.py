"""What the inference protocol says of the server and of its models, over HTTP and over gRPC."""

from typing import Any

from halfcore import __version__
from halfcore.models.served import Models

_NAME = "Halfcore"


def server(*extensions: str) -> dict[str, Any]:
    """The server's metadata."""
    return {"name": _NAME, "version": __version__, "extensions": list(extensions)}


def index(models: Models, *, only_ready: bool) -> list[dict[str, str]]:
    """The models and their state; `only_ready`: without those that do not answer."""
    states = [_state(model.manifest.name, model.manifest.version, "READY", "") for model in models]
    if only_ready:
        return states
    absent = sorted(models.names - models.served)
    return states + [_state(name, "", "UNAVAILABLE", "see GET /health") for name in absent]


def _state(name: str, version: str, state: str, reason: str) -> dict[str, str]:
    return {"name": name, "version": version, "state": state, "reason": reason}
