"""`halfcore serve`: the command line."""

import os
import signal

if os.getpid() == 1:
    # The kernel drops a signal that process 1 does not handle, and `docker stop` would wait for its
    # whole grace period. The images have an init as process 1; this handler is for a container
    # whose command is `halfcore` itself.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))

import argparse
import asyncio
import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from halfcore import __version__, challenger_spec, command_line, healthcheck, host
from halfcore.bundle_search import survey
from halfcore.log import configure, logger
from halfcore.postgres.database import Database, DatabaseError, check, place
from halfcore.predict.keys import KeysError, new_key
from halfcore.problem import listed
from halfcore.process import checks, signals
from halfcore.process.notices import warnings
from halfcore.registry import sources
from halfcore.settings.arguments import renamed
from halfcore.settings.completion import script
from halfcore.settings.groups import Settings
from halfcore.settings.parser import did_you_mean
from halfcore.settings.reading import SettingsError, from_command_line, load

if TYPE_CHECKING:
    from halfcore.process import sizing

_MIGRATION_TIMEOUT_S = 600.0
"""Of a statement: long, because a migration may wait for another run, or fill a large table."""


def main() -> None:
    """Run the command line; exits 2 on a wrong setting."""
    if sys.argv[1:2] == ["predict"]:
        from halfcore.offline.command import predict  # late: a server does not need it

        predict(sys.argv[2:])
    run(command_line.parser().parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for; exits 2 on a wrong setting."""
    try:
        if arguments.command == "completion":
            from halfcore.offline.command import add_arguments as late  # no other command needs it

            whole = script(command_line.parser(), arguments.shell, {"predict": late})
            print(whole)  # noqa: T201  its output
            return
        if arguments.command == "migrate":
            migrate(load(os.environ), as_json=arguments.json)
            return
        if arguments.command == "key":
            make_key(arguments.name, arguments.models, arguments.rate)
            return
        given = [item for item in vars(arguments).items() if item[0] != "command"]
        settings = checks.checked(from_command_line(given, os.environ))
    except (SettingsError, DatabaseError, KeysError) as error:
        # A command line writes to its terminal
        print(f"halfcore: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    _serve(settings)


def _serve(settings: Settings) -> None:
    """Fit the server to its limits, log how, and serve until SIGTERM or SIGINT."""
    signals.ignore_others()
    host.return_memory_soon()
    from halfcore.process import serve  # late: granian; the other commands start sooner

    log_config = configure(level=settings.log_level, form=settings.log_format)
    for old, new in renamed(sys.argv[1:], os.environ):
        logger.warning("%s is an old name, which the next release does not read: use %s", old, new)
    plan = _plan(settings)
    logger.info(
        "halfcore %s on %s://%s",
        __version__,
        "https" if settings.tls_certificate else "http",
        healthcheck.url(settings.host, settings.port),
    )
    logger.info("open %s in a browser to try the models", page_url(settings))
    if settings.admin_port:
        logger.info(
            "metrics, administration and health on %s",
            healthcheck.url(settings.host, settings.admin_port),
        )
    for reason in plan.reasons:
        logger.info(reason)
    for warning in [*plan.warnings, *warnings(settings), *unwritable(settings)]:
        logger.warning(warning)
    if settings.address_file:
        write_address(settings)
    serve.serve(settings, plan, log_config)


def page_url(settings: Settings) -> str:
    """The address of the server's page for a browser on this machine."""
    # A browser cannot open the address that stands for all addresses
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    path = "/" if settings.home_page else "/docs"
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{healthcheck.url(address, settings.port)}{path}"


def _plan(settings: Settings) -> "sizing.Plan":
    from halfcore.process import sizing  # late, as above

    return sizing.plan(
        workers=settings.workers,
        max_connections=settings.max_connections,
        pin=settings.pin_cpu,
        batch_scheduling=settings.batch_scheduling,
        max_in_flight=settings.max_in_flight,
        bytes_in_flight=settings.max_bytes_in_flight,
        max_body_bytes=settings.max_body_bytes,
        coalesce=settings.coalesce,
        coalesce_delay_s=settings.coalesce_delay_ms / 1000,
        quota=host.cpu_quota(),
        cpus=len(os.sched_getaffinity(0)),
        memory_limit=host.memory_limit(),
        raise_open_files=host.open_files,
        model_bytes=_model_bytes(settings),
    )


def make_key(name: str, models: str | None, per_second: float | None = None) -> None:
    """Make an API key: the entry goes to standard output, the key to standard error.

    Args:
        name: of whoever gets it.
        models: that it may ask, between commas; None: all.
        per_second: most requests; None: without limit.

    Raises:
        KeysError: the name, a model's name or the rate is wrong.
    """
    wanted = [] if models is None else [model.strip() for model in models.split(",")]
    if not all(wanted):
        raise KeysError(
            f"--models is {models!r}, expected names of models between commas; leave it out for a "
            "key that may ask all"
        )
    key, entry = new_key(name, wanted, per_second)
    for warning in _not_served(wanted):
        print(f"halfcore: warning: {warning}", file=sys.stderr)  # noqa: T201  as below
    print(entry, end="")  # noqa: T201  a command line writes to its terminal
    print(f"the API key of {name}, which is not shown again: {key}", file=sys.stderr)  # noqa: T201


def _not_served(models: list[str]) -> list[str]:
    """Sentences about models that a server with these settings would not have. None if there are
    no models here: the server may be elsewhere."""
    try:
        settings = load(os.environ)
        served = [followed.name for followed in sources.parse(settings.follow)]
    except (SettingsError, ValueError):  # a key needs no settings; `serve` says what is wrong
        return []
    served += survey(settings.bundles).bundles
    return [
        f"there is no model {model!r} here, and the key may ask it once it is served; found "
        f"{listed(sorted(served))}{did_you_mean(model, served)}"
        for model in models
        if served and model not in served
    ]


def migrate(settings: Settings, *, as_json: bool = False) -> None:
    """Bring the schema of the database up to date, and print what was applied, as lines or, at the
    end, as JSON.

    Raises:
        SettingsError: no database is set, or its schema contradicts the files.
        DatabaseError: it cannot be reached, or a file failed.
    """
    from halfcore.postgres.migrate import MigrationError, read  # late: a server does not need it
    from halfcore.postgres.migrate import migrate as apply

    configure(level="error", form="text")  # an error is printed once, at the end

    applied: list[str] = []

    def say(name: str) -> None:
        applied.append(name)
        if not as_json:
            print(f"applied {name}")  # noqa: T201  a command line writes to its terminal

    async def run() -> None:
        database = Database(
            settings.database_url,
            pooler=settings.database_pooler,
            timeout_s=settings.database_timeout_s,
            statement_timeout_s=_MIGRATION_TIMEOUT_S,
        )
        try:
            await apply(database, read(), say=say)
        finally:
            await database.close()

    if not settings.database_url:
        raise SettingsError("database_url is empty, expected HALFCORE_DATABASE_URL or DATABASE_URL")
    check(settings.database_url)
    try:
        asyncio.run(run())
    except MigrationError as error:
        raise SettingsError(str(error)) from None
    except DatabaseError as error:
        raise DatabaseError(
            f"cannot migrate the database at {place(settings.database_url)}: {error}; see that its "
            "URL is right and that it accepts writes, and run the command again"
        ) from None
    end = f"{len(applied)} applied, the schema is up to date"
    # A command line writes to its terminal
    print(json.dumps({"applied": applied}) if as_json else end)  # noqa: T201


def unwritable(settings: Settings) -> list[str]:
    """What is wrong with the directories that this server will write to, so that the log says it at
    the start and not at the first swap."""
    follows = settings.follow or "models:" in settings.challengers
    wanted = {
        "store": follows,
        "state": settings.database_url,
        "prediction_log_spool": settings.prediction_log,
    }
    return [
        f"{name} {getattr(settings, name)}: {problem}"
        for name, used in wanted.items()
        if used and (problem := host.not_writable(getattr(settings, name)))
    ]


def write_address(settings: Settings) -> None:
    """Write the address for the health check, which does not know the command line's flags."""
    try:
        healthcheck.write_address(
            settings.address_file,
            settings.host,
            settings.port,
            tls=bool(settings.tls_certificate),
        )
    except OSError as error:
        logger.warning(
            "address_file %s cannot be written: %s; the health check uses HALFCORE_HOST and "
            "HALFCORE_PORT",
            settings.address_file,
            error.strerror,
        )


def _model_bytes(settings: Settings) -> int:
    """Bytes of model files that will be in memory, at most: of each model one version, or two if
    a version challenges another; of a followed model twice the largest known one, because a swap
    holds two."""
    sizes: dict[str, list[int]] = {}
    for file in settings.bundles.glob("*/*/model.onnx"):
        with suppress(OSError):  # a folder that cannot be read is reported when it is loaded
            sizes.setdefault(file.parts[-3], []).append(file.stat().st_size)
    specs = challenger_spec.parse(settings.challengers)
    challenged = {spec.name for spec in specs if spec.source.startswith("version:")}
    static = sum(
        sum(sorted(versions)[-2 if name in challenged else -1 :])
        for name, versions in sizes.items()
    )
    followed = [settings.store / one.name for one in sources.parse(settings.follow)]
    return static + sum(
        2 * max((file.stat().st_size for file in folder.glob("*/model.onnx")), default=0)
        for folder in followed
    )


if __name__ == "__main__":
    main()
