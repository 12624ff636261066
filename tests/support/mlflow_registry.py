"""A registry seen through MLflow's REST API alone: what tests put into it and ask of it, without
importing MLflow (three seconds)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx


class Registry:
    """A client of one tracking server."""

    def __init__(
        self, url: str, auth: tuple[str, str] | None = None, *, workspace: str = ""
    ) -> None:
        """Speak to the server at `url`; every call has a connection of its own, so nothing needs
        closing and restarts do not matter."""
        headers = {"X-MLFLOW-WORKSPACE": workspace} if workspace else {}
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(
            base_url=url, auth=auth, headers=headers, timeout=90.0, limits=limits
        )

    def create_experiment(self, name: str, artifacts: str = "") -> str:
        """An experiment; returns its id.

        Args:
            name: of the experiment.
            artifacts: where its runs' artifacts lie; empty: behind the proxy.
        """
        location = {"artifact_location": artifacts} if artifacts else {}
        return str(self.call("POST", "experiments/create", name=name, **location)["experiment_id"])

    def call(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        """One call of /api/2.0/mlflow/PATH, with its fields in the query (GET) or the body."""
        body = {"params": fields} if method == "GET" else {"json": fields}
        response = self.http.request(method, f"/api/2.0/mlflow/{path}", **body)
        assert response.status_code == 200, (
            f"{method} {path} {fields}: {response.status_code} {response.text}"
        )
        answer: dict[str, Any] = response.json()
        return answer

    def create_run(self, experiment: str = "0") -> str:
        """A run, in the default experiment if no other is given; returns its id."""
        return str(
            self.call("POST", "runs/create", experiment_id=experiment)["run"]["info"]["run_id"]
        )

    def upload(self, run_id: str, path: str, content: bytes) -> None:
        """Put one artifact of a run through the proxy."""
        self._put(self._artifact(run_id, path), content)

    def download(self, run_id: str, path: str) -> bytes:
        """Get one artifact of a run through the proxy."""
        return self.http.get(_proxied(self._artifact(run_id, path))).raise_for_status().content

    def log_dataset(self, run_id: str, name: str, content: bytes) -> None:
        """Upload a table to a run, and log it as training data at its address on the server, which
        asks for the password."""
        self.upload(run_id, f"data/{name}", content)
        url = str(self.http.base_url.join(_proxied(self._artifact(run_id, f"data/{name}"))))
        dataset = {
            "name": name,
            "digest": "1",
            "source_type": "http",
            "source": json.dumps({"url": url}),
        }
        tags = [{"key": "mlflow.data.context", "value": "training"}]
        self.call(
            "POST", "runs/log-inputs", run_id=run_id, datasets=[{"dataset": dataset, "tags": tags}]
        )

    def _artifact(self, run_id: str, path: str) -> str:
        return (
            f"{self.call('GET', 'runs/get', run_id=run_id)['run']['info']['artifact_uri']}/{path}"
        )

    def _put(self, uri: str, content: bytes) -> None:
        self.http.put(_proxied(uri), content=content).raise_for_status()

    def create_version(
        self, name: str, *, run_id: str | None = None, folder: Path | None = None
    ) -> str:
        """A version that a run made; returns its number.

        Args:
            name: of the model, which is registered if it is new.
            run_id: that made it; default: a new run.
            folder: a saved MLflow model to upload as its source; default: the version has no files.
        """
        run_id = run_id or self.create_run()
        root = str(self.call("GET", "runs/get", run_id=run_id)["run"]["info"]["artifact_uri"])
        self._upload_folder(f"{root}/model", folder)
        return self._register(name, source=f"{root}/model", run_id=run_id)

    def create_logged_version(self, name: str, folder: Path) -> str:
        """A version that no run made: registered from one of MLflow 3's logged models; returns its
        number."""
        logged = self.call("POST", "logged-models", experiment_id="0", name=name)["model"]["info"]
        self._upload_folder(logged["artifact_uri"], folder)
        self.call(
            "PATCH",
            f"logged-models/{logged['model_id']}",
            model_id=logged["model_id"],
            status="LOGGED_MODEL_READY",
        )
        return self._register(
            name, source=f"models:/{logged['model_id']}", model_id=logged["model_id"]
        )

    def copy_version(self, name: str, version: str, into: str) -> str:
        """Do what `MlflowClient.copy_model_version` does: a version whose source is the other, with
        all its tags; returns its number."""
        original = self.version(name, version)
        same = {key: original[key] for key in ("run_id", "model_id", "tags") if original.get(key)}
        return self._register(into, source=f"models:/{name}/{version}", **same)

    def _upload_folder(self, uri: str, folder: Path | None) -> None:
        for file in sorted(folder.rglob("*")) if folder else []:
            if file.is_file():
                self._put(f"{uri}/{file.relative_to(folder)}", file.read_bytes())  # type: ignore[arg-type]

    def _register(self, name: str, **source: Any) -> str:
        if (
            self.http.get(
                "/api/2.0/mlflow/registered-models/get", params={"name": name}
            ).status_code
            == 404
        ):
            self.call("POST", "registered-models/create", name=name)
        return str(
            self.call("POST", "model-versions/create", name=name, **source)["model_version"][
                "version"
            ]
        )

    def version(self, name: str, version: str) -> dict[str, Any]:
        """One version, as MLflow describes it."""
        found: dict[str, Any] = self.call("GET", "model-versions/get", name=name, version=version)[
            "model_version"
        ]
        return found

    def tags(self, name: str, version: str) -> dict[str, str]:
        """A version's tags."""
        return {tag["key"]: tag["value"] for tag in self.version(name, version).get("tags", [])}

    def set_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Tag a version."""
        self.call(
            "POST", "model-versions/set-tag", name=name, version=version, key=key, value=value
        )

    def delete_tag(self, name: str, version: str, key: str) -> None:
        """Remove a tag of a version."""
        self.call("DELETE", "model-versions/delete-tag", name=name, version=version, key=key)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias stand for a version."""
        self.call("POST", "registered-models/alias", name=name, alias=alias, version=version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""
        self.call("DELETE", "registered-models/alias", name=name, alias=alias)

    def set_stage(self, name: str, version: str, stage: str) -> None:
        """Move a version to a stage: None, Staging, Production or Archived."""
        self.call(
            "POST",
            "model-versions/transition-stage",
            name=name,
            version=version,
            stage=stage,
            archive_existing_versions=True,
        )

    def publish(self, name: str, bundle: Path, *, version: str | None = None) -> str:
        """Do what `model-export export --upload` does, with a bundle that is on disk: artifacts,
        then tags; returns the version.

        Args:
            name: of the registered model; need not be the manifest's.
            bundle: folder with manifest.json and model.onnx.
            version: to tag; default: a new one.
        """
        version = version or self.create_version(name)
        run_id = str(self.version(name, version)["run_id"])
        manifest = (bundle / "manifest.json").read_bytes()
        described = json.loads(manifest)
        path = (
            f"halfcore/{described['name']}/{described['version']}-{described['onnx']['sha256'][:8]}"
        )
        self.upload(run_id, f"{path}/model.onnx", (bundle / "model.onnx").read_bytes())
        self.upload(run_id, f"{path}/manifest.json", manifest)
        self.set_tag(name, version, "halfcore.bundle.format", "1")
        self.set_tag(name, version, "halfcore.bundle", f"runs:/{run_id}/{path}")
        self.set_tag(
            name, version, "halfcore.manifest_sha256", hashlib.sha256(manifest).hexdigest()
        )
        self.set_tag(name, version, "halfcore.export", "passed")
        return version


def _proxied(uri: str) -> str:
    return f"/api/2.0/mlflow-artifacts/artifacts/{uri.removeprefix('mlflow-artifacts:/')}"
