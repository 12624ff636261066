"""Swap after swap of a real server under load: `just prove-swaps`. Prints latencies and memory; the exit code tells.

Every version is fetched and tried anew; every answer must equal the oracle of the version that it names.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.fake_registry import fake_registry
from support.load import Load, Sent, percentile
from support.serving import serving
from support.versions import BODIES, expected, write_version

BASELINE_S = 10.0
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
        return prove(Path(folder), swaps=arguments.swaps, rate=arguments.rate, model_mb=arguments.model_mb)


def prove(folder: Path, *, swaps: int, rate: float, model_mb: float) -> int:
    """Put the load on, swap, and judge."""
    console = Console()
    with fake_registry() as registry:
        registry.point("numbers", registry.publish(write_version(folder / "exported", 1, megabytes=model_mb)))
        settings = {"follow": "models:/numbers@champion", "tracking_uri": registry.url, "follow_period_s": 0.5}
        with serving(folder / "none", store=folder / "store", **settings) as server:
            load = Load(server.port, BODIES, rate=rate)
            with load.running():
                time.sleep(BASELINE_S)
                swapping_since, at_rest = time.monotonic(), resident_mb(server.process.pid)
                for number in range(2, swaps + 2):
                    registry.point("numbers", registry.publish(write_version(folder / "exported", number, megabytes=model_mb)))
                    load.await_sent(partial(served, str(number)))
                    memory = resident_mb(server.process.pid)
                    console.print(f"version {number}: {memory:.0f} MB, {len(load.failed)} failed of {len(load.sent)}", end="\r")
                seconds = time.monotonic() - swapping_since
                time.sleep(2.0)
                growth = resident_mb(server.process.pid) - at_rest
    wrong = [one for one in load.sent if one.status == 200 and one.answer["prediction"] != expected(one.answer["version"], one.row)]
    before = percentile([one.latency_s for one in load.sent if one.at_s < swapping_since], 0.99)
    during = percentile([one.latency_s for one in load.sent if one.at_s >= swapping_since], 0.99)
    p99 = f"{before * 1e3:.1f} → {during * 1e3:.1f} ms"
    rows = [
        ("requests failed", f"{len(load.failed)} of {len(load.sent)}", "0", not load.failed),
        ("answers that are no version's own", str(len(wrong)), "0", not wrong),
        ("p99 before → during the swaps", p99, f"≤ × {MOST_SLOWER:g}", during <= MOST_SLOWER * before),
        ("memory grew by", f"{growth:.1f} MB", f"≤ {model_mb + SPARE_MB:g} MB", growth <= model_mb + SPARE_MB),
    ]  # fmt: skip
    table = Table(title=f"{swaps} swaps of a {model_mb:g} MB model in {seconds:.0f} s under {rate:g} requests/s")
    for heading in ("", "found", "allowed", ""):
        table.add_column(heading)
    for name, found, allowed, held in rows:
        table.add_row(name, found, allowed, "held" if held else "[red]broken[/]")
    console.print(table)
    return 0 if all(held for *_, held in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
