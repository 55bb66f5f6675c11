# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clients and servers with different administrators: the model of both sides, and what the files between them may say."""

from __future__ import annotations

import copy
import json
import typing as t

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _tls
from ansible_collections.holdfast.backup.plugins.module_utils._public_key import fingerprint
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.plugin_utils import (
    _delivered,
    _fleet,
    _handover,
    _handover_file,
    _limit,
    _report,
)

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
HASH, NEXT = "$2b$12$" + "a" * 53, "$2b$12$" + "b" * 53
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwQ1vO8nJ9d6yqQpuyXkFBr1dVXtn9Pfx9YlyoHRTOY"
NEXT_KEY, HOST_KEY = KEY.replace("TOY", "TOZ"), KEY.replace("TOY", "TOA")
NOTHING: dict[str, t.Any] = {
    "rest": {},
    "ssh": {},
    "ca": None,
    "ssh_host_keys": [],
    "rendered": None,
    "ssh_rendered": None,
    "decommissioned": None,
}
SERVED: dict[str, dict[str, t.Any]] = {
    "vault": {"server": "vault1", "quota": "50G"},
    "offsite": {"server": "vault1", "access": "rclone", "source": ["192.0.2.7"]},
    "second": {"server": "vault1", "access": "sftp", "path": "/data"},
    "archive": {"server": "vault1", "engine": "borg"},
}
# The administrator does not say what is for the operator to say.
USED = {
    name: {key: value for key, value in each.items() if key in ("server", "engine", "access")}
    for name, each in SERVED.items()
}
SERVER = {"ansible_host": "vault.example", "rest_server_port": 8443, "backup_ssh_port": 2222}


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CA certificate."""
    work = tmp_path_factory.mktemp("ca")
    return _tls.certificate_part(_tls.make_authority(["vault1"], 1_800_000_000, str(work)))


def of_operator(repositories: dict[str, t.Any] | None = None, **web9: t.Any) -> dict[str, t.Any]:
    """Logs in to the server and to web1, and not to web9, whose own jobs and escrow it does not know."""
    own = {
        "backup_repositories": {"vault": {"server": "vault1"}},
        "backup_jobs": {"system": {"paths": ["/etc"]}},
        "backup_escrow": {"recipients": [RECIPIENT]},
    }
    hostvars = {"vault1": SERVER, "web1": own, "web9": {"backup_repositories": repositories or SERVED, **web9}}
    groups = {"backup_servers": ["vault1"], "backup_clients": ["web1"], "backup_clients_elsewhere": ["web9"]}
    return _fleet.fleet(hostvars, groups)


def of_administrator(
    places: dict[str, t.Any] | None = None, repositories: dict[str, t.Any] | None = None, **vault1: t.Any
) -> dict[str, t.Any]:
    """Logs in to its client, which has a name of its own here, and not to the server."""
    client = {
        "backup_id": "web9",
        "backup_repositories": repositories or USED,
        "backup_jobs": {"system": {"paths": ["/etc"]}},
        "backup_escrow": {"recipients": [RECIPIENT]},
    }
    groups = {"backup_clients": ["www"], "backup_servers_elsewhere": ["vault1"]}
    return _fleet.fleet({"www": client, "vault1": vault1}, groups, {"www": places or {}})


def hosts(model: dict[str, t.Any]) -> dict[str, t.Any]:
    assert model["errors"] == []
    found: dict[str, t.Any] = model["hosts"]
    return found


def only(model: dict[str, t.Any]) -> str:
    messages: list[str] = [each["message"] for each in model["errors"]]
    assert len(messages) == 1, messages
    return messages[0]


def born() -> dict[str, t.Any]:
    """What the administrator's state directory has of the client; a REST password is being rotated."""
    rest = {"vault": {"user": "web9--vault", "hash": HASH, "next_hash": NEXT}}
    keys = {name: {"key": KEY, "next_key": None} for name in ("offsite", "second", "archive")}
    return {"www": {**NOTHING, "rest": rest, "ssh": keys}, "vault1": NOTHING}


def given() -> dict[str, t.Any]:
    """The file of the administrator, as the operator reads it."""
    document = _handover.offered(hosts(of_administrator()), born(), {"www"})
    return _handover_file.parse(_handover_file.serialise(document))


