"""`just publish`, rehearsed against a registry of this machine."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.containers import (
    ANSWER,
    ROOT,
    SERVER,
    Compose,
    ask,
    await_ready,
    container,
    docker,
    inspect,
    until,
)
from support.serving import free_port

REGISTRY = os.environ.get("REGISTRY_IMAGE", "registry:2")


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """An empty registry; its address."""
    port = free_port()
    name = docker("run", "-d", "-p", f"127.0.0.1:{port}:5000", REGISTRY)
    try:
        until(lambda: _answers(port), "the registry does not answer")
        yield f"127.0.0.1:{port}"
    finally:
        docker("rm", "-f", "-v", name)


def _answers(port: int) -> bool:
    try:
        return ask(port, "/v2/", None)[0] == 200
    except OSError:
        return False


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clean clone of this working tree, with what is changed in it committed there."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for file in filter(None, files):
        if (ROOT / file).is_file():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, tmp_path / file)
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "As it is"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def publish(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `just publish …` there."""
    return subprocess.run(
        ["just", "publish", *arguments], cwd=where, capture_output=True, text=True, timeout=380
    )


def can_attest() -> bool:
    """Whether this machine's builder makes attestations."""
    return re.search(r"^Driver:\s+docker$", docker("buildx", "inspect"), re.MULTILINE) is None


def test_what_was_published_is_pulled_and_answers(clone: Path, registry: str) -> None:
    """Under its version and as latest, with the commit that it was built from."""
    attest = "yes" if can_attest() else "no"
    arguments = (
        f"namespace={registry}/halfcore",
        "tag=9.9.9",
        "targets=server",
        f"platforms={_own_platform()}",
        f"attest={attest}",
        "source=https://host.example/owner/halfcore",
    )
    result = publish(clone, *arguments)
    assert result.returncode == 0, result.stderr[-4000:]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout.strip()
    for tag in ("9.9.9", "latest"):
        image = f"{registry}/halfcore/halfcore:{tag}"
        docker("rmi", "-f", image, check=False)
        docker("pull", image)
        labels = inspect(image)["Config"]["Labels"]
        assert labels["org.opencontainers.image.version"] == "9.9.9"
        assert labels["org.opencontainers.image.revision"] == commit
        source = labels["org.opencontainers.image.source"]
        assert source == "https://host.example/owner/halfcore"
        with container(image=image) as (_, port):
            await_ready(port)
            assert ask(port) == (200, ANSWER)
        docker("rmi", "-f", image)


def test_compose_pulls_what_was_published_and_builds_nothing_in_its_place(
    clone: Path, registry: str
) -> None:
    """With NAMESPACE and TAG: the registry's image runs, and a version that is not there is an
    error."""
    image = f"{registry}/team/halfcore:8.8.8"
    docker("tag", SERVER, image)
    docker("push", image)
    docker("rmi", image)
    with Compose("half-core", NAMESPACE=f"{registry}/team", TAG="8.8.8") as compose:
        compose("up", "--wait", "--no-build")
        (name,) = compose.containers("half-core")
        assert inspect(name)["Config"]["Image"] == image
        assert ask(compose.port) == (200, ANSWER)
    docker("rmi", image)
    with Compose("half-core", NAMESPACE=f"{registry}/team", TAG="8.8.9") as compose:
        said = compose("up", "--wait", "--no-build", check=False)
        assert compose.containers("half-core") == []
    assert "8.8.9" in said
    assert docker("images", "-q", f"{registry}/team/halfcore:8.8.9") == ""


def _own_platform() -> str:
    return docker("version", "--format", "{{.Server.Os}}/{{.Server.Arch}}")


def test_a_tree_with_changes_is_refused(clone: Path, registry: str) -> None:
    """A tag names what a commit says."""
    (clone / "README.md").write_text("changed")
    result = publish(clone, f"namespace={registry}/halfcore", "tag=9.9.9")
    assert result.returncode == 2
    assert "not committed" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tag=1.2.3"], "namespace= is missing"),
        (["namespace=a", "tag=newest"], "tag='newest'"),
        (["namespace=a", "tag=1.2.3", "plattform=x"], "unknown 'plattform=x'"),
        (["namespace=a", "tag=1.2.3", "attest=maybe"], "attest='maybe'"),
    ],
)
def test_a_wrong_order_is_refused(clone: Path, arguments: list[str], says: str) -> None:
    """With what is wrong, before anything is built."""
    result = publish(clone, *arguments)
    assert result.returncode == 2
    assert says in result.stderr


def test_a_platform_that_cannot_be_built_is_refused(clone: Path) -> None:
    """Before anything is built, and with what to do about it."""
    result = publish(clone, "namespace=a", "tag=1.2.3", "platforms=linux/none", "attest=no")
    assert result.returncode == 3
    assert "linux/none" in result.stderr
