"""Settings: where they come from, which wins, and what a wrong one is told."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from halfcore.__main__ import main as command_line
from halfcore.settings.arguments import add_arguments, renamed
from halfcore.settings.groups import DEFAULTS, Settings, descriptions
from halfcore.settings.names import PREFIX, SECRETS, SEED_NAMES, flag
from halfcore.settings.reading import SettingsError, from_command_line, load

NAMES = tuple(DEFAULTS)
OTHER: dict[str, tuple[str, object]] = {
    "host": ("0.0.0.0", "0.0.0.0"),  # noqa: S104  a value, nobody listens
    "port": ("8123", 8123),
    "grpc_port": ("8124", 8124),
    "admin_port": ("8125", 8125),
    "bundles": ("/bundles", Path("/bundles")),
    "default_model": ("iris", "iris"),
    "fallback_model": ("iris", "iris"),
    # A value, nobody writes there
    "address_file": ("/dev/shm/address", "/dev/shm/address"),  # noqa: S108
    "model_stage": ("Production", "Production"),
    "follow": ("models:/iris@champion", "models:/iris@champion"),
    "tracking_uri": ("http://mlflow:5000", "http://mlflow:5000"),
    "tracking_token": ("t", "t"),
    "tracking_username": ("u", "u"),
    "tracking_password": ("p", "p"),
    "tracking_ca_file": ("/ca.pem", "/ca.pem"),
    "tracking_workspace": ("team-a", "team-a"),
    "store": ("/store", Path("/store")),
    "keep_versions": ("7", 7),
    "follow_period_s": ("2.5", 2.5),
    "follow_timeout_s": ("3", 3.0),
    "follow_schema_changes": ("refuse", "refuse"),
    "follow_rollback": ("refuse", "refuse"),
    "download_timeout_s": ("60", 60.0),
    "max_bundle_mb": ("64", 64),
    "sandbox_memory_mb": ("256", 256),
    "sandbox_timeout_s": ("9", 9.0),
    "admin_token": ("secret", "secret"),
    "webhook_secret": ("secret", "secret"),
    "workers": ("3", 3),
    "pin_cpu": ("on", "on"),
    "batch_scheduling": ("off", "off"),
    "coalesce": ("off", "off"),
    "coalesce_above": ("0.5", 0.5),
    "coalesce_delay_ms": ("4.5", 4.5),
    "max_connections": ("77", 77),
    "max_in_flight": ("99", 99),
    "solo_after_ms": ("0.3", 0.3),
    "database_url": ("postgresql://u:p@host/db", "postgresql://u:p@host/db"),
    "database_pooler": ("transaction", "transaction"),
    "database_timeout_s": ("2.5", 2.5),
    "catalog_refresh_s": ("60", 60.0),
    "state": ("/state", Path("/state")),
    "loop": ("asyncio", "asyncio"),
    "backlog": ("512", 512),
    "idle_timeout_s": ("7", 7),
    "connection_buffer_bytes": ("16384", 16384),
    "max_body_bytes": ("1024", 1024),
    "max_bytes_in_flight": ("5000000", 5_000_000),
    "body_timeout_s": ("0.5", 0.5),
    "max_rows": ("5", 5),
    "max_batch_size": ("64", 64),
    "max_queue_size": ("30000", 30000),
    "max_queue_delay_ms": ("1.5", 1.5),
    "queue_timeout_s": ("0.25", 0.25),
    "queue_target_ms": ("50", 50.0),
    "inline_budget_ms": ("0", 0.0),
    "prediction_log": ("true", True),
    "prediction_log_share": ("0.5", 0.5),
    "prediction_log_inputs": ("false", False),
    "prediction_log_spool": ("/spool", Path("/spool")),
    "prediction_log_spool_bytes": ("1048576", 1 << 20),
    "prediction_log_memory_bytes": ("65536", 1 << 16),
    "challengers": ("iris=version:2", "iris=version:2"),
    "bundle_keys": ("keys.pem", "keys.pem"),
    "drain_timeout_s": ("9", 9),
    "predrain_s": ("2.5", 2.5),
    "hot_lane": ("false", False),
    "server_timing": ("true", True),
    "bench_routes": ("true", True),
    "home_page": ("false", False),
    "tls_certificate": ("chain.pem", "chain.pem"),
    "tls_key": ("key.pem", "key.pem"),
    "tls_oldest": ("1.2", "1.2"),
    "api_keys": ("keys.toml", "keys.toml"),
    "log_level": ("warning", "warning"),
    "log_format": ("json", "json"),
}
WRONG: dict[str, list[str]] = {
    "port": ["", "http", "-1", "65536", "80.5", "true", " 80x"],
    "grpc_port": ["", "-1", "65536", "grpc"],
    "admin_port": ["", "-1", "65536", "admin"],
    "tracking_workspace": ["Team A", "-a", "a-", "a\r\nx: y", "a" * 64],
    "follow_schema_changes": ["", "warn", "Refuse"],
    "follow_rollback": ["", "true", "Refuse"],
    "workers": ["-1", "257", "many"],
    "max_connections": ["-1", "1000001"],
    "backlog": ["127", "65536"],
    "idle_timeout_s": ["0", "61", "1.5"],
    "connection_buffer_bytes": ["8191", "8k"],
    "max_body_bytes": ["63", "4MiB"],
    "max_bytes_in_flight": ["-1", "64MB"],
    "body_timeout_s": ["0", "-1", "nan", "inf", "601"],
    "max_rows": ["0", "ten", "1.5", "10_000", "0x10", "+5"],
    "max_batch_size": ["0", "65537"],
    "max_queue_size": ["0"],
    "max_queue_delay_ms": ["-1", "1001", "nan", "inf"],
    "queue_timeout_s": ["0", "nan"],
    "queue_target_ms": ["-1", "nan", "60001"],
    "inline_budget_ms": ["-0.1", "nan"],
    "prediction_log": ["maybe"],
    "prediction_log_share": ["0", "1.1", "nan"],
    "prediction_log_inputs": ["2"],
    "prediction_log_spool_bytes": ["1048575", "1GB"],
    "prediction_log_memory_bytes": ["65535"],
    "drain_timeout_s": ["0", "1801"],
    "predrain_s": ["-1", "601", "nan"],
    "database_pooler": ["", "pgbouncer", "statement"],
    "database_timeout_s": ["0", "601", "nan"],
    "catalog_refresh_s": ["0", "86401", "inf"],
    "hot_lane": ["maybe", "2"],
    "pin_cpu": ["true"],
    "batch_scheduling": ["maybe"],
    "server_timing": ["2"],
    "bench_routes": ["2"],
    "home_page": ["2"],
    "tls_oldest": ["1.1"],
    "log_level": ["loud", "INFO", ""],
    "log_format": ["xml"],
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`halfcore` with these arguments and nothing else that configures it."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((PREFIX, *SEED_NAMES.values()))
    }
    clean["HALFCORE_BUNDLES"] = "/nowhere"  # so that a start that is wrongly allowed ends too
    command = [sys.executable, "-m", "halfcore", *arguments]
    return subprocess.run(
        command,
        env=clean | {"COLUMNS": "1000"} | environment,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_this_table_names_every_setting() -> None:
    """A new setting is tested too."""
    assert set(OTHER) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_comes_from_its_variable_or_its_flag_and_the_flag_wins(name: str) -> None:
    """Flag before variable before default."""
    text, value = OTHER[name]
    variable = PREFIX + name.upper()
    needs = {"DATABASE_URL": "postgresql://a"} if name == "prediction_log" else {}
    assert DEFAULTS[name] != value

    assert getattr(load({}), name) == DEFAULTS[name]
    assert getattr(load(needs | {variable: text}), name) == value
    assert getattr(load(needs, {name: text}), name) == value
    assert (
        getattr(load(needs | {variable: str(DEFAULTS[name]).lower()}, {name: text}), name) == value
    )
    assert (
        getattr(load(needs | {variable: text}, {name: str(DEFAULTS[name]).lower()}), name)
        == DEFAULTS[name]
    )


@pytest.mark.parametrize(("name", "seed"), SEED_NAMES.items())
def test_the_names_that_teams_already_use_count_least(name: str, seed: str) -> None:
    """MODEL_NAME and MODEL_STAGE are read, HALFCORE_… wins over them, a flag over both."""
    variable = PREFIX + name.upper()
    a, b, c = (
        ("postgresql://a", "postgresql://b", "postgresql://c") if name == "database_url" else "abc"
    )

    assert getattr(load({seed: a}), name) == a
    assert getattr(load({seed: a, variable: b}), name) == b
    assert getattr(load({seed: a, variable: b}, {name: c}), name) == c


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in WRONG.items() for text in texts]
)
def test_a_wrong_value_is_refused_by_name(name: str, text: str) -> None:
    """The message names the variable or the flag, the value, and what the setting means."""
    for origin, flags, environment in (
        (PREFIX + name.upper(), {}, {PREFIX + name.upper(): text}),
        (flag(name), {name: text}, {}),
    ):
        with pytest.raises(SettingsError) as raised:
            load(environment, flags)

        message = str(raised.value)
        assert message.startswith(f"{origin}={text!r}: ")
        assert descriptions()[name] in message
        assert "\n" not in message


def test_what_a_setting_may_be_is_named() -> None:
    """The values of a choice in its meaning, which help and page show, and in the error, with the
    one that is meant; the bounds of a number in the error."""
    for name, kind in get_type_hints(Settings).items():
        if get_origin(kind) is Literal:
            for value in get_args(kind):
                assert re.search(rf"(?<!\w){value}(?!\w)", descriptions()[name]), (name, value)
    for variable, text, says in (
        ("LOG_LEVEL", "inof", "expected one of debug, info, warning, error; did you mean info?"),
        ("LOG_LEVEL", "WARNING", "did you mean warning?"),
        ("PIN_CPU", "true", "expected one of auto, on, off ("),
        ("HOT_LANE", "off", "expected one of true, false ("),
        ("WORKERS", "many", "expected a whole number from 0 to 256 ("),
        ("BODY_TIMEOUT_S", "5s", "expected a number above 0, at most 600, without a unit ("),
        ("COALESCE_DELAY_MS", "nan", "expected a number from 0 to 100 ("),
        ("MAX_BODY_BYTES", "64MB", "to 1073741824, without a unit ("),
        ("MAX_ROWS", "10 rows", "from 1 to 10000000, without a unit ("),
    ):
        with pytest.raises(SettingsError) as raised:
            load({PREFIX + variable: text})
        assert f"{PREFIX}{variable}={text!r}: expected " in str(raised.value)
        assert says in str(raised.value)


@pytest.mark.parametrize("text", ["1e+06", "1000000.0", "1000000"])
def test_a_whole_number_may_be_written_as_templates_write_it(text: str) -> None:
    """Helm renders a large number of its values as 1e+06."""
    assert load({"HALFCORE_MAX_BODY_BYTES": text}).max_body_bytes == 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_white_space_around_a_value_does_not_count(name: str) -> None:
    """An env file with trailing blanks, or with the line ends of Windows."""
    text, value = OTHER[name]
    environ = {"DATABASE_URL": "postgresql://", PREFIX + name.upper(): f" {text}\t\r"}

    assert getattr(load(environ), name) == value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_value_in_quotes_is_refused_with_the_reason(name: str, quote: str) -> None:
    """As `docker run --env-file` passes them on: a host, a token or a path in quotes would fail
    later, for a reason that nobody sees."""
    text = f"{quote}{OTHER[name][0]}{quote}"
    with pytest.raises(SettingsError, match=r"is in quotes.*remove them.*--env-file") as raised:
        load({PREFIX + name.upper(): text})

    assert str(raised.value).startswith(PREFIX + name.upper())
    assert (text in str(raised.value) or repr(text) in str(raised.value)) is (name not in SECRETS)


def test_the_path_of_a_secret_in_quotes_is_refused_with_the_reason() -> None:
    """The same of the file that a `_FILE` variable names."""
    with pytest.raises(SettingsError, match=r"^DATABASE_URL_FILE=.*is in quotes.*remove them"):
        load({"DATABASE_URL_FILE": '"/run/secrets/url"'})


@pytest.mark.parametrize("name", ["HALFCORE_PROT", "HALFCORE_", "HALFCORE_port", "HALFCORE_PORT_"])
def test_an_unknown_variable_stops_the_start(name: str) -> None:
    """A misspelt setting is not silently ignored."""
    with pytest.raises(SettingsError, match=f"^{name} is not a setting"):
        load({name: "1"})


def test_more_rows_than_the_queue_holds_stop_the_start() -> None:
    """A request that can never be accepted is a contradiction, not a 503 for ever."""
    with pytest.raises(SettingsError, match=r"max_rows=30.*max_queue_size=20"):
        load({"HALFCORE_MAX_ROWS": "30", "HALFCORE_MAX_QUEUE_SIZE": "20"})


@pytest.mark.parametrize("variable", ["HALFCORE_DATABASE_URL", "DATABASE_URL"])
def test_a_secret_may_stand_in_a_file(variable: str, tmp_path: Path) -> None:
    """As container secrets do; a file that cannot be read, or a second source, stops the start."""
    file = tmp_path / "secret"
    file.write_text("postgresql://u:s3cret@host/db\n")

    assert load({f"{variable}_FILE": str(file)}).database_url == "postgresql://u:s3cret@host/db"
    with pytest.raises(SettingsError, match=f"^{variable}_FILE='/nowhere': No such file"):
        load({f"{variable}_FILE": "/nowhere"})
    with pytest.raises(SettingsError, match=f"^{variable} and {variable}_FILE are both set"):
        load({f"{variable}_FILE": str(file), variable: "postgresql://"})


@pytest.mark.parametrize("url", ["mysql://u:s3cret@host/db", "u:s3cret@host", "s3cret"])
def test_a_wrong_secret_is_not_shown(url: str) -> None:
    """The message names the variable and what was expected, not the value."""
    with pytest.raises(
        SettingsError, match=r"^DATABASE_URL: its value is not shown, expected postgresql://"
    ) as raised:
        load({"DATABASE_URL": url})

    assert "s3cret" not in str(raised.value)


def test_a_log_without_a_database_stops_the_start() -> None:
    """It would drop every prediction."""
    with pytest.raises(SettingsError, match="prediction_log needs database_url"):
        load({"HALFCORE_PREDICTION_LOG": "true"})


def test_a_challenger_that_cannot_be_read_stops_the_start() -> None:
    """With the part that is wrong and the form that was expected."""
    with pytest.raises(
        SettingsError, match=r"^challengers='iris=version:2;mode=loud': 'mode=loud'.*mode=shadow"
    ):
        load({"HALFCORE_CHALLENGERS": "iris=version:2;mode=loud"})


def test_other_variables_are_ignored() -> None:
    """Only HALFCORE_… and the seeds' names are read."""
    assert load({"PORT": "1", "HOST": "x", "HALFCORED": "1"}) == Settings()


