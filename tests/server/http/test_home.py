"""The server's own page as the app serves it: its files, their headers and texts, and the
figures."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import halfcore.http
from halfcore.__main__ import page_url
from halfcore.http.routes.home import HEADERS
from halfcore.metrics.counters import ROWS, SECONDS, STAGES, Metrics
from halfcore.metrics.exposition import Snapshot
from halfcore.metrics.figures import Figures
from halfcore.settings.groups import Settings
from support.bundles import write_bundle
from support.client import app_client

FOLDER = Path(halfcore.http.__file__).parent / "home"
PAGE = (FOLDER / "index.html").read_text()
SCRIPTS = "\n".join(file.read_text() for file in sorted(FOLDER.glob("*.js")))
TEXTS: dict[str, dict[str, str]] = json.loads((FOLDER / "texts.json").read_text())
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
FILES = sorted(file.name for file in FOLDER.iterdir() if file.suffix in TYPES)
MOST_BYTES = 60_000


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Serves `numbers` and `sum`."""
    write_bundle(tmp_path)
    write_bundle(tmp_path, "sum", task="regression")
    async with app_client(tmp_path, default_model="numbers") as client:
        yield client


async def test_the_page_and_its_files_are_served(client: httpx.AsyncClient) -> None:
    """As they are, each with its type and the headers that keep it from loading anything from
    elsewhere."""
    for path, file, kind in [
        ("/", "index.html", "text/html; charset=utf-8"),
        *((f"/home/{name}", name, TYPES[Path(name).suffix]) for name in FILES),
    ]:
        answer, head = await client.get(path), await client.head(path)
        assert (answer.status_code, answer.content) == (200, (FOLDER / file).read_bytes())
        assert answer.headers["content-type"] == kind
        assert HEADERS.items() <= dict(answer.headers).items()
        assert (head.status_code, head.headers, head.content) == (200, answer.headers, b"")
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/", "/home/home.js", "/docs/assets/swagger-ui.css"])
async def test_a_file_that_the_browser_has_is_not_sent_again(
    client: httpx.AsyncClient, path: str, method: str
) -> None:
    """304 by its ETag, also if a proxy has made it a weak one; another one gets the file. If-Match
    counts first, and a weak tag is none for it (RFC 9110, 13.1 and 13.2.2)."""
    whole = await client.request(method, path)
    tag = whole.headers["etag"]
    headers = {"etag", "cache-control", "content-security-policy"} & whole.headers.keys()
    assert "last-modified" not in whole.headers  # would differ between replicas
    conditions: list[tuple[int, list[tuple[str, str]]]] = [
        *((304, [("if-none-match", sent)]) for sent in (tag, f"W/{tag}", f'"a,b", {tag}', "*")),
        *((200, [("if-none-match", sent)]) for sent in ('"other"', f'"x{tag[1:]}', tag[1:-1], "")),
        (304, [("if-none-match", '"other"'), ("if-none-match", tag)]),
        (304, [("if-none-match", tag), ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT")]),
        (304, [("if-match", tag), ("if-none-match", tag)]),
        *((200, [("if-match", sent)]) for sent in (tag, "*", f'"other", {tag}')),
        *((412, [("if-match", sent)]) for sent in ('"other"', f"W/{tag}")),
        (412, [("if-match", '"other"'), ("if-none-match", tag)]),
    ]
    for status, sent in conditions:
        answer = await client.request(method, path, headers=sent)
        assert answer.status_code == status, sent
        if status == 304:
            assert (answer.content, "content-length" in answer.headers) == (b"", False)
            assert {name: answer.headers[name] for name in headers} == {
                name: whole.headers[name] for name in headers
            }
        elif status == 200:
            assert (answer.headers, answer.content) == (whole.headers, whole.content)
        elif method == "GET":
            assert answer.json()["code"] == "precondition_failed"


async def test_no_other_file_is_served(client: httpx.AsyncClient) -> None:
    """Neither the page under a second address nor anything outside of its folder."""
    for name in ("index.html", "none.js", "..%2Fapp.py", "__init__.py"):
        assert (await client.get(f"/home/{name}")).status_code == 404


async def test_the_page_can_be_turned_off(tmp_path: Path) -> None:
    """Then the root leads to /docs, and its files are not there."""
    write_bundle(tmp_path)
    async with app_client(tmp_path, home_page=False) as client:
        root = await client.get("/")
        assert (root.status_code, root.headers["location"]) == (307, "/docs")
        for name in (*FILES, "figures"):
            assert (await client.get(f"/home/{name}")).status_code == 404


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "http://127.0.0.1:8000/"),
        ({"host": "0.0.0.0", "port": 80}, "http://127.0.0.1:80/"),  # noqa: S104
        ({"host": "::"}, "http://[::1]:8000/"),
        ({"home_page": False}, "http://127.0.0.1:8000/docs"),
    ],
)
def test_the_log_names_an_address_that_a_browser_can_open(
    settings: dict[str, Any], address: str
) -> None:
    """Also if the server listens on all addresses, or without the page."""
    assert page_url(Settings(**settings)) == address


