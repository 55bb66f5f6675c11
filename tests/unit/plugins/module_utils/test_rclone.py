# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""rclone's configuration files, and its errors as rclone 1.75.2 said them."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _floors, _rclone

# The tests' own environment has an rclone; the system's may be any.
RCLONE = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
ODD = [
    "plain", "with space", "`tick", '"quoted"', '"""x"""', "a=b:c#d;e", "[x]", "[other]", "`x`", "#lead", ";lead", "a`b", "tick`",
    '"', "\\n\\", "ünïcödé", "-", "$x ${y} %n %h %", "''", "``", "``x``y`", '"""', "= x", ": x", "%", "(x)s",
]  # fmt: skip


def values() -> dict[str, str]:
    chance = random.Random(3)
    made = [
        "".join(chance.choice("`\"'=[]:;# %\\ab") for _char in range(chance.randint(1, 12))) for _value in range(200)
    ]
    return {f"o{number}": value.replace("%(", "x") for number, value in enumerate([*ODD, *made])}


def test_rclone_reads_back_what_was_rendered(tmp_path: Path) -> None:
    if RCLONE is None:
        pytest.skip("no rclone beside this Python: it is among the requirements of the tests")
    path = tmp_path / "x.conf"
    path.write_text(_rclone.render("my-remote", {"type": "s3", **values()}))
    command = [RCLONE, "config", "dump", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout) == {"my-remote": {"type": "s3", **values()}}


def test_what_was_rendered_is_parsed_back() -> None:
    assert _rclone.parse(_rclone.render("x", values())) == values()


def test_options_are_compared_with_those_of_the_installed_rclone() -> None:
    providers = json.dumps([{"Name": "s3", "Options": [{"Name": "region"}, {"Name": "acl"}]}])
    assert _rclone.unknown_options(providers, "s3", ["type", "region", "regoin"]) == (
        ["regoin"],
        ["acl", "description", "region", "type"],
    )
    assert _rclone.unknown_options(providers, "azureblob", ["type"]) is None
    for answer in ("", "{}x", '[{"Name": 1}]', "[1]"):
        with pytest.raises(ValueError, match="did not answer"):
            _rclone.unknown_options(answer, "s3", [])


S3 = "2026/11/21 16:37:16 NOTICE: Failed to lsf with 2 errors: last error was: error in ListJSON: operation error S3: ListObjects, "
CODES = "https response error StatusCode: {}, RequestID: , HostID: , api error {}: words"
DIAL = 'https response error StatusCode: 0, RequestID: , HostID: , request send failed, Get "http://store:9/bucket1?prefix=": {}'


@pytest.mark.parametrize(
    ("text", "word", "option"),
    [
        (S3 + CODES.format(403, "InvalidAccessKeyId"), "credentials", "access_key_id"),
        (S3 + CODES.format(403, "SignatureDoesNotMatch"), "credentials", "secret_access_key"),
        (S3 + CODES.format(400, "ExpiredToken"), "credentials", "session_token"),
        (S3 + CODES.format(403, "AccessDenied"), "credentials", None),
        (S3 + "Probable clock skew error: " + CODES.format(403, "RequestTimeTooSkewed"), "clock", None),
        (S3 + CODES.format(403, "QuotaExceeded"), "quota", None),
        (S3 + CODES.format(301, "PermanentRedirect"), "region", "region"),
        (S3 + CODES.format(503, "SlowDown"), "unavailable", None),
        (S3 + CODES.format(500, "InternalError"), "unavailable", None),
        (S3 + DIAL.format("dial tcp: lookup store: no such host"), "dns", "endpoint"),
        (S3 + DIAL.format("dial tcp 127.0.0.1:9: connect: connection refused"), "unreachable", "endpoint"),
        (S3 + DIAL.format("http: server gave HTTP response to HTTPS client"), "tls", "endpoint"),
        (
            "2026 NOTICE: Failed to lsf with 2 errors: last error was: error in ListJSON: directory not found",
            "absent",
            None,
        ),
        (
            'CRITICAL: Failed to create file system for "x:": input too short when revealing password - is it obscured?',
            "credentials",
            "pass",
        ),
        (
            "CRITICAL: NewFs: couldn't connect SSH: ssh: handshake failed: knownhosts: key mismatch",
            "credentials",
            "known_hosts_file",
        ),
        ("something else", "unknown", None),
    ],
)
def test_errors_are_told_apart(text: str, word: str, option: str | None) -> None:
    found = _rclone.cause(1, text)
    assert (found.word, found.option) == (word, option)


def test_the_exit_code_and_the_time_limit_count_where_words_do_not() -> None:
    assert _rclone.cause(3, "").word == "absent"
    assert _rclone.cause(-9, "", timed_out=True).word == "unreachable"
    assert _rclone.cause(1, "").word == "unknown"


def test_what_rclone_said_is_one_line_without_secrets() -> None:
    log = f"first\n{S3}bad\tkey S3CRET of https://user:S3CRET@host\x1b[0m\n"
    text = _rclone.said(log, {"type": "s3", "secret_access_key": "S3CRET", "region": "bad"})
    assert text == "operation error S3: ListObjects, bad key *** of https://user:***@host [0m"
    assert _rclone.said("", {}) == ""
    # A request has a secret in its query, and other words around it than the option.
    url = "https://acct.blob.example/box"
    text = _rclone.said(f'Get "{url}/x?comp=list&sig=S3CRET&sv=1": EOF', {"sas_url": f"{url}?sv=1&sig=S3CRET"})
    assert text == f'Get "{url}/x?***": EOF'


def test_floors_of_remotes_and_of_directories() -> None:
    assert _floors.below("rclone", "1.75.1")
    assert not _floors.below("rclone", "1:1.75.2+dfsg-1")
    assert "CVE-2026-71309" in _floors.floor("rclone").reason
    assert not _floors.below("rclone-directories", "1.60.1+dfsg-4+b10")
