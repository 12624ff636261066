"""The servers that are measured, as tables: those of the bench, the variants of the ablation, and
the steps of the ladder. All run one worker process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from loadlab.experiments.bench.stored import REGIMES, Regime
from loadlab.target import programs
from loadlab.target.process import Command, Running
from loadlab.target.programs import Case

SATURATED: tuple[Regime, ...] = ("saturated",)
SPARSE: tuple[Regime, ...] = ("sparse",)
Need = Literal["baseline", "surroundings", "log"]
"""The baseline's environment; an MLflow server and a PostgreSQL, asked on every request; a
PostgreSQL that takes the prediction log and holds the feature catalogue."""


@dataclass(frozen=True)
class Place:
    """Where things are on this machine."""

    root: Path
    """The checkout."""
    tracking_uri: str
    scratch: Path
    """A temporary directory of this run."""
    database: str = ""
    """URL of the PostgreSQL that some baselines ask on every request."""
    log: Running | None = None
    """The PostgreSQL that takes the prediction log, alone in its control group."""

    def answer_file(self, model: str) -> Path:
        """Holds the body that halfcore answered, for the null server to repeat."""
        return self.scratch / f"{model}.answer"

    @property
    def log_url(self) -> str:
        """As halfcore takes it; empty without a log."""
        return f"postgresql://rival@127.0.0.1:{self.log.port}/postgres" if self.log else ""


@dataclass(frozen=True)
class Subject:
    """One server of a comparison."""

    key: str
    title: str
    """In the ladder: what is changed against the step before."""
    start: Callable[[Place, Case, int], Command]
    """Makes the command for a port."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the lab sets besides port and bundles; stored with the figures."""
    needs: tuple[Need, ...] = ()
    path: str = "/predict"
    prefix: str = ""
    """How a right answer begins, where it is not a prediction."""
    regimes: tuple[Regime, ...] = REGIMES
    """Where it is measured without being asked for."""
    left_out: str = "at saturation it answers far fewer requests than this load asks for"
    """Why it is not measured in the sparse regime."""


def _null_server(
    key: str, title: str, *flags: str, regimes: tuple[Regime, ...] = REGIMES
) -> Subject:
    def start(place: Place, case: Case, port: int) -> Command:
        return programs.null_server(place.root, place.answer_file(case.model), port, *flags)

    return Subject(key, title, start, regimes=regimes)


def _halfcore(
    key: str, title: str, *, regimes: tuple[Regime, ...] = REGIMES, **settings: str
) -> Subject:
    """Our server; `settings` without their HALFCORE_."""
    environment = {f"HALFCORE_{name}": value for name, value in settings.items()}
    environment = {"HALFCORE_WORKERS": "1", **environment}

    def start(place: Place, case: Case, port: int) -> Command:
        return programs.halfcore(place.root, case.bundle.parent.parent, port, environment)

    return Subject(key, title, start, environment, regimes=regimes)


def _logging(key: str, title: str) -> Subject:
    """Our server with feature catalogue and prediction log."""
    plain = _halfcore(key, title, regimes=SATURATED, PREDICTION_LOG="true")

    def start(place: Place, case: Case, port: int) -> Command:
        command, scratch = plain.start(place, case, port), place.scratch / f"{key}-{port}"
        where = {
            "HALFCORE_PREDICTION_LOG_SPOOL": str(scratch / "spool"),
            "HALFCORE_STATE": str(scratch / "state"),
            "DATABASE_URL": place.log_url,
        }
        return replace(command, environment={**command.environment, **where})

    reason = "the question is what both cost a request at saturation"
    return replace(plain, start=start, needs=("baseline", "log"), left_out=reason)


def _baseline(
    key: str,
    title: str,
    variant: str = "",
    *,
    regimes: tuple[Regime, ...] = SATURATED,
    needs: tuple[Need, ...] = ("baseline",),
) -> Subject:
    """A variant of the baseline, by default the one of the key's name."""

    def start(place: Place, case: Case, port: int) -> Command:
        return programs.baseline(
            place.root,
            variant or key,
            case,
            port,
            tracking_uri=place.tracking_uri,
            database=place.database,
        )

    return Subject(key, title, start, needs=needs, regimes=regimes)


def _asking(key: str, title: str) -> Subject:
    return _baseline(key, title, needs=("baseline", "surroundings"))


def _endpoint(name: str, title: str, prefix: str) -> Subject:
    server = _halfcore(name, title, regimes=SATURATED, BENCH_ROUTES="true")
    return replace(server, path=f"/bench/{name}", prefix=prefix)


def _variant(key: str, regimes: tuple[Regime, ...], **settings: str) -> Subject:
    """`regimes`: where the difference can show: below one core of quota, or at saturation."""
    title = " ".join(f"`HALFCORE_{name}={value}`" for name, value in settings.items())
    return _halfcore(key, title or "as it is", regimes=regimes, **settings)


