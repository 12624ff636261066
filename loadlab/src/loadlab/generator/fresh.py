"""Bodies that nobody has sent before: against them a cache of answers shows.

A server that remembers answers is cheap for the bodies of the steady phase, which users send again
and again, and does the whole work for these. They are drawn from the ranges and categories of the
model's columns, as the fresh half of the pool is, and each is sent once. Generators draw them by
number, so that no list of them has to travel; some have answers, computed in the lab, and are
checked as all others are.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadlab.generator import answers
from loadlab.generator.exchange import Exchange, encode, fresh_row

MOST_ANSWERS = 4000
"""Computed for one run: half a megabyte that every worker gets."""
_COMPUTING_S = 5.0
"""The most that computing them may take; the server waits meanwhile."""
_DIFFERENT = 0.9
"""Share of the first bodies that must differ from one another and from the pool: a model of three
yes-or-no columns has no bodies that nobody sent."""
_LOOKED_AT = 500


class Fresh(msgspec.Struct, frozen=True):
    """All of them."""

    inputs: list[dict[str, Any]]
    """The manifest's columns."""
    named: bool
    seed: int
    every: int = 1
    """The answer to each so-many-th body is known; of the others only the status is checked."""
    answers: list[str] = []

    def exchange(self, number: int) -> Exchange:
        """The body of this number, from 0, and its answer if that is known."""
        # Reproducible, and cheap enough for the loop of a generator: 10 µs.
        draw = random.Random((self.seed << 40) + number)  # noqa: S311
        body = encode(fresh_row(self.inputs, draw), named=self.named)
        place, between = divmod(number, self.every)
        known = not between and place < len(self.answers)
        return Exchange(body, self.answers[place] if known else "")


def find(manifest: dict[str, Any], pool: Sequence[Exchange], seed: int) -> Fresh | None:
    """Fresh bodies for a model; None: it has too few different rows. `pool`: what users ask."""
    found = Fresh(manifest["inputs"], manifest["named"], seed)
    first = {found.exchange(number).body for number in range(_LOOKED_AT)}
    different = len(first - {each.body for each in pool})
    return found if different >= _DIFFERENT * _LOOKED_AT else None


def compute(
    fresh: Fresh, graph: Path, manifest: dict[str, Any], pool: Sequence[Exchange], expected: int
) -> tuple[Fresh, list[float]]:
    """The same bodies with answers to some of them, of so many as are expected to be sent; and the
    CPU time of one inference, microseconds, of the pool and of fresh bodies."""
    both = [pool, [fresh.exchange(number) for number in range(_LOOKED_AT)]]
    times_us = answers.inference_us(graph, manifest, [[each.body for each in one] for one in both])
    known = min(MOST_ANSWERS, expected, int(_COMPUTING_S * 1e6 / max(*times_us, 1.0)))
    every = max(-(-expected // max(known, 1)), 1)
    bodies = [fresh.exchange(place * every).body for place in range(known)]
    model = json.loads(pool[0].answer)  # its name and version, which no graph computes
    texts = [
        json.dumps(model | each, separators=(",", ":"))
        for each in answers.expected(graph, manifest, bodies)
    ]
    return msgspec.structs.replace(fresh, every=every, answers=texts), times_us
