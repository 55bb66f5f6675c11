# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model of repositories over SSH: accounts, keys, definitions, remotes, and what bad input says."""

from __future__ import annotations

import typing as t

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible_collections.holdfast.backup.plugins.plugin_utils import _fleet, _report

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
PROGRAM = (
    "capsh --noamb --shell=/usr/bin/ssh -- -F /etc/holdfast/ssh/offsite.conf -i /etc/holdfast/secrets/offsite.ssh_key"
)
REMOTES = {"s3-offsite": {"type": "s3", "secret_access_key": "geheim"}}


def fleet(
    repositories: dict[str, t.Any],
    *clients: str,
    server: dict[str, t.Any] | None = None,
    job: dict[str, t.Any] | None = None,
    **variables: t.Any,
) -> dict[str, t.Any]:
    side = {"ansible_host": "192.0.2.1", "rclone_proxy_remotes": REMOTES, **(server or {})}
    shared = {
        "backup_escrow": {"recipients": [RECIPIENT]},
        "backup_repositories": repositories,
        "backup_jobs": {"system": {"paths": ["/etc"], **(job or {})}},
        **variables,
    }
    names = list(clients or ("web1",))
    hostvars = {"vault1": side, **{name: {**shared, **(side if name == "vault1" else {})} for name in names}}
    return _fleet.fleet(hostvars, {"backup_clients": names, "backup_servers": ["vault1"]})


def messages(model: dict[str, t.Any]) -> list[str]:
    return [each["message"] for each in model["errors"]]


def only(model: dict[str, t.Any]) -> str:
    found = messages(model)
    assert len(found) == 1, found
    assert "geheim" not in found[0]
    return found[0]


def repository(model: dict[str, t.Any], host: str = "web1") -> dict[str, t.Any]:
    assert messages(model) == []
    found: dict[str, t.Any] = model["hosts"][host]["client"]["repositories"][0]
    return found


def side(model: dict[str, t.Any]) -> dict[str, t.Any]:
    assert messages(model) == []
    found: dict[str, t.Any] = model["hosts"]["vault1"]["server"]
    return found


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({}, False),
        # What decides nothing about who is let in, and where to.
        ({"options": {"s3.connections": "5"}}, False),
        ({"source": ["192.0.2.78"]}, True),
        ({"port": 2222}, True),
        ({"address": "192.0.2.9"}, True),
        ({"server": {"ssh_access_path": "/srv/other"}}, True),
        ({"remote": "s3-offsite:bucket"}, True),
    ],
)
def test_the_way_to_a_repository_changes_with_what_decides_it(changes: dict[str, t.Any], differs: bool) -> None:
    def way(server: dict[str, t.Any] | None = None, **more: t.Any) -> str:
        declared = {"access": "rclone", "server": "vault1", "source": ["192.0.2.77"], **more}
        found: str = repository(fleet({"offsite": declared}, server=server))["ssh"]["way"]
        return found

    assert (way() != way(**changes)) is differs


def test_a_directory_of_the_server_through_rclone() -> None:
    model = fleet({"offsite": {"access": "rclone", "server": "vault1", "source": ["192.0.2.77"]}})
    found = repository(model)
    assert found["location"] == "rclone:holdfast:web1--offsite"
    assert found["append_only"] is True
    assert found["address"] == "192.0.2.1"
    assert found["path"] is None
    assert found["ssh"] == {
        "account": "bk-web1",
        "alias": "holdfast-offsite",
        "kind": "rclone",
        "address": "192.0.2.1",
        "address_variable": "ansible_host of vault1",
        "port": 22,
        "known_as": "192.0.2.1",
        "program": PROGRAM,
        "options": {"rclone.program": f"{PROGRAM} holdfast-offsite"},
        "from": ["192.0.2.77"],
        "path": "/srv/holdfast-ssh/web1--offsite",
        "way": found["ssh"]["way"],
    }
    assert side(model)["ssh"]["accounts"] == [
        {
            "name": "bk-web1",
            "host": "web1",
            "backup_id": "web1",
            "keys": [{"repository": "offsite", "kind": "rclone", "from": ["192.0.2.77"]}],
        }
    ]
    assert side(model)["definitions"] == [
        {
            "name": "web1--offsite",
            "account": "bk-web1",
            "kind": "rclone",
            "path": "/srv/holdfast-ssh/web1--offsite",
            "remote": None,
            "quota": None,
            "append_only": True,
        }
    ]
    # The certificate of rest-server has nothing to do with it.
    assert side(model)["users"] == []


