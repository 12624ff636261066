"""A real browser without a window and without a network: what it says of a page."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-sync",
    "--enable-logging=stderr",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


@dataclass(frozen=True)
class Seen:
    """What happened while a page was open."""

    console: list[str]
    """What the page, or the browser about it, wrote to the console."""
    addresses: set[str]
    """Everything that the page wanted from elsewhere: addresses of the page's own requests."""
    picture: Path


def found() -> str | None:
    """The browser of this machine, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def needed() -> str | None:
    """The same for a command: if there is none, a sentence on standard error says what to do."""
    if (program := found()) is None:
        sys.stderr.write(
            f"no browser was found, expected one of {', '.join(NAMES)}: install Debian's package "
            "chromium\n"
        )
    return program


def look(
    browser: str,
    page: Path,
    scratch: Path,
    *,
    size: tuple[int, int] = (1000, 3600),
    dark: bool = False,
) -> Seen:
    """Open a page, wait until it has loaded, and take its picture."""
    picture, log = scratch / "page.png", scratch / "net.json"
    flags = [
        f"--user-data-dir={scratch / 'profile'}",
        f"--window-size={size[0]},{size[1]}",
        f"--screenshot={picture}",
        f"--log-net-log={log}",
    ]
    if dark:
        flags.append("--blink-settings=preferredColorScheme=0")
    done = subprocess.run(
        [browser, *_QUIET, *flags, page.as_uri()], capture_output=True, text=True, timeout=90
    )
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(console, _addresses(log), picture)


def settled(browser: str, page: Path, scratch: Path) -> str:
    """The page's elements once its scripts have run, as text."""
    flags = [f"--user-data-dir={scratch / 'profile'}", "--dump-dom"]
    return subprocess.run(
        [browser, *_QUIET, *flags, page.as_uri()], capture_output=True, text=True, timeout=90
    ).stdout


def _addresses(log: Path) -> set[str]:
    """What was asked for on behalf of a page: the browser's own errands carry no initiator."""
    text = log.read_text()
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:  # the browser did not close the list
        events = [
            json.loads(line.rstrip(","))
            for line in text.splitlines()
            if re.fullmatch(r"\{\"(params|phase|source|time|type).*\},?", line)
        ]
    asked = [
        event["params"]
        for event in events
        if isinstance(event.get("params"), dict) and "url" in event["params"]
    ]
    return {
        each["url"]
        for each in asked
        if each.get("initiator", "not an origin") not in ("not an origin", "")
    } - {""}
