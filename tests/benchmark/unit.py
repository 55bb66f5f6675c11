"""What a job's unit adds to restic or borg itself, on one lab host.

    .venv/bin/python -m tests.benchmark.unit [--engine restic borg] [--megabytes 1200] [--runs 3]

For a first backup, of data enough to take more than a minute, and for one that has nothing new, the engine's own command is run
bare (as root, by hand) and by the unit, in turn, into two fresh local repositories each time; figures are medians.
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

from tests.benchmark.limits import Verdict
from tests.benchmark.site import play
from tests.lab import Lab

HOST = "u1"
BARE = "/var/tmp/bare"
DATA = "/srv/load"
MINUTE = 60
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
    """How a repository is made and backed up into by hand, with what `compression: max` of the job is.

    A first backup of so many megabytes takes about a minute on two processors.
    """

    environment: str
    init: str
    backup: str
    megabytes: int


ENGINES = {
    "restic": Engine(
        f"RESTIC_PASSWORD=x RESTIC_REPOSITORY={BARE} RESTIC_CACHE_DIR={BARE}-cache",
        "restic init",
        f"restic backup --json --compression=max --host={HOST} --tag=job:load --group-by=host,tags -- {DATA}",
        1200,
    ),
    "borg": Engine(
        f"BORG_PASSPHRASE=x BORG_REPO={BARE} BORG_BASE_DIR={BARE}-cache",
        "borg init --encryption=repokey-blake2",
        f"borg create --compression=auto,zstd,19 '::{{now:%H%M%S.%f}}' {DATA}",
        300,
    ),
}


class Bench:
    """One host with one job, into a repository of its own for each engine and run."""

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

    def provision(self, engines: list[str], runs: int) -> None:
        """Run the playbook."""
        inventory = self.lab.inventory({"backup_clients": [HOST]})
        inventory["all"]["vars"] |= {
            "backup_escrow": {"mode": "none"},
            "backup_repositories": {
                f"{engine}-run{run}": {"engine": engine, "access": "local"} for engine in engines for run in range(runs)
            },
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
        play(self.folder, "holdfast.backup.site")

    def fill(self, megabytes: int) -> None:
        """Make so much data anew."""
        self.sh(f"rm -rf {DATA}")
        self.lab.exec(HOST, ["python3", "-"], input=(MAKE % (megabytes // 10)).encode(), timeout=1800, check=True)

    def enough(self, name: str) -> None:
        """Make data that the engine by itself takes more than a minute for, on this machine."""
        engine = ENGINES[name]
        self.fill(engine.megabytes)
        taken = self.seconds(self.fresh(engine))
        if taken < 1.1 * MINUTE:
            self.fill(int(engine.megabytes * 1.25 * MINUTE / taken))

    def fresh(self, engine: Engine) -> str:
        """Make a new repository to back up into by hand, and return the command that does."""
        self.sh(f"rm -rf {BARE} {BARE}-cache; env {engine.environment} {engine.init}; sync")
        return f"env {engine.environment} {engine.backup}"

    def pairs(self, name: str, run: int) -> list[tuple[float, float]]:
        """A first backup and one that has nothing new, each bare and by the unit."""
        engine = ENGINES[name]
        bare = self.fresh(engine)
        unit = f"systemctl start holdfast-load--{name}-run{run}.service"
        return [(self.seconds(bare), self.seconds(unit)) for _backup in range(2)]


def judged(bare: float, unit: float) -> dict[str, float]:
    """What a unit may add: a share where the backup takes long, which is more than the second that it may add to others."""
    if bare < MINUTE:
        return {"s that a unit adds": unit - bare}
    return {"% that a unit adds to a minute or more": 100 * (unit - bare) / bare}


def main() -> int:
    """Print a line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=list(ENGINES), nargs="+", default=list(ENGINES))
    parser.add_argument("--megabytes", type=int)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    lab = Lab("bench-unit")
    verdict = Verdict()
    try:
        lab.up([f"{HOST}=trixie:layer=restic+borg"], owner=os.getpid())
        bench = Bench(lab, folder)
        bench.provision(arguments.engine, arguments.runs)
        for engine in arguments.engine:
            if arguments.megabytes:
                bench.fill(arguments.megabytes)
            else:
                bench.enough(engine)
            print(f"{engine:28}{'bare s':>10}{'unit s':>10}{'added s':>10}{'added %':>10}", flush=True)
            taken = [bench.pairs(engine, run) for run in range(arguments.runs)]
            for number, name in enumerate(("first", "nothing new")):
                bare, unit = (statistics.median(pairs[number][side] for pairs in taken) for side in (0, 1))
                share = 100 * (unit - bare) / bare
                said = verdict.of(judged(bare, unit))
                if number == 0 and bare < MINUTE:
                    said += "; a share of it is not judged: it took less than a minute"
                print(f"{name:28}{bare:10.2f}{unit:10.2f}{unit - bare:10.2f}{share:10.1f}   {said}", flush=True)
    finally:
        lab.down()
        shutil.rmtree(folder, ignore_errors=True)
    return verdict.end()


if __name__ == "__main__":
    sys.exit(main())
