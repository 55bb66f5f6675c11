# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A drop-in of sshd, tried before it is installed: a copy of the configuration that includes it, and what sshd makes of it."""

from __future__ import annotations

import glob
import grp
import os
import posixpath
import pwd
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

MAIN = "/etc/ssh/sshd_config"
SSHD = "/usr/sbin/sshd"
_LINE = re.compile(r'\A[\s"]*(?P<keyword>[A-Za-z0-9]+)[\s"=]+(?P<value>.*?)(?:\s#.*)?\Z', re.DOTALL)
_WORD = re.compile(r'"[^"]*"|[^\s"=]+')
_USER = re.compile(r"\A[a-z_][a-z0-9_-]{0,31}\Z")
# Where a login may seem to come from; a Match block can look at the address.
ADDRESSES = ("192.0.2.1", "127.0.0.1", "::1")
# Other names that sshd takes for what it prints.
_ALIASES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "skeyauthentication": "kbdinteractiveauthentication",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "dsaauthentication": "pubkeyauthentication",
}
# Of other keywords the first value counts; to these each block that holds adds its own.
_ADDED = frozenset({"acceptenv"})
# As deep as sshd follows Include.
_DEPTH = 16

# One condition of a Match line: its name, and the patterns.
Criterion = tuple[str, str]


@dataclass(frozen=True)
class Setting:
    """A line of another file that holds under conditions only, and whether it comes before the drop-in."""

    where: str
    keyword: str
    value: str
    match: tuple[Criterion, ...]
    before: bool


@dataclass(frozen=True)
class Candidate:
    """The copy of the main file, whether it includes the drop-in and under which conditions, and what others set in Match blocks."""

    text: str
    included: bool
    match: tuple[Criterion, ...]
    others: tuple[Setting, ...]


def check_user(user: str) -> str:
    """Return a name that can stand in `sshd -C`. Raises ValueError."""
    if not _USER.match(user):
        raise ValueError(f"users: {user!r} is not the name of an account")
    return user


def make_candidate(main: str, drop_in: str, copy: str) -> Candidate:
    """Return the main file with its includes spelled out and `copy` in the place of `drop_in`.

    Includes of included files are left to sshd, and only read for what they set in Match blocks.
    """
    lines = []
    others: list[Setting] = []
    included: tuple[Criterion, ...] | None = None
    match: tuple[Criterion, ...] = ()
    for number, line in enumerate(main.split("\n"), 1):
        keyword, value = _parsed(line)
        if keyword != "include":
            lines.append(line)
            match = _criteria(value) if keyword == "match" else match
            if keyword and keyword != "match" and match:
                others.append(Setting(f"{MAIN} line {number}", keyword, value, match, included is None))
            continue
        for path in _paths(value, drop_in):
            lines.append(f"Include {copy if path == drop_in else path}")
            if path != drop_in:
                others += _conditional(path, match, included is None, 1)
            elif included is None:
                included = match
    return Candidate("\n".join(lines), included is not None, included or (), tuple(others))


def _parsed(line: str) -> tuple[str, str]:
    """Keyword and value of a line; the keyword is empty where it sets nothing."""
    found = _LINE.match(line.strip())
    if found is None:
        return "", ""
    keyword = found["keyword"].lower()
    return _ALIASES.get(keyword, keyword), found["value"].strip().strip('"')


def _words(value: str) -> list[str]:
    return [word.strip('"') for word in _WORD.findall(value)]


def _criteria(value: str) -> tuple[Criterion, ...]:
    words = iter(_words(value))
    found = []
    for word in words:
        name = word.lower()
        found.append((name, "" if name in ("all", "invalid-user") else next(words, "")))
    return tuple(found)


def _paths(patterns: str, drop_in: str) -> Iterator[str]:
    """What an Include includes, in the order of sshd, with the drop-in even where it is not there yet."""
    for pattern in _words(patterns):
        # sshd begins in this directory in included files, too.
        full = pattern if pattern.startswith("/") else posixpath.join(posixpath.dirname(MAIN), pattern)
        paths = set(glob.glob(full))
        if posixpath.dirname(full) == posixpath.dirname(drop_in) and _matches(drop_in, full):
            paths.add(drop_in)
        yield from sorted(paths)


