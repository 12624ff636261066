"""No YAML file of the project says one thing twice: PyYAML would take the last silently, and
Compose refuses the file."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted(
    [
        *ROOT.glob("compose/**/*.y*ml"),
        *ROOT.glob("kubernetes/**/*.yaml"),
        *ROOT.glob(".github/**/*.yml"),
    ]
)


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [
            self.construct_object(key, deep=True)
            for key, _ in node.value
            if key.tag != "tag:yaml.org,2002:merge"
        ]  # type: ignore[no-untyped-call]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        assert not twice, f"{sorted(twice)} twice, {node.start_mark}"
        return super().construct_mapping(node, deep=deep)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_key_stands_twice(file: Path) -> None:
    """Merges of two people's work are where they come from."""
    for document in yaml.load_all(file.read_text(), _Strict):
        assert document is not None


def test_a_key_that_stands_twice_is_seen() -> None:
    """The check can fail."""
    with pytest.raises(AssertionError, match="twice"):
        yaml.load("a: {b: 1, b: 2}", _Strict)  # noqa: S506  a subclass of SafeLoader