def rendered(ca: str) -> dict[str, t.Any]:
    """What the operator's state directory has after the import and a run of site."""
    model = hosts(of_operator())
    kept = _handover.taken(given(), model, {"web9"}).write["web9"]
    rest = {"vault": kept["rest/vault.json"]}
    ssh = {name: {"key": KEY, "next_key": None} for name in ("offsite", "second", "archive")}
    accounts = [
        {**account, "keys": [{**key, "public_keys": [KEY]} for key in account["keys"]]}
        for account in model["vault1"]["server"]["ssh"]["accounts"]
    ]
    taken = {"bk-web9": {name: [fingerprint(KEY.split(" ")[1])] for name in ssh}}
    over_ssh = _limit.ssh_rendered(accounts, model["vault1"]["server"]["definitions"], {"served": taken}, [HOST_KEY])
    users = [{"name": "web9--vault", "hash": HASH, "next_hash": NEXT, "quota": "50G"}]
    server = {
        "ca": ca,
        "ssh_host_keys": [HOST_KEY],
        "rendered": _limit.rendered(users, ["vault.example", "vault1"], {"switched": ["web9--vault"]}),
        "ssh_rendered": over_ssh["ssh_rendered.json"],
    }
    return {"vault1": {**NOTHING, **server}, "web1": NOTHING, "web9": {**NOTHING, "rest": rest, "ssh": ssh}}


def answered(ca: str) -> dict[str, t.Any]:
    """The file of the operator, as the administrator reads it."""
    state = rendered(ca)
    # Born, and not served yet.
    state["web9"]["ssh"]["offsite"]["next_key"] = NEXT_KEY
    document = _handover.offered(hosts(of_operator()), state, {"web9"})
    return _handover_file.parse(_handover_file.serialise(document))


# --- the model


def test_the_operator_serves_what_it_declares_and_knows_no_more() -> None:
    model = of_operator(backup_jobs={"secret": {"paths": ["relative"]}}, backup_escrow="nonsense")
    web9, vault1 = hosts(model)["web9"], hosts(model)["vault1"]["server"]
    assert model["warnings"] == []
    assert web9["elsewhere"] is True
    assert hosts(model)["vault1"]["elsewhere"] is False
    assert (web9["client"]["jobs"], web9["client"]["units"]) == ({}, [])
    assert [each["name"] for each in web9["client"]["repositories"]] == ["archive", "offsite", "second", "vault"]
    users = {user["name"]: user for user in vault1["users"]}
    assert users["web9--vault"]["quota"] == "50G"
    assert (users["web9--vault"].get("elsewhere"), users["web1--vault"].get("elsewhere")) == (True, None)
    account = vault1["ssh"]["accounts"][0]
    assert (account["name"], account["host"]) == ("bk-web9", "web9")
    assert {key["repository"]: key["from"] for key in account["keys"]}["offsite"] == ["192.0.2.7"]
    # Only the server can tell whether a client that nobody looked at writes now.
    listed = _delivered.rest_accounts(vault1["users"], {"web1": NOTHING, "web9": NOTHING}, {"web1": {}, "web9": {}})
    assert {each["name"]: each["busy"] for each in listed} == {"web1--vault": True, "web9--vault": False}


def test_the_operator_never_has_what_opens_the_repository() -> None:
    text = only(of_operator({"vault": {"server": "vault1", "password": "geheim"}}))
    assert text.startswith("web9: backup_repositories.vault.password = '<hidden>': would open the repository")
    assert "geheim" not in text


def test_a_repository_without_a_server_is_not_served() -> None:
    model = of_operator({"local": {}, "bucket": {"url": "b2:bucket"}})
    assert hosts(model)["web9"]["client"]["repositories"] == []
    assert "nothing is served to this client" in model["warnings"][0]["message"]


def test_one_side_has_to_be_managed() -> None:
    groups = {"backup_servers_elsewhere": ["vault1"], "backup_clients_elsewhere": ["web9"]}
    model = _fleet.fleet({"vault1": {}, "web9": {"backup_repositories": {"vault": {"server": "vault1"}}}}, groups)
    assert "is not managed from here, nor is this client" in only(model)
    both = {"backup_servers": ["vault1"], "backup_clients_elsewhere": ["vault1"]}
    assert "vault1: groups: is managed from here and elsewhere" in only(_fleet.fleet({"vault1": {}}, both))


