"""The entry of the command `halfcore`: `predict` starts without the imports of a server."""

import os
import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["predict"]:
        # Read when NumPy is imported; see pipeline.engine
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from halfcore.offline.command import predict  # late: a server does not need it

        predict(sys.argv[2:])
    from halfcore.__main__ import main as run  # late: see above

    run()
