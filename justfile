# Halfcore's recipes: `just` lists them, and a comment is a recipe's help.

set positional-arguments
# As in the recipes with a shebang: on Debian sh is dash, which lacks what some recipes need.
set shell := ["bash", "-euo", "pipefail", "-c"]

# Use the installed Python; download none without being asked.
export UV_PYTHON_DOWNLOADS := "never"
# Many containers set it: then every process compiles all its imports again, which costs MLflow's
# server 4 s.
export PYTHONDONTWRITEBYTECODE := ""

# Pages are written after a measurement, and not after its help.
render := 'case " $* " in *" --help "* | *" -h "*) ;; *) uv run loadlab render ;; esac'

# Its comment is the help of a recipe whose program has none.
help := 'case " $* " in *" --help "* | *" -h "*) exec .ci/help'

_list:
    @just --list --unsorted

# HALFCORE_FOLLOW=models:/NAME@ALIAS with MLFLOW_TRACKING_URI follows a registry instead.
# Train and export the examples if they are missing, then serve them: `just serve --port 8001` (all flags: `just serve --help`)
[group('serve')]
serve *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in *" --help "* | *" -h "*) exec uv run halfcore serve --help ;; esac # before anything is trained
    if [ -n "${HALFCORE_FOLLOW:-}" ]; then
        # serve the registry's models as their aliases move; `just watch` exports them
        exec uv run halfcore serve "$@"
    elif [ -n "${MODEL_NAME:-}" ] && [ -n "${MLFLOW_TRACKING_URI:-}" ]; then
        # configured like the services that Halfcore replaces: a registered model, by stage
        uv run model-export export "models:/$MODEL_NAME/${MODEL_STAGE:=Production}"
        export MODEL_STAGE
    else
        # into the local MLflow, not into a shared registry
        env -u MLFLOW_TRACKING_URI uv run model-export examples light
        export MODEL_NAME="${MODEL_NAME:-iris}"
    fi
    exec uv run halfcore serve "$@"

# Export a registered model with its proof: `just export models:/penguins-svm@champion`
[group('serve')]
export uri *flags:
    uv run model-export export "$@"

# Export, upload and tag every new version: `just watch models:/iris@champion models:/penguins-svm/Production`
[group('serve')]
watch *words:
    uv run model-export watch "$@"

# Train, register and export example models: all, light (all but cover-heavy, which takes 4 GB), or names
[group('serve')]
examples *names="all":
    uv run model-export examples "$@"

# Build the images, or some of them: `just image server`; `just image baseline` builds what it is compared with. NAMESPACE and TAG name them; SERVER_EXTRAS and EXPORT_EXTRAS choose the extras
[group('containers')]
image *targets="server export mlflow loadlab":
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} image ;; esac
    declare -A names=([server]=halfcore [export]=halfcore-export [mlflow]=halfcore-mlflow [loadlab]=halfcore-loadlab [baseline]=halfcore-baseline)
    for target in {{ targets }}; do
        [ -n "${names[$target]:-}" ] || { echo "just image: unknown '$target', expected one of: ${!names[*]}" >&2; exit 2; }
    done
    for target in {{ targets }}; do
        name="${names[$target]}"
        DOCKER_BUILDKIT=1 docker build --network "${BUILD_NETWORK:-default}" --target "$target" \
            --build-arg VERSION="$(uv version --package halfcore --short)" --build-arg REVISION="$(git rev-parse HEAD)" \
            ${SERVER_EXTRAS:+--build-arg "SERVER_EXTRAS=$SERVER_EXTRAS"} \
            ${EXPORT_EXTRAS:+--build-arg "EXPORT_EXTRAS=$EXPORT_EXTRAS"} \
            -t "${NAMESPACE:+$NAMESPACE/}$name:${TAG:-latest}" .
    done

# Start the registry and the monitoring, or the named profiles: `just up half-core`, `just up registry observe`
[group('containers')]
up *profiles="registry observe":
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} up ;; esac
    known="$(docker compose --profile '*' config --profiles 2>/dev/null | tr '\n' ' ' || true)"
    for profile in {{ profiles }}; do
        [ -z "$known" ] || [[ " $known" == *" $profile "* ]] || { echo "just up: unknown '$profile', expected one of: $known" >&2; exit 2; }
    done
    compose/make-secrets.sh
    # With NAMESPACE use published images: a name that cannot be pulled is an error, and is
    # not built from this clone.
    docker compose {{ prepend("--profile ", profiles) }} up --detach --wait --remove-orphans ${NAMESPACE:+--no-build}
    docker compose {{ prepend("--profile ", profiles) }} ps --format 'table {{{{.Service}}\t{{{{.Status}}\t{{{{.Ports}}'

