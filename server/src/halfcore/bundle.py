"""Reads a bundle, which the exporter wrote: a directory with `model.onnx` and `manifest.json`
(docs/bundle-format.md).

A bundle is checked here as far as possible without running it. `models` then runs its golden rows,
and `bundle_search` finds the bundles of a directory.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from halfcore.bundle_signature import MOST_SIGNATURE_BYTES, SIGNATURE_FILE, UNSIGNED, Signers
from halfcore.distribution import Distribution
from halfcore.readable import unreadable_reason

FORMAT = 1
NEWEST_IR = 10
"""Newest ONNX IR that we accept: ONNX Runtime 1.31 reads newer ones, our exporter writes none."""
NEWEST_OPSET = {"ai.onnx": 22, "ai.onnx.ml": 5}
"""Newest operator sets for which the parity gate was tested."""

MANIFEST_FILE = "manifest.json"

WORD_PATTERN = (
    r"^(\(\?u\))?(\\b)?(\\w|\\S|\[[A-Za-z0-9_-]+\])(\3)*(\+|\{[0-9]{1,2},\})(?(2)(\\b)?)$"
)
"""The regular expressions that a bundle may bring for a token: characters of one class, at least so
many. Any other one could take exponential time on a text made for it."""

Scalar = str | int | float | bool | None
BundleFault = Literal["files", "signature", "manifest", "model_sha256", "graph", "golden"]


class BundleError(Exception):
    """A bundle must not be served.

    Args:
        code: the part that is wrong: its files, its signature, its manifest, the model file's hash,
            its graph, or the answer to a golden row.
        path: the bundle's directory.
        where: the file or the field; empty if the message begins with it.
        message: what was found and what was expected.
    """

    def __init__(self, code: BundleFault, path: Path, where: str, message: str) -> None:
        super().__init__(code, path, where, message)
        self.code = code
        self.path = path
        self.reason = f"{where}: {message}" if where else message
        """What is wrong, without the bundle's name."""

    def __str__(self) -> str:
        return f"bundle {self.path.parent.name}/{self.path.name}: {self.reason}"


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """How a text is cut into tokens; see docs/bundle-format.md."""

    analyzer: Literal["word", "char", "char_wb"]
    lowercase: bool
    strip_accents: Literal["ascii", "unicode"] | None
    pattern: Annotated[str, Meta(pattern=WORD_PATTERN)] | None
    """Analyzer `word`: a token, as a regular expression that takes linear time."""
    stop_words: list[str]
    tokens: Annotated[list[str], Meta(min_length=1)]
    """Those that the graph knows."""
    max_length: Annotated[int, Meta(ge=1, le=10_000)]
    """Most characters of a text."""
    slots: Annotated[int, Meta(ge=1, le=10_000)]
    """Most tokens of a text, and the number of matrix columns that it takes."""


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a row, as clients see it."""

    name: Annotated[str, Meta(min_length=1)]
    kind: Literal["number", "integer", "boolean", "category", "text"]
    nullable: bool
    example: Scalar
    categories: list[str | int] | None = None
    minimum: float | None = None
    maximum: float | None = None
    domain: tuple[int | float, int | float] | None = None
    """Bounds of the numbers for which parity was proven, both inclusive; other numbers are refused.
    None: all that fit float32."""
    accepts_unknown: bool = False
    """Kind `category`: values outside `categories` are accepted, and have one index of their
    own."""
    text: Text | None = None
    """Kind `text`: how it is packed."""


class Ignored(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the model's signature that no step of the model reads.

    A record may hold it, with any string, number, boolean or null, or leave it out.
    """

    name: Annotated[str, Meta(min_length=1)]
    type: str
    """MLflow's type of the column; information, not a limit."""


class OnnxFile(msgspec.Struct, frozen=True, kw_only=True):
    """The model file and what reading it requires."""

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


