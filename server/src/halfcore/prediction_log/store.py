"""Blocks into PostgreSQL, each row exactly once.

One transaction locks the writer's mark, copies the blocks that stand above it, and moves the mark.
So a block that is offered again, by whomever and after whatever, is passed over; and a connection
that hangs with its transaction open makes the next one wait for its outcome.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from halfcore.log import logger
from halfcore.postgres.database import Connection, Database, DatabaseError, transaction
from halfcore.prediction_log.blocks import COLUMNS, HEADER, TRAILER, Block, days, split

DAYS_AHEAD = 2
"""Partitions made beyond the rows' own days, so that midnight finds one."""
_FIRST_DAY = date(2000, 1, 1)
_BAD_ROW = ("22", "23", "54")
"""Classes of SQLSTATE that blame the row: data exception, integrity constraint, program limit."""
_NO_PARTITION = "23514"
"""SQLSTATE of a failed check; a row for whose day there is no partition fails with it too."""
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
    """What came of a write."""

    rows: int
    """Rows that were not in the table before and are now."""
    refused: int
    """Rows that PostgreSQL does not take, whatever one does; they are passed over."""


class Store:
    """The table `halfcore.prediction_log` and its marks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._days: set[int] = set()

    async def ping(self) -> None:
        """See whether rows could be written.

        Raises:
            DatabaseError: they could not.
        """
        async with self._database.connection() as connection:
            await connection.execute("SELECT FROM halfcore.prediction_log_offsets LIMIT 0")

    async def write(self, writer: UUID, blocks: Sequence[Block]) -> Written:
        """Write blocks of one writer, in the order of their numbers.

        Cancelling is safe: whether they were written or not, they may be offered again.

        Raises:
            DatabaseError: whether they were written is unknown.
        """
        try:
            return await self._write(writer, blocks, careful=False)
        except DatabaseError as error:
            state = getattr(error.__cause__, "sqlstate", None) or ""
            if not state.startswith(_BAD_ROW):
                raise
            if state == _NO_PARTITION:
                self._days.clear()  # one may have been dropped since it was made
            return await self._write(writer, blocks, careful=True)

    async def _write(self, writer: UUID, blocks: Sequence[Block], *, careful: bool) -> Written:
        async with self._database.connection() as connection:
            await self._ensure_days(connection, blocks)
            refused = 0
            async with transaction(connection):
                mark = await connection.fetchval(_MARK, writer)
                new = [block for block in blocks if block.end > mark]
                if new:
                    if careful:
                        refused = await _copy_carefully(connection, new)
                    else:
                        await _copy(connection, new)
                    await connection.execute(_MOVE, writer, new[-1].end)
        return Written(sum(block.rows for block in new) - refused, refused)

    async def _ensure_days(self, connection: Connection, blocks: Iterable[Block]) -> None:
        missing = {day for block in blocks for day in days(block)} - self._days
        if missing:
            first, last = min(missing), max(missing) + DAYS_AHEAD
            await connection.execute(
                _ENSURE, _FIRST_DAY + timedelta(first), _FIRST_DAY + timedelta(last)
            )
            self._days |= missing


async def _copy(connection: Connection, blocks: Sequence[Block]) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield HEADER
        for block in blocks:
            yield block.payload
        yield TRAILER

    await connection.copy_to_table(
        "prediction_log", schema_name="halfcore", source=source(), columns=COLUMNS, format="binary"
    )


async def _copy_carefully(connection: Connection, blocks: Sequence[Block]) -> int:
    """Copy what can be copied, halving until the rows that PostgreSQL refuses stand alone; return
    how many those are."""
    import asyncpg

    try:
        await connection.execute("SAVEPOINT part")
        await _copy(connection, blocks)
    except asyncpg.PostgresError as error:
        if not (error.sqlstate or "").startswith(_BAD_ROW):
            raise
        await connection.execute("ROLLBACK TO SAVEPOINT part")
        parts = blocks if len(blocks) > 1 else list(split(blocks[0]))
        if len(parts) == 1:
            logger.error(
                "PostgreSQL refused a prediction, which is not logged: %s",
                _without_values(error),
                extra={"row_number": parts[0].first},
            )
            return 1
        half = len(parts) // 2
        return await _copy_carefully(connection, parts[:half]) + await _copy_carefully(
            connection, parts[half:]
        )
    await connection.execute("RELEASE SAVEPOINT part")
    return 0


def _without_values(error: Any) -> str:
    """Why PostgreSQL refused a row, without its own words, which quote what the row holds."""
    constraint = f", constraint {error.constraint_name}" if error.constraint_name else ""
    return f"{type(error).__name__} (SQLSTATE {error.sqlstate}{constraint})"