# Stop all containers; `just down --volumes` also deletes models, database and dashboards
[group('containers')]
down *flags:
    docker compose --profile '*' down --remove-orphans {{ flags }}

# Push all images for amd64 and arm64, with SBOM and provenance: `just publish namespace=me tag=1.2.3` (also platforms=, attest=no, source=https://HOST/OWNER/NAME)
[group('containers')]
publish *arguments:
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} publish ;; esac
    exec .ci/publish "$@"

# Build, run and check the images, the tiers and the services around them, on this machine's Docker
[group('check')]
test-images *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} test-images ;; esac
    if ! reason="$(docker version --format ok 2>&1 && docker compose version 2>&1)"; then
        echo "test-images: skipped, no Docker engine with Compose v2 answers: ${reason##*$'\n'}"
        exit 0
    fi
    just image
    uv run pytest tests/images "$@"

# Wheels and source archives of the three packages in dist/, as a package index would accept them: `just packages repository=https://HOST/OWNER/NAME`
[group('check')]
packages *repository:
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} packages ;; esac
    uv run python .ci/packages.py "$@"
    uv run twine check --strict dist/halfcore*

# Known vulnerabilities of all locked packages, and which image holds them; exit code 3 if the database could not be asked: `just audit --vulnerability-service osv`
[group('check')]
audit *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} audit ;; esac
    exec uv run --group audit python .ci/audit.py "$@"

# What the lock holds as CycloneDX documents in dist/, one of all packages and one of each image: `just sbom`
[group('check')]
sbom:
    uv run python .ci/sbom.py

# The version of packages, images and `/health`; `just version 1.2.3` sets it everywhere
[group('check')]
version *number:
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} version ;; esac
    if [ $# -gt 0 ]; then
        # As an index and a registry of images both take it, and uv leaves it as it is.
        if [ $# -gt 1 ] || ! [[ "$1" =~ ^[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?$ ]]; then
            echo "just version: unknown '$*', expected nothing, or one version such as 1.2.3 or 1.2.3rc1" >&2
            exit 2
        fi
        for package in halfcore-workspace halfcore halfcore-export halfcore-loadlab; do
            env -u UV_NO_SYNC uv version --quiet --frozen --package "$package" "$1"
        done
        sed -i "s/^__version__ = .*/__version__ = \"$1\"/" server/src/halfcore/__init__.py
        # Not by `uv lock`, which may rewrite the lines of all other packages.
        sed -i "/^name = \"halfcore\(-workspace\|-export\|-loadlab\)\?\"$/{n;s/^version = .*/version = \"$1\"/}" uv.lock
        uv lock --check --quiet
    fi
    uv version --package halfcore --short

# The documentation as a site without a network, in .halfcore/site/html; `just site serve` also shows it on http://127.0.0.1:8080
[group('check')]
site *serve:
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} site ;; esac
    case "$*" in "" | serve | "serve "*) ;; *) echo "just site: unknown '$*', expected nothing, or serve and a port" >&2; exit 2 ;; esac
    uv run python docs/site.py
    uv run zensical build --strict --clean
    [ $# -eq 0 ] || exec uv run python -m http.server --bind 127.0.0.1 --directory .halfcore/site/html "${2:-8080}"

# Bring the schema of DATABASE_URL's database up to date
[group('serve')]
migrate:
    uv run halfcore migrate

# All tests, in two processes; `just test -n 0` runs them in one
[group('check')]
test *flags:
    uv run pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "not slow" "$@"

# The tests that take many seconds each: load runs, exports from a real registry, the commands of the README
[group('check')]
test-slow *flags:
    uv run pytest -n 2 --dist loadgroup --no-loadscope-reorder -m slow "$@"

# The tests that compare computed numbers, as on the oldest x86-64-v2 CPU: results must not differ
[group('check')]
test-portable *flags:
    ./tests/portable.sh "$@"

# The documented commands that take minutes, in a clean checkout; `just test-slow` runs the others
[group('check')]
test-walks *flags:
    uv run pytest -n 0 tests/walks/long_walks.py "$@"

# Style, types, layers and boundaries
[group('check')]
lint:
    uv run ruff check .
    uv run ruff format --check .
    uv run mypy
    uv run mypy --config-file tests/mypy.ini tests
    uv run lint-imports
    ./tests/isolated.sh

# 1,000,000 rows through the batcher with cancellations and failing runs: none may be misrouted, lost or doubled
[group('prove')]
prove-batcher rows="1000000":
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} prove-batcher ;; esac
    exec uv run python tests/support/proven.py batcher "0 rows misrouted, lost or doubled" -- uv run python tests/server/pipeline/test_batcher_proof.py --rows "$1"

