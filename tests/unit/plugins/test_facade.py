# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles make of what hosts delivered, which may be anything."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.holdfast.backup.plugins.plugin_utils import _host

ROOT = Path(__file__).parents[3]
ESCROW = ROOT / "roles/escrow/vars/main.yml"


def written(delivered: dict[str, t.Any]) -> dict[str, t.Any]:
    """What of a client's identity goes to the state directory."""
    loader = DataLoader()
    variables = loader.load_from_file(str(ESCROW), trusted_as_template=True)
    variables.update(
        escrow_repositories=[
            {"name": "vault", "rest_user": "web1--vault", "ssh": None},
            {"name": "local", "rest_user": None, "ssh": None},
            {"name": "offsite", "rest_user": None, "ssh": {"account": "bk-web1"}},
        ],
        __escrow_identity={"repositories": delivered},
        escrow_backup_id="web1",
        escrow_known={"identities": {"before": "web", "vault": "web"}},
    )
    found = Templar(loader=loader, variables=variables).template(variables["__escrow_write"])
    return t.cast("dict[str, t.Any]", found)


def test_a_client_is_kept_under_its_own_name_only() -> None:
    said = {
        "rest_user": "db1--vault",
        "rest_hash": "h",
        "rest_next_hash": None,
        "bundle": "eA==",
        "bundle_name": "b.age",
    }
    local = {"rest_user": None, "rest_hash": None, "bundle": None}
    found = written({"vault": said, "local": local, "undeclared": said})
    assert sorted(found) == ["escrow/vault/b.age", "identity.json", "rest/vault.json"]
    assert found["identity.json"] == {"repositories": {"before": "web", "vault": "web1"}}
    assert found["escrow/vault/b.age"] == {"b64": "eA=="}
    assert json.loads(found["rest/vault.json"]) == {"user": "web1--vault", "hash": "h", "next_hash": None}
    assert written({"undeclared": said}) == {"identity.json": {"repositories": {"before": "web", "vault": "web"}}}


def test_public_keys_are_kept_one_a_line() -> None:
    said = {"ssh_public_key": "ssh-ed25519 A", "ssh_next_public_key": None}
    # A repository of another access has no key, whatever its host says.
    found = written({"offsite": said, "vault": said})
    assert found.pop("identity.json")
    assert found == {"ssh/offsite.pub": "ssh-ed25519 A\n"}
    found = written({"offsite": {**said, "ssh_next_public_key": "ssh-ed25519 B"}})
    assert found.pop("identity.json")
    assert found == {"ssh/offsite.pub": "ssh-ed25519 A\nssh-ed25519 B\n"}
    assert set(written({"offsite": {"ssh_public_key": None}})) == {"identity.json"}


FACADE = ROOT / "playbooks/vars/facade.yml"
OFFSITE: dict[str, t.Any] = {"name": "offsite", "access": "sftp", "server": "vault1", "ssh": {"account": "bk-web1"}}


def faced(name: str, **variables: t.Any) -> t.Any:
    """A variable of the facade of a client with one repository over SSH."""
    loader = DataLoader()
    known = loader.load_from_file(str(FACADE), trusted_as_template=True)
    model = {"client": {"repositories": [OFFSITE, {"name": "local", "access": "local", "ssh": None}]}, "server": None}
    known.update(
        inventory_hostname="web1",
        ansible_check_mode=False,
        hostvars={"vault1": {"__ssh_access_accounts": {"changed_keys": []}}},
        __holdfast_preflight={"hosts": {"web1": model}},
        __holdfast_host={"running": []},
    )
    known.update(variables)
    return Templar(loader=loader, variables=known).template(known[name])


def identity(**said: t.Any) -> dict[str, t.Any]:
    return {"repositories": {"offsite": {"ssh_public_key": "A", "ssh_next_public_key": None, **said}}}


ROTATING = {"__escrow_identity": identity(ssh_next_public_key="B")}


def test_a_next_key_is_tried_where_the_server_takes_it_and_nothing_runs() -> None:
    assert faced("__holdfast_ssh_next", __escrow_identity=identity()) == []
    assert faced("__holdfast_ssh_next", **ROTATING) == ["offsite"]
    assert faced("__holdfast_ssh_next", **ROTATING, hostvars={"vault1": {}}) == []
    for running in (["holdfast-system--offsite.service"], ["holdfast-system--offsite--pg.service"]):
        assert faced("__holdfast_ssh_next", **ROTATING, __holdfast_host={"running": running}) == []
    other = {"running": ["holdfast-system--offsite-two.service"]}
    assert faced("__holdfast_ssh_next", **ROTATING, __holdfast_host=other) == ["offsite"]
    # What was seen last counts, also of another repository: its server ends all connections of the client.
    for busy, names in ((False, ["offsite"]), (True, [])):
        assert faced("__holdfast_ssh_next", **{**ROTATING, "__escrow_identity": identity(ssh_next_public_key="B", busy=busy)},
                     __holdfast_host={"running": ["holdfast-files--offsite.service"]}) == names  # fmt: skip
    second = {**OFFSITE, "name": "second"}
    both = {"__holdfast_preflight": {"hosts": {"web1": {"client": {"repositories": [OFFSITE, second]}}}}}
    runs = {"running": ["holdfast-files--second.service"]}
    assert faced("__holdfast_ssh_next", **ROTATING, **both, __holdfast_host=runs) == []
    second["server"] = "vault2"
    assert faced("__holdfast_ssh_next", **ROTATING, **both, __holdfast_host=runs) == ["offsite"]
    # Check mode has made none.
    asked = {"__escrow_identity": identity(), "backup_rotate_ssh": True, "ansible_check_mode": True}
    assert faced("__holdfast_ssh_next", **asked) == ["offsite"]


VAULT: dict[str, t.Any] = {
    "name": "vault",
    "access": "rest",
    "server": "vault2",
    "rest_user": "web1--vault",
    "ssh": None,
}
OF_BOTH = {
    "__holdfast_preflight": {
        "hosts": {
            "web1": {"client": {"repositories": [OFFSITE, VAULT]}},
            **{each: {"elsewhere": False} for each in ("vault1", "vault2")},
        }
    },
    "__jobs_authorities": {"created": [], "changed_files": []},
    "__escrow_identity": {
        "repositories": {
            "offsite": {"ssh_public_key": "A", "ssh_next_public_key": "B"},
            "vault": {"rest_hash": "A", "rest_next_hash": "B"},
        }
    },
    "backup_rotate_rest": True,
    "ansible_check_mode": True,
}
SAID_OF_SERVERS = (
    "__holdfast_rest_created",
    "__holdfast_ssh_changed",
    "escrow_rest_rotate",
    "escrow_rest_server_hashes",
)


