"""The server's own log, for tests that read it in their own process."""

import logging

import pytest


def listen(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Have `caplog` hear every line from `info` up, though an earlier test made an app, which sets
    the level."""
    caplog.set_level(logging.INFO, logger="halfcore")
    return caplog
