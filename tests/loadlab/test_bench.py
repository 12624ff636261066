"""The bench: what is measured in which order, what a figure is, and what the document says about
it."""

import argparse
import io
import json
import re
import sys
from collections import Counter
from contextlib import nullcontext

import msgspec
import pytest
from rich.console import Console

from halfcore.bundle import Input
from halfcore.catalog.entries import Entry, rules_for
from loadlab.experiments import runner
from loadlab.experiments.bench import command, measure, subjects
from loadlab.experiments.bench.command import Refused
from loadlab.experiments.bench.measure import Round, Run, figures
from loadlab.experiments.bench.subjects import QUESTIONS, SUBJECTS, VARIANTS, Place
from loadlab.generator.epoll import Outcome
from loadlab.pages import render
from loadlab.pages.bench import RATIOS, findings, worth
from loadlab.record.cgroup import Limits, Memory, Usage
from loadlab.record.histogram import spread
from loadlab.record.machine import Cpu
from loadlab.record.store import StoreError
from loadlab.target.programs import Case, CaseError, case, clean_environment, hold
from support.bench_runs import SATURATED, SPARSE, a_run, rounds
from support.bundles import write_bundle


@pytest.fixture
def bench_run():
    """b is 2 times a, a quarter of d, and loses to nobody; e cannot start."""
    stopped = Round(
        server="e",
        model="iris",
        regime="saturated",
        number=1,
        environment={},
        figures=None,
        reason="cannot start | in these limits",
    )
    return a_run(
        "bench",
        [
            *rounds("a", [10.0, 11.0, 12.0]),
            *rounds("b", [22.0, 21.0, 30.0]),
            *rounds(
                "d", [88.0, 88.0, 99.0], failures={"reset": 2}, doubts=["others used 0.50 cores"]
            ),
            stopped,
            *rounds("a", [50.0], regime="sparse"),
            *rounds("b", [150.0], regime="sparse", p99_ms=7.0),
        ],
    )


def test_a_stored_run_comes_back_as_it_was(bench_run, tmp_path):
    """Under a name with date, kind and commit."""
    file = runner.save(bench_run, tmp_path / "runs")

    assert file.name == "2026-01-02-030405-bench-01234567.json"
    assert runner.load(file, Run) == bench_run
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("change", "message"), [({"format": 2}, "format is 2, expected 1"), ({"seed": "x"}, "seed")]
)
def test_a_stored_run_that_cannot_be_read_is_named(bench_run, tmp_path, change, message):
    """File and field, instead of figures that mean something else."""
    file = runner.save(bench_run, tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))

    with pytest.raises(StoreError, match=message):
        runner.load(file, Run)


def test_a_smoke_test_is_never_the_latest_run(bench_run, tmp_path):
    """Its figures do not get into the document by accident."""
    real = runner.save(bench_run, tmp_path)
    runner.save(
        msgspec.structs.replace(bench_run, quick=True, started_at="2026-02-02T03:04:05Z"), tmp_path
    )

    assert measure.latest(tmp_path, "bench") == real
    assert measure.latest(tmp_path, "ablate") is None


def test_ratios_are_of_medians_and_say_what_is_short(bench_run):
    """Every goal is judged, or said not to be measured."""
    found = {finding.text: finding.reached for finding in findings(bench_run)}

    assert found["saturated, iris: b / a = 2.00 (goal: at most 2.50)"] is True
    assert found["saturated, iris: b / d = 1/4.0 (goal: at most 1/3.0)"] is True
    assert found["saturated, iris: b / e: not measured"] is None
    assert found["sparse, iris: b / a = 3.00 (goal: at most 2.50)"] is False
    assert found["sparse, iris: p99 7.00 ms (goal: at most 5 ms)"] is False
    assert found["saturated, iris: 0 failures (goal: none), 3,000 right answers"] is True


@pytest.mark.parametrize(
    ("both_us", "text", "reached"), [(30.0, "+8.0 µs", True), (32.5, "+10.5 µs", False)]
)
def test_what_catalogue_and_log_cost_is_held_to_its_goal(bench_run, both_us, text, reached):
    """In microseconds, for a share would forgive a slow server; where they were not measured
    nothing is said."""
    run = msgspec.structs.replace(bench_run, rows=[*bench_run.rows, *rounds("b2", [both_us])])

    (found,) = [finding for finding in findings(run) if "prediction log" in finding.text]

    assert text in found.text
    assert "goal: at most 10 µs" in found.text
    assert found.reached is reached
    assert not [finding for finding in findings(bench_run) if "prediction log" in finding.text]


