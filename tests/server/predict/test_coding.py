"""Compressed bodies: what they stand for, and never more than the limit of it."""

import asyncio
import gzip
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfcore.predict import coding
from halfcore.predict.coding import Expander, Place, coding_of, expand
from halfcore.problem import Problem
from support.examples import examples

LIMIT = 1 << 20
LONG = bytes(range(256)) * 1024
"""Four slices."""
DECOMPRESSOBJ = zlib.decompressobj
COMPRESS: dict[str, Any] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw": lambda data: zlib.compress(data, wbits=-15),
}


def expanded(body: bytes, name: str, *, max_bytes: int = LIMIT) -> tuple[bytes, int]:
    """The expanded body, and the number of pauses."""
    steps, pauses = expand(body, name.replace("raw", "deflate"), max_bytes=max_bytes), 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, pauses
        pauses += 1


@examples(40)
@given(
    parts=st.lists(st.binary(max_size=60) | st.just(LONG), max_size=3),
    name=st.sampled_from(sorted(COMPRESS)),
)
def test_a_body_is_expanded_to_what_was_compressed(parts: list[bytes], name: str) -> None:
    """With every coding; gzip also in several members."""
    compress = COMPRESS[name]
    assert expanded(compress(b"".join(parts)), name)[0] == b"".join(parts)
    if name == "gzip":
        members = b"".join(map(compress, parts)) or compress(b"")
        assert expanded(members, name)[0] == b"".join(parts)


@pytest.mark.parametrize("name", COMPRESS)
def test_a_stream_that_is_not_whole_is_refused(name: str) -> None:
    """Wherever it is cut, or if anything follows it."""
    body = COMPRESS[name](b'{"features":[1,2,3,4.5]}')
    for wrong in [body[:cut] for cut in range(len(body))] + [body + b"\0", body + b"{}"]:
        with pytest.raises(Problem) as caught:
            expanded(wrong, name)
        assert (caught.value.status, caught.value.code) == (400, "invalid_encoding")


def test_the_limit_holds_after_the_expansion() -> None:
    """A body of the largest size is accepted, and one byte more is not."""
    body = gzip.compress(LONG)
    assert expanded(body, "gzip", max_bytes=len(LONG))[0] == LONG
    with pytest.raises(Problem) as caught:
        expanded(body, "gzip", max_bytes=len(LONG) - 1)
    assert (caught.value.status, caught.value.code) == (413, "body_too_large")


class Counting:
    """zlib's streams, which note how much each call was given and made of it."""

    def __init__(self, made: list[tuple[int, int]], bits: int) -> None:
        self._stream = DECOMPRESSOBJ(bits)
        self._made = made

    def decompress(self, data: bytes, most: int) -> bytes:
        """Expand, and note."""
        part = self._stream.decompress(data, most)
        self._made.append((len(data), len(part)))
        return part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(bytes(100 * LIMIT)), 413),
        (zlib.compress(bytes(100 * LIMIT)), 413),
        (gzip.compress(bytes(100)) * 11_000, 413),
        (b"\0\0\0\xff\xff" * 100_000, 400),
    ],
    ids=["gzip", "deflate", "many members", "many empty blocks"],
)
def test_a_bomb_costs_no_more_than_the_limit(
    monkeypatch: pytest.MonkeyPatch, body: bytes, status: int
) -> None:
    """No byte beyond the limit is expanded, and no pause is longer than a slice."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(coding.zlib, "decompressobj", lambda bits: Counting(made, bits))
    name = "gzip" if body.startswith(b"\x1f\x8b") else "deflate"
    steps = expand(body, name, max_bytes=LIMIT)
    with pytest.raises(Problem) as caught:  # noqa: PT012  each step is looked at
        while True:
            before = len(made)
            next(steps)
            assert sum(size for _, size in made[before:]) < 2 * coding.SLICE_BYTES
    assert caught.value.status == status
    assert sum(size for _, size in made) <= LIMIT + 1
    assert max(size for size, _ in made) <= coding.READ_BYTES


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        (" GZip ", "gzip"),
        ("x-gzip", "gzip"),
        ("identity, deflate", "deflate"),
    ],
)
def test_the_header_names_the_coding(header: str | None, found: str | None) -> None:
    """In any letters; `identity` is none."""
    assert coding_of(header) == found


@pytest.mark.parametrize("header", ["br", "zstd", "gzip, gzip", "gzip;q=1", "compress", "x" * 9000])
def test_another_coding_is_refused_with_what_is_accepted(header: str) -> None:
    """415, and the header that the standard asks for."""
    with pytest.raises(Problem, match="expected one of gzip, deflate, or none") as caught:
        coding_of(header)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_encoding")
    assert caught.value.headers["accept-encoding"] == "gzip, deflate"
    assert len(caught.value.detail) < 200


async def settle() -> None:
    """Let every other task go on until it waits."""
    for _ in range(300):
        await asyncio.sleep(0)


@pytest.fixture
def waiting() -> Iterator[list["asyncio.Task[bytes]"]]:
    """Tasks that are cancelled at the end."""
    tasks: list[asyncio.Task[bytes]] = []
    yield tasks
    for task in tasks:
        task.cancel()


async def test_few_long_bodies_are_expanded_at_a_time(waiting: list["asyncio.Task[bytes]"]) -> None:
    """Each has its place until it is released; a short one needs none."""
    expander = Expander(max_bytes=LIMIT, timeout_s=60)
    places = [Place(expander, "gzip") for _ in range(coding.MOST_LONG + 2)]
    waiting += [asyncio.create_task(place.expand(gzip.compress(LONG))) for place in places]
    await settle()
    assert [task.done() for task in waiting] == [True] * coding.MOST_LONG + [False] * 2
    assert await Place(expander, "gzip").expand(gzip.compress(b"{}")) == b"{}"

    places[0].release()
    places[0].release()  # the second call is one too many, and does nothing
    await settle()

    assert [task.done() for task in waiting] == [True] * (coding.MOST_LONG + 1) + [False]
    assert all(task.result() == LONG for task in waiting if task.done())


async def test_who_fails_or_leaves_keeps_no_place(waiting: list["asyncio.Task[bytes]"]) -> None:
    """A broken long body, a bomb, and a client that leaves while it waits."""
    expander = Expander(max_bytes=len(LONG), timeout_s=60)
    for wrong in [gzip.compress(LONG)[:-1], gzip.compress(LONG + b"x")] * coding.MOST_LONG:
        with pytest.raises(Problem):
            await Place(expander, "gzip").expand(wrong)
    places = [Place(expander, "gzip") for _ in range(coding.MOST_LONG + 1)]
    waiting += [asyncio.create_task(place.expand(gzip.compress(LONG))) for place in places]
    await settle()
    waiting[-1].cancel()
    await settle()
    places[-1].release()
    for place in places:
        place.release()
    assert await Place(expander, "gzip").expand(gzip.compress(LONG)) == LONG


async def test_who_waits_too_long_is_refused(waiting: list["asyncio.Task[bytes]"]) -> None:
    """503, to be tried again."""
    expander = Expander(max_bytes=LIMIT, timeout_s=0)
    for _ in range(coding.MOST_LONG):
        await expander.places.acquire()
    with pytest.raises(Problem) as caught:
        await Place(expander, "gzip").expand(gzip.compress(LONG))
    assert (caught.value.status, caught.value.code) == (503, "queue_timeout")
    assert caught.value.headers["retry-after"] == "1"
