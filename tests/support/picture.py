"""Takes the picture of a page as a browser without a network shows it: `python
tests/support/picture.py report.html picture.png`.

`just load-picture RUN` makes docs/loadlab-report.png with it.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from support import browser


def main() -> int:
    """Look and keep; 1 if there is no browser, or if the page complained or asked for anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument(
        "--height",
        type=int,
        default=2340,
        help="of the picture, pixels from the page's top (default: %(default)s)",
    )
    asked = parser.parse_args()
    if (program := browser.found()) is None:
        sys.stderr.write(f"no browser: expected one of {', '.join(browser.NAMES)}\n")
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        seen = browser.look(program, asked.page.resolve(), Path(scratch), size=(1000, asked.height))
        if complaints := [
            *seen.console,
            *sorted(address for address in seen.addresses if address.startswith(("http", "ws"))),
        ]:
            sys.stderr.write("\n".join(complaints) + "\n")
            return 1
        shutil.copyfile(seen.picture, asked.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
