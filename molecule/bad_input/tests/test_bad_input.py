"""Each bad variable ends the playbook site with one message that has the variable, its value and the cure.

Nothing is changed on any host, nor on the controller. The runs go on at the same time, each from a folder of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet, Run

HOSTS = ("vault1", "web1", "old1", "contained1", "plain1")
PARALLEL = 4
# What a host's directories hold: names, modes, owners, sizes, times, contents of what is small.
LOOK = (
    "cd / && find etc var/lib usr/local root home srv -xdev -path var/lib/systemd/random-seed -prune -o"
    " -printf '%p %y %m %U:%G %s %T@ %l\\n' | sort;"
    " find etc usr/local -xdev -type f -size -64k -exec sha256sum {} + | sort -k2;"
    " getent passwd; test ! -d /run/systemd/system || systemctl list-unit-files --no-legend --no-pager"
)
RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
HASH = "$2b$12$" + "a" * 53
GOOD_JOB: dict[str, Any] = {"paths": ["/etc"]}
GOOD: dict[str, Any] = {
    "backup_escrow": {"recipients": [RECIPIENT]},
    "backup_repositories": {"vault": {"server": "vault1"}},
    "backup_jobs": {"system": GOOD_JOB},
}
LOCAL: dict[str, Any] = {"backup_jobs": {"system": GOOD_JOB}}


@dataclass(frozen=True)
class Case:
    """Variables of the inventory, and what the one message has to hold."""

    name: str
    expected: tuple[str, ...]
    variables: dict[str, Any]
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    clients: tuple[str, ...] = ("web1",)
    servers: tuple[str, ...] = ("vault1",)
    lines: int = 1


def case(name: str, *expected: str, **variables: Any) -> Case:
    """The good inventory with other variables."""
    return Case(name, expected, {**GOOD, **variables})


def job(name: str, key: str, value: Any, *expected: str) -> Case:
    """The good inventory with one bad key of its job."""
    jobs = {"system": {**GOOD_JOB, **({"paths": ["/etc"]} if key != "paths" else {}), key: value}}
    return case(name, f"backup_jobs.system.{key}", *expected, backup_jobs=jobs)


def repository(name: str, value: dict[str, Any], *expected: str) -> Case:
    """The good inventory with a bad repository."""
    return case(name, *expected, backup_repositories={"vault": value})


def s3(name: str, url: str, *expected: str) -> Case:
    """The good inventory with a bad location in S3."""
    credentials = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "hunter22"}
    return repository(name, {"access": "s3", "url": url, "environment": credentials}, *expected)


def over_ssh(name: str, value: dict[str, Any], *expected: str, **server: Any) -> Case:
    """The good inventory with one repository over SSH, bad itself or for a variable of its server."""
    offsite = {"access": "rclone", "server": "vault1", **value}
    remotes = {"s3-offsite": {"type": "s3", "provider": "Minio", "secret_access_key": "hunter22"}}
    side = {"rclone_proxy_remotes": remotes, **server}
    return Case(name, expected, {**GOOD, "backup_repositories": {"offsite": offsite}}, {"vault1": side})


def sftp(name: str, path: str, shown: str) -> Case:
    """The good inventory with a path of sftp that would be another one on the server, or no word of its own."""
    return over_ssh(
        name,
        {"access": "sftp", "path": path},
        f"web1: backup_repositories.offsite.path = {shown}: contains characters",
        "Use letters, digits and . _ @ + - /",
    )


def rest_server(name: str, *expected: str, **variables: Any) -> Case:
    """The good inventory with a server that would get no rest-server."""
    return Case(name, expected, GOOD, {"vault1": variables})


NEWLINE = "x\nEnvironment=LD_PRELOAD=/tmp/evil.so"
SHOWN = "= 'x\\nEnvironment=LD_PRELOAD=/tmp/evil.so'"
ADDRESS_CURE = "Give a name or an address without port, brackets, zone or scheme"
PORT_CURE = "Use a whole number from 1 to 65535"
REST_RELEASE = (
    "et rest_server_install: release with rest_server_release_version (0.13 or later) and rest_server_release_sha256"
)
CASES = [
    # Names.
    case("job-name", "backup_jobs.'My Job' = 'My Job'", "lower-case letters", backup_jobs={"My Job": GOOD_JOB}),
    case("job-name-double-hyphen", "'a--b'", "single hyphens", backup_jobs={"a--b": GOOD_JOB}),
    case("job-name-reserved", "'locks'", "reserved name", "Choose another", backup_jobs={"locks": GOOD_JOB}),
    case("job-name-newline", "backup_jobs.'a\\nb' = 'a\\nb': is not a name", "lower-case letters", backup_jobs={"a\nb": GOOD_JOB}),
    case("job-name-long", f"= '{'a' * 29}': is not a name", "28 characters at most", backup_jobs={"a" * 29: GOOD_JOB}),
    case("repository-name", "'Vault_1'", "lower-case letters", backup_repositories={"Vault_1": {"server": "vault1"}}),
    case("backup-id", "backup_id = 'Web 1'", "set backup_id for this host", backup_id="Web 1"),
    Case(
        "backup-id-twice",
        ("backup_id = 'same'", "used by two hosts", "a backup_id of its own"),
        {**GOOD, "backup_id": "same"},
        clients=("web1", "old1"),
        lines=2,  # the same user is the same location too
    ),
    case("set-by-playbooks", "jobs_on_failure = ['/bin/tell']: is set by the playbooks", "Set backup_on_failure", jobs_on_failure=["/bin/tell"]),
    # Types and character sets of a job.
    job("path-relative", "paths", ["etc"], "paths[0] = 'etc'", "not an absolute path", "from the root"),
    job("path-dots", "paths", ["/srv/../etc"], "'/srv/../etc'", "'..'", "Write the path that is meant"),
    job("path-empty-list", "paths", [], "= []: is empty", "Give at least one"),
    job("unknown-key", "pathes", ["/etc"], "is not a known key", "Known keys: "),
    job("calendar-characters", "schedule", {"calendar": "daily\nOnBootSec=1"}, "schedule.calendar = 'daily\\n", "systemd.time(7)"),
    job("spread", "schedule", {"calendar": "daily", "spread": "soon"}, "spread = 'soon'", "like 90s or 2h"),
    job("dump-secret", "dumps", [{"kind": "mariadb", "extra_args": ["--password=geheim"]}], "extra_args[0] = '<hidden>'", ".my.cnf"),
    job("size", "exclude_larger_than", "lots", "'lots'", "like 500M"),
    job("memory", "memory_max", "1X", "'1X'", "like 500M"),
    job("pack-size", "pack_size", 1000, "= 1000", "from 4 to 128"),
    job("keep-weeks", "keep", {"within_weekly": "8 weeks"}, "keep.within_weekly = '8 weeks'", "like 14d"),
    job("keep-count-on-append-only", "keep", {"daily": 7}, "keep.daily = 7", "append-only", "Use a span of time"),
    job("extra-args-own", "extra_args", ["--repo=/tmp/x"], "'--repo=/tmp/x'", "holdfast sets itself", "own key"),
    job("extra-args-short", "extra_args", ["-r"], "'-r'", "long form"),
    job("extra-args-newline", "extra_args", [f"--{NEWLINE}"], "[0] = '--x\\nEnv", "is not one line of text", "control characters"),
    job("exclude-newline", "exclude", [NEWLINE], f"exclude[0] {SHOWN}", "is not one line of text", "control characters"),
    job("tag-newline", "tags", [NEWLINE], f"tags[0] {SHOWN}", "is not a tag", "Use letters, digits and _ . : = @ / + -, no comma"),
    job("host-newline", "host", NEWLINE, f"host {SHOWN}", "is not a host name", "Use letters, digits and . _ : -"),
    job("proxy-secret", "proxy", "http://me:hunter22@proxy:3128", "without credentials", "Use http://host:port"),
    # Of what may be a secret no value is shown.
    job("environment-own", "environment", {"RESTIC_PASSWORD": "hunter22"}, ".RESTIC_PASSWORD", "holdfast sets itself", "Use the job's own"),
    job(
        "environment-secret",
        "environment",
        {"AWS_SECRET_ACCESS_KEY": "hunter22"},
        "environment.AWS_SECRET_ACCESS_KEY",
        "looks like a secret",
        "Put credentials into the environment of a repository",
    ),
    job("environment-newline", "environment", {"LANG": NEWLINE}, f".LANG {SHOWN}", "is not one line of text", "control characters"),
    job("hook-account", "pre", [{"command": "true", "user": NEWLINE}], f"pre[0].user {SHOWN}", "the name of an account", "Use the login name"),
    job("repository-unknown", "repositories", ["offsite"], "'offsite'", "Declared are: vault"),
    # Repositories.
    repository("engine-borg", {"engine": "borg", "access": "rest", "server": "vault1"}, "does not go with engine: borg"),
    repository("engine-rsync", {"engine": "rsync", "server": "vault1"}, "= 'rsync'", "not available"),
    repository("access-ssh", {"access": "ssh", "server": "vault1"}, "= 'ssh'", "does not go with engine: restic"),
    repository("server-missing", {"access": "rest"}, "vault.server", "is missing", "access: rest needs it"),
    repository("server-unknown", {"server": "web1"}, "= 'web1'", "backup_servers", "The group has: vault1"),
    repository("url-secret", {"url": "rest:https://me:hunter22@elsewhere/x/"}, "vault.url = '<hidden>'", "environment"),
    repository("url-newline", {"url": "sftp:host:/x\ny"}, "url = 'sftp:host:/x\\ny'", "is not one line of text", "control characters"),
    repository("port", {"server": "vault1", "port": 70000}, "vault.port = 70000", "from 1 to 65535"),
    repository("quota", {"server": "vault1", "quota": "much"}, "vault.quota = 'much'", "like 500M"),
    repository("password-newline", {"server": "vault1", "password": "hunter22\n"}, "vault.password = '<hidden>'", "no line break"),
    repository(
        "environment-restic-password",
        {"url": "s3:https://s3.example.net/bucket", "environment": {"RESTIC_PASSWORD": "hunter22"}},
        "vault.environment.RESTIC_PASSWORD",
        "holdfast sets itself",
        "a key of its own",
    ),
    s3("s3-elsewhere", "rest:https://s3.example.net/bucket/", "vault.url = 'rest:https", "not the location of a repository in S3"),
    s3("s3-no-bucket", "s3:https://s3.example.net", "vault.url = 's3:https", "Use s3:https://host/bucket/path"),
    s3("s3-secret", "s3:https://AKID:hunter22@s3.example.net/bucket", "vault.url = '<hidden>'", "AWS_SECRET_ACCESS_KEY"),
    repository(
        "s3-credentials-missing",
        {"access": "s3", "url": "s3:https://s3.example.net/bucket", "environment": {"AWS_ACCESS_KEY_ID": "AKID"}},
        "vault.environment.AWS_SECRET_ACCESS_KEY: is missing",
        "use access: url where the host itself has credentials",
    ),
    Case(
        "location-twice",
        ("'s3:https://s3.example.net/bucket'", "vault of web1, vault of old1", "a location of its own"),
        {**GOOD, "backup_repositories": {"vault": {"url": "s3:https://s3.example.net/bucket"}}},
        clients=("web1", "old1"),
    ),
    # Repositories over SSH, and their server.
    over_ssh(
        "source-name",
        {"source": ["web1.example.net"]},
        "web1: backup_repositories.offsite.source[0] = 'web1.example.net': is not an IP address or a network",
        "Give 192.0.2.10, 2001:db8::7 or 192.0.2.0/24",
    ),
    over_ssh(
        "source-command",
        {"source": ["192.0.2.7", '192.0.2.8",command="id']},
        "web1: backup_repositories.offsite.source[1] = '192.0.2.8\",command=\"id': is not an IP address",
        "without names and patterns",
    ),
    over_ssh("source-empty", {"source": []}, "offsite.source = []: is empty", "Give at least one"),
    over_ssh(
        "remote-unknown",
        {"remote": "elsewhere:company"},
        "web1: backup_repositories.offsite.remote = 'elsewhere:company': names no remote of vault1",
        "Declare it in rclone_proxy_remotes of vault1, which has: s3-offsite",
    ),
    over_ssh("remote-dots", {"remote": "s3-offsite:a/../b"}, "offsite.remote = 's3-offsite:a/../b'", "'..'", "Write the path that is meant"),
    over_ssh(
        "remote-option",
        {"remote": "--config:x"},
        "offsite.remote = '--config:x': is not a remote of rclone",
        "Use name:path, as s3-offsite:company-backups",
    ),
    over_ssh(
        "remote-secret",
        {"remote": "s3-offsite,secret_access_key=hunter22:company"},
        "offsite.remote = '<hidden>': contains credentials",
        "Put them into rclone_proxy_remotes of the server",
    ),
    over_ssh(
        "remotes-list",
        {},
        "vault1: rclone_proxy_remotes = '<list>': is not a dictionary",
        "Write name: {type: …}",
        rclone_proxy_remotes=["hunter22"],
    ),
    over_ssh(
        "remotes-name",
        {},
        "vault1: rclone_proxy_remotes.'a/b' = 'a/b': is not a name",
        "Use lower-case letters",
        rclone_proxy_remotes={"a/b": {"type": "s3"}},
    ),
    over_ssh(
        "remotes-type",
        {},
        "vault1: rclone_proxy_remotes.s3-offsite.type = 'drive'",
        "keeps a token",
        "Types that may be served: s3, b2",
        rclone_proxy_remotes={"s3-offsite": {"type": "drive"}},
    ),
    over_ssh(
        "remotes-newline",
        {},
        "vault1: rclone_proxy_remotes.s3-offsite.secret_access_key = '<hidden>': is not one line of text",
        "It may not be empty nor hold control characters",
        rclone_proxy_remotes={"s3-offsite": {"type": "s3", "secret_access_key": "hunter22\ntype = local"}},
    ),
    over_ssh(
        "sftp-path-dots",
        {"access": "sftp", "path": "/volume1/../etc"},
        "web1: backup_repositories.offsite.path = '/volume1/../etc': contains a '..' component",
        "Write the path that is meant",
    ),
    sftp("sftp-path-quote", "/volume1/a'b", '"/volume1/a\'b"'),
    sftp("sftp-path-double-quote", '/volume1/a"b', "'/volume1/a\"b'"),
    sftp("sftp-path-newline", "/volume1/a\nb", "'/volume1/a\\nb'"),
    sftp("sftp-path-percent", "/volume1/a%hb", "'/volume1/a%hb'"),
    over_ssh("server-address", {}, "vault1: backup_address = 'vault1:22'", "is not a host name", ADDRESS_CURE, backup_address="vault1:22"),
    over_ssh(
        "server-address-command",
        {},
        "vault1: backup_address = '-oProxyCommand=id'",
        "is not a host name or an IP address",
        ADDRESS_CURE,
        backup_address="-oProxyCommand=id",
    ),
    over_ssh("ssh-address", {"address": "h;id"}, "web1: backup_repositories.offsite.address = 'h;id'", "is not a host name", ADDRESS_CURE),
    over_ssh("ssh-port-range", {}, "vault1: backup_ssh_port = 70000: is out of range", PORT_CURE, backup_ssh_port=70000),
    over_ssh("ssh-port-name", {}, "vault1: backup_ssh_port = 'ssh': is not a whole number", PORT_CURE, backup_ssh_port="ssh"),
    # Key material.
    case("escrow-missing", "backup_escrow", "is missing", "age-keygen -o backup-escrow.key", backup_escrow=None),
    case("recipient", "recipients[0] = 'age1xyz'", "public key of age", backup_escrow={"recipients": ["age1xyz"]}),
    case(
        "recipient-typing-error",
        "recipients[0]",
        "checksum",
        "Copy the whole line",
        backup_escrow={"recipients": [RECIPIENT[:-1] + "q"]},
    ),
    case(
        "recipient-secret-key",
        "recipients[0] = <hidden>",
        "the secret key never belongs here",
        backup_escrow={"recipients": ["AGE-SECRET-KEY-1" + "Q" * 58]},
    ),
    case(
        "recipient-newline",
        f"backup_escrow.recipients[0] = '{RECIPIENT}\\nage1",
        "is not a public key of age",
        "Give the line 'age1…' that age-keygen prints",
        backup_escrow={"recipients": [f"{RECIPIENT}\n{RECIPIENT}"]},
    ),
    case(
        "extra-user",
        "rest_server_users[0].name = 'a:b\\nc'",
        "is not a user name",
        "Use letters, digits",
        rest_server_users=[{"name": "a:b\nc", "hash": HASH}],
    ),
    case(
        "extra-user-hash",
        "rest_server_users[0].hash = '<hidden>'",
        "htpasswd -B",
        rest_server_users=[{"name": "me", "hash": f"{HASH}\nyou:{HASH}"}],
    ),
    # Settings.
    Case(
        "account",
        (f"web1: restic_account {SHOWN}", "is not the name of an account", "Use lower-case letters, digits, _ and -"),
        GOOD,
        {"web1": {"restic_account": NEWLINE}},
    ),
    Case(
        "mirror-credentials",
        ("web1: restic_release_mirror = <hidden>", "contains credentials", "restic_install: none"),
        GOOD,
        {"web1": {"restic_release_mirror": "https://bob:hunter22@mirror.invalid"}},
    ),
    Case("privilege", ("restic_privilege = 'sudo'", "systemd, setcap, root"), GOOD, {"web1": {"restic_privilege": "sudo"}}),
    Case("revoke-max", ("backup_revoke_max = 'all'", "whole number"), GOOD, {"vault1": {"backup_revoke_max": "all"}}),
    case("template", "backup_jobs", "cannot be evaluated", "Correct the template", backup_jobs="{{ nowhere }}"),
    # What only the target can judge.
    job("calendar", "schedule", {"calendar": "Foo 99:99"}, "= 'Foo 99:99'", "systemd-analyze of this host"),
    case(
        "L9-release-below-floor",
        "restic_release_version = '0.16.5'",
        "below the floor 0.17.1",
        "or later",
        restic_install="release",
        restic_release_version="0.16.5",
        restic_release_sha256={"x86_64": "0" * 64},
    ),
    case("release-without-checksum", "restic_release_sha256", "SHA256SUMS", restic_install="release", restic_release_version="0.18.0"),
    case("pinned-below-floor", "restic_package_version = '0.14.0-1+b5'", "or later", restic_package_version="0.14.0-1+b5"),
    # What a server cannot serve with stops its clients too. Debian 12 has no such package.
    Case(
        "rest-server-not-in-apt",
        ("old1: rest_server_package = 'restic-rest-server': is not known to apt on this host", f"Run apt update there, or s{REST_RELEASE}"),
        {**GOOD, "backup_repositories": {"vault": {"server": "old1"}}},
        servers=("old1",),
    ),
    over_ssh(
        "rclone-package",
        {"remote": "s3-offsite:a/b"},
        "vault1: rclone_proxy_package = 'rclone': is version 1.60.1",
        "below the floor 1.75.2",
        "Set rclone_proxy_install: release with rclone_proxy_release_version (1.75.2 or later)",
    ),
    over_ssh(
        "rclone-release-version",
        {},
        "vault1: rclone_proxy_release_version: is missing",
        "(1.75.2 or later)",
        rclone_proxy_install="release",
        rclone_proxy_release_sha256={"x86_64": "0" * 64, "aarch64": "0" * 64},
    ),
    over_ssh(
        "rclone-release-checksum",
        {},
        "vault1: rclone_proxy_release_sha256: has no checksum for the architecture",
        "Take it from upstream's SHA256SUMS",
        rclone_proxy_install="release",
        rclone_proxy_release_version="1.75.2",
    ),
    over_ssh(
        "rclone-binary",
        {},
        "vault1: rclone_proxy_binary = '/opt/rclone': is not on this host",
        "let rclone_proxy_install do it",
        rclone_proxy_install="none",
        rclone_proxy_binary="/opt/rclone",
    ),
    Case(
        "borg-binary",
        ("vault1: ssh_access_borg = '/usr/bin/env': is no Python program", "Install borg as a package on this server"),
        {**GOOD, "backup_repositories": {"archive": {"engine": "borg", "access": "ssh", "server": "vault1"}}},
        {"vault1": {"ssh_access_borg": "/usr/bin/env"}},
    ),
    # Any package with a version below the floor will do.
    rest_server(
        "L9-rest-server-package-below-floor",
        "vault1: rest_server_package = 'libcap-ng0': is version 0.8.",
        "below the floor 0.13",
        f"S{REST_RELEASE}",
        rest_server_package="libcap-ng0",
    ),
    rest_server(
        "L9-rest-server-release-below-floor",
        "vault1: rest_server_release_version = '0.12.1': is below the floor 0.13",
        "Name 0.13 or later",
        rest_server_install="release",
        rest_server_release_version="0.12.1",
        rest_server_release_sha256={"x86_64": "0" * 64},
    ),
    rest_server(
        "rest-server-release-without-version",
        "vault1: rest_server_release_version: is missing",
        "Name the version of the release, 0.13 or later",
        rest_server_install="release",
        rest_server_release_sha256={"x86_64": "0" * 64},
    ),
    rest_server(
        "rest-server-release-without-checksum",
        "vault1: rest_server_release_sha256: has no checksum",
        "from upstream's SHA256SUMS",
        rest_server_install="release",
        rest_server_release_version="0.14.0",
    ),
    rest_server(
        "rest-server-release-for-another-architecture",
        "vault1: rest_server_release_sha256 = 's390x': has no checksum for the architecture x86_64 of this host",
        "Give the SHA-256 of its archive",
        rest_server_install="release",
        rest_server_release_version="0.14.0",
        rest_server_release_sha256={"s390x": "0" * 64},
    ),
    rest_server(
        "rest-server-binary-missing",
        "vault1: rest_server_binary = '/opt/rest-server': is not on this host",
        "let rest_server_install do it",
        rest_server_install="none",
        rest_server_binary="/opt/rest-server",
    ),
    # The package that is the default would have a good version, and would not be what runs.
    rest_server(
        "rest-server-binary-beside-a-package",
        "vault1: rest_server_binary = '/opt/rest-server': is not on this host",
        "leave rest_server_binary out",
        rest_server_binary="/opt/rest-server",
    ),
    Case(
        "restic-binary-beside-a-package",
        ("restic_binary = '/opt/restic'", "is not on this host", "leave restic_binary out and let restic_install do it"),
        {**LOCAL, "restic_binary": "/opt/restic"},
        servers=(),
    ),
    rest_server(
        "rest-server-path-of-others",
        "vault1: rest_server_path = '/usr/share': is there already, belongs to root and holds",
        "Name a directory of its own below it",
        rest_server_path="/usr/share",
    ),
    rest_server(
        "rest-server-path-that-it-may-not-enter",
        "vault1: rest_server_path = '/root/holdfast': is below /root, which rest-server may not enter",
        "Name a directory elsewhere",
        rest_server_path="/root/holdfast",
    ),
    # What a host delivers stops that host; it is the only one here.
    Case(
        "local-path-of-others",
        ("backup_repositories.disk.path = '/usr/share'", "belongs to root and holds", "/usr/share/holdfast say"),
        {**LOCAL, "backup_repositories": {"disk": {"access": "local", "path": "/usr/share"}}},
        servers=(),
    ),
    Case("L9-package-below-floor", ("restic_package = 'restic'", "0.14.0", "restic_install: release"), LOCAL, clients=("old1",), servers=()),
    Case("no-systemd", ("plain1: systemd", "not running as PID 1", "boots with systemd"), LOCAL, clients=("plain1",), servers=()),
    Case(
        "address",
        ("backup_address of vault1 = 'nowhere.invalid'", "does not resolve on this host", "Give the server vault1 a backup_address"),
        GOOD,
        hosts={"vault1": {"backup_address": "nowhere.invalid"}},
        clients=("vault1",),
    ),
    Case(
        "quota-without-btrfs",
        ("rest_server_path = '/srv/holdfast'", "needs btrfs for the quota of vault1--vault", "Put rest_server_path on a btrfs"),
        {**GOOD, "backup_repositories": {"vault": {"server": "vault1", "quota": "1G"}}},
        clients=("vault1",),
    ),
]  # fmt: skip


def look(fleet: Fleet) -> dict[str, str]:
    """What is on each host."""
    return {name: str(fleet.on(name).check_output(LOOK)) for name in HOSTS}


def play(folder: Path, each: Case, *arguments: str, playbook: str = "site") -> Run:
    """Run a playbook on the inventory of a case."""
    folder.mkdir()
    groups = {"backup_servers": each.servers, "backup_clients": each.clients}
    fleet = Fleet("bad_input", folder, groups)
    fleet.variables = each.variables
    fleet.host_variables = {**each.hosts}
    return fleet.run(playbook, *arguments)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder for each inventory."""
    return tmp_path_factory.mktemp("inventories")


@pytest.fixture(scope="session")
def before(folder: Path) -> dict[str, str]:
    """What is on the hosts before anything runs."""
    return look(Fleet("bad_input", folder, {}))


@pytest.fixture(scope="session")
def runs(folder: Path, before: dict[str, str]) -> Iterator[dict[str, Future[Run]]]:
    """All cases, under way."""
    assert before
    with ThreadPoolExecutor(PARALLEL) as pool:
        yield {each.name: pool.submit(play, folder / each.name, each) for each in CASES}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("each", CASES, ids=lambda each: each.name)
def test_bad_input_is_refused_with_its_message(each: Case, runs: dict[str, Future[Run]], folder: Path) -> None:
    done = runs[each.name].result()
    assert done.code != 0, done.output
    assert not done.changed, done.output
    (message,) = set(done.failed.values()) or {""}
    lines = [part for part in message.splitlines() if part.startswith("- ")]
    assert len(lines) == each.lines, message
    assert message.startswith("nothing was changed"), message
    missing = [[part for part in each.expected if part not in line] for line in lines]
    assert [] in missing, f"{missing} not in: {lines}"
    assert "hunter22" not in done.output
    assert not (folder / each.name / "holdfast-state").exists()


def test_nothing_was_changed_on_any_host(folder: Path, before: dict[str, str], runs: dict[str, Future[Run]]) -> None:
    for run in runs.values():
        run.result()
    fleet = Fleet("bad_input", folder, {})
    after = look(fleet)
    for name in HOSTS:
        assert after[name].splitlines() == before[name].splitlines(), name
    # The comparison sees a change.
    fleet.on("web1").check_output("touch /etc/holdfast-was-here")
    assert look(fleet)["web1"] != before["web1"]


