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


def _ours(key: str, title: str, settings: str = "", regimes: Regimes = REGIMES) -> Subject:
    """`settings`: as in a shell, without their HALFCORE_."""
    environment = dict(f"HALFCORE_{each}".split("=") for each in ["WORKERS=1", *settings.split()])
    return Subject(key, title, _halfcore, environment=environment, regimes=regimes)


def _step(key: str, change: str, *needs: Need) -> Subject:
    """The baseline's variant of that name."""
    needed: tuple[Need, ...] = ("baseline", *needs)
    return Subject(key, change, _baseline, (key,), needs=needed, regimes=SATURATED)


def _endpoint(name: str, title: str, prefix: str) -> Subject:
    server = _ours(name, title, "BENCH_ROUTES=true", SATURATED)
    return replace(server, path=f"/bench/{name}", prefix=prefix)


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
        _ours("b2", _B2, "PREDICTION_LOG=true", SATURATED),
        program=_logging,
        needs=("baseline", "log"),
        left_out="the question is what both cost a request at saturation",
    ),
    _ours("c", "halfcore, plain ASGI", "HOT_LANE=false"),
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
    settings: str = ""
    question: str = ""
    """What the default does and this does not, if that is judged."""
    against: str = "default"

    def subject(self) -> Subject:
        """Says its settings."""
        title = " ".join(f"`HALFCORE_{setting}`" for setting in self.settings.split())
        return _ours(self.key, title or "as it is", self.settings, self.regimes)


_NEITHER = "PIN_CPU=off BATCH_SCHEDULING=off"
_INLINE = "Inference on the event loop where the budget allows"
_VARIANTS = (
    _Variant("default", REGIMES),
    _Variant("batching off", SATURATED, "MAX_BATCH_SIZE=1", "Batching by the event loop's turn"),
    _Variant("linger 2 ms", REGIMES, "MAX_QUEUE_DELAY_MS=2", "Not waiting for more requests"),
    _Variant("inline", SATURATED, "INLINE_BUDGET_MS=1000"),
    _Variant("thread", SATURATED, "INLINE_BUDGET_MS=0", _INLINE, against="inline"),
    _Variant("not pinned", SPARSE, "PIN_CPU=off", "One CPU per worker below one core"),
    _Variant("no SCHED_BATCH", SPARSE, "BATCH_SCHEDULING=off", "SCHED_BATCH below one core"),
    _Variant("neither", SPARSE, _NEITHER, "One CPU and SCHED_BATCH together"),
    _Variant("no gathering", SPARSE, "COALESCE=off", "Gathering while CPU time is short"),
    _Variant("asyncio", REGIMES, "LOOP=asyncio", "uvloop"),
    _Variant("ASGI", REGIMES, "HOT_LANE=false", "The hot lane over RSGI"),
)
"""One setting changed at a time. To try another, add a line."""


class Question(NamedTuple):
    """Two variants that differ in one thing, and the default that the difference justifies or does
    not."""

    setting: str
    chosen: str
    other: str
    regime: Regime


VARIANTS = _by_key(*(variant.subject() for variant in _VARIANTS))
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
_ONE_ROW = "HOT_LANE=false MAX_BATCH_SIZE=1"
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
    _ours("litestar", "Litestar on granian (ASGI), one row a run", _ONE_ROW, SATURATED),
    _ours("batching", "rows of one turn of the loop together", "HOT_LANE=false", SATURATED),
    _ours("halfcore", "the hot lane over RSGI", regimes=SATURATED),
)
"""From the service that the course begins with to our server, each against the one before."""
ENDPOINTS = (
    _endpoint("decode", "halfcore, decodes the body and predicts nothing", '{"rows":1'),
    _endpoint("null", "halfcore, reads the body and does nothing", "{}"),
)
"""What a request costs without a prediction."""
STEPS = _by_key(*LADDER, *ENDPOINTS)
