"""Turns a text into the numbers of its tokens, as docs/bundle-format.md defines them.

The graph counts the tokens and their n-grams; what a token is depends on Unicode's tables, for
which ONNX has no operators.
"""

import re
import unicodedata

from halfcore.bundle import Text

_SPACES = re.compile(r"\s\s+")
_SURROGATE = re.compile("[\ud800-\udfff]")
MOST_CHARACTERS = 1000
"""Of an unknown category."""


def is_text(value: str, most: int) -> bool:
    """Whether a string is short enough, and is Unicode: JSON can express half a character."""
    return len(value) <= most and not (not value.isascii() and _SURROGATE.search(value))


class Tokenizer:
    """Packs the texts of one column.

    Args:
        text: from the manifest.
    """

    def __init__(self, text: Text) -> None:
        self._text = text
        self._pattern = re.compile(text.pattern or "")
        self._stop_words = frozenset(text.stop_words)
        self._numbers = {token: float(i) for i, token in enumerate(text.tokens, 1)}

    def pack(self, value: str) -> list[float]:
        """The text's tokens as numbers from 1, 0 for an unknown one, then zeros up to `slots`.

        Raises:
            KeyError: the text is longer than the column allows.
        """
        if not is_text(value, self._text.max_length):
            raise KeyError
        get = self._numbers.get
        numbers = [get(token, 0.0) for token in self._tokens(value)]
        missing = self._text.slots - len(numbers)
        if missing < 0:
            raise KeyError
        return numbers + [0.0] * missing

    def _tokens(self, value: str) -> list[str]:
        if self._text.lowercase:
            value = value.lower()
        if self._text.strip_accents and not value.isascii():
            value = _without_accents(value, ascii_only=self._text.strip_accents == "ascii")
        if self._text.analyzer == "word":
            found: list[str] = self._pattern.findall(value)
            stop = self._stop_words
            return [token for token in found if token not in stop] if stop else found
        value = _SPACES.sub(" ", value)
        if self._text.analyzer == "char":
            return list(value)
        # An empty token, which is always unknown, keeps n-grams within one word.
        return [token for word in value.split() for token in ("", " ", *word, " ")]


def _without_accents(value: str, *, ascii_only: bool) -> str:
    parts = unicodedata.normalize("NFKD", value)
    if ascii_only:
        return parts.encode("ascii", "ignore").decode()
    return "".join([c for c in parts if not unicodedata.combining(c)])
