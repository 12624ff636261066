"""Why a file or folder cannot be read, and what its operator can do."""

import errno
import os
import stat
from pathlib import Path

_READABLE_BY_ALL = {True: 0o005, False: 0o004}
"""Mode bits that let every user list a folder (True) or read a file (False)."""


def printable(text: str) -> str:
    """Text that every answer can carry: what is not UTF-8 in a file's name is escaped."""
    return text.encode(errors="backslashreplace").decode()


def unreadable_reason(error: OSError, path: Path) -> str:
    """Why a file or folder cannot be read, and what to do; for any error except a missing
    permission, the error's own text.

    Args:
        error: raised on `path` or on something in it.
        path: of the file or folder.
    """
    if error.errno != errno.EACCES:
        return error.strerror or type(error).__name__
    blocked = _blocked(path)
    user = os.geteuid()
    try:
        status = blocked.stat()
    except OSError:
        return (
            f"user {user}, who runs this server, may not read it; run chmod -R a+rX on the "
            "mounted folder"
        )
    is_folder = stat.S_ISDIR(status.st_mode)
    needed = _READABLE_BY_ALL[is_folder]
    what = "it" if blocked == path else str(blocked)
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}"
    if status.st_mode & needed == needed:
        return (
            f"user {user} may not read {what} though its mode allows it ({mode}); with SELinux, "
            "mount it with :z"
        )
    return (
        f"user {user}, who runs this server, may not read {what} ({mode}); run chmod -R a+rX on "
        "the mounted folder"
    )


def _blocked(path: Path) -> Path:
    """The topmost folder above `path` that this process may not search, or `path` itself."""
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK):
            return folder
    return path
