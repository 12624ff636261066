"""The bench of the protocols: what it asks is right in each protocol, and what it says of a run."""

import base64

import msgspec
import pytest

from loadlab.experiments import runner
from loadlab.experiments.bench.forms import asked
from loadlab.experiments.bench.subjects import PROTOCOLS
from loadlab.generator.http import ask, post
from loadlab.pages import render
from loadlab.pages.bench import protocol_findings as findings
from loadlab.target.programs import case
from support.bench_runs import a_run, rounds
from support.protocol_models import COLUMNS, write_models
from support.serving import serving


@pytest.mark.parametrize("model", COLUMNS)
def test_each_protocol_answers_the_same_row(model, tmp_path):
    """Every form of the row gets a right answer that begins as the client expects, with the
    registered model's label; a wrong label would be seen."""
    write_models(tmp_path)
    held = case(tmp_path, model)
    with serving(tmp_path, default_model=model) as server:
        for subject in PROTOCOLS.values():
            form = asked(subject, held)
            binary = base64.b64decode(form.get("binary", ""))
            request = post(
                ("127.0.0.1", server.port),
                form["path"],
                form["body"],
                binary=binary,
                length_header=form.get("length_header", ""),
            )
            status, body = ask("127.0.0.1", server.port, request)
            assert status == 200, (subject.key, body)
            assert body.startswith(form["prefix"].encode()), subject.key
            assert held.prefix.rpartition(":")[2].strip('"') in form["prefix"], subject.key


@pytest.fixture
def protocols_run():
    """Binary tensors cost six tenths of JSON's, and `/invocations` too much on one model."""
    costs = {
        "wide": {"predict": 40.0, "invocations": 44.0, "v2-json": 60.0, "v2-binary": 36.0},
        "narrow": {"predict": 30.0, "invocations": 42.0, "v2-json": 40.0, "v2-binary": 36.0},
    }
    measured = [
        each
        for model, by_route in costs.items()
        for route, cost_us in by_route.items()
        for each in rounds(route, [cost_us] * 3, model=model)
    ]
    return a_run("protocols", measured)


def test_the_ratios_are_judged(protocols_run):
    """Both goals on the models that they are for; the other ratio is shown."""
    found = {each.text: each.reached for each in findings(protocols_run)}
    assert found == {
        "wide: v2-binary / v2-json = 0.60 (goal: at most 0.7)": True,
        "wide: invocations / predict = 1.10 (goal: at most 1.3)": True,
        "wide: 0 failures (goal: none)": True,
        "narrow: v2-binary / v2-json = 0.90": None,
        "narrow: invocations / predict = 1.40 (goal: at most 1.3)": False,
        "narrow: 0 failures (goal: none)": True,
    }


def test_what_was_not_measured_is_not_judged(protocols_run):
    """A route without rounds has no ratio."""
    kept = [each for each in protocols_run.rows if each.server != "v2-json"]
    found = [each.text for each in findings(msgspec.structs.replace(protocols_run, rows=kept))]
    assert "wide: v2-binary / v2-json: not measured" in found


def test_the_page_shows_the_newest_run(protocols_run, tmp_path):
    """A section of its own, after the bench, with the table and what is short of its goal."""
    bench_run = a_run("bench", rounds("a", [10.0, 11.0, 12.0]))
    runner.save(bench_run, tmp_path)
    runner.save(protocols_run, tmp_path)
    page, *_ = render.render(tmp_path, tmp_path / "b.md")
    text = page.read_text()
    assert "## Other protocols" in text
    assert "- **short**: narrow: invocations / predict = 1.40 (goal: at most 1.3)" in text
    assert "| v2-binary | the inference protocol, a binary tensor" in text
