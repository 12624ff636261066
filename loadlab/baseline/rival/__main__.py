"""`python -m rival onnx|typical --model NAME --port PORT …`: serve one variant until SIGTERM, one worker."""

import argparse
from pathlib import Path

import uvicorn

KEEP_ALIVE_S = 75
"""uvicorn's default of 5 s would cut users who think for 4–9 s; a fair comparison does not win by that."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m rival", description=__doc__)
    variants = parser.add_subparsers(dest="variant", required=True)
    onnx = variants.add_parser("onnx", help="FastAPI, ONNX Runtime in the handler")
    onnx.add_argument("--bundle", type=Path, required=True, help="directory with model.onnx and manifest.json")
    typical = variants.add_parser("typical", help="FastAPI, mlflow.pyfunc, a DataFrame per request")
    typical.add_argument("--tracking-uri", required=True, help="MLflow's registry")
    for variant in (onnx, typical):
        variant.add_argument("--model", required=True, help="registered name")
        variant.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    # Each variant imports only its own packages: what mlflow weighs is not to be found in the other's memory.
    if asked.variant == "onnx":
        from rival import onnx_inline

        app, settings = onnx_inline.create(asked.model, asked.bundle), onnx_inline.UVICORN
    else:
        from rival import typical as rival_typical

        app, settings = rival_typical.create(asked.model, asked.tracking_uri), rival_typical.UVICORN
    uvicorn.run(app, host="127.0.0.1", port=asked.port, timeout_keep_alive=KEEP_ALIVE_S, **settings)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
