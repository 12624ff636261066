"""`model-export` within limits: `python -m model_export.limited MEGABYTES PARENT ARGUMENT …`.
Started by `__main__`.

If a model fills the memory, crashes in C or ends the process, it does so to this process, and its
parent reports that in one line.
"""

from __future__ import annotations

import sys


def main(megabytes: str, parent: str, *arguments: str) -> int:
    """Restrict this process, then run the command in it; returns the exit status."""
    from model_export import imports
    from model_export.limits import restrict

    restrict(int(megabytes), int(parent))
    imports.begin()
    from model_export.__main__ import main as command

    return command(arguments, within_limits=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
