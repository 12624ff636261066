"""The servers that are measured, as tables: those of the bench, the variants of the ablation, and
the steps of the ladder. All run one worker process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from loadlab.experiments.bench.stored import REGIMES, Regime
from loadlab.target import programs
from loadlab.target.process import Command, Running
from loadlab.target.programs import Case

Regimes = tuple[Regime, ...]
SATURATED: Regimes = ("saturated",)
SPARSE: Regimes = ("sparse",)
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
    program: Callable[[Place, Case, int, "Subject"], Command]
    """Makes the command for a port."""
    words: tuple[str, ...] = ()
    """For the program: flags, or the baseline's variant."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the lab sets besides port and bundles; stored with the figures."""
    needs: tuple[Need, ...] = ()
    path: str = "/predict"
    prefix: str = ""
    """How a right answer begins, where it is not a prediction."""
    regimes: Regimes = REGIMES
    """Where it is measured without being asked for."""
    left_out: str = "at saturation it answers far fewer requests than this load asks for"
    """Why it is not measured in the sparse regime."""

    def command(self, place: Place, case: Case, port: int) -> Command:
        """Starts it for one model."""
        return self.program(place, case, port, self)


def _null_server(place: Place, case: Case, port: int, subject: Subject) -> Command:
    return programs.null_server(place.root, place.answer_file(case.model), port, *subject.words)


def _halfcore(place: Place, case: Case, port: int, subject: Subject) -> Command:
    return programs.halfcore(place.root, case.bundle.parent.parent, port, subject.environment)


def _logging(place: Place, case: Case, port: int, subject: Subject) -> Command:
    scratch = place.scratch / f"{subject.key}-{port}"
    where = {
        "HALFCORE_PREDICTION_LOG_SPOOL": str(scratch / "spool"),
        "HALFCORE_STATE": str(scratch / "state"),
        "DATABASE_URL": place.log_url,
    }
    subject = replace(subject, environment={**subject.environment, **where})
    return _halfcore(place, case, port, subject)


def _baseline(place: Place, case: Case, port: int, subject: Subject) -> Command:
    uri, url = place.tracking_uri, place.database
    variant = subject.words[0]
    return programs.baseline(place.root, variant, case, port, tracking_uri=uri, database=url)


def _ours(key: str, title: str, regimes: Regimes = REGIMES, **settings: str) -> Subject:
    """`settings` without their HALFCORE_."""
    environment = {f"HALFCORE_{name}": value for name, value in settings.items()}
    environment = {"HALFCORE_WORKERS": "1", **environment}
    return Subject(key, title, _halfcore, environment=environment, regimes=regimes)


def _step(key: str, change: str, *needs: Need) -> Subject:
    """The baseline's variant of that name."""
    needed: tuple[Need, ...] = ("baseline", *needs)
    return Subject(key, change, _baseline, (key,), needs=needed, regimes=SATURATED)


def _by_key(*subjects: Subject) -> dict[str, Subject]:
    return {subject.key: subject for subject in subjects}


OURS = _ours("b", "halfcore, hot lane")
_A3 = "granian RSGI, constant answer, one CPU and SCHED_BATCH"
_B2 = "halfcore, hot lane, with feature catalogue and prediction log"
SUBJECTS = _by_key(
    Subject("a", "granian RSGI, constant answer", _null_server),
    Subject("a2", "granian RSGI, reads the body, constant answer", _null_server, ("--read",)),
    Subject("a3", _A3, _null_server, ("--cpu", "0", "--batch"), regimes=SPARSE),
    OURS,
    replace(
        _ours("b2", _B2, SATURATED, PREDICTION_LOG="true"),
        program=_logging,
        needs=("baseline", "log"),
        left_out="the question is what both cost a request at saturation",
    ),
    _ours("c", "halfcore, plain ASGI", HOT_LANE="false"),
    replace(_step("onnx", "FastAPI, uvicorn[standard], ONNX inline"), key="d", regimes=REGIMES),
    replace(_step("typical", "FastAPI, mlflow.pyfunc, DataFrame"), key="e"),
)

HEAVY = "cover-heavy"
MODELS = ("cover-small", "cover-middle", HEAVY)
"""Of the ablation: tiny, middle and heavy."""


