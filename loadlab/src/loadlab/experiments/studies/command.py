"""`loadlab seeds`, `scale` and `quota-study`: words in, stored rows and what they say out; exit
codes as `loadlab compare`."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from loadlab.experiments.compare.carry import Interrupted, store_of
from loadlab.experiments.studies import carry, form, quota, scale, seeds
from loadlab.experiments.studies.form import Cell, What
from loadlab.generator.scenarios import ScenarioError
from loadlab.pages.studies import sentences
from loadlab.report.command import STORE
from loadlab.run import session
from loadlab.run.arguments import UsageError
from loadlab.run.command import INFRASTRUCTURE, INTERRUPTED, USAGE
from loadlab.run.session import Busy, Place
from loadlab.target import cgroup
from loadlab.target.serving import BackendFailed

COMMANDS = form.KINDS
_LOAD = ("duration", "engine", "seed")
_COMMON = {"duration": "30s", "engine": "raw", "seed": "1", "fresh": "no"}
_OWN: dict[What, dict[str, str]] = {
    "seeds": {"only": "", "against": "typical", "blocks": "1"},
    "scale": {"scenario": "course", "users": "", "model": "iris", "blocks": "3"},
    "quota-study": {"model": "iris", "blocks": "3"},
}
_HELP: dict[What, str] = {
    "seeds": "what the course projects reported, with halfcore and a baseline in the same limits",
    "scale": "one replica against several behind HAProxy, at equal CPU and memory in all",
    "quota-study": (
        "the CPU quota's period and burst, and what keep-alive does to replicas behind a balancer"
    ),
}
_RIVALS = ("typical", "tuned", "onnx")


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    for what in COMMANDS:
        words = ", ".join(_COMMON | _OWN[what])
        commands.add_parser(what, help=_HELP[what]).add_argument(
            "words", nargs="*", metavar="KEY=VALUE", help=f"of {words}"
        )


def main(asked: argparse.Namespace, root: Path, console: Console) -> int:
    """Carry one out, or continue one that was cut off; returns the exit code: 0 whatever the
    verdicts, 3 wrong usage, 4 no run, 130 interrupted."""
    what: What = asked.command
    store = store_of(root)
    try:
        words = parse(what, asked.words)
        command = " ".join([f"just {what}", *asked.words])
        cgroup.version()
        with session.alone(root):
            fresh = carry.begin(
                what,
                cells(what, words),
                blocks=int(words["blocks"]),
                seed=int(words["seed"]),
                command=command,
                root=root,
            )
            study = fresh if words["fresh"] == "yes" else form.to_go_on(store, fresh)
            if study.rows:
                _say(
                    console,
                    f"continuing the study of {study.started_at}: {study.missing} runs are "
                    "missing (fresh=yes starts again)",
                )
            place = Place(root, root / ".halfcore/bundles", root / STORE)
            found = carry.carry_out(
                study, place, store, console, say=lambda line: _say(console, line)
            )
    except (UsageError, ScenarioError) as error:
        _say(console, f"loadlab: {error}")
        return USAGE
    except (Busy, BackendFailed, cgroup.Unavailable) as error:
        _say(console, f"loadlab: {error}")
        return INFRASTRUCTURE
    except Interrupted:
        _say(console, f"interrupted; `just {what}` with the same words continues it")
        return INTERRUPTED
    for line in [
        *sentences(found),
        f"stored in {form.save(found, store)}; `loadlab render` shows it in docs/benchmarks.md",
    ]:
        _say(Console(), line)
    return 0


def parse(what: What, words: Sequence[str]) -> dict[str, str]:
    """The words of a study with the defaults filled in; raises `UsageError`. What `just load` knows
    too is checked there."""
    known = _COMMON | _OWN[what]
    found = dict(known)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in known:
            raise UsageError(f"{word}: unknown; expected key=value with one of {', '.join(known)}")
        found[key] = value
    if not found["blocks"].isdecimal() or not 1 <= int(found["blocks"]) <= 100:
        raise UsageError(
            f"blocks={found['blocks']} is invalid: expected a whole number from 1 to 100"
        )
    if found["fresh"] not in {"yes", "no"}:
        raise UsageError(f"fresh={found['fresh']} is invalid: expected yes or no")
    if found.get("against", "typical") not in _RIVALS:
        raise UsageError(f"against={found['against']} is unknown; there are {', '.join(_RIVALS)}")
    return found


def cells(what: What, words: Mapping[str, str]) -> list[Cell]:
    """The cells of a study; raises `UsageError`, `ScenarioError`."""
    load = {key: words[key] for key in (*_LOAD, "scenario", "users", "model") if key in words}
    if what == "seeds":
        return seeds.cells(seeds.choose(seeds.read(), words["only"]), load, words["against"])
    return scale.cells(load) if what == "scale" else quota.cells(load)


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
