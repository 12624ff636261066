"""Halfcore and other model servers: the tables of a run, and the settings of all of them."""

from collections import Counter

import msgspec

from loadlab.experiments.bench.measure import Run
from loadlab.experiments.bench.peers import OURS, Peers, Visit
from loadlab.experiments.bench.subjects import PEER_REGIMES, PEERS
from loadlab.pages import bench
from loadlab.pages.bench import Panel, Server
from loadlab.pages.template import median, page
from loadlab.record.cgroup import Memory
from loadlab.verdict.stats import Interval, paired_ratio

_KINDS = ("anon", "rss", "shmem", "kernel")
"""Of memory: what a server has for itself, in either version's names. Files that are in memory are
charged to whoever read them first, and left out."""


class Row(msgspec.Struct, frozen=True):
    """One server in one table, and how many times its CPU time is of halfcore's."""

    server: Server
    ratio: Interval | None
    """Over the rounds, with its 95 % bootstrap interval; None: not measured, or it failed."""


def flat(run: Peers) -> Run:
    """As a run of the bench, for its figures and its plot."""
    return Run(
        kind="peers",
        started_at=run.started_at,
        command=run.command,
        seed=run.seed,
        fingerprint=run.fingerprint,
        quiet=run.quiet,
        quick=run.quick,
        loads=run.loads,
        rows=[each for visit in run.rows for each in visit.rounds],
    )


def panels(run: Peers) -> list[Panel]:
    """A table per model and regime."""
    order, models = list(PEER_REGIMES), _models(run)
    return sorted(
        bench.panels(flat(run)),
        key=lambda panel: (models.index(panel.model), order.index(panel.regime)),
    )


def _models(run: Peers) -> list[str]:
    """That of most regimes first: the order of the visits is drawn."""
    asked = {(visit.model, each.regime) for visit in run.rows for each in visit.rounds}
    counted = Counter(model for model, _ in asked)
    return sorted(counted, key=lambda model: (-counted[model], model))


def rows(panel: Panel, seed: int) -> list[Row]:
    """All servers of a table, those that need the least CPU time first, and last those without
    figures."""
    ours = {each.key: each for each in panel.measured}.get(OURS)
    found = [Row(each, _ratio(ours, each, seed)) for each in panel.servers]
    return sorted(found, key=lambda row: (not row.server.measured, row.server.cpu_us))


def _ratio(ours: Server | None, other: Server, seed: int) -> Interval | None:
    if ours is None or other.key == OURS or not other.measured or other.failed or ours.failed:
        return None
    mine, theirs = (
        {each.number: each.figures.cpu_us for each in side.rounds if each.figures}
        for side in (ours, other)
    )
    pairs = [(mine[number], theirs[number]) for number in mine.keys() & theirs.keys()]
    return paired_ratio(sorted(pairs), seed=seed) if pairs else None


def own_bytes(memory: Memory) -> int:
    """Memory without files."""
    return sum(memory.kinds.get(kind, 0) for kind in _KINDS)


class Standing(msgspec.Struct, frozen=True):
    """What a server with the first model needs before and besides its requests; medians."""

    key: str
    version: str
    packages: int
    size_mb: float
    start_wall_s: float | None
    start_cpu_s: float | None
    idle_mb: float | None
    connected_mb: float | None


def standings(run: Peers) -> list[Standing]:
    """Of all servers that were asked for."""
    first, found = _models(run)[0], []
    for key, subject in PEERS.items():
        visits = [each for each in run.rows if (each.server, each.model) == (key, first)]
        if not visits:
            continue
        environment = run.environments[subject.words[0]]
        starts = [each.start for each in visits if each.start]
        connected = [memory for each in visits for memory in _sparse(each)]
        found.append(
            Standing(
                key=key,
                version=environment.version,
                packages=environment.packages,
                size_mb=environment.bytes / 1e6,
                start_wall_s=median(each.wall_s for each in starts),
                start_cpu_s=median(each.cpu_s for each in starts),
                idle_mb=median(own_bytes(each.memory) / 1e6 for each in starts),
                connected_mb=median(own_bytes(each) / 1e6 for each in connected),
            )
        )
    return found


def _sparse(visit: Visit) -> list[Memory]:
    """Memory at the end of the sparse load, with all connections open."""
    return [
        each.figures.memory for each in visit.rounds if each.regime == "sparse" and each.figures
    ]


def sentences(run: Peers) -> list[str]:
    """For each table the peer that is nearest to halfcore, and where halfcore is behind."""
    tables = [(each, list(filter(_is_compared, rows(each, run.seed)))) for each in panels(run)]
    said = page("peers_said", tables=tables, ours_key=OURS)
    return [line for line in said.splitlines() if line]


def at_saturation(run: Peers) -> list[tuple[str, float]]:
    """Each peer with its best settings, and its CPU time a request as a multiple of halfcore's,
    with the first model at saturation."""
    model = _models(run)[0]
    (panel,) = (each for each in panels(run) if (each.model, each.regime) == (model, "saturated"))
    return [
        (row.server.key, row.ratio.estimate)
        for row in rows(panel, run.seed)
        if row.ratio and PEERS[row.server.key].words[-1] == "tuned"
    ]


def _is_compared(row: Row) -> bool:
    """Whether it is a peer, or halfcore with its defaults."""
    return row.server.key == OURS or PEERS[row.server.key].words[0] != OURS


def section(run: Peers, link: str, picture: str) -> str:
    """A run as a section of docs/benchmarks.md; `link` leads to its file."""
    found = panels(run)
    doubtful = [each for each in flat(run).rows if each.figures and each.figures.doubts]
    return page(
        "peers",
        run=run,
        link=link,
        picture=picture,
        loads={load.regime: load for load in run.loads},
        tables=[(panel, rows(panel, run.seed)) for panel in found],
        standings=standings(run),
        said=sentences(run),
        doubtful=doubtful,
        proven=sum(visit.proven for visit in run.rows),
        ours=OURS,
    )


def settings() -> str:
    """All peers with their settings and the pages that these follow, for docs/peers.md."""
    return page("peers_settings", subjects=list(PEERS.values()))
