"""Halfcore answers other servers' protocols as they do, except in the listed ways.

`mlflow.json` holds what MLflow's server answered, `mlserver.json` what MLServer did:
`just record-protocols` makes them.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from protocols import compare
from protocols.differences import DIFFERENCES, MLSERVER_DIFFERENCES, Difference
from protocols.tensors import Call
from support.serving import Server, serving

FOLDER = Path(__file__).parent
RECORDED: list[dict[str, Any]] = json.loads((FOLDER / "mlflow.json").read_text("utf-8"))["recorded"]
MLSERVER: list[dict[str, Any]] = json.loads((FOLDER / "mlserver.json").read_text("utf-8"))[
    "recorded"
]
PAGE = FOLDER.parents[1] / "docs/protocols.md"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves the examples, exported here."""
    folder = tmp_path_factory.mktemp("examples")
    names = sorted({entry["model"] for entry in RECORDED})
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    command = [sys.executable, "-m", "model_export", "examples", *names]
    command += ["--out", str(folder / "bundles")]
    subprocess.run(command, cwd=folder, env=os.environ | store, check=True, timeout=900)
    with serving(folder / "bundles", default_model="iris") as running:
        yield running


@pytest.mark.parametrize("recorded", [RECORDED, MLSERVER], ids=["MLflow", "MLServer"])
def test_enough_is_recorded(recorded: list[dict[str, Any]]) -> None:
    """Three models, and all forms."""
    assert len(recorded) >= 150
    assert {entry["model"] for entry in recorded} == {"iris", "penguins-svm", "cover-small"}


def test_the_answers_agree(server: Server) -> None:
    """Status, content type, predictions and error code; every difference is listed, and every
    listed one exists."""
    differing: dict[str, list[str]] = {}
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        for entry in RECORDED:
            found = _answer(client, entry)
            expected = {key: entry[key] for key in found if key in entry}
            if found != expected or len(found) != len(expected):
                name = _listed(DIFFERENCES, entry)
                differing.setdefault(name, []).append(
                    f"{entry['model']}, {entry['name']}: {found}, MLflow {expected}"
                )
    unlisted = differing.pop("", [])
    assert not unlisted, "\n".join(unlisted)
    assert differing.keys() == DIFFERENCES.keys()


def test_the_answers_agree_with_mlserver_s(server: Server) -> None:
    """Status, content type and document; every place that differs is listed, and every listed one
    exists."""
    differing: dict[str, list[str]] = {}
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        for entry in MLSERVER:
            call = Call(**{field: entry[field] for field in Call._fields})
            theirs = {key: entry[key] for key in entry.keys() - {"model", *Call._fields}}
            ours = compare.answer(client, call)
            case = f"{entry['name']}, {ours['status']} for {theirs['status']}"
            for place, our, their in compare.unequal(ours, theirs, ""):
                name = _listed(MLSERVER_DIFFERENCES, entry | {"name": case}, place)
                differing.setdefault(name, []).append(
                    f"{entry['model']}, {case}: {place} is {our}, MLServer's {their}"
                )
    unlisted = differing.pop("", [])
    assert not unlisted, f"{len(unlisted)}\n" + "\n".join(unlisted)
    assert differing.keys() == MLSERVER_DIFFERENCES.keys()


def test_the_differences_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/protocols.md has each with its reason; there are at most twelve in all, and the test
    prints them."""
    both = [*DIFFERENCES.values(), *MLSERVER_DIFFERENCES.values()]
    with capsys.disabled():
        for number, difference in enumerate(both, 1):
            print(f"\n{number}. {difference.what}: {difference.why}", end="")  # noqa: T201
    assert len(both) <= 12
    text = PAGE.read_text("utf-8")
    for difference in both:
        assert f"| {difference.what} | {difference.why} |" in text


def _answer(client: httpx.Client, entry: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(
        f"/endpoints/{entry['model']}/invocations",
        content=entry["body"],
        headers={"content-type": entry["content_type"]},
    )
    kind = answer.headers["content-type"].partition(";")[0]
    found: dict[str, Any] = {"status": answer.status_code, "answer_type": kind}
    if kind == "application/json":
        document = answer.json()
        kept = ("predictions", "error_code")
        found |= {key: document[key] for key in kept if key in document}
    return found


def _listed(differences: dict[str, Difference], entry: dict[str, Any], place: str = "") -> str:
    """The name of the difference that covers a place in a request's answer, or an empty text."""
    for name, difference in differences.items():
        if re.search(difference.requests, f"{entry['model']}, {entry['name']}") and re.fullmatch(
            difference.at, place
        ):
            return name
    return ""
