"""Making a study's cells: an order of a load run for limits that are in no compose file."""

from typing import Any

import msgspec

from loadlab.experiments.studies.form import Cell
from loadlab.generator import scenarios
from loadlab.run import order as arguments
from loadlab.run.order import Order
from loadlab.target.tiers import Tier


def cell(key: str, tier: Tier, words: dict[str, str], **changes: Any) -> Cell:
    """A cell whose order the words of `just load` describe.

    Args:
        key: its name in the study.
        tier: limits and replicas.
        words: of `just load`; empty values are left out.
        changes: fields of the order that have no word.

    Raises:
        UsageError, ScenarioError: as `arguments.parse`.
    """
    given = [f"{name}={value}" for name, value in words.items() if value]
    order = arguments.parse(
        [f"tier={tier.name}", "backend=cgroup", *given], {tier.name: tier}, scenarios.read()
    )
    return Cell(key=key, order=msgspec.structs.replace(order, **changes))


def limits(order: Order) -> str:
    """Limits and replicas in words."""
    tier = order.tier
    return f"{tier.replicas} × {tier.cpus:g} CPU, {tier.memory_bytes / 2**20:,.0f} MiB"
