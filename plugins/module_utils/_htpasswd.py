# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The htpasswd of a rest-server: which line each user gets, and who may be revoked; without side effects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from . import _bcrypt

PLACEHOLDER = "<made in the first real run>"
_VERSION = 1
_SHOWN = 5
# Of a state directory that is older than so many changes nobody knows.
REMEMBERED = 500
NEWEST = (
    "bring the newest state directory here (git pull), or run the playbook where these clients can be reached (of somebody "
    "else's client: its administrator runs rotate and hands over)"
)
_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._@-]{0,127}\Z")


@dataclass(frozen=True)
class User:
    """A declared user; ``hash`` is None when only the server knows it."""

    name: str
    hash: str | None = None
    backup_id: str | None = None
    next_hash: str | None = None
    busy: bool = True
    # Whether the client itself said it in this run: what is only remembered brings nothing back that was replaced.
    heard: bool = True


@dataclass(frozen=True)
class Hashes:
    """Digests of what a user was let in by: what we last served, and what we replaced or revoked, the latest last."""

    served: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """Which fleet put which user there; ``users`` maps the name to its backup_id (None for an extra user).

    ``hashes`` also has users that are gone.
    """

    fleet_id: str
    users: Mapping[str, str | None] = field(default_factory=dict)
    hashes: Mapping[str, Hashes] = field(default_factory=dict)


class OfFleet(Protocol):
    """A manifest that says whose it is."""

    @property
    def fleet_id(self) -> str:
        """The fleet."""


@dataclass(frozen=True)
class Policy:
    """How the file is made."""

    fleet_id: str
    cost: int = _bcrypt.COST
    revoke_max: int | None = None
    keep_foreign: bool = False
    switch: bool = False
    # A password in somebody else's hands, who can always look busy.
    switch_busy: bool = False
    check_mode: bool = False
    # Nobody gets anything: for a server that cannot follow.
    revoke_only: bool = False


@dataclass
class Outcome:
    """The lines of the new file and what happened to whom."""

    lines: dict[str, str] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    changed_users: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    switched: list[str] = field(default_factory=list)
    deferred: list[str] = field(default_factory=list)
    # Of those that are kept or missing, whose hash was replaced or revoked before.
    stale: list[str] = field(default_factory=list)
    hashes: dict[str, Hashes] = field(default_factory=dict)

    def text(self) -> str:
        """Return the new file, sorted by name."""
        return "".join(f"{name}:{self.lines[name]}\n" for name in sorted(self.lines))

    def report(self) -> dict[str, list[str]]:
        """Return the lists of names that the module returns."""
        return {key: sorted(value) for key, value in vars(self).items() if key not in ("lines", "stale", "hashes")}


