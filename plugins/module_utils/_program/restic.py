# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs restic for a person: as root, with the job's own repository and credentials, and a cache of root's own."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from typing import Any, TypeVar

from .. import _record, _secrets
from .._model import parse_time
from .._run import Result
from .definition import Definition
from .host import Done, Host, ProgramError

T = TypeVar("T")
_LOCK = re.compile(r"\A[0-9a-f]{64}\Z")

# The account could put into its own what root would take for the repository's.
CACHE = "/var/cache/holdfast-root"
# Bytes that have to be free there; what a cache takes is a small part of what the repository holds.
ROOM = 2 * 1024**3
# The account's own directories: root writes nothing there.
_ACCOUNTS_OWN = ("TMPDIR", "RESTIC_CACHE_DIR", "HOME", "XDG_CACHE_HOME")
_CODES = {
    10: "there is no repository; see: holdfast status",
    11: "the repository is locked; try again when its backup has ended",
    12: "the repository does not take this host's password",
}
QUESTION_TIMEOUT = 600
# While a unit stops, which is given 90 s.
ID_TIMEOUT = 60


def environment(host: Host, definition: Definition) -> dict[str, str]:
    """Restic's environment. Secrets are in files that it reads, and in variables that only root can see."""
    result = {name: value for name, value in definition.environment.items() if name not in _ACCOUNTS_OWN}
    if definition.environment_file is not None:
        result.update(_read(host, definition.environment_file, _secrets.parse_environment))
    # The hint only makes restic try the right key first: who has to restore is not stopped by a record that is gone.
    with contextlib.suppress(ProgramError):
        result["RESTIC_KEY_HINT"] = _read(host, definition.record, _record.parse).key
    result["HOME"] = "/root"
    result["RESTIC_PASSWORD_FILE"] = definition.password_file
    result["RESTIC_REPOSITORY_FILE"] = definition.repository_file
    return result


def cache(host: Host, definition: Definition) -> tuple[str, ...]:
    """The options about a cache: without one restic asks a server once for each directory, and again for each pass.

    Where it cannot write there at all restic says so and does without; on a disk that is full it would try for many minutes.
    """
    if definition.access == "local":
        return ("--no-cache",)
    try:
        place = host.path(CACHE)
        room = shutil.disk_usage(place if place.exists() else place.parent).free
    except OSError:
        room = 0
    return (f"--cache-dir={CACHE}", "--cleanup-cache") if room >= ROOM else ("--no-cache",)


