"""One client with two jobs into repositories of three kinds, and what SSH adds to a fleet's life; in order."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet, released_restic
from tests.hosts import assert_exposure, assert_usable_meanwhile

PORT = 2222
SERVED = "/srv/holdfast-ssh"
REPOSITORIES: dict[str, dict[str, Any]] = {
    "vault": {"server": "vault1"},
    "offsite": {"access": "rclone", "server": "vault1"},
    # Its own word for where it is: the server's may change.
    "second": {"access": "sftp", "server": "vault1", "path": "/srv/holdfast-ssh"},
}
UNITS = ("files--vault", "files--offsite", "files--second", "system--offsite")


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """A server whose sshd listens on a second port, and two clients."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    fleet = Fleet("mixed", folder, {"backup_servers": ["vault1"], "backup_clients": ["web1", "web2"]})
    schedule = {"calendar": "Mon *-*-1..7 04:00"}
    fleet.variables = {
        "backup_escrow": {"recipients": [(folder / "escrow.pub").read_text().strip()]},
        "backup_repositories": REPOSITORIES,
        "backup_jobs": {
            "files": {"paths": ["/srv/data"], "schedule": schedule},
            "system": {"paths": ["/etc/hostname"], "repositories": ["offsite"], "schedule": schedule},
        },
        "backup_ssh_port": PORT,
    }
    # Another release than the distribution's, which web1 has: they do not make the same requests.
    fleet.host_variables["web2"] = released_restic()
    return fleet


def snapshots(fleet: Fleet, name: str) -> set[str]:
    """The snapshots that the server has of a client's repository."""
    return set(fleet.on("vault1").check_output(f"ls {SERVED}/{name}/snapshots").split())


def key_lines(fleet: Fleet, account: str) -> list[str]:
    """The key lines of an account on the server."""
    return fleet.on("vault1").file(f"/etc/ssh/authorized_keys.d/{account}").content_string.splitlines()


def dial(fleet: Fleet, client: str, repository: str) -> Any:
    """What restic of a client says to its repository, as a person dials it."""
    definition = json.loads(fleet.on(client).file(f"/etc/holdfast/units/files--{repository}.json").content_string)
    options = " ".join(f"-o '{name}={value}'" for name, value in definition["options"].items())
    files = f"--repository-file {definition['repository_file']} --password-file {definition['password_file']}"
    return fleet.on(client).run(f"{definition['binary']} {options} {files} --no-cache --no-lock snapshots")


def test_check_mode_on_bare_hosts_announces_what_the_first_run_does(fleet: Fleet) -> None:
    fleet.on("vault1").check_output(
        f"printf 'Port 22\\nPort {PORT}\\n' >/etc/ssh/sshd_config.d/05-port.conf && systemctl reload ssh"
    )
    for name in ("web1", "web2"):
        fleet.on(name).check_output("mkdir -p /srv/data && head -c 300000 /dev/urandom >/srv/data/photo")
    fleet.converge()


def test_every_kind_is_backed_up_and_restored(fleet: Fleet) -> None:
    announced = fleet.good("backup", "--check")
    assert fleet.on("vault1").check_output("find /srv -path '*/snapshots/*'") == ""
    done = fleet.good("backup")
    assert announced.changed == done.changed
    for name in ("web1", "web2"):
        host = fleet.on(name)
        status = {unit["unit"]: unit for unit in json.loads(host.check_output("holdfast status --json"))["units"]}
        assert {unit: status[unit]["outcome"] for unit in UNITS} == dict.fromkeys(UNITS, "ok")
        for repository in REPOSITORIES:
            host.check_output(f"holdfast restore files--{repository} --target /root/{repository}")
            host.check_output(f"cmp /srv/data/photo /root/{repository}/srv/data/photo")
            absent = host.run(f"holdfast restore files--{repository} --target /root/none --path /srv/data/phtoo")
            assert absent.rc == 1
            assert "holds no /srv/data/phtoo" in absent.stderr
    assert len(snapshots(fleet, "web1--offsite")) == 2


