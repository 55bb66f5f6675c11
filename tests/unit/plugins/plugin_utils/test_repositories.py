# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a repository may say, and when two locations are the same."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _repositories
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput, shorten


def made(**keys: t.Any) -> dict[str, t.Any]:
    return _repositories.repository("repositories.vault", keys)


def refused(**keys: t.Any) -> BadInput:
    with pytest.raises(BadInput) as caught:
        made(**keys)
    assert caught.value.cure
    return caught.value


def test_access_follows_from_what_is_given() -> None:
    assert made() == {"engine": "restic", "access": "local", "options": {}}
    assert made(server="vault1")["access"] == "rest"
    assert made(url="s3:host/bucket")["access"] == "url"


KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "geheim"}


@pytest.mark.parametrize(
    "url",
    [
        "s3:https://s3.example.net/company-backups/web1",
        "s3:http://[2001:db8::1]:9000/company-backups",
        "s3:s3.eu-west-1.amazonaws.com/company.backups/a/b_c/",
        "s3://192.0.2.7:9000/abc",
    ],
)
def test_s3(url: str) -> None:
    assert made(access="s3", url=url, environment=KEYS)["url"] == url


@pytest.mark.parametrize(
    "url",
    [
        "rest:https://s3.example.net/company-backups/",
        "s3:https://s3.example.net",
        "s3:https://s3.example.net/",
        "s3:s3.example.net",
        "s3:/company-backups/a",
        "s3:ftp://s3.example.net/company-backups",
        "s3:HTTP://s3.example.net/company-backups",
        "s3:httpd.example.net/company-backups",
        "s3:https://s3.example.net/ab",
        "s3:https://s3.example.net/-abc",
        f"s3:https://s3.example.net/{'a' * 64}",
        "s3:https://s3.example.net/company-backups/../other",
        "s3:https://s3.example.net/company-backups/./a",
        "s3:https://s3.example.net/company-backups//a",
        "s3:https://s3.example.net/company-backups/%2e%2e/other",
        "s3:https://s3.example.net/company-backups/a?versions",
        "s3:https://s3.example.net/company-backups/a#b",
        "s3:https://s3.example.net:port/company-backups",
    ],
)
def test_s3_refuses_what_is_no_place_in_a_bucket(url: str) -> None:
    bad = refused(access="s3", url=url, environment=KEYS)
    assert (bad.where, bad.value) == ("repositories.vault.url", url)
    assert "s3:https://host/bucket/path" in bad.cure


@pytest.mark.parametrize("given", [None, {}, {**KEYS, "AWS_SECRET_ACCESS_KEY": ""}, {"AWS_ACCESS_KEY_ID": "AKID"}])
def test_s3_needs_credentials(given: t.Any) -> None:
    keys = {} if given is None else {"environment": given}
    bad = refused(access="s3", url="s3:https://host/bucket", **keys)
    missing = "AWS_SECRET_ACCESS_KEY" if given else "AWS_ACCESS_KEY_ID"
    assert (bad.where, bad.value, bad.wrong) == (f"repositories.vault.environment.{missing}", "", "is missing")
    assert "geheim" not in bad.cure


