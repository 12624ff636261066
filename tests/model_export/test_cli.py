"""The command line, end to end: what it writes, what it says, how it exits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.impute import KNNImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from model_export import __main__, examples
from model_export.__main__ import main
from model_export.errors import ExportError
from model_export.examples import pines
from model_export.registry import client as registry
from model_export.registry import connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def two_numbers() -> pd.DataFrame:
    """200 rows around zero."""
    return pd.DataFrame(np.random.default_rng(3).normal(size=(200, 2)), columns=["a", "b"])


def test_export_writes_a_bundle_and_prints_the_parity_table(
    save: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit status 0, a table with what was compared, a bundle that says the same, and JSON."""
    frame = two_numbers()
    folder = save(LogisticRegression().fit(frame, frame["a"] > 0), frame, name="sign")

    status = main(
        [
            "export",
            str(folder),
            "--out",
            str(tmp_path / "out"),
            "--tracking-uri",
            f"sqlite:///{tmp_path}/mlflow.db",
            "--json",
        ]
    )

    out, said = capfd.readouterr()
    (manifest,) = (tmp_path / "out" / "sign").glob("*/manifest.json")
    parity = json.loads(manifest.read_text())["parity"]
    assert status == 0
    assert f"{parity['rows']:,}" in said
    assert "label mismatches" in said
    assert "worst difference" in said
    printed = json.loads(out)
    assert printed["bundle"] == str(manifest.parent)
    assert (printed["name"], printed["uploaded"], printed["parity"]) == ("sign", None, parity)


