"""Outcomes and exit codes of runs that broke off, and what several runs prove together."""

import msgspec
import pytest

from loadlab.record.histogram import merge, pack
from loadlab.record.schema import Calibration, Ended, NullServer, Phase, Second, criteria
from loadlab.verdict.judge import Judged, Verdict, combine, judge
from support.runs import Made, Server, fresh, made


def _ended(kind: str, sentence: str = "") -> Verdict:
    run = fresh()
    # Each is a word of the form
    run.run.ended = Ended(kind=kind, sentence=sentence)  # type: ignore[arg-type]
    return judge(run.log())


@pytest.mark.parametrize(
    ("kind", "outcome", "code"),
    [
        ("interrupted", "INVALID", 2),
        ("generator_broke", "INVALID", 2),
        ("disk_full", "INVALID", 2),
        ("infrastructure", "ERROR", 4),
        ("wrong_answer", "FAIL", 1),
        ("server_died", "FAIL", 1),
        ("server_hung", "FAIL", 1),
    ],
)
def test_a_run_that_broke_off_says_whose_fault_it_was(kind, outcome, code):
    """The server's end is its failure; everything else proves nothing about it."""
    verdict = _ended(kind, "process 12 ended with 137")
    assert (verdict.outcome, verdict.exit_code) == (outcome, code)
    assert "process 12 ended with 137" in verdict.sentence


def test_a_server_that_dies_in_the_ramp_fails_without_a_steady_phase():
    """A server that is gone needs no stopwatch: only that it was in its limits."""
    run = fresh()
    run.run.ended = Ended(kind="server_died", sentence="out of memory")
    run.run.phases = [
        phase for phase in run.run.phases if phase.name in ("floor", "start", "warmup", "ramp")
    ]
    run.seconds = [line for line in run.seconds if line.t < 15]
    run.samples = [sample for sample in run.samples if sample.t < 15]
    assert judge(run.log()).outcome == "FAIL"

    run.run.replicas = []
    assert judge(run.log()).outcome == "INVALID"


def test_a_server_that_drowns_in_the_ramp_fails_whatever_the_witness_saw():
    """The run was given up before it was steady: users and witness saw another mixture of it, and
    the generator is clear without them."""
    run = drowning()
    run.seconds = [line for line in run.seconds if line.series != "witness" or line.t % 5 == 0]
    verdict = judge(run.log())
    assert "V16" in [finding.rule for finding in verdict.findings if not finding.holds]
    assert verdict.outcome == "FAIL"

    run.run.workers = None
    assert judge(run.log()).sentence.startswith("The server does not work right: ")


@pytest.mark.parametrize(("factor", "outcome"), [(2.0, "FAIL"), (0.5, "FAIL"), (0.1, "INVALID")])
def test_a_witness_who_waited_too_long_himself_excuses_nobody(factor, outcome):
    """Where latency swings, users who wait ask less often. One who saw the objective met says that
    the generator may be slow."""
    run = made(Server(slower=100))
    for line in run.seconds:
        if line.series == "witness":
            line.response = pack(
                {int(value * factor): count for value, count in merge([line.response]).items()}
            )
    verdict = judge(run.log())
    assert "V16" in [finding.rule for finding in verdict.findings if not finding.holds]
    assert verdict.outcome == outcome


def end_in_settling(run: Made, at_s: float) -> None:
    """Cut a record off in its settling phase, at a second of the run."""
    run.run.phases = [
        phase
        for phase in run.run.phases
        if phase.name in ("floor", "start", "warmup", "ramp", "settle")
    ]
    run.run.drain = None
    run.seconds = [line for line in run.seconds if line.t < at_s]
    run.samples = [sample for sample in run.samples if sample.t < at_s]


def drowning() -> Made:
    """Half of the answers are errors, and the run ends in its settling."""
    run = made(Server(errors=0.5))
    run.run.ended = Ended(
        kind="aborted", sentence="stopped early: 50% of the answers of the last 5 s were errors"
    )
    end_in_settling(run, 30)
    return run


def test_a_server_that_gets_too_slow_after_the_ramp_fails_for_what_it_was_stopped_for():
    """The ramp was fast, and there is no steady phase: all that was measured of its latency is why
    the run was given up."""
    run = fresh()
    run.run.ended = Ended(kind="aborted", sentence="stopped early: p95 was above 1000 ms for 10 s")
    end_in_settling(run, 35)
    for line in run.seconds:
        if line.phase == "settle":
            line.response = pack({1_500_000: line.answered})
    verdict = judge(run.log())
    assert verdict.outcome == "FAIL"
    assert "missed its objective: p95 of its last 10 s 1,499 ms (≤ 100 ms)." in verdict.sentence


