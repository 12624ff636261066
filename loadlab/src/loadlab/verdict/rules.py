"""The table of the 17 validity rules. Each is a pure function: what was recorded, and the
thresholds → checks. Their words are in `rules.toml`.

A rule holds when every check does; a check of something that was not recorded does not hold.
"""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from loadlab.record.schema import LoadEngine, Thresholds
from loadlab.record.store import Log
from loadlab.verdict import load, machine, steadiness
from loadlab.verdict.check import Check, State, observed


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: its words, and how it is looked at."""

    name: str
    title: str
    why: str
    broken: str
    """What was wrong with a measurement that breaks it."""
    remedy: str
    """What to do then."""
    raw: str = ""
    """What to do instead where the raw engine drove the load, which is one process."""
    spares: str = ""
    """Why not both verdicts need all of it."""
    look: Callable[[Log, Thresholds], list[Check]]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule says of a run."""

    rule: str
    title: str
    checks: list[Check]

    @property
    def holds(self) -> bool:
        """Whether every check does."""
        return all(check.holds for check in self.checks)

    @property
    def state(self) -> State:
        """`broken` if any check is; `holds` if any does; else why none was made."""
        states = [check.state for check in self.checks]
        first: tuple[State, ...] = ("broken", "holds", "not observable")
        return next((state for state in first if state in states), "not tested")

    @property
    def unseen(self) -> bool:
        """Whether a part of it, or all, needs what the lab could not read."""
        return any(not check.observable for check in self.checks)

    @property
    def allows_pass(self) -> bool:
        """Whether every check that a PASS needs holds."""
        return all(check.holds for check in self.checks if check.pass_needs)

    @property
    def allows_fail(self) -> bool:
        """Whether every check that a FAIL needs holds: generator and machine are not at fault."""
        return all(check.holds for check in self.checks if check.fail_needs)

    @property
    def sentence(self) -> str:
        """One line: the checks that do not hold, or all of them."""
        shown = [check for check in self.checks if not check.holds] or self.checks
        return f"{self.rule} {self.title}: {'; '.join(check.text for check in shown)}"


_LOOK: dict[str, Callable[[Log, Thresholds], list[Check]]] = {
    "V1": load.users,
    "V2": load.cpu,
    "V3": load.loop_lag,
    "V4": load.rates,
    "V5": machine.host,
    "V6": machine.quiet,
    "V7": machine.connections,
    "V8": machine.queues,
    "V9": machine.resources,
    "V10": load.workers,
    "V11": machine.limits,
    "V12": load.samples,
    "V13": steadiness.steady,
    "V14": load.checked,
    "V15": load.caching,
    "V16": load.witness,
    "V17": load.floor,
}
_WORDS = tomllib.loads(Path(__file__).with_name("rules.toml").read_text())
RULES = tuple(Rule(name=name, look=look, **_WORDS[name]) for name, look in _LOOK.items())
_BY_NAME = {rule.name: rule for rule in RULES}


def in_words(name: str) -> str:
    """What a broken rule says of a measurement, and its name: `the load was not steady (V13)`."""
    return f"{_BY_NAME[name].broken} ({name})"


def remedies(findings: Sequence[Finding], engine: LoadEngine) -> str:
    """What to do about broken rules, as a sentence."""
    rules = [_BY_NAME[finding.rule] for finding in findings]
    steps = dict.fromkeys((engine == "raw" and rule.raw) or rule.remedy for rule in rules)
    return f"What to do: {'; '.join(steps)}; then run again."


def counted(findings: Sequence[Finding]) -> str:
    """How many rules hold, in words; those that could not be looked at are named."""
    rules: dict[State, list[str]] = {}
    for finding in findings:
        rules.setdefault(finding.state, []).append(finding.rule)
    unknown: tuple[State, ...] = ("not observable", "not tested")
    shown = [(rules[state], state) for state in unknown if state in rules]
    more = [f"{len(names)} {state} ({', '.join(names)})" for names, state in shown]
    return ", ".join([f"{len(rules.get('holds', []))} of {len(findings)} rules hold", *more])


def judge_rules(log: Log) -> list[Finding]:
    """Every rule's finding, in order."""
    thresholds, by_lab = log.run.criteria.rules, log.run.observed
    return [
        Finding(
            rule=rule.name,
            title=rule.title,
            checks=observed(rule.look(log, thresholds), by_lab),
        )
        for rule in RULES
    ]
