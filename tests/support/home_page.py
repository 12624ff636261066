"""Tries a prediction on the server's own page as a person does, in a real browser without a
network."""

from playwright.sync_api import Page

from support.docs_page import PATIENCE_S

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
