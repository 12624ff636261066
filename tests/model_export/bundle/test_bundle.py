"""A bundle is on disk whole or not at all, and what was there before stays until then."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from model_export.bundle import write as bundle
from model_export.bundle.write import require_writable
from model_export.errors import InfrastructureError

OLD, NEW = b"the old graph", b"the new graph"


def manifest_of(model: bytes, **fields: Any) -> dict[str, Any]:
    """As much of a manifest as writing needs."""
    return {
        "name": "birds",
        "version": "1",
        "onnx": {"sha256": hashlib.sha256(model).hexdigest()},
        **fields,
    }


def visible(root: Path) -> dict[str, tuple[bytes, Any]]:
    """What a reader sees: every folder without a dot, whole."""
    folders = [f for f in sorted((root / "birds").glob("*")) if not f.name.startswith(".")]
    return {
        f.name: ((f / "model.onnx").read_bytes(), json.loads((f / "manifest.json").read_text()))
        for f in folders
    }


def test_a_bundle_is_named_after_version_and_graph(tmp_path: Path) -> None:
    """VERSION-SHA8, with both files and nothing else."""
    path = bundle.write(tmp_path / "new" / "store", manifest_of(NEW), NEW)

    assert path.name == "1-" + hashlib.sha256(NEW).hexdigest()[:8]
    assert sorted(file.name for file in path.iterdir()) == ["manifest.json", "model.onnx"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


STEPS = ["open:model.onnx", "open:manifest.json", "fsync", "rename"]


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_leaves_the_old_bundle_whole(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disk full, Ctrl-C, a crash of the filesystem: the old bundle is all that is seen, and nothing
    is left behind."""
    bundle.write(tmp_path, manifest_of(OLD), OLD)
    before = visible(tmp_path)
    with monkeypatch.context() as broken:
        _break(broken, step)
        with pytest.raises(OSError, match="no space"):
            bundle.write(tmp_path, manifest_of(NEW), NEW)

    assert visible(tmp_path) == before
    assert len(list((tmp_path / "birds").iterdir())) == 1


def _break(patch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise OSError(28, "no space left on device")

    kind, _, name = step.partition(":")
    if kind == "open":
        honest = Path.open
        patch.setattr(
            Path,
            "open",
            lambda path, *a, **k: fail() if path.name == name else honest(path, *a, **k),
        )
    elif kind == "fsync":
        patch.setattr(os, "fsync", fail)
    else:
        patch.setattr(Path, "rename", fail)


def test_a_kill_between_the_files_leaves_nothing_that_a_reader_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is not yet renamed has a name that begins with a dot."""
    seen: list[list[str]] = []
    honest = bundle.write_flushed

    def watch(path: Path, content: bytes) -> None:
        honest(path, content)
        seen.append(
            [
                folder.name
                for folder in (tmp_path / "birds").iterdir()
                if not folder.name.startswith(".")
            ]
        )

    monkeypatch.setattr(bundle, "write_flushed", watch)
    bundle.write(tmp_path, manifest_of(NEW), NEW)

    assert seen == [[], []]


def test_a_new_export_of_a_version_replaces_the_old_one(tmp_path: Path) -> None:
    """Other versions, and names that only look alike, stay."""
    bundle.write(tmp_path, manifest_of(OLD), OLD)
    other = bundle.write(tmp_path, manifest_of(OLD, version="12"), OLD)
    newest = bundle.write(tmp_path, manifest_of(NEW), NEW)

    assert set(visible(tmp_path)) == {other.name, newest.name}


def test_the_same_graph_again_replaces_the_manifest_only(tmp_path: Path) -> None:
    """The folder stays where it is; a reader sees the old manifest or the new one."""
    path = bundle.write(tmp_path, manifest_of(NEW, created_at="1"), NEW)
    inode = (path / "model.onnx").stat().st_ino
    bundle.write(tmp_path, manifest_of(NEW, created_at="2"), NEW)

    assert visible(tmp_path)[path.name][1]["created_at"] == "2"
    assert (path / "model.onnx").stat().st_ino == inode
    assert len(list(path.iterdir())) == 2


def test_a_manifest_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second write fails; the first is still whole."""
    bundle.write(tmp_path, manifest_of(NEW, created_at="1"), NEW)
    before = visible(tmp_path)
    with monkeypatch.context() as broken:
        _break(broken, "fsync")
        with pytest.raises(OSError, match="no space"):
            bundle.write(tmp_path, manifest_of(NEW, created_at="2"), NEW)

    assert visible(tmp_path) == before


def test_a_damaged_graph_is_repaired(tmp_path: Path) -> None:
    """An export over a truncated bundle makes it whole."""
    path = bundle.write(tmp_path, manifest_of(NEW), NEW)
    (path / "model.onnx").write_bytes(NEW[:3])
    bundle.write(tmp_path, manifest_of(NEW), NEW)

    assert visible(tmp_path)[path.name][0] == NEW


def test_what_a_killed_export_left_is_removed_later(tmp_path: Path) -> None:
    """After an hour, when no export can still be writing it; a fresh one is another export's."""
    bundle.write(tmp_path, manifest_of(NEW), NEW)
    stale, fresh = tmp_path / "birds" / ".1-0badf00d.x", tmp_path / "birds" / ".1-0badf00d.y"
    stale.mkdir()
    fresh.mkdir()
    os.utime(stale, (1.0, 1.0))
    bundle.write(tmp_path, manifest_of(NEW), NEW)

    assert not stale.exists()
    assert fresh.exists()


def test_only_a_finished_bundle_exists(tmp_path: Path) -> None:
    """`exists` looks for manifests, as a reader does."""
    (tmp_path / "birds" / ".1-0badf00d.x").mkdir(parents=True)
    (tmp_path / "birds" / ".1-0badf00d.x" / "manifest.json").write_text("{}")
    assert not bundle.exists(tmp_path, "birds")

    bundle.write(tmp_path, manifest_of(NEW), NEW)
    assert bundle.exists(tmp_path, "birds")


def test_a_folder_is_seen_to_be_writable_without_making_it(tmp_path: Path) -> None:
    """A refused export leaves nothing behind, not even the folder."""
    require_writable(tmp_path / "out" / "bundles")
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_no_folder_can_be_made_is_one_sentence(tmp_path: Path) -> None:
    """With the folder that was asked for; here a file is in its way."""
    (tmp_path / "out").write_text("a file")
    with pytest.raises(
        InfrastructureError, match=rf"^cannot write to {tmp_path}/out/bundles: Not a directory$"
    ):
        require_writable(tmp_path / "out" / "bundles")
