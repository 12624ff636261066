"""Fetches a registered model by any of MLflow's URIs: the loaded model, its signature and its
origin."""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from model_export.errors import (
    MORE,
    ExportError,
    InfrastructureError,
    is_memory_error,
    plain,
    sentence,
    understood,
)
from model_export.registry import flavors, input_example, missing, names
from model_export.registry.download import files_of
from model_export.registry.names import LOGGED, NAMED, REGISTERED, RUN, SAFE_NAME, safe_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PyFuncModel

DEFAULT_TRACKING_URI = "sqlite:///.halfcore/mlflow.db"
NO_SUCH_THING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND", "INVALID_STATE")
_RUNS_CODE = ("cloudpickle", "pickle")
_FAILS = "its classes fail while they are loaded (--debug shows how)"
_KNOWN_PACKAGES = ("numpy", "scipy", "sklearn")


@dataclass(frozen=True)
class Origin:
    """The origin of a model: the bundle's `source`, its name and its version."""

    name: str
    version: str
    uri: str
    resolved: str
    run_id: str | None = None
    model_id: str | None = None


@dataclass(frozen=True)
class FetchedModel:
    """A model on this machine, loaded."""

    origin: Origin
    folder: Path
    flavor: str
    """How it is saved: skops, cloudpickle, pickle, xgboost, lightgbm, catboost or onnx."""
    signature: ModelSignature | None
    pyfunc: PyFuncModel
    estimator: Any
    input_example: Any | None
    """As it was logged: a DataFrame, an array, a dictionary or a list."""
    notes: tuple[str, ...]
    """Notes for the user about the loading: unpickled, trusted types, another scikit-learn."""
    other_version: str | None = None
    """Both versions in words, if the model was trained with another scikit-learn than the installed
    one."""

    def predict(self, rows: Any) -> Any:
        """What `mlflow.pyfunc` answers. A signature has no type for columns of the pandas type
        `category`, so MLflow refuses them; a table with such columns goes to the estimator."""
        own = has_pandas_categories(rows)
        return self.estimator.predict(rows) if own else self.pyfunc.predict(rows)


def has_pandas_categories(rows: Any) -> bool:
    """Whether this is a table with a column of the pandas type `category`."""
    return any(str(dtype) == "category" for dtype in getattr(rows, "dtypes", ()))


def connect(tracking_uri: str) -> None:
    """Point MLflow at a tracking server or store, and hide its log lines below ERROR."""
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)


def fetch(
    uri: str,
    *,
    name: str | None = None,
    allow_unpickle: bool = True,
    before_loading: Callable[[], None] = lambda: None,
) -> FetchedModel:
    """Find, download and load the model.

    Args:
        uri: `models:/NAME@ALIAS`, `models:/NAME/STAGE`, `models:/NAME/VERSION`,
            `models:/NAME/latest`, `models:/m-ID`, `runs:/ID/path`, or a local MLflow model folder.
        name: overrides the bundle's name; required if neither registry nor folder gives one.
        allow_unpickle: False refuses models that can be loaded by unpickling only.
        before_loading: called when the model's files are here and can be exported.

    Raises:
        ExportError: unknown model, no scikit-learn flavour, or refused unpickling.
        InfrastructureError: MLflow, its artifact store or the disk failed.
    """
    given, uri = split_name(uri)
    origin = _resolved(uri)
    folder = _downloaded(origin)
    saved = _described(uri, folder)
    origin = _checked(
        replace(
            origin,
            name=name or given or origin.name,
            run_id=origin.run_id or saved.run_id,
            model_id=origin.model_id or saved.model_id,
        )
    )
    kind, refused = flavors.exported_as(saved.flavors)
    if refused:
        raise ExportError(f"{uri}: {refused}")
    before_loading()
    return _load(origin, folder, saved, kind, allow_unpickle=allow_unpickle)


def _described(uri: str, folder: Path) -> Model:
    """The model's MLmodel file."""
    try:
        return Model.load(str(folder))
    except (MlflowException, OSError) as error:
        raise _failure(uri, error) from error
    except Exception as error:
        raise ExportError(
            f"{uri}: the model's MLmodel file cannot be read{plain(error)}: log it again {MORE}"
        ) from error


def split_name(uri: str) -> tuple[str | None, str]:
    """Split `NAME=models:/…` into name and URI; the name is None if there is none."""
    named = NAMED.fullmatch(uri)
    return (named["name"], named["uri"]) if named else (None, uri)


def _resolved(uri: str) -> Origin:
    try:
        return resolve(uri)
    except ExportError:
        raise
    except Exception as error:
        raise _failure(uri, error) from error


