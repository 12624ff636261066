"""The documentation says what the code does."""

import ast
import re
import subprocess
from dataclasses import fields
from pathlib import Path

from halfcore import __version__
from halfcore.settings.arguments import title_of
from halfcore.settings.groups import DEFAULTS, GROUPS, descriptions
from halfcore.settings.names import PREFIX, SEED_NAMES

ROOT = Path(__file__).parents[2]
TABLE_HEAD = "| environment | default | meaning, and the default's reason |"


def settings_tables() -> list[str]:
    """One section per group, with one Markdown row per setting."""
    sections = []
    for group in GROUPS:
        lines = [f"### {title_of(group)}", "", TABLE_HEAD, "| --- | --- | --- |"]
        lines += [settings_row(field.name) for field in fields(group)]
        sections.append("\n".join(lines) + "\n")
    return sections


def settings_row(name: str) -> str:
    """A setting's names in the environment, its default, and its description."""
    default = DEFAULTS[name]
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    seed = f", `{SEED_NAMES[name]}`" if name in SEED_NAMES else ""
    value = f"`{shown}`" if shown else ""
    return f"| `{PREFIX}{name.upper()}`{seed} | {value} | {descriptions()[name]} |"


def test_every_setting_is_documented_as_it_is() -> None:
    """docs/operations.md has the groups in their order, and each setting's row."""
    text = (ROOT / "docs/operations.md").read_text()
    assert "\n".join(settings_tables()) in text


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
        text = page.read_text()
        inline = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
        named = re.findall(r"^\[[^\]]+\]: (?!https?:)([^\s#]+)", text, re.MULTILINE)
        for target in inline + named:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_code_of_a_failed_request_is_explained() -> None:
    """Each that a problem or a wrong field has in the code; metrics and answers name it."""
    text = (ROOT / "docs/operations.md").read_text()
    table = text.partition("## When a request fails")[2].partition("## Metrics")[0]
    codes = {
        argument.value
        for file in (ROOT / "server/src/halfcore").rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("Problem", "FieldError")
        for argument in call.args[:2]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    } - {"$"}  # a path
    assert len(codes) > 20
    assert {code for code in codes if f"`{code}`" not in table} == set()


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
