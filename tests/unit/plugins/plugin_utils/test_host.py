# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host itself delivers."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _run
from ansible_collections.holdfast.backup.plugins.plugin_utils import _host

INFO: dict[str, t.Any] = {
    "systemd": "257.8-1~deb13u2",
    "selinux": None,
    "sandbox": {"works": True},
    "reads_everything": True,
    "packages": {"restic": {"installed": None, "candidate": "0.18.0-1+b6"}},
    "binaries": {"/usr/bin/restic": "0.18.0"},
    "calendars": {"daily": {"valid": True}},
    "resolve": {"vault1": {"addresses": ["10.0.0.1"]}},
}
FACTS = {"distribution": "Debian", "distribution_version": "13", "distribution_release": "trixie"}
REMOTE = {"address": "vault1", "address_variable": "backup_address of vault1", "server": "vault1"}
CLIENT: dict[str, t.Any] = {
    "jobs": {"system": {"schedule": {"calendar": "daily"}}},
    "repositories": [REMOTE, {"address": None, "address_variable": None, "server": None}],
}
TOOL = {
    "install": "package",
    "package": "restic",
    "pinned": "",
    "version": "0.18.0",
    "sha256": "a" * 64,
    "checksums": ["x86_64"],
    "architecture": "x86_64",
    "binary": "/usr/bin/restic",
}


def judged(  # pylint: disable=dangerous-default-value # only read
    info: dict[str, t.Any] | None = None,
    tool: dict[str, t.Any] | None = None,
    facts: dict[str, t.Any] | None = None,
    client: dict[str, t.Any] | None = CLIENT,
) -> dict[str, list[str]]:
    return _host.host_problems({**INFO, **(info or {})}, facts or FACTS, client, {**TOOL, **(tool or {})}, "web1")


def test_a_good_host() -> None:
    assert judged() == {"errors": [], "warnings": []}


def test_a_host_that_said_nothing_is_no_traceback() -> None:
    found = _host.host_problems({}, {}, CLIENT, TOOL, "web1")
    assert any("systemd is not running" in each for each in found["errors"])
    assert any("restic_package" in each for each in found["errors"])


@pytest.mark.parametrize(
    ("info", "tool", "variable"),
    [
        ({"systemd": None}, {}, "systemd"),
        ({"systemd": "247.3-7+deb11u4"}, {}, "systemd"),
        ({"sandbox": {"works": False, "error": "no namespaces"}}, {}, "jobs_sandbox"),
        ({"reads_everything": False}, {}, "CAP_DAC_READ_SEARCH"),
        ({"packages": {}}, {}, "restic_package"),
        ({"packages": {"restic": {"candidate": "0.14.0-1+b5"}}}, {}, "restic_package"),
        ({"packages": {"restic": {"installed": "0.14.0", "candidate": "0.18.0"}}}, {}, "restic_package"),
        ({}, {"pinned": "0.16.4"}, "restic_package"),
        ({}, {"install": "release", "sha256": "", "checksums": []}, "restic_release_sha256: has no checksum"),
        (
            {},
            {"install": "release", "sha256": "", "architecture": "evil"},
            "restic_release_sha256 = 'x86_64': has no checksum for the architecture evil of this host",
        ),
        ({}, {"install": "release", "version": "0.17.0"}, "restic_release"),
        ({}, {"install": "none", "binary": "/opt/restic"}, "restic_binary"),
        ({"binaries": {"/usr/bin/restic": "0.16.0"}}, {"install": "none"}, "restic_binary"),
        (
            {"calendars": {"daily": {"valid": False, "error": "Failed to parse"}}},
            {},
            "backup_jobs.system.schedule.calendar",
        ),
        ({"resolve": {"vault1": {"error": "Name or service not known"}}}, {}, "backup_address of vault1"),
    ],
)
def test_errors(info: dict[str, t.Any], tool: dict[str, t.Any], variable: str) -> None:
    found = judged(info, tool)
    assert len(found["errors"]) == 1, found
    assert found["errors"][0].startswith(f"web1: {variable}")


def test_an_old_restic_that_apt_could_upgrade() -> None:
    """The cure names what apt offers where that is enough."""
    cure = "set restic_package_version: 0.18.0-1 and let holdfast do it"
    for candidate, named in (("0.18.0-1", True), ("0.16.4-1", False)):
        (error,) = judged({"packages": {"restic": {"installed": "0.14.0-1", "candidate": candidate}}})["errors"]
        assert "is version 0.14.0-1, below the floor" in error
        assert (cure in error) == named


def test_what_a_proxy_resolves_need_not_resolve_here() -> None:
    unknown = {"resolve": {"vault1": {"error": "Name or service not known"}}}
    proxied = {**REMOTE, "proxy": "http://192.0.2.1:3128"}
    assert judged(unknown, client={**CLIENT, "repositories": [proxied]})["errors"] == []


def test_good_ways_to_get_restic() -> None:
    assert judged(tool={"install": "release"})["errors"] == []
    assert judged(tool={"install": "none"})["errors"] == []
    known = {"packages": {"restic": {"versions": ["0.18.0-1", "0.14.0-1"]}}}
    assert judged(known, {"pinned": "0.18.0-1"})["errors"] == judged(known, {"pinned": "0.18*"})["errors"] == []


