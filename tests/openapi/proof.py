"""Random requests made from the API's description, and whether the server's answers are as it says.

schemathesis makes the requests, valid ones and ones that break the description in one place, and
compares each answer with it: no server error, no status, content type or schema that is not
described. How many requests a route gets is decided here, because a route without parameters has
one only.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi import checks

from halfcore.http.routes.docs_answers import TIMEOUT

CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
)
EXACT = (checks.negative_data_rejection,)
"""Also for `/predict`, whose description refuses whatever the server refuses."""
PROCESSES = 2
"""Whatever the machine has: the requests depend on it."""
TIMEOUT_S = 60.0
ADMIN_TOKEN = "of-the-proof"  # noqa: S105  of a server on loopback
"""Of the server that is asked: without it no request gets further than 401."""
_SETTINGS = settings(
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Way(NamedTuple):
    """One way to make requests for an operation."""

    operation: APIOperation[Any, Any, Any, Any]
    mode: GenerationMode
    fixed: dict[str, str]
    """Path parameters that are not made up."""


@dataclass
class Found:
    """What the server answered."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    """Operation → how often each status."""
    failures: dict[str, str] = field(default_factory=dict)
    """Operation and kind of failure → the first of them, whole."""

    @property
    def cases(self) -> int:
        """Requests that were answered."""
        return sum(counts.total() for counts in self.statuses.values())

    @property
    def server_errors(self) -> int:
        """Answers of 500 and above."""
        return sum(
            count
            for counts in self.statuses.values()
            for status, count in counts.items()
            if status >= 500
        )


def prove(url: str, *, cases: int, first_seed: int, names: Sequence[str]) -> Found:
    """Send at least so many requests, from `PROCESSES` processes: making one takes far more time
    than answering it. They are the same for the same seed and description.

    Args:
        url: of the server.
        cases: how many.
        first_seed: of what is drawn.
        names: models that it serves.
    """
    share = partial(_prove, url, -(-cases // PROCESSES), names)
    # A process that is forked would have the caller's threads and connections.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(share, range(first_seed, first_seed + PROCESSES)))
    found = Found()
    for part in parts:
        found.failures |= part.failures
        for operation, counts in part.statuses.items():
            found.statuses.setdefault(operation, Counter()).update(counts)
    return found


def _prove(url: str, cases: int, names: Sequence[str], first_seed: int) -> Found:
    """The share of one process."""
    load_all_checks()
    document = requests.get(f"{url}/openapi.json", timeout=TIMEOUT_S).json()
    schema = schemathesis.openapi.from_dict(document)
    found = Found()
    all_ways = [way for result in schema.get_all_operations() for way in _ways(result.ok(), names)]
    single = [way for way in all_ways if not _varies(way.operation)]
    varied = [way for way in all_ways if _varies(way.operation)]
    with requests.Session() as session:
        send = _Sender(url, session, found)
        for way in single:
            send.some(way, 1, first_seed)
        number = first_seed
        while (before := found.cases) < cases:
            each = max(-(-(cases - before) // len(varied)), 5)
            for way in varied:
                send.some(way, each, number)
            number += PROCESSES
            if found.cases == before:
                raise RuntimeError("no request could be made from the description")
    return found


def _varies(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    return bool(operation.body or operation.path_parameters or operation.headers or operation.query)


def _ways(operation: APIOperation[Any, Any, Any, Any], names: Sequence[str]) -> Iterator[Way]:
    """Valid requests and wrong ones, with path parameters that are made up and with right ones."""
    if not _varies(operation):
        yield Way(operation, GenerationMode.POSITIVE, {})
        return
    parameters = {parameter.name for parameter in operation.path_parameters}
    values = {"name": names[0], "version": "1"}
    right = {name: value for name, value in values.items() if name in parameters}
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        yield Way(operation, mode, {})
        if right and (operation.body or operation.headers):
            yield Way(operation, mode, right)


@dataclass
class _Sender:
    """Sends requests on one connection, and keeps what was wrong."""

    url: str
    session: requests.Session
    found: Found

    def some(self, way: Way, count: int, number: int) -> None:
        """Up to so many requests, drawn by the seed `number`."""
        strategy = way.operation.as_strategy(way.mode, path_parameters=way.fixed or None)

        @seed(number)
        @settings(_SETTINGS, max_examples=count)
        @given(case=strategy)
        def ask(case: Case) -> None:
            self.one(case)

        try:
            ask()
        except Unsatisfiable:
            return  # nothing of this operation can be wrong

    def one(self, case: Case) -> None:
        """One request."""
        label = case.operation.label
        if (limit := str((case.headers or {}).get(TIMEOUT["name"], ""))).isdecimal():
            case.headers[TIMEOUT["name"]] = limit + "0000"  # so that the answer is in time
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"} if "/reload" in label else None
        response = case.call(
            base_url=self.url, session=self.session, headers=headers, timeout=TIMEOUT_S
        )
        self.found.statuses.setdefault(label, Counter())[response.status_code] += 1
        exact = EXACT if label.endswith("/predict") else ()
        try:
            case.validate_response(response, checks=[*CHECKS, *exact])
        except (Failure, FailureGroup) as failure:
            parts = failure.exceptions if isinstance(failure, FailureGroup) else (failure,)
            for part in parts:
                key = f"{label}: {part.title}, status {response.status_code}"
                self.found.failures.setdefault(key, f"{part}\n{case.as_curl_command()}")
