"""README.md, README.es.md and the pages that continue them (quickstart, own-model, registry), as
their readers live them: each command is typed as it stands there, and does what stands there."""

import json
import re
import signal

import pytest

from support.mlflow_registry import Registry
from support.walks.catalogue import ROOT, recipes
from support.walks.walker import Done, Walker, walks

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]
QUICKSTART = (ROOT / "docs/quickstart.md").read_text()
TRAIN = re.compile(r"^```python\n(# train\.py\n.+?)^```", re.DOTALL | re.MULTILINE)
SETTINGS = re.findall(r"^\| `(HALFCORE_\w+)`", (ROOT / "docs/operations.md").read_text(), re.M)
_NUMBER = re.compile(r"(?<=:)\d+(?:\.\d+)?(?:e-?\d+)?")
"""A number of a JSON document without spaces; digits inside a string are none."""
ROW = {"features": [5.1, 3.5, 1.4, 0.2]}


def apart(answer: str) -> tuple[str, list[float]]:
    """An answer's text with its numbers left out, and these numbers; a page may break its line."""
    text = json.dumps(json.loads(answer), separators=(",", ":"), ensure_ascii=False)
    return _NUMBER.sub("#", text), [float(number) for number in _NUMBER.findall(text)]


def assert_shown(answer: str, shown: str) -> None:
    """An answer is the one on the page, up to what a float32 owes to the CPU."""
    words, numbers = apart(answer)
    expected_words, expected_numbers = apart(shown)
    assert words == expected_words
    assert numbers == pytest.approx(expected_numbers, rel=1e-4, abs=1e-6)


@walks(
    "* python3 -m pip install uv rust-just && * just serve",
    "curl -s localhost:8000/predict *features*",
    "curl -s localhost:8000/models/*",
)
def test_the_first_command_serves_the_examples_which_answer_as_shown(
    walker: Walker, examples: Done
) -> None:
    """Each curl prints the answer that stands below it, up to what a float32 owes to the CPU; every
    route that is named answers."""
    curls = [command for command in walker.commands if command.text.startswith("curl")]
    asked = [command for command in curls if "x-envoy" not in command.text]
    assert ["predict" in command.text and "prediction" in command.shown for command in asked] == [
        True,
        True,
        False,
    ]
    with walker.start(walker.find("PIP_*")) as server:
        http = server.ready()
        for command in asked:
            assert_shown(walker.run(command).out, command.shown)
        # On a slow machine its quarter of a second may pass.
        limited = walker.run(walker.find("curl *x-envoy*")).out
        assert '"prediction"' in limited or "deadline_exceeded" in limited
        routes = re.search(r"The other routes:\n\n(.+?)\n\n", QUICKSTART, re.DOTALL)
        assert routes
        named = re.findall(r"`(?:GET )?(/\S+)`", routes[1])
        paths = [path if path not in {"/live", "/ready"} else f"/health{path}" for path in named]
        assert {"/models", "/models/NAME", "/health/live", "/metrics", "/docs"} <= set(paths)
        assert {
            path: http.get(path.replace("NAME", "iris")).status_code for path in paths
        } == dict.fromkeys(paths, 200)
        assert "drained: every accepted request was answered" in server.end(signal.SIGINT)


@walks(
    "* uv run python train.py",
    "just export models:/wine@champion",
    "uv run halfcore serve --default-model wine",
    "curl -s localhost:8000/predict *alcohol*",
)
def test_the_script_trains_a_model_that_is_served(walker: Walker) -> None:
    """Trained, logged, registered, exported and asked as the README shows, in a clean MLflow."""
    (script,) = TRAIN.findall((ROOT / "README.md").read_text())
    (walker.folder / "train.py").write_text(script)
    walker.run(walker.find("*train.py"))
    assert "label mismatches" in walker.run(walker.find("just export*")).said
    with walker.start(walker.find("uv run halfcore serve*")) as server:
        server.ready()
        asked = walker.find("curl*")
        assert_shown(walker.run(asked).out, asked.shown)
        assert "drained" in server.end()


