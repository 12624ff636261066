"""Uploads a bundle for servers that follow the registry: as artifacts of a run, with tags on the
model version.

The order of the steps matters. A version is passed only while its tag `halfcore.export` says so.
The tag is removed before any part of an older upload is overwritten, and set after all the rest is
there. If the upload is interrupted, the version has no verdict and is exported again.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from model_export.bundle.sign import SIGNATURE_FILE
from model_export.bundle.write import MANIFEST_FILE, MODEL_FILE
from model_export.errors import InfrastructureError, sentence, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.entities.model_registry import ModelVersion

TAG_EXPORT = "halfcore.export"
"""passed or refused; absent: not tried yet, or an export is in progress."""
TAG_REASON = "halfcore.export.reason"
TAG_CREATED = "halfcore.export.created"
"""When the registry made the version that the verdict is about, in ms. `copy_model_version` copies
a version's tags, but the verdict does not apply to the copy. A renamed version stays the same
version and keeps its verdict."""
TAG_BUNDLE = "halfcore.bundle"
TAG_MANIFEST = "halfcore.manifest_sha256"
TAG_FORMAT = "halfcore.bundle.format"
PASSED, REFUSED = "passed", "refused"
FORMAT = "1"
EXPERIMENT = "halfcore-bundles"
"""Experiment of the runs that hold the bundles of versions that no run made."""
_RUN_OF = "halfcore.version"


@contextmanager
def reaching_mlflow(what: str) -> Iterator[None]:
    """Turn every failure of MLflow or its artifact store into an `InfrastructureError`."""
    try:
        yield
    except InfrastructureError:
        raise
    except Exception as error:  # each kind of artifact store has its own exceptions
        raise InfrastructureError(f"{what}: {sentence(error)}") from error


def verdict(version: ModelVersion) -> str | None:
    """`PASSED` or `REFUSED`, if the version's tags hold a verdict on this version; otherwise None,
    as for a copy of another version."""
    tags = version.tags
    created = tags.get(TAG_CREATED)
    if created is None:
        return tags.get(TAG_EXPORT) if _names(tags.get(TAG_BUNDLE, ""), version) else None
    return tags.get(TAG_EXPORT) if created == str(version.creation_timestamp) else None


def _names(bundle: str, version: ModelVersion) -> bool:
    """True if the bundle is of this version; for older exporters, which did not tag the time."""
    folder = PurePosixPath(bundle)
    return folder.parent.name == version.name and folder.name.rpartition("-")[0] == str(
        version.version
    )


def publish(bundle: Path, name: str, version: str) -> str:
    """Upload a bundle and tag the version as passed; MLflow is already connected.

    Args:
        bundle: folder with model.onnx, manifest.json and perhaps its signature:
            BUNDLE_NAME/VERSION-SHA8.
        name: of the registered model, which may differ from the bundle's.
        version: of the registered model.

    Returns:
        runs:/RUN_ID/halfcore/NAME/VERSION-SHA8.

    Raises:
        InfrastructureError: MLflow or its artifact store failed, or another exporter interfered;
            the version is not tagged as passed.
    """
    digest = hashlib.sha256((bundle / MANIFEST_FILE).read_bytes()).hexdigest()
    folder = f"halfcore/{bundle.parent.name}/{bundle.name}"
    with reaching_mlflow(f"the bundle of {name} version {version} cannot be uploaded"):
        client = MlflowClient()
        run_id = _run_of(client, name, version)
        withdraw(client, name, version)
        for file in (MODEL_FILE, SIGNATURE_FILE, MANIFEST_FILE):
            if (bundle / file).exists():
                client.log_artifact(run_id, str(bundle / file), folder)
        uri = f"runs:/{run_id}/{folder}"
        _tag_passed(client, name, version, uri, digest)
        uploaded = (digest, digest, (bundle / MODEL_FILE).stat().st_size)
        if _read_back(client, name, version, run_id, folder) != uploaded:
            withdraw(client, name, version)
            raise InfrastructureError(
                f"the bundle of {name} version {version} differs from the one that was uploaded: "
                "look for another exporter of this version, then export it again"
            )
    return uri


def _tag_passed(client: MlflowClient, name: str, version: str, uri: str, digest: str) -> None:
    """Set the tags of a passed version, the verdict last."""
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


def refuse(name: str, version: str, reason: str, **more: str) -> None:
    """Tag the version as refused.

    Args:
        name: of the registered model.
        version: of the registered model.
        reason: shortened to one line of bounded length.
        **more: additional tags, under `halfcore.export.`.

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
    """Remove the verdict first, then its other tags; servers then ignore the version."""
    tags = client.get_model_version(name, version).tags
    for tag in (TAG_EXPORT, TAG_REASON, TAG_BUNDLE, TAG_MANIFEST, TAG_FORMAT, TAG_CREATED):
        if tag in tags:
            client.delete_model_version_tag(name, version, tag)


def _read_back(
    client: MlflowClient, name: str, version: str, run_id: str, folder: str
) -> tuple[str | None, str, int | None]:
    """The digest in the tag, the digest of the uploaded manifest, and the size of the graph.

    Asks the run's artifact store: MLflow's client would also look for the run's logged models,
    which a server before MLflow 3 does not know.
    """
    store = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
    sizes = {entry.path: entry.file_size for entry in store.list_artifacts(folder)}
    with tempfile.TemporaryDirectory() as here:
        manifest = Path(
            store.download_artifacts(f"{folder}/{MANIFEST_FILE}", here)  # type: ignore[no-untyped-call]
        ).read_bytes()
    tagged = client.get_model_version(name, version).tags.get(TAG_MANIFEST)
    return tagged, hashlib.sha256(manifest).hexdigest(), sizes.get(f"{folder}/{MODEL_FILE}")


def _run_of(client: MlflowClient, name: str, version: str) -> str:
    """The run that made the version; without one, a run made for its bundles and used again."""
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