def test_the_report_says_what_is_weaker(fleet: Fleet) -> None:
    said = fleet.good("status").text
    assert "web1, web2: second is not append-only: whoever takes over this host can erase its history" in said
    assert "web1, web2: vault1 limits no client's rclone and sftp repositories" in said
    assert not re.search("(vault|offsite) is not append-only", said)


def test_a_server_that_is_gone_is_given_up(fleet: Fleet) -> None:
    """In three minutes: without that, a run would hang until its own timeout, if it has one."""
    for name in ("web1", "web2"):
        for repository in ("offsite", "second"):
            dialled = f"ssh -G -F /etc/holdfast/ssh/{repository}.conf holdfast-{repository}"
            settings = fleet.on(name).check_output(dialled).splitlines()
            assert {"serveraliveinterval 30", "serveralivecountmax 6"} <= set(settings)


def test_every_kind_can_be_looked_into(fleet: Fleet) -> None:
    host = fleet.on("web1")
    host.check_output("apt-get install -q -y fuse3 >/dev/null && mkdir /srv/look")
    for repository in REPOSITORIES:
        script = f"""
            rm -f /run/look
            holdfast mount files--{repository} /srv/look </dev/null >/run/look 2>&1 & pid=$!
            for each in $(seq 300); do grep -qs 'is mounted on' /run/look && break; sleep 0.1; done
            cmp /srv/data/photo /srv/look/snapshots/latest/srv/data/photo || {{ cat /run/look; exit 1; }}
            kill -INT $pid
            wait $pid
        """
        assert f"files--{repository} is mounted on /srv/look" in host.check_output(f"{script}\ncat /run/look")


def test_every_kind_can_be_used_while_a_run_goes_on(fleet: Fleet) -> None:
    host, photo = fleet.on("web1"), "/srv/data/photo"
    units = " ".join(f"holdfast-files--{repository}.service" for repository in REPOSITORIES)
    host.check_output(f"cp {photo} /root/first; echo second >{photo}; systemctl start {units}")
    for repository in REPOSITORIES:
        # Enough for a run that takes a while.
        host.check_output(f"head -c 20000000 /dev/urandom >{photo}")
        place = "/srv/holdfast" if repository == "vault" else SERVED
        lock = f"{place}/web1--{repository}/locks/*"
        assert_usable_meanwhile(host, f"files--{repository}", fleet.on("vault1"), lock, photo, "/root/first")
    host.check_output(f"mv /root/first {photo}")


def test_a_converged_host_runs_few_modules(fleet: Fleet) -> None:
    """At most a dozen with all of this in use, fact gathering included."""
    idle = fleet.good("site")
    assert not idle.changed
    assert set(idle.executions) == {"vault1", "web1", "web2"}
    assert all(len(ran) <= 12 for ran in idle.executions.values()), idle.executions
    # Files that host_info saw to be there are not looked at again; one that is not what it should be is.
    assert not [each for ran in idle.executions.values() for each in ran if "file_tree" in each]
    definition = "/etc/holdfast/serve/bk-web1/offsite.json"
    before = fleet.on("vault1").file(definition).content_string
    fleet.on("vault1").check_output(f"sed -i s/true/false/ {definition}")
    assert {host for host, _task in fleet.good("site").changed} == {"vault1"}
    assert fleet.on("vault1").file(definition).content_string == before


def test_units_are_shut_in_as_tightly_as_without_ssh(fleet: Fleet) -> None:
    for name in ("web1", "web2"):
        for unit in UNITS:
            assert_exposure(fleet.on(name), f"holdfast-{unit}.service", 2.0)


