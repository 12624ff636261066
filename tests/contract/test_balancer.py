"""compose/haproxy asks another replica for predictions alone, in every protocol."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from halfcore.predict.protocols.paths import route_of
from support import haproxy

CONFIG = Path(__file__).parents[2] / "compose/haproxy/haproxy.cfg"
OWN = ["/predict", "/models/iris/predict"]
TRANSLATED = [
    "/invocations",
    "/endpoints/iris/invocations",
    "/v1/models/iris:predict",
    "/v2/models/iris/infer",
    "/v2/models/iris/versions/3/infer",
]
OTHERS = ["/models/iris/reload", "/webhooks/mlflow", "/v2/repository/index"]


def test_predictions_alone_are_asked_again() -> None:
    """They have no side effects, whatever protocol their client speaks."""
    found = re.search(r"disable-l7-retry if METH_POST !\{ path_end ([^}]+) \}", CONFIG.read_text())
    assert found is not None
    ends = tuple(found[1].split())
    assert all(route_of(path) is not None for path in TRANSLATED)
    assert [path for path in OWN + TRANSLATED if not path.endswith(ends)] == []
    assert [path for path in OTHERS if path.endswith(ends)] == []


@pytest.mark.skipif(haproxy.missing(), reason="no haproxy; Debian: haproxy")
def test_haproxy_takes_the_file() -> None:
    """Without a warning."""
    done = subprocess.run(
        ["haproxy", "-c", "-f", CONFIG],
        env=os.environ | {"UPSTREAM": "localhost"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
