# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What playbooks that only ask and start ask for: real runs of ansible-playbook, with a program that notes how it was called."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.filter import process
from ansible_collections.holdfast.backup.plugins.plugin_utils import _delivered

from tests.fleet import ROOT

PROGRAM = """#!/usr/bin/python3
import json, sys
with open(__file__ + ".calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "status":
    print(json.dumps({"holdfast": "1", "restic": "0.18.0", "time": "now", "units": []}))
"""
# What a host answers that says a fact of itself, whatever is run on it.
HOSTILE = """#!/bin/sh
cat >/dev/null
echo '{facts}'
"""


class Project:
    """An inventory of clients on this machine, each with a program of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[str] = []
        self.server_variables: dict[str, Any] = {}
        # Hosts of the inventory that have nothing to do with backups.
        self.others: list[str] = []
        self.hosts: dict[str, dict[str, Any]] = {}
        self.client("web1", "system", "db")
        self.client("web2", "system")

    def client(self, name: str, *jobs: str) -> None:
        program = self.folder / name / "holdfast"
        program.parent.mkdir()
        program.write_text(PROGRAM)
        program.chmod(0o755)
        self.hosts[name] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "jobs_program": str(program),
            "backup_jobs": {job: {"paths": ["/etc"]} for job in jobs},
            "backup_repositories": {
                kind: {"access": "local", "path": f"/srv/{kind}"} for kind in ("one", "two")[: len(jobs)]
            },
        }

    def play(self, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        groups: dict[str, Any] = {"backup_clients": {"hosts": self.hosts}}
        for group, names in (("backup_servers", self.servers), ("others", self.others)):
            own = {name: self.server_variables.get(name, {}) for name in names}
            groups[group] = {
                "hosts": {name: {"ansible_python_interpreter": sys.executable, **own[name]} for name in names}
            }
        (self.folder / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))
        name = playbook if playbook.endswith(".yml") else f"holdfast.backup.{playbook}"
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "-i", "hosts.json", name, *arguments],
            cwd=self.folder,
            env={**environment, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )

    def calls(self, name: str) -> list[list[str]]:
        """How the program of a client was called, and forget it."""
        path = self.folder / name / "holdfast.calls"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return [call for call in found if call[0] != "status"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# --- backup


def test_a_backup_of_a_job_leaves_out_clients_that_have_none(project: Project) -> None:
    done = project.play("backup", "-e", "job=db")
    assert done.returncode == 0, done.stdout
    assert project.calls("web1") == [["run", "--wait", "db--one", "db--two"]]
    assert project.calls("web2") == []
    # The table has it all the same.
    assert "web2" in done.stdout
    done = project.play("backup", "-e", "job=system--one", "--check")
    assert done.returncode == 0, done.stdout
    assert [project.calls(name) for name in ("web1", "web2")] == [[["run", "--dry-run", "system--one"]]] * 2


def test_a_backup_of_everything(project: Project) -> None:
    assert project.play("backup").returncode == 0
    assert project.calls("web1") == [["run", "--wait", "db--one", "db--two", "system--one", "system--two"]]
    assert project.calls("web2") == [["run", "--wait", "system--one"]]


@pytest.mark.parametrize("arguments", [["-e", "job=dp"], ["-e", "job=db", "--limit", "web2"]])
def test_a_backup_of_a_job_that_nobody_has_is_refused(project: Project, arguments: list[str]) -> None:
    done = project.play("backup", *arguments)
    assert done.returncode != 0
    name = arguments[1].partition("=")[2]
    jobs = "system" if "--limit" in arguments else "db, system"
    assert f"job = {name}: no client of this run has such a job; there are: {jobs}" in " ".join(done.stdout.split())
    assert project.calls("web1") == project.calls("web2") == []


# --- restore


def test_a_dump_or_a_snapshot_is_restored(project: Project) -> None:
    common = ("--limit", "web1", "-e", "job=db--one", "-e", "target=/root/restored")
    assert project.play("restore", *common, "-e", "dump=postgresql").returncode == 0
    assert project.play("restore", *common, "-e", "snapshot=1a2b3c4d").returncode == 0
    asked = ["restore", "db--one", "--target", "/root/restored", "--snapshot"]
    assert project.calls("web1") == [[*asked, "latest", "--dump=postgresql"], [*asked, "1a2b3c4d"]]


# --- status


def test_the_status_goes_to_a_file_as_json(project: Project) -> None:
    path = project.folder / "status.json"
    done = project.play("status", "-e", "output=status.json")
    assert done.returncode == 0, done.stdout
    assert list(json.loads(path.read_text())["hosts"]) == ["web1", "web2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "HOST" in done.stdout
    assert project.play("status", "-e", f"output={path}", "-e", "query=keys(hosts)").returncode == 0
    assert json.loads(path.read_text()) == ["web1", "web2"]


@pytest.mark.parametrize("playbook", ["status", "backup"])
def test_an_old_status_does_not_stay_where_nobody_can_be_reached(project: Project, playbook: str) -> None:
    """What reads it later would take yesterday's ok for today's."""
    for host in project.hosts.values():
        host.update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
    path = project.folder / "status.json"
    path.write_text('{"old": "all ok"}')
    done = project.play(playbook, "-e", "output=status.json")
    assert done.returncode != 0, done.stdout
    found = json.loads(path.read_text())["hosts"]
    assert {name: host["answered"] for name, host in found.items()} == {"web1": False, "web2": False}
    assert "Connection refused" in done.stdout


def test_who_does_not_answer_is_told_of_whatever_the_reason(project: Project) -> None:
    """sudo that wants a password, say; and a client that has no such job."""
    project.hosts["web2"].update(ansible_become=True, ansible_become_user="nobody", ansible_become_exe="/nonexistent")
    done = project.play("status")
    assert done.returncode != 0, done.stdout
    assert "/nonexistent" in done.stdout
    done = project.play("backup", "-e", "job=db")
    assert done.returncode != 0, done.stdout
    assert "/nonexistent" in done.stdout
    assert project.calls("web1") == [["run", "--wait", "db--one", "db--two"]]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (None, "Error executing command"),
        ("echo head >&2; seq 1000 >&2; echo no module named json >&2; exit 1", "no module named json"),
        ("echo not JSON", "this is not the answer of holdfast status: not JSON"),
        ("exit 0", "this is not the answer of holdfast status: nothing"),
    ],
)
def test_a_client_whose_program_does_not_answer_is_told_of(project: Project, program: str | None, said: str) -> None:
    """It was never provisioned, or Python was upgraded below it: an exit code is no answer."""
    path = project.folder / "web1/holdfast"
    if program is None:
        path.unlink()
    else:
        path.write_text(f'#!/bin/sh\n[ "$1" = run ] && exit 0\n{program}\n')
    for playbook in ("status", "backup") if program else ("status",):
        done = project.play(playbook)
        assert done.returncode != 0, done.stdout
        told = done.stdout.partition("Tell why this client did not answer")[2]
        assert "web1]: FAILED! => " in told
        assert said in told
        assert f" (the playbook site makes sure of {path})" in told
        assert "web2]: FAILED!" not in done.stdout
        assert "head" not in told


def test_who_hangs_does_not_keep_the_others_from_being_told(project: Project) -> None:
    """A host whose power was cut while it was asked, or in somebody else's hands, answers never."""
    python = project.folder / "python"
    pids = project.folder / "pids"
    pids.touch()
    python.write_text(f"#!/bin/sh\necho $$ >>{pids}\nexec sleep 1000\n")
    python.chmod(0o755)
    project.hosts["web1"]["ansible_python_interpreter"] = str(python)
    path = project.folder / "status.json"
    try:
        done = project.play("status", "-e", "output=status.json", "-e", "backup_answer_timeout=5")
    finally:
        for pid in pids.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    assert done.returncode != 0, done.stdout
    found = json.loads(path.read_text())["hosts"]
    assert {name: host["answered"] for name, host in found.items()} == {"web1": False, "web2": True}
    assert "Timed out after 5" in done.stdout


