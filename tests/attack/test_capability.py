# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""That a backup reads every file, and nobody else gains by it: another user of the client, and what restic starts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fleet import ROOT

from .fleet_side import STRANGER, Protected

DAC_READ_SEARCH = 1 << 2
CAPABLE = "/usr/local/lib/holdfast-capable/restic"
TREE = ROOT / "tests/demo/tree.py"
UNIT = "holdfast-system--vault"
SECRETS = "/etc/holdfast/secrets"
# Each ends with 0 if it succeeded; $PID is restic in the middle of a run.
ATTACKS = {
    "password": f"cat {SECRETS}/vault.password",
    "location with credentials": f"cat {SECRETS}/vault.repository",
    "SSH key": f"cat {SECRETS}/proxy.ssh_key",
    "borg's key": f"cat {SECRETS}/archive.borg_key",
    "identity": f"cat {SECRETS}/vault.identity",
    "names of secrets": f"ls {SECRETS}",
    "cache": "ls /var/cache/holdfast/vault",
    "state of borg": "ls -A /var/lib/holdfast/borg",
    "password of a run": f"cat /run/credentials/{UNIT}.service/password",
    "environment of a run": "grep -q . /proc/$PID/environ",
    "files of a run": "ls /proc/$PID/fd",
    "root of a run": "ls /proc/$PID/root/",
    "memory of a run": "grep -q restic /proc/$PID/maps",
    "signal to a run": "kill -0 $PID",
    "end of a timer": f"systemctl --no-ask-password stop {UNIT}.timer && systemctl start {UNIT}.timer",
    "start of a run": f"systemctl --no-ask-password start --no-block {UNIT}.service",
    "a unit like it": (
        "systemd-run --no-ask-password --quiet --wait --pipe -p User=holdfast -p AmbientCapabilities=CAP_DAC_READ_SEARCH"
        " cat /root/precious"
    ),
    "path to be saved": "echo /srv >/etc/holdfast/sources.d/system.d/more.paths && rm /etc/holdfast/sources.d/system.d/more.paths",
    "hook": "touch /etc/holdfast/units/more.json && rm /etc/holdfast/units/more.json",
    "outcome that is no failure": "touch /var/lib/holdfast/outcomes/more.json && rm /var/lib/holdfast/outcomes/more.json",
    "record": "touch /var/lib/holdfast/repositories/vault.env",
    "what is in a snapshot": "holdfast snapshots system--vault",
}


def test_another_user(protected: Protected) -> None:
    """While a run stands still: root succeeds with each, another user with none, and the run ends well."""
    protected.sh("web1", f"mkdir -p /etc/holdfast/sources.d/system.d; systemctl stop {UNIT}.service")
    hashes = "find /etc/holdfast /var/lib/holdfast/repositories -type f -exec sha256sum {} + | sort"
    before = protected.sh("web1", hashes)
    failed, succeeded = [], []
    with protected.kept("vault"):
        with protected.frozen("web1", "vault", "restic") as pid:
            for name, script in ATTACKS.items():
                protected.fleet.lab.put("web1", "/run/attack", f"export PID={pid}\n{script}\n".encode(), mode=0o644)
                as_other = f"cd /; timeout 20 runuser -u {STRANGER} -- sh /run/attack </dev/null"
                if protected.run("web1", as_other).rc == 0:
                    succeeded.append(name)
                if protected.run("web1", "timeout 20 sh /run/attack </dev/null").rc != 0:
                    failed.append(name)
        protected.finish("web1", "vault")
    assert not failed, "not delivered"
    assert not succeeded
    assert protected.sh("web1", hashes) == before
    assert json.loads(protected.sh("web1", "cat /var/lib/holdfast/outcomes/system--vault.json"))["outcome"] == "ok"


