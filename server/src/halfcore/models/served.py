"""The models that are served: a bundle becomes a `LoadedModel`, and `Models` holds one per name.

A `LoadedModel` is immutable and complete: it has the decoder, batcher and encoder of one version. A
request takes it once and uses nothing else, so no answer ever mixes two versions.
"""

from collections.abc import Callable, KeysView
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from halfcore.bundle import Manifest
from halfcore.log import logger
from halfcore.metrics.counters import Metrics, ModelMetrics
from halfcore.pipeline.batcher import Batcher
from halfcore.pipeline.decode import Decoder
from halfcore.pipeline.encode import Encoder
from halfcore.pipeline.engine import Result
from halfcore.pipeline.schema import Schema
from halfcore.problem import Problem, listed


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One version of one model, ready to answer."""

    manifest: Manifest
    """The bundle's, but with the name and the version that clients see."""
    bundle_name: str
    """The name in the bundle's own manifest; it differs if a model is served under another name,
    was renamed or copied."""
    bundle_version: str
    """The version in the bundle's own manifest; it differs if the registry's version is a copy."""
    schema: Schema
    """The manifest's columns with the rules of the feature catalogue; the decoder is made from
    it."""
    decoder: Decoder
    batcher: Batcher[Result]
    encoder: Encoder
    metrics: ModelMetrics
    loaded_at: datetime
    """In UTC."""
    role: str = "champion"
    """`champion`, or `challenger` for a canary or shadow."""


def _unchanged(model: LoadedModel) -> LoadedModel:
    return model


