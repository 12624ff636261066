"""The groups of tests that tests/conftest.py makes are the ones by which `just test` divides the
work."""

import pytest


def test_tests_are_divided_by_their_groups(request: pytest.FixtureRequest) -> None:
    """pytest-xdist reads a group from the end of a test's id; some releases of pytest hide it."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("tests are not divided by groups here: `--dist loadgroup` does so")
    assert request.node.nodeid.endswith(f"@{__file__}")
