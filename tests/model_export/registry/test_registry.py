"""Every way to name a model leads to the same model, and loading is as safe as it was asked to
be."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle
import mlflow
import pandas as pd
import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from model_export.errors import ExportError, InfrastructureError
from model_export.registry import client as registry
from model_export.study.study import study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IRIS = load_iris()
TREE = "sklearn.tree._tree.Tree"


class Registered(NamedTuple):
    """What the store holds."""

    run_id: str
    model_id: str


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    """A store in SQLite with two versions of one model: 1 is in Production, 2 is the champion and
    has its data logged."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri()
    registry.connect(f"sqlite:///{folder}/mlflow.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, about stages, sources and pip
        mlflow.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment("tests")
        _log_version(folder)
        run_id, model_id = _log_version(folder)
        client = mlflow.MlflowClient()
        client.set_registered_model_alias("iris", "champion", "2")
        client.transition_model_version_stage("iris", "1", "Production")
    yield Registered(run_id, model_id)
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


def _log_version(folder: Path) -> Registered:
    frame = pd.DataFrame(IRIS.data, columns=["a", "b", "c", "d"])
    frame.to_csv(folder / "iris.csv", index=False)
    model = DecisionTreeClassifier(random_state=0).fit(frame, IRIS.target)
    with mlflow.start_run() as run:
        mlflow.log_input(
            mlflow.data.from_pandas(frame, source=str(folder / "iris.csv"), name="flowers"),
            context="training",
        )
        logged = mlflow.sklearn.log_model(
            model,
            name="tree",
            signature=infer_signature(frame, IRIS.target),
            input_example=frame[:3],
            registered_model_name="iris",
            pip_requirements=["scikit-learn"],
            skops_trusted_types=[TREE],
        )
    return Registered(run.info.run_id, logged.model_id)


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        ("models:/iris@champion", "2"),
        ("models:/iris/Production", "1"),
        ("models:/iris/production", "1"),
        ("models:/iris/1", "1"),
        ("models:/iris/2", "2"),
        ("models:/iris/latest", "2"),
    ],
)
def test_a_registered_model_is_found_by_alias_stage_and_version(
    uri: str, version: str, registered: Registered
) -> None:
    """Name and version are the registry's; the run is known whatever the way there."""
    fetched = registry.fetch(uri)

    assert (fetched.origin.name, fetched.origin.version) == ("iris", version)
    assert fetched.origin.resolved == f"models:/iris/{version}"
    assert fetched.flavor == "skops"
    assert (fetched.origin.run_id == registered.run_id) == (version == "2")


def test_a_logged_model_is_found_by_its_id(registered: Registered) -> None:
    """models:/m-…: the version is the id."""
    fetched = registry.fetch(f"models:/{registered.model_id}")

    assert (fetched.origin.name, fetched.origin.version) == ("tree", registered.model_id)
    assert fetched.origin.model_id == registered.model_id


def test_a_model_of_a_run_is_found_by_its_path(registered: Registered) -> None:
    """runs:/ID/path: the version is the run's beginning."""
    fetched = registry.fetch(f"runs:/{registered.run_id}/tree")

    assert (fetched.origin.name, fetched.origin.version) == ("tree", f"run-{registered.run_id[:8]}")
    assert fetched.origin.run_id == registered.run_id


def test_a_folder_is_a_model(save: Callable[..., Path]) -> None:
    """No registry is needed; the version is a digest of the MLmodel file."""
    folder = save(DecisionTreeClassifier().fit(IRIS.data, IRIS.target), IRIS.data, name="tree")

    assert registry.fetch(str(folder)).origin.name == "tree"
    assert registry.fetch(folder.as_uri()).origin.version.startswith("local-")


VERSIONS = "versions 1 (Production), 2"
MISSING = {
    "models:/iris@nobody": f'the model "iris" has no alias "nobody"; it has {VERSIONS} and alias '
    "champion → 2; export one of them: "
    "model-export export models:/iris/2",
    "models:/iris/9": 'the model "iris" has no version 9; it has versions 1 (Production), 2 and',
    "models:/iris/Staging": (
        'the model "iris" has no version in the stage "Staging"; it has versions 1 (Production), '
        "2 and"
    ),
    "models:/iris@Champion": "you may have meant: model-export export models:/iris@champion",
    "models:/iris/champion": "you may have meant: model-export export models:/iris@champion",
    "models:/iris": (
        'the model "iris" is named without a version; it has versions 1 (Production), 2 and'
    ),
    "iris": "export one of them: model-export export models:/iris/2",
    "models://iris/1": f"has one slash before its name: models:/iris; it has {VERSIONS} and alias "
    "champion → 2; you may have meant: "
    "model-export export models:/iris/1",
    "models:/Iris/1": 'the registry has no model "Iris"; a similar one is iris',
    "models:/irises@champion": 'the registry has no model "irises"; a similar one is iris',
    "models:/unlike/1": 'the registry has no model "unlike"; it has iris',
    "flowers=models:/iris@nobody": 'the model "iris" has no alias "nobody"',
    "models:/m-00": "Logged model with ID 'm-00' not found",
}


