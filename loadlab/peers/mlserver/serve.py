"""MLServer: `mlserver start` on a folder with both settings files, which this writes.

Documented: a custom runtime with the default settings, so one inference worker in a process of its
own. Tuned: inference in the server's process, adaptive batching, no metrics, no debug.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from graph import MODEL, PORT, SPARE_PORTS, TUNED

if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp(prefix="mlserver-", dir=Path.cwd()))
    server = {"host": "127.0.0.1", "http_port": PORT}
    # Its other ports would be the same for two servers of one machine.
    server |= dict(zip(("grpc_port", "metrics_port"), SPARE_PORTS, strict=True))
    model = {"name": MODEL, "implementation": "runtime.Runtime"}
    if TUNED:
        server |= {
            "parallel_workers": 0,
            "metrics_endpoint": None,
            "debug": False,
            "gzip_enabled": False,
        }
        model |= {"max_batch_size": 64, "max_batch_time": 0.002}
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", str(folder)])  # noqa: S606  replaced by the server
