# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Definitions of run units: what is read, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._program import definition as definitions
from ansible_collections.holdfast.backup.plugins.module_utils._program.host import ProgramError

from tests.unit.plugins.module_utils.program.program_host import FakeHost, define, raw


def test_everything_is_read(host: FakeHost) -> None:
    rest = {"user": "web1--vault", "url": "rest:https://vault1:8000/web1--vault/"}
    found = define(
        host,
        access="rest",
        rest=rest,
        pre=[{"command": ["a", ""]}],
        post=[{"command": ["b"], "timeout": 90}],
        dumps=[{"name": "pg", "unit": "x.service"}],
        on_failure={"command": ["tell"]},
        timeout_seconds=None,
    )
    assert found.unit == "system--vault"
    assert found.service == "holdfast-system--vault.service"
    assert found.timer == "holdfast-system--vault.timer"
    assert found.identity_file == "/etc/holdfast/secrets/vault.identity"
    assert found.job_tag == "job:system"
    assert found.longest == 3 * definitions.LONGEST_RUN + 600 + 90
    assert found.pre == (definitions.Hook(("a", ""), "root", 3600),)
    assert found.on_failure == definitions.Hook(("tell",), "root", 60)
    assert found.rest == definitions.Rest(**rest)


def test_a_repository_over_ssh(host: FakeHost) -> None:
    found = define(host, access="rclone", options={"rclone.program": "ssh -F x holdfast-vault"})
    assert found.ssh_key_file == "/etc/holdfast/secrets/vault.ssh_key"
    assert found.ssh_key_file in found.secret_files
    assert found.restic == ("/usr/bin/restic", "--option=rclone.program=ssh -F x holdfast-vault")


def test_what_an_earlier_version_wrote_is_read(host: FakeHost) -> None:
    found = define(host)
    assert (found.options, found.restic, found.ssh_key_file) == ({}, ("/usr/bin/restic",), None)
    assert found.secret_files == tuple(
        f"/etc/holdfast/secrets/vault.{suffix}" for suffix in ("password", "repository", "environment")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"one_file_system": 1}, "`one_file_system` is neither true nor false"),
        ({"options": []}, "`options` is not an object of extended options"),
        ({"options": {"rclone.program x": "y"}}, "`options` is not an object of extended options"),
        ({"options": {"rclone.program": "a\nb"}}, "`options` is not a line of text"),
        ({"access": "pull"}, "`access` is none of"),
        ({"format": 2}, "`format` is 2, this program reads 1"),
        ({"job": "Big"}, "`job` is not a name"),
        ({"engine": "tar"}, "`engine` is none of restic, borg"),
        ({"engine": "borg"}, "`borg` goes with engine `borg`"),
        ({"binary": "restic"}, "`binary` is not an absolute path"),
        ({"user": ""}, "`user` is not a line of text"),
        ({"paths": "/x"}, "`paths` is not a list"),
        ({"paths": ["x"]}, "`paths` is not an absolute path"),
        ({"paths": [], "optional_paths": []}, "has neither `paths` nor `optional_paths` nor `dumps`"),
        ({"environment": {"A B": "x"}}, "`environment` is not an object of variables"),
        ({"environment": {"A": 1}}, "`environment` is not a text without NUL"),
        ({"escrow": {"mode": "maybe"}}, "`escrow` `mode` is none of age, none, controller, local"),
        ({"escrow": "age"}, "`escrow` is not an object"),
        ({"pre": [{"command": []}]}, "`pre` has an empty `command`"),
        ({"pre": [{"command": ["x"], "timeout": 0}]}, "`pre` `timeout` is not a number of seconds above 0"),
        ({"pre": [{"command": ["x"], "timeout": True}]}, "`pre` `timeout` is not a number of seconds above 0"),
        ({"pre": [{"kommand": ["x"]}]}, "`pre` has the unknown key 'kommand'"),
        ({"on_failure": []}, "`on_failure` is not an object"),
        ({"dumps": [{"name": "x"}]}, "`dumps` lacks the key 'unit'"),
        ({"rest": {"user": "u", "url": "https://h/p/"}}, "`rest` `url` is not of the form rest:"),
        ({"rest": {"user": "u", "url": "rest:https://u:p@h/p/"}}, "`rest` `url` is not of the form rest:"),
        ({"access": "rest"}, "`rest` goes with access `rest`"),
        ({"more": 1}, "has the unknown key 'more'"),
    ],
)
def test_bad_values_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
        definitions.parse(json.dumps(raw(**change)))


def test_load_says_what_helps(host: FakeHost) -> None:
    with pytest.raises(ProgramError, match="is no run unit") as caught:
        definitions.load(host, "../x")
    assert caught.value.status == 2
    with pytest.raises(ProgramError, match="there is no run unit a--b"):
        definitions.load(host, "a--b")
    host.put("/etc/holdfast/units/a--b.json", "{")
    with pytest.raises(ProgramError, match=r"a--b.json cannot be used: .*; run the site playbook"):
        definitions.load(host, "a--b")
    host.put("/etc/holdfast/units/a--b.json", raw())
    with pytest.raises(ProgramError, match="defines system--vault"):
        definitions.load(host, "a--b")


def test_resolve(host: FakeHost) -> None:
    with pytest.raises(ProgramError, match="there are: none"):
        definitions.resolve(host, "system")
    define(host)
    assert definitions.resolve_one(host, "system").unit == "system--vault"
    define(host, repository="offsite")
    define(host, job="system-more")
    assert [each.unit for each in definitions.resolve(host, "system")] == ["system--offsite", "system--vault"]
    assert definitions.resolve_one(host, "system--offsite").unit == "system--offsite"
    with pytest.raises(ProgramError, match="several repositories; say which: system--offsite, system--vault"):
        definitions.resolve_one(host, "system")
    with pytest.raises(ProgramError, match="no job 'x' on this host; there are: system, system-more"):
        definitions.resolve(host, "x")
