"""V5–V9 and V11: did the machine, the kernel and the network leave the measurement alone, and was
the server in its limits?"""

import math
import statistics
from collections.abc import Sequence

from loadlab.record.cgroup import Limits
from loadlab.record.schema import LOAD, PhaseName, Role, Sample, Thresholds
from loadlab.record.store import Log
from loadlab.verdict.check import Check
from loadlab.verdict.figures import (
    UNDER_LOAD,
    cpu_s,
    done,
    failed,
    failures,
    grown,
    judged_phases,
    known,
    of_host,
    of_net,
    rate,
)

_PAGE_BYTES = 1 << 16
"""The largest page of a common kernel: memory limits are rounded down to whole ones."""
_REOPENS = ("reset", "timeout")
"""Failures after which the witness opens another connection."""


def host(log: Log, rules: Thresholds) -> list[Check]:
    """V5: the hypervisor's share, a core for the generator alone, and cores enough."""
    samples = log.sampled(*judged_phases(log))
    stolen = grown(samples, of_host(lambda host: host.steal_s))
    total = grown(samples, of_host(lambda host: host.total_s))
    steal = stolen / total if stolen is not None and total else None
    servers, generators = _cpus(log, "server"), _cpus(log, "generator")
    shared = len(servers & generators) if servers and generators else None
    pressure = len(known(samples, of_host(lambda host: host.pressure_s)))
    cores, needed = log.run.fingerprint.cores, log.run.tier.cores_needed
    return [
        Check("steal", steal, rules.v5_steal, "share", pass_needs=False),
        Check("CPUs shared by server and generator", shared, 0, of_server=True),
        Check("cores of the machine", cores, needed, at_least=True),
        Check("samples of CPU pressure", pressure, 1, at_least=True, pass_needs=False),
    ]


def _cpus(log: Log, role: Role) -> set[int]:
    return {cpu for each in log.run.processes if each.role == role for cpu in each.cpus}


def quiet(log: Log, rules: Thresholds) -> list[Check]:
    """V6: CPU time of everything that is not of this run; the server's own is not others'."""
    samples = log.sampled(*judged_phases(log))
    busy, server = rate(samples, of_host(lambda host: host.busy_s)), rate(samples, cpu_s)
    ours = _used_by_lab(log, samples)
    foreign = None
    if busy is not None and server is not None and ours is not None:
        foreign = max(busy - server - ours, 0.0)
    limit = rules.v6_foreign_cores
    return [Check("used by others", foreign, limit, "cores", pass_needs=False, of_server=True)]


def _used_by_lab(log: Log, samples: Sequence[Sample]) -> float | None:
    """Cores that the run's other processes used; one that ended before the last sample, as a
    generator may, has used what it had."""
    servers = {process.name for process in log.run.processes if process.role == "server"}
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for sample in samples:
        for name, process in sample.processes.items():
            if name not in servers:
                first.setdefault(name, process.cpu_s)
                last[name] = process.cpu_s
    if not any(last.values()) or len(samples) < 2:
        return None
    return (math.fsum(last.values()) - math.fsum(first.values())) / (samples[-1].t - samples[0].t)


def connections(log: Log, rules: Thresholds) -> list[Check]:
    """V7: a connection for every user, and kept. What failures explain (a server that resets) is
    allowed: it is the server's.

    Users count what they open. Those of Locust's HttpUser do not: of them the kernel's count for
    the whole machine is taken, which holds the witness's and other programs' too; a small share is
    forgiven to these. The lab's own connections are left out of those that are established.
    """
    phases, asked = judged_phases(log), log.run.scenario.users
    samples, lines = log.sampled(*phases), log.of("users", *phases)
    finished, wrong = done(lines), failed(lines)
    counts = [count for _, count in known(samples, of_net(lambda net: net.established))]
    # In the ramp the number of users changes, and there is nothing to compare.
    whole = phases == ("steady",)
    away = abs(statistics.median(counts) / asked - 1) if counts and whole else None
    allowed = rules.v7_established + (wrong / finished if finished else 0.0)
    opens, unexplained = _opens(log, phases), None
    if opens is not None and finished:
        unexplained = max(opens - wrong, 0) / finished
    what = "opens per request that no failure explains"
    return [
        Check("connections away from users", away, allowed, "share", fail_needs=whole),
        Check(what, unexplained, rules.v7_opens, "share", fail_needs=whole),
    ]