def test_the_administrator_does_not_say_what_the_operator_decides() -> None:
    for key, value in (("quota", "5G"), ("source", ["192.0.2.7"]), ("path", "/data")):
        access = {"quota": "rest", "source": "rclone", "path": "sftp"}[key]
        model = of_administrator(repositories={"vault": {"server": "vault1", "access": access, key: value}})
        assert f"backup_repositories.vault.{key}" in only(model)
        assert "is for the operator of vault1 to say" in only(model)


def test_before_the_exchange_site_says_what_to_do() -> None:
    model = hosts(of_administrator())
    errors, warnings = _handover.missing(model, born(), {"www", "vault1"})
    assert warnings == []
    assert len(errors) == 4
    assert errors[3].startswith(
        "www: vault1 is not managed from here, and no hand-over file was imported that says where"
    )
    assert "web9--vault (engine: restic, access: rest)" in errors[3]
    assert "-e import_from=FILE --limit vault1" in errors[3]
    assert _handover.missing(model, born(), {"vault1"}) == ([], [])
    # A server that is somebody else's is never asked to change.
    assert _limit.problems(model, born(), {"www"}) == []
    theirs = hosts(of_operator())
    errors, warnings = _handover.missing(theirs, dict.fromkeys(theirs, NOTHING), {"vault1"})
    assert errors == []
    assert len(warnings) == 4
    assert "web9: is not managed from here, and vault1 does not let it in to vault before" in warnings[3]
    assert _handover.missing(theirs, dict.fromkeys(theirs, NOTHING), {"web1"}) == ([], [])


def test_the_exchange(ca: str) -> None:
    answer = answered(ca)
    found = _handover.taken(answer, hosts(of_administrator()), {"vault1"})
    assert found.notes == []
    assert found.remove == {"vault1": []}
    assert found.write["vault1"] == {"ca.pem": ca, "ssh_host_keys": f"{HOST_KEY}\n"}
    places = _handover_file.places(found.write["www"]["handed_over.json"])
    model = hosts(of_administrator(places, ansible_host="192.0.2.99"))
    assert _handover.missing(model, born(), {"www"}) == ([], [])
    own = {each["name"]: each for each in model["www"]["client"]["repositories"]}
    there = {each["name"]: each for each in hosts(of_operator())["web9"]["client"]["repositories"]}
    for name in SERVED:
        assert own[name]["location"] == there[name]["location"]
        assert (own[name]["address"], own[name]["port"]) == (there[name]["address"], there[name]["port"])
        assert own[name]["append_only"] == there[name]["append_only"] == (name != "second")
        assert own[name]["tls"] == there[name]["tls"]
    assert own["vault"]["location"] == "rest:https://vault.example:8443/web9--vault/"
    assert own["second"]["location"] == "sftp:holdfast-second:/data/web9--second"
    assert own["archive"]["ssh"]["port"] == 2222
    assert own["vault"]["address_variable"] == "address of vault1 in its hand-over file"
    # The server has switched to the next REST password: it may become the one in use.
    assert (own["vault"]["accepts"], own["offsite"]["accepts"]) == ([NEXT], [KEY])
    # Again nothing is new.
    assert _handover.taken(answer, model, {"vault1"}) == found
    assert _handover.missing(hosts(of_operator()), rendered(ca), {"vault1"}) == ([], [])


def test_a_server_behind_a_reverse_proxy(ca: str) -> None:
    place = {"address": "backup.example", "port": 443, "url_prefix": "/r/s", "tls": True}
    proxied = {"vault": {"server": "vault1", "quota": "50G", **place}}
    state = rendered(ca)
    state["vault1"]["rendered"]["names"].append("backup.example")
    answer = _handover.offered(hosts(of_operator(proxied)), state, {"web9"})
    assert answer["servers"]["vault1"]["repositories"]["web9--vault"]["url_prefix"] == "/r/s"
    one = {"vault": USED["vault"]}
    kept = _handover.taken(answer, hosts(of_administrator(repositories=one)), {"vault1"}).write["www"]
    model = hosts(of_administrator(_handover_file.places(kept["handed_over.json"]), one))
    location = model["www"]["client"]["repositories"][0]["location"]
    assert location == "rest:https://backup.example:443/r/s/web9--vault/"


