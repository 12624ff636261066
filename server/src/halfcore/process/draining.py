"""The order of an end: not ready, a moment for balancers to look away, then the listener closes.

Without that moment a balancer learns of the end from refused connections. It is free where nobody
balances: the default is none.
"""

from collections.abc import Callable

from halfcore.log import logger


def on_signal(
    *,
    unready: Callable[[], None],
    stop: Callable[[], None],
    later: Callable[[float, Callable[[], None]], object],
    predrain_s: float,
) -> Callable[..., None]:
    """What to do on SIGTERM or SIGINT; a second signal does not wait.

    Args:
        unready: has readiness say no, while everything is still answered.
        stop: closes the listener; may be called again.
        later: calls a function after so many seconds, without waiting for it.
        predrain_s: seconds between the two.
    """
    begun = False

    def handle(*_: object) -> None:
        nonlocal begun
        if begun or not predrain_s:
            stop()
            return
        begun = True
        unready()
        logger.info("not ready: the listener closes in %g s", predrain_s)
        later(predrain_s, stop)

    return handle