class Models:
    """The served models by name, and why others are not served.

    Args:
        default: the configured model of `/predict`, or empty.
        fallback: the model of `/predict` if several are loaded and none was configured.
        metrics: receives the time at which each version was loaded.
        refine: applied to each model before it is served, for the feature catalogue.
    """

    def __init__(
        self,
        *,
        default: str,
        fallback: str = "",
        metrics: Metrics,
        refine: Callable[[LoadedModel], LoadedModel] | None = None,
    ) -> None:
        self._models: dict[str, LoadedModel] = {}
        self._default = default
        self._fallback = fallback
        self._expected: set[str] = set()
        self._awaited: set[str] = set()
        """Expected models that nothing is known of yet."""
        self.failures: dict[str, str] = {}
        """Model name → one line that says why its bundle was refused."""
        self.directory_problem = ""
        """One line that says what is wrong with the directory of bundles, and what to do."""
        self.default_name = default
        """The model of `/predict`, or empty; see `default_among`."""
        self.draining = False
        self._waiting = False
        """Reported as not ready; the log gets a line when that is over."""
        self._metrics = metrics
        self._refine = refine or _unchanged

    def __iter__(self) -> Any:
        return iter(self._models.values())

    @property
    def served(self) -> KeysView[str]:
        """The names that are answered now."""
        return self._models.keys()

    @property
    def names(self) -> set[str]:
        """The names that are answered now, or will be when a bundle was repaired or downloaded."""
        return self.served | self._expected | self.failures.keys()

    @property
    def ready(self) -> bool:
        """Whether to send requests to this process."""
        return (
            not self.draining
            and bool(self._models)
            and not self._awaited
            and (not self.default_name or self.default_name in self._models)
        )

    @property
    def reasons(self) -> list[str]:
        """Why this process is not ready or `/predict` has no model, and what to do; empty if there
        is no problem."""
        reasons = [self.directory_problem] if self.directory_problem else []
        if self.default_name and self.default_name not in self._models:
            reasons.append(self._why_default_is_missing())
        elif not self._models and not reasons:
            reasons.append(
                "no model is loaded: each was refused" if self.failures else "no model is loaded"
            )
        elif self._models and not self.default_name:
            reasons.append(
                f"POST /predict has no model, because {self._count()} loaded and none is named: "
                f"set MODEL_NAME to {self._known()}"
            )
        if awaited := sorted(self._awaited - {self.default_name}):
            reasons.append(f"followed and not loaded yet: {listed(awaited)}")
        return reasons

    @property
    def why_default(self) -> str:
        """Why `default_name` is the model of `/predict`."""
        if self._default:
            return "as set"
        if len(self._models.keys() | self._expected) == 1:
            absent = self._fallback not in ("", self.default_name)
            return (
                f"the only model (the fallback {self._fallback} is not there)"
                if absent
                else "the only model"
            )
        return (
            "the only model that is followed"
            if len(self._expected) == 1
            else "the fallback, because several models are loaded"
        )

    def default_among(self, names: AbstractSet[str]) -> str:
        """The model of `/predict` if these models are there.

        The configured one, whether it is among them or not; otherwise the only one; otherwise the
        only one that is followed; otherwise the fallback. A fallback that was refused stays the
        default, so that no other model answers for it.
        """
        if self._default:
            return self._default
        if self._fallback in self.failures and self._fallback not in names:
            return self._fallback
        for some in (names, self._expected):
            if len(some) == 1:
                return next(iter(some))
        return self._fallback if self._fallback in names else ""

    def expect(self, name: str) -> None:
        """Announce a model that will be served when its bundle was downloaded: until then it is
        503, not 404; and this process is not ready until `settle`."""
        self._expected.add(name)
        self._awaited.add(name)
        self._choose_default()

    def settle(self, name: str) -> None:
        """The registry was asked once for a model that was announced. It is served, or cannot be
        now, and this process no longer waits for it to be ready."""
        self._awaited.discard(name)
        self._report_ready()

    def put(self, model: LoadedModel) -> LoadedModel | None:
        """Serve this model from the next request on; return the one that it replaces, which still
        answers the requests that it has accepted."""
        name = model.manifest.name
        replaced = self._models.get(name)
        self._models[name] = self._refine(model)
        self._awaited.discard(name)
        self._choose_default()
        if replaced is not None:
            self._metrics.loaded.pop((name, replaced.manifest.version), None)
        self._metrics.loaded[name, model.manifest.version] = model.loaded_at.timestamp()
        self._report_ready()
        return replaced

    def current(self, name: str) -> LoadedModel | None:
        """The model that answers under that name now, or None."""
        return self._models.get(name)

    def knows(self, name: str) -> bool:
        """Whether a model of that name is served, or would be if its bundle were right."""
        return name in self._models or name in self.failures or name in self._expected

    def get(self, name: str) -> LoadedModel:
        """The model of that name.

        Raises:
            Problem: 404 with the known names; 503 if it is expected but its bundle was refused.
        """
        if (model := self._models.get(name)) is not None:
            return model
        if name in self.failures or name in self._expected:
            raise Problem(
                503,
                "model_not_loaded",
                f'model "{name}" is not loaded; GET /health says why',
                retry_after_s=10,
            )
        raise Problem(
            404, "unknown_model", f'model "{name[:100]}" is not known, expected {self._known()}'
        )

    def get_default(self) -> LoadedModel:
        """The model of `/predict`; raises as `get`, and 404 if several models are served and none
        is the default."""
        if name := self.default_name:
            return self.get(name)
        if not self._models and not self._expected:
            raise Problem(
                503,
                "model_not_loaded",
                "no model is loaded; GET /health says why",
                retry_after_s=10,
            )
        raise Problem(
            404,
            "no_default_model",
            f"no default model is set, expected POST /models/NAME/predict with {self._known()}",
        )

    def report(self) -> None:
        """Log whether the server is ready, which model `/predict` has, and what is wrong."""
        if self.ready and self.default_name:
            logger.info("POST /predict serves %s: %s", self.default_name, self.why_default)
        for reason in self.reasons:
            if self.ready:
                logger.warning("%s", reason)
            elif self._awaited:
                logger.info("not ready yet: %s", reason)
            else:
                logger.error("not ready: %s", reason)
        if self.ready:
            logger.info("ready")
        self._waiting = not self.ready

    def _report_ready(self) -> None:
        if self._waiting and self.ready:
            self.report()

    def begin_draining(self) -> None:
        """Report not ready from now on, so that no new requests are sent here."""
        self.draining = True

    async def drain(self) -> None:
        """Wait until every accepted row is answered."""
        for model in self._models.values():
            await model.batcher.drain()

    def refuse(self, name: str, reason: str) -> None:
        """Record why a model's bundle is not served."""
        self.failures[name] = reason
        self._choose_default()

    def _choose_default(self) -> None:
        self.default_name = self.default_among(self._models.keys() | self._expected)

    def _why_default_is_missing(self) -> str:
        name = self.default_name
        if name in self.failures:
            return f"the default model {name} was refused: {self.failures[name]}"
        if name in self._expected:
            return f"the default model {name} is followed and not loaded yet"
        return (
            f"MODEL_NAME or HALFCORE_DEFAULT_MODEL is {name!r}, and there is no such model; "
            f"expected {self._known()}"
        )

    def _known(self) -> str:
        return (
            "one of " + listed(sorted(self._models)) if self._models else "none: no model is loaded"
        )

    def _count(self) -> str:
        return "one model is" if len(self._models) == 1 else f"{len(self._models)} models are"
