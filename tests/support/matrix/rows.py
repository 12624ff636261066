"""Rows drawn afresh for a bundle, and the registered model's answers to them."""

from typing import Any

import numpy as np
import pandas as pd

ROWS = 600
_NULLS = 0.1
_PROBED = 12
"""Columns in which a null and an unknown category are tried."""
UNKNOWN = "never seen before"


def drawn(manifest: dict[str, Any], rows: Any, count: int = ROWS) -> pd.DataFrame:
    """Rows by the manifest's columns: values of the data, other ones of the same ranges, and nulls
    where the manifest allows them; ignored columns as in the data."""
    rng = np.random.default_rng(77)
    table = _table(manifest, rows)
    base = table.iloc[rng.integers(0, len(table), count)].reset_index(drop=True)
    drawn = {}
    for column in manifest["inputs"]:
        name = column["name"]
        own = _column(column, base[name], rng) if name in base else None
        if own is not None:
            drawn[name] = own
    ignored = [each["name"] for each in manifest.get("ignored", []) if each["name"] in base]
    return pd.DataFrame(drawn | {name: base[name] for name in ignored})


def _table(manifest: dict[str, Any], rows: Any) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        return rows.rename(columns=str)
    return pd.DataFrame(rows, columns=[column["name"] for column in manifest["inputs"]])


def _column(column: dict[str, Any], seen: pd.Series, rng: Any) -> pd.Series:
    """Half of it as in the data, half from the whole range."""
    count = len(seen)
    other = _others(column, seen, rng, count)
    mixed = seen.astype(object).where(rng.random(count) < 0.5, other)
    missing = rng.random(count) < _NULLS if column["nullable"] else np.zeros(count, bool)
    if not column["nullable"]:
        mixed = mixed.where(mixed.notna(), column["example"])
    return mixed.astype(object).where(~missing, None)


def _others(column: dict[str, Any], seen: pd.Series, rng: Any, count: int) -> pd.Series:
    if column.get("categories"):
        return pd.Series([column["categories"][i] for i in _indices(column, rng, count)])
    if column["kind"] == "number" and column.get("minimum") is not None:
        return pd.Series(rng.uniform(column["minimum"], column["maximum"], count))
    if column["kind"] == "integer" and column.get("minimum") is not None:
        whole = rng.integers(int(column["minimum"]), int(column["maximum"]) + 1, count)
        return pd.Series(whole.tolist(), dtype=object)
    return seen.sample(frac=1.0, random_state=1).reset_index(drop=True).astype(object)


def _indices(column: dict[str, Any], rng: Any, count: int) -> Any:
    return rng.integers(0, len(column["categories"]), count)


def probes(manifest: dict[str, Any], table: pd.DataFrame) -> list[pd.DataFrame]:
    """Single rows: a null in a column that may not be null, and an unknown category."""
    usable = table.dropna()
    if not len(usable):
        return []
    found = []
    for column in manifest["inputs"][:_PROBED]:
        tried = [None] if not column["nullable"] else []
        if isinstance(column["example"], str):
            tried.append(UNKNOWN)
        for value in tried:
            row = usable.head(1).astype(object).reset_index(drop=True)
            row[column["name"]] = pd.Series([value], dtype=object)
            found.append(row)
    return found


def model_input(table: pd.DataFrame, rows: Any) -> Any:
    """The table as the model's own users pass it: types of the data that it was trained on."""
    if not isinstance(rows, pd.DataFrame):
        matrix = np.asarray(table.astype(float)).astype(rows.dtype)
        return matrix[:, 0] if rows.ndim == 1 else matrix
    made = {}
    for name, column in table.items():
        kind = rows.rename(columns=str)[name].dtype
        if isinstance(kind, pd.CategoricalDtype):
            made[name] = _categories(column, kind)
            continue
        values = column.map(lambda value: np.nan if value is None else value)
        numeric = kind.kind in "iufb"
        if numeric and column.isna().any():
            kind = np.dtype(float) if kind.kind != "b" else np.dtype(object)
        # Missing text is NaN, as pandas reads it from a file.
        made[name] = values.astype(kind) if numeric else values
    frame = pd.DataFrame(made)
    names = [name for name in rows.columns if str(name) in made]
    frame = frame[[str(name) for name in names]]
    frame.columns = pd.Index(names)
    return frame


def _categories(column: pd.Series, kind: pd.CategoricalDtype) -> pd.Series:
    """A column of the pandas type `category`, in which an unknown one is itself, not null."""
    unknown = pd.Index([v for v in column.unique() if not pd.isna(v) and v not in kind.categories])
    known = kind.categories if unknown.empty else kind.categories.append(unknown)
    return pd.Series(pd.Categorical(column.where(column.notna(), None), categories=known))


def takes_categories(rows: Any) -> bool:
    """Whether a model was trained on a column of the pandas type `category`."""
    return isinstance(rows, pd.DataFrame) and any(
        isinstance(kind, pd.CategoricalDtype) for kind in rows.dtypes
    )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as a client's JSON holds them."""
    return [
        {str(name): _json(value) for name, value in row.items()}
        for row in table.to_dict(orient="records")
    ]


def _json(value: Any) -> Any:
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NaT:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value
