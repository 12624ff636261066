"""BentoML: `bentoml serve service:Model`, one worker. The settings are those of service.py."""

import os
import sys
from pathlib import Path

PORT = os.environ["PEER_PORT"]

if __name__ == "__main__":
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    words = ["serve", "service:Model", "--host", "127.0.0.1", "--port", PORT]
    words += ["--working-dir", str(Path(__file__).parent)]
    program = str(Path(sys.executable).with_name("bentoml"))
    os.execv(program, [program, *words])  # noqa: S606  replaced by the server
