"""What all followers of a process share."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from halfcore.bundle_signature import Signers
from halfcore.models.loading import Limits
from halfcore.registry.client import Client
from halfcore.registry.sandbox import Sandbox
from halfcore.registry.store import Store


@dataclass(frozen=True)
class Resources:
    """What all followers of a process share.

    Attributes:
        client: calls the registry.
        store: bundles on disk.
        sandbox: tries bundles.
        limits: how models batch, and their bounds.
        inference: the executor of one thread for batches.
        threads: runs everything that blocks; has at least one thread per follower.
        period_s: seconds between polls.
        most_bytes: largest model file.
        download_timeout_s: seconds for one file.
        workspace: the MLflow workspace that is followed; empty: the default one.
        signers: one of them must have signed each bundle; None: nobody needs to.
        refuse_rollback: refuse a bundle that was made before the served one.
        turn: held while a bundle is tried or loaded. Of many followed models one does so at a time:
            a sandbox takes 100 MB, and all of them together more than most limits.
    """

    client: Client
    store: Store
    sandbox: Sandbox
    limits: Limits
    inference: Executor
    threads: ThreadPoolExecutor
    period_s: float
    most_bytes: int
    download_timeout_s: float
    workspace: str
    signers: Signers | None = None
    refuse_rollback: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function that blocks, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *args)
