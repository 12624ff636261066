"""What a person sees who opens the server's address in a browser, and does there."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from support import browser
from support.bundles import MIXED, write_bundle
from support.client import wait_until
from support.docs_page import PATIENCE_S, PENGUIN, visiting
from support.home_page import SNIPPETS, open_page, predict, snippet
from support.serving import Server, free_port, serving

PROGRAM = browser.found() or ""
pytestmark = [
    pytest.mark.skipif(
        not PROGRAM, reason="no browser; Debian: apt-get install --no-install-recommends chromium"
    ),
    pytest.mark.timeout(300),  # a browser next to other tests on two cores
]
expect.set_options(timeout=PATIENCE_S * 1000)
HOSTILE = "</option></script><img src=x onerror=\"document.title='taken over'\">'\\$(touch x)`"
"""It would end an element, a script, a text in quotes, and a shell's command."""
IMPORTS_S = 240
"""For a client's imports: MLflow's take many seconds on a busy machine."""
CLASSES = ["Adelie", "Chinstrap", "Gentoo"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves vectors (the default), records with categories, a regressor, and a model with names
    that a page must not read as HTML."""
    root: Path = tmp_path_factory.mktemp("bundles")
    write_bundle(root)
    write_bundle(root, "penguins", inputs=PENGUIN, classes=CLASSES)
    write_bundle(root, "sum", task="regression")
    hostile = [MIXED[0] | {"categories": ["Biscoe", HOSTILE], "name": HOSTILE}, *MIXED[1:]]
    write_bundle(root, "hostile", inputs=hostile, classes=["a", HOSTILE])
    with serving(root, default_model="numbers") as server:
        yield server


@pytest.fixture
def base_url(server: Server) -> str:
    """The server's address, as a person types it."""
    return f"http://127.0.0.1:{server.port}"


def run(client: str, text: str) -> Any:
    """What a pasted call prints: `curl` into a shell, the others into Python."""
    command = ["bash", "-c", text] if client == "curl" else [sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORTS_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_person_chooses_a_model_fills_its_form_and_sees_the_answer(base_url: str) -> None:
    """With probabilities as bars, and the same call for elsewhere, which gives the same answer; an
    error is shown at its field; nothing is asked of elsewhere."""
    with visiting(PROGRAM) as visit:
        page = visit.page
        open_page(page, base_url)
        expect(page.locator("#models a")).to_have_count(4)
        expect(page.locator("#models a", has=page.locator(".badge"))).to_contain_text("numbers")
        expect(page.locator("#models a").nth(1)).to_contain_text("version 1 · @champion")
        assert predict(page) in ("a", "b", "c")

        page.locator("#models a", has_text="penguins").click()
        page.get_by_label("island").select_option(label="Dream")
        page.get_by_label("bill_length_mm").fill("50.5")
        page.get_by_label("sex").select_option(label="null")
        prediction = predict(page)
        expect(page.locator(".bars li")).to_have_count(3)
        assert page.locator(".bars .predicted .label").inner_text() == prediction
        sent = {"island": "Dream", "bill_length_mm": 50.5, "bill_depth_mm": 18.7, "sex": None}
        expected = httpx.post(f"{base_url}/models/penguins/predict", json=sent).json()
        assert prediction == expected["prediction"]
        assert json.loads(run("curl", snippet(page, "curl"))) == expected
        assert ast.literal_eval(run("python", snippet(page, "Python requests"))) == expected
        expect(page.locator(".tiles li")).to_have_count(6)

        page.locator("#language").click()
        expect(page.locator("#try-title")).to_have_text("Probar penguins")
        assert (prediction, page.locator("html").get_attribute("lang")) == (
            page.locator("#answer .prediction").inner_text(),
            "es",
        )
        page.locator("#language").click()
        page.go_back()
        expect(page.locator("#try-title")).to_have_text("Try numbers")
        assert (visit.complaints, visit.refused) == ([], [])

        page.get_by_label("x1").fill("")
        page.locator("#form button[type=submit]").click()
        expect(page.locator("[aria-invalid]")).to_be_focused()
        expect(page.get_by_label("x1")).to_have_attribute("aria-invalid", "true")
        expect(page.locator("#field-1-error")).to_have_text("a value is needed, expected a number")
        foreign = [url for url in visit.requests if not url.startswith((f"{base_url}/", "data:"))]
        assert foreign == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", ["numbers", "penguins", "sum", "hostile"])
def test_each_call_works_as_it_is_shown(base_url: str, model: str) -> None:
    """Pasted, it prints the answer that the page shows."""
    with visiting(PROGRAM) as visit:
        open_page(visit.page, base_url, model)
        shown = predict(visit.page)
        calls = {client: snippet(visit.page, client) for client in SNIPPETS}
    expected = float(shown) if model == "sum" else shown
    for client, call in calls.items():
        assert prediction_in(client, run(client, call)) == expected


def prediction_in(client: str, printed: str) -> Any:
    """The prediction in what a call printed."""
    if client == "curl":
        return json.loads(printed)["prediction"]
    if client == "Python requests":
        return ast.literal_eval(printed)["prediction"]
    if client == "MLflow":
        return ast.literal_eval(printed)["predictions"][0]
    array = printed.partition(" [[")[0]  # NumPy's form of the label, or of the value
    found = ast.literal_eval(array)[0]
    return found.decode() if isinstance(found, bytes) else found


@pytest.mark.slow
def test_each_kind_of_column_has_its_field(tmp_path: Path) -> None:
    """A category that may be another one is a field with suggestions, a bound is the field's, an
    empty field is null, and a column with a default is left out."""
    free = MIXED[0] | {"accepts_unknown": True}
    mass = MIXED[1] | {"domain": [0, 9000]}
    wet = MIXED[5] | {"nullable": True}
    write_bundle(tmp_path, "kinds", inputs=[free, mass, *MIXED[2:5], wet])
    bodies: list[Any] = []

    def with_a_default(route: Route) -> None:
        document = route.fetch().json()
        document["inputs"][2]["default"] = 4
        route.fulfill(json=document)

    with serving(tmp_path) as server, visiting(PROGRAM) as visit:
        page = visit.page
        page.route("**/models/kinds", with_a_default)
        page.on("request", lambda sent: bodies.append(sent.post_data_json))
        open_page(page, f"http://127.0.0.1:{server.port}")
        page.get_by_label("island").fill("Elsewhere")
        assert page.locator("#field-0-list option").count() == 3
        mass_field = page.get_by_label("mass")
        assert (mass_field.get_attribute("min"), mass_field.get_attribute("max")) == ("0", "9000")
        mass_field.fill("")
        page.get_by_label("wet").select_option(label="null")
        predict(page)
        page.get_by_label("count").fill("")
        assert '"count"' not in snippet(page, "curl")
        page.locator("#form button[type=submit]").click()
        page.locator("#answer .problem").wait_for()  # this server knows of no default
    row = {"island": "Elsewhere", "mass": None, "count": 3, "sex": "MALE", "zone": 10, "wet": None}
    sent = [body for body in bodies if body is not None]
    assert sent == [row, {name: value for name, value in row.items() if name != "count"}]


@pytest.mark.slow
def test_names_are_texts(base_url: str, tmp_path: Path) -> None:
    """A column, a category and a class may be called like an element or a script."""
    with visiting(PROGRAM) as visit:
        page = visit.page
        open_page(page, base_url, "hostile")
        page.locator("#field-0").select_option(label=HOSTILE)
        predict(page)
        assert page.locator("label[for=field-0]").inner_text() == HOSTILE
        assert HOSTILE in page.locator(".bars").inner_text()
        for client in SNIPPETS:
            snippet(page, client)
        assert page.locator("img").count() == 0
        assert (page.title(), visit.complaints, visit.refused) == ("Halfcore", [], [])


@pytest.mark.slow
def test_the_page_speaks_the_browser_s_language_and_fits_a_phone(base_url: str) -> None:
    """Spanish, and nothing is wider than the screen; in a dark theme the page is dark."""
    phone = {"width": 360, "height": 740}
    with visiting(PROGRAM, locale="es-MX", viewport=phone, color_scheme="dark") as visit:
        page = visit.page
        open_page(page, base_url, "penguins")
        expect(page.locator("#form button[type=submit]")).to_have_text("Predecir")
        predict(page)
        expect(page.locator(".tiles li")).to_have_count(6)
        assert page.evaluate("document.documentElement.scrollWidth") <= phone["width"]
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 26, 33)"
        page.locator("#language").click()
        page.reload()
        expect(page.locator("#form button[type=submit]")).to_have_text("Predict")
        assert (visit.complaints, visit.refused) == ([], [])


@pytest.mark.slow
def test_the_page_is_used_by_keyboard(base_url: str) -> None:
    """From a field by Enter, and through the tabs by the arrows."""
    with visiting(PROGRAM) as visit:
        page = visit.page
        open_page(page, base_url)
        page.get_by_label("x0").press("Enter")
        page.locator("#answer .prediction").wait_for()
        page.get_by_role("tab", name="curl").focus()
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("tab", name="tritonclient")).to_be_focused()
        expect(page.locator("#snippet")).to_contain_text("InferenceServerClient")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#snippet")).to_contain_text("curl")