# Batcher, model swap and prediction log under 30,000 random orders of callbacks in virtual time, and with planted errors, which must be found; `just prove-simulation --schedules 1000`, `just prove-simulation --part swap --seed 7`
[group('prove')]
prove-simulation *flags:
    uv run python tests/support/proven.py simulation "0 schedules fail, every planted error is found" -- uv run python tests/e2e/prove_simulation.py "$@"

# Small changes of batcher and admission, each of which must make a test fail: at least 90 %; takes up to half an hour: `just prove-mutants --part predict/admission`
[group('prove')]
prove-mutants *flags:
    uv run python tests/support/proven.py mutants "at least 90 % of the mutants killed" -- uv run --group mutants python tests/e2e/prove_mutants.py "$@"

# 10,000 bodies made to be expensive against a server in 256 MiB: CPU time, memory and the event loop; `just prove-bodies --smoke` takes a minute
[group('prove')]
prove-bodies *flags:
    uv run python tests/support/proven.py bodies "CPU time, memory and loop within the limits of the table" -- uv run python tests/e2e/prove_bodies.py "$@"

# Clients that try to take the memory of a server in 240 MiB, with 200 good requests/s: it may not be killed, and none of those may fail; `just prove-memory --short` takes a minute and shows them only
[group('prove')]
prove-memory *flags:
    uv run python tests/support/proven.py memory "0 kills, 0 good requests failed" -- uv run python tests/e2e/prove_memory.py "$@"

# The property tests with 20 times the examples, other ones in every run: `just prove-properties 100`
[group('prove')]
prove-properties times="20" *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} prove-properties ;; esac
    [[ "$1" =~ ^[1-9][0-9]*$ ]] || { echo "just prove-properties: times is '$1', expected a whole number, as in just prove-properties 100" >&2; exit 2; }
    export PROPERTY_EXAMPLES="$1"
    exec uv run python tests/support/proven.py properties "every property holds" -- uv run pytest -n 2 -m hypothesis --timeout 3600 "${@:2}"

# Coverage-guided fuzzing of whatever reads a body, for so many seconds: each body is read or refused with a 4xx; `just prove-fuzz 120`. A body that fails is kept in .halfcore/fuzz
[group('prove')]
prove-fuzz seconds="7200" *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} prove-fuzz ;; esac
    [[ "$1" =~ ^[1-9][0-9]*$ ]] || { echo "just prove-fuzz: seconds is '$1', expected a whole number, as in just prove-fuzz 120" >&2; exit 2; }
    mkdir -p .halfcore/fuzz
    exec uv run python tests/support/proven.py fuzz "every body is read or refused with a 4xx" -- uv run --group fuzz python tests/e2e/fuzz_bodies.py -max_total_time="$1" -max_len=4096 -print_final_stats=1 -verbosity=0 -artifact_prefix=.halfcore/fuzz/ "${@:2}"

# What an API key costs a request, and whether the time of a refusal depends on how much of a key was guessed; `just prove-keys --samples 100000`
[group('prove')]
prove-keys *flags:
    uv run python tests/support/proven.py keys "at most 1 µs per request, no difference of refusals" -- uv run python tests/e2e/prove_keys.py "$@"

# 20,000 random requests made from /openapi.json against a real server: no server error, and nothing that is not described; `just prove-openapi --cases 2000 --seed 7`
[group('prove')]
prove-openapi *flags:
    uv run python tests/support/proven.py openapi "0 errors of the server, 0 answers that are not described" -- uv run python tests/e2e/prove_openapi.py "$@"

# Every row of every example model over HTTP against mlflow.pyfunc's label
[group('prove')]
prove-answers *names="all":
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in *" --help "* | *" -h "*) exec ./tests/prove_answers.sh --help ;; esac # before anything is trained
    source loadlab/signals.sh
    passing uv run model-export examples "$@"
    exec uv run python tests/support/proven.py answers "every label is that of mlflow.pyfunc" -- ./tests/prove_answers.sh "$@"