def test_another_access_or_identity_is_asked_for_anew(ca: str) -> None:
    kept = _handover.taken(answered(ca), hosts(of_administrator()), {"vault1"}).write["www"]
    places = _handover_file.places(kept["handed_over.json"])
    model = hosts(of_administrator(places, {**USED, "offsite": USED["second"]}))
    assert len(_handover.missing(model, born(), {"www"})[0]) == 1
    renamed = {name.replace("web9", "web8"): place for name, place in places.items()}
    assert len(_handover.missing(hosts(of_administrator(renamed)), born(), {"www"})[0]) == 4


# --- exporting


def test_what_is_not_there_is_not_exported(ca: str) -> None:
    unborn = {"www": NOTHING, "vault1": NOTHING}
    with pytest.raises(ValueError, match=r"nothing was exported:\n- www: has no secret for the repository archive yet"):
        _handover.offered(hosts(of_administrator()), unborn, {"www"})
    announced = _handover.offered(hosts(of_administrator()), unborn, {"www"}, check_mode=True)
    assert announced["clients"]["web9"]["vault"]["public"] == UNBORN
    assert UNBORN in _handover_file.lines(announced)[0]
    state = rendered(ca)
    state["vault1"]["ssh_rendered"] = None
    with pytest.raises(ValueError, match=r"- web9: vault1 does not serve its repository second yet"):
        _handover.offered(hosts(of_operator()), state, {"web9"})
    for model, limited in ((of_operator(), {"web1", "vault1"}), (of_administrator(), {"vault1"})):
        with pytest.raises(ValueError, match="there is nothing to hand over"):
            _handover.offered(hosts(model), state, limited)


def test_no_secret_and_nothing_of_others_is_in_a_file(ca: str) -> None:
    answer = answered(ca)
    assert set(answer["servers"]["vault1"]["repositories"]) == {f"web9--{name}" for name in SERVED}
    assert "web1" not in json.dumps([answer, given()])
    said = "\n".join(_handover_file.lines(given()) + _handover_file.lines(answer))
    assert HASH not in said
    assert NEXT not in said
    assert f"host key ssh-ed25519 {fingerprint(HOST_KEY.split(' ')[1])}" in said
    assert "web9--second at vault.example:2222, restic over sftp, path /data, not append-only" in said


# --- importing


def changed(document: dict[str, t.Any], *path: str, to: t.Any) -> dict[str, t.Any]:
    """The document with something else at a place in it."""
    document = copy.deepcopy(document)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return document


def test_what_a_clients_file_brings() -> None:
    found = _handover.taken(given(), hosts(of_operator()), {"web9"})
    assert found.write == {
        "web9": {
            "rest/vault.json": {"user": "web9--vault", "hash": HASH, "next_hash": NEXT},
            **{f"ssh/{name}.pub": f"{KEY}\n" for name in ("archive", "offsite", "second")},
        }
    }
    rotating = changed(given(), "clients", "web9", "second", "next_public", to=NEXT_KEY)
    kept = _handover.taken(rotating, hosts(of_operator()), {"web9"})
    assert kept.write["web9"]["ssh/second.pub"] == f"{KEY}\n{NEXT_KEY}\n"


@pytest.mark.parametrize(
    ("document", "limited", "said"),
    [
        ({"web1": {}}, {"web1"}, "it speaks for the client web1, which is none of the group backup_clients_elsewhere"),
        ({"vault1": {}}, {"vault1"}, "it speaks for the client vault1, which is none of"),
        ({"web9": {}}, {"web1"}, "it speaks for the client web9, and web9 is outside --limit"),
        (
            {"web9": {"more": {"server": "vault1", "engine": "restic", "access": "rest", "public": HASH}}},
            {"web9"},
            "as engine: restic, access: rest, server: vault1, the inventory has none of this name",
        ),
        (
            {"web9": {"offsite": {"server": "vault1", "engine": "restic", "access": "rest", "public": HASH}}},
            {"web9"},
            "the inventory has engine: restic, access: rclone, server: vault1",
        ),
    ],
)
def test_a_clients_file_speaks_for_nobody_else(document: dict[str, t.Any], limited: set[str], said: str) -> None:
    good = given()["clients"] if "web9" not in document else {}
    with pytest.raises(ValueError, match="nothing of it was taken:") as caught:
        _handover.taken({"clients": {**good, **document}, "servers": {}}, hosts(of_operator()), limited)
    assert said in str(caught.value)