def test_a_run_that_cannot_be_made_here_says_what_to_do_about_that_alone():
    """Of the rules of which nothing was recorded nothing can be mended."""
    run = Made(fresh().run)
    sentence = "tier half-core needs 9 cores; this machine has 2"
    run.run.tier = msgspec.structs.replace(run.run.tier, cores_needed=9)
    run.run.ended = Ended(kind="aborted", sentence=sentence)
    run.run.phases, run.run.processes, run.run.replicas, run.run.workers = [], [], [], None
    verdict = judge(run.log())
    assert verdict.outcome == "INVALID"
    assert verdict.sentence.startswith(f"{sentence}. The measurement proves nothing")
    assert verdict.sentence.endswith(
        "What to do: use a machine that is not shared and has one more core than the server for "
        "the generator; then run again."
    )


def test_error_statuses_for_new_bodies_fail_a_server_that_knows_the_others():
    """They are after the steady phase, of which the objective's errors are."""
    run = fresh()
    lines = [line for line in run.seconds if line.phase == "repeated" and line.series == "users"]
    for line in lines:
        line.phase = "fresh"
        line.failures = {"status_503": 1}
    assert judge(run.log()).outcome != "FAIL", "it refuses by its load, and may be right to"
    for line in lines:
        line.failures = {"status_500": 1}
    verdict = judge(run.log())
    assert verdict.outcome == "FAIL"
    assert "The server does not work right: 10 error statuses (status_500) of" in verdict.sentence


def test_resets_are_named_with_what_to_do():
    """Common servers close a connection that is idle for 5 s, and users pause for up to 9 s; a
    server that died closes them all, and another keep-alive does not help."""
    run = fresh()
    for line in run.seconds:
        if line.phase == "steady" and line.series == "users":
            line.failures = {"reset": 1}
    sentence = judge(run.log()).sentence
    assert "connections broken off (reset)" in sentence
    assert "uvicorn --timeout-keep-alive 75" in sentence
    run.run.ended = msgspec.structs.replace(run.run.ended, kind="server_died")
    assert "uvicorn" not in judge(run.log()).sentence


def test_a_killed_run_is_invalid():
    """Nobody wrote its end."""
    run = fresh()
    run.run.ended = None
    assert judge(run.log()).sentence == "The run was killed before its end. What to do: run again."


def _overloaded(refused_us: int, calm_from: int) -> Made:
    """60 s of steady are 30 of steady, 15 of overload, 15 of recovery; refusals take so long, and
    end at that second."""
    run = fresh()
    run.run.criteria = criteria("overload")
    run.run.scenario = msgspec.structs.replace(run.run.scenario, duration_s=30)
    run.run.phases[5:6] = [
        Phase(name="steady", start_s=35, end_s=65, users=1000),
        Phase(name="overload", start_s=65, end_s=80, users=1000),
        Phase(name="recovery", start_s=80, end_s=95, users=1000),
    ]
    for line in run.seconds:
        if line.series == "users" and 65 <= line.t < 95:
            line.phase = "overload" if line.t < 80 else "recovery"
            if line.t < calm_from:
                _refuse(line, 50, refused_us)
    return run


def _refuse(line: Second, count: int, refused_us: int) -> None:
    line.intended += count
    line.failures = {"status_503": count}
    line.failed = pack({refused_us: count})


def test_overload_is_judged_by_goodput_quick_refusals_and_recovery():
    """Refusals are no errors then, if they are quick and end soon."""
    assert judge(_overloaded(refused_us=2000, calm_from=83).log()).outcome == "PASS"
    slow = judge(_overloaded(refused_us=900_000, calm_from=83).log())
    assert (slow.outcome, "refusals' p99 897 ms" in slow.sentence) == ("FAIL", True)
    late = judge(_overloaded(refused_us=2000, calm_from=92).log())
    assert (late.outcome, "recovered after 12 s" in late.sentence) == ("FAIL", True)


def _repeats(*servers: Server) -> list[Judged]:
    found = []
    for number, server in enumerate(servers, 1):
        run = made(server, seed=number, identity=f"run-{number}")
        run.run.repeat, run.run.repeats, run.run.set_id = number, len(servers), "set"
        found.append(Judged(run.run, judge(run.log())))
    return found


