# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model of the fleet: merging, names, addresses, collisions, escrow, and what bad input says."""

from __future__ import annotations

import json
import re
import typing as t

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _fleet

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwQ1vO8nJ9d6yqQpuyXkFBr1dVXtn9Pfx9YlyoHRTOY me"
BASE: dict[str, t.Any] = {
    "backup_escrow": {"recipients": [RECIPIENT]},
    "backup_repositories": {"vault": {"server": "vault1"}},
    "backup_jobs": {"system": {"paths": ["/etc"]}},
}


class Lazy(dict[str, t.Any]):
    """Variables of a host as Ansible gives them: an exception as value stands for a template that fails."""

    def __getitem__(self, name: str) -> t.Any:
        value = super().__getitem__(name)
        if isinstance(value, Exception):
            raise value
        return value


def fleet(
    hosts: dict[str, dict[str, t.Any]], clients: list[str] | None = None, servers: tuple[str, ...] = ("vault1",)
) -> dict[str, t.Any]:
    hostvars = {"vault1": Lazy(), **{host: Lazy(variables) for host, variables in hosts.items()}}
    named = [host for host in hosts if host not in servers] if clients is None else clients
    model = _fleet.fleet(hostvars, {"backup_clients": named, "backup_servers": list(servers)})
    json.dumps(model, allow_nan=False)
    return model


def one(server: dict[str, t.Any] | None = None, **variables: t.Any) -> dict[str, t.Any]:
    return fleet({"vault1": server or {}, "web1": {**BASE, **variables}})


def messages(model: dict[str, t.Any]) -> list[str]:
    assert all(set(each) - {"made"} == {"hosts", "variable", "message"} for each in model["errors"])
    return [each["message"] for each in model["errors"]]


def only(model: dict[str, t.Any]) -> str:
    found = messages(model)
    assert len(found) == 1, found
    return found[0]


def client(model: dict[str, t.Any], host: str = "web1") -> dict[str, t.Any]:
    assert messages(model) == []
    found: dict[str, t.Any] = model["hosts"][host]["client"]
    return found


# --- the whole


def test_a_fleet() -> None:
    model = one(server={"ansible_host": "192.0.2.1"})
    assert model["warnings"] == []
    found = client(model)
    assert [unit["unit"] for unit in found["units"]] == ["system--vault"]
    assert found["escrow"] == {"mode": "age", "recipients": [RECIPIENT]}
    repository = found["repositories"][0]
    assert repository["location"] == "rest:https://192.0.2.1:8000/web1--vault/"
    assert repository["rest_url"] == "https://192.0.2.1:8000/web1--vault/"
    assert repository["address_variable"] == "ansible_host of vault1"
    server = model["hosts"]["vault1"]["server"]
    assert server["names"] == ["192.0.2.1", "vault1"]
    assert server["users"] == [
        {"name": "web1--vault", "host": "web1", "backup_id": "web1", "repository": "vault", "quota": None}
    ]
    assert model["hosts"]["vault1"]["client"] is None
    assert model["hosts"]["vault1"]["backup_id"] is None


def test_no_server_is_a_local_repository_without_escrow() -> None:
    found = client(fleet({"web1": {"backup_jobs": BASE["backup_jobs"]}}))
    assert found["repositories"][0]["path"] == "/var/backups/holdfast/local"
    assert found["escrow"] == {"mode": "none", "recipients": []}
    assert "--exclude=/var/backups/holdfast/local" in found["units"][0]["arguments"]


def test_an_empty_inventory_is_a_warning() -> None:
    model = _fleet.fleet({}, {})
    assert model["errors"] == []
    assert "no client" in model["warnings"][0]["message"]


def test_no_job_is_a_warning() -> None:
    model = fleet({"web1": {}})
    assert model["errors"] == []
    assert model["hosts"]["web1"]["client"]["repositories"] == []
    assert "no job" in model["warnings"][0]["message"]


def test_a_host_may_be_client_and_server() -> None:
    model = fleet({"vault1": {**BASE, "rest_server_path": "/data/repos"}}, clients=["vault1"])
    arguments = client(model, "vault1")["units"][0]["arguments"]
    assert "--exclude=/data/repos" in arguments
    assert model["hosts"]["vault1"]["server"]["users"][0]["name"] == "vault1--vault"


def test_what_another_server_holds_is_not_excluded() -> None:
    assert "--exclude=/srv/holdfast" not in client(one())["units"][0]["arguments"]


@pytest.mark.parametrize(
    ("more", "key", "path", "inside"),
    [
        ({}, "paths", "/srv/usb", "/srv/usb"),
        ({}, "optional_paths", "/srv//usb/photos", "/srv/usb"),
        ({}, "paths", "/var/cache/holdfast/vault", "/var/cache/holdfast*"),
        ({"rest_server_path": "/srv"}, "paths", "/srv/www", "/srv"),
    ],
)
@pytest.mark.parametrize("engine", ["restic", "borg"])
def test_what_a_job_names_is_never_left_out_in_silence(
    more: dict[str, t.Any], key: str, path: str, inside: str, engine: str
) -> None:
    """Neither engine says that an exclusion took all of a path that it was given, and both end well."""
    repositories = {"vault": {"server": "vault1"}, "usb": {"access": "local", "path": "/srv/usb", "engine": engine}}
    jobs = {"system": {"paths": ["/etc"], key: ["/etc", path]}}
    variables = {**BASE, "backup_repositories": repositories, "backup_jobs": jobs, **more}
    found = messages(fleet({"vault1": variables}, clients=["vault1"]))
    assert found
    for message in found:
        assert f"backup_jobs.system.{key}" in message
        assert f"{path}: lies in {inside}, which holdfast writes itself" in message.replace("'", "")