def test_a_version_that_apt_does_not_offer() -> None:
    known = {"packages": {"restic": {"installed": None, "candidate": "0.18.0-1", "versions": ["0.18.0-1"]}}}
    (message,) = judged(known, {"pinned": "0.18.1-1"})["errors"]
    assert message.startswith(
        "web1: restic_package_version = '0.18.1-1': is not a version that apt offers on this host."
    )
    assert "0.18.0-1" in message.partition(". ")[2]
    assert "Run apt update there" in judged({"packages": {}}, {"pinned": "0.18.1-1"})["errors"][0]


def test_a_host_where_apt_has_no_lists() -> None:
    """Nothing can be said of versions; no other host has to wait for this one."""
    info = {"packages": {"restic": {"installed": None, "candidate": None, "versions": []}}, "apt_lists": False}
    for tool in ({}, {"pinned": "0.18.0-1"}):
        (message,) = judged(info, tool)["errors"]
        assert message.startswith("web1: apt: has no package lists on this host")
        assert message.endswith("Run apt update there, and look at its sources")
        found = _host.host_problems({**INFO, **info}, FACTS, CLIENT, {**TOOL, **tool}, "web1", check_mode=True)
        assert (found["errors"], len(found["warnings"])) == ([], 1)
    bare = {**INFO, **packaged(installed=None, candidate=None), "apt_lists": False}
    assert _host.inventory_problems(bare, None, {}, {**SERVER, "rest": REST}, "vault1") == []
    assert of_rclone({**info, "packages": {"rclone": {"installed": None, "candidate": None}}}, check_mode=True) == []


NOTHING: dict[str, t.Any] = {"installed": None, "candidate": None, "versions": []}
BY_HAND = {**NOTHING, "installed": "by hand"}


def test_packages_that_are_due_where_there_is_no_apt() -> None:
    """They end the run before anything is changed; where all are there it goes on."""
    info = {"apt": False, "packages": {"age": NOTHING, "openssh-client": BY_HAND, "libcap2-bin": NOTHING}}
    (message,) = judged(info, {"install": "none"})["errors"]
    assert message == (
        "web1: packages = 'age, libcap2-bin': are not on this host, and it has no apt to install them. Install what it has in their"
        " place by hand"
    )
    there = {"apt": False, "packages": {"age": BY_HAND, "openssh-client": BY_HAND}}
    assert judged(there, {"install": "none"})["errors"] == judged(there, {"install": "release"})["errors"] == []
    # Where access is only taken away nothing is installed.
    assert judged(info, client=None)["errors"] == []


@pytest.mark.parametrize("pinned", ["", "0.18*"])
def test_a_package_of_the_program_itself_where_there_is_no_apt(pinned: str) -> None:
    """Of one that is there nobody knows the version, unless it is said to be there."""
    for known in (NOTHING, BY_HAND):
        (message,) = judged({"apt": False, "packages": {"restic": known}}, {"pinned": pinned})["errors"]
        assert message.startswith(
            "web1: restic_install = 'package': needs apt, which this host does not have. Set restic_install: release"
        )
        assert message.endswith("or restic_install: none where restic is there")


def test_borg_and_rclone_where_there_is_no_apt() -> None:
    info = {"apt": False, "packages": {"borgbackup": NOTHING, "borgmatic": NOTHING}}
    found = judged(info, {"wanted": False, "borg": BORG})["errors"]
    assert [each.partition(": needs apt")[0] for each in found] == [
        "web1: borg_install = 'package'",
        "web1: borg_borgmatic_install = 'package'",
    ]
    assert (
        judged(
            {"apt": False, "packages": {"borgbackup": BY_HAND, "borgmatic": BY_HAND}}, {"wanted": False, "borg": BORG}
        )["errors"]
        == found
    )
    (message,) = of_rclone({"apt": False, "packages": {"rclone": NOTHING}})
    assert message.startswith("proxy1: rclone_proxy_install = 'package': needs apt, which this host does not have")


def test_a_server_without_apt_stops_every_host() -> None:
    packages = {"restic-rest-server": NOTHING, "openssl": NOTHING}
    second, first = of_rest({"apt": False, "packages": packages})
    assert first.startswith("vault1: rest_server_install = 'package': needs apt")
    assert second.startswith("vault1: packages = 'openssl': are not on this host, and it has no apt")
    binary: dict[str, t.Any] = {"install": "none", "binary": "/opt/rest", "packages": ["openssl"]}
    there = {"apt": False, "packages": {"openssl": BY_HAND}, "binaries": {"/opt/rest": "0.14.0"}}
    assert of_rest(there, **binary) == []
    assert len(of_rest({**there, "packages": {"openssl": NOTHING}}, **binary)) == 1
    # Over SSH only it needs nothing of rest-server.
    assert of_rest({**there, "packages": {"openssl": NOTHING}}, **{**binary, "users": False, "ssh": True}) == []


def test_warnings() -> None:
    found = judged({"selinux": "enforcing"}, facts={"distribution": "Fedora", "distribution_version": "43"})
    assert found["errors"] == []
    assert ["SELinux" in each or "ansible_distribution" in each for each in found["warnings"]] == [True, True]


