"""A directory of bundles: what is served, and what is refused with which line."""

import hashlib
import json
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from halfcore.metrics.counters import Metrics
from halfcore.models.loading import Limits, load_all
from halfcore.models.served import Models
from support.bundles import MIXED, NUMBERS, PARITY, classifier, graph, regressor, write_bundle

LIMITS = Limits(
    max_rows=10,
    max_batch_size=4,
    max_queue_size=20,
    max_queue_delay_s=0.0,
    solo_after_s=0.0,
    queue_timeout_s=5.0,
    queue_target_s=0.0,
    inline_budget_s=0.001,
)
Load = Callable[..., Models]
Damage = Callable[[Path], object]


@pytest.fixture
async def load(tmp_path: Path) -> AsyncIterator[Load]:
    """Loads a directory of bundles as a start of the server does."""
    with ThreadPoolExecutor(1) as executor:

        def run(default: str = "", stage: str = "", shared: Path | None = None) -> Models:
            models = Models(default=default, metrics=Metrics())
            both: Any = {"metrics": Metrics(), "limits": LIMITS, "executor": executor}
            load_all(tmp_path, models, stage=stage, shared=shared, **both)
            return models

        yield run


def served(models: Models) -> dict[str, str]:
    """Model name → version."""
    return {model.manifest.name: model.manifest.version for model in models}


