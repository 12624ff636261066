"""The exceptions that end an export with a line for the user instead of a traceback."""

REASON_CHARACTERS = 1000
"""Longest reason that is tagged on a version; MLflow takes 5,000 at least, and a page shows one line."""


class ExportError(Exception):
    """The model cannot be exported as asked; the message says why and, where there is one, what to change."""

    @property
    def reason(self) -> str:
        """The message in one line of bounded length, as a tag holds it."""
        return shorten(str(self))


class InfrastructureError(ExportError):
    """Something around the model failed: MLflow, its artifacts or the disk. Nothing is said about the model; trying again may help."""


def shorten(text: str, characters: int = REASON_CHARACTERS) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"
