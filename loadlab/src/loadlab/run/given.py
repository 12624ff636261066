"""The server of `target=`: it is asked before anything is measured, and a refusal says what to do
about it. The lab sends one kind of request: `POST /predict` with a row as Halfcore takes it."""

from contextlib import closing
from pathlib import Path

from loadlab.generator import exchange
from loadlab.generator.exchange import Broken, NoAnswer, WrongAnswer
from loadlab.generator.http import Client, authority
from loadlab.run.order import Order
from loadlab.target import programs
from loadlab.target.serving import BackendFailed

_PROXY = "give the address of a proxy that"
_MODEL = "name the model that answers there with model="
_REDIRECTED = "The lab follows no redirects: give the address that answers itself"
_ADVICE = {
    0: f"If it expects HTTPS, {_PROXY} takes HTTP; if it is busy, wait",
    401: f"The lab sends no key: let the server accept requests without one, or {_PROXY} adds it",
    404: f"For another path {_PROXY} changes it; where paths are right, {_MODEL}",
    429: "Turn off its limit of requests for the run",
    503: "Wait until it is ready, and look into its log",
}
"""By status; 0: no answer."""
_ALIKE = {403: 401, 407: 401, 405: 404, 410: 404}
_OF_ROWS = f"{_MODEL}; where it takes rows in another form, {_PROXY} changes them"


def ask(order: Order, bundles: Path) -> None:
    """Ask for one row, and whether answers differ: a minute later is too late to learn that it
    serves another model. Raises `BackendFailed` if it does not answer."""
    given = programs.given(order.target, bundles, order.model)
    with closing(Client(*given.addresses[0])) as client:
        try:
            wanted = exchange.bodies(order.model, given.rows_of, order.seed)
            exchange.learn(wanted[:1], client.ask)
            if given.rows_of:
                exchange.distinguish(given.rows_of, client.ask)
        except (NoAnswer, Broken) as error:
            raise BackendFailed(f"target={order.target}: {advised(error, order)}") from None
        except WrongAnswer:  # which is its verdict
            pass


def advised(error: Exception, order: Order) -> str:
    """Why it cannot be measured, what the lab sends, and what to do."""
    status = error.status if isinstance(error, (NoAnswer, Broken)) else None
    if status is None:
        return str(error)
    status = _ALIKE.get(status, status)
    advice = _ADVICE.get(status, f"{_OF_ROWS[0].upper()}{_OF_ROWS[1:]}")
    if 300 <= status < 400:
        advice = _REDIRECTED
    elif status == 200 or (status >= 500 and status not in _ADVICE):
        advice = f"Look into the server's log, and {_OF_ROWS}"
    where = authority(*programs.address(order.target))
    sent = f"The lab sends rows of model={order.model} to http://{where}/predict"
    return f"{str(error).rstrip('.')}. {sent}. {advice}"
