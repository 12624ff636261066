"""Puts a bundle where servers that follow the registry look for it: artifacts of a run, and tags on
the model version.

The order is the contract. A version is passed only while its tag `halfcore.export` says so, and
that tag is taken away before anything of a former upload is overwritten and set after everything
else is there. Whatever ends this in between leaves a version without a verdict, which is exported
again.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mlflow import MlflowClient

from model_export.bundle.write import MANIFEST_FILE, MODEL_FILE
from model_export.errors import InfrastructureError, sentence, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.entities.model_registry import ModelVersion

TAG_EXPORT = "halfcore.export"
"""passed or refused; absent: nobody has tried yet, or somebody is at it."""
TAG_REASON = "halfcore.export.reason"
TAG_CREATED = "halfcore.export.created"
"""When the registry made the version that the verdict is about, in ms: `copy_model_version` copies
a version's tags, and a copy of a verdict is none. A renamed version stays the same version, and
keeps its verdict."""
TAG_BUNDLE = "halfcore.bundle"
TAG_MANIFEST = "halfcore.manifest_sha256"
TAG_FORMAT = "halfcore.bundle.format"
PASSED, REFUSED = "passed", "refused"
FORMAT = "1"
EXPERIMENT = "halfcore-bundles"
"""Where the runs are made that hold the bundles of versions without a run of their own."""
_RUN_OF = "halfcore.version"


@contextmanager
def reaching_mlflow(what: str) -> Iterator[None]:
    """Turn whatever goes wrong between here and MLflow or its artifact store into an
    `InfrastructureError`."""
    try:
        yield
    except InfrastructureError:
        raise
    except Exception as error:  # each kind of artifact store raises exceptions of its own
        raise InfrastructureError(f"{what}: {sentence(error)}") from error


def verdict(version: ModelVersion) -> str | None:
    """`PASSED` or `REFUSED`, where the version's tags hold a verdict on this very version; None
    otherwise, as for a copy of another."""
    tags = version.tags
    created = tags.get(TAG_CREATED)
    if created is None:
        return tags.get(TAG_EXPORT) if _names(tags.get(TAG_BUNDLE, ""), version) else None
    return tags.get(TAG_EXPORT) if created == str(version.creation_timestamp) else None


def _names(bundle: str, version: ModelVersion) -> bool:
    """True where a bundle of an older exporter, which did not tag the time, was made of this
    version."""
    folder = PurePosixPath(bundle)
    return folder.parent.name == version.name and folder.name.rpartition("-")[0] == str(
        version.version
    )


def publish(bundle: Path, name: str, version: str) -> str:
    """Upload a bundle and tag the version as passed; MLflow is already connected.

    Args:
        bundle: folder with model.onnx and manifest.json, named VERSION-SHA8 in a folder named as
            the bundle.
        name: of the registered model, which need not be the bundle's.
        version: of the registered model.

    Returns:
        runs:/RUN_ID/halfcore/NAME/VERSION-SHA8.

    Raises:
        InfrastructureError: MLflow or its artifact store failed, or another exporter came in
            between; the version is not tagged as passed.
    """
    digest = hashlib.sha256((bundle / MANIFEST_FILE).read_bytes()).hexdigest()
    folder = f"halfcore/{bundle.parent.name}/{bundle.name}"
    with reaching_mlflow(f"the bundle of {name} version {version} cannot be uploaded"):
        client = MlflowClient()
        run_id = _run_of(client, name, version)
        withdraw(client, name, version)
        client.log_artifact(run_id, str(bundle / MODEL_FILE), folder)
        client.log_artifact(run_id, str(bundle / MANIFEST_FILE), folder)
        uri = f"runs:/{run_id}/{folder}"
        created = str(client.get_model_version(name, version).creation_timestamp)
        tags = {
            TAG_FORMAT: FORMAT,
            TAG_BUNDLE: uri,
            TAG_MANIFEST: digest,
            TAG_CREATED: created,
            TAG_EXPORT: PASSED,
        }
        for tag, value in tags.items():
            client.set_model_version_tag(name, version, tag, value)
        if _read_back(client, name, version, run_id, folder) != (
            digest,
            digest,
            (bundle / MODEL_FILE).stat().st_size,
        ):
            withdraw(client, name, version)
            raise InfrastructureError(
                f"what was uploaded for {name} version {version} is not what lies there: another "
                "exporter?"
            )
    return uri


def refuse(name: str, version: str, reason: str, **more: str) -> None:
    """Tag the version as refused.

    Args:
        name: of the registered model.
        version: of the registered model.
        reason: is cut to one line of bounded length.
        **more: tags besides, under `halfcore.export.`.

    Raises:
        InfrastructureError: MLflow failed.
    """
    with reaching_mlflow(f"{name} version {version} cannot be tagged"):
        client = MlflowClient()
        withdraw(client, name, version)
        created = str(client.get_model_version(name, version).creation_timestamp)
        for key, value in {"reason": shorten(reason), "created": created, **more}.items():
            client.set_model_version_tag(name, version, f"{TAG_EXPORT}.{key}", value)
        client.set_model_version_tag(name, version, TAG_EXPORT, REFUSED)


def withdraw(client: MlflowClient, name: str, version: str) -> None:
    """Take the verdict away, first of all its tags; servers then leave the version alone."""
    tags = client.get_model_version(name, version).tags
    for tag in (TAG_EXPORT, TAG_REASON, TAG_BUNDLE, TAG_MANIFEST, TAG_FORMAT, TAG_CREATED):
        if tag in tags:
            client.delete_model_version_tag(name, version, tag)


def _read_back(
    client: MlflowClient, name: str, version: str, run_id: str, folder: str
) -> tuple[str | None, str, int | None]:
    """The digest that is tagged, the digest of the manifest that lies there, and the size of the
    graph."""
    sizes = {entry.path: entry.file_size for entry in client.list_artifacts(run_id, folder)}
    with tempfile.TemporaryDirectory() as here:
        manifest = Path(
            client.download_artifacts(run_id, f"{folder}/{MANIFEST_FILE}", here)
        ).read_bytes()
    tagged = client.get_model_version(name, version).tags.get(TAG_MANIFEST)
    return tagged, hashlib.sha256(manifest).hexdigest(), sizes.get(f"{folder}/{MODEL_FILE}")


def _run_of(client: MlflowClient, name: str, version: str) -> str:
    """The run that made the version; for one without, a run of our own, the same one every time."""
    if own := client.get_model_version(name, version).run_id:
        return str(own)
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    label = f"{name}/{version}"
    runs = client.search_runs([experiment], f"tags.`{_RUN_OF}` = '{label}'", max_results=1)
    if runs:
        return str(runs[0].info.run_id)
    run = client.create_run(experiment, run_name=label, tags={_RUN_OF: label})
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)
