# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a client says to `rclone serve restic` passes through here, as long as it asks for nothing but restic's own layout.

`serve` starts this file, which is installed alone, as a program between a client and rclone's standard input. It reads HTTP/2
(RFC 9113) only as far as it has to in order to know each request's method and path before rclone does: frames with data pass in
large pieces, and blocks of headers are decoded with the same table that rclone keeps (HPACK, RFC 7541). What is not understood,
or is not what a client of restic would say, ends the session: nothing is passed on that was not understood.

A new file passes with the content alone that its name says, and not for ever. rclone looks whether a name is taken when an upload
begins, and only for its own session: one that was begun before the file was there, and ends long after, would replace it in a store,
or have rclone remove what is there of it from a directory.

Between a client and sftp-server, which is confined to a directory by the kernel, it reads SFTP only as far as to see the requests
that the kernel does not judge.

Neither rclone nor sftp-server sees to it that what a client was told to be there is still there after a power failure: where both
write to a directory, this does.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import select
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator

BUFFER = 1 << 18
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# A request of restic has some 150 bytes of headers.
HEADERS_LIMIT = 1 << 14
# What rclone announces (Go's default). A client may use less and never more.
TABLE_LIMIT = 4096
# How long an upload may take: restic has five at a time, of 16 MiB (128 at most), which pass at 1 KiB/s (8) together. What
# was saved longer ago stays.
UPLOAD_SECONDS = 86400
# And how long the frame may last then that keeps it from being dropped.
GRACE_SECONDS = 600
# How often that is looked at.
LOOK_SECONDS = 60
# rclone takes 250 at a time; those that it refused before their end are not known here, and wait until they have lasted too long.
UPLOADS = 10_000
# sysexits.h
NO_PERMISSION = 77

_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 2, 3, 4, 6, 7, 8
_UNREAD = frozenset((_PRIORITY, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE))
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITIZED = 0x1, 0x4, 0x8, 0x20
_CANCEL = 8

# SFTP, version 3.
_SETSTAT, _REMOVE, _RENAME, _EXTENDED, _PERMISSIONS = 9, 13, 18, 200, 4
_NAMING = frozenset((_SETSTAT, _REMOVE, _RENAME, _EXTENDED))
_POSIX_RENAME = b"posix-rename@openssh.com"
# Of those that name files: a path has 4096 bytes at most.
NAMING_LIMIT = 1 << 14

_TYPES = rb"\A/(?:data|keys|locks|snapshots|index)/"
# What restic 0.18 and 0.19 ask for, recorded command by command.
_ALLOWED = (
    (re.compile(_TYPES + rb"[0-9a-f]{64}\Z"), (b"GET", b"HEAD", b"POST", b"DELETE")),
    (re.compile(rb"\A/config\Z"), (b"GET", b"HEAD", b"POST", b"DELETE")),
    (re.compile(_TYPES + rb"\Z"), (b"GET",)),
    (re.compile(rb"\A/\?create=true\Z"), (b"POST",)),
    # The first of all, to see that somebody answers: a file that does not exist.
    (re.compile(rb"\A/file-[0-9]{1,20}\Z"), (b"GET",)),
)
_KNOWN = frozenset((b":method", b":path", b":scheme", b":authority", b"content-length"))
_LENGTH = re.compile(rb"\A[0-9]{1,18}\Z")

# RFC 7541, appendix A: one field a line, numbered from 1.
_STATIC = tuple(
    (name, value)
    for name, _space, value in (
        line.partition(b" ")
        for line in b""":authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate""".splitlines()
    )
)

# RFC 7541, appendix B: how many bits each byte's code has, and at last the end of a string. Codes of a length follow each other in the
# order of bytes, so these lengths are the whole table.
_BITS = """
13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 28 28 28 28 28 28 30 28 28 28 28 28 28 28 28 28
6 10 10 12 13 6 8 11 10 10 8 11 8 6 6 6 5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10
13 6 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 8 7 8 13 19 13 14 6
15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 6 7 6 5 5 6 7 7 7 7 7 15 11 14 13 28
20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23 24 24 22 23 24 23 23 23 23 21 22 23 22 23 23 24
22 21 20 22 22 23 23 21 23 22 22 24 21 22 23 23 21 21 22 21 23 22 23 23 20 22 22 22 23 22 22 23
26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 19 21 26 27 27 26 27 24 21 21 26 26 28 27 27 27
20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23 26 27 26 26 27 27 27 27 27 28 27 27 27 27 27 26
30
"""
_END_OF_STRING = 256


