"""Halfcore and other model servers: their tables and locks, what they are asked, the proof of their
answers, what is measured, and the page."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from loadlab.experiments import runner
from loadlab.experiments.bench import command, forms, peers
from loadlab.experiments.bench.command import Refused
from loadlab.experiments.bench.forms import BULK_ROWS, WrongAnswer
from loadlab.experiments.bench.peers import Peers, Start, Visit
from loadlab.experiments.bench.subjects import PEER_REGIMES, PEERS, Place
from loadlab.pages import peers as pages
from loadlab.pages import render
from loadlab.record.cgroup import Memory
from loadlab.target import peers as target
from loadlab.target import programs
from loadlab.target.peers import Environment
from support.bench_runs import a_run, rounds
from support.bundles import write_bundle

ROOT = Path(__file__).parents[2]
NAMES = sorted({subject.words[0] for subject in PEERS.values()} - {"halfcore"})
FIELDS = {"rows": "rows", "listed": "rows", "inputs": "inputs"}
"""The field of a request that has the rows, by form."""


def test_each_peer_has_a_program_and_two_sets_of_settings_with_the_pages_that_they_follow():
    """The documented ones and the best ones; halfcore has its defaults."""
    folders = {path.parent.name for path in (ROOT / target.PEERS).glob("*/serve.py")}

    assert folders == set(NAMES)
    for name in NAMES:
        mine = [each for each in PEERS.values() if each.words[0] == name]
        assert {each.words[1] for each in mine} >= {"tuned", "documented"}
        assert all(each.says and each.docs for each in mine)
        assert all(doc.startswith("https://") for each in mine for doc in each.docs)
        (best,) = (each for each in mine if peers.is_best(each))
        left_out = {"sparse"} if "not sparse: " in best.says else set()
        assert set(PEER_REGIMES) - set(best.regimes) == left_out


@pytest.mark.parametrize("name", NAMES)
def test_a_peer_s_packages_are_locked(name):
    """All that it asks for has one version, which is locked with hashes, and its graph runs on the
    ONNX Runtime that halfcore has."""
    folder = ROOT / target.PEERS / name
    asked = re.findall(
        r"^([\w.-]+)(?:\[\w+\])?==(\S+)", (folder / "requirements.in").read_text(), re.M
    )
    lines = (folder / "requirements.in").read_text().splitlines()
    locked = (folder / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+) \\$", locked, re.M))

    assert len(asked) == len(lines)
    assert all(pinned[package] == version for package, version in asked)
    assert locked.count("--hash=sha256:") >= len(pinned)
    ours = re.search(r'name = "onnxruntime"\nversion = "(.+)"', (ROOT / "uv.lock").read_text())
    assert ours
    assert pinned["onnxruntime"] == ours[1]


def test_the_page_has_all_settings_as_they_are():
    """`loadlab render` writes them."""
    text = (ROOT / "docs/peers.md").read_text()

    assert f"<!-- settings -->\n{pages.settings()}\n<!-- /settings -->" in text


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A bundle with columns by name, categories among them."""
    inputs = [
        {"name": "age", "kind": "number", "nullable": False, "minimum": 0.5, "maximum": 9.5}
        | {"example": 1.5},
        {"name": "sex", "kind": "category", "nullable": False, "categories": ["f", "m"]}
        | {"example": "m"},
    ]
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder, "people", inputs=inputs)
    return programs.case(folder, "people")


def answer(form, rows, classes=("a", "b", "c")):
    """A right answer of each form."""
    label, probabilities = rows.labels, rows.probabilities
    named = [dict(zip(classes, row, strict=True)) for row in probabilities]
    predictions = [classes[each] for each in label]
    first = len(label) == 1
    return {
        "own": {
            "prediction": predictions[0] if first else predictions,
            "probabilities": named[0] if first else named,
        },
        "rows": {"label": label, "probabilities": probabilities},
        "listed": [
            {"label": each, "probabilities": row}
            for each, row in zip(label, probabilities, strict=True)
        ],
        "inputs": {"predictions": {"label": label, "probabilities": probabilities}},
        "v2": {
            "outputs": [
                {"name": "label", "data": label},
                {"name": "probabilities", "data": [each for row in probabilities for each in row]},
            ]
        },
    }[form]