def test_catalogue_and_log_with_failures_are_short_of_their_goal(bench_run):
    """Cheap because nothing was answered is not cheap."""
    run = msgspec.structs.replace(
        bench_run, rows=[*bench_run.rows, *rounds("b2", [22.0], failures={"status": 1})]
    )

    assert [finding.reached for finding in findings(run) if "prediction log" in finding.text] == [
        False
    ]


def test_boosted_trees_have_a_goal_of_their_own():
    """A twentieth of pyfunc's CPU time, where iris has a hundred-and-fiftieth."""
    ours, other = (rounds(*each, model="cover-lightgbm") for each in (("b", [30]), ("e", [630])))

    run = a_run("bench", [*ours, *other])

    found = {finding.text: finding.reached for finding in findings(run)}

    assert found["saturated, cover-lightgbm: b / e = 1/21.0 (goal: at most 1/20.0)"] is True


def test_boosted_trees_measured_alone_are_shown_with_the_others(bench_run, tmp_path):
    """A later run of them leaves the bench of the first page where it is, and is a section of its
    own; its figures stand in the summary, too."""
    ours, other = (rounds(*each, model="cover-lightgbm") for each in (("b", [30]), ("e", [9000])))
    alone = a_run("bench", [*ours, *other], started_at="2026-02-02T03:04:05Z")
    runs = tmp_path / "docs/runs"
    whole, boosted = runner.save(bench_run, runs), runner.save(alone, runs)
    out = tmp_path / "docs/benchmarks.md"

    written = render.render(runs, out)

    assert measure.latest(runs, "bench", "iris") == whole
    assert measure.latest(runs, "bench", "cover-lightgbm") == boosted
    assert measure.latest(runs, "bench") == boosted
    assert measure.latest(runs, "bench", "penguins-lr") is None
    text = out.read_text()
    assert text.index("## Side by side\n") < text.index("## Side by side, cover-lightgbm\n")
    assert "![CPU time per request](benchmarks-bench-cover-lightgbm.svg)" in text
    assert tmp_path / "docs/benchmarks-bench-cover-lightgbm.svg" in written
    assert (
        "- CPU time per request of 300 trees of LightGBM: 30.0 µs in Halfcore, 9,000 µs in FastAPI "
        "with `mlflow.pyfunc`: 1/300.0. ([bench, cover-lightgbm]"
        f"(runs/{boosted.name}))"
    ) in text


@pytest.mark.parametrize("name", ["README.md", "README.es.md"])
def test_a_first_page_without_comparisons_and_load_runs_has_the_bench(bench_run, tmp_path, name):
    """A dash where nothing was measured; and links to what was."""
    file = runner.save(bench_run, tmp_path / "docs/runs")
    (tmp_path / name).write_text("<!-- figures -->\n<!-- /figures -->\n")

    written = render.render(tmp_path / "docs/runs", tmp_path / "docs/benchmarks.md")

    assert tmp_path / name in written
    text = (tmp_path / name).read_text()
    ours = re.search(r"^\| Halfcore \| – \| (\d+) µs \|$", text, re.MULTILINE)
    assert ours
    assert f"[bench]: docs/runs/{file.name}\n" in text
    assert "docs/benchmarks-load.svg" not in text


def test_a_server_that_fails_is_compared_with_nothing(bench_run):
    """Its CPU time per right answer contains what the wrong ones used, and flatters ours."""
    failing = rounds("c", [99.0], failures={"status": 20})
    run = msgspec.structs.replace(bench_run, rows=[*bench_run.rows, *failing])

    assert "saturated, iris: b / c: no ratio, for c failed 20 requests" in [
        finding.text for finding in findings(run)
    ]


