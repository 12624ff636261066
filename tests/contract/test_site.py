"""The documentation's site has every page."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEADS_TO = {"docs/decisions/README.md": "docs/decisions"}
"""Pages that link to all others of their folder."""


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    """And nothing else; decisions are reached from their list."""
    named = set(re.findall(r'"((?:docs/|compose/)?[\w.-]+(?:/[\w.-]+)?\.md)"', nav()))
    pages = {str(file.relative_to(ROOT)) for file in (ROOT / "docs").glob("*.md")}
    outside = {"README.es.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"}
    assert named == pages | outside | {"index.md", "compose/README.md", *LEADS_TO}
    for page, folder in LEADS_TO.items():
        links = set(re.findall(r"\]\(([\w.-]+\.md)\)", (ROOT / page).read_text()))
        assert links == {file.name for file in (ROOT / folder).glob("0*.md")}


def nav() -> str:
    """The part of the site's settings that names its pages."""
    return (ROOT / "zensical.toml").read_text().partition("nav = [")[2].partition("[project.")[0]
