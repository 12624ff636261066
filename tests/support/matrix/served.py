"""Compares a server's answers over HTTP with those of the registered models."""

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

_BATCH, _SINGLE = 200, 20
_TIMEOUT_S = 60.0
_INVALID = 422


class Connection:
    """One connection to a server of bundles."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)

    def post(self, model: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Post a body to a model; returns status and decoded answer."""
        path = f"/models/{quote(model)}/predict"
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())


def differences(connection: Connection, bundle: Path, answers: dict[str, Any]) -> list[str]:
    """What a server answers differently for one model; empty: nothing."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    compare = _Comparison(manifest)
    records = answers["records"]
    parts = [records[i : i + _BATCH] for i in range(0, len(records), _BATCH)]
    parts += [[record] for record in records[:_SINGLE]]
    places = [*range(len(records)), *range(min(_SINGLE, len(records)))]
    found: list[str] = []
    served: list[Any] = []
    probabilities: list[Any] = []
    for part in parts:
        status, answer = connection.post(manifest["name"], part)
        if status != http.client.OK:
            return [f"the server answers {status}: {json.dumps(answer)[:300]}"]
        served += answer["prediction"]
        chances = answer.get("probabilities") or [None] * len(part)
        # An object by class, in the order of the manifest's classes.
        probabilities += [
            list(each.values()) if isinstance(each, dict) else each for each in chances
        ]
    for place, value, shares in zip(places, served, probabilities, strict=True):
        expected = answers["expected"][place]
        own = answers["probabilities"][place] if answers["probabilities"] else None
        right = [(expected, own), *answers.get("alternatives", {}).get(str(place), ())]
        wrong = [compare.difference(value, shares, *one) for one in right]
        if difference := "" if "" in wrong else wrong[0]:
            found.append(f"row {json.dumps(records[place])[:200]}: {difference}")
    return found + _probed(connection, manifest["name"], compare, answers["probes"])


def _probed(
    connection: Connection, name: str, compare: "_Comparison", probes: list[dict[str, Any]]
) -> list[str]:
    """A null or an unknown category: refused, or answered as by the registered model."""
    found = []
    for probe in probes:
        status, answer = connection.post(name, [probe["row"]])
        if status == _INVALID:
            continue
        row = json.dumps(probe["row"])[:200]
        if status != http.client.OK:
            found.append(f"row {row}: the server answers {status}")
        elif probe["expected"] is None:
            found.append(f"row {row}: answered, where the registered model raises an error")
        elif said := compare.difference(answer["prediction"][0], None, probe["expected"][0], None):
            found.append(f"row {row}: {said}")
    return found


class _Comparison:
    """By the bound that the manifest states."""

    def __init__(self, manifest: dict[str, Any]) -> None:
        self._regression = manifest["task"] == "regression"
        self._bound = manifest["parity"]["tolerance"]
        self._band = manifest["parity"]["tie_band"]

    def difference(self, served: Any, chances: Any, expected: Any, own: Any) -> str:
        """What differs; empty: nothing."""
        if self._regression:
            return self._values(served, expected)
        if isinstance(expected, list):  # a probe of a pyfunc that answers probabilities
            return self._chances(chances, expected) if chances else ""
        if served != expected and not self._tied(own):
            return f"label {served!r}, expected {expected!r}"
        if own and not chances:
            return "no probabilities"
        return self._chances(chances, own) if own else ""

    def _tied(self, own: Any) -> bool:
        """Two classes are equally likely within the band that the manifest states."""
        if not isinstance(own, list) or len(own) < 2 or self._band is None:
            return False
        second, first = sorted(own)[-2:]
        return bool(first - second <= self._band)

    def _chances(self, chances: Any, own: Any) -> str:
        largest = float(np.abs(np.asarray(chances) - np.asarray(own)).max())
        return "" if largest <= self._bound else f"probability off by {largest:.1e}"

    def _values(self, served: Any, expected: Any) -> str:
        a, b = (np.asarray(each, dtype=float) for each in (served, expected))
        largest = float((np.abs(a - b) / np.maximum(1.0, np.abs(b))).max())
        return "" if largest <= self._bound else f"value {served!r}, expected {expected!r}"