def test_hashes_of_passwords_are_not_shown_by_a_verbose_run(project: Project) -> None:
    """What the state directory has of a host comes with the model of the fleet."""
    found = project.folder / "holdfast-state/hosts/web1/rest/vault.json"
    found.parent.mkdir(parents=True)
    digest = "$2b$12$" + "a" * 53
    found.write_text(json.dumps({"user": "web1--vault", "hash": digest, "next_hash": None}))
    done = project.play("status", "-vv")
    assert done.returncode == 0, done.stdout
    assert digest not in done.stdout


def test_only_who_runs_it_says_where_the_status_goes_and_what_is_asked(project: Project) -> None:
    """Not a host, in the answer of any module, and no variable of the inventory that happens to be called so."""
    path = project.folder / "overwritten"
    python = project.folder / "python"
    facts = {"output": str(path), "query": "'is well'", "format": "json"}
    python.write_text(HOSTILE.format(facts=json.dumps({"stdout": "{}", "rc": 0, "ansible_facts": facts})))
    python.chmod(0o755)
    project.hosts["web1"]["ansible_python_interpreter"] = str(python)
    project.hosts["web2"]["output"] = str(path)
    for first in ("web1", "web2"):
        project.hosts = {first: project.hosts.pop(first), **project.hosts}
        done = project.play("status")
        # What it said is no answer.
        assert done.returncode != 0
        assert not path.exists()
        assert "is well" not in done.stdout
        assert "HOST" in done.stdout