@pytest.mark.parametrize(
    ("path", "exclude", "by", "engine"),
    [
        (*case, engine)
        for case in (
            ("/srv/tmp/data", ["a", "tmp"], "tmp"),
            ("/srv/data", ["/srv/data/"], "/srv/data/"),
            ("/srv/x.cache", ["*.cache"], "*.cache"),
            ("/srv/tmp/data", ["/srv/*/data"], "/srv/*/data"),
            ("/srv//data", ["/srv/data"], "/srv/data"),
            ("/srv/data", ["/srv/data/*", "tmp", "/data", "*.cache"], None),
        )
        for engine in ("restic", "borg")
    ]
    # Borg has no such patterns.
    + [
        ("/srv/tmp/data", ["tmp", "!data"], None, "restic"),
        ("/srv/tmp/data", ["!data", "tmp"], "tmp", "restic"),
        ("/srv", ["/srv/**", "!/srv/a"], "/srv/**", "restic"),
        # Restic takes what is in it, one by one.
        ("/", ["/*", "!/etc", "!/srv"], None, "restic"),
    ],
)
def test_a_pattern_does_not_take_a_declared_path_in_silence(
    path: str, exclude: list[str], by: str | None, engine: str
) -> None:
    repositories = {"usb": {"access": "local", "path": "/var/backups/usb", "engine": engine}}
    jobs = {"system": {"paths": ["/etc", path], "exclude": exclude, "optional_paths": ["/srv/tmp", "/data.cache"]}}
    found = messages(fleet({"web1": {**BASE, "backup_repositories": repositories, "backup_jobs": jobs}}))
    assert len(found) == (by is not None), found
    for message in found:
        assert "backup_jobs.system.paths" in message
        assert f"is left out by {by!r} of exclude" in message


def test_no_engine_saves_borgs_cache() -> None:
    kinds = {"disk": {"access": "local"}, "archive": {"access": "local", "engine": "borg"}}
    jobs = {
        "system": {"paths": ["/var/lib"], "exclude": ["!/x"], "repositories": ["disk"]},
        "more": {"paths": ["/etc"]},
    }
    variables = {**BASE, "backup_repositories": kinds, "backup_jobs": jobs}
    units = client(fleet({"web1": variables}), "web1")["units"]
    assert len(units) == 3
    for unit in units:
        cache = "/var/lib/holdfast/borg*/.cache"
        assert cache in unit["left_out"]
        patterns = unit["borgmatic"]["exclude_patterns"] if "borgmatic" in unit else unit["arguments"]
        assert len([each for each in patterns if "borg" in each and ".cache" in each]) == 1
    found = messages(
        fleet({"web1": {**variables, "backup_jobs": {"x": {"paths": ["/var/lib/holdfast/borg/.cache/a"]}}}})
    )
    assert "lies in /var/lib/holdfast/borg*/.cache" in found[0]
    del kinds["archive"]
    jobs.pop("more")
    assert "borg" not in str(client(fleet({"web1": variables}), "web1")["units"])


def test_jobs_of_borg_wait_for_each_other() -> None:
    """Borg locks a repository for as long as it saves; restic does not."""
    kinds = {"archive": {"access": "local", "engine": "borg"}, "single": {"access": "local", "engine": "borg"}}
    kinds["disk"] = {"access": "local", "path": "/srv/disk"}
    dump = {"kind": "command", "name": "x", "user": "x", "command": ["true"]}
    jobs = {
        "long": {"paths": ["/srv"], "dumps": [dump]},
        "short": {"paths": ["/etc"], "timeout": "4h", "repositories": ["archive", "disk"]},
        "hasty": {"paths": ["/etc"], "retry_lock": "1m", "repositories": ["archive"]},
        "bound": {"paths": ["/etc"], "timeout": 60, "repositories": ["archive"]},
    }
    model = fleet({"web1": {**BASE, "backup_repositories": kinds, "backup_jobs": jobs}})
    assert model["errors"] == []
    units = {unit["unit"]: unit for unit in client(model, "web1")["units"]}
    waits = {name: unit["borgmatic"]["lock_wait"] for name, unit in units.items() if "borgmatic" in unit}
    assert waits == {
        "long--archive": 43200,
        "long--single": 300,
        "short--archive": 7200,
        "hasty--archive": 60,
        "bound--archive": 300,
    }
    assert "--lock-wait=43200" in units["long--archive"]["dumps"][0]["arguments"]
    assert "--retry-lock=300s" in units["short--disk"]["arguments"]


@pytest.mark.parametrize("path", ["/srv", "/srv/usb2", "/var/cache", "/var/cache/holdfas", "/"])
def test_what_is_around_our_own_directories_is_saved(path: str) -> None:
    repositories = {"usb": {"access": "local", "path": "/srv/usb"}}
    model = fleet({"web1": {**BASE, "backup_repositories": repositories, "backup_jobs": {"system": {"paths": [path]}}}})
    (unit,) = client(model, "web1")["units"]
    assert unit["left_out"] == ["/var/cache/holdfast*", "/srv/usb"]
    assert {"--exclude=/srv/usb", path} <= set(unit["arguments"])


def test_what_may_be_missing_of_what_should_be_mounted() -> None:
    """What is excluded, and disks for backups: the runs into those say so themselves."""
    repositories = {**BASE["backup_repositories"], "usb": {"access": "local", "mount": "/mnt/usb.disk/"}}
    jobs = {"system": {"paths": ["/"], "exclude": ["/srv/*.d", "!/srv/a.d"], "repositories": ["vault"]}}
    model = fleet({"web1": {**BASE, "backup_repositories": repositories, "backup_jobs": jobs}})
    (unit,) = client(model)["units"]

    def matched(path: str) -> list[bool]:
        return [bool(re.search(each.lstrip("!"), path)) for each in unit["excluded"]]

    assert [each[0] == "!" for each in unit["excluded"]] == [False, True]
    assert matched("srv/b.d/nas") == [True, False]
    assert matched("srv/a.d") == [True, True]
    assert unit["disks"] == ["/mnt/usb.disk"]