def test_a_remote_belongs_to_the_accounts_that_use_it() -> None:
    entry = {"access": "rclone", "server": "vault1", "remote": "s3-offsite:company-backups"}
    model = fleet({"offsite": entry, "more": entry}, "web1", "web2")
    assert side(model)["rclone"]["remotes"] == {"s3-offsite": ["bk-web1", "bk-web2"]}
    assert [each["name"] for each in side(model)["definitions"]] == [
        "web1--more",
        "web1--offsite",
        "web2--more",
        "web2--offsite",
    ]
    assert {each["remote"] for each in side(model)["definitions"]} == {"s3-offsite:company-backups"}
    assert {each["path"] for each in side(model)["definitions"]} == {None}
    assert [key["repository"] for key in side(model)["ssh"]["accounts"][0]["keys"]] == ["more", "offsite"]
    assert "geheim" not in str(model)


def test_sftp_lies_below_the_directory_of_the_user_and_is_not_append_only() -> None:
    entry = {"access": "sftp", "server": "vault1", "path": "/volume1/backup"}
    model = fleet({"second": entry}, "web1", "web2", job={"keep": {"last": 3}})
    found = repository(model)
    assert found["location"] == "sftp:holdfast-second:/volume1/backup/web1--second"
    assert found["append_only"] is False
    assert found["ssh"]["options"]["sftp.command"].endswith("/second.ssh_key holdfast-second sftp")
    assert [each["path"] for each in side(model)["definitions"]] == [
        "/volume1/backup/web1--second",
        "/volume1/backup/web2--second",
    ]
    assert [each["append_only"] for each in side(model)["definitions"]] == [False, False]


def test_borg_has_a_quota_and_an_encryption() -> None:
    model = fleet({"archive": {"engine": "borg", "server": "vault1", "quota": "200G"}})
    found = repository(model)
    assert (found["access"], found["encryption"]) == ("ssh", "repokey-blake2")
    assert found["location"] == "ssh://holdfast-archive/./web1--archive"
    assert side(model)["definitions"][0]["quota"] == "200G"
    assert side(model)["definitions"][0]["kind"] == "borg"


def test_borg_on_the_host_itself() -> None:
    found = repository(fleet({"archive": {"engine": "borg", "encryption": "keyfile-blake2"}}))
    assert (found["access"], found["path"]) == ("local", "/var/backups/holdfast/archive")


def test_the_port_is_ssh_s_own() -> None:
    entry = {"access": "rclone", "server": "vault1"}
    model = fleet({"offsite": entry}, server={"backup_ssh_port": 2222, "rest_server_port": 9000})
    assert repository(model)["ssh"]["port"] == 2222
    assert side(model)["ssh"]["port"] == 2222
    model = fleet({"offsite": {**entry, "port": 2022, "address": "2001:db8::1"}})
    assert repository(model)["ssh"]["port"] == 2022
    assert repository(model)["ssh"]["known_as"] == "[2001:db8::1]:2022"
    assert repository(model)["ssh"]["address_variable"] == "backup_repositories.offsite.address"


def test_a_server_that_backs_itself_up_leaves_out_what_it_writes() -> None:
    model = fleet({"offsite": {"access": "rclone", "server": "vault1"}}, "vault1")
    assert messages(model) == []
    arguments = model["hosts"]["vault1"]["client"]["units"][0]["arguments"]
    assert "--exclude=/srv/holdfast-ssh" in arguments
    assert "--exclude=/srv/holdfast" not in arguments
    model = fleet({"offsite": {"access": "rclone", "server": "vault1", "remote": "s3-offsite:b"}}, "vault1")
    assert not [each for each in model["hosts"]["vault1"]["client"]["units"][0]["arguments"] if "/srv/" in each]


