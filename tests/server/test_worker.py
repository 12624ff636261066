"""The composition of a worker process: whatever fails, the parts that were started before are
closed, the last one first."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halfcore import worker
from halfcore.catalog.follower import Follower as CatalogFollower
from halfcore.challenger.challengers import Challengers
from halfcore.models.served import Models
from halfcore.postgres.database import Database
from halfcore.prediction_log.log import PredictionLog
from halfcore.registry.followers import Followers
from halfcore.settings.groups import Settings
from halfcore.worker import Worker
from support.bundles import write_bundle
from support.serving import free_port

SOURCE = Path(worker.__file__).parent
CLOSED = [
    (Database, "close"),
    (PredictionLog, "close"),
    (Challengers, "close"),
    (Models, "drain"),
    (Followers, "close"),
    (Models, "begin_draining"),
    (CatalogFollower, "stop"),
]
"""How each part is closed, in the order of the start."""
STARTS: dict[str, tuple[Any, str, int]] = {
    "prediction log": (PredictionLog, "start", 1),
    "challengers": (Challengers, "start", 2),
    "loading": (worker, "load_all", 5),
    "feature catalogue": (CatalogFollower, "start", 6),
    "followers": (Followers, "start", 7),
}
"""The start of each part that can fail, and how many of `CLOSED` were started before it."""


class Broken(Exception):
    """A start that fails."""


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was closed, in order; each part is closed in earnest."""
    names: list[str] = []
    for part, method in CLOSED:
        monkeypatch.setattr(
            part, method, noted(names, f"{part.__name__}.{method}", getattr(part, method))
        )
    return names


def noted(names: list[str], name: str, close: Callable[..., Any]) -> Callable[..., Any]:
    """A method that notes its call."""

    def method(self: Any, *args: Any) -> Any:
        names.append(name)
        return close(self, *args)

    return method


def once(names: list[str]) -> list[str]:
    """Each name where it comes last: the prediction log closes a database of its own before the
    worker's."""
    return [name for i, name in enumerate(names) if name not in names[i + 1 :]]


def made(tmp_path: Path) -> Worker:
    """A worker with all parts; its database is away, so what is logged goes to the disk."""
    write_bundle(tmp_path / "bundles")
    return Worker(
        Settings(
            bundles=tmp_path / "bundles",
            database_url=f"postgresql://nobody@127.0.0.1:{free_port()}/none",
            prediction_log=True,
            prediction_log_spool=tmp_path / "spool",
            state=tmp_path / "state",
            log_level="error",
        )
    )


@pytest.mark.parametrize("part", STARTS)
async def test_a_start_that_fails_closes_what_was_started(
    tmp_path: Path, part: str, closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, in reverse, and the failure is the one that is reported."""
    owner, name, started = STARTS[part]

    def fail(*_: Any, **__: Any) -> None:
        raise Broken(part)

    monkeypatch.setattr(owner, name, fail)
    one = made(tmp_path)
    with pytest.raises(Broken, match=part):
        await one._run(one.app).__aenter__()

    expected = [f"{part.__name__}.{method}" for part, method in CLOSED[:started]]
    assert once(closed) == expected[::-1]


async def test_a_failure_while_it_runs_loses_no_logged_prediction(
    tmp_path: Path, closed: list[str]
) -> None:
    """The prediction log is written to the disk, for the database is away."""
    one = made(tmp_path)
    sent: list[int] = []

    async def fail_after_an_answer() -> None:
        async with one._run(one.app):
            one.predictor.begin(
                None, b'{"features":[1,2,3,4]}', None, lambda status, *_: sent.append(status)
            )
            while not sent:
                await one.models.drain()
            raise Broken

    with pytest.raises(Broken):
        await fail_after_an_answer()
    assert sent == [200]
    assert once(closed)[-2:] == ["PredictionLog.close", "Database.close"]
    assert (
        sum(file.stat().st_size for file in (tmp_path / "spool").rglob("*") if file.is_file()) > 0
    )


def test_only_the_worker_builds_parts() -> None:
    """Of the server; a part that another module builds would be closed by nobody."""
    parts = re.compile(
        r"(?<![\w.`\"])(Models|Followers|Challengers|Catalog|PredictionLog|Predictor|BodyReader|Exposition|Front|Coalescer)\("
    )
    builders = {
        f"{file.relative_to(SOURCE)}: {found[1]}"
        for file in SOURCE.rglob("*.py")
        for found in parts.finditer(re.sub(r"class \w+\(?", "", file.read_text()))
    }
    # The admin port's reader of bodies holds nothing that must be closed.
    builders.discard("http/admin_port.py: BodyReader")
    assert {line.partition(":")[0] for line in builders} == {"worker.py"}