def test_the_page_is_small_and_names_only_its_own_files() -> None:
    """All together at most 60 kB; addresses are relative, so a path prefix does no harm; no script
    and no style is inside the page."""
    assert sum((FOLDER / name).stat().st_size for name in [*FILES, "index.html"]) <= MOST_BYTES
    named = re.findall(r"""(?:src|href)=["']([^"']+)["']""", PAGE)
    named += [f"home/{name}" for name in re.findall(r'from "\./([^"]+)"', SCRIPTS)]
    assert {"home/home.js", "home/home.css", "home/icon.svg", "docs"} <= set(named)
    for address in named:
        assert not re.match(r"/|\w+:|\.\.", address)
        assert not address.startswith("home/") or address.removeprefix("home/") in FILES
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|style=", PAGE) == []
    asked = re.findall(r"""ask\(["`]([^"`]+)["`]""", SCRIPTS)
    assert len(asked) >= 4
    assert [path for path in asked if path.startswith("/") or "://" in path] == []
    assert "url(" not in (FOLDER / "home.css").read_text()


def test_nothing_is_read_as_html() -> None:
    """What a bundle or a server says is text: a name may be called as it likes."""
    dangerous = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|DOMParser|srcdoc"
    assert re.findall(dangerous, SCRIPTS) == []


# -- texts -----------------------------------------------------------------------------------------


def test_each_text_is_there_in_both_languages() -> None:
    """With the same places for values."""
    for key, row in TEXTS.items():
        assert list(row) == ["en", "es"], key
        places = [re.findall(r"{\w+}", text) for text in row.values()]
        assert sorted(places[0]) == sorted(places[1]), key
        assert all(text.strip() for text in row.values()), key


def test_the_page_uses_these_texts_and_no_others() -> None:
    """Each text that the page asks for is in the table, and none of the table is left over."""
    asked = set(re.findall(r'data-(?:text|label)="(\w+)"', PAGE))
    asked |= set(re.findall(r'text\("(\w+)"', SCRIPTS))
    asked |= set(re.findall(r'text\(\w+ \? "\w+" : "(\w+)"', SCRIPTS))
    asked |= set(re.findall(r'text\(\w+ \? "(\w+)"', SCRIPTS))
    asked |= {"stage", "p50", "p99", "silent"}  # from lists
    made = set(re.findall(r"`([a-z]+_)\$\{", SCRIPTS)) - {"field_"}
    assert made == {"error_", "kind_", "live_", "problem_", "stage_", "state_"}
    assert asked <= TEXTS.keys()
    rest = {key for key in TEXTS.keys() - asked if not key.startswith(tuple(made))}
    assert rest == set()


def test_each_name_that_is_put_together_has_a_text() -> None:
    """The states of /health, the stages, the tiles, and the errors that a field can have."""
    states = ("loading", "ok", "degraded", "not_ready", "draining")
    assert {f"state_{name}" for name in states} <= TEXTS.keys()
    assert {f"stage_{name}" for name in STAGES} <= TEXTS.keys()
    (tiles,) = re.findall(r"const figures = \[([^\]]+)\]", SCRIPTS)
    assert {f"live_{name}" for name in re.findall(r"\w+", tiles)} <= TEXTS.keys()


# -- figures ---------------------------------------------------------------------------------------


async def test_the_figures_count_what_was_predicted(client: httpx.AsyncClient) -> None:
    """Over all models; a reading of the page's figures changes none of them."""
    for _ in range(3):
        await client.post("/predict", json={"features": [[1, 2, 3, 4], [5, 6, 7, 8]]})
    await client.post("/models/sum/predict", json={"features": [1, 2, 3, 4]})
    await client.post("/predict", json={"features": [1]})
    await client.get("/home/figures")
    answer = await client.get("/home/figures")

    found = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert (found["answered"], found["refused"]) == (4, 1)
    assert (found["batches"], found["rows"], found["queued_rows"], found["swaps"]) == (4, 7, 0, 0)
    assert found["models"] == {"numbers": "1", "sum": "1"}
    for stage in STAGES:
        assert len(found["stages"][stage]) == len(found["bounds"]) + 1
        assert sum(found["stages"][stage]) == 4
    assert found["cpu_seconds"] > 0


def test_the_figures_are_of_all_workers() -> None:
    """Counters and CPU time are added up; of a model's versions the latest counts."""
    metrics = [Metrics(), Metrics()]
    for i, worker in enumerate(metrics):
        model = worker.of("a")
        model.answered = 2
        model.decode.observe(SECONDS[0])
        model.batch_rows.observe(ROWS[1])
        model.queued_rows = lambda: 5
        worker.loaded["a", str(i)] = 100.0 - i
        worker.count("predict", "a", "wrong_type")
        worker.following_of("a", "champion").count("swapped")
    one, other = map(Snapshot.of, metrics)
    cpu_seconds = one.cpu_seconds + other.cpu_seconds
    one.add(other)
    figures = Figures.of(one, cpu_quota=0.5)

    assert (figures.answered, figures.refused, figures.swaps) == (4, 2, 2)
    assert (figures.batches, figures.rows, figures.queued_rows) == (2, 4.0, 10)
    assert figures.stages["decode"][0] == 2
    assert figures.models == {"a": "0"}
    assert (figures.cpu_seconds, figures.cpu_quota) == (cpu_seconds, 0.5)
