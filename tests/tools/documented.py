"""Read the documentation of every plugin and role of the installed collection, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

COLLECTION = "holdfast.backup"
KINDS = ("filter", "lookup", "module", "role")


def main() -> int:
    """List, show all, and compare with the files that were installed."""
    program = str(Path(sys.executable).parent / "ansible-doc")
    installed = Path(os.environ["ANSIBLE_COLLECTIONS_PATH"], "ansible_collections", *COLLECTION.split("."))
    wanted = {
        "module": {path.stem for path in (installed / "plugins/modules").glob("[!_]*.py")},
        "role": {path.name for path in (installed / "roles").iterdir()},
    }
    for kind in KINDS:
        listed = subprocess.run(
            [program, "-t", kind, "--list", "--json", COLLECTION], stdout=subprocess.PIPE, check=True, timeout=120
        ).stdout
        names = sorted(json.loads(listed))
        missing = wanted.get(kind, set()) - {name.removeprefix(f"{COLLECTION}.") for name in names}
        if missing or not names:
            print(f"{kind}: not documented: {', '.join(sorted(missing)) or 'none found'}")
            return 1
        subprocess.run([program, "-t", kind, *names], stdout=subprocess.DEVNULL, check=True, timeout=120)
        print(f"{kind}: {len(names)} documented")
    return 0


if __name__ == "__main__":
    sys.exit(main())