# --- decommission


def test_a_server_is_not_decommissioned_by_a_mistake(project: Project) -> None:
    project.servers = ["vault1"]
    project.hosts["web1"]["backup_escrow"] = {"mode": "none"}
    done = project.play("decommission", "-e", "client=vault1", "--check")
    assert done.returncode != 0
    assert "client = vault1: is no host of backup_clients or backup_clients_elsewhere" in " ".join(done.stdout.split())
    assert not (project.folder / "holdfast-state").exists()


EMPTY: tuple[Any, ...] = ({}, [], None, "")


def answering(project: Project, name: str, served: dict[str, Any]) -> dict[str, Any]:
    """Variables of a host on which every module says the same: all is well, and it serves these over REST."""
    said: dict[str, Any] = {
        key: next(each for each in EMPTY if field.fits(each))
        for module in ("host_info", "htpasswd")
        for key, field in _delivered.RESULTS[module].items()
    }
    facts = {
        "architecture": "x86_64",
        "distribution": "Debian",
        "distribution_version": "13",
        "distribution_release": "trixie",
    }
    said.update(changed=False, changed_files=[], removed=[], systemd=257, htpasswd=served, ansible_facts=facts)
    python = project.folder / f"python-{name}"
    python.write_text(HOSTILE.format(facts=json.dumps(said)))
    python.chmod(0o755)
    return {"ansible_connection": "local", "ansible_python_interpreter": str(python)}


