"""The server's page from its address to a pasted command, by keyboard alone."""

import json
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from support import browser
from support.bundles import write_bundle
from support.docs_page import PATIENCE_S, PENGUIN, visiting
from support.home_page import open_page
from support.serving import serving

PROGRAM = browser.found() or ""
pytestmark = [
    pytest.mark.skipif(
        not PROGRAM, reason="no browser; Debian: apt-get install --no-install-recommends chromium"
    ),
    pytest.mark.slow,
    pytest.mark.timeout(300),  # a browser next to other tests on two cores
]
expect.set_options(timeout=PATIENCE_S * 1000)
MOST_BYTES = 60_000
MOST_STOPS = 40
"""Elements between the address and what a person looks for."""


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(MOST_STOPS):
        if page.locator(selector).evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"{selector} is not reached by Tab")


def test_a_prediction_by_keyboard_alone(tmp_path: Path) -> None:
    """Choose penguins, fill the form, predict, see bars, open curl's tab and paste it: the same
    answer. Nothing leaves this machine, and all files of the page have at most 60 kB."""
    write_bundle(tmp_path)
    write_bundle(tmp_path, "penguins", inputs=PENGUIN, classes=["Adelie", "Chinstrap", "Gentoo"])
    sizes: dict[str, int] = {}
    with serving(tmp_path, default_model="numbers") as server, visiting(PROGRAM) as visit:
        base_url, page = f"http://127.0.0.1:{server.port}", visit.page
        page.on(
            "requestfinished",
            lambda sent: sizes.update({sent.url: sent.sizes()["responseBodySize"]}),
        )
        open_page(page, base_url)
        tab_to(page, "#models a[href='#model=penguins']")
        page.keyboard.press("Enter")
        expect(page.locator("#try-title")).to_have_text("Try penguins")
        tab_to(page, "#field-0")
        page.keyboard.type("Dream")
        for value in ("50.5", "17.9"):
            page.keyboard.press("Tab")
            page.keyboard.press("Control+A")
            page.keyboard.type(value)
        page.keyboard.press("Enter")
        prediction = page.locator("#answer:not([aria-busy]) .prediction").inner_text()
        expect(page.locator(".bars li")).to_have_count(3)
        assert page.locator(".bars .predicted .label").inner_text() == prediction

        tab_to(page, "#tab-curl")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#snippet")).to_contain_text("import requests")
        page.keyboard.press("Home")
        expect(page.locator("#snippet")).to_contain_text("curl -s")
        command = page.locator("#snippet").inner_text()
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        assert '"island": "Dream"' in command
        assert '"bill_length_mm": 50.5' in command
        assert json.loads(done.stdout)["prediction"] == prediction
        assert (visit.complaints, visit.refused) == ([], [])
    assert [url for url in visit.requests if not url.startswith((f"{base_url}/", "data:"))] == []
    files = {f"{base_url}/"} | {url for url in sizes if "/home/" in url and "figures" not in url}
    assert len(files) >= 9
    assert 0 < sum(sizes[file] for file in files) <= MOST_BYTES
