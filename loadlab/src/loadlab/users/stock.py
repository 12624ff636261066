"""Locust's HttpUser (requests) under the lab's behaviour: what most locustfiles use. Dear: some 4,000 requests a second and core at
best."""

import random
from typing import Any

from locust import HttpUser

from loadlab.exchange import Exchange, is_right
from loadlab.generators.plan import Load
from loadlab.users.behaviour import Failed, Session, ThinkingUser


class StockHttpUser(ThinkingUser, HttpUser):
    """requests through Locust's session, with its events and statistics."""

    def __init__(self, environment: Any) -> None:
        Session.ready.wait()
        self.host = "http://{}:{}".format(*Session.load.addresses[(Session.number + 1) % len(Session.load.addresses)])
        super().__init__(environment)

    @classmethod
    def prepare(cls, exchange: Exchange, _load: Load) -> bytes:
        """The body."""
        return exchange.body.encode()

    def exchange(self, prepared: bytes, right: bytes) -> None:
        """Ask through Locust's client; compares a share of the answers whole."""
        headers = {"content-type": "application/json"}
        timeout_s = Session.load.timeout_s
        with self.client.post(
            Session.load.path, data=prepared, headers=headers, name="predict", timeout=timeout_s, catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                raise Failed(f"status_{answer.status_code}" if answer.status_code else "reset")
            if right and random.random() < Session.load.check_share:  # noqa: S311  a sample
                Session.ledger.checked += 1
                if not is_right(answer.content, right):
                    answer.failure("wrong prediction")
                    raise Failed("wrong_prediction")