def _downloaded(origin: Origin) -> Path:
    try:
        return files_of(origin.resolved)
    except Exception as error:
        # Each kind of artifact store has its own exceptions; none says anything about the model.
        raise _failure(origin.uri, error, "the model's files cannot be fetched: ") from error


def _failure(uri: str, error: Exception, what: str = "") -> ExportError:
    if not _is_not_found(error):
        said = sentence(error)
        asked = (
            ""
            if what or not said.startswith("no connection")
            else "; is MLflow there (--tracking-uri, MLFLOW_TRACKING_URI)?"
        )
        return InfrastructureError(f"{uri}: {what}{said}{asked}")
    hint = missing.hint(uri) if isinstance(error, MlflowException) and not what else None
    return ExportError(f"{uri}: {hint or f'{what}{sentence(error)}; name one that exists'}")


def _is_not_found(error: Exception) -> bool:
    """True if MLflow answered that the thing does not exist; False if it did not answer."""
    if isinstance(error, MlflowException):
        return error.error_code in NO_SUCH_THING or " 404 " in str(error)
    return isinstance(error, FileNotFoundError | NotADirectoryError) or " 404 " in f" {error}"


def _checked(origin: Origin) -> Origin:
    for what, value in (("name", origin.name), ("version", origin.version)):
        if not SAFE_NAME.fullmatch(value):
            raise ExportError(
                f"{origin.uri}: the {what} {value!r} cannot be the name of a folder (letters, "
                "digits, dots, dashes and underscores can): export it under another name with "
                f"--name {safe_name(value)}"
            )
    return origin


def _load(
    origin: Origin, folder: Path, saved: Model, kind: str, *, allow_unpickle: bool
) -> FetchedModel:
    flavor = saved.flavors[kind]
    serialization = _serialization(kind, flavor)
    if not allow_unpickle:
        _refuse_code(origin.uri, serialization, saved, flavor)
    other_version = _other_version(flavor)
    graph = str(flavor["data"]) if kind == "onnx" else None
    pyfunc, estimator = _loaded(origin.uri, folder, other_version, graph)
    notes = _notes(serialization, flavor)
    if other_version:
        notes.append(f"{other_version}: the proof holds for the model as this version loads it")
    example, note = input_example.load(saved, folder, pyfunc)
    return FetchedModel(
        origin,
        folder,
        serialization,
        saved.signature,
        pyfunc,
        estimator,
        example,
        (*notes, *note),
        other_version,
    )


def _serialization(kind: str, flavor: dict[str, Any]) -> str:
    """How the model is saved: as skops, cloudpickle, pickle, or in its library's own format, which
    runs no code."""
    if kind == "sklearn":
        return str(flavor.get("serialization_format", "pickle"))
    file = str(flavor.get("data", ""))
    return "cloudpickle" if file.endswith(".pkl") else kind


def _loaded(
    uri: str, folder: Path, other_version: str | None, graph: str | None
) -> tuple[PyFuncModel, Any]:
    """The pyfunc and the estimator inside it; of a model of ONNX, `graph` is the file."""
    # They import scikit-learn and onnx: a model that does not exist is refused without these.
    from model_export.registry import native, onnx_model

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `notes` says the same of versions and pickles
            pyfunc = mlflow.pyfunc.load_model(str(folder))
            if graph is not None:
                return pyfunc, onnx_model.load(folder, graph, pyfunc)
            return pyfunc, native.adapted(pyfunc.get_raw_model())
    except ExportError as error:  # says why by itself
        raise ExportError(f"{uri}: {error.reason}") from error
    except Exception as error:  # a saved model can fail in every way that its classes can
        if is_memory_error(error):
            raise
        if isinstance(error, ModuleNotFoundError) and error.name:
            raise ExportError(f"{uri}: {flavors.needed(error.name, other_version)}") from error
        version = f"; {other_version}" if other_version else ""
        raise ExportError(
            f"{uri}: cannot be loaded: {understood(error, 400) or _FAILS}{version}; "
            f"train and register it again with the installed versions of its libraries {MORE}"
        ) from error


def _other_version(flavor: dict[str, Any]) -> str | None:
    trained, here = flavor.get("sklearn_version"), installed_version("scikit-learn")
    return (
        None
        if trained in (None, here)
        else f"trained with scikit-learn {trained}, loaded with {here}"
    )