@pytest.mark.parametrize("odd", [5, None, True, "x", {"a": 1}, [5, None, {}], {"created": 5}, {"created_keys": None}])
def test_a_fact_of_a_server_that_is_called_like_a_result_stops_no_client(odd: t.Any) -> None:
    """It is what is left of a server whose role failed, and says nothing: its clients have other servers."""
    lists = ("created", "switched", "deferred", "created_keys", "changed_keys", "unlocked")
    for said in (odd, dict.fromkeys(lists, odd)):
        servers = {"vault1": {"__ssh_access_accounts": said}, "vault2": {"__rest_server_htpasswd": said}}
        found = [faced(name, **OF_BOTH, hostvars=servers) for name in SAID_OF_SERVERS]
        assert found == [False, False, ["vault"], {}], said
        kept = {
            "ansible_check_mode": False,
            "hostvars": servers,
            "__holdfast_host": {"running": ["a--offsite.service"]},
        }
        assert len(faced("__holdfast_next_kept", **{**OF_BOTH, **kept})) == 2
    good = {
        "vault1": {"__ssh_access_accounts": {"unlocked": ["bk-web1"]}},
        "vault2": {"__rest_server_htpasswd": {"created": ["web1--vault"], "switched": ["web1--vault"]}},
    }
    found = [faced(name, **OF_BOTH, hostvars=good) for name in SAID_OF_SERVERS]
    assert found == [True, True, [], {"web1--vault": "B"}]


def test_a_package_is_judged_in_the_suite_that_its_role_installs_it_from() -> None:
    """Else a version is judged good that is not the one which is installed, and the run fails after changes."""
    tasks = {
        role: yaml.safe_load((ROOT / f"roles/{role}/tasks/install.yml").read_text())[0]["ansible.builtin.apt"]
        for role in ("restic", "borg")
    }
    suites = {role: task["default_release"] for role, task in tasks.items()}
    assert suites == {role: f"{{{{ {role}_package_release or omit }}}}" for role in tasks}
    said: dict[str, t.Any] = {
        "restic_package": "restic",
        "restic_package_release": "trixie",
        "__restic_packages": ["restic=0.18.0-1", "age"],
        "borg_package_release": "",
        "borg_wanted": True,
        "__borg_packages": ["borgbackup", "borgmatic"],
    }
    wanted = {"restic": "trixie", "age": "trixie", "borgbackup": "", "borgmatic": ""}
    assert faced("common_package_releases", **said) == wanted
    backports = {"borgbackup": "bookworm-backports", "borgmatic": "bookworm-backports"}
    assert faced("common_package_releases", **{**said, "borg_package_release": "bookworm-backports"}) == {
        **wanted,
        **backports,
    }
    # What a server serves borg with is installed from no suite.
    assert "borgbackup" not in faced("common_package_releases", **{**said, "borg_wanted": False})
    preflight: dict[str, t.Any] = {"hosts": {"web1": {"client": None, "server": {}}}}
    assert faced("common_package_releases", **{**said, "borg_wanted": False}, __holdfast_preflight=preflight) == {}


def test_a_server_that_is_managed_elsewhere_says_by_file_what_it_takes() -> None:
    for accepts, wanted in ((None, []), (["A"], []), (["A", "B"], ["offsite"])):
        model = {"client": {"repositories": [{**OFFSITE, "accepts": accepts}]}, "server": None}
        preflight = {"hosts": {"web1": model}}
        elsewhere: dict[str, t.Any] = {"__holdfast_preflight": preflight, "hostvars": {"vault1": {}}}
        assert faced("__holdfast_ssh_next", **ROTATING, **elsewhere) == wanted
        vault = {"name": "vault", "server": "vault1", "access": "rest", "rest_user": "web1--vault", "accepts": accepts}
        elsewhere["__holdfast_preflight"] = {"hosts": {"web1": {"client": {"repositories": [vault]}}}}
        said = {"repositories": {"vault": {"rest_hash": "A", "rest_next_hash": "B"}}}
        hashes = faced("escrow_rest_server_hashes", __escrow_identity=said, **elsewhere)
        assert hashes == ({"web1--vault": "B"} if wanted else {})


def test_what_has_to_be_handed_over_is_known() -> None:
    vault = {"name": "vault", "server": "vault1", "accepts": ["A"]}
    repositories = [vault, {**vault, "name": "own", "server": "vault2"}, {"name": "local", "server": None}]
    hosts = {
        "web1": {"client": {"repositories": repositories}},
        "vault1": {"elsewhere": True},
        "vault2": {"elsewhere": False},
    }
    for said, wanted in (
        ({"rest_hash": "A", "rest_next_hash": "B"}, ["vault"]),
        ({"ssh_public_key": "A", "ssh_next_public_key": "B"}, ["vault"]),
        ({"rest_hash": "B", "rest_next_hash": "A"}, []),
        ({"rest_hash": "A", "rest_next_hash": None, "ssh_next_public_key": None}, []),
    ):
        given = {"repositories": dict.fromkeys(("vault", "own", "local"), said)}
        assert (
            faced("__holdfast_to_hand_over", __holdfast_preflight={"hosts": hosts}, __escrow_identity=given) == wanted
        )
    assert faced("__holdfast_to_hand_over", __holdfast_preflight={"hosts": hosts}) == []


def test_secrets_are_made_for_a_hand_over_where_there_are_none() -> None:
    def unborn(**known: t.Any) -> list[str]:
        repositories = [
            {**OFFSITE, "access": "rclone"},
            {"name": "vault", "server": "vault1", "access": "rest"},
            {"name": "near", "server": "vault2", "access": "rest"},
            {"name": "local", "server": None, "access": "local"},
        ]
        hosts = {"web1": {"client": {"repositories": repositories}}, "vault1": {"elsewhere": True}}
        hosts["vault2"] = {"elsewhere": False}
        preflight = {"hosts": hosts, "known": {"web1": {"rest": {}, "ssh": {}, **known}}}
        loader = DataLoader()
        extra = loader.load_from_file(str(ROOT / "playbooks/vars/handover.yml"), trusted_as_template=True)
        found = faced("__handover_unborn", __holdfast_preflight=preflight, **extra)
        return [each["name"] for each in found]

    assert unborn() == ["offsite", "vault"]
    assert unborn(rest={"vault": {}}) == ["offsite"]
    assert unborn(rest={"vault": {}}, ssh={"offsite": {}}) == []


