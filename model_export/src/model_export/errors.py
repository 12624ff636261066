"""The exceptions that end an export with one line for the user instead of a traceback, and the
functions that write this line."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PAGE = "docs/export.md"
MORE = f'({_PAGE}, "Can my model be served?")'
"""The end of a refusal of a model: the section that lists what can be served."""
TRAIN_AGAIN = "train and register it again with the installed version"
"""The advice for a model that was trained with another scikit-learn."""
_MORE_OF_DATA = f'({_PAGE}, "The data that the proof is drawn from")'
REASON_CHARACTERS = 1000
"""Longest reason in a version's tag; MLflow accepts at least 5,000, and its page shows one line."""

_LONG_LITERAL = 60
"""Longer content of brackets is data (an array, a table), not part of a sentence."""
_WITHOUT_TEXT = {
    "AssertionError": "an internal check failed",
    "IndexError": "a position does not exist",
    "KeyError": "a key does not exist",
    "MemoryError": "there is not enough memory",
    "NotImplementedError": "this is not implemented",
    "RecursionError": "it is nested too deeply",
    "TimeoutError": "it took too long",
}
_MEMORY_WORDS = (
    "bad_alloc",
    "bad allocation",
    "Unable to allocate",
    "Failed to allocate memory",
    "Cannot allocate memory",
)
_DRIVERS = {
    "boto3": "halfcore-export[s3]",
    "botocore": "halfcore-export[s3]",
    "google": "google-cloud-storage",
    "azure": "azure-storage-blob and azure-identity",
    "pysftp": "pysftp",
}
"""Missing package → what to install so that MLflow can use an artifact store."""
_OUTSIDE = ("azure", "boto3", "botocore", "google", "requests", "s3transfer", "urllib3")
"""Packages whose exceptions are about a service, not about the model."""
_NO_ROOM = (5, 23, 24, 27, 28, 30, 122)
"""EIO, ENFILE, EMFILE, EFBIG, ENOSPC, EROFS, EDQUOT: the disk or the machine failed, not the
model."""

