"""Servers that would like to be measured without doing the work: none gets a right answer
counted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadlab.generator import exchange
from loadlab.generator.exchange import WrongAnswer
from loadlab.generator.http import is_right
from support.bundles import MIXED, write_bundle
from support.misbehaving import CHEATS, RIGHT

Ask = Callable[[str], tuple[int, bytes]]


def made(tmp_path: Path, task: str = "regression") -> tuple[dict[str, Any], Path]:
    """A bundle's manifest and graph, with columns of every kind; a regressor answers a row's
    sum."""
    folder = write_bundle(tmp_path, inputs=MIXED, task=task)
    return json.loads((folder / "manifest.json").read_text()), folder / "model.onnx"


def proven(manifest: dict[str, Any], graph: Path, ask: Ask) -> int:
    """What a run does before its load: golden rows, then all rows against the graph's answers."""
    exchange.prove(manifest, ask)
    bodies = exchange.bodies("mine", manifest, seed=1)
    learned = exchange.learn(bodies, ask)
    return exchange.agree(learned, exchange.expected(graph, manifest, bodies))


def honest(manifest: dict[str, Any], graph: Path) -> Ask:
    """A server that answers by the model, with the model's name and version as halfcore's does."""

    def ask(body: str) -> tuple[int, bytes]:
        (answer,) = exchange.expected(graph, manifest, [body])
        return 200, json.dumps(answer | {"model": "mine", "version": "1"}).encode()

    return ask


def test_an_honest_server_is_proven_on_every_row(tmp_path):
    """Most of the rows are fresh, so that no list of them can be remembered."""
    manifest, graph = made(tmp_path)
    assert proven(manifest, graph, honest(manifest, graph)) == exchange.MOST


def test_fresh_rows_are_others_for_another_seed(tmp_path):
    """And the same for the same one; each is legal."""
    manifest, _ = made(tmp_path)
    one, again, other = (set(exchange.bodies("mine", manifest, seed)) for seed in (1, 1, 2))
    assert one == again
    assert len(one & other) <= len(manifest["golden"]) + exchange.MOST // 10


def test_a_server_without_a_model_is_found_before_any_load(tmp_path):
    """It answers every row as the first golden one."""
    manifest, graph = made(tmp_path)
    first = honest(manifest, graph)(exchange.encode(manifest["golden"][0]["row"], named=True))
    with pytest.raises(WrongAnswer):
        proven(manifest, graph, lambda _: first)


def test_a_server_that_knows_only_the_golden_rows_is_found(tmp_path):
    """Its answers to all others are the label that it knows best."""
    manifest, graph = made(tmp_path)
    truth = honest(manifest, graph)
    known = {exchange.encode(each["row"], named=True) for each in manifest["golden"]}
    usual = truth(next(iter(known)))
    with pytest.raises(WrongAnswer, match="as the bundle's graph answers"):
        proven(manifest, graph, lambda body: truth(body) if body in known else usual)


@pytest.mark.parametrize("answer", CHEATS.values(), ids=CHEATS)
def test_what_only_looks_like_the_answer_is_wrong(answer):
    """Whatever stands before it, after it or in it."""
    assert not is_right(answer, RIGHT)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_golden_rows_are_answered_by_the_graph_as_by_the_registered_model(tmp_path, task):
    """The lab packs rows as the server does."""
    manifest, graph = made(tmp_path, task)
    bodies = [exchange.encode(each["row"], named=True) for each in manifest["golden"]]
    computed = exchange.expected(graph, manifest, bodies)
    found = iter(json.dumps(answer).encode() for answer in computed)
    assert exchange.prove(manifest, lambda _: (200, next(found))) == len(bodies)
