"""Recognizes rows that were drawn before, so that the proof asks for each row once and counts
distinct rows only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from model_export.study.arrays import Flags, Matrix

_BLOCK_VALUES = 1_000_000
"""Hashed at once, which takes a multiple of 8 MB."""


class Distinct:
    """Remembers a hash of 64 bits for each row. Two different rows of 150,000 have the same hash
    with a chance of 1 in a billion; then one of them is left out, which harms nothing."""

    def __init__(self) -> None:
        """Start with no row."""
        self._seen = np.empty(0, dtype=np.uint64)
        self.repeated = 0

    def first(self, rows: Matrix) -> Flags:
        """bool[N]: true for rows that were not drawn before, the first of equal ones included.

        −0 and 0 are different rows: models may treat them differently.
        """
        hashes = _hashes(rows)
        _, places = np.unique(hashes, return_index=True)
        flags = np.zeros(len(rows), dtype=np.bool_)
        flags[places] = True
        flags &= ~np.isin(hashes, self._seen)
        self._seen = np.concatenate([self._seen, hashes[flags]])
        self.repeated += int(len(rows) - flags.sum())
        return flags


def _hashes(rows: Matrix) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """uint64[N]."""
    rng = np.random.default_rng(64)
    factors = rng.integers(0, 2**63, rows.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    size = max(1, _BLOCK_VALUES // max(1, rows.shape[1]))
    parts = [_hashed(rows[start : start + size], factors) for start in range(0, len(rows), size)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _hashed(
    rows: Matrix, factors: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    # Mixed before they are summed: doubles of whole numbers end in zeros, which a product keeps.
    bits = np.ascontiguousarray(rows, dtype=np.float64).view(np.uint64).copy()
    bits ^= bits >> np.uint64(33)
    bits *= np.uint64(0xFF51AFD7ED558CCD)
    bits ^= bits >> np.uint64(33)
    bits *= factors
    bits ^= bits >> np.uint64(29)
    return np.asarray(bits.sum(axis=1, dtype=np.uint64))