# `halfcore predict` over all rows of forest cover: mlflow.pyfunc's labels, CPU time against ONNX Runtime and reading, memory; `just prove-batch --short` judges no time
[group('prove')]
prove-batch *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in *" --help "* | *" -h "*) exec uv run python tests/e2e/prove_batch.py --help ;; esac # before anything is trained
    model=cover-middle
    case " $* " in *" --short "*) model=cover-small ;; esac
    source loadlab/signals.sh
    passing env -u MLFLOW_TRACKING_URI uv run model-export examples "$model"
    exec uv run python tests/support/proven.py batch "labels of mlflow.pyfunc, CPU time and memory within bounds" -- uv run python tests/e2e/prove_batch.py "$@"

# What other servers (mlflow, mlserver) answer to the requests of tests/protocols, written to tests/protocols/*.json; needs `just examples light`: `just record-protocols mlserver`
[group('prove')]
record-protocols *servers:
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} record-protocols ;; esac
    PYTHONPATH=tests exec uv run python -m protocols.record "$@"

# Every row's label from each baseline (naive, typical, tuned, onnx) over HTTP against mlflow.pyfunc's; ROWS=300 sends fewer
[group('prove')]
prove-baselines *names="light":
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in *" --help "* | *" -h "*) exec ./tests/prove_baselines.sh --help ;; esac # before anything is trained
    source loadlab/signals.sh
    passing uv run model-export examples "$@"
    exec uv run python tests/support/proven.py baselines "every label is that of mlflow.pyfunc" -- ./tests/prove_baselines.sh "$@"

# The descriptors of the gRPC messages, from server/src/halfcore/rpc/proto/*.proto; a test compares them
[group('prove')]
proto:
    cd server/src/halfcore/rpc/proto && uv run python -m grpc_tools.protoc -I . \
        --descriptor_set_out=services.binpb inference.proto health.proto

# CPU time per request of halfcore, a null server and the baselines, side by side; needs root, two cores and a quiet machine. The boosted trees alone: `just bench --models cover-lightgbm --regimes saturated --servers b,e`
[group('prove')]
bench *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in *" --help "* | *" -h "*) exec uv run loadlab bench --help ;; esac # before anything is trained
    uv run loadlab bench --dry-run "$@" > /dev/null # a wrong option, too
    uv run model-export examples bench
    source loadlab/signals.sh
    passing uv run loadlab bench "$@"
    uv run loadlab render

# The effect of each default of the server; needs what `bench` needs
[group('prove')]
ablate *flags:
    uv run loadlab ablate "$@"
    @{{ render }}

# From the course's first service to halfcore, one change at a time: requests/s and CPU time of each step; needs what `bench` needs
[group('prove')]
ladder *flags:
    uv run loadlab ladder "$@"
    @{{ render }}

# CPU time per request of MLflow's and the inference protocol, JSON and binary, against /predict: one run, rounds in random order; needs what `bench` needs
[group('prove')]
bench-protocols *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in *" --help "* | *" -h "*) exec uv run loadlab protocols --help ;; esac # before anything is trained
    uv run loadlab protocols --dry-run "$@" > /dev/null # a wrong option, too
    PYTHONPATH=tests uv run python -m support.protocol_models .halfcore/protocols
    source loadlab/signals.sh
    passing uv run loadlab protocols "$@"
    uv run loadlab render

# halfcore and other model servers (mosec, MLServer, BentoML, LitServe, Ray Serve, MLflow, Triton) with the same graph on one CPU; needs what `bench` needs, and Python 3.11. Short: `just peers --peers mosec,litserve --models iris --regimes saturated --quick`
[group('prove')]
peers *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in *" --help "* | *" -h "*) exec uv run loadlab peers --help ;; esac # before anything is trained
    uv run loadlab peers --dry-run "$@" > /dev/null # a wrong option, too
    uv run model-export examples bench
    case " $* " in *" --quick "*) exec uv run loadlab peers --store .halfcore/runs "$@" ;; esac
    source loadlab/signals.sh
    passing uv run loadlab peers "$@"
    uv run loadlab render

# The packages on every Python that they name: wheels of all that they need, and for those that are installed here an export, a server's answer and mypy; `just prove-pythons --short` takes one other Python
[group('prove')]
prove-pythons *flags:
    uv run python tests/support/proven.py pythons "every package works on every Python that is here" -- uv run python tests/e2e/prove_pythons.py "$@"

# What a server holds at rest, while a model loads, and with 10,000 connections; stored, and written into docs/operations.md
[group('prove')]
memory *flags:
    uv run loadlab memory "$@"
    @{{ render }}

