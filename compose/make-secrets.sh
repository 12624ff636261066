#!/usr/bin/env bash
# Makes the missing secrets of compose.yaml from the kernel's random numbers. Existing ones are
# kept, because the databases use them.
set -euo pipefail
folder="$(dirname "$0")/secrets"
umask 077
# The folder is closed to other users; its files are readable, because a container's user is not a
# user of this machine.
mkdir -p "$folder"

secret() { # NAME CONTENT: write it, unless it is there
    [ -e "$folder/$1" ] || printf '%s\n' "$2" >"$folder/$1"
    chmod 444 "$folder/$1"
}
word() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
value() { cat "$folder/$1"; }

secret postgres_password "$(word)"
secret mlflow_password "$(word)"
secret grafana_password "$(word)"
secret s3_secret "$(word)"
secret database_url "postgresql://halfcore:$(value postgres_password)@postgres:5432/halfcore"
secret pg_service "[mlflow]
host=postgres
dbname=mlflow
user=mlflow
password=$(value mlflow_password)"
secret s3_credentials "[default]
aws_access_key_id = halfcore
aws_secret_access_key = $(value s3_secret)"
secret s3_config '{"identities": [{"name": "mlflow", "credentials": [{"accessKey": "halfcore", "secretKey": "'"$(value s3_secret)"'"}],
 "actions": ["Admin:mlflow", "Read:mlflow", "Write:mlflow", "List:mlflow", "Tagging:mlflow"]}]}'
