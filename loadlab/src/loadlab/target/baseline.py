"""A baseline in the tier's limits: plain processes in control groups, as for our own server."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loadlab.experiments.bench.cases import Case
from loadlab.experiments.bench.subjects import Place, baseline
from loadlab.run.order import Order
from loadlab.target.image import labels_only
from loadlab.target.process import Running, free_port, running
from loadlab.target.processes import hold, manifest, words_of_ended
from loadlab.target.serving import Serving

_READY_S = 180.0
"""Importing MLflow and pandas takes seconds of CPU time: in a tenth of a core they are ten times as
many."""
STORE = Path(".halfcore/mlflow.db")


@contextmanager
def serving(
    order: Order, root: Path, *, bundles: Path, scratch: Path, cpus: str
) -> Iterator[Serving]:
    """Start every replica of the order's baseline; other arguments, errors and the end are those of
    the `cgroup` backend.

    Its environment must have been installed; the model is from the checkout's registry.
    """
    tier, model, variant = order.tier, order.model, order.service
    bundle = hold(bundles, model, scratch)
    subject = baseline(variant, variant, variant, workers=order.service_workers)
    place = Place(root, f"sqlite:///{(root / STORE).resolve()}", scratch)
    with ExitStack() as stack:
        started: list[Running] = []
        for number in range(tier.replicas):
            port = free_port()
            command = subject.start(place, Case(model, bundle, "", ""), port)
            label = f"{tier.name}-{variant}-{number}"
            started.append(
                stack.enter_context(
                    running(
                        label,
                        command,
                        port=port,
                        limits=tier.limits,
                        cpus=cpus,
                        ready_timeout_s=_READY_S,
                    )
                )
            )
        yield Serving(
            addresses=[("127.0.0.1", each.port) for each in started],
            groups=[each.group for each in started],
            pids=[each.process.pid for each in started],
            ended=lambda: words_of_ended(started),
            manifest=labels_only(manifest(bundle)),
            details={"service": f"baseline, variant {variant}"},
        )
