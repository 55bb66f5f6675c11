# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of escrow bundles, and the call of age."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _escrow

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKTP0NScV0X6jBrbnnsRbQtQ0hA7I6q3hz4F0vQHSlJH"
SALT = "ab" * 32


def test_fingerprint_depends_on_content_and_salt_but_not_on_order() -> None:
    first = _escrow.fingerprint({"a": 1, "b": None}, SALT)
    assert len(first) == 32
    assert first == _escrow.fingerprint({"b": None, "a": 1}, SALT)
    assert first != _escrow.fingerprint({"a": 2, "b": None}, SALT)
    assert first != _escrow.fingerprint({"a": 1, "b": None}, "cd" * 32)


def test_recipients_are_a_set_and_comments_do_not_count() -> None:
    digest = _escrow.recipients_digest([RECIPIENT, f"{SSH} ann@home"])
    assert len(digest) == 16
    assert digest == _escrow.recipients_digest([SSH, RECIPIENT, RECIPIENT])
    assert digest != _escrow.recipients_digest([RECIPIENT])


def test_bundle_names() -> None:
    digest = "0" * 32
    name = _escrow.bundle_name("age", digest, [RECIPIENT])
    assert name == f"{digest}-{_escrow.recipients_digest([RECIPIENT])}.age"
    assert _escrow.BUNDLE_NAME.match(name)
    plain = _escrow.bundle_name("controller", digest, [])
    assert plain == f"{digest}.json"
    assert _escrow.BUNDLE_NAME.match(plain)
    assert _escrow.bundle_name("none", digest, []) is None
    for bad in ("../x.age", f"{digest}.age", f"{digest}-{'0' * 16}.age\n", ".json", f"{digest}-{'0' * 16}.json"):
        assert not _escrow.BUNDLE_NAME.match(bad)


@pytest.mark.parametrize("recipients", [[RECIPIENT], [SSH, f"{SSH} with a comment"], ["ssh-rsa AAAA="], ["age1pq1xyz"]])
def test_good_recipients(recipients: list[str]) -> None:
    _escrow.check_recipients(recipients)


@pytest.mark.parametrize("bad", ["", "age2x", "-R/etc/shadow", "ssh-dss AAAA", f"{SSH}\nx", "age1UPPER"])
def test_bad_recipient_is_named(bad: str) -> None:
    with pytest.raises(_escrow.EscrowError, match=r"backup_escrow\.recipients") as caught:
        _escrow.check_recipients([RECIPIENT, bad])
    assert repr(bad) in str(caught.value)


def test_a_secret_key_among_the_recipients_is_not_shown() -> None:
    with pytest.raises(_escrow.EscrowError, match="never put it here") as caught:
        _escrow.check_recipients(["AGE-SECRET-KEY-1QQQQ"])
    assert "QQQQ" not in str(caught.value)


def test_no_recipient_at_all() -> None:
    with pytest.raises(_escrow.EscrowError, match="recipients` is empty"):
        _escrow.check_recipients([])


class _Age:
    """Stands for subprocess.run and remembers its call."""

    def __init__(self, returncode: int = 0, stdout: bytes = b"", stderr: bytes = b"", error: Exception | None = None):
        self._done = subprocess.CompletedProcess([], returncode, stdout, stderr)
        self._error = error
        self.argv: list[str] = []
        self.options: dict[str, Any] = {}

    def __call__(self, argv: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        self.argv, self.options = argv, options
        if self._error:
            raise self._error
        return self._done


def test_plaintext_goes_over_standard_input_only(monkeypatch: pytest.MonkeyPatch) -> None:
    age = _Age(stdout=_escrow.AGE_MAGIC + b"rest")
    monkeypatch.setattr(subprocess, "run", age)
    content = {"password": "canary-secret"}
    assert _escrow.encrypt(content, [RECIPIENT, SSH], "/opt/age") == _escrow.AGE_MAGIC + b"rest"
    assert age.argv == ["/opt/age", "--encrypt", "--recipient", RECIPIENT, "--recipient", SSH]
    assert age.options["input"] == b'{"password":"canary-secret"}'
    assert age.options["env"] == {"LC_ALL": "C", "PATH": "/usr/local/bin:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("age", "message"),
    [
        (_Age(1, b"", b"age: error: malformed recipient\nage: report"), "recipients`: age: error: malformed recipient"),
        (_Age(3), "exit status 3"),
        (_Age(0, b"something else"), "exit status 0"),
        (_Age(error=FileNotFoundError()), "`age` is not installed"),
        (_Age(error=PermissionError(13, "Permission denied")), "cannot be started: Permission denied"),
        (_Age(error=subprocess.TimeoutExpired("age", 60)), "did not finish within 60 s"),
    ],
)
def test_failures_of_age(age: _Age, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", age)
    with pytest.raises(_escrow.EscrowError) as caught:
        _escrow.encrypt({"password": "canary-secret"}, [RECIPIENT], "age")
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_missing_program_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(_escrow.AgeMissing):
        _escrow.encrypt({}, [RECIPIENT], str(tmp_path / "age"))
