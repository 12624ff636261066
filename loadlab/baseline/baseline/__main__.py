"""`python -m baseline VARIANT --model NAME --port PORT …`: serve one variant until SIGTERM, one
worker for each core it may use."""

import argparse
import os

import uvicorn

from baseline import asgi
from baseline.switches import VARIANTS

_KEEP_ALIVE_S = 75
"""uvicorn's default of 5 s would cut users who think for 4–9 s; a fair comparison does not win by
that."""


def main() -> None:
    """Run the command line."""
    parser = _parser()
    asked = parser.parse_args()
    if reason := _missing(asked):
        parser.error(reason)
    # Workers are separate processes: they read what they serve from the environment.
    os.environ |= asgi.environment(
        asked.variant, asked.model, asked.tracking_uri, asked.database, asked.bundle
    )
    standard = VARIANTS[asked.variant].standard
    uvicorn.run(
        "baseline.asgi:create",
        factory=True,
        host=asked.host,
        port=asked.port,
        workers=asked.workers or (len(os.sched_getaffinity(0)) if standard else 1),
        timeout_keep_alive=asked.keep_alive_s,
        http="httptools" if standard else "h11",
        loop="uvloop" if standard else "asyncio",
        access_log=not standard,
        # 2048 would refuse some of 10,000 users, who arrive faster than they are accepted
        backlog=4096,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m baseline", description=__doc__)
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
    return parser


def _missing(asked: argparse.Namespace) -> str:
    """Which argument the variant needs and did not get, or nothing."""
    switches = VARIANTS[asked.variant]
    if switches.reflects_table and not asked.database:
        return f"{asked.variant} asks a database on every request: --database is missing"
    if switches.predictor == "onnx":
        return "" if asked.bundle else "--bundle is missing"
    return "" if asked.tracking_uri else "--tracking-uri is missing"


if __name__ == "__main__":
    main()
