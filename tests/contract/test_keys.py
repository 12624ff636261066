"""API keys over the real server: every protocol and every way into it asks for one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from halfcore.predict.keys import new_key
from support.bundles import write_bundle
from support.client import parsed, wait_until
from support.serving import Server, free_port, request, serving

FEATURES = b'{"features":[1,2,3,4.5]}'
INSTANCES = b'{"instances":[[1,2,3,4.5]]}'
TENSOR = b'{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32","data":[1,2,3,4.5]}]}'
ROUTES = {
    "/predict": FEATURES,
    "/models/numbers/predict": FEATURES,
    "/models/num%62ers/predict": FEATURES,
    "/invocations": INSTANCES,
    "/endpoints/numbers/invocations": INSTANCES,
    "/v1/models/numbers:predict": INSTANCES,
    "/v2/models/numbers/infer": TENSOR,
    "/v2/models/numbers/versions/1/infer": TENSOR,
}
ALL, (OTHER, OTHER_LINES) = new_key("everything", []), new_key("other-team", ["other"])
SLOW, SLOW_LINES = new_key("slow", [], 0.01)
CHUNKED = {"content-length": None, "transfer-encoding": "chunked"}
MLFLOW_CODES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
"""MLflow's own names of these errors."""


@pytest.fixture(scope="module", params=[True, False], ids=["hot lane", "ASGI"])
def server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """A server with three keys."""
    root = tmp_path_factory.mktemp("server")
    write_bundle(root / "bundles")
    write_bundle(root / "bundles", "other")
    (root / "keys.toml").write_text(ALL[1] + OTHER_LINES + SLOW_LINES)
    with serving(
        root / "bundles",
        api_keys=root / "keys.toml",
        default_model="numbers",
        hot_lane=request.param,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def grpc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The gRPC port of a server with two keys."""
    root, port = tmp_path_factory.mktemp("grpc"), free_port()
    write_bundle(root / "bundles")
    write_bundle(root / "bundles", "other")
    (root / "keys.toml").write_text(ALL[1] + OTHER_LINES)
    with serving(root / "bundles", api_keys=root / "keys.toml", grpc_port=port):
        yield port


def answer(server: Server, path: str, body: bytes, **headers: str | None) -> tuple[int, bytes]:
    """Status and body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    head, _, got = server.send(request(path, body, headers=named)).partition(b"\r\n\r\n")
    return int(head.split()[1]), got


@pytest.mark.parametrize("path", ROUTES)
def test_every_prediction_needs_a_key(server: Server, path: str) -> None:
    """In both headers; without one it is 401, with another model's 403, in the protocol's form."""
    body = ROUTES[path]

    assert answer(server, path, body, authorization=f"Bearer {ALL[0]}")[0] == 200
    assert answer(server, path, body, x_api_key=ALL[0])[0] == 200
    for status, headers in (
        (401, {}),
        (401, {"x_api_key": "wrong"}),
        (401, {"authorization": "Bearer"}),
        (403, {"x_api_key": OTHER}),
    ):
        got, document = answer(server, path, body, **headers)
        assert got == status, headers
        found = orjson.loads(document)
        assert {"code", "error", "error_code"} & found.keys()
        assert found.get("error_code", MLFLOW_CODES[status]) == MLFLOW_CODES[status]
        assert OTHER.encode() not in document


def test_a_key_above_its_rate_gets_429_in_the_protocols_form(server: Server) -> None:
    """With the time to wait, whatever protocol it speaks; the connection stays usable."""
    assert answer(server, "/predict", FEATURES, x_api_key=SLOW)[0] == 200
    for path, body in ROUTES.items():
        sent = request(path, body, headers={"x-api-key": SLOW})
        head, _, document = server.send(sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429"), path
        assert b"retry-after: " in head
        assert b"connection: close" not in head
        assert b'"slow" allows 0.01' in document.replace(b"\\", b"")


def test_the_description_names_keys_and_their_refusals(server: Server) -> None:
    """So that /docs has a field for the key; routes that predict nothing need none."""
    document = server.send(request("/openapi.json", method="GET")).partition(b"\r\n\r\n")[2]
    paths = orjson.loads(document)["paths"]

    for path in ("/predict", "/invocations", "/v2/models/{name}/infer"):
        assert paths[path]["post"]["security"]
        assert {"401", "403", "429"} <= paths[path]["post"]["responses"].keys()
    assert "security" not in paths["/health"]["get"]


def test_a_chunked_body_needs_a_key(server: Server) -> None:
    """It takes another way than a plain one."""
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(FEATURES), FEATURES)
    given = CHUNKED | {"x-api-key": ALL[0]}

    without = server.send(request("/predict", headers=CHUNKED) + chunks)
    right = server.send(request("/predict", headers=given) + chunks)

    assert without.startswith(b"HTTP/1.1 401")
    assert b"www-authenticate: Bearer" in without
    assert right.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/models", "/metrics", "/docs"])
def test_what_predicts_nothing_needs_no_key(server: Server, path: str) -> None:
    """Probes and scrapes work as before."""
    assert server.send(request(path, method="GET")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("key", "model", "status"),
    [
        (ALL[0], "numbers", None),
        (OTHER, "other", None),
        (OTHER, "numbers", "StatusCode.PERMISSION_DENIED"),
        ("wrong", "numbers", "StatusCode.UNAUTHENTICATED"),
        (None, "numbers", "StatusCode.UNAUTHENTICATED"),
    ],
    ids=["all models", "its model", "another model", "an unknown key", "no key"],
)
def test_a_grpc_call_needs_a_key(
    grpc_server: int, key: str | None, model: str, status: str | None
) -> None:
    """In the call's metadata."""
    headers = None if key is None else {"x-api-key": key}
    with triton.InferenceServerClient(f"127.0.0.1:{grpc_server}") as client:
        tensor = triton.InferInput("i", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.array([[1, 2, 3, 4.5]], np.float32))
        if status is None:
            assert client.infer(model, [tensor], headers=headers).as_numpy("label").shape == (1,)
            return
        with pytest.raises(InferenceServerException) as refused:
            client.infer(model, [tensor], headers=headers)
        assert refused.value.status() == status


def test_keys_are_counted_by_name(server: Server) -> None:
    """And refusals by their codes."""
    answer(server, "/predict", FEATURES, x_api_key=ALL[0])
    answer(server, "/predict", FEATURES)

    text = server.send(request("/metrics", method="GET")).partition(b"\r\n\r\n")[2].decode()
    samples = parsed(text)
    assert samples["halfcore_key_requests_total", "everything"] >= 1
    assert samples["halfcore_requests_total", "", "unauthorized", "predict"] >= 1
    assert ALL[0] not in text


def test_a_new_key_works_without_a_restart(tmp_path: Path) -> None:
    """And a withdrawn one stops working."""
    write_bundle(tmp_path / "bundles")
    file = tmp_path / "keys.toml"
    (old, old_lines), (new, new_lines) = new_key("old", []), new_key("new", [])
    file.write_text(old_lines)
    with serving(tmp_path / "bundles", api_keys=file) as server:
        assert answer(server, "/predict", FEATURES, x_api_key=old)[0] == 200
        file.write_text(new_lines)
        wait_until(lambda: answer(server, "/predict", FEATURES, x_api_key=new)[0] == 200)
        assert answer(server, "/predict", FEATURES, x_api_key=old)[0] == 401


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`halfcore`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HALFCORE_")}
    return subprocess.run(
        [sys.executable, "-m", "halfcore", *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_the_command_makes_a_key_and_its_entry(tmp_path: Path) -> None:
    """The entry can be appended to the file; the key is not in it."""
    made = run("key", "team-a", "--models", "iris,penguins-svm", "--rate", "50")

    key = made.stderr.split()[-1]
    assert made.returncode == 0
    assert key.startswith("hk_")
    assert key not in made.stdout
    assert made.stdout.startswith("[team-a]\nsha256 = ")
    assert 'models = ["iris", "penguins-svm"]\nrequests_per_second = 50\n' in made.stdout


def test_a_key_for_a_model_that_is_not_there_is_made_with_a_warning(tmp_path: Path) -> None:
    """It may be served later, or elsewhere; where no model is, nothing is known."""
    write_bundle(tmp_path / "bundles")
    here = {"HALFCORE_BUNDLES": str(tmp_path / "bundles"), "HALFCORE_FOLLOW": "models:/wine@best"}
    made = run("key", "team-a", "--models", "numbers, wine, nubers", **here)
    assert made.returncode == 0
    assert 'models = ["numbers", "wine", "nubers"]' in made.stdout
    assert made.stderr.count("warning") == 1
    assert (
        "halfcore: warning: there is no model 'nubers' here, and the key may ask it once it is "
        "served; found numbers, wine; did you mean numbers?" in made.stderr
    )
    elsewhere = run("key", "team-a", "--models", "nubers", HALFCORE_BUNDLES=str(tmp_path / "none"))
    assert "warning" not in elsewhere.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("key", "a b"), "expected 1 to 64"),
        (("key", "a", "--rate", "-1"), "is -1, expected 0.01"),
        (("key", "a", "--models", ""), "--models is '', expected names of models between commas"),
        (("key", "a", "--models", "iris,"), "leave it out for a key that may ask all"),
        (("serve",), "keys.toml: No such file or directory; `halfcore key NAME >> FILE` makes one"),
    ],
)
def test_a_wrong_name_or_file_stops_the_command(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    """With one line."""
    write_bundle(tmp_path / "bundles")
    ended = run(
        *arguments,
        HALFCORE_API_KEYS=str(tmp_path / "keys.toml"),
        HALFCORE_BUNDLES=str(tmp_path / "bundles"),
    )

    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
