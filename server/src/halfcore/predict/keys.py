"""API keys: who may ask for predictions, and of which models.

The file holds the keys' SHA-256 hashes. A key is 256 random bits, so one round of a fast hash is
enough: nobody can try them all, and a salt would protect nothing. A key is looked up by its hash,
which takes equally long however much of it was guessed. Keys that were accepted before are found
by their text instead, in a dictionary, which hashes it with a random secret of this process.

A key may have a rate, which each worker counts for itself: a worker knows only its own requests.
"""

import asyncio
import errno
import math
import re
import secrets
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from halfcore.log import logger
from halfcore.problem import Problem, listed
from halfcore.readable import printable

RELOAD_S = 5.0
"""Seconds between two looks at the file: how long a withdrawn key may still work."""
MIN_RATE, MAX_RATE = 0.01, 1_000_000.0
"""Requests a second that an entry may allow."""
NO_KEYS = (
    "the file of API keys holds no key, so every prediction is refused with 401; "
    "`halfcore key NAME >> FILE` makes one"
)
"""Logged, and no error: it may be meant, to withdraw all of them."""
_RATE = "requests_per_second"
_PREFIX = "hk_"
"""Of the keys that `new_key` makes, so that scanners for secrets can find them."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_CLOSE = {"connection": "close"}
"""The body is not read."""


class KeysError(ValueError):
    """The file cannot be used; the message names the entry and what was expected."""


class Rate:
    """How many requests a key may send: a token bucket that holds one second's requests, and at
    least one. Kept as one number, the time at which the bucket is full again (the generic cell
    rate algorithm of ITU-T I.371), because each request pays for the arithmetic.

    Args:
        per_second: requests.
        clock: seconds.
    """

    __slots__ = ("_clock", "_full_at", "_limit_s", "_lock", "_most_s", "_token_s", "per_second")

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self._token_s = 1 / per_second
        # How far from full a bucket may be that still holds a token; as the sums are rounded, the
        # hundredth part of a token may be missing
        self._most_s = max(0.0, 1 - self._token_s)
        self._limit_s = self._most_s + self._token_s / 100
        self._full_at = -math.inf
        self._clock = clock
        # Granian's thread and the event loop both take tokens
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take a token if there is one; returns the seconds until there is one, 0 if it was
        taken."""
        with self._lock:
            now = self._clock()
            full_at = self._full_at
            if full_at <= now:
                self._full_at = now + self._token_s
                return 0.0
            if full_at - now > self._limit_s:
                return full_at - now - self._most_s
            self._full_at = full_at + self._token_s
            return 0.0


class Key:
    """One key.

    Args:
        name: of whoever has it.
        models: the models that it may ask; None: all.
        rate: limits its requests; None: nothing does.

    Attributes:
        plain, others: requests that it was accepted for, counted by granian's thread and by the
            event loop: each counter has one writer.
    """

    __slots__ = ("models", "name", "others", "plain", "rate")

    def __init__(self, name: str, models: frozenset[str] | None, rate: Rate | None = None) -> None:
        self.name = name
        self.models = models
        self.rate = rate
        self.plain = self.others = 0


class _Table(NamedTuple):
    """The keys of one reading of the file."""

    by_hash: dict[bytes, Key]
    by_text: dict[str, Key]
    """Those that were used."""


class Keys:
    """The keys of a file, which is read again when it changes.

    Args:
        file: TOML; one table per key: its name, `sha256`, `models` if it may not ask all, and
            `requests_per_second` if it has a rate.

    Raises:
        KeysError: the file is wrong.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._state = _state(file)
        self._table = _Table(read(file), {})
        self._counted: dict[str, int] = {}
        """Name → requests of keys that were replaced when the file was read again."""

    def allows(self, get: Callable[[str], str | None], model: str) -> bool:
        """Whether a head has a key for this model that is within its rate; counts the request if
        so. Called on granian's thread.

        Args:
            get: the first header of a name, or None.
            model: its name.
        """
        key = self._find(presented(get))
        if key is None or not (key.models is None or model in key.models):
            return False
        if key.rate is not None and key.rate.take() > 0:
            return False
        key.plain += 1
        return True

    def check(self, given: str | None, model: str | None) -> None:
        """Refuse a request without a key for this model, and count one with it. Called on the
        event loop.

        Args:
            given: the key that the client sent.
            model: its name; None: it is not known yet, and nothing is counted.

        Raises:
            Problem: 401 or 403, and the connection is closed, because the body is not read; 429.
        """
        key = self._find(given)
        if key is None:
            raise Problem(
                401,
                "unauthorized",
                "expected an API key, as Authorization: Bearer KEY or X-API-Key: KEY"
                if given is None
                else "the API key is not known",
                headers=_CLOSE | {"www-authenticate": "Bearer"},
            )
        if model is None:
            return
        if key.models is not None and model not in key.models:
            raise Problem(
                403,
                "forbidden",
                f'the API key of "{key.name}" may not ask this model, expected one of '
                f"{listed(sorted(key.models))}",
                headers=_CLOSE,
            )
        if key.rate is not None and (wait_s := key.rate.take()) > 0:
            raise Problem(
                429,
                "too_many_requests",
                f'the API key of "{key.name}" allows {key.rate.per_second:g} requests a second; '
                "send fewer",
                retry_after_s=math.ceil(wait_s),
            )
        key.others += 1

    def counts(self) -> dict[str, int]:
        """Name → requests that its key was accepted for."""
        counts = dict(self._counted)
        for key in self._table.by_hash.values():
            counts[key.name] = counts.get(key.name, 0) + key.plain + key.others
        return counts

    async def follow(self, is_served: Callable[[str], bool] = lambda _: True) -> None:
        """Read the file again when it changed, until cancelled. A wrong file changes nothing, and
        is logged, as is a model of an entry for which `is_served` is false."""
        self._report(is_served)
        while True:
            await asyncio.sleep(RELOAD_S)
            if await asyncio.to_thread(self.reload):
                self._report(is_served)

    def _report(self, is_served: Callable[[str], bool]) -> None:
        for key in self._table.by_hash.values():
            if unknown := sorted(name for name in key.models or () if not is_served(name)):
                logger.warning(
                    'the API key of "%s" may ask models that this server does not have: %s; '
                    "correct the file of API keys, or serve them",
                    key.name,
                    printable(listed(unknown)),
                )

    def reload(self) -> bool:
        """Read the file again if it changed since it was read; whether it did and was right."""
        state = _state(self._file)
        if state == self._state:
            return False
        self._state = state
        try:
            found = read(self._file)
        except KeysError as error:
            logger.error("the API keys were not read again, the old ones stay valid: %s", error)
            return False
        self._counted = self.counts()
        self._table = _Table(found, {})
        logger.info("the API keys were read again: %d keys", len(found))
        if not found:
            logger.warning(NO_KEYS)
        return True

    def _find(self, given: str | None) -> Key | None:
        if given is None:
            return None
        table = self._table  # taken once: another thread may replace it
        key = table.by_text.get(given)
        if key is None:
            key = table.by_hash.get(sha256(given.encode()).digest())
            if key is not None:
                table.by_text[given] = key
        return key


def presented(get: Callable[[str], str | None]) -> str | None:
    """The key in a request's headers: a bearer token, or `X-API-Key`."""
    authorization = get("authorization")
    if authorization is not None:
        kind, _, token = authorization.partition(" ")
        if kind.lower() == "bearer":
            return token.strip()
    return get("x-api-key")


