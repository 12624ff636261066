"""What other protocols cost a request: CPU time against `/predict`, and of binary tensors against
JSON."""

from typing import NamedTuple

from loadlab.experiments.bench.measure import Run
from loadlab.pages.bench import Finding, Panel, panels
from loadlab.pages.template import page, ratio


class Goal(NamedTuple):
    """CPU time per request of one route over another's."""

    route: str
    other: str
    most: float
    model: str = ""
    """Judged for this model only; empty: for each."""


GOALS = (
    Goal("v2-binary", "v2-json", 0.7, "wide"),
    Goal("invocations", "predict", 1.3),
)


def section(run: Run, link: str) -> str:
    """A run as a section of docs/benchmarks.md; `link` leads to its file."""
    doubtful = [each for each in run.rows if each.figures and each.figures.doubts]
    context = {"run": run, "link": link, "panels": panels(run), "doubtful": doubtful}
    return page("protocols", **context, findings=findings(run))


def findings(run: Run) -> list[Finding]:
    """All ratios that the run contains, and the failures."""
    found = []
    for panel in panels(run):
        found += [_finding(panel, goal) for goal in GOALS]
        failed = sum(each.failures.total() for each in panel.servers)
        found.append(Finding(f"{panel.model}: {failed} failures (goal: none)", not failed))
    return found


def _finding(panel: Panel, goal: Goal) -> Finding:
    name = f"{panel.model}: {goal.route} / {goal.other}"
    measured = {each.key: each for each in panel.measured}
    if not {goal.route, goal.other} <= measured.keys():
        return Finding(f"{name}: not measured")
    value = measured[goal.route].cpu_us / measured[goal.other].cpu_us
    if goal.model not in ("", panel.model):
        return Finding(f"{name} = {ratio(value)}")
    return Finding(f"{name} = {ratio(value)} (goal: at most {goal.most:g})", value <= goal.most)
