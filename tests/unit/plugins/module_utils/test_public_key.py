# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A public key of a client is one ed25519 key or nothing."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._public_key import fingerprint, parse_public_key

# Made by ssh-keygen, and what `ssh-keygen -l` says of it.
BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIJxTCxVUEmYLbMIvQJYHbEXPoyVLXTwDrN0qcvVVBTZY"
RSA = base64.b64encode(b"\0\0\0\x07ssh-rsa\0\0\0\3\1\0\1\0\0\0\x81" + bytes(129)).decode()


def test_good_keys() -> None:
    for text in (f"ssh-ed25519 {BLOB}", f"ssh-ed25519 {BLOB}\n", f'ssh-ed25519 {BLOB} web1 "vault" 2026\n'):
        assert parse_public_key(text) == BLOB


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "not text"),
        ("", "not an ed25519"),
        (f"ssh-ed25519 {BLOB}\nssh-ed25519 {BLOB}", "more than one line"),
        (f"ssh-ed25519 {BLOB}\n\n", "more than one line"),
        (f"ssh-ed25519 {BLOB} a\rb", "more than one line"),
        (f'command="sh" ssh-ed25519 {BLOB}', "something before the key"),
        (f" ssh-ed25519 {BLOB}", "something before the key"),
        (f"ssh-rsa {RSA} web1", "not an ed25519"),
        (f"ssh-ed25519 {RSA[:68]}", "something else"),
        (f"ssh-ed25519 {BLOB}A", "not an ed25519"),
        (f"ssh-ed25519 {BLOB[:-4]}", "not an ed25519"),
        (f"ssh-ed25519 {BLOB} caf\xe9", "not an ed25519"),
        (f"ssh-ed25519 {BLOB} nul\0", "not an ed25519"),
        (f"ssh-ed25519\t{BLOB}", "not an ed25519"),
        (f"cert-authority ssh-ed25519 {BLOB}", "something before"),
        (f"ssh-ed25519-cert-v01@openssh.com {BLOB}", "not an ed25519"),
        ("https://example.net/keys", "not an ed25519"),
        ("A" * 1_000_000, "1000000 characters"),
        (f"ssh-ed25519 {BLOB} {'c' * 1_000_000}", "characters long"),
    ],
)
def test_bad_keys(text: object, why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        parse_public_key(text)
    assert len(str(raised.value)) < 200


def test_fingerprint_is_that_of_ssh_keygen() -> None:
    assert fingerprint(BLOB) == "SHA256:TMpN2SpJMQ8sG/GiNYR/YZaNqE2IfuBz6qK7dBpxntQ"
