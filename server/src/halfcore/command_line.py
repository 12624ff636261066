"""The commands and their options, apart from what they do: help and errors need no import of a
server."""

import argparse

from halfcore import __version__
from halfcore.settings.arguments import add_arguments
from halfcore.settings.completion import add_completion
from halfcore.settings.parser import Parser

_DESCRIPTION = """Serve all bundles of a directory: POST /predict and /models/NAME/predict,
GET /models, /health, /metrics, /docs. A flag wins over its environment variable. A wrong value
stops the start."""
_MIGRATE = """Apply the SQL files that DATABASE_URL's database does not have yet, each in a
transaction. Two runs at once are safe."""
_KEY = """Print the entry for the file of API keys on standard output (halfcore key NAME >>
keys.toml), and the key itself on standard error, once: the file holds only its hash."""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    whole = Parser(prog="halfcore", description="Serves ONNX model bundles.")
    whole.add_argument("--version", action="version", version=__version__)
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve_parser = commands.add_parser(
        "serve",
        help="serve the bundles of a directory",
        description=_DESCRIPTION,
    )
    add_arguments(serve_parser)
    commands.add_parser(
        "predict", help="score a file or a folder with a bundle, without a server", add_help=False
    )
    key_parser = commands.add_parser(
        "key", help="make an API key for the file of HALFCORE_API_KEYS", description=_KEY
    )
    key_parser.add_argument("name", help="of whoever gets the key; in metrics and errors")
    key_parser.add_argument(
        "--models", help="models that it may ask, as iris,penguins-svm; default: all"
    )
    key_parser.add_argument(
        "--rate", type=float, help="most requests a second to each worker; default: no limit"
    )
    migrate_parser = commands.add_parser(
        "migrate", help="bring the database's schema up to date", description=_MIGRATE
    )
    migrate_parser.add_argument(
        "--json", action="store_true", help="print the names of what was applied as JSON"
    )
    add_completion(commands)
    return whole