def test_a_hand_over_makes_the_fleet_id_that_its_user_gave() -> None:
    """Else the playbook site, which is run next, would refuse the state directory as another fleet's."""
    made = {}
    for name in ("site", "handover"):
        plays = DataLoader().load_from_file(str(ROOT / f"playbooks/{name}.yml"))
        tasks = [task for play in plays for task in play.get("tasks", [])]
        made[name] = [
            task["holdfast.backup.state"] for task in tasks if "make_fleet_id" in task.get("holdfast.backup.state", {})
        ]
    assert len(made["site"]) == 1
    assert [each["fleet_id"] for each in made["handover"]] == ["{{ backup_fleet_id | default(omit) }}"]


def test_a_next_key_is_used_when_it_opened_its_repository() -> None:
    def tried(state: str) -> dict[str, t.Any]:
        return {"__jobs_next_keys": {"repositories": [{"name": "offsite", "state": state}]}}

    assert faced("escrow_ssh_promote", **ROTATING) == []
    assert faced("escrow_ssh_promote", **ROTATING, **tried("present")) == ["offsite"]
    assert faced("escrow_ssh_promote", **ROTATING, **tried("unreachable")) == []
    assert faced("escrow_ssh_promote", **ROTATING, __jobs_next_keys={"msg": "no"}) == []
    assert faced("escrow_ssh_promote", **ROTATING, **tried("unreachable"), ansible_check_mode=True) == ["offsite"]


def test_what_changed_about_the_way_is_tried() -> None:
    said: dict[str, t.Any] = {"created": [], "changed_files": []}

    def verified(server: dict[str, t.Any] | None = None, **changed: t.Any) -> bool:
        hostvars = {"vault1": {"__ssh_access_accounts": server} if server is not None else {}}
        return bool(faced("jobs_verify_repositories", __jobs_authorities={**said, **changed}, hostvars=hostvars))

    assert not verified()
    assert not verified(changed_files=["/etc/holdfast/repositories/vault.pem"])
    assert verified(changed_files=["/etc/holdfast/ssh/offsite.known_hosts"])
    assert verified(created=["/etc/holdfast/ssh/offsite.conf"])
    assert verified({"changed_keys": ["bk-web1 offsite"]})
    assert verified({"created_keys": ["bk-web1 offsite"]})
    assert verified({"unlocked": ["bk-web1"]})
    assert not verified({"changed_keys": ["bk-web2 offsite"], "unlocked": ["bk-web2"]})


def test_a_server_that_knew_the_client_no_more_may_have_lost_its_repository() -> None:
    """Location and password are as they were, so the record still applies."""

    def verified(**htpasswd: t.Any) -> bool:
        repository = {"name": "vault", "access": "rest", "server": "vault1", "rest_user": "web1--vault", "ssh": None}
        model = {"hosts": {"web1": {"client": {"repositories": [repository]}}}}
        hostvars = {"vault1": {"__rest_server_htpasswd": htpasswd} if htpasswd else {}}
        said: dict[str, t.Any] = {"created": [], "changed_files": []}
        return bool(
            faced("jobs_verify_repositories", __holdfast_preflight=model, __jobs_authorities=said, hostvars=hostvars)
        )

    assert verified(created=["web1--vault"])
    assert not verified(created=["web2--vault"], changed_users=["web1--vault"])
    assert not verified()


def test_a_local_repository_is_always_looked_at() -> None:
    repositories = [{"name": "offsite", "path": None}, {"name": "local", "path": "/srv/local"}]
    said = {"repositories": {name: {"recorded": True} for name in ("offsite", "local")}}
    model = {"hosts": {"web1": {"client": {"repositories": repositories}}}}
    assert faced("jobs_recorded", __holdfast_preflight=model, __escrow_identity=said) == ["offsite"]
    assert faced("jobs_recorded", __holdfast_preflight=model) == []


def test_a_next_rest_password_is_asked_for_once_in_a_run() -> None:
    repository = {"name": "vault", "access": "rest", "server": "vault1", "rest_user": "web1--vault"}
    model = {"hosts": {"web1": {"client": {"repositories": [repository]}}}}
    asked: dict[str, t.Any] = {"backup_rotate_rest": True, "__holdfast_preflight": model}

    def wanted(**server: t.Any) -> t.Any:
        return faced("escrow_rest_rotate", **asked, hostvars={"vault1": server})

    assert wanted() == wanted(__rest_server_htpasswd={"switched": []}) == ["vault"]
    assert wanted(__rest_server_htpasswd={"switched": ["web1--vault"]}) == []
    assert faced("escrow_rest_rotate", __holdfast_preflight=model) == []


def test_runs_wait_for_servers_of_this_inventory_until_they_are_let_go() -> None:
    vault = {"name": "vault", "access": "rest", "server": "vault1", "rest_user": "web1--vault", "ssh": None}
    others = [{**vault, "name": "theirs", "server": "vault2"}, {**vault, "name": "local", "server": None}]
    hosts = {
        "web1": {"client": {"repositories": [vault, *others]}},
        "vault1": {"elsewhere": False},
        "vault2": {"elsewhere": True},
    }
    assert faced("escrow_hold", __holdfast_preflight={"hosts": hosts}) == ["vault"]
    for held in (False, True):
        assert faced("jobs_held", __escrow_identity={"repositories": {"vault": {"held": held}}}) is held
    assert faced("jobs_held", __escrow_identity={"failed": True}) is faced("jobs_held") is False


def test_a_next_password_is_asked_for_once_in_a_run() -> None:
    asked: dict[str, t.Any] = {"backup_rotate_passwords": True}
    assert faced("escrow_password_rotate") == []
    assert faced("escrow_password_rotate", **asked) == ["offsite", "local"]
    assert faced("escrow_password_rotate", **asked, __jobs_passwords={"repositories": []}) == []


def test_what_was_born_or_promoted_in_a_run_gets_no_other_in_it() -> None:
    """A new client's first secrets, say, or a password that a server of somebody else took by now."""
    vault = {"name": "vault", "access": "rest", "server": "vault1", "rest_user": "web1--vault", "ssh": None}
    model = {"hosts": {"web1": {"client": {"repositories": [vault, {**OFFSITE, "access": "ssh"}]}}}}
    rotate = {f"backup_rotate_{kind}": True for kind in ("rest", "ssh", "passwords")}
    for name, first in (
        ("escrow_rest_rotate", ["vault"]),
        ("escrow_ssh_rotate", ["offsite"]),
        ("escrow_password_rotate", ["vault", "offsite"]),
    ):
        asked: dict[str, t.Any] = {**rotate, "__holdfast_preflight": model}
        assert faced(name, **asked) == first
        assert faced(name, **asked, __escrow_identity={"repositories": {}}) == []
        # Check mode has made none.
        assert faced(name, **asked, __escrow_identity={"repositories": {}}, ansible_check_mode=True) == first


