"""What the lab starts as plain processes: halfcore, the null server and the baselines as commands
for one port, the model with one request that they are asked, and the replicas of a run, each in a
control group with the tier's limits; and a server that the lab did not start."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadlab.bundles import newest, of_model, read_manifest, unread
from loadlab.target.process import NO_ANSWER, Command, Running, free_port, get, running
from loadlab.target.serving import Asked, BackendFailed, Serving
from loadlab.words import UsageError

STORE = Path(".halfcore/mlflow.db")
BASELINE = Path("loadlab/baseline")
BASELINE_PACKAGES = [
    "fastapi",
    "lightgbm",
    "mlflow",
    "numpy",
    "onnxruntime",
    "pandas",
    "pydantic",
    "scikit-learn",
    "sqlalchemy",
    "uvicorn",
]
_OURS = ("HALFCORE_", "MODEL_", "MLFLOW_", "DATABASE_URL")
"""Variables of the caller that would change a server."""
_READY_S, _BASELINE_READY_S = 60.0, 180.0
"""Importing MLflow and pandas takes seconds of CPU time: in a tenth of a core they are ten times as
many."""
_CONNECT_S = 5.0
_COUNTED = re.compile(r'^halfcore_requests_total\{[^}]*outcome="200"[^}]*\} (\S+)$', re.MULTILINE)


class CaseError(BackendFailed):
    """There is no such bundle; the message says how to make it."""


@dataclass(frozen=True)
class Case:
    """One model and one request for it: a real row, from the bundle's golden rows."""

    model: str
    bundle: Path
    """Directory with model.onnx and manifest.json."""
    body: str
    """The request's body, JSON."""
    prefix: str
    """How the body of a right answer begins: with the registered model's own label."""
    others: tuple[tuple[str, str], ...] = ()
    """The same of the bundle's other golden rows."""


def case(bundles: Path, model: str) -> Case:
    """The newest bundle of a model and its first golden row; raises `CaseError`."""
    folders = of_model(bundles, model)
    if not folders:
        raise CaseError(
            f"no bundle of {model} in {bundles}: `just export models:/{model}@ALIAS` makes it, or "
            f"of an example `just examples {model}`"
        )
    found, bundle = newest(folders)
    first, *others = [_question(golden, found) for golden in found["golden"]]
    return Case(model, bundle, *first, tuple(others))


def labels_only(found: dict[str, Any]) -> dict[str, Any]:
    """A manifest as a baseline is held to it: of the golden rows only the label."""
    golden = [{"row": each["row"], "prediction": each["prediction"]} for each in found["golden"]]
    return {**found, "golden": golden}


def hold(held: Case, folder: Path) -> Case:
    """The case with a copy of its bundle, alone in `folder`/MODEL: what is exported during a run
    changes nothing, and the memory of other models is not part of the measurement."""
    copy = folder / held.model / held.model / held.bundle.name
    shutil.copytree(held.bundle, copy)
    return replace(held, bundle=copy)


def clean_environment() -> dict[str, str]:
    """The caller's environment without what configures one of the servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


def halfcore(folder: Path, bundles: Path, port: int, settings: Mapping[str, str]) -> Command:
    """Our server with some settings, in a working folder."""
    where = {"HALFCORE_BUNDLES": str(bundles), "HALFCORE_PORT": str(port)}
    return Command(
        [sys.executable, "-m", "halfcore", "serve"],
        clean_environment() | where | dict(settings),
        folder,
        "/health/ready",
    )


def null_server(folder: Path, answer: Path, port: int, *flags: str) -> Command:
    """A constant answer, the text of a file; for the flags see `null_server.py`."""
    words = ["loadlab.target.null_server", "--port", str(port), "--answer", str(answer), *flags]
    return Command([sys.executable, "-m", *words], clean_environment(), folder)


def baseline(
    root: Path,
    variant: str,
    served: Case,
    port: int,
    *,
    tracking_uri: str,
    database: str = "",
    workers: int = 1,
) -> Command:
    """A FastAPI service of `loadlab/baseline`; `workers`: 0 as the variant chooses."""
    sources = ["--tracking-uri", tracking_uri, "--database", database]
    model = ["--model", served.model, "--bundle", str(served.bundle)]
    words = ["--port", str(port), "--workers", str(workers), *model, *sources]
    return baseline_program(root, "baseline", variant, *words)


def baseline_program(root: Path, module: str, *words: str) -> Command:
    """A program of the baseline's own environment, which `prepare_baseline` installs."""
    python = str(root / BASELINE / ".venv/bin/python")
    return Command([python, "-m", module, *words], clean_environment(), root / BASELINE, "/health")


