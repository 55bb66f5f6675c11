"""Uploads that are held open, over sessions of SSH with a client's own key: hold.py KIND SECONDS SSH… prints what is answered.

late: one begins before the file is there, another brings the file, and then the first goes on with another content.
long: all of a file is sent, one byte less than was announced, is held for SECONDS, and then taken back.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time

# Each time another file: a store may remember for a while what it had.
CONTENT = os.urandom(6000)
OTHER = b"x" * len(CONTENT)
PATH = f"/data/{hashlib.sha256(CONTENT).hexdigest()}"
DATA, HEADERS, RST_STREAM = 0, 1, 3
CANCEL = (8).to_bytes(4, "big")
END_STREAM, END_HEADERS = 1, 4
# The first byte of an answer's headers: an entry of HPACK's own table, or a literal one.
STATUS = {0x88: "200", 0x8D: "404", 0x8E: "500"}


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Session:
    """One session of SSH, with rclone at its other end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(sys.argv[3:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))

    def _say(self, data: bytes) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass

    def begin(self, stream: int, method: str, path: str, length: int | None = None) -> None:
        """Begin a request, without what it carries."""
        fields = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "localhost")]
        fields += [] if length is None else [("content-length", str(length))]
        block = b"".join(b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in field) for field in fields)
        self._say(frame(HEADERS, END_HEADERS | (END_STREAM if length is None else 0), stream, block))

    def send(self, stream: int, data: bytes, *, end: bool) -> None:
        """Go on with it."""
        self._say(frame(DATA, END_STREAM if end else 0, stream, data))

    def cancel(self, stream: int) -> None:
        """Take it back."""
        self._say(frame(RST_STREAM, 0, stream, CANCEL))

    def answer(self, stream: int) -> str:
        """The status of the answer, or what else came of it."""
        stdout = self._process.stdout
        assert stdout
        while len(head := stdout.read(9)) == 9:
            payload = stdout.read(int.from_bytes(head[:3], "big"))
            if int.from_bytes(head[5:], "big") == stream and head[3] == HEADERS:
                return STATUS.get(payload[0], payload.hex())
        return "ended"

    def end(self) -> None:
        """Hang up."""
        self._process.kill()
        self._process.wait()


def got() -> str:
    """What a session of its own is told when it asks for the file."""
    session = Session()
    session.begin(1, "GET", PATH)
    status = session.answer(1)
    session.end()
    return status


def late() -> list[str]:
    """Begin, have another one bring it, and go on."""
    first, second = Session(), Session()
    first.begin(1, "POST", PATH, len(CONTENT))
    first.send(1, OTHER[:1000], end=False)
    time.sleep(2)
    second.begin(1, "POST", PATH, len(CONTENT))
    second.send(1, CONTENT, end=True)
    statuses = [second.answer(1)]
    first.send(1, OTHER[1000:], end=True)
    statuses.append(first.answer(1))
    first.end()
    second.end()
    return statuses


def long() -> list[str]:
    """Send all but the end, and take it back."""
    session = Session()
    session.begin(1, "POST", PATH, len(CONTENT) + 1)
    session.send(1, CONTENT, end=False)
    time.sleep(2)
    statuses = [got()]
    time.sleep(float(sys.argv[2]))
    statuses.append(got())
    session.cancel(1)
    session.begin(3, "GET", "/config")
    statuses.append(session.answer(3))
    statuses.append(got())
    session.end()
    return statuses


print(*{"late": late, "long": long}[sys.argv[1]]())
