"""API keys: the file, the look-up, and what a withdrawn key is worth."""

import asyncio
from pathlib import Path

import pytest

from halfcore.predict import keys
from halfcore.predict.keys import KeysError, new_key, presented, read
from halfcore.problem import Problem
from support.log import listen


def written(file: Path, *entries: tuple[str, list[str]]) -> list[str]:
    """A file of these entries; returns their keys."""
    made = [new_key(*entry) for entry in entries]
    file.write_text("".join(lines for _, lines in made))
    return [key for key, _ in made]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the keys are."""
    return tmp_path / "keys.toml"


def problem(held: keys.Keys, given: str | None, model: str) -> tuple[int, str]:
    """How a request is refused."""
    with pytest.raises(Problem) as raised:
        held.check(given, model)
    assert raised.value.headers["connection"] == "close"
    return raised.value.status, raised.value.detail


def test_a_key_opens_the_models_of_its_entry(file: Path) -> None:
    """All, or those that it names; and both are counted."""
    everything, iris = written(file, ("all", []), ("iris-team", ["iris", 'a "quoted" one\\']))
    held = keys.Keys(file)

    for model in ("iris", "penguins-svm"):
        held.check(everything, model)
    held.check(iris, "iris")
    held.check(iris, 'a "quoted" one\\')

    assert problem(held, iris, "penguins-svm") == (
        403,
        'the API key of "iris-team" may not ask this model, expected one of a "quoted" one\\, iris',
    )
    assert problem(held, None, "iris")[0] == 401
    assert problem(held, everything + "x", "iris") == (401, "the API key is not known")
    assert held.counts() == {"all": 2, "iris-team": 2}


def test_the_intake_asks_without_an_exception(file: Path) -> None:
    """Its counts are added to the event loop's."""
    (key,) = written(file, ("a", ["iris"]))
    held = keys.Keys(file)

    asked = [
        held.allows(headers.get, model)
        for headers, model in (
            ({"authorization": f"Bearer {key}"}, "iris"),
            ({"x-api-key": key}, "iris"),
            ({"x-api-key": key}, "penguins-svm"),
            ({"authorization": f"Basic {key}"}, "iris"),
            ({}, "iris"),
        )
    ]

    held.check(key, "iris")
    assert asked == [True, True, False, False, False]
    assert held.counts() == {"a": 3}


def test_a_rate_allows_a_second_of_requests_at_once_and_then_so_many_a_second() -> None:
    """At any time it says how long to wait."""
    now = [100.0]
    rate = keys.Rate(4.0, lambda: now[0])

    assert [rate.take() for _ in range(5)] == [0, 0, 0, 0, 0.25]
    now[0] += 0.2
    assert rate.take() == pytest.approx(0.05)
    now[0] += 0.05
    assert [rate.take(), rate.take()] == [0, pytest.approx(0.25)]
    now[0] += 1000
    assert [rate.take() for _ in range(5)] == [0, 0, 0, 0, 0.25]


@pytest.mark.parametrize("per_second", [3.0, 7.0, 49.0, 999.0])
def test_rounding_takes_no_request_from_a_rate(per_second: float) -> None:
    """Thirds of a second cannot be added exactly, least of all after months of uptime."""
    now = [12_345_678.9]
    rate = keys.Rate(per_second, lambda: now[0])

    waits = [rate.take() for _ in range(int(per_second) + 1)]
    taken = 0
    for step in range(1, 11):
        now[0] = 12_345_678.9 + step
        while rate.take() == 0:
            taken += 1

    assert waits[:-1] == [0] * int(per_second)
    assert waits[-1] == pytest.approx(1 / per_second, rel=0.01)
    assert taken == 10 * per_second


def test_a_slow_rate_allows_one_request_at_once() -> None:
    """One every ten seconds is not none."""
    now = [100.0]
    rate = keys.Rate(0.1, lambda: now[0])

    assert [rate.take(), rate.take()] == [0, 10]
    now[0] += 10
    assert rate.take() == 0


def test_a_key_above_its_rate_is_refused_and_others_are_not(file: Path) -> None:
    """429 with the time to wait; a refused request is not counted, over both ways."""
    slow, slow_lines = new_key("slow", [], 0.01)
    quick, quick_lines = new_key("quick", [])
    file.write_text(slow_lines + quick_lines)
    held = keys.Keys(file)

    held.check(slow, "iris")
    with pytest.raises(Problem) as raised:
        held.check(slow, "iris")
    assert not held.allows({"x-api-key": slow}.get, "iris")
    held.check(quick, "iris")

    assert (raised.value.status, raised.value.code) == (429, "too_many_requests")
    assert int(raised.value.headers["retry-after"]) in (99, 100)
    assert '"slow" allows 0.01 requests a second' in raised.value.detail
    assert held.counts() == {"slow": 1, "quick": 1}


