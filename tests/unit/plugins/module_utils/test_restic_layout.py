# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What passes to `rclone serve restic`, and what does not. That rclone gets nothing else is tested in molecule/rclone_proxy.

`restic_sessions.json` is what restic said to rclone 1.75.2, recorded of commands on a repository of one small file.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import hpack
import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _restic_layout
from ansible_collections.holdfast.backup.plugins.module_utils._restic_layout import (
    Disk,
    Fields,
    Layout,
    RefusedError,
    Sftp,
)
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

SESSIONS = {
    name: base64.b64decode("".join(lines))
    for name, lines in json.loads(Path(__file__).with_name("restic_sessions.json").read_text()).items()
}
PROGRAM = Path(_restic_layout.__file__)
# Of a file without content.
NAME = hashlib.sha256().hexdigest()
PSEUDO = [(":authority", "localhost"), (":method", "GET"), (":path", "/config"), (":scheme", "http")]


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


SETTINGS = frame(4)
BEGIN = _restic_layout.PREFACE + SETTINGS


def headers(method: str = "GET", path: str = "/config", *, more: Iterable[tuple[str, str]] = ()) -> bytes:
    """A block that leaves no trace in the table; what is posted says that it has no content, unless `more` says something else."""
    fields = [(":method", method), (":path", path), (":scheme", "http"), *more]
    if method == "POST" and "content-length" not in dict(more):
        fields.append(("content-length", "0"))
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields])


def request(method: str = "GET", path: str = "/config", stream: int = 1) -> bytes:
    return frame(1, headers(method, path), flags=4 | 1, stream=stream)


def upload(content: bytes, *, length: int | None = None, stream: int = 1, path: str = "", end: bool = False) -> bytes:
    """The beginning of one, whose name and length are those of `content` unless they are given."""
    said = str(len(content) if length is None else length)
    path = path or f"/data/{hashlib.sha256(content).hexdigest()}"
    return frame(1, headers("POST", path, more=[("content-length", said)]), flags=4 | end, stream=stream)


def passed(*parts: bytes, step: int = 1 << 20) -> bytes:
    """What goes through, when so many bytes come at a time."""
    layout, kept, through = Layout(Disk()), b"", b""
    data = b"".join(parts)
    for start in range(0, len(data), step):
        kept += data[start : start + step]
        count = layout.passes(memoryview(kept))
        through, kept = through + kept[:count], kept[count:]
    return through


def refused(*parts: bytes) -> str:
    with pytest.raises(RefusedError) as raised:
        passed(*parts)
    return str(raised.value)


# --- what restic says


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("step", [1, 1000, 1 << 20])
def test_real_sessions_pass(session: str, step: int) -> None:
    assert passed(SESSIONS[session], step=step) == SESSIONS[session]


def test_what_the_sessions_ask_for_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another decoder of HPACK reads it; restic's requests have made use of the table by then."""
    for data in SESSIONS.values():
        judged: list[list[tuple[bytes, bytes]]] = []
        with monkeypatch.context() as patched:
            patched.setattr(_restic_layout, "judge", lambda fields, _disk, to=judged: to.append(list(fields)))
            passed(data)
        decoder, position, expected = hpack.Decoder(), len(_restic_layout.PREFACE), []
        while position < len(data):
            length = int.from_bytes(data[position : position + 3], "big")
            if data[position + 3] == 1:
                expected.append(
                    [tuple(each) for each in decoder.decode(data[position + 9 : position + 9 + length], raw=True)]
                )
            position += 9 + length
        assert len(judged) > 2
        assert judged == expected


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/config", *(f"/{each}/{NAME}" for each in ("data", "keys", "locks", "snapshots", "index"))]
)
def test_files(method: str, path: str) -> None:
    said = BEGIN + request(method, path)
    assert passed(said) == said


@pytest.mark.parametrize(
    "path", ["/data/", "/keys/", "/locks/", "/snapshots/", "/index/", "/file-18446744073709551615"]
)
def test_what_is_only_read(path: str) -> None:
    assert passed(BEGIN, request("GET", path)) == BEGIN + request("GET", path)
    for method in ("POST", "DELETE", "PUT"):
        assert f"{method!r} {path!r} is no part of restic's layout" in refused(BEGIN, request(method, path))


def test_create() -> None:
    assert passed(BEGIN, request("POST", "/?create=true"))
    assert refused(BEGIN, request("GET", "/?create=true"))
    assert refused(BEGIN, request("DELETE", "/?create=true"))


