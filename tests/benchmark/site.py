"""What a converged run of the playbook site costs: module executions on each host, and wall time against a floor.

    make bench                                              everything
    .venv/bin/python -m tests.benchmark.site --clients 2 10 40 --jobs 1 5 20 --runs 3

The floor is one play with the same fact gathering and one no-op module, on the same hosts in the same run. Hosts are the
lab's; figures are medians, ratios those of runs that followed each other.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmark.limits import Verdict
from tests.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
FLOOR = """\
- hosts: backup_clients:backup_servers
  gather_facts: true
  gather_subset: ['!all', '!min', distribution, platform]
  tasks:
    - ansible.builtin.ping:
"""


def play(
    folder: Path, playbook: str, *arguments: str, timeout: float = 3600
) -> tuple[float, dict[str, list[str]], str]:
    """Run a playbook; seconds, what ran on each host, and the output. Raises RuntimeError when it fails."""
    counts = folder / "executions.json"
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_FORKS": "10",
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/benchmark/callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "executions",
        "EXECUTIONS_FILE": str(counts),
    }
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "inventory.yml", playbook, *arguments]
    begun = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    seconds = time.monotonic() - begun
    if done.returncode != 0:
        raise RuntimeError(f"{playbook} failed:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}")
    return seconds, json.loads(counts.read_text()), done.stdout


def inventory(folder: Path, lab: Lab, clients: list[str], jobs: int, recipient: str) -> None:
    """Write an inventory of `clients` with `jobs` jobs each."""
    described = lab.inventory({"backup_servers": ["vault1"], "backup_clients": clients})
    described["all"]["hosts"] = {
        host: value for host, value in described["all"]["hosts"].items() if host in ["vault1", *clients]
    }
    described["all"]["vars"].update(
        backup_escrow={"recipients": [recipient]},
        backup_repositories={"vault": {"server": "vault1"}},
        backup_jobs={
            # Not while it is measured.
            f"job{number}": {
                "paths": ["/etc", f"/srv/data{number}"],
                "schedule": {"calendar": "*-02-29 12:00", "spread": "2h"},
            }
            for number in range(jobs)
        },
        ansible_ssh_extra_args="-o ControlMaster=auto -o ControlPersist=300s",
    )
    (folder / "inventory.yml").write_text(json.dumps(described))


def measure(
    folder: Path, lab: Lab, clients: list[str], sizes: list[int], recipient: str, runs: int
) -> list[dict[str, Any]]:
    """Converged runs with each number of jobs and the floor, all in turn: a machine's speed changes within minutes."""
    taken: dict[int, list[tuple[float, float]]] = {jobs: [] for jobs in sizes}
    ran: dict[int, dict[str, list[str]]] = {}
    for _run in range(runs):
        for jobs in sizes:
            inventory(folder, lab, clients, jobs, recipient)
            play(folder, "holdfast.backup.site")
            seconds, ran[jobs], output = play(folder, "holdfast.backup.site")
            if output[output.index("PLAY RECAP") :].count("changed=0 ") != len(clients) + 1:
                raise RuntimeError(f"the run was not converged:\n{output[-3000:]}")
            taken[jobs].append((seconds, play(folder, "floor.yml")[0]))
            # A long measurement shows that it goes on, and what there is if it is ended.
            print(
                f"{len(clients)} clients, {jobs} jobs: %.1f s, floor %.1f s" % taken[jobs][-1],
                file=sys.stderr,
                flush=True,
            )
    found = []
    for jobs in sizes:
        site, floor = (statistics.median(each[side] for each in taken[jobs]) for side in (0, 1))
        found.append(
            {
                "clients": len(clients),
                "jobs": jobs,
                "executions_client": max(len(ran[jobs][host]) for host in clients),
                "executions_server": len(ran[jobs]["vault1"]),
                "site": site,
                "floor": floor,
                "ratio": statistics.median(each[0] / each[1] for each in taken[jobs]),
                "to_first": statistics.median(
                    each[0] / first[0] for each, first in zip(taken[jobs], taken[sizes[0]], strict=True)
                ),
            }
        )
    return found


def judged(found: dict[str, Any], first: int) -> dict[str, float]:
    """Which figures of a size have a limit; `first` is the number of jobs that it is compared to."""
    figures = {
        "executions of a client": found["executions_client"],
        "executions of a server": found["executions_server"],
    }
    if (first, found["jobs"]) == (1, 20):
        figures["times as long with 20 jobs as with 1"] = found["to_first"]
    if found["clients"] == 40:
        figures["times the floor with 40 clients"] = found["ratio"]
    return figures


def main() -> int:
    """Run all sizes and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[2, 10, 40])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    lab = Lab("bench")
    verdict = Verdict()
    try:
        names = [f"c{number}" for number in range(1, max(arguments.clients) + 1)]
        lab.up(
            ["vault1=trixie:layer=server", *(f"{name}=trixie:layer=restic" for name in names)],
            owner=os.getpid(),
            timeout=600,
        )
        subprocess.run(["age-keygen", "-o", "key"], cwd=folder, check=True, capture_output=True, timeout=30)
        key = subprocess.run(
            ["age-keygen", "-y", "key"], cwd=folder, check=True, capture_output=True, text=True, timeout=30
        )
        (folder / "floor.yml").write_text(FLOOR)
        print(
            "clients  jobs  executions client/server  site s  floor s  site/floor"
            f"  to {arguments.jobs[0]} job{'s' if arguments.jobs[0] > 1 else ''}",
            flush=True,
        )
        for clients in arguments.clients:
            for found in measure(folder, lab, names[:clients], arguments.jobs, key.stdout.strip(), arguments.runs):
                print(
                    f"{found['clients']:7}  {found['jobs']:4}  {found['executions_client']:11}/{found['executions_server']:<12}"
                    f"  {found['site']:6.1f}  {found['floor']:7.1f}  {found['ratio']:10.2f}  {found['to_first']:8.2f}"
                    f"   {verdict.of(judged(found, arguments.jobs[0]))}",
                    flush=True,
                )
    finally:
        lab.down()
        shutil.rmtree(folder, ignore_errors=True)
    return verdict.end()


if __name__ == "__main__":
    sys.exit(main())