@pytest.mark.parametrize(
    ("headers", "given"),
    [
        ({"authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer   k "}, "k"),
        ({"authorization": "Bearer k", "x-api-key": "other"}, "k"),
        ({"authorization": "Basic k", "x-api-key": "other"}, "other"),
        ({"x-api-key": "other"}, "other"),
        ({"authorization": "Bearer"}, ""),
        ({}, None),
    ],
)
def test_where_a_key_is_sent(headers: dict[str, str], given: str | None) -> None:
    """A bearer token wins."""
    assert presented(headers.get) == given


def test_a_changed_file_is_read_again(file: Path) -> None:
    """A new key works, a withdrawn one does not, also one that was used before; counts stay."""
    old, old_lines = new_key("old", [])
    kept, kept_lines = new_key("kept", [])
    file.write_text(old_lines + kept_lines)
    held = keys.Keys(file)
    held.check(old, "iris")
    held.check(kept, "iris")
    new, new_lines = new_key("new", [])

    file.write_text(kept_lines + new_lines + "\n")
    held.reload()

    held.check(new, "iris")
    held.check(kept, "iris")
    assert problem(held, old, "iris") == (401, "the API key is not known")
    assert held.counts() == {"old": 1, "kept": 2, "new": 1}


async def test_a_model_that_is_not_there_is_a_warning(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start, and again only when the file changed."""
    listen(caplog)
    monkeypatch.setattr(keys, "RELOAD_S", 0.001)
    written(file, ("a", ["iris", "pengins"]), ("b", []))
    following = asyncio.create_task(keys.Keys(file).follow({"iris"}.__contains__))

    async def until(text: str) -> None:
        while text not in caplog.text:  # noqa: ASYNC110  a log line wakes nobody
            await asyncio.sleep(0.001)

    async with asyncio.timeout(60):
        await until("not have: pengins; correct the file")
        written(file, ("c", ["irsi"]))
        await until('the API key of "c" may ask models that this server does not have: irsi')
    following.cancel()
    assert caplog.text.count("does not have") == 2


def test_a_file_that_became_empty_is_a_warning(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It withdraws every key, which may be meant or half of a write."""
    listen(caplog)
    (key,) = written(file, ("a", []))
    held = keys.Keys(file)

    file.write_text("")
    held.reload()

    assert problem(held, key, "iris") == (401, "the API key is not known")
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [keys.NO_KEYS]


def test_a_file_that_became_wrong_changes_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor one that is gone; each is logged once."""
    (key,) = written(file, ("a", []))
    held = keys.Keys(file)

    file.write_text("[a\n")
    held.reload()
    held.reload()
    held.check(key, "iris")
    file.unlink()
    held.reload()
    held.check(key, "iris")

    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all(text.startswith("the API keys were not read again") for text in messages)


HASH = "0" * 64


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a", "is not TOML"),
        ("a = 1", r"\[a\]: expected a table"),
        ("[a]", r"\[a\]: sha256 is wrong, expected 64 digits"),
        ('[a]\nsha256 = "12"', "sha256 is wrong"),
        (f'[a]\nsha256 = "{HASH}"\nmodel = "iris"', "expected a table with sha256"),
        (f'[a]\nsha256 = "{HASH}"\nmodels = "iris"', "models is wrong, expected a list of names"),
        (f'[a]\nsha256 = "{HASH}"\nmodels = []', "models is wrong"),
        (f'[a]\nsha256 = "{HASH}"\nrequests_per_second = "5"', "is wrong, expected a number"),
        (f'[a]\nsha256 = "{HASH}"\nrequests_per_second = 0', "is 0, expected 0.01 to 1,000,000"),
        (f'[a]\nsha256 = "{HASH}"\nrequests_per_second = nan', "is nan, expected 0.01"),
        (f'["a b"]\nsha256 = "{HASH}"', "a wrong name"),
        (f'[a]\nsha256 = "{HASH}"\n[b]\nsha256 = "{HASH}"', r"\[a\] and \[b\] are the same key"),
    ],
)
def test_a_wrong_file_names_the_entry(file: Path, text: str, says: str) -> None:
    """And what was expected; the hash is not repeated."""
    file.write_text(text)

    with pytest.raises(KeysError, match=says) as raised:
        read(file)

    assert HASH not in str(raised.value)


def test_a_missing_file_is_named(file: Path) -> None:
    """It stops the start."""
    with pytest.raises(KeysError, match=r"keys\.toml: No such file"):
        keys.Keys(file)


def test_a_name_that_no_entry_may_have_is_refused() -> None:
    """Before a key is made for it."""
    with pytest.raises(KeysError, match="expected 1 to 64"):
        new_key("a b", [])
