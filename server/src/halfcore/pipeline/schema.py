"""A model's inputs: what a row must look like, and how it becomes bytes.

A row is packed when it is decoded: the client's values, in the manifest's order, become the
little-endian numbers of one matrix row. A row that cannot be packed is refused then, so no bad row
reaches a batch; and a batch is `b"".join(rows)`, because nothing is left to convert.

A feature catalogue may narrow what a column accepts and give a default for an absent one (`Rule`);
it never changes how a value is packed.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from halfcore.bundle import Ignored, Input, Manifest, Scalar
from halfcore.pipeline.codes import coded, codes_of
from halfcore.pipeline.text import Tokenizer

_T = TypeVar("_T")
NUMPY_TYPES = {"float32": "<f4", "float64": "<f8"}
_STRUCT_CODES = {"float32": "f", "float64": "d"}
_JSON_TYPES = {"number": float, "integer": int, "boolean": bool}
_IGNORED_TYPE = str | int | float | bool | None
_IMPOSSIBLE = Annotated[int, Meta(ge=1, le=0)]
"""A type that no value has."""
LARGEST = {"float32": 3.4028235e38, "float64": 1.7976931348623157e308}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What a feature catalogue adds to a column; a field that is unset or None adds nothing."""

    default: Scalar | UnsetType = UNSET
    """The column's value in a record that lacks it."""
    minimum: int | float | None = None
    maximum: int | float | None = None
    """Bounds of a number, both inclusive; integers for an integer column."""
    categories: tuple[str | int, ...] | None = None
    """The allowed ones of the model's categories."""

    def range_text(self) -> str | None:
        """The bounds in words; None if there are none."""
        if self.minimum is None:
            return None if self.maximum is None else f"at most {_short(self.maximum)}"
        return (
            f"at least {_short(self.minimum)}"
            if self.maximum is None
            else f"between {_short(self.minimum)} and {_short(self.maximum)}"
        )

    def clamp(self, value: float) -> float:
        """The allowed number that is nearest to a value."""
        if self.minimum is not None and value < self.minimum:
            return self.minimum
        return self.maximum if self.maximum is not None and value > self.maximum else value


_NO_RULE = Rule()


