"""A directory of bundles as somebody mounts it: which model is the default, and what is said of a
mount that is wrong."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from halfcore import bundle, bundle_search
from halfcore.__main__ import unwritable
from halfcore.bundle import BundleError
from halfcore.metrics.counters import Metrics, ModelMetrics
from halfcore.models.loading import load
from halfcore.models.served import Models
from halfcore.settings.groups import Settings
from support.bundles import write_bundle
from support.client import app_client
from support.limits import LIMITS
from support.log import listen
from support.serving import serving

NOBODY = 65534
ROW = {"features": [1, 2, 3, 4]}
CASES: dict[str, tuple[list[str], dict[str, str], str | None]] = {
    "the only model, whatever the fallback says": (["own"], {"fallback_model": "iris"}, "own"),
    "the fallback among several": (["a", "iris"], {"fallback_model": "iris"}, "iris"),
    "none of several without the fallback": (["a", "b"], {"fallback_model": "iris"}, None),
    "the one that was set": (["a", "b"], {"fallback_model": "a", "default_model": "b"}, "b"),
    "the one that was set, though another is alone": (["a"], {"default_model": "b"}, "b"),
    "none of several": (["a", "b"], {}, None),
}


@pytest.mark.parametrize("case", CASES)
async def test_the_default_is(case: str, tmp_path: Path) -> None:
    """`/predict`, `/health` and `/models` agree on it, and a model that was set and is missing
    stays an error."""
    names, settings, default = CASES[case]
    for name in names:
        write_bundle(tmp_path, name)
    async with app_client(tmp_path, **settings) as client:
        health = (await client.get("/health")).json()
        answer = await client.post("/predict", json=ROW)
        ready = (await client.get("/health/ready")).status_code

    assert health["default_model"] == default
    assert ready == (200 if default in (None, *names) else 503)
    if default in names:
        assert (answer.json()["model"], health["reasons"]) == (default, [])
    else:
        assert answer.status_code == 404
        (reason,) = health["reasons"]
        assert "MODEL_NAME" in reason
        assert all(name in reason for name in names)


async def test_an_answer_does_not_grow_with_the_number_of_models(tmp_path: Path) -> None:
    """A 404 names the first models and how many there are; so does the reason in /health."""
    for number in range(60):
        write_bundle(tmp_path, f"m{number:02d}")
    async with app_client(tmp_path) as client:
        unknown = (await client.post("/models/x/predict", json=ROW)).json()["detail"]
        unnamed = (await client.post("/predict", json=ROW)).json()["detail"]
        (reason,) = (await client.get("/health")).json()["reasons"]
        assert len((await client.get("/models")).json()["models"]) == 60
    for text in (unknown, unnamed, reason):
        assert "m00, m01" in text
        assert text.endswith("… (60 in all)")


async def test_a_fallback_that_is_refused_is_not_replaced(tmp_path: Path) -> None:
    """No other model answers in its stead: its clients would get another model's labels."""
    write_bundle(tmp_path, "iris", changes={"format": 7})
    write_bundle(tmp_path, "other")
    async with app_client(tmp_path, fallback_model="iris") as client:
        health = (await client.get("/health")).json()
        answer = await client.post("/predict", json=ROW)

    assert (health["status"], health["default_model"], answer.status_code) == (
        "not_ready",
        "iris",
        503,
    )
    assert health["reasons"][0].startswith("the default model iris was refused: bundle iris/")


def test_the_log_says_which_model_is_the_default_and_why(tmp_path: Path) -> None:
    """A real server that listens on a host name: it logs one line for the address and one for the
    model."""
    write_bundle(tmp_path, "own")
    with serving(tmp_path, fallback_model="iris", host="localhost") as server:
        server.stop()
        assert server.process.stderr is not None
        log = server.process.stderr.read()

    assert f"on http://127.0.0.1:{server.port}" in log
    assert "POST /predict serves own: the only model (the fallback iris is not there)" in log


def itself_a_bundle(root: Path) -> None:
    """The folder of one bundle."""
    made = write_bundle(root, "own")
    for file in made.iterdir():
        file.rename(root / file.name)
    made.rmdir()


def one_level_too_high(root: Path) -> None:
    """The folder of one model."""
    made = write_bundle(root, "own")
    made.rename(root / made.name)
    (root / "own").rmdir()


