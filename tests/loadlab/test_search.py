"""The search: what it tries next, what it says, and that it goes on where it was killed."""

import io
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from loadlab.experiments import runner
from loadlab.experiments import searching as said
from loadlab.experiments.search import (
    Axis,
    Edge,
    Found,
    Goal,
    Probe,
    Search,
    Step,
    Try,
    Wish,
    decide,
    forecast,
    rerun_left,
)
from loadlab.experiments.searching import (
    NOTHING_PASSES,
    PASSED,
    UNDECIDED,
    Plan,
    end_of,
    judgement,
    order_of,
    parse,
    probe,
    to_run_again,
)
from loadlab.experiments.trial import LabFailed, Loaded
from loadlab.generator.plan import scenarios
from loadlab.pages import experiments
from loadlab.pages.plots import frontier
from loadlab.record import cgroup
from loadlab.record.schema import Ended, Phase
from loadlab.target.process import control_group
from loadlab.target.tiers import Tier
from loadlab.verdict.judge import judge
from loadlab.words import UsageError
from support import runs
from support.bundles import write_bundle
from support.examples import TIMES

CHECKOUT = Path(__file__).parents[2]
GOAL = Goal(most_centicores=100, most_mib=1024, full_s=120, short_s=30)
TIERS = {
    "one-core": Tier(name="one-core", cpus=1, memory_bytes=1 << 30, environment={"A": "b"}),
    "half-core": Tier(name="half-core", cpus=0.5, memory_bytes=512 << 20),
    "two-by-015": Tier(name="two-by-015", cpus=0.15, memory_bytes=256 << 20, replicas=2),
    "far-too-large": Tier(name="far-too-large", cpus=4096, memory_bytes=1 << 30),
}

Oracle = Callable[[Step, int], str]
"""What a step's run says; the number counts the probes."""


@pytest.fixture(scope="module")
def log():
    """A run of the lab, made up but whole."""
    return runs.made().log()


@pytest.fixture
def search(log):
    """A search without probes."""
    return Search(
        started_at="2026-01-02T03:04:05Z",
        command="just search users=10000",
        service="halfcore",
        tier="one-core",
        scenario="steady",
        users=10_000,
        model="iris",
        engine="raw",
        seed=1,
        goal=GOAL,
        fingerprint=log.run.fingerprint,
    )


@pytest.fixture
def probing(log):
    """Makes the carrying out of a step from an oracle; the server takes `cores` of CPU and `peak`
    MiB."""
    figures = judge(log).figures

    def make(
        oracle: Oracle, *, cores: float = 0.15, peak: float = 190.0
    ) -> Callable[[Step, int], Probe]:
        def probe(step: Step, number: int) -> Probe:
            said = oracle(step, number)
            could_start = said != "cannot start"
            return Probe(
                centicores=step.centicores,
                mib=step.mib,
                full=step.full,
                twice=step.twice,
                why=step.why,
                outcome=said if could_start else "FAIL",  # type: ignore[arg-type]
                could_start=could_start,
                sentence="All 17 rules hold." if said == "PASS" else f"Said {said}.",
                rules=["V13", "V5"] if said == "INVALID" else [],
                run=f"run-{number}",
                seconds=250.0 if step.full else 120.0,
                figures=msgspec.structs.replace(
                    figures, cpu_cores=cores, memory_peak_mib=min(peak, step.mib)
                )
                if could_start
                else None,
            )

        return probe

    return make


def needs(centicores: int, mib: int) -> Oracle:
    """A server that passes from these limits on."""
    return lambda step, _: "PASS" if step.centicores >= centicores and step.mib >= mib else "FAIL"


def searched(
    search: Search, probe: Callable[[Step, int], Probe], most: int = 200, budget_s: float = math.inf
) -> tuple[Search, Found]:
    """The whole search, or what fits into the budget; it must end within so many probes."""
    now = [0.0]
    plan = Plan(budget_s, 20, Console(quiet=True), lambda: now[0])
    while steps := plan.left(search):
        assert steps[0] == decide(search)
        done = probe(steps[0], len(search.rows) + 1)
        now[0] += done.seconds
        search = msgspec.structs.replace(search, rows=[*search.rows, done])
    assert len(search.rows) <= most
    assert now[0] <= budget_s
    return search, decide(search)  # type: ignore[return-value]  # or the step that did not fit


