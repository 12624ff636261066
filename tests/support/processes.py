"""What tests of a server's process share: connections of their own, the codes in a stream of
answers, the server's workers, and a model that takes its time."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from support.bundles import graph
from support.serving import Server

GOOD = b'{"features":[1,2,3,4.5]}'


def workers(server: Server) -> list[int]:
    """The process ids of the server's workers."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    return sorted(int(child) for task in tasks for child in (task / "children").read_text().split())


def connect(server: Server, timeout_s: float = 60.0) -> socket.socket:
    """A connection of its own."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s)


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
