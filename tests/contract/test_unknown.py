"""Unknown categories, from the encoder to the server's decoder: served as the registered model
answers them where the bundle says so, refused otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import StackingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from sklearn.tree import DecisionTreeClassifier

from halfcore import bundle
from halfcore.models.preparing import prepare
from halfcore.pipeline.decode import Decoder
from halfcore.problem import Problem
from model_export.export import ExportRequest
from model_export.export import export as run_export
from model_export.report import Reporter

if TYPE_CHECKING:
    from pathlib import Path

_UNKNOWN = ["", "Cliff", "cliff ", "nan", "ügly", "x" * 1000]


def _frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "wing": rng.normal(20.0, 4.0, 200),
            "place": rng.choice(["cliff", "marsh", "wood", "isle"], 200, p=[0.4, 0.4, 0.15, 0.05]),
            "ring": rng.choice(["blue", "red"], 200),
            "zone": rng.integers(1, 5, 200),
        }
    )
    frame["ring"] = frame["ring"].where(np.arange(200) % 7 > 0)
    return frame


def _model() -> Any:
    """One encoder of each kind that accepts unknown categories, and one that does not."""
    ring = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    prepare_columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=40), ["place"]),
        (ring, ["ring"]),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["zone"]),
        remainder="passthrough",
    )
    return make_pipeline(prepare_columns, LogisticRegression(max_iter=500))


def _exported(folder: Path, model: Any, frame: pd.DataFrame, **options: Any) -> tuple[Any, Any]:
    """The registered model, and its bundle as the server reads it."""
    mlflow.sklearn.save_model(
        model,
        folder / "model",
        signature=mlflow.models.infer_signature(frame, model.predict(frame)),
        input_example=frame,
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
    request = ExportRequest(str(folder / "model"), folder / "out", gate_rows=3000, **options)
    path = run_export(request, Reporter())
    return mlflow.pyfunc.load_model(str(folder / "model")), bundle.read(path)


def _served(source: bundle.Bundle, records: list[dict[str, Any]]) -> list[Any]:
    prepared = prepare(source, max_batch_size=16)
    rows = Decoder(prepared.schema, max_rows=500).decode(orjson.dumps(records))
    answers = prepared.engine.infer(rows.payload, rows.size)
    return [source.manifest.classes[answer[0]] for answer in answers]


@pytest.mark.filterwarnings("ignore")
def test_unknown_categories_are_answered_as_the_registered_model_does(tmp_path: Path) -> None:
    """In the columns whose encoder accepts them: `place` and `zone`, not `ring`."""
    frame = _frame()
    y = np.where(frame.wing + 4 * (frame.place == "cliff") - frame.zone > 19, "auk", "gull")
    pyfunc, source = _exported(tmp_path, _model().fit(frame, y), frame, accept_unknown=True)
    accepting = {column.name: column.accepts_unknown for column in source.manifest.inputs}
    assert accepting == {"wing": False, "place": True, "ring": False, "zone": True}

    rows = pd.concat(
        [frame.assign(place=place, zone=zone) for place in _UNKNOWN for zone in (0, -3, 2**31 - 1)]
    ).reset_index(drop=True)[::29]
    rows["ring"] = rows["ring"].fillna("red")
    assert _served(source, rows.to_dict("records")) == pyfunc.predict(rows).tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["calibrated", "stacked", "nested"])
def test_unknown_categories_of_a_model_inside_another(form: str, tmp_path: Path) -> None:
    """Where the encoder is in a member of the model, or in a ColumnTransformer inside another."""
    frame = _frame()[["wing", "place"]]
    y = np.where(frame.wing + 4 * (frame.place == "cliff") > 22, "auk", "gull")
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["place"]), remainder="passthrough"
    )
    inner = make_pipeline(encode, LogisticRegression(max_iter=500))
    nested = make_column_transformer((make_pipeline(encode), ["wing", "place"]))
    model = {
        "calibrated": CalibratedClassifierCV(inner, cv=2),
        "stacked": StackingClassifier([("a", inner)], cv=2),
        "nested": make_pipeline(nested, LogisticRegression(max_iter=500)),
    }[form]
    pyfunc, source = _exported(tmp_path, model.fit(frame, y), frame, accept_unknown=True)
    assert [column.accepts_unknown for column in source.manifest.inputs] == [False, True]
    rows = pd.concat([frame.assign(place=place) for place in _UNKNOWN]).reset_index(drop=True)[::29]
    assert _served(source, rows.to_dict("records")) == pyfunc.predict(rows).tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("accept", "change", "code"),
    [
        (False, {"place": "Cliff"}, "unknown_category"),
        (True, {"ring": "green"}, "unknown_category"),
        (True, {"place": "x" * 1001}, "unknown_category"),
        (True, {"place": "\ud800"}, "unknown_category"),
        (True, {"place": 4}, "wrong_type"),
        (True, {"place": None}, "null_not_allowed"),
        (True, {"zone": 2**31}, "unknown_category"),
    ],
)
def test_other_unknown_categories_are_refused(
    bundles: dict[bool, bundle.Bundle], accept: bool, change: dict[str, Any], code: str
) -> None:
    """Without the flag, in a column whose encoder refuses them, and of another type or too
    large."""
    record = {"wing": 20.0, "place": "cliff", "ring": "red", "zone": 1} | change
    decoder = Decoder(prepare(bundles[accept], max_batch_size=4).schema, max_rows=5)
    with pytest.raises(Problem) as raised:
        decoder.decode(_json(record))
    assert raised.value.code == "invalid_rows" or raised.value.errors
    assert [error.code for error in raised.value.errors] == [code]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"place": 4}, '"place" is 4, expected a string, one of '),
        ({"zone": 1.0}, '"zone" is 1.0, expected an integer, one of '),
        ({"zone": "1"}, '"zone" is "1", expected an integer, one of '),
    ],
)
def test_the_type_of_categories_is_named(
    bundles: dict[bool, bundle.Bundle], change: dict[str, Any], message: str
) -> None:
    """A list of them does not show whether 1 is a number or a text."""
    record = {"wing": 20.0, "place": "cliff", "ring": "red", "zone": 1} | change
    decoder = Decoder(prepare(bundles[False], max_batch_size=4).schema, max_rows=5)
    with pytest.raises(Problem) as raised:
        decoder.decode(_json(record))
    assert raised.value.errors[0].message.startswith(message)


def _json(record: dict[str, Any]) -> bytes:
    import json

    return json.dumps(record).encode()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, bundle.Bundle]:
    """One model, exported with and without the flag."""
    frame = _frame()
    y = np.where(frame.wing > 20, "auk", "gull")
    model = _model().fit(frame, y)
    return {
        accept: _exported(tmp_path_factory.mktemp("unknown"), model, frame, accept_unknown=accept)[
            1
        ]
        for accept in (False, True)
    }


@pytest.mark.filterwarnings("ignore")
def test_a_value_that_the_imputer_replaces_is_no_unknown_category(tmp_path: Path) -> None:
    """`?` becomes the most frequent value, any other unknown text becomes zeros: the column does
    not accept unknown categories."""
    frame = _frame()[["wing", "place"]]
    place = make_pipeline(
        SimpleImputer(missing_values="?", strategy="most_frequent"),
        OneHotEncoder(handle_unknown="ignore"),
    )
    model = make_pipeline(
        make_column_transformer((place, ["place"]), remainder="passthrough"),
        DecisionTreeClassifier(max_depth=4),
    ).fit(frame, np.where(frame.place == "cliff", 1, 0))
    _, source = _exported(tmp_path, model, frame, accept_unknown=True)
    assert not any(column.accepts_unknown for column in source.manifest.inputs)