@pytest.mark.parametrize(
    ("environ", "command_line", "expected"),
    [
        ({"HALFCORE_CANARY_TIMEOUT_S": "9"}, [], 9.0),
        ({}, ["--canary-timeout-s=9"], 9.0),
        ({"HALFCORE_CANARY_TIMEOUT_S": "9", "HALFCORE_SANDBOX_TIMEOUT_S": "8"}, [], 8.0),
    ],
    ids=["a variable", "a flag", "both names"],
)
def test_an_old_name_is_read_and_reported(
    environ: dict[str, str], command_line: list[str], expected: float
) -> None:
    """For one release; the new name wins."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    settings = from_command_line(list(vars(parser.parse_args(command_line)).items()), environ)
    assert settings.sandbox_timeout_s == expected
    ((old, new),) = renamed(command_line, environ)
    assert "canary" in old.lower()
    assert new == old.replace("canary", "sandbox").replace("CANARY", "SANDBOX").partition("=")[0]


def test_help_names_every_setting_with_default_and_variable() -> None:
    """`halfcore serve --help` is the reference."""
    finished = run("serve", "--help")
    text = " ".join(finished.stdout.split())

    assert finished.returncode == 0
    for name in NAMES:
        default = str(DEFAULTS[name]) or "empty"
        seed = f", {SEED_NAMES[name]}" if name in SEED_NAMES else ""
        if name in SECRETS:
            variables = f"{PREFIX}{name.upper()}{seed} (or a file named by ..._FILE)"
            assert f"{variables}: {descriptions()[name]}" in text
            assert flag(name) not in text
            continue
        assert (
            f"{flag(name)} VALUE {descriptions()[name]} (default: {default}; environment: "
            f"{PREFIX}{name.upper()}{seed})"
        ) in text


def test_a_wrong_setting_ends_the_process_with_one_line(tmp_path: Path) -> None:
    """The start stops before anything listens, and the last word is the setting's."""
    for arguments, environment, says in (
        (["--port", "http"], {}, "--port='http'"),
        ([], {"HALFCORE_WORKERS": "-1"}, "HALFCORE_WORKERS='-1'"),
        ([], {"DATABASE_URL": "postgresql://u:s3/cret@host/db"}, "an @ in a wrong place"),
        (
            [],
            {
                "DATABASE_URL": "postgresql://u:s3cret@host/db?sslmode=verify-full",
                "HOME": "/no/home",
            },
            (
                "as sslrootcert=/PATH/root.crt in the URL or in PGSSLROOTCERT, or put it at "
                "/no/home/.postgresql/root.crt"
            ),
        ),
        ([], {"HALFCORE_PROT": "1"}, "HALFCORE_PROT is not a setting; did you mean HALFCORE_PORT?"),
        (["--bundles", str(tmp_path / "none")], {}, "No such file or directory"),
        (["--bundles", str(Path(__file__))], {}, "not a directory"),
        (["--colour", "red"], {}, "--colour"),
        (["--por", "1"], {}, "--por"),
    ):
        finished = run("serve", *arguments, **environment)

        assert finished.returncode == 2, finished
        assert says in finished.stderr
        assert "Traceback" not in finished.stderr
        assert "cret" not in finished.stderr
        assert finished.stdout == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("serv",), "invalid choice: 'serv' (choose from"),
        (("serv",), "did you mean serve?"),
        (("serve", "--max-batchsize", "3"), "did you mean --max-batch-size?"),
        (("serve", "--max-batchsize=3"), "did you mean --max-batch-size?"),
        (("serve", "--prot", "80"), "did you mean --port?"),
        (("predict", "--modle", "iris", "a.csv"), "unrecognized arguments: --modle"),
        (("serve", "--qqqq", "80"), "unrecognized arguments: --qqqq 80\n"),
    ],
)
def test_a_wrong_word_of_the_command_line_is_answered_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    says: str,
) -> None:
    """If one is like it; exit code 2."""
    monkeypatch.setattr("sys.argv", ["halfcore", *words])

    with pytest.raises(SystemExit) as ended:
        command_line()

    assert ended.value.code == 2
    assert says in capsys.readouterr().err
