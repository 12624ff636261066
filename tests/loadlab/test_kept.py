"""Runs that the documentation shows: copied whole, judged again, and written into its pages."""

import io
import shutil

import pytest
from rich.console import Console

from loadlab.experiments import runner
from loadlab.experiments.bench import command
from loadlab.pages import plots, render, template
from loadlab.record.machine import Fingerprint
from loadlab.record.store import StoreError
from loadlab.report.command import conclude, keep
from support.runs import Server, made

FILES = ["run.json", "samples.jsonl.gz", "seconds.jsonl.gz", "verdict.json"]


def stored(
    store,
    identity: str,
    *,
    repeat: int = 1,
    repeats: int = 1,
    server: Server | None = None,
    users: int = 1000,
):
    """A run that ended and was judged."""
    run = made(server, seed=repeat, users=users, identity=identity)
    run.run.repeat, run.run.repeats = repeat, repeats
    run.run.set_id = "the-set" if repeats > 1 else ""
    folder = run.write(store / identity)
    conclude(folder, Console(file=io.StringIO()))
    return folder


@pytest.fixture(scope="module")
def full_store(tmp_path_factory):
    """Three repeats that pass and one run that does not; not to be changed."""
    store = tmp_path_factory.mktemp("store")
    for repeat in (1, 2, 3):
        stored(store, f"2026-11-20-19000{repeat}-half-core-steady", repeat=repeat, repeats=3)
    stored(store, "2026-11-20-200000-half-core-steady", server=Server(errors=0.01))
    return store


@pytest.fixture
def place(tmp_path, full_store):
    """A checkout with a copy of that store, docs and README."""
    shutil.copytree(full_store, tmp_path / ".halfcore/loads")
    (tmp_path / "docs").mkdir()
    return tmp_path


def test_all_repeats_of_a_set_are_kept_without_their_reports(place):
    """Naming one of them is enough: a claim rests on them all."""
    folders = keep("2026-11-20-190002", place / ".halfcore/loads", place / "docs/runs")
    assert [folder.name for folder in folders] == [
        f"2026-11-20-19000{repeat}-half-core-steady" for repeat in (1, 2, 3)
    ]
    assert all(sorted(file.name for file in folder.iterdir()) == FILES for folder in folders)
    (found,) = render.load_sets(place / "docs/runs")
    assert (found.together.outcome, len(found.runs)) == ("PASS", 3)
    assert found.together.claim.startswith("Verified on 2026-11-20")


def test_a_run_that_has_not_ended_is_not_kept(place):
    """Nor one that is not there."""
    run = made(identity="2026-11-20-210000-half-core-steady")
    run.run.ended = None
    run.write(place / ".halfcore/loads" / run.run.id)
    with pytest.raises(StoreError, match="has not ended"):
        keep("2026-11-20-210000", place / ".halfcore/loads", place / "docs/runs")


def test_a_run_without_its_lines_is_not_kept(place):
    """Nor is a part of it, which the pages would find."""
    run = next((place / ".halfcore/loads").iterdir())
    for file in run.glob("samples.jsonl*"):
        file.unlink()
    with pytest.raises(StoreError, match=r"samples\.jsonl\.gz is missing, so it cannot be kept"):
        keep(run.name, run.parent, place / "kept")
    assert not (place / "kept").exists()


def test_the_pages_tell_every_kept_run_with_its_verdict_and_where_it_comes_from(place):
    """A run that failed as well as those that passed; figures are the verdicts', and link to the
    records."""
    for name in ("2026-11-20-190001", "2026-11-20-200000"):
        keep(name, place / ".halfcore/loads", place / "docs/runs")
    found = render.load_sets(place / "docs/runs")
    text = render.load_section(found, place / "docs/benchmarks.md")

    assert text.count("| **PASS**, [run](runs/") == 3
    assert text.count("| **FAIL**, [run](runs/") == 1
    assert f"> {found[0].together.claim}" in text
    assert "The server does not work right: " in text
    assert "It missed its objective: errors in ramp and steady" in text
    assert text.count("Commit `0123456789ab`") == 2
    figures = found[0].runs[0].verdict.figures
    assert (
        f"{figures.p50_ms:.1f} / {figures.p95_ms:.1f} / {figures.p99_ms:.1f} / {figures.max_ms:.1f}"
        in text
    )


