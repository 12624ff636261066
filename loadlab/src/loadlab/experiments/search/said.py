"""What a search allows to be said, and nothing that was not measured."""

from collections import Counter
from collections.abc import Iterator, Sequence

from loadlab.experiments.search.axis import REPEATS, Edge, gap
from loadlab.experiments.search.form import Probe, Rerun, Search
from loadlab.experiments.search.plan import Found, cpu_tries, decide

_REPLICAS = (
    "One replica. Several replicas with the same total are not searched: as processes in control "
    "groups they have no balancer."
)


def sentences(search: Search) -> list[str]:
    """The minimum, what fails below it and why, and what proves nothing."""
    found = decide(search.goal, search.probes)
    if not isinstance(found, Found):
        return [
            _so_far(search),
            *_invalid(search),
            f"The search is not finished; next is {found.text}.",
        ]
    return [
        _minimum(search, found),
        *_failures(search, found),
        *_invalid(search),
        *_undecided(found),
        _REPLICAS,
    ]


def again(rerun: Rerun) -> str:
    """What a minimum did when it was run again."""
    last, outcomes = rerun.probes[-1], ", then ".join(probe.outcome for probe in rerun.probes)
    when = f"{rerun.started_at}, commit {rerun.fingerprint.checkout}; {rerun.fingerprint.hardware}"
    said = f"Run again with {last.cpus:g} CPU, {last.mib:,} MiB ({when}): {outcomes}."
    if last.outcome != "PASS":
        said += f" {_why(last)}"
    if last.outcome == "FAIL":
        said += " This refutes the minimum."
    if not (found := last.figures):
        return said
    spread = " / ".join(
        "–" if each is None else f"{each:,.1f}"
        for each in (found.p50_ms, found.p95_ms, found.p99_ms)
    )
    used = "" if found.cpu_cores is None else f"; {found.cpu_cores:.3f} CPU used"
    return f"{said} p50, p95, p99 {spread} ms; {found.errors:,} errors{used}."


def earlier(search: Search, link: str) -> str:
    """What a search found that was made before the one that is shown: a minimum depends on the
    machine's hour."""
    return (
        f"An earlier search ([{search.started_at}]({link}), commit "
        f"{search.fingerprint.checkout}): {sentences(search)[0]}"
    )


def counted(reruns: Sequence[Rerun]) -> str:
    """How often a minimum held when it was run again."""
    outcomes = Counter(each.outcome for each in reruns)
    counts = sorted(outcomes.items(), reverse=True)
    listed = ", ".join(f"{times} {outcome}" for outcome, times in counts)
    return f"run again: {listed} of {len(reruns)}"


def _so_far(search: Search) -> str:
    low, high = gap(cpu_tries(search.goal, search.probes))
    passed = (
        "no CPU limit has passed yet"
        if high is None
        else f"the least CPU limit that passed is {high / 100:g}"
    )
    blocked = "nothing below it has failed" if low is None else f"{low / 100:g} did not"
    return f"So far, with {search.goal.most_mib:,} MiB: {passed}; {blocked}."


def _minimum(search: Search, found: Found) -> str:
    who, goal = f"{search.users:,} users, scenario {search.scenario}, {search.service}", search.goal
    if found.minimum:
        centicores, mib = found.minimum
        fails = ", and ".join(name for _, _, name in _ends(search, found)) or "none that was tried"
        return (
            f"{who}: minimum that passes {REPEATS}/{REPEATS}: {centicores / 100:g} CPU, {mib:,} "
            f"MiB; largest that fails: {fails}."
        )
    most = f"{goal.most_centicores / 100:g} CPU, {goal.most_mib:,} MiB"
    if found.cpu.fails is None:
        return f"{who}: nothing is proven, for the greatest limits ({most}) were INVALID twice."
    return f"{who}: not even the greatest limits ({most}) pass."


def _ends(search: Search, found: Found) -> Iterator[tuple[int, int, str]]:
    """The failing ends: hundredths of a core, MiB, and both in words."""
    if found.cpu.fails is not None:
        yield (
            found.cpu.fails,
            search.goal.most_mib,
            f"{found.cpu.fails / 100:g} CPU with {search.goal.most_mib:,} MiB",
        )
    if found.memory and found.memory.fails is not None and found.cpu.passes is not None:
        yield (
            found.cpu.passes,
            found.memory.fails,
            f"{found.memory.fails:,} MiB with {found.cpu.passes / 100:g} CPU",
        )


def _failures(search: Search, found: Found) -> list[str]:
    lines = []
    for centicores, mib, name in _ends(search, found):
        mine = [
            probe for probe in search.probes if (probe.centicores, probe.mib) == (centicores, mib)
        ]
        last = [probe for probe in mine if probe.outcome == "FAIL"][-1]
        passed = sum(probe.outcome == "PASS" for probe in mine)
        also = f" It passed in {passed} of its {len(mine)} runs all the same." if passed else ""
        lines.append(f"Fails, {name}: {_why(last)}{also}")
    return lines


def _why(probe: Probe) -> str:
    return probe.sentence if probe.could_start else f"cannot start: {probe.sentence.rstrip('.')}."


def _invalid(search: Search) -> list[str]:
    numbers = [
        str(number) for number, probe in enumerate(search.probes, 1) if probe.outcome == "INVALID"
    ]
    counted = f"{len(numbers)} of {len(search.probes)} probes ({', '.join(numbers)})"
    return (
        [f"INVALID, for or against nothing: {counted}; none was repeated more than once in a row."]
        if numbers
        else []
    )


def _undecided(found: Found) -> list[str]:
    ends = [(found.cpu, "CPU", 100), *([(found.memory, "MiB", 1)] if found.memory else [])]
    return [_list(edge, unit, per) for edge, unit, per in ends if edge.undecided]


def _list(edge: Edge, unit: str, per: int) -> str:
    values = ", ".join(f"{value / per:g}" for value in edge.undecided)
    return (
        f"Undecided, because INVALID twice in a row: {values} {unit}. The minimum is above them, "
        "and may be too great for this reason."
    )