def test_what_became_of_passwords_is_known() -> None:
    said = identity(password_next=True, password_old=False)
    assert faced("__holdfast_next_passwords", __escrow_identity=said) == ["offsite"]
    assert faced("__holdfast_old_passwords", __escrow_identity=said) == []
    said = identity(password_next=False, password_old=True)
    assert faced("__holdfast_next_passwords", __escrow_identity=said) == []
    assert faced("__holdfast_old_passwords", __escrow_identity=said) == ["offsite"]
    used = {"__jobs_passwords": {"repositories": [
        {"name": "offsite", "action": "use", "id": "b" * 64, "key": "c" * 64},
        {"name": "local", "action": "none", "id": "d" * 64, "key": "e" * 64},
    ]}}  # fmt: skip
    recorded = {"HOLDFAST_REPOSITORY_ID": "b" * 64, "RESTIC_KEY_HINT": "a" * 64}
    host = {"running": [], "records": {"offsite": recorded}}
    # Check mode has used none; the module identity goes by what the real run would have.
    assert faced("escrow_password_used", **used) == []
    assert faced("escrow_password_used", ansible_check_mode=True, **used) == ["offsite"]
    assert faced("escrow_password_used", ansible_check_mode=True) == []
    assert faced("escrow_records", __holdfast_host=host)["offsite"]["key"] == "a" * 64
    assert faced("escrow_records", __holdfast_host=host, **used)["offsite"]["key"] == "c" * 64


def test_what_waits_is_said_with_its_reason() -> None:
    said = [{"name": "offsite", "kept": "a backup runs"}, {"name": "local", "kept": None}]
    for name in ("__jobs_passwords", "__jobs_old_passwords"):
        found = faced("__holdfast_passwords_kept", **{name: {"repositories": said}})
        assert found == ["offsite: its old password still opens it: a backup runs"]
    assert faced("__holdfast_old_keys_kept", __jobs_old_passwords={"repositories": said}) == ["offsite"]
    assert faced("__holdfast_passwords_kept") == faced("__holdfast_old_keys_kept") == []


def test_who_got_no_new_password_is_told() -> None:
    """The key of an older one was removed, and what leaked meanwhile is still the current one."""
    name, old = "__holdfast_passwords_unmade", identity(password_next=False, password_old=True)
    wanted = ["offsite: got no new password: this run ended the change before. Run again for a new one"]
    assert faced(name, __escrow_identity=old) == wanted
    # The client removed the key itself, and then forgot those that servers removed.
    forgotten = {"repositories": [{"name": "vault", "kept": None}]}
    assert faced(name, __escrow_identity=old, __jobs_old_passwords=forgotten) == wanted
    used = {"repositories": [{"name": "offsite", "action": "use"}]}
    kept = {"repositories": [{"name": "offsite", "kept": "locked"}]}
    assert faced(name, __escrow_identity=old, __jobs_passwords=used) == []
    assert faced(name, __escrow_identity=old, __jobs_old_passwords=kept) == []
    assert faced(name, __escrow_identity=identity(password_next=False, password_old=False)) == []


def test_what_servers_do_not_go_by_yet_is_said_with_its_reason() -> None:
    vault = {"name": "vault", "server": "vault1", "access": "rest", "rest_user": "web1--vault", "ssh": None}
    theirs = {**OFFSITE, "name": "theirs", "server": "vault2"}
    hosts = {
        "web1": {"client": {"repositories": [vault, OFFSITE, theirs, {"name": "local", "server": None, "ssh": None}]}},
        "vault1": {"elsewhere": False},
        "vault2": {"elsewhere": True},
    }
    took: dict[str, t.Any] = {"__ssh_access_accounts": {"changed_keys": []}}

    def kept(names: t.Iterable[str], server: dict[str, t.Any], **more: t.Any) -> t.Any:
        said: dict[str, t.Any] = {
            name: {"rest_next_hash": "B"} if name == "vault" else {"ssh_next_public_key": "B"} for name in names
        }
        return faced(
            "__holdfast_next_kept",
            __holdfast_preflight={"hosts": hosts},
            __escrow_identity={"repositories": said},
            hostvars={"vault1": server, "vault2": {}},
            **more,
        )

    # What is told by a file is said elsewhere.
    assert kept(["theirs", "local"], took) == kept([], {}) == []
    busy = {**took, "__rest_server_htpasswd": {"switched": [], "deferred": ["web1--vault"]}}
    runs = {"__holdfast_host": {"running": ["holdfast-files--offsite.service"]}}
    rest, ssh = "vault: its old REST password stays in use: ", "offsite: its old SSH key stays in use: "
    both = ["vault", "offsite"]
    for check in (False, True):
        found = kept(both, busy, ansible_check_mode=check, **runs)
        assert found == [
            f"{rest}a backup runs, or seems to (-e backup_rotate_now=true cuts it off)",
            f"{ssh}a backup runs over SSH into its server",
        ]
        for silent in ({}, {"__ssh_access_accounts": {"failed": True}, "__rest_server_htpasswd": {"failed": True}}):
            found = kept(both, silent, ansible_check_mode=check, **runs)
            assert found == [
                f"{rest}its server did not take the next one",
                f"{ssh}its server did not take the next one",
            ]
    assert kept(["offsite"], took) == [f"{ssh}the next one was not seen to open it"]
    # Check mode has not made the next ones current.
    switched = {**took, "__rest_server_htpasswd": {"switched": ["web1--vault"], "deferred": []}}
    assert kept(both, switched, ansible_check_mode=True) == []


def test_whoever_waits_for_the_servers_is_let_go_before_anybody_waits_for_it() -> None:
    tasks = DataLoader().load_from_file(str(ROOT / "roles/jobs/tasks/before.yml"))
    names = [task["name"] for task in tasks]
    assert names.index("Let runs begin that waited for the servers") < names.index(
        "Stop the timers of jobs that are gone"
    )


