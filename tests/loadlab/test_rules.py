"""The 17 rules: each is broken by what it is for, and by nothing else; what was not recorded breaks
it too."""

import itertools
from collections.abc import Callable

import msgspec
import pytest

from loadlab.record.histogram import pack
from loadlab.record.read import Log
from loadlab.record.schema import (
    Ended,
    HostSample,
    NetSample,
    Phase,
    ProcessSample,
    Replica,
    Sample,
    ServerSample,
    Workers,
)
from loadlab.target.cgroup import Limits
from loadlab.verdict.check import Check
from loadlab.verdict.judge import judge
from loadlab.verdict.rules import RULES, judge_rules
from support.runs import LIMITS, Made, Server, each_sample, fresh, made, second

STEADY, REPEATED = range(35, 95), 95


def _server(sample: Sample) -> ServerSample:
    assert sample.server
    return sample.server


def _host(sample: Sample) -> HostSample:
    assert sample.host
    return sample.host


def _net(sample: Sample) -> NetSample:
    assert sample.net
    return sample.net


def _a_user_dies(made: Made) -> Made:
    second(made, 50).users = 999
    return made


def _a_busy_worker(made: Made) -> Made:
    def busy(sample: Sample) -> None:
        more = max(sample.t - 40, 0) * 0.8
        sample.processes["worker-1"] = ProcessSample(sample.processes["worker-1"].cpu_s + more, 30)
        _host(sample).busy_s += more

    return each_sample(made, busy)


def _a_loop_that_looks_late(made: Made) -> Made:
    second(made, 60).loop_lag = pack({80_000: 1})
    return made


def _requests_that_leave_late(made: Made) -> Made:
    for t in STEADY:
        second(made, t).lag = pack({20_000: 150})
    return made


def _a_greedy_hypervisor(made: Made) -> Made:
    return each_sample(made, lambda sample: setattr(_host(sample), "steal_s", sample.t * 0.1))


def _a_noisy_neighbour(made: Made) -> Made:
    return each_sample(
        made, lambda sample: setattr(_host(sample), "busy_s", _host(sample).busy_s + sample.t * 0.2)
    )


def _connections_that_are_not_kept(made: Made) -> Made:
    return each_sample(
        made,
        lambda sample: setattr(
            _net(sample), "active_opens", _net(sample).active_opens + int(sample.t * 100)
        ),
    )


def _a_dropped_connection(made: Made) -> Made:
    return each_sample(made, lambda sample: setattr(_net(sample), "listen_drops", 4), start_s=50)


def _a_machine_that_swaps(made: Made) -> Made:
    return each_sample(made, lambda sample: setattr(_host(sample), "swapped_pages", int(sample.t)))


def _a_lost_worker(made: Made) -> Made:
    made.run.workers = Workers(expected=1, reported=1, missing=1, missed_heartbeats=0)
    return made


def _a_limit_that_is_not_in_force(made: Made) -> Made:
    made.run.replicas = [
        Replica(
            limits=Limits(cpus=0.5, memory_bytes=512_000_000),
            processes_inside=2,
            processes_outside=0,
        )
    ]
    return made


def _few_answers(_: Made) -> Made:
    return made(users=60)


def _a_load_that_has_not_settled(made: Made) -> Made:
    for t in range(30, 35):
        second(made, t).response = pack({130_000: second(made, t).answered})
    return made


def _answers_that_nobody_compared(made: Made) -> Made:
    for line in made.seconds:
        line.deep_checked = 0
    return made


def _a_cache(made: Made) -> Made:
    until = next(_server(sample).cpu_s for sample in made.samples if sample.t >= REPEATED)
    return each_sample(
        made,
        lambda sample: setattr(
            _server(sample), "cpu_s", until + (_server(sample).cpu_s - until) / 2
        ),
        start_s=REPEATED,
    )


def _a_witness_who_disagrees(made: Made) -> Made:
    for line in made.seconds:
        if line.series == "witness":
            line.response = pack({12_000: 20})
    return made


def _a_slow_floor(made: Made) -> Made:
    for line in made.seconds:
        if line.series == "floor":
            line.response = pack({100_000: 30})
    return made


