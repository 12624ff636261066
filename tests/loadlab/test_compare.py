"""The comparison: what its words mean, in which order the sides run, and what may be said of the
result."""

import errno
import io
import re
from argparse import Namespace
from functools import partial
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from loadlab.experiments import runner, trial
from loadlab.experiments.compare import (
    Comparison,
    carry_out,
    compare,
    effects,
    parse,
    sentences,
    times,
)
from loadlab.experiments.trial import Loaded
from loadlab.generator.plan import scenarios
from loadlab.pages import experiments, plots
from loadlab.record.schema import Ended
from loadlab.run.command import INFRASTRUCTURE, INTERRUPTED, USAGE
from loadlab.run.session import Place
from loadlab.target.tiers import Tier
from loadlab.verdict.judge import judge
from loadlab.words import UsageError
from support import runs
from support.bundles import write_bundle

CARRY_OUT = partial(carry_out, table=experiments.compare_table)
TIERS = {"half-core": Tier(name="half-core", cpus=0.5, memory_bytes=512 << 20)}


@pytest.fixture(scope="module")
def log():
    """A run of the lab, made up but whole."""
    return runs.made().log()


@pytest.fixture
def compared(log):
    """Makes a comparison from (outcome, CPU-µs) of each block's sides."""

    def make(blocks, **changes):
        ours = trial.trial(Loaded(log, judge(log), Ended(kind="complete")), 1, "halfcore")
        trials = [
            msgspec.structs.replace(
                ours,
                block=number,
                side=side,
                outcome=outcome,
                cpu_us=cpu_us,
                sentence=f"{side} said so.",
            )
            for number, block in enumerate(blocks, 1)
            for side, (outcome, cpu_us) in zip(("halfcore", "tuned"), block, strict=True)
        ]
        found = Comparison(
            started_at="2026-01-02T03:04:05Z",
            minutes=9.0,
            command="just compare tier=half-core",
            seed=1,
            tier="half-core",
            limits="1 × 0.5 CPU, 512 MiB",
            scenario="steady",
            users=10_000,
            steady_s=120.0,
            model="iris",
            against="tuned",
            blocks=len(blocks),
            fingerprint=log.run.fingerprint,
            rows=trials,
        )
        return msgspec.structs.replace(found, **changes)

    return make


def test_a_trial_is_measured_from_the_first_user_to_the_end_of_steady(log):
    """The made-up server takes 110 µs a request in every phase."""
    found = trial.trial(Loaded(log, judge(log), Ended(kind="complete")), 1, "tuned")

    assert found.outcome == "PASS"
    assert found.cpu_us == pytest.approx(110, rel=0.1)
    assert found.could_start
    assert found.p99_ms is not None


def test_the_effect_is_the_median_ratio_with_its_interval(compared):
    """Per block, so that a machine that was slow for both does not count for either."""
    found = compared(
        [
            (("PASS", 100.0 * slow), ("PASS", 500.0 * slow * noise))
            for slow, noise in ((1, 1), (2, 1.1), (1, 0.9), (3, 1), (1, 1))
        ]
    )

    cpu = effects(found)[0]

    assert cpu.ratio is not None
    assert cpu.ratio.estimate == pytest.approx(5)
    assert 4.5 <= cpu.ratio.low <= 5 <= cpu.ratio.high <= 5.5
    assert effects(found) == effects(found)
    assert "CPU time per right answer: tuned takes 5 × of halfcore's" in "\n".join(sentences(found))


def test_a_block_with_an_invalid_run_counts_for_nobody(compared):
    """A failure counts: it is the server's; too few blocks conclude nothing."""
    found = compared(
        [
            (("PASS", 100.0), ("FAIL", 500.0)),
            (("INVALID", 1.0), ("PASS", 500.0)),
            (("PASS", 100.0), ("INVALID", 1.0)),
        ]
    )

    assert [len(each.pairs) for each in effects(found)] == [0, 1, 1]
    said = sentences(found)
    assert said[1] == "tuned: 1 PASS, 1 FAIL, 1 INVALID of 3. FAIL: tuned said so."
    assert "CPU time per right answer: no ratio, for it needs blocks in which both sides" in said[2]
    assert "tuned failed in 1 of them, so its figure is a lower bound" in said[3]
    assert said[-1] == "Only 1 of at least 5 blocks are valid on both sides: nothing is concluded."