@pytest.mark.parametrize("uri", MISSING)
def test_what_is_missing_is_answered_with_what_there_is(uri: str, registered: Registered) -> None:
    """Versions with their stages, aliases, similar names, and what to type."""
    with pytest.raises(ExportError) as refusal:
        registry.fetch(uri)

    assert MISSING[uri] in str(refusal.value)


def test_what_there_is_fits_a_line(tmp_path: Path) -> None:
    """Of many versions and aliases only the newest are shown; a registry without models asks
    whether it is the right one."""
    before = mlflow.get_tracking_uri()
    registry.connect(f"sqlite:///{tmp_path}/mlflow.db")
    client = mlflow.MlflowClient()
    try:
        with pytest.raises(
            ExportError,
            match=r'no model "many", nor any other; is sqlite:.* the right MLflow \(--tracking-uri',
        ):
            registry.fetch("models:/many/1")
        client.create_registered_model("many")
        with pytest.raises(ExportError, match=r"no version 1; it has no version yet: register one"):
            registry.fetch("models:/many/1")
        for _ in range(12):
            client.create_model_version("many", str(tmp_path))
        for i in range(10):
            client.set_registered_model_alias("many", f"a{i}", "1")
        with pytest.raises(
            ExportError,
            match=r"versions …, 5, 6, 7, 8, 9, 10, 11, 12 and aliases a0 → 1, .*a7 → 1, …; export "
            r"one of them",
        ):
            registry.fetch("models:/many@b")
    finally:
        registry.connect(before)


def test_the_servers_way_to_name_a_model_is_taken(registered: Registered) -> None:
    """NAME=models:/…: the bundle has that name; --name wins."""
    assert registry.fetch("flowers=models:/iris@champion").origin.name == "flowers"
    assert (
        registry.fetch("flowers=models:/iris@champion", name="blossoms").origin.name == "blossoms"
    )
    assert registry.fetch("flowers=models:/iris@champion").origin.resolved == "models:/iris/2"


UNKNOWN = [
    "models:/iris@nobody",
    "models:/iris/9",
    "models:/iris/Staging",
    "models:/nothing/latest",
    "models:/m-00",
    "runs:/0123/tree",
    "nowhere",
]


@pytest.mark.parametrize("uri", UNKNOWN)
def test_an_unknown_model_is_one_line(uri: str, registered: Registered) -> None:
    """The line begins with what was asked for."""
    with pytest.raises(ExportError) as refusal:
        registry.fetch(uri)

    assert str(refusal.value).startswith(uri)
    assert "\n" not in str(refusal.value)


def test_the_rows_come_from_the_data_logged_to_the_run(registered: Registered) -> None:
    """All 150, not the input example's three."""
    found = study(registry.fetch("models:/iris@champion")).data

    assert found.packed.shape == (150, 4)
    assert "flowers" in found.origin


def test_unpickling_is_said_and_can_be_forbidden(save: Callable[..., Path]) -> None:
    """cloudpickle runs code when it is loaded: a note by default, a refusal with --no-unpickle,
    before anything is loaded."""
    folder = save(
        DecisionTreeClassifier().fit(IRIS.data, IRIS.target),
        IRIS.data,
        serialization_format="cloudpickle",
    )

    assert "unpickled" in registry.fetch(str(folder)).notes[0]
    with pytest.raises(ExportError, match="--no-unpickle forbids it"):
        registry.fetch(str(folder), allow_unpickle=False)


def test_a_skops_model_passes_where_unpickling_is_forbidden(save: Callable[..., Path]) -> None:
    """Types of scikit-learn, NumPy and SciPy may be trusted; any other that the model asks for may
    not."""
    folder = save(DecisionTreeClassifier().fit(IRIS.data, IRIS.target), IRIS.data)
    assert registry.fetch(str(folder), allow_unpickle=False).flavor == "skops"

    description = folder / "MLmodel"
    description.write_text(
        description.read_text().replace(f"- {TREE}", f"- {TREE}\n    - os.system")
    )
    with pytest.raises(ExportError, match=r"asks skops to trust os\.system"):
        registry.fetch(str(folder), allow_unpickle=False)


