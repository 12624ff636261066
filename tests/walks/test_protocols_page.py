"""docs/protocols.md and docs/batch.md: each command is typed as it is there."""

import csv
import json
import re
import subprocess
import sys

import pytest

from support.serving import serving
from support.walks.catalogue import ROOT
from support.walks.walker import Done, Walker, walks

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]
PAGE = (ROOT / "docs/protocols.md").read_text()


@walks(
    "curl -s localhost:8000/invocations *",
    "curl -s localhost:8000/endpoints/*",
    "curl -s localhost:8000/v2/*",
    "echo * | gzip | curl -s localhost:8000/invocations *",
)
def test_the_requests_get_the_answers_that_are_shown(walker: Walker, examples: Done) -> None:
    """As JSON, up to what a float32 owes to the CPU; so does the script with Triton's client."""
    with serving(walker.folder / ".halfcore/bundles", default_model="iris") as server:
        walker.values["port"] = str(server.port)
        for command in walker.commands:
            answer, shown = json.loads(walker.run(command).out), json.loads(command.shown)
            assert _rounded(answer) == _rounded(shown)
        (script,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
        script = script.replace("localhost:8000", f"127.0.0.1:{server.port}")
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
        assert run.stdout.strip() == b"[b'setosa']", run.stderr


@walks("uv run halfcore predict *")
def test_files_are_scored(walker: Walker, examples: Done) -> None:
    """CSV to standard output, and Parquet to a file."""
    from pyarrow import parquet, table

    folder = walker.folder
    (folder / "flowers.csv").write_text("x0,x1,x2,x3\n5.1,3.5,1.4,0.2\n6.2,2.9,4.3,1.3\n")
    bird = {
        "island": "Biscoe",
        "culmen_length_mm": 50.0,
        "culmen_depth_mm": 18.5,
        "flipper_length_mm": 200.0,
        "body_mass_g": 4000.0,
        "sex": "MALE",
    }
    parquet.write_table(
        table({name: [value] for name, value in bird.items()}), folder / "birds.parquet"
    )
    for command in walker.commands:
        walker.run(command)
    with (folder / "answers.csv").open() as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == ["setosa", "versicolor"]
    answers = parquet.read_table(folder / "answers.parquet").to_pydict()
    assert answers["prediction"] == ["Chinstrap"]


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
