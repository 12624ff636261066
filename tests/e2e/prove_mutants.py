"""Mutation testing of the batcher and of admission by mutmut: `just prove-mutants`. Each of some
hundred small changes of their code must make a test fail; at least 90 % must.

Works on a copy in .halfcore/mutants. Changes that no test can notice are listed with their reasons
in tests/support/equivalent_mutants.toml, and are not counted.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.proof import ROOT, Check, begin, conclude

BAR = 0.9
SCRATCH = ROOT / ".halfcore/mutants"
EQUIVALENT = ROOT / "tests/support/equivalent_mutants.toml"
PARTS = {
    "pipeline/batcher": "tests/server/pipeline/test_batcher.py",
    "pipeline/jobs": "tests/server/pipeline/test_batcher.py",
    "predict/admission": "tests/server/predict/test_admission.py",
}
"""Module below halfcore → its tests."""
KILLED = ("killed", "timeout", "segfault")
"""A change that makes a test wait without end is noticed too."""
_CONFIGURATION = """
[project]
name = "mutants"
version = "0"
[tool.mutmut]
source_paths = ["src/halfcore"]
only_mutate = {modules}
pytest_add_cli_args_test_selection = {tests}
also_copy = ["tests"]
timeout_multiplier = 5.0
timeout_constant = 5.0
use_git_change_detection = false
[tool.pytest.ini_options]
addopts = ["--import-mode=importlib", "-p", "no:schemathesis", "-p", "no:xdist"]
pythonpath = ["tests"]
asyncio_mode = "auto"
timeout = 20
markers = ["slow: takes many seconds"]
"""


def prepare(parts: dict[str, str]) -> None:
    """Copy code and tests, and configure mutmut."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    shutil.copytree(ROOT / "server/src/halfcore", SCRATCH / "src/halfcore")
    for folder in ("server/pipeline", "server/predict", "support"):
        shutil.copytree(ROOT / "tests" / folder, SCRATCH / "tests" / folder)
    modules = [f"src/halfcore/{part}.py" for part in parts]
    configuration = _CONFIGURATION.format(modules=modules, tests=sorted(set(parts.values())))
    (SCRATCH / "pyproject.toml").write_text(configuration)


def mutmut(*arguments: str) -> str:
    """Run mutmut on the copy; its output."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        command, cwd=SCRATCH, env=environment, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        last = (done.stdout + done.stderr).strip()[-2000:]
        sys.exit(f"prove-mutants: mutmut {arguments[0]} failed: {last}")
    return done.stdout


def outcomes() -> dict[str, str]:
    """Mutant → what became of it."""
    found = re.findall(r"^\s*(\S+mutmut_\d+): ([\w ]+)$", mutmut("results", "--all", "true"), re.M)
    return dict(found)


def changed_line(mutant: str) -> str:
    """The line that a mutant has in place of another one."""
    lines = mutmut("show", mutant).splitlines()
    added = [line[1:].strip() for line in lines if line.startswith("+") and line[1:2] != "+"]
    return " ".join(added)


def main() -> int:
    """Run; 0 if enough mutants are killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2, help="that run tests at a time")
    parser.add_argument("--part", choices=list(PARTS), help="only this module")
    flags = parser.parse_args()
    console = Console()
    begun = begin(console)
    prepare({flags.part: PARTS[flags.part]} if flags.part else PARTS)
    mutmut("run", "--max-children", str(flags.processes))
    found = outcomes()
    listed = {one["line"] for one in tomllib.loads(EQUIVALENT.read_text())["equivalent"]}
    alive = {mutant: changed_line(mutant) for mutant, how in found.items() if how not in KILLED}
    survived = {mutant: line for mutant, line in alive.items() if line not in listed}
    for mutant, line in survived.items():
        console.print(f"{mutant} ({found[mutant]}): {line}", markup=False, soft_wrap=True)
    counted = len(found) - (len(alive) - len(survived))
    share = 1 - len(survived) / counted if counted else 0.0
    check = Check(
        "mutants killed",
        f"{counted - len(survived)} of {counted} ({share:.1%})",
        f"at least {BAR:.0%}",
        share >= BAR,
    )
    figures = {
        "outcomes": Counter(found.values()),
        "equivalent": len(alive) - len(survived),
        "survived": survived,
    }
    return conclude(
        begun, "mutants", "mutants of batcher and admission", [check], figures, console=console
    )


if __name__ == "__main__":
    sys.exit(main())
