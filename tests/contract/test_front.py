"""The hot lane and the plain ASGI app are one service: the same bytes in give the same bytes
out."""

import gzip
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from halfcore.http.routes.home import assets
from support.bundles import MIXED, write_bundle
from support.serving import Server, free_port, receive, request, serving

GOOD = b'{"features":[1,2,3,4.5]}'
MANY = b"[" + b",".join([b'{"x0":1,"x1":2,"x2":3,"x3":4}'] * 300) + b"]"
TENSOR = b'{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32","data":[1,2,3,4.5]}]}'
BINARY = (
    b'{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32",'
    b'"parameters":{"binary_data_size":16}}]}'
)
CHUNKED = {"content-length": None, "transfer-encoding": "chunked"}
GZIP = {"content-encoding": "gzip"}
TWICE = {"content-encoding": "gzip\r\ncontent-encoding: gzip"}
IDENTITY_GZIP = "identity\r\ncontent-encoding: gzip"
BOMB = gzip.compress(b" " * 10_000_000)
"""It stands for many times the limit."""
CSV = b"x0,x1,x2,x3\n1,2,3,4\n"
BYTES = {
    "content-type": "application/octet-stream",
    "inference-header-content-length": str(len(BINARY)),
}

CORPUS: dict[str, bytes] = {
    "one vector": request("/predict", GOOD),
    "vectors": request("/predict", b'{"features":[[1,2,3,4.5],[4,3,2,1]]}'),
    "a record": request("/predict", b'{"x0":1,"x1":2,"x2":3,"x3":4}'),
    "300 records": request("/predict", MANY),
    "a named model": request("/models/numbers/predict", GOOD),
    "strings and nulls": request(
        "/models/mixed/predict",
        b'{"island":"Dream","mass":null,"count":3,"sex":null,"zone":20,"wet":false}',
    ),
    "a regressor": request("/models/sum/predict", GOOD),
    "a name in percent signs": request("/models/num%62ers/predict", GOOD),
    "an unknown model": request("/models/nobody/predict", GOOD),
    "a slash in the name": request("/models/a/b/predict", GOOD),
    "no name": request("/models//predict", GOOD),
    "a trailing slash": request("/predict/", GOOD),
    "a query": request("/predict?a=1", GOOD),
    "GET": request("/predict", method="GET"),
    "PUT": request("/models/numbers/predict", GOOD, method="PUT"),
    "HEAD": request("/predict", method="HEAD", headers={"connection": "close"}),
    "OPTIONS": request("/predict", method="OPTIONS", headers={"connection": "close"}),
    "no body": request("/predict"),
    "not JSON": request("/predict", b'{"features":[1,2,3,'),
    "not UTF-8": request("/predict", b'{"features":["\xff"]}'),
    "nested": request("/predict", b"[" * 100_000),
    "a name twice": request("/predict", b'{"features":[1,2,3,4],"features":[1,2,3,5]}'),
    "a wrong length": request("/predict", b'{"features":[1,2,3]}'),
    "a wrong type": request("/predict", b'{"features":[1,2,3,"4"]}'),
    "too large a number": request("/predict", b'{"features":[1,2,3,1e39]}'),
    "an unknown category": request(
        "/models/mixed/predict",
        b'{"island":"Mars","mass":1,"count":3,"sex":"MALE","zone":20,"wet":false}',
    ),
    "too many rows": request(
        "/predict", b'{"features":[' + b",".join([b"[1,2,3,4]"] * 1001) + b"]}"
    ),
    "a charset": request(
        "/predict", GOOD, headers={"content-type": 'Application/JSON; charset="UTF-8"'}
    ),
    "no content type": request("/predict", GOOD, headers={"content-type": None}),
    "text": request("/predict", GOOD, headers={"content-type": "text/plain"}),
    "a content type that is not ASCII": request(
        "/predict", GOOD, headers={"content-type": "caf\xe9"}
    ),
    "a content type twice": request(
        "/predict", GOOD, headers={"content-type": "application/json\r\ncontent-type: text/plain"}
    ),
    "gzip": request("/predict", gzip.compress(GOOD), headers=GZIP),
    "no gzip": request("/predict", GOOD, headers=GZIP),
    "a gzip stream that ends early": request("/predict", gzip.compress(GOOD)[:-1], headers=GZIP),
    "a bomb": request("/predict", BOMB, headers=GZIP),
    "an unknown coding": request("/predict", GOOD, headers={"content-encoding": "br"}),
    "two codings in two headers": request("/predict", GOOD, headers=TWICE),
    "a coding after identity": request(
        "/predict", gzip.compress(GOOD), headers={"content-encoding": IDENTITY_GZIP}
    ),
    "a coding that is not ASCII": request(
        "/predict", GOOD, headers={"content-encoding": "gz\xef", "connection": "close"}
    ),
    "a coding of the transfer": request(
        "/predict",
        b"0\r\n\r\n",
        headers=CHUNKED | {"transfer-encoding": "gzip, chunked", "connection": "close"},
    ),
    "too large, by its length": request("/predict", b"x" * 70_000),
    "chunked": request("/predict", headers=CHUNKED)
    + b'8\r\n{"featur\r\n10\r\nes":[1,2,3,4.5]}\r\n0\r\n\r\n',
    "chunked, with trailers": request("/predict", headers=CHUNKED | {"trailer": "x"})
    + b"2\r\n[]\r\n0\r\nx: 1\r\n\r\n",
    "chunked, with extensions": request("/predict", headers=CHUNKED)
    + b'18;a=1;b="2"\r\n{"features":[1,2,3,4.5]}\r\n0;c\r\n\r\n',
    "chunked, empty": request("/predict", headers=CHUNKED) + b"0\r\n\r\n",
    "a length and chunks, too large": request(
        "/predict", headers={"content-length": "6", "transfer-encoding": "chunked"}
    )
    + b"11170\r\n"
    + b"x" * 70_000
    + b"\r\n0\r\n\r\n",
    "chunks and a length, too large": request(
        "/predict", headers=CHUNKED | {"x-a": "1\r\ncontent-length: 6"}
    )
    + b"11170\r\n"
    + b"x" * 70_000
    + b"\r\n0\r\n\r\n",
    "chunked, too large": request("/predict", headers=CHUNKED)
    + b"11170\r\n"
    + b"x" * 70_000
    + b"\r\n0\r\n\r\n",
    "chunked, broken": request("/predict", headers=CHUNKED) + b"zz\r\n",
    "cut off": request("/predict", GOOD, headers={"content-length": "500"}),
    "MLflow's protocol": request("/invocations", b'{"instances":[[1,2,3,4.5]]}'),
    "MLflow's protocol, CSV": request(
        "/invocations", b"x0,x1,x2,x3\n1,2,3,4\n", headers={"content-type": "text/csv"}
    ),
    "MLflow's protocol, an answer in CSV": request(
        "/invocations", b'{"instances":[[1,2,3,4.5]]}', headers={"accept": "text/csv"}
    ),
    "MLflow's protocol, no gzip": request("/invocations", b"{}", headers=GZIP),
    "MLflow's protocol, a bomb": request("/invocations", BOMB, headers=GZIP),
    "MLflow's protocol, an unknown coding": request(
        "/invocations", b"{}", headers={"content-encoding": "br"}
    ),
    "MLflow's protocol, text": request(
        "/invocations", b"1", headers={"content-type": "text/plain"}
    ),
    "MLflow's protocol, too large": request("/invocations", b"x" * 70_000),
    "MLflow's protocol, wrong": request("/endpoints/sum/invocations", b'{"instances":[[1]]}'),
    "an endpoint in percent signs": request(
        "/endpoints/s%75m/invocations", b'{"instances":[[1,2,3,4.5]]}'
    ),
    "the inference protocol": request("/v2/models/numbers/infer", TENSOR),
    "the inference protocol, no type": request(
        "/v2/models/numbers/infer", TENSOR, headers={"content-type": None}
    ),
    "the inference protocol, binary": request(
        "/v2/models/numbers/versions/1/infer",
        BINARY + b"\0\0\x80\x3f" * 4,
        headers=BYTES,
    ),
    "the inference protocol, no gzip": request("/v2/models/numbers/infer", TENSOR, headers=GZIP),
    "the inference protocol, a bomb": request("/v2/models/numbers/infer", BOMB, headers=GZIP),
    "the inference protocol, an unknown coding": request(
        "/v2/models/numbers/infer", TENSOR, headers={"content-encoding": "br"}
    ),
    "the inference protocol, wrong": request("/v2/models/nobody/infer", TENSOR),
    "KServe's older protocol": request("/v1/models/numbers:predict", b'{"instances":[[1,2,3,4]]}'),
    "KServe's older protocol, another verb": request("/v1/models/numbers:explain", b"{}"),
    "ping": request("/ping", method="GET"),
    "models": request("/models/numbers", method="GET"),
    "no such route": request("/nowhere"),
    "no such asset": request("/docs/assets/none.js", method="GET"),
    "the API description": request("/docs/openapi.json", method="GET"),
    "the root": request("/", method="GET"),
    "a file of the root's page": request("/home/home.js", method="GET"),
    "a file that the client has": request(
        "/home/home.js",
        method="GET",
        headers={"if-none-match": assets()["home.js"].etag, "connection": "close"},
    ),
    "another version of a file is wanted": request(
        "/docs/assets/swagger-ui.css", method="GET", headers={"if-match": '"other"'}
    ),
    "the page": request("/docs", method="GET"),
    "the largest asset": request("/docs/assets/swagger-ui-bundle.js", method="GET"),
    "HEAD of a route": request("/models", method="HEAD", headers={"connection": "close"}),
    "HEAD of an asset": request(
        "/docs/assets/swagger-ui-bundle.js", method="HEAD", headers={"connection": "close"}
    ),
    "what a page allows": request("/docs", method="OPTIONS", headers={"connection": "close"}),
}


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """One server with the hot lane and one without."""
    root: Path = tmp_path_factory.mktemp("bundles")
    write_bundle(root)
    write_bundle(root, "mixed", inputs=MIXED)
    write_bundle(root, "sum", task="regression")
    settings = {
        "default_model": "numbers",
        "max_body_bytes": 65536,
        "max_rows": 1000,
        "body_timeout_s": 0.5,
    }
    with (
        serving(root, hot_lane="true", **settings) as hot,
        serving(root, hot_lane="false", **settings) as plain,
    ):
        yield hot, plain


