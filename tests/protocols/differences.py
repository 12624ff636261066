"""Where Halfcore answers MLflow's protocol otherwise than MLflow, on purpose."""

from typing import NamedTuple


class Difference(NamedTuple):
    """One kind of requests."""

    requests: str
    """A pattern of the model and the request's name."""
    what: str
    why: str


DIFFERENCES: dict[str, Difference] = {
    "positions": Difference(
        "(penguins-svm|cover-small), (instances: (lists|one list|params|a value|a text|another key)"
        "|inputs: (lists|all rows)|split: no columns)",
        "rows without names for a model with named columns",
        "accepted if they have as many values as the model has columns; MLflow looks for the names "
        "0, 1, … and refuses them",
    ),
    "unequal records": Difference(
        "cover-small, instances: unequal records",
        "records in `instances` that have unequal keys",
        "the error code is always `INVALID_PARAMETER_VALUE`; MLflow's depends on the types of the "
        "columns",
    ),
}
