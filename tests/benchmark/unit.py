"""What a job's unit adds to restic itself, on one lab host.

    .venv/bin/python -m tests.benchmark.unit [--megabytes 1200] [--runs 3]

For a backup that has nothing new and for a first backup of so much data, the same restic command is run bare (as root, by
hand) and by its unit, in turn, into two fresh local repositories; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from tests.benchmark.site import play
from tests.lab import Lab

HOST = "u1"
UNIT = "holdfast-load--local.service"
REPOSITORY = "/var/backups/holdfast/local"
BARE = "/var/tmp/bare"
DATA = "/srv/load"
# Text that zstd has to work for, so that the backup is long without much disk.
MAKE = f"""
import os, random
random.seed(1)
words = [bytes(random.choices(b"abcdefghijklmnopqrstuvwxyz", k=random.randint(3, 9))) for _ in range(5000)]
os.makedirs("{DATA}", exist_ok=True)
for number in range(%d):
    with open(f"{DATA}/{{number}}", "wb") as file:
        file.write((b" ".join(random.choices(words, k=2_000_000)))[: 10_000_000])
"""


class Bench:
    """One host with one job into the embedded local repository."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder

    def sh(self, script: str, timeout: float = 1800) -> str:
        """Run a script on the host."""
        return str(self.lab.exec(HOST, ["sh", "-ec", script], timeout=timeout, check=True).stdout)

    def seconds(self, script: str) -> float:
        """How long a script takes on the host."""
        timed = f"begun=$(date +%s%N); {script} >/dev/null 2>&1; echo $(( $(date +%s%N) - begun ))"
        return int(self.sh(timed).split()[-1]) / 1e9

    def provision(self, files: int) -> None:
        """The data, and the run of the playbook."""
        inventory = self.lab.inventory({"backup_clients": [HOST]})
        inventory["all"]["vars"]["backup_jobs"] = {"load": {"paths": [DATA], "compression": "max"}}
        (self.folder / "inventory.yml").write_text(json.dumps(inventory))
        self.lab.exec(HOST, ["python3", "-"], input=(MAKE % files).encode(), timeout=1800, check=True)
        play(self.folder, "holdfast.backup.site")

    def bare(self, repository: str) -> str:
        """The unit's own restic command, with another repository and without the unit."""
        return (
            f"RESTIC_PASSWORD=x RESTIC_REPOSITORY={repository} RESTIC_CACHE_DIR=/var/tmp/bare-cache"
            f" restic backup --json --compression=max --host={HOST} --tag=job:load --group-by=host,tags -- {DATA}"
        )

    def first(self) -> tuple[float, float]:
        """A first backup, bare and by the unit; both repositories are emptied of snapshots and data before."""
        self.sh(f"rm -rf {BARE} /var/tmp/bare-cache; RESTIC_PASSWORD=x restic init -r {BARE}")
        bare = self.seconds(self.bare(BARE))
        self.sh(f"cd {REPOSITORY}; find data index snapshots locks -type f -delete; rm -rf /var/cache/holdfast/*; sync")
        return bare, self.seconds(f"systemctl start {UNIT}")

    def unchanged(self) -> tuple[float, float]:
        """A backup that has nothing new."""
        return self.seconds(self.bare(BARE)), self.seconds(f"systemctl start {UNIT}")


def main() -> int:
    """Print a line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1200)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    lab = Lab("bench-unit")
    try:
        lab.up([f"{HOST}=trixie:layer=restic"], owner=os.getpid())
        bench = Bench(lab, folder)
        bench.provision(arguments.megabytes // 10)
        print(f"{'backup':28}{'bare s':>10}{'unit s':>10}{'added s':>10}{'added %':>10}", flush=True)
        for name, compared in (("first", bench.first), ("nothing new", bench.unchanged)):
            pairs = [compared() for _run in range(arguments.runs)]
            bare, unit = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
            share = 100 * (unit - bare) / bare
            print(f"{name:28}{bare:10.2f}{unit:10.2f}{unit - bare:10.2f}{share:10.1f}", flush=True)
    finally:
        lab.down()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
