"""The README's first minutes, as a newcomer lives them: examples trained, exported, served, and asked."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.serving import serving

README = (Path(__file__).parents[2] / "README.md").read_text()
ASKED = re.findall(r"```sh\ncurl -s localhost:8000(\S+) -H 'content-type: application/json' -d '([^']+)'\n```\n```json\n(.+)\n```", README)

NUMBER = re.compile(r"(?<=:)\d+(?:\.\d+)?(?:e-?\d+)?")
"""A number of a JSON document without spaces; digits inside a string are none."""


def apart(answer: str) -> tuple[str, list[float]]:
    """An answer's text with its numbers left out, and these numbers."""
    return NUMBER.sub("#", answer), [float(number) for number in NUMBER.findall(answer)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the two models that the README asks, made by the commands that `just serve` runs, in an empty directory."""
    root = tmp_path_factory.mktemp("newcomer")
    made = subprocess.run(
        [sys.executable, "-m", "model_export", "examples", "iris", "penguins-svm"], cwd=root, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    with serving(root / ".halfcore/bundles", default_model="iris") as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.mark.timeout(240)  # trains and proves two models
@pytest.mark.parametrize(("path", "body", "answer"), ASKED)
def test_the_examples_give_the_answers_that_are_shown(url: str, path: str, body: str, answer: str) -> None:
    """Pasted, each request of the README gets the README's answer, up to the last digits.

    The model is trained here, and its probabilities are float32: both depend on the CPU in the
    seventh digit.
    """
    given = httpx.post(url + path, content=body, headers={"content-type": "application/json"})
    words, numbers = apart(given.text)
    expected_words, expected_numbers = apart(answer)
    assert words == expected_words
    assert numbers == pytest.approx(expected_numbers, rel=1e-4, abs=1e-6)


def test_the_readme_shows_a_vector_a_record_and_a_refusal() -> None:
    """None of the examples was lost on the way into this test."""
    assert ["features" in json.loads(body) for _, body, _ in ASKED] == [True, False, False]
    assert ["prediction" in json.loads(answer) for _, _, answer in ASKED] == [True, True, False]