class Schema:
    """The inputs of one model version; immutable.

    Args:
        inputs: the model's columns in order.
        dtype: `float32` or `float64`, the type of the packed values.
        rules: column name → what a catalogue adds; `catalog` has checked that it fits the column.
        ignored: columns that a record may hold and that the model does not read.

    Attributes:
        inputs: the columns in order, with only the categories and an example that the rules
            allow.
        rules: as given.
        defaults: column index → value of an absent column.
        ignored: names of the columns that are accepted and not read.
        width: values in a packed row: one for each column, several for a text.
        places: the first value of each column in a packed row.
        row_bytes: length of a packed row.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        dtype: str,
        rules: Mapping[str, Rule] | None = None,
        ignored: Sequence[Ignored] = (),
    ) -> None:
        self.rules = dict(rules or {})
        self._narrowed = {
            column.name: _within(column, self.rules.get(column.name, _NO_RULE)) for column in inputs
        }
        self._unknown = {
            column.name: column.accepts_unknown and self.rule(column.name).categories is None
            for column in inputs
        }
        self.inputs = tuple(_ruled(column, self.rule(column.name)) for column in inputs)
        self._packed_inputs = tuple(inputs)
        self.defaults = {
            i: rule.default
            for i, column in enumerate(inputs)
            if (rule := self.rule(column.name)).default is not UNSET
        }
        self.names = tuple(column.name for column in inputs)
        self.ignored = tuple(column.name for column in ignored)
        self.dtype = dtype
        self._tokenizers = {
            i: Tokenizer(column.text) for i, column in enumerate(inputs) if column.text is not None
        }
        widths = [column.text.slots if column.text else 1 for column in inputs]
        self.width = sum(widths)
        self.places = [0, *accumulate(widths)][:-1]
        self._number = struct.Struct("<" + _STRUCT_CODES[dtype])
        self._packer = struct.Struct(f"<{self.width}{_STRUCT_CODES[dtype]}")
        self.row_bytes = self._packer.size
        self.largest = LARGEST[dtype]
        self.codes: tuple[dict[Any, float] | None, ...] = tuple(
            codes_of(column, narrowed.categories, unknown=self.accepts_unknown(column.name))
            for column, narrowed in zip(inputs, self.inputs, strict=True)
        )
        self._plain = not (self._tokenizers or any(codes is not None for codes in self.codes))
        self.text_columns = tuple(i for i, column in enumerate(inputs) if _is_text(column))
        self._derived: dict[Callable[[Schema], Any], Any] = {}

    @classmethod
    def of(cls, manifest: Manifest) -> "Schema":
        """The schema that a manifest describes."""
        return cls(manifest.inputs, manifest.dtype, ignored=manifest.ignored)

    def derived(self, make: "Callable[[Schema], _T]") -> _T:
        """What `make` makes of this schema: made at the first call, then kept with the schema."""
        made = self._derived.get(make)
        if made is None:
            made = self._derived[make] = make(self)
        value: _T = made
        return value

    def pack(self, values: Sequence[Any]) -> bytes:
        """Turn one row of JSON values into matrix bytes.

        Args:
            values: one value per column, in order, already of its JSON type; values of ignored
                columns may follow.

        Returns:
            `row_bytes` bytes: a category as its index, null as NaN or as the index after the last
                category.

        Raises:
            KeyError: an unknown category or null where it is not allowed, or a text that is too
                long.
            struct.error, TypeError: not a number, or the wrong count.
            OverflowError: too large for the dtype.
        """
        if self.ignored:
            values = values[: len(self.inputs)]
        if self._plain:
            return self._packer.pack(*values)
        if self._tokenizers:
            return self._packer.pack(*self._with_tokens(values))
        return self._packer.pack(
            *[
                value if codes is None else codes[value]
                for codes, value in zip(self.codes, values, strict=True)
            ]
        )

    def pack_rows(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """`pack` for many rows, column by column: a quarter of the time where columns have
        categories, half of it elsewhere.

        Args:
            rows: see `pack`; all of the same length.

        Raises:
            KeyError, struct.error, TypeError, OverflowError: see `pack`; any row may be the cause.
        """
        if self._tokenizers:  # a text becomes several numbers
            return b"".join(map(self.pack, rows))
        if not self._plain or self.ignored:
            columns = map(coded, self.codes, zip(*rows, strict=True))
            rows = list(zip(*columns, strict=True))
        numbers = struct.Struct(f"<{len(rows) * self.width}{_STRUCT_CODES[self.dtype]}")
        return numbers.pack(*chain.from_iterable(rows))

    def pack_column(self, index: int, values: Sequence[Any]) -> bytes:
        """Values of one column, packed; raises as `pack_rows`, and KeyError for a text, which
        becomes several numbers."""
        if index in self._tokenizers:
            raise KeyError(index)
        numbers = struct.Struct(f"<{len(values)}{_STRUCT_CODES[self.dtype]}")
        return numbers.pack(*coded(self.codes[index], values))

    def records(self, payload: bytes) -> list[dict[str, Scalar]]:
        """Packed rows as records again: a category for its index, null for NaN and for what cannot
        be restored, a text or an unknown category.

        Args:
            payload: rows of `row_bytes` bytes.
        """
        places, at = [], 0
        for column in self._packed_inputs:
            known = dict(enumerate(column.categories)) if column.categories else None
            places.append((column, {} if column.text else known, at))
            at += column.text.slots if column.text else 1
        return [
            {column.name: _value(column, known, row[i]) for column, known, i in places}
            for row in self._packer.iter_unpack(payload)
        ]

    def _with_tokens(self, values: Sequence[Any]) -> list[float]:
        packed: list[float] = []
        for i, (codes, value) in enumerate(zip(self.codes, values, strict=True)):
            if (tokenizer := self._tokenizers.get(i)) is not None:
                packed += tokenizer.pack(value)
            else:
                packed.append(value if codes is None else codes[value])
        return packed

    def tokens(self, index: int, value: str) -> list[float]:
        """A text of column `index`, packed: a number for each of its slots; raises `KeyError` if it
        is too long."""
        return self._tokenizers[index].pack(value)

    def is_right_text(self, index: int, value: str) -> bool:
        """Whether a text of column `index` is not too long, in characters and in tokens."""
        try:
            self._tokenizers[index].pack(value)
        except KeyError:
            return False
        return True

    def accepts_unknown(self, name: str) -> bool:
        """Whether a column accepts values outside its categories; a rule with categories ends
        that."""
        return self._unknown[name]

    def ignored_quotes(self, values: Sequence[Any]) -> int:
        """The number of quotes that a body has for the ignored columns of one record: two for each
        name, and two for each text.

        Args:
            values: of `record_type`, in order.
        """
        sent = [value for value in values[len(self.inputs) :] if value is not UNSET]
        return 2 * len(sent) + 2 * sum(isinstance(value, str) for value in sent)

    def rule(self, name: str) -> Rule:
        """What a column may hold: the catalogue's rule, within the domain for which the bundle was
        proven."""
        return self._narrowed[name]

    def fits(self, value: float) -> bool:
        """Whether a number is finite in the dtype. Python reads 1e999 as infinity, and `struct`
        packs it."""
        try:
            self._number.pack(value)
        except (OverflowError, struct.error):  # the first for a float, the second for an integer
            return False
        return math.isfinite(value)

    def json_type(self, index: int) -> Any:
        """The Python type that msgspec decodes column `index` as."""
        column = self.inputs[index]
        kind: Any = str if _is_text(column) else _JSON_TYPES.get(column.kind, int)
        rule = self.rule(column.name)
        if rule.range_text():
            kind = Annotated[kind, Meta(ge=rule.minimum, le=rule.maximum)]
        return kind | None if column.nullable else kind

    def row_type(self) -> Any:
        """The msgspec type of one features vector: a tuple with one type per column."""
        types = [self.json_type(i) for i in range(len(self.inputs))]
        return tuple[tuple(types)]  # type: ignore[misc]

    def record_type(self) -> type[msgspec.Struct]:
        """The msgspec type of one named record: the columns' fields in order, then the ignored
        columns'.

        Unknown and missing names are errors; a column with a default and an ignored column are
        UNSET if they are absent. A name that msgspec does not support (`_is_plain`) gets a field
        that no value fits: such records go to the explaining decoder.
        """
        longest = max(map(len, self.names))
        fields: list[Any] = []
        names: dict[str, str] = {}
        for i, name in enumerate(self.names):
            plain = _is_plain(name)
            # The substitute is longer than every name, so it equals none.
            names[f"f{i}"] = name if plain else f"{'_' * longest}{i}"
            kind = self.json_type(i) if plain else _IMPOSSIBLE
            fields.append(
                (f"f{i}", kind | UnsetType, UNSET) if i in self.defaults else (f"f{i}", kind)
            )
        for i, name in enumerate(filter(_is_plain, self.ignored)):
            names[f"i{i}"] = name
            fields.append((f"i{i}", _IGNORED_TYPE | UnsetType, UNSET))
        rename: Callable[[str], str] = names.__getitem__
        return msgspec.defstruct(
            "Record", fields, rename=rename, forbid_unknown_fields=True, kw_only=True, gc=False
        )


def _is_plain(name: str) -> bool:
    """Whether msgspec accepts a field's name: JSON needs no escape in it."""
    return not any(character < " " or character in '"\\' for character in name)