def test_a_server_that_cannot_be_changed_keeps_no_client_the_access_to_another(project: Project) -> None:
    """It is of another fleet, or serves many that this run does not know; and the client has two servers."""
    ours = {"fleet_id": "a-fleet-of-ours", "users": {"web1--a": "web1"}}
    project.servers = ["vault1", "vault2"]
    project.server_variables["vault1"] = {**answering(project, "vault1", ours), "rest_server_tls": "off"}
    project.hosts["web1"] |= {
        **answering(project, "web1", {}),
        "backup_escrow": {"mode": "none"},
        "backup_repositories": {"a": {"server": "vault1"}, "b": {"server": "vault2"}},
    }
    state = project.folder / "holdfast-state"
    rendered = {name: state / f"hosts/{name}/rendered.json" for name in project.servers}
    for path in rendered.values():
        path.parent.mkdir(parents=True)
    (state / "fleet.json").write_text(json.dumps({"fleet_id": ours["fleet_id"]}))
    served: dict[str, Any]
    for served, refused in (
        ({**ours, "fleet_id": "of-another"}, True),
        ({**ours, "users": {f"{name}--v": name for name in ("web1", "a", "b")}}, True),
        (ours, False),
    ):
        for path in rendered.values():
            path.write_text(json.dumps({"users": {"web1--x": "01"}, "quotas": {}, "names": []}))
        project.server_variables["vault2"] = {**answering(project, "vault2", served), "rest_server_tls": "off"}
        done = project.play("decommission", "-e", "client=web1")
        assert (done.returncode != 0) == refused, done.stdout
        words = " ".join(done.stdout.split())
        for told in ("nothing was changed on this host: - vault2: ", "web1 is still let in by vault2: see above why"):
            assert (told in words) == refused, done.stdout
        users = {name: list(json.loads(path.read_text())["users"]) for name, path in rendered.items()}
        assert users == {"vault1": [], "vault2": ["web1--x"] if refused else []}
        assert (state / "hosts/web1/decommissioned.json").exists()


DOWN = {
    "ansible_connection": "ssh",
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "ansible_ssh_retries": 0,
    "backup_address": "192.0.2.1",
}


def two_servers(project: Project, client: dict[str, Any], **rendered: dict[str, Any]) -> Path:
    """vault1 is down, vault2 serves; of both the state directory has what they were last rendered with."""
    ours = {"fleet_id": "a-fleet-of-ours", "users": {"web1--b": "web1"}}
    project.servers = ["vault1", "vault2"]
    project.server_variables["vault1"] = {**DOWN, "rest_server_tls": "off"}
    project.server_variables["vault2"] = {**answering(project, "vault2", ours), "rest_server_tls": "off"}
    project.hosts["web1"] |= {
        **client,
        "backup_escrow": {"mode": "none"},
        "backup_repositories": {"a": {"server": "vault1"}, "b": {"server": "vault2"}},
    }
    state = project.folder / "holdfast-state"
    for name, users in rendered.items():
        path = state / f"hosts/{name}/rendered.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"users": users, "quotas": {}, "names": []}))
    (state / "fleet.json").write_text(json.dumps({"fleet_id": ours["fleet_id"]}))
    return state


def test_a_decommission_ends_for_who_is_concerned_alone(project: Project) -> None:
    """In a playbook of the user's own the others go on. A server that revoked before lets nobody in, also while it is down."""
    two_servers(project, answering(project, "web1", {}), vault1={}, vault2={"web1--b": "01"})
    (project.folder / "own.yml").write_text(
        "- ansible.builtin.import_playbook: holdfast.backup.decommission\n"
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.debug: {msg: 'goes on: {{ inventory_hostname }}'}\n"
    )
    done = project.play("own.yml", "-e", "client=web1")
    assert done.returncode != 0, done.stdout
    assert "let in by" not in done.stdout
    assert "timers are not stopped" not in done.stdout
    assert sorted(re.findall(r"goes on: (\w+)\"", done.stdout)) == ["vault2", "web1", "web2"]
    # As if it had never been set up; or the state directory was lost.
    (project.folder / "holdfast-state/hosts/vault1/rendered.json").unlink()
    done = project.play("own.yml", "-e", "client=web1")
    assert "web1 may still be let in by vault1, of which the state" in " ".join(done.stdout.split())
    assert sorted(re.findall(r"goes on: (\w+)\"", done.stdout)) == ["vault2", "web1", "web2"]


def test_what_servers_are_made_with_keeps_no_client_its_access(project: Project) -> None:
    """Several state directories neither; with arguments that rclone would serve nobody with, access is only taken away."""
    state = two_servers(project, answering(project, "web1", {}), vault1={}, vault2={"web1--b": "01"})
    project.server_variables["vault2"] |= {"ssh_access_rclone_arguments": ["--s3-acl=x"], "backup_state_dir": "other"}
    done = project.play("decommission", "-e", "client=web1")
    words = " ".join(done.stdout.split())
    assert f"This run takes '{state}'" in words, words
    assert "ssh_access_rclone_arguments is refused, see above: correct it, and run site; what lost access is" in words
    assert done.returncode != 0
    assert "web1 is still let in" not in words


def test_a_client_that_cannot_be_reached_is_decommissioned_and_its_timers_told_of(project: Project) -> None:
    """And a server that was installed anew has nobody to take out: what the state directory says of it is corrected."""
    state = two_servers(project, DOWN, vault1={}, vault2={"web1--b": "01"})
    del project.server_variables["vault1"]
    project.servers = ["vault2"]
    project.hosts["web1"]["backup_repositories"] = {"b": {"server": "vault2"}}
    path = state / "hosts/vault2/ssh_rendered.json"
    served = {"account": "bk-web1", "kind": "sftp", "path": "/x", "remote": None, "quota": None, "append_only": False}
    path.write_text(json.dumps({"repositories": {"web1--c": {**served, "host": "web1", "from": [], "keys": []}}}))
    done = project.play("decommission", "-e", "client=web1")
    assert done.returncode == 0, done.stdout
    assert "web1: its timers are not stopped: Task failed: Failed to connect" in " ".join(done.stdout.split()), (
        done.stdout
    )
    assert "let in by" not in done.stdout
    assert json.loads(path.read_text()) == {"repositories": {}}


def test_a_damaged_manifest_and_timers_that_go_on_fail_their_hosts(project: Project) -> None:
    state = two_servers(project, {}, vault2={"web1--b": "01"})
    project.servers = ["vault2"]
    path = state / "hosts/vault2/ssh_rendered.json"
    served = {"account": "bk-web1", "kind": "sftp", "path": "/x", "remote": None, "quota": None, "append_only": False}
    path.write_text(json.dumps({"repositories": {"web1--c": {**served, "host": "web1", "from": [], "keys": []}}}))
    vault = project.folder / "python-vault2"
    vault.write_text(vault.read_text().replace('"files": {}', '"files": {"/var/lib/holdfast/ssh_accounts.json": "01"}'))
    client = project.folder / "python-web1"
    client.write_text(HOSTILE.format(facts=json.dumps({"failed": True, "msg": "a backup is running"})))
    client.chmod(0o755)
    project.hosts["web1"] |= {
        "ansible_python_interpreter": str(client),
        "backup_repositories": {"b": {"server": "vault2"}},
    }
    done = project.play("decommission", "-e", "client=web1")
    assert done.returncode != 0, done.stdout
    words = " ".join(done.stdout.split())
    for told in (
        "web1 is still let in by vault2: see",
        "vault2: htpasswd.json or ssh_accounts.json in /var/lib/holdfast is damaged",
        "web1: its timers are not stopped: ",
        "a backup is running",
    ):
        assert told in words, done.stdout
    assert {"vault2", "web1"} == set(re.findall(r"fatal: \[(\w+)\]", done.stdout))
    assert "web1--c" in path.read_text()


def test_a_client_that_fails_as_a_server_has_its_timers_told_of(project: Project) -> None:
    two_servers(project, {}, vault2={"web1--b": "01"})
    project.servers = ["vault2", "web1"]
    project.server_variables["web1"] = {**DOWN, "rest_server_tls": "off"}
    project.hosts["web1"] |= {**DOWN, "backup_repositories": {"b": {"server": "vault2"}}}
    done = project.play("decommission", "-e", "client=web1")
    assert done.returncode != 0, done.stdout
    assert "web1: its timers are not stopped: see above" in " ".join(done.stdout.split()), done.stdout


# --- limits


