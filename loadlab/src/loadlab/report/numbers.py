"""The handful of figures that every report shows first, as words."""

from loadlab.verdict.figures import Figures

_UNKNOWN = "–"


def key_numbers(found: Figures) -> list[tuple[str, str, str]]:
    """Name, value, and what it is to be read with; of the steady phase."""
    return [
        ("users", f"{found.users:,}", f"{found.steady_s:.0f} s of steady load"),
        (
            "requests a second",
            _value(found.achieved_hz, ",.0f"),
            f"{_value(found.offered_hz, ',.0f')} offered; {found.requests:,} in all",
        ),
        (
            "errors",
            f"{found.errors:,}",
            f"95 % bound {_share(found.error_bound)}; from the ramp on, unanswered ones included",
        ),
        (
            "p50 / p95 / p99",
            _latencies(found.p50_ms, found.p95_ms, found.p99_ms),
            f"p99 at most {_ms(found.p99_bound_ms)} ms (99 %)",
        ),
        ("max", f"{_ms(found.max_ms)} ms", f"p99.9 {_ms(found.p999_ms)} ms"),
        (
            "CPU of the server",
            f"{_value(found.cpu_cores, '.3f')} cores",
            f"{_quota(found)}; {_value(found.cpu_us, '.1f')} µs per right answer",
        ),
        ("throttled", _share(found.throttled), "of the quota's periods"),
        (
            "memory",
            f"{_value(found.memory_peak_mib, ',.0f')} MiB",
            f"at its peak; limit {_value(found.memory_limit_mib, ',.0f')} MiB",
        ),
        (
            "generator",
            _share(found.generator_cpu),
            f"of a core, busiest process; loop lag p99 {_ms(found.loop_lag_p99_ms)} ms",
        ),
        (
            "witness p50 / p95",
            _latencies(found.witness_p50_ms, found.witness_p95_ms),
            f"null server's p99 {_ms(found.floor_p99_ms)} ms",
        ),
    ]


def facts(found: Figures) -> str:
    """Failures by kind, and what was on the way at the end."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in found.failures.items()) or "none"
    left = (
        "not recorded"
        if found.in_flight is None
        else (
            f"{found.in_flight:,} on the way when the load stopped, {found.unfinished:,} never "
            "answered"
        )
    )
    return f"Failures: {kinds}. Requests {left}."


def _quota(found: Figures) -> str:
    """The replicas' quota, and the balancer's part of the CPU time."""
    balancer = (
        ""
        if found.balancer_cores is None
        else f", of which {found.balancer_cores:.3f} are the balancer's, which has none"
    )
    return f"quota {_value(found.quota_cores, 'g')}{balancer}"


def _latencies(*values: float | None) -> str:
    return f"{' / '.join(map(_ms, values))} ms"


def _value(value: float | None, form: str) -> str:
    return _UNKNOWN if value is None else format(value, form)


def _ms(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.3%}" if 0 < value < 0.001 else f"{value:.1%}"