class RefusedError(Exception):
    """What the client said is not passed on."""


def _codes() -> dict[int, int]:
    """Return which byte a code stands for. A 1 is put before each code, so that its length counts, too."""
    codes: dict[int, int] = {}
    code = length = 0
    for bits, byte in sorted((int(bits), byte) for byte, bits in enumerate(_BITS.split())):
        code <<= bits - length
        length = bits
        codes[1 << length | code] = byte
        code += 1
    return codes


_CODES = _codes()


def huffman(data: bytes) -> bytes:
    """Return the string that was encoded. Raises RefusedError."""
    found = bytearray()
    code = 1
    for byte in data:
        for shift in (7, 6, 5, 4, 3, 2, 1, 0):
            code = code << 1 | byte >> shift & 1
            known = _CODES.get(code)
            if known is None:
                continue
            if known == _END_OF_STRING:
                raise RefusedError("a header with an end before its end")
            found.append(known)
            code = 1
    # The last byte is filled up with the beginning of the end's code, which has only ones.
    padding = code.bit_length() - 1
    if padding > 7 or code != (1 << padding + 1) - 1:
        raise RefusedError("a header that does not end where its bytes do")
    return bytes(found)


class Fields:
    """A decoder of header blocks: the same table as rclone's, from the same blocks."""

    def __init__(self) -> None:
        self._table: deque[tuple[bytes, bytes]] = deque()
        self._size = 0
        self._limit = TABLE_LIMIT
        self._block = b""
        self._position = 0

    def decode(self, block: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Give name and value of each field. Raises RefusedError."""
        self._block, self._position = block, 0
        begun = False
        while self._position < len(block):
            first = block[self._position]
            if first & 0xE0 == 0x20:
                if begun:
                    raise RefusedError("a change of the table among headers")
                self._resize(self._number(5))
                continue
            begun = True
            if first & 0x80:
                yield self._entry(self._number(7))
                continue
            kept = first & 0x40
            index = self._number(6 if kept else 4)
            field = (self._entry(index)[0] if index else self._string(), self._string())
            if kept:
                self._table.appendleft(field)
                self._size += _weight(field)
                self._evict()
            yield field

    def _resize(self, limit: int) -> None:
        if limit > TABLE_LIMIT:
            raise RefusedError(f"a table of headers larger than {TABLE_LIMIT} bytes")
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        while self._size > self._limit:
            self._size -= _weight(self._table.pop())

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if 1 <= index <= len(_STATIC):
            return _STATIC[index - 1]
        if not len(_STATIC) < index <= len(_STATIC) + len(self._table):
            raise RefusedError("a header that is in no table")
        return self._table[index - len(_STATIC) - 1]

    def _byte(self) -> int:
        if self._position >= len(self._block):
            raise RefusedError("headers that end too early")
        self._position += 1
        return self._block[self._position - 1]

    def _number(self, bits: int) -> int:
        most = (1 << bits) - 1
        value = self._byte() & most
        if value < most:
            return value
        for shift in (0, 7, 14):
            byte = self._byte()
            value += (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
        raise RefusedError("a number in headers that is too large")

    def _string(self) -> bytes:
        encoded = self._position < len(self._block) and self._block[self._position] & 0x80
        end = self._number(7)
        end += self._position
        if end > len(self._block):
            raise RefusedError("headers that end too early")
        text, self._position = self._block[self._position : end], end
        return huffman(text) if encoded else text


def _weight(field: tuple[bytes, bytes]) -> int:
    return len(field[0]) + len(field[1]) + 32


class Disk:
    """The directory that everything is written to; none where a store has it."""

    def __init__(self, directory: str = "") -> None:
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if directory else None
        self._written = False

    def complete(self, path: bytes) -> None:
        """A file is whole next. What an index or a snapshot refers to was there before, and is on disk then. Raises RefusedError."""
        folder = os.path.basename(os.path.dirname(path))
        if folder in (b"index", b"snapshots"):
            self.sync()
        self._written |= folder != b"locks"

    def remove(self, path: bytes) -> None:
        """A file goes next. What was written in its place is on disk then. Raises RefusedError."""
        if os.path.basename(os.path.dirname(path)) != b"locks":
            self.sync()

    def sync(self) -> None:
        """Return once all that was written is on disk. Raises RefusedError where it is not."""
        if self._descriptor is None or not self._written:
            return
        import ctypes  # only here: who only reads needs none

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(self._descriptor) != 0:
            error = ctypes.get_errno()
            if error != errno.ENOSYS:
                raise RefusedError(f"what was written before may not be on disk: {os.strerror(error)}")
            os.sync()
        self._written = False


class Upload:
    """The content of a new file, as it comes: its name is its SHA-256, but for that of `config`."""

    def __init__(self, path: bytes, length: int, disk: Disk) -> None:
        self.begun = time.monotonic()
        self._path = path
        self.disk = disk
        self._digest = None if path == b"/config" else path.rpartition(b"/")[2].decode()
        self._content = hashlib.sha256()
        self.left = length
        if not length:
            self._end()

    def take(self, data: memoryview) -> None:
        """Read a piece, no larger than what is left. Raises RefusedError where the last one makes another content."""
        self._content.update(data)
        self.left -= len(data)
        if not self.left:
            self._end()

    def _end(self) -> None:
        if self._digest is not None and self._content.hexdigest() != self._digest:
            raise RefusedError(f"another content than {_shown(self._path)} has by its name")
        self.disk.complete(self._path)


class Layout:
    """Reads what one client says from its beginning, and says how much of it may be passed on."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self._fields = Fields()
        self._begun = False
        self._stream = 0
        # How much is left of a frame that passes as it comes, and the upload that it belongs to.
        self._left = 0
        self._upload: Upload | None = None
        # The stream that ends with this frame.
        self._ending: int | None = None
        # Those that have not ended, by their streams, the oldest first.
        self.uploads: dict[int, Upload] = {}

    def passes(self, data: memoryview) -> int:
        """Return how many bytes may be passed on; the rest has to come again, with more behind it. Raises RefusedError.

        Where an upload is overdue that is the end of a frame, if there is one.
        """
        position = 0
        if not self._begun:
            if data[: len(PREFACE)] != PREFACE[: len(data)]:
                raise RefusedError("something else than HTTP/2")
            if len(data) < len(PREFACE):
                return 0
            self._begun = True
            position = len(PREFACE)
        while True:
            step = min(self._left, len(data) - position)
            if step and self._upload is not None:
                self._upload.take(data[position : position + step])
            self._left -= step
            position += step
            if self._left:
                return position
            # Not before all of the frame is there: rclone knows nothing of it, and the upload goes on.
            if self._ending is not None:
                del self.uploads[self._ending]
            self._upload = self._ending = None
            if len(data) - position < 9 or self._late():
                return position
            kind = data[position + 3]
            if kind in (_DATA, _RST_STREAM):
                self._body(data, position)
            if kind in _UNREAD or kind in (_DATA, _RST_STREAM):
                self._left = int.from_bytes(data[position : position + 3], "big")
                position += 9
            elif kind == _HEADERS:
                end = self._headers(data, position)
                if end is None:
                    return position
                position = end
            else:
                raise RefusedError(f"a frame of the kind {kind}")

    def overdue(self) -> bytes:
        """Return frames that end the uploads which last too long; they go where nothing but whole frames was passed on.

        Raises RefusedError where there is no such place for long.
        """
        frames = b""
        while self._late():
            if self._left:
                if self._late(GRACE_SECONDS):
                    raise RefusedError(f"an upload of more than {UPLOAD_SECONDS} seconds")
                break
            number = next(iter(self.uploads))
            del self.uploads[number]
            frames += b"\0\0\4" + bytes((_RST_STREAM, 0)) + number.to_bytes(4, "big") + _CANCEL.to_bytes(4, "big")
        return frames

    def _late(self, grace: int = 0) -> bool:
        """Whether the oldest upload lasts too long."""
        oldest = next(iter(self.uploads.values()), None)
        return oldest is not None and time.monotonic() - oldest.begun >= UPLOAD_SECONDS + grace

    def _body(self, data: memoryview, start: int) -> None:
        """Judge the frame that begins here, of a request's content or of its premature end."""
        length, kind, flags = int.from_bytes(data[start : start + 3], "big"), data[start + 3], data[start + 4]
        number = int.from_bytes(data[start + 5 : start + 9], "big") & 0x7FFFFFFF
        upload = self.uploads.get(number)
        if upload is None:
            return
        if kind == _RST_STREAM:
            self._ending = number
            return
        if flags & _PADDED:
            raise RefusedError("data that is padded")
        # What rclone waits for is the length alone: with it, it may take a file for whole before the stream has ended.
        if length > upload.left or (flags & _END_STREAM and length != upload.left):
            raise RefusedError("data of another length than was announced")
        if flags & _END_STREAM:
            self._ending = number
        self._upload = upload

    def _headers(self, data: memoryview, start: int) -> int | None:
        """Judge the request that begins here and return where it ends, or None as long as not all of it is there."""
        length, flags = int.from_bytes(data[start : start + 3], "big"), data[start + 4]
        number = int.from_bytes(data[start + 5 : start + 9], "big") & 0x7FFFFFFF
        # restic's are short, so none has to go on in another frame.
        if length > HEADERS_LIMIT or not flags & _END_HEADERS:
            raise RefusedError(f"headers of more than {HEADERS_LIMIT} bytes")
        if flags & _PADDED:
            raise RefusedError("headers that are padded")
        position = start + 9
        end = position + length
        if end > len(data):
            return None
        if flags & _PRIORITIZED:
            if length < 5:
                raise RefusedError("headers that end too early")
            position += 5
        # A stream's second block is a trailer, and rclone reads no request from it; restic has none.
        if not number & 1 or number <= self._stream:
            raise RefusedError("headers of no new request")
        self._stream = number
        upload = judge(self._fields.decode(bytes(data[position:end])), self.disk)
        if upload is None:
            return end
        if flags & _END_STREAM:
            if upload.left:
                raise RefusedError("data of another length than was announced")
        elif len(self.uploads) >= UPLOADS:
            raise RefusedError(f"more than {UPLOADS} uploads at a time")
        else:
            self.uploads[number] = upload
        return end


class Sftp:
    """Reads what one client says to sftp-server from its beginning, and says how much of it may be passed on."""

    def __init__(self, directory: str, disk: Disk) -> None:
        self._directory = os.fsencode(os.path.realpath(directory))
        self.disk = disk
        self._left = 0
        # None is ever overdue: whoever writes there may delete as well.
        self.uploads: dict[int, Upload] = {}

    def passes(self, data: memoryview) -> int:
        """Return how many bytes may be passed on; the rest has to come again, with more behind it. Raises RefusedError."""
        position = 0
        while True:
            step = min(self._left, len(data) - position)
            self._left -= step
            position += step
            if self._left or len(data) - position < 5:
                return position
            length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4]
            if not length:
                raise RefusedError("an empty request")
            if kind in _NAMING:
                if length > NAMING_LIMIT:
                    raise RefusedError(f"a request of more than {NAMING_LIMIT} bytes")
                if len(data) - position < 4 + length:
                    return position
                self._named(kind, bytes(data[position + 9 : position + 4 + length]))
            self._left = 4 + length

    def overdue(self) -> bytes:
        """There is nothing to drop."""
        return b""

    def _named(self, kind: int, request: bytes) -> None:
        """Look at what a request does by a file's name. Raises RefusedError."""
        if kind == _SETSTAT:
            self._setstat(request)
            return
        strings = []
        while request:
            end = 4 + int.from_bytes(request[:4], "big")
            strings.append(request[4:end])
            request = request[end:]
        if not strings:
            raise RefusedError("a request without a name")
        if kind == _REMOVE:
            self.disk.remove(strings[0])
        elif kind == _RENAME or strings[:1] == [_POSIX_RENAME]:
            self.disk.complete(strings[-1])

    def _setstat(self, request: bytes) -> None:
        """Judge what is changed by its name; restic 0.19 makes its files read-only. Raises RefusedError.

        Before Linux 6.2 Landlock does not see a file that is cut so, and it never sees the change of a mode. Nothing can take the
        place of what was judged meanwhile: no client can make a symbolic link there, nor move something in or out. But it can move
        directories about within: what lies above one may be another one when the kernel goes back from it.
        """
        end = 4 + int.from_bytes(request[:4], "big")
        path = request[4:end]
        if len(request) != end + 8 or int.from_bytes(request[end : end + 4], "big") != _PERMISSIONS:
            raise RefusedError("a change of something else than a mode by its name")
        if b".." in path.split(b"/"):
            raise RefusedError(f"a change of {_shown(path)}, by a way back")
        found = b"" if b"\0" in path else os.path.realpath(os.path.join(self._directory, path))
        if not (found + b"/").startswith(self._directory + b"/"):
            raise RefusedError(f"a change of {_shown(path)}, which is not in the repository's directory")


