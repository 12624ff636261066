"""The health routes: alive, ready, and the state of every model."""

from collections.abc import Callable
from typing import Any

from litestar import Response, get

from halfcore import __version__
from halfcore.models.served import Models
from halfcore.registry.followers import Followers
from halfcore.registry.status import described

_LONGEST_REASON = 600
"""Characters."""


def routes(models: Models, followers: Followers) -> list[Any]:
    """`/health`, `/health/live` and `/health/ready`."""
    return [*states(models, lambda: report(models, followers)), _live]


def report(models: Models, followers: Followers) -> dict[str, Any]:
    """The state of the API and of every model."""
    return {
        "status": _state(models, followers),
        "api": "ok",
        "version": __version__,
        "default_model": models.default_name or None,
        "reasons": [_cut(reason) for reason in models.reasons],
        "models": _states(models, followers),
    }


def states(models: Models, reported: Callable[[], dict[str, Any]]) -> list[Any]:
    """`/health`, with what `reported` returns, and `/health/ready`."""

    @get("/health", sync_to_thread=False, summary="State of the API and of every model")
    def health() -> dict[str, Any]:
        return reported()

    @get("/health/ready", sync_to_thread=False, summary="Whether to send requests here; 503 if not")
    def ready() -> Response[dict[str, str]]:
        return Response(
            {"status": "ready" if models.ready else "not_ready"},
            status_code=200 if models.ready else 503,
        )

    return [health, ready]


@get("/health/live", sync_to_thread=False, summary="Whether the event loop turns")
def _live() -> dict[str, str]:
    # The answer itself is the check; no model and no other service is called.
    return {"status": "alive"}


def _states(models: Models, followers: Followers) -> dict[str, dict[str, Any]]:
    """Model name → what is served, what was refused and what is followed."""
    states: dict[str, dict[str, Any]] = {
        model.manifest.name: {
            "state": "loaded",
            "version": model.manifest.version,
            "loaded_at": model.loaded_at,
        }
        for model in models
    }
    for name, reason in models.failures.items():
        if name in states:
            states[name] |= {"newer": "refused", "reason": _cut(reason)}
        else:
            states[name] = {"state": "refused", "reason": _cut(reason)}
    for follower in followers:
        entry = states.setdefault(follower.followed.name, {"state": "not_loaded"})
        entry.setdefault("following", {})[follower.followed.role] = described(follower.status)
    return states


def _state(models: Models, followers: Followers) -> str:
    if models.draining:
        return "draining"
    if not models.ready:
        return "not_ready"
    troubled = any(follower.status.error or follower.status.refused for follower in followers)
    return "degraded" if models.failures or models.directory_problem or troubled else "ok"


def _cut(reason: str) -> str:
    """A reason, cut to a largest length: some quote a manifest."""
    return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"