def test_a_repository_that_no_job_uses_has_no_key_on_the_server() -> None:
    entry = {"access": "rclone", "server": "vault1"}
    model = fleet({"offsite": entry, "unused": entry}, job={"repositories": ["offsite"]})
    assert [each["name"] for each in side(model)["definitions"]] == ["web1--offsite"]


BAD = "a/../b", "a'b", 'a"b', "a\nb", "a%2fb", "a b", "a$b", "a;b", "a\\b", "a`b", "a\0b", "ä"


@pytest.mark.parametrize("path", [*BAD, "a/", "a//b", "."])
def test_remotes_that_are_refused(path: str) -> None:
    model = fleet({"offsite": {"access": "rclone", "server": "vault1", "remote": f"s3-offsite:{path}"}})
    assert "backup_repositories.offsite.remote" in only(model)


@pytest.mark.parametrize("remote", ["company-backups", ":s3:bucket", "S3:b", "-x:b", "s3-offsite", "--config:x", ""])
def test_names_of_remotes_that_are_refused(remote: str) -> None:
    model = fleet({"offsite": {"access": "rclone", "server": "vault1", "remote": remote}})
    assert "backup_repositories.offsite.remote" in only(model)


def test_credentials_in_a_remote_are_not_shown() -> None:
    model = fleet({"offsite": {"access": "rclone", "server": "vault1", "remote": "s3-offsite,secret_key=geheim:b"}})
    assert "contains credentials" in only(model)


def test_an_unknown_remote_names_those_that_there_are() -> None:
    model = fleet({"offsite": {"access": "rclone", "server": "vault1", "remote": "other:b"}})
    assert "names no remote of vault1. Declare it in rclone_proxy_remotes of vault1, which has: s3-offsite" in only(
        model
    )


@pytest.mark.parametrize("remotes", [["s3"], "geheim", {"A": {}}, {"a": "geheim"}, {"a/b": {}}, {1: {}}])
def test_remotes_of_a_server_that_are_refused(remotes: t.Any) -> None:
    model = fleet({"offsite": {"access": "rclone", "server": "vault1"}}, server={"rclone_proxy_remotes": remotes})
    assert "rclone_proxy_remotes" in only(model)


def test_a_value_of_the_wrong_type_is_named_as_its_user_knows_it() -> None:
    """Ansible reads an inventory into types of its own."""
    for text, shown in (("[geheim]", "list"), ("geheim", "str"), ("7", "int"), ("true", "bool")):
        value = DataLoader().load(text)
        model = fleet({"offsite": {"access": "rclone", "server": "vault1"}}, server={"rclone_proxy_remotes": value})
        assert f"rclone_proxy_remotes = '<{shown}>': is not a dictionary" in only(model)
        model = fleet(
            {"offsite": {"access": "rclone", "server": "vault1"}}, server={"rclone_proxy_remotes": {"a": value}}
        )
        assert f"rclone_proxy_remotes.a = '<{shown}>': is not a dictionary" in only(model)
        found = messages(fleet({"offsite": {"access": "rclone", "server": "vault1"}}, backup_escrow=value))
        assert any(f"backup_escrow = '<{shown}>': is not a dictionary" in message for message in found)


@pytest.mark.parametrize("path", [f"/{path}" for path in BAD] + ["/", "relative", "~/x"])
def test_paths_for_sftp_that_are_refused(path: str) -> None:
    model = fleet({"second": {"access": "sftp", "server": "vault1", "path": path}})
    assert "backup_repositories.second.path" in only(model)


@pytest.mark.parametrize(
    "source",
    ["192.0.2.7", [], ["example.net"], ["192.0.2.*"], ["!192.0.2.1"], ["192.0.2.1/24"], ["192.0.2.1,10.0.0.1"]]
    + [["fe80::1%eth0"], ['192.0.2.1",command="x'], ["192.0.2.1\n"], ["192.0.2.0/255.255.255.0"], [7], [""]],
)
def test_source_addresses_that_are_refused(source: t.Any) -> None:
    model = fleet({"offsite": {"access": "rclone", "server": "vault1", "source": source}})
    assert "backup_repositories.offsite.source" in only(model)


