# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of ``file_tree``: from what is declared and what is there to what has to be done, without side effects."""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ._files import Entry, check_path, parse_mode, sha256
from ._manifest import Manifest

_NAME = re.compile(r"\A([a-z_][a-z0-9_-]{0,31}|[0-9]{1,10})\Z")
_SHA256 = re.compile(r"\A[0-9a-f]{64}\Z")
NO_ID = -1  # nothing on a file system has it
_DIFF_LIMIT = 100_000


@dataclass(frozen=True)
class WantedFile:
    """A declared file; ``content`` is None when only its hash was given."""

    path: str
    content: bytes | None
    sha256: str
    owner: str
    group: str
    mode: int
    validate: str | None
    secret: bool


@dataclass(frozen=True)
class WantedDirectory:
    """A declared directory."""

    path: str
    owner: str
    group: str
    mode: int


@dataclass(frozen=True)
class Wanted:
    """Everything that one execution declares."""

    files: tuple[WantedFile, ...]
    directories: tuple[WantedDirectory, ...]

    def items(self) -> list[WantedFile | WantedDirectory]:
        """Return all files and directories."""
        return [*self.directories, *self.files]

    def paths(self) -> list[str]:
        """Return the paths of all files and directories."""
        return [item.path for item in self.items()]


@dataclass(frozen=True)
class Current:
    """What is on the host: entries at paths, and the names in directories that may have to go."""

    entries: Mapping[str, Entry | None]
    names: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class FileWrite:
    """A file to write; ``before`` is what is there now, uid or gid is NO_ID when the account does not exist yet."""

    wanted: WantedFile
    content: bytes
    uid: int
    gid: int
    before: Entry | None


@dataclass(frozen=True)
class DirectoryWrite:
    """A directory to make (``before`` is None) or to give its owner and mode."""

    wanted: WantedDirectory
    uid: int
    gid: int
    before: Entry | None


@dataclass(frozen=True)
class Plan:
    """What has to be done, in this order: union manifest, directories, files, removals, final manifest."""

    union: Manifest
    directories: tuple[DirectoryWrite, ...]
    writes: tuple[FileWrite, ...]
    removals: tuple[tuple[str, Entry], ...]
    directory_removals: tuple[str, ...]
    final: Manifest

    @property
    def changed(self) -> bool:
        """Whether anything but the manifest changes."""
        return bool(self.directories or self.writes or self.removals or self.directory_removals)

    def result(self) -> dict[str, Any]:
        """Return the lists that the module returns."""
        return {
            "changed": self.changed,
            "created": [write.wanted.path for write in self.writes if write.before is None],
            "changed_files": [write.wanted.path for write in self.writes if write.before is not None],
            "removed": [path for path, _entry in self.removals],
            "directories_created": [item.wanted.path for item in self.directories if item.before is None],
            "directories_changed": [item.wanted.path for item in self.directories if item.before is not None],
            "directories_removed": list(self.directory_removals),
        }


def parse_wanted(params: Mapping[str, Any]) -> Wanted:
    """Turn the module's parameters into what is wanted. Raises ValueError that names option, value and cure."""
    files = tuple(
        _parse_file(item, f"{option}[{number}]", secret=option == "secret_files")
        for option in ("files", "secret_files")
        for number, item in enumerate(params[option])
    )
    directories = tuple(
        WantedDirectory(
            check_path(item["path"], f"directories[{number}]"),
            *_parse_attributes(item, f"directories[{number}] ({item['path']})"),
        )
        for number, item in enumerate(params["directories"])
    )
    wanted = Wanted(
        tuple(sorted(files, key=lambda item: item.path)), tuple(sorted(directories, key=lambda item: item.path))
    )
    seen: set[str] = set()
    for path in wanted.paths():
        if path in seen:
            raise ValueError(f"{path} is declared twice: keep one of the entries")
        seen.add(path)
    file_paths = {item.path for item in files}
    for path in sorted(seen):
        for parent in _parents(path):
            if parent in file_paths:
                raise ValueError(f"{parent} is declared as a file, and {path} lies below it: rename one of them")
    return wanted


def _parse_attributes(item: Mapping[str, Any], where: str) -> tuple[str, str, int]:
    for option in ("owner", "group"):
        if not _NAME.match(item[option]):
            raise ValueError(f"{where}: {option} {item[option]!r} is not the name of an account: correct it")
    return item["owner"], item["group"], parse_mode(item["mode"], where)