def test_another_scikit_learn_is_said(save: Callable[..., Path]) -> None:
    """The proof holds for what the installed version makes of the model; the user should know that
    it is another."""
    folder = save(DecisionTreeClassifier().fit(IRIS.data, IRIS.target), IRIS.data)
    description = folder / "MLmodel"
    here = registry.installed_version("scikit-learn")
    description.write_text(
        description.read_text().replace(f"sklearn_version: {here}", "sklearn_version: 1.2.3")
    )

    assert any(
        "trained with scikit-learn 1.2.3" in note for note in registry.fetch(str(folder)).notes
    )

    (folder / "model.skops").write_bytes(b"of another time")
    with pytest.raises(
        ExportError,
        match=r"cannot be loaded: .*trained with scikit-learn 1\.2\.3, loaded with "
        rf"{re.escape(here)}; train",
    ):
        registry.fetch(str(folder))


def test_a_model_that_fails_here_names_both_versions(
    save: Callable[..., Path], export: Callable[..., Any]
) -> None:
    """A model of another scikit-learn may load and then fail in ways that say nothing of the
    cause."""
    model = DecisionTreeClassifier().fit(IRIS.data, IRIS.target)
    folder = save(model, IRIS.data, serialization_format="cloudpickle")
    del model.tree_
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(model))
    description = folder / "MLmodel"
    here = registry.installed_version("scikit-learn")
    description.write_text(
        description.read_text().replace(f"sklearn_version: {here}", "sklearn_version: 1.2.3")
    )

    with pytest.raises(
        ExportError, match=rf"\(trained with scikit-learn 1\.2\.3, loaded with {re.escape(here)}\)$"
    ):
        export(folder)


def test_a_model_that_cannot_answer_here_is_to_be_trained_again(
    save: Callable[..., Path], export: Callable[..., Any]
) -> None:
    """It lacks what the installed version reads; a step before it would not help."""
    model = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=500))
    model.fit(IRIS.data, IRIS.target)
    folder = save(model, IRIS.data, serialization_format="cloudpickle")
    del model[0]._fill_dtype
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(model))
    description = folder / "MLmodel"
    here = registry.installed_version("scikit-learn")
    description.write_text(
        description.read_text().replace(f"sklearn_version: {here}", "sklearn_version: 1.2.3")
    )

    with pytest.raises(ExportError, match="train and register it again with the installed version"):
        export(folder)


def test_a_model_that_answers_otherwise_here_names_both_versions(
    save: Callable[..., Path], export: Callable[..., Any]
) -> None:
    """Trees of scikit-learn before 1.3 hold counts where the installed version reads shares: the
    graph is not at fault, and no tolerance helps."""
    model = DecisionTreeClassifier(random_state=0).fit(IRIS.data, IRIS.target)
    model.tree_.value[:] *= 50.0
    folder = save(model, IRIS.data, serialization_format="cloudpickle")
    description = folder / "MLmodel"
    here = registry.installed_version("scikit-learn")
    description.write_text(
        description.read_text().replace(f"sklearn_version: {here}", "sklearn_version: 1.2.3")
    )

    with pytest.raises(ExportError) as refused:
        export(folder)
    for said in (str(refused.value), refused.value.reason):
        assert "trained with scikit-learn 1.2.3" in said
        assert "train and register it again with the installed version" in said
        assert "--accept-parity" not in said


def test_a_model_without_the_scikit_learn_flavour_is_refused(save: Callable[..., Path]) -> None:
    """The flavours that it has are named."""
    folder = save(DecisionTreeClassifier().fit(IRIS.data, IRIS.target), IRIS.data)
    description = folder / "MLmodel"
    description.write_text(description.read_text().replace("  sklearn:", "  prophet:"))

    with pytest.raises(ExportError, match="a model of prophet: models of scikit-learn"):
        registry.fetch(str(folder))


@pytest.mark.parametrize(
    "failure",
    [NoCredentialsError(), EndpointConnectionError(endpoint_url="http://s3:9000/artifacts")],
)
def test_a_store_at_s3_without_keys_or_address_says_which_variables(
    failure: Exception, registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own, and it is no verdict on the model."""

    def fail(**_: Any) -> None:
        raise failure

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", fail)
    with pytest.raises(
        InfrastructureError,
        match=r"files cannot be fetched: .*[^.]; set AWS_ACCESS_KEY_ID, .* MLFLOW_S3_ENDPOINT_URL",
    ):
        registry.fetch("models:/iris@champion")


def test_a_name_that_cannot_be_a_folder_needs_another(save: Callable[..., Path]) -> None:
    """Names become folders of the bundle store."""
    folder = save(DecisionTreeClassifier().fit(IRIS.data, IRIS.target), IRIS.data, name="my tree")

    with pytest.raises(
        ExportError,
        match=r"the name 'my tree' cannot be the name of a folder .*: export it under another name "
        r"with --name my-tree$",
    ):
        registry.fetch(str(folder))
    assert registry.fetch(str(folder), name="my-tree").origin.name == "my-tree"
