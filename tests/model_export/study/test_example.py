"""Input examples in every form in which MLflow takes them, and with the types of pandas that have a
null of their own."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from model_export.errors import ExportError
from model_export.study.anatomy import dissect
from model_export.study.categories import find_categories
from model_export.study.example import example_table
from model_export.study.rows import from_frame, refused_values
from model_export.study.schema import Column, Schema, read_schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("example", "columns", "shape"),
    [
        (["to be", "or not", "to be"], 1, (3, 1)),
        (np.array(["to be", "or not"]), 1, (2, 1)),
        ([5.1, 3.5], 2, (1, 2)),
        ([{"a": 1, "b": 2}, {"a": 3, "b": 4}, {"a": 5, "b": 6}], 2, (3, 2)),
        ({"a": 1, "b": "x"}, 2, (1, 2)),
        ({"a": [1, 2, 3], "b": np.arange(3)}, 2, (3, 2)),
        ({"columns": ["a", "b"], "data": [[1, 2], [3, 4], [5, 6]]}, 2, (3, 2)),
        ({"index": [7, 8], "columns": ["a", "b"], "data": [[1, 2], [3, 4]]}, 2, (2, 2)),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}}, 2, (2, 2)),
        ({"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}, 2, (2, 2)),
        ({"instances": [[1, 2], [3, 4], [5, 6]]}, 2, (3, 2)),
        ({"inputs": {"a": [1, 2, 3], "b": [4, 5, 6]}}, 2, (3, 2)),
        ({"inputs": [1.5, 2.5, 3.5]}, 1, (3, 1)),
        ({"x": np.eye(3)}, 3, (3, 3)),
        ({"columns": [1, 2, 3], "data": [4, 5, 6]}, 2, (3, 2)),
    ],
    ids=[
        "texts",
        "array of texts",
        "one row",
        "records",
        "one record",
        "columns",
        "split",
        "split with an index",
        "request of a split",
        "request of records",
        "request of rows",
        "request of columns",
        "a column called inputs",
        "a named matrix",
        "a column called data",
    ],
)
def test_an_example_is_read_whatever_its_form(
    example: Any, columns: int, shape: tuple[int, int]
) -> None:
    """A list of texts holds a row each; a list of numbers is one row."""
    assert example_table(example, columns).frame.shape == shape


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """Save a model as MLflow's tutorials do: with an example, from which MLflow infers the
    signature if it can."""

    def log(model: Any, x: Any, **options: Any) -> Path:
        logger = logging.getLogger("mlflow")
        before = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MLflow's own, about integers and pickles
                mlflow.sklearn.save_model(
                    model,
                    tmp_path / "logged",
                    input_example=x,
                    serialization_format="cloudpickle",
                    pip_requirements=["scikit-learn"],
                    **options,
                )
        finally:
            logger.setLevel(before)
        return tmp_path / "logged"

    return log


@pytest.fixture
def nests() -> pd.DataFrame:
    """Types that have pd.NA: a count and a measure with gaps, and two texts."""
    rng = np.random.default_rng(5)
    size = 150
    frame = pd.DataFrame(
        {
            "eggs": pd.array(rng.integers(0, 6, size), dtype="Int64"),
            "height": pd.array(rng.normal(8.0, 2.0, size), dtype="Float64"),
            "tree": pd.array(rng.choice(["elm", "fir", "oak"], size), dtype="string"),
            "finder": pd.array(rng.choice(["Ann", "Ben"], size), dtype="string"),
        }
    )
    frame.loc[rng.random(size) < 0.1, "eggs"] = pd.NA
    frame.loc[rng.random(size) < 0.1, "height"] = pd.NA
    return frame


def signature_of(x: pd.DataFrame) -> Any:
    """As MLflow infers it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, about integers
        return infer_signature(x)


def of_nests(frame: pd.DataFrame) -> Any:
    """A model that does not read the finder's name."""
    columns = make_column_transformer(
        (SimpleImputer(), ["eggs", "height"]), (OneHotEncoder(), ["tree"])
    )
    return make_pipeline(columns, LogisticRegression()).fit(frame, frame["tree"] == "oak")


def test_gaps_in_a_column_of_whole_numbers(
    nests: pd.DataFrame, log: Callable[..., Path], export: Callable[..., Any]
) -> None:
    """Int64 with pd.NA: MLflow stores no signature for it, because it could not give the model such
    a row."""
    bundle = export(log(of_nests(nests), nests))

    assert [entry["name"] for entry in bundle.manifest["inputs"]] == ["eggs", "height", "tree"]
    assert bundle.inputs("eggs")["nullable"] is True
    assert bundle.labels(nests.drop(columns="finder")) == (nests["tree"] == "oak").tolist()


def test_an_example_that_the_signature_does_not_permit(
    nests: pd.DataFrame, log: Callable[..., Path], export: Callable[..., Any]
) -> None:
    """A signature of `long` takes no null: the example's other rows are used, and the output counts
    those that are left out and says which column is the reason."""
    bundle = export(log(of_nests(nests), nests, signature=signature_of(nests)))

    assert bundle.inputs("eggs") == {**bundle.inputs("eggs"), "kind": "integer", "nullable": False}
    left_out = int(nests["eggs"].isna().sum())
    assert (
        f"({left_out} left out: they hold null in ['eggs'], of the type integer: " in bundle.output
    )


