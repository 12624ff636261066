"""The documentation says what the code does."""

import re
import subprocess
from pathlib import Path

from halfcore import __version__
from halfcore.settings.groups import DEFAULTS, descriptions
from halfcore.settings.names import PREFIX, SEED_NAMES

ROOT = Path(__file__).parents[2]


def settings_table() -> list[str]:
    """One Markdown row per setting."""
    rows = []
    for name, default in DEFAULTS.items():
        seed = f", `{SEED_NAMES[name]}`" if name in SEED_NAMES else ""
        shown = (
            ""
            if default == ""
            else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        )
        rows.append(f"| `{PREFIX}{name.upper()}`{seed} | {shown} | {descriptions()[name]} |")
    return rows


def test_every_setting_is_documented_as_it_is() -> None:
    """docs/operations.md has each setting's row: names, default and meaning."""
    text = (ROOT / "docs/operations.md").read_text()
    missing = [row for row in settings_table() if row not in text]
    assert not missing, "\n" + "\n".join(missing)


def test_the_version_is_the_packages() -> None:
    """The number in the code is the one in pyproject.toml."""
    assert f'version = "{__version__}"' in (ROOT / "server/pyproject.toml").read_text()


def test_every_recipe_that_is_mentioned_exists() -> None:
    """`just NAME` in a page means a recipe of the justfile."""
    recipes = set(
        re.findall(r"^([a-z][a-z-]*)[^:\n]*:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE)
    )
    for page in pages():
        for name in re.findall(r"`just ([a-z-]+)", page.read_text()):
            assert name in recipes, f"{page.relative_to(ROOT)} mentions `just {name}`"


def test_every_link_between_pages_leads_somewhere() -> None:
    """Relative links in Markdown point to files that exist."""
    for page in pages():
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def pages() -> list[Path]:
    """The Markdown files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]