def test_a_server_needs_no_restic() -> None:
    assert judged({"packages": {}, "calendars": {}}, client=None)["errors"] == []


def test_what_a_host_says_moves_no_cursor() -> None:
    text = judged({"resolve": {"vault1": {"error": "\x1b[2J\nweb2: fine"}}})["errors"][0]
    assert text.isprintable()


SERVER = {
    "fleet_id": "f1",
    "state_dir": "/fleet/state",
    "users": ["web1--vault", "web2--vault"],
    "revoke_max": 1,
    "ssh_accounts": {"bk-web1": ["offsite"]},
    "ssh_revoke_max": 1,
    "path": "/srv/holdfast",
    "account": "holdfast-rest",
    "ssh_path": "/srv/holdfast-ssh",
}
SERVED = {"web1--vault": "web1", "web2--vault": "web2"}


def of_the_inventory(  # pylint: disable=dangerous-default-value # only read
    info: dict[str, t.Any] | None = None,
    tool: dict[str, t.Any] | None = None,
    server: dict[str, t.Any] | None = None,
    client: dict[str, t.Any] | None = CLIENT,
) -> list[str]:
    return _host.inventory_problems({**INFO, **(info or {})}, client, {**TOOL, **(tool or {})}, server, "web1")


def test_what_a_server_serves_over_ssh_counts_by_itself() -> None:
    accounts = {f"bk-{host}": {"backup_id": host, "repositories": ["offsite"]} for host in ("web1", "a", "b")}
    served = {"ssh_accounts": {"fleet_id": "f1", "accounts": accounts}}
    (message,) = of_the_inventory(served, server=SERVER)
    assert message.startswith("web1: backup_revoke_max = 1: 2 hosts would lose access (a, b)")
    assert of_the_inventory(served, server={**SERVER, "ssh_revoke_max": 2}) == []
    (message,) = of_the_inventory({"ssh_accounts": {"fleet_id": "f2", "accounts": {}}}, server=SERVER)
    assert "this server serves the fleet f2" in message
    assert "remove /var/lib/holdfast/ssh_accounts.json on this server" in message


def test_who_loses_one_repository_of_several_over_ssh_loses_access() -> None:
    """The module ssh_accounts counts so, in the middle of the run."""
    accounts = {f"bk-{host}": {"backup_id": host, "repositories": ["archive", "offsite"]} for host in ("a", "b")}
    served = {"ssh_accounts": {"fleet_id": "f1", "accounts": accounts}}

    def refused(a: list[str], b: list[str]) -> list[str]:
        return of_the_inventory(served, server={**SERVER, "ssh_accounts": {"bk-a": a, "bk-b": b}})

    both = ["archive", "offsite"]
    assert refused(both, [*both, "new"]) == refused(both, ["offsite"]) == refused(both, []) == []
    (message,) = refused(["offsite"], ["archive"])
    assert message.startswith("web1: backup_revoke_max = 1: 2 hosts would lose access (a, b)")


def test_whose_account_looks_like_a_client_s_is_not_locked_out() -> None:
    """The first run would write a block of sshd for bk-* that leaves them no login."""
    info = {"foreign_accounts": ["bk-ansible", "bk-olga"]}
    (message,) = of_the_inventory(info, server={**SERVER, "serves_ssh": True})
    assert message == (
        "web1: accounts = 'bk-ansible, bk-olga': begin with bk- on this server, and are not holdfast's, whose accounts of clients do: nobody"
        " could log in as them any more, but for serving repositories. Rename them (usermod -l), or serve over SSH elsewhere; one that"
        " holdfast made has the comment 'holdfast <backup_id>' (usermod -c)"
    )
    # Where nothing is served over SSH, or access is only taken away.
    assert of_the_inventory(info, server={**SERVER, "serves_ssh": False}) == []
    assert of_the_inventory({"foreign_accounts": []}, server={**SERVER, "serves_ssh": True}) == []


def test_nothing_of_the_inventory_is_wrong() -> None:
    assert of_the_inventory() == []
    assert of_the_inventory(server=SERVER) == []
    assert of_the_inventory({"htpasswd": {"fleet_id": "f1", "users": SERVED}}, server=SERVER) == []


@pytest.mark.parametrize(
    ("info", "tool", "variable"),
    [
        ({}, {"pinned": "0.16.4"}, "restic_package_version"),
        ({}, {"install": "release", "checksums": []}, "restic_release_sha256"),
        ({}, {"install": "release", "version": ""}, "restic_release_version"),
        ({}, {"install": "release", "version": "0.17.0"}, "restic_release_version"),
    ],
)
def test_variables_that_name_a_version_stop_every_host(
    info: dict[str, t.Any], tool: dict[str, t.Any], variable: str
) -> None:
    (message,) = of_the_inventory(info, tool)
    assert message.startswith(f"web1: {variable}")
    assert of_the_inventory(info, tool, client=None) == []


def test_what_a_host_delivers_stops_no_other_host() -> None:
    assert of_the_inventory({"systemd": None, "packages": {}, "resolve": {"vault1": {"error": "unknown"}}}) == []


@pytest.mark.parametrize("own", [None, "f2"])
def test_a_state_directory_of_another_fleet(own: str | None) -> None:
    served = {"htpasswd": {"fleet_id": "f1", "users": {}}}
    (message,) = of_the_inventory(served, server={**SERVER, "fleet_id": own})
    assert "backup_state_dir = '/fleet/state'" in message
    assert "-e backup_fleet_id=f1" in message
    assert ("has no fleet id" in message) == (own is None)
    # A run while this server was down has made another id: it would be refused with the first one.
    assert ("If it is lost, remove /fleet/state/fleet.json, then run once with" in message) == (own is not None)


def test_more_hosts_would_be_revoked_than_allowed() -> None:
    served = {"htpasswd": {"fleet_id": "f1", "users": {**SERVED, "a--vault": "a", "b--vault": "b", "b--other": "b"}}}
    (message,) = of_the_inventory(served, server=SERVER)
    assert message.startswith("web1: backup_revoke_max = 1: 2 hosts would lose access (a, b)")
    assert "set backup_revoke_max to 2" in message
    assert of_the_inventory(served, server={**SERVER, "revoke_max": 2}) == []
    assert of_the_inventory(served, server={**SERVER, "revoke_max": None}) == []


def test_a_pinned_version_says_nothing_of_a_binary_of_the_users() -> None:
    assert len(judged({"binaries": {}}, {"install": "none", "pinned": "0.18.0"})["errors"]) == 1


# --- what concerns everybody

REST: dict[str, t.Any] = {
    "install": "package",
    "package": "restic-rest-server",
    "version": "0.14.0",
    "sha256": "a" * 64,
    "checksums": ["x86_64"],
    "architecture": "x86_64",
    "binary": "/usr/bin/restic-rest-server",
    "users": True,
    "ssh": False,
    "packages": ["restic-rest-server", "openssl"],
}
RELEASE_CURE = (
    "et rest_server_install: release with rest_server_release_version (0.13 or later) and rest_server_release_sha256"
)


def of_rest(info: dict[str, t.Any] | None = None, path: str = "/srv/holdfast", **rest: t.Any) -> list[str]:
    known = {"packages": {"restic-rest-server": {"installed": None, "candidate": "0.13.0-2+b5"}}}
    server = {**SERVER, "path": path, "rest": {**REST, **rest}}
    seen = {**INFO, **known, **(info or {})}
    # What the host delivers besides is not its business.
    assert _host.host_problems(seen, FACTS, None, {}, "vault1", {**server, "quotas": []})["errors"] == []
    return _host.inventory_problems(seen, None, {}, server, "vault1")


def packaged(**versions: str | None) -> dict[str, t.Any]:
    return {"packages": {"restic-rest-server": versions}}


def test_good_ways_to_get_rest_server() -> None:
    assert of_rest() == []
    assert of_rest(packaged(installed="0.13.0-2+b5", candidate=None)) == []
    assert of_rest({"packages": {}}, install="release") == []
    assert of_rest({"packages": {}}, install="release", version=0.14) == []
    assert of_rest({"packages": {}, "binaries": {"/opt/rest": "0.14.0"}}, install="none", binary="/opt/rest") == []


@pytest.mark.parametrize(
    ("info", "rest", "wrong", "cure"),
    [
        (
            packaged(installed=None, candidate=None),
            {},
            "rest_server_package = 'restic-rest-server': is not known to apt on this host",
            f"Run apt update there, or s{RELEASE_CURE}",
        ),
        (
            packaged(installed=None, candidate="0.11.0-1"),
            {},
            "rest_server_package = 'restic-rest-server': is version 0.11.0-1, below the floor 0.13: the first version",
            f"S{RELEASE_CURE}",
        ),
        (
            packaged(installed="0.11.0-1", candidate="0.12.1-1"),
            {},
            "rest_server_package = 'restic-rest-server': is version 0.11.0-1, below the floor 0.13: the first version",
            f"S{RELEASE_CURE}",
        ),
        (
            packaged(installed="0.11.0-1", candidate="0.13.0-2"),
            {},
            "rest_server_package = 'restic-rest-server': is version 0.11.0-1, below the floor 0.13: the first version",
            "Upgrade it there: apt offers 0.13.0-2",
        ),
        (
            {},
            {"install": "release", "version": "0.12.1"},
            "rest_server_release_version = '0.12.1': is below the floor 0.13: the first version",
            "Name 0.13 or later",
        ),
        (
            {},
            {"install": "release", "version": ""},
            "rest_server_release_version: is missing",
            "Name the version of the release, 0.13 or later",
        ),
        (
            {},
            {"install": "release", "checksums": [], "sha256": ""},
            "rest_server_release_sha256: has no checksum",
            "Give the SHA-256 of the archive of each architecture, from upstream's SHA256SUMS",
        ),
        (
            {},
            {"install": "release", "sha256": "", "architecture": "aarch64"},
            "rest_server_release_sha256 = 'x86_64': has no checksum for the architecture aarch64 of this host",
            "Give the SHA-256 of its archive, from upstream's SHA256SUMS",
        ),
        (
            {"binaries": {"/opt/rest": None}},
            {"install": "none", "binary": "/opt/rest"},
            "rest_server_binary = '/opt/rest': is not on this host, or tells no version",
            "Install rest-server there, or leave rest_server_binary out and let rest_server_install do it",
        ),
        (
            {"binaries": {"/opt/rest": "0.12.1"}},
            {"install": "none", "binary": "/opt/rest"},
            "rest_server_binary = '/opt/rest': is version 0.12.1, below the floor 0.13: the first version",
            "Install a later version, or leave rest_server_binary out and let rest_server_install do it",
        ),
    ],
)
def test_a_server_without_a_rest_server_stops_every_host(
    info: dict[str, t.Any], rest: dict[str, t.Any], wrong: str, cure: str
) -> None:
    """Its clients would be changed for nothing."""
    (message,) = of_rest(info, **rest)
    assert message.startswith(f"vault1: {wrong}")
    assert message.endswith(f". {cure}")


