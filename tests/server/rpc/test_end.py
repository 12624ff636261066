"""The end of the gRPC server waits for the calls that have arrived."""

import asyncio

import pytest

from halfcore.rpc import server
from halfcore.rpc.service import Accepted


async def test_calls_that_still_arrive_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as each pause, here a turn of the loop, has a new one."""
    monkeypatch.setattr(server, "QUIET_S", 0)
    monkeypatch.setattr(server, "LONGEST_SETTLING_S", 60.0)
    accepted = Accepted()
    settling = asyncio.create_task(server.settle(accepted))
    for _ in range(20):
        accepted.count += 1
        await asyncio.sleep(0)
        assert not settling.done()
    await settling


async def test_calls_without_end_do_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest time limits the wait."""
    monkeypatch.setattr(server, "LONGEST_SETTLING_S", 0.0)
    await server.settle(Accepted())
