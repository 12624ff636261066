"""Any image that answers `POST /predict` can stand where the baseline stands; the server's own
image plays the stranger here."""

import os
from pathlib import Path

import msgspec
import pytest

from loadlab.experiments.compare import parse
from loadlab.generator import exchange
from loadlab.generator.http import Client
from loadlab.generator.plan import scenarios
from loadlab.run.order import Order
from loadlab.target import containers, tiers
from loadlab.target.containers import no_container
from loadlab.target.process import CannotStart
from support.containers import ROOT, SERVER, docker


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """The image's bundles, for the golden rows."""
    name = docker("create", SERVER)
    docker("cp", f"{name}:/bundles", str(tmp_path))
    docker("rm", name)
    return tmp_path / "bundles"


def order(name: str) -> Order:
    """What `BASELINE_IMAGE=name just compare tier=half-core` asks for."""
    found, against, _ = parse(
        ["tier=half-core"], tiers.read(ROOT / tiers.FILE, os.environ), scenarios(), image=name
    )
    return msgspec.structs.replace(found, service=against)


def test_an_image_answers_in_the_tiers_limits(bundles: Path) -> None:
    """On its own address, with limits that are read back, held to the registered model's labels;
    and nothing is left of it."""
    asked = order(SERVER)
    assert no_container(ROOT, SERVER) == ""
    with containers.image(asked, ROOT, bundles=bundles, cpus="0") as serving:
        (replica,) = serving.replicas()
        assert replica.limits == asked.tier.limits
        assert (replica.processes_outside, serving.ended(), serving.cpus()) == (0, "", {0})
        client = Client(*serving.addresses[0], serving.path)
        assert serving.manifest is not None
        assert exchange.prove(serving.manifest, client.ask) == len(serving.manifest["golden"])
        client.close()
    assert docker("ps", "--all", "--quiet", "--filter", f"label=halfcore-load={os.getpid()}") == ""


def test_an_image_that_ends_says_its_last_line(bundles: Path) -> None:
    """It is a result: the baseline cannot start."""
    name = docker("create", SERVER)
    docker("commit", "--change", 'CMD ["nonsense"]', name, "halfcore-test-ends")
    docker("rm", name)
    try:
        asked = order("halfcore-test-ends")
        with (
            pytest.raises(CannotStart, match="invalid choice: 'nonsense'"),
            containers.image(asked, ROOT, bundles=bundles, cpus=""),
        ):
            pass
    finally:
        docker("rmi", "halfcore-test-ends")


def test_an_image_that_is_not_here_is_named() -> None:
    """Before anything is started."""
    assert no_container(ROOT, "halfcore/none:0") == "the image halfcore/none:0 is not here"
