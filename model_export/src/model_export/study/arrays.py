"""Types of the arrays that the exporter passes around, and how their values are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
"""Packed rows, float64[N, F]."""
Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
Values = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


def same_values(a: Floats, b: Floats) -> Flags:
    """True where the values are equal or both NaN."""
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))