def test_a_baseline_that_cannot_start_is_a_result(compared, tmp_path):
    """With its last words; there is no ratio, and no picture."""
    found = compared([(("PASS", 100.0), ("ERROR", None))] * 5)
    found = msgspec.structs.replace(
        found,
        rows=[
            msgspec.structs.replace(each, could_start=each.side == "halfcore")
            for each in found.rows
        ],
    )

    assert sentences(found)[1:] == [
        "tuned cannot start in this tier: tuned said so.",
        "No block in which both sides were measured validly: there is no ratio.",
    ]
    assert not plots.forest(found, tmp_path / "forest.svg")
    assert "| cannot start | – |" in experiments.compare(found, "runs/x.json", "x.svg")


def test_the_document_shows_stored_comparisons(compared, tmp_path):
    """The newest of each kind, with machine, limits, commit, command; the same file gives the same
    text."""
    found = compared([(("PASS", 100.0), ("PASS", 500.0))] * 5)
    old = runner.save(
        msgspec.structs.replace(found, started_at="2025-01-02T03:04:05Z"), tmp_path / "runs"
    )
    new = runner.save(found, tmp_path / "runs")

    assert new.name == "2026-01-02-030405-compare-half-core-tuned-10000.json"
    assert runner.load(new, Comparison) == found
    assert experiments.newest(old.parent, "compare") == [new]
    text = experiments.compare(found, new.name, "forest.svg")
    assert text == experiments.compare(runner.load(new, Comparison), new.name, "forest.svg")
    for expected in (
        "1 × 0.5 CPU, 512 MiB",
        "`just compare tier=half-core`",
        "10,000 users, 120 s steady",
        "![Ratios, with intervals](forest.svg)",
    ):
        assert expected in text
    assert plots.forest(found, tmp_path / "forest.svg")
    assert "half-core, 10,000 users: tuned / halfcore" in (tmp_path / "forest.svg").read_text()


@pytest.mark.parametrize(
    ("invalid", "made", "valid"),
    [
        (set(), 2, 2),
        ({2}, 3, 2),
        pytest.param({1, 4}, 4, 2, marks=pytest.mark.slow),
        pytest.param({1, 3, 5, 8}, 4, 0, marks=pytest.mark.slow),
    ],
)
def test_another_block_is_made_for_one_with_an_invalid_run(
    compared, monkeypatch, tmp_path, invalid, made, valid
):
    """Once for each of those that were asked for; `invalid` numbers runs, from 1. The sides of a
    block have one seed."""
    started = []

    def run(order, *_, **__):
        started.append(order)
        found = runs.fresh()
        if len(started) in invalid:
            found.run.tier = msgspec.structs.replace(found.run.tier, cores_needed=3)
        return found.write(tmp_path / f"run-{len(started)}"), Ended(kind="complete")

    monkeypatch.setattr(trial.session, "carry_out", run)
    # The wait is for this machine's old connections, whoever made them.
    monkeypatch.setattr(trial, "cool_down", lambda: None)
    order, *_ = parse(["tier=half-core"], TIERS, scenarios())
    fresh = msgspec.structs.replace(compared([]), blocks=2)
    place, quiet = Place(tmp_path, tmp_path, tmp_path), Console(quiet=True)

    found, file = compare(fresh, order, place, quiet)

    assert (found.made, len(found.valid_blocks)) == (made, valid)
    assert len(started) == len(found.rows) == 2 * made
    assert len({each.seed for each in started}) == made
    assert runner.load(file, Comparison) == found