def test_what_a_server_serves_is_saved_elsewhere_by_a_job_of_its_own() -> None:
    repositories = {"self": {"server": "vault1"}, "usb": {"access": "local", "path": "/srv/usb"}}
    jobs = {"system": {"paths": ["/etc"]}, "others": {"paths": ["/srv/holdfast"], "repositories": ["usb"]}}
    variables = {**BASE, "backup_repositories": repositories, "backup_jobs": jobs}
    model = fleet({"vault1": variables}, clients=["vault1"])
    found = {unit["unit"]: unit["left_out"] for unit in client(model, "vault1")["units"]}
    assert found["others--usb"] == ["/var/cache/holdfast*", "/srv/usb"]
    assert found["system--self"] == ["/var/cache/holdfast*", "/srv/usb", "/srv/holdfast"]
    variables["backup_jobs"] = {"others": {"paths": ["/srv/holdfast"]}}
    said = only(fleet({"vault1": variables}, clients=["vault1"]))
    assert "no run into self saves it" in said
    assert "into repositories that lie elsewhere" in said


def test_five_hundred_hosts_share_a_server() -> None:
    jobs = {f"job{number}": {"paths": ["/etc", "/home"], "exclude": ["*.o"]} for number in range(5)}
    hosts = {f"web{number}": {**BASE, "backup_jobs": jobs} for number in range(500)}
    model = fleet(hosts)
    assert len(model["hosts"]["vault1"]["server"]["users"]) == 500


# --- merging


def test_jobs_merge_by_name_of_the_variable() -> None:
    found = client(
        one(
            backup_jobs__20_host={"system": {"exclude": ["b"], "nice": None}, "gone": None},
            backup_jobs__10_group={"system": {"exclude": ["a"], "tags": ["t"], "nice": 5}, "gone": {"paths": ["/x"]}},
            backup_jobs__30={"again": {"paths": ["/y"]}},
            backup_jobsx={"not": "ours"},
        )
    )
    assert sorted(found["jobs"]) == ["again", "system"]
    system = found["jobs"]["system"]
    assert (system["paths"], system["exclude"], system["tags"], system["nice"]) == (["/etc"], ["b"], ["t"], 10)


def test_a_removed_job_comes_back_without_what_it_was() -> None:
    found = client(one(backup_jobs__a={"system": None}, backup_jobs__b={"system": {"paths": ["/new"]}}))
    assert found["jobs"]["system"]["paths"] == ["/new"]


def test_repositories_merge_too() -> None:
    found = client(one(backup_repositories__x={"local": {}, "vault": {"port": 9000}}))
    assert [each["location"] for each in found["repositories"]] == [
        "/var/backups/holdfast/local",
        "rest:https://vault1:9000/web1--vault/",
    ]
    assert [unit["unit"] for unit in found["units"]] == ["system--local", "system--vault"]


def test_removing_all_repositories_leaves_the_default() -> None:
    assert client(one(backup_repositories__x={"vault": None}))["repositories"][0]["name"] == "local"


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("backup_jobs_db", "backup_jobs__db"),
        ("backup_job__db", "backup_jobs__db"),
        ("backup_job_db_1", "backup_jobs__db_1"),
        ("backup_job", "backup_jobs"),
        ("backup_repository", "backup_repositories"),
        ("backup_repositories_db", "backup_repositories__db"),
        ("backup_repository__db", "backup_repositories__db"),
    ],
)
def test_a_job_that_counts_for_nothing_is_told(name: str, right: str) -> None:
    hosts = {host: {**BASE, name: {"db": {"paths": ["/db"]}, "system": {}, "vault": {}}} for host in ("web1", "web2")}
    model = fleet(hosts)
    assert model["errors"] == []
    entries = "db, vault" if "job" in name else "db, system"
    assert [each["message"] for each in model["warnings"]] == [
        f"web1, web2: {name}: is no variable of holdfast, so {entries} in it count for nothing. Call it {right}"
    ]


@pytest.mark.parametrize(
    "helper",
    [
        {"backup_jobs_common": {"system": {"paths": ["/var"]}}},
        {"backup_repository_defaults": {"server": "vault1", "options": ["x"]}},
        {"backup_repository_password": "geheim"},
        {"backup_job": ValueError("broken")},
        {"backup_jobs___odd": {"more": {"paths": ["/var"]}}},
        {"backup_jobs_list": ["a"], "backup_jobsize": {"db": {}}},
    ],
)
def test_what_users_make_jobs_of_is_theirs(helper: dict[str, t.Any]) -> None:
    model = one(**helper)
    assert model["errors"] == []
    assert model["warnings"] == []


def test_of_a_client_elsewhere_only_repositories_count() -> None:
    variables = {**BASE, "backup_jobs_db": {"db": {}}, "backup_repository_db": {"db": {}}}
    hostvars = {"vault1": Lazy(), "web1": Lazy(variables)}
    model = _fleet.fleet(hostvars, {"backup_clients_elsewhere": ["web1"], "backup_servers": ["vault1"]})
    assert [each["variable"] for each in model["warnings"]] == ["backup_repository_db"]


def test_a_null_variable_is_none() -> None:
    assert list(client(one(backup_jobs__x=None))["jobs"]) == ["system"]


