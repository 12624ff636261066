"""`just prove-batch --short`: the labels of `mlflow.pyfunc` and the memory over all rows of the
forest cover data; its times are measured and not judged."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_rows_of_forest_cover(tmp_path: Path) -> None:
    """Of the small forest, trained and exported here."""
    environment = {key: value for key, value in os.environ.items() if "MLFLOW" not in key}
    for command in (
        ["-m", "model_export", "examples", "cover-small"],
        [ROOT / "tests/e2e/prove_batch.py", "--short", "--halfcore", tmp_path / ".halfcore"],
    ):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"labels of mlflow.pyfunc +│ 0 of 22,849 differ", done.stdout)) == 2
    assert "broken" not in done.stdout
