"""Blocks on disk: whatever is torn off a segment's end, what stood before it is read as it was
written."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfcore.prediction_log import spool as module
from halfcore.prediction_log.blocks import Block, Challenged, days, encode, split
from halfcore.prediction_log.spool import Contents, Directory, Spool, SpoolFull, Unreadable
from support.examples import examples
from support.predictions import IRIS, WRITER, Manifest, Model, block, entry, rows_of

A, B = UUID(int=1), UUID(int=2)
ROOMY = 1 << 30


def open_spool(root: Path, writer: UUID = A, *, most_bytes: int = ROOMY) -> Spool:
    """A spool of this process."""
    return Spool(root, writer=writer, most_bytes=most_bytes)


def replay(spool: Spool) -> list[tuple[UUID, Block]]:
    """All blocks in the order in which they would be written, removed as they are read."""
    found = []
    while (oldest := spool.oldest()) is not None:
        directory, segment = oldest
        contents = directory.read(segment)
        found += [(directory.writer, block) for block in contents.blocks]
        directory.remove(segment, sum(block.rows for block in contents.blocks))
    return found


# -- blocks ----------------------------------------------------------------------------------------


def test_a_row_says_what_was_asked_and_answered() -> None:
    """Every column, with its bytes; what there was not is null."""
    (row,) = rows_of(encode([entry(7, request_id="mine")], writer=WRITER, first=40, inputs=True))

    assert int.from_bytes(row["at"]) == (1_700_000_007 - 946_684_800) * 1_000_000
    assert (row["writer"], int.from_bytes(row["row_number"]), int.from_bytes(row["row_count"])) == (
        WRITER,
        40,
        1,
    )
    assert (row["request_id"], row["model"], row["version"], row["role"]) == (
        b"mine",
        b"iris",
        b"3",
        b"champion",
    )
    assert (row["inputs"], row["answer"]) == (b'{"features":[7]}', b'{"prediction":"a"}')
    assert [
        row[f"challenger_{what}"] for what in ("version", "outcome", "answer", "latency_s")
    ] == [None] * 4


def test_inputs_can_be_left_out() -> None:
    """For personal data: the row stays, its inputs are null."""
    (row,) = rows_of(encode([entry(7)], writer=WRITER, first=0, inputs=False))
    assert row["inputs"] is None
    assert row["answer"] == b'{"prediction":"a"}'


def test_a_challenger_stands_beside() -> None:
    """Answered, failed or not asked: each is told."""
    said = [
        Challenged("4", "answered", b"{}", 0.5),
        Challenged("4", "failed"),
        Challenged("4", "dropped"),
    ]
    rows = rows_of(
        encode([entry(challenged=each) for each in said], writer=WRITER, first=0, inputs=True)
    )
    assert [(row["challenger_outcome"], row["challenger_answer"]) for row in rows] == [
        (b"answered", b"{}"),
        (b"failed", None),
        (b"dropped", None),
    ]


@pytest.mark.parametrize("unfit", [None, "", "x" * 129, "caf\xe9", "a\nb", "a\0b"])
def test_a_request_without_a_sane_id_gets_one(unfit: str | None) -> None:
    """Made of the writer's id and the row's number, so it is unique among workers and restarts."""
    rows = rows_of(
        encode(
            [entry(request_id=unfit), entry(request_id=unfit)], writer=WRITER, first=8, inputs=True
        )
    )
    assert [row["request_id"] for row in rows] == [b"0001020304050607-8", b"0001020304050607-9"]


def test_a_trace_has_a_column_where_there_is_one() -> None:
    """A block without any is as one of a server that knew no traces."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    plain = encode([entry(1), entry(2)], writer=WRITER, first=0, inputs=True)
    traced = encode([entry(1), entry(2, trace_id=trace)], writer=WRITER, first=0, inputs=True)

    assert "trace_id" not in plain.columns
    assert all("trace_id" not in row for row in rows_of(plain))
    assert [row["trace_id"] for row in rows_of(traced)] == [None, trace.encode()]
    assert [part.columns for part in split(traced)] == [traced.columns] * 2


def test_models_may_alternate() -> None:
    """Each row names its own model."""
    other = Model(Manifest("penguins", "1"), "challenger")
    rows = rows_of(
        encode(
            [entry(model=model) for model in (IRIS, other, IRIS)],
            writer=WRITER,
            first=0,
            inputs=True,
        )
    )
    assert [(row["model"], row["role"]) for row in rows] == [
        (b"iris", b"champion"),
        (b"penguins", b"challenger"),
        (b"iris", b"champion"),
    ]


