"""The groups of tests that tests/conftest.py makes are the ones by which `just test` divides the work."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_tests_are_divided_by_their_groups(request: pytest.FixtureRequest) -> None:
    """pytest-xdist reads a group from the end of a test's id; some releases of pytest hide it."""
    assert request.node.nodeid.endswith(f"@{__file__}")