def read(file: Path) -> dict[bytes, Key]:
    """The keys of a file by their hashes.

    Raises:
        KeysError: it cannot be read, or an entry is wrong.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        made = "; `halfcore key NAME >> FILE` makes one" if error.errno == errno.ENOENT else ""
        raise KeysError(f"api_keys: {file}: {error.strerror}{made}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KeysError(f"{file} is not TOML: {error}") from None
    keys: dict[bytes, Key] = {}
    for name, table in tables.items():
        digest, key = _entry(f"{file}, [{name[:80]}]", name, table)
        if digest in keys:
            raise KeysError(f"{file}: [{keys[digest].name}] and [{name}] are the same key")
        keys[digest] = key
    return keys


def new_key(name: str, models: list[str], per_second: float | None = None) -> tuple[str, str]:
    """A new key, and the lines that add it to the file.

    Args:
        name: of whoever gets it.
        models: that it may ask; empty: all.
        per_second: most requests; None: without limit.

    Raises:
        KeysError: a name or a rate that no entry may have.
    """
    if not _NAME.match(name):
        raise KeysError(f"the name {name[:80]!r} is wrong, expected 1 to 64 of A-Z a-z 0-9 _ -")
    key = _PREFIX + secrets.token_urlsafe(32)
    lines = [f"[{name}]", f'sha256 = "{sha256(key.encode()).hexdigest()}"']
    if models:
        lines.append("models = [" + ", ".join(_quoted(model) for model in models) + "]")
    if per_second is not None:
        _rate(f"[{name}]", per_second)
        lines.append(f"{_RATE} = {per_second:g}")
    return key, "\n".join(lines) + "\n"


def _entry(where: str, name: str, table: Any) -> tuple[bytes, Key]:
    """One entry: the hash and the key."""
    if not _NAME.match(name):
        raise KeysError(f"{where}: a wrong name, expected 1 to 64 of A-Z a-z 0-9 _ -")
    if not isinstance(table, Mapping) or not table.keys() <= {"sha256", "models", _RATE}:
        raise KeysError(
            f"{where}: expected a table with sha256 and, if need be, models and {_RATE}"
        )
    digest, models = table.get("sha256"), table.get("models")
    if not isinstance(digest, str) or not _HASH.match(digest):
        raise KeysError(f"{where}: sha256 is wrong, expected 64 digits 0-9 a-f; see halfcore key")

    if models is not None and (
        not isinstance(models, list)
        or not models
        or not all(isinstance(model, str) and model for model in models)
    ):
        raise KeysError(f"{where}: models is wrong, expected a list of names")
    rate = _rate(where, table[_RATE]) if _RATE in table else None
    return bytes.fromhex(digest), Key(name, frozenset(models) if models else None, rate)


def _rate(where: str, per_second: Any) -> Rate:
    """An entry's rate."""
    if isinstance(per_second, bool) or not isinstance(per_second, int | float):
        raise KeysError(f"{where}: {_RATE} is wrong, expected a number")
    if not MIN_RATE <= per_second <= MAX_RATE:
        raise KeysError(
            f"{where}: {_RATE} is {per_second:g}, expected {MIN_RATE:g} to {MAX_RATE:,.0f}"
        )
    return Rate(per_second)


def _quoted(text: str) -> str:
    """A string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _state(file: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced; empty if there is none."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino
