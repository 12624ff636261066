"""Reads what the exporter wrote: a directory with `model.onnx` and `manifest.json`
(docs/bundle-format.md).

A bundle is checked here as far as that is possible without running it: files, fields, types, size,
hash, and whether the pinned ONNX Runtime reads its IR and opset. `models` then runs its golden
rows.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

FORMAT = 1
NEWEST_IR = 10
"""Newest ONNX IR that we accept; ONNX Runtime 1.31 reads newer ones, but nothing writes them
here."""
NEWEST_OPSET = {"ai.onnx": 22, "ai.onnx.ml": 5}
"""Newest operator sets that the parity gate has been tried with."""

MANIFEST_FILE = "manifest.json"
_DEPTH_OF_BUNDLES = 2
"""Levels from the directory of bundles down to a bundle: NAME, VERSION-HASH."""
_SEARCHED_DEPTH = 5
_SEARCHED_FOLDERS = 500
"""Most folders of a level that are looked into for bundles in the wrong place: a mounted disk may
hold millions."""
_SHOWN_NAMES = 5
_READABLE_BY_ALL = {True: 0o005, False: 0o004}
"""Mode bits that let every user list a folder (True) or read a file (False)."""
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Scalar = str | int | float | bool | None


BundleFault = Literal["files", "manifest", "model_sha256", "graph", "golden"]


class BundleError(Exception):
    """A bundle that must not be served.

    Args:
        code: what is wrong: its files, its manifest, the model file's hash, its graph, or the
            answer to a golden row.
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
    """The numbers for which parity was proven, both inclusive; others are refused. None: all that
    float32 holds."""


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
    """Where the rows came from that the proof was drawn from."""
    data_rows: int | None = None
    distinct_rows: int | None = None
    """Different rows among `data_rows`."""
    warnings: list[str] = []  # msgspec copies it
    """What weakens the proof, in words."""


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


class Survey(msgspec.Struct, frozen=True):
    """What lies in a directory of bundles; nothing was opened yet."""

    bundles: dict[str, list[Path]] = {}
    """Model name → its bundle directories."""
    refused: dict[str, str] = {}
    """Model name → one line that says why its directory cannot be read."""
    problem: str = ""
    """One line that says what is wrong with the directory as a whole and what to do; empty if
    nothing is."""


def find(directory: Path) -> dict[str, list[Path]]:
    """The bundle directories below `directory` by model name, without opening them; see
    `survey`."""
    return survey(directory).bundles


def survey(directory: Path) -> Survey:
    """Find the bundles below `directory`, and say why there are none or some are in the wrong
    place.

    Names that begin with a dot are writes in progress and are passed over. A directory that does
    not exist is not a problem here: a server that follows a registry needs none.
    """
    bundles: dict[str, list[Path]] = {}
    refused: dict[str, str] = {}
    if not os.path.lexists(directory):
        return Survey()
    try:
        folders = _folders(directory)
    except OSError as error:
        return Survey(problem=f"{directory}: {explain(error, directory)}")
    for folder in folders:
        try:
            found = _folders(folder)
        except OSError as error:
            if _MODEL_NAME.fullmatch(folder.name):  # "lost+found" is no model
                refused[folder.name] = f"{folder}: {explain(error, folder)}"
            continue
        if found and not _has_manifest(folder):
            bundles[folder.name] = found
    problem = _misplaced(directory, folders)
    if not problem and not any(_has_manifest(path) for paths in bundles.values() for path in paths):
        if (root := _root_below(directory)) is not None:
            problem = (
                f"{directory} holds no bundle, but {root} does: mount that folder instead, or set "
                f"HALFCORE_BUNDLES={root}"
            )
            bundles = {}  # the folders above the bundles were taken for them
        elif not bundles and not refused:
            problem = _nothing_found(directory)
    return Survey(bundles, refused, problem)


def explain(error: OSError, path: Path) -> str:
    """Why a file or folder cannot be read, in words that say what to do; for any error but a
    missing permission its own text.

    Args:
        error: raised on `path` or on something in it.
        path: of the file or folder.
    """
    if error.errno != errno.EACCES:
        return error.strerror or type(error).__name__
    blocked = _blocked(path)
    user = os.geteuid()
    try:
        status = blocked.stat()
    except OSError:
        return (
            f"user {user}, who runs this server, may not read it; run chmod -R a+rX on the "
            "mounted folder"
        )
    is_folder = stat.S_ISDIR(status.st_mode)
    needed = _READABLE_BY_ALL[is_folder]
    what = "it" if blocked == path else str(blocked)
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}"
    if status.st_mode & needed == needed:
        return (
            f"user {user} may not read {what} though its mode allows it ({mode}); with SELinux, "
            "mount it with :z"
        )
    return (
        f"user {user}, who runs this server, may not read {what} ({mode}); run chmod -R a+rX on "
        "the mounted folder"
    )


