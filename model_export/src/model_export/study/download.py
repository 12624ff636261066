"""Downloads one data file in its own process, so that a large or slow file cannot harm the
export."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from model_export.errors import ExportError, InfrastructureError, sentence, shorten

MOST_MB = 256
MOST_S = 120.0
_TIMEOUT_S = 20.0
"""Timeout for a server's next bytes."""
_GONE, _TOO_LARGE, _FAILED = 10, 11, 12


def download(uri: str, folder: Path, most_mb: int = MOST_MB) -> Path:
    """Download a file; returns its path.

    Args:
        uri: http(s)://…, or an address of one of MLflow's artifact stores (mlflow-artifacts:,
            runs:, s3:, …).
        folder: an empty folder for the file.
        most_mb: largest file in MB.

    Raises:
        ExportError: the file does not exist, or is too large or too slow.
        InfrastructureError: the server did not answer, or a package for it is missing.
    """
    done = _run([uri, str(folder), str(most_mb)])
    said = shorten((done.stdout.strip().splitlines() or [""])[-1])
    if done.returncode == 0:
        return Path(said)
    if done.returncode == _TOO_LARGE:
        raise ExportError(f"it is larger than the limit of {most_mb} MB")
    if done.returncode == _GONE:
        raise ExportError(said)
    raise InfrastructureError(said or f"the download ended with status {done.returncode}")


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `main` in another process."""
    command = [sys.executable, "-P", "-m", "model_export.study.download", *arguments]
    quiet = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "PYTHONWARNINGS": "ignore"}
    try:
        return subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            env=os.environ | quiet,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MOST_S,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"it takes longer than {MOST_S:g} s to fetch") from None


def main(uri: str, folder: str, most_mb: str) -> int:
    """Download the file; print its path, or what failed."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_mb) << 20, int(most_mb) << 20))
    try:
        path = (
            _http(uri, Path(folder))
            if urlsplit(uri).scheme in ("http", "https")
            else _artifact(uri, folder)
        )
    except Exception as error:  # noqa: BLE001 - every kind of store has its own exceptions
        text = str(error)
        if "File too large" in text or "Errno 27" in text:
            return _TOO_LARGE
        sys.stdout.write(f"{sentence(error, 300)}\n")
        return _GONE if _is_not_found(error) else _FAILED
    sys.stdout.write(f"{path}\n")
    return 0


def _http(url: str, folder: Path) -> Path:
    import requests

    path = folder / (Path(urlsplit(url).path).name or "data")
    with requests.get(url, stream=True, timeout=_TIMEOUT_S) as response:
        if not response.ok:
            answer = f"it answers {response.status_code} {response.reason}"
            raise (
                FileNotFoundError(answer) if response.status_code < 500 else ConnectionError(answer)
            )
        with path.open("wb") as file:
            for chunk in response.iter_content(1 << 16):
                file.write(chunk)
    return path


def _artifact(uri: str, folder: str) -> str:
    from mlflow.artifacts import download_artifacts

    return str(download_artifacts(artifact_uri=uri, dst_path=folder))


def _is_not_found(error: Exception) -> bool:
    return (
        isinstance(error, FileNotFoundError)
        or " 404 " in f" {error} "
        or "RESOURCE_DOES_NOT_EXIST" in str(error)
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
