"""What a job's unit adds to restic or borg itself, on one lab host.

    .venv/bin/python -m tests.benchmark.unit [--engine borg] [--megabytes 1200] [--runs 3]

For a first backup of so much data and for one that has nothing new, the engine's own command is run bare (as root, by hand)
and by the unit, in turn, into two fresh local repositories each time; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.benchmark.site import play
from tests.lab import Lab

HOST = "u1"
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


@dataclass(frozen=True)
class Engine:
    """How a repository is made and backed up into by hand, with what `compression: max` of the job is."""

    environment: str
    init: str
    backup: str


ENGINES = {
    "restic": Engine(
        f"RESTIC_PASSWORD=x RESTIC_REPOSITORY={BARE} RESTIC_CACHE_DIR={BARE}-cache",
        "restic init",
        f"restic backup --json --compression=max --host={HOST} --tag=job:load --group-by=host,tags -- {DATA}",
    ),
    "borg": Engine(
        f"BORG_PASSPHRASE=x BORG_REPO={BARE} BORG_BASE_DIR={BARE}-cache",
        "borg init --encryption=repokey-blake2",
        f"borg create --compression=auto,zstd,19 '::{{now:%H%M%S.%f}}' {DATA}",
    ),
}


class Bench:
    """One host with one job into a repository of its own for each run."""

    def __init__(self, lab: Lab, folder: Path, engine: str) -> None:
        self.lab = lab
        self.folder = folder
        self.name = engine
        self.engine = ENGINES[engine]

    def sh(self, script: str, timeout: float = 1800) -> str:
        """Run a script on the host."""
        return str(self.lab.exec(HOST, ["sh", "-ec", script], timeout=timeout, check=True).stdout)

    def seconds(self, script: str) -> float:
        """How long a script takes on the host."""
        timed = f"begun=$(date +%s%N); {script} >/dev/null 2>&1; echo $(( $(date +%s%N) - begun ))"
        return int(self.sh(timed).split()[-1]) / 1e9

    def provision(self, files: int, runs: int) -> None:
        """The data, and the run of the playbook."""
        inventory = self.lab.inventory({"backup_clients": [HOST]})
        inventory["all"]["vars"] |= {
            "backup_escrow": {"mode": "none"},
            "backup_repositories": {f"run{run}": {"engine": self.name, "access": "local"} for run in range(runs)},
            "backup_jobs": {
                "load": {
                    "paths": [DATA],
                    "compression": "max",
                    # Not while it is measured.
                    "schedule": {"calendar": "*-02-29 12:00"},
                }
            },
        }
        (self.folder / "inventory.yml").write_text(json.dumps(inventory))
        self.lab.exec(HOST, ["python3", "-"], input=(MAKE % files).encode(), timeout=1800, check=True)
        play(self.folder, "holdfast.backup.site")

    def bare(self) -> float:
        """Seconds of the engine's own command."""
        return self.seconds(f"env {self.engine.environment} {self.engine.backup}")

    def pairs(self, run: int) -> list[tuple[float, float]]:
        """A first backup and one that has nothing new, each bare and by the unit."""
        self.sh(f"rm -rf {BARE} {BARE}-cache; env {self.engine.environment} {self.engine.init}; sync")
        unit = f"systemctl start holdfast-load--run{run}.service"
        return [(self.bare(), self.seconds(unit)) for _backup in range(2)]


def main() -> int:
    """Print a line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=list(ENGINES), default="restic")
    parser.add_argument("--megabytes", type=int, default=1200)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    lab = Lab("bench-unit")
    try:
        lab.up([f"{HOST}=trixie:layer=restic+borg"], owner=os.getpid())
        bench = Bench(lab, folder, arguments.engine)
        bench.provision(arguments.megabytes // 10, arguments.runs)
        print(f"{arguments.engine:28}{'bare s':>10}{'unit s':>10}{'added s':>10}{'added %':>10}", flush=True)
        taken = [bench.pairs(run) for run in range(arguments.runs)]
        for number, name in enumerate(("first", "nothing new")):
            bare, unit = (statistics.median(pairs[number][side] for pairs in taken) for side in (0, 1))
            share = 100 * (unit - bare) / bare
            print(f"{name:28}{bare:10.2f}{unit:10.2f}{unit - bare:10.2f}{share:10.1f}", flush=True)
    finally:
        lab.down()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
