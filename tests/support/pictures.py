"""Takes all pictures of the documentation as a browser without a network shows the pages: the
server's own, /docs, a load run's report, and what the lab wrote of a comparison and of a search.

`just pictures` runs it, and says what it needs.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import FloatRect, Page

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from support import browser, docs_page
from support.docs_page import visiting
from support.home_page import open_page, predict
from support.serving import serving
from support.site import build, site_served

FOLDER = Path(__file__).parents[2] / "docs/images"
SHOWN = "penguins-svm"
"""The default model on the pictures."""
MOST_BYTES = 250_000
"""Of a picture: readers wait for it."""
HOME: dict[str, dict[str, Any]] = {
    "home": {},
    "home-dark": {"color_scheme": "dark"},
    "home-es": {"locale": "es-MX"},
    "home-phone": {"viewport": {"width": 390, "height": 844}},
}
"""How the server's page is opened for each picture: Playwright's options."""
LENGTHS_MM = (50, 46, 41, 39, 36, 48, 52, 44) * 4
"""Predictions before a picture, some load for the live figures."""
REPORT_WIDTH, REPORT_HEIGHT, VERDICT_HEIGHT = 1000, 2340, 735
"""Of a report's pictures, pixels: as far as its charts, and its head alone."""
COMPARISON = "#tier-half-core-10000-users-iris-halfcore-and-typical"
SEARCH = "#halfcore-10000-users-steady"
"""Sections of docs/benchmarks.md."""


def main() -> int:
    """Take them; 1 if there is no browser, or if a page is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, help="with the example models")
    parser.add_argument("report", type=Path, help="report.html of a load run")
    asked = parser.parse_args()
    if (program := browser.needed()) is None:
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with serving(asked.bundles, default_model=SHOWN) as server:
        address = f"http://127.0.0.1:{server.port}"
        for name, options in HOME.items():
            home(program, address, name, options)
        docs(program, address)
    report(program, asked.report.resolve())
    with site_served(build()) as address:
        for name, section in (("comparison", COMPARISON), ("search", SEARCH)):
            written_by_the_lab(program, address, name, section)
    return 0


def home(program: str, address: str, name: str, options: dict[str, Any]) -> None:
    """The server's page with an answer, under some load."""
    wide = {"viewport": {"width": 1080, "height": 900}}
    with opened(program, **(wide | options)) as page:
        open_page(page, address)
        page.locator(".tiles").wait_for()
        for length in LENGTHS_MM:
            page.get_by_label("culmen_length_mm").fill(str(length))
            predict(page)
            page.wait_for_timeout(500)
        keep(name, lambda: page.screenshot(full_page=True))


def docs(program: str, address: str) -> None:
    """/docs with a prediction that was tried."""
    with opened(program) as page:
        status, _ = docs_page.predict(page, address)
        if status != "200":
            raise SystemExit(f"/docs shows status {status}, expected 200")
        clip = docs_page.down_to_the_answer(page)
        keep("docs-page", lambda: page.screenshot(full_page=True, clip=clip))


def report(program: str, file: Path) -> None:
    """A load run's page down to its charts, and its head."""
    for name, height in (("loadlab-report", REPORT_HEIGHT), ("verdict", VERDICT_HEIGHT)):
        with opened(program, viewport={"width": REPORT_WIDTH, "height": height}) as page:
            page.goto(file.as_uri())
            keep(name, page.screenshot)


def written_by_the_lab(program: str, address: str, name: str, section: str) -> None:
    """From a section's title to the end of the first picture in it."""
    with opened(program, viewport={"width": 1280, "height": 900}) as page:
        page.goto(f"{address}docs/benchmarks.html")
        first = page.locator(f"{section} ~ p:has(img)").first
        first.locator("img").evaluate("image => image.decode()")
        top, bottom = page.locator(section).bounding_box(), first.bounding_box()
        if top is None or bottom is None:
            raise SystemExit(f"docs/benchmarks.md has no section {section} with a picture")
        clip = FloatRect(
            x=top["x"] - 20,
            y=top["y"] - 10,
            width=top["width"] + 40,
            height=bottom["y"] + bottom["height"] - top["y"] + 20,
        )
        keep(name, lambda: page.screenshot(full_page=True, clip=clip))


@contextmanager
def opened(program: str, **options: Any) -> Iterator[Page]:
    """An empty page; fails if what is opened in it complains, or asks for what is not there."""
    with visiting(program, **options) as visit:
        yield visit.page
        if visit.complaints or visit.refused:
            raise SystemExit(
                f"the page failed: console {visit.complaints}, not answered {visit.refused}"
            )


def keep(name: str, take: Callable[[], bytes]) -> None:
    """Store a picture with 256 colours, which nobody sees and which is a third of the size."""
    picture = Image.open(BytesIO(take())).convert("RGB")
    file = FOLDER / f"{name}.png"
    picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{file.name} has {size:,} bytes, expected at most {MOST_BYTES:,}")
    sys.stdout.write(f"{file.relative_to(FOLDER.parents[1])}: {size:,} bytes\n")


if __name__ == "__main__":
    sys.exit(main())
