# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Public keys as a client delivers them: one ed25519 key, or a reason why not."""

from __future__ import annotations

import base64
import hashlib
import re

from ._ssh import SshError, public_key

TYPE = "ssh-ed25519"
_KEY = re.compile(r"\Assh-ed25519 (?P<blob>[A-Za-z0-9+/]{68})(?: [ -~]*)?\n?\Z")
_LONGEST = 512
_SHOWN = 40


def parse_public_key(text: object) -> str:
    """Return the base64 blob of one ed25519 public key; its comment is thrown away.

    Raises ValueError that says what is wrong, without naming the option and with no more than a beginning of the text.
    """
    if not isinstance(text, str):
        raise ValueError(f"is not text but {type(text).__name__}")
    shown = repr(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")
    if len(text) > _LONGEST:
        raise ValueError(f"is {len(text)} characters long, a public key has at most {_LONGEST}: {shown}")
    if "\n" in text.rstrip("\n") or text.endswith("\n\n") or "\r" in text:
        raise ValueError(f"is more than one line: {shown}")
    found = _KEY.match(text)
    if found is None:
        if TYPE in text and not text.startswith(TYPE):
            raise ValueError(f"has something before the key, options for instance, which is not allowed: {shown}")
        raise ValueError(f"is not an ed25519 public key (ssh-ed25519 AAAA… and a comment): {shown}")
    try:
        public_key(f"{TYPE} {found['blob']}")
    except SshError:
        raise ValueError(f"says ssh-ed25519, but its content is something else: {shown}") from None
    return found["blob"]


def fingerprint(blob: str) -> str:
    """Return the fingerprint of a blob as ssh-keygen shows it: SHA256:…"""
    digest = hashlib.sha256(base64.b64decode(blob)).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")
