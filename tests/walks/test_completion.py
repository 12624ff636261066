"""`completion SHELL` of each program, in real shells: Tab completes commands, flags, values and
files."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import halfcore.__main__
import loadlab.__main__
import model_export.__main__

PROGRAMS: dict[str, Callable[[], object]] = {
    "halfcore": halfcore.__main__.main,
    "loadlab": loadlab.__main__.main,
    "model-export": model_export.__main__.main,
}
CASES = [
    ("halfcore", "mig", {"migrate"}),
    ("halfcore", "serve --bund", {"--bundles", "--bundle-keys"}),
    ("halfcore", "serve --bundles tra", {"trained"}),
    ("halfcore", "predict --out-format p", {"parquet"}),
    ("halfcore", "predict --jso", {"--json"}),
    ("halfcore", "completion ", {"bash", "zsh", "fish"}),
    ("model-export", "export --dtype float3", {"float32"}),
    ("model-export", "watch --heart", {"--heartbeat"}),
    ("model-export", "healthy tra", {"trained"}),
    ("loadlab", "his", {"history"}),
    ("loadlab", "report --st", {"--store"}),
]
BASH = """
source {script}
function=$(complete -p {program} | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
COMP_LINE='{program} {typed}' COMP_POINT=${{#COMP_LINE}}
COMP_WORDS=({program} {typed}{last}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
"$function"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def completion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str], Path]:
    """A file with what a program prints for a shell, next to a folder called trained."""
    (tmp_path / "trained").mkdir()

    def write(program: str, shell: str) -> Path:
        monkeypatch.setattr(sys, "argv", [program, "completion", shell])
        assert not PROGRAMS[program]()
        file = tmp_path / f"{program}.{shell}"
        file.write_text(capsys.readouterr().out)
        return file

    return write


def offered(*command: str, folder: Path) -> set[str]:
    """The words that a shell offers; it must not complain."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return {line.partition("\t")[0].rstrip("/") for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize(("program", "typed", "expected"), CASES)
def test_bash_completes(
    completion: Callable[[str, str], Path], program: str, typed: str, expected: set[str]
) -> None:
    """What Tab offers at the end of the line, in the bash of this machine."""
    file = completion(program, "bash")
    last = "''" if typed.endswith(" ") else ""
    script = BASH.format(script=file, program=program, typed=typed, last=last)
    found = offered("bash", "--norc", "-c", script, folder=file.parent)
    assert found == expected


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("program", "typed", "expected"), CASES)
def test_fish_completes(
    completion: Callable[[str, str], Path], program: str, typed: str, expected: set[str]
) -> None:
    """The same in fish."""
    file = completion(program, "fish")
    script = f"source {file}; complete --do-complete '{program} {typed}'"
    found = offered("fish", "--no-config", "-c", script, folder=file.parent)
    assert expected <= found


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize("program", PROGRAMS)
def test_zsh_takes_the_completion(completion: Callable[[str, str], Path], program: str) -> None:
    """From a folder of $fpath it is that of the program, and zsh can read it."""
    file = completion(program, "zsh")
    file.rename(file.with_name(f"_{program}"))
    script = f"""
fpath=({file.parent} $fpath); autoload -U compinit; compinit -D
autoload +X _{program} && print ${{_comps[{program}]}}"""
    found = offered("zsh", "--no-rcs", "-c", script, folder=file.parent)
    assert found == {f"_{program}"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_only_completion_imports_its_library(program: str) -> None:
    """`--help` and every other command start as fast as without it."""
    module = f"{program.replace('-', '_')}.__main__"
    script = (
        f"import sys; sys.argv[1:] = ['--help']; import {module} as it\n"
        "try: it.main()\nexcept SystemExit: pass\n"
        "assert 'shtab' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