def test_source_addresses_have_one_spelling() -> None:
    source = ["192.0.2.0/24", "2001:DB8:0::7", "127.0.0.1", "::1"]
    model = fleet({"offsite": {"access": "rclone", "server": "vault1", "source": source}})
    assert repository(model)["ssh"]["from"] == ["192.0.2.0/24", "2001:db8::7", "127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ({"access": "rclone"}, "server"),
        ({"access": "sftp"}, "server"),
        ({"engine": "borg", "access": "ssh"}, "server"),
        ({"access": "s3"}, "url"),
        ({"access": "s3", "url": "b2:bucket:path"}, "url"),
        ({"access": "ssh", "server": "vault1"}, "access"),
        ({"engine": "borg", "access": "rclone", "server": "vault1"}, "access"),
        ({"engine": "borg", "url": "s3:host/bucket"}, "url"),
        ({"engine": "borg", "repository_version": 2}, "repository_version"),
        ({"engine": "borg", "from_repo": "other"}, "from_repo"),
        ({"engine": "borg", "options": {"rest.connections": 5}}, "options"),
        ({"engine": "borg", "encryption": "none"}, "encryption"),
        ({"encryption": "repokey-blake2"}, "encryption"),
        ({"access": "rclone", "server": "vault1", "quota": "1G"}, "quota"),
        ({"access": "rclone", "server": "vault1", "path": "/srv/x"}, "path"),
        ({"access": "rclone", "server": "vault1", "tls": True}, "tls"),
        ({"access": "rclone", "server": "vault1", "environment": {"A": "geheim"}}, "environment"),
        ({"access": "sftp", "server": "vault1", "remote": "s3-offsite:b"}, "remote"),
        ({"server": "vault1", "source": ["192.0.2.1"]}, "source"),
        ({"access": "rclone", "server": "nowhere"}, "server"),
        ({"access": "rclone", "server": "web1"}, "server"),
        ({"access": "rclone", "server": "vault1", "address": "h;id"}, "address"),
        ({"access": "rclone", "server": "vault1", "port": 0}, "port"),
    ],
)
def test_refused(entry: dict[str, t.Any], where: str) -> None:
    assert f"backup_repositories.x.{where}" in only(fleet({"x": entry}))


def test_counting_snapshots_is_refused_where_it_is_append_only() -> None:
    model = fleet({"offsite": {"access": "rclone", "server": "vault1"}}, job={"keep": {"last": 3}})
    assert "backup_jobs.system.keep.last" in only(model)


def test_two_connections_of_one_kind_in_one_command_are_refused() -> None:
    entry = {"access": "rclone", "server": "vault1"}
    model = fleet({"offsite": entry, "other": {**entry, "from_repo": "offsite"}})
    assert "backup_repositories.other.from_repo" in only(model)
    model = fleet({"offsite": entry, "other": {"access": "sftp", "server": "vault1", "from_repo": "offsite"}})
    assert messages(model) == []


def test_nor_may_one_of_them_be_a_location_of_ones_own() -> None:
    ours, own = {"access": "sftp", "server": "vault1"}, {"url": "sftp:somebody@nas1:/srv/backup"}
    for first, then in ((ours, own), (own, ours)):
        model = fleet({"first": first, "then": {**then, "from_repo": "first"}})
        assert "backup_repositories.then.from_repo" in only(model)
    # Two of one's own are dialled in the same way.
    model = fleet({"first": own, "then": {"url": "sftp:somebody@nas2:/srv/backup", "from_repo": "first"}})
    assert messages(model) == []


def test_a_location_of_sftp_is_the_same_however_it_is_spelt() -> None:
    entry = {"access": "sftp", "server": "vault1"}
    model = fleet({"second": entry, "same": {"url": "sftp:somebody@192.0.2.1:/srv/holdfast-ssh/web1--second"}})
    assert "is the location of two repositories" in only(model)