ODD_PATHS = [
    "", "/", "*", "/junk", "/foo/bar", "/data", "/data/xyz", f"/data/{NAME[:-1]}", f"/data/{NAME}0", f"/data/{NAME.upper()}",
    f"/data/01/{NAME}", f"/data/{NAME}/", f"/data//{NAME}", f"//data/{NAME}", f"/./data/{NAME}", f"/snapshots/../data/{NAME}",
    "/snapshots/../x", "/../other/config", "/%2e%2e/other/config", "/..%2fother/config", f"/data/{NAME}?x", f"/data/{NAME}#x",
    f"/data/{NAME}%00", f"/data/{NAME}\n", f"/data/{NAME}\0", "/config/", "/config?", "/config\n", "/Config", "config", "/con%66ig",
    "/?create=false", "/?create=true&x", "?create=true", "/data/?create=true", f"/other/{NAME}", f"/lock/{NAME}",
    f"http://localhost/data/{NAME}", "http://localhost/config", "/file-", "/file-x", "/file-1/x", f"/file-{'1' * 21}", "/file-1\n",
    f"/data/{NAME[:-1]}\u0661",
]  # fmt: skip


@pytest.mark.parametrize("path", ODD_PATHS)
def test_other_names(path: str) -> None:
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert "is no part of restic's layout" in refused(BEGIN, request(method, path)), method


@pytest.mark.parametrize("method", ["", "PUT", "PATCH", "CONNECT", "OPTIONS", "get", "GET ", "MKCOL"])
def test_other_methods(method: str) -> None:
    assert refused(BEGIN, request(method, f"/data/{NAME}"))
    assert refused(BEGIN, request(method, "/config"))


def test_nothing_of_a_refused_request_passes_and_what_came_before_it_does() -> None:
    said = BEGIN + request("GET", "/config", 1)
    layout, data = Layout(Disk()), said + request("POST", "/junk", 3)
    for end in range(1, len(data)):
        # A new one each time, as if so many bytes had come in one piece.
        assert Layout(Disk()).passes(memoryview(data[:end])) <= len(said)
    assert layout.passes(memoryview(said)) == len(said)
    with pytest.raises(RefusedError):
        layout.passes(memoryview(data[len(said) :]))


def test_what_is_refused_is_said_in_one_short_line() -> None:
    said = refused(BEGIN, request("POST", "/\x1b[31m\r\nholdfast: \u202e" + "x" * 500))
    assert said.isascii() or "…" in said
    assert said.replace("…", "").isprintable()
    assert len(said) < 250
    assert "/\\x1b[31m\\r\\nholdfast" in said


# --- frames


def test_data_and_control_frames_pass() -> None:
    content = os.urandom(100_000)
    data = b"".join(
        [
            BEGIN, frame(4, flags=1), frame(8, b"\0\0\1\0"), upload(content), frame(0, content, stream=1),
            frame(0, b"", flags=1, stream=1), frame(6, b"12345678"), request("GET", "/keys/", 3), frame(3, b"\0\0\0\10", stream=3),
            frame(2, b"12345", stream=5), frame(7, b"12345678"),
        ]
    )  # fmt: skip
    for step in (1, 7, 4096, 1 << 20):
        assert passed(data, step=step) == data


def test_data_passes_before_all_of_its_frame_is_there() -> None:
    layout = Layout(Disk())
    assert layout.passes(memoryview(BEGIN)) == len(BEGIN)
    begun = frame(0, b"x" * 1000, stream=1)[:500]
    assert layout.passes(memoryview(begun)) == 500


