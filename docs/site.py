"""Lays out the pages of the documentation's site in .halfcore/site/pages, as they lie in the tree,
with every file that they link to, so that no link changes. `just site` builds it then.

A folder that is linked, such as a stored run, gets a page that lists its files.
"""

import os
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / ".halfcore/site/pages"
LOOKS = ("docs/site.css", "docs/site.js")
"""Colours and behaviour of all pages, which zensical.toml names."""
SPANISH = {"README.es.md": None, "docs/from-the-course.md": "\n# From the course\n"}
"""Pages in Spanish, and the line at which the rest is English, if there is one."""
_TARGET = re.compile(r"(?<=\]\()(?!https?:|#)[^)#\s]+|(?<=\]: )(?!https?:)[^)#\s]+$", re.MULTILINE)


def main() -> None:
    """Make the folder again."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for page in pages():
        text = in_its_language(page, _TARGET.sub(partial(linked, page), page.read_text()))
        place = PAGES / page.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        (place.with_name("index.md") if page == ROOT / "README.md" else place).write_text(text)
    for name in LOOKS:
        shutil.copyfile(ROOT / name, PAGES / name)


def in_its_language(page: Path, text: str) -> str:
    """A page whose Spanish text says that it is Spanish, so that it is read aloud and broken into
    lines as such: the site's own words are English."""
    name = str(page.relative_to(ROOT))
    if name not in SPANISH:
        return text
    spanish, line, english = text.partition(SPANISH[name] or "\0")
    return f'<div lang="es" markdown="1">\n\n{spanish}\n</div>\n{line}{english}'


def pages() -> list[Path]:
    """The Markdown files that git tracks or would track, but for the forms of a code host."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],  # noqa: S607  git, as found
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [ROOT / name for name in listed.stdout.splitlines() if not name.startswith(".")]
    return [file for file in files if file.exists()]


def linked(page: Path, found: re.Match[str]) -> str:
    """A link of a page, as the site has it."""
    return target(page, found[0])


def target(page: Path, link: str) -> str:
    """Copy what a page links to, and return the link as the site has it."""
    file = Path(os.path.normpath(page.parent / link))
    place = PAGES / file.relative_to(ROOT)
    if file == ROOT / "README.md":
        return os.path.relpath(PAGES / "index.md", (PAGES / page.relative_to(ROOT)).parent)
    if file.is_dir():
        return f"{link.rstrip('/')}/{listing(file, place)}"
    if file.suffix == ".md":
        return link
    if not file.suffix:  # hidden files are left out of a site, and browsers save LICENSE
        parts = [part.lstrip(".") for part in file.relative_to(ROOT).parts]
        place = PAGES.joinpath(*parts).with_suffix(".txt")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, place)
    return os.path.relpath(place, (PAGES / page.relative_to(ROOT)).parent)


def listing(folder: Path, place: Path) -> str:
    """Copy a folder's files, and write a page that lists them; returns the page's name."""
    place.mkdir(parents=True, exist_ok=True)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    for file in files:
        shutil.copyfile(file, place / file.name)
    lines = [f"- [{file.name}]({file.name})" for file in files]
    (place / "index.md").write_text("\n".join([f"# {folder.name}", "", *lines, ""]))
    return "index.md"


if __name__ == "__main__":
    main()
