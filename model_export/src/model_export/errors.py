"""The one exception that ends an export with a line for the user instead of a traceback."""


class ExportError(Exception):
    """The model cannot be exported as asked; the message says why and, where there is one, what to change."""
