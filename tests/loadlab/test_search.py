"""The search: what it tries next, what it says, and that it goes on where it was killed."""

import io
import math
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from loadlab.experiments.search import axis, form, rerun, said
from loadlab.experiments.search.axis import Axis, Edge, Try
from loadlab.experiments.search.carry import Budget, Outlook, carry_out, expected_s
from loadlab.experiments.search.command import (
    NOTHING_PASSES,
    PASSED,
    UNDECIDED,
    exit_code,
    parse,
    show,
)
from loadlab.experiments.search.form import Goal, Probe, Rerun, Search
from loadlab.experiments.search.plan import Found, Step, forecast
from loadlab.experiments.search.probe import Interrupted, LabFailed, judgement, order_of
from loadlab.generator import scenarios
from loadlab.pages import experiments
from loadlab.pages.plots import frontier
from loadlab.record.form import Ended, Phase
from loadlab.record.store import StoreError
from loadlab.run.arguments import UsageError
from loadlab.target import cgroup
from loadlab.target.tiers import Tier
from loadlab.verdict.judge import judge
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
                why=step.why,
                outcome=said if could_start else "FAIL",  # type: ignore[arg-type]
                could_start=could_start,
                sentence="All 17 rules hold." if said == "PASS" else f"Said {said}.",
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
    search: Search, probe: Callable[[Step, int], Probe], most: int = 200
) -> tuple[Search, Found]:
    """The whole search; it must end within so many probes."""
    kept: list[Search] = []
    whole, found = carry_out(
        search, probe, keep=kept.append, budget=Budget(math.inf), ramp_s=20, show=lambda _: None
    )
    assert len(whole.probes) <= most
    assert [len(each.probes) for each in kept] == list(range(1, len(whole.probes) + 1))
    assert found
    return whole, found


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
        for probe in whole.probes
        if (probe.centicores, probe.mib, probe.full) == (cpu, memory, True)
    ] == ["PASS"] * 3
    if centicores > 1:
        assert found.cpu.fails in {cpu - 1, cpu - 2}
        assert any(
            probe.full
            for probe in whole.probes
            if (probe.centicores, probe.outcome) == (found.cpu.fails, "FAIL")
        )
    assert exit_code(found) == PASSED


def test_the_first_run_predicts_where_to_look(search, probing):
    """0.15 cores used are 0.21 at 70 %: the next usual size is 0.25, and from there the ladder goes
    down; then memory from the peak."""
    whole, _ = searched(search, probing(needs(12, 200), cores=0.15, peak=190))

    asked = [(probe.centicores, probe.mib, probe.full, probe.why) for probe in whole.probes]
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
    assert sum(probe.centicores == 12 for probe in whole.probes) == 4
    assert "0.12 CPU with 1,024 MiB" in said.sentences(whole)[0]
    assert "It passed in 3 of its 4 runs all the same." in said.sentences(whole)[1]


def test_a_short_run_that_failed_by_chance_stays_refuted_and_is_shown(search, probing):
    """It is repeated at full length; three passes do not undo a failure, and the sentence says
    them."""

    def unlucky(step: Step, number: int) -> str:
        return "FAIL" if step.centicores == 10 and not step.full else needs(5, 64)(step, number)

    whole, found = searched(search, probing(unlucky))

    assert found.cpu == Edge(12, 10)
    assert [probe.outcome for probe in whole.probes if probe.centicores == 10] == [
        "FAIL",
        "PASS",
        "PASS",
        "PASS",
    ]
    assert "It passed in 3 of its 4 runs all the same." in said.sentences(whole)[1]


def test_an_invalid_run_is_repeated_once_at_full_length(search, probing):
    """It neither passes nor fails: the second says what the first did not."""
    whole, found = searched(
        search,
        probing(
            lambda step, number: "INVALID" if number in {3, 8} else needs(12, 64)(step, number)
        ),
    )

    assert found.cpu == Edge(12, 10)
    assert [(probe.centicores, probe.full, probe.why) for probe in whole.probes][3] == (
        20,
        True,
        "again, for it was INVALID",
    )
    assert "INVALID, for or against nothing: 2 of" in " ".join(said.sentences(whole))