def test_headers_with_priority() -> None:
    data = BEGIN + frame(1, b"\x80\0\0\3\xff" + headers("POST", f"/data/{NAME}"), flags=0x20 | 4, stream=1)
    assert passed(data) == data
    assert passed(data, step=1) == data
    # None of it before all of it is there.
    assert passed(data[:-1]) == BEGIN


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([b"GET /config HTTP/1.1\r\n"], "something else than HTTP/2"),
        ([b"PRI * HTTP/2.0\r\n\r\nSX"], "something else than HTTP/2"),
        ([b"\x16\x03\x01"], "something else than HTTP/2"),
        ([BEGIN, frame(5, headers(), flags=4, stream=1)], "kind 5"),
        ([BEGIN, frame(9, headers(), flags=4, stream=1)], "kind 9"),
        ([BEGIN, frame(0x10, b"x")], "kind 16"),
        ([BEGIN, frame(1, b"\x02" + headers() + b"\0\0", flags=0x8 | 4, stream=1)], "padded"),
        ([BEGIN, frame(1, b"\0\0\0", flags=0x20 | 4, stream=1)], "too early"),
        # What goes on in another frame would be long, and to put it together takes time.
        ([BEGIN, frame(1, headers()[:5], stream=1)], "more than 16384 bytes"),
        ([BEGIN, request(stream=1), frame(9, b"", flags=4, stream=1)], "kind 9"),
        ([BEGIN, frame(1, headers(), flags=4, stream=0)], "no new request"),
        ([BEGIN, frame(1, headers(), flags=4, stream=2)], "no new request"),
        ([BEGIN, request(stream=3), request(stream=3)], "no new request"),
        ([BEGIN, request(stream=3), request(stream=1)], "no new request"),
        # A trailer has no method, but it is refused as what it is.
        ([BEGIN, request(stream=1), frame(1, hpack.Encoder().encode([("x", "y")]), flags=4 | 1, stream=1)], "no new request"),
        ([BEGIN, frame(1, b"", flags=4, stream=1)], "is no part"),
        ([BEGIN, frame(1, headers(more=[("x", "y" * 20000)]), flags=4, stream=1)], "more than 16384 bytes"),
        ([BEGIN, (1 << 23).to_bytes(3, "big") + bytes([1, 4, 0, 0, 0, 1])], "more than 16384 bytes"),
    ],
)  # fmt: skip
def test_frames_that_are_refused(parts: list[bytes], words: str) -> None:
    assert words in refused(*parts)


# --- what is uploaded

CONTENT = b"0123456789" * 100
CANCEL = b"\0\0\0\10"
OTHER = CONTENT[:-1] + b"x"


@pytest.mark.parametrize("step", [1, 7, 100, 1 << 20])
@pytest.mark.parametrize("size", [1, 333, 1000])
def test_a_file_passes_with_the_content_of_its_name(size: int, step: int) -> None:
    def frames(content: bytes) -> bytes:
        parts = [content[at : at + size] for at in range(0, len(content), size)]
        data = b"".join(frame(0, part, stream=1) + frame(8, b"\0\0\1\0") for part in parts)
        return data + frame(0, b"", flags=1, stream=1)

    good = BEGIN + upload(CONTENT) + frames(CONTENT) + request(stream=3)
    assert passed(good, step=step) == good
    assert "another content than '/data/" in refused(BEGIN, upload(CONTENT), frames(OTHER))
    config = BEGIN + upload(CONTENT, path="/config") + frames(OTHER)
    assert passed(config, step=step) == config


def test_without_the_right_content_the_last_byte_never_passes() -> None:
    """A store has a file as soon as all of its announced length is there, whether or not the stream has ended."""
    layout, through = Layout(Disk()), 0
    data = BEGIN + upload(CONTENT) + frame(0, OTHER, stream=1)
    for end in range(1, len(data)):
        through += layout.passes(memoryview(data[through:end]))
    assert through == len(data) - 1
    with pytest.raises(RefusedError):
        layout.passes(memoryview(data[through:]))


def test_uploads_at_the_same_time() -> None:
    first, second = CONTENT, CONTENT * 2
    data = b"".join(
        [
            BEGIN, upload(first, stream=1), upload(second, stream=3), frame(0, first[:500], stream=1),
            frame(0, second, flags=1, stream=3), frame(0, first[500:], flags=1, stream=1),
        ]
    )  # fmt: skip
    layout = Layout(Disk())
    assert layout.passes(memoryview(data)) == len(data)
    assert not layout.uploads


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([upload(CONTENT, length=999), frame(0, CONTENT, stream=1)], "another length than was announced"),
        ([upload(CONTENT, length=1001), frame(0, CONTENT, flags=1, stream=1)], "another length than was announced"),
        ([upload(CONTENT), frame(0, CONTENT, stream=1), frame(0, b"x", stream=1)], "another length than was announced"),
        ([upload(CONTENT, end=True)], "another length than was announced"),
        ([upload(CONTENT), frame(0, b"\0" + CONTENT, flags=8, stream=1)], "padded"),
        ([upload(CONTENT, length=0)], "another content than"),
        ([frame(1, headers("POST", f"/data/{NAME}", more=[("content-length", "+1")]), flags=4, stream=1)], "does not say how long"),
        ([frame(1, headers("POST", "/config", more=[("content-length", "")]), flags=4, stream=1)], "does not say how long"),
        ([frame(1, headers("GET", more=[("content-length", "1"), ("content-length", "2")]), flags=4, stream=1)], "a second header"),
    ],
)  # fmt: skip
def test_uploads_that_are_refused(parts: list[bytes], words: str) -> None:
    assert words in refused(BEGIN, *parts)


