"""Command words: one parser for all commands."""

import argparse
import sys
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from loadlab.__main__ import main
from loadlab.words import LoadWords, UsageError, add_to, parse, table


class Hunt(LoadWords, frozen=True, kw_only=True):
    """A command with a load run's words, another default, and words of its own."""

    engine: Annotated[Literal["locust", "raw"], Meta(description="who drives")] = "raw"
    budget: Annotated[
        int, Meta(ge=1, le=1440, description="time for all", extra={"counts": "minutes"})
    ] = 90


class Fetch(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A command without a load run."""

    what: str
    keep_all: Literal["yes", "no"] = "no"


REFUSED = {"target": "a hunt starts its own servers"}


def test_defaults_are_those_of_the_struct_and_values_are_typed():
    """Numbers, seconds and choices arrive as such; a key's dash is an underscore of the field."""
    assert parse(LoadWords, []) == LoadWords()
    found = parse(LoadWords, ["users=5", "duration=2m", "allow-host=db", "web=on"])
    assert (found.users, found.duration, found.allow_host, found.web) == (5, 120.0, "db", "on")


def test_a_command_inherits_words_and_changes_defaults():
    """Its own follow those of a load run."""
    found = parse(Hunt, ["budget=5", "users=7"], REFUSED)
    assert (found.engine, found.budget, found.users) == ("raw", 5, 7)


@pytest.mark.parametrize(
    ("kind", "words", "says"),
    [
        (Hunt, ["speed=9"], "speed=9: unknown; expected key=value with one of tier, scenario"),
        (Hunt, ["users"], "users: unknown; expected key=value"),
        (Hunt, ["scenaro=course"], "did you mean scenario=course?"),
        (Hunt, ["users"], "did you mean users=…?"),
        (Hunt, ["users", "5"], "did you mean users=5?"),
        (Hunt, ["users", "rate=5"], "did you mean users=…?"),
        (Hunt, ["steady"], "did you mean scenario=steady?"),
        (Hunt, ["locust"], "did you mean engine=locust?"),
        (Hunt, ["raw"], "did you mean engine=raw?"),
        (Hunt, ["engine=locus"], "there are locust, raw; did you mean locust?"),
        (Hunt, ["target=db:80"], "target=db:80: a hunt starts its own servers"),
        (Hunt, ["--target=db:80"], "--target=db:80: a hunt starts its own servers"),
        (Hunt, ["allow_host=db"], "did you mean allow-host=db?"),
        (Hunt, ["budget=1", "budget=1"], "budget= is given twice"),
        (Hunt, ["users="], "users= has no value"),
        (Hunt, ["users=0"], "users=0 is invalid: expected a whole number from 1 to 1,000,000"),
        (Hunt, ["budget=9999"], "budget=9999 is invalid: expected whole minutes from 1 to 1,440"),
        (Hunt, ["duration=soon"], "duration=soon is invalid: expected seconds, or a number with"),
        (Hunt, ["duration=0"], "duration=0 is invalid"),
        (Hunt, ["engine=k6"], "engine=k6 is unknown; there are locust, raw"),
        (Fetch, [], "what= is missing"),
        (Fetch, ["what=it", "keep-all=maybe"], "keep-all=maybe is unknown; there are yes, no"),
    ],
)
def test_a_wrong_word_is_refused_with_what_was_expected(kind, words, says):
    """Nothing is guessed, nothing is ignored."""
    with pytest.raises(UsageError) as refused:
        parse(kind, words, REFUSED, {"scenario": ["steady", "course"]})
    assert says in str(refused.value)


def test_a_refused_word_is_not_offered():
    """Neither in the refusal of an unknown one nor in the help."""
    with pytest.raises(UsageError) as refused:
        parse(Hunt, ["speed=9"], REFUSED)
    assert "target" not in str(refused.value)
    assert "\ntarget " not in table(Hunt, REFUSED)
    assert "\ntarget " in table(Hunt)


def test_the_help_shows_every_word_with_its_values_and_default():
    """In columns, below the usage."""
    parser = argparse.ArgumentParser(prog="hunt")
    add_to(parser, Hunt, REFUSED)
    lines = {line.split()[0]: line for line in table(Hunt, REFUSED).splitlines()}
    assert "whole minutes from 1 to 1,440" in lines["budget"]
    assert "90" in lines["budget"]
    assert "time for all" in lines["budget"]
    assert lines["engine"] in parser.format_help()
    assert parser.parse_args(["a=1", "b=2"]).words == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["laod", "tier=half-core"], "load"),
        (["history", "--jsn"], "--json"),
        (["bench", "--quik"], "--quick"),
        (["bench", "models=iris"], "--models=iris"),
        (["completion", "bsh"], "bash"),
    ],
)
def test_a_wrong_command_or_flag_is_answered_with_the_right_one(monkeypatch, capsys, typed, meant):
    """With its value, where it was typed with `=`."""
    monkeypatch.setattr(sys, "argv", ["loadlab", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"; did you mean {meant}?\n")


@pytest.mark.parametrize("command", ["load", "compare", "search", "seeds", "scale", "quota-study"])
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--duration", "9"], "duration=9"),
        (["--duration=9"], "duration=9"),
        (["seed=2", "-duration", "9"], "duration=9"),
        (["--duratoin", "9"], "duration=9"),
        (["--duration", "--seed=2"], "duration=…"),
        (["--duration", "seed=2"], "duration=…"),
        (["--duration"], "duration=…"),
    ],
)
def test_a_word_that_is_typed_as_a_flag_is_a_wrong_word(monkeypatch, capsys, command, typed, meant):
    """Exit code 3, which no verdict has, with the right form and the value."""
    monkeypatch.setattr(sys, "argv", ["loadlab", command, *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert " ".join(capsys.readouterr().err.split()).endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize("typed", [["bench", "--qui"], ["history", "--js"]])
def test_no_flag_may_be_shortened(monkeypatch, capsys, typed):
    """It would stop to work when another one begins alike."""
    monkeypatch.setattr(sys, "argv", ["loadlab", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"unrecognized arguments: {typed[1]}" in capsys.readouterr().err
