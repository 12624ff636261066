"""Plain processes, each replica in a control group with the tier's limits."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from loadlab.experiments.bench import cases
from loadlab.experiments.bench.subjects import clean_environment
from loadlab.generator.http import ask
from loadlab.target.process import Command, Running, free_port, running
from loadlab.target.serving import BackendFailed, Serving
from loadlab.target.tiers import Tier

_READY = "/health/ready"
_COUNTED = re.compile(r'^halfcore_requests_total\{[^}]*outcome="200"[^}]*\} (\S+)$', re.MULTILINE)
_ASK_S = 5.0


@contextmanager
def serving(
    tier: Tier, model: str, *, bundles: Path, scratch: Path, cpus: str
) -> Iterator[Serving]:
    """Start every replica of a tier on loopback; all end with this context.

    Several replicas have no balancer here: users take their addresses in turn. `balanced`
    puts one before them.

    Args:
        tier: limits, replicas, environment.
        model: name of a bundle in `bundles`.
        bundles: as the exporter wrote them.
        scratch: of this run; takes a copy of the bundle, so that other models' memory is not part
            of the measurement.
        cpus: CPUs that the server is held to, as `taskset` takes them; empty: all.

    Raises:
        BackendFailed: no such bundle.
        process.CannotStart: the server is not ready in its limits.
        cgroup.Unavailable: no control groups here.
    """
    bundle = hold(bundles, model, scratch)
    with ExitStack() as stack:
        started: list[Running] = []
        for number in range(tier.replicas):
            port = free_port()
            command = _command(tier, bundle.parent.parent, model, port, scratch)
            started.append(
                stack.enter_context(
                    running(
                        f"{tier.name}-{number}", command, port=port, limits=tier.limits, cpus=cpus
                    )
                )
            )
        details = (
            {"balancer": "none: users take the replicas' addresses in turn"}
            if tier.replicas > 1
            else {}
        )
        yield Serving(
            addresses=[("127.0.0.1", each.port) for each in started],
            groups=[each.group for each in started],
            pids=[each.process.pid for each in started],
            ended=lambda: words_of_ended(started),
            answered=lambda: [answered(each.port) for each in started],
            manifest=manifest(bundle),
            graph=bundle / "model.onnx",
            details={**details, "model_sha256": manifest(bundle)["onnx"]["sha256"]},
        )


def answered(port: int) -> int | None:
    """A replica's right answers so far, by its own metrics; None if it does not report them."""
    request = (
        f"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode()
    )
    with suppress(OSError, ValueError):
        status, text = ask("127.0.0.1", port, request, timeout_s=_ASK_S)
        if status == HTTPStatus.OK:
            return sum(int(float(count)) for count in _COUNTED.findall(text.decode()))
    return None


def manifest(bundle: Path) -> dict[str, Any]:
    """A bundle's manifest."""
    read: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return read


def hold(bundles: Path, model: str, scratch: Path) -> Path:
    """A copy of a model's newest bundle, alone in its folder; raises `BackendFailed`."""
    try:
        return cases.hold(cases.case(bundles, model), scratch / "bundles").bundle
    except cases.CaseError as error:
        raise BackendFailed(str(error)) from None


def _command(tier: Tier, bundles: Path, model: str, port: int, folder: Path) -> Command:
    ours = {
        "HALFCORE_BUNDLES": str(bundles),
        "HALFCORE_PORT": str(port),
        "HALFCORE_HOST": "127.0.0.1",
        "MODEL_NAME": model,
    }
    return Command(
        [sys.executable, "-m", "halfcore", "serve"],
        clean_environment() | tier.environment | ours,
        folder,
        _READY,
    )


def words_of_ended(started: list[Running]) -> str:
    """Why a replica is no more, or nothing."""
    for each in started:
        if each.process.poll() is not None:
            return f"the server ended with {each.process.returncode}: {each.last_words()}"
    return ""