def prepare_baseline(root: Path) -> dict[str, str]:
    """Install the baseline as locked, for this very Python; returns its packages' versions; raises
    `subprocess.CalledProcessError`."""
    folder, environment = root / BASELINE, clean_environment()
    environment.pop("VIRTUAL_ENV", None)
    words = ["uv", "sync", "--frozen", "--quiet", "--group", "surroundings"]
    project = ["--project", str(folder), "--python", sys.executable]
    subprocess.run([*words, *project], check=True, env=environment)  # noqa: S603  our own words
    path = [str(site) for site in folder.glob(".venv/lib/*/site-packages")]
    found = {name: distributions(name=name, path=path) for name in BASELINE_PACKAGES}
    return {name: next(iter(each)).version for name, each in found.items()}


@contextmanager
def serving(
    order: Asked, root: Path, *, bundles: Path, scratch: Path, cpus: str
) -> Iterator[Serving]:
    """Start every replica on loopback; all end with this context. Users take their addresses in
    turn, unless a balancer is put before them.

    A baseline's environment must have been installed; its model is from the registry of the
    checkout, `root`. `scratch` takes a copy of the bundle. `cpus` as `running` takes them.

    Raises:
        CaseError: no such bundle.
        process.CannotStart: the server is not ready in its limits.
        cgroup.Unavailable: no control groups here.
    """
    tier, held = order.tier, hold(case(bundles, order.model), scratch / "bundles")
    ours = order.service == "halfcore"
    label = tier.name if ours else f"{tier.name}-{order.service}"
    with ExitStack() as stack:
        started: list[Running] = []
        for number in range(tier.replicas):
            port = free_port()
            replica = running(
                f"{label}-{number}",
                _command(order, root, scratch, held, port),
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
        )
        if ours:
            _describe_ours(served, held.bundle)
        else:
            served.manifest = labels_only(read_manifest(held.bundle))
            served.details["service"] = f"baseline, variant {order.service}"
        yield served


def no_server(target: str) -> str:
    """Why nothing can be asked at `target=`, or nothing."""
    try:
        socket.create_connection(address(target), timeout=_CONNECT_S).close()
    except OSError as error:
        return f"no connection: {error.strerror or error}"
    return ""


def address(target: str) -> tuple[str, int]:
    """Host and port of `target=`, given as host:port or http://host:port; raises `UsageError`."""
    parts = urlsplit(target if "//" in target else f"//{target}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in {"", "http"} or parts.path.strip("/"):
        raise UsageError(
            f"target={target} is invalid: the lab asks /predict over HTTP, expected host:port; for "
            "HTTPS or another path give the address of a proxy that adds them"
        )
    if parts.username is not None or parts.query:
        raise UsageError(f"target={host}:{port} has a user or a query: the lab sends none")
    if not host or not port:
        raise UsageError(f"target={target} is invalid: expected host:port, as 127.0.0.1:8000")
    return host, port


def given(target: str, bundles: Path, model: str) -> Serving:
    """`target=`: a server that runs already. Nothing is known of its limits, and nothing of it is
    ended. It gets the rows of the model's bundle, if there is one, and is not held to its answers:
    it may give them in another form, or be another version."""
    folders = of_model(bundles, model)
    return Serving(
        addresses=[address(target)],
        rows_of=newest(folders)[0] if folders else None,
        details={"server": "given with target=: its limits were not set"},
    )


def _command(order: Asked, root: Path, scratch: Path, held: Case, port: int) -> Command:
    if order.service != "halfcore":
        store, workers = f"sqlite:///{(root / STORE).resolve()}", order.service_workers
        return baseline(root, order.service, held, port, tracking_uri=store, workers=workers)
    host = "0.0.0.0" if order.listen else "127.0.0.1"  # noqa: S104  asked for with listen=
    settings = order.tier.environment | {"HALFCORE_HOST": host, "MODEL_NAME": order.model}
    return halfcore(scratch, held.bundle.parent.parent, port, settings)


def _describe_ours(served: Serving, bundle: Path) -> None:
    served.manifest, served.graph = read_manifest(bundle), bundle / "model.onnx"
    served.answered = lambda: [_answered(port) for _, port in served.addresses]
    served.details["model_sha256"] = served.manifest["onnx"]["sha256"]
    if len(served.addresses) > 1:
        served.details["balancer"] = "none: users take the replicas' addresses in turn"


def _answered(port: int) -> int | None:
    """A replica's right answers so far, by its own metrics; None if it does not report them."""
    with suppress(*NO_ANSWER):
        status, text = get("127.0.0.1", port, "/metrics")
        if status == HTTPStatus.OK:
            return sum(int(float(count)) for count in _COUNTED.findall(text.decode()))
    return None


def _question(golden: dict[str, Any], found: dict[str, Any]) -> tuple[str, str]:
    """The body that asks for a golden row, and how its answer begins."""
    row = golden["row"]
    body = row | unread(found) if found["named"] else {"features": list(row.values())}
    prefix = '{"prediction":' + json.dumps(golden["prediction"])
    return json.dumps(body, separators=(",", ":")), prefix
