"""The operator of a server and the administrator of a client: two inventories, two state directories, two files; in order."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet

# What neither of them would reach: a play that tries to log in to the other's host fails.
NOWHERE = {"ansible_host": "192.0.2.1"}
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
QUESTION, ANSWER = FOLDER / "from-administrator.json", FOLDER / "from-operator.json"
SECRETS = "/etc/holdfast/secrets"
REPOSITORIES: dict[str, dict[str, Any]] = {
    "vault": {"server": "vault1"},
    "offsite": {"access": "sftp", "server": "vault1"},
    "proxied": {"access": "rclone", "server": "vault1"},
    # Its key is on the client alone, so that nothing of it may be found on the other side.
    "archive": {"engine": "borg", "access": "ssh", "server": "vault1", "encryption": "keyfile-blake2"},
}
OVER_SSH = tuple(name for name, repository in REPOSITORIES.items() if "access" in repository)


def side(name: str, groups: dict[str, list[str]], **variables: Any) -> Fleet:
    """One of the two, with an inventory and a state directory of its own."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    fleet = Fleet("handover", folder, groups)
    fleet.variables = {"backup_repositories": REPOSITORIES, **variables}
    return fleet


@pytest.fixture(scope="session")
def operator() -> Fleet:
    """Who logs in to the server; of the client there is a name, and what it may use."""
    fleet = side("operator", {"backup_servers": ["vault1"], "backup_clients_elsewhere": ["web1"]})
    fleet.host_variables["web1"] = NOWHERE
    return fleet


@pytest.fixture(scope="session")
def administrator() -> Fleet:
    """Who logs in to the client, and decides what is backed up and who can restore it."""
    jobs = {"files": {"paths": ["/srv/data"], "schedule": {"calendar": "Mon *-*-1..7 04:00"}}}
    recipient = (FOLDER / "escrow.pub").read_text().strip()
    groups = {"backup_clients": ["web1"], "backup_servers_elsewhere": ["vault1"]}
    fleet = side("administrator", groups, backup_jobs=jobs, backup_escrow={"recipients": [recipient]})
    fleet.host_variables["vault1"] = NOWHERE
    return fleet


def exchange(sender: Fleet, receiver: Fleet, file: Path, about: str) -> None:
    """One writes a file, the other one reads it."""
    sender.good("handover", "-e", f"export_to={file}")
    receiver.good("handover", "-e", f"import_from={file}", "--limit", about)


def outcomes(fleet: Fleet) -> dict[str, str]:
    """How the last run into each repository ended."""
    units = json.loads(fleet.on("web1").check_output("holdfast status --json"))["units"]
    return {unit["repository"]: unit["outcome"] for unit in units}


def key_lines(operator: Fleet) -> list[str]:
    """The key lines of the client on the server."""
    return operator.on("vault1").file("/etc/ssh/authorized_keys.d/bk-web1").content_string.splitlines()


def logins(fleet: Fleet) -> dict[str, str]:
    """What lets the client in: the REST password, and a line of each private key of SSH, by repository."""
    read = fleet.on("web1").check_output
    found = {name: read(f"tail -n 2 {SECRETS}/{name}.ssh_key").splitlines()[0] for name in OVER_SSH}
    rest = re.findall(r"://[^:]+:([^@]+)@", read(f"cat {SECRETS}/vault.repository"))
    return {**found, "vault": rest[0]}


def secrets(fleet: Fleet) -> list[str]:
    """What opens the repositories: passwords, the key of borg, and what lets the client in."""
    read = fleet.on("web1").check_output
    passwords = read(f"cat {SECRETS}/*.password").split()
    assert len(passwords) == len(REPOSITORIES)
    return [*passwords, read(f"tail -n 1 {SECRETS}/archive.borg_key"), *logins(fleet).values()]


def let_in(fleet: Fleet, name: str, key: str) -> bool:
    """Whether the server lets the client in to a repository with this key; any other end than its refusal is an error."""
    dial = f"timeout 60 ssh -F /etc/holdfast/ssh/{name}.conf -i {key} holdfast-{name} </dev/null"
    # 255 is ssh's own: whatever else, the server ran what the key may run.
    said = fleet.on("web1").run(f"{dial} >/dev/null; echo ended with $? >&2")
    refused = said.stderr.endswith("ended with 255\n")
    assert refused == ("Permission denied (publickey)" in said.stderr), said
    return not refused


def test_without_the_operators_file_site_says_what_to_do(administrator: Fleet) -> None:
    administrator.on("web1").check_output("mkdir -p /srv/data && head -c 300000 /dev/urandom >/srv/data/photo")
    said = administrator.refused("site").text
    assert "web1: vault1 is not managed from here, and no hand-over file was imported" in said


