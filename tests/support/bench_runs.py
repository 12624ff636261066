"""Stored runs of the bench, made up: rounds with chosen costs on a made-up machine."""

import msgspec

from loadlab.experiments.bench.measure import Figures, Load, Round, Run
from loadlab.record.cgroup import Limits, Memory, Usage
from loadlab.record.histogram import spread
from loadlab.record.machine import Fingerprint, Quiet

SATURATED = Load(
    regime="saturated",
    connections=64,
    seconds=10,
    warmup_s=2,
    timeout_s=30,
    limits=Limits(),
    server_cpus="0",
)
SPARSE = Load(
    regime="sparse",
    connections=10_000,
    seconds=30,
    warmup_s=9,
    timeout_s=10,
    limits=Limits(cpus=0.5, memory_bytes=256_000_000),
    server_cpus="",
)


def measured(cpu_us, *, failures=None, doubts=(), p99_ms=2.0):
    """Figures of a round with a thousand requests in ten seconds."""
    usage = Usage(
        cpu_s=cpu_us / 1000,
        periods=100,
        throttled_periods=5,
    )
    response = msgspec.structs.replace(
        spread({1000: 1000}),
        quantiles_ms={"p50": 1.0, "p90": 1.0, "p95": 1.5, "p99": p99_ms, "p99.9": 9.0},
    )
    return Figures(
        requests=1000,
        seconds=10.0,
        failures=failures or {},
        failures_before={},
        usage=usage,
        lag=response,
        response=response,
        memory=Memory(current_bytes=80_000_000, peak_bytes=90_000_000, kinds={}),
        client_cpu=1,
        client_cores=0.5,
        foreign_cores=0.0,
        steal=0.0,
        doubts=list(doubts),
    )


def rounds(server, values, *, model="iris", regime="saturated", **more):
    """One round per value of CPU-µs."""
    return [
        Round(
            server=server,
            model=model,
            regime=regime,
            number=number,
            environment={},
            figures=measured(value, **more),
        )
        for number, value in enumerate(values, 1)
    ]


def a_run(what, all_rounds, **changes):
    """A stored run of a made-up machine."""
    fingerprint = Fingerprint(
        cpu="Made-up CPU",
        cores=2,
        memory_bytes=8 * 10**9,
        kernel="6.1",
        cgroup_version=2,
        python="3.13.0",
        packages={"granian": "2.8.7"},
        baseline_packages={"fastapi": "0.165.0"},
        commit="0123456789abcdef",
        dirty=False,
        nofile=20_000,
        sysctls={},
    )
    quiet = Quiet(busy_cores=0.0, steal=0.0, reasons=[])
    run = Run(
        kind=what,
        started_at="2026-01-02T03:04:05Z",
        minutes=12.5,
        command=f"loadlab {what}",
        seed=1,
        quick=False,
        fingerprint=fingerprint,
        quiet=quiet,
        loads=[SATURATED, SPARSE],
        rows=all_rounds,
    )
    return msgspec.structs.replace(run, **changes)