# Does the bench work? Under a minute; its figures mean nothing
[group('prove')]
bench-smoke:
    uv run model-export examples iris
    uv run loadlab bench --quick --models iris --sparse-models iris --store .halfcore/runs

# How many users in which limits, judged: `just load tier=half-core`; words are key=value, a wrong one prints all
[group('prove')]
[no-exit-message]
load *words:
    @uv run loadlab load "$@"

# halfcore and a baseline in one tier, in blocks of random order: `just compare tier=half-core against=typical` (tuned, onnx; or BASELINE_IMAGE=name)
[group('prove')]
[no-exit-message]
compare *words:
    @uv run loadlab compare "$@"

# The least CPU and memory that pass 10,000 users, in at most 90 minutes: `just search` (against=typical, users=…; rerun=yes: the minimum again)
[group('prove')]
[no-exit-message]
search *words:
    #!/usr/bin/env bash
    set -euo pipefail
    status=0
    case " $* " in *" --help "* | *" -h "*) exec uv run loadlab search --help ;; esac
    source loadlab/signals.sh
    passing uv run loadlab search "$@" || status=$?
    [ "$status" -gt 2 ] || uv run loadlab render
    exit "$status"

# What five course projects reported, run with halfcore and a baseline: `just seeds only=003`; if interrupted, the same words continue it
[group('prove')]
[no-exit-message]
seeds *words:
    @uv run loadlab seeds "$@"
    @{{ render }}

# One replica against several behind HAProxy, at equal CPU and memory in all: `just scale scenario=steady`
[group('prove')]
[no-exit-message]
scale *words:
    @uv run loadlab scale "$@"
    @{{ render }}

# The CPU quota's period and burst against p99, and what keep-alive does to replicas behind a balancer
[group('prove')]
[no-exit-message]
quota-study *words:
    @uv run loadlab quota-study "$@"
    @{{ render }}

# What this machine can carry, and what is missing for a load run
[group('prove')]
[no-exit-message]
load-doctor:
    @uv run loadlab doctor

# 1,000 users for seconds against a real server in its limits: does the lab work? Its verdict is printed, and only a broken lab fails
[group('prove')]
load-smoke *words="tier=half-core":
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in *" --help "* | *" -h "*) exec uv run loadlab load --help ;; esac # before anything is trained
    exec ./loadlab/smoke.sh "$@"

# Locust's master for several machines, its page on 8089: `just load-master --host http://10.0.0.5:8000 --users 10000 --spawn-rate 500`
[group('prove')]
load-master *flags:
    uv run locust -f loadlab/locustfile.py --master "$@"

# A Locust worker for `just load remote=1 listen=10.0.0.7` or `just load-master` on another machine, again and again until Ctrl-C: `just load-worker master=10.0.0.7`
[group('prove')]
load-worker master *flags:
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} load-worker ;; esac
    ulimit -n "$(ulimit -Hn)"
    host="${1#master=}" meant=10.0.0.7
    case "$1" in --master) meant="${2:-$meant}" ;; --master=*) meant="${1#*=}" ;; esac
    case "$host" in *:*:*) ;; "" | -* | *=* | *[:/]*) echo "just load-worker: unknown '$host', expected the master's address alone, as in just load-worker master=$meant" >&2; exit 2 ;; esac
    shift
    trap 'kill "$worker"; wait "$worker"; exit 0' INT TERM
    while true; do
        uv run locust -f loadlab/locustfile.py --worker --master-host "$host" "$@" &
        worker=$!
        wait "$worker" || sleep 1 # the master has ended its run, or is not there yet
    done

# Every stored load run: verdict, latencies, CPU, memory
[group('prove')]
[no-exit-message]
load-history *flags:
    @uv run loadlab history "$@"

# A load run's table, page and Markdown, from its record: `just load-report latest`
[group('prove')]
[no-exit-message]
load-report run="latest" *flags:
    @uv run loadlab report "$@"

# Keep a load run (all repeats of its set) in docs/runs, and write it into docs/benchmarks.md and the README
[group('prove')]
[no-exit-message]
load-keep run="latest":
    uv run loadlab keep "$@"
    @{{ render }}

