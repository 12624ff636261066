"""One model of the matrix."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Train = Callable[[], "Trained"]


@dataclass(frozen=True)
class Trained:
    """A fitted model, ready to be logged.

    Attributes:
        model: what is logged.
        rows: the rows that it was trained on: a DataFrame or a matrix.
        log: logs it with MLflow, given the model's name, model and rows; None: as a scikit-learn
            model.
        options: of `mlflow.sklearn.log_model`, instead of the usual ones.
    """

    model: Any
    rows: Any
    log: Callable[..., None] | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A kind of model that people register.

    Attributes:
        name: of the registered model, too.
        kind: the row of the table in docs/export.md.
        train: fits it.
    """

    name: str
    kind: str
    train: Train


class Group:
    """Collects the cases of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.cases: list[Case] = []

    def add(self, name: str, train: Train) -> None:
        """Add a case."""
        self.cases.append(Case(name, self.kind, train))

    def case(self, train: Train) -> Train:
        """Add the case that a function trains, under the function's name."""
        self.add(train.__name__.strip("_").replace("_", "-"), train)
        return train
