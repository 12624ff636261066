"""What bash does with signals where a recipe runs a command and then another."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from support.walks.catalogue import ROOT, recipes

COMMAND = """
import signal, sys, time
def end(*_):
    print("asked to end", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print("runs", flush=True)
while True:
    time.sleep(60)
"""
SCRIPT = f"""
set -euo pipefail
source {ROOT}/loadlab/signals.sh
$2
status=0
passing python3 -c "$1" || status=$?
echo "ended with $status"
"""
AT_ONCE = """
kill() {
    builtin kill "$@"
    while [ -d "/proc/$passing_id" ]; do :; done
}
"""
"""The command has ended before bash goes on."""


@pytest.mark.parametrize("ends", ["", AT_ONCE], ids=["later", "at once"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command_and_its_end_is_awaited(number: int, ends: str) -> None:
    """Whichever it is: the command cleans up, and its exit code is kept; no line about jobs."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("ignored here, as under nohup, and so in bash")
    with subprocess.Popen(
        ["bash", "-c", SCRIPT.replace("$2", ends), "bash", COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        assert shell.stdout
        assert shell.stdout.readline() == "runs\n"
        shell.send_signal(number)
        said = shell.stdout.read()
    assert said == "asked to end\nended with 7\n"
    assert shell.returncode == 0


def test_no_measurement_is_left_running_by_its_recipe() -> None:
    """Where bash goes on after it; a command that is the last one replaces bash."""
    waiting = {name for name, body in recipes().items() if "passing uv run loadlab" in body}
    assert waiting >= {"search", "bench", "bench-protocols", "peers"}
    for name, body in recipes().items():
        if "#!/usr/bin/env bash" in body:
            short = re.sub(r"uv run loadlab (render|\w+ --dry-run)", "", body)
            assert "\n    uv run loadlab " not in short, name
    assert "passing uv run loadlab load" in (Path(ROOT) / "loadlab/smoke.sh").read_text()
