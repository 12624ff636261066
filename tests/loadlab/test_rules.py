"""The 17 rules: each is broken by what it is for, and by nothing else; what was not recorded breaks
it too."""

import itertools
import random
from collections.abc import Callable

import msgspec
import pytest

from loadlab.record.cgroup import Limits
from loadlab.record.histogram import pack
from loadlab.record.schema import (
    Ended,
    HostSample,
    NetSample,
    Phase,
    PhaseName,
    ProcessSample,
    Replica,
    Sample,
    Second,
    ServerSample,
    Workers,
)
from loadlab.record.store import Log
from loadlab.verdict.check import Check
from loadlab.verdict.judge import judge
from loadlab.verdict.rules import RULES, in_words, judge_rules
from loadlab.verdict.stats import PAIRS
from support.runs import LIMITS, Made, Server, each_sample, fresh, made, second
from support.turns import FULL, over_real_noise

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


def _requests_that_leave_too_late_for_the_objective(made: Made) -> Made:
    for t in STEADY:
        second(made, t).lag = pack({26_000: 150})
    return made


def _a_greedy_hypervisor(made: Made) -> Made:
    return each_sample(made, lambda sample: setattr(_host(sample), "steal_s", sample.t * 0.1))


def _a_noisy_neighbour(made: Made) -> Made:
    return each_sample(
        made, lambda sample: setattr(_host(sample), "busy_s", _host(sample).busy_s + sample.t * 0.2)
    )


def _connections_that_are_not_kept(made: Made) -> Made:
    for line in made.seconds:
        line.opens += 100 if line.series == "users" and line.phase == "steady" else 0
    return made


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


def test_a_rule_is_named_in_words():
    """As sentences about runs have it."""
    assert in_words("V13") == "the load was not steady (V13)"
    assert len({in_words(rule.name) for rule in RULES}) == len(RULES)


def test_the_witness_counts_in_error_rates():
    """Its failures, and the requests that they are of."""
    run = fresh()
    before = judge(run.log()).figures
    asked = [line for line in run.seconds if line.series == "witness"]
    asked[30].failures = {"status_500": 2}
    verdict = judge(run.log())
    users = sum(line.answered for line in run.seconds if line.series == "users" and line.t < 95)
    assert before.judged == users + sum(line.answered for line in asked)
    assert (verdict.outcome, verdict.figures.errors) == ("FAIL", 2)
    assert verdict.figures.failures == {"status_500": 2}


def test_the_lab_s_own_connections_are_left_out_of_those_of_users():
    """One connection too few is one user without."""
    few = each_sample(fresh(), lambda sample: setattr(_net(sample), "established", 999))
    assert _broken(few.log()) == ["V7"]


def _opened_by_others(made: Made, more: int = 1500) -> Made:
    opened = 5000 + made.run.scenario.users + more
    return each_sample(
        made, lambda sample: setattr(_net(sample), "active_opens", opened), start_s=60
    )


def test_connections_that_other_programs_open_are_not_the_users():
    """The kernel counts those of the whole machine: a proxy or a test suite next to a small run
    opened four for each of its requests, and the server was called one that closes connections."""
    assert _broken(_opened_by_others(fresh()).log()) == []


def test_what_users_open_is_the_kernel_s_count_where_they_do_not_count():
    """Those of Locust's HttpUser; the witness opens another one after a failure."""
    run = _opened_by_others(fresh())
    for line in run.seconds:
        line.opens = 0
    asked = [line for line in run.seconds if line.series == "witness" and line.phase == "steady"]
    assert "V7" in _broken(run.log())
    asked[5].failures = {"reset": 500}
    assert "V7" not in _broken(_opened_by_others(run, 500).log())


ONLY_WORSE = ("V3", "V4", "V5", "V6", "V9", "V17")
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
        assert verdict.sentence.endswith("; then run again.")
    assert any(
        check.text in verdict.sentence
        for finding in verdict.findings
        for check in finding.checks
        if not check.holds
    )


def test_a_generator_that_is_late_forbids_a_pass_where_the_objective_is_near():
    """Beyond a tenth of the objective's p99 of 250 ms; without one, beyond the rule's 5 ms."""
    late = _requests_that_leave_too_late_for_the_objective(fresh())
    assert judge(late.log()).outcome == "INVALID"
    assert "schedule lag p99 as a share of the objective's p99 10.4 %" in judge(late.log()).sentence
    made = _requests_that_leave_late(fresh())
    objective = msgspec.structs.replace(made.run.criteria.objective, p99_ms=None)
    made.run.criteria = msgspec.structs.replace(made.run.criteria, objective=objective)
    assert judge(made.log()).outcome == "INVALID"


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


@pytest.mark.parametrize(("kept", "holds"), [(33_333, True), (33_000, False)])
def test_the_kernel_keeps_a_quota_in_whole_microseconds(kept, holds):
    """A third of a core has no end in decimals: it is in force all the same."""
    found = fresh()
    limits = msgspec.structs.replace(LIMITS, cpus=1 / 3)
    found.run.tier = msgspec.structs.replace(found.run.tier, limits=limits)
    (replica,) = found.run.replicas
    read = msgspec.structs.replace(limits, cpus=kept / 100_000)
    found.run.replicas = [msgspec.structs.replace(replica, limits=read)]
    (finding,) = [each for each in judge_rules(found.log()) if each.rule == "V11"]
    assert finding.holds == holds


