"""An export ends in a sentence whatever its model does to the process: fills the memory, crashes
it, or leaves it."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from model_export import limits
from model_export.__main__ import main
from model_export.registry import client as registry

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTES = 1200
"""What the packages need, and a little more."""
TOO_MUCH = (
    "the export needed more than the 1,200 MB of memory that an export may use ({uri}, prove): "
    "raise the limit with "
    "--memory-limit-mb or MODEL_EXPORT_MEMORY_LIMIT_MB, or export a smaller model"
)


def fills_the_memory(self: Any, x: Any) -> Any:
    """A hundred megabytes and another hundred, all in use."""
    kept = []
    if len(x) > 1:
        for _ in range(100):
            kept.append(np.ones(100 << 17))  # noqa: PERF401 - one after another
    return type(self).predict(self, x)


def asks_for_too_much(self: Any, x: Any) -> Any:
    """Eighty terabytes at once, which no machine gives."""
    if len(x) > 1:
        np.empty(10**13)
    return type(self).predict(self, x)


def crashes(self: Any, x: Any) -> Any:
    """As a fault in C would."""
    if len(x) > 1:
        ctypes.string_at(0)
    return type(self).predict(self, x)


def leaves(self: Any, x: Any) -> Any:
    """As if all were well."""
    if len(x) > 1:
        sys.exit(0)
    return type(self).predict(self, x)


@pytest.mark.parametrize(
    ("predict", "said"),
    [
        (fills_the_memory, TOO_MUCH),
        (asks_for_too_much, TOO_MUCH),
        (
            crashes,
            (
                "the export was ended by SIGSEGV ({uri}, prove): the model, or a library that "
                "runs it, crashed"
            ),
        ),
    ],
    ids=["fills the memory", "asks for too much", "crashes"],
)
def test_a_model_that_harms_its_process_is_one_line(
    predict: Callable[..., Any],
    said: str,
    save: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Exit status 1, the stage, and what to do; no bundle."""
    folder, arguments = with_own_predict(predict, save, tmp_path)

    status = main([*arguments, "--memory-limit-mb", str(MEGABYTES)])

    last = capfd.readouterr().err.splitlines()[-1]
    assert status == 1
    assert last.startswith("model-export: " + said.format(uri=folder))
    assert not (tmp_path / "out").exists()


def test_a_model_that_leaves_its_process_is_one_line(
    save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if all were well; no limit is needed for that, so it is tried in this process."""
    folder, arguments = with_own_predict(leaves, save, tmp_path)
    before = mlflow.get_tracking_uri()
    try:
        status = main(arguments, within_limits=True)
    finally:
        registry.connect(before)

    last = capsys.readouterr().err.splitlines()[-1]
    assert status == 1
    said = f"model-export: {folder}, prove: the model ended the process with status 0: remove"
    assert last.startswith(said)
    assert not (tmp_path / "out").exists()


def with_own_predict(
    predict: Callable[..., Any], save: Callable[..., Path], tmp_path: Path
) -> tuple[Path, list[str]]:
    """A saved model with this function as its `predict`, and the command line that exports it."""
    frame = pd.DataFrame(np.random.default_rng(3).normal(size=(200, 2)), columns=["a", "b"])
    model = LogisticRegression().fit(frame, frame["a"] > 0)
    folder = save(model, frame, serialization_format="cloudpickle")
    predict.__module__ = "__main__"  # so that it is pickled whole
    model.predict = types.MethodType(predict, model)
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(model))
    arguments = [
        "export",
        str(folder),
        "--out",
        str(tmp_path / "out"),
        "--tracking-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
    ]
    return folder, arguments


def test_the_limit_counts_child_processes() -> None:
    """A model may start some."""
    script = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(100 << 20); "
        "input()'], stdin=sys.stdin)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        while limits.resident_mb(process.pid) < 100:
            assert process.poll() is None
        process.communicate(b"\n")
    assert limits.resident_mb(process.pid) == 0


def test_what_it_does_when_it_is_killed_is_known() -> None:
    """The last stage is known, however many were before; what a signal does is a sentence."""
    script = (
        "import os, signal, sys; from model_export import limits, stages; limits.restrict(1000, "
        "os.getppid())\n"
        "for i in range(20000): stages.enter(f'stage {i} ' + 'x' * 50)\n"
        "stages.enter('last'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = limits.Supervised([sys.executable, "-c", script])
    ended = child.wait(1000, tick=lambda: None)

    assert (ended.status, ended.limit_exceeded) == (-signal.SIGKILL, "")
    assert ended.stage.startswith(("last", "stage "))
    assert "the export was ended by SIGKILL" in limits.killed_message(ended, 1000)
    assert "no memory left before the limit of 1,000 MB" in limits.killed_message(ended, 1000)


def test_the_limit_is_what_the_machine_or_its_group_has(tmp_path: Path) -> None:
    """Of both versions of control groups, and of the groups around this one; "max" is none."""
    new, old = tmp_path / "new", tmp_path / "old"
    (new / "a/b").mkdir(parents=True)
    (new / "memory.max").write_text("max\n")
    (new / "a/memory.max").write_text(f"{2 << 30}\n")
    (new / "a/b/memory.max").write_text(f"{3 << 30}\n")
    (old / "memory/a").mkdir(parents=True)
    (old / "memory/memory.limit_in_bytes").write_text(f"{(1 << 63) - 4096}\n")
    (old / "memory/a/memory.limit_in_bytes").write_text(f"{1 << 30}\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/a/b\n")

    assert limits._group_bytes(new, membership) == [3 << 30, 2 << 30]
    membership.write_text("7:cpu:/x\n5:memory:/a\n")
    assert limits._group_bytes(old, membership) == [1 << 30]
    assert limits._group_bytes(tmp_path, tmp_path / "nothing") == []
    assert limits.LEAST_MB <= limits.default_mb() <= limits.MOST_MB


def test_the_variable_sets_the_limit_and_the_flag_wins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for the watch."""
    from model_export import __main__

    seen: list[int] = []
    monkeypatch.setattr(
        __main__, "_within_limits", lambda arguments: seen.append(arguments.memory_limit_mb) or 0
    )
    main(["export", "x"])
    monkeypatch.setenv("MODEL_EXPORT_MEMORY_LIMIT_MB", "777")
    main(["export", "x"])
    main(["export", "x", "--memory-limit-mb", "888"])

    assert seen == [limits.default_mb(), 777, 888]
    monkeypatch.setenv("MODEL_EXPORT_MEMORY_LIMIT_MB", "much")
    with pytest.raises(SystemExit):
        main(["export", "x"])
    assert "'much', expected a whole number of megabytes, 64 or more" in capsys.readouterr().err


def test_compiled_modules_are_kept_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the environment forbids it: otherwise every export compiles its packages again.
    Once they are compiled, the environment's wish is respected."""
    for name in ("large", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(limits, "_COMPILED", ("large", "not_installed"))

    def imported(name: str) -> list[Path]:
        child = limits.Supervised([sys.executable, "-c", f"import {name}"])
        assert child.wait(1000).status == 0
        return list((tmp_path / name).glob("__pycache__/*.pyc"))

    assert len(imported("large")) == 1
    assert not imported("other")
    monkeypatch.setattr(limits, "_COMPILED", ("large", "other"))
    assert len(imported("other")) == 1