def change(path: Path, **fields: Any) -> None:
    """Overwrite fields of a manifest; a double underscore leads into an object."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name, value in fields.items():
        *parents, last = name.split("__")
        target = manifest
        for parent in parents:
            target = target[int(parent) if parent.isdecimal() else parent]
        target[int(last) if last.isdecimal() else last] = value
    (path / "manifest.json").write_text(json.dumps(manifest))


def removed(name: str) -> Damage:
    """Take a field out of the manifest."""

    def damage(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        *parents, last = name.split(".")
        target = manifest
        for parent in parents:
            target = target[int(parent) if parent.isdecimal() else parent]
        del target[last]
        (path / "manifest.json").write_text(json.dumps(manifest))

    return damage


def changed(**fields: Any) -> Damage:
    """Give fields of the manifest other values."""
    return lambda path: change(path, **fields)


def cut(file: str, share: float) -> Damage:
    """Keep only the first part of a file."""
    return lambda path: (path / file).write_bytes(
        (path / file).read_bytes()[: int(share * (path / file).stat().st_size)]
    )


def cut_and_resigned(share: float) -> Damage:
    """Keep only the first part of the model, and let size and hash say so."""

    def damage(path: Path) -> None:
        replaced(
            (path / "model.onnx").read_bytes()[: int(share * (path / "model.onnx").stat().st_size)]
        )(path)

    return damage


def replaced(content: bytes) -> Damage:
    """Other bytes as the model, with their right size and hash."""

    def damage(path: Path) -> None:
        (path / "model.onnx").write_bytes(content)
        change(
            path, onnx__sha256=hashlib.sha256(content).hexdigest(), onnx__size_bytes=len(content)
        )

    return damage


def model(proto: onnx.ModelProto) -> Damage:
    """Another graph as the model."""
    return replaced(proto.SerializeToString())


def directory_as(file: str) -> Damage:
    """A directory where a file should be."""

    def damage(path: Path) -> None:
        (path / file).unlink()
        (path / file).mkdir()

    return damage


def flipped(path: Path) -> None:
    """One bit of the model is another."""
    content = bytearray((path / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "model.onnx").write_bytes(content)


def with_nan_weights() -> onnx.ModelProto:
    """A classifier that answers NaN to everything."""
    nodes = [
        helper.make_node("MatMul", ["rows", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    outputs = [("label", TensorProto.INT64, ["N"]), ("probabilities", TensorProto.FLOAT, ["N", 3])]
    return graph(nodes, {"weights": np.full((4, 3), np.nan, np.float32)}, 4, "float32", outputs)


def with_outputs(
    label: str = "label", label_type: int = TensorProto.INT64, probabilities: str = "probabilities"
) -> onnx.ModelProto:
    """A classifier whose outputs have other names or types."""
    nodes = [
        helper.make_node("Softmax", ["rows"], [probabilities], axis=1),
        helper.make_node("ArgMax", [probabilities], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], [label], to=label_type),
    ]
    return graph(
        nodes,
        {},
        4,
        "float32",
        [(label, label_type, ["N"]), (probabilities, TensorProto.FLOAT, ["N", 4])],
    )


def with_external_data(path: Path, location: str = "weights.bin") -> None:
    """The weights stand in a file of their own, which no hash covers."""
    proto = classifier(4, 3, "float32")
    weights = proto.graph.initializer[0]
    (path / location).write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    model(proto)(path)


def with_failing_graph() -> onnx.ModelProto:
    """A graph that loads, and then fails on every row: it looks up what a table of one entry does
    not hold."""
    nodes = [
        helper.make_node("Gather", ["table", "five"], ["one"]),
        helper.make_node("ReduceSum", ["rows", "axis"], ["sum"], keepdims=0),
    ]
    nodes.append(helper.make_node("Add", ["sum", "one"], ["value"]))
    row_index = [
        helper.make_node("Cast", ["rows"], ["cast"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["cast"], ["top"], keepdims=0),
    ]
    nodes = [*row_index, helper.make_node("Add", ["top", "five_constant"], ["five"]), *nodes]
    constants = {
        "table": np.zeros(1, np.float32),
        "axis": np.array([1], np.int64),
        "five_constant": np.array(5, np.int64),
    }
    return graph(nodes, constants, 4, "float32", [("value", TensorProto.FLOAT, ["N"])])


def identity(dtype: str, opset: int = 21) -> onnx.ModelProto:
    """A regressor that gives a row back: four values."""
    nodes = [helper.make_node("Identity", ["rows"], ["value"])]
    return graph(
        nodes,
        {},
        4,
        dtype,
        [("value", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["N", 4])],
        opset=opset,
    )


def with_two_inputs() -> onnx.ModelProto:
    """A graph that wants more than the rows."""
    proto = classifier(4, 3, "float32")
    proto.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 1]))
    return proto


def with_input(name: str) -> onnx.ModelProto:
    """A graph whose input has another name."""
    proto = classifier(4, 3, "float32")
    proto.graph.input[0].name = name
    for node in proto.graph.node:
        node.input[:] = [name if item == "rows" else item for item in node.input]
    return proto


ROW = {"x0": 9.0, "x1": 1.0, "x2": 1.0, "x3": 1.0}
CATEGORY = {"name": "x0", "kind": "category", "nullable": False, "example": "a"}

BROKEN: dict[str, tuple[Damage, tuple[str, ...]]] = {
    # the manifest
    "no manifest": (
        lambda path: (path / "manifest.json").unlink(),
        ("manifest.json", "No such file"),
    ),
    "an empty manifest": (cut("manifest.json", 0), ("manifest.json", "truncated")),
    **{
        f"a manifest cut at {share:.0%}": (cut("manifest.json", share), ("manifest.json",))
        for share in (0.01, 0.2, 0.5, 0.8, 0.99)
    },
    "a manifest that is a list": (
        lambda path: (path / "manifest.json").write_text("[]"),
        ("manifest.json", "Expected `object`"),
    ),
    "a manifest that is HTML": (
        lambda path: (path / "manifest.json").write_text("<html>"),
        ("manifest.json", "JSON"),
    ),
    "a manifest that is not UTF-8": (
        lambda path: (path / "manifest.json").write_bytes(b'{"name":"\xff"}'),
        ("manifest.json",),
    ),
    "a nested manifest": (
        lambda path: (path / "manifest.json").write_text("[" * 100_000),
        ("manifest.json",),
    ),
    "a directory as manifest": (directory_as("manifest.json"), ("manifest.json",)),
    **{
        f"no {name}": (removed(name), (name.rpartition(".")[2],))
        for name in (
            "format",
            "name",
            "version",
            "created_at",
            "task",
            "source",
            "inputs",
            "named",
            "dtype",
            "classes",
            "outputs",
            "onnx",
            "tools",
            "parity",
            "golden",
            "onnx.sha256",
            "onnx.size_bytes",
            "onnx.opset",
            "onnx.ir_version",
            "inputs.0.kind",
            "golden.0.prediction",
            "parity.tolerance",
            "source.uri",
        )
    },
    "an unknown format": (changed(format=2), ("2", "$.format")),
    "a text as format": (changed(format="1"), ("int", "str", "$.format")),
    "a wrong task": (changed(task="clustering"), ("clustering", "$.task")),
    "a wrong dtype": (changed(dtype="float16"), ("float16", "$.dtype")),
    "inputs as an object": (changed(inputs={}), ("array", "object", "$.inputs")),
    "no inputs at all": (changed(inputs=[]), ("$.inputs",)),
    "a wrong kind": (changed(inputs__0__kind="date"), ("date", "$.inputs[0].kind")),
    "a text for nullable": (
        changed(inputs__0__nullable="no"),
        ("bool", "str", "$.inputs[0].nullable"),
    ),
    "the same input twice": (changed(inputs=[NUMBERS[0]] * 4), ("inputs", "twice")),
    "an ignored column that is an input": (
        changed(ignored=[{"name": "x1", "type": "string"}]),
        ("inputs, ignored", "twice"),
    ),
    "an ignored column twice": (
        changed(ignored=[{"name": "id", "type": "string"}] * 2),
        ("inputs, ignored", "twice"),
    ),
    "an ignored column without a type": (
        changed(ignored=[{"name": "id"}]),
        ("type", "$.ignored[0]"),
    ),
    "a null among the classes": (changed(classes=["a", "b", None]), ("$.classes[2]",)),
    "an empty input name": (changed(inputs__0__name=""), ("$.inputs[0].name",)),
    "categories that are missing": (
        changed(inputs__0=CATEGORY),
        ("inputs.x0.categories", "expected some"),
    ),
    "categories that are empty": (
        changed(inputs__0=CATEGORY | {"categories": []}),
        ("inputs.x0.categories", "expected some"),
    ),
    "categories of two types": (
        changed(inputs__0=CATEGORY | {"categories": ["a", 1]}),
        ("inputs.x0.categories",),
    ),
    "the same category twice": (
        changed(inputs__0=CATEGORY | {"categories": ["a", "a"]}),
        ("inputs.x0.categories", "twice"),
    ),
    "categories of a number": (
        changed(inputs__0__categories=["a"]),
        ("inputs.x0.categories", "expected none"),
    ),
    "another name": (changed(name="other"), ("name 'other'", "expected", "'numbers'")),
    "a name with a slash": (changed(name="../x"), ("$.name",)),
    "a version with a slash": (changed(version="../x"), ("$.version",)),
    "a local time": (changed(created_at="2026-01-01T00:00:00+02:00"), ("$.created_at",)),
    "a text as the number of distinct rows": (
        changed(parity=PARITY | {"distinct_rows": "5"}),
        ("int", "str", "$.parity.distinct_rows"),
    ),
    "a warning that is no list": (
        changed(parity=PARITY | {"warnings": "few"}),
        ("array", "str", "$.parity.warnings"),
    ),
    "a failed parity": (changed(parity=PARITY | {"passed": False}), ("$.parity.passed",)),
    "another file": (changed(onnx__file="../../model.onnx"), ("$.onnx.file",)),
    "outputs of a regressor": (
        changed(outputs=["value"]),
        ("outputs ['value']", "expected ['label']"),
    ),
    "outputs in another order": (
        changed(outputs=["probabilities", "label"]),
        ("outputs", "expected ['label']"),
    ),
    "no classes": (changed(classes=[]), ("classes []", "expected some")),
    "a class too few": (changed(classes=["a", "b"]), ("3 probabilities", "2 classes")),
    "a class too many": (changed(classes=["a", "b", "c", "d"]), ("3 probabilities", "4 classes")),
    "the same class twice": (changed(classes=["a", "b", "a"]), ("classes", "twice")),
    "no golden rows": (changed(golden=[]), ("$.golden",)),
    # the model file
    "no model": (lambda path: (path / "model.onnx").unlink(), ("model.onnx", "No such file")),
    "a directory as model": (directory_as("model.onnx"), ("model.onnx",)),
    **{
        f"a model cut at {share:.0%}": (cut("model.onnx", share), ("model.onnx", "bytes, expected"))
        for share in (0.0, 0.1, 0.5, 0.99)
    },
    **{
        f"a model cut at {share:.0%}, resigned": (cut_and_resigned(share), ("model.onnx",))
        for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
    },
    "one bit of the model": (flipped, ("model.onnx", "sha256", "expected")),
    "a wrong sha256": (
        changed(onnx__sha256="0" * 64),
        ("model.onnx", "sha256", "expected " + "0" * 64),
    ),
    "a short sha256": (changed(onnx__sha256="0" * 63), ("$.onnx.sha256",)),
    "a wrong size": (changed(onnx__size_bytes=7), ("model.onnx", "bytes, expected size_bytes 7")),
    "a newer IR": (changed(onnx__ir_version=99), ("onnx.ir_version 99", "expected at most 10")),
    "a newer opset": (
        changed(onnx__opset={"ai.onnx": 99}),
        ("onnx.opset ai.onnx 99", "expected at most 22"),
    ),
    "an unknown operator domain": (
        changed(onnx__opset={"ai.onnx": 21, "com.example": 1}),
        ("com.example", "expected one of"),
    ),
    "HTML instead of ONNX": (
        replaced(b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"),
        ("model.onnx", "cannot load"),
    ),
    "zeros instead of ONNX": (replaced(b"\0" * 1000), ("model.onnx", "cannot load")),
    "a really newer opset": (model(identity("float32", opset=99)), ("model.onnx", "cannot load")),
    "weights in another file": (with_external_data, ("model.onnx", "another file")),
    "weights in a file above": (
        lambda path: with_external_data(path, "../weights.bin"),
        ("model.onnx", "cannot load"),
    ),
    # the graph
    "a wider input": (model(classifier(5, 3, "float32")), ("model.onnx", "width 5", "[N, 4]")),
    "a narrower input": (model(classifier(3, 3, "float32")), ("model.onnx", "width 3", "[N, 4]")),
    "an input of the other dtype": (
        model(classifier(4, 3, "float64")),
        ("model.onnx", "tensor(double)", "tensor(float)"),
    ),
    "an input of another name": (model(with_input("X")), ("model.onnx", "'X'", "expected rows")),
    "two inputs": (model(with_two_inputs()), ("model.onnx", "more", "expected rows")),
    "an output of another name": (
        model(with_outputs(label="class")),
        ("model.onnx", "output label", "missing", "tensor(int64)"),
    ),
    "an output of another type": (
        model(with_outputs(label_type=TensorProto.FLOAT)),
        ("model.onnx", "output label", "tensor(float)"),
    ),
    "a regressor's graph": (
        model(regressor(4, "float32")),
        ("model.onnx", "output label", "missing"),
    ),
    "another width of probabilities": (model(with_outputs()), ("4 probabilities", "3 classes")),
    "NaN weights": (model(with_nan_weights()), ("golden", "not finite")),
    # the golden rows
    "another prediction": (
        changed(golden=[{"row": ROW, "prediction": "a"}]),
        ("golden[0]", "prediction", "expected 'a'"),
    ),
    "a prediction that is no class": (
        changed(golden__0__prediction="d"),
        ("golden[0].prediction 'd'", "expected one of classes"),
    ),
    "other probabilities": (
        changed(golden__0__probabilities=[0.5, 0.25, 0.25]),
        ("golden[0]", "expected [0.5, 0.25, 0.25]"),
    ),
    "too few probabilities": (
        changed(golden__0__probabilities=[1.0]),
        ("golden[0]", "probabilities", "expected [1.0]"),
    ),
    "a golden row without a column": (changed(golden__0__row={"x0": 1}), ("golden[0].row", "x1")),
    "a text in a golden row": (changed(golden__0__row__x0="a"), ("golden[0].row",)),
    "null in a golden row": (changed(golden__0__row__x0=None), ("golden[0].row",)),
    "too large a golden number": (changed(golden__0__row__x0=1e39), ("golden[0].row",)),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_bundle_is_refused_with_one_line(
    name: str, tmp_path: Path, load: Load
) -> None:
    """The line names bundle, field, what was found and what was expected; the other model is
    served."""
    damage, says = BROKEN[name]
    path = write_bundle(tmp_path)
    write_bundle(tmp_path, "other")
    damage(path)

    models = load()

    assert served(models) == {"other": "1"}
    line = models.failures["numbers"]
    assert line.startswith(f"bundle numbers/{path.name}: ")
    assert [word for word in says if word not in line] == []
    assert "\n" not in line
    assert str(tmp_path) not in line


REGRESSORS: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "another value": (changed(golden__0__prediction=7.0), ("golden[0]", "expected [7.0]")),
    "a text as a value": (changed(golden__0__prediction="seven"), ("golden[0]", "seven")),
    "two values for one": (changed(golden__0__prediction=[6.0, 6.0]), ("golden[0]", "[6.0, 6.0]")),
    "classes": (changed(classes=["a"]), ("classes ['a']", "expected none")),
    "a graph that fails on every row": (model(with_failing_graph()), ("golden", "failed")),
}


@pytest.mark.parametrize("name", REGRESSORS)
async def test_a_broken_regressor_is_refused_with_one_line(
    name: str, tmp_path: Path, load: Load
) -> None:
    """Regressors are held against their golden rows too."""
    damage, says = REGRESSORS[name]
    path = write_bundle(tmp_path, task="regression")
    write_bundle(tmp_path, "other")
    damage(path)

    models = load()

    assert served(models) == {"other": "1"}
    line = models.failures["numbers"]
    assert line.startswith(f"bundle numbers/{path.name}: ")
    assert [word for word in says if word not in line] == []
    assert "\n" not in line


@pytest.mark.parametrize("offset", range(0, 100, 7))
async def test_a_manifest_cut_anywhere_is_refused(offset: int, tmp_path: Path, load: Load) -> None:
    """No beginning of a manifest is a manifest."""
    path = write_bundle(tmp_path)
    cut("manifest.json", offset / 100)(path)

    assert load().failures["numbers"].startswith(f"bundle numbers/{path.name}: manifest.json")


async def test_a_refusal_is_logged_once(
    tmp_path: Path, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator finds one error line per refused model, without a stack."""
    change(write_bundle(tmp_path), format=2)
    models = load()

    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        f"model numbers: refused: {models.failures['numbers']}"
    ]
    assert errors[0].exc_info is None


