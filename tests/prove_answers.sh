#!/usr/bin/env bash
# Serves the exported examples on a free port and compares every row of their data with mlflow.pyfunc's labels.
# Usage: prove_answers.sh [all | light | NAME …]; the models must have been exported (`just examples`).
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,3s/^# //p' "$0"; exit ;; esac
cd "$(dirname "$0")/.."
bundles=.halfcore/bundles
case "${1:-all}" in
all | light) mapfile -t names < <(ls "$bundles") ;;
*) names=("$@") ;;
esac
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
HALFCORE_LOG_LEVEL=warning uv run halfcore serve --bundles "$bundles" --port "$port" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT
until python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health/ready')" 2>/dev/null; do
    kill -0 "$server" # ends this script if the server died
    sleep 0.1
done
uv run model-export verify --url "http://127.0.0.1:$port" $(printf "models:/%s@champion " "${names[@]}")
