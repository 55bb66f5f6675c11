# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bcrypt through libxcrypt, with the real library."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _bcrypt

# Of the password U*U: a published test vector of crypt_blowfish, with the prefix of today.
KNOWN = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


@pytest.fixture(autouse=True)
def fresh_library() -> Iterator[None]:
    """Load the library anew in each test."""
    _bcrypt._library.cache_clear()
    yield
    _bcrypt._library.cache_clear()


def test_hash_verifies_and_has_the_declared_cost() -> None:
    hashed = _bcrypt.hash_password("päss word", 5)
    assert _bcrypt.cost_of(hashed) == 5
    assert hashed.startswith("$2b$05$")
    assert _bcrypt.verify("päss word", hashed)
    assert not _bcrypt.verify("päss worD", hashed)


def test_each_hash_has_its_own_salt() -> None:
    assert _bcrypt.hash_password("x", 4) != _bcrypt.hash_password("x", 4)


def test_a_hash_of_another_implementation_verifies() -> None:
    assert _bcrypt.verify("U*U", KNOWN)
    assert not _bcrypt.verify("U*V", KNOWN)


@pytest.mark.parametrize(
    "hashed",
    ["", "$2b$31$" + "a" * 53, "$2y$05$" + "a" * 53, "$2b$05$" + "a" * 52, KNOWN + "\n", "$2b$03$" + "a" * 53, "*0"],
)
def test_other_forms_and_hostile_costs_never_reach_the_library(hashed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> str:
        raise AssertionError("hashed")

    monkeypatch.setattr(_bcrypt, "_crypt", refuse)
    assert _bcrypt.verify("x", hashed) is False


@pytest.mark.parametrize("cost", [3, 17, 31])
def test_cost_out_of_range_is_refused(cost: int) -> None:
    with pytest.raises(_bcrypt.BcryptError, match=f"cost {cost} "):
        _bcrypt.hash_password("x", cost)


@pytest.mark.parametrize("password", ["a" * 73, "a\0b"])
def test_passwords_that_bcrypt_would_cut_are_refused(password: str) -> None:
    with pytest.raises(_bcrypt.BcryptError, match="72 bytes"):
        _bcrypt.hash_password(password, 4)


def test_second_library_is_taken_when_the_first_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bcrypt, "_LIBRARIES", ("libnothing.so.9", "libcrypt.so.1"))
    assert _bcrypt.verify("x", _bcrypt.hash_password("x", 4))


def test_missing_and_old_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # libc has no crypt_gensalt_rn, like the libcrypt of glibc.
    monkeypatch.setattr(_bcrypt, "_LIBRARIES", ("libnothing.so.9", "libc.so.6"))
    with pytest.raises(_bcrypt.BcryptError, match=r"libnothing\.so\.9 or libc\.so\.6"):
        _bcrypt.hash_password("x", 4)


class _Library:
    """A libcrypt that answers as told."""

    def __init__(self, setting: bytes | None, result: bytes | None) -> None:
        self._setting, self._result = setting, result

    def crypt_gensalt_rn(self, *_arguments: object) -> bytes | None:
        return self._setting

    def crypt_rn(self, *_arguments: object) -> bytes | None:
        return self._result


@pytest.mark.parametrize(
    ("setting", "result", "message"),
    [
        (None, None, "does not offer bcrypt"),
        (b"$2b$04$x", None, "refused to hash"),
        (b"$2b$04$x", b"$6$rounds", "not a bcrypt hash"),
    ],
)
def test_failures_of_the_library(
    setting: bytes | None, result: bytes | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bcrypt, "_library", lambda: _Library(setting, result))
    with pytest.raises(_bcrypt.BcryptError, match=message):
        _bcrypt.hash_password("x", 4)