@pytest.mark.parametrize("broken", ["manifest.json", "model.onnx"])
async def test_an_older_bundle_stands_in_for_a_broken_one(
    tmp_path: Path, load: Load, broken: str
) -> None:
    """What was served yesterday is better than nothing, and the refusal is not hidden by it."""
    write_bundle(tmp_path, version="1", created_at="2026-01-01T00:00:00Z")
    newer = write_bundle(tmp_path, version="2", created_at="2026-01-02T00:00:00Z")
    (newer / broken).write_bytes((newer / broken).read_bytes()[:-9])
    models = load()

    assert models.get("numbers").manifest.version == "1"
    assert models.ready
    assert broken in models.failures["numbers"]


async def test_the_newest_bundle_is_served(tmp_path: Path, load: Load) -> None:
    """What was exported last is what was meant, whatever the version's number."""
    write_bundle(tmp_path, version="9", created_at="2026-01-01T00:00:00Z")
    write_bundle(tmp_path, version="2", created_at="2026-03-01T00:00:00Z")
    write_bundle(tmp_path, version="10", created_at="2026-02-01T00:00:00Z")

    assert served(load()) == {"numbers": "2"}


async def test_a_fraction_of_a_second_is_newer(tmp_path: Path, load: Load) -> None:
    """Times with and without fractions are put in the right order."""
    write_bundle(tmp_path, version="1", created_at="2026-01-01T00:00:00Z")
    write_bundle(tmp_path, version="2", created_at="2026-01-01T00:00:00.250Z")

    assert served(load()) == {"numbers": "2"}