def test_repositories_on_servers_of_a_third_party_are_left() -> None:
    elsewhere = changed(given(), "clients", "web9", "second", "server", to="nas1")
    found = _handover.taken(elsewhere, hosts(of_operator()), {"web9"})
    assert found.notes == ["web9: its repository second is on nas1, which is no server of this inventory"]
    assert "ssh/second.pub" not in found.write["web9"]


def test_a_servers_file_speaks_for_itself_only(ca: str) -> None:
    answer, model = answered(ca), hosts(of_administrator())
    with pytest.raises(ValueError, match="it speaks for the server vault1, and vault1 is outside --limit"):
        _handover.taken(answer, model, {"www"})
    for name in ("www", "vault2"):
        other = {**answer, "servers": {name: answer["servers"]["vault1"]}}
        with pytest.raises(ValueError, match="which is none of the group backup_servers_elsewhere"):
            _handover.taken(other, model, {"www", "vault1", "vault2"})
    place = answer["servers"]["vault1"]["repositories"]["web9--vault"]
    for served in ("db1--vault", "web9--more"):
        stranger = changed(answer, "servers", "vault1", "repositories", to={served: place})
        found = _handover.taken(stranger, model, {"vault1"})
        assert found.notes == [f"vault1: serves {served}, into which no client of this inventory backs up there"]
        assert set(found.write) == {"vault1"}
    # One operator does not say where another one serves.
    model["vault2"] = model["vault1"]
    found = _handover.taken({**answer, "servers": {"vault2": answer["servers"]["vault1"]}}, model, {"vault2"})
    assert len(found.notes) == len(SERVED)
    assert set(found.write) == {"vault2"}
    other = changed(answer, "servers", "vault1", "repositories", "web9--offsite", "access", to="rest")
    with pytest.raises(ValueError, match="nothing of it was taken:") as caught:
        _handover.taken(other, model, {"vault1"})
    assert "www: the file has the repository offsite as engine: restic, access: rest" in str(caught.value)


def test_a_file_about_one_repository_takes_nothing_from_the_others(ca: str) -> None:
    answer, model = answered(ca), hosts(of_administrator())
    first = _handover.taken(answer, model, {"vault1"}).write["www"]
    known = hosts(of_administrator(_handover_file.places(first["handed_over.json"])))
    place = {**answer["servers"]["vault1"]["repositories"]["web9--vault"], "port": 9000, "tls": "proxy"}
    said = {"ca": None, "host_keys": [HOST_KEY], "repositories": {"web9--vault": place}}
    one = changed(answer, "servers", "vault1", to=said)
    second = _handover.taken(one, known, {"vault1"})
    places = _handover_file.places(second.write["www"]["handed_over.json"])
    assert sorted(places) == sorted(f"web9--{name}" for name in SERVED)
    assert places["web9--vault"]["port"] == 9000
    assert second.remove == {"vault1": ["ca.pem"]}
    # What was known before stays as it was until it is written.
    assert known["www"]["places"]["web9--vault"]["port"] == 8443


def test_a_file_does_not_take_what_repositories_trust_of_which_it_is_silent(ca: str) -> None:
    """Without its CA a repository with tls: private would be dialled with whom the client's system trusts."""
    answer = answered(ca)
    first = _handover.taken(answer, hosts(of_administrator()), {"vault1"}).write["www"]
    known = hosts(of_administrator(_handover_file.places(first["handed_over.json"])))
    second = answer["servers"]["vault1"]["repositories"]["web9--second"]
    for said, lost in (
        ({"repositories": {}}, {"vault": "ca", "archive": "host_keys", "offsite": "host_keys", "second": "host_keys"}),
        ({"host_keys": [HOST_KEY], "repositories": {"web9--second": second}}, {"vault": "ca"}),
    ):
        file = _handover_file.parse(json.dumps(changed(answer, "servers", "vault1", to=said)).encode())
        with pytest.raises(ValueError, match="nothing of it was taken:") as caught:
            _handover.taken(file, known, {"vault1"})
        messages = str(caught.value).splitlines()[1:]
        assert len(messages) == len(lost)
        for name, what in lost.items():
            assert f"www: the file has no {what} of vault1, which the repository {name} needs" in str(caught.value)
        # Before there is a place nothing is lost.
        _handover.taken(file, hosts(of_administrator()), {"vault1"})


