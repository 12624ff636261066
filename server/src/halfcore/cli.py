"""The entry of the command `halfcore`: `predict` starts without the imports of a server, and help
without those of any command."""

import gc
import os
import sys

_START_THRESHOLD = 200_000
"""Objects made, less those freed, between two runs of the garbage collector during a start. Imports
make many objects and hardly any garbage: at Python's 700, searching for it takes a fifth of a
start's CPU time. A server's worker sets its own threshold when it is ready."""


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["predict"]:
        # Read when NumPy is imported; see pipeline.engine
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from halfcore.offline.command import predict  # late: a server does not need it

        predict(sys.argv[2:])
    gc.set_threshold(_START_THRESHOLD)
    from halfcore.command_line import parser  # late: see above

    arguments = parser().parse_args()
    from halfcore.__main__ import run  # late: see above

    run(arguments)