def test_peers_get_the_numbers_of_the_graph_and_halfcore_what_users_send(case):
    """The same rows: a category is its index for the others."""
    (one,), many = forms.golden(case), forms.bulk(case)

    assert json.loads(forms.body("own", case, one)) == {"age": 1.5, "sex": "m"}
    assert json.loads(forms.body("rows", case, one)) == {"rows": [[1.5, 1.0]]}
    assert json.loads(forms.body("v2", case, one))["inputs"] == [
        {"name": "rows", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 1.0]}
    ]
    bulk = json.loads(forms.body("own", case, many))
    assert len(bulk) == BULK_ROWS
    for form, field in FIELDS.items():
        numbers = json.loads(forms.body(form, case, many))[field]
        assert numbers == [[row["age"], float(row["sex"] == "m")] for row in bulk]


@pytest.mark.parametrize("form", ["own", "rows", "listed", "inputs", "v2"])
def test_an_answer_is_proven_equal_to_the_bundle_s(case, form):
    """Every label and probability of it; and all later ones have to begin like it, with the
    labels."""
    for rows in (*forms.golden(case), forms.bulk(case)):
        right = json.dumps(answer(form, rows))
        begins = forms.check(form, case, rows, right.encode())
        assert right.startswith(begins)
        assert '"label"' in begins or '"prediction"' in begins

        other = rows._replace(labels=[(rows.labels[0] + 1) % 3, *rows.labels[1:]])
        less = rows._replace(probabilities=[[0.2, 0.3, 0.5], *rows.probabilities[1:]])
        for wrong in (json.dumps(answer(form, each)) for each in (other, less)):
            with pytest.raises(WrongAnswer, match="expected labels"):
                forms.check(form, case, rows, wrong.encode())
        with pytest.raises(WrongAnswer, match="no answer of the form"):
            forms.check(form, case, rows, b'{"error": "busy"}')