@pytest.mark.parametrize("centicores", [1, 3, 7, 12, 24, 51, 99, 100])
@pytest.mark.parametrize("mib", [20, 130, 208, 1024])
def test_a_server_without_chance_is_found_to_the_step(search, probing, centicores, mib):
    """The CPU limit to 0.02, memory to 16 MiB; the ends passed three times at full length, and what
    is named as failing failed."""
    whole, found = searched(search, probing(needs(centicores, mib)), most=40)

    assert found.minimum
    cpu, memory = found.minimum
    assert centicores <= cpu < centicores + 2
    assert mib <= memory < mib + 16 or (memory == 32 and mib == 20)
    assert [
        probe.outcome
        for probe in whole.rows
        if (probe.centicores, probe.mib, probe.full) == (cpu, memory, True)
    ] == ["PASS"] * 3
    if centicores > 1:
        assert found.cpu.fails in {cpu - 1, cpu - 2}
        assert any(
            probe.full
            for probe in whole.rows
            if (probe.centicores, probe.outcome) == (found.cpu.fails, "FAIL")
        )
    assert end_of(whole) == PASSED


def test_the_first_run_predicts_where_to_look(search, probing):
    """0.15 cores used are 0.21 at 70 %: the next usual size is 0.25, and from there the ladder goes
    down; then memory from the peak."""
    whole, _ = searched(search, probing(needs(12, 200), cores=0.15, peak=190))

    asked = [(probe.centicores, probe.mib, probe.full, probe.why) for probe in whole.rows]
    assert asked == [
        (100, 1024, False, "first"),
        (25, 1024, False, "as predicted"),
        (20, 1024, False, "bracket"),
        (15, 1024, False, "bracket"),
        (10, 1024, False, "bracket"),
        (12, 1024, False, "bisect"),
        (12, 1024, True, "edge, 1 of 3"),
        (12, 1024, True, "edge, 2 of 3"),
        (12, 1024, True, "edge, 3 of 3"),
        (10, 1024, True, "the failure, at full length"),
        (12, 224, False, "as predicted"),
        (12, 192, False, "bracket"),
        (12, 208, False, "bisect"),
        (12, 208, True, "edge, 1 of 3"),
        (12, 208, True, "edge, 2 of 3"),
        (12, 208, True, "edge, 3 of 3"),
        (12, 192, True, "the failure, at full length"),
    ]


def test_one_failure_of_three_moves_the_edge_up(search, probing):
    """A pass in a short run is not worth more than a failure in a long one."""
    failing = iter(["PASS", "PASS", "FAIL"])

    def unsteady(step: Step, number: int) -> str:
        if step.centicores == 12 and step.full and step.mib == 1024:
            return next(failing)
        return needs(12, 64)(step, number)

    whole, found = searched(search, probing(unsteady))

    assert found.cpu == Edge(13, 12)
    assert sum(probe.centicores == 12 for probe in whole.rows) == 4
    assert "0.12 CPU with 1,024 MiB" in said.sentences(whole)[0]
    assert "It passed in 3 of its 4 runs all the same." in said.sentences(whole)[1]


def test_a_short_run_that_failed_by_chance_stays_refuted_and_is_shown(search, probing):
    """It is repeated at full length; three passes do not undo a failure, and the sentence says
    them."""

    def unlucky(step: Step, number: int) -> str:
        return "FAIL" if step.centicores == 10 and not step.full else needs(5, 64)(step, number)

    whole, found = searched(search, probing(unlucky))

    assert found.cpu == Edge(12, 10)
    assert [probe.outcome for probe in whole.rows if probe.centicores == 10] == [
        "FAIL",
        "PASS",
        "PASS",
        "PASS",
    ]
    assert "It passed in 3 of its 4 runs all the same." in said.sentences(whole)[1]


def test_an_invalid_run_is_repeated_at_full_length(search, probing):
    """It neither passes nor fails: the second says what the first did not."""
    whole, found = searched(
        search,
        probing(
            lambda step, number: "INVALID" if number in {3, 8} else needs(12, 64)(step, number)
        ),
    )

    assert found.cpu == Edge(12, 10)
    assert [(probe.centicores, probe.full, probe.why) for probe in whole.rows][3] == (
        20,
        True,
        "again, for it was INVALID",
    )
    assert "INVALID, for or against nothing: 2 of" in " ".join(said.sentences(whole))


