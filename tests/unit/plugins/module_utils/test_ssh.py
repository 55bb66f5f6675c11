# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys of SSH, read strictly. The keys are made by ssh-keygen itself."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _ssh
from ansible_collections.holdfast.backup.plugins.module_utils._ssh import SshError

KINDS = {
    "ed25519": [],
    "rsa": ["-b", "2048"],
    "ecdsa": ["-b", "521"],
}


def keygen(place: Path, kind: str, *options: str, passphrase: str = "") -> tuple[str, str]:
    """The private key, and the public one without its comment."""
    path = place / "key"
    argv = ["ssh-keygen", "-q", "-t", kind, *options, "-N", passphrase, "-C", "a comment", "-f", str(path)]
    subprocess.run(argv, check=True, timeout=60, stdin=subprocess.DEVNULL)
    return path.read_text(), " ".join(Path(f"{path}.pub").read_text().split()[:2])


def changed(key: str, **replaced: bytes) -> str:
    """The same key with some bytes of its blob replaced."""
    kind, _space, text = key.partition(" ")
    blob = base64.b64decode(text)
    for old, new in replaced.items():
        assert old.encode() in blob
        blob = blob.replace(old.encode(), new)
    return f"{kind} {base64.b64encode(blob).decode()}"


def test_public_keys(tmp_path: Path) -> None:
    private, public = keygen(tmp_path, "ed25519")
    assert _ssh.public_key(public) == public
    assert _ssh.public_of(private) == public
    for text in (
        f"{public}\n",
        f"{public}\n{public}",
        f"{public} comment",
        f" {public}",
        f'command="id" {public}',
        f"restrict {public}",
        public.replace("ssh-ed25519 ", "ssh-ed25519  "),
        public[:-1],
        public[:-4],
        f"{public}AAAA",
        public.replace("ssh-ed25519 A", "ssh-ed25519 B"),
        "ssh-ed25519 " + "A" * 68,
        "ssh-ed25519 " + "A" * 1_000_000,
        "https://example.net/key",
        "",
        changed(public, ed25519=b"ed25518"),
    ):
        with pytest.raises(SshError):
            _ssh.public_key(text)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_keys_are_no_keys_of_clients(tmp_path: Path, kind: str) -> None:
    private, public = keygen(tmp_path, kind, *KINDS[kind])
    with pytest.raises(SshError):
        _ssh.public_key(public)
    with pytest.raises(SshError):
        _ssh.public_of(private)


def test_private_keys_that_are_none(tmp_path: Path) -> None:
    private, _public = keygen(tmp_path, "ed25519")
    lines = private.splitlines(keepends=True)
    content = base64.b64decode("".join(lines[1:-1]))

    def pem(blob: bytes) -> str:
        return f"{lines[0]}{base64.encodebytes(blob).decode()}{lines[-1]}"

    assert _ssh.public_of(pem(content)) == _public
    for text in (
        "",
        private.replace("OPENSSH", "RSA"),
        private.rstrip("\n"),
        f"{private}{private}",
        "".join([lines[0], *lines[2:]]),
        "".join([*lines[:2], lines[-1]]),
        pem(content[:30]),
        pem(content + b"x"),
        pem(content.replace(b"\0\0\0\1", b"\0\0\0\2", 1)),
        "".join([lines[0], "A===\n", lines[-1]]),
    ):
        with pytest.raises(SshError):
            _ssh.public_of(text)
    (tmp_path / "key").unlink()
    (tmp_path / "key.pub").unlink()
    with pytest.raises(SshError, match="without a passphrase"):
        _ssh.public_of(keygen(tmp_path, "ed25519", passphrase="geheim")[0])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_host_keys(tmp_path: Path, kind: str) -> None:
    public = keygen(tmp_path, kind, *KINDS[kind])[1]
    assert _ssh.host_key(public) == public
    name = public.partition(" ")[0]
    for text in (
        f"{public}\n",
        f"{public} comment",
        f"host {public}",
        f"@cert-authority * {public}",
        public[:-8],
        f"{public}AAAA",
        f"{name} AAAA",
        f"{name} A",
        f"{name} " + "A" * 10_000,
        "ssh-dss" + public[len(name) :],
    ):
        with pytest.raises(SshError):
            _ssh.host_key(text)


def test_a_host_key_of_another_type_inside(tmp_path: Path) -> None:
    public = keygen(tmp_path, "ed25519")[1]
    with pytest.raises(SshError, match="another one inside"):
        _ssh.host_key(public.replace("ssh-ed25519 ", "ssh-rsa "))


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SshError, match="size"):
        _ssh.host_key(keygen(tmp_path, "rsa", "-b", "1024")[1])


def test_an_ecdsa_key_of_another_curve_is_refused(tmp_path: Path) -> None:
    public = keygen(tmp_path, "ecdsa", "-b", "256")[1]
    blob = base64.b64decode(public.split(" ")[1])
    head, curve, rest = blob.partition(b"\0\0\0\x08nistp256")
    bad = base64.b64encode(head + curve.replace(b"256", b"384") + rest).decode()
    with pytest.raises(SshError, match="size"):
        _ssh.host_key(f"ecdsa-sha2-nistp256 {bad}")


def test_several_host_keys(tmp_path: Path) -> None:
    one = keygen(tmp_path, "ed25519")[1]
    assert _ssh.host_keys([one, one]) == [one]
    with pytest.raises(SshError, match="there are 0"):
        _ssh.host_keys([])
    many = [one[:-1] + letter for letter in "ABCDEFGHI"]
    with pytest.raises(SshError, match="there are 9"):
        _ssh.host_keys(many)


def test_a_key_is_made_and_nothing_is_left_behind(tmp_path: Path) -> None:
    private = _ssh.make_key(str(tmp_path), "web1 offsite 2026-11-21")
    assert _ssh.public_of(private).startswith("ssh-ed25519 ")
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "key"
    path.write_text(private)
    path.chmod(0o600)
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "web1 offsite 2026-11-21 (ED25519)" in shown.stdout


def test_a_key_that_stays_where_it_was_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = os.unlink

    def kept(path: Any, *arguments: Any, **more: Any) -> None:
        if os.fspath(path).endswith("key"):
            raise OSError(5, "Input/output error", path)
        unlink(path, *arguments, **more)

    monkeypatch.setattr(os, "unlink", kept)
    with pytest.raises(OSError, match="Input/output error"):
        _ssh.make_key(str(tmp_path), "x")


def test_no_key_is_made(tmp_path: Path) -> None:
    with pytest.raises(SshError, match="is not installed"):
        _ssh.make_key(str(tmp_path), "x", program="no-such-program")
    with pytest.raises(SshError, match="exit status 1"):
        _ssh.make_key(str(tmp_path), "x", program="false")
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 5\n")
    slow.chmod(0o755)
    with pytest.raises(SshError, match=r"within 0\.1 s"):
        _ssh.make_key(str(tmp_path), "x", program=str(slow), timeout=0.1)
    assert list(tmp_path.iterdir()) == [slow]