def test_too_many_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_restic_layout, "UPLOADS", 2)
    begun = [upload(CONTENT, stream=number) for number in (1, 3, 5)]
    assert "more than 2 uploads" in refused(BEGIN, *begun)
    reset = frame(3, b"\0\0\0\10", stream=1)
    assert passed(BEGIN, *begun[:2], reset, begun[2])


def test_an_upload_that_lasts_too_long_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the session goes on: an honest one may know nothing of it, where rclone had refused it long before its end."""
    now = [0.0]
    monkeypatch.setattr(_restic_layout.time, "monotonic", lambda: now[0])
    layout = Layout(Disk())
    half = frame(0, CONTENT[:500], stream=1)
    for data in (BEGIN + upload(CONTENT), half):
        assert layout.passes(memoryview(data)) == len(data)
    now[0] = 1000.0
    later = upload(CONTENT, stream=3)
    assert layout.passes(memoryview(later)) == len(later)
    now[0] = _restic_layout.UPLOAD_SECONDS - 0.1
    assert layout.overdue() == b""
    now[0] = float(_restic_layout.UPLOAD_SECONDS)
    assert layout.overdue() == frame(3, b"\0\0\0\10", stream=1)
    assert layout.overdue() == b""
    assert list(layout.uploads) == [3]
    # What still comes of it rclone drops.
    assert layout.passes(memoryview(half)) == len(half)
    # No frame can be put into another one.
    begun = frame(0, CONTENT, stream=3)[:-1]
    assert layout.passes(memoryview(begun)) == len(begun)
    now[0] = 1000.0 + _restic_layout.UPLOAD_SECONDS
    assert layout.overdue() == b""
    now[0] += _restic_layout.GRACE_SECONDS + 1
    with pytest.raises(RefusedError, match="an upload of more than 86400 seconds"):
        layout.overdue()


@pytest.mark.parametrize("begun", [frame(3, CANCEL, stream=1)[:9], frame(0, b"x", flags=1, stream=1)[:9]])
def test_an_end_that_never_comes_is_none(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    """Rclone knows nothing of a frame that is not whole, and keeps the upload open."""
    now = [0.0]
    monkeypatch.setattr(_restic_layout.time, "monotonic", lambda: now[0])
    layout = Layout(Disk())
    for data in (BEGIN + upload(CONTENT, length=1001), frame(0, CONTENT, stream=1), begun):
        assert layout.passes(memoryview(data)) == len(data)
    assert list(layout.uploads) == [1]
    now[0] = float(_restic_layout.UPLOAD_SECONDS + _restic_layout.GRACE_SECONDS)
    with pytest.raises(RefusedError, match="an upload of more than"):
        layout.overdue()


def test_what_is_overdue_is_dropped_between_two_frames_of_a_busy_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads may end in the middle of a frame for hours."""
    monkeypatch.setattr(_restic_layout, "UPLOAD_SECONDS", 0)
    # What is overdue at once: the first of the two is dropped, whatever the other one says.
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    parts = [BEGIN, upload(CONTENT), frame(0, CONTENT[:500], stream=1), frame(0, CONTENT, stream=5)[:-1]]
    os.write(feed, b"".join(parts))
    os.close(feed)
    _restic_layout.relay(Layout(Disk()), source, target)
    os.close(target)
    with os.fdopen(drain, "rb") as stream:
        assert stream.read() == b"".join([*parts[:2], frame(3, CANCEL, stream=1), *parts[2:]])
    os.close(source)


def test_the_program_drops_it_while_nobody_says_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_restic_layout, "UPLOAD_SECONDS", 0.3)
    monkeypatch.setattr(_restic_layout, "LOOK_SECONDS", 0.1)
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    said = BEGIN + upload(CONTENT) + frame(0, CONTENT[:500], stream=1)
    reset = frame(3, b"\0\0\0\10", stream=1)
    os.write(feed, said)
    running = threading.Thread(target=_restic_layout.relay, args=(Layout(Disk()), source, target))
    running.start()
    try:
        found = b""
        while len(found) < len(said + reset):
            found += os.read(drain, 1 << 16)
        assert found == said + reset
    finally:
        os.close(feed)
        running.join(10)
        for descriptor in (source, drain, target):
            os.close(descriptor)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([(":path", "/config")], "a second header ':path'"),
        ([(":method", "POST")], "a second header ':method'"),
        ([(":authority", "a"), (":authority", "b")], "a second header"),
        ([(":protocol", "websocket")], "a header ':protocol'"),
        ([(":PATH", "/junk")], "a header ':PATH'"),
        ([(":", "/junk")], "a header ':'"),
        ([(":status", "200")], "a header ':status'"),
    ],
)
def test_pseudo_headers(more: list[tuple[str, str]], words: str) -> None:
    assert words in refused(BEGIN, frame(1, headers(more=more), flags=4, stream=1))