def _refuse_code(uri: str, serialization: str, saved: Model, flavor: dict[str, Any]) -> None:
    """Refuse every way in which loading could run code from the model.

    skops loads all types that MLflow passes to it as trusted, and MLflow reads those from the
    model's own MLmodel file: a crafted model can trust anything. So only types of libraries that
    the exporter imports anyway are accepted.
    """
    if serialization in _RUNS_CODE:
        raise ExportError(
            f"{uri}: saved as {serialization}, which runs code when it is loaded; --no-unpickle "
            "forbids it, so save it with skops, or leave the flag out"
        )
    foreign = [
        t
        for t in flavor.get("skops_trusted_types") or ()
        if t.partition(".")[0] not in _KNOWN_PACKAGES
    ]
    if foreign:
        raise ExportError(
            f"{uri}: asks skops to trust {', '.join(foreign)}; --no-unpickle forbids it, so use "
            "steps of scikit-learn, or leave the flag out"
        )
    python = saved.flavors.get("python_function", {})
    own = {f"mlflow.{kind}" for kind in flavors.FLAVORS}
    if python.get("loader_module") not in own or python.get("code"):
        raise ExportError(
            f"{uri}: brings its own code to load it with; --no-unpickle forbids it, so log the "
            "model without code files, or leave the flag out"
        )


def _notes(serialization: str, flavor: dict[str, Any]) -> list[str]:
    notes = []
    if serialization in _RUNS_CODE:
        notes.append(
            f"unpickled: the model is saved as {serialization}, so loading it ran the code in it"
        )
    elif flavor.get("skops_trusted_types"):
        notes.append(f"the model asks skops to trust {', '.join(flavor['skops_trusted_types'])}")
    return notes


def resolve(uri: str) -> Origin:
    """Find name, version and the URI of the files, without downloading them.

    Raises:
        MlflowException: the registry does not have it.
        ExportError: the folder does not exist, or the URI is of another kind.
    """
    if logged := LOGGED.fullmatch(uri):
        model = mlflow.MlflowClient().get_logged_model(logged["model_id"])
        return Origin(model.name, logged["model_id"], uri, uri, model.source_run_id, model.model_id)
    if registered := REGISTERED.fullmatch(uri):
        found = find_version(**registered.groupdict())
        return Origin(
            found.name,
            str(found.version),
            uri,
            f"models:/{found.name}/{found.version}",
            found.run_id or None,
            found.model_id,
        )
    if run := RUN.fullmatch(uri):
        return Origin(
            run["path"].rpartition("/")[2], f"run-{run['run_id'][:8]}", uri, uri, run["run_id"]
        )
    return _local(uri)


def registered_version(uri: str) -> Origin:
    """Resolve a URI of a version of a registered model.

    Raises:
        ExportError: it names anything else.
        InfrastructureError: MLflow failed.
    """
    origin = _resolved(split_name(uri)[1])
    if REGISTERED.fullmatch(origin.resolved) is None:
        raise ExportError(
            f"{uri}: only a version of a registered model can be tagged: name one, "
            "models:/NAME/VERSION, or leave --upload out"
        )
    return origin


def find_version(name: str, alias: str | None, rest: str | None) -> ModelVersion:
    """The version that an alias, a number, `latest` or a stage names.

    Raises:
        MlflowException: no such model, alias or version.
        ExportError: the stage is empty.
    """
    client = mlflow.MlflowClient()
    if alias is not None:
        return client.get_model_version_by_alias(name, alias)
    if rest is not None and rest.isdigit():
        return client.get_model_version(name, rest)
    if rest == "latest":
        found = list(client.search_model_versions(names.versions_of(name)))
    else:
        with warnings.catch_warnings():
            # Stages are deprecated, but many registries still use them.
            warnings.simplefilter("ignore", FutureWarning)
            found = client.get_latest_versions(name, stages=[str(rest)])
    if not found:
        uri = f"models:/{name}/{rest}"
        raise ExportError(f"{uri}: {missing.hint(uri) or 'no such version; name another'}")
    return max(found, key=version_number)


def version_number(version: ModelVersion) -> int:
    """The key that sorts versions of one model from the oldest to the newest."""
    return int(version.version)


def _local(uri: str) -> Origin:
    folder = Path(uri.removeprefix("file://")).resolve()
    description = folder / "MLmodel"
    if not description.is_file():
        what = (
            "there is no such folder with an MLmodel file: name one, or a model as "
            "models:/NAME@ALIAS, models:/NAME/VERSION, models:/NAME/STAGE or runs:/ID/path"
        )
        raise ExportError(f"{uri}: {missing.hint(uri) or what}")
    digest = hashlib.sha256(description.read_bytes()).hexdigest()
    return Origin(folder.name, f"local-{digest[:8]}", uri, str(folder))
