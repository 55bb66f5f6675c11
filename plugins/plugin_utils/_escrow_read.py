# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens escrow bundles on the controller, with the secret key that its user names."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import subprocess
import time
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils._escrow import BUNDLE_NAME
from ansible_collections.holdfast.backup.plugins.plugin_utils._fields import NAME

KEYS = ("password", "next_password", "rest_password", "ssh_key", "borg_key", "environment")
AGE_SECONDS = 60
# How far the clocks of client and controller may be apart.
AHEAD_SECONDS = 24 * 3600


class _Opened(t.NamedTuple):
    name: str
    # When it was made, later than the one before; the file's time says nothing after a git clone.
    made: int
    bundle: dict[str, t.Any]

    def __str__(self) -> str:
        return f"{self.name} ({_time(self.made)})"


def secrets_of(
    directory: str,
    repositories: t.Sequence[str],
    key: str | None,
    backup_id: str | None = None,
    *,
    bundles: t.Sequence[str] = (),
    now: float | None = None,
) -> tuple[dict[str, dict[str, t.Any]], list[str]]:
    """The secrets of each repository out of its newest bundle, and what its user has to know; ``directory`` is the host's in the
    state directory.

    Bundles of another ``backup_id``, which the host has or had, count only where there is none of this one.

    A bundle made after init (it knows the repository's id) wins over one made before; one that ``key`` cannot open, since
    it was made for other recipients, does not count. The client says when it was made, and may be in anybody's hands: one that is from
    the future, seen at ``now``, wins over no other, and ``bundles`` are the names of those to be taken whatever others say.

    Where an earlier one says which password the newest one's replaced, that is
    the C(old_password): its key may be left in the repository. A repository that the state directory has nothing of at all is left
    out, as long as there is another. Raises ValueError with the cure when there is none that opens; neither that nor what is told
    ever holds a secret.
    """
    unknown = [
        repository for repository in repositories if NAME.match(repository) and not _is_known(directory, repository)
    ]
    names: dict[str, list[str]] = {}
    for repository in repositories:
        if not NAME.match(repository):
            raise ValueError(f"repositories: {repository!r} is not the name of a repository")
        if repository in unknown and len(unknown) < len(repositories):
            continue
        place = _place(directory, repository)
        names[repository] = sorted(filter(BUNDLE_NAME.match, os.listdir(place))) if os.path.isdir(place) else []
        if not names[repository]:
            cure = "Use the state directory that this client was provisioned with, or a copy of it"
            others = _under_other_names(directory, repository, backup_id)
            if others:
                cure = (
                    f"But {' and '.join(others)} has some of backup_id {backup_id}: where that is this client under another"
                    f" inventory name, mkdir -p {shlex.quote(directory)} && cp -r {shlex.quote(others[0])}/escrow {shlex.quote(directory)}"
                )
            raise ValueError(f"the state directory has no escrow bundle of {repository} ({place}). {cure}")
    for name in set(bundles).difference(*names.values()):
        raise ValueError(
            f"bundle = {name}: there is no such escrow bundle of this host. Give the name of a file below {directory}/escrow"
        )
    result, told = {}, []
    for repository, found in names.items():
        wanted = [name for name in found if name in bundles]
        if len(wanted) > 1:
            raise ValueError(f"bundle: names two of {repository}, {' and '.join(wanted)}. Give one")
        opened = _opened(_place(directory, repository), found, key, wanted)
        opened = [
            each for each in opened if (backup_id and each.bundle.get("host") == backup_id) or each.name in wanted
        ] or opened
        latest = (time.time() if now is None else now) + AHEAD_SECONDS
        opened.sort(
            key=lambda each: (each.made <= latest, each.bundle.get("repository_id") is not None, each.made, each.name)
        )
        best = next((each for each in opened if each.name in wanted), opened[-1])
        if not wanted:
            told += [f"{repository}: {words}" for words in _doubts(opened, latest)]
        result[repository] = {name: best.bundle[name] for name in KEYS if best.bundle.get(name)}
        if best.made:
            result[repository]["made"] = best.made
        result[repository].update(_replaced(best.bundle, [each.bundle for each in opened]))
    return result, told


def _place(directory: str, repository: str) -> str:
    return os.path.join(directory, "escrow", repository)


def _opened(place: str, names: list[str], key: str | None, wanted: list[str]) -> list[_Opened]:
    """The bundles that can be opened, of which there has to be one, and those that are wanted."""
    opened, refused = [], []
    for name in names:
        try:
            bundle = _open(os.path.join(place, name), key)
        except ValueError as error:
            if name in wanted:
                raise
            refused.append(error)
        else:
            opened.append(_Opened(name, _made(bundle), bundle))
    if not opened:
        raise refused[-1]
    return opened


