"""What the start says of settings with which clients are refused."""

from pathlib import Path

import pytest

from halfcore.predict.keys import NO_KEYS, new_key
from halfcore.process.notices import warnings
from halfcore.settings.reading import load
from support.certificates import certificate


@pytest.mark.parametrize(
    ("from_day", "says"), [(-3, "has expired"), (1, "is not valid yet"), (-1, "")]
)
def test_a_certificate_that_is_out_of_date_is_reported(
    tmp_path: Path, from_day: int, says: str
) -> None:
    """The server starts, because its clock may be the wrong one; every client refuses it."""
    chain, key = certificate(tmp_path / "tls", from_day=from_day)
    environ = {"HALFCORE_TLS_CERTIFICATE": str(chain), "HALFCORE_TLS_KEY": str(key)}

    found = warnings(load(environ))

    assert len(found) == bool(says)
    for warning in found:
        assert f"{str(chain)!r} {says}, so clients refuse the connection; replace it" in warning


def test_a_file_without_api_keys_is_reported(tmp_path: Path) -> None:
    """Every prediction is refused: often a file that somebody was about to write."""
    file = tmp_path / "keys.toml"
    file.write_text("")
    settings = load({"HALFCORE_API_KEYS": str(file)})
    assert warnings(settings) == [NO_KEYS]

    file.write_text(new_key("a", [])[1])
    assert warnings(settings) == []