def test_a_block_falls_apart_into_its_rows() -> None:
    """For finding the one row that a database refuses."""
    whole = encode(
        [entry(number, challenged=Challenged("4", "failed")) for number in range(5)],
        writer=WRITER,
        first=10,
        inputs=False,
    )
    parts = list(split(whole))
    assert [(part.first, part.rows) for part in parts] == [(number, 1) for number in range(10, 15)]
    assert b"".join(part.payload for part in parts) == whole.payload


def test_a_block_knows_its_days() -> None:
    """In UTC, also across midnight."""
    late, early = (
        (1_700_006_399.0, *entry()[1:]),
        (1_700_006_400.0, *entry()[1:]),
    )  # 2023-11-14, 23:59:59 and midnight
    assert len(days(encode([late], writer=WRITER, first=0, inputs=True))) == 1
    assert len(days(encode([early, late], writer=WRITER, first=0, inputs=True))) == 2


# -- segments --------------------------------------------------------------------------------------


def test_what_is_spooled_comes_back_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across segments, and while more is appended."""
    monkeypatch.setattr(module, "SEGMENT_BYTES", 2000)
    spool = open_spool(tmp_path)
    spool.append([block(0), block(3)])
    first = spool.oldest()
    assert first is not None
    for number in range(6, 30, 3):
        spool.append([block(number)])

    assert first[0].read(first[1]) == Contents([block(0), block(3)], 0)
    assert spool.rows == 30
    assert spool.bytes == sum(file.stat().st_size for file in tmp_path.glob("*/*"))
    assert replay(spool) == [(A, block(number)) for number in range(0, 30, 3)]
    assert spool.empty
    assert (spool.rows, spool.bytes) == (0, 0)
    spool.close()
    assert list(tmp_path.iterdir()) == []


@examples(40)
@given(data=st.data())
def test_a_torn_tail_costs_only_a_suffix(data: st.DataObject) -> None:
    """Wherever the last segment is cut, or its end overwritten, the blocks before the cut are all
    there and nothing else is."""
    blocks = [block(first, rows) for first, rows in ((0, 1), (1, 4), (5, 2), (7, 9))]
    with tempfile.TemporaryDirectory() as root:
        spool = open_spool(Path(root))
        ends = []
        for each in blocks:
            spool.append([each])
            ends.append(spool.bytes)
        directory, segment = spool.oldest() or pytest.fail("nothing was spooled")
        content = segment.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        garbage = data.draw(st.binary(max_size=60))
        segment.write_bytes(content[:cut] + garbage)
        whole = sum(end <= cut for end in ends)
        spool.close()

        try:
            found, torn = _adopted(Path(root), directory.path)
        except Unreadable:
            assert cut < len(module.MAGIC)
            return
        if (content[:cut] + garbage).startswith(content[: ends[min(whole, len(ends) - 1)]]):
            return  # the garbage happened to be the very bytes that were cut off
        assert found == blocks[:whole]
        kept = cut + len(garbage)
        before_the_tail = ends[whole - 1] if whole else len(module.MAGIC)
        assert torn == (
            kept - before_the_tail if kept >= len(module.MAGIC) else kept
        )  # of a magic that broke off nothing counts


def _adopted(root: Path, path: Path) -> Contents:
    successor = open_spool(root, B)
    successor.adopt()
    directory, segment = successor.oldest() or pytest.fail("nothing was adopted")
    try:
        assert directory.path == path
        return directory.read(segment)
    finally:
        successor.close()


def test_a_foreign_segment_is_set_aside(tmp_path: Path) -> None:
    """A newer version's, say: it is kept, and does not stand in the way of the next."""
    path = tmp_path / str(B)
    path.mkdir()
    (path / "000000000000.segment").write_bytes(b"halfcore prediction log 3\n" + b"x" * 100)
    spool = open_spool(tmp_path)
    spool.adopt()
    directory, segment = spool.oldest() or pytest.fail("nothing was adopted")

    with pytest.raises(Unreadable, match="expected"):
        directory.read(segment)
    directory.set_aside(segment)

    assert spool.oldest() is None
    assert [file.name for file in path.iterdir()] == ["000000000000.unreadable"]


def test_a_segment_of_the_version_before_is_read(tmp_path: Path) -> None:
    """What was written before an upgrade reaches the database after it."""
    spool = open_spool(tmp_path)
    spool.append([block(0), block(3)])
    directory, segment = spool.oldest() or pytest.fail("nothing was spooled")
    content = segment.read_bytes().removeprefix(module.MAGIC)
    segment.write_bytes(b"halfcore prediction log 1\n" + content)
    assert directory.read(segment) == Contents([block(0), block(3)], 0)


