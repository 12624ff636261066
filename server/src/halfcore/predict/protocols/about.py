"""What the inference protocol says of the server and of its models, over HTTP and over gRPC."""

from typing import Any

from halfcore import __version__
from halfcore.models.served import Models

_NAME = "Halfcore"


def server(*extensions: str) -> dict[str, Any]:
    """The server's metadata."""
    return {"name": _NAME, "version": __version__, "extensions": list(extensions)}


def index(models: Models) -> list[dict[str, str]]:
    """The models and their state."""
    states = [
        {"name": model.manifest.name, "version": model.manifest.version, "state": "READY"}
        for model in models
    ]
    absent = [
        {"name": name, "version": "", "state": "UNAVAILABLE", "reason": "see GET /health"}
        for name in sorted(models.names - models.served)
    ]
    return states + absent