_ADDRESS = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>[^\s'\"<>]+)", re.IGNORECASE)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CODE = re.compile(r"^(?:\[ONNXRuntimeError\] : \d+ : \w+ : |[A-Z]{3,}(?:_[A-Z]+)+: )")
_ERRNO = re.compile(r"\[Errno -?\d+\] ")
_NO_CONNECTION = re.compile(
    r"host='(?P<host>[^']+)', port=(?P<port>\d+).*?"
    r"(?P<why>Connection refused|timed out|Name or service not known|No route to host|"
    r"Temporary failure in name resolution|Network is unreachable|Connection reset by peer|"
    r"CERTIFICATE_VERIFY_FAILED)",
    re.DOTALL,
)


class ExportError(Exception):
    """The model cannot be exported as requested; the message says why and, if possible, what to
    change."""

    complete = False
    """Whether the message itself says what to do, so that no page has to be named."""

    @property
    def reason(self) -> str:
        """The message as one line of bounded length, for a tag."""
        return shorten(str(self))


class DataError(ExportError):
    """The data to prove the model on is missing, or unfit."""


class NoSuchRowError(ExportError):
    """The model takes no row of the data, and would take none of other data."""


class InfrastructureError(ExportError):
    """MLflow, its artifacts or the disk failed. This is no verdict on the model, and trying again
    may help."""


class MemoryLimitError(ExportError):
    """The export needed more memory than it may use. Trying again does not help; a higher limit
    may."""


def pointing(error: ExportError) -> ExportError:
    """The refusal with the section of the page that says more; unchanged if it names one."""
    said = str(error)
    if _PAGE in said:
        return error
    return type(error)(f"{said} {_MORE_OF_DATA if isinstance(error, DataError) else MORE}")


def shorten(text: str, characters: int = REASON_CHARACTERS) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"


def sentence(error: BaseException, characters: int = REASON_CHARACTERS) -> str:
    """An exception's text as one readable line for a user, a log or a tag.

    Leaves out arrays, tables, tracebacks and everything after the first paragraph; removes password
    and query from addresses, as they may hold a secret. Describes an exception without text (or
    with a single word) by its type and the function that raised it.
    """
    if isinstance(error, ExportError):
        return shorten(error.reason, characters)
    if isinstance(error, ImportError) and error.name:
        return shorten(_missing(error.name), characters)
    text = _text(error)
    if " " not in text or isinstance(error, KeyError):
        text = _describe(error, text)
    return shorten(_whole_sentences(text, characters), characters)


def plain(error: BaseException, characters: int = REASON_CHARACTERS) -> str:
    """What an exception of a library says, in brackets and after a space, if a user can understand
    it; otherwise nothing."""
    said = understood(error, characters)
    return f" ({said})" if said else ""


def understood(error: BaseException, characters: int = REASON_CHARACTERS) -> str:
    """What an exception of a library says: its sentences before the first one that is in words of
    the library's own code; empty if there is none."""
    own = isinstance(error, ExportError) or (isinstance(error, ImportError) and error.name)
    said = sentence(error) if own else _text(error)
    if " " not in said:  # the name of a class or of a key
        return ""
    each = re.split(r"(?<=\.) (?=[A-Z])", said)
    plain_ones = itertools.takewhile(lambda one: not _INTERNAL.search(one), each)
    return shorten(_whole_sentences(" ".join(plain_ones), characters), characters).rstrip(".")


_ARRAY = re.compile(r"\b(?:np\.)?array\((?P<list>\[[^\[\]]*\])(?:, dtype=\w+)?\)")
"""NumPy's dump of a list."""
_INTERNAL = re.compile(
    r"skl2onnx|sklearn-onnx|Sklearn|TensorType|Variable\(|<class|<function|object at 0x|array\(|"
    r"\b[A-Z]\w*(Error|Exception|Warning)\b|\bself\b|operator|initializer|shape calculator|"
    r"\bdtype[(=]|…\]|\[\s*-?\d[\d.e+-]*\s+-?\d|\bnp\.\w+\(|node\. Name:|\(-?\d+\) must be in|"
    r"\b(sklearn|numpy|pandas|onnxruntime|mlflow|scipy)\.\w+\.|"
    r"Model implementation is missing"
)
"""Words of a library's own code."""


def _whole_sentences(text: str, characters: int) -> str:
    """As many whole sentences as fit; the unchanged text if not even the first one fits."""
    end = text.rfind(". ", 0, characters)
    return text if len(text) <= characters or end < 0 else text[: end + 1]


def _missing(module: str) -> str:
    package = module.partition(".")[0]
    advice = (
        f": install {_DRIVERS[package]}"
        if package in _DRIVERS
        else ", which has to be installed here"
    )
    return f"this needs the Python package {package!r}{advice}"


def _text(error: BaseException) -> str:
    text = _ANSI.sub("", str(error))
    if connection := _NO_CONNECTION.search(text):
        return f"no connection to {connection['host']}:{connection['port']} ({connection['why']})"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return redact(f"{error.filename}: {error.strerror}")
    if isinstance(error, KeyError) and len(error.args) == 1:  # its text is the repr of its argument
        text = str(error.args[0])
    text = text.partition("Traceback (most recent call last)")[0].strip()
    text = " ".join(re.split(r"\n\s*\n", text)[0].split())
    text = _ERRNO.sub("", _CODE.sub("", text))
    return redact(_ARRAY.sub(_listed, _without_literals(text))).strip()


def _listed(found: re.Match[str]) -> str:
    """A short list as Python writes it; a long one, which has been cut before, as an ellipsis."""
    return "…" if "…" in found["list"] else found["list"]


def _describe(error: BaseException, text: str) -> str:
    kind = type(error).__name__
    place = _place(error)
    if text:
        return f"{_WITHOUT_TEXT.get(kind, 'an error')}: {text} ({kind}{place})"
    return f"{_WITHOUT_TEXT.get(kind, 'an error without a message')} ({kind}{place})"


def _place(error: BaseException) -> str:
    """The module and the function that raised it."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "?")
    return f" in {module}.{trace.tb_frame.f_code.co_name}"


def listed(items: Iterable[object], most: int = 10) -> str:
    """The items as a bounded list: ['a', 'b', …]."""
    known = list(items)
    more = f", … ({len(known)} in all)" if len(known) > most else ""
    plain_items = [item.item() if hasattr(item, "item") else item for item in known[:most]]
    return f"[{', '.join(map(repr, plain_items))}{more}]"


def redact(text: str) -> str:
    """The text with user, password and query removed from its addresses."""
    return _ADDRESS.sub(_bare_address, text)


def _bare_address(found: re.Match[str]) -> str:
    authority, slash, path = found["rest"].partition("/")
    path = re.split(r"[?#]", path)[0]
    return f"{found['scheme']}://{authority.rpartition('@')[2].partition('?')[0]}{slash}{path}"


def _without_literals(text: str) -> str:
    """The text with every long literal in brackets, nested ones included, replaced by `[…]`."""
    kept: list[str] = []
    start = depth = 0
    for position, character in enumerate(text):
        if character in "[{":
            if depth == 0:
                kept.append(text[start:position])
                start = position
            depth += 1
        elif character in "]}" and depth > 0:
            depth -= 1
            if depth == 0:
                literal = text[start : position + 1]
                kept.append(
                    literal if len(literal) <= _LONG_LITERAL else f"{literal[0]}…{literal[-1]}"
                )
                start = position + 1
    rest = text[start:]
    return "".join(kept) + (rest if depth == 0 or len(rest) <= _LONG_LITERAL else f"{rest[0]}…")


def is_memory_error(error: BaseException | None) -> bool:
    """True if memory was short: Python's own exception, one of C++ in ONNX Runtime, or one that
    either of them caused."""
    return any(
        isinstance(one, MemoryError) or any(word in str(one) for word in _MEMORY_WORDS)
        for one in _chain(error)
    )


def is_infrastructure_error(error: BaseException) -> bool:
    """True if the exception's type shows that a service, the network or the disk failed."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    if isinstance(error, ImportError) and error.name:
        return error.name.partition(".")[0] in _DRIVERS
    outside = type(error).__module__.partition(".")[0] in _OUTSIDE
    return outside or isinstance(error, InfrastructureError | ConnectionError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
