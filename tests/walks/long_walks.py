"""`just test-walks`: documented commands that take minutes, typed in a clean checkout. `just test`
types all others."""

import re
import signal
from pathlib import Path

import pytest

from support.walks.walker import Walker, changed, clean_checkout, walks

pytestmark = [pytest.mark.timeout(1500)]
_MINUTES = 1200.0


@pytest.fixture
def newcomer(request: pytest.FixtureRequest, tmp_path: Path) -> Walker:
    """A checkout that nobody has used: no environment, no model."""
    return Walker(
        clean_checkout(tmp_path / "halfcore"),
        request.node.get_closest_marker("walks").args[0],
        installs=True,
    )


@walks(
    "* python3 -m pip install uv rust-just && * just serve",
    "curl -s localhost:8000/predict *features*",
    "curl -s localhost:8000/models/*",
    "*export models:/penguins-svm@champion",
    "just serve --port *",
)
def test_from_a_clone_to_predictions(newcomer: Walker) -> None:
    """The packages are installed, six models trained, proven and served; the second time it only
    serves."""
    asked = [command for command in newcomer.commands if command.text.startswith("curl")]
    with newcomer.start(newcomer.find("PIP_*")) as server:
        server.ready(_MINUTES)
        assert re.search(
            r"^6 example models in .halfcore/bundles, 0 of them already there$", server.said(), re.M
        )
        for command in asked:
            assert newcomer.run(command).out[:30] == command.shown[:30]
        server.end(signal.SIGINT)
    for export in (
        command for command in newcomer.commands if "export models:" in command.text
    ):  # from the local MLflow
        assert "rows compared" in newcomer.run(export, timeout_s=_MINUTES).said
    with newcomer.start(newcomer.find("just serve*")) as server:
        server.ready()
        assert "6 of them already there" in server.said()
        server.end()
    assert newcomer.executed == {command.text for command in newcomer.commands}


@walks("just demo-swap")
def test_the_demonstration_of_a_swap(walker: Walker) -> None:
    """Two versions, 300 requests a second: each line of its result holds."""
    shown = walker.run(walker.commands[0], timeout_s=_MINUTES, status=(0, 1)).out
    assert re.search(r"^held +0 of \d+ requests failed", shown, re.M)
    assert re.search(r"^held +0 answers are not exactly one version's", shown, re.M)


@walks("just prove-swaps", "just prove-outages", "just prove-cold-start")
def test_proofs_in_a_short_form(walker: Walker) -> None:
    """Each ends with a table and stores it. What depends on the machine's speed may miss its bar
    here; a failed request may not happen."""
    for command in walker.commands:
        done = walker.run(command, timeout_s=_MINUTES, status=(0, 1))
        assert "stored in .halfcore/proofs/" in done.out
        failed = re.findall(r"│ (?:requests|predictions) failed +│ (\d+) of", done.out)
        assert set(failed) <= {"0"}, done.out


@walks("ROWS=300 just prove-baselines iris")
def test_the_baselines_answer_as_the_registered_model_does(walker: Walker) -> None:
    """All four variants."""
    done = walker.run(walker.commands[0], timeout_s=_MINUTES)
    assert [
        len(re.findall(rf"^{name}:$", done.out, re.M))
        for name in ("naive", "typical", "tuned", "onnx")
    ] == [1, 1, 1, 1]
    assert re.findall(r"(\d+) differ", done.said) == ["0"] * 4


@walks("loadlab render")
def test_the_pages_are_written_from_stored_runs(walker: Walker) -> None:
    """And they stand as they are checked in."""
    before = changed(walker.folder)
    assert "wrote docs/benchmarks.md" in walker.run(walker.commands[0], timeout_s=_MINUTES).said
    assert changed(walker.folder) == before
