"""How fast each kind of repository is: a first backup, one that has nothing new, and a restore, of the same data.

    .venv/bin/python -m tests.benchmark.throughput [--megabytes 1000] [--runs 3] [--only rest-tls rclone-s3]

One client; servers and an S3 store (rclone serve s3) are lab hosts of their own on the same machine, so that processors and not
a network are compared. Everything is provisioned by the playbook and run by its units. Each run has a repository of its own, kinds
take turns, and figures are medians. A restore is what people run: restic reads the files once more (--verify), borg does not. The
first lines count the module executions of a converged run with all of them in use.
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
from typing import Any

from tests.benchmark.limits import Verdict
from tests.benchmark.site import play
from tests.benchmark.unit import DATA, MAKE
from tests.lab import Lab
from tests.lab.mirror import describe

CLIENT, TLS, PLAIN, STORE = "c1", "s1", "s2", "store"
SECRET = "throughput-secret"
KINDS: dict[str, dict[str, Any]] = {
    "local": {"access": "local"},
    "rest-plain": {"access": "rest", "server": PLAIN},
    "rest-tls": {"access": "rest", "server": TLS},
    "rclone-dir": {"engine": "restic", "access": "rclone", "server": TLS},
    "rclone-s3": {"engine": "restic", "access": "rclone", "server": TLS, "remote": "s3:bench/fleet"},
    "sftp": {"engine": "restic", "access": "sftp", "server": TLS},
    "borg-ssh": {"engine": "borg", "access": "ssh", "server": TLS},
}
STORE_UNIT = f"rclone serve s3 --addr [::]:9000 --auth-key BENCH,{SECRET} --config /dev/null /srv/store"


class Bench:
    """The client, its servers, and what was measured."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder

    def sh(self, host: str, script: str, timeout: float = 3600) -> str:
        """Run a script on a host."""
        return str(self.lab.exec(host, ["sh", "-ec", script], timeout=timeout, check=True).stdout)

    def seconds(self, script: str) -> float:
        """How long a script takes on the client."""
        timed = f"begun=$(date +%s%N); {script} >/dev/null 2>&1; echo $(( $(date +%s%N) - begun ))"
        return int(self.sh(CLIENT, timed).split()[-1]) / 1e9

    def provision(self, files: int, runs: int, chosen: dict[str, dict[str, Any]]) -> None:
        """The store, the data, and the run of the playbook with a repository for each kind and run."""
        self.lab.put(STORE, "/usr/local/bin/rclone", Path(sys.executable).with_name("rclone").read_bytes(), mode=0o755)
        self.sh(STORE, f"mkdir -p /srv/store/bench && systemd-run -q --unit store {STORE_UNIT}")
        self.lab.exec(CLIENT, ["python3", "-"], input=(MAKE % files).encode(), timeout=3600, check=True)
        release = next(item for item in describe()["releases"] if item["tool"] == "rclone")
        inventory = self.lab.inventory({"backup_clients": [CLIENT], "backup_servers": [TLS, PLAIN]})
        hosts = inventory["all"]["hosts"]
        hosts[PLAIN] |= {"rest_server_tls": "off"}
        hosts[TLS] |= {
            "rclone_proxy_install": "release",
            "rclone_proxy_release_version": release["version"],
            "rclone_proxy_release_mirror": f"{describe()['url_by_name']}rclone",
            "rclone_proxy_release_sha256": {"x86_64": release["sha256"]},
            "rclone_proxy_remotes": {
                "s3": {
                    "type": "s3", "provider": "Other", "endpoint": f"http://{STORE}:9000", "region": "us-east-1",
                    "access_key_id": "BENCH", "secret_access_key": SECRET, "force_path_style": True,
                }
            },
        }  # fmt: skip
        inventory["all"]["vars"] |= {
            "backup_escrow": {"mode": "none"},
            "backup_repositories": {f"{name}-{run}": chosen[name] for name in chosen for run in range(runs)},
            "backup_jobs": {"load": {"paths": [DATA]}},
        }
        (self.folder / "inventory.yml").write_text(json.dumps(inventory))
        play(self.folder, "holdfast.backup.site")

    def executions(self) -> dict[str, int]:
        """Module executions of a converged run, by host."""
        _seconds, ran, output = play(self.folder, "holdfast.backup.site")
        if output[output.index("PLAY RECAP") :].count("changed=0 ") != 3:
            raise RuntimeError(f"the run was not converged:\n{output[-3000:]}")
        return {host: len(ran[host]) for host in (CLIENT, TLS, PLAIN)}

    def run(self, repository: str) -> tuple[float, float, float]:
        """Seconds of a first backup, one that has nothing new, and a restore that is compared afterwards."""
        start = f"systemctl start holdfast-load--{repository}.service"
        first, again = self.seconds(start), self.seconds(start)
        target = f"/srv/restored-{repository}"
        restore = self.seconds(f"holdfast restore load--{repository} --target {target}")
        self.sh(CLIENT, f"diff -r {DATA} {target}{DATA} && rm -rf {target}")
        return first, again, restore


def main() -> int:
    """Print a line for each kind of repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], choices=list(KINDS))
    arguments = parser.parse_args()
    chosen = {name: value for name, value in KINDS.items() if not arguments.only or name in arguments.only}
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    lab = Lab("bench-throughput")
    verdict = Verdict()
    try:
        lab.up(
            [f"{CLIENT}=trixie:layer=restic+borg", f"{TLS}=trixie:layer=server+borg", f"{PLAIN}=trixie:layer=server",
             f"{STORE}=trixie"],
            owner=os.getpid(),
        )  # fmt: skip
        bench = Bench(lab, folder)
        bench.provision(arguments.megabytes // 10, arguments.runs, chosen)
        for host, count in bench.executions().items():
            role = "client" if host == CLIENT else "server"
            print(f"a converged run, {host}: {verdict.of({f'executions of a {role}': count})}", flush=True)
        measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in chosen}
        for run in range(arguments.runs):
            for name in chosen:
                measured[name].append(bench.run(f"{name}-{run}"))
        size = arguments.megabytes // 10 * 10
        print(
            f"{f'{size} MB':14}{'first s':>10}{'MB/s':>8}{'nothing new s':>16}{'restore s':>12}{'MB/s':>8}", flush=True
        )
        for name, values in measured.items():
            first, again, restore = (statistics.median(value[column] for value in values) for column in range(3))
            print(
                f"{name:14}{first:10.1f}{size / first:8.0f}{again:16.1f}{restore:12.1f}{size / restore:8.0f}",
                flush=True,
            )
    finally:
        lab.down()
        shutil.rmtree(folder, ignore_errors=True)
    return verdict.end()


if __name__ == "__main__":
    sys.exit(main())
