"""MLflow's REST API over httpx: bounded in time and size, with a code for each kind of failure.

Redirects are not followed: a registry that names another host could lead this server anywhere in
its network.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn
from urllib.parse import quote

import httpx
import orjson

from halfcore.log import reason_of
from halfcore.registry.connection import Proxy, proxy_for, trust, untrusted
from halfcore.registry.errors import NotOffered, Unavailable

MOST_JSON_BYTES = 4 << 20
"""Largest accepted answer of the API; a version with hundreds of tags takes some kilobytes."""
MOST_RETRY_AFTER_S = 300.0
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers for an unknown model (404) and for an unknown alias (400)."""
_PIECE_BYTES = 1 << 18
MOST_BYTES_PER_S = 32 << 20
"""Rate limit of downloads: a registry nearby would send as fast as the event loop reads, and
predictions would wait for it."""
_WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"
_FEATURES = ("server-info", "server-features")
"""Where MLflow says whether it has workspaces: the newer route, and the older one."""


class Client:
    """Calls one tracking server.

    Args:
        uri: its address, with a path prefix if it has one.
        token: bearer token; used instead of user and password.
        username, password: for basic authentication.
        ca_file: certificates to trust instead of the system's.
        workspace: has the models, on a server with workspaces; empty: the default workspace.
        timeout_s: seconds for one call of the API, from connecting to the last byte.
    """

    def __init__(
        self,
        uri: str,
        *,
        timeout_s: float,
        token: str = "",
        username: str = "",
        password: str = "",
        ca_file: str = "",
        workspace: str = "",
    ) -> None:
        headers = {"accept-encoding": "identity", "user-agent": "halfcore"}
        headers |= {"authorization": f"Bearer {token}"} if token else {}
        headers |= {_WORKSPACE_HEADER: workspace} if workspace else {}
        self._workspace = workspace
        self._workspace_known = not workspace
        self._timeout_s = timeout_s
        self._login = ""
        """The variable of the login that is sent, if there is one."""
        if token:
            self._login = "MLFLOW_TRACKING_TOKEN"
        elif username:
            self._login = "MLFLOW_TRACKING_USERNAME"
        self._proxy = proxy_for(uri, os.environ)
        self._http = httpx.AsyncClient(
            base_url=uri.rstrip("/"),
            headers=headers,
            auth=(username, password) if username and not token else None,
            verify=trust(ca_file) if uri.startswith("https:") else False,
            proxy=self._proxy and self._proxy.url,
            trust_env=False,
            timeout=timeout_s,
            # A connection per call: the server may close a kept one just when it is used again,
            # seconds later.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get(self, path: str, **params: Any) -> dict[str, Any]:
        """One call of /api/2.0/mlflow/PATH.

        Raises:
            NotOffered: there is no such model, version, alias or run.
            Unavailable: any other failure.
        """
        try:
            if not self._workspace_known:
                await self._check_workspace()
            return await self._get_json(f"/api/2.0/mlflow/{path}", params)
        except Unavailable:
            # The next answer may be another server's.
            self._workspace_known = not self._workspace
            raise

    async def _check_workspace(self) -> None:
        """Make sure that the server has workspaces: one without them ignores the header, and would
        send another tenant's model.

        Raises:
            Unavailable: it has none, or any other failure.
        """
        for path in _FEATURES:
            try:
                features = await self._get_json(f"/api/3.0/mlflow/{path}", {})
            except Unavailable as error:
                # A status such as 404 only means that there is no such route.
                if error.code != "http_status":
                    raise
                continue
            if features.get("workspaces_enabled") is True:
                self._workspace_known = True
                return
            break
        raise Unavailable(
            "no_workspaces",
            f"the registry has no workspaces, so nothing of the workspace {self._workspace} can "
            "be served: start MLflow with "
            "--enable-workspaces, or unset HALFCORE_TRACKING_WORKSPACE and MLFLOW_WORKSPACE",
        )

    async def _get_json(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        body = bytearray()
        async with self._answer(path, params, self._timeout_s) as response:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MOST_JSON_BYTES:
                    raise Unavailable(
                        "wrong_length",
                        f"{path}: the registry's answer is longer than {MOST_JSON_BYTES} bytes",
                    )
        return _parsed(path, body)

    async def download(
        self,
        path: str,
        *,
        params: dict[str, str],
        size_bytes: int | None,
        most_bytes: int,
        timeout_s: float,
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """Read one file in pieces, at `MOST_BYTES_PER_S`.

        Args:
            path: from the server's root, not quoted.
            params: the query.
            size_bytes: the file's size, if it is known; any other is an error.
            most_bytes: the largest size, if it is not known.
            timeout_s: seconds for the whole download.
            write: gets the pieces.

        Raises:
            Unavailable: any failure.
        """
        expected = f"{size_bytes}" if size_bytes is not None else f"at most {most_bytes}"
        most_bytes = most_bytes if size_bytes is None else size_bytes
        clock, count = asyncio.get_running_loop().time, 0
        async with self._answer(quote(path), params, timeout_s) as response:
            _check_announced(response, size_bytes, most_bytes, expected)
            start = clock()
            async for chunk in response.aiter_raw(_PIECE_BYTES):
                count += len(chunk)
                if count > most_bytes:
                    raise Unavailable(
                        "wrong_length", f"got more bytes than expected, which is {expected}"
                    )
                await write(chunk)
                # Returns at once if the network is slower than the limit.
                await asyncio.sleep(start + count / MOST_BYTES_PER_S - clock())
        if size_bytes is not None and count != size_bytes:
            raise Unavailable("wrong_length", f"got {count} bytes, expected {expected}")

    @asynccontextmanager
    async def _answer(
        self, path: str, params: dict[str, Any], timeout_s: float
    ) -> AsyncIterator[httpx.Response]:
        """An answer of status 200, its body not yet read. What httpx raises, also while the caller
        reads the body, becomes `Unavailable`."""
        began = False
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._http.stream("GET", path, params=params) as response,
            ):
                began = True
                if response.status_code != 200:
                    await self._raise_for_status(response)
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise Unavailable("encoded", "got a compressed answer, which was not requested")
                yield response
        except (TimeoutError, httpx.TimeoutException):
            raise Unavailable(
                "timeout", f"the registry did not answer within {timeout_s:g} s{self._by_proxy()}"
            ) from None
        except httpx.RemoteProtocolError as error:
            code, what = ("cut_short", "cut short") if began else ("protocol", "not HTTP")
            why = _line(error) or reason_of(error)
            if not began and self._http.base_url.scheme == "http":
                why = f"{why.rstrip('.')}; if it speaks TLS, write https:// in the tracking URI"
            raise Unavailable(code, f"the registry's answer is {what}: {why}") from None
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    async def _raise_for_status(self, response: httpx.Response) -> NoReturn:
        """Raise the error that a status other than 200 means."""
        status = response.status_code
        text = (await _beginning(response)).decode(errors="replace")
        document = _json_object(text)
        if status in (400, 404) and document.get("error_code") in _ABSENT:
            raise NotOffered("not_found", _line(document.get("message", "not found")))
        if 300 <= status < 400:
            raise Unavailable(
                "redirect",
                f"the registry redirects to {response.headers.get('location', '')[:100]!r}, which "
                "is not followed",
            )
        if status in (401, 403):
            raise self._not_allowed(status, text)
        if status == 407 and self._proxy:
            raise _proxy_login(self._proxy)
        raise _failed(response, self._by_proxy())

    def _not_allowed(self, status: int, text: str) -> Unavailable:
        if status == 401 and self._login:
            return Unavailable(
                "unauthorized",
                f"the registry does not accept the login of {self._login}, which may have expired: "
                "correct or renew it, and restart the server",
            )
        if status == 401:
            return Unavailable(
                "unauthorized",
                "the registry asks for a login: set MLFLOW_TRACKING_TOKEN, or _USERNAME and "
                "_PASSWORD",
            )
        if "Host header" in text:
            host = self._http.base_url.netloc.decode()
            return Unavailable(
                "host_not_allowed",
                f"MLflow does not accept the host name {host}: start it with --allowed-hosts "
                f"{host}",
            )
        return Unavailable(
            "forbidden",
            "the registry forbids this user to read it (403): give the user that right in MLflow",
        )

    def _unreachable(self, error: httpx.TransportError) -> Unavailable:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                text = f"no trusted connection to the registry: {untrusted(cause)}"
                return Unavailable("tls", text)
            cause = cause.__cause__ or cause.__context__
        why = _line(error) or reason_of(error)
        if self._proxy and isinstance(error, httpx.ProxyError) and why.startswith("407"):
            return _proxy_login(self._proxy)
        return Unavailable("unreachable", f"no connection to the registry{self._by_proxy()}: {why}")

    def _by_proxy(self) -> str:
        """Which proxy is between, for messages: it may be the cause."""
        if self._proxy is None:
            return ""
        return f" through the proxy {self._proxy.place} of {self._proxy.variable}"


def _proxy_login(proxy: Proxy) -> Unavailable:
    return Unavailable(
        "unreachable",
        f"the proxy {proxy.place} does not accept this server's login (407): write "
        f"http://USER:PASSWORD@{proxy.place} into {proxy.variable}, and restart the server",
    )


def _parsed(path: str, body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in an answer of the API."""
    if body.lstrip()[:1] == b"<":
        raise Unavailable(
            "html", f"{path}: got HTML instead of JSON; does the tracking URI lead to MLflow?"
        )
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise Unavailable("not_json", f"{path}: the answer is not a JSON object")
    return document


def _check_announced(
    response: httpx.Response, size_bytes: int | None, most_bytes: int, expected: str
) -> None:
    """Check a file's headers before its body is read.

    Raises:
        Unavailable: it is HTML, or does not have the expected length.
    """
    if "html" in response.headers.get("content-type", ""):
        raise Unavailable("html", "got HTML instead of the file")
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and (
        int(announced) > most_bytes or (size_bytes is not None and int(announced) != size_bytes)
    ):
        raise Unavailable(
            "wrong_length", f"{announced[:20]} bytes are announced, expected {expected}"
        )


def _failed(response: httpx.Response, by_proxy: str) -> Unavailable:
    """The error for a status that has no meaning of its own here."""
    status = response.status_code
    wait = response.headers.get("retry-after", "")
    return Unavailable(
        "rate_limited" if status == 429 else "server_error" if status >= 500 else "http_status",
        f"the registry answered {status}{by_proxy}",
        retry_after_s=min(float(wait), MOST_RETRY_AFTER_S) if wait.isdecimal() else None,
        # An artifact that does not exist, or a server without the artifact proxy
        missing=status in (404, 500, 503),
    )


async def _beginning(response: httpx.Response) -> bytes:
    """The first kilobytes of a body; the rest is not read."""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > 4096:
            break
    return body


def _json_object(text: str) -> dict[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _line(value: object) -> str:
    """Text from outside as one short line."""
    return " ".join(str(value).split())[:200]
