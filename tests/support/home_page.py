"""Tries a prediction on the server's own page as a person does, in a real browser without a
network.

`just home-picture` renews docs/images/home.png with it: `python tests/support/home_page.py
.halfcore/bundles docs/images/home.png`.
"""

import argparse
import sys
from pathlib import Path

from playwright.sync_api import Page

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from support import browser
from support.docs_page import PATIENCE_S, visiting
from support.serving import serving

SHOWN = "penguins-svm"
"""The model of the picture; there is one request per curve point of the live figures."""
SNIPPETS = ("curl", "Python requests", "MLflow", "tritonclient")


def open_page(page: Page, base_url: str, model: str = "") -> None:
    """Open the page, and wait until the form of the chosen model is there."""
    page.goto(f"{base_url}/#model={model}" if model else f"{base_url}/", timeout=PATIENCE_S * 1000)
    page.locator("#fields .field").first.wait_for()


def predict(page: Page) -> str:
    """Press Predict; the prediction that the page then shows."""
    page.locator("#form button[type=submit]").click()
    return page.locator("#answer:not([aria-busy]) .prediction").inner_text()


def snippet(page: Page, client: str) -> str:
    """Open a client's tab; the call that it shows."""
    page.get_by_role("tab", name=client, exact=True).click()
    return page.locator("#snippet").inner_text()


def main() -> int:
    """Take the picture; 1 if there is no browser, or if the page is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path)
    parser.add_argument("picture", type=Path)
    asked = parser.parse_args()
    if (program := browser.needed()) is None:
        return 1
    with (
        serving(asked.bundles, default_model=SHOWN) as server,
        visiting(program, viewport={"width": 1080, "height": 900}) as visit,
    ):
        page = visit.page
        open_page(page, f"http://127.0.0.1:{server.port}")
        page.locator(".tiles").wait_for()
        for length in (50, 46, 41, 39, 36, 48, 52, 44) * 4:  # some load for the live figures
            page.get_by_label("culmen_length_mm").fill(str(length))
            predict(page)
            page.wait_for_timeout(500)
        if visit.complaints or visit.refused:
            sys.stderr.write(
                f"the page failed: console {visit.complaints}, not answered {visit.refused}\n"
            )
            return 1
        asked.picture.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=asked.picture, full_page=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