@pytest.mark.parametrize("third", ["PASS", "FAIL"])
def test_what_is_invalid_twice_is_decided_by_a_run_twice_as_long(search, probing, third):
    """It sees whether the trend goes on that made the others INVALID; a PASS of it counts."""
    left = ["INVALID", "INVALID", third]

    def drifting(step: Step, number: int) -> str:
        if step.centicores == 12 and step.mib == 1024 and left:
            return left.pop(0)
        return needs(11, 64)(step, number)

    whole, found = searched(search, probing(drifting))

    tries = [row for row in whole.rows if (row.centicores, row.mib) == (12, 1024)]
    assert [GOAL.steady_s(row) for row in tries[:3]] == [30, 120, 240]
    assert tries[2].why == "again, for it was INVALID twice"
    assert found.cpu == (Edge(12, 10) if third == "PASS" else Edge(13, 12))
    assert len(tries) == (5 if third == "PASS" else 3)


def test_what_is_invalid_three_times_is_neither_passed_nor_failed(search, probing):
    """It may not be claimed, so the minimum lies above; it is not the largest that fails either.
    The rules that kept it from a verdict are named."""
    whole, found = searched(
        search,
        probing(
            lambda step, number: "INVALID" if step.centicores == 12 else needs(11, 64)(step, number)
        ),
    )

    assert found.cpu == Edge(13, 10, (12,))
    assert sum(probe.centicores == 12 for probe in whole.rows) == 3
    sentences = said.sentences(whole)
    assert "largest that fails: 0.1 CPU with 1,024 MiB" in sentences[0]
    assert "Undecided, because INVALID 3 times in a row: 0.12 (V5, V13) CPU." in " ".join(sentences)


def test_what_is_invalid_with_ample_memory_is_the_cpu_limits_fault(search, probing):
    """A CPU limit that passes three times by chance and is INVALID the next times: the search goes
    on with more CPU, not memory."""
    shaky = probing(
        lambda step, number: (
            "INVALID" if step.centicores == 12 and step.mib == 256 else needs(12, 230)(step, number)
        )
    )
    whole, found = searched(search, shaky)

    assert found.minimum == (13, 240)
    assert found.cpu == Edge(13, 10, (12,))
    assert max(probe.mib for probe in whole.rows if probe.mib < 1024) == 256
    assert "Undecided, because INVALID 3 times in a row: 0.12 (V5, V13) CPU." in " ".join(
        said.sentences(whole)
    )


def test_what_is_invalid_with_little_memory_is_no_fault_of_the_cpu_limit(search, probing):
    """Below what the peak lets expect, memory may well be the reason."""
    thrashing = probing(
        lambda step, number: "INVALID" if step.mib < 210 else needs(12, 64)(step, number)
    )
    _, found = searched(search, thrashing)

    assert found == Found(Edge(12, 10), Edge(224, None, (192, 208)))


@pytest.mark.parametrize(
    ("answer", "code", "probes", "says"),
    [
        (
            "INVALID",
            UNDECIDED,
            3,
            "nothing is proven, for the greatest limits (1 CPU, 1,024 MiB) were INVALID 3 times",
        ),
        ("FAIL", NOTHING_PASSES, 2, "not even the greatest limits (1 CPU, 1,024 MiB) pass"),
        ("cannot start", NOTHING_PASSES, 2, "not even the greatest limits"),
    ],
)
def test_a_server_that_never_passes_ends_the_search(search, probing, answer, code, probes, says):
    """After one repeat, and as what it is."""
    whole, found = searched(search, probing(lambda *_: answer))

    assert (found.minimum, end_of(whole), len(whole.rows)) == (None, code, probes)
    assert says in said.sentences(whole)[0]


def test_too_little_memory_and_too_little_cpu_to_start_are_failures(search, probing):
    """And are reported as what they are."""

    def starving(step: Step, number: int) -> str:
        return "cannot start" if step.mib < 100 or step.centicores < 5 else "PASS"

    whole, found = searched(search, probing(starving))

    assert found == Found(Edge(5, 3), Edge(112, 96))
    assert "Fails, 96 MiB with 0.05 CPU: cannot start: Said cannot start." in said.sentences(whole)
    assert "| FAIL, cannot start | – | – | – | – | – |" in experiments.search(
        whole, "x.json", "x.svg"
    )


