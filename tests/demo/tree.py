"""Prints what every file below a directory is, for comparing byte for byte and in metadata. Runs on a test host."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys


def describe(root: str) -> dict[str, list[object]]:
    """Path to type, mode, owner, group, size, time (ns), target, extended attributes (ACLs among them), links, SHA-256."""
    found = {}
    for directory, directories, files in os.walk(root):
        for name in [*directories, *files, "."]:
            path = os.path.normpath(os.path.join(directory, name))
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False).hex()
                for key in sorted(os.listxattr(path, follow_symlinks=False))
            }
            digest = hashlib.sha256(_read(path)).hexdigest() if stat.S_ISREG(kind) else ""
            found[os.fsencode(os.path.relpath(path, root)).hex()] = [
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_size if not stat.S_ISDIR(kind) else 0,
                status.st_mtime_ns,
                os.readlink(path) if stat.S_ISLNK(kind) else "",
                attributes,
                status.st_nlink if not stat.S_ISDIR(kind) else 0,
                digest,
            ]
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


if __name__ == "__main__":
    print(json.dumps(describe(sys.argv[1]), sort_keys=True))
