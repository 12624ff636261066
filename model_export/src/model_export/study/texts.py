"""Columns of text: how docs/bundle-format.md turns one into numbers, and the texts on which the
proof compares the graph with the registered model.

This module follows the format, not scikit-learn, so that the proof compares the format's tokens
with those of the registered vectorizer.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from model_export.study.anatomy import Anatomy, Branch, Step
    from model_export.study.arrays import Matrix, Values
    from model_export.study.schema import Column, Schema

_PATTERN = re.compile(
    r"^(\(\?u\))?(\\b)?(\\w|\\S|\[[A-Za-z0-9_-]+\])(\3)*(\+|\{[0-9]{1,2},\})(?(2)(\\b)?)$"
)
"""As in the format: a token is characters of one class, at least so many. Python's regular
expressions take exponential time on others."""
_SPACES = re.compile(r"\s\s+")
_SHORTEST, _LONGEST = 200, 10_000
_ROOM = 4
"""A text may be so many times as long as the longest in the data."""
_MOST_TEXTS = 3_000
_MOST_TERMS = 20_000
_TERMS_PER_TEXT = 12
_PLAIN = ("", " ", "a", ".", "?!", "1", "2024", "don't", "snake_case", "e-mail", "a b c", "\t\n")
_UNICODE = (
    "é",
    "e\u0301te\u0301",
    "İstanbul",
    "ΣΑΣ",
    "Straße",
    "ﬁne",
    "Ǆ",
    "１２",
    "١٢",
    "한국어",
    "日本語 テキスト",
    "naïve café",
    "a\u00a0b",
    "a\u200bb",
    "x\x00y",
    "😀 smile",
    "𝒜𝒷",
)


@dataclass(frozen=True)
class Tokens:
    """How a text is cut into tokens; the fields are those of the manifest."""

    analyzer: str
    lowercase: bool
    strip_accents: str | None
    pattern: str | None
    stop_words: tuple[str, ...]
    tokens: tuple[str, ...]
    max_length: int = _LONGEST
    slots: int = 1

    def manifest(self) -> dict[str, Any]:
        """The entry for the manifest."""
        return asdict(self) | {"stop_words": list(self.stop_words), "tokens": list(self.tokens)}

    def cut(self, text: str) -> list[str]:
        """The tokens of a text."""
        if self.lowercase:
            text = text.lower()
        if self.strip_accents and not text.isascii():
            text = _without_accents(text, ascii_only=self.strip_accents == "ascii")
        if self.analyzer == "word":
            stop = frozenset(self.stop_words)
            return [t for t in re.findall(self.pattern or "", text) if t not in stop]
        text = _SPACES.sub(" ", text)
        if self.analyzer == "char":
            return list(text)
        return [token for word in text.split() for token in ("", " ", *word, " ")]

    def accepts(self, text: str) -> bool:
        """Whether the server accepts a text of this length."""
        return len(text) <= self.max_length and len(self.cut(text)) <= self.slots

    def rows(self, packed: Values, column: Column) -> Matrix:
        """float64[N, slots]: the numbers of the tokens of packed texts."""
        number = {token: i for i, token in enumerate(self.tokens, 1)}
        used, place = np.unique(packed.astype(np.int64), return_inverse=True)
        table = np.zeros((len(used), self.slots))
        for row, index in enumerate(used):
            found = [number.get(t, 0) for t in self.cut(str(column.categories[index]))]
            table[row, : len(found)] = found
        return table[place]


def _without_accents(text: str, *, ascii_only: bool) -> str:
    parts = unicodedata.normalize("NFKD", text)
    if ascii_only:
        return parts.encode("ascii", "ignore").decode()
    return "".join([c for c in parts if not unicodedata.combining(c)])


def text_columns(branch: Branch, schema: Schema, found: Mapping[int, Column]) -> dict[int, Column]:
    """The column of text that a branch reads.

    Raises:
        ExportError: its tokens cannot be expressed in the bundle's format, or the column has
            another use.
    """
    path, vectorizer = branch.vectorizer  # type: ignore[misc]  # the caller has checked
    if len(branch.columns) != 1:
        raise ExportError(
            f"step {path!r} reads several columns, expected one column of texts: give it one name "
            "in place of a list"
        )
    (i,) = branch.columns
    column = schema.columns[i]
    if i in found and found[i].text is None:
        raise two_uses(column, path)
    if column.dtype != "str":
        raise ExportError(
            f"step {path!r} reads column {column.name!r} of {column.kind}s, expected strings: log "
            "the model with a signature in which it is a string"
        )
    tokens = _tokens(path, vectorizer)
    if i in found and (other := found[i].text) is not None:
        tokens = _joined(column, path, other, tokens)
    return {i: replace(column, kind="text", text=tokens)}


_SHARED = ("analyzer", "lowercase", "strip_accents", "pattern", "stop_words")
"""What two vectorizers of one column must have in common: the server cuts a text once."""


def _joined(column: Column, step: str, one: Tokens, other: Tokens) -> Tokens:
    """The tokens of both vectorizers that read a column.

    Raises:
        ExportError: they cut a text in different ways.
    """
    for option in _SHARED:
        if getattr(one, option) != getattr(other, option):
            name = {"pattern": "token_pattern"}.get(option, option)
            raise ExportError(
                f"column {column.name!r} is read by two vectorizers that cut a text in different "
                f"ways: step {step!r} has another {name} than the one before it, and a bundle "
                f"holds one for each column; train both with the same {name}, or give the second "
                "one a column of its own"
            )
    return replace(one, tokens=tuple(sorted({*one.tokens, *other.tokens})))


def two_uses(column: Column, step: str) -> ExportError:
    """The error for a text that is read twice."""
    return ExportError(
        f"column {column.name!r} is read as a text, and again by step {step!r}: give the two uses "
        "two columns"
    )


def _tokens(path: str, vectorizer: Any) -> Tokens:
    for option in ("analyzer", "preprocessor", "tokenizer", "strip_accents"):
        if callable(getattr(vectorizer, option)):
            raise ExportError(
                f"step {path!r} has a function of your own as {option}, which a bundle cannot "
                "hold: use the options of the vectorizer, or prepare the text before the request"
            )
    if vectorizer.input != "content":
        raise ExportError(
            f"step {path!r} has input={vectorizer.input!r}, expected texts: train it with "
            "input='content'"
        )
    is_word = vectorizer.analyzer == "word"
    if is_word and not _PATTERN.match(vectorizer.token_pattern):
        raise ExportError(
            f"step {path!r} has the token_pattern {vectorizer.token_pattern!r}, expected one class "
            r"of characters: use (?u)\b\w\w+\b, \S+ or [a-z]+, for example"
        )
    stop = vectorizer.get_stop_words() if is_word else None
    known = {token for term in grams(vectorizer) for token in term}
    if not known:
        raise ExportError(f"step {path!r} has an empty vocabulary: train it again with more texts")
    return Tokens(
        vectorizer.analyzer,
        bool(vectorizer.lowercase),
        vectorizer.strip_accents or None,
        vectorizer.token_pattern if is_word else None,
        tuple(sorted(stop or ())),
        tuple(sorted(known)),
    )


def grams(vectorizer: Any) -> dict[tuple[str, ...], int]:
    """Sequence of tokens → feature, for the terms of the vocabulary that the vectorizer can
    count."""
    least, most = vectorizer.ngram_range
    is_word = vectorizer.analyzer == "word"
    found = {}
    for term, feature in vectorizer.vocabulary_.items():
        parts = tuple(term.split(" ")) if is_word else tuple(term)
        if not parts:
            continue
        is_short_word = (
            vectorizer.analyzer == "char_wb"
            and len(parts) < least
            and len(parts) > 1
            and parts[0] == parts[-1] == " "
        )
        if least <= len(parts) <= most or is_short_word:
            found[parts] = int(feature)
    return found


def with_texts(schema: Schema, anatomy: Anatomy, frame: pd.DataFrame) -> Schema:
    """Choose the texts that the rows of the proof hold: those of the data, and others made of
    them.

    Raises:
        ExportError: a token of one of them differs from the registered vectorizer's.
    """
    labels = {str(label): label for label in frame.columns}
    columns = {}
    for i, steps in _vectorizers(anatomy).items():
        column = schema.columns[i]
        series = frame[labels[column.name]] if column.name in labels else frame.iloc[:, 0]
        seen = list(dict.fromkeys(t for t in series.tolist() if isinstance(t, str)))
        columns[i] = _with_pool(column, seen, steps)
    return schema.with_columns(columns)


def _vectorizers(anatomy: Anatomy) -> dict[int, list[Step]]:
    """Column → the vectorizers that read it."""
    found: dict[int, list[Step]] = {}
    for branch in anatomy.leaves():
        if branch.vectorizer is not None and branch.vectorizer not in found.get(
            branch.columns[0], []
        ):
            found.setdefault(branch.columns[0], []).append(branch.vectorizer)
    return found


def _with_pool(column: Column, seen: list[str], steps: list[Step]) -> Column:
    if column.text is None or not seen:
        raise ExportError(f"the data holds no text in column {column.name!r}: give --data with it")
    longest = min(_LONGEST, max(_SHORTEST, _ROOM * max(map(len, seen))))
    slots = longest // 2 + 1 if column.text.analyzer == "word" else longest
    if column.text.analyzer == "char_wb":
        slots = min(_LONGEST, 3 * longest)
    text = replace(column.text, max_length=longest, slots=slots)
    pool = dict.fromkeys(seen[:_MOST_TEXTS])
    for _, vectorizer in steps:
        pool |= dict.fromkeys(_derived(seen, vectorizer, text))
    kept = tuple(t for t in pool if text.accepts(t))
    for path, vectorizer in steps:
        _compare(path, vectorizer, text, kept)
    return replace(column, text=text, categories=kept)


def _derived(seen: list[str], vectorizer: Any, text: Tokens) -> Iterator[str]:
    """Texts unlike those of the data: other letters, spaces and marks, terms in another order, and
    every term of the vocabulary."""
    rng = np.random.default_rng(22)
    yield from (*_PLAIN, *_UNICODE, "a" * text.max_length, "a " * (text.max_length // 2))
    some = [seen[i] for i in rng.permutation(len(seen))[:200]]
    for number, one in enumerate(some):
        mark = (*_UNICODE, *_PLAIN)[number % (len(_UNICODE) + len(_PLAIN))]
        yield from (one.upper(), one.title(), one[::-1], one + mark, mark + one)
        yield one.replace(" ", ("-", "  ", "\n", "_", ", ", "")[number % 6])
        yield f"{one} {some[-number]}"
    terms = list(vectorizer.vocabulary_)[:_MOST_TERMS]
    for order in (np.arange(len(terms)), rng.permutation(len(terms))):
        for start in range(0, len(terms), _TERMS_PER_TEXT):
            yield " ".join(terms[j] for j in order[start : start + _TERMS_PER_TEXT])
    yield from text.stop_words


def _compare(path: str, vectorizer: Any, text: Tokens, pool: tuple[str, ...]) -> None:
    """Refuse a vectorizer that cuts a text otherwise than the bundle's format.

    Raises:
        ExportError: names the first token that differs.
    """
    if text.analyzer != "word":
        return  # single characters; the proof compares the counts
    prepare, cut = vectorizer.build_preprocessor(), vectorizer.build_tokenizer()
    stop = vectorizer.get_stop_words() or ()
    for one in pool:
        theirs = [token for token in cut(prepare(one)) if token not in stop]
        ours = text.cut(one)
        if theirs != ours:
            pairs = zip([*theirs, ""], [*ours, ""], strict=False)
            token, own = next(pair for pair in pairs if pair[0] != pair[1])
            raise ExportError(
                f"step {path!r} cuts a text into other tokens than a bundle can: {token!r} in "
                f"place of {own!r}; train with the default token_pattern"
            )
