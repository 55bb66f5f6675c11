# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests of ``file_tree``: what each namespace wrote on this host."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field

from ._files import Tree

_VERSION = 1
_MODE = 0o600


@dataclass(frozen=True)
class Manifest:
    """Files of one namespace, and its directories with whether we made them (only those are ever removed)."""

    files: frozenset[str] = frozenset()
    directories: Mapping[str, bool] = field(default_factory=dict)


def manifest_path(directory: str, namespace: str) -> str:
    """Return the path of a namespace's manifest."""
    return posixpath.join(directory, f"{namespace}.json")


def load_manifest(tree: Tree, directory: str, namespace: str) -> Manifest:
    """Return a namespace's manifest, an empty one if there is none. Raises ValueError when it is damaged."""
    path = manifest_path(directory, namespace)
    value = tree.read_json(path)
    if value is None:
        return Manifest()
    files, directories = value.get("files"), value.get("directories")
    if (
        value.get("version") != _VERSION
        or not isinstance(files, list)
        or not all(isinstance(name, str) for name in files)
        or not isinstance(directories, dict)
        or not all(isinstance(made, bool) for made in directories.values())
    ):
        raise ValueError(f"{path} is not a manifest of version {_VERSION}: restore it, or remove it to start anew")
    return Manifest(frozenset(files), directories)


def save_manifest(tree: Tree, directory: str, namespace: str, manifest: Manifest) -> None:
    """Write a namespace's manifest atomically; only root can read it."""
    value = {"version": _VERSION, "files": sorted(manifest.files), "directories": dict(manifest.directories)}
    tree.write_json(manifest_path(directory, namespace), value, mode=_MODE)


def claims(tree: Tree, directory: str, namespace: str) -> dict[str, str]:
    """Return which file belongs to which other namespace."""
    owners: dict[str, str] = {}
    for name in sorted(tree.names(directory)):
        other, extension = posixpath.splitext(name)
        if extension == ".json" and other != namespace and not name.startswith("."):
            for path in load_manifest(tree, directory, other).files:
                owners[path] = other
    return owners
