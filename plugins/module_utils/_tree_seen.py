# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``file_tree`` would find of one namespace, for a controller that decides whether it has anything to do."""

from __future__ import annotations

import contextlib
import grp
import pwd
from typing import Any

from ._files import Entry, Tree, UnsafePathError, group_id, sha256, user_id
from ._manifest import claims, load_manifest


def look(namespace: str, directory: str) -> dict[str, Any] | None:
    """Return the manifest, and what is at each of its paths: kind, owner, group, mode and SHA-256, or null.

    Links are not followed, as ``file_tree`` does not. None where that module has to look itself: without a manifest, and
    where it would refuse or tidy up something.
    """
    try:
        with Tree() as tree:
            manifest = load_manifest(tree, directory, namespace)
            tree.trust(manifest.directories)
            entries = {path: _said(tree.directory_entry(path)) for path in manifest.directories}
            entries.update({path: _said(tree.entry(path)) for path in manifest.files})
            if (
                not manifest.files | set(manifest.directories)
                or manifest.files & set(claims(tree, directory, namespace))
                or any(tree.leftover(path) for path in entries)
            ):
                return None
    except (OSError, ValueError, UnsafePathError):
        return None
    return {"files": sorted(manifest.files), "directories": dict(manifest.directories), "entries": entries}


def _said(entry: Entry | None) -> list[str] | None:
    if entry is None:
        return None
    return [
        entry.kind,
        _user(entry.uid),
        _group(entry.gid),
        f"{entry.mode:04o}",
        sha256(entry.content) if entry.kind == "file" else "",
    ]


def _user(number: int) -> str:
    """The name that leads to this number; empty if there is none, or only one that leads elsewhere."""
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(number).pw_name
        return name if user_id(name) == number else ""
    return ""


def _group(number: int) -> str:
    with contextlib.suppress(KeyError):
        name = grp.getgrgid(number).gr_name
        return name if group_id(name) == number else ""
    return ""