def test_a_comparison_that_was_interrupted_continues_and_is_stored(monkeypatch, tmp_path, capsys):
    """The same words go on with the run that was cut off (exit code 130), and store all (0)."""
    started, ends = [], iter(["complete", "interrupted", "complete"])

    def run(order, *_, **__):
        started.append((order.service, order.seed))
        made, kind = runs.fresh(), next(ends)
        made.run.ended = Ended(kind=kind)
        return made.write(tmp_path / f"run-{len(started)}"), made.run.ended

    monkeypatch.setattr(trial.session, "carry_out", run)
    monkeypatch.setattr(trial, "cool_down", lambda: None)
    monkeypatch.setattr(trial, "prepare_baseline", lambda _: {"litestar": "2"})
    monkeypatch.setattr(trial, "try_groups", lambda: 2)
    write_bundle(tmp_path / ".halfcore/bundles", "iris", model=None)
    (tmp_path / "compose").symlink_to(Path(__file__).parents[2] / "compose")
    asked = Namespace(command="compare", words=["tier=half-core", "blocks=1"])

    assert trial.command(asked, tmp_path, Console(quiet=True), CARRY_OUT) == INTERRUPTED
    assert trial.command(asked, tmp_path, Console(quiet=True), CARRY_OUT) == 0

    assert len(set(started)) == 2
    assert started[1] == started[2]
    (file,) = (tmp_path / "docs/runs").iterdir()
    found = runner.load(file, Comparison)
    assert (found.tier, found.limits, found.users, found.against) == (
        "half-core",
        "1 × 0.5 CPU, 512 MiB",
        10_000,
        "typical",
    )
    assert (found.command, found.made) == ("just compare tier=half-core blocks=1", 1)
    assert found.fingerprint.baseline_packages == {"litestar": "2"}
    assert found.fingerprint.calibration is not None
    assert not list((tmp_path / runner.KEPT).iterdir())
    assert f"stored in {file}" in capsys.readouterr().out


def test_a_wrong_word_ends_the_command_with_what_was_expected(tmp_path):
    """Exit code 3, before anything is started."""
    (tmp_path / "compose").symlink_to(Path(__file__).parents[2] / "compose")
    console = Console(file=io.StringIO(), width=200)
    asked = Namespace(command="compare", words=["tier=half-core", "blocks=none"])

    assert trial.command(asked, tmp_path, console, CARRY_OUT) == USAGE
    assert "blocks=none is invalid: expected a whole number" in console.file.getvalue()


def test_a_model_that_the_baseline_does_not_know_is_refused(monkeypatch, tmp_path):
    """It could not start, and half an hour later that would be the comparison's result. What the
    lab calls an example is what the baseline has a body for."""
    monkeypatch.setattr(trial, "try_groups", lambda: 2)
    root = Path(__file__).parents[2]
    (tmp_path / "compose").symlink_to(root / "compose")
    write_bundle(tmp_path / ".halfcore/bundles", "mine")
    console = Console(file=io.StringIO(), width=400)
    asked = Namespace(command="compare", words=["tier=half-core", "model=mine"])

    assert trial.command(asked, tmp_path, console, CARRY_OUT) == USAGE
    said = console.file.getvalue()
    assert "model=mine: the baseline typical is written for the examples alone" in said
    assert "BASELINE_IMAGE=name just compare" in said
    bodies = (root / "loadlab/baseline/baseline/bodies.py").read_text()
    (table,) = re.findall(r"_BODIES.*= \{(.*)\}", bodies)
    known = sorted(re.findall(r'"(\w+)"', table))
    assert f"({', '.join(known)})" in said


