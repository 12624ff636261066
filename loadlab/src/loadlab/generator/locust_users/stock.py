"""Locust's HttpUser (requests) under the lab's behaviour: what most locustfiles use. Expensive:
some 4,000 requests a second and core at best."""

from locust import HttpUser

from loadlab.generator.exchange import is_right
from loadlab.generator.locust_users.behaviour import ClientUser, Failed, Session


class StockHttpUser(ClientUser, HttpUser):
    """requests through Locust's session, with its events and statistics."""

    def exchange(self, prepared: bytes, right: bytes) -> None:
        """Ask through Locust's client; compares every answer whole."""
        headers = {"content-type": "application/json"}
        timeout_s = Session.load.timeout_s
        with self.client.post(
            Session.load.path,
            data=prepared,
            headers=headers,
            name="predict",
            timeout=timeout_s,
            catch_response=True,
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                raise Failed(f"status_{answer.status_code}" if answer.status_code else "reset")
            if right:
                Session.ledger.checked += 1
                if not is_right(answer.content, right):
                    answer.failure("wrong prediction")
                    raise Failed("wrong_prediction")
