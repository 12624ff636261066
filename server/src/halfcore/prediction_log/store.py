"""Writes blocks to PostgreSQL, each row exactly once.

One transaction locks the writer's mark, copies the blocks above it, and moves the mark. So a block
that is written again, by any process and for any reason, is skipped; and if a connection hangs with
its transaction open, the next one waits for its outcome.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import date, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from halfcore.postgres.database import Connection, Database, DatabaseError, transaction
from halfcore.prediction_log.blocks import HEADER, TRAILER, Block, days, split

DAYS_AHEAD = 2
"""Partitions made for days after the rows' own, so that one exists at midnight."""
_FIRST_DAY = date(2000, 1, 1)
_BAD_ROW = ("22", "23", "54", "P0")
"""Classes of SQLSTATE that mean a wrong row: data exception, integrity constraint, program limit,
and an error that a trigger raises."""
_NO_PARTITION = "23514"
"""SQLSTATE of a failed check; also of a row whose day has no partition."""
_MARK = """
INSERT INTO halfcore.prediction_log_offsets AS o (writer) VALUES ($1)
ON CONFLICT (writer) DO UPDATE SET updated_at = now() RETURNING next_row_number
"""
_MOVE = (
    "UPDATE halfcore.prediction_log_offsets SET next_row_number = $2, updated_at = now() WHERE "
    "writer = $1"
)
_ENSURE = "SELECT halfcore.prediction_log_ensure_days($1, $2)"


class Written(NamedTuple):
    """The result of a write."""

    rows: int
    """Rows that are new in the table."""
    refused: int
    """Rows that PostgreSQL refused; they are skipped."""
    why: str = ""
    """Why it refused the last of them."""


class Store:
    """The table `halfcore.prediction_log` and its marks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._days: set[int] = set()

    async def ping(self) -> None:
        """Check whether rows can be written.

        Raises:
            DatabaseError: they cannot.
        """
        async with self._database.connection() as connection:
            await connection.execute("SELECT FROM halfcore.prediction_log_offsets LIMIT 0")

    async def write(self, writer: UUID, blocks: Sequence[Block]) -> Written:
        """Write blocks of one writer, in the order of their numbers.

        Cancelling is safe: whether or not they were written, they may be written again.

        Raises:
            DatabaseError: it is unknown whether they were written.
        """
        try:
            return await self._write(writer, blocks, skip_bad_rows=False)
        except DatabaseError as error:
            state = getattr(error.__cause__, "sqlstate", None) or ""
            if not state.startswith(_BAD_ROW):
                raise
            if state == _NO_PARTITION:
                self._days.clear()  # one may have been dropped since it was made
            return await self._write(writer, blocks, skip_bad_rows=True)

    async def _write(
        self, writer: UUID, blocks: Sequence[Block], *, skip_bad_rows: bool
    ) -> Written:
        async with self._database.connection() as connection:
            await self._ensure_days(connection, blocks)
            refused: list[str] = []
            async with transaction(connection):
                mark = await connection.fetchval(_MARK, writer)
                new = [block for block in blocks if block.end > mark]
                if new:
                    if skip_bad_rows:
                        refused = await _copy_good_rows(connection, new)
                    else:
                        await _copy(connection, new)
                    await connection.execute(_MOVE, writer, new[-1].end)
        rows = sum(block.rows for block in new) - len(refused)
        return Written(rows, len(refused), refused[-1] if refused else "")

    async def _ensure_days(self, connection: Connection, blocks: Iterable[Block]) -> None:
        missing = {day for block in blocks for day in days(block)} - self._days
        if missing:
            first, last = min(missing), max(missing) + DAYS_AHEAD
            await connection.execute(
                _ENSURE, _FIRST_DAY + timedelta(first), _FIRST_DAY + timedelta(last)
            )
            self._days |= missing


async def _copy(connection: Connection, blocks: Sequence[Block]) -> None:
    """Copy blocks in their order: those after one another that have the same columns at once."""
    for columns, same in groupby(blocks, key=attrgetter("columns")):
        await connection.copy_to_table(
            "prediction_log",
            schema_name="halfcore",
            source=_source(same),
            columns=columns,
            format="binary",
        )


async def _source(blocks: Iterable[Block]) -> AsyncIterator[bytes]:
    yield HEADER
    for block in blocks:
        yield block.payload
    yield TRAILER


async def _copy_good_rows(connection: Connection, blocks: Sequence[Block]) -> list[str]:
    """Copy the rows that PostgreSQL accepts, halving until each refused row is alone; return why
    each of those was refused."""
    import asyncpg

    try:
        await connection.execute("SAVEPOINT part")
        await _copy(connection, blocks)
    except asyncpg.PostgresError as error:
        # Not the row's fault: a table has the name of its day's partition, and is none
        without_partition = error.sqlstate == _NO_PARTITION and not error.constraint_name
        if without_partition or not (error.sqlstate or "").startswith(_BAD_ROW):
            raise
        await connection.execute("ROLLBACK TO SAVEPOINT part")
        parts = blocks if len(blocks) > 1 else list(split(blocks[0]))
        if len(parts) == 1:
            return [_without_values(error)]
        half = len(parts) // 2
        return await _copy_good_rows(connection, parts[:half]) + await _copy_good_rows(
            connection, parts[half:]
        )
    await connection.execute("RELEASE SAVEPOINT part")
    return []


def _without_values(error: Any) -> str:
    """Why PostgreSQL refused a row, without its message, which quotes the row's values."""
    constraint = f", constraint {error.constraint_name}" if error.constraint_name else ""
    return f"{type(error).__name__} (SQLSTATE {error.sqlstate}{constraint})"
