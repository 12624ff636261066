"""The order of a shutdown: report not ready, wait until load balancers notice, close the listener.

Without that wait a load balancer notices the shutdown by refused connections. A server without a
load balancer does not need the wait: the default is 0 s.
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
        unready: makes the readiness check fail; requests are still answered.
        stop: closes the listener; may be called again.
        later: schedules a function after so many seconds, and returns at once.
        predrain_s: seconds between `unready` and `stop`.
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