@pytest.mark.parametrize(
    "arguments",
    [
        ["backup"],
        ["status"],
        ["restore", "-e", "job=system", "-e", "target=/root/restored"],
        ["restore_identity", "-e", "escrow_key=/root/key"],
        ["rotate"],
    ],
)
def test_a_run_that_reaches_nobody_does_not_end_well(project: Project, arguments: list[str]) -> None:
    """A recovery script would take it for done: Ansible leaves out a play without hosts, and ends with 0."""
    project.servers, project.others = ["vault1"], ["mon1"]
    # A server is given new secrets, and not asked.
    for limit in ("mon1",) if arguments[0] == "rotate" else ("mon1", "vault1"):
        done = project.play(*arguments, "--limit", limit)
        assert done.returncode != 0, done.stdout
        words = " ".join(done.stdout.split())
        assert re.search(rf"no host of backup_clients .*is in this run \({limit}\), so nothing would be done", words), (
            words
        )
    assert project.calls("web1") == project.calls("web2") == []


def test_in_a_playbook_of_the_users_own_other_hosts_go_on(project: Project) -> None:
    """Which imports ours among others, and is run for a host that has nothing to do with backups."""
    project.others = ["mon1"]
    after = "- {hosts: all, gather_facts: false, tasks: [{ansible.builtin.debug: {msg: went on}}]}"
    (project.folder / "own.yml").write_text(f"- import_playbook: holdfast.backup.site\n{after}\n")
    done = project.play("own.yml", "--limit", "mon1")
    assert done.returncode == 0, done.stdout
    words = " ".join(done.stdout.split())
    assert (
        "no host of backup_clients or backup_servers is in this run, so nothing is done. The inventory has there: web1, web2"
        in words
    )
    assert "went on" in words


def test_without_an_inventory_nothing_ends_well(project: Project) -> None:
    """It moved, or -i was forgotten: a job of cron would stay green, and a client that was taken out its access."""
    project.hosts = {}
    # What says that web1 was a client once, and which servers let it in the inventory alone says.
    known = project.folder / "holdfast-state/hosts/web1/rest/vault.json"
    known.parent.mkdir(parents=True)
    known.write_text(json.dumps({"user": "web1--vault", "hash": "$2b$12$" + "a" * 53, "next_hash": None}))
    for arguments in (
        ["backup"],
        ["status"],
        ["restore", "-e", "job=system", "-e", "target=/root/restored"],
        ["restore_identity", "-e", "escrow_key=/root/key"],
        ["site"],
        ["rotate"],
        ["decommission", "-e", "client=web1"],
        ["handover", "-e", "export_to=/root/handover.json"],
    ):
        # An inventory that is there, with nobody in it, has a state directory beside it.
        for more in ([], ["-i", "/nonexistent/inventory.yml"]):
            done = project.play(*arguments, *more)
            assert done.returncode != 0, done.stdout
    assert not (known.parents[1] / "decommissioned.json").exists()


def test_a_fleet_whose_clients_are_all_elsewhere_has_a_status(project: Project) -> None:
    project.hosts, project.servers = {}, ["vault1"]
    assert project.play("status").returncode == 0
    assert project.play("backup").returncode != 0


# --- two runs at a time


HOLDING = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.command: flock --nonblock holdfast-state/hosts true
      args: {chdir: "{{ playbook_dir }}"}
      run_once: "{{ true | holdfast.backup.hold_state('holdfast-state', ansible_inventory_sources, ansible_check_mode) }}"
      register: tried
      failed_when: tried.rc != (0 if ansible_check_mode else 1)
      check_mode: false
