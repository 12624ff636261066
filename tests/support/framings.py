"""Requests that parsers of HTTP read differently, or should not read at all."""

from support.processes import GOOD
from support.serving import request

SMUGGLED = b"GET /models/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


def framed(*lines: str, body: bytes = b"") -> bytes:
    """A POST with these header lines."""
    return (
        "\r\n".join(
            ["POST /predict HTTP/1.1", "host: x", "content-type: application/json", *lines, "", ""]
        ).encode("latin-1")
        + body
    )


FRAMINGS: dict[str, bytes] = {
    "CL.TE": framed(
        "content-length: 6", "transfer-encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "TE.CL": framed(
        "transfer-encoding: chunked", "content-length: 4", body=b"5c\r\n" + SMUGGLED + b"0\r\n\r\n"
    ),
    "two lengths": framed("content-length: 24", "content-length: 0", body=GOOD + SMUGGLED),
    "a list of lengths": framed("content-length: 24, 0", body=GOOD + SMUGGLED),
    "a length with a sign": framed("content-length: +24", body=GOOD + SMUGGLED),
    "a negative length": framed("content-length: -24", body=GOOD + SMUGGLED),
    "a hexadecimal length": framed("content-length: 0x18", body=GOOD + SMUGGLED),
    "an empty length": framed("content-length: ", body=GOOD + SMUGGLED),
    "a huge length": framed("content-length: 99999999999999999999999", body=GOOD + SMUGGLED),
    "a length with a space before the colon": framed("content-length : 24", body=GOOD + SMUGGLED),
    "TE in a word": framed("transfer-encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE twice": framed(
        "transfer-encoding: chunked", "transfer-encoding: identity", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "TE that does not end in chunked": framed(
        "transfer-encoding: chunked, gzip", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "TE with a vertical tab": framed(
        "transfer-encoding: \x0bchunked", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "TE behind a fold": framed("transfer-encoding:", " chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE in HTTP/1.0": framed("transfer-encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED).replace(
        b"HTTP/1.1", b"HTTP/1.0", 1
    ),
    "a folded header": framed("x-a: 1", " 2", "content-length: 0"),
    "NUL in a header": framed("x-a: \x00", "content-length: 0"),
    "a bare CR in a header": framed("x-a: 1\rcontent-length: 24", "content-length: 0"),
    "a chunk length with a sign": framed(
        "transfer-encoding: chunked", body=b"+18\r\n" + GOOD + b"\r\n0\r\n\r\n"
    ),
    "a negative chunk length": framed(
        "transfer-encoding: chunked", body=b"-1\r\n" + GOOD + b"\r\n0\r\n\r\n"
    ),
    "a chunk length with 0x": framed(
        "transfer-encoding: chunked", body=b"0x18\r\n" + GOOD + b"\r\n0\r\n\r\n"
    ),
    "a chunk length beyond 64 bits": framed(
        "transfer-encoding: chunked", body=b"f" * 17 + b"\r\n" + GOOD
    ),
    "a chunk longer than it says": framed(
        "transfer-encoding: chunked", body=b"2\r\n" + GOOD + b"\r\n0\r\n\r\n"
    ),
    "a long chunk extension": framed(
        "transfer-encoding: chunked",
        body=b"18;" + b"a" * 20_000 + b"\r\n" + GOOD + b"\r\n0\r\n\r\n",
    ),
    "a bare LF after a chunk": framed(
        "transfer-encoding: chunked", body=b"18\n" + GOOD + b"\n0\n\n"
    ),
    "no host": b"POST /predict HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "HTTP/0.9": b"GET /health HTTP/0.9\r\n\r\n",
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": b"GET /health HTTP/9.9\r\nhost: x\r\n\r\n",
    "a TLS handshake": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "zeros": bytes(200),
    "101 headers": framed(*[f"x-{i}: {i}" for i in range(101)], "content-length: 0"),
    "a header of 20 kB": framed("x-a: " + "a" * 20_000, "content-length: 0"),
    "a path of 20 kB": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "a path of raw bytes": b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
    "a path of broken percent signs": b"GET /models/%ff%zz% HTTP/1.1\r\nhost: x\r\n\r\n",
    "an encoded surrogate in the path": request(
        "/models/%ED%A0%80/predict", GOOD, headers={"connection": "close"}
    ),
    "an encoded NUL in the path": request(
        "/models/%00/predict", GOOD, headers={"connection": "close"}
    ),
    "an absolute URI": b"GET http://elsewhere/health HTTP/1.1\r\nhost: x\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
    "CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n",
    "CONNECT to a route": b"CONNECT /predict HTTP/1.1\r\nhost: x\r\n\r\n",
    "TRACE": b"TRACE /predict HTTP/1.1\r\nhost: x\r\nsecret: 7\r\n\r\n",
    "an unknown method": b"BREW /predict HTTP/1.1\r\nhost: x\r\n\r\n",
    "a method in small letters": b"post /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    "a method of 10 kB": b"A" * 10_000 + b" / HTTP/1.1\r\nhost: x\r\n\r\n",
    "an upgrade to a websocket": b"GET /predict HTTP/1.1\r\nhost: x\r\nconnection: "
    b"upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
    "an upgrade to HTTP/2": b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade, "
    b"http2-settings\r\nupgrade: h2c\r\n"
    b"http2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    "a host of rubbish": b"GET /health HTTP/1.1\r\nhost: a b/c@d:99999\r\n\r\n",
    "Expect": framed("expect: 200-maybe", "content-length: 24", body=GOOD),
}
