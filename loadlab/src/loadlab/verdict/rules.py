"""The table of the 17 validity rules. Each is a pure function: what was recorded, and the
thresholds → checks.

A rule holds when every check does; a check of something that was not recorded does not hold.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from loadlab.record.criteria import Thresholds
from loadlab.record.read import Log
from loadlab.verdict import caching, load, machine, steadiness
from loadlab.verdict.check import Check, observed


class Rule(NamedTuple):
    """One rule."""

    name: str
    title: str
    why: str
    look: Callable[[Log, Thresholds], list[Check]]
    broken: str
    """What was wrong with a measurement that breaks it, in words."""
    remedy: str
    """What to do then."""
    spares: str = ""
    """Why not both verdicts need all of it."""


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


_DROWNS = "a server that drowns breaks this by itself"
_BETTER = "it can only make the figures better"
RULES = (
    Rule(
        "V1",
        "users",
        "The users that the claim counts were there: all of them, on time, and none died.",
        load.users,
        "users were missing, late or died",
        "look into the generator's log for errors, or start fewer users a second (`rate=`)",
        "fewer users make the figures better",
    ),
    Rule(
        "V2",
        "generator CPU",
        "A generator that has no CPU left measures itself.",
        load.cpu,
        "the generator had no CPU left",
        "give the generator more processes (`workers=`), or use `engine=raw`",
    ),
    Rule(
        "V3",
        "loop lag",
        "A generator that looks late sees answers late, and calls it latency.",
        load.loop_lag,
        "the generator looked late at answers",
        "stop what else runs on the generator's cores, or give it more processes (`workers=`)",
        "one late look adds to the latencies that it sees",
    ),
    Rule(
        "V4",
        "achieved rate",
        "N users who think Z and wait R make N / (Z + R) requests a second, or some did nothing.",
        load.rates,
        "the users did not send what they should have",
        "run longer (`duration=`), or give the generator more processes (`workers=`)",
        _DROWNS,
    ),
    Rule(
        "V5",
        "host",
        "CPU that others take, the hypervisor or the generator, is not the server's to use.",
        machine.host,
        "the hypervisor or the generator took the server's CPU",
        "use a machine that is not shared, with a core more than the server's for the generator",
        "CPU that is stolen is the server's loss",
    ),
    Rule(
        "V6",
        "quiet",
        "Other processes on the machine change what is measured.",
        machine.quiet,
        "other processes used the machine",
        "stop the other processes on the machine",
        "what others use is the server's loss",
    ),
    Rule(
        "V7",
        "connections",
        "One kept connection per user, or it is another workload: reconnecting costs both sides.",
        machine.connections,
        "connections were not kept",
        "find out who closes connections, the server or a proxy, and stop other programs that "
        "open many",
    ),
    Rule(
        "V8",
        "queues",
        "A connection that the kernel drops waits seconds, and no server log shows it.",
        machine.queues,
        "the kernel dropped connections or packets",
        "raise net.core.somaxconn and the server's backlog, or start fewer users a second "
        "(`rate=`)",
        f"{_DROWNS}; retransmits delay answers",
    ),
    Rule(
        "V9",
        "resources",
        "Ports, files and memory that run out look like a slow server.",
        machine.resources,
        "ports, files or memory ran out",
        "raise the limit that `just load-doctor` names, or free memory",
        "swapping delays answers",
    ),
    Rule(
        "V10",
        "workers",
        "A worker that is lost takes its users and its figures with it.",
        load.workers,
        "a process of the generator was lost",
        "look into the generator's log, or give it more processes (`workers=`)",
    ),
    Rule(
        "V11",
        "limit in force",
        "A limit that was asked for may not be in force: it is read back.",
        machine.limits,
        "the server was not in its limits",
        "let `just load-doctor` say whether control groups can be written and read",
    ),
    Rule(
        "V12",
        "samples",
        "A p99 of a few hundred answers is a rumour.",
        load.samples,
        "there were too few answers for a p99",
        "run longer (`duration=`), or with more users",
        _DROWNS,
    ),
    Rule(
        "V13",
        "steady",
        "Figures of a load that still settles, or drifts, are of no state at all.",
        steadiness.steady,
        "the load was not steady",
        "run longer (`duration=`); if p95 still grows, find what grows in the server",
        _DROWNS,
    ),
    Rule(
        "V14",
        "answers checked",
        "An answer that was not checked may be wrong; wrong ones are the objective's errors.",
        load.checked,
        "answers were not checked",
        "let the lab read the model's bundle, so that it knows the right answers",
        _BETTER,
    ),
    Rule(
        "V15",
        "no caching",
        "Bodies sent before must not be much cheaper than new ones: else a cache was measured.",
        caching.caching,
        "answers may be from a cache",
        "turn off the server's cache of answers, or disclose it; without one, use a quieter "
        "machine or a longer run",
        _BETTER,
    ),
    Rule(
        "V16",
        "witness",
        "A client independent of the generator saw the same latencies.",
        load.witness,
        "an independent client saw other latencies",
        "stop what else runs on the generator's cores, or give it more processes (`workers=`)",
        "it counts against a PASS where the witness was slower, against a FAIL where it was faster",
    ),
    Rule(
        "V17",
        "floor",
        "A server that does nothing, measured the same way, must be far below the objective.",
        load.floor,
        "the null server was too slow",
        "use a faster or quieter machine, or an objective that it can measure",
        "the null server's latency is part of every latency",
    ),
)
_BY_NAME = {rule.name: rule for rule in RULES}


def in_words(name: str) -> str:
    """What a broken rule says of a measurement, with its number: `the load was not steady
    (V13)`."""
    return f"{_BY_NAME[name].broken} ({name})"


def remedies(findings: list[Finding]) -> str:
    """What to do about broken rules, as a sentence."""
    steps = dict.fromkeys(_BY_NAME[finding.rule].remedy for finding in findings)
    return f"What to do: {'; '.join(steps)}; then run again."


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