# --- HPACK


def test_the_tables_are_those_of_another_implementation() -> None:
    assert hpack.table.HeaderTable.STATIC_TABLE == _restic_layout._STATIC
    lengths = zip(REQUEST_CODES_LENGTH, REQUEST_CODES, strict=True)
    assert {1 << length | code: byte for byte, (length, code) in enumerate(lengths)} == _restic_layout._CODES


WWW = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
KEY = (b"custom-key", b"custom-value")
DATE1, DATE2 = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"), (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT")
LOCATION = (b"location", b"https://www.example.com")
COOKIE = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
REQUESTS = [
    WWW,
    [*WWW, (b"cache-control", b"no-cache")],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        KEY,
    ],
]
RESPONSES = [
    [(b":status", b"302"), (b"cache-control", b"private"), DATE1, LOCATION],
    [(b":status", b"307"), (b"cache-control", b"private"), DATE1, LOCATION],
    [(b":status", b"200"), (b"cache-control", b"private"), DATE2, LOCATION, (b"content-encoding", b"gzip"), COOKIE],
]


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        # RFC 7541, C.2
        (["400a637573746f6d2d6b65790d637573746f6d2d686561646572"], [[(b"custom-key", b"custom-header")]]),
        (["040c2f73616d706c652f70617468"], [[(b":path", b"/sample/path")]]),
        (["100870617373776f726406736563726574"], [[(b"password", b"secret")]]),
        (["82"], [[(b":method", b"GET")]]),
        # C.3
        (
            [
                "828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ],
            REQUESTS,
        ),
        # C.4
        (
            [
                "828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ],
            REQUESTS,
        ),
        # C.5, whose table of 256 bytes is announced in front
        (
            [
                "3fe1014803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
                "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
                "4803333037c1c0bf",
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a"
                "584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
            ],
            RESPONSES,
        ),
        # C.6
        (
            [
                "3fe101488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                "4883640effc1c0bf",
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab"
                "270fb5291f9587316065c003ed4ee5b1063d5007",
            ],
            RESPONSES,
        ),
    ],
)  # fmt: skip
def test_examples_of_the_rfc(blocks: list[str], expected: list[list[tuple[bytes, bytes]]]) -> None:
    fields = Fields()
    assert [list(fields.decode(bytes.fromhex(block))) for block in blocks] == expected


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("80", "in no table"),
        ("be", "in no table"),
        ("ff8001", "in no table"),
        ("7f80808001", "too large"),
        ("ffffffffff7f", "too large"),
        ("3fe21f", "larger than 4096"),
        ("3fffffff01", "too large"),
        ("3fffff01", "larger than 4096"),
        ("8220", "among headers"),
        ("82", None),
        ("20", None),
        ("203fe11f82", None),
        ("40", "too early"),
        ("4001", "too early"),
        ("400161", "too early"),
        ("4001610561", "too early"),
        ("ff", "too early"),
        ("ff80", "too early"),
        ("00016181ff", "does not end"),
        # More than seven bits of padding, padding with a zero in it, the end's own code
        ("00016182ffff", "does not end"),
        ("00016184ffffffff", "an end before its end"),
        ("0001618118", "does not end"),
        ("000161811f", None),
    ],
)
def test_blocks(block: str, words: str | None) -> None:
    if words is None:
        assert isinstance(list(Fields().decode(bytes.fromhex(block))), list)
        return
    with pytest.raises(RefusedError) as raised:
        list(Fields().decode(bytes.fromhex(block)))
    assert words in str(raised.value)


def _random_fields(chance: random.Random) -> list[hpack.HeaderTuple]:
    made: list[hpack.HeaderTuple] = []
    for _each in range(chance.randrange(1, 8)):
        kind = chance.choice((hpack.HeaderTuple, hpack.NeverIndexedHeaderTuple))
        name = chance.choice(
            [b":path", b"range", b"x-%d" % chance.randrange(40), b"user-agent", bytes(chance.randbytes(5))]
        )
        made.append(
            kind(
                name,
                chance.choice([b"", b"GET", chance.randbytes(chance.randrange(200)), b"a" * chance.randrange(3000)]),
            )
        )
    return made


