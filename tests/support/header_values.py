"""Requests with headers, queries and paths that servers parse late and often wrongly."""

import random
import re
from collections.abc import Sequence
from typing import Any

from support.serving import request

HEADERS = [
    *("accept", "accept-charset", "accept-encoding", "accept-language", "authorization"),
    *("access-control-request-headers", "access-control-request-method", "connection", "cookie"),
    *("content-encoding", "content-type", "expect", "forwarded", "host", "hx-current-url"),
    *("hx-request", "if-match", "if-modified-since", "if-none-match", "if-range", "origin"),
    *("inference-header-content-length", "range", "referer", "te", "traceparent", "tracestate"),
    *("trailer", "upgrade", "user-agent", "x-api-key", "x-forwarded-for", "x-forwarded-host"),
    *("x-forwarded-proto", "x-http-method-override", "x-mlflow-delivery-id", "x-real-ip"),
    *("x-mlflow-signature", "x-mlflow-timestamp", "x-request-id"),
]
VALUES = [
    *("", " ", "\t", '"', '""', "*", "%", "%00%ff", "\\", "-1", "0x10", "null", "a" * 4000),
    *("9" * 30, "\xff\xfe", "caf\xe9", "../..", "<script>", "a?b#c", ";;;", "=;=;,"),
    *("a=b; c", 'a=b; a="c', "*/*;q=x", "text/html;q=1e999", "*/*;q=nan", "gzip;q=abc"),
    *("gzip, deflate, br;q=0", "application/json; charset=\xff", "application/json; charset=nope"),
    *("application/json; charset=utf-16", "multipart/form-data", "multipart/form-data; boundary="),
    *('multipart/form-data; boundary="', "application/x-www-form-urlencoded"),
    *("application/msgpack", "text/csv;header=", "bytes=0-", "bytes=-1", "bytes=0-0,1-1,2-2"),
    *("bytes=" + "9" * 30 + "-1", 'W/"x', 'for="[::1";proto=', 'for=_x;by="', "::1"),
    *("999.999.999.999", "Mon, 99 Foo 2026 99:99:99 GMT", "Basic !!!", "Basic ====", "Bearer"),
    *("Bearer \xff", "x: 80", "[::1", "x:99999", "http://[", "00-" + "0" * 32 + "-" + "0" * 16),
    *("chunked", "trailers", "100-continue", "close, keep-alive", "upgrade", "h2c", "websocket"),
]
QUERIES = ["?", "?a", "?a=%", "?a=%ff&a=%", "?=&&=;", "?" + "a=1&" * 900, "?a[]=1", "?%00=%00"]
QUERIES += ["?\xff", "?a=b?c=d", "?a=\xe9"]
PATHS = ["/", "/docs/", "//", "/no/such", "/models/%ff", "/models/a%2Fb", "/v2/models/%00"]
PATHS += ["/models/%ED%A0%80", "/v2/models/..%2f..", "/docs/assets/..%2f..%2fapp.py"]


def routes_of(openapi: dict[str, Any], model: str) -> list[tuple[str, str]]:
    """Method and path of every route that a server describes, with a model's name in place."""
    found = [
        (method.upper(), re.sub(r"\{[^}]*\}", model, path))
        for path, operations in openapi["paths"].items()
        for method in operations
        if method in ("get", "post")
    ]
    return [*found, *(("GET", path) for path in PATHS), ("OPTIONS", "/predict"), ("HEAD", "/docs")]


def drawn(draw: random.Random, routes: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """A request of one of the routes, with one to three headers of these values or of noise."""
    method, path = draw.choice(routes)
    headers = {name: _value(draw) for name in draw.sample(HEADERS, draw.randint(1, 3))}
    query = draw.choice(QUERIES) if draw.random() < 0.3 else ""
    sent = body if method == "POST" else b""
    return request(path + query, sent, method=method, headers=headers)


def _value(draw: random.Random) -> str:
    if draw.random() < 0.8:
        return draw.choice(VALUES)
    characters = [chr(code) for code in (*range(0x20, 0x7F), *range(0x80, 0x100), 0x09)]
    return "".join(draw.choices(characters, k=draw.randint(1, 40)))
