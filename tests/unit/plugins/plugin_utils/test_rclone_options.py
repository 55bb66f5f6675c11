# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remotes as users write them: what is refused, and that no message holds a secret."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.holdfast.backup.plugins.module_utils import _rclone as engine
from ansible_collections.holdfast.backup.plugins.module_utils._ssh_accounts import parse_accounts
from ansible_collections.holdfast.backup.plugins.plugin_utils import _rclone
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput

SECRET = "wJalrXUtnFEMI"
S3 = {
    "type": "s3",
    "provider": "Ceph",
    "access_key_id": "AKID",
    "secret_access_key": SECRET,
    "endpoint": "https://s3.example",
}
SFTP = {"type": "sftp", "host": "nas", "user": "u", "known_hosts_file": "/etc/ssh/ssh_known_hosts"}


def test_access_lists_are_private_and_the_user_may_say_otherwise() -> None:
    options = _rclone.remote("r", {**S3, "upload_concurrency": 8, "env_auth": False, "region": None})
    assert options["acl"] == options["bucket_acl"] == "private"
    assert options["no_check_bucket"] == "true"
    assert options["upload_concurrency"] == "8"
    assert options["env_auth"] == "false"
    assert "region" not in options
    assert _rclone.remote("r", {**S3, "acl": "bucket-owner-full-control"})["acl"] == "bucket-owner-full-control"
    assert next(iter(options)) == "type"


@pytest.mark.parametrize("kind", [*engine.REFUSED, "nonsense", ""])
def test_types_that_cannot_be_served_are_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(BadInput) as refused:
        _rclone.remote("rclone_proxy_remotes.x", {"type": kind})
    assert refused.value.where == "rclone_proxy_remotes.x.type"
    assert engine.REFUSED.get(kind, "") in refused.value.wrong


def test_tokens_are_named_as_the_reason() -> None:
    for kind in ("drive", "onedrive", "dropbox", "box"):
        with pytest.raises(BadInput, match="write back"):
            _rclone.remote("x", {"type": kind, "token": SECRET[:3]})


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"secret_access_key": f"{SECRET}\n[other]\ntype = local"}, "r.secret_access_key"),
        ({"secret_access_key": f"{SECRET}\rx"}, "r.secret_access_key"),
        ({"secret_access_key": f"{SECRET}\x00"}, "r.secret_access_key"),
        ({"secret_access_key": f"{SECRET}\u2028x"}, "r.secret_access_key"),
        ({"secret_access_key": f"{SECRET}%(region)s"}, "r.secret_access_key"),
        ({"secret_access_key": [SECRET]}, "r.secret_access_key"),
        ({"secret_access_key": {"a": SECRET}}, "r.secret_access_key"),
        ({"secret_access_key": SECRET * 1000}, "r.secret_access_key"),
        ({"secret_access_key": ""}, "r.secret_access_key"),
        ({f"{SECRET}": "x"}, f"r.{SECRET}"),
        ({"Region": "x"}, "r.Region"),
        ({"re gion": "x"}, "r.'re gion'"),
        ({"a]\nb": "x"}, "r.'a]\\nb'"),
        ({"token": SECRET}, "r.token"),
        ({"config_refresh_token": SECRET}, "r.config_refresh_token"),
        ({"bearer_token_command": SECRET}, "r.bearer_token_command"),
        ({"acl": "public-read"}, "r.acl"),
        ({"bucket_acl": "authenticated-read"}, "r.bucket_acl"),
        ({"endpoint": 1.5}, "r.endpoint"),
    ],
)
def test_bad_options_are_named_and_their_secrets_are_not(change: dict[str, Any], where: str) -> None:
    with pytest.raises(BadInput) as refused:
        _rclone.remote("r", {**S3, **change})
    assert refused.value.where == where
    shown = f"{refused.value.value}{refused.value.wrong}{refused.value.cure}"
    assert SECRET not in shown


GCS = {"type": "google cloud storage", "service_account_file": "/etc/gcs.json"}
AZURE = {"type": "azureblob", "account": "a", "key": SECRET}


@pytest.mark.parametrize(
    ("options", "option"),
    [
        *(
            ({**S3, "acl": value}, "acl")
            for value in ("public-read-write", "authenticated-read", "aws-exec-read", "PUBLIC")
        ),
        ({**S3, "bucket_acl": "public-read"}, "bucket_acl"),
        *(({**GCS, "object_acl": value}, "object_acl") for value in ("publicRead", "authenticatedRead", "public-read")),
        ({**GCS, "bucket_acl": "publicReadWrite"}, "bucket_acl"),
        *(({**AZURE, "public_access": value}, "public_access") for value in ("container", "blob", "Container")),
    ],
)
def test_only_what_is_known_to_be_private_is_an_access_list(options: dict[str, Any], option: str) -> None:
    """Each type of store has words of its own."""
    with pytest.raises(BadInput, match="keeps the backups private") as refused:
        _rclone.remote("r", options)
    assert (refused.value.where, refused.value.value) == (f"r.{option}", options[option])


