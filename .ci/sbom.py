"""Bills of materials of the lock in CycloneDX 1.5, made by uv: `just sbom`. One of the workspace
and one of each image's Python packages; the images carry another one of their system packages."""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from audit import ROOT, SETS


def main() -> int:
    """Write them to dist/, or to the named folder; 0."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"
    folder.mkdir(exist_ok=True)
    for name, options in SETS.items():
        command = ["uv", "export", "--frozen", "--quiet", "--preview-features", "sbom-export"]
        found = subprocess.run(  # noqa: S603  our own options
            [*command, "--format", "cyclonedx1.5", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode:
            sys.exit(f"sbom: uv cannot export {name}: {found.stderr.strip()}")
        parts = len(json.loads(found.stdout)["components"])
        file = folder / f"{name.removeprefix('image ')}.cdx.json"
        file.write_text(found.stdout)
        sys.stdout.write(f"{file.name}: {parts} components\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
