# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A key file of restic whose password is cheap to try, for repositories that tests open many times.

restic chooses scrypt's parameters so that it takes half a second of computing to open a repository, and writes them into
the key file. The same master key under the same password with small parameters opens at once; restic does the same.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

CHEAP = {"N": 1024, "r": 8, "p": 1}
NONCE = TAG = 16


def cheap(key_file: bytes, password: str) -> bytes:
    """The content of a key file, for the same password."""
    key = json.loads(key_file)
    sealed = base64.b64decode(key["data"])
    nonce, text, tag = sealed[:NONCE], sealed[NONCE:-TAG], sealed[-TAG:]
    encryption, mac = _user_key(key, password, nonce)
    Poly1305.verify_tag(mac, text, tag)
    master = _cipher(encryption, nonce, text)

    key |= CHEAP
    nonce = os.urandom(NONCE)
    encryption, mac = _user_key(key, password, nonce)
    text = _cipher(encryption, nonce, master)
    key["data"] = base64.b64encode(nonce + text + Poly1305.generate_tag(mac, text)).decode()
    return json.dumps(key).encode()


def make_cheap(repository: Path, password: str) -> None:
    """Rewrite the only key of a repository."""
    (old,) = (repository / "keys").iterdir()
    content = cheap(old.read_bytes(), password)
    old.unlink()
    new = repository / "keys" / name(content)
    new.write_bytes(content)
    new.chmod(0o400)


def name(key_file: bytes) -> str:
    """What restic calls a key file."""
    return hashlib.sha256(key_file).hexdigest()


def _user_key(key: dict[str, object], password: str, nonce: bytes) -> tuple[bytes, bytes]:
    """The key of AES and the one-time key of Poly1305."""
    cost, size, parallel = (int(str(key[each])) for each in ("N", "r", "p"))
    salt = base64.b64decode(str(key["salt"]))
    derived = hashlib.scrypt(password.encode(), salt=salt, n=cost, r=size, p=parallel, maxmem=1 << 30, dklen=64)
    encryption, k, r = derived[:32], derived[32:48], derived[48:]
    block = Cipher(algorithms.AES(k), modes.ECB()).encryptor()  # noqa: S305 - one block, as Poly1305-AES has it
    return encryption, r + block.update(nonce)


def _cipher(key: bytes, nonce: bytes, text: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor().update(text)