def test_what_is_invalid_twice_is_neither_passed_nor_failed(search, probing):
    """It may not be claimed, so the minimum lies above; it is not the largest that fails either."""
    whole, found = searched(
        search,
        probing(
            lambda step, number: "INVALID" if step.centicores == 12 else needs(11, 64)(step, number)
        ),
    )

    assert found.cpu == Edge(13, 10, (12,))
    assert sum(probe.centicores == 12 for probe in whole.probes) == 2
    sentences = said.sentences(whole)
    assert "largest that fails: 0.1 CPU with 1,024 MiB" in sentences[0]
    assert "Undecided, because INVALID twice in a row: 0.12 CPU." in " ".join(sentences)


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
    assert max(probe.mib for probe in whole.probes if probe.mib < 1024) == 256
    assert "Undecided, because INVALID twice in a row: 0.12 CPU." in " ".join(said.sentences(whole))


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
            2,
            "nothing is proven, for the greatest limits (1 CPU, 1,024 MiB) were INVALID twice",
        ),
        ("FAIL", NOTHING_PASSES, 2, "not even the greatest limits (1 CPU, 1,024 MiB) pass"),
        ("cannot start", NOTHING_PASSES, 2, "not even the greatest limits"),
    ],
)
def test_a_server_that_never_passes_ends_the_search(search, probing, answer, code, probes, says):
    """After one repeat, and as what it is."""
    whole, found = searched(search, probing(lambda *_: answer))

    assert (found.minimum, exit_code(found), len(whole.probes)) == (None, code, probes)
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
        said_of = {(probe.centicores, probe.mib): list[str]() for probe in whole.probes}
        for probe in whole.probes:
            said_of[probe.centicores, probe.mib].append(
                ("full " if probe.full else "") + probe.outcome
            )
        if found.minimum:
            assert said_of[found.minimum].count("full PASS") >= 3
            assert not [each for each in said_of[found.minimum] if each.endswith("FAIL")]
        for outcomes in said_of.values():
            invalid = "".join("I" if each.endswith("INVALID") else "-" for each in outcomes)
            assert "III" not in invalid


def test_a_search_that_is_killed_at_any_probe_ends_with_the_same_result(search, probing, tmp_path):
    """Every probe is kept at once; the one that was going on is made again."""

    def unsteady(step: Step, number: int) -> str:
        return "INVALID" if number in {4, 9} else needs(12, 130)(step, number)

    whole, found = searched(search, probing(unsteady))
    for killed in range(1, len(whole.probes) + 1):
        file = form.save(search, tmp_path / f"{killed}.json")

        def dying(step: Step, number: int, killed: int = killed) -> Probe:
            if number == killed:
                raise KeyboardInterrupt
            return probing(unsteady)(step, number)

        with pytest.raises(KeyboardInterrupt):
            carry_out(
                search,
                dying,
                keep=partial(form.save, file=file),
                budget=Budget(math.inf),
                ramp_s=20,
                show=lambda _: None,
            )
        kept = form.load(file)
        assert len(kept.probes) == killed - 1
        assert carry_out(
            kept,
            probing(unsteady),
            keep=len_of,
            budget=Budget(math.inf),
            ramp_s=20,
            show=lambda _: None,
        ) == (whole, found)


def len_of(search: Search) -> int:
    """Keeps nothing."""
    return len(search.probes)


def test_a_spent_budget_ends_the_search_before_a_probe_that_would_not_fit(search, probing):
    """And the same words go on with the next invocation's budget, from where it was."""
    now = [0.0]

    def taking(step: Step, number: int) -> Probe:
        probe = probing(needs(12, 64))(step, number)
        now[0] += probe.seconds
        return probe

    part, found = carry_out(
        search,
        taking,
        keep=len_of,
        budget=Budget(600, lambda: now[0]),
        ramp_s=20,
        show=lambda _: None,
    )
    assert (found, len(part.probes)) == (None, 5)
    assert now[0] <= 600
    assert said.sentences(part) == [
        "So far, with 1,024 MiB: the least CPU limit that passed is 0.15; 0.1 did not.",
        "The search is not finished; next is 0.12 CPU, 1,024 MiB (bisect).",
    ]
    whole, end = carry_out(
        part,
        taking,
        keep=len_of,
        budget=Budget(math.inf, lambda: now[0]),
        ramp_s=20,
        show=lambda _: None,
    )
    assert (whole, end) == searched(search, probing(needs(12, 64)))


def test_the_time_is_shown_before_every_probe(search, probing):
    """The forecast begins with what is really next, and shrinks to it; a probe is expected to take
    as long as those like it."""
    outlooks: list[Outlook] = []
    whole, _ = carry_out(
        search,
        probing(needs(12, 200)),
        keep=len_of,
        budget=Budget(math.inf),
        ramp_s=20,
        show=outlooks.append,
    )

    assert [outlook.steps[0] for outlook in outlooks] == [
        Step(p.centicores, p.mib, p.full, p.why) for p in whole.probes
    ]
    assert len(outlooks[-1].steps) == 1
    assert outlooks[-1].expected_s == 250.0
    assert 8 <= len(outlooks[0].steps) <= 25
    assert expected_s(Step(100, 1024, False, ""), GOAL, [], ramp_s=20) == 75 + 20 + 30 + 2 * 8


