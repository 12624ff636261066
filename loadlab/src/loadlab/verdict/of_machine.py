"""V5–V9: did the machine, the kernel and the network leave the measurement alone?"""

import math
from collections.abc import Callable, Sequence

from loadlab.record.read import Log
from loadlab.record.schema import HostSample, NetSample, Sample
from loadlab.verdict.check import Check
from loadlab.verdict.criteria import Thresholds
from loadlab.verdict.figures import cpu_s, done, failed, grown, median_of, rate
from loadlab.verdict.of_generator import under_load


def host(log: Log, rules: Thresholds) -> list[Check]:
    """V5: the hypervisor's share, a core for the generator alone, and cores enough."""
    samples = log.sampled(*under_load(log))
    steal, total = (
        grown(samples, of_host(lambda host: host.steal_s)),
        grown(samples, of_host(lambda host: host.total_s)),
    )
    servers = [set(process.cpus) for process in log.run.processes if process.role == "server"]
    generators = [set(process.cpus) for process in log.run.processes if process.role == "generator"]
    shared = (
        len(set().union(*servers) & set().union(*generators)) if servers and generators else None
    )
    return [
        Check(
            what="steal",
            measured=steal / total if steal is not None and total else None,
            limit=rules.v5_steal,
            unit="share",
            pass_needs=False,  # time that is stolen is the server's loss
        ),
        Check(what="CPUs shared by server and generator", measured=shared, limit=0, of_server=True),
        Check(
            what="cores of the machine",
            measured=log.run.fingerprint.cores,
            limit=log.run.tier.cores_needed,
            at_least=True,
        ),
        Check(
            what="samples of CPU pressure",
            measured=sum(1 for each in samples if each.host and each.host.pressure_s is not None),
            limit=1,
            at_least=True,
            pass_needs=False,  # pressure is a loss of the server too
        ),
    ]


def quiet(log: Log, rules: Thresholds) -> list[Check]:
    """V6: CPU time of everything that is not of this run."""
    samples = log.sampled(*under_load(log))
    busy, server = rate(samples, of_host(lambda host: host.busy_s)), rate(samples, cpu_s)
    servers = {process.name for process in log.run.processes if process.role == "server"}
    ours = _used_by(samples, servers)
    foreign = (
        max(busy - server - ours, 0.0)
        if busy is not None and server is not None and ours is not None
        else None
    )
    return [
        Check(
            what="used by others",
            measured=foreign,
            limit=rules.v6_foreign_cores,
            unit="cores",
            pass_needs=False,  # what others use is the server's loss
            of_server=True,  # its own time is not others'
        )
    ]


def _used_by(samples: Sequence[Sample], servers: set[str]) -> float | None:
    """Cores that the run's other processes used; one that ended before the last sample, as a
    generator may, has used what it had."""
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
    allowed: it is the server's."""
    phases = under_load(log)
    samples, lines = log.sampled(*phases), log.of("users", *phases)
    finished, wrong = done(lines), failed(lines)
    established, opens = (
        median_of(samples, of_net(lambda net: net.established)),
        grown(samples, of_net(lambda net: net.active_opens)),
    )
    whole = phases == (
        "steady",
    )  # otherwise the number of users changes, and there is nothing to compare
    away = (
        abs(established / log.run.scenario.users - 1) if established is not None and whole else None
    )
    allowed = rules.v7_established + (wrong / finished if finished else 0.0)
    unexplained = max(opens - wrong, 0) / finished if opens is not None and finished else None
    return [
        Check(
            what="connections away from users",
            measured=away,
            limit=allowed,
            unit="share",
            fail_needs=whole,
        ),
        Check(
            what="opens per request that no failure explains",
            measured=unexplained,
            limit=rules.v7_opens,
            unit="share",
            fail_needs=whole,
        ),
    ]


def queues(log: Log, rules: Thresholds) -> list[Check]:
    """V8: the accept queue's losses since the ramp's begin, and retransmits. A server that drowns
    loses too: no FAIL needs this."""
    whole, samples = log.sampled("ramp", "settle", "steady"), log.sampled(*under_load(log))
    again, sent = (
        grown(samples, of_net(lambda net: net.retransmits)),
        grown(samples, of_net(lambda net: net.segments_out)),
    )
    share = again / sent if again is not None and sent else None
    return [
        Check(
            what="accept queue overflows",
            measured=grown(whole, of_net(lambda net: net.listen_overflows)),
            limit=0,
            fail_needs=False,
            of_server=True,
        ),
        Check(
            what="connections dropped",
            measured=grown(whole, of_net(lambda net: net.listen_drops)),
            limit=0,
            fail_needs=False,
            of_server=True,
        ),
        Check(
            what="retransmitted",
            measured=share,
            limit=rules.v8_retransmits,
            unit="share",
            pass_needs=False,  # each delays an answer
            fail_needs=False,
        ),
    ]


def resources(log: Log, rules: Thresholds) -> list[Check]:
    """V9: free ports, files and connection tracking at their worst moment, and no swapping."""
    samples = log.sampled("ramp", "settle", "steady")
    return [
        Check(
            what="free ports",
            measured=_free_ports(log, samples),
            limit=rules.v9_free_ports,
            at_least=True,
            unit="share",
        ),
        Check(
            what="free files of the fullest process",
            measured=_free_files(log, samples),
            limit=rules.v9_free_files,
            at_least=True,
            unit="share",
        ),
        Check(
            what="connection tracking full",
            measured=_tracked(samples),
            limit=rules.v9_conntrack,
            unit="share",
        ),
        Check(
            what="pages swapped",
            measured=grown(samples, of_host(lambda host: host.swapped_pages)),
            limit=0,
            pass_needs=False,  # swapping delays answers
        ),
    ]


def _free_ports(log: Log, samples: Sequence[Sample]) -> float | None:
    used = [
        sample.net.ports_used
        for sample in samples
        if sample.net and sample.net.ports_used is not None
    ]
    return 1 - max(used) / log.run.ports if used and log.run.ports else None


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
    hosts = [
        sample.host for sample in samples if sample.host and sample.host.conntrack_max is not None
    ]
    return max((_tracked_share(host) for host in hosts), default=None)


def _tracked_share(host: HostSample) -> float:
    return (host.conntrack or 0) / host.conntrack_max if host.conntrack_max else 0.0


def of_host(read: Callable[[HostSample], float | None]) -> Callable[[Sample], float | None]:
    """Reads a host's counter."""
    return lambda sample: read(sample.host) if sample.host else None


def of_net(read: Callable[[NetSample], float | None]) -> Callable[[Sample], float | None]:
    """Reads a network counter."""
    return lambda sample: read(sample.net) if sample.net else None
