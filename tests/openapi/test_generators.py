"""Client generators read the description, and what they make predicts.

Three are tried as their users run them: openapi-python-client, datamodel-codegen and
openapi-typescript. What they make is used by a small program each: `client.py`, `reader.py` and
`typescript/caller.ts`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openapi.models import write_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HERE = Path(__file__).parent
ROW = [5.1, 3.5, 1.4, 0.2]


def run(*command: object, folder: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; it must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, **more)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done


def rows(folder: Path) -> dict[str, Any]:
    """The golden rows of the served models, by model."""
    names = write_models(folder)
    found = {}
    for name in names:
        (manifest,) = folder.glob(f"{name}/*/manifest.json")
        found[name] = json.loads(manifest.read_text())["golden"][0]
    return found


def test_openapi_python_client(
    file: Path, url: str, document: dict[str, Any], tmp_path: Path
) -> None:
    """It has a function for every operation, predicts in four protocols, and reads errors; the
    generator warns of nothing but CSV, which it cannot send."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"package_name_override": "made_client"}))
    generate = (sys.executable, "-m", "openapi_python_client", "generate", "--path", file)
    options = ("--meta", "none", "--config", config, "--output-path", "made_client")
    said = run(*generate, *options, folder=tmp_path)
    output = said.stdout + said.stderr
    warnings = output.count("WARNING") + output.count("ERROR")
    assert warnings == output.count("Unsupported content type text/csv"), output
    golden = rows(tmp_path / "bundles")
    sent = [json.dumps(golden[name]["row"]) for name in ("mixed", "odd-columns")]
    path = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = run(sys.executable, "-P", HERE / "client.py", url, *sent, folder=tmp_path, env=path)
    answers, unknown, refused, modules = json.loads(done.stdout)
    label = answers[0]
    assert answers[:4] == [label] * 4
    assert answers[4:] == [golden[name]["prediction"] for name in ("mixed", "odd-columns")]
    assert "nobody" in unknown
    assert refused == "wrong_length"
    assert modules == sum(len(item) for item in document["paths"].values())


def test_datamodel_codegen(file: Path, url: str, tmp_path: Path) -> None:
    """Its Pydantic models import, and read an answer."""
    import httpx

    options = ("--input-file-type", "openapi", "--output-model-type", "pydantic_v2.BaseModel")
    generate = (sys.executable, "-m", "datamodel_code_generator", "--input", file, *options)
    run(*generate, "--output", "models.py", folder=tmp_path)
    answer = httpx.post(f"{url}/predict", json={"features": ROW})
    path = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = run(
        sys.executable, "-P", HERE / "reader.py", folder=tmp_path, input=answer.text, env=path
    )
    assert json.loads(done.stdout) == [answer.json()["prediction"], ROW]


@pytest.mark.skipif(not shutil.which("npm"), reason="npm, which belongs to Node.js, is missing")
def test_openapi_typescript(file: Path, url: str, tmp_path: Path) -> None:
    """A small program compiles with its types, and predicts; wrong rows do not compile."""
    folder = tmp_path / "typescript"
    shutil.copytree(HERE / "typescript", folder, ignore=shutil.ignore_patterns("node_modules"))
    run("npm", "ci", "--no-audit", "--no-fund", folder=folder)
    binaries = folder / "node_modules/.bin"
    run(binaries / "openapi-typescript", file, "--output", "schema.ts", folder=folder)
    run(binaries / "tsc", "--project", ".", folder=folder)
    done = run("node", "made/caller.js", url, folder=folder, env=os.environ)
    own, scored, inferred = json.loads(done.stdout)
    assert own == scored == inferred