@pytest.fixture(scope="module")
def three():
    """Three repeats that pass."""
    return _repeats(Server(), Server(), Server())


def test_three_passes_may_be_claimed(three):
    """The claim's text names date, commit, machine, load, limits, figures, runs and seeds."""
    together = combine(three)
    assert (together.outcome, together.exit_code, together.sentence) == (
        "PASS",
        0,
        "3 of 3 runs valid and passing.",
    )
    for part in (
        "Verified on 2026-11-20, commit 0123456789ab, a made-up processor, 2 cores, 24 GB",
        (
            "1,000 concurrent users (one keep-alive connection each, think time U(4,9) s), ramped "
            "at 100 users/s (smooth), 60 s steady"
        ),
        (
            "limited to 0.5 CPU (quota 50 ms per 100 ms), on CPU 0, and 256 MiB: 3 of 3 runs "
            "valid and passing; 154 requests a second"
        ),
        "on the same machine over loopback",
        "Runs: run-1, run-2, run-3; seeds 1, 2, 3.",
    ):
        assert part in together.claim


def test_a_claim_names_how_fast_the_machine_was(three):
    """Where the record has it: the calibration's score, and CPU time as a multiple of the null
    server's."""
    judged = []
    for each in three:
        run = msgspec.structs.replace(
            each.run,
            calibration=Calibration(
                python_mops=20, syscalls_per_s=1e6, loopback_per_s=3e4, score=1.25
            ),
        )
        figures = msgspec.structs.replace(each.verdict.figures, cpu_us=110.0, cpu_of_null=2.5)
        judged.append(Judged(run, msgspec.structs.replace(each.verdict, figures=figures)))
    claim = combine(judged).claim
    assert "cgroups v1, calibration score 1.25: " in claim
    assert "cores (110.0 µs a request, 2.5 × the null server's), throttled" in claim


@pytest.mark.parametrize("null_us", [11.0, 0.0, None])
def test_cpu_time_is_a_multiple_of_the_null_server_of_the_same_run(null_us):
    """Older records have none, and one that answered nothing has no CPU time."""
    run = fresh()
    if null_us is not None:
        run.run.null_server = NullServer(cpu_us=null_us, rate=150, users=1000, failures=0)
    found = judge(run.log()).figures
    assert found.cpu_us is not None
    expected = pytest.approx(found.cpu_us / null_us) if null_us else None
    assert found.cpu_of_null == expected


def test_repeats_may_draw_another_number_of_different_bodies(three):
    """Where columns have few values some rows are drawn twice, by each seed others: seen as runs
    that "differ in scenario"."""
    drawn = []
    for number, each in enumerate(three):
        scenario = msgspec.structs.replace(each.run.scenario, bodies=990 + number)
        run = msgspec.structs.replace(each.run, scenario=scenario)
        drawn.append(Judged(run, each.verdict))
    assert combine(drawn).outcome == "PASS"


def test_nothing_is_claimed_of_less(three):
    """One FAIL refutes, a missing run or another commit spoils, and two runs are too few."""
    failed = _repeats(Server(errors=0.02))[0]
    assert combine([*three[:2], failed]).sentence == "Not verified: 2 PASS, 1 FAIL of 3."
    assert (combine(three[:2]).outcome, combine(three[:2]).claim) == ("INVALID", "")
    other = msgspec.json.decode(msgspec.json.encode(three[2].run), type=type(three[2].run))
    other.fingerprint = msgspec.structs.replace(other.fingerprint, commit="another")
    assert combine([*three[:2], Judged(other, three[2].verdict)]).outcome == "INVALID"
    assert combine(_repeats(Server(), Server())).claim == ""


def test_what_was_never_measured_is_not_reported_as_missed():
    """A server killed in the ramp has no p99, good or bad, and its end says nothing about the
    generator."""
    run = fresh()
    run.run.ended = Ended(kind="server_died", sentence="the server ended with -9")
    run.run.phases = run.run.phases[:4]
    run.seconds = [line for line in run.seconds if line.t < 20]
    run.samples = [sample for sample in run.samples if sample.t < 20]

    verdict = judge(run.log())

    assert verdict.outcome == "FAIL"
    assert (
        "objective: ends, hangs or restarts of the server 1 (≤ 0). Never measured: p50, p95, "
        "p99, max,"
    ) in verdict.sentence
    assert "clear" not in verdict.sentence
