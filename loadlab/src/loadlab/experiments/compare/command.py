"""`loadlab compare tier=half-core against=typical`: the words of `loadlab load`, and `against=` and
`blocks=`; exit codes as there.

Where `BASELINE_IMAGE` names an image, it is compared with that, and both sides run in containers.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import msgspec
from rich.console import Console

from loadlab.experiments.compare import form
from loadlab.experiments.compare.carry import Interrupted, carry_out, store_of
from loadlab.experiments.compare.effects import sentences
from loadlab.experiments.compare.form import Side
from loadlab.generator import scenarios
from loadlab.generator.scenarios import Scenario, ScenarioError
from loadlab.pages.experiments import compare_table
from loadlab.report.command import STORE
from loadlab.run import arguments, session
from loadlab.run.arguments import Order, UsageError
from loadlab.run.command import INFRASTRUCTURE, INTERRUPTED, USAGE
from loadlab.run.session import Busy, Place
from loadlab.target import cgroup, compose, tiers
from loadlab.target.docker import no_container
from loadlab.target.serving import BackendFailed
from loadlab.target.tiers import Tier, TierError

_OWN = {"against": "typical", "blocks": "5"}
_NOT_HERE = ("target", "allow-host", "repeats", "web", "backend")
_KEYS = (*(key for key in arguments.KEYS if key not in _NOT_HERE), *_OWN)
_RIVALS = tuple(side for side in get_args(Side) if side != "halfcore")


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    compare = commands.add_parser(
        "compare", help="halfcore and a baseline in one tier, in blocks of random order"
    )
    compare.add_argument("words", nargs="*", metavar="KEY=VALUE", help=f"of {', '.join(_KEYS)}")


def main(asked: argparse.Namespace, root: Path, console: Console) -> int:
    """Carry it out and store it; returns the exit code: 0 however it went for either side, 3 wrong
    usage, 4 no run, 130 interrupted."""
    try:
        known, workloads = tiers.read(root / tiers.FILE, os.environ), scenarios.read()
        order, against, blocks = parse(
            asked.words, known, workloads, image=os.environ.get("BASELINE_IMAGE", "")
        )
        if against == "image":
            _need_containers(order, root)
        else:
            cgroup.version()
        place = Place(root, root / ".halfcore/bundles", root / STORE)
        command = " ".join(["just compare", *asked.words])
        with session.alone(root):
            found = carry_out(
                order,
                against,
                blocks,
                place,
                console,
                command=command,
                say=lambda line: _say(console, line),
            )
    except (UsageError, TierError, ScenarioError) as error:
        _say(console, f"loadlab: {error}")
        return USAGE
    except (Busy, BackendFailed, cgroup.Unavailable) as error:
        _say(console, f"loadlab: {error}")
        return INFRASTRUCTURE
    except Interrupted:
        return INTERRUPTED
    stored = form.save(found, store_of(root))
    Console().print(compare_table(found))
    for sentence in [
        *sentences(found),
        f"stored in {stored}; `loadlab render` shows it in docs/benchmarks.md",
    ]:
        _say(Console(), sentence)
    return 0


def parse(
    words: Sequence[str],
    known: Mapping[str, Tier],
    workloads: Mapping[str, Scenario],
    *,
    image: str = "",
) -> tuple[Order, Side, int]:
    """Order, baseline and number of blocks; raises `UsageError`, `TierError`, `ScenarioError`.

    Args:
        image: what `against=image` is, and then the default of `against=`.
    """
    own = (
        _OWN
        | ({"against": "image"} if image else {})
        | {key: value for key, _, value in (word.partition("=") for word in words) if key in _OWN}
    )
    rest = [word for word in words if word.partition("=")[0] not in _OWN]
    if refused := [word for word in rest if word.partition("=")[0] in _NOT_HERE]:
        raise UsageError(
            f"{refused[0]}: a comparison starts its own servers, each in its own control group"
        )
    if own["against"] not in _RIVALS:
        raise UsageError(f"against={own['against']} is unknown; there are {', '.join(_RIVALS)}")
    if own["against"] == "image" and not image:
        raise UsageError("against=image: BASELINE_IMAGE is not set, expected an image's name")
    if not own["blocks"].isdecimal() or not 1 <= int(own["blocks"]) <= 100:
        raise UsageError(
            f"blocks={own['blocks']} is invalid: expected a whole number from 1 to 100"
        )
    in_containers = own["against"] == "image"
    backend = f"backend={'compose' if in_containers else 'cgroup'}"
    order = arguments.parse([*rest, backend], known, workloads, offered=_KEYS)
    if in_containers and order.balancer != "none":
        raise UsageError(
            "balancer= is for processes of the lab; an image and the server that it is compared "
            "with are containers"
        )
    order = msgspec.structs.replace(order, image=image if in_containers else "")
    return order, own["against"], int(own["blocks"])  # type: ignore[return-value]  # one of _RIVALS


def _need_containers(order: Order, root: Path) -> None:
    """Both sides are containers, or neither: a bridge costs what loopback does not."""
    if reason := no_container(root, order.image) or compose.missing(order.tier, root):
        raise BackendFailed(f"BASELINE_IMAGE={order.image}: {reason}")


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
