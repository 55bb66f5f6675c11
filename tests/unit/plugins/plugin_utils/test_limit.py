# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What --limit leaves out."""

from __future__ import annotations

import base64
import hashlib
import typing as t
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _limit

HASH, NEXT = "$2b$12$current", "$2b$12$next"
KNOWN: dict[str, t.Any] = {
    "identities": {},
    "rest": {},
    "ssh": {},
    "escrow": {},
    "rendered": None,
    "ssh_rendered": None,
    "ssh_host_keys": [],
    "decommissioned": None,
}


def hosts() -> dict[str, t.Any]:
    repository = {
        "name": "vault",
        "server": "vault1",
        "rest_user": "web1--vault",
        "address": "vault1.example",
        "quota": "10G",
    }
    local = {"name": "local", "server": None}
    return {
        "web1": {"client": {"repositories": [repository, local]}, "server": None},
        "vault1": {"client": None, "server": {}},
    }


def known(rendered: dict[str, t.Any] | None = None, **rest: t.Any) -> dict[str, t.Any]:
    return {"web1": {**KNOWN, "rest": {"vault": rest} if rest else {}}, "vault1": {**KNOWN, "rendered": rendered}}


def rendered(switched: tuple[str, ...] = (), refused: tuple[str, ...] = ()) -> dict[str, t.Any]:
    accounts: list[dict[str, t.Any]] = [
        {"name": "web1--vault", "hash": HASH, "next_hash": NEXT, "quota": "10G"},
        {"name": "db1--vault", "hash": HASH, "next_hash": None, "quota": None},
        {"name": "new--vault", "hash": "", "next_hash": None, "quota": "1G"},
    ]
    htpasswd = {"switched": list(switched), "refused": list(refused)}
    return _limit.rendered(accounts, ["vault1", "vault1.example"], htpasswd)


def test_what_an_old_state_directory_remembers_is_not_what_a_server_has() -> None:
    """It is let in by something that is not known here, and counts as let in all the same."""
    accounts = [
        {"name": f"{name}--vault", "hash": HASH, "next_hash": None, "quota": None} for name in ("web1", "web2", "web3")
    ]
    htpasswd = {"kept": ["web1--vault", "new--vault"], "missing": ["web2--vault"]}
    accounts.append({"name": "new--vault", "hash": "", "next_hash": None, "quota": None})
    last = {"users": {f"{name}--vault": "before" for name in ("web1", "web2", "web3", "new")}}
    users = _limit.rendered(accounts, [], htpasswd, last)["users"]
    assert users == {"web1--vault": _limit.digest(""), "web3--vault": _limit.digest(HASH), "new--vault": "before"}
    state = known({"users": users, "quotas": {}, "names": ["vault1"]}, user="web1--vault", hash=HASH)
    assert _limit.lets_in(hosts(), state, "web1") == {"vault1": ["rest"]}


def test_who_is_managed_elsewhere_is_nobody_here() -> None:
    model = hosts()
    model["web9"] = {"client": {"repositories": []}, "server": None, "elsewhere": True}
    for limited in ({"web1"}, {"web9", "vault1"}):
        assert _limit.nobody(model, limited) == []
    for limited in ({"web9"}, {"other"}, set()):
        assert _limit.nobody(model, limited) == [
            "no host of backup_clients or backup_servers is in this run, so nothing is done. The inventory has there:"
            " vault1, web1"
        ]


def test_nothing_to_change() -> None:
    for hashes in ({"hash": HASH, "next_hash": None}, {"hash": HASH, "next_hash": NEXT}):
        assert _limit.problems(hosts(), known(rendered(), **hashes), {"web1"}) == []
    switched = known(rendered(("web1--vault",)), hash=HASH, next_hash=NEXT)
    assert _limit.problems(hosts(), switched, {"web1"}) == []


def test_a_server_in_the_limit_is_changed() -> None:
    assert _limit.problems(hosts(), known(), {"web1", "vault1"}) == []


