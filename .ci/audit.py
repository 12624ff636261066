"""Known vulnerabilities of what is locked: `just audit`. Looks at all of the workspace, at what
each image holds, and at the baseline's own lock.

Exit codes: 0 none is known, 1 some are, 3 the database could not be asked, so nothing is known.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOT_ASKED = 3
REMEDY = (
    "run it where pypi.org can be reached, or ask another service: "
    "just audit --vulnerability-service osv"
)
EXPORT = ["uv", "export", "--frozen", "--quiet", "--no-emit-workspace", "--no-header"]
EXPORTER = ["--no-extra", "export"]  # it has an image of its own
SETS = {
    "workspace": ["--all-packages", "--all-extras", "--all-groups"],
    "image halfcore": ["--package", "halfcore", "--no-dev", "--all-extras", *EXPORTER],
    "image halfcore-export": ["--package", "halfcore-export", "--no-dev", "--all-extras"],
    "image halfcore-mlflow": ["--package", "halfcore-export", "--only-group", "mlflow-server"],
    "image halfcore-loadlab": ["--package", "halfcore-loadlab", "--no-dev"],
    "image halfcore-baseline": ["--project", "loadlab/baseline", "--no-default-groups"],
}
"""Name → options of `uv export`; those of the images are the Dockerfile's, with every extra."""
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def pins(options: list[str]) -> set[tuple[str, str]]:
    """Name and version of each package in a set."""
    found = subprocess.run(  # noqa: S603  our own options
        [*EXPORT, "--no-hashes", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        sys.exit(f"audit: uv cannot export {' '.join(options)}: {found.stderr.strip()}")
    return set(_PIN.findall(found.stdout))


def ask(wanted: set[tuple[str, str]]) -> list[dict[str, Any]] | None:
    """What the database says about packages, by pip-audit; None if it did not answer."""
    rounds: list[set[tuple[str, str]]] = []
    for name, version in sorted(wanted):  # one version of a package at a time
        for one in rounds:
            if name not in {known for known, _ in one}:
                one.add((name, version))
                break
        else:
            rounds.append({(name, version)})
    said: list[dict[str, Any]] = []
    for one in rounds:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.writelines(f"{name}=={version}\n" for name, version in sorted(one))
            file.flush()
            command = ["pip-audit", "--requirement", file.name, "--no-deps", "--disable-pip"]
            found = subprocess.run(  # noqa: S603
                [*command, "--format", "json", "--progress-spinner", "off", *sys.argv[1:]],
                capture_output=True,
                text=True,
                check=False,
            )
        try:
            said += json.loads(found.stdout)["dependencies"]
        except (ValueError, KeyError, TypeError):
            last = (found.stderr.strip() or "no answer").splitlines()[-1]
            sys.stdout.write(f"audit: the database of vulnerabilities was not asked: {last}\n")
            return None
    return said


def main() -> int:
    """Ask and report; the exit code."""
    sets = {name: pins(options) for name, options in SETS.items()}
    wanted = set().union(*sets.values())
    said = ask(wanted)
    if said is None:
        sys.stdout.write(f"audit: nothing is known about these {len(wanted)} packages; {REMEDY}\n")
        return NOT_ASKED
    vulnerable = [one for one in said if one.get("vulns")]
    for one in vulnerable:
        pin = (one["name"], one["version"])
        where = ", ".join(name for name, held in sets.items() if pin in held)
        for fault in one["vulns"]:
            fixed = ", ".join(fault.get("fix_versions") or []) or "none yet"
            sys.stdout.write(f"{pin[0]} {pin[1]}: {fault['id']}, fixed in {fixed}; in: {where}\n")
    skipped = sorted({one["name"] for one in said if "skip_reason" in one})
    if skipped:
        sys.stdout.write(
            f"audit: nothing is known about {len(skipped)} of {len(wanted)} packages, which the "
            f"database did not find: {', '.join(skipped[:5])}…; {REMEDY}\n"
        )
    if vulnerable:
        sys.stdout.write(
            f"audit: {len(vulnerable)} of {len(wanted)} packages have known vulnerabilities: raise "
            "their versions in uv.lock\n"
        )
        return 1
    if skipped:
        return NOT_ASKED
    sys.stdout.write(f"audit: none of {len(wanted)} packages has a known vulnerability\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
