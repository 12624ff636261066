"""How a walk may differ from what is documented, and which commands no walk types. Both lists are
short, and each line has its reason."""

from typing import NamedTuple


class Adaptation(NamedTuple):
    """A part of a documented command that a walk types otherwise."""

    documented: str
    """Regular expression."""
    here: str
    """Text; what stands in braces is the walk's."""
    reason: str


class Excluded(NamedTuple):
    """Documented commands that no walk types."""

    pattern: str
    """* stands for anything."""
    reason: str
    executed_by: str = ""
    """The file that executes it all the same."""


ADAPTATIONS = (
    Adaptation(
        r"^PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install uv rust-just && PATH=\S+ ",
        "",
        "both are installed already",
    ),
    Adaptation(r"(?:localhost|127\.0\.0\.1|10\.0\.0\.5):8000", "127.0.0.1:{port}", "a free port"),
    Adaptation(r"^just site serve$", "just site serve {port}", "the same"),
    Adaptation(r"HALFCORE_GRPC_PORT=8001", "HALFCORE_GRPC_PORT={grpc_port}", "the same"),
    Adaptation(r"--port 8001$", "--port {port}", "a free port"),
    Adaptation(r"http://mlflow:5000", "{mlflow}", "the tests' own MLflow server"),
    Adaptation(
        r"postgresql://(?:OWNER:PASSWORD@HOST/DATABASE|…)", "{database}", "the tests' own database"
    ),
    Adaptation(
        r"master=10\.0\.0\.7$",
        "master=127.0.0.1 --master-port {master_port}",
        "both on this machine",
    ),
    Adaptation(
        r"--users \d+ --spawn-rate \d+$",
        "--users 20 --spawn-rate 20 --web-port {web_port} {more}",
        "few users, a free port",
    ),
    Adaptation(r"\bRUN$|\blatest$|docs/runs/NAME$", "{run}", "a stored run"),
    Adaptation(r" FILE$", " {file}", "the walk's file"),
    Adaptation(r" \[NAME …\]$", " iris penguins-svm", "two of the examples"),
    Adaptation(
        r" URI … --url URL$",
        " models:/iris@champion --url http://127.0.0.1:{port}",
        "the walk's model and server",
    ),
    Adaptation(
        r"--bundles BUNDLES --default-model NAME",
        "--bundles .halfcore/bundles --default-model iris",
        "the walk's bundles",
    ),
    Adaptation(r"^just prove-batcher$", "just prove-batcher 20000", "fewer rows"),
    Adaptation(r"^just prove-swaps$", "just prove-swaps --swaps 5", "fewer swaps"),
    Adaptation(r"^just prove-cold-start$", "just prove-cold-start --starts 1", "fewer starts"),
    Adaptation(r"^just prove-outages$", "just prove-outages --seconds 5", "shorter phases"),
    Adaptation(
        r"^ROWS=300 just prove-baselines iris", "ROWS=30 just prove-baselines iris", "fewer rows"
    ),
    Adaptation(
        r"(?:\$NAMESPACE|halfcore)/halfcore(?::1\.2\.3)?$",
        "{image}",
        "the image that was built here",
    ),
)

ENVIRONMENT = {
    "UV_PROJECT_ENVIRONMENT": (
        "{environment}",
        "nothing is installed again: the environment of the tests is used",
    ),
    "UV_NO_SYNC": ("{no_sync}", "the same"),
    "PATH": (
        "{environment}/bin:{path}",
        "as in an environment that is active: model-export without uv run",
    ),
    "HALFCORE_PORT": ("{port}", "a free port"),
    "HALFCORE_BUNDLES": ("{bundles}", "bundles of the walk's own, where it has some"),
    "COMPOSE_PROJECT_NAME": ("{project}", "beside others on the same engine"),
    "PORT": ("{door}", "a free port, for Compose"),
    "LOCUST_PORT": ("{locust_port}", "the same"),
    "MLFLOW_PORT": ("{mlflow_port}", "the same"),
    "NOFILE": ("{nofile}", "as many as this machine allows"),
    "MLFLOW_TRACKING_URI": ("{mlflow}", "the tests' own MLflow server, where a walk has one"),
    "MODEL_EXPORT_GATE_ROWS": ("1000", "fewer rows: the watch's proof"),
    "MODEL_EXPORT_INTERVAL_S": ("0.5", "the watch looks more often"),
    "HALFCORE_FOLLOW_PERIOD_S": ("0.5", "the server looks more often"),
}
"""Variables that a walk sets, with the reason; one that stands in the command wins."""

_MINUTES = "takes many minutes"
_MEASURES = (
    "measures for minutes, as root on a quiet machine; `just bench-smoke` and `just load-smoke` "
    "are its short forms"
)

_NAMES = (
    "model-export examples",
    "model-export verify",
    "model-export healthy",
    "model-export completion",
    "loadlab load",
    "loadlab search",
    "loadlab compare",
    "loadlab seeds",
    "loadlab scale",
    "loadlab quota-study",
    "loadlab report",
    "loadlab keep",
    "loadlab completion",
)

