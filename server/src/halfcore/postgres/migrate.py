"""`halfcore migrate`: brings a database's schema up to date with plain SQL files.

The files are in `migrations/`, numbered, and are applied in order, each in its own transaction.
Each applied file is recorded with its hash: a file that was changed afterwards is refused, because
no database would ever get the change. Two runs at the same time are safe: each file is applied by
one of them, while the other one waits.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from halfcore.postgres.database import Connection, Database, transaction

DIRECTORY = Path(str(files("halfcore.postgres") / "migrations"))
LOCK = 0x68616C66636F7265
"""Number of the advisory lock: "halfcore" in ASCII."""
_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
_LEDGER = """
DO $$ BEGIN
    -- Not IF NOT EXISTS, which needs the right to create a schema even where it exists.
    IF to_regnamespace('halfcore') IS NULL THEN
        CREATE SCHEMA halfcore;
    END IF;
END $$;
CREATE TABLE IF NOT EXISTS halfcore.schema_migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(Exception):
    """The files and the database contradict each other; nothing was changed."""


class Migration(NamedTuple):
    """One file of SQL."""

    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The file's hash."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read(directory: Path = DIRECTORY) -> list[Migration]:
    """The migrations of a directory, in order.

    Raises:
        MigrationError: a file is not named `NNNN_words.sql`, or two have one number.
    """
    names = sorted(path.name for path in directory.iterdir())
    for name in names:
        if not _NAME.fullmatch(name):
            raise MigrationError(f"{name}: expected a file named like 0001_words.sql")
    for first, second in pairwise(names):
        if first[:4] == second[:4]:
            raise MigrationError(f"{first} and {second}: the same number")
    return [Migration(name, (directory / name).read_text(encoding="utf-8")) for name in names]


async def migrate(
    database: Database, migrations: Sequence[Migration], *, say: Callable[[str], None]
) -> int:
    """Apply the migrations that were not applied yet; return their number.

    Args:
        database: its user must be allowed to create a schema, or to create tables in one called
            `halfcore`.
        migrations: all of them, in order.
        say: called with the name of each one that was applied.

    Raises:
        MigrationError: an applied file was changed or is missing, or one that was not applied has a
            lower number than one that was.
        DatabaseError: see `Database.connection`; earlier migrations stay applied, the failed one
            leaves no change.
    """
    count = 0
    async with database.connection() as connection:
        while (migration := await _apply_next(connection, migrations)) is not None:
            say(migration.name)
            count += 1
    return count


async def _apply_next(connection: Connection, migrations: Sequence[Migration]) -> Migration | None:
    """Apply the first migration that was not applied yet, in a transaction; None if there is
    none."""
    async with transaction(connection):
        # The transaction holds the lock, not the session: behind a pooler the next transaction may
        # have another session.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        await connection.execute(_LEDGER)
        rows = await connection.fetch("SELECT name, sha256 FROM halfcore.schema_migrations")
        pending = _pending(migrations, {row["name"]: row["sha256"] for row in rows})
        if not pending:
            return None
        migration = pending[0]
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO halfcore.schema_migrations (name, sha256) VALUES ($1, $2)",
            migration.name,
            migration.sha256,
        )
    return migration


def _pending(migrations: Sequence[Migration], applied: dict[str, str]) -> list[Migration]:
    newest = max((migration.name for migration in migrations), default="")
    for name in sorted(applied.keys() - {migration.name for migration in migrations}):
        # Higher numbers are from a newer halfcore; its schema works with an older one.
        if name[:4] <= newest[:4]:
            raise MigrationError(f"{name} was applied but is not among the files")
    for migration in migrations:
        if applied.get(migration.name, migration.sha256) != migration.sha256:
            raise MigrationError(
                f"{migration.name} was changed after it was applied: put its changes into a new "
                "file"
            )
    pending = [migration for migration in migrations if migration.name not in applied]
    if applied and pending and pending[0].name < max(applied):
        raise MigrationError(
            f"{pending[0].name} is before {max(applied)}, which was applied: give it a higher "
            "number"
        )
    return pending