def test_the_bounds_in_the_catalogue_are_ones_that_an_integer_column_takes(tmp_path, monkeypatch):
    """A catalogue that contradicts its model is refused whole, and the case is not measured."""
    columns = [
        Input(name="a", kind="integer", nullable=False, example=1),
        Input(name="b", kind="number", nullable=False, example=1.5),
        Input(name="c", kind="category", nullable=False, example="x", categories=["x"]),
    ]
    manifest = {"name": "m", "inputs": [msgspec.to_builtins(column) for column in columns]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    written: list[str] = []
    monkeypatch.setattr(subjects, "_query", lambda _, sql: written.append(sql) or "")

    subjects.prepare_log(Place(tmp_path, "", tmp_path), Case("m", tmp_path, "{}", ""))

    found = re.findall(r"\('m', '(\w)', (\S+), (\S+)\)", written[-1])
    entries = [
        Entry(column_name=name, minimum=float(low), maximum=float(high))
        for name, low, high in found
    ]
    assert set(rules_for("m", entries, columns, "float32")) == {"a", "b"}


@pytest.mark.parametrize(
    ("rows", "doubt"),
    [
        (100, ""),
        (164, ""),
        (99, "the log holds 99 rows"),
        (165, "expected 100 (and at most 64 more)"),
    ],
)
def test_a_log_that_lacks_rows_or_doubles_them_is_a_doubt(tmp_path, monkeypatch, rows, doubt):
    """What was on the way when the client left may be in it."""
    monkeypatch.setattr(subjects, "_query", lambda *_: str(rows))

    found = subjects.rows_doubt(Place(tmp_path, "", tmp_path), answers=100, open_at_end=64)

    assert doubt in found
    assert bool(doubt) == bool(found)


def test_the_document_says_where_its_figures_come_from(bench_run, tmp_path):
    """Machine, limits, commit, command, failures, and what could not be measured."""
    runner.save(bench_run, tmp_path / "docs/runs")

    written = render.render(tmp_path / "docs/runs", tmp_path / "docs/benchmarks.md")
    text = written[0].read_text()

    for expected in (
        "Made-up CPU, 2 cores, 8 GB; Linux 6.1, control groups version 2",
        "Commit `0123456789ab`; `loadlab bench`",
        "[runs/2026-01-02-030405-bench-01234567.json](runs/2026-01-02-030405-bench-01234567.json)",
        (
            "10,000 connections, think 4–9 s, opened at 500/s, 30 s after 9 s; quota 0.5 CPU per "
            "100 ms, 256 MB"
        ),
        (
            "| b | halfcore, hot lane | 100 | **22.0 µs** | 21.0–30.0 | 2 | 1.00 / 1.50 / 2.00 | "
            "90 MB | 5% | 0 |"
        ),
        "| 6 (reset 6) |",
        "| e | FastAPI, mlflow.pyfunc, DataFrame | cannot start / in these limits | | | | | | | |",
        "**Short of its goal:**\n\n- sparse, iris: b / a = 3.00",
        "- saturated, iris, d, round 1: others used 0.50 cores",
        "![CPU time per request](benchmarks-bench.svg)",
    ):
        assert expected in text


def test_the_same_run_gives_the_same_files(bench_run, tmp_path):
    """The document and its picture change only when the figures do."""
    runner.save(bench_run, tmp_path / "runs")

    first, second = (
        [each.read_bytes() for each in render.render(tmp_path / "runs", tmp_path / "benchmarks.md")]
        for _ in range(2)
    )

    assert first == second
    assert b"<svg" in first[1]


def test_without_a_stored_run_there_is_no_document(tmp_path):
    """A figure that was not stored is not written."""
    with pytest.raises(StoreError, match="no stored run"):
        render.render(tmp_path, tmp_path / "benchmarks.md")


def test_the_ablation_says_what_each_default_is_worth(bench_run, tmp_path):
    """One sentence per question that the run can answer; overlapping rounds are said."""
    run = a_run(
        "ablate",
        [
            *rounds("default", [20.0, 21.0]),
            *rounds("ASGI", [40.0, 44.0]),
            *rounds("linger 2 ms", [20.5, 21.5]),
        ],
    )

    said = worth(run)

    assert len(said) == 2
    assert (
        "Not waiting for more requests (saturated, iris): 20.5 µs/request against 21.0 µs with "
        "“linger 2 ms”, 2% less (the rounds overlap)"
    ) in said[0]
    assert (
        "The hot lane over RSGI (saturated, iris): 20.5 µs/request against 42.0 µs with "
        "“ASGI”, 51% less; 100 against 100 requests/s"
    ) in said[1]

    for each in (bench_run, run):
        runner.save(each, tmp_path)
    text = render.render(tmp_path, tmp_path / "b.md")[0].read_text()
    assert "| ASGI | `HALFCORE_HOT_LANE=false` |" in text


@pytest.mark.parametrize(
    ("off_p99_ms", "verdict"), [(2.0, "(**short**: 1.00 × the throughput"), (1.0, "(**short**")]
)
def test_the_heavy_model_s_batching_is_held_to_its_goal(off_p99_ms, verdict):
    """Equal throughput is short of twice the throughput."""
    on, off = (
        rounds(name, [9.0], model="cover-heavy", p99_ms=p99)
        for name, p99 in (("default", 2.0), ("batching off", off_p99_ms))
    )

    (said,) = worth(a_run("ablate", [*on, *off]))

    assert verdict in said


def test_the_ablation_asks_only_about_variants_that_are_measured():
    """A question names two variants of its regime, and no variant is measured for nothing."""
    asked = {
        (name, regime) for variant, regime in QUESTIONS for name in (variant.key, variant.against)
    }
    assert asked == {
        (name, regime) for name, variant in VARIANTS.items() for regime in variant.regimes
    }


def test_variants_differ_from_the_default_in_the_server_s_environment_alone():
    """All are the same program with one worker, and the title says what is set."""
    for name, subject in VARIANTS.items():
        settings = {**subject.environment}
        assert settings.pop("HALFCORE_WORKERS") == "1"
        assert name == "default" or settings
        assert all(f"`{key}={value}`" in subject.title for key, value in settings.items())


def asked(*arguments):
    """A command line, parsed."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers(dest="command"))
    return parser.parse_args(arguments)


def chosen(*arguments):
    """What a command line asks for: what is measured, and what is left out."""
    return command.chosen(asked(*arguments))


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["bench", "--servers", "b,c", "--regimes", "sparse"],
            ["b, iris, sparse", "c, iris, sparse"],
        ),
        (
            ["peers", "--peers", "litserve", "--models", "iris", "--regimes", "bulk"],
            ["halfcore, iris, bulk", "litserve, iris, bulk"],
        ),
    ],
)
def test_a_dry_run_lists_what_would_be_measured(arguments, lines):
    """And refuses what the run would: the recipes ask before they train."""
    assert command.planned(asked(*arguments, "--dry-run")) == lines
    with pytest.raises(Refused, match="no-such"):
        command.planned(asked(*arguments[:-1], "no-such"))


@pytest.mark.parametrize("name", ["bench", "peers", "protocols", "ablate", "ladder"])
def test_a_name_of_a_model_is_checked_before_anything_is_trained(name, tmp_path):
    """The recipes train minutes long. What they make themselves is the default, and needs no bundle
    yet; a model of one's own needs its bundle, and has to be a classifier."""
    words = [name, "--dry-run", "--bundles", str(tmp_path)]
    assert command.planned(asked(*words))
    with pytest.raises(CaseError, match=r"no bundle of mine .* `just export models:/mine@ALIAS`"):
        command.planned(asked(*words, "--models", "mine"))
    write_bundle(tmp_path, "mine")
    assert command.planned(asked(*words, "--models", "mine"))
    write_bundle(tmp_path, "numbers", classes=[], task="regression")
    with pytest.raises(Refused, match=r"--models numbers: .* expected a classifier"):
        command.planned(asked(*words, "--models", "numbers"))


def test_all_servers_are_measured_saturated_and_the_slowest_are_left_out_of_the_sparse_load():
    """What is left out is part of the result."""
    tasks, left_out = chosen("bench")

    counted = Counter((task.load.regime, task.model) for task in tasks)
    assert counted == {
        ("saturated", "iris"): 7,
        ("saturated", "cover-middle"): 7,
        ("saturated", "cover-lightgbm"): 7,
        ("sparse", "iris"): 6,
    }
    assert [(each.server, each.regime) for each in left_out] == [
        ("b2", "sparse"),
        ("e", "sparse"),
    ]
    assert "--sparse-all" in left_out[0].reason
    assert "at saturation it answers far fewer requests" in left_out[1].reason
    (sparse,) = {task.load for task in tasks if task.load.regime == "sparse"}
    assert (sparse.connections, sparse.think_s, sparse.limits.cpus) == (10_000, (4.0, 9.0), 0.5)


def test_limits_are_those_asked_for():
    """Quota and memory of the sparse regime."""
    limits = ("--cpus", "0.1", "--memory-mb", "256", "--think", "1-2.5")

    (task,), _ = chosen("bench", "--servers", "b", "--regimes", "sparse", *limits)

    assert task.load.limits == Limits(cpus=0.1, memory_bytes=256_000_000)
    assert task.load.think_s == (1.0, 2.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--servers", "b,z"], "unknown: z; there are a, a2"),
        (["--regimes", "sparce"], "there are saturated, sparse; did you mean sparse?"),
        (["--servers", "e", "--regimes", "sparse"], "nothing to measure"),
        (["--regimes", "idle"], "unknown: idle; there are saturated, sparse"),
        (["--rounds", "0"], "--rounds 0: expected at least 1"),
    ],
)
def test_an_order_that_means_nothing_is_refused(arguments, message):
    """Unknown names, and nothing to measure."""
    with pytest.raises(Refused, match=message):
        chosen("bench", *arguments)