@walks("* just export models:/my-model@champion", "just serve --default-model my-model")
def test_a_model_of_ones_own_is_exported_and_served(
    walker: Walker, mine: str, examples: Done
) -> None:
    """The export says what it compared and leaves a bundle; `/predict` is that model's."""
    exported = walker.run(walker.find("*export*"))
    compared = re.search(r"rows compared +│ +([\d,]+)", exported.said)
    assert compared
    assert int(compared[1].replace(",", "")) >= 100_000
    assert list(walker.folder.glob(f".halfcore/bundles/{mine}/1-*/manifest.json"))

    with walker.start(walker.find("just serve*")) as server:
        answer = server.ready().post("/predict", json=ROW).json()
        assert (answer["model"], answer["version"], answer["prediction"]) == (mine, "1", "setosa")
        assert "drained" in server.end()


@walks("just serve")
def test_a_name_and_a_stage_in_the_environment_are_exported_and_served(
    walker: Walker, mine: str
) -> None:
    """As services are configured that this replaces: MODEL_NAME, MODEL_STAGE,
    MLFLOW_TRACKING_URI."""
    environment = {"MODEL_NAME": "my-model", "MODEL_STAGE": "Production"}
    with walker.start(walker.find("just serve"), environment=environment) as server:
        http = server.ready()
        assert http.post("/predict", json=ROW).json()["model"] == "my-model"
        assert http.get("/models/my-model").json()["source"]["uri"] == "models:/my-model/Production"
        server.end()


@walks("just serve --port 8001")
def test_flags_go_to_the_server(walker: Walker, examples: Done) -> None:
    """The port that is given wins over the environment."""
    with walker.start(walker.commands[0], environment={"HALFCORE_PORT": "1"}) as server:
        assert server.ready().get("/health").json()["default_model"] == "iris"
        server.end()


@walks(
    "* just watch models:/my-model@champion",
    "HALFCORE_FOLLOW=models:/my-model@champion * just serve",
)
def test_an_alias_that_moves_swaps_the_model(walker: Walker, mine: str, registry: Registry) -> None:
    """The watch exports the version, the server serves it; and so the next one, once the alias
    stands there."""
    with (
        walker.start(walker.find("*watch*")) as watch,
        walker.start(walker.find("*FOLLOW*")) as server,
    ):

        def served() -> str:
            answer = server.http.post(f"/models/{mine}/predict", json=ROW)
            return str(answer.json()["version"]) if answer.status_code == 200 else ""

        for version in ("1", "2"):
            registry.set_alias(mine, "champion", version)
            watch.prints(f"{mine}/{version}: passed")
            # Called in this turn of the loop
            server.until(lambda: served() == version, f"serving version {version}")  # noqa: B023
        assert "stopped" in watch.end()
        assert "drained" in server.end()


@walks("*halfcore serve --help", "just serve --help")
def test_help_explains_every_setting(walker: Walker) -> None:
    """Those that docs/operations.md lists, but for secrets, which no flag may take; at once, before
    anything is trained."""
    assert len(SETTINGS) > 40
    for command in walker.commands:
        shown = walker.run(command, timeout_s=60).out
        unexplained = [name for name in SETTINGS if name not in shown]
        assert all(re.search("TOKEN|PASSWORD|SECRET|DATABASE_URL", name) for name in unexplained), (
            command,
            unexplained,
        )


@walks("just")
def test_just_lists_all_recipes(walker: Walker) -> None:
    """Each with what it does."""
    shown = dict(
        re.findall(r"^ +([a-z][a-z-]*)[^#\n]*# (.+)$", walker.run(walker.find("just")).out, re.M)
    )
    assert set(shown) == set(recipes())
    assert "then serve them" in shown["serve"]
