"""The studies: what is run, how one that was cut off goes on, and what may be said of the rows."""

import msgspec
import pytest
from rich.console import Console

from loadlab.experiments import runner, studies, trial
from loadlab.experiments.studies import Row, Study, cells_of, parse, reasons, summaries
from loadlab.experiments.trial import Loaded
from loadlab.pages import plots, render
from loadlab.pages.experiments import newest, shares_of
from loadlab.pages.experiments import study as section
from loadlab.pages.experiments import study_sentences as sentences
from loadlab.record.schema import Ended, Replica
from loadlab.run import order
from loadlab.run.session import Place
from loadlab.verdict.judge import judge
from loadlab.words import UsageError
from support import runs


@pytest.fixture(scope="module")
def log():
    """A run of the lab, made up but whole."""
    return runs.made().log()


@pytest.fixture
def study(log):
    """Makes a study of which nothing has been run."""

    def make(what, *words, blocks=1):
        found = cells_of(what, parse(what, words))
        return Study(
            kind=what,
            started_at="2026-01-02T03:04:05Z",
            minutes=9.0,
            command=f"just {what}",
            seed=1,
            blocks=blocks,
            fingerprint=log.run.fingerprint,
            cells=found,
            rows=[],
        )

    return make


@pytest.fixture
def measured(log):
    """Gives a study rows: `values` makes (outcome, CPU µs, p99 ms) of a cell and a block."""
    made_up = trial.trial(Loaded(log, judge(log), Ended(kind="complete")), 1, "halfcore")

    def fill(study, values, **changes):
        rows = []
        for block, cell in study.left:
            outcome, cpu_us, p99_ms = values(cell, block)
            found = msgspec.structs.replace(
                made_up,
                outcome=outcome,
                cpu_us=cpu_us,
                p99_ms=p99_ms,
                side=cell.order.service,
                sentence=f"{cell.key} said so.",
            )
            row = Row(
                key=cell.key,
                service=cell.order.service,
                block=block,
                trial=found,
                answers_hz=1500.0,
                p50_ms=1.0,
                p95_ms=2.0,
            )
            rows.append(msgspec.structs.replace(row, **changes))
        return msgspec.structs.replace(study, rows=rows)

    return fill


def test_every_configuration_that_a_project_reported_is_there():
    """Of 000 two, of 001 four and its eight workers, of 002 five and three replicas, of 003 four,
    of 004 one."""
    found = studies.configurations()

    per_seed = {
        seed: sum(each.seed == seed for each in found)
        for seed in ("000", "001", "002", "003", "004")
    }
    assert per_seed == {"000": 2, "001": 5, "002": 6, "003": 4, "004": 1}
    assert all(each.key.startswith(each.seed) and each.reported and each.assumed for each in found)


def test_a_configuration_runs_with_both_services_in_the_same_limits():
    """Replicas behind a balancer of requests, the workers that were reported for the baseline, and
    their number of users."""
    found = cells_of("seeds", parse("seeds", ["only=001-one,003-three"]))

    ours, theirs, order, _ = (cell.order for cell in found)
    assert (ours.service, theirs.service, theirs.service_workers) == ("halfcore", "typical", 2)
    assert ours.tier == theirs.tier
    assert (ours.tier.cpus, ours.tier.memory_bytes, ours.users, ours.rate) == (
        1.0,
        2048 << 20,
        1000,
        50,
    )
    assert (ours.balancer, ours.backend) == ("none", "cgroup")
    assert (order.tier.replicas, order.balancer, order.model) == (3, "http", "penguins-rf")


def test_eight_workers_are_locusts():
    """Whatever engine the others have."""
    found = cells_of("seeds", parse("seeds", ["only=001-eight", "engine=raw"]))

    (order, _) = (cell.order for cell in found)
    assert (order.engine, order.workers) == ("locust", 8)


def test_equal_in_all():
    """Every shape of a total has its CPU, within a hundredth, and its memory."""
    found = cells_of("scale", parse("scale", []))
    tiers = [cell.order.tier for cell in found]

    assert [(tier.replicas, tier.cpus) for tier in tiers] == [
        (1, 0.5),
        (1, 0.5),
        (2, 0.25),
        (3, 0.167),
        (1, 1.0),
        (1, 1.0),
        (2, 0.5),
    ]
    for cell, tier in zip(found, tiers, strict=True):
        total = float(cell.key.partition("-as-")[0].replace("_", "."))
        assert tier.cores == pytest.approx(total, abs=0.005)
        assert tier.memory_bytes * tier.replicas == pytest.approx(
            total * (1 << 30), abs=tier.replicas
        )


