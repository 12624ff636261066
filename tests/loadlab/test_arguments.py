"""The words of `just load`."""

import os
from pathlib import Path

import msgspec
import pytest

from loadlab.generator.plan import scenarios
from loadlab.run.order import Order, parse, server_cpus, too_small, worker_cpus
from loadlab.target import tiers
from loadlab.words import LoadWords, UsageError

ROOT = Path(__file__).parents[2]
TIERS = tiers.read(ROOT / tiers.FILE, {})
KEYS = [field.encode_name for field in msgspec.structs.fields(LoadWords)]


def order(*words: str) -> Order:
    """What the words mean, in this checkout."""
    return parse(words, TIERS, scenarios())


def test_one_word_is_enough():
    """`just load tier=half-core`: 10,000 users, 500 a second, the steady scenario, once."""
    asked = order("tier=half-core")
    assert (asked.users, asked.rate, asked.steady_s, asked.scenario.name, asked.repeats) == (
        10_000,
        500,
        120,
        "steady",
        1,
    )
    assert (asked.backend, asked.engine, asked.user, asked.ramp, asked.model) == (
        "auto",
        "locust",
        "raw",
        "smooth",
        "iris",
    )


def test_every_word_is_understood():
    """Each key has its effect."""
    asked = order(
        "tier=one-core",
        "scenario=course",
        "users=5",
        "rate=7",
        "duration=2m",
        "backend=cgroup",
        "repeats=3",
        "web=on",
        "ramp=stepped",
        "user=fast",
        "workers=2",
        "model=penguins-lr",
        "seed=9",
    )
    assert (asked.tier.cpus, asked.scenario.think, asked.users, asked.rate, asked.steady_s) == (
        1.0,
        [1.0, 2.5],
        5,
        7,
        120,
    )
    assert (asked.backend, asked.repeats, asked.web, asked.ramp, asked.user, asked.workers) == (
        "cgroup",
        3,
        True,
        "stepped",
        "fast",
        2,
    )
    assert (asked.model, asked.seed) == ("penguins-lr", 9)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "tier= is missing; there are tenth-core"),
        (["tier=half-core", "user_count=5"], f"one of {', '.join(KEYS)}"),
        (["half-core"], "; did you mean tier=half-core?"),
        (["halfcore", "users=5"], "; did you mean tier=half-core?"),
        (["tier", "half-core"], "; did you mean tier=half-core?"),
        (["tier=half-core", "tier=one-core"], "tier= is given twice"),
        (["tier=half-core", "users="], "users= has no value"),
        (["tier=half-core", "users=0"], "users=0 is invalid: expected a whole number from 1"),
        (["tier=half-core", "rate=fast"], "rate=fast is invalid"),
        (["tier=half-core", "duration=inf"], "duration=inf is invalid: expected seconds, or"),
        (["tier=half-core", "duration=9999h"], "as in 10m, at most 168h"),
        (["tier=half-core", "duration=2 minutes"], "expected seconds, or a number with s, m or h"),
        (["tier=half-core", "backend=podman"], "there are auto, cgroup, compose"),
        (["tier=half-core", "engine=k6"], "there are locust, raw"),
        (["tier=half-core", "ramp=steep"], "there are smooth, stepped"),
        (["tier=half-core", "engine=raw", "user=fast"], "engine=raw"),
        (["tier=half-core", "model=../secret"], "expected a model's name"),
        (["tier=half-core", "scenario=overload", "duration=30s"], "the surge"),
        (["tier=half-core", "target=10.1.2.3"], "expected host:port"),
        (["target=https://127.0.0.1:80"], "asks /predict over HTTP, expected host:port; for HTTPS"),
        (["target=127.0.0.1:80/api"], "or another path give the address of a proxy"),
        (["tier=half-core", "target=127.0.0.1:80", "backend=cgroup"], "nothing to start"),
    ],
)
def test_a_wrong_word_is_refused_with_what_was_expected(words, says):
    """Nothing is guessed, nothing is ignored."""
    with pytest.raises(UsageError) as refused:
        order(*words)
    assert says in str(refused.value)


def test_server_and_generator_get_those_cpus_that_the_lab_may_use(monkeypatch):
    """Such as `taskset` or a container's cpuset leave it: CPU 0 may not be among them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {5, 6})
    asked = order("tier=half-core")
    assert server_cpus(asked.tier) == "5"
    assert worker_cpus(asked, frozenset({5})) == [frozenset({6})]
    assert not too_small(asked.tier)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {5})
    assert "needs 2 cores" in too_small(asked.tier)


def test_an_unknown_tier_or_scenario_is_refused_with_the_known_ones():
    """The lists come from the files."""
    with pytest.raises(UsageError, match=r"there are tenth-core, .*half-core"):
        order("tier=huge")
    with pytest.raises(UsageError, match=r"tier=halfcore is .*; did you mean half-core\?$"):
        order("tier=halfcore")
    with pytest.raises(
        UsageError, match="there are steady, course, second, poisson, overload, soak"
    ):
        order("tier=half-core", "scenario=calm")


@pytest.mark.parametrize(
    "target", ["127.0.0.1:8000", "http://127.8.8.8:8000/", "localhost:8000", "[::1]:8000"]
)
def test_loopback_needs_no_permission(target):
    """Load on this machine harms nobody else."""
    assert order("tier=half-core", f"target={target}").target == target


@pytest.mark.parametrize("target", ["10.0.0.5:8000", "example.org:80", "http://192.0.2.1:80"])
def test_other_hosts_need_permission_by_name(target):
    """Load on somebody else is an attack."""
    with pytest.raises(UsageError, match="allow-host="):
        order("tier=half-core", f"target={target}")
    host = target.removeprefix("http://").split(":")[0]
    assert order("tier=half-core", f"target={target}", f"allow-host={host}").target == target
