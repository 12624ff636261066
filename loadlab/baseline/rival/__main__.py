"""`python -m rival VARIANT --model NAME --port PORT …`: serve one variant until SIGTERM, one worker
for each core it may use."""

import argparse
import os

import uvicorn

from rival import asgi
from rival.switches import VARIANTS

_KEEP_ALIVE_S = 75
"""uvicorn's default of 5 s would cut users who think for 4–9 s; a fair comparison does not win by
that."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m rival", description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument(
        "--model", required=True, help="registered name; its alias `champion` is served"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--tracking-uri",
        default="",
        help="MLflow's store or server; all variants but onnx load the model from there",
    )
    parser.add_argument(
        "--database",
        default="",
        help="URL of a PostgreSQL with the surroundings' table, for variants that ask it",
    )
    parser.add_argument(
        "--bundle", default="", help="directory with model.onnx and manifest.json, for onnx"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes; 0: as many as CPUs may be used if the variant is tuned, else 1",
    )
    parser.add_argument(
        "--keep-alive-s",
        type=int,
        default=_KEEP_ALIVE_S,
        help="uvicorn's own default is 5 (default: %(default)s)",
    )
    asked = parser.parse_args()
    switches = VARIANTS[asked.variant]
    if switches.reflects_table and not asked.database:
        parser.error(f"{asked.variant} asks a database on every request: --database is missing")
    if not (asked.bundle if switches.predictor == "onnx" else asked.tracking_uri):
        parser.error(
            "--bundle is missing" if switches.predictor == "onnx" else "--tracking-uri is missing"
        )
    # Workers are processes of their own: they read what they shall serve from the environment.
    os.environ |= asgi.environment(
        asked.variant, asked.model, asked.tracking_uri, asked.database, asked.bundle
    )
    uvicorn.run(
        "rival.asgi:create",
        factory=True,
        host=asked.host,
        port=asked.port,
        workers=asked.workers or (len(os.sched_getaffinity(0)) if switches.standard else 1),
        timeout_keep_alive=asked.keep_alive_s,
        http="httptools" if switches.standard else "h11",
        loop="uvloop" if switches.standard else "asyncio",
        access_log=not switches.standard,
        # 2048 would refuse a part of 10,000 users who arrive faster than they are let in
        backlog=4096,
    )


if __name__ == "__main__":
    main()