def test_chance_never_makes_a_minimum_of_what_did_not_pass(search, probing):
    """Whatever the runs say, the search ends; what it claims passed three times and never failed;
    nothing is INVALID three times in a row."""
    for seed in range(25 * TIMES):
        dice = random.Random(seed)  # noqa: S311  reproducible
        whole, found = searched(
            search,
            probing(lambda *_, dice=dice: dice.choices(["PASS", "FAIL", "INVALID"], (6, 1, 1))[0]),
        )
        said_of = {(row.centicores, row.mib): list[str]() for row in whole.rows}
        for row in whole.rows:
            said_of[row.centicores, row.mib].append(("full " if row.full else "") + row.outcome)
        if found.minimum:
            assert said_of[found.minimum].count("full PASS") >= 3
            assert not [each for each in said_of[found.minimum] if each.endswith("FAIL")]
        for outcomes in said_of.values():
            invalid = "".join("I" if each.endswith("INVALID") else "-" for each in outcomes)
            assert "IIII" not in invalid


def test_a_stored_search_keeps_its_patience(search, probing):
    """Those of before it was raised say what they said."""
    old = msgspec.structs.replace(search, patience=2)
    whole, found = searched(
        old,
        probing(
            lambda step, number: "INVALID" if step.centicores == 12 else needs(11, 64)(step, number)
        ),
    )

    assert found.cpu == Edge(13, 10, (12,))
    assert not any(row.twice for row in whole.rows)
    assert "INVALID twice in a row: 0.12" in " ".join(said.sentences(whole))
    assert "none was repeated more than once in a row" in " ".join(said.sentences(whole))


def test_a_search_continues_from_any_probe_with_the_same_result(search, probing):
    """What is next depends on the probes alone."""

    def unsteady(step: Step, number: int) -> str:
        return "INVALID" if number in {4, 9} else needs(12, 130)(step, number)

    whole, found = searched(search, probing(unsteady))
    for killed in range(len(whole.rows)):
        part = msgspec.structs.replace(whole, rows=whole.rows[:killed])
        assert searched(part, probing(unsteady)) == (whole, found)


def test_a_spent_budget_ends_the_search_before_a_probe_that_would_not_fit(search, probing):
    """And the same words go on with the next invocation's budget, from where it was."""
    part, _ = searched(search, probing(needs(12, 64)), budget_s=600)

    assert (len(part.rows), end_of(part)) == (5, UNDECIDED)
    assert said.sentences(part) == [
        "So far, with 1,024 MiB: the least CPU limit that passed is 0.15; 0.1 did not.",
        "The search is not finished; next is 0.12 CPU, 1,024 MiB (bisect).",
    ]
    assert searched(part, probing(needs(12, 64))) == searched(search, probing(needs(12, 64)))


def test_a_probe_is_expected_to_take_as_long_as_those_like_it(search, probing):
    """Before there are any, as long as its phases; the forecast shrinks to what is really next."""
    plan, step = Plan(math.inf, 20, Console(quiet=True)), Step(100, 1024, False, "")
    whole, _ = searched(search, probing(needs(12, 200)))
    almost = msgspec.structs.replace(whole, rows=whole.rows[:-1])

    assert 8 <= len(forecast(search)) <= 25
    assert plan.expected_s(search, step) == 75 + 20 + 30 + 2 * 8
    assert [plan.expected_s(almost, each) for each in plan.left(almost)] == [250.0]


def test_the_plan_is_shown_once_and_the_time_before_each_probe(search, probing):
    """On the terminal."""
    console = Console(file=io.StringIO(), width=160)
    plan = Plan(5400, 20, console, lambda: 0.0)
    plan.show(search, plan.left(search))
    one = msgspec.structs.replace(search, rows=[probing(needs(12, 64))(plan.left(search)[0], 1)])
    plan.show(one, plan.left(one))

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("The plan") == 1
    assert "probe 1: 1 CPU, 1,024 MiB (first), 30 s steady" in text
    assert "probe 2: 0.25 CPU, 1,024 MiB (as predicted), 30 s steady" in text
    assert "90 min left of the budget" in text


def test_a_probe_is_the_order_in_other_limits(search):
    """Short or long, and with a seed of its own; the tier's environment stays."""
    asked = parse(["seed=5"], TIERS, scenarios())
    made = order_of(Step(12, 208, False, ""), 7, asked)

    assert (made.tier.cpus, made.tier.memory_bytes, made.tier.environment) == (
        0.12,
        208 << 20,
        {"A": "b"},
    )
    assert (made.steady_s, made.seed) == (30, 12)
    assert order_of(Step(12, 208, True, ""), 8, asked).steady_s == 120
    assert order_of(Step(12, 208, True, "", True), 9, asked).steady_s == 240


