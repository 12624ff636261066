"""docs/protocols.md and docs/batch.md: each command is typed as it is there, and each script is
run."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.clients import other_clients
from support.serving import free_port, serving
from support.walks.catalogue import ROOT
from support.walks.walker import Done, Walker, walks

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]
SCRIPT = re.compile(r"^```python\n(.+?)^```", re.DOTALL | re.MULTILINE)
"""A script on a page; its comments are what it prints, line by line."""


@walks(
    "curl -s localhost:8000/invocations *",
    "curl -s localhost:8000/endpoints/*",
    "curl -s localhost:8000/v2/*",
    "echo * | gzip | curl -s localhost:8000/invocations *",
)
def test_the_requests_get_the_answers_that_are_shown(walker: Walker, examples: Done) -> None:
    """As JSON, up to what a float32 owes to the CPU."""
    with serving(walker.folder / ".halfcore/bundles", default_model="iris") as server:
        walker.values["port"] = str(server.port)
        for command in walker.commands:
            answer, shown = walker.run(command).out, command.shown
            if "accept: text/csv" in command.text:
                assert answer.strip() == shown.strip()
            else:
                assert _rounded(json.loads(answer)) == _rounded(json.loads(shown))


@pytest.fixture(scope="session")
def python_of_clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with KServe's client, whose dependencies are not this project's."""
    return other_clients(tmp_path_factory.mktemp("clients") / "environment")


@walks("HALFCORE_GRPC_PORT=* just serve")
@pytest.mark.timeout(600)
def test_scripts_of_other_servers_predict(
    walker: Walker, examples: Done, python_of_clients: Path
) -> None:
    """Unchanged but for the ports."""
    scripts = SCRIPT.findall((ROOT / "docs/protocols.md").read_text())
    clients = ("mlflow", "tritonclient.http", "tritonclient.grpc", "kserve")
    assert all(any(name in script for script in scripts) for name in clients)
    grpc_port = str(free_port())
    with walker.start(walker.commands[0], grpc_port=grpc_port) as server:
        server.ready()
        for script in scripts:
            here = script.replace("localhost:8001", f"localhost:{grpc_port}")
            here = re.sub(r'(localhost(?::|", ))8000', rf"\g<1>{walker.port}", here)
            python = python_of_clients if "kserve" in script else sys.executable
            run = subprocess.run([python, "-c", here], capture_output=True, text=True, timeout=240)
            shown = re.findall(r"# (.+)$", script, re.MULTILINE)
            assert run.stdout.splitlines() == shown, f"{script}\n{run.stderr}"
        assert "drained" in server.end()


@walks("uv run halfcore predict *")
def test_files_are_scored(walker: Walker, examples: Done) -> None:
    """CSV to standard output, Parquet to a file, a folder to a folder, and a summary as JSON."""
    from pyarrow import parquet, table

    folder = walker.folder
    (folder / "rows.csv").write_text("x0,x1,x2,x3\n" + "5.1,3.5,1.4,0.2\n" * 150)
    (folder / "flowers.csv").write_text("x0,x1,x2,x3\n5.1,3.5,1.4,0.2\n6.2,2.9,4.3,1.3\n")
    bird = {
        "island": "Biscoe",
        "culmen_length_mm": 50.0,
        "culmen_depth_mm": 18.5,
        "flipper_length_mm": 200.0,
        "body_mass_g": 4000.0,
        "sex": "MALE",
    }
    (folder / "birds").mkdir()
    for file in ("birds.parquet", "birds/part.parquet"):
        parquet.write_table(table({name: [value] for name, value in bird.items()}), folder / file)
    for command in walker.commands:
        out = walker.run(command).out
        assert command.shown.strip() in out
    with (folder / "answers.csv").open() as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == ["setosa", "versicolor"]
    for file in ("answers.parquet", "answers/part.parquet"):
        assert parquet.read_table(folder / file)["prediction"].to_pylist() == ["Chinstrap"]


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
