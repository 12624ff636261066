"""Containers without an engine: a `docker` that is played by a script; and what is read back of any
server when its load is over."""

import http.server
import json
import os
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from loadlab.record import cgroup
from loadlab.record.cgroup import Limits, Usage
from loadlab.record.schema import Replica
from loadlab.report.page import provenance
from loadlab.target import containers
from loadlab.target.process import CannotStart
from loadlab.target.serving import Asked, BackendFailed, Serving
from loadlab.target.tiers import Tier
from loadlab.verdict.rules import judge_rules
from support.runs import LIMITS, Made, fresh

TIER = Tier(name="half-core", cpus=0.5, memory_bytes=256 << 20, image="halfcore:test")
REVISION = "org.opencontainers.image.revision"
DOCKER = """#!/bin/sh
echo "$*" >> "$PLAYED/asked"
case "$*" in
    compose*" up "*) if [ -e "$PLAYED/refuses" ]; then echo "no room" >&2; exit 1; fi ;;
    compose*" ps --quiet half-core") echo one ;;
    compose*" ps --quiet balancer") echo "no such service" >&2; exit 1 ;;
    run*) echo one ;;
    "image inspect"*) echo '{"'"$PORT"'/tcp": {}}' ;;
    inspect*) cat "$PLAYED/inspect" ;;
    cp*) for last; do :; done; cp -r "$PLAYED/iris" "$last" ;;
esac
"""