def test_a_client_names_keys_of_its_own_repositories_only() -> None:
    repositories = [
        {"name": "vault", "server": "vault1", "append_only": True, "rest_user": "web1--vault", "ssh": None, "remote": None},
        {"name": "near", "server": "vault1", "append_only": True, "rest_user": None, "remote": None,
         "ssh": {"account": "bk-web1", "path": "/srv/holdfast-ssh/web1--near"}},
        {"name": "far", "server": "vault1", "append_only": True, "rest_user": None, "remote": "s3:bucket",
         "ssh": {"account": "bk-web1", "path": None}},
        {"name": "second", "server": "vault1", "append_only": False, "rest_user": None, "remote": None, "ssh": {}},
        {"name": "other", "server": "vault2", "append_only": True, "rest_user": "web1--other", "ssh": None, "remote": None},
    ]  # fmt: skip
    hosts = {
        "web1": {"client": {"repositories": repositories}, "server": None, "backup_id": "web1"},
        "vault1": {"client": None, "server": {"path": "/srv/holdfast"}, "backup_id": "vault1"},
    }
    old, new = "a" * 64, "b" * 64
    names = ("vault", "near", "far", "second", "other", "undeclared")
    said = {"__jobs_old_passwords": {"repositories": [{"name": name, "old_key": old, "key": new} for name in names]}}
    found = faced(
        "__holdfast_retired_keys",
        inventory_hostname="vault1",
        __holdfast_preflight={"hosts": hosts},
        hostvars={"web1": said},
    )
    assert [(key["name"], key["path"], key["remote"], key["config"], key["account"]) for key in found] == [
        ("web1--vault", "/srv/holdfast/web1--vault", None, None, None),
        ("web1--near", "/srv/holdfast-ssh/web1--near", None, None, None),
        ("web1--far", None, "s3:bucket/web1--far", "/etc/holdfast/rclone/s3.conf", "bk-web1"),
    ]
    assert {(key["old"], key["new"]) for key in found} == {(old, new)}
    # Its server takes its time for each key.
    many = [{"name": "vault", "old_key": f"{number:064x}", "key": new} for number in range(100)]
    found = faced(
        "__holdfast_retired_keys",
        inventory_hostname="vault1",
        __holdfast_preflight={"hosts": hosts},
        hostvars={"web1": {"__jobs_old_passwords": {"repositories": many}}},
    )
    assert len(found) == 1
    silent = {"web1": {"__jobs_old_passwords": {"repositories": [{"name": "vault", "old_key": None, "key": new}]}}}
    quiet: tuple[dict[str, t.Any], ...] = (silent, {"web1": {}})
    for hostvars in quiet:
        variables = {"inventory_hostname": "vault1", "__holdfast_preflight": {"hosts": hosts}, "hostvars": hostvars}
        assert faced("__holdfast_retired_keys", **variables) == []
    # A fact of that name, which nobody has checked.
    for told in (5, "text", None, {"repositories": 5}, {"repositories": "text"}, {"repositories": {"name": "vault"}},
                 {"repositories": [5, None, {}, {"name": "vault"}, {"name": "vault", "old_key": {}, "key": new}]}):  # fmt: skip
        hostvars = {"web1": {"__jobs_old_passwords": told}}
        variables = {"inventory_hostname": "vault1", "__holdfast_preflight": {"hosts": hosts}, "hostvars": hostvars}
        assert faced("__holdfast_retired_keys", **variables) == []


def test_a_client_has_time_for_its_own_repositories_only() -> None:
    said = [{"name": name, "kept": "a reason"} for name in ("vault", *(f"other{number}" for number in range(100)))] * 2
    found = faced(
        "__holdfast_old_keys_kept",
        __holdfast_client={"repositories": [{"name": "near"}, {"name": "vault"}]},
        __jobs_old_passwords={"repositories": [*said, {"name": "near", "kept": ""}]},
    )
    assert found == ["vault"]


def test_what_is_new_to_clients_is_looked_for_once() -> None:
    def new(client: dict[str, t.Any], server: dict[str, t.Any] | None = None, **more: t.Any) -> t.Any:
        hostvars = {"web1": {"__escrow_identity": client}, "db1": {}, "vault1": server or {}}
        groups = {"backup_clients": ["db1", "web1"], "backup_servers": ["vault1"]}
        return faced("__holdfast_something_new", hostvars=hostvars, groups=groups, **more)

    settled = {"ssh_next_public_key": None, "password_next": False}
    assert new({"repositories": {"offsite": settled}}) is False
    assert new({"failed": True}) is False
    assert new({"repositories": {"offsite": settled}}, ansible_check_mode=True) is True
    assert new({"repositories": {"offsite": {**settled, "ssh_next_public_key": "B"}}}) is True
    assert new({"repositories": {"offsite": {**settled, "password_next": True}}}) is True
    assert new({}, {"__rest_server_authority": {"pending": True}}) is True
    assert new({}, {"__rest_server_authority": {"pending": False}}) is False
    assert faced("__holdfast_something_new", groups={}) is False
    # A fact of that name, which nobody has checked, stops nobody and asks for nothing.
    odd: tuple[t.Any, ...] = (
        5, "text", None, [], {"repositories": 5}, {"repositories": ["x"]}, {"repositories": {"a": 5}},
        {"repositories": {"a": {"ssh_next_public_key": 5, "password_next": "x"}}}, {"pending": 5},
    )  # fmt: skip
    for told in odd:
        assert new(told, told) is False


def test_a_client_whose_escrow_its_server_has_is_known() -> None:
    """Also to a state directory that was lost with the client: it gets no new secrets."""
    names = ("vault", "other")
    client = {
        "repositories": [{"name": name, "server": "vault1", "engine": "restic", "access": "rest"} for name in names]
    }

    def copied(said: t.Any) -> t.Any:
        variables = {
            "inventory_hostname": "web1",
            "__holdfast_preflight": {"hosts": {"web1": {"client": client, "backup_id": "web1"}}},
            "hostvars": {"vault1": {"__holdfast_host": said}},
        }
        return faced("escrow_copied", **variables)

    assert copied({"escrow_copies": {"web1--vault": ["0.age"], "web11--other": ["0.age"], "web1--other": []}}) == [
        "vault"
    ]
    odd: tuple[t.Any, ...] = (None, "text", {}, {"escrow_copies": None}, {"escrow_copies": []}, {"escrow_copies": {}})
    for told in odd:
        assert copied(told) == []
    loader = DataLoader()
    variables = loader.load_from_file(str(ESCROW), trusted_as_template=True)
    variables |= loader.load_from_file(str(ESCROW.parents[1] / "defaults/main.yml"), trusted_as_template=True)
    variables.update(
        escrow_repositories=[{**each, "location": "rest:https://vault1/x/"} for each in client["repositories"]],
        escrow_copied=["vault"],
    )
    wanted = Templar(loader=loader, variables=variables).template(variables["__escrow_wanted"])
    assert {each["name"]: each["known"] for each in wanted} == {"vault": True, "other": False}