def test_the_good_inventory_is_accepted(folder: Path) -> None:
    done = play(folder / "good", Case("good", (), GOOD), "--check")
    assert done.code == 0, done.output
    assert not (folder / "good/holdfast-state").exists()


def test_a_server_over_ssh_only_needs_no_rest_server(folder: Path) -> None:
    archive = {"offsite": {"access": "sftp", "server": "old1"}}
    old = Case("ssh-only", (), {**GOOD, "backup_repositories": archive}, servers=("old1",))
    done = play(folder / "ssh-only", old, "--check")
    assert done.code == 0, done.output
    assert {host for host, _task in done.changed} == {"old1", "web1"}


def test_bad_input_outside_the_limit_is_a_warning(folder: Path) -> None:
    bad = Case(
        "limit", (), {"backup_jobs": {}}, hosts={"web1": {"backup_jobs": {"Bad": GOOD_JOB}}}, clients=("web1", "vault1")
    )
    done = play(folder / "limit", bad, "--check", "--limit", "vault1")
    assert done.code == 0, done.output
    assert "web1: backup_jobs.Bad = 'Bad': is not a name" in done.text
    refused = play(folder / "no-limit", bad, "--check")
    assert refused.code != 0
    assert "web1: backup_jobs.Bad = 'Bad': is not a name" in refused.failed["vault1"]