@pytest.mark.parametrize("variable", ["backup_jobs", "backup_jobs__x", "backup_repositories", "backup_repositories__x"])
@pytest.mark.parametrize("value", ["rest:https://u:geheim@h/", 5, True, [], ["geheim"], 1.5])
def test_what_is_no_dictionary(variable: str, value: t.Any) -> None:
    found = messages(one(**{variable: value}))
    assert any(f"{variable} = '<" in each and "is not a dictionary" in each for each in found)
    assert "geheim" not in str(found)


def test_an_entry_that_is_no_dictionary_counts_as_declared() -> None:
    text = only(
        one(
            backup_repositories={"vault": "rest:https://u:geheim@h/"},
            backup_jobs={"s": {"paths": ["/"], "repositories": ["vault"]}},
        )
    )
    assert "backup_repositories.vault = '<str>': is not a dictionary" in text


@pytest.mark.parametrize("name", ["System", "a--b", 5, None, True, "a\x1b[2J\n", "x" * 10**6, "data"])
def test_names_of_jobs_and_repositories(name: t.Any) -> None:
    for variable in ("backup_jobs__x", "backup_repositories__x"):
        text = only(one(**{variable: {name: {"paths": ["/x"]}}}))
        assert variable in text
        assert text.isprintable()
        assert len(text) < 600


def test_names_of_variables_may_be_anything() -> None:
    assert fleet({"web1": {**BASE, 5: "x", None: 1}})["errors"] == []  # type: ignore[dict-item]


# --- templates


@pytest.mark.parametrize("variable", ["backup_jobs", "backup_jobs__x", "backup_id", "backup_escrow", "restic_account"])
def test_a_template_that_fails_is_a_message(variable: str) -> None:
    found = messages(one(None, **{variable: RuntimeError("'x' is\n undefined" + "y" * 10**6)}))
    text = next(each for each in found if f"{variable}: cannot be evaluated: 'x' is undefined" in each)
    assert len(text) < 600


# --- names


@pytest.mark.parametrize(("host", "identity"), [("web1", "web1"), ("Web1.Example.COM", "web1-example-com")])
def test_backup_id_from_the_inventory_name(host: str, identity: str) -> None:
    assert fleet({host: BASE})["hosts"][host]["backup_id"] == identity


@pytest.mark.parametrize(
    "host", ["we b", "web_1", "192.0.2.1", "2001:db8::1", "a.very.long.name.of.a.host.example.com"]
)
def test_backup_id_is_asked_for_where_the_name_gives_none(host: str) -> None:
    found = messages(fleet({host: BASE}))
    assert any(
        "backup_id (from the inventory name)" in each and "set backup_id for this host" in each for each in found
    )
    assert (
        fleet({host: {**BASE, "backup_id": "web1", "backup_jobs": {"s": {"paths": ["/"], "host": "w"}}}})["errors"]
        == []
    )


def test_a_name_that_is_too_long_may_be_short_without_its_domain() -> None:
    """Inventories of whole names, where every host is refused."""
    host = "db-primary-01.prod.example.com"
    assert only(fleet({host: BASE})).endswith(
        ', 28 characters at most; set backup_id for this host: backup_id: "{{ inventory_hostname_short }}", say'
    )
    # It would be none either.
    for name in ("db_1.prod.example.com", "db-primary-01-of-the-production-cluster", "192.0.2.1"):
        assert messages(fleet({name: BASE}))[0].endswith("; set backup_id for this host")


@pytest.mark.parametrize("value", ["Web", "a--b", 5, True, ["a"], {}, "metrics", "a\n"])
def test_backup_id_refused(value: t.Any) -> None:
    assert "web1: backup_id = " in only(one(backup_id=value))


def test_a_server_needs_no_backup_id() -> None:
    model = fleet(
        {"backup_server.with.a.long.name.example.com": {}, "web1": {"backup_jobs": {}}},
        clients=["web1"],
        servers=("backup_server.with.a.long.name.example.com",),
    )
    assert model["errors"] == []


def test_one_backup_id_for_two_hosts() -> None:
    hosts = {"web1": BASE, "WEB1": {**BASE, "backup_jobs": {"s": {"paths": ["/"]}}}}
    found = messages(fleet(hosts))
    assert "web1, WEB1: backup_id = 'web1': is used by two hosts. Give each host a backup_id of its own" in found


# --- addresses


@pytest.mark.parametrize(
    ("server", "location"),
    [
        ({}, "rest:https://vault1:8000/web1--vault/"),
        ({"ansible_host": "10.0.0.1"}, "rest:https://10.0.0.1:8000/web1--vault/"),
        ({"ansible_host": "10.0.0.1", "backup_address": "2001:DB8::1"}, "rest:https://[2001:db8::1]:8000/web1--vault/"),
        ({"rest_server_port": "9000", "rest_server_tls": "off"}, "rest:http://vault1:9000/web1--vault/"),
    ],
)
def test_what_clients_dial(server: dict[str, t.Any], location: str) -> None:
    assert client(one(server=server))["repositories"][0]["location"] == location


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST"])
def test_an_address_of_ansibles_that_leads_to_the_client_itself(address: str) -> None:
    """A virtual machine behind a forwarded port, a tunnel, or the connection local."""
    side = {"ansible_host": address}
    model = fleet({"vault1": {**BASE, **side}, "web1": BASE, "web2": BASE}, clients=["vault1", "web1", "web2"])
    assert only(model).startswith("web1, web2: ansible_host of vault1 = ")
    assert only(model).endswith(
        ": is where clients would dial this server, and leads each to itself. Set backup_address of vault1, or address of"
        " the repository, to what its clients reach it by"
    )
    assert model["errors"][0]["hosts"] == ["web1", "web2"]
    # Who says so means it: a tunnel on the client, say; and a server is its own client.
    assert one(server={**side, "backup_address": address})["errors"] == []
    assert one(server=side, backup_repositories={"vault": {"server": "vault1", "address": address}})["errors"] == []
    assert fleet({"vault1": {**BASE, **side}}, clients=["vault1"])["errors"] == []


