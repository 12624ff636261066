"""The justfile's recipes that take words: `--help` explains and starts nothing, and a wrong word is
refused with what was expected."""

import os
import re
import shutil
import subprocess

import pytest

from support.walks.catalogue import ROOT, recipes

pytestmark = pytest.mark.skipif(shutil.which("just") is None, reason="just is not installed")
_HELPED = sorted(name for name, body in recipes().items() if "{{ help }}" in body)


def typed(*words: str) -> subprocess.CompletedProcess[str]:
    """`just` with these words, where no program of the project can be started."""
    return subprocess.run(
        ["just", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"UV_OFFLINE": "1", "UV_PROJECT": "/nowhere"},
    )


@pytest.mark.parametrize("name", _HELPED)
def test_a_recipe_without_a_program_s_help_shows_its_comment(name: str) -> None:
    """With its parameters; nothing is started and no file is changed."""
    done = typed(name, "--help")
    assert done.returncode == 0, done.stderr
    usage, _, says = done.stdout.partition("\n\n")
    assert usage.startswith(f"usage: just {name} ")
    comment = says.strip()
    assert len(comment) > 40
    assert f"# {comment}\n" in (ROOT / "justfile").read_text()


def test_no_recipe_takes_help_for_a_value() -> None:
    """Each passes all its words to one program, looks for `--help` first, or says what it takes."""
    odd = []
    for name, text in recipes().items():
        head, _, body = text.partition("\n")
        commands = [line for line in re.findall(r"^    (.*)$", body, re.M) if "render" not in line]
        passes = len(commands) == 1 and (
            commands[0].endswith('"$@"') or commands[0].endswith("{{ flags }}")
        )
        if head.strip(": ") and ":" in head and re.match(r" [*\w]", head):
            looks = '" --help "*' in body or "{{ help }}" in body
            if not passes and not looks:
                odd.append(name)
    assert not odd


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("version", "1.2"), "expected nothing, or one version such as 1.2.3"),
        (("version", "v1.2.3"), "expected nothing, or one version such as 1.2.3"),
        (("version", "1.2.3", "1.2.4"), "expected nothing, or one version such as 1.2.3"),
        (("image", "serve"), "unknown 'serve', expected one of: "),
        (("site", "build"), "expected nothing, or serve and a port"),
        (("prove-fuzz", "long"), "seconds is 'long', expected a whole number"),
        (("prove-properties", "0"), "times is '0', expected a whole number"),
        (("load-worker", "remote=2"), "unknown 'remote=2', expected the master's address"),
        (("load-worker", "--master", "10.1.2.3"), "as in just load-worker master=10.1.2.3"),
        (("load-worker", "--master=10.1.2.3"), "as in just load-worker master=10.1.2.3"),
        (("load-worker", "10.0.0.7:5557"), "expected the master's address alone"),
    ],
)
def test_a_wrong_word_of_a_recipe_is_refused(words: tuple[str, ...], says: str) -> None:
    """With 2, before anything is done."""
    done = typed(*words)
    assert done.returncode == 2, done
    assert says in done.stderr