def test_a_smoke_test_is_short_and_starts_few_servers_under_a_quota():
    """One model, and loads of about a second."""
    tasks, _ = chosen("bench", "--quick")

    sparse = [task.subject.key for task in tasks if task.load.regime == "sparse"]
    assert sparse == ["a", "b"]
    assert {task.model for task in tasks} == {"iris"}
    assert max(task.load.seconds for task in tasks) < 2


def test_a_smoke_test_takes_all_models_that_are_given():
    """It took the first of them only."""
    tasks, _ = chosen("bench", "--quick", "--models", "iris,numbers", "--regimes", "saturated")
    assert {task.model for task in tasks} == {"iris", "numbers"}


def test_an_ablation_measures_each_variant_where_it_can_show():
    """Pinning under a quota, batching at saturation, there with other rows in turn."""
    tasks, left_out = chosen("ablate")

    by_name = {
        name: {task.load.regime for task in tasks if task.subject.key == name} for name in VARIANTS
    }
    assert not left_out
    assert {(task.load.regime, task.load.rows) for task in tasks} == {
        ("saturated", "golden"),
        ("sparse", "one"),
    }
    assert by_name == {name: set(variant.regimes) for name, variant in VARIANTS.items()}


def test_a_bench_says_how_fast_its_machine_was(monkeypatch, tmp_path):
    """Measured once, before the first server is started; an interruption says how to go on."""
    nobody = a_run("bench", [])
    monkeypatch.setattr(command.machine, "watch", lambda: nobody.quiet)
    monkeypatch.setattr(command.machine, "fingerprint", lambda *_: nobody.fingerprint)
    monkeypatch.setattr(command.cgroup, "version", lambda: 2)
    monkeypatch.setattr(command.programs, "case", lambda *_: Case("iris", tmp_path, "{}", ""))
    (tmp_path / "manifest.json").write_text('{"classes":["setosa"]}')
    monkeypatch.setattr(command, "_prepared", lambda *_: nullcontext((None, {"iris": None})))
    monkeypatch.setattr(command, "measure", lambda *_, **__: rounds("a", [1.0])[0])
    words = ("--servers", "a", "--regimes", "saturated", "--models", "iris", "--store")

    file = command.main(asked("bench", *words, str(tmp_path)), tmp_path, Console(quiet=True))

    found = runner.load(file, Run)
    assert found.fingerprint.calibration.score > 0
    assert len(found.rows) == 3

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure", interrupted)
    for more, says in ((), "; the same command continues it"), (("--quick",), ""):
        console = Console(file=io.StringIO())
        with pytest.raises(KeyboardInterrupt):
            command.main(asked("bench", *words, str(tmp_path), *more), tmp_path, console)
        assert console.file.getvalue().endswith(f"interrupted{says}\n")
    assert not list((tmp_path / runner.KEPT).iterdir())


