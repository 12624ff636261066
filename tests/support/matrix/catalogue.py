"""All models of the matrix, by name."""

from collections.abc import Sequence
from functools import cache

from support.matrix import boosted, estimators, neighbours, others, pipelines, practice
from support.matrix.case import Case


@cache
def cases() -> dict[str, Case]:
    """Name → case, in the order of the table in docs/export.md."""
    every = [
        *estimators.cases(),
        *pipelines.steps(),
        *pipelines.tables(),
        *boosted.cases(),
        *practice.wrapped(),
        *neighbours.cases(),
        *practice.logging(),
        *practice.labels(),
        *others.cases(),
    ]
    found = {case.name: case for case in every}
    assert len(found) == len(every), "two models of one name"
    return found


def short() -> list[str]:
    """The names of a quarter of them, of every kind."""
    by_kind: dict[str, list[str]] = {}
    for case in cases().values():
        by_kind.setdefault(case.kind, []).append(case.name)
    return [name for names in by_kind.values() for name in names[::_EVERY]]


def at_defaults(names: Sequence[str]) -> set[str]:
    """Of these models every tenth, and every one of text: they are exported as `just export` does
    it, without a flag that changes the proof. What only the defaults do is found in no other."""
    texts = (name for name in names if cases()[name].kind == pipelines.TEXT)
    return {*names[::_AT_DEFAULTS], *texts}


_EVERY = 4
"""Of each kind every fourth model: at least 60."""
_AT_DEFAULTS = 10
"""All of them would take much longer: a proof of 100,000 rows takes seconds to a minute."""