@pytest.mark.parametrize(
    ("kind", "phase", "expected"),
    [
        ("infrastructure", "start", "FAIL"),
        ("infrastructure", "warmup", "FAIL"),
        ("infrastructure", "floor", LabFailed),
        ("infrastructure", "ramp", LabFailed),
        ("infrastructure", None, LabFailed),
        ("wrong_answer", "warmup", LabFailed),
        ("disk_full", "steady", LabFailed),
        ("complete", "cooldown", "PASS"),
        ("server_died", "steady", "FAIL"),
        ("generator_broke", "steady", "INVALID"),
    ],
)
def test_only_what_the_limits_explain_is_a_failure(log, kind, phase, expected):
    """A server that cannot start fails in its limits; a lab that breaks ends the search."""
    made = runs.made()
    made.run.ended = Ended(kind=kind, sentence="so it ended")
    verdict = judge(made.log())
    made.run.phases = [Phase(name=phase, start_s=0.0)] if phase else []
    run = Loaded(made.log(), verdict, made.run.ended)

    if isinstance(expected, str):
        assert judgement(run) == expected
    else:
        with pytest.raises(expected):
            judgement(run)


def test_a_probe_names_the_rules_that_made_it_invalid():
    """Those that keep a PASS, or a FAIL where the objective was missed; of others, none."""
    made = runs.fresh()
    made.run.tier = msgspec.structs.replace(made.run.tier, cores_needed=3)
    for run, rules in ((made, ["V5"]), (runs.fresh(), [])):
        log = run.log()
        found = probe(Step(12, 64, True, ""), Loaded(log, judge(log), Ended(kind="complete")))
        assert found.rules == rules


def test_the_words_are_those_of_a_load_run_and_four_more():
    """The tier gives the greatest limits; the raw engine leaves the server more of the machine."""
    asked = parse(
        ["users=5000", "against=typical", "duration=60s", "budget=30", "fresh=yes"],
        TIERS,
        scenarios(),
    )

    assert (asked.order.users, asked.order.service, asked.order.engine, asked.order.backend) == (
        5000,
        "typical",
        "raw",
        "cgroup",
    )
    assert asked.goal == Goal(most_centicores=100, most_mib=1024, full_s=60, short_s=20)
    assert (asked.words.budget, asked.words.fresh, asked.words.rerun) == (30, "yes", "no")
    assert parse([], TIERS, scenarios()).goal == GOAL
    assert parse(["scenario=overload"], TIERS, scenarios()).goal.short_s == 180
    assert (
        parse(
            ["tier=half-core", "engine=locust", "user=fast"], TIERS, scenarios()
        ).goal.most_centicores
        == 50
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rerun=maybe", "rerun=maybe is unknown; there are yes, no"),
        ("against=naive", "against=naive is unknown; there are halfcore, typical, tuned, onnx"),
        ("budget=0", "budget=0 is invalid: expected whole minutes from 1"),
        ("budget=long", "budget=long is invalid"),
        ("fresh=maybe", "fresh=maybe is unknown; there are yes, no"),
        ("target=127.0.0.1:1", "an experiment starts its own servers"),
        ("repeats=5", "an experiment repeats its runs by itself; `just compare` has blocks="),
        ("web=on", "Locust's page shows one run, and an experiment makes many"),
        (
            "colour=red",
            (
                r"colour=red: unknown; expected key=value with one of tier, (?!.*repeats).*, "
                r"against, "
                r"budget, fresh, rerun$"
            ),
        ),
        ("tier=two-by-015", "tier=two-by-015 has 2 replicas"),
        ("tier=far-too-large", "tier far-too-large needs 4097 cores"),
        (
            "duration=5s",
            "duration=5s is too short: expected at least 15 s, because rule V13 looks at 3 windows",
        ),
        (
            "users=20",
            (
                "users=20 with duration=120s make fewer than the 662 answers that rule V12 wants; "
                "215 s "
                "would do"
            ),
        ),
        ("scenario=calm", "scenario=calm is unknown"),
    ],
)
def test_a_wrong_word_is_refused(word, message):
    """With the value and what was expected."""
    with pytest.raises((UsageError, ValueError), match=message):
        parse([word], TIERS, scenarios())