def test_the_plan_is_shown_once_and_the_time_before_each_probe(search):
    """On the terminal."""
    console = Console(file=io.StringIO(), width=160)
    steps = forecast(GOAL, [])
    show(Outlook(1, steps, 3000.0, 5400.0), GOAL, console)
    show(Outlook(2, steps[1:], 2800.0, 5200.0), GOAL, console)

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("The plan") == 1
    assert "probe 1: 1 CPU, 1,024 MiB (first), 30 s steady" in text
    assert "about 47 min to go · 87 min left of the budget" in text


def test_a_probe_is_the_order_in_other_limits(search):
    """Short or long, and with a seed of its own; the tier's environment stays."""
    order, goal, *_ = parse(["seed=5"], TIERS, scenarios.read())
    made = order_of(Step(12, 208, False, ""), 7, order, goal)

    assert (made.tier.cpus, made.tier.memory_bytes, made.tier.environment) == (
        0.12,
        208 << 20,
        {"A": "b"},
    )
    assert (made.steady_s, made.seed) == (30, 12)
    assert order_of(Step(12, 208, True, ""), 8, order, goal).steady_s == 120


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
        ("interrupted", "steady", Interrupted),
        ("complete", "cooldown", "PASS"),
        ("server_died", "steady", "FAIL"),
        ("generator_broke", "steady", "INVALID"),
    ],
)
def test_only_what_the_limits_explain_is_a_failure(log, kind, phase, expected):
    """A server that cannot start fails in its limits; a lab that breaks ends the search."""
    made = runs.made()
    made.run.ended = Ended(kind=kind, sentence="so it ended")
    phases = [Phase(name=phase, start_s=0.0)] if phase else []

    if isinstance(expected, str):
        assert judgement(made.run.ended, phases, judge(made.log())) == expected
    else:
        with pytest.raises(expected):
            judgement(made.run.ended, phases, judge(made.log()))


