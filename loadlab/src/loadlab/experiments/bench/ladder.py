"""The ladder: from the service that the course begins with to our server, one change at a time, and
two endpoints that predict nothing."""

from dataclasses import dataclass

from loadlab.experiments.bench.subjects import Subject, baseline, halfcore

_PLAIN = {"HALFCORE_HOT_LANE": "false"}
_ENDPOINTS = {"HALFCORE_BENCH_ROUTES": "true"}


@dataclass(frozen=True)
class Step:
    """One rung: what is changed against the one before."""

    key: str
    change: str
    subject: Subject


def _rival(key: str, change: str, *, asks: bool = False) -> Step:
    return Step(key, change, baseline(key, change, key, needs_surroundings=asks))


def _ours(key: str, change: str, **settings: str) -> Step:
    return Step(
        key,
        change,
        halfcore(key, change, {f"HALFCORE_{name}": value for name, value in settings.items()}),
    )


LADDER = (
    _rival(
        "naive",
        "prints, registry and database on every request, a frame column by column, scikit-learn, "
        "plain uvicorn",
        asks=True,
    ),
    _rival("silent", "prints nothing", asks=True),
    _rival("no-registry", "does not ask MLflow", asks=True),
    _rival("no-database", "does not ask the database"),
    _rival("typical", "no work column by column: the frame goes to mlflow.pyfunc as it is"),
    _rival("no-pyfunc", "the pipeline itself, without pyfunc"),
    _rival("no-frame", "a row of numpy, without pandas"),
    _rival("one-job", "n_jobs=1"),
    _rival("tuned", "uvicorn[standard], no access log"),
    _rival("onnx", "ONNX Runtime for scikit-learn, on the event loop"),
    _ours(
        "litestar",
        "Litestar on granian (ASGI), one row a run",
        HOT_LANE="false",
        MAX_BATCH_SIZE="1",
    ),
    _ours("batching", "rows of one turn of the loop together", HOT_LANE="false"),
    _ours("halfcore", "the hot lane over RSGI"),
)
"""Each against the one before."""

ENDPOINTS = (
    Step(
        "decode",
        "halfcore, decodes the body and predicts nothing",
        halfcore("decode", "", _ENDPOINTS, path="/bench/decode", prefix='{"rows":1'),
    ),
    Step(
        "null",
        "halfcore, reads the body and does nothing",
        halfcore("null", "", _ENDPOINTS, path="/bench/null", prefix="{}"),
    ),
)
"""What a request costs without a prediction."""

STEPS = {step.key: step.subject for step in (*LADDER, *ENDPOINTS)}