@pytest.mark.parametrize(
    "options",
    [
        {**S3, "acl": "bucket-owner-read", "bucket_acl": "private"},
        {**S3, "provider": "TencentCOS", "acl": "default"},
        {**GCS, "object_acl": "bucketOwnerFullControl", "bucket_acl": "projectPrivate"},
        {**GCS, "bucket_policy_only": True},
        AZURE,
    ],
)
def test_what_keeps_backups_private_may_be_said(options: dict[str, Any]) -> None:
    assert (
        _rclone.remote("r", options).items()
        >= {k: str(v).lower() if v is True else v for k, v in options.items()}.items()
    )


@pytest.mark.parametrize("change", [{"known_hosts_file": None}, {"known_hosts_file": "none"}])
def test_sftp_needs_the_host_key_of_its_server(change: dict[str, Any]) -> None:
    assert _rclone.remote("r", SFTP)["host"] == "nas"
    assert _rclone.remote("r", {**SFTP, "known_hosts_file": None, "pin_host_key": "ssh-ed25519 AAAA"})["host"] == "nas"
    with pytest.raises(BadInput, match="takes any host"):
        _rclone.remote("r", {**SFTP, **change})
    with pytest.raises(BadInput, match="run a command"):
        _rclone.remote("r", {**SFTP, "ssh": "/bin/sh"})


def test_the_longest_name_of_a_remote_is_a_group_that_the_server_makes() -> None:
    """What preflight lets through must not stop the server in the middle, revocation included."""
    longest = "a" * 27
    assert list(_rclone.remotes("rclone_proxy_remotes", {longest: SFTP})) == [longest]
    account = {"name": "bk-web1", "backup_id": "web1", "groups": [_rclone.group(longest)], "keys": []}
    assert parse_accounts([account])[0].groups == {f"hfr-{longest}"}
    with pytest.raises(BadInput, match="is longer than 27 characters"):
        _rclone.remotes("rclone_proxy_remotes", {f"{longest}a": SFTP})


@pytest.mark.parametrize("value", [[], "x", {"UPPER": S3}, {"a/b": S3}, {"a": None}, {"a": [S3]}, {"a\n[b": S3}])
def test_only_named_dictionaries_are_remotes(value: Any) -> None:
    with pytest.raises(BadInput) as refused:
        _rclone.remotes("rclone_proxy_remotes", value)
    assert SECRET not in f"{refused.value.value}"


def test_files_name_group_accounts_and_places() -> None:
    served = [
        {"account": "bk-web1", "remote": "s3:company/fleet"},
        {"account": "bk-db1", "remote": "s3:company/fleet"},
        {"account": "bk-db1", "remote": "nas:backups"},
    ]
    nas, s3 = _rclone.files({"s3": S3, "nas": SFTP, "unused": S3}, served)
    assert (s3["name"], s3["type"], s3["group"]) == ("s3", "s3", "hfr-s3")
    assert s3["accounts"] == ["bk-db1", "bk-web1"]
    assert s3["places"] == ["company/fleet"]
    # What has a line end in it, Ansible would not find in what it logs.
    assert "\n" not in s3["config"]
    text = base64.b64decode(s3["config"]).decode()
    assert text.startswith("# Written by holdfast.backup.\n[s3]\ntype = s3\n")
    assert f"\nsecret_access_key = {SECRET}\n" in text
    assert (nas["accounts"], nas["places"]) == (["bk-db1"], ["backups"])
    with pytest.raises(AnsibleFilterError) as refused:
        _rclone.files({"s3": {**S3, "secret_access_key": f"{SECRET}\n"}}, [])
    assert "rclone_proxy_remotes.s3.secret_access_key" in str(refused.value)
    assert SECRET not in str(refused.value)


def tool(**change: Any) -> dict[str, Any]:
    return {
        "install": "package", "package": "rclone", "version": "", "sha256": "", "architecture": "x86_64",
        "packages": {"rclone": {"installed": None, "candidate": "1.60.1+dfsg-4+b10"}},
        "binary": "/usr/bin/rclone", "binaries": {}, **change,
    }  # fmt: skip


RELEASE = {"install": "release", "version": "1.75.2", "sha256": "0" * 64}


def test_the_package_of_debian_13_serves_directories_and_no_remote() -> None:
    assert _rclone.problems({}, tool(), "proxy1") == []
    (message,) = _rclone.problems({"s3": S3}, tool(), "proxy1")
    assert message.startswith(
        "proxy1: rclone_proxy_package = 'rclone': is version 1.60.1+dfsg-4+b10, below the floor 1.75.2: "
    )
    assert "CVE-2026-71309" in message
    assert "rclone_proxy_release_sha256" in message
    assert (
        _rclone.problems({"s3": S3}, tool(packages={"rclone": {"installed": "1.75.2-1", "candidate": None}}), "p") == []
    )
    assert _rclone.problems({"s3": S3}, tool(packages={}), "p") == []
    assert _rclone.problems({"s3": S3}, tool(install="none"), "p") == []


def test_a_release_needs_version_and_checksum() -> None:
    assert _rclone.problems({"s3": S3}, tool(**RELEASE), "p") == []
    assert len(_rclone.problems({"s3": S3}, tool(install="release"), "p")) == 2
    (message,) = _rclone.problems({"s3": S3}, tool(**{**RELEASE, "version": "1.74.4"}), "p")
    assert "rclone_proxy_release_version = '1.74.4'" in message
    (message,) = _rclone.problems({"s3": {"type": "drive"}}, tool(**RELEASE), "p")
    assert message.startswith("p: rclone_proxy_remotes.s3.type = 'drive': keeps a token")