async def test_a_later_worker_loads_what_the_first_one_did(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, load: Load
) -> None:
    """Newer bundles and models that were copied into the folder since wait for a restart."""
    shared = tmp_path_factory.mktemp("shared")
    first = write_bundle(tmp_path, version="1", created_at="2026-01-01T00:00:00Z")
    assert served(load(shared=shared)) == {"numbers": "1"}
    write_bundle(tmp_path, version="2", created_at="2026-01-02T00:00:00Z")
    write_bundle(tmp_path, "other")

    models = load(shared=shared)
    assert served(models) == {"numbers": "1"}
    assert "restart the server" in models.failures["other"]
    assert served(load()) == {"numbers": "2", "other": "1"}, "a restart"

    shutil.rmtree(first)
    assert served(load(shared=shared)) == {"numbers": "2"}, "better than none"


async def test_a_folder_that_cannot_be_written_stops_no_worker(tmp_path: Path, load: Load) -> None:
    """What the workers share is on a disk that may be full."""
    write_bundle(tmp_path)
    assert served(load(shared=tmp_path / "none")) == {"numbers": "1"}


@pytest.mark.parametrize("name", [".1-0f3a9c41", ".tmp-1", "../.numbers/1-0f3a9c41"])
async def test_names_that_begin_with_a_dot_are_passed_over(
    name: str, tmp_path: Path, load: Load
) -> None:
    """A bundle that is being written is not there yet, broken or not."""
    path = write_bundle(tmp_path)
    hidden = path.parent / name
    hidden.parent.mkdir(exist_ok=True)
    shutil.copytree(path, hidden)
    change(hidden, created_at="2027-01-01T00:00:00Z", version="2", format=3)

    models = load()

    assert (served(models), models.failures) == ({"numbers": "1"}, {})


