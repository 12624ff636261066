"""What tests of a server's process share: connections of their own, the codes in a stream of
answers, the server's workers, and a model that takes its time."""

import json
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from support.bundles import graph
from support.serving import Server

GOOD = b'{"features":[1,2,3,4.5]}'

_LISTENS = "0A"
"""A socket's state in /proc/net/tcp."""


def workers(server: Server) -> list[int]:
    """The process ids of the server's workers."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    children: list[str] = []
    for task in tasks:
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            children += (task / "children").read_text().split()
    return sorted(map(int, children))


def connect(server: Server, timeout_s: float = 60.0) -> socket.socket:
    """A connection of its own."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s)


def listening(server: Server) -> list[int]:
    """The process ids of the workers that accept connections."""
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    port = f":{server.port:04X}"
    inodes = {
        f"socket:[{fields[9]}]"
        for fields in map(str.split, table)
        if fields[3] == _LISTENS and fields[1].endswith(port)
    }
    return [pid for pid in workers(server) if inodes & _open_files(pid)]


def clients_of(server: Server, worker: int) -> set[int]:
    """The clients' own ports of the connections that a worker has accepted."""
    port, files = f":{server.port:04X}", _open_files(worker)
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return {
        int(fields[2].rpartition(":")[2], 16)
        for fields in map(str.split, table)
        if fields[1].endswith(port) and f"socket:[{fields[9]}]" in files and fields[3] != _LISTENS
    }


def _open_files(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):  # it has ended
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(descriptor.readlink()))
    return found


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for a state."""
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline, f"not reached: {what}"
        time.sleep(0.02)


def exchange(server: Server, sent: bytes, *, half_close: bool = False) -> bytes:
    """Send, and read until the server closes."""
    with connect(server) as connection:
        with suppress(OSError):  # the server may have answered and closed already
            connection.sendall(sent)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = b""
    with suppress(ConnectionResetError):  # the server closed with bytes of ours unread
        while chunk := connection.recv(65536):
            data += chunk
    return data


def statuses(answer: bytes) -> list[int]:
    """The status codes of the answers in a stream."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def status(answer: bytes) -> int:
    """The status code of the only answer."""
    (only,) = statuses(answer)
    return only


def prediction(answer: bytes) -> Any:
    """What was predicted."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])["prediction"]


def cpu_s(pid: int) -> float:
    """The CPU time that a process has used; waiting for a busy machine is none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def expensive() -> Any:
    """The sum of a row, found the long way: some 10 ms of multiplications per row."""
    width, layers = 1024, 48
    shape = helper.make_tensor("value", TensorProto.FLOAT, [1], [1 / width])
    nodes = [
        helper.make_node("ReduceSum", ["rows", "axis"], ["sum"], keepdims=1),
        helper.make_node("Expand", ["sum", "wide"], ["layer0"]),
        helper.make_node("ConstantOfShape", ["square"], ["weights"], value=shape),
        *(
            helper.make_node("MatMul", [f"layer{i}", "weights"], [f"layer{i + 1}"])
            for i in range(layers)
        ),
        helper.make_node("ReduceMean", [f"layer{layers}", "axis"], ["value"], keepdims=0),
    ]
    constants = {
        "axis": np.array([1], np.int64),
        "wide": np.array([1, width], np.int64),
        "square": np.array([width, width], np.int64),
    }
    return graph(nodes, constants, 4, "float32", [("value", TensorProto.FLOAT, ["N"])])


def looping() -> Any:
    """The sum of a row, after as many turns of a loop as its first column says: the server expects
    all rows to take as long as a short one."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["N"]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["N"]),
        ],
    )
    nodes = [
        helper.make_node("ReduceSum", ["rows", "axis"], ["sum"], keepdims=0),
        helper.make_node("Gather", ["rows", "first"], ["turns_of_each"], axis=1),
        helper.make_node("ReduceMax", ["turns_of_each"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "", "sum"], ["value"], body=body),
    ]
    constants = {"axis": np.array([1], np.int64), "first": np.array(0, np.int64)}
    return graph(nodes, constants, 4, "float32", [("value", TensorProto.FLOAT, ["N"])])
