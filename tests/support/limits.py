"""Limits of a model that a test loads without a server."""

from halfcore.models.loading import Limits

LIMITS = Limits(
    max_rows=1000,
    max_batch_size=16,
    max_queue_size=100,
    max_queue_delay_s=0.0,
    solo_after_s=0.0,
    queue_timeout_s=5.0,
    queue_target_s=0.0,
    inline_budget_s=1.0,
)