class Parity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the exporter compared before it wrote the bundle. Bundles of older exporters lack the
    fields with a default."""

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
    data_origin: str | None = None
    """The origin of the rows that the proof used."""
    data_rows: int | None = None
    distinct_rows: int | None = None
    """Different rows among `data_rows`."""
    warnings: list[str] = []  # msgspec copies it
    """What weakens the proof, as sentences."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The model from which the bundle was exported."""

    uri: str
    resolved: str
    flavor: str
    model_class: str
    run_id: str | None = None
    model_id: str | None = None
    predict_function: str = "predict"
    """What the registered pyfunc answers, and so `/invocations`."""

    @property
    def answers_probabilities(self) -> bool:
        """Whether the registered pyfunc answers probabilities in place of labels."""
        return self.predict_function == "predict_proba"


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
    distribution: Distribution | None = None


class Bundle(msgspec.Struct, frozen=True):
    """A bundle whose files were read and checked."""

    path: Path
    manifest: Manifest

    @property
    def model_file(self) -> Path:
        """The ONNX file."""
        return self.path / self.manifest.onnx.file


def read_manifest(
    path: Path, *, any_name: bool = False, signers: Signers | None = None
) -> Manifest:
    """Read and check a bundle's manifest.

    Args:
        path: the bundle's directory.
        any_name: the directory above may have another name than the model; a followed model is in
            a directory with the name that clients use.
        signers: one of them must have signed it; None: nobody needs to.

    Raises:
        BundleError: it is missing, not signed, is not JSON, lacks a field, or a field has the wrong
            type or value.
    """
    try:
        content = (path / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise BundleError(
            "manifest", path, MANIFEST_FILE, unreadable_reason(error, path / MANIFEST_FILE)
        ) from None
    if signers is not None:
        _check_signature(path, content, signers)
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError("manifest", path, MANIFEST_FILE, str(error)) from None
    if manifest.name != path.parent.name and not any_name:
        raise BundleError(
            "manifest",
            path,
            "",
            f"name {manifest.name!r}, expected the directory's name {path.parent.name!r}: "
            f"rename the directory, or export the model with --name {path.parent.name}",
        )
    for problem in _contradictions(manifest):
        raise BundleError("manifest", path, "", problem)
    return manifest


def read(path: Path, *, any_name: bool = False, signers: Signers | None = None) -> Bundle:
    """Read and check a whole bundle; hashes the model file, which takes some 0.5 s per gigabyte.
    For the arguments see `read_manifest`.

    Raises:
        BundleError: see `read_manifest`; or the model file is missing, has another size or another
            hash, or there are other files.
    """
    manifest = read_manifest(path, any_name=any_name, signers=signers)
    file = path / manifest.onnx.file
    _check_files(path, file.name)
    _check_model_file(path, file, manifest.onnx)
    return Bundle(path, manifest)


def _check_signature(path: Path, content: bytes, signers: Signers) -> None:
    """Refuse a manifest that no known key signed."""
    try:
        with (path / SIGNATURE_FILE).open("rb") as stream:
            signatures = stream.read(MOST_SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        raise BundleError("signature", path, "", UNSIGNED) from None
    except OSError as error:
        reason = unreadable_reason(error, path / SIGNATURE_FILE)
        raise BundleError("signature", path, SIGNATURE_FILE, reason) from None
    if not signers.accept(content, signatures):
        raise BundleError(
            "signature",
            path,
            SIGNATURE_FILE,
            f"no key in HALFCORE_BUNDLE_KEYS made it of this {MANIFEST_FILE}: export the model "
            "again with the right key, or add its public key",
        )


def _check_model_file(path: Path, file: Path, expected: OnnxFile) -> None:
    try:
        size = file.stat().st_size
        if size != expected.size_bytes:
            raise BundleError(
                "files",
                path,
                file.name,
                f"{size} bytes, expected size_bytes {expected.size_bytes}",
            )
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError("files", path, file.name, unreadable_reason(error, file)) from None
    if digest != expected.sha256:
        raise BundleError(
            "model_sha256", path, file.name, f"sha256 {digest}, expected {expected.sha256}"
        )


def _check_files(path: Path, model_file: str) -> None:
    """Refuse other files: ONNX Runtime reads weights from any file that the model names, and no
    hash covers that file."""
    try:
        names = sorted(item.name for item in path.iterdir() if not item.name.startswith("."))
    except OSError as error:
        raise BundleError("files", path, "", unreadable_reason(error, path)) from None
    for stray in names:
        if stray not in (MANIFEST_FILE, SIGNATURE_FILE, model_file):
            raise BundleError(
                "files", path, stray, f"another file, expected manifest.json and {model_file} only"
            )


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """Errors that types alone do not find: fields that contradict each other."""
    if manifest.onnx.ir_version > NEWEST_IR:
        yield f"onnx.ir_version {manifest.onnx.ir_version}, expected at most {NEWEST_IR}"
    for domain, version in manifest.onnx.opset.items():
        newest = NEWEST_OPSET.get(domain)
        if newest is None or version > newest:
            expected_opset = (
                f"at most {newest}" if newest else "one of the domains " + ", ".join(NEWEST_OPSET)
            )
            yield f"onnx.opset {domain} {version}, expected {expected_opset}"
    expected = {
        "classification": (["label"], ["label", "probabilities"]),
        "regression": (["value"],),
    }[manifest.task]
    if manifest.outputs not in expected:
        yield (
            f"outputs {manifest.outputs}, expected {' or '.join(map(str, expected))} for "
            f"{manifest.task}"
        )
    yield from _class_contradictions(manifest)
    names = [column.name for column in manifest.inputs] + [
        column.name for column in manifest.ignored
    ]
    if len(set(names)) < len(names):
        yield "inputs, ignored: the same name twice"
    for column in manifest.inputs:
        yield from _input_contradictions(column)


def _class_contradictions(manifest: Manifest) -> Iterator[str]:
    if (manifest.task == "classification") != bool(manifest.classes):
        yield (
            f"classes {manifest.classes}, expected {_some(manifest.task == 'classification')} for "
            f"{manifest.task}"
        )
    if len(set(map(str, manifest.classes))) < len(manifest.classes):
        yield f"classes {manifest.classes}: the same name twice"
    for number, golden in enumerate(manifest.golden):
        if manifest.task == "regression" and isinstance(golden.prediction, str):
            yield f"golden[{number}].prediction {golden.prediction!r}, expected a number"
        if manifest.task == "classification" and golden.prediction not in manifest.classes:
            yield (
                f"golden[{number}].prediction {golden.prediction!r}, expected one of classes "
                f"{manifest.classes}"
            )


def _input_contradictions(column: Input) -> Iterator[str]:
    if (column.kind == "category") != bool(column.categories):
        yield (
            f"inputs.{column.name}.categories {column.categories}, expected "
            f"{_some(column.kind == 'category')} for {column.kind}"
        )
    if (column.kind == "text") != (column.text is not None) or (column.text and column.nullable):
        yield f"inputs.{column.name}.text: expected {_some(column.kind == 'text')}, and no null"
    if column.text is not None and not _is_pattern(column.text):
        yield f"inputs.{column.name}.text.pattern {column.text.pattern!r}, expected one for words"
    if column.accepts_unknown and column.kind != "category":
        yield f"inputs.{column.name}.accepts_unknown true, expected false for {column.kind}"
    if len(set(column.categories or [])) < len(column.categories or []):
        yield f"inputs.{column.name}.categories: the same value twice"
    if len({type(value) for value in column.categories or []}) > 1:
        yield f"inputs.{column.name}.categories: strings and integers, expected one kind"


def _is_pattern(text: Text) -> bool:
    """Whether there is a pattern exactly for words, and Python can compile it."""
    try:
        re.compile(text.pattern or "")
    except re.error:
        return False
    return (text.pattern is not None) == (text.analyzer == "word")


def _some(some: bool) -> str:
    return "some" if some else "none"