def one_level_too_deep(root: Path) -> None:
    """The folder above."""
    write_bundle(root / "bundles", "own")
    (root / "other" / "things").mkdir(parents=True)


def a_project(root: Path) -> None:
    """The folder in which the exporter ran."""
    write_bundle(root / ".halfcore/bundles", "own")


def an_mlflow_model(root: Path) -> None:
    """What has not been exported."""
    (root / "MLmodel").write_text("flavors: {}")


WRONG: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "empty": (
        lambda _: None,
        ("ROOT is empty", "expected ROOT/NAME/VERSION-HASH/manifest.json", "does not exist"),
    ),
    "itself a bundle": (itself_a_bundle, ("ROOT is itself a bundle", "two levels above")),
    "one level too high": (
        one_level_too_high,
        ("ROOT/1-", "one level too high", "one level above"),
    ),
    "one level too deep": (
        one_level_too_deep,
        ("ROOT holds no bundle, but ROOT/bundles does", "HALFCORE_BUNDLES=ROOT/bundles"),
    ),
    "a project": (a_project, ("ROOT/.halfcore/bundles does",)),
    "an MLflow model": (
        an_mlflow_model,
        ("ROOT holds no bundle (found MLmodel)", "model-export export"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_mount_is_reported_with_its_path_and_what_to_do(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In /health and in the log; the server lives, and is not ready."""
    make, says = WRONG[case]
    make(tmp_path)
    async with app_client(tmp_path, fallback_model="iris") as client:
        health = (await client.get("/health")).json()
        answer = await client.post("/predict", json=ROW)
    log = capfd.readouterr().err

    assert (health["status"], health["models"], answer.status_code) == ("not_ready", {}, 503)
    assert "/health" in answer.json()["detail"]
    (reason,) = health["reasons"]
    for word in says:
        assert word.replace("ROOT", str(tmp_path)) in reason
    assert f"not ready: {reason}" in log


async def test_a_bundle_in_the_wrong_place_degrades_what_is_served(tmp_path: Path) -> None:
    """It was meant to be served, and is not."""
    one_level_too_high(tmp_path)
    write_bundle(tmp_path, "good")
    async with app_client(tmp_path) as client:
        health = (await client.get("/health")).json()

    assert (health["status"], health["models"]["good"]["state"]) == ("degraded", "loaded")
    assert "one level too high" in health["reasons"][0]


async def test_a_folder_of_another_name_is_refused_with_both_names(tmp_path: Path) -> None:
    """And with what to do."""
    write_bundle(tmp_path, "penguins")
    (tmp_path / "penguins").rename(tmp_path / "mine")
    async with app_client(tmp_path) as client:
        refused = (await client.get("/health")).json()["models"]["mine"]

    assert refused["state"] == "refused"
    assert (
        "name 'penguins', expected the directory's name 'mine': rename the directory"
        in refused["reason"]
    )


async def test_a_folder_whose_name_is_not_utf8_costs_no_health(tmp_path: Path) -> None:
    """Neither /health nor /metrics, which name it with its bytes escaped."""
    write_bundle(tmp_path)
    (tmp_path / os.fsdecode(b"\xff/1")).mkdir(parents=True)
    async with app_client(tmp_path) as client:
        health = (await client.get("/health")).json()
        metrics = (await client.get("/metrics")).text
        answer = await client.post("/predict", json=ROW)

    assert health["status"] == "degraded"
    assert health["models"][r"\udcff"]["state"] == "refused"
    assert r'halfcore_model_load_failures_total{model="\\udcff"} 1.0' in metrics
    assert answer.status_code == 200


async def test_a_long_reason_is_cut_in_health(tmp_path: Path) -> None:
    """Reasons quote manifests, and a manifest may hold thousands of classes."""
    write_bundle(tmp_path, changes={"classes": [f"class {number}" for number in range(1000)]})
    async with app_client(tmp_path) as client:
        reason = (await client.get("/health")).json()["models"]["numbers"]["reason"]

    assert len(reason) <= 600


async def test_no_password_is_reported(tmp_path: Path) -> None:
    """The source in a bundle's manifest may contain a password."""
    source = {
        "uri": "https://user:secret@host/model",
        "resolved": "r",
        "flavor": "skops",
        "model_class": "Test",
    }
    write_bundle(tmp_path, changes={"source": source})
    async with app_client(tmp_path, default_model="numbers", model_stage="Production") as client:
        text = (await client.get("/health")).text

    assert "found https://host/model" in text
    assert "secret" not in text


# -- what may not be read --------------------------------------------------------------------------


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_another_user(ask: Callable[[], str]) -> str:
    """What a user who owns nothing gets to see; root may read everything."""
    if os.geteuid() != 0:
        return ask()
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # other threads are not used after the fork
        child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(theirs, ask().encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


def refusal(path: Path) -> str:
    """Why a bundle is refused, or nothing."""
    try:
        bundle.read(path)
    except BundleError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mode", [0o700, 0o744])
def test_a_closed_directory_is_reported_with_mode_owner_and_user(readable: Path, mode: int) -> None:
    """Of another user: it may not be listed, or its names may be read and nothing in it."""
    write_bundle(readable / "bundles")
    (readable / "bundles").chmod(mode if os.geteuid() == 0 else mode & 0o400)

    said = as_another_user(lambda: bundle_search.survey(readable / "bundles").problem)

    assert said.startswith(f"{readable}/bundles: user ")
    assert f"(mode {mode:04o}, owner 0)" in said or os.geteuid() != 0
    assert "chmod -R a+rX" in said
    (readable / "bundles").chmod(0o755)


@pytest.mark.parametrize("closed", ["", "manifest.json", "model.onnx"])
def test_a_closed_bundle_or_file_is_reported(readable: Path, closed: str) -> None:
    """A bundle folder that may be entered and not listed, and each of its files."""
    made = write_bundle(readable)
    (made / closed).chmod(0o711 if not closed else 0o600)
    if os.geteuid() != 0:
        (made / closed).chmod(0o100 if not closed else 0)

    said = as_another_user(lambda: refusal(made))

    assert said.startswith(f"bundle numbers/{made.name}: {closed + ': ' if closed else ''}user ")
    assert "may not read it (mode" in said
    made.chmod(0o755)


def test_a_directory_that_cannot_be_written_to_is_reported(readable: Path) -> None:
    """Though it is not there yet: the folder above decides, and a directory that no setting uses is
    left alone."""
    (readable / "data").mkdir(mode=0o755 if os.geteuid() == 0 else 0o555)
    settings = Settings(
        follow="models:/a@b",
        store=readable / "data/store",
        state=readable / "data/state",
        tracking_uri="http://mlflow",
    )

    said = as_another_user(lambda: "\n".join(unwritable(settings)))

    assert said.startswith(f"store {readable}/data/store: user ")
    assert f"may not write to {readable}/data (mode " in said
    assert "state" not in said
    (readable / "data").chmod(0o755)
    assert unwritable(settings) == []


def test_a_closed_folder_of_one_model_costs_that_model(readable: Path) -> None:
    """The others are found."""
    write_bundle(readable, "good")
    write_bundle(readable, "closed")
    (readable / "closed").chmod(0o700 if os.geteuid() == 0 else 0)
    (readable / "lost+found").mkdir(mode=0o700)

    def look() -> str:
        found = bundle_search.survey(readable)
        return f"{sorted(found.bundles)} {found.refused} {found.problem}"

    said = as_another_user(look)

    assert said.startswith("['good'] {'closed': '" + f"{readable}/closed: user ")
    assert "lost+found" not in said
    (readable / "closed").chmod(0o755)


async def test_a_model_that_is_followed_makes_the_server_ready_when_it_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A start that waits for a download is no error, and its end is in the log, once."""
    models = Models(default="", metrics=Metrics())
    models.expect("numbers")
    listen(caplog)
    models.report()
    (waiting,) = caplog.records
    assert waiting.levelname == "INFO"
    assert waiting.getMessage() == (
        "not ready yet: the default model numbers is followed and not loaded yet"
    )
    with ThreadPoolExecutor(1) as executor:
        source = bundle.read(write_bundle(tmp_path, "numbers"))
        model = load(source, metrics=ModelMetrics(), limits=LIMITS, executor=executor)
        for _ in range(2):
            models.put(model)
            models.settle("numbers")
    assert [record.getMessage() for record in caplog.records[1:]] == [
        "POST /predict serves numbers: the only model",
        "ready",
    ]