def _matches(path: str, pattern: str) -> bool:
    if path == pattern:
        return True
    expression = "".join("[^/]*" if each == "*" else "[^/]" if each == "?" else re.escape(each) for each in pattern)
    return re.match(rf"\A{expression}\Z", path) is not None


def _conditional(path: str, within: tuple[Criterion, ...], before: bool, depth: int) -> Iterator[Setting]:
    """What a file, and what it includes, sets in Match blocks; a file that is included in one is all in it."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as stream:
            text = stream.read()
    except OSError:
        return
    match = within
    for number, line in enumerate(text.split("\n"), 1):
        keyword, value = _parsed(line)
        if keyword == "match":
            match = within + _criteria(value)
        elif keyword == "include" and depth < _DEPTH:
            for each in _paths(value, ""):
                yield from _conditional(each, match, before, depth + 1)
        elif keyword and match:
            yield Setting(f"{path} line {number}", keyword, value, match, before)


def unproven(candidate: Candidate, users: Sequence[str], required: Mapping[str, str]) -> list[str]:
    """Return what may be not as required for some clients, and no probe tells: it depends on an address, a port or the like.

    Blocks that hold for none of the users are no matter.
    """
    needed = {keyword.lower(): value for keyword, value in required.items()}
    members: dict[str, tuple[str, ...]] = {}
    known: dict[tuple[Criterion, ...], set[bool | None]] = {}

    def outcomes(match: tuple[Criterion, ...]) -> set[bool | None]:
        if any(name == "group" for name, _patterns in match) and not members:
            members.update({user: _groups(user) for user in users})
        if match not in known:
            known[match] = {_holds(match, user, members.get(user, ())) for user in users}
        return known[match]

    wrong = []
    if None in outcomes(candidate.match):
        wrong.append(f"its Include in {MAIN} is in a block of{_shown(candidate.match)}: put it before the first Match")
    # An open block may set for a probe what a later one, which the probe reaches no more, sets for others.
    hidden: set[str] = set()
    for each in candidate.others:
        if each.keyword not in needed or not (each.before or each.keyword in _ADDED):
            continue
        held = outcomes(each.match)
        if each.value != needed[each.keyword] and (None in held or (True in held and each.keyword in hidden)):
            verb = "has" if each.before else "adds"
            wrong.append(f"{each.where} {verb} {each.keyword} {each.value} under{_shown(each.match)}")
        if None in held:
            hidden.add(each.keyword)
    return wrong


def _shown(match: tuple[Criterion, ...]) -> str:
    return " Match" + "".join(f" {name} {patterns}".rstrip() for name, patterns in match)


def _holds(match: tuple[Criterion, ...], user: str, groups: tuple[str, ...]) -> bool | None:
    """Whether a block holds for the account, None where the client or the way to the server decides."""
    found = [_criterion_holds(name, patterns, user, groups) for name, patterns in match]
    return False if False in found else None if None in found else True


def _criterion_holds(name: str, patterns: str, user: str, groups: tuple[str, ...]) -> bool | None:
    if name == "all":
        return True
    if name == "invalid-user":
        return False
    if name == "user":
        return _listed(user, patterns) is True
    if name == "group":
        found = {_listed(group, patterns) for group in groups}
        return True in found and False not in found
    return None


def _listed(name: str, patterns: str) -> bool | None:
    """Whether a list of patterns, as sshd reads it, has the name; False where one with ! excludes it, None where none is about it."""
    found = None
    for pattern in patterns.split(","):
        if _matches(name, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _groups(user: str) -> tuple[str, ...]:
    """The groups of an account, none where it is not there, as sshd has it."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return ()
    names = []
    for number in os.getgrouplist(user, account.pw_gid):
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return tuple(names)


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
