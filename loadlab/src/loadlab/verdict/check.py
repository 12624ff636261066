"""One comparison of a measured value with its limit: what rules and objective are made of."""

from collections.abc import Iterable
from typing import Literal

import msgspec

Unit = Literal["", "share", "ms", "s", "cores"]
State = Literal["holds", "broken", "not observable", "not tested"]
"""Of a check or a rule. Of the last two nothing is concluded: they forbid no verdict."""


class Check(msgspec.Struct, frozen=True):
    """Measured against its limit."""

    what: str
    measured: float | None
    """None: not recorded, and so it does not hold."""
    limit: float
    unit: Unit = ""
    at_least: bool = False
    """The limit is the smallest value allowed, not the largest."""
    pass_needs: bool = True
    """A PASS needs this. False: what it guards against can only make the figures worse, so an
    objective that is met in spite of it is met."""
    fail_needs: bool = True
    """A FAIL needs this: if it does not hold, the generator or the machine may be at fault."""
    of_server: bool = False
    """It needs the server's own counters, which only a lab that started the server can read."""
    observable: bool = True
    """False: it needs the server's counters, and the server was given with `target=`. Then nothing
    is concluded from it, and the verdict says so."""
    note: str = ""
    """Why a number would say nothing: nothing is concluded, and the verdict says so."""

    @property
    def holds(self) -> bool:
        """Whether it was measured and is within its limit, or nothing can be concluded from it."""
        if self.note or not self.observable:
            return True
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def state(self) -> State:
        """What a reader is shown: a check that was not made does not hold, nor is it broken."""
        if not self.observable:
            return "not observable"
        if self.note:
            return "not tested"
        return "holds" if self.holds else "broken"

    @property
    def text(self) -> str:
        """One phrase: what, value, limit; or why there is no value."""
        return self.note or f"{self.what} {self.value} ({self.bound})"

    @property
    def value(self) -> str:
        """The measured value with its unit."""
        if not self.observable:
            return "not observable"
        return "not recorded" if self.measured is None else show(self.measured, self.unit)

    @property
    def bound(self) -> str:
        """The limit with its sign."""
        return f"{'≥' if self.at_least else '≤'} {show(self.limit, self.unit)}"


def observed(checks: Iterable[Check], by_lab: bool) -> list[Check]:
    """The checks of a run; `by_lab`: the lab started the server, and could read its counters."""
    return [
        msgspec.structs.replace(check, observable=by_lab or not check.of_server) for check in checks
    ]


def show(value: float, unit: Unit) -> str:
    """A value as text: shares in per cent, numbers with their significant digits."""
    if unit == "share":
        percent = value * 100
        return f"{percent:.3g} %" if abs(percent) < 100 else f"{percent:.0f} %"
    number = f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()