def _doubts(opened: list[_Opened], latest: float) -> list[str]:
    """What may be wrong with the choice of the last one of these. A forged bundle says what it likes."""
    best, told = opened[-1], []
    other = "To take another one say -e bundle=NAME; docs/operating.md, A client was lost, says what else that takes"
    ahead = [str(each) for each in opened if each.made > latest]
    if ahead:
        told.append(
            f"escrow bundles that were made in the future, by a client whose clock was wrong or in somebody else's hands, count only"
            f" where there is no other: {', '.join(ahead)}. {best} is taken. {other}"
        )
    apart = [group[-1] for group in _linked(opened) if best not in group]
    if apart:
        others = ", ".join(str(each) for each in opened[::-1] if each in apart)
        told.append(
            f"its escrow bundles hold different passwords, and no rotation leads from one to the other. {best} is taken; the newest"
            f" of the others: {others}. If it does not open the repository, one of them was forged. {other}"
        )
    return told


def _linked(opened: list[_Opened]) -> list[list[_Opened]]:
    """The bundles in groups of one password, and of those that rotations led to from it; each in the order given."""
    groups: list[tuple[set[str], list[_Opened]]] = []
    for each in opened:
        passwords = {each.bundle["password"], each.bundle.get("next_password") or each.bundle["password"]}
        near = [group for group in groups if group[0] & passwords]
        groups = [group for group in groups if not group[0] & passwords]
        members = {one.name for _passwords, group in near for one in group} | {each.name}
        groups.append((passwords.union(*(group[0] for group in near)), [one for one in opened if one.name in members]))
    return [group for _passwords, group in groups]


def _time(made: int) -> str:
    if not made:
        return "an unknown time"
    try:
        return datetime.datetime.fromtimestamp(made, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "a time that no clock shows"


def _is_known(directory: str, repository: str) -> bool:
    """Whether the host ever had secrets of the repository, as far as its part of the state directory shows."""
    signs = (f"escrow/{repository}", f"rest/{repository}.json", f"ssh/{repository}.pub")
    return any(os.path.lexists(os.path.join(directory, sign)) for sign in signs)


def _under_other_names(directory: str, repository: str, backup_id: str | None) -> list[str]:
    """The directories of other hosts with bundles of this ``backup_id``: a client may have got another name in the inventory."""
    hosts = os.path.dirname(directory)
    found = []
    for name in sorted(os.listdir(hosts)) if backup_id and os.path.isdir(hosts) else ():
        other = os.path.join(hosts, name)
        place = _place(other, repository)
        if other != directory and os.path.isdir(place) and any(map(BUNDLE_NAME.match, os.listdir(place))):
            try:
                with open(os.path.join(other, "identity.json"), encoding="utf-8") as stream:
                    identities = json.load(stream)["repositories"]
                if identities.get(repository) == backup_id:
                    found.append(other)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # it says nothing of whose they are
    return found


def _replaced(best: dict[str, t.Any], bundles: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    """The password that the newest one replaced, if the bundles say so."""
    # A change does not begin before the one before has ended.
    if best.get("next_password"):
        return {}
    old = [each["password"] for each in bundles if each.get("next_password") == best["password"] != each["password"]]
    return {"old_password": old[-1]} if old else {}


def _made(bundle: dict[str, t.Any]) -> int:
    made = bundle.get("made")
    return made if isinstance(made, int) else 0


def _open(path: str, key: str | None) -> dict[str, t.Any]:
    if path.endswith(".json"):
        with open(path, "rb") as bundle:
            content = bundle.read()
    else:
        content = _decrypt(path, key)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    # The client that made it may have been in anybody's hands.
    if not isinstance(found, dict) or not isinstance(found.get("password"), str) or not _of_texts(found):
        raise ValueError(f"{path} is damaged: it holds no bundle. Restore it, from version control say")
    return found


def _of_texts(bundle: dict[str, t.Any]) -> bool:
    values = [bundle[name] for name in KEYS if bundle.get(name) and name != "environment"]
    environment = bundle.get("environment") or {}
    if not isinstance(environment, dict):
        return False
    return all(isinstance(value, str) for value in [*values, *environment.values()])


def _decrypt(path: str, key: str | None) -> bytes:
    if not key:
        raise ValueError(
            "escrow_key: is missing. Give the file of the secret key that age-keygen made: -e escrow_key=/path/to/backup-escrow.key"
        )
    key = os.path.expanduser(key)
    if not os.path.isfile(key):
        raise ValueError(f"escrow_key = {key!r}: is not a file. Give the file of the secret key that age-keygen made")
    try:
        done = subprocess.run(
            ["age", "--decrypt", "--identity", key, path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=AGE_SECONDS,
        )
    except FileNotFoundError:
        raise ValueError("age is not installed on this controller, and opens the escrow: apt install age") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"age did not open {path} within {AGE_SECONDS} s") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise ValueError(f"escrow_key = {key!r}: age cannot open {path} with it: {said[0]}")
    return done.stdout
