"""The documentation's site: built as its readers build it, every link of it leads somewhere, and no
page asks another host for anything."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from support import browser
from support.docs_page import visiting
from support.walks.walker import Walker, walks

pytestmark = [pytest.mark.xdist_group("lab"), pytest.mark.slow]
SITE = ".halfcore/site/html"
_OTHER_HOST = re.compile(r"(?:url\(|@import )[\"']?(?:https?:)?//")


class Page(HTMLParser):
    """What a page loads, where it links to, its anchors, and the language of each heading that has
    one: empty if it is the page's."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = {""}
        self.languages: dict[str, str] = {}
        self._divisions = [""]
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of every element."""
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found.get("id", ""), found.get("name", "")}
        if tag == "div":
            self._divisions.append(found.get("lang", self._divisions[-1]))
        elif tag in ("h1", "h2") and "id" in found:
            self.languages[found["id"]] = self._divisions[-1]
        if tag == "a":
            self.links += [found["href"]] if "href" in found else []
        else:
            named = [found[name] for name in ("src", "href") if name in found]
            self.loads += named if found.get("rel") != "canonical" else []

    def handle_endtag(self, tag: str) -> None:
        """Of every element that has an end."""
        if tag == "div":
            self._divisions.pop()


@walks("just site", "just site serve")
def test_the_site_is_built_and_served(walker: Walker) -> None:
    """Strictly; each page is there, links and anchors hold, and all that it loads is its own."""
    assert "No issues found" in (done := walker.run(walker.find("just site"))).out + done.said
    site = walker.folder / SITE
    pages = {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}
    names = {str(file.relative_to(site)) for file in pages}
    assert {"index.html", "README.es.html", "docs/faq.html", "docs/decisions/index.html"} <= names
    for file, page in pages.items():
        assert not [load for load in page.loads if urlsplit(load).netloc], file
        for link in (*page.loads, *page.links):
            assert_holds(link, file, site, pages)
    assert set(pages[site / "README.es.html"].languages.values()) == {"es"}
    assert set(pages[site / "index.html"].languages.values()) == {""}
    course = pages[site / "docs/from-the-course.html"].languages
    assert course == {"desde-el-taller": "es", "from-the-course": ""}
    for style in site.rglob("*.css"):
        assert not _OTHER_HOST.search(style.read_text()), style
    with walker.start(walker.find("just site serve")) as server:
        server.until(lambda: server.http.get("/").status_code == 200, "serving the site")
        if program := browser.found():
            look_around(program, f"http://127.0.0.1:{walker.port}/")
        server.end()


def assert_holds(link: str, file: Path, site: Path, pages: dict[Path, Page]) -> None:
    """A link within the site leads to a file, and its anchor is on that page."""
    parts = urlsplit(urljoin(f"/{file.relative_to(site)}", link))
    if parts.netloc or parts.scheme:
        return
    meant = site / unquote(parts.path).lstrip("/")
    meant = meant / "index.html" if meant.is_dir() else meant
    assert meant.is_file(), f"{file.relative_to(site)} links to {link}"
    if meant in pages:
        anchors = pages[meant].anchors
        assert unquote(parts.fragment) in anchors, f"{file.relative_to(site)} links to {link}"


def look_around(program: str, home: str) -> None:
    """Read a page, and search for a word in each language: nothing is asked of another host."""
    found = {"refused": "docs/export.html", "núcleo": "README.es.html"}
    with visiting(program) as visit:
        for word, page in found.items():
            visit.page.goto(home)
            assert visit.page.title() == "Overview - Halfcore"
            search = visit.page.get_by_placeholder("Search")
            while not search.is_visible():  # the key does nothing until the page's script has run
                visit.page.keyboard.press("/")
                visit.page.evaluate("new Promise(requestAnimationFrame)")
            search.fill(word)
            visit.page.locator(f"a[href*='{page}?h=']").first.wait_for()
        assert not visit.complaints
        assert not visit.refused
        assert all(url.startswith((home, "blob:", "data:")) for url in visit.requests)
