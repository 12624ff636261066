"""Starts, reloads and closes the followers of one process together.

Nothing here imports the HTTP client, so a server that follows nothing does not load it.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfcore.registry.peers import Peers
from halfcore.registry.status import Status

if TYPE_CHECKING:
    from halfcore.registry.follower import Follower, Resources


class Followers:
    """All followers of one process.

    Args:
        shared: the directory that this server's workers share, through which one worker passes a
            reload on to the others.
        followers: all of them.
        resources: what they share; closed after them.
    """

    def __init__(
        self,
        shared: Path | None = None,
        followers: "Sequence[Follower]" = (),
        resources: "Resources | None" = None,
    ) -> None:
        self._peers = Peers(shared)
        self._followers = list(followers)
        self._resources = resources
        self._tasks: list[asyncio.Task[Any]] = []

    def __iter__(self) -> "Iterator[Follower]":
        return iter(self._followers)

    def start_from_disk(self) -> None:
        """Serve what each of them served last, if its bundle is whole; called before the server
        accepts requests."""
        for follower in self._followers:
            follower.start_from_disk()

    def start(self, settled: Callable[[str], None]) -> None:
        """Begin to poll.

        Args:
            settled: called with a model's name when its first poll is over, whatever it brought.
        """
        for one in self._followers:
            call = partial(settled, one.followed.name)
            run = one.run(call if one.followed.role == "champion" else lambda: None)
            self._tasks.append(asyncio.create_task(run))
        if self._followers:
            self._peers.start(self._on_message)

    async def close(self) -> None:
        """Stop polling; cancel downloads and sandboxes in progress, which remove their files."""
        self._peers.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for follower in self._followers:
            await follower.close()
        if self._resources is not None:
            await self._resources.client.close()
            self._resources.threads.shutdown()

    def of(self, name: str) -> "list[Follower]":
        """The followers of a model, one per role."""
        return [follower for follower in self._followers if follower.followed.name == name]

    def statuses(self, name: str) -> list[Status]:
        """Their statuses."""
        return [follower.status for follower in self.of(name)]

    def hint(self) -> None:
        """Make all of them poll now, here and in the other workers."""
        self._peers.send("")
        self._hint()

    async def reload(self, name: str) -> dict[str, Any]:
        """Make a model's followers poll now and retry what was refused, here and in the other
        workers; return each role's outcome in this worker."""
        self._peers.send(name)
        return await self._reload(name)

    def _on_message(self, name: str) -> None:
        """Another worker passed a reload of a model on; an empty name makes all followers poll."""
        if not name:
            self._hint()
            return
        task = asyncio.create_task(self._reload(name))
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    def _hint(self) -> None:
        for follower in self._followers:
            follower.hint()

    async def _reload(self, name: str) -> dict[str, Any]:
        return {follower.followed.role: await follower.reload() for follower in self.of(name)}
