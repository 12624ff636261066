"""axe-core, the usual checker of accessibility, finds no serious fault in the pages that people
open: the server's page, /docs, the load lab's report, and the documentation's site.

It runs inside each page, in a real browser; npm installs the version of package-lock.json.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from loadlab.record.store import read
from loadlab.report.page import write_reports
from loadlab.verdict.judge import judge
from support import browser, docs_page
from support.bundles import write_bundle
from support.docs_page import PATIENCE_S, PENGUIN, visiting
from support.home_page import open_page, predict
from support.runs import Made, Server, fresh, made
from support.serving import serving
from support.site import build, site_served

PROGRAM = browser.found() or ""
pytestmark = [
    pytest.mark.skipif(
        not PROGRAM, reason="no browser; Debian: apt-get install --no-install-recommends chromium"
    ),
    pytest.mark.skipif(not shutil.which("npm"), reason="npm, which belongs to Node.js, is missing"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("accessibility"),
]
expect.set_options(timeout=PATIENCE_S * 1000)
HERE = Path(__file__).parent
WIDE = {"width": 1280, "height": 900}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}},
    "Spanish": {"viewport": WIDE, "locale": "es-MX"},
}
"""How a page is opened: Playwright's options."""
THEMES = [look for look in LOOKS if look != "Spanish"]
"""For pages that have one language."""
SERIOUS = ("serious", "critical")
OF_SWAGGER_UI = {
    "button-name": "its buttons that copy a text have a picture and no name",
    "label": "its field for the body of a request has no label",
    "label-content-name-mismatch": "the name of a route's button leaves out its description",
    "nested-interactive": "a route's button contains the link to the route",
    "select-name": "its lists of servers, types and examples have no label",
}
"""Faults of the elements that Swagger UI makes, which no setting of it changes."""
SITE_PAGES = [
    "index.html",
    "README.es.html",
    "docs/operations.html",
    "docs/comparison.html",
    "docs/search.html",
    "docs/benchmarks.html",
]
"""The last one holds what the lab found in comparisons and searches."""


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checker's script."""
    folder = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(HERE / name, folder / name)
    command = ["npm", "ci", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of two models; the default one has categories, and numbers that may
    not be left out."""
    root: Path = tmp_path_factory.mktemp("bundles")
    write_bundle(root)
    write_bundle(root, "penguins", inputs=PENGUIN, classes=["Adelie", "Chinstrap", "Gentoo"])
    with serving(root, default_model="penguins") as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the documentation's site, built from this tree."""
    with site_served(build()) as address:
        yield address


def faults(page: Page, axe: str) -> dict[str, list[str]]:
    """Rules that a page breaks seriously, each with the first elements and what is wrong there."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return {
        each["id"]: [f"{node['html'][:120]}: {node['failureSummary']}" for node in each["nodes"]][
            :5
        ]
        for each in found
        if each["impact"] in SERIOUS
    }


@pytest.mark.parametrize("look", LOOKS)
def test_the_server_s_page(server: str, axe: str, look: str) -> None:
    """As it is opened, with an answer, with an error at a field, and without a server."""
    with visiting(PROGRAM, **LOOKS[look]) as visit:
        page = visit.page
        open_page(page, server)
        page.locator(".tiles").wait_for()
        assert faults(page, axe) == {}
        predict(page)
        assert faults(page, axe) == {}
        page.get_by_label("bill_length_mm").fill("")
        page.locator("#form button[type=submit]").click()
        expect(page.locator("[aria-invalid]")).to_be_focused()
        assert faults(page, axe) == {}
        page.route("**/*", lambda route: route.abort())
        expect(page.locator("#state")).to_have_attribute("data-state", "silent")
        assert faults(page, axe) == {}


@pytest.mark.parametrize("look", THEMES)
def test_the_page_of_the_api(server: str, axe: str, look: str) -> None:
    """Nothing but what Swagger UI's own elements lack, with a route that was tried."""
    with visiting(PROGRAM, **LOOKS[look]) as visit:
        status, _ = docs_page.predict(visit.page, server)
        found = faults(visit.page, axe)
    assert status == "200"
    assert {rule: seen for rule, seen in found.items() if rule not in OF_SWAGGER_UI} == {}
    assert OF_SWAGGER_UI.keys() <= found.keys()  # else its reason is out of date


@pytest.mark.parametrize("look", THEMES)
@pytest.mark.parametrize("run", [fresh, lambda: made(Server(errors=0.01))], ids=["PASS", "FAIL"])
def test_the_report_of_a_load_run(
    tmp_path: Path, axe: str, look: str, run: Callable[[], Made]
) -> None:
    """Of one that passed and of one that failed."""
    stored = run().write(tmp_path / "run")
    log = read(stored)
    report = write_reports(log, judge(log), stored, claim="A claim.")
    with visiting(PROGRAM, **LOOKS[look]) as visit:
        visit.page.goto(report.as_uri())
        assert faults(visit.page, axe) == {}


@pytest.mark.parametrize("look", THEMES)
def test_the_documentation(site: str, axe: str, look: str) -> None:
    """With what the lab writes into it."""
    found = {}
    with visiting(PROGRAM, **LOOKS[look]) as visit:
        for name in SITE_PAGES:
            visit.page.goto(site + name)
            visit.page.locator("body[data-md-color-scheme]").wait_for()
            found[name] = faults(visit.page, axe)
    assert found == {name: {} for name in SITE_PAGES}