def test_a_server_whose_sandbox_cannot_start_stops_itself_alone() -> None:
    """The socket would be there, and the service fail at each connection; other servers have nothing to do with it."""
    walled: dict[str, t.Any] = {"works": False, "error": "Failed at step NAMESPACE"}

    def of_sandbox(probe: dict[str, t.Any] | None, **rest: t.Any) -> list[str]:
        seen = {**INFO, "packages": {"restic-rest-server": {"installed": "0.13.0-2+b5"}}, "server_sandbox": probe}
        server = {**SERVER, "path": "/srv/holdfast", "quotas": [], "rest": {**REST, **rest}}
        assert _host.inventory_problems(seen, None, {}, server, "vault1") == []
        return _host.host_problems(seen, FACTS, None, {}, "vault1", server)["errors"]

    (message,) = of_sandbox(walled)
    assert message.startswith(
        "vault1: rest_server_sandbox = 'full': rest-server's sandbox cannot start on this host (Failed at"
    )
    assert "LXC: nesting" in message
    assert "rest_server_sandbox: reduced" in message
    assert of_sandbox({"works": True, "error": None}) == of_sandbox(None) == []
    # Over SSH there is no such unit.
    assert of_sandbox(walled, users=False, ssh=True) == []


def test_a_server_that_serves_over_ssh_only_needs_no_rest_server() -> None:
    accounts = {"ssh_accounts": {"fleet_id": "f1", "accounts": {}}}
    users = {"htpasswd": {"fleet_id": "f1", "users": {}}}
    nothing = packaged(installed=None, candidate=None)
    assert of_rest(nothing, users=False, ssh=True) == []
    # Its last client is gone.
    assert of_rest({**nothing, **accounts}, users=False) == []
    assert len(of_rest({**nothing, **users}, users=False, ssh=True)) == 1
    assert len(of_rest(nothing, users=True, ssh=True)) == 1
    assert len(of_rest(nothing, users=False)) == 1


RCLONE: dict[str, t.Any] = {
    "install": "package",
    "package": "rclone",
    "version": "",
    "sha256": "",
    "architecture": "x86_64",
    "binary": "/usr/bin/rclone",
    "packages": {},
    "binaries": {},
    "remotes": True,
    "served": True,
}
LISTED = {"files": {"/var/lib/holdfast/rclone_remotes.json": "a" * 64}}


def of_rclone(info: dict[str, t.Any] | None = None, check_mode: bool = False, **rclone: t.Any) -> list[str]:
    known = {
        "packages": {"rclone": {"installed": None, "candidate": "1.60.1+dfsg-2+b5"}},
        "binaries": {"/opt/rclone": "1.74.0"},
    }
    server = {**SERVER, "quotas": [], "rclone": {**RCLONE, **rclone}}
    seen = {**INFO, **known, **(info or {})}
    assert _host.host_problems(seen, FACTS, None, {}, "proxy1", server, check_mode=check_mode)["errors"] == []
    return _host.inventory_problems(seen, None, {}, server, "proxy1")


def test_a_proxy_with_an_old_rclone_stops_every_host() -> None:
    """Its clients would get packages and secrets for nothing."""
    (message,) = of_rclone()
    assert message.startswith(
        "proxy1: rclone_proxy_package = 'rclone': is version 1.60.1+dfsg-2+b5, below the floor 1.75.2"
    )
    (message,) = of_rclone(install="release", sha256="a" * 64)
    assert message.startswith("proxy1: rclone_proxy_release_version: is missing")
    (message,) = of_rclone(install="release", version="1.75.2")
    assert message.startswith("proxy1: rclone_proxy_release_sha256: has no checksum for the architecture x86_64")
    (message,) = of_rclone(install="none", binary="/opt/rclone")
    assert message.startswith("proxy1: rclone_proxy_binary = '/opt/rclone': is version 1.74.0, below the floor 1.75.2")
    (message,) = of_rclone({"binaries": {"/opt/rclone": None}}, install="none", binary="/opt/rclone")
    assert message.startswith("proxy1: rclone_proxy_binary = '/opt/rclone': is not on this host, or tells no version")
    (message,) = of_rclone({"packages": {"rclone": {"installed": None, "candidate": None}}})
    assert message.startswith("proxy1: rclone_proxy_package = 'rclone': is not known to apt on this host")
    assert of_rclone(install="release", version="1.75.2", sha256="a" * 64) == of_rclone(remotes=False) == []


