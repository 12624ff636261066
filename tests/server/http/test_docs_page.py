"""What a person sees who opens /docs in a browser, on the server as it starts by default."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import browser
from support.bundles import MIXED, write_bundle
from support.docs_page import predict, visiting
from support.serving import Server, serving

PROGRAM = browser.found()
pytestmark = [
    pytest.mark.skipif(
        PROGRAM is None,
        reason="no browser; Debian: apt-get install --no-install-recommends chromium",
    ),
    pytest.mark.slow,
    pytest.mark.timeout(300),  # a browser next to other tests on two cores
]
HOSTILE = "</script><script>document.title='taken over'</script>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves a model with all kinds of columns, one of whose categories would end a page's
    script."""
    root: Path = tmp_path_factory.mktemp("bundles")
    inputs = [MIXED[0] | {"categories": ["Biscoe", "Dream", HOSTILE]}, *MIXED[1:]]
    write_bundle(root, "mixed", inputs=inputs)
    with serving(root, default_model="mixed") as server:
        yield server


def test_a_person_can_try_a_prediction_on_the_page(server: Server) -> None:
    """The route expands, is tried out and executed, and shows 200 and the answer; nothing
    complains, and nothing is asked of elsewhere."""
    assert PROGRAM is not None
    base_url = f"http://127.0.0.1:{server.port}"
    with visiting(PROGRAM) as visit:
        status, answer = predict(visit.page, base_url)
        title = visit.page.title()

    assert (status, answer["model"], answer["version"]) == ("200", "mixed", "1")
    assert answer["prediction"] in answer["probabilities"]
    assert (visit.complaints, visit.refused) == ([], [])
    assert title == "Halfcore"
    assert f"{base_url}/predict" in visit.requests
    assert [url for url in visit.requests if not url.startswith((f"{base_url}/", "data:"))] == []