def test_a_server_called_localhost() -> None:
    variables = {**BASE, "backup_repositories": {"vault": {"server": "localhost"}}}
    hosts: dict[str, dict[str, t.Any]] = {"localhost": {}, "web1": variables}
    assert only(fleet(hosts, servers=("localhost",))).startswith(
        "web1: backup_address (from the inventory name) of localhost = 'localhost': "
    )


def test_a_repository_says_it_differently() -> None:
    model = one(
        backup_repositories={
            "vault": {"server": "vault1", "address": "backup.example", "port": 443, "url_prefix": "/r"}
        }
    )
    repository = client(model)["repositories"][0]
    assert repository["location"] == "rest:https://backup.example:443/r/web1--vault/"
    assert repository["address_variable"] == "backup_repositories.vault.address"
    assert model["hosts"]["vault1"]["server"]["names"] == ["backup.example", "vault1"]


def test_a_provided_certificate_has_to_have_what_clients_dial_and_no_more() -> None:
    server = {"rest_server_tls": "provided", "backup_address": "vault.example"}
    assert one(server=server)["hosts"]["vault1"]["server"]["names"] == ["vault.example"]
    told = {"vault": {"server": "vault1", "address": "backup.example"}}
    model = one(server=server, backup_repositories=told)
    assert model["hosts"]["vault1"]["server"]["names"] == ["backup.example"]


@pytest.mark.parametrize(
    ("server", "variable"),
    [
        ({"backup_address": "h:80"}, "backup_address"),
        ({"backup_address": ["a"]}, "backup_address"),
        ({"ansible_host": "fe80::1%eth0"}, "ansible_host"),
        ({"rest_server_port": 0}, "rest_server_port"),
        ({"rest_server_tls": False}, "rest_server_tls"),
        ({"rest_server_tls": "on"}, "rest_server_tls"),
        ({"rest_server_append_only": "no"}, "rest_server_append_only"),
        ({"rest_server_path": "/a b"}, "rest_server_path"),
        ({"rest_server_account": "a b"}, "rest_server_account"),
        ({"rest_server_users": "x"}, "rest_server_users"),
        ({"rest_server_users": ["geheim"]}, "rest_server_users[0]"),
        ({"rest_server_users": [{"name": "x"}]}, "rest_server_users[0].hash"),
        ({"rest_server_users": [{"name": "x:y", "hash": "geheim"}]}, "rest_server_users[0].name"),
        ({"rest_server_users": [{"name": "data", "hash": "geheim"}]}, "rest_server_users[0].name"),
        ({"rest_server_users": [{"name": "x", "hash": "geheim"}]}, "rest_server_users[0].hash"),
        ({"rest_server_users": [{"name": "x", "hash": "$2y$05$" + "a" * 53}]}, "rest_server_users[0].hash"),
        ({"rest_server_users": [{"name": "x", "hash": "$2y$12$" + "a" * 53}] * 2}, "rest_server_users"),
        ({"rest_server_users": [{"name": "web1--vault", "hash": "$2y$12$" + "a" * 53}]}, "rest_server_users"),
    ],
)
def test_bad_servers(server: dict[str, t.Any], variable: str) -> None:
    text = only(one(server=server))
    assert text.startswith(f"vault1: {variable}")
    if variable != "rest_server_users[0]":
        assert "geheim" not in text


def test_a_hash_that_the_server_would_refuse_says_how_it_is_made() -> None:
    text = only(one(server={"rest_server_users": [{"name": "x", "hash": "$2y$05$" + "a" * 53}]}))
    assert "cost 12" in text
    assert "htpasswd -B -C 12" in text


def test_extra_users() -> None:
    model = one(server={"rest_server_users": [{"name": "laptop@home", "hash": "$2b$12$" + "a" * 53}]})
    assert model["errors"] == []
    assert model["hosts"]["vault1"]["server"]["extra_users"] == ["laptop@home"]


def test_a_servers_name_that_nobody_can_dial() -> None:
    hosts = {"vault 1": {}, "web1": {**BASE, "backup_repositories": {"vault": {"server": "vault 1"}}}}
    text = only(fleet(hosts, clients=["web1"], servers=("vault 1",)))
    assert "vault 1: backup_address (from the inventory name) = 'vault 1'" in text
    assert "set backup_address" in text


def test_a_missing_server() -> None:
    assert only(one(backup_repositories={"vault": {"server": "vault2"}})) == (
        "web1: backup_repositories.vault.server = 'vault2': is not a host of the group backup_servers. The group has: vault1"
    )
    assert "The group has: no host" in only(fleet({"web1": BASE}, servers=()))


# --- jobs and repositories together


def test_an_unknown_repository() -> None:
    text = only(one(backup_jobs={"system": {"paths": ["/etc"], "repositories": ["vault", "offsite"]}}))
    assert text == (
        "web1: backup_jobs.system.repositories = 'offsite': is not a repository of this host. Declared are: vault"
    )


def test_a_bad_repository_is_told_once() -> None:
    assert "backup_repositories.vault.port" in only(
        one(backup_repositories={"vault": {"server": "vault1", "port": "x"}})
    )


def test_unused_repositories_get_no_account() -> None:
    model = one(
        backup_repositories__x={"other": {"server": "vault1"}},
        backup_jobs={"s": {"paths": ["/"], "repositories": ["vault"]}},
    )
    assert [each["name"] for each in client(model)["repositories"]] == ["vault"]
    assert len(model["hosts"]["vault1"]["server"]["users"]) == 1


