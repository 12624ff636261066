"""A link between two network namespaces that may delay and lose packets: `link.py NAMESPACE DEVICE
NAMESPACE DEVICE DELAY_MS LOSS SEED`. Ends when its process is ended.

Linux's netem does this, but many kernels are built without it.
"""

import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque
from pathlib import Path

_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x1001
_CLONE_NEWNET = 0x40000000
_MTU = 65_536


def device(namespace: str, name: str) -> int:
    """A tunnel device in a namespace, as an open file: reads and writes IP packets."""
    with Path("/run/netns", namespace).open() as entry:
        if ctypes.CDLL(None, use_errno=True).setns(entry.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace {namespace}")
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH", name.encode(), _TUN_WITHOUT_HEADER))
    return file


def carry(ends: tuple[int, int], delay_s: float, loss: float, draw: random.Random) -> None:
    """Pass packets on, in both directions, until ended."""
    waiting: deque[tuple[float, int, bytes]] = deque()
    other = dict(zip(ends, reversed(ends), strict=True))
    while True:
        wait_s = max(waiting[0][0] - time.monotonic(), 0.0) if waiting else None
        ready, _, _ = select.select(ends, [], [], wait_s)
        now = time.monotonic()
        for end in ready:
            packet = os.read(end, _MTU)
            if draw.random() >= loss:
                waiting.append((now + delay_s, other[end], packet))
        while waiting and waiting[0][0] <= now:
            _, end, packet = waiting.popleft()
            try:
                os.write(end, packet)
            except OSError:
                continue  # the device is not up yet, or its queue is full: the packet is lost


def main() -> None:
    """Make both devices, say so, and carry."""
    one, one_device, two, two_device, delay_ms, loss, seed = sys.argv[1:]
    ends = (device(one, one_device), device(two, two_device))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    draw = random.Random(int(seed))  # noqa: S311  which packets are lost
    carry(ends, float(delay_ms) / 1e3, float(loss), draw)


if __name__ == "__main__":
    main()
