"""What a start imports: each module is CPU time, which a tenth of a core has little of."""

import subprocess
import sys
from pathlib import Path

from support.bundles import write_bundle

NOT_FOR_A_DEFAULT_START = {
    # of other settings
    "asyncpg",  # a database
    "grpc",
    "google.protobuf",
    "httpx",  # a followed registry
    "pyarrow",  # `halfcore predict`
    "ray",
    # of Litestar's plugins that no route uses
    "attr",
    "jinja2",
    "mako",
    "opentelemetry.sdk",
    "pydantic",
    # of other commands
    "halfcore.offline",
    "halfcore.postgres.migrate",
    "rich",
    # of nothing that a server does
    "numpy.ma",
    "numpy.random",
    "onnxruntime.quantization",
    "onnxruntime.transformers",
    "pandas",
    "sklearn",
    "sqlite3",
    "tkinter",
    "unittest",
}
SERVE = """
import os, sys
from halfcore.log import logger
def end_when_ready(text, *values):
    if text == "ready":
        print(*sys.modules, flush=True)
        os._exit(0)
logger.info = end_when_ready
from halfcore.cli import main
main()
"""


def run(code: str, *words: str) -> list[str]:
    """The words that a program prints."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


def test_a_default_start_imports_only_what_it_needs(tmp_path: Path) -> None:
    """Whatever else is installed next to it."""
    write_bundle(tmp_path, "numbers")
    loaded = set(run(SERVE, "serve", "--port", "0", "--bundles", str(tmp_path)))
    assert {"litestar", "onnxruntime", "granian"} <= loaded
    assert not NOT_FOR_A_DEFAULT_START & loaded


def test_help_imports_no_server() -> None:
    """It is asked for more often than a server is started."""
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
        "from halfcore.cli import main; main()"
    )
    loaded = set(run(code, "--help"))
    assert "halfcore.command_line" in loaded
    assert not {"asyncio", "litestar", "numpy", "onnxruntime", "granian", "orjson"} & loaded
