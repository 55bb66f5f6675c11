# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the module file_tree would have anything to do on a host, of what host_info saw there."""

from __future__ import annotations

import dataclasses
import posixpath
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils._file_tree import (
    NO_ID,
    Current,
    Wanted,
    WantedFile,
    make_plan,
    parse_wanted,
    paths_to_read,
)
from ansible_collections.holdfast.backup.plugins.module_utils._files import Entry
from ansible_collections.holdfast.backup.plugins.module_utils._manifest import Manifest

_DEFAULTS = {"owner": "root", "group": "root"}


def tree_differs(seen: t.Any, files: list[dict[str, t.Any]], directories: list[dict[str, t.Any]] | None = None) -> bool:
    """Whether file_tree has to run: it would change something or say something, or what it would find is not known.

    ``seen`` is what host_info returned for the namespace, null if nothing. The decision is that of the module itself, made
    by the same code; in the place of numbers and contents there are names and their SHA-256.
    """
    if not seen:
        return True
    try:
        wanted = parse_wanted(
            {
                "files": [{**_DEFAULTS, "mode": "0644", **each} for each in files],
                "secret_files": [],
                "directories": [{**_DEFAULTS, "mode": "0755", **each} for each in directories or []],
            }
        )
        # A content is as good as its digest here, and only that is known of the host's.
        wanted = Wanted(tuple(map(_digested, wanted.files)), wanted.directories)
        manifest = Manifest(frozenset(seen["files"]), dict(seen["directories"]))
        numbers = {name: number for number, name in enumerate(sorted(_names(wanted)))}
        plan = make_plan(
            wanted,
            _current(wanted, manifest, seen["entries"], numbers),
            manifest,
            {},
            namespace="",
            uids=numbers,
            gids=numbers,
            prune=True,
        )
    except (ValueError, TypeError, KeyError):
        # The module says what is wrong.
        return True
    return plan.changed or not plan.union == plan.final == manifest


def _digested(item: WantedFile) -> WantedFile:
    return dataclasses.replace(item, content=item.sha256.encode("ascii"))


def _names(wanted: Wanted) -> set[str]:
    return {name for item in wanted.items() for name in (item.owner, item.group)}


def _current(wanted: Wanted, manifest: Manifest, said: dict[str, list[str] | None], numbers: dict[str, int]) -> Current:
    entries: dict[str, Entry | None] = {}
    for path in frozenset().union(*paths_to_read(wanted, manifest)):
        each = said.get(path)
        if each is not None:
            kind, owner, group, mode, digest = each
            ids = (numbers.get(owner, NO_ID), numbers.get(group, NO_ID))
            entries[path] = Entry(kind, *ids, int(mode, 8), content=digest.encode("ascii"))
        else:
            entries[path] = None
    # What is there lies in directories that are there.
    for path in [path for path, entry in entries.items() if entry is not None]:
        while (path := posixpath.dirname(path)) != "/":
            if entries.get(path) is None:
                entries[path] = Entry("directory", NO_ID, NO_ID, 0)
    # A directory that nobody needs any more may be empty: the module has to look.
    return Current(entries, {path: frozenset() for path, made in manifest.directories.items() if made})