@pytest.mark.parametrize("variable", ["restic_account", "rest_server_account"])
def test_accounts_of_holdfast_are_no_accounts_of_clients(variable: str) -> None:
    model = fleet({"offsite": {"access": "rclone", "server": "vault1"}}, server={variable: "bk-web1"})
    assert f"{variable} = 'bk-web1': begins with bk-" in only(model)


@pytest.mark.parametrize(
    ("key", "value", "cure"),
    [
        ("engine", "rsync", "Use engine: restic or borg"),
        ("access", "pull", "Use access: rest, rclone, sftp, s3, url, local, ssh"),
    ],
)
def test_what_a_version_does_not_have_is_one_clear_error(key: str, value: str, cure: str) -> None:
    text = only(fleet({"offsite": {key: value, "server": "vault1"}}))
    assert f"backup_repositories.offsite.{key} = '{value}': is not available in this version" in text
    assert cure in text


PROXIED = {"offsite": {"engine": "restic", "access": "rclone", "server": "vault1", "remote": "s3-offsite:company"}}


@pytest.mark.parametrize(
    ("groups", "side", "duties"),
    [
        ({}, {}, []),
        ({"webservers": ["vault1"], "debian": ["vault1", "web1"]}, {}, ["webservers"]),
        ({"webservers": ["vault1"]}, {"rclone_proxy_dedicated": True}, []),
        ({"webservers": ["web1"], "all": ["vault1"], "ungrouped": ["vault1"]}, {}, []),
    ],
)
def test_a_proxy_with_other_duties_is_said(
    groups: dict[str, list[str]], side: dict[str, t.Any], duties: list[str]
) -> None:
    hostvars = {
        "vault1": {"ansible_host": "192.0.2.1", "rclone_proxy_remotes": REMOTES, **side},
        "web1": {
            "backup_escrow": {"recipients": [RECIPIENT]},
            "backup_repositories": PROXIED,
            "backup_jobs": {"system": {"paths": ["/etc"]}},
        },
    }
    model = _fleet.fleet(hostvars, {"backup_clients": ["web1"], "backup_servers": ["vault1"], **groups})
    assert repository(model)["proxy_duties"] == duties
    said = [note for note in _report.notes(model["hosts"]["web1"]["client"]) if "other duties" in note]
    assert len(said) == bool(duties)
    assert all("webservers" in note and "vault1" in note for note in said)


def test_what_a_proxy_serves_and_saves_beside_is_a_duty() -> None:
    side = {"engine": "borg", "access": "ssh", "server": "vault1"}
    hostvars: dict[str, dict[str, t.Any]] = {
        "vault1": {
            "ansible_host": "192.0.2.1",
            "rclone_proxy_remotes": REMOTES,
            "backup_escrow": {"recipients": [RECIPIENT]},
            "backup_jobs": {"system": {"paths": ["/etc"]}},
        },
        "web1": {
            "backup_escrow": {"recipients": [RECIPIENT]},
            "backup_repositories": {**PROXIED, "archive": side, "nas": {"access": "sftp", "server": "vault1"}},
            "backup_jobs": {"system": {"paths": ["/etc"]}},
        },
    }
    model = _fleet.fleet(hostvars, {"backup_clients": ["vault1", "web1"], "backup_servers": ["vault1"]})
    duties = {each["name"]: each["proxy_duties"] for each in model["hosts"]["web1"]["client"]["repositories"]}
    assert duties == {"archive": [], "nas": [], "offsite": ["backups of its own", "borg", "sftp"]}


BESIDE = {
    "drop": {"access": "sftp", "server": "vault1", "source": ["192.0.2.77"]},
    "offsite": {"access": "rclone", "server": "vault1", "source": ["192.0.2.77"]},
}
UNLIMITED = "vault1 limits no client's rclone and sftp repositories: one that fills up their directory stops the others"


