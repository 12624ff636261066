"""Questions to other servers on every request: which version has the alias, and which columns has
the table."""

from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from sqlalchemy import MetaData, Table, create_engine

ALIAS = "champion"
TABLE = "forest_columns"
"""The surroundings' table; its content does not matter, because the answer is not read."""

Chore = Callable[[dict[str, Any]], None]


def registry(model: str, tracking_uri: str) -> Chore:
    """A client is made and the alias looked up; the model that is in memory serves on, whatever the
    answer."""

    def ask(_: dict[str, Any]) -> None:
        MlflowClient(tracking_uri).get_model_version_by_alias(model, ALIAS)

    return ask


def table(database: str) -> Chore:
    """The table's columns are reflected, on a connection of SQLAlchemy's pool (5, and 10 more under
    pressure: its defaults)."""
    engine = create_engine(database)

    def ask(_: dict[str, Any]) -> None:
        Table(TABLE, MetaData(), autoload_with=engine)

    return ask