# All pictures of the documentation in docs/images, as Chromium shows the pages: the server's page, /docs, a load run's report, a comparison, a search: `just pictures docs/runs/NAME`
[group('prove')]
pictures run="":
    #!/usr/bin/env bash
    set -euo pipefail
    {{ help }} pictures ;; esac
    uv run model-export examples iris penguins-lr penguins-rf penguins-svm
    page="$(uv run loadlab report "${1:-docs/runs/2026-11-26-200638-half-core-steady}" | sed -n 's/^report: //p')"
    uv run python tests/support/pictures.py .halfcore/bundles "$page"

# 100 swaps in a row under 300 requests/s: nothing may fail, slow down threefold or keep memory
[group('prove')]
prove-swaps *flags:
    uv run python tests/support/proven.py swaps "0 failed, p99 at most threefold, no memory kept" -- uv run python tests/e2e/prove_swaps.py "$@"

# 100 times SIGTERM under clients that keep their connections, ask without a pause and never twice, alone and behind HAProxy: no request may fail; `just prove-drain --drains 5`
[group('prove')]
prove-drain *flags:
    uv run python tests/support/proven.py drain "0 failed, exit code 0, in time" -- uv run python tests/e2e/prove_drain.py "$@"

# SIGKILL of one worker of two, 20 times, under 300 requests/s: no request of the other one may fail, and two accept again within 2 s; `just prove-deaths --short` judges no time
[group('prove')]
prove-deaths *flags:
    uv run python tests/support/proven.py deaths "0 of the other worker failed, replaced within 2 s" -- uv run python tests/e2e/prove_deaths.py "$@"

# 20 clients that send 900 rows each and leave before the answer, again and again: what waits then is not run, and others do not notice; `just prove-leavers --bursts 100`
[group('prove')]
prove-leavers *flags:
    uv run python tests/support/proven.py leavers "at most one batch run for nobody, p99 of the others at most twofold" -- uv run python tests/e2e/prove_leavers.py "$@"

# Up to ten times the requests that a server with an expensive model can answer: goodput, p99 of the answers, time and CPU time of refusals, time until normal; `just prove-overload --short` judges no time, `just prove-overload --cheap` takes a cheap model
[group('prove')]
prove-overload *flags:
    uv run python tests/support/proven.py overload "goodput, p99, refusals and recovery within the limits of the table" -- uv run python tests/e2e/prove_overload.py "$@"

# Half an hour of load with swaps and clients that leave: memory, descriptors and threads must not grow, and a planted leak must be found; `just prove-soak --minutes 480`
[group('prove')]
prove-soak *flags:
    uv run python tests/support/proven.py soak "0 failed, at most 2 MB per million requests, at most 8 more descriptors and 2 more threads" -- uv run python tests/e2e/prove_soak.py "$@"

# How long a start takes while MLflow and PostgreSQL refuse, hang or drop everything, with a bundle on disk: at most 5 s
[group('prove')]
prove-cold-start *flags:
    uv run python tests/support/proven.py cold-start "at most 5 s" -- uv run python tests/e2e/prove_cold_start.py "$@"

# PostgreSQL stopped, hung, restarted, cut off and stormed under 300 logged requests/s: nothing may fail, and each is in the log exactly once
[group('prove')]
prove-outages *flags:
    uv run python tests/support/proven.py outages "0 failed, each once in the log" -- uv run python tests/e2e/prove_outages.py "$@"

# A real MLflow server, an alias that moves, 300 requests/s: watch the served version follow
[group('prove')]
demo-swap:
    uv run python tests/e2e/demo_swap.py

# Whole load runs against servers with faults and servers that cheat: each must be caught by what is meant for it; `just prove-verdicts cache --engines raw`
[group('prove')]
prove-verdicts *names:
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in *" --help "* | *" -h "*) exec uv run python tests/e2e/prove_verdicts.py --help ;; esac # before anything is trained
    source loadlab/signals.sh
    passing uv run model-export examples iris
    exec uv run python tests/support/proven.py verdicts "every fault is caught by its rule" -- uv run python tests/e2e/prove_verdicts.py "$@"

# Models as people register them, from MLflow's log_model to answers over HTTP; writes the table in docs/export.md; `just prove-models 'xgboost-*' voting-hard`, `just prove-models --short`
[group('prove')]
prove-models *names:
    uv run python tests/support/proven.py models "every answer is that of mlflow.pyfunc, every refusal explained" -- uv run python tests/e2e/prove_models.py "$@"

# All proofs, one after the other, going on after a failure; ends with a table, stored in .halfcore/proofs: `just prove prove-drain prove-deaths`
[group('prove')]
prove *names:
    uv run python tests/e2e/prove_all.py "$@"
