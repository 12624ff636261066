"""The server's own log, for tests that read it in their own process."""

import logging

import pytest


def listen(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Have `caplog` hear every line from `info` up, though an earlier test has configured the log."""
    monkeypatch.setattr(logging.getLogger("halfcore"), "propagate", True)
    caplog.set_level(logging.INFO, logger="halfcore")
    return caplog
