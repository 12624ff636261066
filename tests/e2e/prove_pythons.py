"""`just prove-pythons`: the packages on every Python that their classifiers name.

For each of them: does a package index have wheels of everything that the packages and their extras
need? And for each that is installed on this machine: every package in an empty environment of its
own; the exporter exports a model, the server serves and answers as the model does, and mypy checks
a user's file. What is installed is the newest that the packages allow, as pip does; with `--short`
it is what uv.lock names, on one other Python. Versions as arguments choose some.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.proof import ROOT, Check, begin, conclude
from support.serving import request, serving

PACKAGES = {
    "server": ("halfcore", ("grpc", "parquet", "ray")),
    "model_export": ("halfcore-export", ("s3", "catboost", "lightgbm", "xgboost")),
    "loadlab": ("halfcore-loadlab", ("answers",)),
}
"""Each with its distribution's name and its extras."""
ROW = [6.3, 3.3, 6.0, 2.5]
TRAIN = f"""
import sys
import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

rows, labels = load_iris(return_X_y=True, as_frame=True)
model = LogisticRegression(max_iter=1000).fit(rows, labels)
mlflow.sklearn.save_model(model, sys.argv[1], input_example=rows.head(100))
print("label", model.predict([{ROW}])[0])
"""
USERS = {
    "server": """
from pathlib import Path

from halfcore.bundle import Manifest, read_manifest


def columns(folder: Path) -> list[str]:
    manifest: Manifest = read_manifest(folder)
    return [column.name for column in manifest.inputs]
""",
    "model_export": """
from model_export.errors import ExportError

shown: type[Exception] = ExportError
""",
    "loadlab": """
from loadlab.verdict.judge import Verdict

judged: type = Verdict
""",
}
"""A user's file for each: with a package that is not typed, `mypy --strict` refuses its imports."""


class Failed(Exception):
    """A command failed; the message has its name and its last lines."""


