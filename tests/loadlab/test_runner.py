"""The runner of experiments: the order of the cells, what is stored when, and what goes on where it
was cut off."""

import io
from typing import Literal

import msgspec
import pytest
from rich.console import Console

from loadlab.experiments import runner
from loadlab.experiments.runner import Experiment
from loadlab.record.machine import Calibration
from loadlab.record.store import StoreError
from support import runs

SLOW = Calibration(python_mops=1.0, syscalls_per_s=1.0, loopback_per_s=1.0, score=0.1)


class Squares(Experiment[int], frozen=True, kw_only=True):
    """The squares of some numbers."""

    kind: Literal["squares"] = "squares"
    numbers: list[int]

    @property
    def about(self) -> str:
        """How many."""
        return f"of-{len(self.numbers)}"


@pytest.fixture(scope="module")
def squares():
    """An experiment of which nothing has been measured."""
    return Squares(
        started_at="2026-01-02T03:04:05Z",
        command="just squares",
        seed=1,
        fingerprint=runs.made().log().run.fingerprint,
        numbers=[1, 2, 3],
    )


def left(experiment: Squares) -> list[int]:
    """The numbers that have no square yet."""
    return experiment.numbers[len(experiment.rows) :]


def test_the_order_in_a_block_is_drawn_from_the_seed():
    """For each block, the same for the same seed; what is done is left out, and moves nothing."""
    cells = ["a", "b", "c", "d"]
    drawn = runner.in_blocks(cells, 5, seed=1)

    assert drawn == runner.in_blocks(cells, 5, seed=1) != runner.in_blocks(cells, 5, seed=2)
    orders = [[cell for block, cell in drawn if block == number] for number in range(1, 6)]
    assert all(sorted(order) == cells for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert (
        runner.in_blocks(cells, 5, 1, lambda block, cell: (block, cell) in drawn[:7]) == drawn[7:]
    )


def test_every_row_is_stored_at_once_and_one_that_was_cut_off_continues(squares, tmp_path):
    """The cell that was being measured is measured again; neither a dirty checkout nor a slower
    hour is another experiment, other numbers or other code are."""
    fresh, file = runner.kept(squares, tmp_path)
    measured: list[int] = []

    def dying(number: int) -> int:
        measured.append(number)
        if measured == [1, 2]:
            raise KeyboardInterrupt
        return number * number

    with pytest.raises(KeyboardInterrupt):
        runner.run(fresh, left, dying, file=file, show=lambda *_: None)
    dirty = msgspec.structs.replace(squares.fingerprint, dirty=True, calibration=SLOW)
    later = msgspec.structs.replace(squares, started_at="2027", command="", fingerprint=dirty)
    part, again = runner.kept(later, tmp_path)
    assert (part.rows, part.started_at, again) == ([1], squares.started_at, file)
    for other in ({"numbers": [4]}, {"inputs": "changed"}, {"seed": 2}):
        assert runner.kept(msgspec.structs.replace(squares, **other), tmp_path)[0].rows == []

    other = msgspec.structs.replace(squares, numbers=[1, 2])
    assert runner.kept(other, tmp_path, aside=["numbers"])[1].name != file.name
    assert (
        runner.kept(other, tmp_path, aside=["numbers"])[1]
        == (
            runner.kept(
                msgspec.structs.replace(other, numbers=[3, 4]), tmp_path, aside=["numbers"]
            )[1]
        )
    )

    whole = runner.run(part, left, dying, file=file, show=lambda *_: None)
    assert whole.rows == [1, 4, 9]
    assert measured == [1, 2, 2, 3]
    assert runner.load(file, Squares) == whole
    assert runner.kept(squares, tmp_path, again=True)[0] == squares
    assert not file.exists()


def test_it_is_stored_under_its_time_kind_and_matter(squares, tmp_path):
    """And read as what it is: another kind or another format is refused."""
    file = runner.save(squares, tmp_path)

    assert file.name == "2026-01-02-030405-squares-of-3.json"
    assert runner.load(file, Squares) == squares
    other = msgspec.structs.replace(squares, format=7)
    with pytest.raises(StoreError, match="format is 7, expected 2"):
        runner.load(runner.save(other, tmp_path), Squares)
    file = runner.save(squares, tmp_path)
    file.write_text(file.read_text().replace('"squares"', '"cubes"'))
    with pytest.raises(StoreError, match="kind"):
        runner.load(file, Squares)


def test_the_progress_says_what_is_next_and_how_much_is_left(squares, tmp_path):
    """Before every cell."""
    console = Console(file=io.StringIO(), width=120)
    show = runner.progress(console, lambda number: f"number {number}")

    runner.run(squares, left, lambda number: number, file=tmp_path / "kept.json", show=show)

    lines = console.file.getvalue().splitlines()
    assert [line[:8] for line in lines] == ["number 1", "number 2", "number 3"]
    assert ["0/3" in lines[0], "1/3" in lines[1], "2/3" in lines[2]] == [True] * 3
