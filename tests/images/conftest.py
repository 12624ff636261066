"""These tests build and run containers: a minute is little for them."""

import pytest

from support.walks.fixtures import checkout, walker

__all__ = ["checkout", "walker"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test more time than the tests of one process have."""
    for item in items:
        if "images" in item.path.parts and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(400))
