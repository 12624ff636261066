"""docs/loadlab-rules.md says what the rules and the criteria say.

`uv run python tests/loadlab/test_rules_page.py` writes its tables again.
"""

import re
import sys
from pathlib import Path

import msgspec

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from loadlab.criteria import Thresholds, criteria
from loadlab.verdict.rules import RULES
from support.runs import fresh

PAGE = Path(__file__).parents[2] / "docs" / "loadlab-rules.md"


def _rules_table() -> str:
    thresholds = msgspec.to_builtins(criteria().rules)
    rows = ["| rule | why | threshold | needed by |", "| --- | --- | --- | --- |"]
    for rule in RULES:
        mine = [
            f"`{name}` {value:g}"
            for name, value in thresholds.items()
            if name.startswith(f"{rule.name.lower()}_")
        ]
        checks = rule.look(fresh().log(), criteria().rules)
        clearing = [check.what for check in checks if check.clears]
        if len(clearing) == len(checks):
            needed = "FAIL and PASS"
        else:
            needed = f"PASS; of these FAIL too: {', '.join(clearing)}" if clearing else "PASS"
        rows.append(
            f"| {rule.name} {rule.title} | {rule.why} | {', '.join(mine) or 'none'} | {needed} |"
        )
    return "\n".join(rows)


def _objective_table() -> str:
    usual, overload = (msgspec.to_builtins(criteria(name).objective) for name in ("", "overload"))
    rows = ["| line | every scenario | overload |", "| --- | ---: | ---: |"]
    rows += [f"| `{name}` | {_word(usual[name])} | {_word(overload[name])} |" for name in usual]
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
    return _between(
        _between(PAGE.read_text(), "rules", _rules_table()), "objective", _objective_table()
    )


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