def judge(fields: Iterable[tuple[bytes, bytes]], disk: Disk) -> Upload | None:
    """Look at the request that these headers make; return the upload that it begins. Raises RefusedError.

    A deletion is rclone's to judge. It refuses what is append-only and the session goes on: restic then removes the lock that
    would stop every later backup.
    """
    seen: dict[bytes, bytes] = {}
    for name, value in fields:
        if not name.startswith(b":") and name != b"content-length":
            continue
        if name not in _KNOWN:
            raise RefusedError(f"a header {_shown(name)}")
        if name in seen:
            raise RefusedError(f"a second header {_shown(name)}")
        seen[name] = value
    method, path = seen.get(b":method", b""), seen.get(b":path", b"")
    for pattern, methods in _ALLOWED:
        if pattern.match(path) and method in methods:
            if method == b"DELETE":
                disk.remove(path)
            return (
                _upload(path, seen.get(b"content-length", b""), disk)
                if method == b"POST" and b"?" not in path
                else None
            )
    raise RefusedError(f"{_shown(method)} {_shown(path)} is no part of restic's layout")


def _upload(path: bytes, length: bytes, disk: Disk) -> Upload:
    if not _LENGTH.match(length):
        raise RefusedError("an upload that does not say how long it is")
    return Upload(path, int(length), disk)


