#!/usr/bin/env bash
# The server installed alone must not bring, and cannot import, what belongs to the exporter or the lab.
set -euo pipefail
cd "$(dirname "$0")/.."
uv run --isolated --quiet --no-dev --package halfcore python -P - <<'PYTHON' # -P: the repository's folders are not packages
import importlib.util
import sys

import halfcore.__main__  # the whole server imports in its own closure
import halfcore.process.serve
import halfcore.worker

forbidden = ["mlflow", "sklearn", "pandas", "onnx", "skl2onnx", "skops", "joblib", "cloudpickle", "locust", "gevent", "model_export", "loadlab"]
found = [name for name in forbidden if importlib.util.find_spec(name)]
if found:
    sys.exit(f"the server's own closure holds {', '.join(found)}")
print(f"the server's own closure holds none of {', '.join(forbidden)}")
PYTHON