def _parse_file(item: Mapping[str, Any], where: str, *, secret: bool) -> WantedFile:
    path = check_path(item["path"], where)
    where = f"{where} ({path})"
    given = [option for option in ("content", "content_base64", "sha256") if item.get(option) is not None]
    content: bytes | None = None
    if len(given) != 1:
        raise ValueError(f"{where}: exactly one of content, content_base64 and sha256 is needed, not {len(given)}")
    if given == ["content"]:
        if not isinstance(item["content"], str):
            raise ValueError(f"{where}: content must be a string, not {type(item['content']).__name__}")
        content = item["content"].encode("utf-8", "surrogateescape")
    elif given == ["content_base64"]:
        try:
            content = base64.b64decode(item["content_base64"], validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"{where}: content_base64 is not base64: use the filter b64encode") from None
    elif not _SHA256.match(item["sha256"]):
        raise ValueError(f"{where}: sha256 {item['sha256']!r} is not 64 lower case hex digits")
    validate = item.get("validate")
    if validate is not None and validate != "systemd-unit" and "%s" not in validate:
        raise ValueError(f"{where}: validate {validate!r} has no %s: put it where the file's name belongs")
    owner, group, mode = _parse_attributes(item, where)
    digest = item["sha256"] if content is None else sha256(content)
    return WantedFile(path, content, digest, owner, group, mode, validate, secret)


def _parents(path: str) -> list[str]:
    """Return the directories above a path, the nearest first, without /."""
    parents = []
    while (path := posixpath.dirname(path)) != "/":
        parents.append(path)
    return parents


def paths_to_read(wanted: Wanted, manifest: Manifest) -> tuple[frozenset[str], frozenset[str]]:
    """Return the paths whose entries the plan needs: files, and directories."""
    files = frozenset(item.path for item in wanted.files) | manifest.files
    directories = {item.path for item in wanted.directories} | set(manifest.directories)
    for path in wanted.paths():
        directories.update(_parents(path))
    return files - directories, frozenset(directories)


def make_plan(
    wanted: Wanted,
    current: Current,
    manifest: Manifest,
    others: Mapping[str, str],
    *,
    namespace: str,
    uids: Mapping[str, int],
    gids: Mapping[str, int],
    prune: bool,
) -> Plan:
    """Compare what is declared with what is there. Raises ValueError for what must not be done."""
    for item in wanted.files:
        if item.path in others:
            raise ValueError(
                f"{item.path} is declared in namespace {namespace}, but belongs to namespace {others[item.path]}: "
                f"declare it in one of them only"
            )
    directories = _plan_directories(wanted, current, uids, gids)
    writes = tuple(write for item in wanted.files if (write := _plan_file(item, current, uids, gids)) is not None)
    declared = frozenset(item.path for item in wanted.files)
    kept = declared | set(others) | {item.path for item in wanted.directories}
    removals = _plan_removals(manifest.files - kept if prune else (), current)

    made = {item.wanted.path for item in directories if item.before is None}
    known = dict(manifest.directories)
    for path in made | {item.path for item in wanted.directories}:
        known[path] = known.get(path, False) or path in made
    needed = {item.path for item in wanted.directories}
    for path in wanted.paths():
        needed.update(_parents(path))
    gone = {path for path, _entry in removals}
    directory_removals = _plan_directory_removals(known, needed, gone, current) if prune else ()

    union = Manifest(manifest.files | declared, known)
    final_directories = {
        path: is_made
        for path, is_made in known.items()
        if path in needed
        or not prune
        or (is_made and path not in directory_removals and current.entries.get(path) is not None)
    }
    final = Manifest(declared if prune else union.files, final_directories)
    return Plan(union, directories, writes, removals, directory_removals, final)


def _plan_directories(
    wanted: Wanted, current: Current, uids: Mapping[str, int], gids: Mapping[str, int]
) -> tuple[DirectoryWrite, ...]:
    plans = {}
    for item in wanted.directories:
        before = current.entries[item.path]
        uid, gid = uids[item.owner], gids[item.group]
        if before is None or (before.uid, before.gid, before.mode) != (uid, gid, item.mode):
            plans[item.path] = DirectoryWrite(item, uid, gid, before)
    declared = {item.path for item in wanted.directories}
    for path in wanted.paths():
        for parent in _parents(path):
            if parent not in declared and current.entries[parent] is None:
                plans[parent] = DirectoryWrite(WantedDirectory(parent, "root", "root", 0o755), 0, 0, None)
    return tuple(plans[path] for path in sorted(plans))


