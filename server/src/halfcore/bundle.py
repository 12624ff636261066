"""Reads what the exporter wrote: a directory with `model.onnx` and `manifest.json` (docs/bundle-format.md).

A bundle is checked here as far as that is possible without running it: files, fields, types, size, hash, and whether the pinned
ONNX Runtime reads its IR and opset. `models` then runs its golden rows.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

FORMAT = 1
NEWEST_IR = 10
"""Newest ONNX IR that we accept; ONNX Runtime 1.31 reads newer ones, but nothing writes them here."""
NEWEST_OPSET = {"ai.onnx": 22, "ai.onnx.ml": 5}
"""Newest operator sets that the parity gate has been tried with."""

Scalar = str | int | float | bool | None


class BundleError(Exception):
    """A bundle that must not be served; the message names it, the field, what was found and what was expected."""


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a row, as the client knows it."""

    name: Annotated[str, Meta(min_length=1)]
    kind: Literal["number", "integer", "boolean", "category"]
    nullable: bool
    example: Scalar
    categories: list[str | int] | None = None
    minimum: float | None = None
    maximum: float | None = None
    domain: tuple[int | float, int | float] | None = None
    """The numbers for which parity was proven, both inclusive; others are refused. None: all that float32 holds."""


class Ignored(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the model's signature that no step of the model reads.

    A record may hold it, with any string, number, boolean or null, or leave it out.
    """

    name: Annotated[str, Meta(min_length=1)]
    type: str
    """MLflow's type of the column; information, not a limit."""


class OnnxFile(msgspec.Struct, frozen=True, kw_only=True):
    """The model file and what it needs to be read."""

    file: Literal["model.onnx"]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Meta(gt=0)]
    ir_version: int
    opset: dict[str, int]


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """A row and the registered model's answer to it."""

    row: dict[str, Scalar]
    prediction: str | int | float | bool | list[float]
    probabilities: list[float] | None = None


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """What the exporter compared before it wrote the bundle."""

    passed: Literal[True]
    rows: int
    threshold_rows: int
    label_mismatches: int
    ties: int
    tie_band: float
    max_abs_diff: float
    tolerance: float
    accepted: float | None
    seconds: float
    reference: str
    batch_sizes: list[int]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model came from."""

    uri: str
    resolved: str
    flavor: str
    model_class: str
    run_id: str | None = None
    model_id: str | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle's description of itself; the fields are those of docs/bundle-format.md."""

    format: Literal[1]
    name: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    created_at: Annotated[str, Meta(pattern="^[0-9T:.-]+Z$")]
    task: Literal["classification", "regression"]
    source: Source
    inputs: Annotated[list[Input], Meta(min_length=1)]
    named: bool
    dtype: Literal["float32", "float64"]
    classes: list[str | int | float | bool]
    outputs: list[Literal["label", "probabilities", "value"]]
    onnx: OnnxFile
    tools: dict[str, str]
    parity: Parity
    golden: Annotated[list[Golden], Meta(min_length=1)]
    ignored: list[Ignored] = []


class Bundle(msgspec.Struct, frozen=True):
    """A bundle whose files were read and checked."""

    path: Path
    manifest: Manifest

    @property
    def model_file(self) -> Path:
        """The ONNX file."""
        return self.path / self.manifest.onnx.file


