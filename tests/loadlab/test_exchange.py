"""What is asked, and what the right answer is."""

import json

import pytest

from loadlab.generator import exchange
from loadlab.generator.exchange import Exchange, Fresh, NoAnswer, WrongAnswer
from loadlab.generator.http import is_right

MANIFEST = {
    "named": False,
    "classes": ["setosa", "versicolor"],
    "inputs": [{"name": f"x{i}", "kind": "number", "example": 9.0} for i in range(4)],
    "golden": [
        {
            "row": {"x0": 9.0, "x1": 9.0, "x2": 9.0, "x3": 9.0},
            "prediction": "setosa",
            "probabilities": [1.0, 0.0],
        }
    ],
}


def answering(answer: str, status: int = 200):
    """A server at rest that always says the same."""
    return lambda _body: (status, answer.encode())


@pytest.mark.parametrize(
    ("model", "count"), [("iris", 149), ("penguins-rf", 333), ("cover-small", 1000)]
)
def test_bodies_are_real_rows_in_a_seeded_order(model, count):
    """The same seed asks the same; another one in another order."""
    found = exchange.bodies(model, None, 1)
    assert len(found) == count  # one of the 150 flowers is there twice
    assert found == exchange.bodies(model, None, 1)
    assert found != exchange.bodies(model, None, 2)
    assert sorted(found) == sorted(exchange.bodies(model, None, 2)) or count == exchange.MOST
    assert all(isinstance(json.loads(body), dict) for body in found)


def test_golden_rows_are_asked_too():
    """They are those whose answers the registered model itself gave."""
    assert '{"features":[9.0,9.0,9.0,9.0]}' in exchange.bodies("iris", MANIFEST, 1)


def test_a_model_of_other_columns_gets_no_rows_of_the_set():
    """Rows of a set that it was not trained on would be refused; golden and fresh ones are its
    own."""
    manifest = MANIFEST | {"inputs": [{"name": "a", "kind": "number", "example": 9.0}]}
    found = exchange.bodies("iris", manifest, 1)
    assert sorted(found) == ['{"features":[9.0,9.0,9.0,9.0]}', '{"features":[9.0]}']
    assert exchange.bodies("mine", MANIFEST, 1) == ['{"features":[9.0,9.0,9.0,9.0]}']


def test_rows_hold_the_columns_that_the_model_does_not_read():
    """A service that checks rows against the model's signature refuses rows without them: golden
    rows, those of the pool and those that nobody has sent before."""
    columns = [{"name": "age", "kind": "number", "example": 1.0, "minimum": 0.0, "maximum": 90.0}]
    ignored = {"Name": "string", "Boarded": "datetime", "Photo": "binary", "Tags": "Array(string)"}
    manifest = MANIFEST | {
        "named": True,
        "inputs": columns,
        "golden": [{"row": {"age": 9.0}, "prediction": "setosa"}],
        "ignored": [{"name": name, "type": of} for name, of in ignored.items()],
    }
    pool, asked = exchange.bodies("mine", manifest, 1), []
    exchange.prove(manifest, lambda body: asked.append(body) or (200, b'{"prediction":"setosa"}'))
    new = Fresh.find(manifest, [], 1)
    bodies = [*pool, *asked, new.exchange(0).body]
    assert len(pool) > exchange.MOST // 2
    for row in map(json.loads, bodies):
        age = row.pop("age")
        assert 0 <= age <= 90
        assert row == {"Name": "a", "Boarded": "2026-01-01T00:00:00", "Photo": "YQ==", "Tags": None}


def test_a_server_is_proven_on_golden_rows():
    """More than the prediction may be answered; it must not be another one, and no other
    probabilities."""
    assert (
        exchange.prove(
            MANIFEST,
            answering(
                '{"prediction":"setosa","probabilities":{"setosa":1,"versicolor":0.000001},"model":"iris"}'
            ),
        )
        == 1
    )
    for wrong in (
        '{"prediction":"versicolor","probabilities":{"setosa":1,"versicolor":0}}',
        '{"prediction":"setosa"}',
        '{"prediction":"setosa","probabilities":{"setosa":0.9,"versicolor":0.1}}',
    ):
        with pytest.raises(WrongAnswer, match="expected 'setosa' as the registered model says"):
            exchange.prove(MANIFEST, answering(wrong))