def _by_key(*subjects: Subject) -> dict[str, Subject]:
    return {subject.key: subject for subject in subjects}


OURS = _halfcore("b", "halfcore, hot lane")
SUBJECTS = _by_key(
    _null_server("a", "granian RSGI, constant answer"),
    _null_server("a2", "granian RSGI, reads the body, constant answer", "--read"),
    _null_server(
        "a3",
        "granian RSGI, constant answer, one CPU and SCHED_BATCH",
        *("--cpu", "0", "--batch"),
        regimes=SPARSE,
    ),
    OURS,
    _logging("b2", "halfcore, hot lane, with feature catalogue and prediction log"),
    _halfcore("c", "halfcore, plain ASGI", HOT_LANE="false"),
    _baseline("d", "FastAPI, uvicorn[standard], ONNX inline", "onnx", regimes=REGIMES),
    _baseline("e", "FastAPI, mlflow.pyfunc, DataFrame", "typical"),
)

HEAVY = "cover-heavy"
MODELS = ("cover-small", "cover-middle", HEAVY)
"""Of the ablation: tiny, middle and heavy."""
VARIANTS = _by_key(
    _variant("default", REGIMES),
    _variant("batching off", SATURATED, MAX_BATCH_SIZE="1"),
    _variant("linger 2 ms", REGIMES, MAX_QUEUE_DELAY_MS="2"),
    _variant("inline", SATURATED, INLINE_BUDGET_MS="1000"),
    _variant("thread", SATURATED, INLINE_BUDGET_MS="0"),
    _variant("not pinned", SPARSE, PIN_CPU="off"),
    _variant("no SCHED_BATCH", SPARSE, BATCH_SCHEDULING="off"),
    _variant("neither", SPARSE, PIN_CPU="off", BATCH_SCHEDULING="off"),
    _variant("no gathering", SPARSE, COALESCE="off"),
    _variant("asyncio", REGIMES, LOOP="asyncio"),
    _variant("ASGI", REGIMES, HOT_LANE="false"),
)
"""One setting changed at a time. To try another, add a line here and, if it shall be judged, one to
QUESTIONS."""


@dataclass(frozen=True)
class Question:
    """Two variants that differ in one thing, and the default that the difference justifies or does
    not."""

    setting: str
    chosen: str
    other: str
    regime: Regime


QUESTIONS = (
    Question("Batching by the event loop's turn", "default", "batching off", "saturated"),
    Question("Not waiting for more requests", "default", "linger 2 ms", "saturated"),
    Question("Not waiting for more requests", "default", "linger 2 ms", "sparse"),
    Question(
        "Inference on the event loop where the budget allows", "inline", "thread", "saturated"
    ),
    Question("One CPU per worker below one core", "default", "not pinned", "sparse"),
    Question("SCHED_BATCH below one core", "default", "no SCHED_BATCH", "sparse"),
    Question("One CPU and SCHED_BATCH together", "default", "neither", "sparse"),
    Question("Gathering while CPU time is short", "default", "no gathering", "sparse"),
    Question("uvloop", "default", "asyncio", "saturated"),
    Question("uvloop", "default", "asyncio", "sparse"),
    Question("The hot lane over RSGI", "default", "ASGI", "saturated"),
    Question("The hot lane over RSGI", "default", "ASGI", "sparse"),
)

LADDER = (
    _asking(
        "naive",
        "prints, registry and database on every request, a frame column by column, scikit-learn, "
        "plain uvicorn",
    ),
    _asking("silent", "prints nothing"),
    _asking("no-registry", "does not ask MLflow"),
    _baseline("no-database", "does not ask the database"),
    _baseline("typical", "no work column by column: the frame goes to mlflow.pyfunc as it is"),
    _baseline("no-pyfunc", "the pipeline itself, without pyfunc"),
    _baseline("no-frame", "a row of numpy, without pandas"),
    _baseline("one-job", "n_jobs=1"),
    _baseline("tuned", "uvicorn[standard], no access log"),
    _baseline("onnx", "ONNX Runtime for scikit-learn, on the event loop"),
    _halfcore(
        "litestar",
        "Litestar on granian (ASGI), one row a run",
        regimes=SATURATED,
        HOT_LANE="false",
        MAX_BATCH_SIZE="1",
    ),
    _halfcore(
        "batching", "rows of one turn of the loop together", regimes=SATURATED, HOT_LANE="false"
    ),
    _halfcore("halfcore", "the hot lane over RSGI", regimes=SATURATED),
)
"""From the service that the course begins with to our server, each against the one before."""
ENDPOINTS = (
    _endpoint("decode", "halfcore, decodes the body and predicts nothing", '{"rows":1'),
    _endpoint("null", "halfcore, reads the body and does nothing", "{}"),
)
"""What a request costs without a prediction."""
STEPS = _by_key(*LADDER, *ENDPOINTS)