def test_clients_trust_what_the_server_has_now() -> None:
    vault = {"name": "vault", "access": "rest", "server": "vault1", "tls": "provided"}

    def trusted(said: t.Any, known: str | None = "OLD") -> t.Any:
        preflight = {"hosts": {"web1": {"client": {"repositories": [vault]}}}, "known": {"vault1": {"ca": known}}}
        hostvars = {"vault1": {} if said is None else {"__rest_server_authority": said}}
        variables = {"inventory_hostname": "web1", "__holdfast_preflight": preflight, "hostvars": hostvars}
        return faced("jobs_cas", **variables)["vault"]

    assert trusted({"ca": "NEW"}) == "NEW"
    # A certificate that every system trusts: what was the server's own says nothing any more.
    assert trusted({"ca": None}) == ""
    # It was not asked, or could not answer.
    assert trusted(None) == trusted({"failed": True}) == trusted({"skipped": True}) == trusted("text") == "OLD"
    assert trusted(None, None) == ""


def test_a_new_authority_waits_for_who_was_not_seen_to_know_it() -> None:
    hosts = {"vault1": {"server": {"users": [{"host": "web1"}, {"host": "db1"}]}, "client": None}}
    preflight = {"hosts": hosts, "known": {name: {"decommissioned": None} for name in ("web1", "db1")}}

    def unknown(*said: t.Any) -> t.Any:
        hostvars: dict[str, t.Any] = {"db1": {"__jobs_authorities": {"changed": False}}, "web1": {}}
        for each in said:
            hostvars["web1"]["__jobs_authorities"] = each
        variables = {"inventory_hostname": "vault1", "__holdfast_preflight": preflight, "hostvars": hostvars}
        return faced("__holdfast_authority_unknown_to", **variables)

    assert unknown({"changed": True}) == []
    assert unknown() == unknown({"failed": True}) == unknown({"unreachable": True}) == ["web1"]
    # A fact of that name, which nobody has checked, does not stop the server.
    for fact in ("x", 5, None, ["x"], True):
        assert unknown(fact) == ["web1"]


@pytest.mark.parametrize("users", [[], [{"name": "web1--vault"}]])
@pytest.mark.parametrize("extra", [[], ["me"]])
@pytest.mark.parametrize("accounts", [[], [{"name": "bk-web1"}]])
@pytest.mark.parametrize("seen", [{}, {"htpasswd": {"users": {}}}, {"ssh_accounts": {"accounts": {}}}])
def test_a_server_is_judged_by_what_it_will_serve(
    users: list[t.Any], extra: list[str], accounts: list[t.Any], seen: dict[str, t.Any]
) -> None:
    """The look at the host needs rest-server exactly where the role that installs it runs later."""
    server = {"users": users, "extra_users": extra, "ssh": {"accounts": accounts}}
    preflight = {"hosts": {"web1": {"client": None, "server": server}}}
    given: dict[str, t.Any] = {"__holdfast_preflight": preflight, "__rest_server_tool": {"install": "package"}}
    rest = faced("__holdfast_rest_tool", **given)
    assert rest["install"] == "package"
    assert _host.rest_served(seen, rest) is faced("__holdfast_rest_served", **given, __holdfast_host=seen)


@pytest.mark.parametrize("way", ["rest", "ssh"])
def test_what_a_host_has_nothing_of_is_served_no_more(way: str) -> None:
    """It was installed anew, say. Where it serves that way, or its manifest is damaged, the roles know better."""
    accounts = [{"name": "bk-db1"}] if way == "rest" else []
    server = {"users": [], "extra_users": [], "ssh": {"accounts": accounts}}
    known = {
        "rendered": {"users": {"web1--a": "01"}, "quotas": {"web1--a": "1G"}, "names": ["vault"]},
        "ssh_rendered": {"repositories": {"web1--a": {"host": "web1"}}},
    }
    preflight = {"hosts": {"web1": {"client": None, "server": server}}, "known": {"web1": known}}
    name = "htpasswd" if way == "rest" else "ssh_accounts"

    def unserved(**seen: t.Any) -> t.Any:
        host = {"htpasswd": None, "ssh_accounts": None, "files": {f"/var/lib/holdfast/{name}.json": None}, **seen}
        return faced("__holdfast_unserved", __holdfast_preflight=preflight, __holdfast_host=host)

    empty = {"rendered.json": {"users": {}, "quotas": {}, "names": ["vault"]}}
    assert unserved() == (empty if way == "rest" else {"ssh_rendered.json": {"repositories": {}}})
    assert unserved(**{name: {"users": {}, "accounts": {}}}) == ({} if way == "rest" else empty)
    assert unserved(files={f"/var/lib/holdfast/{name}.json": "01"}) == {}
    known.update(rendered=None, ssh_rendered=None)
    assert unserved() == {}


@pytest.mark.parametrize("kinds", [[], ["sftp"], ["sftp", "rclone"]])
@pytest.mark.parametrize("seen", ["", "a" * 64])
def test_a_proxy_is_judged_by_what_it_will_serve(kinds: list[str], seen: str) -> None:
    """The look at the host needs rclone exactly where the role that installs it runs later."""
    definitions = [{"account": "bk-web1", "kind": kind, "remote": None} for kind in kinds]
    server: dict[str, t.Any] = {"rclone": {"remotes": {}}}
    given: dict[str, t.Any] = {
        "__holdfast_preflight": {"hosts": {"web1": {"client": None, "server": server}}},
        "ssh_access_definitions": definitions,
        "__rclone_proxy_tool": {"install": "package"},
    }
    tool = faced("__holdfast_rclone_tool", **given)
    assert (tool["install"], tool["remotes"]) == ("package", False)
    info = {"files": {"/var/lib/holdfast/rclone_remotes.json": seen}}
    assert _host.rclone_served(info, tool) is faced("__holdfast_rclone_served", **given, __holdfast_host=info)


