"""Where Halfcore answers MLflow's and MLServer's protocols otherwise than they do, on purpose."""

from typing import NamedTuple


class Difference(NamedTuple):
    """One kind of requests."""

    requests: str
    """A pattern of the model and the request's name; for MLServer also of both statuses, such as
    `400 for 422`."""
    what: str
    why: str
    at: str = ".*"
    """A pattern of the places in the answer that differ, such as `.status` or `.document.id`; only
    of MLServer's."""


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
"""From MLflow's server."""

MLSERVER_DIFFERENCES: dict[str, Difference] = {
    "health": Difference(
        ", (live|ready|model ready|version ready), 200 for 200$",
        "`/v2/health/live`, `/v2/health/ready`, `/v2/models/NAME/ready`",
        "a small JSON document, which KServe's clients read; MLServer's answers are empty",
        r"\.(empty|type|document)",
    ),
    "server": Difference(
        ", server, 200 for 200$",
        "`GET /v2`",
        "names this server, and its extensions: binary tensors, which MLServer does not read over "
        "HTTP, and `classification`",
        r"\.document\.(name|version|extensions)",
    ),
    "metadata": Difference(
        ", model( of a version)?, 200 for 200$",
        "`GET /v2/models/NAME`",
        "holds the version and the tensors of the bundle; MLServer's is empty unless its "
        "`model-settings.json` holds them",
        r"\.document\.(versions|platform|inputs|outputs|parameters)",
    ),
    "parameters": Difference(
        ", infer: .*, 200 for 200$",
        "the `parameters` of an answer",
        "left out, because they hold nothing; MLServer sends `{}`",
        r"\.document\.parameters",
    ),
    "id": Difference(
        ", infer: (no id|an empty id|a null id), 200 for 200$",
        "requests without an `id`",
        "get none, as the protocol says; MLServer makes one",
        r"\.document\.id",
    ),
    "outputs": Difference(
        ", infer: (no|empty) outputs, 200 for 200$",
        "requests that name no `outputs`",
        "get all outputs, by the model's own names; MLServer's scikit-learn runtime gives "
        "`predict` alone",
        r"\.document\.outputs",
    ),
    "not in the protocol": Difference(
        ", infer: .*, 400 for 422$",
        "bodies that are not in the protocol",
        "400 with `error`, as the protocol says; MLServer answers 422 with `detail`",
        r"\.(status|document\.(error|detail))",
    ),
    "the model cannot take": Difference(
        ", infer: .*, 400 for 500$",
        "values and shapes that the model cannot take",
        "400, because the request is wrong; MLServer answers 500",
        r"\.status",
    ),
    "refused": Difference(
        ", infer: (BOOL|BYTES|a shape of (-1|texts)|a value that is (null|true)"
        "|another column|a longer column|a column twice|number is (a number's text|true)"
        "|text is (another|empty|a number|FP64)), 400 for 200$",
        "values that their column does not take, unknown categories, other, repeated or unequal "
        "columns",
        "refused with 400, as by `/predict`; MLServer predicts from what NumPy and pandas make of "
        "them",
    ),
    "accepted": Difference(
        ", infer: (content type (application/octet-stream|text/plain), 200 for 422"
        "|no content type, 200 for 400|(one tensor|number is a list), 200 for 500)$",
        "JSON of another content type, columns without `content_type`, and mixed or nested `data`",
        "accepted; MLServer refuses them",
    ),
}
"""From MLServer with its scikit-learn runtime."""