def test_booleans_in_a_table_of_which_mlflow_infers_no_signature(
    nests: pd.DataFrame, log: Callable[..., Path], export: Callable[..., Any]
) -> None:
    """A gap in another column costs the whole signature; the example still has the types, with an
    encoder and without."""
    rng = np.random.default_rng(6)
    frame = nests.assign(ringed=rng.random(150) < 0.5, hollow=rng.random(150) < 0.5)
    columns = make_column_transformer(
        (SimpleImputer(), ["eggs"]), (OneHotEncoder(), ["ringed"]), ("passthrough", ["hollow"])
    )
    model = make_pipeline(columns, LogisticRegression()).fit(frame, frame["tree"] == "oak")

    bundle = export(log(model, frame))

    assert [bundle.inputs(name)["kind"] for name in ("ringed", "hollow")] == ["boolean"] * 2


def test_encoded_booleans_of_a_model_without_signature_and_example() -> None:
    """The encoder says it; the rows are of a file."""
    frame = pd.DataFrame({"ringed": [True, False] * 60, "height": np.arange(120.0)})
    columns = make_column_transformer((OneHotEncoder(), ["ringed"]), ("passthrough", ["height"]))
    model = make_pipeline(columns, LogisticRegression()).fit(frame, np.arange(120) % 3 == 0)

    schema = read_schema(None, model)
    assert find_categories(schema, dissect(model, schema.names)).columns[0].kind == "boolean"


def test_a_function_that_makes_the_categories_is_named(
    nests: pd.DataFrame, log: Callable[..., Path], export: Callable[..., Any]
) -> None:
    """The encoder learned values that no row holds."""
    upper = make_pipeline(FunctionTransformer(_upper), OneHotEncoder())
    columns = make_column_transformer((SimpleImputer(), ["eggs"]), (upper, ["tree"]))
    model = make_pipeline(columns, LogisticRegression()).fit(nests, nests["tree"] == "oak")

    with pytest.raises(
        ExportError,
        match=r"values of \['tree'\] that no encoder learned, because step "
        "'columntransformer/pipeline/functiontransformer' makes others of them: do its work before",
    ) as refused:
        export(log(model, nests))
    assert "--data" not in str(refused.value)  # other rows would not help


def _upper(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.apply(lambda column: column.str.upper())


REFUSED: dict[str, tuple[Column, list[Any], str]] = {
    "null": (Column("a", "number", "float64"), [1.0, None], "null in ['a']"),
    "null of an integer": (
        Column("a", "integer", "int64"),
        [1, None],
        "null in ['a'], of the type integer: to allow null, log float64 there",
    ),
    "category": (
        Column("a", "category", "str", categories=("x",)),
        ["x", "{y}"],
        "values of ['a'] that its encoder did not learn",
    ),
    "infinity": (
        Column("a", "number", "float64"),
        [1.0, np.inf],
        "numbers in ['a'] that are too large for float32",
    ),
    "half": (
        Column("a", "integer", "int64"),
        [1.0, 1.5],
        "numbers in ['a'] that are not whole, or too large for its type",
    ),
    "two": (
        Column("a", "boolean", "bool"),
        [1, 2],
        "values of ['a'] that are neither true nor false",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_row_that_is_left_out_holds(name: str) -> None:
    """The column and what is wrong with it."""
    column, values, expected = REFUSED[name]
    frame, schema = pd.DataFrame({"a": values}), Schema((column,), named=True)

    assert from_frame(frame, schema)[1].tolist() == [True, False]
    assert refused_values(frame[1:], schema, {}) == expected


def splitting() -> Any:
    """LightGBM that splits categories of few rows."""
    return lgb.LGBMClassifier(n_estimators=20, verbose=-1, min_data_per_group=5, cat_smooth=1)


@pytest.mark.parametrize("signed", [True, False], ids=["signature", "no signature"])
def test_categories_of_pandas_in_a_booster(
    signed: bool, nests: pd.DataFrame, log: Callable[..., Path], export: Callable[..., Any]
) -> None:
    """The booster says what they are, and the example holds them."""
    x = nests[["height"]].astype(float).assign(tree=nests["tree"].astype(object).astype("category"))
    model = splitting().fit(x, nests["tree"] == "oak")
    folder = log(model, x, **({"signature": signature_of(x)} if signed else {}))

    assert export(folder).inputs("tree")["categories"] == ["elm", "fir", "oak"]


def test_categories_of_pandas_that_are_numbers(
    nests: pd.DataFrame, log: Callable[..., Path], export: Callable[..., Any]
) -> None:
    """MLflow hands them on as numbers, which LightGBM refuses: it gets them as categories."""
    x = nests[["height"]].astype(float)
    x["eggs"] = nests["eggs"].fillna(0).astype(int).astype("category")
    model = splitting().fit(x, x["eggs"].astype(int) > 2)

    assert export(log(model, x)).inputs("eggs")["categories"] == [0, 1, 2, 3, 4, 5]


def test_a_signature_that_mlflow_could_not_infer(
    log: Callable[..., Path], export: Callable[..., Any]
) -> None:
    """A column of numbers and texts: MLflow then signs one column without a name, and keeps only
    the first one of a table."""
    x = pd.DataFrame({"height": np.arange(60.0), "note": [1, "old"] * 30})
    columns = make_column_transformer(("passthrough", ["height"]))
    model = make_pipeline(columns, LogisticRegression()).fit(x, x["height"] > 30.0)

    with pytest.raises(ExportError, match="the signature names no columns, because MLflow could"):
        export(log(model, x, signature=signature_of(x)))