def _value(column: Input, texts: dict[int, str | int] | None, number: float) -> Scalar:
    """The JSON value of a packed number."""
    if texts is not None:
        return texts.get(int(number))
    if math.isnan(number):
        return None
    kinds: dict[str, Callable[[float], Scalar]] = {"integer": int, "boolean": bool}
    return kinds.get(column.kind, float)(number)


def _ruled(column: Input, rule: Rule) -> Input:
    """The column with the rule applied: its categories, and an example that is legal."""
    if rule == _NO_RULE:
        return column
    categories = list(rule.categories) if rule.categories is not None else column.categories
    example = column.example
    if categories and example is not None and example not in categories:
        example = categories[0]
    elif isinstance(example, int | float):
        example = rule.clamp(example)
    return msgspec.structs.replace(column, categories=categories, example=example)


def _within(column: Input, rule: Rule) -> Rule:
    """The rule, its bounds cut to the column's domain."""
    if column.domain is None:
        return rule
    low, high = column.domain
    minimum = low if rule.minimum is None else max(rule.minimum, low)
    maximum = high if rule.maximum is None else min(rule.maximum, high)
    return msgspec.structs.replace(rule, minimum=minimum, maximum=maximum)


def _short(bound: float) -> str:
    """A bound as a person would write it."""
    return str(int(bound)) if bound == int(bound) and abs(bound) < 1e15 else repr(bound)


def _is_text(column: Input) -> bool:
    if column.text is not None:
        return True
    return column.categories is not None and isinstance(column.categories[0], str)