def _plan_file(
    item: WantedFile, current: Current, uids: Mapping[str, int], gids: Mapping[str, int]
) -> FileWrite | None:
    before = current.entries[item.path]
    if before is not None and before.kind in ("directory", "other"):
        kind = "a directory" if before.kind == "directory" else "neither a file nor a link"
        raise ValueError(f"{item.path} is {kind}: remove it, or declare another path")
    content = item.content
    if content is None:
        if before is None or before.kind != "file" or sha256(before.content) != item.sha256:
            there = (
                f"has {sha256(before.content)}" if before is not None and before.kind == "file" else "does not exist"
            )
            raise ValueError(f"{item.path} should have the SHA-256 {item.sha256} but {there}: send its content")
        content = before.content
    uid, gid = uids[item.owner], gids[item.group]
    if before == Entry("file", uid, gid, item.mode, content):
        return None
    return FileWrite(item, content, uid, gid, before)


def _plan_removals(paths: Iterable[str], current: Current) -> tuple[tuple[str, Entry], ...]:
    removals = []
    for path in sorted(paths):
        entry = current.entries[path]
        if entry is not None and entry.kind in ("directory", "other"):
            raise ValueError(f"{path} was a file of ours and is something else now: remove it")
        if entry is not None:
            removals.append((path, entry))
    return tuple(removals)


def _plan_directory_removals(
    known: Mapping[str, bool], needed: set[str], gone: set[str], current: Current
) -> tuple[str, ...]:
    """Return the directories that we made, nobody needs and that will be empty, the deepest first."""
    removals: list[str] = []
    for path in sorted(known, key=lambda path: (-path.count("/"), path)):
        if not known[path] or path in needed or current.entries.get(path) is None:
            continue
        if all(posixpath.join(path, name) in gone for name in current.names[path]):
            removals.append(path)
            gone.add(path)
    return tuple(removals)


def make_diff(plan: Plan) -> list[dict[str, str]]:
    """Return Ansible's list of differences; of secret files only that they would change."""
    differences: list[dict[str, str]] = []
    for item in plan.directories:
        differences.append(_attribute_diff(item.wanted.path, "directory", item.before, item.wanted))
    for write in plan.writes:
        wanted, before = write.wanted, write.before
        if wanted.secret:
            differences.append(
                {"prepared": f"secret file {wanted.path}: {'created' if before is None else 'changed'}\n"}
            )
            continue
        if before is None or before.kind == "link" or before.content != write.content:
            # What not everybody could read may have been secret before it was declared under files.
            hidden = before is not None and before.kind == "file" and wanted.mode & ~before.mode & 0o044
            differences.append(
                {
                    "before_header": wanted.path if before is not None else f"{wanted.path} (absent)",
                    "after_header": wanted.path,
                    "before": "not shown: it was readable by fewer people\n" if hidden else _text(before),
                    "after": _text(Entry("file", 0, 0, 0, write.content)),
                }
            )
        if before is None or (before.uid, before.gid, before.mode) != (write.uid, write.gid, wanted.mode):
            differences.append(_attribute_diff(wanted.path, "file", before, wanted))
    for path, entry in plan.removals:
        # A file that is not declared any more may have been a secret one, so its content stays out.
        differences.append(
            {"before_header": path, "after_header": f"{path} (absent)", "before": f"{entry.kind}\n", "after": ""}
        )
    for path in plan.directory_removals:
        differences.append(
            {"before_header": path, "after_header": f"{path} (absent)", "before": "directory\n", "after": ""}
        )
    return differences


def _attribute_diff(path: str, kind: str, before: Entry | None, wanted: WantedFile | WantedDirectory) -> dict[str, str]:
    there = "" if before is None else f"{before.kind} uid {before.uid} gid {before.gid} mode {before.mode:04o}\n"
    return {
        "before_header": f"{path} (attributes)",
        "after_header": f"{path} (attributes)",
        "before": there,
        "after": f"{kind} owner {wanted.owner} group {wanted.group} mode {wanted.mode:04o}\n",
    }


def _text(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if entry.kind == "link":
        return f"symbolic link to {entry.target}\n"
    try:
        text = entry.content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(text) > _DIFF_LIMIT:
        return f"{len(entry.content)} bytes, SHA-256 {sha256(entry.content)}\n"
    return text


def read_ids(wanted: Iterable[str], lookup: Callable[[str], int | None]) -> dict[str, int]:
    """Return the ids of account names by ``lookup``; NO_ID where there is no such account."""
    ids = {name: lookup(name) for name in wanted}
    return {name: NO_ID if number is None else number for name, number in ids.items()}
