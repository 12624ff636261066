"""`mlflow models serve` on what prepare.py saved, one worker, in this very environment."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    words = ["models", "serve", "--model-uri", os.environ["PEER_SAVED"], "--env-manager", "local"]
    words += ["--host", "127.0.0.1", "--port", os.environ["PEER_PORT"], "--workers", "1"]
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "ORT_DISABLE_TELEMETRY": "1"}
    program = str(Path(sys.executable).with_name("mlflow"))
    os.execv(program, [program, *words])  # noqa: S606  replaced by the server
