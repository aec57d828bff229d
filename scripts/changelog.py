"""Move the fragments of changelog.d/ into CHANGELOG.md, under a heading for a release.

python scripts/changelog.py VERSION
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("added", "changed", "fixed", "removed")
TITLE = "# Changelog\n"


def main() -> int:
    """Write the release's section and remove the fragments."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    fragments = sorted(path for path in (ROOT / "changelog.d").glob("*.md") if path.name != "README.md")
    strangers = [path.name for path in fragments if path.name.split(".")[-2] not in KINDS]
    if strangers or not fragments:
        print(f"not one of {', '.join(KINDS)}: {strangers}" if strangers else "no fragments", file=sys.stderr)
        return 1
    section = [f"## {sys.argv[1]} ({datetime.now(UTC):%Y-%m-%d})\n"]
    for kind in KINDS:
        entries = [" ".join(path.read_text().split()) for path in fragments if path.name.split(".")[-2] == kind]
        if entries:
            section.append(f"### {kind.capitalize()}\n\n" + "\n".join(f"- {entry}" for entry in entries) + "\n")
    changelog = ROOT / "CHANGELOG.md"
    older = changelog.read_text().removeprefix(TITLE) if changelog.exists() else ""
    changelog.write_text(TITLE + "\n" + "\n".join(section) + older)
    for path in fragments:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
