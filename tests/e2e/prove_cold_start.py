"""`just prove-cold-start`: a server that has followed a model starts anew while MLflow and
PostgreSQL refuse, hang or drop everything.

Told is the time from the start of the process to the first 200 of readiness, and to the first right
answer; the exit code tells whether each was within 5 s.
"""

import argparse
import json
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.fake_registry import fake_registry
from support.proof import Check, begin, conclude
from support.serving import Server, free_port, request, serving
from support.versions import BODIES, expected, write_version

MOST_S = 5.0
FOLLOW = "models:/numbers@champion"


@contextmanager
def refusing() -> Iterator[int]:
    """A port that nobody listens on."""
    yield free_port()


@contextmanager
def hanging() -> Iterator[int]:
    """A port that takes connections and bytes, and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        yield listener.getsockname()[1]


@contextmanager
def dropping() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what would connect, as a network does that lost
    the host."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


DOWN = {"refuse": refusing, "hang": hanging, "drop": dropping}


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5, help="of each kind")
    parser.add_argument("--model-mb", type=float, default=16.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return prove(Path(folder), starts=arguments.starts, model_mb=arguments.model_mb)


def prove(folder: Path, *, starts: int, model_mb: float) -> int:
    """Serve once with a registry, then start again and again without."""
    console = Console()
    begun = begin(console)
    with fake_registry() as registry:
        registry.point(
            "numbers", registry.publish(write_version(folder / "exported", 1, megabytes=model_mb))
        )
        with serving(
            folder / "none", store=folder / "store", follow=FOLLOW, tracking_uri=registry.url
        ) as server:
            _answer(server)
    found = {how: [_start(folder, how, number) for number in range(starts)] for how in DOWN}
    checks, figures = [], {}
    for how, times in found.items():
        ready, answered = ([one[place] for one in times] for place in (0, 1))
        figures[how] = {"ready_s": ready, "first_answer_s": answered}
        text = (
            f"median {statistics.median(ready):.2f}, longest {max(ready):.2f} s; first answer "
            f"{max(answered):.2f} s"
        )
        checks.append(
            Check(f"ready while both {how}", text, f"≤ {MOST_S:g} s", max(answered) <= MOST_S)
        )
    title = f"{starts} cold starts of each kind with a {model_mb:g} MB bundle on disk"
    return conclude(begun, "cold-start", title, checks, figures, console=console)


def _start(folder: Path, how: str, number: int) -> tuple[float, float]:
    """Seconds from the start of the process until it is ready, and until it has answered
    rightly."""
    own = folder / f"{how}-{number}"
    store = Path(shutil.copytree(folder / "store", own / "store"))
    with DOWN[how]() as mlflow, DOWN[how]() as postgres:
        settings = {
            "store": store,
            "state": own / "state",
            "follow": FOLLOW,
            "tracking_uri": f"http://127.0.0.1:{mlflow}",
            "database_url": f"postgresql://halfcore:nobody@127.0.0.1:{postgres}/halfcore",
            "prediction_log": True,
            "prediction_log_spool": own / "spool",
        }
        began = time.monotonic()
        with serving(folder / "none", **settings) as server:
            ready = time.monotonic() - began
            _answer(server)
            return ready, time.monotonic() - began


def _answer(server: Server) -> None:
    """One right answer, or an error."""
    answer = json.loads(server.send(request("/predict", BODIES[0])).partition(b"\r\n\r\n")[2])
    assert answer["prediction"] == expected("1", 0), answer


if __name__ == "__main__":
    sys.exit(main())
