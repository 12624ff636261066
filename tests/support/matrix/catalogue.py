"""All models of the matrix, by name."""

from functools import cache

from support.matrix import boosted, estimators, others, pipelines, practice
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
        *practice.logging(),
        *practice.labels(),
        *others.cases(),
    ]
    found = {case.name: case for case in every}
    assert len(found) == len(every), "two models of one name"
    return found


def short() -> list[str]:
    """The names of a third of them, of every kind."""
    by_kind: dict[str, list[str]] = {}
    for case in cases().values():
        by_kind.setdefault(case.kind, []).append(case.name)
    return [name for names in by_kind.values() for name in names[::_EVERY]]


_EVERY = 4
"""Of each kind every fourth model: at least 60."""