def test_from_repo_is_followed_to_its_end() -> None:
    repositories = {"a": {"from_repo": "b"}, "b": {"from_repo": "c"}, "c": {}, "d": {}}
    found = client(one(backup_repositories=repositories, backup_jobs={"s": {"paths": ["/"], "repositories": ["a"]}}))
    assert [each["name"] for each in found["repositories"]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "repositories",
    [{"a": {"from_repo": "a"}}, {"a": {"from_repo": "x"}}, {"a": {"from_repo": "b"}, "b": {"from_repo": "a"}}],
)
def test_from_repo_refused(repositories: dict[str, t.Any]) -> None:
    found = messages(one(backup_repositories=repositories))
    assert len(found) == len(repositories)
    assert all(".from_repo = " in each for each in found)


def test_counts_depend_on_the_server() -> None:
    jobs = {"system": {"paths": ["/etc"], "keep": {"last": 3, "within_weekly": "8w"}}}
    assert "backup_jobs.system.keep.last = 3: counts snapshots" in only(one(backup_jobs=jobs))
    model = one(server={"rest_server_append_only": False}, backup_jobs=jobs)
    assert client(model)["units"][0]["keep"] == ["--keep-last=3", "--keep-within-weekly=56d"]
    assert client(fleet({"web1": {"backup_jobs": jobs}}))["units"][0]["keep"][0] == "--keep-last=3"


@pytest.mark.parametrize(("compression", "bad"), [("auto", False), ("off", False), ("max", True)])
def test_compression_of_a_repository_of_version_1(compression: str, bad: bool) -> None:
    model = one(
        backup_repositories={"vault": {"server": "vault1", "repository_version": 1}},
        backup_jobs={"system": {"paths": ["/etc"], "compression": compression}},
    )
    assert ["backup_jobs.system.compression = 'max'" in each for each in messages(model)] == [True] * bad


def test_a_command_that_no_unit_can_hold() -> None:
    fits = [f"/{number:0100}" for number in range(5000)]
    assert client(one(backup_jobs={"s": {"paths": fits}}))["units"]
    assert "bytes in its unit" in only(one(backup_jobs={"s": {"paths": fits * 3}}))


def test_dumps_become_companions() -> None:
    found = client(one(backup_jobs={"db": {"paths": ["/etc"], "dumps": [{"kind": "postgresql"}]}}))
    assert found["units"][0]["dumps"][0]["unit"] == "holdfast-db--vault--postgresql.service"
    assert found["units"][0]["dumps"][0]["user"] == "postgres"


def test_mounts() -> None:
    found = client(one(backup_repositories={"disk": {"mount": "/mnt/a"}}))
    assert found["repositories"][0]["path"] == "/mnt/a/holdfast/disk"
    assert "does not lie below" in only(one(backup_repositories={"disk": {"mount": "/mnt/a", "path": "/mnt/ab"}}))


# --- one location, two repositories


def test_two_clients_with_one_location_in_other_spellings() -> None:
    hosts = {
        host: {**BASE, "backup_repositories": {"s3": {"url": url}}}
        for host, url in {"web1": "s3:https://Host:443/bucket/a/", "db1": "s3:host/bucket/a"}.items()
    }
    text = only(fleet(hosts))
    assert text.startswith(
        "web1, db1: backup_repositories = 's3:https://Host:443/bucket/a/': is the location of two repositories"
    )
    assert "(s3 of web1, s3 of db1)" in text


def in_s3(url: str, **more: t.Any) -> dict[str, t.Any]:
    credentials = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "geheim"}
    return {"direct": {"access": "s3", "url": url, "environment": credentials, **more}}


def test_direct_s3() -> None:
    model = one(backup_repositories=in_s3("s3:https://host/bucket/a", options={"s3.bucket-lookup": "path"}))
    assert (messages(model), model["warnings"]) == ([], [])
    repository = client(model)["repositories"][0]
    assert (repository["location"], repository["append_only"], repository["tls"]) == (
        "s3:https://host/bucket/a",
        False,
        None,
    )
    assert "--option=s3.bucket-lookup=path" in client(model)["units"][0]["arguments"]


def test_what_a_unit_starts_for_a_users_own_location_has_no_capability() -> None:
    """Every restic of a unit, and none of root's: options that name a program count for both ends of from_repo."""
    repositories = {"vault": {"url": "rclone:remote:path", "options": {"rclone.timeout": "1m"}}}
    jobs = {"db": {"paths": ["/etc"], "dumps": [{"kind": "postgresql"}]}}
    found = client(one(backup_repositories=repositories, backup_jobs=jobs, backup_escrow={"mode": "none"}))
    options = ["--option=rclone.program=capsh --noamb --shell=/usr/bin/env -- rclone", "--option=rclone.timeout=1m"]
    for each in (found["units"][0], found["units"][0]["dumps"][0]):
        assert [word for word in each["arguments"] if word.startswith("--option")] == options
    assert found["repositories"][0]["options"] == {"rclone.timeout": "1m"}


def test_an_own_location_over_sftp_that_cannot_be_dialled() -> None:
    model = one(backup_repositories={"vault": {"url": "sftp:host"}}, backup_escrow={"mode": "none"})
    assert "backup_repositories.vault.url" in only(model)
    assert "geheim" not in json.dumps(model)


def test_direct_s3_without_tls_is_told() -> None:
    model = one(backup_repositories=in_s3("s3:http://host/bucket/a"))
    assert messages(model) == []
    (warning,) = model["warnings"]
    assert warning["message"].startswith(
        "web1: backup_repositories.direct.url = 's3:http://host/bucket/a': is dialled without TLS"
    )
    assert client(model)["repositories"][0]["tls"] == "off"


