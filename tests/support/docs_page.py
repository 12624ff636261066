"""Tries a prediction on /docs as a person does, in a real browser without a network."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import FloatRect, Page, sync_playwright

PATIENCE_S = 60
"""For each step: a machine may be busy with other tests."""
WIDTH = 1000
"""Of the page, pixels."""
PENGUIN: list[dict[str, Any]] = [
    {
        "name": "island",
        "kind": "category",
        "nullable": False,
        "categories": ["Biscoe", "Dream", "Torgersen"],
        "example": "Torgersen",
    },
    {
        "name": "bill_length_mm",
        "kind": "number",
        "nullable": False,
        "example": 39.1,
        "minimum": 32.1,
        "maximum": 59.6,
    },
    {
        "name": "bill_depth_mm",
        "kind": "number",
        "nullable": False,
        "example": 18.7,
        "minimum": 13.1,
        "maximum": 21.5,
    },
    {
        "name": "sex",
        "kind": "category",
        "nullable": True,
        "categories": ["FEMALE", "MALE"],
        "example": "MALE",
    },
]
"""Columns of a model of penguins."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@dataclass
class Visit:
    """A page that is open, and what happened since it was opened."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """What the page wrote to the console as a warning or an error, and what it did not catch."""
    requests: list[str] = field(default_factory=list)
    """The addresses that it asked for."""
    refused: list[str] = field(default_factory=list)
    """The addresses that were not answered with 2xx or 3xx."""


@contextmanager
def visiting(program: str, **options: Any) -> Iterator[Visit]:
    """An empty page in a browser of its own; `options` are Playwright's, of a new page."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program, args=list(FLAGS), timeout=PATIENCE_S * 1000
        )
        try:
            page = chromium.new_page(**{"viewport": {"width": WIDTH, "height": 1000}} | options)
            page.set_default_timeout(PATIENCE_S * 1000)
            visit = Visit(page)
            page.on(
                "console",
                lambda said: (
                    visit.complaints.append(said.text)
                    if said.type in ("error", "warning")
                    else None
                ),
            )
            page.on("pageerror", lambda error: visit.complaints.append(str(error)))
            page.on("request", lambda request: visit.requests.append(request.url))
            page.on("requestfailed", lambda request: visit.refused.append(request.url))
            page.on(
                "response",
                lambda answer: visit.refused.append(answer.url) if answer.status >= 400 else None,
            )
            yield visit
        finally:
            chromium.close()


def predict(page: Page, base_url: str) -> tuple[str, Any]:
    """Open /docs, expand POST /predict, try it out and execute it; the status and the answer that
    the page shows."""
    page.goto(f"{base_url}/docs", timeout=PATIENCE_S * 1000)
    route = page.locator("#operations-predict-predict")
    route.locator(".opblock-summary-control").click()
    route.get_by_role("button", name="Try it out").click()
    route.get_by_role("button", name="Execute").click()
    shown = route.locator(".live-responses-table .response").first
    status = shown.locator(".response-col_status").inner_text()
    return status.split()[0], json.loads(shown.locator(".highlight-code code").first.inner_text())


def down_to_the_answer(page: Page) -> FloatRect:
    """The part of the page from its top to the end of the first answer, in pixels."""
    box = page.locator(".live-responses-table").first.bounding_box()
    assert box is not None
    top = page.evaluate("window.scrollY")
    return {"x": 0, "y": 0, "width": WIDTH, "height": top + box["y"] + box["height"]}