def test_a_run_that_was_cut_off_continues(tmp_path):
    """Unless it shall begin again; what the machine did before it is of the moment."""
    first, *_ = found = rounds("a", [1.0, 2.0, 3.0])
    fresh, said = a_run("bench", []), Console(file=io.StringIO(), width=200)
    noisy = msgspec.structs.replace(fresh.quiet, busy_cores=0.1)
    later = msgspec.structs.replace(fresh, quiet=noisy)

    def dying(cell):
        if cell > 1:
            raise KeyboardInterrupt
        return first

    def carried_out(run, measure_one, **more):
        return runner.conduct_all(
            run, [1, 2, 3], measure_one, str, tmp_path, said, aside=["quiet"], **more
        )

    for again in (False, True):
        with pytest.raises(KeyboardInterrupt):
            carried_out(fresh, dying, again=False)
        whole = carried_out(later, lambda cell: found[cell - 1], again=again)
        assert whole.rows == found
        assert whole.quiet == (noisy if again else fresh.quiet)
    assert said.file.getvalue().count("continuing after 1 of 3") == 1


@pytest.fixture
def bundles(tmp_path):
    """Two bundles of one model with a vector, the newer last, and a temporary one that a reader
    ignores."""
    for folder, created_at, label in (
        ("1-aa", "2026-01-01", "old"),
        ("2-bb", "2026-01-02", "new"),
        (".3-cc", "2026-01-03", "unfinished"),
    ):
        manifest = {
            "created_at": created_at,
            "named": False,
            "golden": [{"row": {"x0": 1.5, "x1": 2.0}, "prediction": label}],
        }
        (tmp_path / "iris" / folder).mkdir(parents=True)
        (tmp_path / "iris" / folder / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_a_case_is_the_newest_bundle_s_first_golden_row(bundles):
    """And a right answer begins with the registered model's label."""
    found = case(bundles, "iris")

    assert (found.bundle.name, found.body, found.prefix) == (
        "2-bb",
        '{"features":[1.5,2.0]}',
        '{"prediction":"new"',
    )


def test_a_missing_bundle_says_how_to_make_it(tmp_path):
    """The command is in the message."""
    with pytest.raises(CaseError, match="just examples wine"):
        case(tmp_path, "wine")


def test_each_server_is_a_command_of_its_own_with_one_model(bundles, tmp_path, monkeypatch):
    """The caller's settings do not reach the servers, and ours sees the bundle that is asked for
    alone."""
    monkeypatch.setenv("HALFCORE_MAX_ROWS", "7")
    monkeypatch.setenv("MODEL_NAME", "penguins")
    place = Place(tmp_path, "sqlite:///mlflow.db", tmp_path / "scratch")

    held = hold(case(bundles, "iris"), tmp_path / "scratch")

    commands = {key: subject.command(place, held, 8123) for key, subject in SUBJECTS.items()}

    assert len(
        {
            tuple(command.arguments) + tuple(command.environment.items())
            for command in commands.values()
        }
    ) == len(SUBJECTS)
    assert "HALFCORE_MAX_ROWS" not in clean_environment()
    assert "MODEL_NAME" not in commands["e"].environment
    ours = commands["b"]
    assert ours.arguments == [sys.executable, "-m", "halfcore", "serve"]
    assert (ours.environment["HALFCORE_PORT"], ours.environment["HALFCORE_WORKERS"]) == (
        "8123",
        "1",
    )
    served = tmp_path / "scratch/iris"
    assert ours.environment["HALFCORE_BUNDLES"] == str(served)
    assert [file.parent.name for file in served.glob("*/*/manifest.json")] == ["2-bb"]


def outcome(*, server_cpu_s=9.9, client_cpu_s=5.0, busy_s=15.0, lag_us=100):
    """What the client would say after ten seconds."""
    usage = Usage(cpu_s=server_cpu_s)
    return Outcome(
        requests=100_000,
        failures={},
        failures_before={},
        seconds=10.0,
        response=spread({100: 100_000}),
        lag=spread({lag_us: 10}),
        client_cpu_s=client_cpu_s,
        machine=Cpu(busy_s=busy_s, steal_s=0.0, total_s=20.0),
        server=usage,
    )


MEMORY = Memory(current_bytes=0, peak_bytes=0, kinds={})


def test_a_clean_round_has_no_doubts():
    """CPU time per request is the group's CPU time over the right answers."""
    found = figures(outcome(), MEMORY, SATURATED, client_cpu=1)

    assert found.cpu_us == pytest.approx(99.0)
    assert found.doubts == []


@pytest.mark.parametrize(
    ("load", "changes", "doubt"),
    [
        (SATURATED, {"busy_s": 18.0}, "others used 0.31 cores"),
        (
            SATURATED,
            {"server_cpu_s": 5.0, "client_cpu_s": 9.9},
            "not saturated: the server used 0.50 cores, the client 0.99",
        ),
        (SPARSE, {"lag_us": 20_000}, "the client was late: 0.50 cores, lag p99 20.0 ms"),
    ],
)
def test_a_round_that_proves_little_says_why(load, changes, doubt):
    """A busy machine, an idle server, a late client."""
    assert doubt in figures(outcome(**changes), MEMORY, load, client_cpu=1).doubts


def test_what_works_for_the_server_is_not_foreign():
    """The log's database is counted apart from other users of the machine."""
    found = figures(
        msgspec.structs.replace(outcome(busy_s=18.0), helper_cpu_s=3.0),
        MEMORY,
        SATURATED,
        client_cpu=1,
    )

    assert found.doubts == []
    assert found.helper_cores == pytest.approx(0.3)


def test_every_ratio_is_between_servers_that_exist():
    """No goal is silently never judged."""
    assert {ratio.other for ratio in RATIOS} <= set(SUBJECTS)


@pytest.fixture
def ladder_run():
    """Three steps, one of which costs; the last endpoint could not be measured."""
    lost = Round(
        server="null",
        model="iris",
        regime="saturated",
        number=1,
        environment={},
        figures=None,
        reason="the lab failed: x | y",
    )
    return a_run(
        "ladder",
        [
            *rounds("naive", [9000.0, 10_000.0, 11_000.0]),
            *rounds("silent", [4000.0]),
            *rounds("tuned", [5000.0]),
            *rounds("halfcore", [50.0], failures={"reset": 1}),
            *rounds("decode", [40.0]),
            lost,
        ],
    )


def test_the_ladder_says_what_each_step_bought(ladder_run, bench_run, tmp_path):
    """Against the step before, and since the first; a step that costs is named; endpoints are no
    steps."""
    for each in (bench_run, ladder_run):
        runner.save(each, tmp_path)

    first, again = (
        [each.read_bytes() for each in render.render(tmp_path, tmp_path / "b.md")] for _ in range(2)
    )
    text = first[0].decode()

    assert first == again
    for expected in (
        (
            "| silent | prints nothing | 100 | **4,000.0 µs** | 4,000.0–4,000.0 | 2.50 × | 2.5 × "
            "| 1.0 / 2.0 | 0 |"
        ),
        "| 0.80 × | 2.0 × |",
        (
            "| halfcore | the hot lane over RSGI | 100 | **50.0 µs** | 50.0–50.0 | 100.00 × | "
            "200.0 × | 1.0 / 2.0 | 1 |"
        ),
        (
            "| *decode* | halfcore, decodes the body and predicts nothing | 100 | **40.0 µs** | "
            "40.0–40.0 | | | 1.0 / 2.0 | 0 |"
        ),
        "| *null* | halfcore, reads the body and does nothing | the lab failed: x / y |",
        "Most microseconds: `silent` saves 6,000 of 9,950 (60%).",
        "Steps that cost rather than saved: `tuned`.",
        "![The ladder](b-ladder.svg)",
    ):
        assert expected in text


def test_a_ladder_measures_every_step_and_the_endpoints():
    """Saturated on one core, for four seconds."""
    tasks, _ = chosen("ladder")

    assert {(task.load.regime, task.load.seconds) for task in tasks} == {("saturated", 4.0)}
    assert [task.subject.key for task in tasks][-3:] == ["halfcore", "decode", "null"]
    assert (tasks[-1].subject.path, tasks[-1].subject.prefix) == ("/bench/null", "{}")