BREAKS: dict[str, Callable[[Made], Made]] = {
    "V1": _a_user_dies,
    "V2": _a_busy_worker,
    "V3": _a_loop_that_looks_late,
    "V4": _requests_that_leave_late,
    "V5": _a_greedy_hypervisor,
    "V6": _a_noisy_neighbour,
    "V7": _connections_that_are_not_kept,
    "V8": _a_dropped_connection,
    "V9": _a_machine_that_swaps,
    "V10": _a_lost_worker,
    "V11": _a_limit_that_is_not_in_force,
    "V12": _few_answers,
    "V13": _a_load_that_has_not_settled,
    "V14": _answers_that_nobody_compared,
    "V15": _a_cache,
    "V16": _a_witness_who_disagrees,
    "V17": _a_slow_floor,
}


def _broken(log: Log) -> list[str]:
    return [finding.rule for finding in judge_rules(log) if not finding.holds]


def test_a_good_run_breaks_no_rule():
    """All 17 hold, and the objective is met."""
    verdict = judge(fresh().log())
    assert (verdict.outcome, verdict.exit_code, _broken(fresh().log())) == ("PASS", 0, [])


ONLY_WORSE = ("V3", "V5", "V6", "V9", "V17")
"""What breaks these in `BREAKS` can only have made the figures worse."""


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_each_rule_is_broken_by_what_it_is_for(rule):
    """By exactly that. The verdict is INVALID, or still PASS where the noise can only have made the
    figures worse; its sentence names the rule with what was measured and allowed."""
    verdict = judge(BREAKS[rule](fresh()).log())

    assert [finding.rule for finding in verdict.findings if not finding.holds] == [rule]
    if rule in ONLY_WORSE:
        assert (verdict.outcome, verdict.exit_code) == ("PASS", 0)
        assert verdict.sentence.startswith("The objective is met. What does not hold ")
    else:
        assert (verdict.outcome, verdict.exit_code) == ("INVALID", 2)
        assert f"1 rule is broken. {rule} " in verdict.sentence
    assert any(
        check.text in verdict.sentence
        for finding in verdict.findings
        for check in finding.checks
        if not check.holds
    )


@pytest.mark.parametrize(
    ("slow", "drifts"),
    [
        (range(90, 95), False),
        ([*range(55, 65), *range(70, 75)], False),
        ([*range(75, 80), *range(85, 95)], True),
        (range(35, 50), True),
    ],
    ids=[
        "one window at the end",
        "windows in the middle",
        "most of the last third",
        "most of the first third",
    ],
)
def test_a_slow_window_is_no_drift_and_a_slow_third_is(slow, drifts):
    """V13 of 12 windows of 5 s, some with answers of 120 ms, beyond the objective."""
    made = fresh()
    for t in slow:
        second(made, t).response = pack({120_000: second(made, t).answered})
    assert ("V13" in _broken(made.log())) is drifts


