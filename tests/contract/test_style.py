"""The words of docs/style.md that are not used in their private meanings stand nowhere in the server, the exporter and the pages."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = (
    "server/",
    "model_export/",
    "docs/",
    "README.md",
    "CONTRIBUTING.md",
    "compose/README.md",
)
APART = (
    "docs/style.md",  # the page itself
    "docs/runs/",  # stored
    "docs/decisions/",  # kept as they were written
    "docs/benchmarks.md",  # this and the next three are written by the load lab from its records
    "docs/comparison.md",
    "docs/search.md",
    "docs/loadlab-rules.md",
)


def unwanted() -> re.Pattern[str]:
    """The words in the left column of the page's last table."""
    page = (ROOT / "docs/style.md").read_text()
    table = page.partition("## Words")[2].partition("## Code")[0].rpartition("| not | but |")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    words = [word.strip() for row in rows for word in row.split(",")]
    assert len(words) > 10
    return re.compile(rf"\b({'|'.join(words)})\b", re.IGNORECASE)


def test_unwanted_words_are_not_used() -> None:
    """In code, comments, messages and pages."""
    files = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pattern = unwanted()
    found = [
        f"{file}:{number}: {line.strip()[:120]}"
        for file in files
        if file.startswith(PLACES) and not file.startswith(APART)
        for number, line in enumerate((ROOT / file).read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)
