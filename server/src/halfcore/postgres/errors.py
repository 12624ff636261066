"""What goes wrong between this server and PostgreSQL."""


class DatabaseError(Exception):
    """PostgreSQL was not reached, did not answer in time, or refused; or its URL is wrong.

    The cause is asyncpg's or the system's; the text has no password.
    """
