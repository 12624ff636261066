"""Plain processes, ours or a baseline's, each replica in a control group with the tier's limits;
and a server that the lab did not start."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadlab.target import programs
from loadlab.target.process import NO_ANSWER, Command, Running, free_port, get, running
from loadlab.target.programs import Case, CaseError
from loadlab.target.serving import Asked, BackendFailed, Serving

STORE = Path(".halfcore/mlflow.db")
_READY_S, _BASELINE_READY_S = 60.0, 180.0
"""Importing MLflow and pandas takes seconds of CPU time: in a tenth of a core they are ten times as
many."""
_COUNTED = re.compile(r'^halfcore_requests_total\{[^}]*outcome="200"[^}]*\} (\S+)$', re.MULTILINE)


@contextmanager
def serving(
    order: Asked, root: Path, *, bundles: Path, scratch: Path, cpus: str
) -> Iterator[Serving]:
    """Start every replica on loopback; all end with this context. Users take their addresses in
    turn, unless `haproxy.behind` puts a balancer before them.

    A baseline's environment must have been installed; its model is from the registry of the
    checkout, `root`. `scratch` takes a copy of the bundle, so that other models' memory is not part
    of the measurement. `cpus` as `running` takes them.

    Raises:
        BackendFailed: no such bundle.
        process.CannotStart: the server is not ready in its limits.
        cgroup.Unavailable: no control groups here.
    """
    tier, case = order.tier, hold(bundles, order.model, scratch)
    ours = order.service == "halfcore"
    label = tier.name if ours else f"{tier.name}-{order.service}"
    command = partial(_halfcore, order, scratch) if ours else partial(_baseline, order, root)
    with ExitStack() as stack:
        started: list[Running] = []
        for number in range(tier.replicas):
            port = free_port()
            replica = running(
                f"{label}-{number}",
                command(case, port),
                port=port,
                limits=tier.limits,
                cpus=cpus,
                ready_timeout_s=_READY_S if ours else _BASELINE_READY_S,
            )
            started.append(stack.enter_context(replica))
        served = Serving(
            addresses=[("127.0.0.1", each.port) for each in started],
            groups=[each.group for each in started],
            pids=[each.process.pid for each in started],
            ended=lambda: next(filter(None, (each.ended("the server") for each in started)), ""),
            manifest=manifest(case.bundle),
        )
        if ours:
            _describe_ours(served, case)
        else:
            served.manifest = labels_only(manifest(case.bundle))
            served.details["service"] = f"baseline, variant {order.service}"
        yield served


def given(target: str) -> Serving:
    """`target=`: a server that runs already. Nothing is known of its limits, and nothing of it is
    ended."""
    parts = urlsplit(target if "//" in target else f"//{target}")
    return Serving(
        addresses=[(str(parts.hostname), int(parts.port or 0))],
        details={"server": "given with target=: its limits were not set"},
    )


def hold(bundles: Path, model: str, scratch: Path) -> Case:
    """A model's newest bundle, copied, alone in its folder; raises `BackendFailed`."""
    try:
        return programs.hold(programs.case(bundles, model), scratch / "bundles")
    except CaseError as error:
        raise BackendFailed(str(error)) from None


def manifest(bundle: Path) -> dict[str, Any]:
    """A bundle's manifest."""
    read: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return read


def labels_only(found: dict[str, Any]) -> dict[str, Any]:
    """A manifest as a baseline is held to it: of the golden rows only the label."""
    golden = [{"row": each["row"], "prediction": each["prediction"]} for each in found["golden"]]
    return {**found, "golden": golden}


def _halfcore(order: Asked, scratch: Path, case: Case, port: int) -> Command:
    host = "0.0.0.0" if order.listen else "127.0.0.1"  # noqa: S104  asked for with listen=
    settings = order.tier.environment | {"HALFCORE_HOST": host, "MODEL_NAME": order.model}
    return programs.halfcore(scratch, case.bundle.parent.parent, port, settings)


def _baseline(order: Asked, root: Path, case: Case, port: int) -> Command:
    store, workers = f"sqlite:///{(root / STORE).resolve()}", order.service_workers
    return programs.baseline(root, order.service, case, port, tracking_uri=store, workers=workers)


def _describe_ours(served: Serving, case: Case) -> None:
    served.graph = case.bundle / "model.onnx"
    served.answered = lambda: [_answered(port) for _, port in served.addresses]
    served.details["model_sha256"] = manifest(case.bundle)["onnx"]["sha256"]
    if len(served.addresses) > 1:
        served.details["balancer"] = "none: users take the replicas' addresses in turn"


def _answered(port: int) -> int | None:
    """A replica's right answers so far, by its own metrics; None if it does not report them."""
    with suppress(*NO_ANSWER):
        status, text = get("127.0.0.1", port, "/metrics")
        if status == HTTPStatus.OK:
            return sum(int(float(count)) for count in _COUNTED.findall(text.decode()))
    return None
