"""What a run is judged by: thresholds and objective. They are in `criteria.toml`, and are stored
with the run before it begins."""

import tomllib
from functools import cache
from pathlib import Path

import msgspec


class Objective(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server shall do (SLO). None: not asked for. Latencies are response times of right
    answers, milliseconds."""

    errors: float = 0.0
    """Share of requests in ramp and steady that may fail, unanswered ones included."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    slow_windows: float | None = None
    """Share of the steady phase's windows (of enough seconds for a p99) whose own p99 may be above
    `p99_ms`."""
    ramp_p99_ms: float | None = None
    overload_goodput: float | None = None
    """Right answers a second under overload, as a share of those in steady."""
    overload_rejection_p99_ms: float | None = None
    """How fast a refusal must be."""
    recovery_s: float | None = None
    """From the end of the overload until p95 is below `p95_ms` and nothing fails."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The validity rules' numbers; the names say to which rule they belong."""

    v1_ramp_behind_s: float
    v2_cpu_mean: float
    v2_cpu_second: float
    v3_lag_p99_ms: float
    v3_lag_share: float | None = None
    """None in records of older runs: a PASS needed the other limit of the lag."""
    v3_lag_max_ms: float
    v3_ramp_lag_p99_ms: float
    v4_rate: float
    v4_lag_p99_ms: float
    v4_lag_share: float | None = None
    """As `v3_lag_share`."""
    v5_steal: float
    v6_foreign_cores: float
    v7_established: float
    v7_opens: float
    v8_retransmits: float
    v9_free_ports: float
    v9_free_files: float
    v9_conntrack: float
    v12_samples: int
    v13_window_s: int
    v13_agreement: float
    v13_tolerance_ms: float
    v13_trend: float
    v14_deep: float
    v15_cheaper: float
    v16_p50: float
    v16_p50_tolerance_ms: float
    v16_p95: float
    v16_p95_tolerance_ms: float
    v17_ratio: float


class Criteria(msgspec.Struct, frozen=True, kw_only=True):
    """Both, as they were before the run."""

    rules: Thresholds
    objective: Objective


@cache
def criteria(scenario: str = "") -> Criteria:
    """The criteria of a scenario: `[objective]`, and over it `[objective.SCENARIO]` if there is
    one."""
    content = tomllib.loads(Path(__file__).with_name("criteria.toml").read_text())
    lines = content["objective"]
    special = {name: lines.pop(name) for name in list(lines) if isinstance(lines[name], dict)}
    content["objective"] |= special.get(scenario, {})
    return msgspec.convert(content, Criteria)
