"""Records what the export is doing, for the error line that says where it failed and for the
supervisor process."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_export.errors import (
    ExportError,
    InfrastructureError,
    MemoryLimitError,
    is_infrastructure_error,
    is_memory_error,
    sentence,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


DEBUG = "MODEL_EXPORT_DEBUG"
"""Variable that adds a traceback to each error line."""


@dataclass
class _State:
    model: str = ""
    stage: str = ""
    descriptor: int | None = None
    """A pipe to the process that supervises this one."""
    limit_mb: int | None = None
    """This process's memory limit; None: no limit was set."""


_state = _State()


def report_to(descriptor: int) -> None:
    """Also write every stage to a pipe, one line each, without waiting for its reader."""
    os.set_blocking(descriptor, False)
    _state.descriptor = descriptor


def limited_to(megabytes: int) -> None:
    """Record the memory limit of this process, for the error that says it was reached."""
    _state.limit_mb = megabytes


def enter(stage: str) -> None:
    """Begin a stage, for example "convert"."""
    _state.stage = stage
    if _state.descriptor is not None:
        with suppress(OSError):  # the pipe is full: the reader gets a later stage
            os.write(_state.descriptor, f"{current()}\n".encode())


def clear() -> None:
    """Begin with no model and no stage: those of a failed export remain, to name it in errors."""
    _state.model = _state.stage = ""


def current() -> str:
    """The model and its stage: "models:/iris/1, convert"; empty before the first."""
    return ", ".join(part for part in (_state.model, _state.stage) if part)


def memory_limit_message(stage: str, limit_mb: int | None) -> str:
    """The error text for an export that needed more memory than it may use."""
    limit = "more memory than there is"
    advice = "use a machine with more memory"
    if limit_mb is not None:
        limit = f"more than the {limit_mb:,} MB of memory that an export may use"
        advice = (
            "raise the limit with --memory-limit-mb or MODEL_EXPORT_MEMORY_LIMIT_MB, or export a "
            "smaller model"
        )
    at = f" ({stage})" if stage else ""
    return f"the export needed {limit}{at}: {advice}"


@contextmanager
def while_exporting(uri: str) -> Iterator[None]:
    """Name the model in the stages of the block, and turn each exception into an `ExportError`.

    Raises:
        ExportError: as raised in the block; or any other exception, with the stage in its text.
        InfrastructureError: the same, if a service or the disk failed.
        MemoryLimitError: memory was short.
    """
    _state.model, _state.stage = uri, ""
    try:
        yield
    except (InfrastructureError, MemoryLimitError):
        raise
    except SystemExit as error:
        raise ExportError(
            f"{current()}: the model ended the process with status {error.code}: remove the call "
            "of exit from its code, and register it again"
        ) from error
    except Exception as error:  # a model can fail in every way that its classes can
        if is_memory_error(error):
            raise MemoryLimitError(memory_limit_message(current(), _state.limit_mb)) from error
        if isinstance(error, ExportError):
            raise
        raise unexpected_error(error) from error
    clear()


def debugging() -> bool:
    """True if the user asked for tracebacks."""
    return os.environ.get(DEBUG, "").lower() not in ("", "0", "false")


def unexpected_error(error: BaseException) -> ExportError:
    """The error for an unexpected exception: the stage and the exception's text."""
    kind = InfrastructureError if is_infrastructure_error(error) else ExportError
    where = f"{current()}: " if current() else ""
    advice = "try it again" if kind is InfrastructureError else "report it with what --debug shows"
    return kind(f"{where}unexpected error: {sentence(error)}; {advice}")
