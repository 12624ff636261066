"""From command-line arguments to the order of a run."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from loadlab.experiments.bench import ladder as steps
from loadlab.experiments.bench import variants
from loadlab.experiments.bench.session import Order, Refused, Task
from loadlab.experiments.bench.subjects import SUBJECTS, Subject
from loadlab.record.limits import Limits
from loadlab.record.store import REGIMES, Load, Regime, Round

_QUICK_SPARSE = ("a", "b")
"""A smoke test starts few servers under a quota: they start slowly there."""


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The arguments of `loadlab bench`."""
    parser.add_argument(
        "--servers", type=_list, default=list(SUBJECTS), help=f"of {', '.join(SUBJECTS)}"
    )
    parser.add_argument(
        "--models",
        type=_list,
        default=["iris", "cover-middle"],
        help="saturated: names of bundles (default: %(default)s)",
    )
    parser.add_argument(
        "--sparse-models",
        type=_list,
        default=["iris"],
        help="sparse: names of bundles (default: %(default)s)",
    )
    parser.add_argument(
        "--sparse-all",
        action="store_true",
        help="sparse: also the servers that are left out (b2, e)",
    )
    _add_common(parser)


def add_ablate(parser: argparse.ArgumentParser) -> None:
    """The arguments of `loadlab ablate`."""
    parser.add_argument(
        "--variants",
        type=_list,
        default=list(variants.VARIANTS),
        help=f"of {', '.join(variants.VARIANTS)}",
    )
    parser.add_argument(
        "--models",
        type=_list,
        default=list(variants.MODELS),
        help="saturated: names of bundles (default: %(default)s)",
    )
    parser.add_argument(
        "--sparse-models",
        type=_list,
        default=["cover-small"],
        help="sparse: names of bundles (default: %(default)s)",
    )
    _add_common(parser)


def add_ladder(parser: argparse.ArgumentParser) -> None:
    """The arguments of `loadlab ladder`."""
    known = ", ".join(steps.STEPS)
    parser.add_argument(
        "--steps", type=_list, default=list(steps.STEPS), help=f"of {known} (default: all)"
    )
    parser.add_argument(
        "--models",
        type=_list,
        default=["cover-small"],
        help="names of bundles (default: %(default)s)",
    )
    _add_common(parser, regimes=["saturated"], seconds=4.0)


def ladder(asked: argparse.Namespace, root: Path) -> Order:
    """From the first step to our server, one change at a time; raises `Refused` for an unknown
    name."""
    chosen = _choose(steps.STEPS, asked.steps)
    return _order("ladder", asked, root, _tasks(chosen, asked, _load(asked, "saturated")), [])


def bench(asked: argparse.Namespace, root: Path) -> Order:
    """All servers against each other; raises `Refused` for an unknown name."""
    chosen = _choose(SUBJECTS, asked.servers)
    tasks = [
        task for regime in asked.regimes for task in _tasks(chosen, asked, _load(asked, regime))
    ]
    kept = [task for task in tasks if _is_wanted(task, sparse_all=asked.sparse_all)]
    left_out = [
        _left_out(task) for task in tasks if task not in kept and task.load.regime == "sparse"
    ]
    if asked.quick:
        kept = [
            task
            for task in kept
            if task.load.regime == "saturated" or task.subject.key in _QUICK_SPARSE
        ]
    return _order("bench", asked, root, kept, left_out)


def _is_wanted(task: Task, *, sparse_all: bool) -> bool:
    regime = task.load.regime
    return regime in task.subject.regimes or (sparse_all and regime == "sparse")


def ablate(asked: argparse.Namespace, root: Path) -> Order:
    """Our server under one changed setting after another; raises `Refused` for an unknown name."""
    chosen = _choose(variants.subjects(), asked.variants)
    # A row that is asked again and again leaves its way through a large forest in the cache, and
    # batching nothing to gain.
    loads = [
        replace(_load(asked, regime), rows="golden")
        if regime == "saturated"
        else _load(asked, regime)
        for regime in asked.regimes
    ]
    tasks = [task for load in loads for task in _tasks(chosen, asked, load)]
    return _order(
        "ablate",
        asked,
        root,
        [task for task in tasks if task.load.regime in variants.VARIANTS[task.subject.key].regimes],
        [],
    )


def _add_common(
    parser: argparse.ArgumentParser, *, regimes: Sequence[Regime] = REGIMES, seconds: float = 10.0
) -> None:
    parser.add_argument("--regimes", type=_list, default=list(regimes), help="of %(default)s")
    _add_rounds(parser)
    _add_saturated(parser, seconds)
    _add_sparse_load(parser)
    _add_sparse_limits(parser)
    _add_conditions(parser)
    _add_paths(parser)


