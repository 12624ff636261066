"""Peers: other model servers, each in an environment of its own, and halfcore in one that has
nothing else. `loadlab/peers/NAME` has a peer's program and its locked packages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path

import msgspec

from loadlab.target.process import CannotStart, Command, free_port
from loadlab.target.programs import Case, clean_environment, halfcore

PEERS = Path("loadlab/peers")
ENVIRONMENTS = Path(".halfcore/peers")
"""Where the environments are installed, from the checkout's root."""
OURS = "halfcore"
PYTHON = "3.11"
"""Of every peer's environment: the version that their packages are locked for."""
_LOCK = "requirements.txt"
"""Packages with hashes; a copy lies in the environment that was installed from it."""
_PACKAGES = {"triton": "nvidia-pytriton"}
"""The package that is the peer, where it has another name."""
_SPARE_PORTS = 2


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """A peer's environment, as it is installed."""

    version: str = ""
    """Of the peer."""
    packages: int = 0
    bytes: int = 0
    """Of all files of its packages, without compiled bytecode and without Python itself."""
    reason: str = ""
    """Why it could not be installed."""


def python(root: Path, name: str) -> Path:
    """A peer's interpreter."""
    return root / ENVIRONMENTS / name / "bin/python"


def install(root: Path, name: str) -> Environment:
    """Install a peer's packages as locked, which takes minutes where nothing is cached; a failure
    is a result, and is said in `reason`."""
    locked, kept = root / PEERS / name / _LOCK, root / ENVIRONMENTS / name / _LOCK
    if name != OURS and kept.exists() and kept.read_bytes() == locked.read_bytes():
        return _describe(root, name)
    environment = clean_environment() | {"UV_PROJECT_ENVIRONMENT": str(ENVIRONMENTS / name)}
    environment.pop("VIRTUAL_ENV", None)
    for words in _steps(root, name):
        done = subprocess.run(  # noqa: S603  our own words
            words, cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = " ".join(done.stderr.split())[-300:]
            return Environment(reason=f"its environment cannot be installed: {said}")
    if name != OURS:
        shutil.copyfile(locked, kept)
    return _describe(root, name)


def _steps(root: Path, name: str) -> list[list[str]]:
    """Commands; bytecode is compiled, so that no first start has to do it."""
    if name == OURS:
        # As the image installs it; built again, for the sources may have changed.
        words = ["uv", "sync", "--quiet", "--frozen", "--no-dev", "--no-editable"]
        words += ["--compile-bytecode", "--reinstall-package", name, "--package", name]
        return [[*words, "--python", sys.executable]]
    interpreter, where = str(python(root, name)), str(ENVIRONMENTS / name)
    sync = ["uv", "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"]
    return [
        ["uv", "venv", "--quiet", "--clear", "--python", PYTHON, where],
        [*sync, "--python", interpreter, str(PEERS / name / _LOCK)],
    ]


def _describe(root: Path, name: str) -> Environment:
    (site,) = (root / ENVIRONMENTS / name).glob("lib/python*/site-packages")
    found = {each.name: each.version for each in distributions(path=[str(site)])}
    files = (file.stat() for file in site.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return Environment(
        version=found.get(_PACKAGES.get(name, name), ""),
        packages=len(found),
        bytes=sum(file.st_size for file in files),
    )


def command(
    root: Path,
    name: str,
    served: Case,
    port: int,
    *,
    scratch: Path,
    settings: str,
    ours: Mapping[str, str],
) -> Command:
    """Serves one model on `port` of 127.0.0.1.

    What a peer has to make of the bundle before it can start is made here, once for each model.
    `settings`: which of a peer's; `ours`: those of halfcore. Raises `process.CannotStart`.
    """
    interpreter = str(python(root, name))
    if name == OURS:
        found = halfcore(scratch, served.bundle.parent.parent, port, ours)
        return replace(found, arguments=[interpreter, *found.arguments[1:]])
    folder = root / PEERS / name
    saved = scratch / f"{name}-{served.model}-{settings}"
    environment = clean_environment() | {
        "PATH": f"{Path(interpreter).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": f"{root / PEERS / 'common'}{os.pathsep}{folder}",
        "PEER_BUNDLE": str(served.bundle),
        "PEER_MODEL": served.model,
        "PEER_PORT": str(port),
        "PEER_SPARE_PORTS": ",".join(str(free_port()) for _ in range(_SPARE_PORTS)),
        "PEER_SAVED": str(saved),
        "PEER_SETTINGS": settings,
    }
    environment.pop("VIRTUAL_ENV", None)
    if (prepare := folder / "prepare.py").exists() and not saved.exists():
        words = [interpreter, str(prepare)]
        done = subprocess.run(  # noqa: S603  our own words
            words, cwd=scratch, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            shutil.rmtree(saved, ignore_errors=True)
            raise CannotStart(f"prepare.py failed: {done.stderr.strip()[-300:]}")
    return Command([interpreter, str(folder / "serve.py")], environment, scratch, "")
