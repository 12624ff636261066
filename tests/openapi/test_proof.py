"""The server answers as its description says: the short form of `just prove-openapi`."""

from pathlib import Path

import pytest

from openapi.models import DEFAULT, write_models
from openapi.proof import ADMIN_TOKEN, prove
from support.serving import serving

CASES = 500


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_random_requests_are_answered_as_described(tmp_path: Path) -> None:
    """No server error, and no status, content type or schema that is not described."""
    names = write_models(tmp_path)
    with serving(tmp_path, default_model=DEFAULT, admin_token=ADMIN_TOKEN) as server:
        found = prove(f"http://127.0.0.1:{server.port}", cases=CASES, first_seed=1, names=names)
    assert not found.failures, "\n\n".join(found.failures.values())
    assert found.server_errors == 0
    assert found.cases >= CASES