EXCLUDED = (
    *(Excluded(name, "the name of a command, without its arguments") for name in _NAMES),
    Excluded("*just test", "these tests are a part of it", ".ci/run"),
    Excluded("just test -n 0", "these tests are a part of it"),
    Excluded("just lint", "checks the tree and no behaviour", ".ci/run"),
    Excluded(".ci/run", "runs these tests"),
    Excluded("just test-slow", "these tests are a part of it", ".ci/run"),
    Excluded("just test-walks", "runs the long walks"),
    Excluded("just test-portable", "runs tests, as a step of CI", ".ci/run"),
    Excluded(
        "just prove-bodies", "sends 10,000 bodies for minutes; its short form is a step of CI"
    ),
    Excluded(
        "just prove-memory*",
        _MINUTES + "; tests/server/process/test_large_requests.py runs its short form",
    ),
    Excluded("just prove-bodies --smoke", "a step of CI", ".ci/run"),
    Excluded("just prove-properties*", _MINUTES),
    Excluded(
        "uvx *",
        "downloads a client generator; tests/openapi/test_generators.py runs the locked one",
    ),
    Excluded("npx openapi-typescript *", "the same"),
    Excluded("just prove-openapi*", "a step of CI", ".ci/run"),
    Excluded("just prove-soak*", "half an hour"),
    Excluded("just prove-fuzz*", "a step of CI", ".ci/run"),
    Excluded(
        "just audit*",
        "asks a database on the network; tests/contract/test_audit.py stands in for it",
    ),
    Excluded("just sbom", "tests/contract/test_audit.py runs it"),
    Excluded("just prove-mutants*", "up to half an hour"),
    Excluded("just prove-simulation*", "tests/server/test_simulation.py runs its short form"),
    Excluded("just prove-keys*", "judges times, which the tests next to it would spoil"),
    Excluded(
        "just prove-batch",
        _MINUTES + "; tests/server/offline/test_proof.py runs its short form",
    ),
    Excluded("just prove-batch --short", "the same test runs it"),
    Excluded(
        "uv run --package halfcore --extra ray *",
        "installs Ray; tests/server/offline/test_cluster.py does it in an environment of its own",
    ),
    Excluded("just proto", "writes into the tree; tests/server/rpc/test_proto.py compares it"),
    Excluded("just record-protocols*", "writes into the tree, and needs registered examples"),
    Excluded(
        "just pictures*",
        "needs Chromium and writes into the tree; tests/accessibility opens the same pages",
    ),
    Excluded(
        "DATABASE_URL=*@pgbouncer* just serve",
        "needs a host called pgbouncer; tests/server/postgres/test_pooler.py starts one and checks "
        "the setting",
    ),
    Excluded("apt-get install *", "installs into the machine"),
    Excluded("uv run pytest *", "runs tests"),
    Excluded(
        "uv run python tests/loadlab/test_rules_page.py",
        "writes into the tree; the tests of the same file compare what it writes",
    ),
    Excluded("just load", _MEASURES),
    Excluded("just load tier=*", _MEASURES),
    Excluded("loadlab load *", _MEASURES),
    Excluded("just compare*", _MEASURES),
    Excluded("BASELINE_IMAGE=name just compare *", _MEASURES),
    Excluded("just search*", _MEASURES),
    Excluded("just seeds*", _MEASURES),
    Excluded("just scale*", _MEASURES),
    Excluded("just quota-study*", _MEASURES),
    Excluded("just bench", _MEASURES),
    Excluded("just bench --models *", _MEASURES),
    Excluded("loadlab bench", _MEASURES),
    Excluded("loadlab bench --servers *", _MEASURES),
    Excluded("loadlab bench --models *", _MEASURES),
    Excluded("loadlab protocols", _MEASURES),
    Excluded("loadlab peers", _MEASURES),
    Excluded("just bench-protocols", _MEASURES),
    Excluded("just peers", _MEASURES),
    Excluded("just peers --peers *", "installs other servers; tests/loadlab/test_peers.py does so"),
    Excluded("just peers --help", "prints the options; `loadlab bench --help` is walked alike"),
    Excluded("just ablate", _MEASURES),
    Excluded("loadlab ablate*", _MEASURES),
    Excluded("just ladder", _MEASURES),
    Excluded("loadlab ladder", _MEASURES),
    Excluded("just memory", _MEASURES),
    Excluded("loadlab memory", _MEASURES),
    Excluded("just prove-answers", "a step of CI", ".ci/run"),
    Excluded(
        "just prove",
        _MINUTES + "; its parts are walked one by one, but for `just prove-verdicts` "
        "and `just prove-models`",
    ),
    Excluded("just prove prove-drain prove-deaths", "two of them"),
    Excluded("just prove-baselines", _MINUTES + "; with few rows of one model it is walked"),
    Excluded("just prove-verdicts*", _MINUTES),
    Excluded("just prove-drain*", _MINUTES + "; its short form is a step of CI"),
    Excluded("just prove-deaths*", _MINUTES + "; its short form is a step of CI"),
    Excluded("just prove-overload*", _MINUTES),
    Excluded("just prove-leavers*", _MINUTES),
    Excluded("just prove-models --short", "a step of CI", ".ci/run"),
    Excluded(
        "uv run model-export *--json*",
        "the tests of each command run it with --json and read what it prints",
    ),
    Excluded("uv run loadlab *--json*", "the same; the runs are a reader's own"),
    Excluded("halfcore completion*", "tests/walks/test_completion.py runs it in real shells"),
    Excluded("source <(halfcore completion bash)", "the same"),
    Excluded("just prove-pythons --short", "a step of CI", ".ci/run"),
    Excluded("just prove-pythons", _MINUTES + "; its short form is a step of CI"),
    Excluded("just prove-models*", _MINUTES + "; its short form is a step of CI"),
    Excluded("just load remote=*", "needs other machines; test_several_machines.py runs it"),
    Excluded(
        "just load tier=half-core remote=2 *",
        "needs other machines; test_several_machines.py runs it",
    ),
    Excluded("just load-keep", "walked with a run's name"),
    Excluded("just load-master", "walked with its flags"),
    Excluded("just load-smoke", "a step of CI", ".ci/run"),
    Excluded("just bench-smoke", "a step of CI", ".ci/run"),
    Excluded("loadlab bench --quick *", "what `just bench-smoke` types"),
    Excluded("just test-images", "needs a Docker engine, and runs tests/images", ".ci/run"),
    Excluded("just image", "builds all images, as `just test-images` does"),
    Excluded("just image baseline", "builds for minutes what only comparisons need"),
    Excluded(
        "SERVER_EXTRAS=* just image server",
        "builds another image; this test does so under another name",
        "tests/images/test_grpc.py",
    ),
    Excluded(
        "docker run --rm -p * -e HALFCORE_GRPC_PORT=8001 *",
        "runs it; tests/images/test_grpc.py does so on free ports",
    ),
    Excluded("SERVER_EXTRAS=* just publish *", "publishes, as `just publish` below"),
    Excluded(
        "EXPORT_EXTRAS=* just image export", "as `just test-images` builds it without CatBoost"
    ),
    Excluded("just up", "pulls Prometheus and Grafana; `just up registry` is walked"),
    Excluded("just up registry observe", "the same"),
    Excluded("just up observe", "the same"),
    Excluded(
        "docker pull *",
        "needs a registry of images; tests/images/test_publish.py starts one, pushes and pulls",
    ),
    Excluded("NAMESPACE=* docker compose *", "the same"),
    Excluded("mkdir -p bundles", "a step before the next command"),
    Excluded(
        "docker run --rm --user *",
        "needs a registry of images and an MLflow server that a container reaches",
    ),
    Excluded(
        "docker run --rm -p * -v *",
        "goes on from there; tests/images/test_start.py mounts a model in the same way",
    ),
    Excluded(
        "model-export export --signing-key*",
        "names no model; tests/contract/test_signature.py exports, signs and checks, with openssl",
    ),
    Excluded(
        "MLFLOW_TRACKING_SERVER_CERT_PATH=*",
        "needs a server of that name; tests/server/registry/test_connection.py asks one with its "
        "own authority",
    ),
    Excluded("halfcore key", "the name of a command, without its arguments"),
    Excluded("just migrate", "without a database's address; walked with one"),
    Excluded("just export models:/N*@champion", "names no model; walked with one"),
    Excluded(
        "python3 -m venv environment && *",
        "downloads the newest of what the package needs; tests/walks/test_packages.py installs the "
        "wheel with what is locked, and serves",
    ),
    Excluded("environment/bin/halfcore serve *", "goes on from there"),
    Excluded("just packages repository=*", "as without; a contract test looks at the links"),
    Excluded("docker compose up --scale *", "as `docker compose up --wait`, in the foreground"),
    Excluded("docker stack deploy", "a command of the course"),
    Excluded("docker push", "the same"),
    Excluded("LOCUST_HOST=* docker compose *", "load for another machine"),
    Excluded("docker run", "the name of a command, without its arguments"),
    Excluded("docker stop", "the same; tests/images/test_start.py does it"),
    Excluded("model-export export", "the name of a command, without its arguments"),
    Excluded("halfcore predict", "the name of a command, without its arguments"),
    Excluded("docker buildx *", "changes the engine's builder"),
    Excluded("docker run --privileged *", "changes the machine's kernel"),
    Excluded(
        "docker swarm init",
        "changes the engine; tests/images/test_swarm.py does it and takes it back",
    ),
    Excluded("* docker stack deploy *", "the same"),
    Excluded("docker service update *", "the same"),
    Excluded(
        "cd kubernetes && *",
        "needs a cluster; tests/contract/test_kubernetes.py checks the manifests",
    ),
    Excluded("kubectl label *", "the same"),
    Excluded(
        "just publish *",
        "publishes; tests/images/test_publish.py publishes to a registry on this machine",
    ),
)
