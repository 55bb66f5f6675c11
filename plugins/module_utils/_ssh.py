# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of SSH: read strictly, since hosts deliver them and servers act on them, and made by `ssh-keygen`."""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable

# How a repository is reached with a key of the client's own: restic through rclone or sftp, borg by itself.
ACCESS = ("rclone", "sftp", "ssh")
# More than any sshd has, and a longer one than any key of a size that somebody uses.
MAX_HOST_KEYS = 8
MAX_LINE = 6000

_PUBLIC = re.compile(r"\A(ssh-ed25519) ([A-Za-z0-9+/]{68})\Z")
_HOST_KEY = re.compile(r"\A(ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa) ([A-Za-z0-9+/]+={0,2})\Z")
_PRIVATE = re.compile(
    r"\A-----BEGIN OPENSSH PRIVATE KEY-----\n((?:[A-Za-z0-9+/=]{1,76}\n)+)-----END OPENSSH PRIVATE KEY-----\n\Z"
)
_MAGIC = b"openssh-key-v1\0"
_POINT_BYTES = {"256": 65, "384": 97, "521": 133}
_RSA_BITS = range(2048, 16385)


class SshError(ValueError):
    """Something is no key, or none can be made; the message holds no secret."""


def _first(blob: bytes, count: int) -> list[bytes]:
    """The first `count` length-prefixed strings of `blob`, and what follows them. Raises SshError where it is cut."""
    found = []
    for _number in range(count):
        length = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + length or len(blob) < 4:
            raise SshError("it is damaged")
        found.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return [*found, blob]


def _strings(blob: bytes) -> list[bytes]:
    """The length-prefixed strings that `blob` consists of. Raises SshError where it is cut or has more."""
    found = []
    while blob:
        each, blob = _first(blob, 1)
        found.append(each)
    return found


def _blob(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SshError("it is damaged: it is not base64") from None


def public_key(text: str) -> str:
    """`ssh-ed25519 BASE64` if `text` is exactly that, without options, comment or line end. Raises SshError."""
    found = _PUBLIC.match(text)
    if not found:
        raise SshError("it is not one line 'ssh-ed25519 BASE64' without options and comment")
    parts = _strings(_blob(found.group(2)))
    if len(parts) != 2 or parts[0] != b"ssh-ed25519" or len(parts[1]) != 32:
        raise SshError("it is no ed25519 key")
    return text


def host_key(text: str) -> str:
    """`TYPE BASE64` of an ed25519, ECDSA or RSA key (2048 bits at least) if `text` is exactly that. Raises SshError."""
    found = _HOST_KEY.match(text) if len(text) <= MAX_LINE else None
    if not found:
        raise SshError("it is not one line 'TYPE BASE64' of an ed25519, ECDSA or RSA key")
    kind, *parts = _strings(_blob(found.group(2)))
    if kind != found.group(1).encode("ascii"):
        raise SshError("its type is another one inside")
    if kind == b"ssh-ed25519":
        good = len(parts) == 1 and len(parts[0]) == 32
    elif kind == b"ssh-rsa":
        good = len(parts) == 2 and int.from_bytes(parts[1], "big").bit_length() in _RSA_BITS
    else:
        curve = kind[len(b"ecdsa-sha2-") :]
        size = _POINT_BYTES[curve[-3:].decode("ascii")]
        good = len(parts) == 2 and parts[0] == curve and len(parts[1]) == size and parts[1][:1] == b"\4"
    if not good:
        raise SshError(f"it is no key of the type {found.group(1)}, or one of a size that is not used")
    return text


def host_keys(lines: Iterable[str]) -> list[str]:
    """The host keys in `lines`, sorted, each once. Raises SshError where one is none, or there are none or too many."""
    found = sorted({host_key(line) for line in lines})
    if not 0 < len(found) <= MAX_HOST_KEYS:
        raise SshError(f"there are {len(found)} host keys, not 1 to {MAX_HOST_KEYS}")
    return found


def public_of(private: str) -> str:
    """The public half `ssh-ed25519 BASE64` of a private key as OpenSSH writes it without passphrase. Raises SshError."""
    found = _PRIVATE.match(private)
    content = _blob("".join(found.group(1).split())) if found else b""
    if not content.startswith(_MAGIC):
        raise SshError("it is no private key of OpenSSH")
    cipher, kdf, options, rest = _first(content[len(_MAGIC) :], 3)
    public, _private, extra = _first(rest[4:], 2)
    if (cipher, kdf, options, rest[:4], extra) != (b"none", b"none", b"", b"\0\0\0\1", b""):
        raise SshError("it is no single private key without a passphrase")
    return public_key(f"ssh-ed25519 {base64.b64encode(public).decode('ascii')}")


def make_key(directory: str, comment: str, program: str = "ssh-keygen", timeout: float = 60) -> str:
    """A new private ed25519 key without passphrase. It is made in `directory`, which only root can read, and not left there.

    `timeout` is in seconds. Raises SshError when ssh-keygen is missing or fails, OSError when a file cannot be read or removed.
    """
    # What cannot be removed is an error of its own: a private key must not stay where nobody knows of it.
    with tempfile.TemporaryDirectory(prefix=".ssh-", dir=directory) as place:
        path = os.path.join(place, "key")
        argv = [program, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path]
        try:
            done = subprocess.run(  # pylint: disable=ansible-bad-function # no AnsibleModule here
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=timeout,
                env={"LC_ALL": "C", "PATH": "/usr/local/bin:/usr/bin:/bin"},
            )
        except FileNotFoundError:
            raise SshError(f"`{program}` is not installed: keys are made with it (package openssh-client)") from None
        except subprocess.TimeoutExpired:
            raise SshError(f"`{program}` did not finish within {timeout:g} s") from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
            raise SshError(f"`{program}` made no key: {said[0]}")
        with open(path, encoding="ascii") as stream:
            private = stream.read()
    public_of(private)
    return private
