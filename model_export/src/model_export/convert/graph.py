"""Builds one ONNX graph from nodes and converted graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

IR_VERSION = 10
"""The newest that ONNX Runtime reads reliably: onnx writes newer ones that a runtime refuses
(onnxruntime#23602)."""
OPSET = {"": 21, "ai.onnx.ml": 3}
"""ai.onnx.ml 3 is what ONNX Runtime's tree, linear and SVM kernels implement; 21 is the newest that
skl2onnx 1.20 is tested with."""


@dataclass(frozen=True)
class Mark:
    """A tensor that one fitted step or estimator answers inside the graph."""

    path: str
    part: Any
    """The fitted step or estimator."""
    answers: Literal["features", "label", "probabilities", "value"]
    read: str
    """The tensor that it reads; empty if it reads the text of `column`."""
    given: str
    """The tensor that it answers; labels are indices."""
    column: int = -1


class GraphBuilder:
    """Collects the nodes of one graph; most methods return the names of the tensors they added."""

    def __init__(self) -> None:
        """Start empty."""
        self.marks: list[Mark] = []
        """What each step and each estimator reads and answers, in the order of the graph."""
        self.nulls = False
        """A null may be one of the estimator's features."""
        self._nodes: list[NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._domains = {""}

    def constant(self, values: Any) -> str:
        """Add a constant tensor."""
        name = f"constant_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(
        self, op: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one output."""
        name = output or f"{op.lower()}_{len(self._nodes)}"
        self._domains.add(domain)
        self._nodes.append(helper.make_node(op, list(inputs), [name], domain=domain, **attributes))
        return name

    def nodes(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node of the default domain with several outputs."""
        names = [f"{op.lower()}_{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def cast(self, name: str, elem_type: int, **named: str) -> str:
        """Add a Cast to an ONNX element type."""
        return self.node("Cast", name, to=elem_type, **named)

    def embed(self, model: ModelProto, source: str) -> list[str]:
        """Add a whole graph with one input, which is connected to `source`; returns the new names
        of its outputs."""
        prefix = f"piece_{len(self._nodes)}_"
        graph = model.graph
        renamed = {graph.input[0].name: source, "": ""}

        def rename(names: Any) -> list[str]:
            return [renamed.get(name, prefix + name) for name in names]

        for initializer in graph.initializer:
            copy = TensorProto()
            copy.CopyFrom(initializer)
            copy.name = prefix + initializer.name
            self._initializers.append(copy)
        for node in graph.node:
            copy_node = NodeProto()
            copy_node.CopyFrom(node)
            copy_node.input[:] = rename(node.input)
            copy_node.output[:] = rename(node.output)
            copy_node.name = prefix + node.name
            self._domains.add(node.domain)
            self._nodes.append(copy_node)
        return rename(output.name for output in graph.output)

    def build(self, inputs: list[Any], outputs: list[Any]) -> ModelProto:
        """Finish and check the model.

        Raises:
            onnx.checker.ValidationError: the graph is not valid ONNX.
        """
        graph = helper.make_graph(
            self._nodes, "rows_to_answers", inputs, outputs, self._initializers
        )
        opsets = [helper.make_opsetid(domain, OPSET[domain]) for domain in sorted(self._domains)]
        model: ModelProto = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="model_export"
        )
        checker.check_model(model)
        return model