def test_tls_is_not_given_up_without_being_told(ca: str) -> None:
    plain = changed(answered(ca), *REST_PLACE, "tls", to="off")
    with pytest.raises(ValueError, match="nothing of it was taken:") as caught:
        _handover.taken(plain, hosts(of_administrator()), {"vault1"})
    assert "www: the file has the repository vault without TLS" in str(caught.value)
    meant = {**USED, "vault": {**USED["vault"], "tls": False}}
    kept = _handover.taken(plain, hosts(of_administrator(repositories=meant)), {"vault1"}).write["www"]
    known = hosts(of_administrator(_handover_file.places(kept["handed_over.json"]), meant))
    own = {each["name"]: each for each in known["www"]["client"]["repositories"]}["vault"]
    assert (own["tls"], own["location"]) == ("off", "rest:http://vault.example:8443/web9--vault/")
    assert _handover.taken(plain, known, {"vault1"}).write["www"] == kept


def test_people_see_what_was_there_before(ca: str) -> None:
    answer, model = answered(ca), hosts(of_administrator())
    nothing = {"format": 1, "clients": {}, "servers": {}}
    assert _handover.before(answer, model, born()) == nothing
    kept = _handover.taken(answer, model, {"vault1"}).write["www"]
    known = {**born(), "vault1": {**NOTHING, "ca": ca, "ssh_host_keys": [HOST_KEY]}}
    after = hosts(of_administrator(_handover_file.places(kept["handed_over.json"])))
    assert _handover_file.lines(_handover.before(answer, after, known)) == _handover_file.lines(answer)
    theirs, state = hosts(of_operator()), rendered(ca)
    assert _handover.before(given(), theirs, dict.fromkeys(theirs, NOTHING)) == nothing
    assert _handover_file.lines(_handover.before(given(), theirs, state)) == _handover_file.lines(given())


def test_an_older_file_is_warned_about() -> None:
    """It would take away what the client uses now, and let in again what was rotated."""
    old = given()
    rotating = changed(old, *CLIENT, "next_public", to=NEXT_KEY)
    rotated = changed(old, *CLIENT, "public", to=NEXT_KEY)
    for known, then in ((old, old), (old, rotating), (rotating, rotated), (rotating, old)):
        assert _handover.unexpected(then, known) == []
    for then in (old, rotating):
        (said,) = _handover.unexpected(then, rotated)
        assert said.startswith("web9: the file has a secret for the repository second that is neither")


# --- hostile files