@pytest.mark.slow
def test_a_server_with_keys_gets_one(base_url: str) -> None:
    """The field appears with the first 401; the key is sent from then on, and no call shows it."""
    sent: list[str | None] = []

    def guard(route: Route) -> None:
        sent.append(route.request.headers.get("x-api-key"))
        if sent[-1] == "the-key":
            route.continue_()
        else:
            problem = {"status": 401, "code": "unauthorized", "detail": "expected an API key"}
            route.fulfill(status=401, json=problem)

    with visiting(PROGRAM) as visit:
        page = visit.page
        page.route("**/predict", guard)
        open_page(page, base_url)
        assert not page.get_by_label("API key").is_visible()
        page.locator("#form button[type=submit]").click()
        expect(page.locator("#answer")).to_contain_text("expects an API key")
        expect(page.get_by_label("API key")).to_be_focused()
        page.get_by_label("API key").fill("the-key")
        assert predict(page)
        for client in SNIPPETS:
            text = snippet(page, client)
            assert "the-key" not in text
            assert "API_KEY" in text or "MLFLOW_TRACKING_TOKEN" in text
    assert sent == [None, "the-key"]


PROXY = """
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
frontend door
    bind 127.0.0.1:{port}
    http-request replace-path /serving(/.*) \\1
    default_backend servers
backend servers
    server one 127.0.0.1:{target}
"""


