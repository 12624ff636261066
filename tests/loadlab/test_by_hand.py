"""Locust without the lab: what its users send, and what its page says of a failure."""

import json

import pytest

from loadlab.generator import plan
from loadlab.generator.http import Failed, Question, meaning
from support.bundles import write_bundle

HOST = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((HOST, "stedy", "iris"), "scenario=stedy is unknown; there are"),
        ((HOST, "steady", "nothing"), "there are no rows for model=nothing"),
        (("https://127.0.0.1", "steady", "nothing"), "expected http://NAME:PORT"),
    ],
)
def test_what_cannot_be_sent_is_the_reason_of_every_failure(words, says):
    """An exception in its place would let Locust go on with what was sent before."""
    assert says in plan.by_hand(*words).problem


def test_the_rows_of_a_model_of_ones_own_are_sent(tmp_path, monkeypatch):
    """Of its newest bundle; without one there are none."""
    monkeypatch.chdir(tmp_path)
    assert "just export models:/numbers@ALIAS" in plan.by_hand(HOST, "steady", "numbers").problem
    write_bundle(tmp_path / ".halfcore/bundles")

    load = plan.by_hand(HOST, "steady", "numbers")

    assert not load.problem
    assert load.path == "/models/numbers/predict"
    assert len(json.loads(load.exchanges[0].body)["features"]) == 4


def test_a_failure_shows_the_first_such_answer():
    """With its white space joined, and cut."""
    problem = b'{\n  "code": "unknown_model"\n}' + b" " + b"x" * 400
    answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\n\r\n%s" % (len(problem), problem)
    with pytest.raises(Failed) as raised:
        Question(b"", b"").is_right(answer)
    says = meaning(str(raised.value), raised.value.body)
    start = 'status 404, expected 200; the first such answer: { "code": "unknown_model" } xxx'
    assert says.startswith(start)
    assert len(says) < 400
    assert meaning("connect") == "no connection: refused, or not accepted in time"