def chosen(*words):
    """What a command line asks for."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers(dest="command"))
    return peers.chosen(parser.parse_args(["peers", *words]))


def test_the_first_model_is_measured_in_every_regime_and_documented_settings_once():
    """The others with the best settings, saturated and in bulk."""
    tasks = chosen()

    asked = {
        (task.subject.key, task.model): tuple(load.regime for load in task.loads) for task in tasks
    }
    assert asked["halfcore", "iris"] == asked["mosec", "iris"] == PEER_REGIMES
    assert asked["mosec documented", "iris"] == ("saturated",)
    assert asked["ray", "cover-lightgbm"] == asked["halfcore", "cover-middle"]
    assert asked["ray", "cover-lightgbm"] == ("saturated", "bulk")
    assert ("mosec documented", "cover-middle") not in asked
    assert {load.connections for task in tasks for load in task.loads} == {1, 4, 64, 512, 10_000}


def test_a_short_form_measures_some():
    """Halfcore always, for the others are compared with it."""
    tasks = chosen("--peers", "mosec", "--models", "iris", "--regimes", "saturated", "--quick")

    assert [task.subject.key for task in tasks] == [
        "halfcore",
        "halfcore gathering",
        "mosec",
        "mosec patient",
        "mosec documented",
    ]
    assert {load.regime for task in tasks for load in task.loads} == {"saturated"}
    with pytest.raises(Refused, match="unknown peer: torchserve; there are"):
        chosen("--peers", "torchserve")
    with pytest.raises(Refused, match="unknown regime: idle"):
        chosen("--regimes", "idle")


def test_a_peer_that_cannot_be_installed_or_started_has_rows_that_say_why(case, tmp_path):
    """Others of a long run are not lost by it."""
    place, loads = Place(tmp_path, "", tmp_path), chosen("--models", "iris")[0].loads
    mosec = PEERS["mosec"]

    missing = peers.visit(place, mosec, case, loads, number=1, seed=1, reason="no such package")

    assert [each.regime for each in missing.rounds] == list(PEER_REGIMES)
    assert {each.reason for each in missing.rounds} == {"no such package"}
    assert missing.start is None


def visits(key, values, model="iris"):
    """One visit a round, each with every regime at these costs."""
    memory = Memory(current_bytes=0, peak_bytes=0, kinds={"rss": 50_000_000, "cache": 10**9})
    found = [rounds(key, values, model=model, regime=regime) for regime in PEER_REGIMES]
    return [
        Visit(
            server=key,
            model=model,
            number=number,
            start=Start(wall_s=2.0, cpu_s=1.5, memory=memory),
            proven=1032,
            rounds=list(measured),
        )
        for number, measured in enumerate(zip(*found, strict=True), 1)
    ]


@pytest.fixture
def run():
    """Halfcore is ahead of mosec; ray could not be installed."""
    nobody = a_run("peers", [])
    reason = "its environment cannot be installed: no network"
    broken = [
        msgspec.structs.replace(each, rounds=[], start=None) for each in visits("ray", [1.0] * 3)
    ]
    for visit in broken:
        visit.rounds.extend(
            msgspec.structs.replace(each, figures=None, reason=reason)
            for each in rounds("ray", [1.0])
        )
    load = nobody.loads[0]
    return Peers(
        started_at=nobody.started_at,
        command="loadlab peers",
        seed=1,
        fingerprint=nobody.fingerprint,
        quiet=nobody.quiet,
        loads=[msgspec.structs.replace(load, regime=regime) for regime in PEER_REGIMES],
        environments={
            name: Environment(version="1.0", packages=9, bytes=10**8)
            for name in ("halfcore", "mosec", "ray")
        },
        rows=[
            *visits("halfcore", [20.0, 20.0, 22.0]),
            *visits("mosec", [40.0, 44.0, 40.0]),
            *broken,
        ],
    )


def test_a_stored_run_is_a_section_of_the_benchmarks(run, tmp_path):
    """Ratios with intervals, what is not there with the reason, and start, memory and size."""
    runner.save(a_run("bench", rounds("b", [20.0])), tmp_path / "docs/runs")
    stored = runner.save(run, tmp_path / "docs/runs")
    assert runner.load(stored, Peers) == run

    out = tmp_path / "docs/benchmarks.md"
    written = render.render(tmp_path / "docs/runs", out)

    text = out.read_text()
    assert "## Against other model servers" in text
    assert "- saturated, iris: the nearest is mosec with 2 times Halfcore's CPU time" in text
    assert "| mosec | 100 | **40.0 µs** | 40.0–44.0 | 2 (1.82–2.2) |" in text
    assert "| ray | its environment cannot be installed: no network | | | | | |" in text
    assert "| mosec | 1.0 | 9 | 100 | 2.0 | 1.5 | 50 | 0 |" in text
    assert out.with_name("benchmarks-peers.svg") in written


def test_a_run_says_where_halfcore_is_behind(run):
    """With what the other's answers take, for waiting saves CPU time."""
    behind = msgspec.structs.replace(
        run, rows=[*visits("halfcore", [20.0] * 3), *visits("mosec", [10.0] * 3)]
    )

    assert (
        "sparse, iris: **Halfcore is behind** mosec, which takes 0.5 times its CPU time a request, "
        "and answers half of them within 1.0 ms (Halfcore within 1.0 ms) "
        "(95 % interval 0.5 to 0.5)"
    ) in pages.sentences(behind)


@pytest.mark.skipif(
    subprocess.run(["uv", "python", "find", target.PYTHON], capture_output=True).returncode != 0,
    reason="no Python 3.11 here, which the peers' packages are locked for",
)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mosec_is_installed_proven_and_measured(tmp_path):
    """Next to halfcore, from a bundle of the tests' own."""
    write_bundle(tmp_path / "bundles", "numbers")
    where = ["--bundles", tmp_path / "bundles", "--store", tmp_path / "runs"]
    words = ["--peers", "mosec", "--models", "numbers", "--regimes", "saturated,bulk", "--quick"]

    done = subprocess.run(
        [sys.executable, "-m", "loadlab", "peers", *words, *where],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert not done.returncode, done.stderr
    (file,) = (tmp_path / "runs").glob("*-peers-quick-*.json")
    found = runner.load(file, Peers)
    assert {visit.server: visit.proven for visit in found.rows} == {
        "halfcore": 1 + BULK_ROWS,
        "halfcore gathering": 1,
        "mosec": 1 + BULK_ROWS,
        "mosec patient": 1,
        "mosec documented": 1,
    }
    measured = [each for visit in found.rows for each in visit.rounds]
    assert all(each.figures and not each.figures.failed for each in measured), measured
    assert all(visit.start and visit.start.cpu_s > 0 for visit in found.rows)
    assert found.environments["mosec"].version
    assert found.environments["mosec"].bytes > 10**7