@pytest.mark.parametrize("key", sorted(_repositories.FIELDS))
def test_every_key_refuses_what_it_cannot_be(key: str) -> None:
    for value in (object(), float("inf"), {"a": {"b": []}}, [[]], {1: 2}, b"x", "\ud800", "\0", True):
        bad = refused(**{key: value})
        assert bad.where.startswith(f"repositories.vault.{key}")
        if key in _repositories.SECRETS:
            assert bad.value == "<hidden>"


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"engine": "rsync"}, "engine"),
        ({"engine": "tar"}, "engine"),
        ({"access": "rclone"}, "server"),
        ({"access": "pull"}, "access"),
        ({"access": "nfs"}, "access"),
        ({"access": "rest"}, "server"),
        ({"access": "url"}, "url"),
        ({"access": "s3"}, "url"),
        ({"access": "s3", "url": "s3:host/bucket", "server": "vault1"}, "server"),
        ({"access": "s3", "engine": "borg"}, "access"),
        ({"access": "local", "server": "vault1"}, "server"),
        ({"server": "vault1", "path": "/srv"}, "path"),
        ({"server": "vault1", "environment": {"A": "geheim"}}, "environment"),
        ({"url": "s3:host/bucket", "mount": "/mnt"}, "mount"),
        ({"port": 0, "server": "vault1"}, "port"),
        ({"port": 65536, "server": "vault1"}, "port"),
        ({"address": "h:80", "server": "vault1"}, "address"),
        ({"server": "vault1", "quota": "1P"}, "quota"),
        # What borg itself refuses; K, M, G are powers of 1000 to it.
        ({"engine": "borg", "server": "vault1", "quota": "9M"}, "quota"),
        ({"engine": "borg", "server": "vault1", "quota": "9999K"}, "quota"),
        ({"engine": "borg", "server": "vault1", "quota": 9_999_999}, "quota"),
        ({"repository_version": 3}, "repository_version"),
        ({"server": "vault1", "proxy": "http://u:geheim@proxy:3128"}, "proxy"),
        ({"access": "local", "proxy": "http://proxy:3128"}, "proxy"),
        ({"access": "sftp", "server": "vault1", "proxy": "http://proxy:3128"}, "proxy"),
        ({"engine": "borg", "server": "vault1", "proxy": "http://proxy:3128"}, "proxy"),
        ({"from_repo": "A"}, "from_repo"),
        ({"url_prefix": "/a/", "server": "vault1"}, "url_prefix"),
        ({"url_prefix": "/..", "server": "vault1"}, "url_prefix"),
        ({"url_prefix": "/a/./b", "server": "vault1"}, "url_prefix"),
        ({"url_prefix": "/a%2f", "server": "vault1"}, "url_prefix"),
        ({"mount": "/"}, "mount"),
        ({"path": "/a b"}, "path"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_refused(keys: dict[str, t.Any], where: str) -> None:
    bad = refused(**keys)
    assert bad.where == f"repositories.vault.{where}"
    assert "geheim" not in shorten(bad.value)


def test_a_quota_that_borg_takes_or_btrfs() -> None:
    for quota in ("10M", "10000K", 10_000_000, "1G", "1T"):
        assert _repositories.repository("x", {"engine": "borg", "server": "vault1", "quota": quota})["quota"] == str(
            quota
        )
    assert _repositories.repository("x", {"server": "vault1", "quota": "1M"})["quota"] == "1M"


# --- locations


@pytest.mark.parametrize(
    "url",
    [
        "rest:https://host:8000/a/",
        "rest:http://[2001:db8::1]:8000/a/",
        "rest:https://host/a@b/",
        "s3:https://host/bucket/a",
        "s3:host/bucket",
        "s3:host/bucket/a@b",
        "s3://host:9000/bucket",
        "s3:http://minio_1.lan.:9000/bucket",
        "s3:https://[2001:db8::1]:9000/bucket",
        "s3:[2001:db8::1]/bucket",
        "s3:192.0.2.7:/bucket/?x",
        "s3:https://bücher.example/bucket",
        "s3:b%C3%BCcher.example/bucket",
        "sftp:user@host:/srv/a",
        "sftp://user@host:2222//srv/a",
        "b2:bucket:path",
        "azure:container:/",
        "gs:bucket:/a",
        "swift:container:/a",
        "rclone:remote:path",
    ],
)
def test_urls(url: str) -> None:
    assert made(url=url)["url"] == url


@pytest.mark.parametrize(
    "url",
    [
        "rest:https://user:geheim@host/",
        "rest:https://geheim@host/",
        "rest:HTTPS://user:geheim@host/",
        "rest://user:geheim@host/",
        "rest:user:geheim@host/",
        "REST:https://user:geheim@host/",
        "s3:https://key:geheim@host/bucket",
        "s3:key:geheim@host/bucket",
        "sftp://user:geheim@host/a",
        "sftp:user:geheim@host:/a",
        "https://user:geheim@host/",
        "rclone::sftp,user=x,pass=geheim:path",
        "rclone::s3,secret_access_key=geheim:path",
        "rest:https://user:geheim@host/\n",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_shown(url: str) -> None:
    bad = refused(url=url)
    assert bad.value == "<hidden>"
    assert bad.wrong == "contains credentials"


@pytest.mark.parametrize(
    "url",
    [
        "/srv/a",
        "a",
        "./a",
        "local:/srv/a",
        "rest:host/a",
        "rest:https://",
        "rest:https:///a",
        "rest:https://[::1",
        "ftp:host",
    ]
    + ["s3:host/a b", " s3:host/a", "s3:host/a\n", "s3:", "", "s3:\u2028x", "rest:ftp://host/"]
    # Neither a host nor a port, or no bucket.
    + ["rest:https://[1]/a/", "rest:https://host:0/a/", "rest:https://host:65536/a/", "rest:https://a..b/a/"]
    + ["s3:https://[1", "s3:https://[1/bucket", "s3:https://[1]/bucket", "s3:[::1/bucket", "s3:2001:db8::1/bucket"]
    + ["s3:https://host:port/bucket", "s3:https://host:65536/bucket", "s3:host:0/bucket", "s3:https://:9000/bucket"]
    + [
        "s3:.a/bucket",
        "s3:https://a..b/bucket",
        "s3:a;b/bucket",
        "s3:https://host%41/bucket",
        "s3:httpd.example/bucket",
    ]
    + ["s3:ftp://host/bucket", "s3:HTTPS://host/bucket", "s3:https:/host/bucket", "s3:///bucket", "s3:host"],
)
def test_urls_refused(url: str) -> None:
    assert refused(url=url).where == "repositories.vault.url"


@pytest.mark.parametrize(
    "spellings",
    [
        [
            "rest:https://host/a/",
            "rest:https://HOST:443/a",
            "rest:http://host:443//a/",
            "rest:https://host./a/./",
            "rest:https://host/%61/",
        ],
        ["rest:http://host/a", "rest:http://host:80/x/../a/"],
        ["rest:https://[2001:db8::1]:8000/a/", "rest:https://[2001:DB8:0::1]:8000/a"],
        ["s3:host/bucket/a", "s3:https://host/bucket/a/", "s3:https://Host:443/bucket//a", "s3://host/bucket/a"],
        # What follows ? or # is nothing to restic.
        ["s3:host:/bucket/a", "s3:https://host/bucket/a?x", "s3:https://host/bucket/a#x"],
        ["s3:https://b%C3%BCcher.example/bucket", "s3:bücher.example/bucket"],
        ["sftp:a@host:/srv/x", "sftp:b@HOST:/srv/x/", "sftp://c@host:22//srv/x", "sftp:host:/srv/x"],
        ["sftp:a@host:x", "sftp://a@host/x/", "sftp:a@host:./x"],
        ["sftp:host:/srv/x", "sftp://host//srv/x?y", "sftp://host//srv/x#y"],
        ["b2:bucket:a", "b2:bucket:/a/"],
        ["gs:bucket:/a", "gs:bucket:/a//"],
        # All of a bucket, and what has a colon of its own in its path.
        *[[f"{each}:bucket{end}" for end in ("", ":", ":/", ":.", ":/.")] for each in ("b2", "azure", "gs", "swift")],
        *[[f"{each}:bucket:{path}" for path in ("/a:b", "/a:b/", "./a:b")] for each in ("b2", "azure", "gs", "swift")],
        ["rclone:remote:a/b", "rclone:remote:a//b/"],
        ["/srv/a", "/srv//a/"],
    ],
)
def test_spellings_of_one_location(spellings: list[str]) -> None:
    assert len({_repositories.identity_of(each) for each in spellings}) == 1


def test_other_locations_are_other() -> None:
    others = [
        *[
            "rest:https://host/a",
            "rest:http://host/a",
            "rest:https://host:8000/a",
            "rest:https://host/A",
            "rest:https://other/a",
        ],
        *[
            "s3:host/bucket/a",
            "s3:host/bucket/b",
            "sftp:a@host:x",
            "sftp:b@host:x",
            "sftp:a@host:/x",
            "sftp://a@host:23/x",
        ],
        *[
            "b2:bucket",
            "b2:bucket:a",
            "b2:bucket:a:b",
            "b2:other",
            "b2:other:a",
            # Nothing in it is escaped.
            "gs:bucket:%61",
            "gs:bucket:a",
            "azure:bucket:a",
            "swift:bucket:/a",
            "s3:host/bucket/a%3Fx",
            "rclone:remote:a",
            "rclone:other:a",
            "/srv/a",
            "rest:https://ho:st:1/a",
        ],
    ]
    assert len({_repositories.identity_of(each) for each in others}) == len(others)


def test_locations() -> None:
    assert (
        _repositories.rest_location("2001:db8::1", 8000, "web1--vault", True)
        == "rest:https://[2001:db8::1]:8000/web1--vault/"
    )
    assert _repositories.rest_location("h", 80, "u", False, "/p") == "rest:http://h:80/p/u/"
    assert _repositories.local_path({}, "local") == "/var/backups/holdfast/local"
    assert _repositories.local_path({"mount": "/mnt"}, "local") == "/mnt/holdfast/local"
    assert _repositories.local_path({"mount": "/mnt", "path": "/mnt/x"}, "local") == "/mnt/x"


# --- secrets and options


def test_secrets() -> None:
    keys = made(
        url="s3:h/b", password="a %$\"' é", environment={"AWS_ACCESS_KEY_ID": "x", "N": 5, "RESTIC_REST_PASSWORD": "p"}
    )
    assert keys["password"] == "a %$\"' é"
    assert keys["environment"] == {"AWS_ACCESS_KEY_ID": "x", "N": "5", "RESTIC_REST_PASSWORD": "p"}


@pytest.mark.parametrize(
    "password",
    ["", "geheim\n", " geheim", "geheim ", "ge\0heim", "ge\theim", 12345, ["geheim"], "geheim\ud800", "x" * 9000],
)
def test_passwords_refused(password: t.Any) -> None:
    bad = refused(password=password)
    assert bad.value == "<hidden>"
    assert "geheim" not in f"{bad.where}{bad.wrong}{bad.cure}"


@pytest.mark.parametrize(
    "environment",
    [
        "A=geheim",
        {"1A": "geheim"},
        {5: "geheim"},
        {"A": "geheim\nB=1"},
        {"A": ["geheim"]},
        {"A": True},
        {"A": None},
        {"A": "geheim\ud800"},
        {"RESTIC_PASSWORD": "geheim"},
        {"RESTIC_REPOSITORY": "geheim"},
        {"RESTIC_KEY_HINT": "geheim"},
        {"RESTIC_CACERT": "geheim"},
        # restic takes several, between commas.
        {"RESTIC_CACERT": "/geheim.pem,x"},
        {"RESTIC_TLS_CLIENT_CERT": "/geheim.pem"},
        {"HOLDFAST_X": "geheim"},
        {"LD_PRELOAD": "geheim"},
    ],
)
def test_environments_refused(environment: t.Any) -> None:
    bad = refused(url="s3:h/b", environment=environment)
    assert bad.value == "<hidden>"
    assert "geheim" not in f"{bad.where}{bad.wrong}{bad.cure}"


def test_the_certificates_of_a_users_own_server_may_be_named() -> None:
    environment = {"RESTIC_CACERT": "/etc/ssl/vault.pem", "RESTIC_REST_USERNAME": "web1"}
    assert made(url="rest:https://vault:8000/web1/", environment=environment)["environment"] == environment


def test_options() -> None:
    wanted = {"rest.connections": 5, "s3.bucket-lookup": "dns", "s3.x": True}
    assert made(options=wanted)["options"] == {"rest.connections": "5", "s3.bucket-lookup": "dns", "s3.x": "true"}


@pytest.mark.parametrize(
    "options",
    [
        "a",
        {"connections": 5},
        {"a.b=c": 1},
        {5: 1},
        {"sftp.command": "x"},
        {"rclone.program": "x"},
        {"rclone.args": "x"},
    ]
    + [{"rest.connections": '"5'}, {"rest.connections": "5,rclone.program=/tmp/x"}]
    + [{"a.b": []}, {"a.b": None}, {"a.b": "x\ny"}, {"a.b": ""}, {"A.b": "x"}],
)
def test_options_refused(options: t.Any) -> None:
    assert refused(options=options).where.startswith("repositories.vault.options")


# --- what restic starts for a user's own location


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sftp:host:/srv/a", "host"),
        ("sftp:host:", "host"),
        ("sftp:user@host:a", "host -l user"),
        ("sftp:user@realm@host:/a", "host -l user@realm"),
        ("sftp://host/a", "host"),
        ("sftp://user@host//srv/a", "host -l user"),
        ("sftp://user@host:2222//srv/a:b@c", "host -p 2222 -l user"),
        ("sftp://[2001:db8::1]:22//a", "2001:db8::1 -p 22"),
        ("sftp://[fe80::1%25eth0]//a", "fe80::1%eth0"),
        ("sftp://REALM%5Cuser@Host//a", r"Host -l 'REALM\user'"),
    ],
)
def test_own_ssh(url: str, words: str) -> None:
    wanted = f"capsh --noamb --shell=/usr/bin/env -- ssh {words} -s sftp"
    assert _repositories.own_program("repositories.vault", url) == {"sftp.command": wanted}


@pytest.mark.parametrize(
    "url",
    [
        "sftp:host",
        "sftp:/srv/a",
        "sftp://host",
        "sftp://host:port//a",
        "sftp://host:65536//a",
        "sftp://[1//a",
        "sftp://[1]//a",
        "sftp:[2001:db8::1]:/a",
        "sftp://user@//a",
        "sftp:-oProxyCommand=x:/a",
        "sftp://-x@host//a",
        "sftp://it%27s@host//a",
        "sftp://a%20b@host//a",
        "sftp://a%0ab@host//a",
        "sftp://a%5C@host//a",
        "sftp:a'b@host:/a",
        "sftp:us,er@host:/a",
        'sftp:us"er@host:/a',
    ],
)
def test_own_ssh_refused(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        _repositories.own_program("repositories.vault", url)
    assert caught.value.where == "repositories.vault.url"


@pytest.mark.parametrize("url", ["rest:https://host/a/", "s3:https://host/bucket/a", "b2:bucket:path"])
def test_other_locations_start_nothing(url: str) -> None:
    assert _repositories.own_program("repositories.vault", url) == {}