def test_a_word_that_comes_twice_is_refused():
    """Neither of them is taken silently."""
    with pytest.raises(UsageError, match="budget= is given twice"):
        parse(["budget=5", "budget=6"], TIERS, scenarios())


def test_a_search_is_not_forgotten_and_run_again_at_once():
    """One of the two words is a mistake."""
    with pytest.raises(UsageError, match="expected one of them"):
        parse(["fresh=yes", "rerun=yes"], TIERS, scenarios())


def again(
    search: Search, file: Path, *probes: Probe, started_at: str = "2026-01-03T00:00:00Z"
) -> Search:
    """A rerun of a stored search."""
    return msgspec.structs.replace(
        search, kind="rerun", of=file.name, started_at=started_at, rows=list(probes)
    )


def test_the_minimum_of_the_newest_search_is_run_again(search, probing, tmp_path):
    """Of the same words, whatever the commit and the patience."""
    oldest, _ = searched(search, probing(needs(15, 200)))
    runner.save(msgspec.structs.replace(oldest, started_at="2025-01-02T03:04:05Z"), tmp_path)
    whole, _ = searched(msgspec.structs.replace(search, patience=2), probing(needs(12, 200)))
    file = runner.save(whole, tmp_path)

    assert to_run_again(tmp_path, search) == (file, whole)


@pytest.mark.parametrize(
    ("said_so", "lengths"),
    [
        (["PASS", "PASS", "PASS"], [120, 120, 120]),
        (["PASS", "INVALID", "PASS", "PASS"], [120, 120, 120, 120]),
        (["PASS", "FAIL"], [120, 120]),
        (["INVALID", "INVALID", "PASS", "PASS", "PASS"], [120, 120, 240, 120, 120]),
        (["PASS", "INVALID", "INVALID", "INVALID"], [120, 120, 120, 240]),
    ],
)
def test_a_minimum_holds_if_it_passes_three_times_again(
    search, probing, tmp_path, said_so, lengths
):
    """At full length, as at the first hour; one FAIL ends it, and what is INVALID is repeated as in
    the search. The last run says how it ended."""
    whole, _ = searched(search, probing(needs(12, 200)))
    rerun = again(whole, tmp_path / whole.file_name)
    made = probing(lambda _, number: said_so[number - 1])
    while left := rerun_left(whole, rerun):
        done = made(left[0], len(rerun.rows) + 1)
        rerun = msgspec.structs.replace(rerun, rows=[*rerun.rows, done])

    assert [row.outcome for row in rerun.rows] == said_so
    assert [GOAL.steady_s(row) for row in rerun.rows] == lengths
    assert {(row.centicores, row.mib) for row in rerun.rows} == {(12, 208)}
    assert rerun.file_name == "2026-01-03-000000-rerun-halfcore-steady-10000.json"


def test_a_rerun_of_nothing_is_refused(search, probing, tmp_path):
    """No search, one of other words, one that found nothing: each has its message."""
    other, _ = searched(msgspec.structs.replace(search, engine="locust"), probing(needs(12, 200)))
    runner.save(other, tmp_path)
    with pytest.raises(UsageError, match="no search of these words is stored"):
        to_run_again(tmp_path, search)

    nothing, _ = searched(search, probing(lambda *_: "FAIL"))
    file = runner.save(nothing, tmp_path)
    with pytest.raises(UsageError, match=f"{file.name} found no minimum"):
        to_run_again(tmp_path, search)


def test_reruns_and_earlier_searches_follow_the_newest(search, probing, tmp_path):
    """For it or against it; the README counts them."""
    whole, _ = searched(search, probing(needs(12, 200)))
    file = runner.save(whole, tmp_path / "runs")
    runner.save(
        msgspec.structs.replace(whole, started_at="2025-01-02T03:04:05Z"), tmp_path / "runs"
    )
    step = Step(12, 208, full=True, why="")
    invalid, passed, failed = (
        probing(lambda *_, said=said: said)(step, 1) for said in ("INVALID", "PASS", "FAIL")
    )
    runner.save(again(whole, file, invalid, passed), tmp_path / "runs")
    runner.save(again(whole, file, failed, started_at="2026-01-04T00:00:00Z"), tmp_path / "runs")

    first, second, earlier = experiments.history(file, tmp_path / "benchmarks.md")
    assert first.startswith("Run again with 0.12 CPU, 208 MiB (2026-01-03T00:00:00Z, commit `")
    assert "INVALID, then PASS. p50, p95, p99 " in first
    assert "FAIL. Said FAIL. This refutes the minimum. p50, p95, p99 " in second
    assert earlier.startswith(
        "An earlier search "
        "([2025-01-02T03:04:05Z](runs/2025-01-02-030405-search-halfcore-steady-10000.json), commit"
    )
    assert "minimum that passes 3/3: 0.12 CPU, 208 MiB" in earlier
    assert f"- {second}\n- {earlier}\n" in experiments.search(
        whole, file.name, "frontier.svg", [first, second, earlier]
    )
    assert experiments.least(tmp_path / "README.md", [file])[0].endswith(
        f"; run again: 1 PASS, 1 FAIL of 2 ([search](runs/{file.name}))."
    )


