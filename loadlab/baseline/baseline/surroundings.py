"""`python -m baseline.surroundings --store FILE --mlflow-port P --postgres-port Q`: a real MLflow
server and a real PostgreSQL, until SIGTERM.

MLflow serves a copy of the store: what a measurement does leaves no trace in the registry. Both
listen on loopback: the services that this represents used a campus network, so the network's
part of a question is missing here.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from baseline import postgres

_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Only what answers questions: no reports to MLflow's makers, no processes that wait for jobs."""


def main() -> None:
    """Run the command line; ends with MLflow's exit code, or 0 on SIGTERM."""
    asked = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory(prefix="baseline-mlflow-") as folder,
        postgres.running(asked.postgres_port),
    ):
        store = Path(shutil.copy(asked.store, folder))
        words = ["--backend-store-uri", f"sqlite:///{store}", "--default-artifact-root", folder]
        where = ["--host", "127.0.0.1", "--port", str(asked.mlflow_port), "--workers", "1"]
        server = subprocess.Popen(  # noqa: S603  our own words
            [sys.executable, "-m", "mlflow", "server", *words, *where], env=os.environ | _QUIET
        )
        try:
            sys.exit(server.wait())
        finally:
            server.terminate()
            server.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m baseline.surroundings", description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="MLflow's SQLite file")
    parser.add_argument("--mlflow-port", type=int, required=True)
    parser.add_argument("--postgres-port", type=int, required=True)
    return parser


if __name__ == "__main__":
    main()