def _by_turns(pool_us: float, fresh_us: float, noise: float = 0.02, **details: str) -> Log:
    """Eight pairs of turns of 2 s, 100 answers a second, whose requests take so much CPU time, give
    or take the noise, on a machine that becomes slower; in the steady phase as with the pool."""
    run, dice = fresh().run, random.Random(1)  # noqa: S311  reproducible
    run.details |= details
    names: list[PhaseName] = ["steady", *["pool", "fresh", "fresh", "pool"] * (PAIRS // 2)]
    edges = [0.0, *(20.0 + 2 * turn for turn in range(2 * PAIRS + 1))]
    run.phases = [
        Phase(name=name, start_s=start, end_s=end, users=1000)
        for name, (start, end) in zip(names, itertools.pairwise(edges), strict=True)
    ]
    seconds, samples, cpu_s = [], [Sample(t=0.0, server=_used(0.0))], 0.0
    for phase in run.phases:
        us = (fresh_us if phase.name == "fresh" else pool_us) * (
            1.0 if phase.name == "steady" else dice.lognormvariate(0, noise)
        )
        for t in range(int(phase.start_s), int(phase.end_s or 0)):
            seconds.append(Second(t=t, series="users", phase=phase.name, answered=100))
            cpu_s += 100 * us * (1 + t / 100) / 1e6
            samples.append(Sample(t=t + 1.0, server=_used(cpu_s)))
    samples.append(Sample(t=edges[-1] + 1, server=_used(cpu_s)))
    return Log(run, seconds, samples)


def _used(cpu_s: float) -> ServerSample:
    return ServerSample(cpu_s=cpu_s, memory_bytes=0, memory_peak_bytes=0)


def _v15(log: Log) -> tuple[bool, str]:
    (found,) = [finding for finding in judge_rules(log) if finding.rule == "V15"]
    return found.holds, found.sentence


def test_a_cache_is_found_where_it_works():
    """Bodies that were sent before are cheaper than new ones, by more than chance and drift; and an
    honest server is not accused."""
    assert _v15(_by_turns(1080, 1080, inference_us="1000"))[0]
    holds, said = _v15(_by_turns(80, 1080, inference_us="1000"))
    assert not holds
    assert "bodies sent before are cheaper than new ones by (99 % sure) at least 92" in said
    assert _v15(_by_turns(1080, 80, inference_us="1000"))[0]


def test_new_bodies_may_take_longer_paths():
    """The lab's own session says by how much; a cache does not hide behind shorter ones."""
    paths = {"inference_us": "900", "fresh_inference_us": "1300"}
    assert _v15(_by_turns(1000, 1400, **paths))[0]
    assert not _v15(_by_turns(1000, 1400, inference_us="900", fresh_inference_us="900"))[0]
    paths = {"inference_us": "900", "fresh_inference_us": "300"}
    assert not _v15(_by_turns(100, 400, **paths))[0]


def test_where_a_cache_saves_too_little_the_finding_says_so_in_words():
    """And does not forbid a PASS; a cache that is seen nevertheless is named."""
    holds, said = _v15(_by_turns(82, 82, inference_us="3.4"))
    assert holds
    assert "inference takes 3 µs of 90 µs a request: a cache saves too little to be" in said
    assert not _v15(_by_turns(40, 82, inference_us="3.4"))[0]
    assert "too few different rows" in _v15(_by_turns(82, 82, fresh_bodies="none: …"))[1]


def test_turns_that_are_too_noisy_or_cut_off_prove_nothing():
    """A cache that saves half of the CPU time would not be seen in them."""
    noisy = _by_turns(1080, 1080, noise=1.0, inference_us="1000")
    holds, said = _v15(noisy)
    assert not holds
    assert "the least that would have been found" in said
    cut = _by_turns(1080, 1080)
    cut.run.phases.pop()
    assert "not recorded" in _v15(cut)[1]


@pytest.mark.parametrize(("alike_too", "holds"), [(True, True), (False, False)])
def test_older_records_are_judged_by_one_body_for_all(alike_too, holds):
    """Where new bodies that take the same path are as cheap as one for everybody, nothing was
    remembered."""
    log = _by_turns(50, 50 if alike_too else 100)
    names = {"pool": "repeated", "fresh": "alike"}
    for each in log.seconds:
        each.phase = names.get(each.phase, each.phase)  # type: ignore[assignment]
    log.run.phases = [
        msgspec.structs.replace(each, name=names.get(each.name, each.name))
        for each in log.run.phases
    ]
    found, said = _v15(log)
    assert found == holds
    assert "one body for everybody is cheaper than new ones like it by" in said


def test_v15_accuses_whom_it_should_over_the_noise_of_real_runs():
    """An honest server in at most 1 of 100 runs; a full cache over an inference of 1 ms, and one
    that saves half, in at least 99; what saves less is found less often."""
    accused = over_real_noise()
    assert accused[0.0] <= 0.01
    assert min(accused[0.5], accused[FULL]) >= 0.99
    assert 0.5 < accused[0.25] < accused[0.4] < 1


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
        (Server(errors=0.01), "errors in ramp and steady 0.96 %"),
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
    assert [each.rule for each in verdict.findings if not each.holds] == ["V2", "V13"]
    assert "1 rule is broken that a FAIL needs. V2 generator CPU" in verdict.sentence


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
