"""The counters as a small JSON document, for the server's own page, which shows how they change."""

import time
from typing import Self

import msgspec

from halfcore.metrics.counters import ROWS, SECONDS, STAGES
from halfcore.metrics.exposition import Counts, Snapshot


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers have counted until now, over all models."""

    at: float
    """Unix time."""
    answered: int
    """Predictions answered with 200."""
    refused: int
    """Predictions answered otherwise."""
    bounds: tuple[float, ...]
    """Upper bounds of the buckets of `stages`, seconds; one more bucket is above them."""
    stages: dict[str, list[int]]
    """Stage → requests (infer: batches) in each bucket."""
    batches: int
    rows: float
    """In all batches."""
    queued_rows: int
    """Waiting now."""
    swaps: int
    """Versions that were swapped in since the start."""
    models: dict[str, str]
    """Model → its served version."""
    cpu_seconds: float
    cpu_quota: float | None
    """Cores; None if nothing limits the CPU time."""

    @classmethod
    def of(cls, snapshot: Snapshot, *, cpu_quota: float | None) -> Self:
        """The sums over all models."""
        answered = sum(n for (_, _, what), n in snapshot.requests.items() if what == "200")
        stages = {stage: Counts([0] * (len(SECONDS) + 1), 0.0) for stage in STAGES}
        batches = Counts([0] * (len(ROWS) + 1), 0.0)
        for model in snapshot.models.values():
            batches.add(model.batch_rows)
            for stage, counts in stages.items():
                counts.add(model.stages[stage])
        return cls(
            at=time.time(),
            answered=answered,
            refused=sum(snapshot.requests.values()) - answered,
            bounds=SECONDS,
            stages={stage: counts.counts for stage, counts in stages.items()},
            batches=sum(batches.counts),
            rows=batches.total,
            queued_rows=sum(model.queued_rows for model in snapshot.models.values()),
            swaps=sum(one.swaps.get("swapped", 0) for one in snapshot.following.values()),
            models=dict(sorted(snapshot.loaded, key=snapshot.loaded.__getitem__)),
            cpu_seconds=snapshot.cpu_seconds,
            cpu_quota=cpu_quota,
        )