def test_what_takes_access_away_needs_no_program_that_serves() -> None:
    """An old one must not keep a client from being decommissioned."""
    loader = DataLoader()
    roles: dict[str, t.Any] = {}
    for role in ("rest_server", "rclone_proxy", "ssh_access"):
        for part in ("defaults", "vars"):
            path = ROOT / f"roles/{role}/{part}/main.yml"
            roles.update(loader.load_from_file(str(path), trusted_as_template=True))
    # The facade outranks what a role says.
    roles = {name: value for name, value in roles.items() if name not in loader.load_from_file(str(FACADE))}
    definition = {"account": "bk-web1", "kind": "borg", "append_only": True, "remote": None}
    account = {"name": "bk-web1", "host": "web1", "backup_id": "web1", "keys": []}
    server = {
        "users": [],
        "extra_users": [],
        "ssh": {"accounts": [account]},
        "definitions": [definition],
        "rclone": {"remotes": {}},
    }
    hosts = {"web1": {"client": None, "server": server}}
    preflight = {"hosts": hosts, "state_dir": "/state", "wanted_fleet_id": None, "fleet_id": "f1"}

    def judged(**variables: t.Any) -> list[bool]:
        given = {**roles, "ansible_facts": {"architecture": "x86_64"}, "__holdfast_preflight": preflight, **variables}
        given.update(rest_server_accounts=[], ssh_access_accounts=[account])
        found = faced("common_server", **given)
        assert (found["fleet_id"], found["ssh_accounts"]) == ("f1", {"bk-web1": []})
        assert (found["path"], found["account"], found["ssh_path"]) == (
            "/srv/holdfast",
            "holdfast-rest",
            "/srv/holdfast-ssh",
        )
        # Nor does one server have to wait for another.
        assert faced("common_revoke_only", **given) is ("__holdfast_given_up" in variables)
        return [bool(found[name]) for name in ("rest", "rclone", "borg", "serves_ssh")]

    assert judged() == [True, True, True, True]
    assert judged(__holdfast_given_up="db1") == [False, False, False, False]


def test_whose_a_local_repository_is_to_be() -> None:
    """As the role jobs gives it; where access is only taken away nothing is given."""

    def account(**variables: t.Any) -> t.Any:
        role = {"__restic_tool": {"install": "none"}, "__borg_tool": {}, "restic_account": "backup", **variables}
        return faced("common_tool", **role)["account"]

    assert account(restic_privilege="systemd") == account(restic_privilege="setcap") == "backup"
    assert account(restic_privilege="root") == "root"
    assert account(restic_privilege="systemd", __holdfast_given_up="db1") == ""
    user = DataLoader().load_from_file(str(ROOT / "roles/jobs/vars/main.yml"))["__jobs_user"]
    assert user == "{{ 'root' if jobs_privilege == 'root' else jobs_account }}"


def test_whom_a_server_is_to_serve_over_ssh_is_known_before_anything_is_changed() -> None:
    keys: list[dict[str, t.Any]] = [{"repository": name, "kind": "borg", "from": []} for name in ("archive", "offsite")]
    accounts = [{"name": "bk-web1", "host": "web1", "backup_id": "web1", "keys": keys, "public_keys": []}]
    assert faced("__holdfast_ssh_wanted", ssh_access_accounts=accounts) == {"bk-web1": ["archive", "offsite"]}
    assert faced("__holdfast_ssh_wanted", ssh_access_accounts=[]) == {}


SERVES: dict[str, t.Any] = {"users": [], "extra_users": [], "ssh": {"accounts": []}}


def served(server: dict[str, t.Any] | None, facts: dict[str, t.Any] | None = None, **variables: t.Any) -> t.Any:
    """How rest-server gets to a server, and the programs that are asked for their version."""
    loader = DataLoader()
    role: dict[str, t.Any] = {}
    for path in ("rest_server/defaults", "rest_server/vars", "rclone_proxy/defaults", "rclone_proxy/vars"):
        role.update(loader.load_from_file(str(ROOT / f"roles/{path}/main.yml"), trusted_as_template=True))
    role.update(borg_wanted=False, ansible_facts=facts or {"architecture": "x86_64"}, **variables)
    role["__holdfast_preflight"] = {"hosts": {"web1": {"client": None, "server": server}}}
    return faced("__holdfast_rest_tool", **role) if server else None, faced("common_binaries", **role)


def test_how_rest_server_gets_here_is_what_its_variables_say() -> None:
    tool, binaries = served(SERVES)
    assert (tool["install"], tool["package"], tool["checksums"], tool["sha256"]) == (
        "package",
        "restic-rest-server",
        [],
        "",
    )
    assert binaries == []
    assert served(SERVES, rest_server_install="none", rest_server_binary="/opt/rest")[1] == ["/opt/rest"]
    assert served(None, rest_server_install="none", rest_server_binary="/opt/rest")[1] == []
    release: dict[str, t.Any] = {"rest_server_install": "release", "rest_server_release_sha256": {"x86_64": "a"}}
    assert served(SERVES, **release)[0]["sha256"] == "a"
    # A fact may be anything.
    for architecture in ("aarch64", ["x86_64"], {"x86_64": 1}):
        assert served(SERVES, {"architecture": architecture}, **release)[0]["sha256"] == ""


@pytest.mark.parametrize(
    ("role", "tool", "variable", "install"),
    [
        ("restic", "__restic_tool", "restic_binary", "install"),
        ("borg", "__borg_tool", "borg_binary", "install"),
        ("borg", "__borg_tool", "borg_borgmatic_binary", "borgmatic_install"),
        ("rest_server", "__rest_server_tool", "rest_server_binary", "install"),
        ("rclone_proxy", "__rclone_proxy_tool", "rclone_proxy_binary", "install"),
    ],
)
def test_the_program_that_is_used_is_the_one_that_is_judged(role: str, tool: str, variable: str, install: str) -> None:
    """One that is named is used whatever is to be installed, and an old one passed unseen beside a good package."""
    loader = DataLoader()
    given: dict[str, t.Any] = {}
    for each in ("restic", "borg", "rest_server", "rclone_proxy", "ssh_access"):
        for part in ("defaults", "vars"):
            path = ROOT / f"roles/{each}/{part}/main.yml"
            given.update(loader.load_from_file(str(path), trusted_as_template=True) if path.exists() else {})
    facade = loader.load_from_file(str(FACADE), trusted_as_template=True)
    model = {"client": {"repositories": [], "escrow": {"mode": "none"}}, "server": {**SERVES, "definitions": []}}
    given = {name: value for name, value in given.items() if name not in facade}
    given.update(
        borg_wanted=True,
        restic_wanted=True,
        rest_server_accounts=[],
        ansible_facts={"architecture": "x86_64"},
        __holdfast_preflight={"hosts": {"web1": model}},
        **{variable: "/opt/program"},
    )
    assert faced("common_binaries", **given) == ["/opt/program"]
    loaded = {**facade, **given}
    assert Templar(loader=loader, variables=loaded).template(loaded[tool])[install] == "none"