def test_a_bad_query_of_the_status_is_refused(folder: Path) -> None:
    good = Case("query", (), LOCAL, servers=())
    bad = play(folder / "query", good, "-e", "query=hosts.[", playbook="status")
    assert "query = 'hosts.[': is not a JMESPath expression" in "".join(bad.failed.values())
    cut = play(folder / "cut-query", good, "-e", "query=keys(hosts) | sort(@)", playbook="status")
    assert "cut at a space" in "".join(cut.failed.values())
    whole = play(folder / "whole-query", good, "-e", '{"query": "keys(hosts) | length(@)"}', playbook="status")
    assert re.search(r"^[1-9]\d*$", whole.output, re.MULTILINE)
    simple = play(folder / "good-query", good, "-e", "query=length(hosts)", playbook="status")
    # Nothing was ever installed on the client, which the query is no answer to.
    for asked in (whole, simple):
        assert list(asked.failed) == ["web1"]
        assert "the playbook site makes sure of /usr/local/bin/holdfast" in asked.failed["web1"]


def test_a_missing_package_on_the_controller_is_named(folder: Path) -> None:
    absent = folder / "absent"
    absent.mkdir()
    (absent / "jmespath.py").write_text("raise ImportError('not here')\n")
    fleet = Fleet("bad_input", folder, {"backup_clients": ["web1"]})
    fleet.variables = LOCAL
    done = fleet.run("status", "-e", "query=hosts", environment={"PYTHONPATH": str(absent), "HOME": os.environ["HOME"]})
    assert "pip install jmespath" in "".join(done.failed.values())


