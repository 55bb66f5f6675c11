# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast restore JOB`: files of a snapshot into a directory, never over what is already there; restic verifies them."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from typing import Any

from .. import _floors
from .._model import parse_time
from . import borg, engine, mounts, place, restic
from . import definition as definitions
from .definition import LONGEST_RUN, Definition
from .host import Host, ProgramError
from .text import complain, say

# Seconds by which clocks differ.
SKEW = 600
# What opens the repositories of this host today, and what is known of them. In place of it an older password would open
# nothing any more once it was changed, and it may be the only one.
LIVE = ("/etc/holdfast", "/var/lib/holdfast")
_ID = re.compile(r"\A[0-9a-f]{8,64}\Z")


def restore(
    host: Host,
    job: str,
    target: str,
    *,
    snapshot: str = "latest",
    paths: Sequence[str] = (),
    dump: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    trust_users: bool = False,
) -> int:
    """Restore below `target` with owners, ACLs and extended attributes. Returns 0, or raises ProgramError.

    `latest` is the newest snapshot of the job's files, or of its dump `dump`, that is not from the future. Without `force`
    the target must be missing or empty; with it restic writes over what differs, and removes nothing. What is LIVE on this
    host stays. Below directories that others than root may get to and change only `trust_users` lets root write.
    """
    definition = definitions.resolve_one(host, job)
    wanted = _wanted(paths)
    target = place.checked(host, "--target", target)
    kept = _kept(host, target, wanted)
    occupied = place.occupied(host, target)
    if occupied and not force:
        raise ProgramError(f"--target {target} is not empty; choose another, or write over it with --force", 2)
    # Where nobody else gets in nobody can put a link, whoever owns what an earlier attempt restored there.
    if occupied and not place.at_home(host, target):
        _refuse_shared(host, target, wanted, kept, trust_users=trust_users)
    if definition.borg is not None:
        version = engine.borg_version(host, definition.borg.binary)
        if version is not None and _floors.below("borg-restore", version):
            floor = _floors.floor("borg-restore")
            complain(f"borg {version} is older than {floor.minimum}: {floor.reason}")
        return _restore_borg(host, definition, target, snapshot, wanted, kept, dump, dry_run=dry_run)
    chosen = _choose(host, definition, snapshot, dump)
    if not place.private(host, target):
        # An id may be that of a dump, whatever is named beside it.
        _refuse_dump(target, dump if snapshot == "latest" else restic.dump_of(host, definition, chosen))
    for path in wanted:
        # Restic restores nothing then, and ends well.
        if not restic.holds(host, definition, chosen, path):
            raise ProgramError(_absent(definition, chosen, [path]))
    # A lock is a file that a full repository has no space for, and a host that may only append cannot make any. Restic reads
    # what it restores by its hash, so what is taken away meanwhile is an error, and never another content.
    argv = [*definition.restic, "restore", "--no-lock", *restic.cache(host, definition), f"--target={target}"]
    argv += [f"--include={escaped(path)}" for path in wanted]
    # It takes one kind of pattern or the other.
    argv += [f"--include=!{escaped(path)}" if wanted else f"--exclude={escaped(path)}" for path in kept]
    # In a file that is there restic leaves no holes, through which its content would show, but writes zeros.
    argv += ["--dry-run"] if dry_run else ["--sparse", "--verify"]
    if not dry_run:
        place.make(host, "--target", target)
    environment = {"RESTIC_PROGRESS_FPS": "0.1", **restic.environment(host, definition)}
    status = host.attached([*argv, "--", chosen], timeout=LONGEST_RUN, env=environment)
    if status:
        raise ProgramError(f"the restore is not complete: {restic.failure(status)}", status)
    _tell(chosen, target, () if dump else kept, dry_run=dry_run)
    return 0


def _restore_borg(
    host: Host,
    definition: Definition,
    target: str,
    snapshot: str,
    paths: list[str],
    kept: Sequence[str],
    dump: str | None,
    *,
    dry_run: bool,
) -> int:
    found = [
        each for each in borg.snapshots(host, definition) if snapshot == "latest" or each["id"].startswith(snapshot)
    ]
    if snapshot == "latest":
        found = _past(host, [each for each in found if each["dump"] == dump])[-1:]
    elif not _ID.match(snapshot):
        raise ProgramError(f"--snapshot {snapshot!r} is neither latest nor an id as holdfast snapshots shows it", 2)
    if len(found) != 1:
        raise ProgramError(f"{definition.unit} has no such snapshot; see: holdfast snapshots {definition.unit}")
    argv, env = borg.extract(host, definition, found[0]["name"], paths, kept, dry_run=dry_run)
    if not dry_run:
        place.make(host, "--target", target)
    directory = "/" if dry_run else str(host.path(target))
    status = host.attached(argv, timeout=LONGEST_RUN, env=env, directory=directory)
    if status:
        absent = [path for path in paths if not dry_run and not os.path.lexists(f"{directory}{path}")]
        why = _absent(definition, found[0]["id"], absent) if absent else borg.failure(status)
        raise ProgramError(f"the restore is not complete: {why}", 1)
    _tell(found[0]["id"], target, () if dump else kept, dry_run=dry_run)
    return 0


