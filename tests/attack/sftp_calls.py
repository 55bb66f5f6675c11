# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests that no restic makes, on a test host: python3 sftp_calls.py OWN OTHER COMMAND...

COMMAND is what leads to sftp-server, OWN a directory that it serves, OTHER a file that it should not. Prints the status of each
operation on a new file of OWN (`before`), on OTHER (`attack`), and on a new file again (`after`): 0 where it was done. And of each
change of a file by its name (`by name`), in a session of its own: -1 where that ends it.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

OPENDIR, OPEN, CLOSE, READ, WRITE, SETSTAT, REMOVE, MKDIR, RMDIR, RENAME, EXTENDED = (
    11,
    3,
    4,
    5,
    6,
    9,
    13,
    14,
    15,
    18,
    200,
)
STATUS, HANDLE = 101, 102
FOR_READING, FOR_WRITING, CREATING, CUTTING, EXCLUSIVE = 1, 2, 8, 16, 32
NOTHING, EMPTY = struct.pack(">I", 0), struct.pack(">IQ", 1, 0)
MODE, OWNER, TIMES = struct.pack(">II", 4, 0o600), struct.pack(">III", 2, 0, 0), struct.pack(">III", 8, 0, 0)
CONTENT = os.urandom(100)


def string(text: str | bytes) -> bytes:
    """As SFTP writes it."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(data)) + data


class Session:
    """One sftp-server, version 3 of the protocol."""

    def __init__(self, command: list[str]) -> None:
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._send(bytes([1]) + struct.pack(">I", 3))
        self._receive()

    def _send(self, packet: bytes) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(string(packet))
        self._server.stdin.flush()

    def _receive(self) -> bytes:
        assert self._server.stdout is not None
        return self._server.stdout.read(int.from_bytes(self._server.stdout.read(4), "big"))

    def call(self, kind: int, *arguments: bytes) -> tuple[int, bytes]:
        """The status that a request is answered with, 0 where it is answered with what it asked for, and the handle if it is one."""
        self._send(bytes([kind]) + struct.pack(">I", 1) + b"".join(arguments))
        answer = self._receive()
        if not answer:
            return -1, b""
        if answer[0] == STATUS:
            return struct.unpack(">I", answer[5:9])[0], b""
        return 0, answer[9:] if answer[0] == HANDLE else b""

    def open(self, path: str, flags: int, kind: int = 0, *arguments: bytes) -> int:
        """Open a file, and make one request with the handle."""
        status, handle = self.call(OPEN, string(path), struct.pack(">I", flags), NOTHING)
        if status == 0 and kind:
            status = self.call(kind, string(handle), *arguments)[0]
        if handle:
            self.call(CLOSE, string(handle))
        return status

    def write(self, path: str, flags: int) -> int:
        """Open a file and write to its beginning."""
        return self.open(path, FOR_WRITING | flags, WRITE, struct.pack(">Q", 0), string(CONTENT))

    def rename_over(self, source: str, target: str) -> int:
        """Rename, whatever has the other name."""
        return self.call(EXTENDED, string("posix-rename@openssh.com"), string(source), string(target))[0]

    def end(self) -> None:
        """No more requests."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)


def tried(session: Session, path: str, own: str) -> dict[str, int]:
    """Status of each operation on a file and its directory, the last of which removes it; `own` is a directory to come from and go to."""
    place = os.path.dirname(path)
    mine, away = f"{own}/mine", f"{own}/away"
    session.write(mine, CREATING)
    found = {
        "list": session.call(OPENDIR, string(place))[0],
        "read": session.open(path, FOR_READING, READ, struct.pack(">QI", 0, 10)),
        "write": session.write(path, 0),
        "write a new one": session.write(f"{place}/new", CREATING | EXCLUSIVE),
        "cut by opening it": session.open(path, FOR_WRITING | CREATING | CUTTING),
        "make a directory": session.call(MKDIR, string(f"{place}/directory"), NOTHING)[0],
        "rename over it": session.rename_over(mine, path),
        "move it away": session.rename_over(path, away),
    }
    # Back, where it went.
    session.rename_over(away, path)
    found["rename"] = session.call(RENAME, string(path), string(f"{path}.old"))[0]
    session.rename_over(f"{path}.old", path)
    found["remove"] = session.call(REMOVE, string(path))[0]
    session.call(REMOVE, string(mine))
    session.call(REMOVE, string(f"{own}/new"))
    session.call(RMDIR, string(f"{own}/directory"))
    return found


def by_name(command: list[str], path: str, attributes: bytes) -> int:
    """Status of a change of a file that is not opened."""
    session = Session(command)
    status = session.call(SETSTAT, string(path), attributes)[0]
    session.end()
    return status


def main(own: str, other: str, *command: str) -> None:
    """Try everything with what is the client's own, with what is not, and with its own again."""
    session = Session(list(command))
    result: dict[str, dict[str, int]] = {}
    for when, path in (("before", f"{own}/tried"), ("attack", other), ("after", f"{own}/tried")):
        if when != "attack":
            session.write(path, CREATING)
        result[when] = tried(session, path, own)
    mine = f"{own}/mine"
    session.write(mine, CREATING)
    each = {"mode": MODE, "size": EMPTY, "owner": OWNER, "times": TIMES}
    result["by name"] = {f"{what} of its own": by_name(list(command), mine, change) for what, change in each.items()}
    result["by name"].update({what: by_name(list(command), other, change) for what, change in each.items()})
    session.call(REMOVE, string(mine))
    session.end()
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