def test_the_table_stays_in_step_with_an_encoders() -> None:
    """Evictions, changed sizes, entries that are larger than the table."""
    chance = random.Random(7541)
    for _session in range(60):
        encoder, fields = hpack.Encoder(), Fields()
        for _request in range(30):
            if chance.random() < 0.2:
                encoder.header_table_size = chance.choice([0, 50, 256, 1000, 4096])
            wanted = _random_fields(chance)
            block = encoder.encode(wanted, huffman=chance.random() < 0.5)
            assert list(fields.decode(block)) == [(bytes(each[0]), bytes(each[1])) for each in wanted]


def test_what_is_accepted_of_damaged_blocks_another_decoder_reads_the_same_way() -> None:
    chance = random.Random(9113)
    accepted = 0
    for _session in range(400):
        encoder, fields, other = hpack.Encoder(), Fields(), hpack.Decoder(max_header_list_size=1 << 30)
        for _request in range(4):
            block = bytearray(encoder.encode(_random_fields(chance), huffman=chance.random() < 0.5))
            for _change in range(chance.randrange(3)):
                block[chance.randrange(len(block))] = chance.randrange(256)
            try:
                found = list(fields.decode(bytes(block)))
            except RefusedError:
                break
            accepted += 1
            assert found == [tuple(each) for each in other.decode(bytes(block), raw=True)]
    assert accepted > 300


# --- sftp


def string(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


def setstat(path: bytes, attributes: bytes = b"\0\0\0\4\0\0\1\0") -> bytes:
    return string(bytes([9]) + b"\0\0\0\1" + string(path) + attributes)


SFTP_BEGIN = string(b"\1\0\0\0\3")
WRITE = string(b"\6\0\0\0\1" + string(b"handle") + bytes(8) + string(b"\t" * 40_000))


@pytest.mark.parametrize("step", [1, 1000, 1 << 20])
def test_what_restic_says_to_sftp_passes(tmp_path: Path, step: int) -> None:
    own = bytes(tmp_path)
    said = SFTP_BEGIN + setstat(own) + WRITE + setstat(own + b"/data/" + NAME.encode()) + WRITE + setstat(b"config")
    sftp, kept, through = Sftp(str(tmp_path), Disk()), b"", b""
    for start in range(0, len(said), step):
        kept += said[start : start + step]
        count = sftp.passes(memoryview(kept))
        through, kept = through + kept[:count], kept[count:]
    assert (through, kept) == (said, b"")


def test_a_directory_may_have_another_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for served, named in (("real", "link"), ("link", "real")):
        said = setstat(bytes(tmp_path / named / "config"))
        assert Sftp(str(tmp_path / served), Disk()).passes(memoryview(said)) == len(said)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        # Behind the directory's own name.
        (b"-2/config", "which is not in the repository's directory"),
        (b"/../other/config", "by a way back"),
        (setstat(b"../other/a"), "by a way back"),
        (b"/out/config", "which is not in the repository's directory"),
        (setstat(b"/"), "which is not in the repository's directory"),
        (setstat(b"config\0"), "which is not in the repository's directory"),
        # Another session may move the directory while it is gone back from, and what is above it is another one then.
        (setstat(b"data/ab/../../config"), "by a way back"),
        (b"/data/../config", "by a way back"),
        # Its size, owner or times; and what sftp-server would read on in the next request.
        (setstat(b"config", b"\0\0\0\1" + bytes(8)), "something else than a mode"),
        (setstat(b"config", b"\0\0\0\5" + bytes(12)), "something else than a mode"),
        (setstat(b"config", b"\0\0\0\2" + bytes(8)), "something else than a mode"),
        (setstat(b"config", b"\0\0\0\10" + bytes(8)), "something else than a mode"),
        (setstat(b"config", b"\x80\0\0\4" + bytes(8)), "something else than a mode"),
        (setstat(b"config", b"\0\0\0\4"), "something else than a mode"),
        (setstat(b"config", b"\0\0\0\0"), "something else than a mode"),
        (setstat(b"config", b""), "something else than a mode"),
        (string(b"\11\0\0\0\1"), "something else than a mode"),
        (string(b"\11"), "something else than a mode"),
        (string(b"\11\0\0\0\1\xff\xff\xff\xff" + bytes(8)), "something else than a mode"),
        (setstat(b"x" * 17000), "more than 16384 bytes"),
        (b"\0\0\0\0\11", "an empty request"),
        (string(b"\22\0\0\0\1"), "a request without a name"),
    ],
)  # fmt: skip
def test_what_the_kernel_does_not_see_of_sftp_is_refused(tmp_path: Path, request_: bytes, words: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "out").symlink_to("../other")
    if request_.endswith(b"/config"):
        request_ = setstat(bytes(own) + request_)
    with pytest.raises(RefusedError) as raised:
        Sftp(str(own), Disk()).passes(memoryview(SFTP_BEGIN + WRITE + request_))
    assert words in str(raised.value)


