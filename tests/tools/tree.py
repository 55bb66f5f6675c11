"""A copy of the collection as git knows it, for tools that would trip over environments and caches."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = "ansible_collections/holdfast/backup"


def copy(path: Path) -> Path:
    """Copy the files that git knows or would add to `PLACE` below `path`; returns that directory."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    tree = path / PLACE
    shutil.rmtree(tree, ignore_errors=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
    return tree


if __name__ == "__main__":
    copy(Path(sys.argv[1]))
