# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What init taught: the record of a repository, and the fingerprint that says whether it still applies.

The record is readable by everybody, and a user's own password may be weak. So its fingerprint is keyed with a random
key that only root can read: without it no guess can be checked, and comparing costs no time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass, replace

from ._files import Tree
from ._source import Source

KEY_NAME = "fingerprint.key"
_KEY_BYTES = 32
_PATTERNS = {
    "HOLDFAST_REPOSITORY_ID": re.compile(r"\A[0-9a-f]{8,64}\Z"),
    "RESTIC_KEY_HINT": re.compile(r"\A[0-9a-f]{8,64}\Z"),
    "HOLDFAST_FINGERPRINT": re.compile(r"\A[0-9a-f]{32}-[0-9a-f]{32}\Z"),
}
# A record of a repository that is not behind an account of a server has none.
_WAY = ("HOLDFAST_WAY", re.compile(r"\A[0-9a-f]{32}\Z"))


@dataclass(frozen=True)
class Record:
    """Repository id, id of the key that the password opens, fingerprint of location and credential, and the way there.

    `way` is a digest of what a server was told of the client when the repository was last opened, see :func:`way_of`.
    """

    id: str
    key: str
    fingerprint: str
    way: str | None = None

    def render(self) -> str:
        """Return the file's text: an environment file of systemd."""
        values = [*zip(_PATTERNS, (self.id, self.key, self.fingerprint)), *([(_WAY[0], self.way)] if self.way else [])]
        return "".join(f"{name}={value}\n" for name, value in values)

    def doubted(self) -> Record:
        """Return it as one that was made for no credential: it does not apply until the repository is seen again."""
        return replace(self, fingerprint=f"{self.fingerprint.partition('-')[0]}-{'0' * 32}")

    def same_location(self, fingerprint: str) -> bool:
        """Tell whether `fingerprint` was made for the same location, whatever the credential."""
        return self.fingerprint.partition("-")[0] == fingerprint.partition("-")[0]


def parse(text: str) -> Record:
    """Return the record in `text`. Raises ValueError when it is not one."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if any(pattern.match(values.get(name, "")) is None for name, pattern in _PATTERNS.items()):
        raise ValueError("it is not a record of holdfast")
    identity, key, fingerprint = (values[name] for name in _PATTERNS)
    way = values.get(_WAY[0], "")
    return Record(identity, key, fingerprint, way if _WAY[1].match(way) else None)


def read(tree: Tree, path: str) -> Record | None:
    """Return the record at `path`, None if there is none.

    Raises ValueError naming the file and the cure when something else is there, UnsafePathError when others than root
    could have put it there.
    """
    entry = tree.entry(path)
    if entry is None:
        return None
    try:
        if entry.kind != "file" or entry.uid not in (0, os.geteuid()) or entry.mode & 0o022:
            raise ValueError("it is not a regular file that only root can change")
        return parse(entry.content.decode("ascii"))
    except ValueError as error:
        message = "it is not a record of holdfast" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ValueError(f"record {path}: {message}; look at it, remove it and run again") from None


def write(tree: Tree, path: str, record: Record) -> None:
    """Write the record atomically, readable by everybody, making its directory when it is missing."""
    tree.make_parents(path)
    tree.write(path, record.render().encode("ascii"), uid=os.geteuid(), gid=os.getegid(), mode=0o644)


def read_key(tree: Tree, directory: str) -> bytes | None:
    """Return the key of the fingerprints of the records in `directory`, None if there is none to be trusted."""
    try:
        entry = tree.entry(os.path.join(directory, KEY_NAME))
    except PermissionError:
        return None
    if entry is None or entry.kind != "file" or entry.uid not in (0, os.geteuid()) or entry.mode & 0o077:
        return None
    return entry.content if len(entry.content) == _KEY_BYTES else None


def make_key(tree: Tree, directory: str) -> bytes:
    """Return the key of the fingerprints in `directory`, made when it is missing; only root can read it."""
    key = read_key(tree, directory)
    if key is None:
        key = os.urandom(_KEY_BYTES)
        path = os.path.join(directory, KEY_NAME)
        tree.make_parents(path)
        tree.write(path, key, uid=os.geteuid(), gid=os.getegid(), mode=0o400)
    return key


def fingerprint(key: bytes, source: Source) -> str:
    """Return the fingerprint of a location (without credentials) and of what opens it: password, backend's variables.

    The REST user and password inside a location are no part of it: rotating them changes neither the repository nor
    its key.
    """
    location = source.public_location.encode("utf-8", "surrogateescape")
    secret = hashlib.sha256(source.password).digest() + hashlib.sha256(source.environment_bytes()).digest()
    parts = ((b"location", location), (b"credential", secret))
    return "-".join(hmac.new(key, label + b"\0" + value, hashlib.sha256).hexdigest()[:32] for label, value in parts)


def way_of(declared: str, public_key: str) -> str:
    """Return the digest of the way to a repository: what the inventory says of it, and the key that the client shows."""
    return hashlib.sha256(f"{declared}\0{public_key}".encode()).hexdigest()[:32]


def find(tree: Tree, path: str, source: Source, way: str | None = None) -> tuple[Record | None, bool]:
    """Return the record at `path` and whether it was made for `source`, and by this `way` (None: whichever it was).

    Raises as :func:`read` does.
    """
    record = read(tree, path)
    key = read_key(tree, os.path.dirname(path))
    if record is None or key is None or way not in (None, record.way):
        return record, False
    return record, hmac.compare_digest(record.fingerprint, fingerprint(key, source))
