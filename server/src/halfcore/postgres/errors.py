"""The errors of the connections to PostgreSQL."""


class DatabaseError(Exception):
    """PostgreSQL cannot be reached, did not answer in time, or refused; or its URL is wrong.

    The cause is an error of asyncpg or of the system; the text has no password.
    """