def test_direct_s3_in_the_place_of_another_client() -> None:
    hosts = {
        "web1": {**BASE, "backup_repositories": in_s3("s3:https://host/bucket/a")},
        "db1": {**BASE, "backup_repositories": {"x": {"url": "s3://HOST:443/bucket/a/"}}},
    }
    assert "(direct of web1, x of db1)" in only(fleet(hosts))


def test_an_unmanaged_url_of_a_managed_repository() -> None:
    hosts = {
        "web1": BASE,
        "db1": {**BASE, "backup_repositories": {"x": {"url": "rest:https://VAULT1:8000/web1--vault"}}},
    }
    assert "is the location of two repositories" in only(fleet(hosts))


def test_local_directories_are_each_hosts_own() -> None:
    jobs = {"backup_jobs": BASE["backup_jobs"]}
    assert fleet({"web1": jobs, "db1": jobs})["errors"] == []
    for second in ("/srv/a/", "/srv//a", "/srv/a/b", "/srv"):
        text = only(one(backup_repositories={"a": {"path": "/srv/a"}, "b": {"path": second}}))
        assert "backup_repositories.b.path" in text
    assert one(backup_repositories={"a": {"path": "/srv/a"}, "b": {"path": "/srv/ab"}})["errors"] == []


# --- escrow


@pytest.mark.parametrize(
    "escrow", [{"recipients": [RECIPIENT]}, {"recipients": [SSH, RECIPIENT]}, {"mode": "none"}, {"mode": "controller"}]
)
def test_escrow(escrow: dict[str, t.Any]) -> None:
    found = client(one(backup_escrow=escrow))["escrow"]
    assert found == {"mode": "age", "recipients": [], **escrow}


def test_escrow_may_differ_between_hosts() -> None:
    assert fleet({"web1": BASE, "db1": {**BASE, "backup_escrow": {"mode": "none"}}})["errors"] == []


def test_escrow_is_asked_for() -> None:
    text = only(one(backup_escrow=None))
    assert "web1: backup_escrow: is missing, and without it nobody can restore vault" in text
    assert "age-keygen -o" in text


@pytest.mark.parametrize(
    "escrow",
    [
        "AGE-SECRET-KEY-1GEHEIM",
        5,
        [],
        {},
        {"recipients": []},
        {"recipients": RECIPIENT},
        {"mode": "off"},
        {"mode": "age", "key": "geheim"},
        {"recipients": ["AGE-SECRET-KEY-1GEHEIM"]},
        {"recipients": [RECIPIENT[:-1] + "q"]},
        {"recipients": [RECIPIENT + "\n"]},
        {"recipients": [SSH.replace("AAAAI", "AAAAJ", 1)]},
        {"recipients": ["ssh-rsa AAAA"]},
        {"recipients": [None]},
    ],
)
def test_escrow_refused(escrow: t.Any) -> None:
    text = only(one(backup_escrow=escrow))
    assert text.startswith("web1: backup_escrow")
    assert "GEHEIM" not in text.upper()


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/root/holdfast", "is below /root, which rest-server may not enter"),
        ("/root", "is /root, which"),
        ("/tmp/holdfast", "is below /tmp, of which rest-server has one of its own"),
        ("/var/tmp", "is /var/tmp, of which rest-server has one of its own"),
        ("/run/user/1000/holdfast", "is below /run, which is empty after each boot"),
        ("/home", "is where the homes are"),
    ],
)
def test_a_place_that_rest_server_could_not_serve(path: str, wrong: str) -> None:
    model = fleet({"vault1": {**BASE, "rest_server_path": path}}, clients=["vault1"])
    text = only(model)
    assert text.startswith("vault1: rest_server_path = ")
    assert wrong in text


def test_a_place_below_home_is_good() -> None:
    for path in ("/home/backup", "/root2/holdfast", "/srv/tmp"):
        assert messages(fleet({"vault1": {**BASE, "rest_server_path": path}}, clients=["vault1"])) == []


METRICS = {"rest_server_prometheus": True}
METRICS_USER = {"rest_server_users": [{"name": "metrics", "hash": "$2y$12$" + "a" * 53}]}


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        (
            METRICS,
            "rest_server_prometheus = True: shows the metrics to the user 'metrics' alone, and rest_server_users has none",
        ),
        ({**METRICS, "rest_server_prometheus_no_auth": False}, "rest_server_prometheus = True"),
        (
            {"rest_server_private_repos": False},
            "rest_server_private_repos = False: lets every client read the encrypted files of all others, and add to them",
        ),
        ({**METRICS, **METRICS_USER}, ""),
        ({**METRICS, "rest_server_prometheus_no_auth": True}, ""),
        # Rest-server asks for no particular user then.
        ({**METRICS, "rest_server_private_repos": False}, "rest_server_private_repos"),
        (METRICS_USER, ""),
    ],
)
def test_what_a_rest_server_shows_to_nobody_or_to_everybody(variables: dict[str, t.Any], wrong: str) -> None:
    model = fleet({"vault1": {**BASE, **variables}}, clients=["vault1"])
    assert messages(model) == []
    found = [each["message"] for each in model["warnings"] if "rest_server" in each["variable"]]
    assert len(found) == bool(wrong)
    assert all(each.startswith(f"vault1: {wrong}") for each in found)


