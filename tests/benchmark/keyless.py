# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the module takes to look at 1,000 repositories without their passwords. The limit: 2 seconds.

Makes repositories as a rest-server keeps them (256 data directories each are left out: nobody looks into them) and runs
the module as a process of its own, as on a host.

    .venv/bin/python -m tests.benchmark.keyless [REPOSITORIES [SNAPSHOTS]]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmark.limits import Verdict

ROOT = Path(__file__).resolve().parents[2]
RUNS = 5


def make(path: Path, snapshots: int) -> None:
    """Make a repository with one key, one index, one lock and so many snapshots, one a day."""
    now = time.time()
    files = {"keys": 1, "index": 1, "locks": 1, "snapshots": snapshots}
    for part, count in files.items():
        (path / part).mkdir(parents=True)
        for number in range(count):
            file = path / part / f"{number:064x}"
            file.write_bytes(b"x" * 100)
            os.utime(file, (now - number * 86400, now - number * 86400))
    (path / "data" / "00").mkdir(parents=True)
    (path / "config").write_bytes(b"x" * 155)


def measure(directory: Path, repositories: int) -> float:
    """Return the seconds of one execution; what it finds is checked."""
    arguments = {"ANSIBLE_MODULE_ARGS": {"repository": str(directory), "keyless": True}}
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".collections")}
    argv = [sys.executable, "-m", "ansible_collections.holdfast.backup.plugins.modules.repository_info"]
    started = time.perf_counter()
    done = subprocess.run(
        argv, input=json.dumps(arguments), env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    seconds = time.perf_counter() - started
    found = json.loads(done.stdout)["repositories"]
    if len(found) != repositories or any(each["state"] != "present" for each in found):
        raise SystemExit(f"{len(found)} repositories were found, not {repositories} that are present")
    return seconds


def main() -> int:
    """Print the median."""
    repositories = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    snapshots = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(repositories):
            make(Path(scratch) / f"client{number:04}--vault", snapshots)
        median = statistics.median(measure(Path(scratch), repositories) for _run in range(RUNS))
    verdict = Verdict()
    judged = verdict.of({"s for 1,000 repositories": median}) if repositories == 1000 else "not judged"
    print(f"keyless: {repositories} repositories of {snapshots} snapshots: {median:.2f} s (median of {RUNS}); {judged}")
    return verdict.end()


if __name__ == "__main__":
    sys.exit(main())
