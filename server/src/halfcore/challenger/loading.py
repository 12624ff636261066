"""Loads the challengers that are bundles in the bundle directory; followers load the registry's."""

from concurrent.futures import Executor
from pathlib import Path

from halfcore import bundle, bundle_search
from halfcore.bundle import BundleError
from halfcore.bundle_signature import Signers
from halfcore.challenger.challengers import Challenger, Challengers, shadow_limits
from halfcore.log import logger, reason_of
from halfcore.metrics.counters import Metrics
from halfcore.models.loading import Limits, load
from halfcore.models.served import Models
from halfcore.pipeline.engine import EngineError
from halfcore.problem import listed


def load_challengers(
    challengers: Challengers,
    directory: Path,
    models: Models,
    *,
    metrics: Metrics,
    limits: Limits,
    executor: Executor,
    signers: Signers | None = None,
) -> None:
    """Load each challenger; one that cannot be loaded is refused, and costs nothing else.

    Args:
        challengers: get the loaded models, and the reason for each that was refused.
        directory: the bundle directory, see docs/bundle-format.md.
        models: the served models, already loaded.
        metrics: has the counters of the loaded models.
        limits: the served models' limits; a shadow has its own.
        executor: one thread, for the batches of canaries; shadows have their own.
        signers: see `load_all`.
    """
    for challenger in challengers.by_name.values():
        if not challenger.spec.source.startswith("version:"):
            continue
        shadow = challenger.spec.mode == "shadow"
        _load_one(
            challenger,
            directory,
            metrics=metrics,
            limits=shadow_limits(limits) if shadow else limits,
            executor=challengers.executor if shadow else executor,
            signers=signers,
        )
    for champion in models:
        if (its := challengers.by_name.get(champion.manifest.name)) is not None:
            its.against(champion)  # a difference is reported before the first request
    for name in challengers.by_name.keys() - models.names:
        logger.warning(
            "the challenger of %s is never asked: no model of that name is served, but %s; "
            "HALFCORE_CHALLENGERS needs the name "
            "that clients use: NAME=%s",
            name,
            listed(sorted(models.names)) or "none",
            challengers.by_name[name].spec.source,
        )


def _load_one(
    challenger: Challenger,
    directory: Path,
    *,
    metrics: Metrics,
    limits: Limits,
    executor: Executor,
    signers: Signers | None,
) -> None:
    """Load a challenger from the newest bundle of its version."""
    name, mode = challenger.spec.name, challenger.spec.mode
    path = next(iter(_versions(directory, challenger, signers)), None)
    if path is None:
        challenger.refuse(f"no bundle of {name} has {challenger.spec.source}")
        return
    try:
        own = metrics.of(f"{name} ({mode})")
        source = bundle.read(path, signers=signers)
        model = load(source, metrics=own, limits=limits, executor=executor, role="challenger")
    except (BundleError, EngineError) as error:
        challenger.refuse(str(error))
        return
    challenger.put(model)
    logger.info("challenger of %s: version %s loaded as %s", name, model.manifest.version, mode)


def _versions(directory: Path, challenger: Challenger, signers: Signers | None) -> list[Path]:
    """The bundles of the wanted version, the newest first."""
    wanted = challenger.spec.source.removeprefix("version:")
    found = {}
    for path in bundle_search.find(directory).get(challenger.spec.name, []):
        try:
            manifest = bundle.read_manifest(path, signers=signers)
        except BundleError as error:
            logger.warning(
                "challenger of %s: a bundle is skipped: %s", challenger.spec.name, reason_of(error)
            )
            continue
        if manifest.version == wanted:
            found[path] = manifest.created_at.removesuffix("Z")
    return sorted(found, key=lambda path: found[path], reverse=True)
