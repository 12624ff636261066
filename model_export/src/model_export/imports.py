"""Makes the imports of an export cheaper. For a process that runs one export or a few."""

from __future__ import annotations

import gc


def begin() -> None:
    """Prepare for the imports; called before MLflow is imported.

    They make a million objects that stay, among which Python's collector would look for garbage
    again and again. And skops looks for each of SciPy's functions in all modules, in the order in
    which they were imported: behind MLflow's two thousand modules that takes longer than to import
    MLflow.
    """
    gc.disable()
    import scipy.special  # noqa: F401


def end() -> None:
    """Collect garbage again, but none among the objects that the imports made. Does nothing without
    `begin`."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