# --- the disk


def rename(path: bytes) -> bytes:
    """As restic does it."""
    names = string(path + b"-restic-temp-0") + string(path)
    return string(b"\xc8" + bytes(4) + string(b"posix-rename@openssh.com") + names)


class Said:
    """What a client says of a file that is new, and of one that goes."""

    def __init__(self, directory: Path, sftp: bool) -> None:
        self.directory, self.sftp, self.stream = directory, sftp, -1

    def reader(self) -> Layout | Sftp:
        disk = Disk(str(self.directory))
        return Sftp(str(self.directory), disk) if self.sftp else Layout(disk)

    def begin(self) -> bytes:
        return SFTP_BEGIN if self.sftp else BEGIN

    def new(self, path: str) -> bytes:
        name = hashlib.sha256(CONTENT).hexdigest()
        if self.sftp:
            return WRITE + rename(bytes(self.directory / path / name))
        self.stream += 2
        return upload(CONTENT, path=f"/{path}/{name}", stream=self.stream) + frame(
            0, CONTENT, stream=self.stream, flags=1
        )

    def gone(self, path: str) -> bytes:
        if self.sftp:
            return string(b"\x0d" + bytes(4) + string(bytes(self.directory / path / NAME)))
        self.stream += 2
        return request("DELETE", f"/{path}/{NAME}", self.stream)


@pytest.fixture(params=["rclone", "sftp"])
def said(tmp_path: Path, request: pytest.FixtureRequest) -> Said:
    return Said(tmp_path, request.param == "sftp")


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], int]]]:
    """What each call of syncfs does, which returns what that answers; nothing is left of it in the end."""
    calls: list[Callable[[], int]] = []

    class Libc:
        def syncfs(self, descriptor: int) -> int:
            assert os.path.isdir(f"/proc/self/fd/{descriptor}")
            return calls.pop(0)()

    monkeypatch.setattr(ctypes, "CDLL", lambda *_given, **_named: Libc())
    yield calls
    assert not calls


@pytest.mark.parametrize("last", ["index", "snapshots"])
def test_what_a_file_refers_to_is_on_disk_before_its_last_byte_passes(
    said: Said, syncs: list[Callable[[], int]], last: str
) -> None:
    begun, done = threading.Event(), threading.Event()

    def sync() -> int:
        begun.set()
        done.wait(10)
        return 0

    syncs.append(sync)
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    # A test that fails does not wait for it.
    running = threading.Thread(target=_restic_layout.relay, args=(said.reader(), source, target), daemon=True)
    running.start()
    # Nothing waits for data.
    first = said.begin() + said.new("data" if not said.sftp else "data/ab")
    os.write(feed, first)
    through = b""
    while len(through) < len(first):
        through += os.read(drain, len(first) - len(through))
    assert through == first
    assert not begun.is_set()
    second = said.new(last)
    os.write(feed, second)
    assert begun.wait(10)
    os.set_blocking(drain, False)
    kept = b""
    with contextlib.suppress(BlockingIOError):
        while more := os.read(drain, 1 << 20):
            kept += more
    assert second.startswith(kept)
    # What makes the file whole: its last byte, or its name.
    assert len(kept) < len(second) - (len(rename(bytes(said.directory / last / NAME))) - 1 if said.sftp else 0)
    done.set()
    os.set_blocking(drain, True)
    while len(kept) < len(second):
        kept += os.read(drain, 1 << 20)
    assert kept == second
    os.close(feed)
    running.join(10)
    for descriptor in (source, drain, target):
        os.close(descriptor)


def test_the_disk_is_waited_for_where_it_matters(said: Said, syncs: list[Callable[[], int]]) -> None:
    reader, counted = said.reader(), 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    def after(*parts: bytes) -> int:
        data = memoryview(b"".join(parts))
        assert reader.passes(data) == len(data)
        return counted

    syncs += [count] * 4
    # Locks are nothing that anybody needs after a power failure, and there is nothing to wait for yet.
    assert after(said.begin(), said.new("locks"), said.gone("locks"), said.gone("data"), said.new("index")) == 0
    assert after(said.new("snapshots")) == 1
    assert after(said.new("data"), said.new("data"), said.new("keys")) == 1
    assert after(said.new("index")) == 2
    # What is removed is so for good: once for all that is.
    assert after(said.gone("locks")) == 2
    assert after(said.gone("index"), said.gone("data"), said.gone("data")) == 3
    assert after(said.new("index"), said.new("locks")) == 3
    reader.disk.sync()
    reader.disk.sync()
    assert counted == 4


