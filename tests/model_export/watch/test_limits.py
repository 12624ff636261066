"""A model that is too large, too slow or hostile harms its own export and nothing else."""

from __future__ import annotations

import os
import pickle
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from model_export.watch.run import exported_in_child
from model_export.watch.settings import WatchSettings

if TYPE_CHECKING:
    from pathlib import Path


def nothing() -> None:
    """A tick that does nothing."""


class Bomb:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Abort, as a failing assertion in C would."""
        return os.abort, ()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (
            {"time_limit_s": 0.1},
            (
                "the export needed more than the 0.1 s that an export may take: raise "
                "MODEL_EXPORT_TIME_LIMIT_S, or"
            ),
        ),
        (
            {"memory_limit_mb": 64},
            "the export needed more than the 64 MB of memory that an export may use",
        ),
    ],
    ids=["time", "memory"],
)
def test_an_export_beyond_its_limits_is_refused(
    limits: dict[str, Any], reason: str, sound: Path, tmp_path: Path
) -> None:
    """It is ended, the reason says of what there was too much, and its folder is gone."""
    settings = WatchSettings(models=("models:/x",), work=tmp_path / "work", **limits)

    with exported_in_child(
        str(sound), f"sqlite:///{tmp_path}/mlflow.db", settings, nothing
    ) as outcome:
        assert outcome.kind == "refused"
        assert outcome.reason.startswith(reason)
    assert not list(settings.work.iterdir())


def test_a_file_in_the_current_folder_is_not_imported(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if it has the name of a package that an export needs."""
    (tmp_path / "onnx.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    settings = WatchSettings(models=("models:/x",), work=tmp_path / "work", gate_rows=1000)

    with exported_in_child(
        str(sound), f"sqlite:///{tmp_path}/mlflow.db", settings, nothing
    ) as outcome:
        assert (outcome.kind, outcome.reason) == ("passed", "")


def test_a_model_that_kills_its_process_is_refused(sound: Path, tmp_path: Path) -> None:
    """Whatever unpickling does, it does to the export's own process."""
    hostile = shutil.copytree(sound, tmp_path / "hostile")
    description = hostile / "MLmodel"
    description.write_text(
        description.read_text()
        .replace("serialization_format: skops", "serialization_format: pickle")
        .replace("model.skops", "model.pkl")
    )
    (hostile / "model.pkl").write_bytes(pickle.dumps(Bomb()))
    settings = WatchSettings(models=("models:/x",), work=tmp_path / "work", gate_rows=1000)

    with exported_in_child(
        str(hostile), f"sqlite:///{tmp_path}/mlflow.db", settings, nothing
    ) as outcome:
        assert outcome.kind == "refused"
        assert outcome.reason == (
            f"the export was ended by SIGABRT ({hostile}, fetch): the model, or a library that "
            "runs it, crashed the process; register it again, trained with the installed versions "
            "of its libraries"
        )