def test_a_server_outside_the_limit_has_to_change() -> None:
    wanted = (
        "web1: the server vault1 has to change for this, and is outside the limit. Run again with --limit vault1,web1"
    )
    other_name = {**rendered(), "names": ["vault1"]}
    for case in (
        known(),
        known(rendered()),
        known(None, hash=HASH),
        known(rendered(), hash="$2b$12$other"),
        known(rendered(refused=("web1--vault",)), hash=HASH),
        known(other_name, hash=HASH),
        known({**rendered(), "quotas": {"web1--vault": "20G"}}, hash=HASH),
        known({**rendered(), "quotas": {}}, hash=HASH),
    ):
        assert _limit.problems(hosts(), case, {"web1"}) == [wanted]


def test_a_server_that_lets_a_client_in_belongs_to_its_revocation() -> None:
    wanted = "web1: vault1 would still let it in, being outside the limit. Run again without --limit, or with --limit vault1,web1"
    assert _limit.still_let_in(hosts(), known(), "web1", {"web1"}) == [wanted]
    assert _limit.still_let_in(hosts(), known(), "web1", {"vault1"}) == []
    # Declared no more, and rendered last.
    gone = hosts() | {"web1": {"client": None, "server": None}}
    assert _limit.still_let_in(gone, known(), "web1", set()) == []
    rest = known(rendered(), user="web1--vault", hash=HASH)
    assert _limit.still_let_in(gone, rest, "web1", set()) == [wanted]
    assert _limit.still_let_in(gone, known(rendered(), user="web2--vault", hash=HASH), "web1", set()) == []
    ssh = known()
    ssh["vault1"] |= {"ssh_rendered": {"repositories": {"web1--archive": {"host": "web1"}}}}
    assert _limit.still_let_in(gone, ssh, "web1", set()) == [wanted]
    # One that is somebody else's is theirs to revoke.
    theirs = hosts() | {"vault1": {"client": None, "server": {}, "elsewhere": True}}
    assert _limit.still_let_in(theirs, rest, "web1", set()) == []


def test_over_what_a_server_lets_a_client_in() -> None:
    assert _limit.lets_in(hosts(), known(), "web1") == {"vault1": ["rest"]}
    assert _limit.lets_in(hosts(), known(), "vault1") == _limit.lets_in(hosts(), known(), "nobody") == {}
    served = known()
    served["vault1"] |= {"ssh_rendered": {"repositories": {"web1--archive": {"host": "web1"}}}}
    assert _limit.lets_in(hosts(), served, "web1") == {"vault1": ["rest", "ssh"]}
    declared = hosts()
    declared["web1"]["client"]["repositories"][0]["ssh"] = {"account": "bk-web1"}
    assert _limit.lets_in(declared, known(), "web1") == {"vault1": ["ssh"]}
    assert _limit.lets_in(declared, known(rendered(), user="web1--vault"), "web1") == {"vault1": ["rest", "ssh"]}


def test_what_was_last_rendered_says_who_is_let_in() -> None:
    """A declared repository may never have been served, or be revoked already; without a file nobody knows."""
    nobody: dict[str, t.Any] = {"users": {}, "quotas": {}, "names": []}
    assert _limit.lets_in(hosts(), known(nobody, user="web1--vault"), "web1") == {}
    declared = hosts()
    declared["web1"]["client"]["repositories"][0]["ssh"] = {"account": "bk-web1"}
    served = known()
    served["vault1"]["ssh_rendered"] = {"repositories": {"db1--archive": {"host": "db1"}}}
    assert _limit.lets_in(declared, served, "web1") == {}
    # Also where its secrets are lost, and of a repository that it has no more.
    assert _limit.lets_in(hosts(), known(rendered()), "web1") == {"vault1": ["rest"]}
    named = hosts()
    named["web1"]["backup_id"] = "web1-id"
    for name, there in (("web1-id--old", {"vault1": ["rest"]}), ("web1-ids--old", {})):
        assert _limit.lets_in(named, known({"users": {name: "01"}}), "web1") == there


def test_hosts_outside_the_limit_are_nobodys_concern() -> None:
    assert _limit.problems(hosts(), known(), {"vault1", "somebody"}) == []


