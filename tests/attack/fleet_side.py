# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet as the playbook site makes it, for attacks with what a client really has: its credentials, units and accounts.

web1 has repositories of every kind that promises to be append-only, and one over sftp, which does not. db1 is the other
tenant, with one of each kind that promises it. app1 has the capable copy, which borg is refused with.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fleet import ROOT, Fleet, escrow_key

HOSTS = {name: "trixie:layer=server+borg" for name in ("vault1", "web1", "db1", "app1")}
SCHEDULE = {"calendar": "Mon *-*-1..7 04:00"}
PATHS = ["/etc", "/home", "/root", "/tmp"]
# Where the server keeps the repositories of each kind.
PLACES = {"vault": "/srv/holdfast", **dict.fromkeys(("proxy", "archive", "free", "files"), "/srv/holdfast-ssh")}
REPOSITORIES: dict[str, dict[str, Any]] = {
    "vault": {"server": "vault1"},
    "proxy": {"access": "rclone", "server": "vault1"},
    "archive": {"engine": "borg", "server": "vault1", "quota": "20M"},
    # No quota, which is the default: borg is held to other things without one.
    "free": {"engine": "borg", "server": "vault1"},
    "files": {"access": "sftp", "server": "vault1"},
    # The user's own, whose program restic starts by itself.
    "own": {"access": "url", "url": "rclone::local:/srv/own"},
}
# What the other tenant has, too.
OTHERS = ("vault", "proxy", "archive")
# An account of web1 and app1 that has nothing to do with backups.
STRANGER = "mallory"
PLACED = Path(__file__).parent


def declared(lab: str, folder: Path) -> Fleet:
    """The fleet's inventory; nothing has run yet."""
    fleet = Fleet(lab, folder, {"backup_servers": ["vault1"], "backup_clients": ["web1", "db1", "app1"]})
    public = folder / "escrow.pub"
    if not public.exists():
        public.write_text(escrow_key(folder)[1])
    fleet.variables = {
        "backup_escrow": {"recipients": [public.read_text()]},
        "backup_repositories": REPOSITORIES,
        "backup_jobs": {"system": {"paths": PATHS, "schedule": SCHEDULE}},
    }
    job = {"paths": ["/etc"], "schedule": SCHEDULE}
    fleet.host_variables["db1"] = {"backup_jobs": {"system": {**job, "repositories": list(OTHERS)}}}
    fleet.host_variables["app1"] = {
        "restic_privilege": "setcap",
        "backup_jobs": {"system": {**job, "repositories": ["vault"]}},
    }
    return fleet