def test_the_quota_study_varies_one_thing_at_a_time():
    """Two limits, two periods, burst off and on (one quota); and two ways of dealing out, with and
    without a late replica."""
    found = [cell.order for cell in cells_of("quota-study", parse("quota-study", []))]

    assert [
        (each.tier.cpus, each.tier.period_us, each.tier.burst_us)
        for each in found
        if each.balancer == "none"
    ] == [
        (0.5, 100_000, 0),
        (0.5, 100_000, 50_000),
        (0.5, 10_000, 0),
        (0.5, 10_000, 5_000),
        (0.25, 100_000, 0),
        (0.25, 100_000, 25_000),
        (0.25, 10_000, 0),
        (0.25, 10_000, 2_500),
    ]
    dealing = [(each.balancer, each.late, each.users) for each in found if each.balancer != "none"]
    assert dealing == [
        ("http", False, 6000),
        ("http", True, 6000),
        ("tcp", False, 6000),
        ("tcp", True, 6000),
    ]


@pytest.mark.parametrize(
    ("what", "word", "message"),
    [
        ("seeds", "only=009", "only=009: 009 begins no key; there are 000-one, "),
        ("seeds", "against=naive", "against=naive is unknown"),
        (
            "scale",
            "only=000",
            (
                "only=000: unknown; expected key=value with one of scenario, users, duration, "
                "engine, model, seed, fresh, blocks"
            ),
        ),
        ("scale", "tier=half-core", "tier=half-core: each cell of a study has its own"),
        ("scale", "duration=soon", "duration=soon is invalid"),
        ("quota-study", "blocks=0", "blocks=0 is invalid"),
        ("quota-study", "fresh=maybe", "fresh=maybe is unknown; there are yes, no"),
    ],
)
def test_a_wrong_word_is_refused(what, word, message):
    """With the value and what was expected."""
    with pytest.raises(UsageError, match=message):
        cells_of(what, parse(what, [word]))


def test_an_unknown_scenario_is_refused():
    """With the known ones."""
    with pytest.raises(UsageError, match="scenario=storm is unknown"):
        cells_of("scale", parse("scale", ["scenario=storm"]))


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [(["PASS"], "PASS"), (["INVALID", "PASS"], "PASS"), (["INVALID", "INVALID"], "INVALID")],
)
def test_an_invalid_run_is_repeated_once(study, monkeypatch, tmp_path, outcomes, expected):
    """It proves nothing; the second one counts, whatever it says, and the page says why there was
    one."""
    left = list(outcomes)

    def run(*_, **__):
        made = runs.fresh()
        if left.pop(0) == "INVALID":
            made.run.tier = msgspec.structs.replace(made.run.tier, cores_needed=3)
        return made.write(tmp_path / f"run-{len(left)}"), Ended(kind="complete")

    monkeypatch.setattr(trial.session, "carry_out", run)
    # The wait is for this machine's old connections, whoever made them.
    monkeypatch.setattr(trial, "cool_down", lambda: None)
    planned = study("seeds", "only=004")
    planned = msgspec.structs.replace(
        planned, cells=[cell for cell in planned.cells if cell.order.service == "halfcore"]
    )
    place = Place(tmp_path, tmp_path, tmp_path)
    (found,) = studies.study(planned, place, Console(quiet=True))[0].rows

    assert not left
    assert found.trial.outcome == expected
    assert ("cores of the machine" in found.first) == (len(outcomes) > 1)
    shown = [
        line
        for line in reasons(msgspec.structs.replace(planned, rows=[found]))
        if "INVALID, and repeated once" in line
    ]
    assert len(shown) == len(outcomes) - 1


