"""Swap after swap of a real server under load: `just prove-swaps`. Prints latencies and memory; the
exit code tells.

Every version is fetched and tried anew; every answer must equal the oracle of the version that it
names. A swap lasts from the moment that the alias moves until the new version answers and the old
one is let go; what the lab does between swaps (it writes and publishes the next version) is no part
of it, for it takes the CPU that client and server share.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.fake_registry import fake_registry
from support.load import Load, Sent, percentile
from support.proof import Check, begin, conclude
from support.serving import serving
from support.versions import BODIES, expected, write_version

BASELINE_S = 10.0
AFTER_S = 0.2
"""After a version's first answer: the old one's memory is given back in this time."""
MOST_SLOWER = 3.0
SPARE_MB = 16.0


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def served(version: str, sent: list[Sent]) -> bool:
    """Whether the last answer came from a version."""
    return bool(sent) and sent[-1].answer is not None and sent[-1].answer.get("version") == version


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=300.0, help="requests per second")
    parser.add_argument("--model-mb", type=float, default=16.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return prove(
            Path(folder), swaps=arguments.swaps, rate=arguments.rate, model_mb=arguments.model_mb
        )


def prove(folder: Path, *, swaps: int, rate: float, model_mb: float) -> int:
    """Put the load on, swap, and judge."""
    console = Console()
    begun = begin(console)
    with _registry(folder, model_mb) as (url, registry):
        _tell(registry, "publish", 1)
        _tell(registry, "point", 1)
        settings = {
            "follow": "models:/numbers@champion",
            "tracking_uri": url,
            "follow_period_s": 0.5,
        }
        with serving(folder / "none", store=folder / "store", **settings) as server:
            load = Load(server.port, BODIES, rate=rate)
            with load.running():
                time.sleep(BASELINE_S)
                began, memory = time.monotonic(), [resident_mb(server.process.pid)]
                lasted = []
                for number in range(2, swaps + 2):
                    lasted.append(_swap(registry, load, number))
                    memory.append(resident_mb(server.process.pid))
                    console.print(
                        (
                            f"version {number}: {memory[-1]:.0f} MB, {len(load.failed)} failed of "
                            f"{len(load.sent)}"
                        ),
                        end="\r",
                    )
                seconds = time.monotonic() - began
                time.sleep(2.0)
                memory.append(resident_mb(server.process.pid))
    checks, figures = _judge(load.sent, began, lasted, memory, model_mb=model_mb)
    title = f"{swaps} swaps of a {model_mb:g} MB model in {seconds:.0f} s under {rate:g} requests/s"
    return conclude(begun, "swaps", title, checks, figures, console=console)


def _swap(registry: Connection, load: Load, number: int) -> tuple[float, float]:
    """Publish a version, move the alias, wait until it answers; return when that began and
    ended."""
    _tell(registry, "publish", number)
    moved = time.monotonic()
    _tell(registry, "point", number)
    load.await_sent(partial(served, str(number)))
    time.sleep(AFTER_S)
    return moved, time.monotonic()


@contextmanager
def _registry(folder: Path, model_mb: float) -> Iterator[tuple[str, Connection]]:
    """A registry in a process of its own: what it does takes no turn from the client that measures;
    yields its URL and a line to it."""
    spawning = get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_serve_registry, args=(theirs, folder, model_mb))
    process.start()
    try:
        yield ours.recv(), ours
    finally:
        ours.send(("end", 0))
        process.join(30)


def _serve_registry(line: Connection, folder: Path, model_mb: float) -> None:
    """Do what the line says until it says "end", and answer each with True."""
    with fake_registry() as registry:
        line.send(registry.url)
        while (order := line.recv())[0] != "end":
            what, number = order
            if what == "publish":
                exported = write_version(folder / "exported", number, megabytes=model_mb)
                registry.publish(exported)
                shutil.rmtree(exported)
                registry.forget("numbers", before=number - 2)
            else:
                registry.point("numbers", str(number))
            line.send(True)


def _tell(registry: Connection, what: str, number: int) -> None:
    registry.send((what, number))
    assert registry.recv()


def _judge(
    sent: Sequence[Sent],
    began: float,
    swaps: Sequence[tuple[float, float]],
    memory: Sequence[float],
    *,
    model_mb: float,
) -> tuple[list[Check], dict[str, Any]]:
    failed = [one for one in sent if one.status != 200]
    wrong = [
        one
        for one in sent
        if one.status == 200
        and one.answer["prediction"] != expected(one.answer["version"], one.row)
    ]
    before = [one.latency_s for one in sent if one.at_s < began]
    during = [
        one.latency_s for one in sent if any(start <= one.at_s <= end for start, end in swaps)
    ]
    p99_before, p99_during = percentile(before, 0.99), percentile(during, 0.99)
    took = sorted(end - start - AFTER_S for start, end in swaps)
    growth = memory[-1] - memory[0]
    checks = [
        Check("requests failed", f"{len(failed)} of {len(sent)}", "0", not failed),
        Check("answers that are no version's own", str(len(wrong)), "0", not wrong),
        Check(
            f"p99 of {len(before)} before → of {len(during)} during the swaps",
            f"{p99_before * 1e3:.1f} → {p99_during * 1e3:.1f} ms",
            f"≤ × {MOST_SLOWER:g}",
            p99_during <= MOST_SLOWER * p99_before,
        ),
        Check(
            "memory grew by",
            f"{growth:.1f} MB (most: {max(memory) - memory[0]:.1f})",
            f"≤ {model_mb + SPARE_MB:g} MB",
            growth <= model_mb + SPARE_MB,
        ),
    ]
    figures = {
        "requests": len(sent),
        "failed": len(failed),
        "wrong": len(wrong),
        "memory_mb": [round(each, 1) for each in memory],
        "before_ms": _quantiles(before),
        "during_ms": _quantiles(during),
        "swap_s": {"median": took[len(took) // 2], "longest": took[-1]},
    }
    return checks, figures


def _quantiles(latencies_s: Sequence[float]) -> dict[str, float]:
    return {
        f"p{share * 100:g}": round(percentile(latencies_s, share) * 1e3, 2)
        for share in (0.5, 0.95, 0.99, 0.999)
    }


if __name__ == "__main__":
    sys.exit(main())
