"""Admission by the head: what is read, what is refused and with which status."""

import pytest

from halfcore.predict.admission import (
    MOST_DIGITS,
    NO_HEAD,
    Head,
    announced,
    check_head,
    check_length,
    check_not_encoded,
    ends_itself,
    is_plain,
)
from halfcore.problem import Problem

LIMIT = 1000
JSON = "application/json"
PLAIN = {"content-type": JSON, "content-length": "5"}


def refusal(head: Head) -> Problem:
    """Why a head is refused."""
    with pytest.raises(Problem) as raised:
        check_head(head, max_body_bytes=LIMIT)
    return raised.value


@pytest.mark.parametrize(
    ("change", "plain"),
    [
        ({}, True),
        ({"content-type": "application/json; charset=utf-8"}, True),
        ({"content-length": str(LIMIT)}, True),
        ({"content-length": str(LIMIT + 1)}, False),
        ({"content-length": "0"}, True),
        ({"content-length": "-5"}, False),
        ({"content-length": "five"}, False),
        ({"content-length": "0" * MOST_DIGITS}, True),
        ({"content-length": "0" * (MOST_DIGITS + 1)}, False),
        ({"content-length": None}, False),
        ({"content-type": "text/csv"}, False),
        ({"content-type": None}, False),
        ({"content-encoding": "gzip"}, False),
    ],
)
def test_a_plain_head_is_recognised(change: dict[str, str | None], plain: bool) -> None:
    """Only what most clients send: everything else takes the longer way."""
    assert is_plain((PLAIN | change).get, max_body_bytes=LIMIT) is plain


def test_a_protocol_may_accept_any_type() -> None:
    """The type is not looked at; length and encoding are."""
    csv = PLAIN | {"content-type": "text/csv"}
    assert is_plain(csv.get, max_body_bytes=LIMIT, any_type=True)
    coded = csv | {"content-encoding": "gzip"}
    assert not is_plain(coded.get, max_body_bytes=LIMIT, any_type=True)


@pytest.mark.parametrize(
    "content_type",
    [
        JSON,
        "application/json; charset=utf-8",
        "Application/JSON",
        "Application/JSON;Charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json ; charset = utf8",
        "application/json;",
    ],
)
def test_json_in_any_spelling_is_read(content_type: str) -> None:
    """Case, blanks and quotes do not matter."""
    check_head(Head(content_type, None, "5"), max_body_bytes=LIMIT)


@pytest.mark.parametrize(
    ("content_type", "found"),
    [
        (None, "none"),
        ("", "none"),
        ("text/plain", "text/plain"),
        ("application/json; charset=latin-1", "application/json; charset=latin-1"),
        ("x" * 100, "x" * 80),
    ],
)
def test_another_type_is_refused(content_type: str | None, found: str) -> None:
    """415 names what was found, cut, and what was expected; the connection is closed."""
    problem = refusal(Head(content_type, None, "5"))
    assert (problem.status, problem.code) == (415, "unsupported_media_type")
    assert str(problem.detail) == f"Content-Type is {found}, expected application/json"
    assert dict(problem.headers)["connection"] == "close"


@pytest.mark.parametrize("length", [str(LIMIT + 1), "9" * (MOST_DIGITS + 1), "9" * 5000])
def test_a_body_that_is_too_long_is_refused(length: str) -> None:
    """413, however many digits its length has, and whatever checks the length."""
    assert refusal(Head(JSON, None, length)).status == 413
    with pytest.raises(Problem, match=str(LIMIT)):
        check_length(Head(None, None, length), max_body_bytes=LIMIT)


@pytest.mark.parametrize("length", [None, str(LIMIT), "0", "0" * MOST_DIGITS, "x"])
def test_a_length_that_fits_or_is_not_known_is_read(length: str | None) -> None:
    """What is not a number is granian's affair, or counted while it arrives."""
    check_head(Head(JSON, None, length), max_body_bytes=LIMIT)


@pytest.mark.parametrize("transfer", [None, "chunked", " Chunked "])
def test_a_chunked_body_is_read(transfer: str | None) -> None:
    """In any spelling."""
    check_not_encoded(NO_HEAD._replace(transfer_encoding=transfer))


@pytest.mark.parametrize(
    ("transfer", "found"), [("gzip, chunked", "gzip, chunked"), ("y" * 90, "y" * 80)]
)
def test_another_transfer_is_refused(transfer: str, found: str) -> None:
    """501, as RFC 9112 asks for; also where all the head is checked."""
    head = Head(JSON, None, "5", transfer_encoding=transfer)
    problem = refusal(head)
    assert (problem.status, problem.code) == (501, "unsupported_transfer")
    assert str(problem.detail) == (
        f"Transfer-Encoding is {found}, expected chunked; name a compression in Content-Encoding"
    )
    assert dict(problem.headers)["connection"] == "close"


def test_an_unknown_coding_is_refused() -> None:
    """415, before the body is read."""
    assert refusal(Head(JSON, "compress", "5")).status == 415


@pytest.mark.parametrize(("length", "bytes_"), [(None, 0), ("x", 0), ("12", 12), ("0", 0)])
def test_what_a_head_announces(length: str | None, bytes_: int) -> None:
    """The length, or 0 if it says none."""
    assert announced(NO_HEAD._replace(content_length=length)) == bytes_


@pytest.mark.parametrize(
    ("content_type", "coding", "ends"),
    [
        (None, None, True),
        (JSON, None, True),
        ("text/csv", None, False),
        ("Text/CSV; charset=utf-8", None, False),
        ("text/csv", "gzip", True),
    ],
)
def test_csv_alone_may_break_off_unnoticed(
    content_type: str | None, coding: str | None, ends: bool
) -> None:
    """All others say where they end."""
    assert ends_itself(Head(content_type, coding, None)) is ends
