"""docs/export.md and model_export/README.md, as their readers live them."""

import re
from pathlib import Path

import pytest

from support.mlflow_registry import Registry
from support.walks.catalogue import ROOT
from support.walks.walker import Done, Uploaded, Walker, walks

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]
PAGE = (ROOT / "docs/export.md").read_text()


def bundle_of(folder: Path, name: str) -> Path:
    """The newest bundle of a model in a checkout."""
    return max(
        (folder / ".halfcore/bundles" / name).iterdir(), key=lambda path: path.stat().st_mtime
    )


@walks("model-export examples [NAME …]")
def test_examples_are_trained_registered_and_exported(
    walker: Walker, examples: Done, registry: Registry
) -> None:
    """With the alias and the stage that the page names."""
    walker.executed.add(walker.commands[0].text)  # by the fixture, which others need, too
    assert "2 example models in .halfcore/bundles, 0 of them already there" in examples.out
    for name in ("iris", "penguins-svm"):
        assert list(walker.folder.glob(f".halfcore/bundles/{name}/1-*/model.onnx"))
        known = registry.version(name, "1")
        assert (known["aliases"], known["current_stage"]) == (["champion"], "Production")


@walks("just examples light", "model-export examples light")
def test_examples_that_are_there_are_not_made_again(walker: Walker, examples: Done) -> None:
    """All but the heavy one, in a moment."""
    for command in walker.commands:
        assert (
            "6 example models in .halfcore/bundles, 6 of them already there"
            in walker.run(command).out
        )


@walks("just export models:/penguins-svm@champion")
def test_a_registered_model_becomes_a_bundle(walker: Walker, examples: Done) -> None:
    """In .halfcore/bundles, and it prints a table with what was compared."""
    for command in walker.commands:
        before = bundle_of(walker.folder, "penguins-svm").stat().st_mtime_ns
        said = walker.run(command).said
        made = bundle_of(walker.folder, "penguins-svm")
        assert made.stat().st_mtime_ns > before
        assert "label mismatches" in said
        assert f".halfcore/bundles/penguins-svm/{made.name}" in said
        assert {file.name for file in made.iterdir()} == {"model.onnx", "manifest.json"}


@walks("just watch models:/iris*", "model-export healthy FILE")
def test_the_watch_exports_uploads_and_tags(
    walker: Walker, uploaded: Uploaded, registry: Registry
) -> None:
    """Each version gets the tags of the page's table; the watch is healthy while it lives, and not
    before."""
    walker.executed |= uploaded.executed
    table = PAGE.partition("| tag | value |")[2].partition("\n\n")[0]
    described = set(re.findall(r"`(halfcore\.[\w.]+)`", table))
    assert uploaded.before.status == 1
    assert uploaded.meanwhile.status == 0
    assert "stopped" in uploaded.said
    for name in ("iris", "penguins-svm"):
        tags = registry.tags(name, "1")
        assert (tags["halfcore.export"], tags["halfcore.bundle.format"]) == ("passed", "1")
        assert set(tags) <= described, "a tag that the page does not describe"
        run_id, _, path = tags["halfcore.bundle"].removeprefix("runs:/").partition("/")
        assert registry.download(run_id, f"{path}/manifest.json")


@walks("model-export watch")
def test_the_watch_takes_its_settings_from_the_environment(walker: Walker, examples: Done) -> None:
    """`model-export watch` alone, with variables of the page's table; once: it looks, exports what
    is due, and ends."""
    environment = {"MODEL_EXPORT_MODELS": "models:/iris@champion", "MODEL_EXPORT_ONCE": "true"}
    assert (
        "watching models:/iris@champion"
        in walker.run(walker.commands[0], environment=environment).said
    )


@walks("halfcore serve", "halfcore serve --bundles BUNDLES *", "model-export verify *")
def test_a_running_server_is_verified(walker: Walker, examples: Done) -> None:
    """Every row of the data in batches, and a hundred one by one; the counts are printed."""
    verifications = [command for command in walker.commands if "verify" in command.text]
    for serve, verify in zip(
        ["halfcore serve", "halfcore serve --bundles*"], verifications, strict=True
    ):
        with walker.start(walker.find(serve)) as server:
            server.ready()
            assert re.search(
                r" \d+ rows in batches: 0 differ; 100 rows one by one: 0 differ",
                walker.run(verify).said,
            )
            server.end()
