"""Data as people log it: what can be read is used, and whatever cannot gives way to the next source
in one line."""

from __future__ import annotations

import gzip
import io
import json
import threading
import warnings
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.huggingface_dataset_source import HuggingFaceDatasetSource
from rich.console import Console
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from model_export.__main__ import main
from model_export.errors import ExportError
from model_export.export import ExportRequest, export
from model_export.registry import client as registry
from model_export.report import Reporter
from model_export.study import data, download, tables
from model_export.study.study import StudiedModel, study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Starting with pandas version 4.0:DeprecationWarning"
    ),  # MLflow's digest of a dataset
    pytest.mark.filterwarnings(
        "ignore:The specified dataset source can be interpreted in multiple ways:UserWarning"
    ),
]
IRIS = load_iris(as_frame=True)
X: pd.DataFrame = IRIS.data
ALL: pd.DataFrame = X.assign(target=IRIS.target)
EXAMPLE = "the model's input example"
LOGGED = "logged to the run"


def log(model: Any, name: str, x: Any) -> None:
    """Log and register a model with five rows as an example."""
    mlflow.sklearn.log_model(
        model,
        name="model",
        registered_model_name=name,
        input_example=x[:5],
        pip_requirements=["scikit-learn"],
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store in SQLite with two models: `named` takes columns, `matrix` an unnamed matrix; both
    have five rows as an example."""
    folder = tmp_path_factory.mktemp("store")
    before = mlflow.get_tracking_uri()
    registry.connect(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("models", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("models")
    for name, x in (("named", X), ("matrix", X.to_numpy())):
        with mlflow.start_run(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own, about pip and pickles
            model = LogisticRegression(max_iter=1000).fit(x, IRIS.target)
            log(model, name, x)
    yield folder
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


@pytest.fixture(scope="module")
def fetched(store: Path) -> dict[str, registry.FetchedModel]:
    """Both models, loaded."""
    return {name: registry.fetch(f"models:/{name}/1") for name in ("named", "matrix")}


@pytest.fixture
def with_datasets(
    store: Path, fetched: dict[str, registry.FetchedModel], tmp_path: Path
) -> Callable[..., StudiedModel]:
    """Log datasets to a run of their own, and study a model as if that run had made it."""

    def with_datasets(
        *datasets: Any, model: str = "named", contexts: tuple[str, ...] = ()
    ) -> StudiedModel:
        # MLflow keeps one dataset per experiment, name and digest: without a new experiment an
        # older source would be found.
        mlflow.create_experiment(str(tmp_path), artifact_location=(tmp_path / "artifacts").as_uri())
        mlflow.set_experiment(str(tmp_path))
        with mlflow.start_run() as run:
            for position, dataset in enumerate(datasets):
                mlflow.log_input(dataset, context=contexts[position] if contexts else None)
        studied = fetched[model]
        return study(replace(studied, origin=replace(studied.origin, run_id=run.info.run_id)))

    return with_datasets


def from_pandas(source: Any = None, frame: pd.DataFrame = ALL, **options: Any) -> Any:
    """A dataset as MLflow's tutorials make it."""
    return mlflow.data.from_pandas(frame, source=source, targets="target", **options)


def written(path: Path, frame: pd.DataFrame = ALL, **options: Any) -> str:
    """A CSV file; returns its path as text."""
    frame.to_csv(path, **{"index": False, **options})
    return str(path)


# -- what can be read ------------------------------------------------------------------------------

READABLE: dict[str, Callable[[Path], str]] = {
    "a CSV": lambda path: written(path / "a.csv"),
    "a CSV with semicolons": lambda path: written(path / "a.csv", sep=";"),
    "a CSV with tabs": lambda path: written(path / "a.tsv", sep="\t"),
    "a CSV with an index": lambda path: written(path / "a.csv", index=True),
    "a CSV with a byte order mark": lambda path: written(path / "a.csv", encoding="utf-8-sig"),
    "a compressed CSV": lambda path: written(path / "a.csv.gz", compression="gzip"),
    "a CSV without an ending": lambda path: written(path / "a"),
    "a URL of a file": lambda path: Path(written(path / "a b.csv")).as_uri(),
    "Parquet": lambda path: str(ALL.to_parquet(path / "a.parquet") or path / "a.parquet"),
}


@pytest.mark.parametrize("name", READABLE)
def test_a_table_is_read_whatever_its_form(
    name: str, with_datasets: Callable[..., StudiedModel], tmp_path: Path
) -> None:
    """All rows, the model's columns by name; nothing is left to say."""
    found = with_datasets(from_pandas(READABLE[name](tmp_path))).data

    np.testing.assert_array_equal(found.packed, X.to_numpy())
    assert (found.distinct_rows, found.unused, found.warnings) == (149, (), [])
    assert LOGGED in found.origin
    assert str(tmp_path) not in found.origin, "an address may be private"


MATRICES: dict[str, Callable[[Path], str]] = {
    "the labels last": lambda path: written(path / "a.csv"),
    "the labels first": lambda path: written(path / "a.csv", ALL[["target", *X.columns]]),
    "an index first": lambda path: written(path / "a.csv", X, index=True),
    "an index and the labels": lambda path: written(
        path / "a.csv", ALL[["target", *X.columns]], index=True
    ),
    "NPY": lambda path: str(np.save(path / "a.npy", X.to_numpy()) or path / "a.npy"),
}


@pytest.mark.parametrize("name", MATRICES)
def test_an_unnamed_matrix_is_found_beside_index_and_labels(
    name: str, with_datasets: Callable[..., StudiedModel], tmp_path: Path
) -> None:
    """Without names the model's columns are the first ones that are neither the index nor the
    labels."""
    dataset = mlflow.data.from_numpy(
        X.to_numpy(), targets=IRIS.target.to_numpy(), source=MATRICES[name](tmp_path)
    )

    np.testing.assert_array_equal(with_datasets(dataset, model="matrix").data.packed, X.to_numpy())


def test_text_that_looks_like_numbers_stays_text(tmp_path: Path) -> None:
    """ZIP codes are categories, and lose no zero on their way through a CSV."""
    path = tmp_path / "a.csv"
    path.write_text("zip,size\n01067,1\n99999,2\n")

    frame = tables.read(path, frozenset({"zip"})).frame

    assert frame["zip"].tolist() == ["01067", "99999"]
    assert frame["size"].tolist() == [1, 2]


def test_training_data_come_first(
    with_datasets: Callable[..., StudiedModel], tmp_path: Path
) -> None:
    """Whatever the order in which datasets were logged; `autolog` calls them "train"."""
    validation = from_pandas(written(tmp_path / "v.csv", ALL[:50]), ALL[:50], name="v")
    training = from_pandas(written(tmp_path / "t.csv", ALL[50:]), ALL[50:], name="t")

    assert "'t'" in with_datasets(validation, training, contexts=("eval", "train")).data.origin


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A web server for a folder's files; yields its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_an_address_of_the_web_is_fetched_within_bounds(
    with_datasets: Callable[..., StudiedModel], tmp_path: Path
) -> None:
    """What is there is used; what is not there, and a server that does not answer, gives way, and
    the query is not repeated."""
    written(tmp_path / "a.csv")
    with serving(tmp_path) as url:
        datasets = [
            from_pandas(f"{url}/{name}?key=secret", name=name) for name in ("gone.csv", "a.csv")
        ]
        found = with_datasets(from_pandas("http://127.0.0.1:9/x.csv", name="away"), *datasets).data

    assert "'a.csv'" in found.origin
    assert found.distinct_rows == 149
    assert (
        "http://127.0.0.1:9/x.csv: no connection to 127.0.0.1:9 (Connection refused)"
        in data.data_summary(found)
    )
    assert f"{url}/gone.csv: it answers 404" in data.data_summary(found)
    assert "secret" not in data.data_summary(found)


