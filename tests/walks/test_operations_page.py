"""docs/operations.md, and what docs/prediction-log.md says of challengers, as their readers live
them."""

import re

import pytest

from support.mlflow_registry import Registry
from support.walks.catalogue import ROOT
from support.walks.walker import Uploaded, Walker, walks

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]
PAGE = (ROOT / "docs/operations.md").read_text()
CHALLENGERS = (ROOT / "docs/prediction-log.md").read_text().partition("## Challengers")[2]
IRIS = {"features": [5.1, 3.5, 1.4, 0.2]}


@walks("MLFLOW_TRACKING_URI=* HALFCORE_FOLLOW=*,* just serve")
def test_an_alias_and_a_stage_are_followed_under_the_names_that_are_given(
    walker: Walker, uploaded: Uploaded
) -> None:
    """What the registry names is served, and `GET /models/NAME` tells what is followed."""
    command = walker.commands[0]
    follow = re.search(r"HALFCORE_FOLLOW=(\S+)", command.text)
    assert follow
    sources = [source.rpartition("=") for source in follow[1].split(",")]
    names = {
        name or uri.removeprefix("models:/").partition("@")[0]: uri for name, _, uri in sources
    }
    assert names == {"iris": "models:/iris@champion", "flowers": "models:/penguins-svm/Production"}
    with walker.start(command) as server:
        http = server.ready()

        def following(name: str) -> dict[str, object]:
            known = http.get(f"/models/{name}").json().get("following", {}).get("champion", {})
            return known if known.get("served") else {}

        for name, uri in names.items():
            known = server.until(lambda name=name: following(name), f"serving {name} from {uri}")
            assert known["uri"] == uri
            assert set(known) >= {"served", "pending", "refused", "error", "last_success_age_s"}
        example = http.get("/models/flowers").json()["example"]
        assert http.post("/models/flowers/predict", json=example).json()["prediction"] in {
            "Adelie",
            "Chinstrap",
            "Gentoo",
        }
        assert http.post("/models/iris/predict", json=IRIS).json()["prediction"] == "setosa"

        described = set(re.findall(r"^\| `(halfcore_\w+)`", PAGE.partition("## Metrics")[2], re.M))
        shown = http.get("/metrics").text
        assert len(described) > 10
        # Of a server without limits, and with one worker
        elsewhere = r"halfcore_(cpu_(quota|periods|throttled)|memory|worker_deaths)_"
        assert {
            name
            for name in described
            if not re.match(elsewhere, name)
            and f"# TYPE {name.removesuffix('_total')}" not in shown
        } == set()
        server.end()


@walks("uv run halfcore key *", "HALFCORE_API_KEYS=* just serve")
def test_predictions_need_one_of_the_keys(walker: Walker, uploaded: Uploaded) -> None:
    """Each key that the commands print opens its models, and no others."""
    *makes, serve = walker.commands
    (all_models, some) = [walker.run(make).said.split()[-1] for make in makes]
    with walker.start(serve) as server:
        http = server.ready()

        def status(model: str, **headers: str) -> int:
            example = http.get(f"/models/{model}").json()["example"]
            path = f"/models/{model}/predict"
            return http.post(path, json=example, headers=headers).status_code

        assert status("iris") == 401
        assert status("iris", authorization=f"Bearer {some}") == 200
        assert status("penguins-svm", **{"x-api-key": all_models}) == 200
        server.end()


@walks("* HALFCORE_CHALLENGERS=* just serve")
def test_a_challenger_is_asked_too(walker: Walker, uploaded: Uploaded, registry: Registry) -> None:
    """A shadow sees each request and changes no answer; a canary is loaded with its share. The
    metric of each counts it."""
    registry.set_alias("iris", "challenger", "1")
    for command, mode, share in zip(
        walker.commands, ("shadow", "canary"), (1.0, 0.05), strict=True
    ):
        with walker.start(command) as server:
            http = server.ready()

            def loaded() -> dict[str, object]:
                # Called in this turn of the loop
                known = http.get("/models/iris").json().get("challenger") or {}  # noqa: B023
                return known if known.get("version") else {}

            known = server.until(loaded, f"asking a {mode}")
            assert (known["mode"], known["share"], known["version"]) == (mode, share, "1")
            assert http.post("/models/iris/predict", json=IRIS).json()["prediction"] == "setosa"
            if mode == "shadow":
                labels = r'[^}]*mode="shadow"[^}]*outcome="answered"[^}]*'
                counted = rf"halfcore_challenger_requests_total\{{{labels}\}} [1-9]"
                server.until(
                    lambda: re.search(counted, http.get("/metrics").text),  # noqa: B023
                    "counting what the shadow answered",
                )
            server.end()
