"""A real PostgreSQL for servers that log into it, until SIGTERM, and a way to ask it without a
client of one's own.

`python -m baseline.database serve --port P`, and `python -m baseline.database ask --port P "SELECT
1"`, which runs the SQL and prints the first value of the last row, if there is one.
"""

import argparse
import signal
import sys

from sqlalchemy import create_engine, text

from baseline import postgres


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m baseline.database", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serving, asking = commands.add_parser("serve"), commands.add_parser("ask")
    for each in (serving, asking):
        each.add_argument("--port", type=int, required=True)
    asking.add_argument("sql")
    asked = parser.parse_args()
    if asked.command == "serve":
        _serve(asked.port)
    else:
        _ask(asked.port, asked.sql)


def _serve(port: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with postgres.running(port):
        signal.pause()


def _ask(port: int, sql: str) -> None:
    with create_engine(
        f"postgresql+psycopg://baseline@127.0.0.1:{port}/postgres"
    ).begin() as connection:
        found = connection.execute(text(sql))
        if found.returns_rows:
            print(found.all()[-1][0])  # noqa: T201  it is asked to


if __name__ == "__main__":
    main()