# -- limits ----------------------------------------------------------------------------------------


def test_a_full_spool_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    """The limit is on all that lies below the root; what was refused is not there in part."""
    spool = open_spool(tmp_path, most_bytes=3000)
    other = open_spool(tmp_path, B, most_bytes=3000)
    spool.append([block(0)])
    other.append([block(0)])
    with pytest.raises(SpoolFull):
        spool.append([block(3, 30)])
    spool.append([block(33)])

    assert replay(spool) == [(A, block(0)), (A, block(33))]


def test_a_disk_error_leaves_no_half_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk amid a write: what was written of it is taken back, and the next append goes
    on."""
    spool = open_spool(tmp_path)
    spool.append([block(0)])
    write = os.write
    with monkeypatch.context() as patch:

        def half(handle: int, data: bytes) -> int:
            patch.setattr(os, "write", _full)
            return write(handle, data[: len(data) // 2])

        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            spool.append([block(3)])
    spool.append([block(6)])

    assert replay(spool) == [(A, block(0)), (A, block(6))]


def _full(handle: int, data: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_a_root_that_is_no_directory_is_an_error_of_the_system(tmp_path: Path) -> None:
    """And nothing else: the log waits in memory then."""
    (tmp_path / "spool").write_text("")
    with pytest.raises(OSError, match="spool"):
        open_spool(tmp_path / "spool").append([block(0)])


# -- successors ------------------------------------------------------------------------------------


DIES = """
import os, sys
from pathlib import Path
from uuid import UUID
from halfcore.prediction_log.spool import Spool
from support.predictions import block
spool = Spool(Path(sys.argv[1]), writer=UUID(int=1), most_bytes=1 << 30)
spool.append([block(0)])
spool.append([block(3)])
os._exit(9)
"""


def test_a_dead_workers_rows_are_adopted_under_its_name(tmp_path: Path) -> None:
    """Its lock went with it; its rows come before the successor's own, and its directory goes when
    they are written."""
    tests = {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert (
        subprocess.run(
            [sys.executable, "-c", DIES, str(tmp_path)], env=os.environ | tests
        ).returncode
        == 9
    )
    spool = open_spool(tmp_path, B)
    spool.append([block(100)])
    assert spool.rows == 3
    spool.adopt()
    assert spool.rows == 9

    assert replay(spool) == [(A, block(0)), (A, block(3)), (B, block(100))]
    assert [path.name for path in tmp_path.iterdir()] == [str(B)]


def test_a_living_workers_rows_are_left_to_it(tmp_path: Path) -> None:
    """Two that look at once never hold the same directory."""
    living = open_spool(tmp_path)
    living.append([block(0)])
    other = open_spool(tmp_path, B)
    other.adopt()
    assert other.empty

    living.close()
    third = open_spool(tmp_path, uuid4())
    third.adopt()
    other.adopt()
    assert [third.empty, other.empty] == [False, True]


def test_a_directory_that_cannot_be_read_keeps_no_other_from_being_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a server of another user left; its lock is given back."""
    for writer in (A, B):
        left = open_spool(tmp_path, writer)
        left.append([block(0)])
        left.close()
    count = module._count_rows

    def of_another_user(segment: Path) -> int:
        if segment.parent.name == str(A):
            raise PermissionError(13, "Permission denied", str(segment))
        return count(segment)

    spool = open_spool(tmp_path, uuid4())
    with monkeypatch.context() as patch:
        patch.setattr(module, "_count_rows", of_another_user)
        failed = spool.adopt()
    assert [type(error) for error in failed] == [PermissionError]
    assert replay(spool) == [(B, block(0))]

    assert spool.adopt() == []
    assert replay(spool) == [(A, block(0))]


def test_what_is_no_writers_directory_is_left_alone(tmp_path: Path) -> None:
    """Somebody else's files in the same place."""
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "note").write_text("x")
    spool = open_spool(tmp_path)
    spool.adopt()
    assert spool.oldest() is None
    assert Directory.claim(tmp_path / "gone") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lost+found", "note"]


def test_a_segment_that_another_worker_removes_meanwhile_does_not_count(tmp_path: Path) -> None:
    """It is there when the spool is listed, and gone when its size is asked: a link that leads
    nowhere is the same."""
    (tmp_path / str(B)).mkdir()
    (tmp_path / str(B) / "000000000000.segment").symlink_to(tmp_path / "gone")
    spool = open_spool(tmp_path)
    spool.append([block(0)])
    assert spool.rows == 3
    spool.close()