@pytest.mark.parametrize(
    ("repositories", "clients", "told"),
    [
        (BESIDE, ["web1", "web2"], True),
        ({"offsite": BESIDE["offsite"]}, ["web1", "web2"], True),
        # Nobody else is there; a store has a quota of its own; borg has one.
        (BESIDE, ["web1"], False),
        (PROXIED, ["web1", "web2"], False),
        ({"archive": {"engine": "borg", "access": "ssh", "server": "vault1"}}, ["web1", "web2"], False),
    ],
)
def test_a_directory_that_one_client_can_fill_up_for_all_is_said(
    repositories: dict[str, t.Any], clients: list[str], told: bool
) -> None:
    """Once for each server, however many repositories there are."""
    model = fleet(repositories, *clients)
    assert messages(model) == []
    for host in clients:
        notes = _report.notes(model["hosts"][host]["client"])
        assert [note for note in notes if "fills up" in note] == [UNLIMITED] * told


@pytest.mark.parametrize(
    "url", ["https://s3.example", "s3.example", "http://127.0.0.1:9000", "http://u:geheim@store1:9001"]
)
def test_a_store_that_a_proxy_dials_without_tls_is_said(url: str) -> None:
    remotes = {name: {**REMOTES["s3-offsite"], "endpoint": url} for name in ("s3-offsite", "unused")}
    model = fleet(PROXIED, "web1", "web2", server={"rclone_proxy_remotes": remotes})
    assert messages(model) == []
    said = [note for note in _report.notes(model["hosts"]["web2"]["client"]) if "TLS" in note]
    warned = [each["message"] for each in model["warnings"]]
    if "store1" not in url:
        assert (said, warned) == ([], [])
        return
    answers = "is dialled without TLS: whoever is on the way can answer in the store's place"
    assert said == [f"offsite: the store behind its proxy vault1 {answers}"]
    assert warned == [
        f"vault1: rclone_proxy_remotes.s3-offsite.endpoint = 'http://store1': {answers}."
        " Use https:// where the store has it"
    ]


def test_remotes_that_send_a_password_in_clear_are_bad_input() -> None:
    remotes = {"s3-offsite": {"type": "webdav", "url": "http://u:geheim@nas/dav", "pass": "geheim"}}
    assert any(
        "would cross the network in clear" in each
        for each in messages(fleet(PROXIED, server={"rclone_proxy_remotes": remotes}))
    )
    assert "geheim" not in str(messages(fleet(PROXIED, server={"rclone_proxy_remotes": remotes})))


@pytest.mark.parametrize(
    "remotes", [{"s3-offsite": {"type": "drive"}}, {"s3-offsite": {"type": "s3", "token": "geheim"}}]
)
def test_remotes_that_cannot_be_served_are_bad_input(remotes: dict[str, t.Any]) -> None:
    found = messages(fleet(PROXIED, server={"rclone_proxy_remotes": remotes}))
    assert any("write back" in message for message in found)
    assert not any("geheim" in message for message in found)


@pytest.mark.parametrize(
    "argument",
    [
        *(
            "--append-only",
            "--append-only=false",
            "--stdio=0",
            "--config",
            "--config=/tmp/x",
            "--private-repos",
            "--addr=:80",
        ),
        *(
            "--user",
            "--pass=geheim",
            "--htpasswd=/etc/passwd",
            "--cert=/x",
            "--rc",
            "--rc-addr=:1",
            "--dry-run",
            "--log-level=ERROR",
        ),
        *("--password-command=id", "-n", "-vn", "-append-only=false", "--", "--APPEND", "--fast-list\n"),
        # What a remote may not say, each after its type.
        *("--s3-acl=public-read", "--gcs-object-acl", "--azureblob-public-access=container", "--s3-endpoint=http://x"),
        *("--sftp-ssh=/bin/sh", "--webdav-bearer-token-command", "--ftp-no-check-certificate", "--sftp-pass=geheim"),
        *("--header=X-Container-Read: .r:*", "--header-upload", "--swift-auth", "--b2-key", "--smb-pass"),
    ],
)
def test_arguments_of_rclone_that_are_refused(argument: str) -> None:
    """rclone takes the last, and would let clients delete: --append-only=false did."""
    found = only(fleet(PROXIED, server={"ssh_access_rclone_arguments": ["--fast-list", argument]}))
    assert found.startswith("vault1: ssh_access_rclone_arguments[1] = ")
    model = fleet(
        PROXIED,
        server={"ssh_access_rclone_arguments": ["--bwlimit", "10M", "--transfers=8", "--local-no-check-updated"]},
    )
    assert messages(model) == []