CLIENT = ("clients", "web9", "second")
PLACE = ("servers", "vault1", "repositories", "web9--second")
REST_PLACE = ("servers", "vault1", "repositories", "web9--vault")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("format",), 2, "file.format = 2: is not a format that this version reads"),
        (("format",), True, "file.format"),
        (("more",), {}, "file.more: is not a known key"),
        (("clients",), [], "file.clients = '<list>': is not a dictionary"),
        (("clients",), {"../web1": {}}, "is not a name"),
        (("clients", "web9"), {"../../web1": {}}, "is not a name"),
        (("clients", "web9"), {"keys": {}}, "is a reserved name"),
        ((*CLIENT, "public"), f'command="sh" {KEY}', "is no public key of SSH"),
        ((*CLIENT, "public"), f"{KEY}\n{KEY}", "is no public key of SSH"),
        ((*CLIENT, "public"), f"{KEY} web1", "is no public key of SSH"),
        ((*CLIENT, "public"), HASH, "is no public key of SSH"),
        ((*CLIENT, "public"), [KEY], "is no public key of SSH"),
        ((*CLIENT, "next_public"), "*", "is no public key of SSH"),
        (("clients", "web9", "vault", "public"), KEY, "is not a bcrypt hash"),
        (("clients", "web9", "vault", "public"), "$2b$31$" + "a" * 53, "is not a bcrypt hash"),
        (("clients", "web9", "vault", "public"), f"{HASH}\nroot:x", "is not a bcrypt hash"),
        (("clients", "web9", "vault", "user"), "web1--vault", "is not a known key"),
        ((*CLIENT, "access"), "local", "is not one of the choices"),
        ((*CLIENT, "engine"), "borg", "does not go with engine: borg"),
        ((*CLIENT, "server"), "vault1\n", "is not one line of text"),
        (("servers",), {"vault1\t": {}}, "is not one line of text"),
        (("servers",), {"vault1\u202e": {}}, "has characters that cannot be printed"),
        ((*CLIENT, "server"), "vault1\x9b", "has characters that cannot be printed"),
        (("servers", "vault1", "ca"), None, "file.servers.vault1.ca: is missing. tls: private needs it"),
        (("servers", "vault1", "host_keys"), [], "file.servers.vault1.host_keys: is missing. access: "),
        (("servers", "vault1", "ca"), "-----BEGIN RSA PRIVATE KEY-----\n", "is not PEM certificates of a CA"),
        (("servers", "vault1", "ca"), {}, "is not PEM certificates of a CA"),
        (("servers", "vault1", "host_keys"), [f"* {HOST_KEY}"], "are no host keys of SSH"),
        (("servers", "vault1", "host_keys"), HOST_KEY, "is not a list"),
        (("servers", "vault1", "repositories"), {"web9": {}}, "is not a name"),
        (("servers", "vault1", "repositories"), {"web9--../x": {}}, "is not a name"),
        (PLACE, {}, "web9--second.engine: is missing"),
        ((*PLACE, "path"), "/data/../etc", "contains a '..' component"),
        ((*PLACE, "path"), "/da\nta", "contains characters"),
        ((*PLACE, "path"), None, "web9--second.path: is missing"),
        ((*PLACE, "address"), "-oProxyCommand=sh", "is not a host name"),
        ((*PLACE, "address"), "host\nProxyCommand sh", "is not a host name"),
        ((*PLACE, "address"), "{{ lookup('pipe', 'id') }}", "is not a host name"),
        ((*PLACE, "port"), 0, "is out of range"),
        ((*PLACE, "tls"), "private", "does not go with access: sftp"),
        ((*PLACE, "append_only"), "no", "is not a boolean"),
        ((*PLACE, "accepts"), [KEY, NEXT_KEY, HOST_KEY], "has more than 2 entries"),
        ((*PLACE, "accepts"), ["*"], "is no public key of SSH"),
        ((*REST_PLACE, "url_prefix"), "/a/../b", "contains a '.' or '..' component"),
        ((*REST_PLACE, "url_prefix"), "/a b", "is not the path of a URL"),
        ((*REST_PLACE, "tls"), None, "web9--vault.tls: is missing"),
        ((*REST_PLACE, "accepts"), ["x"], "is not a bcrypt hash"),
    ],
)
def test_hostile_contents_are_refused(ca: str, path: tuple[str, ...], value: t.Any, said: str) -> None:
    good = {**given(), "servers": answered(ca)["servers"]}
    assert _handover_file.parse(json.dumps(good).encode()) == good
    with pytest.raises(ValueError, match=r".") as caught:
        _handover_file.parse(json.dumps(changed(good, *path, to=value)).encode())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"format": 1, "format": 1, "clients": {}, "servers": {}}',
        b" " * (_handover_file.MAX_BYTES + 1),
    ],
)
def test_what_is_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"is not|is longer|hand-over file") as caught:
        _handover_file.parse(content)
    assert len(str(caught.value)) < 300


def test_what_was_damaged_in_the_state_directory_is_named() -> None:
    assert _handover_file.places(None) == {}
    with pytest.raises(ValueError, match=r"handed_over\.json\.repositories\.web9--vault\.engine: is missing"):
        _handover_file.places({"repositories": {"web9--vault": {"server": "vault1"}}})


# --- the report


def test_the_report_does_not_ask_a_client_of_somebody_else() -> None:
    state = _report.fleet_state(hosts(of_operator()), {"web1": None})
    assert state["hosts"]["web9"]["notes"] == [_report.ELSEWHERE]
    said = _report.table(state)
    assert f"web9: {_report.ELSEWHERE}" in said
    assert "web1: gave no answer" in said
    assert "web9: gave no answer" not in said