def test_the_account_alone_reads_nothing(protected: Protected) -> None:
    """The account is no secret: what is started as it elsewhere (a job of cron, a hook) has no more than any other."""
    read = "cat /root/precious /home/canary/mode-0000"
    protected.sh(
        "web1",
        f"setpriv --reuid=holdfast --regid=holdfast --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search {read}",
    )
    assert protected.run("web1", f"runuser -u holdfast -- {read}").rc != 0
    for secret in ("vault.password", "vault.repository", "proxy.ssh_key"):
        assert protected.run("web1", f"runuser -u holdfast -- cat {SECRETS}/{secret}").rc != 0, secret


def capabilities(protected: Protected, pid: int | str) -> dict[str, int]:
    """What a process may, in the sets that count."""
    lines = protected.sh("web1", f"cat /proc/{pid}/status").splitlines()
    return {line[:6]: int(line.split()[1], 16) for line in lines if line.startswith(("CapEff", "CapPrm", "CapAmb"))}


@pytest.mark.parametrize(("repository", "program"), [("proxy", "ssh"), ("archive", "ssh"), ("own", "rclone")])
def test_what_a_backup_starts_has_no_capability(protected: Protected, repository: str, program: str) -> None:
    """Seen in the middle of a run: who started it has the capability, and what it talks to the network with has none."""
    try:
        with protected.frozen("web1", repository, program) as pid:
            parent = protected.sh("web1", f"awk '/^PPid/ {{ print $2 }}' /proc/{pid}/status").strip()
            assert set(capabilities(protected, parent).values()) == {DAC_READ_SEARCH}
            assert set(capabilities(protected, pid).values()) == {0}
    finally:
        # The user's own has nowhere to write to: it would try for a quarter of an hour.
        verb = "stop" if repository == "own" else "start"
        protected.sh("web1", f"systemctl {verb} holdfast-system--{repository}.service")


def test_nobody_else_can_run_the_capable_copy(protected: Protected) -> None:
    read = f"env -i HOME=/nonexistent PATH=/usr/bin:/bin {CAPABLE} --no-cache --insecure-no-password -r /tmp/stolen"
    steal = f"{read} init && {read} backup /root/precious"
    as_account, as_other = "runuser -u holdfast --", f"runuser -u {STRANGER} --"
    for who, rc in ((as_account, 0), (as_other, 126), (as_account, 0)):
        protected.sh("app1", "rm -rf /tmp/stolen")
        protected.fleet.lab.put("app1", "/run/attack", f"cd /; {steal}\n".encode(), mode=0o644)
        done = protected.run("app1", f"{who} sh /run/attack")
        assert done.rc == rc, (who, done)
        assert (protected.run("app1", "ls /tmp/stolen/snapshots/*").rc == 0) == (rc == 0), who
    for command in (f"cat {CAPABLE}", f"cp {CAPABLE} /tmp/mine", f"ls {CAPABLE}"):
        assert protected.run("app1", f"{as_other} {command}").rc != 0, command
    protected.sh("app1", "rm -rf /tmp/stolen")
    assert protected.ran("app1", "vault") == "ok"


@pytest.mark.parametrize("repository", ["vault", "proxy", "archive"])
def test_the_backup_is_complete(protected: Protected, repository: str) -> None:
    """Of every kind: what is in the places that hide things comes back as it was, but for sockets."""
    assert protected.ran("web1", repository) == "ok"
    target = f"/srv/back-{repository}"
    protected.sh("web1", f"rm -rf {target}; holdfast restore system--{repository} --target {target}")
    for place in ("/home/canary", "/root/canary", "/tmp/canary"):
        before, after = tree(protected, place), tree(protected, f"{target}{place}")
        before = {path: each for path, each in before.items() if not each[0].startswith("0o14")}
        assert len(before) > 30
        different = sorted(path for path in before | after if before.get(path) != after.get(path))
        assert not [bytes.fromhex(path) for path in different], place
    protected.sh("web1", f"rm -rf {target}")


def tree(protected: Protected, directory: str) -> dict[str, Any]:
    """Every file below a directory of web1, with content and metadata."""
    return dict(json.loads(protected.sh("web1", f"python3 /dev/stdin {directory}", stdin=TREE)))
