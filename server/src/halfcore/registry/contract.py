"""What clients of a model rely on, its columns and answers, and what a new version changes in them.

Compatible means: the version accepts every record that the version before accepted, and answers it
in the same form. A vector has no names, so more columns are compatible only if the columns are
named, and another order never is: a vector would be misread without an error.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from halfcore.bundle import Input, Manifest
from halfcore.models.served import LoadedModel
from halfcore.pipeline.schema import Schema
from halfcore.problem import listed

_MOST_ITEMS = 50


class SchemaChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a version changes when it replaces another one."""

    from_version: str
    compatible: bool
    added: list[str]
    """Columns, each with whether it is required."""
    removed: list[str]
    changed: list[str]
    """One sentence each, about a column, the columns' order or the answers."""

    def __str__(self) -> str:
        parts = [f"added {', '.join(self.added)}"] if self.added else []
        parts += [f"removed {', '.join(self.removed)}"] if self.removed else []
        return "; ".join([*parts, *self.changed])


@dataclass(frozen=True)
class Contract:
    """Compares each new version with the one that is served.

    Attributes:
        served: returns the model that answers now, if there is one.
        schema_of: returns a version's columns with the feature catalogue's rules for them.
        refuse: whether a version that is not compatible is refused.
    """

    served: Callable[[], LoadedModel | None]
    schema_of: Callable[[Manifest], Schema]
    refuse: bool

    def change(self, manifest: Manifest) -> SchemaChange | None:
        """What a version would change; None if nothing, or if no model is served yet."""
        served = self.served()
        if served is None:
            return None
        return compare(served.manifest, served.schema, manifest, self.schema_of(manifest))


class _Change(NamedTuple):
    """One difference."""

    text: str
    compatible: bool


def compare(before: Manifest, old: Schema, after: Manifest, new: Schema) -> SchemaChange | None:
    """What `after` changes for clients of `before`; None if nothing.

    Args:
        before: the version that is served.
        old: its columns, with the catalogue's rules.
        after: the version that is to replace it.
        new: its columns, with the catalogue's rules.
    """
    known, has_default = set(old.names), _defaults(new)
    added = [name for name in new.names if name not in known]
    taken = [*old.names, *old.ignored]
    kept = {*new.names, *new.ignored}
    removed = [name for name in taken if name not in kept]
    changes = [*_order(old.names, new.names), *_answers(before, after)]
    changes += _columns(old, new, named=before.named)
    if not (added or removed or changes):
        return None
    fills = not added or (before.named and has_default.issuperset(added))
    return SchemaChange(
        from_version=before.version,
        compatible=not removed and fills and all(change.compatible for change in changes),
        added=_cut([f'"{name}" ({_need(name in has_default)})' for name in added]),
        removed=_cut([f'"{name}"' for name in removed]),
        changed=_cut([change.text for change in changes]),
    )


def _columns(old: Schema, new: Schema, *, named: bool) -> Iterator[_Change]:
    """The differences of the columns that both versions have, or that the new one ignores."""
    columns, ignored = {column.name: column for column in new.inputs}, set(new.ignored)
    had, has = _defaults(old), _defaults(new)
    for column in old.inputs:
        name = column.name
        if name in columns:
            found = [*_column(column, old, columns[name], new), *_default(name in had, name in has)]
            for text, compatible in found:
                yield _Change(f'"{name}": {text}', compatible)
        elif name in ignored:
            yield _Change(f'"{name}": accepted, and not read any more', named)


def _need(has_default: bool) -> str:
    return "has a default" if has_default else "required"


def _defaults(schema: Schema) -> set[str]:
    """Names of the columns that a record may leave out."""
    return {schema.names[index] for index in schema.defaults}


def _cut(items: list[str]) -> list[str]:
    """At most `_MOST_ITEMS`, and how many more there are."""
    return (
        items
        if len(items) <= _MOST_ITEMS
        else [*items[:_MOST_ITEMS], f"… {len(items) - _MOST_ITEMS} more"]
    )


def _order(before: Sequence[str], after: Sequence[str]) -> Iterator[_Change]:
    both = set(before) & set(after)
    if [name for name in before if name in both] != [name for name in after if name in both]:
        yield _Change(
            f"the columns' order is {listed(list(after))}: a features vector means something else "
            "than before",
            False,
        )


def _answers(before: Manifest, after: Manifest) -> Iterator[_Change]:
    if before.task != after.task:
        yield _Change(f"the task is {after.task}, before it was {before.task}", False)
        return
    # As text: 1 and True are equal in Python, but different labels.
    old, new = ({str(label) for label in manifest.classes} for manifest in (before, after))
    if gone := sorted(old - new):
        yield _Change(f"classes are gone: {listed(gone)}", False)
    if more := sorted(new - old):
        yield _Change(f"classes are new: {listed(more)}", False)
    if before.outputs != after.outputs:
        has = "probabilities" in after.outputs
        yield _Change(f"answers have {'now' if has else 'no longer'} probabilities", has)
    if before.source.answers_probabilities != after.source.answers_probabilities:
        has = after.source.answers_probabilities
        yield _Change(f"/invocations answers {'probabilities' if has else 'labels'}", False)


def _column(before: Input, old: Schema, after: Input, new: Schema) -> Iterator[_Change]:
    """The differences of a column that both versions have."""
    if before.kind != after.kind:
        yield _Change(
            f"{after.kind}, before {before.kind}",
            (before.kind, after.kind) == ("integer", "number"),
        )
    if before.nullable != after.nullable:
        yield _Change(
            f"null is {'allowed' if after.nullable else 'no longer allowed'}", after.nullable
        )
    if before.accepts_unknown != after.accepts_unknown:
        now = "accepted" if after.accepts_unknown else "no longer accepted"
        yield _Change(f"unknown categories are {now}", after.accepts_unknown)
    if before.kind == after.kind == "category":
        yield from _categories(before, after)
    else:
        yield from _range(before, old, after, new)


def _default(had: bool, has: bool) -> Iterator[_Change]:
    if had != has:
        yield _Change("has a default" if has else "has no default any more", has)


def _categories(before: Input, after: Input) -> Iterator[_Change]:
    old, new = before.categories or [], after.categories or []
    known, kept = set(old), set(new)
    if gone := [value for value in old if value not in kept]:
        yield _Change(f"categories are gone: {listed(gone)}", False)
    if more := [value for value in new if value not in known]:
        yield _Change(f"categories are new: {listed(more)}", True)


def _range(before: Input, old: Schema, after: Input, new: Schema) -> Iterator[_Change]:
    was, now = old.rule(before.name), new.rule(after.name)
    if (was.minimum, was.maximum) == (now.minimum, now.maximum):
        return
    low = now.minimum is None or (was.minimum is not None and was.minimum >= now.minimum)
    high = now.maximum is None or (was.maximum is not None and was.maximum <= now.maximum)
    yield _Change(
        f"{now.range_text() or 'any number'}, before {was.range_text() or 'any number'}",
        low and high,
    )
