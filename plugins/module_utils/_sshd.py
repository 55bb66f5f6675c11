# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A drop-in of sshd, tried before it is installed: a copy of the configuration that includes it, and what sshd makes of it."""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MAIN = "/etc/ssh/sshd_config"
SSHD = "/usr/sbin/sshd"
_INCLUDE = re.compile(r"\A\s*include[\s=]+(?P<patterns>.+?)\s*\Z", re.IGNORECASE)
_MATCH = re.compile(r"^\s*match[\s=]", re.IGNORECASE | re.MULTILINE)
_USER = re.compile(r"\A[a-z_][a-z0-9_-]{0,31}\Z")
# Where a login may seem to come from; a Match block can look at the address.
ADDRESSES = ("192.0.2.1", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Candidate:
    """The copy of the main file, whether it includes the drop-in, and whether other files have Match blocks."""

    text: str
    included: bool
    others_match: bool


def check_user(user: str) -> str:
    """Return a name that can stand in `sshd -C`. Raises ValueError."""
    if not _USER.match(user):
        raise ValueError(f"users: {user!r} is not the name of an account")
    return user


def make_candidate(main: str, drop_in: str, copy: str) -> Candidate:
    """Return the main file with its includes spelled out and `copy` in the place of `drop_in`.

    Includes of included files are left to sshd.
    """
    lines = []
    included = others = False
    others = _MATCH.search(main) is not None
    for line in main.splitlines():
        found = _INCLUDE.match(line)
        if found is None:
            lines.append(line)
            continue
        for pattern in found["patterns"].replace('"', " ").split():
            full = pattern if pattern.startswith("/") else posixpath.join(posixpath.dirname(MAIN), pattern)
            paths = set(glob.glob(full))
            if posixpath.dirname(full) == posixpath.dirname(drop_in) and _matches(drop_in, full):
                paths.add(drop_in)
            for path in sorted(paths):
                included = included or path == drop_in
                others = others or (path != drop_in and _has_match(path))
                lines.append(f"Include {copy if path == drop_in else path}")
    return Candidate("\n".join(lines) + "\n", included, others)


def _matches(path: str, pattern: str) -> bool:
    if path == pattern:
        return True
    expression = "".join("[^/]*" if each == "*" else "[^/]" if each == "?" else re.escape(each) for each in pattern)
    return re.match(rf"\A{expression}\Z", path) is not None


def _has_match(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return _MATCH.search(stream.read()) is not None
    except OSError:
        return False


def probes(users: Sequence[str], others_match: bool) -> list[str]:
    """Return what to ask `sshd -T -C`: every account where another Match block could hold for one of them only."""
    asked = [(user, ADDRESSES[0]) for user in (users if others_match else users[:1])]
    asked += [(user, address) for user in users[:1] for address in ADDRESSES[1:]]
    return [f"user={user},host=client,addr={address},laddr=192.0.2.2,lport=22,rdomain=" for user, address in asked]


def parse_settings(text: str) -> dict[str, list[str]]:
    """Return what `sshd -T` printed: values by keyword, in order."""
    settings: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _space, value = line.partition(" ")
        settings.setdefault(keyword.lower(), []).append(value)
    return settings


def differences(settings: Mapping[str, Iterable[str]], required: Mapping[str, str]) -> list[str]:
    """Return what is not as required, as `keyword: is, must be`; a keyword that this sshd does not know is an error."""
    wrong = []
    for keyword, value in sorted(required.items()):
        found = " ".join(settings.get(keyword.lower(), ["not known to this sshd"]))
        if found != value:
            wrong.append(f"{keyword} is {found!r} and must be {value!r}")
    return wrong