def test_a_plain_rename_counts_as_well(tmp_path: Path, syncs: list[Callable[[], int]]) -> None:
    syncs.append(lambda: 0)
    reader = Sftp(str(tmp_path), Disk(str(tmp_path)))
    plain = string(b"\x12" + bytes(4) + string(b"temporary") + string(b"config"))
    for packet in (SFTP_BEGIN, plain, rename(b"snapshots/" + NAME.encode())):
        assert reader.passes(memoryview(packet)) == len(packet)


def test_a_disk_that_fails_ends_the_session(
    said: Said, syncs: list[Callable[[], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs.append(lambda: -1)
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EIO)
    with pytest.raises(RefusedError, match="may not be on disk: Input/output error"):
        said.reader().passes(memoryview(said.begin() + said.new("data") + said.new("index")))


def test_a_host_without_syncfs(said: Said, syncs: list[Callable[[], int]], monkeypatch: pytest.MonkeyPatch) -> None:
    syncs.append(lambda: -1)
    synced: list[bool] = []
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.ENOSYS)
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    said.reader().passes(memoryview(said.begin() + said.new("data") + said.new("index")))
    assert synced == [True]


def test_a_store_sees_to_it_itself() -> None:
    disk = Disk()
    disk.complete(b"/data/x")
    disk.complete(b"/index/x")
    disk.sync()


def test_what_is_written_last_is_on_disk_when_the_session_ends(
    tmp_path: Path, syncs: list[Callable[[], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    syncs.append(lambda: order.append("on disk") or 0)  # type: ignore[func-returns-value]

    def relay(reader: Layout, source: int, target: int) -> None:
        assert (source, target) == (0, 1)
        data = BEGIN + Said(tmp_path, sftp=False).new("snapshots")
        assert reader.passes(memoryview(data)) == len(data)
        order.append("passed")

    monkeypatch.setattr(_restic_layout, "relay", relay)
    monkeypatch.setattr(sys, "argv", ["restic-layout", "web1--vault", str(tmp_path)])
    _restic_layout.main()
    assert order == ["passed", "on disk"]


# --- the program


def _run(data: bytes, *arguments: str) -> tuple[int, bytes, str]:
    done = subprocess.run(
        [sys.executable, "-IS", str(PROGRAM), "web1--vault", *arguments],
        input=data, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.decode()


def test_program() -> None:
    session = SESSIONS["0.19.1 backup"]
    assert _run(session) == (0, session, "")
    assert _run(b"") == (0, b"", "")
    # What ends in the middle is passed on as far as it is understood.
    assert _run(BEGIN + request()[:-1]) == (0, BEGIN, "")
    code, through, said = _run(BEGIN + request() + request("POST", "/junk", 3))
    assert (code, said) == (77, "holdfast: web1--vault: refused: 'POST' '/junk' is no part of restic's layout\n")
    assert (BEGIN + request()).startswith(through)


def test_program_before_sftp(tmp_path: Path) -> None:
    said = SFTP_BEGIN + setstat(b"config") + WRITE
    assert _run(said, str(tmp_path), "sftp") == (0, said, "")
    refusal = "holdfast: web1--vault: refused: a change of '/etc', which is not in the repository's directory\n"
    code, through, told = _run(said + setstat(b"/etc") + WRITE, str(tmp_path), "sftp")
    assert (code, told) == (77, refusal)
    assert said.startswith(through)


def test_large_data_passes_in_pieces_while_nobody_reads() -> None:
    """More than all pipes hold; the reader begins late."""
    parts = [bytes([n]) * 300_000 for n in range(20)]
    data = BEGIN + upload(b"".join(parts)) + b"".join(frame(0, part, stream=1) for part in parts)
    (source, feed), (drain, target) = os.pipe(), os.pipe()

    def write() -> None:
        with os.fdopen(feed, "wb") as stream:
            stream.write(data)

    def read() -> None:
        with os.fdopen(drain, "rb") as stream:
            found.append(stream.read())

    found: list[bytes] = []
    writer, reader = threading.Thread(target=write), threading.Thread(target=read)
    writer.start()
    threading.Timer(0.3, reader.start).start()
    _restic_layout.relay(Layout(Disk()), source, target)
    os.close(target)
    writer.join(10)
    reader.join(10)
    os.close(source)
    assert found == [data]


def test_a_reader_that_is_gone_ends_it() -> None:
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    os.close(drain)
    os.write(feed, BEGIN)
    _restic_layout.relay(Layout(Disk()), source, target)
    for descriptor in (source, feed, target):
        os.close(descriptor)