# --- settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("restic_account", "root\nAmbientCapabilities=CAP_SYS_ADMIN"),
        ("restic_binary", "/usr/bin/restic\nUser=root"),
        ("restic_release_path", "bin/restic"),
        ("jobs_program", "/usr/local/bin/hold fast"),
        ("rest_server_binary", "/usr/bin/rest-server %h"),
        ("rest_server_mount", "/srv\nUser=root"),
        ("rest_server_tls_key", "/etc/ssl/$key"),
        ("rest_server_extra_args", "--debug"),
        ("rest_server_extra_args", ["--debug", "--append-only=false"]),
        ("rest_server_extra_args", ["--no-auth"]),
        ("rest_server_extra_args", ["--no-verify-upload"]),
        ("rest_server_extra_args", ["--no-verify-upload=true"]),
        ("rest_server_extra_args", ["--debug\n"]),
        ("ssh_access_max_startups", 37850),
        ("ssh_access_max_startups", "60:30"),
        ("ssh_access_max_startups", "60:30:100\nPermitRootLogin yes"),
        ("ssh_access_per_source_max_startups", 0),
        ("ssh_access_per_source_max_startups", "none"),
        ("rest_server_prometheus_no_auth", "false"),
        ("restic_privilege", "sudo"),
        ("jobs_sandbox", "none"),
        ("rest_server_sandbox", "none"),
        ("backup_on_failure", "mail"),
        ("backup_on_failure", [1]),
        ("backup_revoke_max", -1),
    ],
)
def test_settings_refused(variable: str, value: t.Any) -> None:
    text = only(one(**{variable: value}))
    assert text.startswith(f"web1: {variable}")
    assert text.isprintable()


# --- secrets


def test_no_secret_is_in_the_model() -> None:
    repositories = {"s3": {"url": "s3:h/b", "password": "geheim", "environment": {"AWS_SECRET_ACCESS_KEY": "geheim"}}}
    model = one(backup_repositories=repositories)
    assert messages(model) == []
    assert "geheim" not in json.dumps(model)
    repository = client(model)["repositories"][0]
    assert (repository["adopted"], repository["has_environment"]) == (True, True)
    assert _fleet.repository_secrets(
        {"backup_repositories": repositories, "backup_repositories__x": {"plain": {}}}
    ) == {
        "s3": {"password": "geheim", "environment": {"AWS_SECRET_ACCESS_KEY": "geheim"}},
        "plain": {},
    }


def test_no_secret_is_in_a_message() -> None:
    bad: list[dict[str, t.Any]] = [
        {"password": "geheim\n"},
        {"password": ["geheim"]},
        {"password": "geheim", "no_such_key": "x"},
        {"url": "rest:https://u:geheim@h/"},
        {"server": "vault1", "environment": {"A": "geheim"}},
        {"url": "s3:h/b", "environment": {"A": "geheim\n"}},
        {"url": "s3:h/b", "environment": "geheim"},
    ]
    for keys in bad:
        assert "geheim" not in only(one(backup_repositories={"vault": keys}))


def test_a_bad_job_leaves_the_others() -> None:
    model = one(backup_jobs__x={"bad": {"paths": "/x"}})
    assert only(model).startswith("web1: backup_jobs__x.bad.paths = '/x': is not a list")
    assert list(model["hosts"]["web1"]["client"]["jobs"]) == ["system"]


PROXY, OTHER_PROXY = "http://proxy:3128", "http://other:3128"


@pytest.mark.parametrize(
    ("repository", "jobs", "expected"),
    [
        ({"proxy": PROXY}, [None], PROXY),
        ({"proxy": PROXY}, [OTHER_PROXY], PROXY),
        # What all jobs say, and nobody else.
        ({}, [PROXY], PROXY),
        ({}, [PROXY, PROXY], PROXY),
        ({}, [PROXY, None], None),
        ({}, [PROXY, OTHER_PROXY], None),
        ({}, [None], None),
    ],
)
def test_the_proxy_of_a_repository(repository: dict[str, t.Any], jobs: list[str | None], expected: str | None) -> None:
    declared = {f"job{number}": {"paths": ["/etc"], "proxy": proxy} for number, proxy in enumerate(jobs)}
    repositories = {"vault": {"server": "vault1", **repository}, "disk": {}}
    found = client(one(backup_repositories=repositories, backup_jobs=declared))
    assert {each["name"]: each["proxy"] for each in found["repositories"]} == {"vault": expected, "disk": None}
    used = [each["proxy"] for each in found["units"] if each["repository"] == "vault"]
    assert used == [proxy or repository.get("proxy") for proxy in jobs]


def test_two_proxies_in_one_command_are_refused() -> None:
    vault = {"server": "vault1", "proxy": PROXY}
    for other, wrong in (
        ({"server": "vault1", "proxy": OTHER_PROXY}, True),
        ({"url": "s3:https://host/bucket"}, True),
        ({"server": "vault1", "proxy": PROXY}, False),
        ({"access": "local"}, False),
    ):
        model = one(backup_repositories={"vault": {**vault, "from_repo": "other"}, "other": other})
        if wrong:
            assert only(model).startswith(
                "web1: backup_repositories.vault.from_repo = 'other': is reached by another proxy"
            )
        else:
            assert messages(model) == []


def test_behind_a_proxy_that_speaks_tls() -> None:
    repositories = {"vault": {"server": "vault1", "tls": True, "port": 443}}
    found = client(one(server={"rest_server_tls": "off"}, backup_repositories=repositories))
    assert found["repositories"][0]["location"] == "rest:https://vault1:443/web1--vault/"


@pytest.mark.parametrize("listen", ["", "127.0.0.1", "::1", "2001:db8::5"])
def test_a_server_listens_on_one_address(listen: str) -> None:
    client(one(server={"rest_server_listen": listen}))


@pytest.mark.parametrize("listen", ["[::1]", "localhost", ["127.0.0.1", "::1"], 8000, "0.0.0.0:8000"])
def test_a_server_listens_on_no_more(listen: t.Any) -> None:
    assert "rest_server_listen" in only(one(server={"rest_server_listen": listen}))