@pytest.mark.parametrize(("step_ms", "p95_ms"), [(1, 34), (-1, 12), (5, 122)])
def test_a_trend_counts_if_it_leads_out_of_the_objective(step_ms, p95_ms):
    """From 12 ms, by so much in each window of 5 s; p95 is looked at one more run ahead."""
    made = fresh()
    for t in STEADY:
        after_ms = 12 + step_ms * ((t - 35) // 5)
        second(made, t).response = pack({after_ms * 1000: second(made, t).answered})
    ahead = _check(made.log(), "V13", "p95 extrapolated by one more run")
    assert ahead.measured == pytest.approx(p95_ms, rel=0.02)
    assert ahead.holds is (p95_ms <= 100)
    assert judge(made.log()).outcome == ("PASS" if ahead.holds or step_ms < 0 else "INVALID")


def test_without_an_objective_for_p95_the_drift_itself_is_limited():
    """As it was in older runs."""
    made = fresh()
    objective = msgspec.structs.replace(made.run.criteria.objective, p95_ms=None)
    made.run.criteria = msgspec.structs.replace(made.run.criteria, objective=objective)
    for t in STEADY:
        after_us = 20_000 + 1_000 * ((t - 35) // 5)
        second(made, t).response = pack({after_us: second(made, t).answered})
    drift = _check(made.log(), "V13", "p95 drifts by")
    assert drift.measured == pytest.approx(11, rel=0.02)
    assert not drift.holds


def test_a_growing_backlog_is_no_steady_state():
    """One request more in each second than is answered: after two such runs 0.8 s of work wait."""
    made = fresh()
    for t in STEADY:
        second(made, t).intended += 1
    backlog = _check(made.log(), "V13", "backlog extrapolated by one more run")
    assert backlog.measured == pytest.approx(780, rel=0.1)
    assert not backlog.holds
    assert _check(fresh().log(), "V13", "backlog extrapolated by one more run").holds


def _check(log: Log, rule: str, what: str) -> Check:
    finding = next(finding for finding in judge_rules(log) if finding.rule == rule)
    return next(check for check in finding.checks if check.what == what)


def test_of_an_empty_record_every_rule_is_broken():
    """Nothing recorded is nothing proven."""
    run = fresh().run
    run.phases, run.replicas, run.processes, run.workers, run.drain = [], [], [], None, None
    assert _broken(Log(run, [], [])) == [rule.name for rule in RULES]


@pytest.mark.parametrize(
    ("part", "rules"),
    [
        ("server", {"V6", "V15"}),
        ("host", {"V5", "V6", "V9"}),
        ("net", {"V7", "V8", "V9"}),
        ("generator_throttled_periods", {"V2"}),
    ],
)
def test_what_could_not_be_read_breaks_the_rules_that_need_it(part, rules):
    """Counters that the backend cannot read."""
    verdict = judge(each_sample(fresh(), lambda sample: setattr(sample, part, None)).log())
    assert {finding.rule for finding in verdict.findings if not finding.holds} == rules
    assert "Not recorded is what " in verdict.sentence


def test_a_generator_that_ended_before_the_last_sample_is_no_neighbour():
    """As in a run that is stopped early: what it used until then stays its own."""
    ended = fresh()
    for sample in ended.samples:
        if STEADY.stop - 1 < sample.t <= STEADY.stop:
            sample.processes = {
                name: each for name, each in sample.processes.items() if name in ("lab", "server")
            }
    (quiet,) = [finding for finding in judge_rules(ended.log()) if finding.rule == "V6"]
    assert quiet.checks[0].measured == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("less", "holds"), [(0, True), (4095, True), (1 << 16, False), (-1, False)]
)
def test_the_kernel_rounds_a_memory_limit_down_to_pages(less, holds):
    """A third of 512 MiB is no whole number of them."""
    found = fresh()
    (replica,) = found.run.replicas
    limits = msgspec.structs.replace(replica.limits, memory_bytes=LIMITS.memory_bytes - less)
    found.run.replicas = [msgspec.structs.replace(replica, limits=limits)]
    (finding,) = [each for each in judge_rules(found.log()) if each.rule == "V11"]
    assert finding.holds == holds


@pytest.mark.parametrize(("alike_too", "holds"), [(True, True), (False, False)])
def test_one_path_of_a_model_is_no_cache(alike_too, holds):
    """Where new bodies that take the same path are as cheap as one for everybody, nothing was
    remembered."""
    made = _a_cache(fresh())  # from the repeated phase on
    repeated = next(phase for phase in made.run.phases if phase.name == "repeated")
    end = repeated.end_s or 0.0
    middle = (repeated.start_s + end) / 2
    alike = Phase(name="alike", start_s=middle, end_s=end, users=repeated.users)
    made.run.phases = [
        each
        for phase in made.run.phases
        for each in (
            [msgspec.structs.replace(phase, end_s=middle), alike] if phase is repeated else [phase]
        )
    ]
    for line in made.seconds:
        if line.phase == "repeated" and line.t >= middle:
            line.phase = "alike"
    if not alike_too:
        then = next(_server(sample).cpu_s for sample in made.samples if sample.t >= middle)
        each_sample(
            made,
            lambda sample: setattr(_server(sample), "cpu_s", 2 * _server(sample).cpu_s - then),
            start_s=middle,
        )
    (found,) = [finding for finding in judge_rules(made.log()) if finding.rule == "V15"]
    assert found.holds == holds
    assert "cheaper than new ones like it by" in found.checks[0].text


@pytest.mark.parametrize(("cached", "holds"), [(False, True), (True, False)])
def test_a_machine_that_becomes_slower_meanwhile_is_no_cache(cached, holds):
    """One body and others come by turns, so what grows steadily is in both; a cache is in the turns
    of one body only."""
    made = fresh()
    at = next(number for number, phase in enumerate(made.run.phases) if phase.name == "repeated")
    start = made.run.phases[at].start_s
    edges = [start, start + 1, start + 3, start + 5, start + 7, start + 8]
    turns = [
        Phase(name="alike" if number % 2 else "repeated", start_s=begin, end_s=end, users=1000)
        for number, (begin, end) in enumerate(itertools.pairwise(edges))
    ]
    made.run.phases[at : at + 1] = turns
    made.seconds = [line for line in made.seconds if not edges[-1] <= line.t < start + 10]
    for line in made.seconds:
        if (
            turn := next(
                (each for each in turns if each.start_s <= line.t < (each.end_s or 0)), None
            )
        ) and line.series == "users":
            line.phase, line.answered = turn.name, 200
    before = next(_server(sample).cpu_s for sample in made.samples if sample.t >= start)

    def used(sample: Sample) -> None:
        past = sample.t - start
        repeated = sum(
            max(min(sample.t, turn.end_s or 0) - turn.start_s, 0)
            for turn in turns
            if turn.name == "repeated"
        )
        _server(sample).cpu_s = (
            before + 0.02 * past + 0.002 * past**2 - (0.01 * repeated if cached else 0)
        )

    each_sample(made, used, start_s=start)
    (found,) = [finding for finding in judge_rules(made.log()) if finding.rule == "V15"]
    assert found.holds == holds
    assert found.checks[0].measured == pytest.approx(0.01 / 0.036 if cached else 0, abs=0.01)


def test_caching_that_is_disclosed_is_no_offence():
    """The finding says what is cached."""
    cached = _a_cache(fresh())
    cached.run.scenario = msgspec.structs.replace(
        cached.run.scenario, caching_disclosed="answers of the last minute"
    )
    assert judge(cached.log()).outcome == "PASS"


def test_a_tier_too_big_for_the_machine_is_invalid():
    """Server and generator would compete by construction."""
    run = fresh()
    run.run.tier = msgspec.structs.replace(run.run.tier, cores_needed=3)
    verdict = judge(run.log())
    assert verdict.outcome == "INVALID"
    assert "cores of the machine 2 (≥ 3)" in verdict.sentence


@pytest.mark.parametrize(
    ("planted", "caught"),
    [
        (Server(errors=0.01), "errors in ramp and steady 1."),
        (Server(wrong=0.01), "wrong answers "),
        (Server(stall_s=0.3), "windows whose p99 is above 250 ms 16.7 %"),
        (Server(slower=60), "p95 1"),
    ],
)
def test_planted_faults_of_the_server_are_its_failures(planted, caught):
    """1 % of 500s, 1 % of wrong answers, a stall every 10 s, a slow server: FAIL, for generator and
    machine are clear."""
    verdict = judge(made(planted).log())
    assert (verdict.outcome, verdict.exit_code) == ("FAIL", 1)
    assert caught in verdict.sentence


@pytest.mark.parametrize(
    ("server", "named"),
    [(Server(wrong=0.005), "wrong answers"), (Server(errors=0.005), "error statuses")],
)
@pytest.mark.parametrize("noise", [_a_busy_worker, _a_noisy_neighbour, _a_lost_worker])
def test_noise_excuses_no_wrong_answer(server, named, noise):
    """One in 200 is wrong or a 500: FAIL, named first, although rules do not hold."""
    verdict = judge(noise(made(server)).log())
    assert verdict.outcome == "FAIL"
    assert verdict.sentence.startswith("The server does not work right: ")
    assert named in verdict.sentence.partition(".")[0]


def test_a_slow_server_measured_badly_is_invalid():
    """The generator had no CPU left: it is unknown whose fault the latencies are."""
    verdict = judge(_a_busy_worker(made(Server(slower=100))).log())
    assert verdict.outcome == "INVALID"
    assert "V2 generator CPU" in verdict.sentence


def test_requests_that_an_interrupted_run_left_behind_are_no_failure_of_the_server():
    """Users are stopped with requests under way; a wrong answer before that is one."""
    run = fresh()
    run.run.ended = Ended(kind="interrupted")
    second(run, 60).failures = {"unanswered": 3, "reset": 2}
    assert judge(run.log()).outcome == "INVALID"
    second(run, 60).failures = {"wrong_prediction": 1}
    assert judge(run.log()).outcome == "FAIL"


def test_broken_connections_fail_unless_the_generator_may_have_broken_them():
    """Ports that ran out look like resets; a busy neighbour does not."""

    def resets(made: Made) -> Made:
        for t in STEADY:
            second(made, t).failures = {"reset": 1}
            second(made, t).intended += 1
        return made

    def few_ports(sample: Sample) -> None:
        _net(sample).ports_used = 28_000

    assert judge(_a_noisy_neighbour(resets(fresh())).log()).outcome == "FAIL"
    assert judge(each_sample(resets(fresh()), few_ports).log()).outcome == "INVALID"
