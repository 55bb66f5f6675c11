# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bcrypt through the system's libxcrypt: Python's own `crypt` module is gone from 3.13."""

from __future__ import annotations

import ctypes
import functools
import hmac
import os
import re

HASH = re.compile(r"\A\$2b\$([0-9]{2})\$[./A-Za-z0-9]{53}\Z")
# Clients hash with it, and servers take no other.
COST = 12
MIN_COST = 4
MAX_COST = 16

_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2")
_SIZE_OF_CRYPT_DATA = 32768
_SIZE_OF_GENSALT_OUTPUT = 192
_MAX_PASSWORD_BYTES = 72


class BcryptError(Exception):
    """The system cannot make bcrypt hashes, or the password cannot be hashed."""


def cost_of(hashed: str) -> int | None:
    """The cost of a `$2b$` hash, None if `hashed` is not a whole one."""
    found = HASH.match(hashed)
    return int(found.group(1)) if found else None


def hash_password(password: str, cost: int) -> str:
    """Hash with a new random salt; 2**cost rounds (cost 12 takes about 0.25 s).

    Raises BcryptError for a cost outside 4 to 16, and for a password that bcrypt would cut.
    """
    if not MIN_COST <= cost <= MAX_COST:
        raise BcryptError(f"bcrypt cost {cost} is not between {MIN_COST} and {MAX_COST}")
    output = ctypes.create_string_buffer(_SIZE_OF_GENSALT_OUTPUT)
    random = os.urandom(16)
    setting = _library().crypt_gensalt_rn(b"$2b$", cost, random, len(random), output, len(output))
    if setting is None:
        raise BcryptError("libcrypt does not offer bcrypt ($2b$)")
    hashed = _crypt(password, setting)
    if cost_of(hashed) != cost:
        raise BcryptError("libcrypt returned something that is not a bcrypt hash")
    return hashed


def verify(password: str, hashed: str) -> bool:
    """Whether `hashed`, a `$2b$` hash, is one of `password`. A hash of another form or a huge cost is False."""
    cost = cost_of(hashed)
    if cost is None or not MIN_COST <= cost <= MAX_COST:
        return False
    return hmac.compare_digest(_crypt(password, hashed.encode("ascii")), hashed)


def _crypt(password: str, setting: bytes) -> str:
    phrase = password.encode("utf-8")
    if b"\0" in phrase or len(phrase) > _MAX_PASSWORD_BYTES:
        raise BcryptError(f"bcrypt takes passwords of at most {_MAX_PASSWORD_BYTES} bytes without NUL")
    data = ctypes.create_string_buffer(_SIZE_OF_CRYPT_DATA)
    result: bytes | None = _library().crypt_rn(phrase, setting, data, len(data))
    if result is None:
        raise BcryptError("libcrypt refused to hash")
    return result.decode("ascii")


@functools.cache
def _library() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            library.crypt_gensalt_rn.restype = ctypes.c_char_p
            library.crypt_gensalt_rn.argtypes = [
                ctypes.c_char_p,
                ctypes.c_ulong,
                ctypes.c_char_p,
                ctypes.c_int,
                ctypes.c_char_p,
                ctypes.c_int,
            ]
            library.crypt_rn.restype = ctypes.c_char_p
            library.crypt_rn.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
        except (OSError, AttributeError):
            continue
        return library
    raise BcryptError(f"no libxcrypt ({' or '.join(_LIBRARIES)}) with crypt_gensalt_rn on this host: install libcrypt1")
