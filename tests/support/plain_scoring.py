"""ONNX Runtime on the matrix of a file, and nothing else: no checks, no answers written. This is
what `halfcore predict` is measured against. `plain_scoring.py BUNDLE FILE.csv`."""

import csv
import json
import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

_ROWS = 1024


def main() -> None:
    """Read the file and run the model."""
    bundle, file = map(Path, sys.argv[1:])
    manifest = json.loads((bundle / "manifest.json").read_text())
    options = ort.SessionOptions()
    if len(os.sched_getaffinity(0)) == 1:  # with more, all that the runtime takes by itself
        options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    with file.open(newline="", encoding="utf-8") as text:
        reader = csv.reader(text)
        header = next(reader)
        block: list[list[str]] = []
        for row in reader:
            block.append(row)
            if len(block) == _ROWS:
                session.run(manifest["outputs"], {"rows": matrix(manifest, header, block)})
                block = []
    if block:
        session.run(manifest["outputs"], {"rows": matrix(manifest, header, block)})


def matrix(manifest: dict, header: list[str], rows: list[list[str]]) -> np.ndarray:  # type: ignore[type-arg]
    """Categories as their places in the manifest, all else as numbers."""
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    found = np.empty((len(rows), len(manifest["inputs"])), manifest["dtype"])
    for i, column in enumerate(manifest["inputs"]):
        values = columns[column["name"]]
        if column.get("categories"):
            codes = {str(value): float(code) for code, value in enumerate(column["categories"])}
            found[:, i] = [codes[value] for value in values]
        else:
            found[:, i] = np.fromiter(map(float, values), float, len(values))
    return found


if __name__ == "__main__":
    main()