def test_what_one_host_delivers_stops_it_before_any_host_is_changed(folder: Path) -> None:
    """The look-only play ends for all hosts before the first changing one begins; the good host then goes on."""
    elsewhere = {"backup_repositories": {"vault": {"server": "vault1", "address": "nowhere.invalid"}}}
    several = Case(
        "several",
        (),
        LOCAL,
        hosts={"vault1": {**elsewhere, "backup_escrow": GOOD["backup_escrow"]}},
        clients=HOSTS,
    )
    done = play(folder / "several", several)
    assert sorted(done.failed) == ["contained1", "old1", "plain1", "vault1"], done.output
    assert "contained1: CAP_DAC_READ_SEARCH: is withheld from this host" in done.failed["contained1"]
    assert "old1: restic_package = 'restic': is version 0.14.0" in done.failed["old1"]
    assert "plain1: systemd: systemd is not running as PID 1" in done.failed["plain1"]
    assert "'nowhere.invalid': does not resolve on this host" in done.failed["vault1"]
    failures = [number for number, event in enumerate(done.events) if event["what"] == "failed"]
    changes = [number for number, event in enumerate(done.events) if event["changed"]]
    assert changes, done.output
    assert max(failures) < min(changes)
    assert {done.events[number]["host"] for number in changes} == {"web1"}
    assert Fleet("bad_input", folder, {}).on("web1").service("holdfast-system--local.timer").is_running
