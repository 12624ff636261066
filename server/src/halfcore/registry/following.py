"""The followers of one process, for whoever asks after them; empty, and without an import of the HTTP client, if nothing is followed."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfcore.registry.siblings import Siblings
from halfcore.registry.status import Status

if TYPE_CHECKING:
    from halfcore.registry.follow import Follower, Means


class Following:
    """Starts, stops and asks followers.

    Args:
        shared: the directory that this server's workers share: what one of them is asked to do, all do.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._siblings = Siblings(shared)
        self.followers: list[Follower] = []
        self._means: Means | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    def use(self, means: "Means") -> None:
        """Take the means that the followers share, to end them with the last follower."""
        self._means = means

    def add(self, follower: "Follower") -> None:
        """Take a follower, before the start."""
        self.followers.append(follower)

    def start(self) -> None:
        """Begin to poll."""
        self._tasks = [asyncio.create_task(follower.run()) for follower in self.followers]
        if self.followers:
            self._siblings.start(self._told)

    async def stop(self) -> None:
        """Poll no more; a fetch or a trial in progress is broken off, and leaves nothing behind."""
        self._siblings.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for follower in self.followers:
            await follower.close()
        if self._means is not None:
            await self._means.client.close()
            self._means.threads.shutdown()

    def of(self, name: str) -> "list[Follower]":
        """The followers of a model, one per role."""
        return [follower for follower in self.followers if follower.followed.name == name]

    def statuses(self, name: str) -> list[Status]:
        """What they tell."""
        return [follower.status for follower in self.of(name)]

    def hint(self) -> None:
        """Have all of them poll now, here and in the other workers."""
        self._siblings.tell("")
        self._hint()

    async def reload(self, name: str) -> dict[str, Any]:
        """Have a model's followers poll now and try again what was refused, here and elsewhere; return each role's outcome here."""
        self._siblings.tell(name)
        return await self._reload(name)

    def _told(self, name: str) -> None:
        """Another worker was asked to reload a model; or was hinted at something, without a name."""
        if not name:
            self._hint()
            return
        task = asyncio.create_task(self._reload(name))
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    def _hint(self) -> None:
        for follower in self.followers:
            follower.hint()

    async def _reload(self, name: str) -> dict[str, Any]:
        return {follower.followed.role: await follower.reload() for follower in self.of(name)}
