"""Locust's master and workers as processes of this machine."""

from collections.abc import Sequence
from pathlib import Path

from loadlab.generator.plan import Load
from loadlab.generator.process import Part, load_file, python, steer_file, ticks_file
from loadlab.target.process import free_port

LOCUSTFILE = Path("loadlab/locustfile.py")
WEB_PORT = 8089


def parts(
    root: Path,
    folder: Path,
    load: Load,
    *,
    user: str,
    cpus: Sequence[frozenset[int]],
    others: frozenset[int],
    web: bool,
) -> list[Part]:
    """Master and one worker for each set of CPUs.

    Args:
        root: the checkout.
        folder: of the generator's files.
        load: what it will carry out.
        user: kind of the user class.
        cpus: for each worker the CPUs that it is held to.
        others: CPUs for the master, which has little to do.
        web: show Locust's page.
    """
    port = str(free_port())
    locust = [python(), "-m", "locust", "-f", str(root / LOCUSTFILE), "--loglevel", "WARNING"]
    locust += ["--user", user]
    master = [*locust, *_master_options(port, load, len(cpus), web=web), *_file_options(folder)]
    worker = [*locust, "--worker", "--master-host", "127.0.0.1", "--master-port", port]
    workers = [
        Part(f"worker-{number}", "generator", worker, held) for number, held in enumerate(cpus, 1)
    ]
    return [Part("master", "lab", master, others, nice=5), *workers]


def _master_options(port: str, load: Load, workers: int, *, web: bool) -> list[str]:
    """Where the master listens, how many users it starts, and whether it shows its page."""
    listen = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    listen += ["--expect-workers", str(workers)]
    size = ["--users", str(load.users), "--spawn-rate", f"{load.rate:g}", "--stop-timeout", "5"]
    page = (
        ["--web-host", "127.0.0.1", "--web-port", str(WEB_PORT), "--autostart"]
        if web
        else ["--headless", "--only-summary"]
    )
    return [*listen, *size, *page]


def _file_options(folder: Path) -> list[str]:
    """The files through which the lab and the generator exchange load, ticks and orders."""
    load, ticks, steer = load_file(folder), ticks_file(folder), steer_file(folder)
    return ["--load", str(load), "--ticks", str(ticks), "--steer", str(steer)]