def test_a_body_of_the_wrong_model_is_reported_before_any_load():
    """The server's own words are quoted."""
    with pytest.raises(WrongAnswer, match=r"refuses a row of this model: .* got 422"):
        exchange.learn(["{}"], answering('{"title":"missing column"}', 422))


def test_a_slow_server_is_asked_for_as_many_answers_as_there_is_time():
    """One at least; without a limit for all."""
    bodies = ["1", "2", "3"]
    assert [each.body for each in exchange.learn(bodies, answering("{}"), most_s=0)] == ["1"]
    assert [each.body for each in exchange.learn(bodies, answering("{}"))] == bodies


def test_a_server_that_changes_its_mind_is_reported():
    """Then there is no right answer to compare with."""
    with pytest.raises(WrongAnswer, match="two answers"):
        exchange.expect(Exchange("{}", '{"prediction":"a"}'), answering('{"prediction":"b"}'))


@pytest.mark.parametrize(
    ("received", "right"),
    [
        (b'{"prediction":"a","p":0.30000001}', True),
        (b'{"p":0.3,"prediction":"a","more":1}', False),
        (b'{"p":0.3,"prediction":"a"}', True),
        (b'{"prediction":"b","p":0.3}', False),
        (b'{"prediction":"a","p":0.31}', False),
        (b'{"prediction":"a","p":true}', False),
        (b'{"prediction":"a"}', False),
        (b'["prediction"]', False),
        (b"<html>", False),
        (b"", False),
    ],
)
def test_answers_are_compared_by_value_where_bytes_differ(received, right):
    """Texts exactly, floats within the tolerance, nothing missing."""
    assert is_right(received, b'{"prediction":"a","p":0.3}') is right


RANGED = MANIFEST | {
    "inputs": [
        {"name": f"x{i}", "kind": "number", "example": 9.0, "minimum": 0.0, "maximum": 9.0}
        for i in range(4)
    ]
}


def test_fresh_bodies_are_drawn_by_number_and_none_is_there_twice():
    """By the seed, from the ranges of the columns, and none of the pool."""
    pool = [Exchange(body) for body in exchange.bodies("mine", RANGED, 1)]
    found = Fresh.find(RANGED, pool, seed=1)
    assert found is not None
    bodies = [found.exchange(number).body for number in range(2000)]
    assert len({*bodies, *(each.body for each in pool)}) == 2000 + len(pool)
    assert bodies[7] == found.exchange(7).body
    assert all(0 <= value <= 9 for body in bodies for value in json.loads(body)["features"])
    other = Fresh.find(RANGED, pool, seed=2)
    assert other is not None
    assert other.exchange(7).body not in bodies


def test_a_model_with_few_different_rows_has_no_fresh_ones():
    """Without ranges every row is the example; three booleans make eight rows."""
    assert Fresh.find(MANIFEST, [], seed=1) is None
    few = MANIFEST | {"inputs": [{"name": f"b{i}", "kind": "boolean"} for i in range(3)]}
    assert Fresh.find(few, [], seed=1) is None


SEVERAL = MANIFEST | {
    "golden": [
        *MANIFEST["golden"],
        {"row": {f"x{i}": 1.0 for i in range(4)}, "prediction": "versicolor"},
    ]
}


@pytest.mark.parametrize("answer", ['{"error":"no model"}', "<html>welcome</html>"])
def test_an_error_with_status_200_is_no_prediction(answer):
    """One answer to rows of several labels, and no label in it: it would count as right, and be
    measured, and pass."""
    with pytest.raises(NoAnswer, match=r"one answer to 2 rows .* gives 2, and none of these"):
        exchange.distinguish(SEVERAL, answering(answer))


def test_predictions_of_any_form_are_no_errors():
    """Other names and forms are the server's own business, and so is a model that gives one label;
    where the registered model itself gives one, nothing can be said."""
    exchange.distinguish(SEVERAL, answering('["setosa", 0.7]'))
    answers = iter([b"0", b"1"])
    exchange.distinguish(SEVERAL, lambda _body: (200, next(answers)))
    exchange.distinguish(MANIFEST, answering('{"error":"no model"}'))
