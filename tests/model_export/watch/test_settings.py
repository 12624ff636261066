"""The watch's settings, its rhythm, its memory of refusals and its heartbeat: everything that needs
no server."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model_export.__main__ import main
from model_export.errors import ExportError
from model_export.prove.draw import GATE_ROWS
from model_export.watch import heartbeat, loop
from model_export.watch.settings import SettingsError, WatchSettings, add_flags, read
from model_export.watch.targets import Target, parse

ROOT = Path(__file__).parents[3]


def settings(*flags: str, **environment: str) -> WatchSettings:
    """Read them as the command does."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return read(parser.parse_args(flags), environment)


def test_a_flag_wins_over_its_variable() -> None:
    """And both over the default, which for the proof is the exporter's own."""
    found = settings(
        "models:/a@b",
        "--interval-s",
        "3",
        MODEL_EXPORT_INTERVAL_S="7",
        MODEL_EXPORT_MODELS="x",
        MODEL_EXPORT_NO_UNPICKLE="1",
    )

    assert (found.models, found.interval_s, found.no_unpickle) == (("models:/a@b",), 3.0, True)
    assert settings(MODEL_EXPORT_MODELS="models:/a  models:/b").models == ("models:/a", "models:/b")
    assert settings(MODEL_EXPORT_MODELS=" models:/my a@b\nmodels:/c ").models == (
        "models:/my a@b",
        "models:/c",
    )
    for several in (["models:/my a@b", "models:/c"], ["models:/my a@b models:/c"]):
        assert settings(*several).models == ("models:/my a@b", "models:/c")
    assert settings("\tmodels:/my a@b, models:/c,d,\t").models == ("models:/my a@b", "models:/c,d")
    assert settings("models:/a").gate_rows == GATE_ROWS


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no model to watch"),
        ({"MODEL_EXPORT_INTERVAL": "1"}, "MODEL_EXPORT_INTERVAL is no setting"),
        ({"MODEL_EXPORT_MODLES": "a"}, "did you mean MODEL_EXPORT_MODELS?"),
        (
            {"MODEL_EXPORT_INTERVAL_S": "soon"},
            "MODEL_EXPORT_INTERVAL_S is 'soon': expected a number",
        ),
        ({"MODEL_EXPORT_INTERVAL_S": "nan"}, "expected 0.1 or more"),
        ({"MODEL_EXPORT_ONCE": "maybe"}, "expected true or false"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(environment: dict[str, str], message: str) -> None:
    """By its name, with the value received."""
    with pytest.raises(SettingsError, match=message):
        settings(**environment)


def test_every_setting_is_documented_as_it_is() -> None:
    """docs/export.md has each setting's row: variable, default, meaning."""
    text = (ROOT / "docs/export.md").read_text()
    rows = []
    for setting in fields(WatchSettings):
        shown = (
            ""
            if setting.default in ((), "", None)
            else f"`{str(setting.default).lower() if setting.type == 'bool' else setting.default}`"
        )
        rows.append(
            f"| `MODEL_EXPORT_{setting.name.upper()}` | {shown} | "
            f"{setting.metadata['description']} |"
        )
    missing = [row for row in rows if row not in text]
    assert not missing, "\n" + "\n".join(missing)


def test_the_pause_doubles_and_is_bounded_and_scattered() -> None:
    """±20 %, so that several watches do not keep step."""
    assert loop.pause(10.0, 0, 300.0, 0.5) == 10.0
    assert [loop.pause(10.0, 0, 300.0, chance) for chance in (0.0, 1.0)] == pytest.approx(
        [8.0, 12.0]
    )
    assert [loop.pause(10.0, failures, 300.0, 0.5) for failures in (1, 2, 5, 10_000)] == [
        20.0,
        40.0,
        300.0,
        300.0,
    ]


def version(**tags: str) -> Any:
    """What MLflow says of a version, as far as it matters here."""
    own = {"export.created": "1"} if tags else {}
    named = {f"halfcore.{key}": value for key, value in (own | tags).items()}
    return SimpleNamespace(name="m", version="1", creation_timestamp=1, tags=named)


def _watch(**settings: Any) -> loop.Watch:
    return loop.Watch(
        WatchSettings(models=("models:/m",), **settings), "sqlite://", heartbeat.Heartbeat(None)
    )


def test_a_refusal_stands_until_what_it_depends_on_changes() -> None:
    """Other tools or limits are a new chance, --retry-refused is one more."""
    watch, again = (_watch(retry_refused=retry) for retry in (False, True))
    refused = {"export": "refused", "export.fingerprint": watch._fingerprint}

    assert watch._is_due(version())
    assert not watch._is_due(version(export="passed"))
    assert not watch._is_due(version(**refused))
    assert watch._is_due(version(**refused | {"export.fingerprint": "of older tools"}))
    assert again._is_due(version(**refused))
    again._retried.add("m/1")
    assert not again._is_due(version(**refused))


def test_the_tags_of_another_version_are_no_verdict() -> None:
    """`copy_model_version` copies every tag: a verdict holds for the version that was made when it
    says."""
    watch = _watch()
    refused = {"export": "refused", "export.fingerprint": watch._fingerprint}

    assert watch._is_due(version(**{"export": "passed", "export.created": "2"}))
    assert watch._is_due(version(**refused | {"export.created": "2"}))


@pytest.mark.parametrize(
    ("bundle", "due"),
    [("m/1-0123abcd", False), ("m/2-0123abcd", True), ("other/1-0123abcd", True), ("", True)],
)
def test_a_verdict_of_an_older_exporter_is_known_by_its_bundle(bundle: str, due: bool) -> None:
    """It did not tag the time; its bundle's folder says of which version it was made."""
    older = version(export="passed", bundle=f"runs:/0/halfcore/{bundle}")
    del older.tags["halfcore.export.created"]

    assert _watch()._is_due(older) == due


def test_debugging_is_no_unknown_setting() -> None:
    """MODEL_EXPORT_DEBUG is of every command."""
    assert settings("models:/a", MODEL_EXPORT_DEBUG="1").models == ("models:/a",)


def test_what_can_be_watched_is_parsed() -> None:
    """A name with an alias, with a stage or version, or alone; it may hold an @ itself."""
    assert parse("models:/a-*@champion") == Target("a-*", "champion", None)
    assert parse("models:/a/Production") == Target("a", None, "Production")
    assert parse("models:/a") == Target("a", None, None)
    assert parse("models:/a@b/Production") == Target("a@b", None, "Production")
    for wrong in ("runs:/1/x", "a", "models:/a/b/c", "models:/"):
        with pytest.raises(ExportError, match="cannot be watched"):
            parse(wrong)


def test_a_heartbeat_ages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`healthy` exits with 0 while it is fresh, with 1 when it is old, missing or broken."""
    file = tmp_path / "beat"
    assert main(["healthy", str(file)]) == 1
    heartbeat.Heartbeat(file).beat("exporting iris/3")
    assert main(["healthy", str(file)]) == 0
    assert "exporting iris/3" in capsys.readouterr().out
    assert main(["healthy", str(file), "--max-age", "-1"]) == 1
    file.write_text("{}")
    assert main(["healthy", str(file)]) == 1
    assert list(tmp_path.iterdir()) == [file]


def test_two_watches_do_not_share_a_work_folder(tmp_path: Path) -> None:
    """The second one would empty what the first is working on."""
    from model_export.watch.command import _own

    with (
        _own(tmp_path),
        pytest.raises(ExportError, match="another watch uses"),
        _own(tmp_path),
    ):
        pass