def _shown(text: bytes) -> str:
    """Return what a client said, fit for a terminal and a log."""
    shown = ascii(text[:100].decode("ascii", "replace"))
    return f"{shown}…" if len(text) > 100 else shown


def relay(layout: Layout | Sftp, source: int, target: int) -> None:
    """Pass on what may be passed on until there is no more, or nobody takes it. Raises RefusedError."""
    buffer = memoryview(bytearray(BUFFER))
    used = 0
    while True:
        if layout.uploads and not select.select([source], (), (), LOOK_SECONDS)[0]:
            if not _write(target, layout.overdue()):
                return
            continue
        try:
            count = os.readv(source, [buffer[used:]])
        except ConnectionResetError:
            # The session is gone, and an answer with it.
            return
        if not count:
            return
        used += count
        passed, dropped = 0, b"x"
        while dropped:
            begin = passed
            passed += layout.passes(buffer[begin:used])
            dropped = layout.overdue()
            if not _write(target, buffer[begin:passed]) or not _write(target, dropped):
                return
        # No more than the beginning of a request.
        rest = bytes(buffer[passed:used])
        used = len(rest)
        buffer[:used] = rest


def _write(target: int, data: memoryview | bytes) -> bool:
    """Write all of it, and say whether somebody takes it."""
    written = 0
    while written < len(data):
        try:
            written += os.write(target, data[written:])
        except BrokenPipeError:
            return False
    return True


def main() -> None:
    """Stand between standard input and output.

    The arguments are the repository's name, its directory where it has one on this host, and `sftp` before sftp-server.
    """
    name, *place = sys.argv[1:]
    disk = Disk(*place[:1])
    try:
        relay(Sftp(place[0], disk) if place[1:] else Layout(disk), 0, 1)
        # restic waits for the end of the session before it says that all is well.
        disk.sync()
    except RefusedError as error:
        sys.stderr.write(f"holdfast: {name}: refused: {error}\n")
        raise SystemExit(NO_PERMISSION) from None


if __name__ == "__main__":
    main()