def test_the_readme_shows_the_newest_of_each_kind_with_medians(place):
    """The failed run was asked the same later, by another engine, so it stands there in place of
    the set: nothing is chosen for its looks."""
    for name in ("2026-11-20-190001", "2026-11-20-200000"):
        keep(name, place / ".halfcore/loads", place / "docs/runs")
    found = render.load_sets(place / "docs/runs")
    found[1].runs[0].log.run.engine = "raw"
    assert [each.together.outcome for each in render.newest_sets(found)] == ["FAIL"]
    assert "**PASS** ([run 1](docs/runs/" in render.load_summary(found[:1], place / "README.md")
    (log,) = (render.to_draw(found),)
    assert log is not None
    assert plots.latency(log, place / "docs/benchmarks-load.svg")
    assert render.to_draw(found[1:]) is None


def test_a_page_without_marks_is_left_alone(place):
    """`render` writes where it was asked to, and nowhere else."""
    (place / "README.md").write_text("no marks")
    assert not render.fill(place / "README.md", "figures", lambda: "never made")
    assert not render.fill(place / "nothing.md", "figures", lambda: "never made")
    assert (place / "README.md").read_text() == "no marks"


def test_the_memory_table_is_written_from_its_run(tmp_path):
    """Megabytes of a million bytes, what one connection adds, and what rest costs."""
    machine = Fingerprint(
        cpu="a made-up processor",
        cores=2,
        memory_bytes=1,
        kernel="6.18",
        cgroup_version=1,
        python="3.11.9",
        packages={},
        baseline_packages={},
        commit="0123456789abcdef",
        dirty=False,
        nofile=20_000,
        sysctls={},
    )
    held = command.Held(
        model="iris",
        file=2_500_000,
        at_rest=59_000_000,
        peak=61_000_000,
        resident=87_000_000,
        cpu=0.00123,
        connections=10_000,
        connected=192_000_000,
    )
    run = command.Memory(
        started_at="2026-11-20T19:00:00Z",
        command="loadlab memory",
        fingerprint=machine,
        rows=[held],
    )
    file = runner.save(run, tmp_path / "runs")
    assert runner.load(file, command.Memory) == run
    page = tmp_path / "operations.md"
    page.write_text("before\n<!-- memory -->\nold\n<!-- /memory -->\nafter\n")
    assert render.fill(page, "memory", lambda: render.memory(file, page))
    text = page.read_text()
    assert (
        "| iris: 10,000 connections, each answered 3 times and then quiet (13.3 kB each) | 192 |"
        in text
    )
    assert "CPU time at rest, of a core over 30 s: iris 0.12 %." in text
    assert f"(runs/{file.name})" in text
    assert "old" not in text


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        (
            "V13, V1 would keep this from a PASS.",
            "The load was not steady (V13), users were missing, late or ended early (V1)",
        ),
        (
            "1 rule is broken. V13 steady: p95s differ",
            "broken. The load was not steady (V13): p95s differ",
        ),
        ("It was in its limits (V11); the other rules", "It was in its limits (V11); the other"),
        ("V99 of another version", "V99 of another version"),
        (
            "Unseen (V6 quiet, V11 limit in force).",
            "(other processes used the machine (V6), the server was not in its limits (V11)).",
        ),
    ],
)
def test_no_rule_stands_without_its_words(sentence, words):
    """For readers who do not know the rules; what has words already keeps them."""
    assert words in template.in_words(sentence)