@contextmanager
def behind_a_prefix(server: Server, folder: Path) -> Iterator[str]:
    """HAProxy, which serves the server below /serving/."""
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(PROXY.format(port=port, target=server.port))
    process = subprocess.Popen(["haproxy", "-db", "-f", config], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/serving/health/live"))
        yield f"http://127.0.0.1:{port}/serving"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy; Debian: haproxy")
def test_the_page_works_behind_a_path_prefix(server: Server, tmp_path: Path) -> None:
    """Its files, its predictions, its figures, and each call that it shows."""
    with behind_a_prefix(server, tmp_path) as address, visiting(PROGRAM) as visit:
        open_page(visit.page, address)
        expected = predict(visit.page)
        expect(visit.page.locator(".tiles li")).to_have_count(6)
        for client in SNIPPETS:
            assert expected in run(client, snippet(visit.page, client))
        assert (visit.complaints, visit.refused) == ([], [])
        assert [url for url in visit.requests if not url.startswith(f"{address}/")] == []


@pytest.mark.slow
def test_a_server_that_ends_is_noticed(tmp_path: Path) -> None:
    """The page says so, in its head and at a prediction."""
    write_bundle(tmp_path)
    with serving(tmp_path) as server, visiting(PROGRAM) as visit:
        page: Page = visit.page
        open_page(page, f"http://127.0.0.1:{server.port}")
        expect(page.locator("#state")).to_have_text("ready")
        server.stop()
        expect(page.locator("#state")).to_have_text("the server does not answer")
        page.locator("#form button[type=submit]").click()
        expect(page.locator("#answer .problem")).to_have_text("the server does not answer")


@pytest.mark.slow
def test_a_mistake_is_answered_with_a_sentence(base_url: str) -> None:
    """A model that is not served, a number that cannot be read, and a wrong kind of number: in the
    page's language, and no older answer stays next to it."""
    with visiting(PROGRAM, locale="es-MX") as visit:
        page = visit.page
        open_page(page, base_url, "nobody")
        expect(page.locator("#reasons")).to_have_text(
            "No se sirve ningún modelo nobody; elija uno de estos."
        )
        page.locator("#models a", has_text="numbers").click()
        expect(page.locator("#reasons")).to_be_empty()
        predict(page)
        page.get_by_label("x1").press_sequentially("e")
        page.get_by_label("x1").press("Enter")
        expect(page.locator("#field-1-error")).to_have_text("se esperaba un número")
        expect(page.locator("#answer")).to_have_text(
            "Hay valores incorrectos; vea los campos en rojo."
        )


@pytest.mark.slow
def test_a_sentence_that_stays_is_announced_once(base_url: str) -> None:
    """The models are read again and again, and a screen reader would say it each time."""
    with visiting(PROGRAM) as visit:
        page = visit.page
        open_page(page, base_url, "nobody")
        for place in ("#reasons p", "#models li"):
            page.locator(place).first.evaluate("it => it.dataset.before = 'yes'")
        page.locator("#key").dispatch_event("change")
        expect(page.locator("#models [data-before]")).to_have_count(0)
        expect(page.locator("#reasons [data-before]")).to_have_count(1)


@pytest.mark.slow
def test_a_version_with_other_columns_is_announced(base_url: str) -> None:
    """Where the form was filled in, which no longer fits; the page says so, and predicts again."""
    swapped = False

    def with_other_columns(route: Route) -> None:
        answer = route.fetch()
        document = answer.json()
        if swapped and "models" in document:
            document["models"]["numbers"] = "2"  # the figures
        elif swapped:
            document["version"] = "2"
            document["inputs"][3]["name"] = "another"
        route.fulfill(response=answer, json=document)

    with visiting(PROGRAM) as visit:
        page = visit.page
        page.route("**/home/figures", with_other_columns)
        page.route("**/models/numbers", with_other_columns)
        open_page(page, base_url, "numbers")
        page.locator(".tiles").wait_for()
        predict(page)
        swapped = True
        expect(page.locator("#answer")).to_contain_text("Version 2 of numbers takes other columns")
        expect(page.get_by_label("another")).to_have_value("3")
        page.locator("#language").click()
        expect(page.locator("#answer")).to_contain_text("La versión 2 de numbers usa otras")
        page.get_by_label("another").press("Enter")
        page.locator("#answer .prediction").wait_for()


@pytest.mark.slow
def test_the_answer_stays_in_sight_of_a_long_form(tmp_path: Path) -> None:
    """Of 54 columns: its button is far below the answer's place."""
    columns = [MIXED[1] | {"name": f"soil_{i}"} for i in range(54)]
    write_bundle(tmp_path, "cover", inputs=columns)
    with serving(tmp_path) as server, visiting(PROGRAM) as visit:
        open_page(visit.page, f"http://127.0.0.1:{server.port}")
        predict(visit.page)
        button = visit.page.locator("#form button[type=submit]")
        expect(button).to_be_in_viewport()
        expect(visit.page.locator("#answer .prediction")).to_be_in_viewport()