class _Variant(NamedTuple):
    key: str
    regimes: Regimes
    """Where the difference can show: below one core of quota, or at saturation."""
    question: str = ""
    """What the default does and this does not, if that is judged."""
    settings: Mapping[str, str] = {}
    against: str = "default"


_VARIANTS = (
    _Variant("default", REGIMES),
    _Variant(
        "batching off", SATURATED, "Batching by the event loop's turn", {"MAX_BATCH_SIZE": "1"}
    ),
    _Variant("linger 2 ms", REGIMES, "Not waiting for more requests", {"MAX_QUEUE_DELAY_MS": "2"}),
    _Variant("inline", SATURATED, settings={"INLINE_BUDGET_MS": "1000"}),
    _Variant(
        "thread",
        SATURATED,
        "Inference on the event loop where the budget allows",
        {"INLINE_BUDGET_MS": "0"},
        against="inline",
    ),
    _Variant("not pinned", SPARSE, "One CPU per worker below one core", {"PIN_CPU": "off"}),
    _Variant("no SCHED_BATCH", SPARSE, "SCHED_BATCH below one core", {"BATCH_SCHEDULING": "off"}),
    _Variant(
        "neither",
        SPARSE,
        "One CPU and SCHED_BATCH together",
        {"PIN_CPU": "off", "BATCH_SCHEDULING": "off"},
    ),
    _Variant("no gathering", SPARSE, "Gathering while CPU time is short", {"COALESCE": "off"}),
    _Variant("asyncio", REGIMES, "uvloop", {"LOOP": "asyncio"}),
    _Variant("ASGI", REGIMES, "The hot lane over RSGI", {"HOT_LANE": "false"}),
)
"""One setting changed at a time. To try another, add a line."""


@dataclass(frozen=True)
class Question:
    """Two variants that differ in one thing, and the default that the difference justifies or does
    not."""

    setting: str
    chosen: str
    other: str
    regime: Regime


def _titled(variant: _Variant) -> Subject:
    title = " ".join(f"`HALFCORE_{name}={value}`" for name, value in variant.settings.items())
    return _ours(variant.key, title or "as it is", variant.regimes, **variant.settings)


VARIANTS = _by_key(*map(_titled, _VARIANTS))
QUESTIONS = tuple(
    Question(variant.question, variant.against, variant.key, regime)
    for variant in _VARIANTS
    for regime in variant.regimes
    if variant.question
)

_NAIVE = (
    "prints, registry and database on every request, a frame column by column, scikit-learn, plain "
    "uvicorn"
)
_ONE_ROW = {"HOT_LANE": "false", "MAX_BATCH_SIZE": "1"}
LADDER = (
    _step("naive", _NAIVE, "surroundings"),
    _step("silent", "prints nothing", "surroundings"),
    _step("no-registry", "does not ask MLflow", "surroundings"),
    _step("no-database", "does not ask the database"),
    _step("typical", "no work column by column: the frame goes to mlflow.pyfunc as it is"),
    _step("no-pyfunc", "the pipeline itself, without pyfunc"),
    _step("no-frame", "a row of numpy, without pandas"),
    _step("one-job", "n_jobs=1"),
    _step("tuned", "uvicorn[standard], no access log"),
    _step("onnx", "ONNX Runtime for scikit-learn, on the event loop"),
    _ours("litestar", "Litestar on granian (ASGI), one row a run", SATURATED, **_ONE_ROW),
    _ours("batching", "rows of one turn of the loop together", SATURATED, HOT_LANE="false"),
    _ours("halfcore", "the hot lane over RSGI", SATURATED),
)
"""From the service that the course begins with to our server, each against the one before."""
ENDPOINTS = tuple(
    replace(
        _ours(name, f"halfcore, {does}", SATURATED, BENCH_ROUTES="true"),
        path=f"/bench/{name}",
        prefix=prefix,
    )
    for name, does, prefix in (
        ("decode", "decodes the body and predicts nothing", '{"rows":1'),
        ("null", "reads the body and does nothing", "{}"),
    )
)
"""What a request costs without a prediction."""
STEPS = _by_key(*LADDER, *ENDPOINTS)