def test_a_model_built_to_differ_is_refused_with_its_worst_row(
    save: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An imputer that chooses among equal rows by no rule: exit status 1, the row as JSON has
    it, both answers, no bundle, no traceback."""
    frame = two_numbers().assign(b=lambda table: table["b"].round())
    labels = np.where(frame["a"] < 0.0, "low", "high")
    frame.loc[::5, "a"] = np.nan
    model = make_pipeline(KNNImputer(n_neighbors=1), DecisionTreeClassifier(random_state=0))
    model.fit(frame, labels)
    folder = save(model, frame, name="gaps")

    status = main(
        [
            "export",
            str(folder),
            "--out",
            str(tmp_path / "out"),
            "--tracking-uri",
            f"sqlite:///{tmp_path}/mlflow.db",
        ]
    )

    said = capfd.readouterr().err
    assert status == 1
    assert "refused: " in said
    assert '"a": null' in said
    assert re.search(r"registered model: '(low|high)' \((0, 1|1, 0)\)", said)
    assert re.search(r"graph: '(low|high)' \((0, 1|1, 0)\)", said)
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_one_line_and_quick(tmp_path: Path) -> None:
    """Exit status 1, before the libraries of the steps after the fetch are imported."""
    script = (
        "import sys; from model_export.__main__ import main; "
        "status = main(sys.argv[1:], within_limits=True); "
        "print(status, {'sklearn', 'skl2onnx', 'onnx', 'onnxruntime'} & set(sys.modules))"
    )
    folder = tmp_path / "nothing"
    arguments = ["export", str(folder), "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]

    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.stdout.splitlines() == ["1 set()"]
    assert done.stderr.splitlines()[-1].startswith(f"model-export: {folder}: there is no such")


@pytest.mark.parametrize("command", ["export", "examples", "verify", "watch"])
def test_what_nobody_foresaw_is_one_line(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever is raised wherever: exit status 1, the sentence, and a traceback where it is asked
    for."""

    def fail(_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(connection, "connect", fail)
    monkeypatch.setattr(__main__, "connect", fail)
    monkeypatch.delenv("MODEL_EXPORT_DEBUG", raising=False)
    named = {"examples": "iris"}.get(command, "models:/x@y")
    arguments = [command, named, *(["--out", str(tmp_path)] if command == "examples" else [])]

    assert main(arguments, within_limits=True) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(
        "model-export: unexpected error: this is not implemented (NotImplementedError in "
    )
    assert "Traceback" not in said

    monkeypatch.setenv("MODEL_EXPORT_DEBUG", "1")
    assert main(arguments, within_limits=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_wrong_address_of_mlflow_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 3: nothing is said about the model, and trying again may help."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    try:
        status = main(
            ["export", "models:/iris@champion", "--tracking-uri", "http://127.0.0.1:9"],
            within_limits=True,
        )
    finally:
        registry.connect(before)

    assert status == 3
    assert capsys.readouterr().err.splitlines()[-1] == (
        "model-export: models:/iris@champion: no connection to 127.0.0.1:9 (Connection refused); "
        "is MLflow there (--tracking-uri, MLFLOW_TRACKING_URI)?"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["export"],
        ["export", "x", "--dtype", "float16"],
        ["export", "x", "--accept-parity", "7"],
        ["export", "x", "--memory-limit-mb", "63"],
        ["examples", "--memory-limit-mb", "much"],
    ],
)
def test_wrong_usage_is_exit_status_2(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """argparse says how it is used."""
    with pytest.raises(SystemExit) as left:
        main(arguments)

    assert left.value.code == 2
    assert "usage: model-export" in capfd.readouterr().err


def test_an_unknown_example_is_exit_status_2(capfd: pytest.CaptureFixture[str]) -> None:
    """With the known names."""
    assert main(["examples", "iriss"]) == 2
    assert capfd.readouterr().err.endswith("; did you mean iris?\n")
    assert main(["examples", "unicorn"]) == 2
    assert "penguins-svm" in capfd.readouterr().err


def test_examples_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that were asked for, and those of them that were made."""
    (tmp_path / "iris" / "1-0badf00d").mkdir(parents=True)
    (tmp_path / "iris" / "1-0badf00d" / "manifest.json").touch()

    assert main(["examples", "iris", "--out", str(tmp_path), "--json"]) == 0
    found = {"out": str(tmp_path), "examples": ["iris"], "made": []}
    assert json.loads(capsys.readouterr().out) == found


def test_examples_that_are_there_import_nothing_heavy(tmp_path: Path) -> None:
    """A server's start asks for them every time: no MLflow, no scikit-learn, no pandas, no
    NumPy."""
    for name in examples.LIGHT:
        (tmp_path / name / "1-0badf00d").mkdir(parents=True)
        (tmp_path / name / "1-0badf00d" / "manifest.json").touch()
    script = (
        "import sys; from model_export.__main__ import main; status = main(sys.argv[1:]);"
        "print(status, {'mlflow', 'sklearn', 'pandas', 'numpy', 'rich', 'onnx'} & set(sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, "examples", "light", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.stdout.splitlines() == [
        f"6 example models in {tmp_path}, 6 of them already there",
        "0 set()",
    ]


def test_groups_of_examples_expand_once() -> None:
    """Names and groups may overlap; the order is that of asking."""
    assert examples.expand(["penguins", "penguins-lr", "iris"]) == [
        "penguins-lr",
        "penguins-rf",
        "penguins-svm",
        "iris",
    ]
    assert examples.expand(["all"]) == [*examples.LIGHT, "cover-heavy"]
    assert examples.expand(["cover-lightgbm", "bench"]) == [
        "cover-lightgbm",
        "iris",
        "cover-middle",
    ]


def test_an_example_whose_library_is_missing_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an export does."""
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ExportError, match=r"'lightgbm'.*: install halfcore-export\[lightgbm\]"):
        pines.build()


@pytest.mark.slow
def test_the_boosted_trees_of_the_bench_are_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 trees of two classes, with the columns of the other models of forest cover."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    assert main(["examples", "cover-lightgbm"]) == 0

    (path,) = (tmp_path / ".halfcore/bundles/cover-lightgbm").glob("1-*/manifest.json")
    manifest: dict[str, Any] = json.loads(path.read_text())
    assert manifest["classes"] == [0, 1]
    assert [entry["kind"] for entry in manifest["inputs"]] == ["integer"] * 10 + ["category"] * 2
    assert manifest["parity"]["label_mismatches"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Starting with pandas version 4.0:DeprecationWarning"
)  # MLflow's digest of a dataset
@pytest.mark.filterwarnings(
    "ignore:Operation with range is deprecated:DeprecationWarning"
)  # MLflow's writing of an input example
def test_an_example_is_trained_registered_and_exported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """penguins-svm: alias and stage, the data in the run, a bundle with strings and nulls; the
    second time nothing happens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    assert main(["examples", "penguins-svm"]) == 0
    (path,) = (tmp_path / ".halfcore" / "bundles" / "penguins-svm").glob("1-*/manifest.json")
    written = path.stat().st_mtime_ns
    manifest: dict[str, Any] = json.loads(path.read_text())
    assert main(["examples", "penguins-svm"]) == 0

    kinds = {entry["name"]: entry["kind"] for entry in manifest["inputs"]}
    assert kinds["island"] == kinds["sex"] == "category"
    assert next(entry["categories"] for entry in manifest["inputs"] if entry["name"] == "sex") == [
        "FEMALE",
        "MALE",
    ]
    assert manifest["parity"]["label_mismatches"] == 0
    assert "logged to the run" in manifest["parity"]["reference"]
    assert path.stat().st_mtime_ns == written
    assert "on the fifth that was held out" in capfd.readouterr().err


def test_a_wrong_word_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A command or an option that is like it."""
    for words, meant in (
        (["exprt", "x"], "; did you mean export?"),
        (["export", "x", "--gaterows", "1"], "; did you mean --gate-rows?"),
        (["--onec", "watch"], "; did you mean --once?"),
        (["export", "x", "--heartbeat"], "unrecognized arguments: --heartbeat"),  # of watch
        (["once"], "'watch', 'healthy', 'completion')"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert capsys.readouterr().err.endswith(f"{meant}\n")