def test_what_this_machine_cannot_measure_is_not_run(study, monkeypatch, tmp_path):
    """It has its row with the reason, stored; nothing is started."""
    monkeypatch.setattr(order.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(order.os, "sched_getaffinity", lambda _pid: {0, 1})
    planned = study("seeds", "only=002-three,001-four")

    place = Place(tmp_path, tmp_path, tmp_path)
    found, kept = studies.study(planned, place, Console(quiet=True))

    assert {(row.key, row.trial) for row in found.rows} == {
        (key, None) for key in ("002-three", "002-three-replicas", "001-four", "001-four-by-two")
    }
    assert all("this machine has 2" in row.reason for row in found.rows)
    assert runner.load(kept, Study) == found
    text = section(found, "runs/x.json", "")
    assert (
        "**INVALID**, not run: tier seed-002-three needs 4 cores (3 for the server, one for "
        "the generator)"
    ) in text
    assert "not run yet" in text  # the configurations that were not asked for keep their rows


def test_a_study_that_was_cut_off_goes_on_where_it_ended(study, measured, tmp_path):
    """Same cells, same code: only what is missing is run, in the same order; other words, or a new
    start, run everything."""
    fresh = study("scale", blocks=2)
    whole = measured(fresh, lambda *_: ("PASS", 100.0, 5.0))
    _, file = runner.kept(fresh, tmp_path)
    runner.store.write(msgspec.structs.replace(whole, rows=whole.rows[:5]), file)

    cut, _ = runner.kept(fresh, tmp_path)
    assert (len(cut.rows), len(cut.left)) == (5, 9)
    assert [(row.block, row.key) for row in cut.rows] + [
        (block, cell.key) for block, cell in cut.left
    ] == [(block, cell.key) for block, cell in fresh.left]
    other = study("scale", "users=500", blocks=2)
    assert runner.kept(other, tmp_path)[0] == other
    assert runner.kept(fresh, tmp_path, again=True)[0] == fresh
    assert whole.left == []


def test_a_row_says_how_fast_and_which_replica_answered(log, study):
    """From the first user to the end of steady; the balancer's part only where there is one."""
    run = msgspec.structs.replace(
        log.run,
        replicas=[Replica(limits=runs.LIMITS, processes_inside=1, processes_outside=0, answered=7)],
    )
    (cell, *_) = study("scale").cells

    whole = type(log)(run, log.seconds, log.samples)
    found = studies.row(cell, 1, Loaded(whole, judge(log), Ended(kind="complete")))

    assert found.answers_hz == pytest.approx(150, rel=0.1)  # 1,000 users who think 6.5 s
    assert found.answered == [7]
    assert found.balancer_us is None
    assert found.trial is not None
    assert found.trial.cpu_us == pytest.approx(110, rel=0.1)


def test_horizontal_and_vertical_are_compared_within_one_total(study, measured, tmp_path):
    """From valid runs only, with the balancer's part."""
    costs = {
        "0_5-as-1": 100.0,
        "0_5-as-1-balanced": 160.0,
        "0_5-as-2-balanced": 200.0,
        "0_5-as-3-balanced": 300.0,
        "1-as-1": 90.0,
    }
    found = measured(
        study("scale", blocks=3),
        lambda cell, block: ("PASS", costs.get(cell.key), 5.0 * block),
        balancer_us=60.0,
    )

    said = "\n".join(sentences(found))

    assert (
        "0.5 CPU in all: one replica alone takes 100 µs CPU an answer, p99 10.0 ms (3 PASS)."
        in said
    )
    assert (
        "2 × 0.25 + HAProxy: 200 µs CPU an answer, p99 10.0 ms (3 PASS), 2.00 × the CPU time "
        "of one; 60 µs are the balancer's."
    ) in said
    assert "3 × 0.167 + HAProxy: 300 µs" in said
    assert "2 × 0.5 + HAProxy: 3 PASS; nothing is compared." in said
    assert plots.scale(found, tmp_path / "scale.svg")
    assert "2 × 0.25 + HAProxy" in (tmp_path / "scale.svg").read_text()
    invalid = measured(study("scale"), lambda *_: ("INVALID", 100.0, 5.0))
    assert "one replica alone was not measured validly" in sentences(invalid)[0]
    assert not plots.scale(invalid, tmp_path / "none.svg")


def test_period_and_burst_are_shown_against_what_docker_does(study, measured):
    """100 ms and no burst."""
    p99_ms = {
        (100_000, False): 80.0,
        (100_000, True): 40.0,
        (10_000, False): 20.0,
        (10_000, True): 10.0,
    }
    found = measured(
        study("quota-study"),
        lambda cell, _: (
            "FAIL",
            100.0,
            p99_ms[cell.order.tier.period_us, cell.order.tier.burst_us > 0],
        ),
        answered=[3, 3, 0],
    )

    said = sentences(found)

    assert said[0] == (
        "0.5 CPU: p99 is 80.0 ms with 100 ms and no burst, 40.0 ms with 100 ms, burst, 20.0 ms "
        "with 10 ms, no burst, "
        "10.0 ms with 10 ms, burst; least with 10 ms, burst."
    )
    assert (
        "A replica that joins late gets 0.0% of the answers where connections are dealt out."
        in said
    )
    assert "| connections | joins late | 1 FAIL | 50.0% / 50.0% / 0.0% |" in section(
        found, "x.json", ""
    )


def test_who_answered_is_counted_though_the_latencies_prove_nothing(study, measured):
    """An INVALID run has no p99 that counts, and its shares do."""
    found = measured(study("quota-study"), lambda *_: ("INVALID", 1.0, 1.0), answered=[3, 2, 0])

    assert "| connections | joins late | 1 INVALID | 60.0% / 40.0% / 0.0% |" in section(
        found, "x.json", ""
    )
    assert sentences(found)[0] == "0.5 CPU: too little was measured validly to compare."


def test_a_replica_that_does_not_tell_has_no_share(study, measured):
    """Rather than a wrong one."""
    found = measured(study("quota-study"), lambda *_: ("PASS", 1.0, 1.0), answered=[3, None, 0])

    assert [shares_of(each) for each in summaries(found, "dealing-")] == [[]] * 4


def test_the_projects_table_shows_both_sides(study, measured):
    """Next to what they reported; a baseline that could not start is shown as that, and one that
    answered wrongly."""
    found = measured(
        study("seeds", "only=003-fifth,003-tenth,004"),
        lambda cell, _: ("PASS" if cell.order.service == "halfcore" else "FAIL", 130.0, 12.0),
    )
    dead = [
        msgspec.structs.replace(
            row,
            trial=msgspec.structs.replace(
                row.trial, outcome="ERROR", could_start=row.key != "004-half"
            ),
        )
        if row.service == "typical" and row.key in ("003-tenth", "004-half")
        else row
        for row in found.rows
    ]
    found = msgspec.structs.replace(found, rows=dead)

    text = section(found, "runs/x.json", "")

    assert "003-fifth: 1 × 0.2 CPU, 256 MiB | 10,000 | 1–4 answers a second, no failures" in text
    assert "**PASS**: 1,500 answers/s, p50 / p99 1.0 / 12.0 ms, 0 errors, 130 µs CPU/answer" in text
    assert "**cannot start**: 004-half said so." in text
    assert "**ERROR**: 003-tenth said so." in text
    assert (
        sentences(found)[0]
        == "Of 2 runs in which both could be judged, Halfcore passes 2 and `typical` 0."
    )
    assert "003-fifth, typical. FAIL: 003-fifth said so." in text


def test_the_document_has_the_newest_study_of_each_kind(study, measured, tmp_path):
    """With machine, commit, command and link; the same file gives the same text."""
    for what in studies.KINDS:
        found = measured(study(what), lambda *_: ("PASS", 100.0, 5.0), answered=[1, 1, 1])
        runner.save(
            msgspec.structs.replace(found, started_at="2025-01-02T03:04:05Z"), tmp_path / "runs"
        )
        runner.save(found, tmp_path / "runs")

    def chapters(out):
        written = render.Chapters(out)
        files = newest(tmp_path / "runs", *studies.KINDS)
        return [written.study(file) for file in files], written.pictures

    parts, pictures = chapters(tmp_path / "benchmarks.md")

    assert (parts, pictures) == chapters(tmp_path / "benchmarks.md")
    assert [part.splitlines()[0] for part in parts] == [
        "## What the course projects reported",
        "## One replica or several: horizontal against vertical",
        "## The quota's period and burst, and replicas under keep-alive",
    ]
    assert pictures == [tmp_path / "benchmarks-scale.svg"]
    for part, what in zip(parts, studies.KINDS, strict=True):
        assert f"`just {what}`; 2026-01-02T03:04:05Z" in part
        assert f"[Every run](runs/2026-01-02-030405-{what}.json)" in part
    assert newest(tmp_path / "empty", *studies.KINDS) == []
