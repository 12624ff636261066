"""What can go wrong between a registry and a served model. Every error has a short stable code and
one line for people."""


class RegistryError(Exception):
    """Base of all; `code` is a metric's label, so there are few of them."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(RegistryError):
    """The registry or its files did not come as they should: asked again, for a broken line is no
    property of the version.

    Args:
        retry_after_s: seconds that the registry asked us to wait.
        missing: there is no such file or route, so another route may have it.
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
    """This version would change what clients rely on, and must not; judged anew at every poll, for
    it depends on what serves."""


class Refusal(RegistryError):
    """This bundle must not be served; it is not tried again until the registry names another one,
    or somebody asks."""