class Plan(NamedTuple):
    """What is installed, and where."""

    wheels: dict[str, Path]
    folder: Path
    constraints: Path | None
    """Versions that are installed; None: the newest ones."""


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="default: all; 3.13")
    parser.add_argument("--short", action="store_true", help="one other Python, locked versions")
    asked = parser.parse_args()
    short = asked.short
    console = Console()
    begun = begin(console)
    versions = [each for each in supported() if each in (asked.versions or supported())]
    found = {version: interpreter(version) for version in versions}
    chosen = other(found) if short else [version for version in versions if found[version]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = Plan(built(folder / "wheels"), folder, locked(folder) if short else None)
        checks = [wheels_of(version, plan) for version in (versions[-1:] if short else versions)]
        checks += [tried(version, str(found[version]), plan) for version in chosen]
        for version in (version for version in versions if not found[version]):
            console.print(f"Python {version} is not installed on this machine: it is not tried")
            if chosen:
                checks.append(typed_for(version, plan.folder / chosen[-1]))
    title = "the packages on every Python"
    return conclude(begun, "pythons", title, checks, {"interpreters": found}, console=console)


def supported() -> list[str]:
    """The Python versions that the classifiers name, the oldest first."""
    project = tomllib.loads((ROOT / "server/pyproject.toml").read_text())["project"]
    return [one.rpartition(" ")[2] for one in project["classifiers"] if ":: 3." in one]


def interpreter(version: str) -> str | None:
    """The program of a Python version; None where none is installed."""
    foreign = ("UV_PYTHON", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in foreign}
    command = ["uv", "python", "find", "--no-project", "--no-python-downloads", version]
    done = subprocess.run(
        command, env=environment | {"PATH": searched(version)}, capture_output=True, text=True
    )
    return done.stdout.strip() or None


def searched(version: str) -> str:
    """Where to look: first pyenv's folders, whose programs in the path may be for another
    version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin"))]
    return os.pathsep.join([*folders, os.environ["PATH"]])


def other(found: dict[str, str | None]) -> list[str]:
    """The newest Python that is installed and is not the one that runs this."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [version for version, path in found.items() if path and version != running][-1:]


def built(folder: Path) -> dict[str, Path]:
    """The packages' wheels, as `just packages` builds them."""
    spec = importlib.util.spec_from_file_location("packages", ROOT / ".ci/packages.py")
    assert spec is not None
    assert spec.loader is not None
    packages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(packages)
    for package, (name, _) in PACKAGES.items():
        packages.build(ROOT / package, folder.parent / f"{package}-copy", "", folder / name)
    return {package: next((folder / name).glob("*.whl")) for package, (name, _) in PACKAGES.items()}


def locked(folder: Path) -> Path:
    """The versions of uv.lock, as constraints."""
    file = folder / "locked.txt"
    flags = ("--frozen", "--all-packages", "--all-extras", "--no-emit-workspace", "--no-hashes")
    run("uv", "export", *flags, "--quiet", "--output-file", file)
    return file


def constrained(plan: Plan) -> Sequence[str | Path]:
    """Flags of uv for the versions that are installed."""
    return () if plan.constraints is None else ("--constraint", plan.constraints)


def wheels_of(version: str, plan: Plan) -> Check:
    """Whether everything that the packages and their extras need can be installed on a Python
    version without a compiler; that needs no such Python."""
    counts = []
    for package, (name, extras) in PACKAGES.items():
        wanted = plan.folder / f"{name}-{version}.in"
        wanted.write_text(f"{name}[{','.join(extras)}] @ {plan.wheels[package].as_uri()}\n")
        flags = ("--python-version", version, "--only-binary", ":all:", "--no-header", "--quiet")
        try:
            text = run("uv", "pip", "compile", *flags, *constrained(plan), wanted)
        except Failed as error:
            return Check(f"{version}: wheels", f"{name}: {error}", "of all that is needed", False)
        others = re.findall(r"^[\w.-]+==", text, re.MULTILINE)
        counts.append(f"{name} {len(others)}")
    return Check(f"{version}: wheels", ", ".join(counts), "of all that is needed", True)


def tried(version: str, python: str, plan: Plan) -> Check:
    """Use the packages on a Python that is installed."""
    folder = plan.folder / version
    folder.mkdir()
    name = f"{version}: use"
    allowed = "export, serve, answer, types"
    try:
        programs = {each: installed(each, python, folder, plan) for each in PACKAGES}
        for package, bin_ in programs.items():
            checked_types(package, bin_, folder)
        run(programs["loadlab"] / "loadlab", "--help")
        label = exported(programs["model_export"], folder)
        answer = served(programs["server"], folder / "bundles")
    except (Failed, AssertionError) as error:
        return Check(name, str(error)[-600:], allowed, False)
    if str(answer) != label:
        return Check(name, f"the server answers {answer}, the model {label}", allowed, False)
    return Check(name, f"{full_version(python)}: all", allowed, True)


def installed(package: str, python: str, folder: Path, plan: Plan) -> Path:
    """A package and mypy in a new environment; the folder of its programs."""
    name, extras = PACKAGES[package]
    if package == "model_export":
        extras = ()  # hundreds of megabytes, whose wheels were looked for above
    environment = folder / name
    run("uv", "venv", "--quiet", "--python", python, environment)
    wheel = plan.wheels[package].as_uri()
    chosen = ",".join(extra for extra in extras if extra != "ray")  # the same
    target = environment / "bin/python"
    flags = ("--quiet", "--only-binary", ":all:", "--python", target, *constrained(plan))
    run("uv", "pip", "install", *flags, f"{name}[{chosen}] @ {wheel}", "mypy")
    return environment / "bin"


def typed_for(version: str, folder: Path) -> Check:
    """The types as a Python reads them that is not here, in the environments of another one."""
    name, allowed = f"{version}: types", "accepted"
    try:
        for package, (environment, _) in PACKAGES.items():
            bin_ = folder / environment / "bin"
            checked_types(package, bin_, folder, "--python-version", version)
    except Failed as error:
        return Check(name, str(error)[-600:], allowed, False)
    return Check(name, f"accepted, in the environments of {folder.name}", allowed, True)


def checked_types(package: str, bin_: Path, folder: Path, *flags: str) -> None:
    """mypy accepts a user's file."""
    file = folder / f"user_of_{package}.py"
    file.write_text(USERS[package])
    run(bin_ / "mypy", "--strict", *flags, "--cache-dir", os.devnull, file, folder=folder)


def exported(bin_: Path, folder: Path) -> str:
    """Train a model and export it with its proof; returns the label that it gives to ROW."""
    model = folder / "model"
    label = run(bin_ / "python", "-c", TRAIN, model, folder=folder).split()[-1]
    flags = ("--name", "flowers", "--out", "bundles", "--gate-rows", "1000")
    run(bin_ / "model-export", "export", model, *flags, folder=folder)
    return label


def served(bin_: Path, bundles: Path) -> object:
    """The server's label of ROW."""
    python = str(bin_ / "python")
    with serving(bundles, wrap=lambda command: [python, *command[1:]]) as server:
        answer = server.send(request("/predict", json.dumps({"features": ROW}).encode()))
    if b" 200 " not in answer[:20]:
        raise Failed(f"/predict answered {answer.decode(errors='replace')}")
    return json.loads(answer.partition(b"\r\n\r\n")[2])["prediction"]


def full_version(python: str) -> str:
    """Such as 3.12.1."""
    return run(python, "-c", "import platform; print(platform.python_version())").strip()


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """What a command prints.

    Raises:
        Failed: it ended with another exit code than 0.
    """
    foreign = ("VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if key not in foreign}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-500:]
        raise Failed(f"{Path(command[0]).name} {command[1]}: {said}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