def test_too_large_a_file_is_not_fetched(tmp_path: Path) -> None:
    """The process that fetches may not write more than its bound."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "large.csv").write_bytes(b"0\n" * 700_000)

    with (
        serving(tmp_path / "site") as url,
        pytest.raises(ExportError, match="larger than the limit of 1 MB"),
    ):
        download.download(f"{url}/large.csv", tmp_path, most_mb=1)


# -- what cannot be read ---------------------------------------------------------------------------


def gone(path: Path) -> str:
    """A file that is there while its dataset is logged only."""
    return written(path / "gone.csv")


UNREADABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no source": (lambda _: None, "it was logged without a source"),
    "a file that is gone": (gone, "gone.csv: there is no such file"),
    "a folder": (str, "it is a folder or a device, expected one CSV, Parquet or NPY file"),
    "an empty file": (lambda path: written(path / "a.csv", ALL[:0]), "it holds no rows"),
    "other columns": (
        lambda path: written(path / "a.csv", ALL[["target"]]),
        "the data lacks the columns",
    ),
    "text for numbers": (
        lambda path: written(path / "a.csv", ALL.assign(**{X.columns[0]: "x"})),
        "let a step of the model encode it (OrdinalEncoder, OneHotEncoder)",
    ),
    "no number": (
        lambda path: written(path / "a.csv", ALL.assign(**{X.columns[0]: np.nan})),
        "no row holds only values that",
    ),
    "a single row": (lambda path: written(path / "a.csv", ALL[:1]), "a single distinct row"),
    "the same row again and again": (
        lambda path: written(path / "a.csv", pd.concat([ALL[:1]] * 9)),
        "a single distinct row",
    ),
    "a picture": (
        lambda path: str((path / "a.csv").write_bytes(bytes(range(256)) * 9) and path / "a.csv"),
        "not a readable table",
    ),
    "a pickle": (
        lambda path: str(ALL.to_pickle(path / "a.pkl") or path / "a.pkl"),
        "not a readable table",
    ),
    "a damaged Parquet": (
        lambda path: str((path / "a").write_bytes(b"PAR1 PAR1") and path / "a"),
        "not a readable table",
    ),
    "an array of objects": (
        lambda path: str(
            np.save(path / "a.npy", np.array([["x"]], dtype=object), allow_pickle=True)
            or path / "a.npy"
        ),
        "not a readable table: Array can't be memory-mapped: Python objects in dtype",
    ),
    "Hugging Face": (
        lambda _: HuggingFaceDatasetSource("iris"),
        "of the type 'hugging_face', which is not read here",
    ),
    "Delta Lake": (
        lambda _: DeltaDatasetSource(delta_table_name="a.b"),
        "of the type 'delta_table', which is not read here",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_gives_way_to_the_input_example(
    name: str, with_datasets: Callable[..., StudiedModel], tmp_path: Path
) -> None:
    """One line names the source that is used, and says why the former is not; few rows are a
    warning."""
    source, reason = UNREADABLE[name]
    dataset = from_pandas(source(tmp_path), name="flowers")
    (tmp_path / "gone.csv").unlink(missing_ok=True)

    found = with_datasets(dataset).data

    line = data.data_summary(found)
    assert line.startswith(
        f"rows drawn from {EXAMPLE}: 5 rows, 5 of them distinct; not used: the dataset 'flowers' "
        f"{LOGGED} ("
    )
    assert reason in line
    assert "\n" not in line
    assert found.warnings == [
        (
            "the proof is drawn from only 5 distinct rows of data (100 or more are wanted): "
            "answers may differ on rows unlike them"
        )
    ]


def test_the_next_dataset_comes_before_the_input_example(
    with_datasets: Callable[..., StudiedModel], tmp_path: Path
) -> None:
    """Of several datasets the first that can be read is used."""
    found = with_datasets(
        from_pandas(name="a"), from_pandas(written(tmp_path / "b.csv"), name="b")
    ).data

    assert "'b'" in found.origin
    assert found.unused == ("the dataset 'a' logged to the run (it was logged without a source)",)


def test_the_reasons_fit_a_line(with_datasets: Callable[..., StudiedModel], tmp_path: Path) -> None:
    """Three of them are shown, the rest is counted."""
    found = with_datasets(*(from_pandas(name=f"d{i}") for i in range(6))).data

    assert len(found.unused) == 6
    assert data.data_summary(found).endswith("; 3 more")


# -- how much of it --------------------------------------------------------------------------------


def test_a_large_file_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows, of every format; the proof says so."""
    monkeypatch.setattr(tables, "MOST_CELLS", 5 * 20)
    ALL.to_parquet(tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", ALL.to_numpy())
    written(tmp_path / "a.csv")

    for name in ("a.parquet", "a.npy", "a.csv"):
        table = tables.read(tmp_path / name)
        assert table.cut
        np.testing.assert_array_equal(table.frame.to_numpy(), ALL[:20].to_numpy())
    monkeypatch.setattr(tables, "MOST_CELLS", 5 * 150)
    assert not tables.read(tmp_path / "a.csv").cut


def test_a_compressed_bomb_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One endless line does not fill the memory."""
    monkeypatch.setattr(tables, "_HEADER_CHARACTERS", 1000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"\0" * 1_000_000))

    with pytest.raises(ExportError, match="neither CSV, Parquet nor NPY"):
        tables.read(tmp_path / "a.csv.gz")


# -- as a user meets it ----------------------------------------------------------------------------


def test_a_model_logged_the_ordinary_way_is_exported_with_a_warning(
    store: Path, tmp_path: Path
) -> None:
    """`log_input(from_pandas(df))` and five rows as an example: exported; line, table and manifest
    say what the proof is drawn from."""
    mlflow.set_experiment("models")
    with mlflow.start_run(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.log_input(mlflow.data.from_pandas(X))
        model = LogisticRegression(max_iter=1000).fit(X, IRIS.target)
        log(model, "r1", X)
    output = io.StringIO()

    path = export(
        ExportRequest("models:/r1/1", tmp_path, gate_rows=1000),
        Reporter(Console(file=output, width=200)),
    )

    said, parity = output.getvalue(), json.loads((path / "manifest.json").read_text())["parity"]
    assert (
        "not used: the dataset 'dataset' logged to the run (it was logged without a source)" in said
    )
    assert "distinct rows of data" in said
    assert "only 5 distinct rows of data" in said
    assert (parity["data_origin"], parity["data_rows"], parity["distinct_rows"]) == (EXAMPLE, 5, 5)
    assert parity["warnings"] == [
        (
            "the proof is drawn from only 5 distinct rows of data (100 or more are wanted): "
            "answers may differ on rows unlike them"
        )
    ]


def test_autolog_without_an_example_says_what_to_do(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its dataset has code for a source, and there is no example: exit status 1, one line, no
    traceback."""
    mlflow.set_experiment("models")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.sklearn.autolog(registered_model_name="automatic", silent=True)
        try:
            LogisticRegression(max_iter=1000).fit(X, IRIS.target)
        finally:
            mlflow.sklearn.autolog(disable=True)

    status = main(
        ["export", "models:/automatic/1", "--tracking-uri", mlflow.get_tracking_uri()],
        within_limits=True,
    )

    said = capsys.readouterr().err
    assert status == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(
        "model-export: no data to prove the model on: the dataset 'dataset' logged to the run (it "
        "was"
    )
    assert "give --data FILE.csv" in said.splitlines()[-1]


def test_one_row_is_no_proof(
    store: Path, fetched: dict[str, registry.FetchedModel], tmp_path: Path
) -> None:
    """Neither as an input example nor as a file; the sentence says how to give more."""
    one = written(tmp_path / "one.csv", pd.concat([ALL[:1]] * 5))

    with pytest.raises(
        ExportError,
        match=r"the file one\.csv holds a single distinct row, which proves nothing; give --data",
    ):
        export(
            ExportRequest("models:/named/1", tmp_path, data=Path(one)),
            Reporter(Console(file=io.StringIO())),
        )
    assert not list(tmp_path.glob("*/*/manifest.json"))


def test_a_file_that_is_asked_for_is_the_only_one(
    store: Path, fetched: dict[str, registry.FetchedModel], tmp_path: Path
) -> None:
    """What the user names is used or refused; nothing else is tried."""
    with pytest.raises(ExportError, match=r"^--data .*gone\.csv: there is no such file; give"):
        study(fetched["named"], tmp_path / "gone.csv")
    found = study(fetched["named"], Path(written(tmp_path / "a.csv", ALL[:120]))).data
    assert (found.origin, len(found.packed)) == ("the file a.csv", 120)
