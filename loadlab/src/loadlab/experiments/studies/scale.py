"""Horizontal against vertical: the same CPU and memory in all, as one replica or as several behind
HAProxy."""

from collections.abc import Mapping

from loadlab.experiments.studies.cells import cell
from loadlab.experiments.studies.form import Cell
from loadlab.target.tiers import Tier

_MIB = 1 << 20
SHAPES = (
    (0.5, 512, 1, 0.5, "none"),
    (0.5, 512, 1, 0.5, "http"),
    (0.5, 512, 2, 0.25, "http"),
    (0.5, 512, 3, 0.167, "http"),
    (1.0, 1024, 1, 1.0, "none"),
    (1.0, 1024, 1, 1.0, "http"),
    (1.0, 1024, 2, 0.5, "http"),
)
"""CPU in all, MiB in all, replicas, CPU of each, balancer. One replica needs none; behind one it
shows what the balancer alone costs."""


def cells(words: Mapping[str, str]) -> list[Cell]:
    """Every shape for Halfcore; `words` are those of a load run."""
    return [
        cell(
            key(total, replicas, balancer),
            Tier(
                name=key(total, replicas, balancer),
                cpus=cpus,
                memory_bytes=memory * _MIB // replicas,
                replicas=replicas,
            ),
            {**words, "balancer": balancer},
        )
        for total, memory, replicas, cpus, balancer in SHAPES
    ]


def key(total: float, replicas: int, balancer: str) -> str:
    """Of a cell: total-of-replicas, and whether they have a balancer."""
    return f"{total:g}-as-{replicas}{'' if balancer == 'none' else '-balanced'}".replace(".", "_")


def of_total(total: float) -> list[tuple[float, int, str]]:
    """The shapes of a total, as `key` takes them."""
    return [
        (whole, replicas, balancer) for whole, _, replicas, _, balancer in SHAPES if whole == total
    ]


def totals() -> list[float]:
    """The equal totals."""
    return list(dict.fromkeys(total for total, *_ in SHAPES))