async def test_stray_files_are_passed_over(tmp_path: Path, load: Load) -> None:
    """Files next to the bundles, and fields that this version does not know, disturb nothing."""
    change(write_bundle(tmp_path), comment="new in format 1.1")
    (tmp_path / "README.txt").write_text("hi")
    (tmp_path / "numbers" / "notes.txt").write_text("hi")
    (tmp_path / "lost+found").mkdir()

    models = load()

    assert (served(models), models.failures) == ({"numbers": "1"}, {})


async def test_an_empty_directory_serves_nothing(tmp_path: Path, load: Load) -> None:
    """No bundle is no failure, and no readiness."""
    models = load()

    assert (served(models), models.failures, models.ready) == ({}, {}, False)


async def test_a_stage_chooses_among_bundles(tmp_path: Path, load: Load) -> None:
    """With a stage set, the default model is the newest bundle that was exported from that
    stage."""
    change(write_bundle(tmp_path, version="1"), source__uri="models:/numbers/Production")
    change(
        write_bundle(tmp_path, version="2", created_at="2026-02-01T00:00:00Z"),
        source__uri="models:/numbers/Staging",
    )
    change(write_bundle(tmp_path, "other", version="3"), source__uri="models:/other@champion")

    assert served(load("numbers", "Production")) == {"numbers": "1", "other": "3"}
    assert served(load("numbers", "Staging")) == {"numbers": "2", "other": "3"}
    assert served(load("numbers", "")) == {"numbers": "2", "other": "3"}


