"""What the export is doing now: for the line that says where it failed, and for the process that
watches over it."""

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
"""Variable that asks for tracebacks besides the lines that say what failed."""


@dataclass
class _State:
    model: str = ""
    stage: str = ""
    descriptor: int | None = None
    """A pipe to the process that watches over this one."""
    limit_mb: int | None = None
    """In force for this process; None: no limit was set."""


_state = _State()


def report_to(descriptor: int) -> None:
    """Write every stage to a pipe as well, one line each, never waiting for its reader."""
    os.set_blocking(descriptor, False)
    _state.descriptor = descriptor


def limited_to(megabytes: int) -> None:
    """Remember the memory limit of this process for the sentence that says that it was reached."""
    _state.limit_mb = megabytes


def enter(stage: str) -> None:
    """Say what is done from here on, for example "convert"."""
    _state.stage = stage
    if _state.descriptor is not None:
        with suppress(OSError):  # a full pipe: the reader learns of a later stage
            os.write(_state.descriptor, f"{current()}\n".encode())


def current() -> str:
    """The model and its stage: "models:/iris/1, convert"; empty before the first."""
    return ", ".join(part for part in (_state.model, _state.stage) if part)


def memory_limit_message(stage: str, limit_mb: int | None) -> str:
    """The sentence for an export that needed more memory than it may use."""
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
    """Everything in the block is done for one model; whatever it raises is an `ExportError`.

    Raises:
        ExportError: as raised in the block, or for any other exception, with the stage in its text.
        InfrastructureError: likewise, and a service or the disk failed.
        MemoryLimitError: memory was short.
    """
    _state.model, _state.stage = uri, ""
    try:
        yield
    except (InfrastructureError, MemoryLimitError):
        raise
    except SystemExit as error:
        raise ExportError(
            f"{current()}: the model ended the process with status {error.code}"
        ) from error
    except Exception as error:  # a model can fail in every way that its classes can
        if is_memory_error(error):
            raise MemoryLimitError(memory_limit_message(current(), _state.limit_mb)) from error
        if isinstance(error, ExportError):
            raise
        raise unexpected_error(error) from error
    _state.model = _state.stage = ""


def debugging() -> bool:
    """True where the user asked for tracebacks."""
    return os.environ.get(DEBUG, "").lower() not in ("", "0", "false")


def unexpected_error(error: BaseException) -> ExportError:
    """The error for an exception that nobody foresaw: the stage and what the exception says."""
    kind = InfrastructureError if is_infrastructure_error(error) else ExportError
    where = f"{current()}: " if current() else ""
    return kind(f"{where}unexpected error: {sentence(error)}")
