"""The followers of one process, for whoever asks after them; empty, and without an import of the HTTP client, if nothing is followed."""

import asyncio
from typing import TYPE_CHECKING, Any

from halfcore.registry.status import Status

if TYPE_CHECKING:
    from halfcore.registry.follow import Follower, Means


class Following:
    """Starts, stops and asks followers."""

    def __init__(self) -> None:
        self.followers: list[Follower] = []
        self._means: Means | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def use(self, means: "Means") -> None:
        """Take the means that the followers share, to end them with the last follower."""
        self._means = means

    def add(self, follower: "Follower") -> None:
        """Take a follower, before the start."""
        self.followers.append(follower)

    def start(self) -> None:
        """Begin to poll."""
        self._tasks = [asyncio.create_task(follower.run()) for follower in self.followers]

    async def stop(self) -> None:
        """Poll no more; a fetch or a trial in progress is broken off, and leaves nothing behind."""
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
        """Have all of them poll now."""
        for follower in self.followers:
            follower.hint()

    async def reload(self, name: str) -> dict[str, Any]:
        """Have a model's followers poll now and try again what was refused; return each role's outcome."""
        return {follower.followed.role: await follower.reload() for follower in self.of(name)}