def find(directory: Path) -> dict[str, list[Path]]:
    """The bundle directories below `directory` by model name, without opening them.

    Names that begin with a dot are writes in progress and are passed over.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(directory.glob("*/*/")):
        if not path.name.startswith(".") and not path.parent.name.startswith("."):
            found.setdefault(path.parent.name, []).append(path)
    return found


def read_manifest(path: Path, *, any_name: bool = False) -> Manifest:
    """Read and check a bundle's manifest.

    Args:
        path: the bundle's directory.
        any_name: the directory above need not be called as the model; a followed model stands under the name that clients know.

    Raises:
        BundleError: it is missing, is not JSON, lacks a field, or a field has the wrong type or value.
    """
    try:
        manifest = msgspec.json.decode((path / "manifest.json").read_bytes(), type=Manifest)
    except OSError as error:
        raise BundleError(f"{_title(path)}: manifest.json: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{_title(path)}: manifest.json: {error}") from None
    if manifest.name != path.parent.name and not any_name:
        raise BundleError(f"{_title(path)}: name {manifest.name!r}, expected the directory's name {path.parent.name!r}")
    for problem in _contradictions(manifest):
        raise BundleError(f"{_title(path)}: {problem}")
    return manifest


def read(path: Path, *, any_name: bool = False) -> Bundle:
    """Read and check a whole bundle; hashes the model file, so this takes some 0.5 s per gigabyte. For `any_name` see `read_manifest`.

    Raises:
        BundleError: see `read_manifest`; or the model file is missing, has another size or another hash, or does not stand alone.
    """
    manifest = read_manifest(path, any_name=any_name)
    file = path / manifest.onnx.file
    # ONNX Runtime reads weights from any file beside the model that the model names, and no hash covers that file.
    for stray in sorted(item.name for item in path.iterdir() if not item.name.startswith(".")):
        if stray not in ("manifest.json", file.name):
            raise BundleError(f"{_title(path)}: {stray}: another file, expected manifest.json and {file.name} only")
    try:
        size = file.stat().st_size
        if size != manifest.onnx.size_bytes:
            raise BundleError(f"{_title(path)}: {file.name}: {size} bytes, expected size_bytes {manifest.onnx.size_bytes}")
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{_title(path)}: {file.name}: {error.strerror}") from None
    if digest != manifest.onnx.sha256:
        raise BundleError(f"{_title(path)}: {file.name}: sha256 {digest}, expected {manifest.onnx.sha256}")
    return Bundle(path, manifest)


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What types alone cannot say: fields that must agree with each other."""
    if manifest.onnx.ir_version > NEWEST_IR:
        yield f"onnx.ir_version {manifest.onnx.ir_version}, expected at most {NEWEST_IR}"
    for domain, version in manifest.onnx.opset.items():
        newest = NEWEST_OPSET.get(domain)
        if newest is None or version > newest:
            expected_opset = f"at most {newest}" if newest else "one of the domains " + ", ".join(NEWEST_OPSET)
            yield f"onnx.opset {domain} {version}, expected {expected_opset}"
    expected = {"classification": (["label"], ["label", "probabilities"]), "regression": (["value"],)}[manifest.task]
    if manifest.outputs not in expected:
        yield f"outputs {manifest.outputs}, expected {' or '.join(map(str, expected))} for {manifest.task}"
    yield from _class_contradictions(manifest)
    names = [column.name for column in manifest.inputs] + [column.name for column in manifest.ignored]
    if len(set(names)) < len(names):
        yield "inputs, ignored: the same name twice"
    for column in manifest.inputs:
        yield from _input_contradictions(column)


def _class_contradictions(manifest: Manifest) -> Iterator[str]:
    if (manifest.task == "classification") != bool(manifest.classes):
        yield f"classes {manifest.classes}, expected {_some(manifest.task == 'classification')} for {manifest.task}"
    if len(set(map(str, manifest.classes))) < len(manifest.classes):
        yield f"classes {manifest.classes}: the same name twice"
    for number, golden in enumerate(manifest.golden):
        if manifest.task == "regression" and isinstance(golden.prediction, str):
            yield f"golden[{number}].prediction {golden.prediction!r}, expected a number"
        if manifest.task == "classification" and golden.prediction not in manifest.classes:
            yield f"golden[{number}].prediction {golden.prediction!r}, expected one of classes {manifest.classes}"


def _input_contradictions(column: Input) -> Iterator[str]:
    if (column.kind == "category") != bool(column.categories):
        yield f"inputs.{column.name}.categories {column.categories}, expected {_some(column.kind == 'category')} for {column.kind}"
    if len(set(column.categories or [])) < len(column.categories or []):
        yield f"inputs.{column.name}.categories: the same value twice"
    if len({type(value) for value in column.categories or []}) > 1:
        yield f"inputs.{column.name}.categories: strings and integers, expected one kind"


def _some(some: bool) -> str:
    return "some" if some else "none"


def _title(path: Path) -> str:
    return f"bundle {path.parent.name}/{path.name}"
