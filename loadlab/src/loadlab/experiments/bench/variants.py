"""The ablation: one setting changed at a time. To try another, add a line to VARIANTS and, if it
shall be judged, one to QUESTIONS."""

from dataclasses import dataclass

from loadlab.experiments.bench.subjects import Subject, halfcore
from loadlab.record.store import Regime

HEAVY = "cover-heavy"
MODELS = ("cover-small", "cover-middle", HEAVY)
"""Tiny, middle and heavy."""


@dataclass(frozen=True)
class Variant:
    """Our server with other settings than its defaults."""

    environment: dict[str, str]
    regimes: tuple[Regime, ...]
    """Where the difference can show: below one core of quota, or at saturation."""


_BOTH: tuple[Regime, ...] = ("saturated", "sparse")

VARIANTS: dict[str, Variant] = {
    "default": Variant({}, _BOTH),
    "batching off": Variant({"HALFCORE_MAX_BATCH_SIZE": "1"}, ("saturated",)),
    "linger 2 ms": Variant({"HALFCORE_MAX_QUEUE_DELAY_MS": "2"}, _BOTH),
    "inline": Variant({"HALFCORE_INLINE_BUDGET_MS": "1000"}, ("saturated",)),
    "thread": Variant({"HALFCORE_INLINE_BUDGET_MS": "0"}, ("saturated",)),
    "not pinned": Variant({"HALFCORE_PIN_CPU": "off"}, ("sparse",)),
    "no SCHED_BATCH": Variant({"HALFCORE_BATCH_SCHEDULING": "off"}, ("sparse",)),
    "neither": Variant(
        {"HALFCORE_PIN_CPU": "off", "HALFCORE_BATCH_SCHEDULING": "off"}, ("sparse",)
    ),
    "no gathering": Variant({"HALFCORE_COALESCE": "off"}, ("sparse",)),
    "asyncio": Variant({"HALFCORE_LOOP": "asyncio"}, _BOTH),
    "ASGI": Variant({"HALFCORE_HOT_LANE": "false"}, _BOTH),
}


@dataclass(frozen=True)
class Question:
    """Two variants that differ in one thing, and the default that the difference justifies or does
    not."""

    setting: str
    chosen: str
    other: str
    regime: Regime


QUESTIONS = (
    Question("Batching by the event loop's turn", "default", "batching off", "saturated"),
    Question("Not waiting for more requests", "default", "linger 2 ms", "saturated"),
    Question("Not waiting for more requests", "default", "linger 2 ms", "sparse"),
    Question(
        "Inference on the event loop where the budget allows", "inline", "thread", "saturated"
    ),
    Question("One CPU per worker below one core", "default", "not pinned", "sparse"),
    Question("SCHED_BATCH below one core", "default", "no SCHED_BATCH", "sparse"),
    Question("One CPU and SCHED_BATCH together", "default", "neither", "sparse"),
    Question("Gathering while CPU time is short", "default", "no gathering", "sparse"),
    Question("uvloop", "default", "asyncio", "saturated"),
    Question("uvloop", "default", "asyncio", "sparse"),
    Question("The hot lane over RSGI", "default", "ASGI", "saturated"),
    Question("The hot lane over RSGI", "default", "ASGI", "sparse"),
)


def subjects() -> dict[str, Subject]:
    """The variants as servers to measure."""
    return {
        name: halfcore(name, f"halfcore, {name}", variant.environment)
        for name, variant in VARIANTS.items()
    }
