"""What each default of our server is worth: one sentence per question of the ablation, from the
medians of a stored run."""

import statistics

from loadlab.experiments.bench.stored import Run, figures, median_cpu_us
from loadlab.experiments.bench.subjects import HEAVY, QUESTIONS, Question
from loadlab.pages.bench_goals import p99_ms

_NOTICEABLE = 0.02
"""Differences below 2 % are called none."""


def sentences(run: Run) -> list[str]:
    """One sentence per question and model that the run can answer."""
    models = list(dict.fromkeys(each.model for each in run.rows))
    answers = [_sentence(run, question, model) for question in QUESTIONS for model in models]
    return [answer for answer in answers if answer]


def _sentence(run: Run, question: Question, model: str) -> str:
    chosen = figures(run.rows, server=question.chosen, model=model, regime=question.regime)
    other = figures(run.rows, server=question.other, model=model, regime=question.regime)
    chosen_us, other_us = median_cpu_us(chosen), median_cpu_us(other)
    if chosen_us is None or other_us is None:
        return ""
    rates = [
        statistics.median(each.requests / each.seconds for each in side) for side in (chosen, other)
    ]
    goal = (
        _batching_goal(rates, p99_ms(chosen), p99_ms(other))
        if (question.other, model) == ("batching off", HEAVY)
        else ""
    )
    overlap = _spreads_overlap([each.cpu_us for each in chosen], [each.cpu_us for each in other])
    return (
        f"{question.setting} ({question.regime}, {model}): {chosen_us:.1f} µs/request against "
        f"{other_us:.1f} µs with “{question.other}”, "
        f"{_difference(chosen_us / other_us - 1)}{' (the rounds overlap)' if overlap else ''}; "
        f"{rates[0]:,.0f} against {rates[1]:,.0f} requests/s, p99 {p99_ms(chosen):.2f} against "
        f"{p99_ms(other):.2f} ms{goal}."
    )


def _batching_goal(rates: list[float], p99: float, p99_off: float) -> str:
    """Batching must at least double the heavy model's throughput at a p99 no worse."""
    reached = rates[0] >= 2 * rates[1] and p99 <= p99_off
    return (
        f" ({'reached' if reached else '**short**'}: {rates[0] / rates[1]:.2f} × the throughput; "
        "goal: 2 × at a p99 no worse)"
    )


def _difference(change: float) -> str:
    if abs(change) < _NOTICEABLE:
        return "no difference"
    return f"{abs(change):.0%} {'less' if change < 0 else 'more'}"


def _spreads_overlap(left: list[float], right: list[float]) -> bool:
    return max(min(left), min(right)) <= min(max(left), max(right))
