"""The raw engine: one process, one epoll loop (`loadlab.generator.epoll.crowd`), for
rates that Locust cannot drive on the cores there are."""

from collections.abc import Sequence
from pathlib import Path

from loadlab.generator.process import Part, load_file, python, steer_file, ticks_file


def parts(folder: Path, cpus: Sequence[frozenset[int]]) -> list[Part]:
    """The one process."""
    command = [
        python(),
        "-m",
        "loadlab.generator.epoll.crowd",
        str(load_file(folder)),
        str(ticks_file(folder)),
        str(steer_file(folder)),
    ]
    return [Part("raw", "generator", command, cpus[0])]
