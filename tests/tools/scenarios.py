"""Run molecule scenarios on real hosts, some at the same time: `make molecule`.

The list is the Makefile's MOLECULE_SCENARIOS; a folder of molecule/ that it lacks is an error, so none is forgotten.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.lab.scenario import OWNER

from .jobs import ROOT, Job, Runner

# Seconds that one scenario may take.
LIMIT = 2000


def listed() -> list[str]:
    """The scenarios to run, all those that are there."""
    names = os.environ["MOLECULE_SCENARIOS"].split()
    there = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")}
    if there != set(names):
        sys.exit(f"MOLECULE_SCENARIOS and molecule/ differ in: {', '.join(sorted(there ^ set(names)))}")
    return names


def job(name: str) -> Job:
    """One scenario; its hosts are gone when it has ended."""
    return Job(
        name=f"molecule-{name}",
        command=[str(Path(sys.executable).parent / "molecule"), "test", "-s", name],
        limit=LIMIT,
        after=[str(ROOT / "tests/lab/lab"), "down", name],
        environment={OWNER: str(os.getpid()), "ANSIBLE_FORCE_COLOR": "0", "PY_COLORS": "0", "NO_COLOR": "1"},
    )


def main() -> int:
    """One scenario with its output as it comes, or all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenario", nargs="?", help="only this one")
    parser.add_argument("--command", default="test", help="test, converge, verify, destroy")
    options = parser.parse_args()
    if options.scenario:
        program = str(Path(sys.executable).parent / "molecule")
        command = [program, options.command, "-s", options.scenario]
        # Other commands leave the hosts up, to be looked at.
        owner = {OWNER: str(os.getpid())} if options.command == "test" else {}
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **owner}, check=False).returncode
    results = Runner(int(os.environ.get("MOLECULE_JOBS", "2"))).run([job(name) for name in listed()])
    return 1 if any(result.why for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