def test_the_administrator_exports(administrator: Fleet) -> None:
    arguments = ("-e", f"export_to={QUESTION}")
    announced = administrator.good("handover", *arguments, "--check", "--diff")
    real = administrator.good("handover", *arguments, "--diff")
    assert announced.changed == real.changed, announced.output + real.output
    assert "client web1: vault on vault1, restic over rest" in real.output
    assert sorted(json.loads(QUESTION.read_text())["clients"]["web1"]) == sorted(REPOSITORIES)


def test_the_operator_imports_and_serves(operator: Fleet) -> None:
    operator.good("handover", "-e", f"import_from={QUESTION}", "--limit", "web1")
    operator.good("site")
    assert not operator.good("site").changed


def test_the_administrator_imports_and_the_client_backs_up(administrator: Fleet, operator: Fleet) -> None:
    exchange(operator, administrator, ANSWER, "vault1")
    administrator.good("site")
    assert not administrator.good("site").changed
    client = administrator.on("web1")
    client.check_output("holdfast run --wait files")
    assert outcomes(administrator) == dict.fromkeys(REPOSITORIES, "ok")
    for name in REPOSITORIES:
        client.check_output(f"holdfast restore files--{name} --target /root/{name}")
        client.check_output(f"cmp /srv/data/photo /root/{name}/srv/data/photo")


def test_the_operator_has_nothing_that_opens_a_repository(administrator: Fleet, operator: Fleet) -> None:
    found = secrets(administrator)
    looked = " ".join(f"-e '{secret}'" for secret in found)
    # The same look finds them where they belong.
    assert administrator.on("web1").run(f"grep -rqF {looked} /etc/holdfast").rc == 0
    assert operator.on("vault1").run(f"grep -rlF {looked} /etc /home /root /run/holdfast* /srv /tmp /var").stdout == ""
    kept = [path for path in [*operator.folder.rglob("*"), QUESTION, ANSWER] if path.is_file()]
    assert operator.state / "hosts/web1/rest/vault.json" in kept
    assert not [path for path in kept if any(secret in path.read_text(errors="replace") for secret in found)]
    for name in REPOSITORIES:
        assert list(administrator.state.glob(f"hosts/web1/escrow/{name}/*.age")), name
    assert not list(operator.state.glob("hosts/*/escrow"))


def test_secrets_are_rotated_by_another_exchange(administrator: Fleet, operator: Fleet) -> None:
    before, old = key_lines(operator), logins(administrator)
    client = administrator.on("web1")
    client.check_output(f"mkdir -m 700 /root/old && cp {SECRETS}/*.ssh_key /root/old/")
    said = administrator.good("rotate", "-e", "rotate=rest,ssh").text
    assert "archive, offsite, proxied, vault are not managed from here" in said
    assert "handover -e export_to=FILE" in said
    # The server knows nothing of it yet, and the client goes on with what the server takes.
    assert logins(administrator) == old
    exchange(administrator, operator, QUESTION, "web1")
    operator.good("site")
    assert len(key_lines(operator)) == 2 * len(before)
    exchange(operator, administrator, ANSWER, "vault1")
    administrator.good("site")
    used = logins(administrator)
    assert not {*old.values()} & {*used.values()}
    client.check_output("holdfast run --wait files")
    assert outcomes(administrator) == dict.fromkeys(REPOSITORIES, "ok")


def test_a_third_exchange_takes_the_old_keys_away(administrator: Fleet, operator: Fleet) -> None:
    used = logins(administrator)
    keys = {name: (f"/root/old/{name}.ssh_key", f"{SECRETS}/{name}.ssh_key") for name in OVER_SSH}

    def taken() -> dict[str, tuple[bool, ...]]:
        return {name: tuple(let_in(administrator, name, key) for key in both) for name, both in keys.items()}

    # Until then the server takes both.
    assert taken() == dict.fromkeys(OVER_SSH, (True, True))
    exchange(administrator, operator, QUESTION, "web1")
    operator.good("site")
    assert taken() == dict.fromkeys(OVER_SSH, (False, True))
    assert len(key_lines(operator)) == len(OVER_SSH)
    assert not administrator.good("site").changed
    assert logins(administrator) == used
    administrator.on("web1").check_output("holdfast run --wait files")
    assert outcomes(administrator) == dict.fromkeys(REPOSITORIES, "ok")


def test_a_client_that_the_operator_takes_out_has_no_access_and_its_data_stays(
    administrator: Fleet, operator: Fleet
) -> None:
    operator.good("decommission", "-e", "client=web1")
    assert administrator.on("web1").run("holdfast run --wait files").rc != 0
    assert outcomes(administrator) == dict.fromkeys(REPOSITORIES, "failed")
    server = operator.on("vault1")
    assert server.check_output("ls /srv/holdfast") == "web1--vault"
    assert server.check_output("ls /srv/holdfast-ssh").split() == sorted(f"web1--{name}" for name in OVER_SSH)