def test_bad_input_of_a_client_takes_nothing_from_it() -> None:
    """The error of a host outside the limit is a warning, so its server must render it as before."""
    model = hosts()
    model["vault1"]["server"] = {"users": [{"name": "new--vault"}], "names": ["vault1"]}
    state = known(rendered(), user="web1--vault", hash=HASH)
    _limit.keep(model, state, set())
    assert model["vault1"]["server"] == {"users": [{"name": "new--vault"}], "names": ["vault1"]}
    _limit.keep(model, state, {"web1", "all"})
    server = model["vault1"]["server"]
    assert [user["name"] for user in server["users"]] == ["new--vault", "web1--vault"]
    assert server["users"][1] == {
        "name": "web1--vault",
        "host": "web1",
        "backup_id": "web1",
        "repository": "vault",
        # Without it the server would lift the client's limit.
        "quota": "10G",
    }
    assert server["names"] == ["vault1", "vault1.example"]
    # Once is enough, and a server that never served it does not begin to.
    _limit.keep(model, state, {"web1"})
    assert len(server["users"]) == 2
    other = {**hosts(), "vault2": {"client": None, "server": {"users": [], "names": ["vault2"]}}}
    other["vault1"]["server"] = {"users": [], "names": []}
    _limit.keep(other, {**state, "vault2": KNOWN}, {"web1"})
    assert other["vault2"]["server"] == {"users": [], "names": ["vault2"]}


def test_decommissioned_hosts() -> None:
    state = known(rendered(), hash=HASH)
    state["web1"]["decommissioned"] = {"time": "2026-11-01"}
    assert _limit.problems(hosts(), state, {"vault1"}) == []
    text = _limit.problems(hosts(), state, {"web1"})[0]
    assert "web1: was decommissioned on 2026-11-01" in text
    assert "Take it out of backup_clients, or delete hosts/web1/decommissioned.json" in text
    state["web1"]["decommissioned"] = {"x": 1}
    assert "on an unknown day" in _limit.problems(hosts(), state, {"web1"})[0]
    theirs = hosts()
    theirs["web1"]["elsewhere"] = True
    assert "Take it out of backup_clients_elsewhere, or" in _limit.problems(theirs, state, {"web1"})[0]


def test_a_server_that_was_decommissioned_as_a_client_goes_on_as_a_server() -> None:
    state = known(rendered(), hash=HASH)
    state["vault1"]["decommissioned"] = {"time": "2026-11-01"}
    model = hosts()
    assert _limit.problems(model, state, {"web1", "vault1"}) == []
    model["vault1"]["client"] = {"repositories": []}
    assert "vault1: was decommissioned on 2026-11-01" in _limit.problems(model, state, {"web1", "vault1"})[0]


@pytest.mark.parametrize(
    ("entry", "is_one"),
    [
        ({}, False),
        # What a mistake of an earlier version may have left there.
        ({"decommissioned": {"time": "2026-11-01"}}, False),
        ({"rendered": {"users": {}}}, False),
        ({"rest": {"vault": {"user": "web9--vault"}}}, True),
        ({"ssh": {"offsite": {"key": "x"}}}, True),
        ({"escrow": {"local": ["x"]}}, True),
    ],
)
def test_who_can_be_decommissioned(entry: dict[str, t.Any], is_one: bool) -> None:
    """A client of the inventory, or one that has left it and of which secrets are known."""
    state = {**KNOWN, **entry}
    assert _limit.no_client("web1", {"web1"}, KNOWN) == []
    found = _limit.no_client("web9", {"web1"}, state)
    assert (
        not found
        if is_one
        else found[0].startswith("client = web9: is no host of backup_clients or backup_clients_elsewhere")
    )


def test_a_client_whose_secrets_cannot_be_read_keeps_its_access() -> None:
    """Also where the inventory is wrong about it at the same time: then its name on the server is all that is known."""
    model = hosts()
    model["web1"]["backup_id"] = "web1"
    model["vault1"]["server"] = {"users": [], "names": []}
    _limit.keep(model, known(rendered()), {"web1"})
    assert [user["name"] for user in model["vault1"]["server"]["users"]] == ["web1--vault"]
    model["web1"]["backup_id"] = "web"
    model["vault1"]["server"] = {"users": [], "names": []}
    _limit.keep(model, known(rendered()), {"web1"})
    assert model["vault1"]["server"]["users"] == []