def test_sftp_that_nothing_may_confine_is_not_beside_what_is_append_only() -> None:
    """Both are of one account, so that the key for sftp opens the files of the other one, and the credentials of its store."""
    loose = {"ssh_access_sftp_confine": "if_possible"}
    assert messages(fleet(BESIDE)) == []
    assert messages(fleet({"drop": BESIDE["drop"]}, server=loose)) == []
    assert messages(fleet({"offsite": BESIDE["offsite"]}, server=loose)) == []
    two = {**BESIDE, "other": {"access": "sftp", "server": "vault1", "source": ["192.0.2.77"]}}
    assert messages(fleet({key: two[key] for key in ("drop", "other")}, server=loose)) == []
    assert only(fleet(two, server=loose)) == (
        "vault1: ssh_access_sftp_confine = 'if_possible': lets the sftp keys of web1 into web1--offsite, of which nothing is to be"
        " deleted: both are of the account bk-web1. Set it to required, or give up sftp there"
    )
    assert "bk-web1" in only(
        fleet({**BESIDE, "offsite": {**BESIDE["offsite"], "remote": "s3-offsite:b"}}, server=loose)
    )
    assert "is not one of the choices" in only(fleet(BESIDE, server={"ssh_access_sftp_confine": "no"}))


@pytest.mark.parametrize(
    ("argument", "told"), [("--no-check-certificate", True), ("--no-check-certificate=false", False)]
)
def test_a_store_whose_certificate_rclone_is_not_to_look_at_is_said(argument: str, told: bool) -> None:
    model = fleet(PROXIED, server={"ssh_access_rclone_arguments": [argument]})
    assert messages(model) == []
    warned = [each["message"] for each in model["warnings"]]
    assert warned == told * [
        f"vault1: ssh_access_rclone_arguments = '{argument}': lets whoever is on the way take the store's place, and have its"
        " credentials. Remove it, and trust the store's certificate on this host: put it into"
        " /usr/local/share/ca-certificates and run update-ca-certificates"
    ]
    # Where no remote is served nobody is dialled.
    local = fleet(
        {"offsite": {"access": "rclone", "server": "vault1"}}, server={"ssh_access_rclone_arguments": [argument]}
    )
    assert local["warnings"] == []


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"env_auth": True}, "env_auth"),
        ({"env_auth": "1", "endpoint": "https://s3.example"}, "env_auth"),
        ({"type": "azureblob", "account": "a", "use_msi": True}, "use_msi"),
        ({"env_auth": False}, None),
        ({"env_auth": True, "shared_credentials_file": "/etc/aws"}, None),
        ({"access_key_id": "a", "secret_access_key": "geheim"}, None),
    ],
)
def test_credentials_that_every_account_of_the_proxy_can_ask_for_are_said(
    options: dict[str, t.Any], option: str | None
) -> None:
    """rclone's environment is clean and its home empty, so all that is left is the instance's metadata service."""
    remotes = {name: {"type": "s3", **options} for name in ("s3-offsite", "unused")}
    model = fleet(PROXIED, server={"rclone_proxy_remotes": remotes})
    assert messages(model) == []
    warned = [each["message"] for each in model["warnings"]]
    assert len(warned) == (option is not None)
    for text in warned:
        assert text.startswith(f"vault1: rclone_proxy_remotes.s3-offsite.{option} = ")
        assert "every account on this host can ask" in text


@pytest.mark.parametrize("variable", ["ansible_user", "ansible_ssh_user"])
def test_ansible_does_not_lock_itself_out(variable: str) -> None:
    said = only(fleet({"offsite": {"access": "sftp", "server": "vault1"}}, server={variable: "bk-admin"}))
    assert said.startswith(f"vault1: {variable} = 'bk-admin': begins with bk-")
    for user in ("backup", "bk", None):
        side(fleet({"offsite": {"access": "sftp", "server": "vault1"}}, server={variable: user}))
    # Where nothing is served over SSH sshd is left alone.
    side(fleet({"vault": {"server": "vault1"}}, server={variable: "bk-admin"}))