def _opens(log: Log, phases: Sequence[PhaseName]) -> float | None:
    """Connections that users opened; None if nobody counted them."""
    # A user class that counts has counted the first connection of each user.
    if sum(line.opens for line in log.of("users", *LOAD)) >= log.run.scenario.users:
        return sum(line.opens for line in log.of("users", *phases))
    opens = grown(log.sampled(*phases), of_net(lambda net: net.active_opens))
    probes = failures(log.of("witness", *phases))
    reopened = sum(probes.get(kind, 0) for kind in _REOPENS)
    return None if opens is None else opens - reopened


def queues(log: Log, rules: Thresholds) -> list[Check]:
    """V8: the accept queue's losses since the ramp's begin, and retransmits. An overloaded server
    loses too: no FAIL needs this."""
    whole, samples = log.sampled(*UNDER_LOAD), log.sampled(*judged_phases(log))
    overflows = grown(whole, of_net(lambda net: net.listen_overflows))
    drops = grown(whole, of_net(lambda net: net.listen_drops))
    again = grown(samples, of_net(lambda net: net.retransmits))
    sent = grown(samples, of_net(lambda net: net.segments_out))
    share, limit = again / sent if again is not None and sent else None, rules.v8_retransmits
    return [
        Check("accept queue overflows", overflows, 0, fail_needs=False, of_server=True),
        Check("connections dropped", drops, 0, fail_needs=False, of_server=True),
        Check("retransmitted", share, limit, "share", pass_needs=False, fail_needs=False),
    ]


def resources(log: Log, rules: Thresholds) -> list[Check]:
    """V9: free ports, files and connection tracking at their worst moment, and no swapping."""
    samples = log.sampled(*UNDER_LOAD)
    used = [used for _, used in known(samples, of_net(lambda net: net.ports_used))]
    ports = 1 - max(used) / log.run.ports if used and log.run.ports else None
    files, tracked = _free_files(log, samples), _tracked(samples)
    swapped = grown(samples, of_host(lambda host: host.swapped_pages))
    return [
        Check("free ports", ports, rules.v9_free_ports, "share", at_least=True),
        Check(
            "free files of the fullest process", files, rules.v9_free_files, "share", at_least=True
        ),
        Check("connection tracking full", tracked, rules.v9_conntrack, "share"),
        Check("pages swapped", swapped, 0, pass_needs=False),
    ]


def _free_files(log: Log, samples: Sequence[Sample]) -> float | None:
    limits = {
        process.name: process.nofile
        for process in log.run.processes
        if process.role in ("server", "generator") and process.nofile
    }
    used = [
        each.files / limits[name]
        for sample in samples
        for name, each in sample.processes.items()
        if name in limits
    ]
    return 1 - max(used) if used else None


def _tracked(samples: Sequence[Sample]) -> float | None:
    """Share of the table in use; 0 where there is no table."""
    hosts = [each.host for each in samples if each.host and each.host.conntrack_max is not None]
    shares = [
        (host.conntrack or 0) / host.conntrack_max if host.conntrack_max else 0.0 for host in hosts
    ]
    return max(shares, default=None)


def limits(log: Log, _: Thresholds) -> list[Check]:
    """V11: quota and memory as the control groups say them, every process inside, as many replicas
    as asked for."""
    replicas, tier = log.run.replicas, log.run.tier
    if not replicas:
        return [Check("replicas read back", None, tier.replicas, at_least=True, of_server=True)]
    others = sum(1 for each in replicas if not _in_force(tier.limits, each.limits))
    outside = sum(each.processes_outside for each in replicas)
    empty = sum(1 for each in replicas if not each.processes_inside)
    return [
        Check("replicas away from the tier", abs(len(replicas) - tier.replicas), 0),
        Check("replicas with other limits", others, 0),
        Check("server processes outside", outside, 0),
        Check("replicas without a process", empty, 0),
        *_at_end(log),
    ]


def _at_end(log: Log) -> list[Check]:
    """Of the replicas that could be read back after the load; older runs recorded none."""
    found = [(each.limits_at_end, each.cpu_used_s) for each in log.run.replicas]
    ends = [limits for limits, _ in found if limits is not None]
    used = [cpu_s for _, cpu_s in found if cpu_s is not None]
    counts = {
        "replicas with other limits at the end": [
            not _in_force(log.run.tier.limits, each) for each in ends
        ],
        "replicas that used no CPU": [cpu_s <= 0 for cpu_s in used],
    }
    return [Check(what, sum(each), 0) for what, each in counts.items() if each]


def _in_force(asked: Limits, found: Limits) -> bool:
    """The kernel keeps a quota in whole microseconds, and memory in whole pages."""
    missing = (asked.memory_bytes or 0) - (found.memory_bytes or 0)
    quotas = [(each.quota_us, each.period_us, each.burst_us) for each in (asked, found)]
    return quotas[0] == quotas[1] and 0 <= missing < _PAGE_BYTES
