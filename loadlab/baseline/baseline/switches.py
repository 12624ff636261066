"""What a service does, switch by switch; the named variants; the steps that lead from one to the
next, one switch at a time."""

from dataclasses import dataclass, replace
from typing import Literal

Predictor = Literal["columns", "pyfunc", "pipeline", "numpy", "onnx"]


@dataclass(frozen=True)
class Switches:
    """One service."""

    prints: bool = False
    """About 18 print calls per request, four of them of a DataFrame."""
    asks_registry: bool = False
    """A new MlflowClient per request, which asks the MLflow server for the alias's version."""
    reflects_table: bool = False
    """A table's columns are reflected from the database on every request; no code uses the
    result."""
    predictor: Predictor = "pyfunc"
    one_job: bool = False
    """The forest's n_jobs is 1, whatever it was trained with: one row gives threads nothing to
    share."""
    standard: bool = False
    """uvicorn[standard] (httptools, uvloop), no access log, a worker per core; else as `pip install
    uvicorn` gives it: h11, asyncio, a log line per request, one worker."""
    async_handler: bool = False
    """The handler runs on the event loop; else FastAPI hands it to one of 40 threads."""

    @property
    def needs_surroundings(self) -> bool:
        """It asks other servers on every request."""
        return self.asks_registry or self.reflects_table


NAIVE = Switches(prints=True, asks_registry=True, reflects_table=True, predictor="columns")
SILENT = replace(NAIVE, prints=False)
ALONE = replace(SILENT, asks_registry=False)
COLUMNS = replace(ALONE, reflects_table=False)
TYPICAL = replace(COLUMNS, predictor="pyfunc")
PIPELINE = replace(TYPICAL, predictor="pipeline")
NUMPY = replace(PIPELINE, predictor="numpy")
ONE_JOB = replace(NUMPY, one_job=True)
TUNED = replace(ONE_JOB, standard=True)
ONNX = replace(TUNED, predictor="onnx", async_handler=True)

VARIANTS = {
    "naive": NAIVE,
    "silent": SILENT,
    "no-registry": ALONE,
    "no-database": COLUMNS,
    "typical": TYPICAL,
    "no-pyfunc": PIPELINE,
    "no-frame": NUMPY,
    "one-job": ONE_JOB,
    "tuned": TUNED,
    "onnx": ONNX,
}
"""`naive`, `typical`, `tuned` and `onnx` are compared with; the others are the steps between
them."""