def test_a_server_that_serves_nothing_by_rclone_needs_none() -> None:
    assert of_rclone(served=False) == []
    # Its last client is gone, and with it goes the secret of the remote: the role runs once more.
    assert len(of_rclone(LISTED, served=False)) == 1


SIDE: dict[str, t.Any] = {"fleet_id": "fleet-1", "state_dir": "/state", "users": ["web1--vault"], "revoke_max": 1}
THERE: dict[str, t.Any] = {"fleet_id": "fleet-1", "users": {"web1--vault": "web1", "old--a": "old", "old--b": "old"}}


def stopping(
    served: dict[str, t.Any] | None = None,
    tool: dict[str, t.Any] | None = None,
    info: dict[str, t.Any] | None = None,
    **server: t.Any,
) -> list[str]:
    found = {**INFO, **(info or {}), "htpasswd": served}
    return _host.inventory_problems(found, CLIENT, {**TOOL, **(tool or {})}, {**SIDE, **server}, "vault1")


def test_nothing_stops_everybody() -> None:
    assert stopping() == []
    assert stopping(THERE) == []
    assert _host.inventory_problems({**INFO, "htpasswd": THERE}, None, {}, None, "vault1") == []


@pytest.mark.parametrize(("ours", "says"), [(None, "has no fleet id"), ("fleet-2", "is of the fleet fleet-2")])
def test_a_server_of_another_fleet(ours: str | None, says: str) -> None:
    text = stopping(THERE, fleet_id=ours)
    assert len(text) == 1
    assert f"vault1: backup_state_dir = '/state': {says}, and this server serves the fleet fleet-1" in text[0]
    assert "-e backup_fleet_id=fleet-1" in text[0]


@pytest.mark.parametrize(
    ("most", "stops"), [(None, False), ("", False), (1, False), ("1", False), (0, True), ("0", True)]
)
def test_revoking_too_many(most: t.Any, stops: bool) -> None:
    assert bool(stopping(THERE, revoke_max=most)) is stops
    if stops:
        assert "1 hosts would lose access (old)" in stopping(THERE, revoke_max=most)[0]


@pytest.mark.parametrize(
    ("tool", "variable"),
    [
        ({"pinned": "0.16.4"}, "restic_package_version = '0.16.4'"),
        ({"install": "release", "version": 0.16}, "restic_release_version = 0.16"),
        ({"install": "release", "version": ""}, "restic_release_version: is missing"),
        ({"install": "release", "checksums": []}, "restic_release_sha256"),
    ],
)
def test_versions_that_a_variable_names(tool: dict[str, t.Any], variable: str) -> None:
    text = stopping(tool=tool)
    assert len(text) == 1
    assert variable in text[0]


REFUSED = {"calendars": {"daily": {"valid": False, "error": "Failed to parse"}}}


def test_a_calendar_that_this_controller_refuses_too_stops_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(argv: list[str], *, timeout: float) -> _run.Result:
        calls.append(argv)
        return _run.Result(1)

    monkeypatch.setattr(_run, "run", run)
    (message,) = stopping(info=REFUSED)
    assert message == (
        "vault1: backup_jobs.system.schedule.calendar = 'daily': is refused by systemd-analyze of this host and of this"
        " controller: Failed to parse. See systemd.time(7), for instance daily or Mon..Fri 02:30 Europe/Berlin"
    )
    assert calls == [["systemd-analyze", "calendar", "--", "daily"]]


