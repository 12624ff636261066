"""The names of the settings in the environment and on the command line."""

PREFIX = "HALFCORE_"
SEED_NAMES = {
    "default_model": "MODEL_NAME",
    "model_stage": "MODEL_STAGE",
    "database_url": "DATABASE_URL",
    "tracking_uri": "MLFLOW_TRACKING_URI",
    "tracking_token": "MLFLOW_TRACKING_TOKEN",
    "tracking_username": "MLFLOW_TRACKING_USERNAME",
    "tracking_password": "MLFLOW_TRACKING_PASSWORD",
    "tracking_ca_file": "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "tracking_workspace": "MLFLOW_WORKSPACE",
}
"""Settings that teams already have under another name; `HALFCORE_…` wins over it, a command-line
flag over both."""
OLD_NAMES = {"sandbox_memory_mb": "canary_memory_mb", "sandbox_timeout_s": "canary_timeout_s"}
"""Settings that were renamed: the old names are still read in this release, with a warning; the new
ones win."""
SECRETS = frozenset(
    {"database_url", "tracking_token", "tracking_password", "admin_token", "webhook_secret"}
)
"""Settings that no message shows and no flag takes, because every process list shows command
lines."""
FILE = "_FILE"
"""Suffix of a secret's variable that names a file with the value, as container secrets do."""


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """The command-line spelling of a setting."""
    return "--" + name.replace("_", "-")
