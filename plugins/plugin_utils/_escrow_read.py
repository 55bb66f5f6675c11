# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens escrow bundles on the controller, with the secret key that its user names."""

from __future__ import annotations

import json
import os
import subprocess
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils._escrow import BUNDLE_NAME
from ansible_collections.holdfast.backup.plugins.plugin_utils._fields import NAME

KEYS = ("password", "next_password", "rest_password", "ssh_key", "borg_key", "environment")
AGE_SECONDS = 60


def secrets_of(
    directory: str, repositories: t.Sequence[str], key: str | None, backup_id: str | None = None
) -> dict[str, dict[str, t.Any]]:
    """The secrets of each repository out of its newest bundle; ``directory`` is the host's in the state directory.

    Bundles of another ``backup_id``, which the host has or had, count only where there is none of this one.

    A bundle made after init (it knows the repository's id) wins over one made before; one that ``key`` cannot open, since
    it was made for other recipients, does not count. Where an earlier one says which password the newest one's replaced, that is
    the C(old_password): its key may be left in the repository. A repository that the state directory has nothing of at all is left
    out, as long as there is another. Raises ValueError with the cure when there is none that opens; the message never holds a secret.
    """
    result = {}
    unknown = [
        repository for repository in repositories if NAME.match(repository) and not _is_known(directory, repository)
    ]
    for repository in repositories:
        if not NAME.match(repository):
            raise ValueError(f"repositories: {repository!r} is not the name of a repository")
        if repository in unknown and len(unknown) < len(repositories):
            continue
        place = os.path.join(directory, "escrow", repository)
        names = sorted(filter(BUNDLE_NAME.match, os.listdir(place))) if os.path.isdir(place) else []
        if not names:
            raise ValueError(
                f"the state directory has no escrow bundle of {repository} ({place}). Use the state directory that this"
                " client was provisioned with, or a copy of it"
            )
        opened, refused = [], []
        for path in (os.path.join(place, name) for name in names):
            try:
                bundle = _open(path, key)
            except ValueError as error:
                refused.append(error)
            else:
                opened.append((bundle.get("repository_id") is not None, _made(bundle), path, bundle))
        if not opened:
            raise refused[-1]
        opened = [each for each in opened if backup_id and each[3].get("host") == backup_id] or opened
        best = max(opened, key=lambda each: each[:3])[3]
        result[repository] = {name: best[name] for name in KEYS if best.get(name)}
        if _made(best):
            result[repository]["made"] = _made(best)
        result[repository].update(_replaced(best, [each[3] for each in sorted(opened, key=lambda each: each[:3])]))
    return result


def _is_known(directory: str, repository: str) -> bool:
    """Whether the host ever had secrets of the repository, as far as its part of the state directory shows."""
    signs = (f"escrow/{repository}", f"rest/{repository}.json", f"ssh/{repository}.pub")
    return any(os.path.lexists(os.path.join(directory, sign)) for sign in signs)


def _replaced(best: dict[str, t.Any], bundles: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    """The password that the newest one replaced, if the bundles say so."""
    # A change does not begin before the one before has ended.
    if best.get("next_password"):
        return {}
    old = [each["password"] for each in bundles if each.get("next_password") == best["password"] != each["password"]]
    return {"old_password": old[-1]} if old else {}


def _made(bundle: dict[str, t.Any]) -> int:
    """When the bundle was made, later than the one before; the file's time says nothing after a git clone."""
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
