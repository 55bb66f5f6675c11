# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Escrow bundles: what restores a repository when its client is gone, encrypted by `age` on the client.

A bundle's name is `<fingerprint of its plaintext>-<digest of the recipients>.age`, so that a bundle is re-made exactly
when one of the two changes, and no bundle ever takes another's place.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import subprocess
from collections.abc import Iterable
from typing import Any

FORMAT = 1
AGE_MAGIC = b"age-encryption.org/v1\n"
BUNDLE_NAME = re.compile(r"\A[0-9a-f]{32}(?:-[0-9a-f]{16}\.age|\.json)\Z")
# The directory of a repository's copies on its server, `<backup_id>--<repository>`.
COPIES = r"[a-z][a-z0-9-]{0,27}--[a-z][a-z0-9-]{0,27}"

_RECIPIENT = re.compile(r"\A(?:age1[a-z0-9]+|ssh-(?:ed25519|rsa) [A-Za-z0-9+/=]+(?: [^\n\r]*)?)\Z")


class EscrowError(Exception):
    """A bundle cannot be made; the message names the option and never holds a secret."""


class AgeMissing(EscrowError):
    """The program `age` is not installed."""


def canonical(content: dict[str, Any]) -> bytes:
    """The one spelling of a bundle's plaintext."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def fingerprint(content: dict[str, Any], salt: str) -> str:
    """32 hexadecimal digits that change with the plaintext. The salt stays secret, so they give nothing to guess on."""
    return hmac.new(bytes.fromhex(salt), canonical(content), hashlib.sha256).hexdigest()[:32]


def recipients_digest(recipients: Iterable[str]) -> str:
    """16 hexadecimal digits of the set of recipients: order, repetition and comments of SSH keys do not count."""
    keys = sorted({" ".join(recipient.split(" ")[:2]) for recipient in recipients})
    return hashlib.sha256("\n".join(keys).encode("utf-8")).hexdigest()[:16]


def bundle_name(mode: str, digest_of_plaintext: str, recipients: Iterable[str]) -> str | None:
    """File name of a bundle in the state directory; None where `mode` keeps no escrow."""
    if mode == "age":
        return f"{digest_of_plaintext}-{recipients_digest(recipients)}.age"
    return f"{digest_of_plaintext}.json" if mode == "controller" else None


def check_recipients(recipients: list[str]) -> None:
    """Raise EscrowError unless each recipient has the form of an age or SSH public key, and there is one."""
    if not recipients:
        raise EscrowError(
            "`backup_escrow.recipients` is empty: give at least one age public key, as `age-keygen` prints it"
        )
    for recipient in recipients:
        if not _RECIPIENT.match(recipient):
            shown = "an AGE-SECRET-KEY (never put it here)" if "SECRET" in recipient.upper() else repr(recipient)
            raise EscrowError(
                f"`backup_escrow.recipients`: {shown} is no recipient; use `age1…`, `ssh-ed25519 …` or `ssh-rsa …`"
            )


def encrypt(content: dict[str, Any], recipients: list[str], age: str, timeout: float = 60) -> bytes:
    """Encrypt to all recipients with the program `age`; the plaintext goes over standard input only.

    `timeout` is in seconds. Raises EscrowError when age is missing, refuses a recipient or fails.
    """
    argv = [age, "--encrypt"]
    for recipient in recipients:
        argv += ["--recipient", recipient]
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function # no AnsibleModule here
            argv,
            input=canonical(content),
            capture_output=True,
            check=False,
            timeout=timeout,
            env={"LC_ALL": "C", "PATH": "/usr/local/bin:/usr/bin:/bin"},
        )
    except FileNotFoundError as error:
        raise AgeMissing(f"`{age}` is not installed: escrow bundles are made with age") from error
    except OSError as error:
        raise EscrowError(f"`{age}` cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise EscrowError(f"`{age}` did not finish within {timeout:g} s") from error
    if done.returncode != 0 or not done.stdout.startswith(AGE_MAGIC):
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise EscrowError(f"age refused `backup_escrow.recipients`: {lines[0]}")
    return done.stdout