def _add_rounds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="how often each is measured, each time in another order (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="seed of the orders and the think times (default: %(default)s)",
    )


def _add_saturated(parser: argparse.ArgumentParser, seconds: float) -> None:
    parser.add_argument(
        "--seconds",
        type=float,
        default=seconds,
        help="saturated: measured per round (default: %(default)s)",
    )
    parser.add_argument(
        "--connections",
        type=int,
        default=64,
        help="saturated: open connections (default: %(default)s)",
    )


def _add_sparse_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sparse-seconds",
        type=float,
        default=30.0,
        help="sparse: measured per round (default: %(default)s)",
    )
    parser.add_argument(
        "--sparse-connections",
        type=int,
        default=10_000,
        help="sparse: open connections (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=500.0,
        help="sparse: connections opened per second (default: %(default)s)",
    )
    parser.add_argument(
        "--think",
        type=_think,
        default=(4.0, 9.0),
        help="sparse: think time in seconds, LOW-HIGH (default: 4-9)",
    )


def _add_sparse_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cpus",
        type=float,
        default=0.5,
        help="sparse: the server's CPU quota in cores (default: %(default)s)",
    )
    parser.add_argument(
        "--memory-mb",
        type=float,
        help="sparse: the server's memory limit in MB of 1e6 bytes (default: none)",
    )
    parser.add_argument(
        "--sparse-server-cpus",
        default="",
        help="sparse: CPUs that the server may use (default: all)",
    )


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a smoke test of under a minute: few users, one round; its figures mean nothing",
    )
    parser.add_argument(
        "--despite-noise",
        action="store_true",
        help="measure although other processes use the machine; the stored run says so",
    )


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundles",
        type=Path,
        default=Path(".halfcore/bundles"),
        help="folder of the bundles (default: %(default)s)",
    )
    parser.add_argument(
        "--tracking-uri", help="MLflow's registry (default: the one in the checkout's .halfcore)"
    )
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("docs/runs"),
        help="where runs are stored (default: %(default)s)",
    )


def _load(asked: argparse.Namespace, regime: Regime) -> Load:
    return _saturated(asked) if regime == "saturated" else _sparse(asked)


def _saturated(asked: argparse.Namespace) -> Load:
    seconds, warmup_s, connections = (
        (1.0, 0.3, 16) if asked.quick else (asked.seconds, 2.0, asked.connections)
    )
    return Load(
        regime="saturated",
        connections=connections,
        seconds=seconds,
        warmup_s=warmup_s,
        timeout_s=30.0,
        limits=Limits(),
        server_cpus="0",
    )


def _sparse(asked: argparse.Namespace) -> Load:
    memory_bytes = round(asked.memory_mb * 1e6) if asked.memory_mb else None
    seconds, warmup_s, connections, think_s = (
        (1.5, 0.3, 200, (0.2, 0.5))
        if asked.quick
        else (asked.sparse_seconds, asked.think[1], asked.sparse_connections, asked.think)
    )
    return Load(
        regime="sparse",
        connections=connections,
        seconds=seconds,
        warmup_s=warmup_s,
        timeout_s=10.0,
        limits=Limits(cpus=asked.cpus, memory_bytes=memory_bytes),
        server_cpus=asked.sparse_server_cpus,
        rate=asked.rate,
        think_s=think_s,
    )


def _tasks(chosen: Iterable[Subject], asked: argparse.Namespace, load: Load) -> list[Task]:
    models = asked.models if load.regime == "saturated" else asked.sparse_models
    return [
        Task(subject, model, load)
        for model in (models[:1] if asked.quick else models)
        for subject in chosen
    ]


def _order(
    what: Literal["bench", "ablate", "ladder"],
    asked: argparse.Namespace,
    root: Path,
    tasks: Sequence[Task],
    left_out: Sequence[Round],
) -> Order:
    if not tasks:
        raise Refused("nothing to measure: no server, model and regime fit together")
    return Order(
        what=what,
        root=root,
        bundles=asked.bundles.resolve(),
        tracking_uri=asked.tracking_uri or f"sqlite:///{(root / '.halfcore/mlflow.db').resolve()}",
        tasks=tasks,
        left_out=left_out,
        rounds=1 if asked.quick else asked.rounds,
        seed=asked.seed,
        quick=asked.quick,
        despite_noise=asked.despite_noise,
    )


def _left_out(task: Task) -> Round:
    reason = f"not run: {task.subject.left_out} (--sparse-all runs it)"
    return Round(
        server=task.subject.key,
        model=task.model,
        regime=task.load.regime,
        number=0,
        environment={},
        figures=None,
        reason=reason,
    )


def _choose(known: dict[str, Subject], names: Sequence[str]) -> list[Subject]:
    if unknown := [name for name in names if name not in known]:
        raise Refused(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _think(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)
