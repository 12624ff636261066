"""20,000 random requests made from the API's description, against a real server: `just
prove-openapi`. The exit code says whether every answer is as described.

The requests are the same for the same seed. Exit codes: 0 held, 1 broken.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for openapi and support
from openapi.models import DEFAULT, write_models
from openapi.proof import ADMIN_TOKEN, Found, prove
from support.proof import Check, begin, conclude
from support.serving import serving


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="requests (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (default: 1)")
    asked = parser.parse_args()
    console = Console(stderr=True)
    begun = begin(console)
    with tempfile.TemporaryDirectory(prefix="prove-openapi-") as folder:
        names = write_models(Path(folder))
        settings = {"default_model": DEFAULT, "admin_token": ADMIN_TOKEN}
        start = time.monotonic()
        with serving(Path(folder), webhook_secret="of-the-proof", **settings) as server:
            url = f"http://127.0.0.1:{server.port}"
            found = prove(url, cases=asked.cases, first_seed=asked.seed, names=names)
            alive = server.process.poll() is None
    seconds = time.monotonic() - start
    for key, text in found.failures.items():
        console.print(f"{key}\n{text}\n", markup=False, highlight=False)
    checks = _judge(found, asked.cases, alive=alive)
    title = f"{found.cases:,} requests in {seconds:.0f} s, made from the description"
    return conclude(begun, "openapi", title, checks, _figures(found, asked.seed), console=console)


def _judge(found: Found, cases: int, *, alive: bool) -> list[Check]:
    failures = len(found.failures)
    operations = len(found.statuses)
    return [
        Check("requests", f"{found.cases:,}", f"at least {cases:,}", found.cases >= cases),
        Check("operations", str(operations), "all that are described", operations > 0),
        Check("server errors", str(found.server_errors), "0", found.server_errors == 0),
        Check("kinds of answers not as described", str(failures), "0", not failures),
        Check("the server lives", str(alive), "True", alive),
    ]


def _figures(found: Found, seed: int) -> dict[str, object]:
    statuses = {
        operation: {str(status): count for status, count in sorted(counts.items())}
        for operation, counts in sorted(found.statuses.items())
    }
    return {"seed": seed, "statuses": statuses, "failures": list(found.failures)}


if __name__ == "__main__":
    sys.exit(main())