def test_the_document_shows_stored_searches(search, probing, tmp_path):
    """The newest of each kind, with machine, commit, command and every probe; the same file gives
    the same text and picture."""
    whole, _ = searched(search, probing(needs(12, 200)))
    old = msgspec.structs.replace(whole, started_at="2025-01-02T03:04:05Z")
    for each in (old, whole):
        file = runner.save(each, tmp_path / "runs")

    assert runner.load(file, Search) == whole
    assert file.name == "2026-01-02-030405-search-halfcore-steady-10000.json"
    assert experiments.newest(tmp_path / "runs", "search") == [file]
    text = experiments.search(whole, file.name, "frontier.svg")
    assert text == experiments.search(runner.load(file, Search), file.name, "frontier.svg")
    for expected in (
        "### halfcore, 10,000 users, steady",
        "`just search users=10000`",
        (
            "minimum that passes 3/3: 0.12 CPU, 208 MiB; largest that fails: 0.1 CPU with 1,024 "
            "MiB, and 192 MiB with 0.12 CPU."
        ),
        "![Limits that were tried](frontier.svg)",
        "| 17 | 0.12 | 192 | 120 | the failure, at full length | FAIL |",
    ):
        assert expected in text
    pictures = [tmp_path / name for name in ("a.svg", "b.svg")]
    for picture in pictures:
        frontier(whole, picture)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert "0.12 CPU, 208 MiB" in pictures[0].read_text()


@pytest.fixture
def place(tmp_path):
    """A checkout of its own with a tier whose memory holds no Python. Skipped where there are no
    control groups."""
    try:
        with control_group("probe"):
            pass
    except cgroup.Unavailable as reason:
        pytest.skip(str(reason))
    write_bundle(tmp_path / ".halfcore/bundles", "iris", model=None)
    (tmp_path / "loadlab").symlink_to(CHECKOUT / "loadlab")
    (tmp_path / "compose").mkdir()
    limits = (
        "{labels: [io.halfcore.tier=one-core], deploy: {resources: {limits: {cpus: '1', memory: "
        "8M}}}}"
    )
    (tmp_path / "compose/compose.yaml").write_text(f"services: {{one-core: {limits}}}")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


@pytest.mark.slow
@pytest.mark.xdist_group("lab")  # one load run at a time
def test_a_real_search_ends_stores_its_result_and_shows_it_again(place):
    """Too little memory to start is a failure, confirmed once; the same words make no further
    run."""

    def search(*words: str) -> str:
        command_line = [sys.executable, "-m", "loadlab", "search", "users=300", "rate=300", *words]
        done = subprocess.run(command_line, cwd=place, capture_output=True, text=True)
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == NOTHING_PASSES, said
        return said

    said = search()
    assert "not even the greatest limits (1 CPU, 8 MiB) pass" in said
    assert "out of memory" in said
    (file,) = (place / "docs/runs").iterdir()
    stored = runner.load(file, Search)
    assert [(row.mib, row.outcome, row.could_start) for row in stored.rows] == [
        (8, "FAIL", False)
    ] * 2

    assert "continuing after 2 probes" in search()
    assert runner.load(file, Search) == stored
    assert len(list((place / ".halfcore/loads").glob("*/run.json"))) == 2


def test_an_axis_of_one_value_needs_three_passes_of_it():
    """There is nothing to narrow."""
    tries = [Try(1, False, "PASS"), *[Try(1, True, "PASS")] * 3]
    whole, part = (Axis(1, (1,), 2, guess=1, tries=each) for each in (tries, tries[:3]))
    assert whole.decide() == Edge(1, None)
    assert isinstance(part.decide(), Wish)
