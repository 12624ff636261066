"""A clean checkout in which documented commands are typed, and what several walks share: MLflow,
two examples, a model of one's own."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.bundles import write_bundle
from support.mlflow_registry import Registry
from support.mlflow_server import MlflowServer
from support.walks.catalogue import documented
from support.walks.fixtures import checkout, walker
from support.walks.walker import Done, Uploaded, Walker

__all__ = ["checkout", "walker"]

_MINE = """
import sys
import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
features, target = load_iris(return_X_y=True, as_frame=True)
for iterations in (200, 300):
    model = LogisticRegression(max_iter=iterations).fit(features, load_iris().target_names[target])
    signature = mlflow.models.infer_signature(features, model.predict(features))
    names = {"name": "model", "registered_model_name": sys.argv[1]}
    extras = {"signature": signature, "pip_requirements": ["scikit-learn"]}
    mlflow.sklearn.log_model(model, **names, input_example=features, **extras)
"""
"""What somebody does who has a model of one's own, and then a second version of it."""
_STAND_INS = ("penguins-lr", "penguins-rf", "cover-small", "cover-middle")
"""Examples that are not trained here, for they take minutes: bundles of these names stand in for
them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Walks start several processes each, and train models: give them more time than other
    tests."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def examples(checkout: Path, tracking: MlflowServer) -> Done:
    """Two examples, trained, registered in the MLflow server and exported by the documented
    command; stand-ins for the rest."""
    (command,) = [
        command for command in documented() if command.text == "model-export examples [NAME …]"
    ]
    done = Walker(checkout, [], mlflow=tracking.url).run(command, timeout_s=280)
    for name in _STAND_INS:
        write_bundle(checkout / ".halfcore/bundles", name)
    return done


@pytest.fixture(scope="session")
def uploaded(checkout: Path, tracking: MlflowServer, examples: Done) -> Uploaded:
    """Both examples' versions exported, uploaded and tagged by the documented watch."""
    commands = [
        command
        for command in documented()
        if command.text.startswith(("just watch models:/iris", "model-export healthy FILE"))
    ]
    walker = Walker(checkout, commands, mlflow=tracking.url)
    healthy, file = walker.find("model-export healthy FILE"), str(checkout / ".halfcore/heartbeat")
    before = walker.run(healthy, file=file, status=(0, 1))
    with walker.start(
        walker.find("just watch*"), environment={"MODEL_EXPORT_HEARTBEAT": file}
    ) as watch:
        watch.prints("iris/1: passed", timeout_s=150)
        watch.prints("penguins-svm/1: passed", timeout_s=150)
        meanwhile = walker.run(healthy, file=file, status=(0, 1))
        said = watch.end()
    return Uploaded(before, meanwhile, said, walker.executed)


@pytest.fixture(scope="session")
def mine(checkout: Path, tracking: MlflowServer, registry: Registry) -> str:
    """The versions 1 and 2 of a model in the MLflow server; the first one has the alias and the
    stage. Returns the model's name."""
    name = "my-model"
    environment = Walker(checkout, [], mlflow=tracking.url).environment(PYTHONWARNINGS="ignore")
    done = subprocess.run(
        [sys.executable, "-c", _MINE, name],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    registry.set_alias(name, "champion", "1")
    registry.set_stage(name, "1", "Production")
    return name
