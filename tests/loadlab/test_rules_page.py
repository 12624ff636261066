"""docs/loadlab-rules.md says what the rules and the criteria say.

`uv run python tests/loadlab/test_rules_page.py` writes its tables again.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from loadlab.record.schema import Thresholds, criteria
from loadlab.verdict.check import Check
from loadlab.verdict.rules import RULES
from support.runs import fresh
from support.turns import FULL, over_real_noise

PAGE = Path(__file__).parents[2] / "docs" / "loadlab-rules.md"


def _rules_table() -> str:
    thresholds = msgspec.to_builtins(criteria().rules)
    rows = [
        "| rule | why | threshold | a PASS needs | a FAIL needs | why not all | what to do |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for rule in RULES:
        mine = [
            f"`{name}` {value:g}"
            for name, value in thresholds.items()
            if name.startswith(f"{rule.name.lower()}_")
        ]
        checks = rule.look(fresh().log(), criteria().rules)
        needed = [_needed(checks, "pass_needs"), _needed(checks, "fail_needs")]
        remedy = f"{rule.remedy}; with `engine=raw`: {rule.raw}" if rule.raw else rule.remedy
        assert bool(rule.spares) == (needed != ["all", "all"]), f"{rule.name}: say why, or nothing"
        rows.append(
            f"| {rule.name} {rule.title} | {rule.why} | {', '.join(mine) or 'none'} | "
            f"{' | '.join(needed)} | {rule.spares or '–'} | {remedy} |"
        )
    return "\n".join(rows)


def _needed(checks: Sequence[Check], by: str) -> str:
    needed = [check.what for check in checks if getattr(check, by)]
    return "all" if len(needed) == len(checks) else ", ".join(needed) or "nothing"


def _objective_table() -> str:
    usual, overload = (msgspec.to_builtins(criteria(name).objective) for name in ("", "overload"))
    rows = ["| line | every scenario | overload |", "| --- | ---: | ---: |"]
    rows += [f"| `{name}` | {_word(usual[name])} | {_word(overload[name])} |" for name in usual]
    return "\n".join(rows)


def _turns_table() -> str:
    """Whom V15 accuses."""
    said = {0.0: "none: an honest server", FULL: "full, over 1,000 µs of 1,080 µs a request"}
    rows = ["| cache | accused, of 100 runs |", "| --- | ---: |"]
    rows += [
        f"| {said.get(saving, f'saves {saving:.0%} of the CPU time')} | {100 * share:.0f} |"
        for saving, share in over_real_noise().items()
    ]
    return "\n".join(rows)


def _word(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _between(text: str, name: str, table: str) -> str:
    return re.sub(
        rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)",
        lambda _: f"{table}\n",
        text,
        flags=re.DOTALL,
    )


def _rewritten() -> str:
    tables = {"rules": _rules_table(), "turns": _turns_table(), "objective": _objective_table()}
    text = PAGE.read_text()
    for name, table in tables.items():
        text = _between(text, name, table)
    return text


def test_the_page_has_every_rule_with_its_reason_and_threshold():
    """Word for word the tables of code and criteria."""
    assert PAGE.read_text() == _rewritten()


def test_every_threshold_belongs_to_a_rule():
    """And there are 17 rules, in order."""
    assert [rule.name for rule in RULES] == [f"V{number}" for number in range(1, 18)]
    assert {name.split("_")[0].upper() for name in Thresholds.__struct_fields__} <= {
        rule.name for rule in RULES
    }


if __name__ == "__main__":
    PAGE.write_text(_rewritten())