class Protected:
    """What attacks need of such a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def prepare(self) -> None:
        """A file that only root may read, a stranger, and a first backup of everything."""
        self.fleet.lab.put("web1", "/root/canary.py", (ROOT / "tests/canary.py").read_bytes())
        for name in ("web1", "app1"):
            self.sh(name, f"id {STRANGER} >/dev/null 2>&1 || useradd --create-home {STRANGER}")
            self.sh(name, "install -m 0600 /etc/hostname /root/precious")
        self.sh("web1", "apt-get install -y -qq acl curl >/dev/null 2>&1; mkdir -p /srv/other; python3 /root/canary.py")
        for unit in ("vault", "proxy", "archive", "free", "files"):
            assert self.ran("web1", unit) == "ok"
        for unit in OTHERS:
            assert self.ran("db1", unit) == "ok"

    # -- hosts --------------------------------------------------------------

    def run(self, host: str, script: str, *, stdin: Path | None = None, seconds: int = 100) -> Any:
        """Run a shell script as root, however it ends; `stdin` is a program of this folder that it reads."""
        if stdin is not None:
            self.fleet.lab.put(host, f"/root/{stdin.name}", stdin.read_bytes())
            script = f"exec </root/{stdin.name}; {script}"
        return self.fleet.on(host).run("timeout --kill-after=5 %s sh -c %s", str(seconds), script)

    def sh(self, host: str, script: str, *, stdin: Path | None = None, seconds: int = 100) -> str:
        """Run a shell script as root; asserts that it ends with 0, and returns what it printed."""
        done = self.run(host, script, stdin=stdin, seconds=seconds)
        assert done.rc == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    def ran(self, host: str, repository: str) -> str:
        """Back up now; the outcome."""
        unit = f"system--{repository}"
        done = self.run(host, f"holdfast run {unit} --wait", seconds=300)
        assert done.rc not in (124, 137), f"{unit} did not end in time: what is recorded is an earlier run's"
        return str(json.loads(self.sh(host, f"cat /var/lib/holdfast/outcomes/{unit}.json"))["outcome"])

    @contextlib.contextmanager
    def frozen(self, host: str, repository: str, program: str) -> Iterator[int]:
        """A run that stands still as soon as it has started a program, whose process id it gives."""
        unit = f"holdfast-system--{repository}.service"
        script = (
            f"systemctl start --no-block {unit}; n=0\n"
            f"until pid=$(pgrep -u holdfast -x {program}) && kill -STOP $pid; do n=$((n+1)); [ $n -lt 5000 ] || exit 1; done\n"
            "echo $pid"
        )
        pid = int(self.sh(host, script))
        try:
            yield pid
        finally:
            self.sh(host, f"kill -CONT {pid}")

    def finish(self, host: str, repository: str) -> None:
        """Wait for a run to end well."""
        self.sh(host, f"systemctl start holdfast-system--{repository}.service")

    # -- what the server has ------------------------------------------------

    def objects(self, client: str, repository: str) -> dict[str, str]:
        """SHA-256 of what no client may remove or change, by path: no locks, and nothing that borg makes anew each time."""
        path = f"{PLACES[repository]}/{client}--{repository}"
        borg = REPOSITORIES[repository].get("engine") == "borg"
        wanted = r"\( -path './data/*' -o -name config \)" if borg else "! -path './locks/*'"
        lines = self.sh("vault1", f"cd {path} && find . -type f {wanted} -exec sha256sum {{}} +").splitlines()
        return {line[66:]: line[:64] for line in lines}

    @contextlib.contextmanager
    def kept(self, repository: str) -> Iterator[None]:
        """Every object of web1's repository is there afterwards as it was, and nothing of the other tenant changed."""
        before = self.objects("web1", repository)
        others = {each: self.objects("db1", each) for each in OTHERS}
        assert len(before) > 4
        assert all(others.values())
        yield
        after = self.objects("web1", repository)
        lost = {path for path, content in before.items() if after.get(path) != content}
        assert not lost
        assert {each: self.objects("db1", each) for each in OTHERS} == others

    # -- what an intruder on web1 does with web1's own credentials -----------

    def dial(self, repository: str) -> list[str]:
        """The command line that reaches a repository over SSH with the client's own key."""
        files = f"-F /etc/holdfast/ssh/{repository}.conf -i /etc/holdfast/secrets/{repository}.ssh_key"
        return ["ssh", *files.split(), f"holdfast-{repository}", "anything"]

    def borg_calls(self, attack: str, path: str, command: list[str]) -> list[list[str]]:
        """Make the calls of an attack on borg; each call and the error that it was answered with."""
        words = shlex.join([attack, path, *command])
        said = self.sh("web1", f"python3 /dev/stdin {words}", stdin=PLACED / "borg_calls.py")
        answers: list[list[str]] = json.loads(said)
        return answers

    def sftp_calls(self, own: str, other: str) -> dict[str, dict[str, int]]:
        """The status of each operation over sftp on what is the client's own, before and after, and on what is not."""
        words = shlex.join([own, other, *self.dial("files")])
        said = self.sh("web1", f"python3 /dev/stdin {words}", stdin=PLACED / "sftp_calls.py")
        statuses: dict[str, dict[str, int]] = json.loads(said)
        return statuses

    def http(self, repository: str, *asked: tuple[str, str, str]) -> tuple[list[int], str]:
        """Ask rclone over SSH, paths as they are: method, path and body of each; HTTP statuses, and what the server said beside.

        All of them are one session, and what comes after the end of one has a new session.
        """
        port = 9900
        bridge = ROOT / "molecule/rclone_proxy/tests/bridge.py"
        self.fleet.lab.put("web1", "/root/bridge.py", bridge.read_bytes())
        words = [
            f"--http2-prior-knowledge -s -m 60 -o /dev/null -w '%{{http_code}}\\n' --path-as-is -X {method}"
            f"{f' --data-binary {body}' if body else ''} {shlex.quote(f'http://127.0.0.1:{port}{path}')}"
            for method, path, body in asked
        ]
        script = (
            f"python3 /root/bridge.py {port} {shlex.join(self.dial(repository))} 2>/root/said & bridge=$!\n"
            f"until ss -Hltn sport = :{port} | grep -q .; do sleep 0.1; done\n"
            f"curl {' --next '.join(words)}; kill $bridge; wait $bridge 2>/dev/null; true"
        )
        statuses = [int(line) for line in self.sh("web1", script).split()]
        return statuses, self.sh("web1", "cat /root/said")
