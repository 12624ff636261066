"""What each signal does, besides those that the kernel does not let a process handle.

SIGTERM and SIGINT end the server. SIGHUP is what a terminal sends when it is closed: it ends a
server that has a terminal, and nothing else. Other signals that would end the process by default
are ignored: nothing that was accepted may be lost because of a signal that some service manager
sends to reload or to rotate a log.
"""

import os
import signal

IGNORED = (signal.SIGUSR1, signal.SIGUSR2)


def ignore_others() -> None:
    """Ignore what does not end the server. Processes that are started later inherit it."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if signal.SIGHUP not in ending():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def ending() -> frozenset[signal.Signals]:
    """The signals that end the server: SIGHUP only if it has a terminal and was not started to
    survive it, as `nohup` does."""
    both = frozenset({signal.SIGTERM, signal.SIGINT})
    survives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return both if survives or not _has_terminal() else both | {signal.SIGHUP}


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
