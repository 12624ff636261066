#!/usr/bin/env bash
# Serves each variant of the baseline with its surroundings, over HTTP, and compares every row's label with mlflow.pyfunc's.
# Usage: [VARIANTS="naive typical tuned onnx"] [ROWS=N] prove_baselines.sh [all | light | NAME …]; the models must have been exported
# (`just examples`). ROWS: at most so many rows of each model, spread over its data; without it all of them.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,4s/^# //p' "$0"; exit ;; esac
cd "$(dirname "$0")/.."
root=$PWD
case "${1:-light}" in
all) mapfile -t names < <(ls .halfcore/bundles) ;;
light) mapfile -t names < <(ls .halfcore/bundles | grep -v -e -heavy) ;;
*) names=("$@") ;;
esac
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
until_ready() { # PID URL
    until python3 -c "import urllib.request as u; u.urlopen('$2')" 2>/dev/null; do
        kill -0 "$1" # ends this script if the server died
        sleep 0.2
    done
}
started=()
end() { [ ${#started[@]} = 0 ] || kill "${started[@]}" 2>/dev/null || true; wait || true; rm -f "$log"; }
log=$(mktemp)
trap end EXIT

env -u VIRTUAL_ENV uv sync --frozen --quiet --project loadlab/baseline --group surroundings --python "$(uv run which python)"
python=$root/loadlab/baseline/.venv/bin/python
cd loadlab/baseline
registry=$(free_port) database=$(free_port)
"$python" -m baseline.surroundings --store "$root/.halfcore/mlflow.db" --mlflow-port "$registry" --postgres-port "$database" >"$log" 2>&1 &
started+=($!)
until_ready $! "http://127.0.0.1:$registry/health"

wrong=()
for name in "${names[@]}"; do
    bundle=$(ls -td "$root/.halfcore/bundles/$name"/*/ | head -1)
    for variant in ${VARIANTS:-naive typical tuned onnx}; do
        port=$(free_port)
        "$python" -m baseline "$variant" --model "$name" --port "$port" --bundle "$bundle" --tracking-uri "http://127.0.0.1:$registry" \
            --database "postgresql+psycopg://baseline@127.0.0.1:$database/postgres" >"$log" 2>&1 &
        baseline=$!
        started+=("$baseline")
        until_ready "$baseline" "http://127.0.0.1:$port/health"
        echo "$variant:"
        (cd "$root" && uv run model-export verify "models:/$name@champion" --url "http://127.0.0.1:$port" --path /predict ${ROWS:+--rows "$ROWS"}) ||
            wrong+=("$variant/$name")
        kill "$baseline"
        wait "$baseline" 2>/dev/null || true
    done
done
[ ${#wrong[@]} = 0 ] || { echo "answers differ: ${wrong[*]}" >&2; exit 1; }