def _blocked(path: Path) -> Path:
    """The uppermost folder on the way to `path` that may not be searched, or `path` itself."""
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK):
            return folder
    return path


def _folders(directory: Path) -> list[Path]:
    """The visible folders in a folder, by name.

    Raises:
        OSError: it cannot be listed or searched.
    """
    with os.scandir(directory) as entries:
        folders = sorted(
            entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()
        )
    if not os.access(directory, os.X_OK):  # its names can be read, but nothing in it
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return [directory / name for name in folders]


def _has_manifest(folder: Path) -> bool:
    return os.path.lexists(folder / MANIFEST_FILE)


def _misplaced(directory: Path, folders: list[Path]) -> str:
    """Which bundle lies too high; empty if none does."""
    if _has_manifest(directory):
        return (
            f"{directory} is itself a bundle, expected a folder of bundles: mount the folder two "
            "levels above it, "
            f"so that {directory}/NAME/VERSION-HASH/{MANIFEST_FILE} exists"
        )
    for folder in folders:
        if _has_manifest(folder):
            return (
                f"{folder} is a bundle one level too high: mount the folder one level above, "
                f"so that {directory}/NAME/{folder.name}/{MANIFEST_FILE} exists"
            )
    return ""


def _nothing_found(directory: Path) -> str:
    """What lies in a directory without a bundle, and what should."""
    expected = (
        f"expected {directory}/NAME/VERSION-HASH/{MANIFEST_FILE}: mount the folder that "
        "`model-export export` wrote to"
    )
    names = sorted(item.name for item in directory.iterdir())
    if not names:
        return (
            f"{directory} is empty, {expected} (of a path that does not exist Docker makes an "
            "empty folder)"
        )
    shown = ", ".join(names[:_SHOWN_NAMES]) + (", …" if len(names) > _SHOWN_NAMES else "")
    return f"{directory} holds no bundle (found {shown}), {expected}"


def _root_below(directory: Path) -> Path | None:
    """A folder of bundles somewhere below; hidden folders count, for the exporter writes to
    `.halfcore/bundles`."""
    layer = [directory]
    for depth in range(1, _SEARCHED_DEPTH + 1):
        layer = list(
            islice((child for folder in layer for child in _subfolders(folder)), _SEARCHED_FOLDERS)
        )
        if depth <= _DEPTH_OF_BUNDLES:
            continue
        for folder in layer:
            if _has_manifest(folder):
                return folder.parent.parent
    return None


def _subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, hidden ones too; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def read_manifest(path: Path, *, any_name: bool = False) -> Manifest:
    """Read and check a bundle's manifest.

    Args:
        path: the bundle's directory.
        any_name: the directory above need not be called as the model; a followed model stands under
            the name that clients know.

    Raises:
        BundleError: it is missing, is not JSON, lacks a field, or a field has the wrong type or
            value.
    """
    try:
        manifest = msgspec.json.decode((path / MANIFEST_FILE).read_bytes(), type=Manifest)
    except OSError as error:
        raise BundleError(
            "manifest", path, MANIFEST_FILE, explain(error, path / MANIFEST_FILE)
        ) from None
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


def read(path: Path, *, any_name: bool = False) -> Bundle:
    """Read and check a whole bundle; hashes the model file, so this takes some 0.5 s per gigabyte.
    For `any_name` see `read_manifest`.

    Raises:
        BundleError: see `read_manifest`; or the model file is missing, has another size or another
            hash, or does not stand alone.
    """
    manifest = read_manifest(path, any_name=any_name)
    file = path / manifest.onnx.file
    # ONNX Runtime reads weights from any file beside the model that the model names, and no hash
    # covers that file.
    try:
        names = sorted(item.name for item in path.iterdir() if not item.name.startswith("."))
    except OSError as error:
        raise BundleError("files", path, "", explain(error, path)) from None
    for stray in names:
        if stray not in (MANIFEST_FILE, file.name):
            raise BundleError(
                "files", path, stray, f"another file, expected manifest.json and {file.name} only"
            )
    try:
        size = file.stat().st_size
        if size != manifest.onnx.size_bytes:
            raise BundleError(
                "files",
                path,
                file.name,
                f"{size} bytes, expected size_bytes {manifest.onnx.size_bytes}",
            )
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError("files", path, file.name, explain(error, file)) from None
    if digest != manifest.onnx.sha256:
        raise BundleError(
            "model_sha256", path, file.name, f"sha256 {digest}, expected {manifest.onnx.sha256}"
        )
    return Bundle(path, manifest)


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What types alone cannot say: fields that must agree with each other."""
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
    if len(set(column.categories or [])) < len(column.categories or []):
        yield f"inputs.{column.name}.categories: the same value twice"
    if len({type(value) for value in column.categories or []}) > 1:
        yield f"inputs.{column.name}.categories: strings and integers, expected one kind"


def _some(some: bool) -> str:
    return "some" if some else "none"
