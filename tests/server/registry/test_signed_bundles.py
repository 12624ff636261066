"""A server with public keys that follows a registry: which versions it serves, and what it says of
the others; with `refuse`, no older bundle replaces a newer one, also over a restart."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.fake_registry import FakeRegistry, fake_registry
from support.serving import Server, serving, starting
from support.signing import make_key, sign
from support.versions import write_version

DAYS = {number: f"2026-01-0{number}T00:00:00Z" for number in range(1, 6)}


def offer(registry: FakeRegistry, root: Path, private: Path | None, *, made: str = "") -> str:
    """Register the next version and point the alias at it."""
    number = len(registry.versions.get("numbers", {})) + 1
    path = write_version(root, number, changes={"created_at": made or DAYS[number]})
    if private:
        sign(path, private)
    version = registry.publish(path)
    registry.point("numbers", version)
    return version


def following(server: Server) -> dict[str, Any]:
    """What the server says of the registry."""
    answer = httpx.get(f"http://127.0.0.1:{server.port}/models/numbers").json()
    return answer["following"]["champion"]  # type: ignore[no-any-return]


def until_served(server: Server, version: str) -> None:
    """Wait for a version."""
    deadline = time.monotonic() + 90
    while (following(server)["served"] or {}).get("version") != version:
        assert time.monotonic() < deadline, following(server)
        time.sleep(0.02)


def refusal(server: Server, version: str) -> dict[str, Any]:
    """Wait until a version is refused."""
    deadline = time.monotonic() + 90
    while (found := following(server)["refused"] or {}).get("version") != version:
        assert time.monotonic() < deadline, following(server)
        time.sleep(0.02)
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("copied", [False, True])
def test_only_signed_versions_are_served(tmp_path: Path, copied: bool) -> None:
    """Neither an unsigned one nor one signed by another key; the served one stays."""
    private, public = make_key(tmp_path / "keys")
    stranger, _ = make_key(tmp_path / "stranger")
    with fake_registry() as registry:
        offer(registry, tmp_path / "good", private)
        with serving(
            tmp_path / "none",
            store=tmp_path / "store",
            tracking_uri=registry.url,
            follow="models:/numbers@champion",
            follow_period_s=0.1,
            bundle_keys=public,
        ) as server:
            until_served(server, "1")
            found = refusal(server, offer(registry, tmp_path / "unsigned", None))
            assert found["code"] == "signature"
            assert found["reason"].startswith("it has no signature")
            found = refusal(server, offer(registry, tmp_path / "strange", stranger))
            assert found["code"] == "signature"
            assert "no key in HALFCORE_BUNDLE_KEYS" in found["reason"]
            if copied:  # somebody copies the good tags to another version
                registry.versions["numbers"]["4"] = dict(registry.versions["numbers"]["1"])
                registry.point("numbers", "4")
                assert refusal(server, "4")["code"] == "other_version"
            else:
                until_served(server, offer(registry, tmp_path / "next", private))


def test_no_older_bundle_replaces_a_newer_one(tmp_path: Path) -> None:
    """Neither while the server runs nor after a restart; the old version exported again does."""
    private, public = make_key(tmp_path / "keys")
    settings: dict[str, Any] = {
        "store": tmp_path / "store",
        "follow": "models:/numbers@champion",
        "follow_period_s": 0.1,
        "follow_rollback": "refuse",
        "bundle_keys": public,
    }
    with fake_registry() as registry:
        settings["tracking_uri"] = registry.url
        offer(registry, tmp_path / "one", private)
        with serving(tmp_path / "none", **settings) as server:
            until_served(server, "1")
            until_served(server, offer(registry, tmp_path / "two", private))
            registry.point("numbers", "1")
            found = refusal(server, "1")
            assert found["code"] == "rollback"
            assert found["reason"].startswith(f"it was made at {DAYS[1]}, before the served one")
        with serving(tmp_path / "none", **settings) as server:
            assert refusal(server, "1")["code"] == "rollback"
            assert following(server)["served"]["version"] == "2"
            again = offer(registry, tmp_path / "again", private, made=DAYS[5])
            until_served(server, again)


def test_bundles_in_a_folder(tmp_path: Path) -> None:
    """The newest signed one is served, and the refusal of the newer one is shown."""
    private, public = make_key(tmp_path / "keys")
    root = tmp_path / "bundles"
    sign(write_version(root, 1, changes={"created_at": DAYS[1]}), private)
    write_version(root, 2, changes={"created_at": DAYS[2]})
    with serving(root, bundle_keys=public) as server:
        health = httpx.get(f"http://127.0.0.1:{server.port}/health").json()
        assert health["models"]["numbers"]["version"] == "1", health
        assert "it has no signature" in str(health)


def test_a_file_of_keys_that_cannot_be_used(tmp_path: Path) -> None:
    """The start ends with a message that names the setting."""
    file = tmp_path / "missing.pem"
    with starting(tmp_path, bundle_keys=file) as server:
        _, errors = server.process.communicate(timeout=90)
    assert server.process.returncode == 2
    assert f"bundle_keys={str(file)!r}: No such file or directory" in errors