def told(file: str, task: str, **variables: t.Any) -> bool:
    """Whether a task of a file is done, by its own condition."""
    found = DataLoader().load_from_file(str(ROOT / file), trusted_as_template=True)
    tasks = [each for part in found for each in part.get("tasks", [part])]
    (condition,) = [each["when"] for each in tasks if each.get("name") == task]
    return bool(Templar(loader=DataLoader(), variables=variables).evaluate_conditional(condition))


def test_a_backup_that_says_nothing_of_how_it_ended_has_failed() -> None:
    """The task that runs it never fails by itself, so that the client is in the table."""
    for run, failed in (
        ({"rc": 0}, False),
        ({"rc": 1}, True),
        ({"failed": False, "msg": "something went wrong"}, True),
        ({"skipped": True}, False),
    ):
        assert told("playbooks/backup.yml", "Tell why a backup of this client failed", __backup_run=run) is failed


def test_a_next_key_that_could_not_be_tried_is_told() -> None:
    for tried, expected in (
        ({"repositories": [{"state": "present"}]}, False),
        ({"repositories": [{"state": "unreachable"}]}, True),
        ({"msg": "something went wrong"}, True),
    ):
        found = told(
            "roles/jobs/tasks/next_keys.yml",
            "Say which next SSH keys do not open their repository",
            __jobs_next_keys=tried,
            ansible_check_mode=False,
        )
        assert found is expected


def test_what_lost_its_keys_is_kept_as_served_no_more() -> None:
    last = {"account": "bk-web1", "kind": "rclone", "from": [], "keys": ["SHA256:a", "SHA256:b"]}
    repositories = {"web1--offsite": last, "web1--second": last, "web2--offsite": {**last, "account": "bk-web2"}}
    preflight = {"known": {"web1": {"ssh_rendered": {"repositories": repositories}}}}
    said = {"served": {"bk-web1": {"offsite": ["SHA256:b"], "new": ["SHA256:c"]}}}
    found = faced("__holdfast_ssh_left", __holdfast_preflight=preflight, __ssh_access_revoked=said)
    assert found == {"repositories": {"web1--offsite": {**last, "keys": ["SHA256:b"]}}}


def test_who_lost_a_password_is_kept_as_served_no_more() -> None:
    last = {
        "users": {"web1--vault": "a", "web2--vault": "b"},
        "quotas": {"web1--vault": "1G", "web2--vault": "2G"},
        "names": ["vault1"],
    }
    preflight = {"known": {"web1": {"rendered": last}}}
    found = faced(
        "__holdfast_rest_left", __holdfast_preflight=preflight, __rest_server_revoked={"revoked": ["web1--vault", "x"]}
    )
    assert found == {"users": {"web2--vault": "b"}, "quotas": {"web2--vault": "2G"}, "names": ["vault1"]}
    # What an older run kept.
    old = {"known": {"web1": {"rendered": {"users": {"web1--vault": "a"}, "names": []}}}}
    found = faced("__holdfast_rest_left", __holdfast_preflight=old, __rest_server_revoked={"revoked": []})
    assert found == {"users": {"web1--vault": "a"}, "quotas": {}, "names": []}


def test_access_is_taken_away_over_rest_whatever_becomes_of_ssh() -> None:
    """molecule/rest_server and molecule/rclone_proxy have the failures themselves."""
    tasks = DataLoader().load_from_file(str(ROOT / "playbooks/tasks/revoke.yml"))
    (both,) = [task for task in tasks if "block" in task]
    taken = {}
    for part in ("block", "always"):
        (taken[part],) = [
            task["ansible.builtin.include_role"] for task in both[part] if "ansible.builtin.include_role" in task
        ]
    assert taken == {
        part: {"name": f"holdfast.backup.{role}", "tasks_from": "revoke"}
        for part, role in (("block", "ssh_access"), ("always", "rest_server"))
    }


@pytest.mark.parametrize("name", ["site", "decommission"])
def test_what_cannot_be_served_keeps_nobody_the_access_that_they_lost(name: str) -> None:
    """molecule/rclone_proxy has the failure of what comes before SSH itself."""
    plays = DataLoader().load_from_file(str(ROOT / f"playbooks/{name}.yml"))
    known = {"holdfast.backup.rest_server", "holdfast.backup.rclone_proxy", "holdfast.backup.ssh_access"}

    def roles(tasks: list[dict[str, t.Any]]) -> list[str]:
        found = [task.get("ansible.builtin.include_role", {}) for task in tasks]
        return [role["name"] for role in found if role.get("name") in known and "tasks_from" not in role]

    (tasks,) = [play["tasks"] for play in plays if "rescue" in str(play.get("tasks"))]
    (block,) = [number for number, task in enumerate(tasks) if "block" in task]
    assert roles(tasks[:block]) == []
    served = ["holdfast.backup.rclone_proxy"] * (name == "site")
    assert roles(tasks[block]["block"]) == ["holdfast.backup.rest_server", *served, "holdfast.backup.ssh_access"]
    # The secrets of a remote that lost its last client go, when that client's access is gone.
    assert roles(tasks[block + 1 :]) == ["holdfast.backup.rclone_proxy"] * (name == "decommission")
    (rescue,) = tasks[block]["rescue"]
    assert rescue["ansible.builtin.include_tasks"] == "tasks/revoke.yml"
    assert "ansible.builtin.fail" in DataLoader().load_from_file(str(ROOT / "playbooks/tasks/revoke.yml"))[-1]


def test_what_a_client_did_not_say_in_this_run_is_told_from_what_it_said() -> None:
    accounts = [{"name": "a", "hash": "x", "heard": False}, {"name": "b", "hash": "x"}]
    role = Path(__file__).parents[3] / "roles/rest_server/vars/main.yml"
    known = DataLoader().load_from_file(str(role), trusted_as_template=True)
    known.update(rest_server_accounts=accounts, rest_server_users=[{"name": "extra", "hash": "x"}])
    users = Templar(loader=DataLoader(), variables=known).template(known["__rest_server_htpasswd_users"])
    assert [user.get("heard", True) for user in users] == [False, True, True]