def test_the_words_are_those_of_a_load_run_and_four_more():
    """The tier gives the greatest limits; the raw engine leaves the server more of the machine."""
    asked = parse(
        ["users=5000", "against=typical", "duration=60s", "budget=30", "fresh=yes"],
        TIERS,
        scenarios.read(),
    )

    assert (asked.order.users, asked.order.service, asked.order.engine, asked.order.backend) == (
        5000,
        "typical",
        "raw",
        "cgroup",
    )
    assert asked.goal == Goal(most_centicores=100, most_mib=1024, full_s=60, short_s=20)
    assert (asked.budget_s, asked.fresh, asked.rerun) == (1800, True, False)
    assert parse([], TIERS, scenarios.read()).goal == GOAL
    assert parse(["scenario=overload"], TIERS, scenarios.read()).goal.short_s == 180
    assert (
        parse(
            ["tier=half-core", "engine=locust", "user=fast"], TIERS, scenarios.read()
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
        ("target=127.0.0.1:1", "a search starts its own servers"),
        ("repeats=5", "a search starts its own servers"),
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
        parse([word], TIERS, scenarios.read())


def test_a_word_that_comes_twice_is_refused():
    """Neither of them is taken silently."""
    with pytest.raises(UsageError, match="budget= is given twice"):
        parse(["budget=5", "budget=6"], TIERS, scenarios.read())


def test_a_search_is_not_forgotten_and_run_again_at_once():
    """One of the two words is a mistake."""
    with pytest.raises(UsageError, match="expected one of them"):
        parse(["fresh=yes", "rerun=yes"], TIERS, scenarios.read())


def again(
    search: Search, file: Path, *probes: Probe, started_at: str = "2026-01-03T00:00:00Z"
) -> Rerun:
    """A rerun of a stored search."""
    return Rerun(
        of=file.name,
        started_at=started_at,
        command="just search rerun=yes",
        fingerprint=search.fingerprint,
        probes=list(probes),
    )


def test_the_minimum_of_the_newest_search_is_run_again(search, probing, tmp_path):
    """At full length; with a seed that neither the search nor another rerun had; what INVALID says
    is asked once more."""
    asked = parse(["rerun=yes"], TIERS, scenarios.read())
    oldest, _ = searched(search, probing(needs(15, 200)))
    form.save(
        oldest,
        tmp_path / form.name(msgspec.structs.replace(oldest, started_at="2025-01-02T03:04:05Z")),
    )
    whole, _ = searched(search, probing(needs(12, 200)))
    file = form.save(whole, tmp_path / form.name(whole))

    claim = rerun.newest(tmp_path, asked.order, asked.goal)
    assert claim == (file, 12, 208, len(whole.probes) + 1)
    form.save_rerun(again(whole, file, *rerun.carry_out(claim, probing(needs(12, 200)))), tmp_path)
    assert [(probe.outcome, probe.full) for probe in rerun.of(tmp_path, file)[0].probes] == [
        ("PASS", True)
    ]

    claim = rerun.newest(tmp_path, asked.order, asked.goal)
    assert claim.number == len(whole.probes) + 2
    numbers: list[int] = []

    def doubtful(step: Step, number: int) -> Probe:
        numbers.append(number)
        return probing(lambda *_: "INVALID")(step, number)

    assert [probe.why for probe in rerun.carry_out(claim, doubtful)] == [
        "the minimum, run again",
        "again, for it was INVALID",
    ]
    assert numbers == [claim.number, claim.number + 1]
    assert [probe.outcome for probe in rerun.carry_out(claim, probing(lambda *_: "FAIL"))] == [
        "FAIL"
    ]


def test_a_rerun_of_nothing_is_refused(search, probing, tmp_path):
    """No search, one of other words, one that found nothing: each has its message."""
    asked = parse(["rerun=yes"], TIERS, scenarios.read())
    other, _ = searched(msgspec.structs.replace(search, engine="locust"), probing(needs(12, 200)))
    form.save(other, tmp_path / form.name(other))
    with pytest.raises(UsageError, match="no search of these words is stored"):
        rerun.newest(tmp_path, asked.order, asked.goal)

    nothing, _ = searched(search, probing(lambda *_: "FAIL"))
    file = form.save(nothing, tmp_path / form.name(nothing))
    with pytest.raises(UsageError, match=f"{file.name} found no minimum"):
        rerun.newest(tmp_path, asked.order, asked.goal)


def test_reruns_and_earlier_searches_follow_the_newest(search, probing, tmp_path):
    """For it or against it; the README counts them."""
    whole, _ = searched(search, probing(needs(12, 200)))
    file = form.save(whole, tmp_path / "runs" / form.name(whole))
    old = msgspec.structs.replace(whole, started_at="2025-01-02T03:04:05Z")
    form.save(old, tmp_path / "runs" / form.name(old))
    step = Step(12, 208, full=True, why="")
    invalid, passed, failed = (
        probing(lambda *_, said=said: said)(step, 1) for said in ("INVALID", "PASS", "FAIL")
    )
    form.save_rerun(again(whole, file, invalid, passed), tmp_path / "runs")
    form.save_rerun(
        again(whole, file, failed, started_at="2026-01-04T00:00:00Z"), tmp_path / "runs"
    )

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
        file = form.save(each, tmp_path / "runs" / form.name(each))

    assert form.load(file) == whole
    assert file.name == "2026-01-02-030405-search-halfcore-steady-10000.json"
    assert experiments.newest(tmp_path / "runs", "search") == [file]
    text = experiments.search(whole, file.name, "frontier.svg")
    assert text == experiments.search(form.load(file), file.name, "frontier.svg")
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


def test_a_file_of_another_format_is_refused(search, tmp_path):
    """Instead of figures that mean something else."""
    with pytest.raises(StoreError, match="format is 2, expected 1"):
        form.load(form.save(msgspec.structs.replace(search, format=2), tmp_path / "search.json"))


@pytest.fixture
def place(tmp_path):
    """A checkout of its own with a tier whose memory holds no Python. Skipped where there are no
    control groups."""
    try:
        with cgroup.group("probe"):
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
    stored = form.load(file)
    assert [(probe.mib, probe.outcome, probe.could_start) for probe in stored.probes] == [
        (8, "FAIL", False)
    ] * 2

    assert "continuing after 2 probes" in search()
    assert form.load(file) == stored
    assert len(list((place / ".halfcore/loads").glob("*/run.json"))) == 2


def test_an_axis_of_one_value_needs_three_passes_of_it():
    """There is nothing to narrow."""
    narrow = Axis(most=1, rungs=(1,), step=2)
    tries = [Try(1, False, "PASS"), *[Try(1, True, "PASS")] * 3]
    assert axis.decide(narrow, tries) == Edge(1, None)
    assert isinstance(axis.decide(narrow, tries[:3]), axis.Wish)