def test_what_another_backup_id_had_opens_nothing_of_this_one() -> None:
    rest = {"vault": {"user": "web1--vault", "hash": "h", "next_hash": None}, "old": {"user": "web--old", "hash": "h"}}
    halves = {"rest": rest, "ssh": {"archive": {"key": KEY}, "second": {"key": KEY}}, "escrow": {"archive": ["b.age"]}}
    state = {"web1": {**KNOWN, **halves, "identities": {"vault": "web1", "archive": "web", "second": "web1"}}}
    _limit.forget_others({"web1": {"backup_id": "web1"}, "vault1": {"backup_id": None}}, state)
    assert set(state["web1"]["rest"]) == {"vault"}
    assert set(state["web1"]["ssh"]) == {"second"}
    assert state["web1"]["escrow"] == {}
    # Of what was made before this was kept.
    state = {"web1": {**KNOWN, **halves, "identities": {}}, "vault1": {**KNOWN, **halves}}
    _limit.forget_others({"web1": {"backup_id": "web1"}, "vault1": {"backup_id": None}}, state)
    assert set(state["web1"]["ssh"]) == {"archive", "second"}
    assert set(state["web1"]["rest"]) == {"vault"}
    assert state["vault1"]["rest"] == rest


def test_what_a_server_keeps_without_a_hash_stays_on_record() -> None:
    last = rendered()
    accounts: list[dict[str, t.Any]] = [{"name": name, "hash": "", "next_hash": None} for name in last["users"]]
    htpasswd = {"kept": list(last["users"])}
    assert _limit.rendered(accounts, ["vault1"], htpasswd, last)["users"] == last["users"]
    assert _limit.rendered(accounts, ["vault1"], {"kept": [], "missing": ["web1--vault"]}, last)["users"] == {}
    assert _limit.rendered(accounts, ["vault1"], htpasswd, None)["users"] == {}


def test_rendered_holds_digests_and_no_hash() -> None:
    found = rendered()
    assert list(found["users"]) == ["web1--vault", "db1--vault"]
    assert found["quotas"] == {"web1--vault": "10G"}
    assert HASH not in str(found)
    assert rendered(("web1--vault",)) != found
    refused = rendered(refused=("web1--vault",))
    assert (list(refused["users"]), refused["quotas"]) == (["db1--vault"], {})


def test_bad_input_of_a_server_concerns_its_clients() -> None:
    model = hosts()
    assert _limit.concerned(model, {"web1", "gone"}) == {"web1", "gone", "vault1", "all"}
    assert _limit.concerned(model, {"vault1"}) == {"vault1", "all"}


# --- repositories over SSH

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwQ1vO8nJ9d6yqQpuyXkFBr1dVXtn9Pfx9YlyoHRTOY"
OTHER = KEY.replace("TOY", "TOZ")
DEFINITION: dict[str, t.Any] = {
    "name": "web1--offsite",
    "account": "bk-web1",
    "kind": "rclone",
    "path": "/srv/holdfast-ssh/web1--offsite",
    "remote": None,
    "quota": None,
    "append_only": True,
}
ACCOUNT: dict[str, t.Any] = {
    "name": "bk-web1",
    "host": "web1",
    "backup_id": "web1",
    "keys": [{"repository": "offsite", "kind": "rclone", "from": ["192.0.2.7"], "public_keys": [KEY]}],
}


def ssh_hosts(**changes: t.Any) -> dict[str, t.Any]:
    repository = {"name": "offsite", "server": "vault1", "address": "vault1", "ssh": {"from": ["192.0.2.7"], **changes}}
    return {
        "web1": {"backup_id": "web1", "client": {"repositories": [repository]}, "server": None},
        "vault1": {"backup_id": None, "client": None, "server": {"definitions": [DEFINITION]}},
    }


def ssh_files(key: str = KEY, **definition: t.Any) -> dict[str, t.Any]:
    said = {"served": {"bk-web1": {"offsite": [f"SHA256:{fingerprint_of(key)}"]}}}
    return _limit.ssh_rendered([ACCOUNT], [{**DEFINITION, **definition}], said, [KEY])


def fingerprint_of(key: str) -> str:
    return base64.b64encode(hashlib.sha256(base64.b64decode(key.split(" ")[1])).digest()).decode().rstrip("=")


