"""`just audit` never takes silence for safety, and `just sbom` lists what the images install."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.proof import ROOT

FAKE = """#!{python}
import json, pathlib, sys
file = pathlib.Path(sys.argv[sys.argv.index("--requirement") + 1])
pins = [line.split("==") for line in file.read_text().splitlines()]
how = {how!r}
if how == "unreachable":
    sys.exit("Connection refused")
said = [dict(name=name, version=version, vulns=[]) for name, version in pins]
for one in said:
    if how == "vulnerable" and one["name"] == "litestar":
        one["vulns"] = [dict(id="CVE-1", fix_versions=["99"])]
    if how == "unknown":
        one["skip_reason"] = "not found"
print(json.dumps(dict(dependencies=said)))
"""


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ("clean", 0, "none of "),
        ("vulnerable", 1, "CVE-1, fixed in 99; in: workspace, image halfcore"),
        ("unreachable", 3, "was not asked: Connection refused"),
        ("unknown", 3, "which the database did not find"),
    ],
)
def test_only_an_answer_is_an_answer(tmp_path: Path, how: str, code: int, text: str) -> None:
    """A database that cannot be reached, or that does not find the packages, is not a success."""
    tool = tmp_path / "pip-audit"
    tool.write_text(FAKE.format(python=sys.executable, how=how))
    tool.chmod(0o755)
    found = subprocess.run(
        [sys.executable, ".ci/audit.py"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )

    assert text in found.stdout, found
    assert found.returncode == code


def test_a_bill_of_materials_lists_the_image(tmp_path: Path) -> None:
    """One document for each image; the server's has its runtime, and no training stack."""
    found = subprocess.run(
        [sys.executable, ".ci/sbom.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found
    document = json.loads((tmp_path / "halfcore.cdx.json").read_text())
    names = {part["name"] for part in document["components"]}

    assert document["bomFormat"] == "CycloneDX"
    assert {"litestar", "granian", "onnxruntime"} <= names
    assert not {"mlflow", "scikit-learn", "locust"} & names