class Ready(http.server.BaseHTTPRequestHandler):
    """Answers 200."""

    def do_GET(self):
        """Ready at once."""
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server(monkeypatch):
    """What listens in the container."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(containers, "_PORT", server.server_port)
    monkeypatch.setattr(cgroup, "of_process", lambda pid: cgroup.Group(str(pid), 2))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def played(tmp_path, monkeypatch, server):
    """A folder of what the engine answers; `asked` is what it was asked."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    for version, created_at in (("1", "2026-01-01"), ("2", "2026-02-01")):
        (tmp_path / "iris" / version).mkdir(parents=True)
        found = json.dumps({"created_at": created_at, "version": version})
        (tmp_path / "iris" / version / "manifest.json").write_text(found)
    monkeypatch.setenv("PLAYED", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    label(tmp_path, {})
    return tmp_path


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit, and that commit."""
    root = tmp_path / "checkout"
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "one"], check=True)
    asked = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return root, asked.stdout.strip()


def label(played, labels):
    """Have the container carry labels."""
    state = {"Pid": os.getpid()}
    networks = {"Networks": {"front": {"IPAddress": "127.0.0.1"}}}
    found = {
        "State": state,
        "NetworkSettings": networks,
        "Image": "sha256:abc",
        "Config": {"Labels": labels},
    }
    (played / "inspect").write_text(json.dumps([found]))


def test_a_tier_is_started_asked_and_taken_down(played, checkout, server):
    """The replica is its own door, the newest bundle is the one that is served."""
    with containers.compose(TIER, "iris", checkout[0]) as serving:
        assert serving.addresses == [("127.0.0.1", server.server_port)]
        assert serving.pids == [os.getpid()]
        assert serving.path == "/predict"
        assert serving.manifest is not None
        assert serving.manifest["version"] == "2"
        assert (serving.details["image"], serving.details["image_id"]) == (TIER.image, "sha256:abc")
        assert serving.details["balancer"] == "none"
        assert serving.ended() == ""

    asked = (played / "asked").read_text().splitlines()
    assert "up --detach --no-build" in asked[0]
    assert asked[-1].endswith("down --timeout 10 --volumes")


def test_what_docker_refuses_is_quoted_and_taken_down(played, checkout):
    """Its last line."""
    (played / "refuses").touch()
    with (
        pytest.raises(CannotStart, match="half-core: no room"),
        containers.compose(TIER, "iris", checkout[0]),
    ):
        pass
    assert " down " in (played / "asked").read_text().splitlines()[-1]


def test_a_model_that_the_image_lacks_is_named(played, checkout):
    """Not a traceback."""
    (played / "iris").rename(played / "gone")
    with (
        pytest.raises(BackendFailed, match="model=iris: the image has no such model"),
        containers.compose(TIER, "iris", checkout[0]),
    ):
        pass


def details_of(checkout):
    """Of a run with the played engine."""
    with containers.compose(TIER, "iris", checkout) as serving:
        return serving.details


def test_an_image_of_the_checkout_is_recorded_by_revision_and_version(played, checkout):
    """Nothing has to be said."""
    root, commit = checkout
    label(played, {REVISION: commit, "org.opencontainers.image.version": "1.2.3"})

    details = details_of(root)

    assert (details["image_revision"], details["image_version"]) == (commit, "1.2.3")
    assert "image_source" not in details


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({REVISION: "0" * 40}, "The image is of commit 000000000000, the checkout of "),
        ({REVISION: "unknown"}, "not known which code was measured: the image has no label"),
        ({}, "not known which code was measured: the image has no label"),
    ],
)
def test_an_image_of_another_commit_is_said(played, checkout, labels, says):
    """In the record's details, which the report lists."""
    label(played, labels)

    made = fresh()
    made.run.details |= details_of(checkout[0])

    assert says in dict(provenance(made.run))["image_source"]


def test_an_image_gets_the_tiers_limits_and_nothing_else(played, checkout, server, monkeypatch):
    """No settings; of the golden rows only the label counts; and it is removed."""
    from support.bundles import write_bundle

    write_bundle(played / "bundles", "iris", model=None)
    monkeypatch.setenv("PORT", str(server.server_port))
    order = Asked(
        tier=TIER, model="iris", users=1, backend="compose", target="", service="image", image="x:1"
    )
    with containers.image(order, checkout[0], bundles=played / "bundles", cpus="0") as serving:
        assert serving.addresses == [("127.0.0.1", server.server_port)]
        assert serving.details == {
            "image_id": "sha256:abc",
            "service": "image x:1",
            "image": "x:1",
        }
        assert serving.manifest is not None
        assert {key for each in serving.manifest["golden"] for key in each} == {"row", "prediction"}

    asked = (played / "asked").read_text().splitlines()
    (run,) = [each for each in asked if each.startswith("run ")]
    assert set(run.split()) >= {
        "--pull=never",
        "--memory=268435456",
        "--memory-swap=268435456",
        "--cpu-period=100000",
        "--cpu-quota=50000",
        "--cpuset-cpus=0",
        "--no-healthcheck",
    }
    assert asked[-1] == "rm --force --volumes one"


class Counted:
    """Stands in for a control group."""

    def __init__(self, limits, cpu_s):
        self._limits, self._cpu_s = limits, cpu_s

    def limits(self):
        """In force."""
        if self._limits is None:
            raise FileNotFoundError
        return self._limits

    def processes(self):
        """None is inside."""
        return []

    def usage(self):
        """So far."""
        return Usage(cpu_s=self._cpu_s)


def test_limits_and_cpu_time_are_read_back_after_the_load():
    """And which processes have left the group. Of a container that has ended there is nothing to
    read."""
    replicas = [Replica(limits=LIMITS, processes_inside=1, processes_outside=0)] * 2
    groups = [Counted(LIMITS, 7.5), Counted(None, 0.0)]
    serving = Serving(addresses=[("127.0.0.1", 1)], groups=groups, pids=[os.getpid()] * 2)

    first, second = serving.read_back(replicas, [5.0, 5.0])

    assert (first.limits_at_end, first.cpu_used_s) == (LIMITS, 2.5)
    assert first.processes_outside >= 1  # this test's own process
    assert second.processes_outside == 0
    assert (second.limits_at_end, second.cpu_used_s) == (None, None)


def v11(made: Made, **changes):
    """The rule's findings with changed replicas."""
    made.run.replicas = [msgspec.structs.replace(each, **changes) for each in made.run.replicas]
    (finding,) = [each for each in judge_rules(made.log()) if each.rule == "V11"]
    return finding


@pytest.mark.parametrize(
    ("limits", "cpu_s", "broken"),
    [
        (LIMITS, 3.0, []),
        (Limits(cpus=1.0, memory_bytes=LIMITS.memory_bytes), 3.0, ["with other limits at the end"]),
        (LIMITS, 0.0, ["that used no CPU"]),
    ],
)
def test_limits_that_were_changed_and_a_group_without_work_break_v11(limits, cpu_s, broken):
    """A limit may be lifted during a run, and a group may be the wrong one."""
    finding = v11(fresh(), limits_at_end=limits, cpu_used_s=cpu_s)

    assert [each.what for each in finding.checks if not each.holds] == [
        f"replicas {each}" for each in broken
    ]
    assert len(finding.checks) == 6


def test_a_record_from_before_the_second_reading_is_judged_as_it_was():
    """By the four checks that there were."""
    assert [each.what for each in v11(fresh()).checks] == [
        "replicas away from the tier",
        "replicas with other limits",
        "server processes outside",
        "replicas without a process",
    ]


def test_without_a_docker_one_sentence_says_so(monkeypatch):
    """Before anything is started."""
    monkeypatch.setenv("PATH", "")
    assert containers.no_container(Path(), TIER.image) == "docker is not installed"