def test_the_pin_is_the_servers_own_key_on_its_own_port(fleet: Fleet) -> None:
    key = " ".join(fleet.on("vault1").file("/etc/ssh/ssh_host_ed25519_key.pub").content_string.split()[:2])
    pinned = fleet.on("web1").file("/etc/holdfast/ssh/offsite.known_hosts").content_string
    assert re.search(rf"^holdfast-offsite,\[[^]]+\]:{PORT} {re.escape(key)}$", pinned, re.MULTILINE)
    other = pinned.replace(key, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwQ1vO8nJ9d6yqQpuyXkFBr1dVXtn9Pfx9YlyoHRTOY")
    fleet.on("web1").check_output("printf %%s %s >/etc/holdfast/ssh/offsite.known_hosts", other)
    assert "HOST IDENTIFICATION HAS CHANGED" in dial(fleet, "web1", "offsite").stderr
    fleet.on("web1").run("holdfast run --wait system")
    unit = json.loads(fleet.on("web1").check_output("holdfast status --json system"))["units"][0]
    assert (unit["outcome"], unit["reason"]) == ("failed", "host key")
    fleet.converge()


def test_a_client_cannot_delete_through_rclone(fleet: Fleet) -> None:
    before = snapshots(fleet, "web1--offsite")
    host = fleet.on("web1")
    definition = json.loads(host.file("/etc/holdfast/units/files--offsite.json").content_string)
    options = " ".join(f"-o '{name}={value}'" for name, value in definition["options"].items())
    files = f"--repository-file {definition['repository_file']} --password-file {definition['password_file']}"
    refused = host.run(f"timeout 60 restic {options} {files} --no-cache forget --prune --keep-last 1 --group-by ''")
    # What restic was told, and not only that nothing happened.
    assert "403" in refused.stderr, refused
    assert snapshots(fleet, "web1--offsite") == before
    assert dial(fleet, "web1", "offsite").rc == 0


def test_an_address_that_the_server_does_not_see_is_named(fleet: Fleet) -> None:
    wrong = {**REPOSITORIES, "offsite": {**REPOSITORIES["offsite"], "source": ["192.0.2.7"]}}
    fleet.host_variables["web1"] = {"backup_repositories": wrong}
    # Until it is let in, not only in the run that changed something.
    for _run in range(2):
        said = fleet.run("site")
        assert set(said.failed) == {"web1"}
        assert "refused this host's key" in said.failed["web1"]
        assert "backup_repositories.offsite.source" in said.failed["web1"]
    assert dial(fleet, "web1", "second").rc == dial(fleet, "web2", "offsite").rc == 0
    address = fleet.lab.addresses("web1")[0]
    wrong["offsite"] = {**REPOSITORIES["offsite"], "source": [address]}
    refused = fleet.refused("site", "--limit", "web1")
    assert "the server vault1 has to change for this, and is outside the limit" in refused.text
    fleet.converge()
    assert f'from="{address}"' in key_lines(fleet, "bk-web1")[0]


def test_a_place_without_the_repository_is_told(fleet: Fleet) -> None:
    fleet.host_variables["vault1"] = {"ssh_access_path": "/srv/elsewhere"}
    for _run in range(2):
        said = fleet.run("site")
        assert set(said.failed) == {"web1", "web2"}
        assert all("bring it back" in each for each in said.failed.values())
    assert not fleet.on("vault1").check_output("find /srv/elsewhere/*--offsite -type f")
    del fleet.host_variables["vault1"]
    fleet.converge()
    assert dial(fleet, "web1", "offsite").rc == 0


def test_keys_are_rotated(fleet: Fleet) -> None:
    before, other = key_lines(fleet, "bk-web1"), key_lines(fleet, "bk-web2")
    arguments = ("-e", "backup_rotate_ssh=true", "--limit", "web1,vault1")
    announced = fleet.good("site", "--check", *arguments)
    # Keys that are yet to be made are not tried.
    assert "could not be checked" not in announced.text
    assert announced.changed == fleet.good("site", *arguments).changed
    after = key_lines(fleet, "bk-web1")
    assert len(after) == len(before) == 2
    assert not set(after) & set(before)
    assert key_lines(fleet, "bk-web2") == other
    assert dial(fleet, "web1", "offsite").rc == dial(fleet, "web1", "second").rc == 0
    fleet.on("web1").check_output("holdfast run --wait files")
    # The server, which is outside the limit, has what it needs: the new keys, and the addresses that they may come from.
    assert not fleet.good("site", "--limit", "web1").changed


def test_a_wiped_client_gets_its_keys_back(fleet: Fleet) -> None:
    before = key_lines(fleet, "bk-web1")
    fleet.lab.wipe("web1")
    fleet.forget_connections()
    said = fleet.run("site", "--limit", "web1")
    assert "restore_identity" in said.failed["web1"]
    # The other cure: it begins anew under another name, in repositories of its own.
    fleet.host_variables["web1"]["backup_id"] = "web1-new"
    assert "bk-web1-new" in fleet.good("site", "--check", "--limit", "web1,vault1", "--diff").text
    del fleet.host_variables["web1"]["backup_id"]
    fleet.good("restore_identity", "--limit", "web1", "-e", f"escrow_key={fleet.folder / 'escrow.key'}")
    fleet.good("site")
    assert key_lines(fleet, "bk-web1") == before
    fleet.on("web1").check_output("holdfast restore files--offsite --target /root/offsite")


def test_a_client_that_left_the_inventory_has_no_access_and_its_data_stays(fleet: Fleet) -> None:
    """Nobody decommissioned it: `site` with the rest of the fleet is enough. Declared again, it has its access back."""

    def server_side() -> tuple[str, str]:
        vault1 = fleet.on("vault1")
        look = f"find {SERVED}/web2--* -printf '%p %m %u %g %s %T@\\n' -type f -exec sha256sum {{}} +"
        return vault1.check_output(f"{look} | sort"), vault1.check_output("id -u bk-web2")

    def dialled() -> list[str]:
        """What ssh says when web2 uses its own keys, which stay on that host; restic may end before it passes that on."""
        ask = "timeout 60 ssh -F /etc/holdfast/ssh/{0}.conf -i /etc/holdfast/secrets/{0}.ssh_key holdfast-{0} </dev/null || true"
        return [str(fleet.on("web2").run(ask.format(name)).stderr) for name in ("offsite", "second")]

    fleet.on("web2").check_output("holdfast run --wait files")
    before, other = server_side(), key_lines(fleet, "bk-web1")
    assert len(key_lines(fleet, "bk-web2")) == 2
    assert dial(fleet, "web2", "offsite").rc == dial(fleet, "web2", "second").rc == 0
    fleet.groups["backup_clients"].remove("web2")
    fleet.converge()
    for said in dialled():
        assert "Permission denied (publickey)" in said, said
    fleet.on("web2").run("holdfast run --wait system")
    unit = json.loads(fleet.on("web2").check_output("holdfast status --json system"))["units"][0]
    assert (unit["outcome"], unit["reason"]) == ("failed", "key refused")
    assert not fleet.on("vault1").file("/etc/ssh/authorized_keys.d/bk-web2").exists
    assert server_side() == before
    # Nobody else is touched, and the account is no way in that another key could open.
    assert key_lines(fleet, "bk-web1") == other
    assert dial(fleet, "web1", "offsite").rc == dial(fleet, "web1", "second").rc == 0
    shadow = fleet.on("vault1").check_output("getent shadow bk-web2").split(":")
    assert (shadow[1][0], shadow[7]) == ("!", "1")
    fleet.groups["backup_clients"].append("web2")
    fleet.good("site")
    assert dial(fleet, "web2", "offsite").rc == dial(fleet, "web2", "second").rc == 0
    assert server_side() == before


def test_a_decommissioned_client_has_no_access_and_its_data_stays(fleet: Fleet) -> None:
    have = snapshots(fleet, "web2--offsite")
    assert dial(fleet, "web2", "offsite").rc == 0
    announced = fleet.good("decommission", "--check", "-e", "client=web2")
    assert dial(fleet, "web2", "offsite").rc == 0
    assert announced.changed == fleet.good("decommission", "-e", "client=web2").changed
    assert not fleet.good("decommission", "-e", "client=web2").changed
    assert dial(fleet, "web2", "offsite").rc != 0
    assert dial(fleet, "web2", "second").rc != 0
    assert snapshots(fleet, "web2--offsite") == have != set()
    fleet.groups["backup_clients"].remove("web2")
    assert not fleet.good("site").changed
    assert dial(fleet, "web1", "offsite").rc == 0
