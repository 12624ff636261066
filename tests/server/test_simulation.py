"""Batcher, swap and prediction log under schedules drawn from seeds; `just prove-simulation` runs
many more."""

import logging
from collections.abc import Iterator

import pytest

from support.simulated.loop import simulate
from support.simulated.planted import FAILURES, PLANTED, SCENARIOS, first_failure, planted

SCHEDULES = {"batcher": 100, "swap": 25, "spool": 30}
FOUND = {"batcher": (), "swap": (3883,), "spool": ()}
"""Seeds of schedules that broke a promise once: a server ended while a thread made the folder of a
download, which stayed."""


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """The planted failures are logged by the thousand."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("part", SCENARIOS)
def test_no_schedule_breaks_a_promise(part: str) -> None:
    """Whatever the order of callbacks, each row has its own answer, the newest version is served,
    and each logged request is in the table once."""
    assert first_failure(SCENARIOS[part], [*range(SCHEDULES[part]), *FOUND[part]]) is None


@pytest.mark.parametrize(
    "name", ["two runs at a time", "a store without its lock", "new rows before spooled ones"]
)
def test_a_planted_error_is_found_and_its_seed_replays_it(name: str) -> None:
    """One error of each part; the same seed fails again in the same way, and passes without it."""
    error = PLANTED[name]
    scenario = SCENARIOS[error.part]
    with planted(error):
        found = first_failure(scenario, range(400))
        assert found is not None
        seed, how = found
        with pytest.raises(FAILURES) as again:
            simulate(seed, scenario)
    assert how == f"{again.type.__name__}: {again.value}"
    assert simulate(seed, scenario) == simulate(seed, scenario)
