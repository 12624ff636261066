"""What can go wrong between a registry and a served model. Every error has a short stable code and
one line for people."""


class RegistryError(Exception):
    """The base class; `code` is a metric's label, so there are few codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(RegistryError):
    """The registry, or a file of it, could not be read. The follower retries, because a broken
    connection says nothing about the version.

    Args:
        retry_after_s: seconds that the registry asked us to wait.
        missing: there is no such file or route; another route may have the file.
    """

    def __init__(
        self, code: str, message: str, *, retry_after_s: float | None = None, missing: bool = False
    ) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s
        self.missing = missing


class NotOffered(RegistryError):
    """The registry answered, and has nothing to load yet: no such alias, or a version that is not
    exported."""


class SchemaRefusal(RegistryError):
    """This version is not compatible with the served one, and the setting refuses such versions.
    Checked again at every poll, because it depends on what is served."""


class Refusal(RegistryError):
    """This bundle must not be served. It is not tried again until the registry names another one,
    or a reload is requested."""