def _kept(host: Host, target: str, wanted: Sequence[str]) -> Sequence[str]:
    """What a restore leaves as it is on this host. Raises ProgramError where that is what is wanted."""
    if target != "/":
        return ()
    # Where root's own link leads there, a snapshot has it by both names.
    kept = list(dict.fromkeys([*LIVE, *(mounts.real(host, live) for live in LIVE)]))
    for path in wanted:
        for live in kept:
            if f"{path}/".startswith(f"{live}/"):
                raise ProgramError(
                    f"--path {path} is what this host's backups go by today, and an older one would open nothing; choose"
                    " another --target than /",
                    2,
                )
    return kept


def _refuse_dump(target: str, dump: str | None) -> None:
    """A dump has mode 0644 in its snapshot, since restic read it from a command; borg gives its own 0660."""
    if dump is not None:
        raise ProgramError(
            f"--target {target} is open to others than root, who could read the whole dump {dump} there: choose a"
            " directory that does not exist yet",
            2,
        )


def _refuse_shared(host: Host, target: str, wanted: Sequence[str], kept: Sequence[str], *, trust_users: bool) -> None:
    """The engines go by names, more than once: whoever may change a directory on the way can put a link there meanwhile."""
    if trust_users:
        # Unseen: what is stale or damaged is no reason then to restore nothing.
        complain(f"others than root may change directories below {target}, and could lead root elsewhere meanwhile")
        return
    shared = place.changeable(host, target, wanted, kept)
    if shared is not None:
        raise ProgramError(
            f"{shared}, and could lead root elsewhere meanwhile; restore into a new directory (--target /root/restored), and"
            " copy as the account that it belongs to; or see to it that no account but root's is in use on this host, and add"
            " --trust-users",
            2,
        )


def _tell(snapshot: str, target: str, kept: Sequence[str], *, dry_run: bool) -> None:
    would = "would be" if dry_run else "is"
    say(f"snapshot {snapshot[:8]} {would} restored below {target}")
    if kept:
        would = "would stay" if dry_run else "stay"
        say(f"{' and '.join(kept)} {would} as they are on this host; another --target gets those of the snapshot, too")


def ahead(host: Host, snapshot: dict[str, Any]) -> bool:
    """Whether a snapshot claims a time that has not come: it was made while a clock was ahead."""
    return parse_time(snapshot["time"]) > host.now() + SKEW


def _past(host: Host, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the snapshots that may be the latest; the others would be, however old, until their time has come."""
    for each in found:
        if ahead(host, each):
            complain(
                f"snapshot {each['id'][:8]} is from the future ({each['time']}) and does not count as the latest; it can be"
                f" had with --snapshot {each['id'][:8]}"
            )
    return [each for each in found if not ahead(host, each)]


def _wanted(paths: Sequence[str]) -> list[str]:
    """The paths as engines know them; none where everything is wanted."""
    for path in paths:
        if not path.startswith("/"):
            raise ProgramError(f"--path {path!r} is not absolute", 2)
    found = [f"/{posixpath.normpath(path).lstrip('/')}" for path in paths]
    return [] if "/" in found else found


def _absent(definition: Definition, snapshot: str, paths: Sequence[str]) -> str:
    return f"snapshot {snapshot[:8]} of {definition.unit} holds no {', '.join(paths)}"


def escaped(path: str) -> str:
    r"""A path as a pattern of restic that matches only itself. A backslash takes *, ?, [ and \ literally."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", path)


def _choose(host: Host, definition: Definition, snapshot: str, dump: str | None) -> str:
    if snapshot != "latest":
        if not _ID.match(snapshot):
            raise ProgramError(f"--snapshot {snapshot!r} is neither latest nor an id as holdfast snapshots shows it", 2)
        return snapshot
    found = _past(host, [each for each in restic.snapshots(host, definition) if each["dump"] == dump])
    if not found:
        what = f"dump {dump}" if dump else "files"
        if dump is None and definition.dumps_only:
            what += f", only dumps: --dump {' or '.join(each.name for each in definition.dumps)}"
        raise ProgramError(
            f"{definition.unit} has no snapshot of its {what}; see: holdfast snapshots {definition.unit}"
        )
    return str(found[-1]["id"])