"""


@pytest.mark.parametrize("arguments", [["site"], ["rotate"], ["decommission", "-e", "client=web1"]])
def test_a_run_does_not_work_with_what_another_one_is_changing(project: Project, arguments: list[str]) -> None:
    """Each serves clients by what was known when it began: it would let in again whom the other took out."""
    project.servers = ["vault1"]
    hosts = project.folder / "holdfast-state/hosts"
    hosts.mkdir(parents=True)
    descriptor = os.open(hosts, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        done = project.play(*arguments)
    finally:
        os.close(descriptor)
    assert done.returncode != 0
    wanted = rf"nothing was changed: another run of site, rotate or decommission works with \S+ \(process {os.getpid()} of this machine\)"
    assert re.search(wanted, " ".join(done.stdout.split())), done.stdout
    assert list(hosts.iterdir()) == []


def test_a_run_that_was_killed_holds_nothing(project: Project) -> None:
    """A process of a task may wait for a host for hours, which is when somebody kills the run."""
    hosts = project.folder / "holdfast-state/hosts"
    hosts.mkdir(parents=True)
    waits = HOLDING.replace("flock --nonblock holdfast-state/hosts true", "sh -c 'echo $$ >waiting; exec sleep 100'")
    (project.folder / "play.yml").write_text(waits)
    waiting = project.folder / "waiting"
    running = threading.Thread(target=project.play, args=("play.yml",))
    running.start()
    descriptor = os.open(hosts, os.O_RDONLY)
    try:
        for _dummy in range(300):
            if waiting.exists() and waiting.read_text().endswith("\n"):
                break
            time.sleep(0.1)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = re.search(r"\(process ([0-9]+) of this machine\)", process._holder(descriptor))
        assert held
        os.kill(int(held[1]), signal.SIGKILL)
        for _dummy in range(100):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.1)
        else:
            pytest.fail("a process of a task still holds it")
        assert Path(f"/proc/{waiting.read_text().strip()}").exists()
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(waiting.read_text()), signal.SIGKILL)
        running.join(30)


def test_a_run_holds_the_state_directory_as_long_as_it_goes(project: Project) -> None:
    (project.folder / "holdfast-state/hosts").mkdir(parents=True)
    (project.folder / "play.yml").write_text(HOLDING)
    for check in ([], ["--check"], []):
        done = project.play("play.yml", *check)
        assert done.returncode == 0, done.stdout


# --- variables


def test_a_users_value_of_what_the_playbooks_set_is_refused_and_their_own_is_not(project: Project) -> None:
    """The playbooks' variables are in force in their plays, and never seen as some that a user set."""
    project.hosts["web1"]["jobs_on_failure"] = ["/bin/tell"]
    done = project.play("backup", "-e", "job=system")
    assert done.returncode != 0
    wanted = "web1: jobs_on_failure = ['/bin/tell']: is set by the playbooks themselves. Set backup_on_failure"
    assert wanted in " ".join(done.stdout.split())
    assert project.calls("web2") == []
    project.hosts["web1"]["backup_on_failure"] = project.hosts["web1"].pop("jobs_on_failure")
    assert project.play("backup", "-e", "job=system").returncode == 0
    assert project.calls("web2")


# --- what the state directory keeps


RENDERED = """
- hosts: vault1
  connection: local
  gather_facts: false
  vars_files: ["{{ root }}/roles/rest_server/vars/main.yml"]
  vars:
    rest_server_accounts: [{name: web1--vault, hash: "", next_hash: null}]
    rest_server_names: [vault1]
    rest_server_state_dir: "{{ playbook_dir }}/state"
    __rest_server_authority: {}
    __rest_server_htpasswd: {kept: [web1--vault], switched: [], refused: []}
  tasks:
    - ansible.builtin.copy:
        content: "{{ __rest_server_write['rendered.json'] | to_json }}"
        dest: "{{ playbook_dir }}/rendered.json"
        mode: "0600"
"""


def test_what_a_server_serves_without_a_known_hash_stays_on_record(project: Project) -> None:
    """Else a later run would take a client for one that the server never served, and revoke it."""
    project.servers = ["vault1"]
    (project.folder / "play.yml").write_text(RENDERED)
    last = project.folder / "state/hosts/vault1/rendered.json"
    last.parent.mkdir(parents=True)
    for users, kept in (({}, {}), ({"web1--vault": "01", "gone--vault": "23"}, {"web1--vault": "01"})):
        last.write_text(json.dumps({"names": [], "users": users}))
        done = project.play("play.yml", "-e", f"root={ROOT}")
        assert done.returncode == 0, done.stdout
        wanted = {"names": ["vault1"], "users": kept, "quotas": {}}
        assert json.loads((project.folder / "rendered.json").read_text()) == wanted