def _read(host: Host, path: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(host.path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, _secrets.SecretsError) as error:
        raise ProgramError(f"{path} cannot be used: {error}; run the site playbook for this host") from error


def failure(status: int, stderr: str = "") -> str:
    """What an exit status of restic, and what it said, mean to a person."""
    if status in _CODES or not stderr.strip():
        return _CODES.get(status, f"restic ended with exit status {status}")
    # Only what failed has to be explained.
    from .._restic import classify

    # The words alone: the status proves nothing here, or is the program's own.
    _state, reason = classify(Result(1, "", stderr))
    return str(reason)


def snapshots(host: Host, definition: Definition) -> list[dict[str, Any]]:
    """The snapshots of the job, oldest first, in the form that `holdfast snapshots --json` prints."""
    argv = [
        *definition.restic,
        "snapshots",
        "--json",
        "--no-lock",
        *cache(host, definition),
        f"--tag={definition.job_tag}",
    ]
    done: Done = host.command(argv, timeout=QUESTION_TIMEOUT, env=environment(host, definition))
    if done.status:
        raise ProgramError(f"the snapshots of {definition.unit} cannot be read: {failure(done.status, done.stderr)}")
    try:
        # The time is a host's local one, with its offset.
        found = sorted(map(_snapshot, json.loads(done.stdout)), key=lambda each: parse_time(each["time"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProgramError(f"restic's list of snapshots cannot be read: {error}") from error
    return found


def dump_of(host: Host, definition: Definition, snapshot: str) -> str | None:
    """The name of the dump in a snapshot, None if it has files. Raises ProgramError if that cannot be known."""
    argv = [*definition.restic, "cat", "snapshot", "--no-lock", *cache(host, definition), "--", snapshot]
    done = host.command(argv, timeout=QUESTION_TIMEOUT, env=environment(host, definition))
    unseen = f"snapshot {snapshot[:8]} of {definition.unit} cannot be looked into"
    if done.status:
        raise ProgramError(f"{unseen}: {failure(done.status, done.stderr)}", done.status)
    try:
        return _dump(json.loads(done.stdout).get("tags") or [])
    except (ValueError, TypeError, AttributeError) as error:
        raise ProgramError(f"{unseen}: {error}") from error


def lock_names(host: Host, definition: Definition, most: int) -> list[str]:
    """The locks of the repository. Raises ProgramError, also where there are more than `most`."""
    names = [name for name in _looked(host, definition, "list", "locks").splitlines() if _LOCK.match(name)]
    if len(names) > most:
        raise ProgramError(
            f"{definition.repository} has {len(names)} locks, more than are looked at; see: restic list locks"
        )
    return names


def lock(host: Host, definition: Definition, name: str) -> dict[str, Any]:
    """What a lock says of who made it. Raises ProgramError."""
    try:
        content = json.loads(_looked(host, definition, "cat", "lock", name))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        # Nobody can say that nobody holds it.
        raise ProgramError(f"{definition.unit} cannot be unlocked: what its lock {name[:8]} says cannot be read")
    return content


def _looked(host: Host, definition: Definition, *words: str) -> str:
    """What restic prints to root, whoever made what it reads."""
    argv = [*definition.restic, *words, "--no-lock", "--no-cache"]
    done = host.command(argv, timeout=QUESTION_TIMEOUT, env=environment(host, definition))
    if done.status:
        raise ProgramError(f"{definition.unit} cannot be unlocked: {failure(done.status, done.stderr)}")
    return done.stdout


def remove_locks(host: Host, definition: Definition) -> None:
    """Remove all locks. Raises ProgramError.

    Without --remove-all restic would look itself whether somebody holds them, by a SIGHUP to the process id in a lock: after
    a reboot that may be any program, which ends of it.
    """
    env, argv = environment(host, definition), [*definition.restic, "unlock", "--remove-all", "--no-cache"]
    user, files = None, {}
    if definition.access == "local":
        # The account may put a link in the place of a file there, and restic makes writable to all what it is about to remove.
        for name in ("HOME", "RESTIC_PASSWORD_FILE", "RESTIC_REPOSITORY_FILE"):
            del env[name]
        env["RESTIC_REPOSITORY"] = _read(host, definition.repository_file, str.strip)
        # Which only root can read where it is kept.
        user, files = definition.user, {"RESTIC_PASSWORD_FILE": _read(host, definition.password_file, str).encode()}
    done = host.command(argv, timeout=QUESTION_TIMEOUT, env=env, user=user, files=files)
    if done.status:
        raise ProgramError(f"{definition.unit} cannot be unlocked: {failure(done.status, done.stderr)}")


def holds(host: Host, definition: Definition, snapshot: str, path: str) -> bool:
    """Whether a snapshot has a file or directory at `path`, taken literally. Raises ProgramError if it cannot be looked into."""
    # JSON would say much more of each file of a directory.
    argv = [*definition.restic, "ls", "--quiet", "--no-lock", *cache(host, definition), "--", snapshot, path]
    done = host.command(argv, timeout=QUESTION_TIMEOUT, env=environment(host, definition))
    if done.status:
        why = failure(done.status, done.stderr)
        raise ProgramError(f"snapshot {snapshot[:8]} of {definition.unit} cannot be looked into: {why}", done.status)
    return bool(done.stdout)


def repository_id(host: Host, definition: Definition) -> str:
    """The id of the repository at the job's location. Raises ProgramError if it cannot be opened."""
    argv = [*definition.restic, "cat", "config", "--no-lock", "--no-cache"]
    done = host.command(argv, timeout=ID_TIMEOUT, env=environment(host, definition))
    if done.status:
        raise ProgramError(failure(done.status, done.stderr))
    try:
        return str(json.loads(done.stdout)["id"])
    except (ValueError, KeyError, TypeError):
        raise ProgramError("restic's answer cannot be read") from None


def _snapshot(content: dict[str, Any]) -> dict[str, Any]:
    tags = content.get("tags") or []
    return {
        "id": content["id"],
        "time": content["time"],
        "hostname": content.get("hostname"),
        "username": content.get("username"),
        "tags": tags,
        "dump": _dump(tags),
        "paths": content.get("paths") or [],
        "total_bytes": (content.get("summary") or {}).get("total_bytes_processed"),
    }


def _dump(tags: list[str]) -> str | None:
    return next((tag[len("dump:") :] for tag in tags if tag.startswith("dump:")), None)