@pytest.mark.parametrize("here", [_run.Result(0), _run.Result(1, timed_out=True), None])
def test_the_word_of_one_client_stops_only_that_client(
    here: _run.Result | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(argv: list[str], *, timeout: float) -> _run.Result:
        if here is None:
            raise FileNotFoundError(argv[0])
        return here

    monkeypatch.setattr(_run, "run", run)
    lies = {**REFUSED, "packages": {}, "systemd": 1, "running": [], "records": {}}
    assert stopping(info=lies, tool={"install": "release", "sha256": "", "architecture": "evil"}) == []
    (message,) = judged(REFUSED)["errors"]
    assert "systemd-analyze of this host: Failed to parse" in message


def test_a_quota_needs_btrfs() -> None:
    server = {"path": "/srv/holdfast", "quotas": [{"name": "web1--vault"}]}

    def found(kind: str | None, **changes: t.Any) -> list[str]:
        info = {**INFO, "file_systems": {"/srv/holdfast": kind}}
        return _host.host_problems(info, FACTS, None, TOOL, "vault1", {**server, **changes})["errors"]

    assert found("btrfs") == []
    assert found("ext2/ext3", quotas=[]) == []
    assert found("ext2/ext3") == [
        "vault1: rest_server_path = '/srv/holdfast': lies on ext2/ext3, and needs btrfs for the quota of web1--vault."
        " Put rest_server_path on a btrfs file system (is it mounted?), or remove `quota` of these repositories"
    ]
    assert "lies on an unknown file system" in found(None)[0]


def test_a_quota_of_what_lies_in_a_plain_directory_already() -> None:
    """Before anything is changed: btrfs_quota would fail in the middle, and nobody get anything new there."""
    quotas = [{"name": f"web{number}--vault"} for number in (1, 2, 3)]
    server = {**SERVER, "quotas": quotas, "rest": REST}
    kinds = dict(zip(_host.subvolumes_to_see(server), ("other", "subvolume", None), strict=True))
    assert list(kinds) == [f"/srv/holdfast/web{number}--vault" for number in (1, 2, 3)]
    known = {"packages": {"restic-rest-server": {"installed": None, "candidate": "0.13.0-2+b5"}}}
    (message,) = _host.inventory_problems({**INFO, **known, "subvolumes": kinds}, None, {}, server, "vault1")
    assert message.startswith(
        "vault1: backup_repositories.vault.quota: cannot be set for web1--vault: its files lie in a directory that is no subvolume."
        " Stop holdfast-rest-server.socket and .service, rename the directory /srv/holdfast/web1--vault, run"
    )
    assert message.endswith("or remove `quota` of the repository")
    # Where access is only taken away nothing is limited.
    assert _host.subvolumes_to_see({**server, "rest": {}}) == _host.subvolumes_to_see(None) == []


@pytest.mark.parametrize(
    ("program", "interpreter", "wrong"),
    [
        ("/usr/bin/borg", "/usr/bin/python3", ""),
        # The package that has it is installed by this run.
        ("/usr/bin/borg", None, ""),
        ("/usr/bin/borg", "", "is no Python program, which could not be kept from destroying a repository of a client"),
        ("/opt/borg", "", "is no Python program, which could not be kept from destroying a repository of a client"),
        ("/opt/borg", None, "is not on this host"),
        ("", "", ""),
    ],
)
def test_a_server_of_borg_needs_a_program_that_can_be_restrained(
    program: str, interpreter: str | None, wrong: str
) -> None:
    server = {"path": "/srv/holdfast", "quotas": [], "borg": program}
    info = {**INFO, "interpreters": {program: interpreter}}
    # Its clients would be changed for nothing, so it stops everybody.
    assert _host.host_problems(info, FACTS, None, TOOL, "vault1", server)["errors"] == []
    assert _host.inventory_problems(info, None, TOOL, server, "vault1") == (
        [
            f"vault1: ssh_access_borg = '{program}': {wrong}. Install borg as a package on this server, and leave"
            " ssh_access_borg out, or set it to /usr/bin/borg"
        ]
        if wrong
        else []
    )


@pytest.mark.parametrize("release", ["sid", "forky", "noble"])
def test_a_release_that_no_test_boots_is_told(release: str) -> None:
    assert any(
        "is not a tested platform" in each for each in judged(facts={"distribution_release": release})["warnings"]
    )


def test_a_calendar_that_never_comes_is_a_warning() -> None:
    """It is valid, and no timer would ever elapse."""
    for never in (True, False, None):
        found = judged({"calendars": {"daily": {"valid": True, "error": None, "never": never}}})
        assert found["errors"] == []
        assert bool(found["warnings"]) is (never is True)
    (message,) = judged({"calendars": {"daily": {"valid": True, "never": True}}})["warnings"]
    assert message.startswith(
        "web1: backup_jobs.system.schedule.calendar = 'daily': never comes again, so this job would never run"
    )


@pytest.mark.parametrize("release", [["trixie"], {"a": 1}, 5])
def test_a_fact_of_another_type_is_no_traceback(release: t.Any) -> None:
    assert judged(facts={"distribution_release": release})["errors"] == []


BORG = {
    "wanted": True,
    "install": "package",
    "package": "borgbackup",
    "release": "",
    "version": "",
    "url": "",
    "sha256": "",
    "architecture": "x86_64",
    "binary": "/usr/bin/borg",
    "borgmatic_install": "package",
    "borgmatic_package": "borgmatic",
    "borgmatic_binary": "/usr/bin/borgmatic",
    "borgmatic_requirements": "",
    "privilege": "systemd",
}


def of_borg(packages: dict[str, t.Any] | None = None, **borg: t.Any) -> list[str]:
    known = {"borgbackup": {"candidate": "1.4.0-5"}, "borgmatic": {"installed": "1.9.14-1"}, **(packages or {})}
    info = {"packages": {**INFO["packages"], **known}, "binaries": {"/opt/borg": "1.2.4"}}
    return list(judged(info, {"borg": {**BORG, **borg}})["errors"])


def test_borg_as_it_is_in_trixie() -> None:
    assert of_borg() == []
    # Who has no job of borg needs none.
    assert of_borg({"borgbackup": {}}, wanted=False) == []


@pytest.mark.parametrize(
    ("packages", "borg", "variable"),
    [
        (
            {"borgbackup": {"candidate": "1.2.4-1"}},
            {},
            "borg_package = 'borgbackup': is version 1.2.4-1, below the floor 1.4.0",
        ),
        (
            {"borgmatic": {"candidate": "1.7.7-1"}},
            {},
            "borg_borgmatic_package = 'borgmatic': is version 1.7.7-1, below",
        ),
        ({"borgbackup": {"candidate": "1.2.9-1"}}, {}, "borg_package = 'borgbackup': is version 1.2.9-1, below"),
        ({"borgmatic": {}}, {}, "borg_borgmatic_package = 'borgmatic': is not known on this host"),
        ({}, {"install": "none", "binary": "/opt/borg"}, "borg_binary = '/opt/borg': is version 1.2.4, below"),
        ({}, {"install": "release", "version": "1.4.1", "sha256": "a"}, "borg_release_url: is missing"),
        ({}, {"install": "release", "version": "1.4.1", "url": "u"}, "borg_release_sha256: has no checksum for x86_64"),
        (
            {},
            {"install": "release", "version": "1.2.7", "sha256": "a", "url": "u"},
            "borg_release_version = '1.2.7': is no version at",
        ),
        ({}, {"borgmatic_install": "venv"}, "borg_borgmatic_requirements: is empty"),
        ({}, {"privilege": "setcap"}, "borg_privilege = 'setcap': is not to be had for borg"),
    ],
)
def test_what_borg_needs(packages: dict[str, t.Any], borg: dict[str, t.Any], variable: str) -> None:
    (message,) = of_borg(packages, **borg)
    assert variable in message


def test_a_host_with_borg_alone_needs_no_restic() -> None:
    info: dict[str, t.Any] = {"packages": {}}
    assert judged(info)["errors"] != []
    assert judged(info, {"wanted": False})["errors"] == []


DISK = {"name": "disk", "address": None, "path": "/mnt/usb", "mount": None}
PHOTOS = {"/mnt/usb": {"owner": "olga", "foreign": "photos"}}


def of_a_disk(
    places: dict[str, t.Any], account: str = "holdfast", mounted: bool | None = None, **info: t.Any
) -> list[str]:
    client = {"jobs": {}, "repositories": [{**DISK, "mount": "/mnt" if mounted is not None else None}]}
    seen = {"places": places, "mounts": {"/mnt": mounted}, **info}
    assert of_the_inventory(seen, client=client) == []
    return judged(seen, {"account": account}, client=client)["errors"]


def test_a_directory_of_others_is_no_place_for_a_repository() -> None:
    (message,) = of_a_disk(PHOTOS)
    assert message == (
        "web1: backup_repositories.disk.path = '/mnt/usb': is there already, belongs to olga and holds 'photos',"
        " which is no repository: it would be holdfast's, and shut to everybody else. Name a directory of its own below"
        " it, /mnt/usb/holdfast say; or move out of it what is no repository; or, if it is for this alone, give it to"
        " holdfast first: chown holdfast /mnt/usb"
    )
    # An account that is yet to be made can be given nothing.
    (message,) = of_a_disk(PHOTOS, accounts={"holdfast": False})
    assert message.endswith("/mnt/usb/holdfast say; or move out of it what is no repository")
    (message,) = of_a_disk({"/mnt/usb": {"owner": "root", "foreign": "photos"}}, "root")
    assert message.endswith("or, if it is for this alone, shut it first: chmod 0700 /mnt/usb")


def test_what_nobody_would_lose_is_a_place_for_a_repository() -> None:
    assert of_a_disk({"/mnt/usb": None}) == of_a_disk({}) == []
    # What is below a mount that is not there is not touched.
    assert of_a_disk(PHOTOS, mounted=False) == []
    assert len(of_a_disk(PHOTOS, mounted=True)) == 1
    # Where access is only taken away there is no account.
    assert of_a_disk(PHOTOS, "") == []


def test_a_name_of_somebody_else_s_moves_no_cursor() -> None:
    (message,) = of_a_disk({"/mnt/usb": {"owner": "\x1b[2J", "foreign": "\x1b[2J\n" + "x" * 300}})
    assert message.isprintable()
    assert len(message) < 500


def test_a_directory_of_others_is_no_place_for_a_server() -> None:
    """It stops everybody: its clients would be changed for nothing."""
    places = {"places": {"/srv": {"owner": "root", "foreign": "www"}}}
    (message,) = of_rest(places, path="/srv")
    assert message.startswith("vault1: rest_server_path = '/srv': is there already, belongs to root and holds 'www'")
    assert (
        "/srv/holdfast say; or move out of it what is no repository; or, if it is for this alone, give it to holdfast-rest first"
        in message
    )
    assert of_rest(places, path="/srv", users=False, ssh=True) == []
    server = {**SERVER, "serves_ssh": True, "ssh_path": "/srv"}
    (message,) = of_the_inventory(places, server=server)
    assert message.startswith("web1: ssh_access_path = '/srv': is there already")
    assert "it would be root's, and others could not list it any more." in message
    assert of_the_inventory(places, server={**server, "serves_ssh": False}) == []


def test_what_is_asked_of_places() -> None:
    client = {"repositories": [DISK, {**DISK, "name": "vault", "path": None}]}
    disk = {"path": "/mnt/usb", "account": "holdfast", "private": True}
    rest = {"path": "/srv/holdfast", "account": "holdfast-rest", "private": True}
    ssh = {"path": "/srv/holdfast-ssh", "account": "root", "private": False}
    server = {**SERVER, "rest": REST, "serves_ssh": True}
    assert _host.places_to_see(client, {"account": "holdfast"}, server) == [disk, rest, ssh]
    assert _host.places_to_see(client, {"account": ""}, SERVER) == _host.places_to_see(None, {}, None) == []