def test_a_full_disk_is_no_result(tmp_path):
    """Exit code 4 and one sentence; a traceback's 1 is a search's "nothing passes"."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    console = Console(file=io.StringIO(), width=200)
    asked = Namespace(command="search", words=[])
    assert trial.command(asked, tmp_path, console, full) == INFRASTRUCTURE
    assert console.file.getvalue() == "loadlab: [Errno 28] No space left on device\n"


def test_a_ratio_to_a_server_that_failed_is_a_lower_bound_or_left_out(compared, tmp_path):
    """With more time it would take longer and hold more; its CPU time includes the overload, and
    bounds nothing. A failure of halfcore leaves nothing to divide by."""
    found = compared(
        [(("PASS", 100.0), ("PASS", 500.0)), *[(("PASS", 100.0), ("FAIL", 900.0))] * 4]
    )

    cpu, p99, memory = effects(found)
    assert (cpu.text, p99.text, memory.text) == ("5", "≥ 1", "≥ 1")
    said = "\n".join(sentences(found))
    assert (
        "p99: tuned takes ≥ 1 × of halfcore's (95 % interval 1–1, 5 blocks; tuned failed in 4 "
        in said
    )
    assert plots.forest(found, tmp_path / "forest.svg")
    assert "≥ 1 ×" in (tmp_path / "forest.svg").read_text()

    drowned = compared([(("PASS", 100.0), ("FAIL", 900.0))] * 5)
    assert (
        "CPU time per right answer: no ratio, for it needs blocks in which both sides passed."
        in (sentences(drowned))
    )
    failed = compared([(("FAIL", 100.0), ("PASS", 500.0))] * 5)
    assert {each.ratio for each in effects(failed)} == {None}


def test_the_words_are_those_of_a_load_run_and_two_more():
    """Processes in control groups on both sides, whatever is installed."""
    order, against, blocks = parse(
        ["tier=half-core", "users=500", "against=onnx", "blocks=7"], TIERS, scenarios()
    )

    assert (order.tier.name, order.users, order.backend, against, blocks) == (
        "half-core",
        500,
        "cgroup",
        "onnx",
        7,
    )
    assert parse(["tier=half-core"], TIERS, scenarios())[1:] == ("typical", 5)


def test_an_image_is_compared_with_in_containers():
    """BASELINE_IMAGE is enough to ask for it, and `against=` may still name a baseline of ours."""
    order, against, _ = parse(["tier=half-core"], TIERS, scenarios(), image="me/mine:1")
    assert (order.backend, order.image, against) == ("compose", "me/mine:1", "image")

    order, against, _ = parse(
        ["tier=half-core", "against=tuned"], TIERS, scenarios(), image="me/mine:1"
    )
    assert (order.backend, order.image, against) == ("cgroup", "", "tuned")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("against=image", "BASELINE_IMAGE is not set"),
        ("against=naive", "against=naive is unknown; there are typical, tuned, onnx, image"),
        ("blocks=0", "blocks=0 is invalid"),
        ("target=127.0.0.1:1", "an experiment starts its own servers"),
        (
            "colour=red",
            r"colour=red: unknown; expected .* one of tier, (?!.*repeats).*, against, blocks$",
        ),
    ],
)
def test_a_wrong_word_is_refused(word, message):
    """With the value and what was expected."""
    with pytest.raises(UsageError, match=message):
        parse(["tier=half-core", word], TIERS, scenarios())


def test_the_first_page_has_a_line_of_it(compared, tmp_path):
    """Who passed how often, in which limits."""
    found = compared([(("PASS", 100.0), ("FAIL", 900.0)), (("PASS", 100.0), ("INVALID", 900.0))])
    file = runner.save(found, tmp_path / "runs")
    (said,) = experiments.compared(tmp_path / "README.md", [file])
    assert said == (
        "10,000 users, tier half-core (1 × 0.5 CPU, 512 MiB): halfcore 2 PASS of 2, tuned 1 FAIL, "
        f"1 INVALID of 2 ([compare](runs/{file.name}))."
    )


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.98765, "0.988"), (2.754, "2.75"), (99.94, "99.9"), (1470.2, "1,470")]
)
def test_a_ratio_is_shown_in_digits(ratio, text):
    """Three of them, and never as a power of ten."""
    assert times(ratio) == text
