"""docs/loadlab.md, loadlab/README.md and the parts of other pages that say how to measure, as their
readers live them."""

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.bundles import write_bundle
from support.serving import free_port
from support.walks.walker import Running, Walker, changed, walks

pytestmark = [pytest.mark.xdist_group("lab"), pytest.mark.slow]
FOUR = [
    {"name": f"x{index}", "kind": "number", "nullable": False, "example": 1.0} for index in range(4)
]


@pytest.fixture
def stored(checkout: Path) -> Iterator[Path]:
    """A run in the history, as `just load` leaves it: the newest one that is kept in docs/runs,
    taken from there."""
    kept = max((checkout / "docs/runs").glob("*/run.json")).parent
    folder = checkout / ".halfcore/loads" / kept.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(kept, folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def serving(walker: Walker, tmp_path: Path) -> Iterator[Running]:
    """A server of a model of four numbers, started by the command of server/README.md's form."""
    write_bundle(tmp_path / "bundles", "iris", inputs=FOUR)
    walker.values["bundles"] = str(tmp_path / "bundles")
    with walker.start(walker.find("halfcore serve")) as server:
        server.ready()
        yield server
        server.end()


@walks("just load-doctor", "loadlab doctor")
def test_the_doctor_says_what_the_machine_can_carry(walker: Walker) -> None:
    """Each line of its table; what is missing, too, is no failure."""
    for command in walker.commands:
        shown = walker.run(command).out + walker.run(command).said
        for line in (
            "cores",
            "backend cgroup",
            "backend compose",
            "models",
            "open files",
            "ports",
            "quiet",
        ):
            assert line in shown, command


@walks("just load-history", "loadlab history", "just load-report *", "loadlab report RUN")
def test_stored_runs_are_listed_and_reported(walker: Walker, stored: Path) -> None:
    """By id, by `latest` and by folder: a table, a page and Markdown; the tree that is checked out
    stays as it is."""
    verdict = json.loads((stored / "verdict.json").read_text())["outcome"]
    before = changed(walker.folder)
    for command in walker.commands:
        if "history" in command.text:
            shown = walker.run(command).out
            assert stored.name in shown
            assert verdict in shown
            continue
        given = re.search(r"RUN$|latest$|docs/runs/NAME$", command.text)
        assert given
        run = {
            "RUN": stored.name,
            "latest": "latest",
            "docs/runs/NAME": f"docs/runs/{stored.name}",
        }[given[0]]
        folder = walker.folder / run if "/" in run else stored
        for name in ("report.html", "report.md"):
            (folder / name).unlink(missing_ok=True)
        assert verdict in walker.run(command, run=run).out
        assert (folder / "report.html").stat().st_size > 10_000
        assert (folder / "report.md").exists()
    assert changed(walker.folder) == before


@walks("just load-keep RUN")
def test_a_run_is_kept_and_written_into_the_pages(walker: Walker, stored: Path) -> None:
    """The pages are written anew with it, and everything stands as it is checked in."""
    kept = walker.folder / "docs/runs" / stored.name
    benchmarks = walker.folder / "docs/benchmarks.md"
    before = changed(walker.folder)
    shutil.rmtree(kept)
    benchmarks.unlink()
    walker.run(walker.find("just load-keep RUN"), run=stored.name)
    assert stored.name in benchmarks.read_text()
    assert (kept / "run.json").read_bytes() == (stored / "run.json").read_bytes()
    assert changed(walker.folder) == before


@walks("just prove-batcher")
def test_the_batcher_is_proven(walker: Walker) -> None:
    """Nothing misrouted, nothing lost."""
    shown = walker.run(walker.commands[0]).out
    assert "0 misrouted, 0 lost, 0 duplicated" in shown
    assert "\nproven\nbatcher: passed; " in shown


@walks("uv run locust -f loadlab/locustfile.py *", "halfcore serve")
def test_locust_drives_users_from_its_page(walker: Walker, serving: Running) -> None:
    """Its page answers where the comment says; started there, the users' requests are answered."""
    port = free_port()
    with walker.start(walker.find("uv run locust*"), web_port=str(port)) as locust:
        drive(locust, port, walker.port)
        locust.end(signal.SIGINT)


@walks("just load-master --host *", "just load-worker *", "halfcore serve")
def test_locust_runs_on_several_machines(walker: Walker, serving: Running) -> None:
    """A worker finds its master, and its users' requests are answered."""
    port, master_port = free_port(), free_port()
    more = f"--master-bind-port {master_port}"
    with (
        walker.start(walker.find("just load-master*"), web_port=str(port), more=more) as master,
        walker.start(walker.find("just load-worker*"), master_port=str(master_port)) as worker,
    ):
        master.prints("1 workers connected")
        drive(master, port, walker.port)
        worker.end(signal.SIGINT)
        master.end()


def drive(locust: Running, port: int, server: int) -> None:
    """Press start on Locust's page with a host that cannot be asked, with a model that has no rows,
    and with one that the server does not have: every request fails with the reason. Then with what
    is right, and wait for answers without a failure."""
    page = f"http://127.0.0.1:{port}"
    locust.until(lambda: locust.http.get(page).status_code == 200, "showing its page")

    def start(host: str, model: str = "iris") -> None:
        form = {"user_count": 20, "spawn_rate": 20, "host": host, "model": model}
        started = locust.http.post(f"{page}/swarm", data=form).json()
        assert started["success"], started

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = locust.http.get(f"{page}/stats/requests").json()
        return found

    def fails(says: str, host: str, model: str = "iris") -> None:
        start(host, model)
        locust.until(
            lambda: any(says in error["error"] for error in shown()["errors"]),
            f"counting failures: {says}",
        )
        locust.http.post(f"{page}/stop")
        locust.until(lambda: shown()["state"] == "stopped", "stopping its users")

    fails("host 'https://127.0.0.1:8000', expected http://NAME:PORT", "https://127.0.0.1:8000")
    fails("there are no rows for model=nothing", f"http://127.0.0.1:{server}", "nothing")
    fails(
        'status 404, expected 200; the first such answer: {"type":"about:blank"',
        f"http://127.0.0.1:{server}",
        "penguins",
    )

    def counted() -> dict[str, Any]:
        found: dict[str, Any] = shown()["stats"][-1]
        return found if found["num_requests"] >= 20 else {}

    def answered() -> bool:
        """What the users who were stopped did last may still be counted in the next start."""
        start(f"http://127.0.0.1:{server}")
        total = locust.until(counted, "counting requests")
        if not (right := total["num_failures"] == 0):
            locust.http.post(f"{page}/stop")
            locust.until(lambda: shown()["state"] == "stopped", "stopping its users again")
        return right

    locust.until(answered, "answering without a failure")
