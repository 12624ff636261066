"""The table of the 17 validity rules. Each is a pure function: what was recorded, and the
thresholds → checks.

A rule holds when every check does; a check of something that was not recorded does not hold.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from loadlab.record.read import Log
from loadlab.verdict import of_answers, of_generator, of_machine, of_server
from loadlab.verdict.check import Check, observed
from loadlab.verdict.criteria import Thresholds


@dataclass(frozen=True)
class Rule:
    """One rule: its name, what it is for, and how it is looked at."""

    name: str
    title: str
    why: str
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


RULES = (
    Rule(
        "V1",
        "users",
        "The users that the claim counts were there: all of them, on time, and none died.",
        of_generator.users,
    ),
    Rule(
        "V2", "generator CPU", "A generator that has no CPU left measures itself.", of_generator.cpu
    ),
    Rule(
        "V3",
        "loop lag",
        "A generator that looks late sees answers late, and calls it latency.",
        of_generator.loop_lag,
    ),
    Rule(
        "V4",
        "achieved rate",
        "N users who think Z and wait R make N / (Z + R) requests a second, or some did nothing.",
        of_generator.rates,
    ),
    Rule(
        "V5",
        "host",
        "CPU that others take, the hypervisor or the generator, is not the server's to use.",
        of_machine.host,
    ),
    Rule(
        "V6", "quiet", "Other processes on the machine change what is measured.", of_machine.quiet
    ),
    Rule(
        "V7",
        "connections",
        "One kept connection per user, or it is another workload: reconnecting costs both sides.",
        of_machine.connections,
    ),
    Rule(
        "V8",
        "queues",
        "A connection that the kernel drops waits seconds, and no server log shows it.",
        of_machine.queues,
    ),
    Rule(
        "V9",
        "resources",
        "Ports, files and memory that run out look like a slow server.",
        of_machine.resources,
    ),
    Rule(
        "V10",
        "workers",
        "A worker that is lost takes its users and its figures with it.",
        of_generator.workers,
    ),
    Rule(
        "V11",
        "limit in force",
        "A limit that was asked for may not be in force: it is read back.",
        of_server.limits,
    ),
    Rule("V12", "samples", "A p99 of a few hundred answers is a rumour.", of_answers.samples),
    Rule(
        "V13",
        "steady",
        "Figures of a load that still settles, or drifts, are of no state at all.",
        of_answers.steady,
    ),
    Rule(
        "V14",
        "answers checked",
        "An answer that was not checked may be wrong; wrong ones are the objective's errors.",
        of_answers.checked,
    ),
    Rule(
        "V15",
        "no caching",
        "One body for all users must not be much cheaper: otherwise a cache was measured.",
        of_server.caching,
    ),
    Rule(
        "V16",
        "witness",
        "A client independent of the generator saw the same latencies.",
        of_answers.witness,
    ),
    Rule(
        "V17",
        "floor",
        "A server that does nothing, measured the same way, must be far below the objective.",
        of_answers.floor,
    ),
)


def judge_rules(log: Log) -> list[Finding]:
    """Every rule's finding, in order."""
    thresholds = log.run.criteria.rules
    return [
        Finding(
            rule=rule.name,
            title=rule.title,
            checks=observed(rule.look(log, thresholds), log.run.observed),
        )
        for rule in RULES
    ]