@pytest.mark.parametrize("name", CORPUS)
def test_both_lanes_answer_the_same_bytes(lanes: tuple[Server, Server], name: str) -> None:
    """Status, headers and body agree, but for the date and the moment of loading."""
    hot, plain = (_comparable(server.send(CORPUS[name])) for server in lanes)
    assert hot == plain
    assert hot.startswith(b"HTTP/1.1 ")


def chunked(body: bytes, size: int = 7, trailers: bytes = b"") -> bytes:
    """A body in chunks of some bytes, with these trailers."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
    return b"".join([*chunks, b"0\r\n", trailers, b"\r\n"])


PLAIN: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "one row": ("/predict", GOOD, {}),
    "300 rows": ("/models/numbers/predict", MANY, {}),
    "MLflow's protocol": ("/invocations", b'{"instances":[[1,2,3,4.5]]}', {}),
    "CSV": ("/endpoints/sum/invocations", CSV, {"content-type": "text/csv"}),
    "a tensor": ("/v2/models/numbers/infer", TENSOR, {}),
    "a binary tensor": ("/v2/models/numbers/infer", BINARY + b"\0\0\x80\x3f" * 4, BYTES),
    "KServe's older protocol": ("/v1/models/sum:predict", b'{"instances":[[1,2,3,4]]}', {}),
    "a wrong body": ("/predict", b'{"features":[1]}', {}),
}
"""Path, body and headers."""
ENCODED = {
    "gzip": ("gzip", gzip.compress),
    "gzip by its old name": ("X-GZIP", gzip.compress),
    "gzip in two parts": (
        "gzip",
        lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]),
    ),
    "deflate": ("deflate", zlib.compress),
    "deflate without its head": ("deflate", lambda body: zlib.compress(body, wbits=-15)),
}
TRAILER = {"trailer": "x-sum"}


def test_codings_in_several_headers_are_those_of_one(lanes: tuple[Server, Server]) -> None:
    """Also the second one counts, as RFC 9110 says (5.3)."""
    for server in lanes:
        found = server.send(CORPUS["a coding after identity"])
        assert _comparable(found) == _comparable(server.send(CORPUS["one vector"]))


@pytest.mark.parametrize("name", PLAIN)
def test_a_compressed_body_is_answered_as_it_is_uncompressed(
    lanes: tuple[Server, Server], name: str
) -> None:
    """In every protocol, on both lanes, with every coding, and in chunks as well."""
    path, body, headers = PLAIN[name]
    for server in lanes:
        expected = _comparable(server.send(request(path, body, headers=headers)))
        for coding, compress in ENCODED.values():
            coded = headers | {"content-encoding": coding}
            small = compress(body)
            found = server.send(request(path, small, headers=coded))
            assert _comparable(found) == expected
        found = server.send(request(path, chunked(small), headers=coded | CHUNKED))
        assert _comparable(found) == expected


@pytest.mark.parametrize("name", PLAIN)
def test_a_chunked_body_is_answered_as_it_is_in_one_part(
    lanes: tuple[Server, Server], name: str
) -> None:
    """However it is cut, with and without trailers (but CSV without); the connection then takes the
    next request."""
    path, body, headers = PLAIN[name]
    trailers = b"" if name == "CSV" else b"x-sum: 1\r\n"
    whole = request(path, body, headers=headers)
    for server in lanes:
        expected = _comparable(server.send(whole))
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            for size, after in ((1, b""), (7, trailers), (len(body), b"")):
                sent = headers | CHUNKED | (TRAILER if after else {})
                parts = chunked(body, max(size, len(body) // 500), after)
                connection.sendall(request(path, parts, headers=sent))
                assert _comparable(receive(connection)) == expected
            connection.sendall(whole)
            assert _comparable(receive(connection)) == expected


WRONG_BODIES: dict[str, tuple[bytes, int, bytes]] = {
    "chunks beyond the limit": (CORPUS["chunked, too large"], 413, b"larger than 65536 bytes"),
    "a length before such chunks": (
        CORPUS["a length and chunks, too large"],
        413,
        b"larger than 65536 bytes",
    ),
    "a length after such chunks": (
        CORPUS["chunks and a length, too large"],
        413,
        b"larger than 65536 bytes",
    ),
    "no gzip": (CORPUS["no gzip"], 400, b"cannot be expanded as gzip"),
    "ends early": (CORPUS["a gzip stream that ends early"], 400, b"it ends early"),
    "a bomb": (CORPUS["a bomb"], 413, b"larger than 65536 bytes"),
    "an unknown coding": (CORPUS["an unknown coding"], 415, b"expected one of gzip, deflate"),
    "two codings": (CORPUS["two codings in two headers"], 415, b"Content-Encoding is gzip, gzip"),
    "no ASCII": (CORPUS["a coding that is not ASCII"], 415, b"Content-Encoding is not ASCII"),
    "a coding of the transfer": (CORPUS["a coding of the transfer"], 501, b"expected chunked"),
    "trailers that are not announced": (
        request("/predict", headers=CHUNKED) + b"2\r\n[]\r\n0\r\nx: 1\r\n\r\n",
        400,
        b"which a Trailer header must announce",
    ),
    "CSV with trailers": (
        request("/invocations", headers=CHUNKED | TRAILER | {"content-type": "text/csv"})
        + chunked(CSV, 100, b"x-sum: 1\r\n"),
        400,
        b"a CSV body must not have",
    ),
    "a cut CSV with announced trailers": (
        request("/invocations", headers=CHUNKED | TRAILER | {"content-type": "text/csv"})
        + chunked(CSV, 100)[:-5]
        + b"zz\r\n",
        400,
        b"the client left",
    ),
    "MLflow's protocol": (CORPUS["MLflow's protocol, no gzip"], 400, b'"error_code"'),
    "MLflow's protocol, a bomb": (CORPUS["MLflow's protocol, a bomb"], 413, b'"error_code"'),
    "MLflow's protocol, unknown": (
        CORPUS["MLflow's protocol, an unknown coding"],
        415,
        b"accept-encoding: gzip, deflate",
    ),
    "the inference protocol": (CORPUS["the inference protocol, no gzip"], 400, b'{"error":'),
    "the inference protocol, a bomb": (
        CORPUS["the inference protocol, a bomb"],
        413,
        b'{"error":',
    ),
    "the inference protocol, unknown": (
        CORPUS["the inference protocol, an unknown coding"],
        415,
        b'{"error":',
    ),
}


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_a_body_that_cannot_be_expanded_says_why(lanes: tuple[Server, Server], name: str) -> None:
    """In the protocol's own form."""
    sent, status, text = WRONG_BODIES[name]
    answer = lanes[0].send(sent)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert text in answer


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACES: dict[str, tuple[str | None, bool]] = {
    "valid": (TRACE, True),
    "none": (None, False),
    "another version with more fields": (f"cc{TRACE[2:]}-what-the-future", True),
    "version 00 with more fields": (f"{TRACE}-more", False),
    "the version that is forbidden": (f"ff{TRACE[2:]}", False),
    "a trace of zeros": (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
    "a parent of zeros": (f"{TRACE[:36]}{'0' * 16}-01", False),
    "upper case": (TRACE.upper(), False),
    "too short": (TRACE[:-1], False),
    "twice": (f"{TRACE}\r\ntraceparent: {TRACE}", False),
    "not ASCII": (f"{TRACE[:-1]}\xe9", False),
    "empty": ("", False),
}


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_is_returned_if_it_is_valid(lanes: tuple[Server, Server], name: str) -> None:
    """With answers and with refusals, on both lanes, and in every protocol; otherwise the answer is
    as without it."""
    given, valid = TRACES[name]
    returned = f"\r\ntraceparent: {given}\r\n".encode("latin-1")
    for path, body, headers in (*PLAIN.values(), ("/predict", b"", {"content-type": "text/plain"})):
        for server in lanes:
            plain = _comparable(server.send(request(path, body, headers=headers)))
            sent = request(path, body, headers=headers | {"traceparent": given})
            answer = _comparable(server.send(sent))
            assert (returned in answer) == valid
            assert answer.replace(returned, b"\r\n") == plain


IDS: dict[str, str | None] = {
    "the client's": "order-4711",
    "none": None,
    "too long": "x" * 129,
    "not printable": "a\tb",
    "not ASCII": "caf\xe9",
}
WRONG = b'{"features":[1]}'


@pytest.fixture(scope="module")
def logging_lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Both lanes with the prediction log, whose database is away."""
    root: Path = tmp_path_factory.mktemp("logged")
    write_bundle(root / "bundles")
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"

    def settings(lane: str) -> dict[str, object]:
        where = {"state": root / lane / "state", "prediction_log_spool": root / lane / "spool"}
        return {"hot_lane": lane, "database_url": url, "prediction_log": True, **where}

    with (
        serving(root / "bundles", **settings("true")) as hot,
        serving(root / "bundles", **settings("false")) as plain,
    ):
        yield hot, plain


@pytest.mark.parametrize("body", [GOOD, WRONG], ids=["right", "wrong"])
@pytest.mark.parametrize("name", IDS)
def test_an_answer_tells_its_request_s_id(
    logging_lanes: tuple[Server, Server], name: str, body: bytes
) -> None:
    """The client's own if it is fit, else one that the server made; a new one for each request, and
    the same header from both lanes."""
    given, found = IDS[name], []
    for server in logging_lanes:
        answers = [
            _comparable(server.send(request("/predict", body, headers={"x-request-id": given})))
            for _ in range(2)
        ]
        told = [re.findall(rb"(?i)\r\nx-request-id: ([^\r]+)", answer) for answer in answers]
        assert [len(one) for one in told] == [1, 1]
        if name == "the client's":
            assert told == [[b"order-4711"]] * 2
        else:
            assert all(re.fullmatch(rb"[0-9a-f]{16}-\d+", one[0]) for one in told)
            assert told[0] != told[1]
        found.append(
            [answer.replace(one[0], b"ID") for answer, one in zip(answers, told, strict=True)]
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("body", [GOOD, WRONG], ids=["right", "wrong"])
def test_where_nobody_reads_ids_none_is_told(lanes: tuple[Server, Server], body: bytes) -> None:
    """Neither log nor challengers: no header, whatever the client sent."""
    for server in lanes:
        assert (
            b"x-request-id"
            not in server.send(
                request("/predict", body, headers={"x-request-id": "order-4711"})
            ).lower()
        )


def _comparable(answer: bytes) -> bytes:
    head, separator, body = answer.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"date:")]
    body = re.sub(rb'"loaded_at":"[^"]+"', b"", body)
    return b"\r\n".join(lines) + separator + body