def parse_htpasswd(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the hash of each user (of duplicates the last, as rest-server does), and names of duplicates and junk."""
    users: dict[str, str] = {}
    odd: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        name, colon, hashed = line.partition(":")
        if not line:
            continue
        if not colon or not _NAME.match(name):
            odd.append(f"line {number}")
            continue
        if name in users:
            odd.append(name)
        users[name] = hashed
    return users, odd


def parse_manifest(value: Mapping[str, Any] | None, path: str) -> Manifest | None:
    """Return the manifest of a JSON object. Raises ValueError when it is not one."""
    if value is None:
        return None
    users = value.get("users")
    fleet_id = value.get("fleet_id")
    if value.get("version") != _VERSION or not isinstance(fleet_id, str) or not isinstance(users, dict):
        raise ValueError(f"{path} is not a manifest of version {_VERSION}: restore it from a backup")
    try:
        hashes = {
            str(name): Hashes(tuple(map(str, each["served"])), tuple(map(str, each["retired"])))
            for name, each in value.get("hashes", {}).items()
        }
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not a manifest of version {_VERSION}: restore it from a backup") from None
    return Manifest(fleet_id, users, hashes)


def render_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return the JSON object of a manifest."""
    hashes = {
        name: {"served": list(each.served), "retired": list(each.retired)} for name, each in manifest.hashes.items()
    }
    return {"version": _VERSION, "fleet_id": manifest.fleet_id, "users": dict(manifest.users), "hashes": hashes}


def unite(before: Manifest | None, after: Manifest) -> Manifest:
    """Return the manifest that holds while the file is written: what was there, and what will be."""
    if before is None:
        return after
    hashes = dict(after.hashes)
    for name, each in before.hashes.items():
        now = hashes.get(name, Hashes())
        hashes[name] = Hashes(
            tuple(dict.fromkeys((*each.served, *now.served))), tuple(dict.fromkeys((*each.retired, *now.retired)))
        )
    return Manifest(after.fleet_id, {**before.users, **after.users}, hashes)


def parse_users(items: Iterable[Mapping[str, Any]], keep: Iterable[str]) -> tuple[User, ...]:
    """Return the declared users. Raises ValueError for a bad or repeated name."""
    fields = ("name", "hash", "backup_id", "next_hash", "busy", "heard")
    users = [User(**{name: item[name] for name in fields}) for item in items] + [User(name) for name in keep]
    seen: set[str] = set()
    for user in users:
        if not _NAME.match(user.name):
            raise ValueError(f"users: {user.name!r} is not a user name: use letters, digits and . _ @ -")
        if user.name in seen:
            raise ValueError(f"user {user.name} is declared twice in users and keep: keep one of the entries")
        seen.add(user.name)
    return tuple(sorted(users, key=lambda user: user.name))


def check_fleet(manifest: OfFleet | None, fleet_id: str, path: str) -> None:
    """Raise ValueError unless this server serves our fleet, or none yet."""
    if manifest is not None and manifest.fleet_id != fleet_id:
        raise ValueError(
            f"this server serves the fleet {manifest.fleet_id!r} ({path}), and fleet_id is {fleet_id!r}: use the state "
            f"directory of that fleet, or remove {path} on the server if that fleet is gone"
        )
    if not fleet_id:
        raise ValueError("fleet_id is empty: give the fleet's id from the state directory")


def plan_htpasswd(
    users: Iterable[User], current: Mapping[str, str], odd: Iterable[str], manifest: Manifest | None, policy: Policy
) -> Outcome:
    """Return the new file. Raises ValueError when more hosts would be revoked than allowed."""
    outcome = Outcome()
    declared = set()
    heard = set()
    before = manifest.hashes if manifest is not None else {}
    given: dict[str, str] = {}
    for user in users:
        declared.add(user.name)
        heard |= {user.name} if user.heard else set()
        hashes = before.get(user.name, Hashes())
        line = _line(user, current.get(user.name), hashes, policy, outcome)
        if line is None:
            continue
        if line in (user.hash, user.next_hash) or _digest(line) in hashes.served:
            given[user.name] = line
        outcome.lines[user.name] = line
        if user.name not in current:
            outcome.created.append(user.name)
        elif line != current[user.name]:
            outcome.changed_users.append(user.name)
    ours = manifest.users if manifest is not None else {}
    for name in sorted(set(current) - declared):
        if name in ours:
            outcome.revoked.append(name)
            continue
        outcome.foreign.append(name)
        if policy.keep_foreign:
            outcome.lines[name] = current[name]
    for name in sorted({*before, *ours, *declared}):
        now = current.get(name) if name in heard or name not in declared else None
        gets = given.get(name, "" if name in declared else None)
        outcome.hashes[name] = _hashes(before.get(name, Hashes()), now, gets)
    for name in odd:
        if name in current:
            outcome.changed_users += [] if name not in outcome.lines or name in outcome.changed_users else [name]
        else:
            outcome.foreign.append(name)
    lost = list(outcome.revoked)
    if manifest is None and not policy.keep_foreign:
        # The manifest was lost: whoever is there may be ours.
        ours = {name: name.rpartition("--")[0] or name for name in current}
        lost += [name for name in outcome.foreign if name in current and name not in outcome.lines]
    problem = too_many(lost, ours, policy.revoke_max)
    if problem:
        raise ValueError(problem)
    return outcome


def too_many(revoked: Iterable[str], ours: Mapping[str, str | None], revoke_max: int | None) -> str | None:
    """Return what forbids to revoke these users, None if nothing does; ``ours`` are the manifest's users."""
    hosts = {ours[name] or name for name in revoked}
    if revoke_max is None or len(hosts) <= revoke_max:
        return None
    return (
        f"{len(hosts)} hosts would lose access ({', '.join(sorted(hosts))}), and backup_revoke_max is "
        f"{revoke_max}: correct the inventory, or set backup_revoke_max to {len(hosts)} for this run"
    )


def few(words: Sequence[str]) -> str:
    """Return a list that stays short, whoever made it long."""
    return ", ".join(words[:_SHOWN]) + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")


def make_warnings(path: str, current: Mapping[str, str], odd: Iterable[str], outcome: Outcome, cost: int) -> list[str]:
    """Return what somebody should look at, one line each."""
    twice = sorted({name for name in odd if name in current and name in outcome.lines})
    foreign = sorted({name for name in outcome.foreign if name not in outcome.lines})
    cure = "run the playbook where these clients can be reached, and without a --limit that leaves them out"
    stale = ", ".join(sorted(outcome.stale))
    stay = few(sorted(set(outcome.stale) & set(outcome.kept)))
    out = few(sorted(set(outcome.stale) & set(outcome.missing)))
    what = [f"the line of {stay} that this server has stays"] * bool(stay) + [f"{out} is not served"] * bool(out)
    told = {
        "the state directory has a password hash that this server replaced or revoked, so it is older than that: "
        f"{', and '.join(what)}: {NEWEST}": stale,
        "does not belong there, since no client has it and rest_server_users does not declare it: it is removed": few(
            foreign
        ),
        "has more than one line: one stays": few(twice),
        f"has no password hash of bcrypt at cost {cost}, which is refused: the line that this server has stays": ", ".join(
            sorted(outcome.refused)
        ),
        f"has no password hash that is known: the line that this server has stays: {cure}": ", ".join(
            sorted(set(outcome.kept) - set(outcome.stale))
        ),
        f"has no password hash that is known, and is not served: {cure}": ", ".join(
            sorted(set(outcome.missing) - set(outcome.stale))
        ),
    }
    return [f"{path}: {names}: {text}" for text, names in told.items() if names]


def _digest(hashed: str) -> str:
    return hashlib.sha256(hashed.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _hashes(before: Hashes, now: str | None, given: str | None) -> Hashes:
    """Return what is remembered of a user that has ``now`` and gets ``given``, None where it is revoked.

    ``now`` is None where it is not known to be older than what the user gets, unless we remember that we served it.
    """
    if given == "":
        # Nothing of ours, and nothing was replaced by it.
        return before
    served = (_digest(given),) if given is not None else ()
    once = (*before.retired, *before.served, *((_digest(now),) if now is not None else ()))
    return Hashes(served, tuple(each for each in dict.fromkeys(once) if each not in served)[-REMEMBERED:])


def _line(user: User, now: str | None, hashes: Hashes, policy: Policy, outcome: Outcome) -> str | None:
    """Return the hash that a user gets, None for none."""
    if policy.revoke_only:
        return now
    if user.hash is None:
        (outcome.missing if now is None else outcome.kept).append(user.name)
        return now
    if not all(_acceptable(hashed, policy) for hashed in (user.hash, user.next_hash) if hashed is not None):
        outcome.refused.append(user.name)
        return now
    if not user.heard and _digest(user.hash) in hashes.retired:
        return _stale(user, now, hashes, policy, outcome)
    return _wanted(user, user.hash, now, policy, outcome)


def _stale(user: User, now: str | None, hashes: Hashes, policy: Policy, outcome: Outcome) -> str | None:
    """Return the hash of a user of whom only what was replaced before is remembered: it lets nobody in again."""
    # What somebody wrote there by hand is not ours, and nothing is known that is good.
    ours = now if now is not None and _digest(now) in hashes.served else None
    if user.next_hash is not None and _digest(user.next_hash) not in hashes.retired:
        # Newer than what was replaced: switched by an earlier run, or handed over to bring the client back.
        line = _wanted(user, ours, now, policy, outcome) if ours is not None else user.next_hash
        if line == user.next_hash:
            outcome.switched += [] if user.name in outcome.switched else [user.name]
            return line
        # It waits: until then what is known of it is not what is served.
    outcome.stale.append(user.name)
    (outcome.missing if ours is None else outcome.kept).append(user.name)
    return ours


def _wanted(user: User, hashed: str, now: str | None, policy: Policy, outcome: Outcome) -> str:
    if user.next_hash is None:
        return hashed
    if now == user.next_hash:
        # Switched by an earlier run, of which the client did not hear: there is no way back.
        outcome.switched.append(user.name)
        return user.next_hash
    if not policy.switch:
        return hashed
    if user.busy and not policy.switch_busy:
        outcome.deferred.append(user.name)
        return hashed
    outcome.switched.append(user.name)
    return user.next_hash


def _acceptable(hashed: str, policy: Policy) -> bool:
    if policy.check_mode and hashed == PLACEHOLDER:
        return True
    return re.match(rf"\A\$2[aby]\${policy.cost:02d}\$[./A-Za-z0-9]{{53}}\Z", hashed) is not None


def make_diff(path: str, current: Mapping[str, str], outcome: Outcome) -> dict[str, str]:
    """Return a difference of names only."""
    changed = set(outcome.changed_users)
    after = [f"{name} (another hash)" if name in changed else name for name in sorted(outcome.lines)]
    return {
        "before_header": path,
        "after_header": path,
        "before": "".join(f"{name}\n" for name in sorted(current)),
        "after": "".join(f"{name}\n" for name in after),
    }