async def test_a_stage_is_found_under_another_registered_name(tmp_path: Path, load: Load) -> None:
    """`model-export export models:/penguins-svm/Production --name flowers`, and MODEL_NAME=flowers
    MODEL_STAGE=Production."""
    change(write_bundle(tmp_path, "flowers"), source__uri="models:/penguins-svm/Production")

    assert served(load("flowers", "Production")) == {"flowers": "1"}
    assert not load("flowers", "Staging").ready


async def test_a_stage_without_a_bundle_is_said(tmp_path: Path, load: Load) -> None:
    """The line names the setting, the stage and what is there."""
    write_bundle(tmp_path)

    models = load("numbers", "Production")

    assert not models.ready
    assert models.failures["numbers"] == (
        "model_stage 'Production': no bundle was exported as models:/numbers/Production, found "
        "models:/numbers@champion"
    )


async def test_a_tie_may_fall_either_way(tmp_path: Path, load: Load) -> None:
    """A golden row whose best classes are closer than the tie band proves nothing about the
    label."""
    path = write_bundle(tmp_path, model=with_outputs(), classes=["a", "b", "c", "d"])
    row = {"x0": 1.0, "x1": 1.0, "x2": 1.0, "x3": 1.0}
    change(path, golden=[{"row": row, "prediction": "b", "probabilities": [0.25] * 4}])

    assert served(load()) == {"numbers": "1"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
async def test_every_kind_of_bundle_is_served(dtype: str, tmp_path: Path, load: Load) -> None:
    """Classifiers with and without probabilities, regressors with one and with several outputs,
    mixed columns, both dtypes."""
    write_bundle(tmp_path, "classifier", dtype=dtype)
    write_bundle(tmp_path, "mixed", inputs=MIXED, dtype=dtype)
    write_bundle(tmp_path, "regressor", task="regression", dtype=dtype)
    write_bundle(tmp_path, "labels", dtype=dtype, changes={"outputs": ["label"]})
    write_bundle(tmp_path, "integers", classes=[3, 1, 2], dtype=dtype)
    write_bundle(tmp_path, "booleans", classes=[False, True], dtype=dtype)
    several = write_bundle(tmp_path, "several", task="regression", dtype=dtype)
    model(identity(dtype))(several)
    change(several, golden__0__prediction=[0.0, 1.0, 2.0, 3.0])

    models = load()

    assert models.failures == {}
    assert len(served(models)) == 7