def ssh_known(files: dict[str, t.Any] | None, key: str | None = KEY, host_keys: bool = True) -> dict[str, t.Any]:
    ssh = {"offsite": {"key": key, "next_key": None}} if key else {}
    rendered = (files or {}).get("ssh_rendered.json")
    return {
        "web1": {**KNOWN, "ssh": ssh},
        "vault1": {**KNOWN, "ssh_rendered": rendered, "ssh_host_keys": [KEY] if host_keys else []},
    }


def test_what_a_server_serves_over_ssh_is_kept() -> None:
    files = ssh_files()
    assert files["ssh_host_keys"] == f"{KEY}\n"
    assert files["ssh_rendered.json"]["repositories"]["web1--offsite"]["host"] == "web1"
    assert KEY.split(" ")[1] not in str(files["ssh_rendered.json"])
    # Without a line of its own it is not served.
    assert _limit.ssh_rendered([ACCOUNT], [DEFINITION], {}, []) == {"ssh_rendered.json": {"repositories": {}}}


def test_a_server_that_serves_it_already_need_not_change() -> None:
    assert _limit.problems(ssh_hosts(), ssh_known(ssh_files()), {"web1"}) == []


def test_a_server_of_ssh_outside_the_limit_has_to_change() -> None:
    cases = [
        (ssh_hosts(), ssh_known(None)),
        (ssh_hosts(), ssh_known(ssh_files(), key=None)),
        (ssh_hosts(), ssh_known(ssh_files(), key=OTHER)),
        (ssh_hosts(), ssh_known(ssh_files(), host_keys=False)),
        (ssh_hosts(), ssh_known(ssh_files(remote="s3:b"))),
        (ssh_hosts(), ssh_known(ssh_files(quota="1G"))),
        (ssh_hosts(**{"from": []}), ssh_known(ssh_files())),
    ]
    for model, state in cases:
        assert "the server vault1 has to change for this" in _limit.problems(model, state, {"web1"})[0]
        assert _limit.problems(model, state, {"web1", "vault1"}) == []


def test_bad_input_of_a_client_takes_no_access_over_ssh_from_it() -> None:
    server: dict[str, t.Any] = {"users": [], "names": [], "definitions": [], "ssh": {"accounts": []}}
    model = {"web1": {"server": None}, "vault1": {"server": server}}
    _limit.keep(model, ssh_known(ssh_files()), {"web1"})
    assert server["definitions"] == [DEFINITION]
    key = {"repository": "offsite", "kind": "rclone", "from": ["192.0.2.7"]}
    assert server["ssh"]["accounts"] == [{**ACCOUNT, "keys": [key]}]
    # Once is enough, and nobody else gets anything.
    _limit.keep(model, ssh_known(ssh_files()), {"web1", "web2"})
    assert len(server["definitions"]) == 1
    server.update(definitions=[], ssh={"accounts": []})
    _limit.keep(model, ssh_known(ssh_files()), {"web2"})
    assert (server["definitions"], server["ssh"]) == ([], {"accounts": []})


def test_the_variables_of_every_role_are_ours() -> None:
    roles = [path.name for path in (Path(__file__).parents[4] / "roles").iterdir() if path.is_dir()]
    assert len(roles) > 4
    assert [role for role in roles if not _limit.OURS.match(f"{role}_x")] == []


def test_the_cure_for_a_damaged_bundle_is_its_copy() -> None:
    for suffix, copied in ((f"-{'0' * 16}.age", True), (".json", False)):
        (problem,) = _limit.damaged("web1", [f"/state/hosts/web1/escrow/vault/{'0' * 32}{suffix}: x"])
        assert ("/var/lib/holdfast/escrow" in problem["message"]) is copied
        assert "remove it and run site again" in problem["message"]


def test_the_cure_for_a_damaged_file_lets_nobody_in_again() -> None:
    rest, given_up = (
        problem["message"]
        for problem in _limit.damaged(
            "web1", ["/state/hosts/web1/rest/vault.json: x", "/state/hosts/web1/decommissioned.json: x"]
        )
    )
    assert "the playbook that wrote it writes it again" in rest
    assert "run decommission -e client=web1" in given_up
    assert "writes it again" not in given_up
