# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""release as Ansible runs it, against a local web server that counts its requests."""

from __future__ import annotations

import bz2
import hashlib
import http.client
import http.server
import io
import json
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _release
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree
from ansible_collections.holdfast.backup.plugins.module_utils._release import format_of, unpack
from ansible_collections.holdfast.backup.plugins.modules import release

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners: needs root")
PROGRAM = b"\x7fELF a program\n"
Run = Callable[..., dict[str, Any]]


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar_gz(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        directory = tarfile.TarInfo("tool-1.0/tool.d")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name, content in files.items():
            info = tarfile.TarInfo(f"tool-1.0/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("tool-1.0/", b"")
        for name, content in files.items():
            packed.writestr(f"tool-1.0/{name}", content)
    return out.getvalue()


class Mirror(http.server.ThreadingHTTPServer):
    """Serves ``contents`` and remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents: dict[str, bytes] = {}
        self.cut = 0
        self.asked: list[str] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        content = self.server.contents.get(name)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"") + self.server.cut))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(run_module: Run, place: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def call(name: str, content: bytes | None = None, *, check: bool = False, **args: Any) -> dict[str, Any]:
        if content is not None:
            mirror.contents[name] = content
        defaults = {
            "url": mirror.url(name),
            "sha256": sha(mirror.contents.get(name, b"")),
            "path": str(place / "bin/tool"),
            "record_dir": str(place / "lib"),
        }
        return run_module(release, {**defaults, **args}, check=check)

    return call


ARCHIVES = [
    ("tool.bz2", bz2.compress(PROGRAM), None),
    ("tool.tar.gz", tar_gz(tool=PROGRAM, README=b"x"), "tool"),
    ("tool.tgz", tar_gz(tool=PROGRAM), "tool-1.0/tool"),
    ("tool.zip", zipped(tool=PROGRAM), "tool"),
    ("tool_linux_amd64", PROGRAM, None),
]


@pytest.mark.parametrize("check", [True, False])
def test_a_password_of_a_mirror_is_refused_and_not_shown(run: Run, place: Path, mirror: Mirror, check: bool) -> None:
    """It would be in what the module was called with, in what check mode cannot look at, and in each error."""
    found = run("tool.bz2", ARCHIVES[0][1], check=check, url="https://bob:s3cretpw@mirror.example.net/tool.bz2")
    assert found["failed"]
    assert "url contains credentials" in found["msg"]
    assert "s3cretpw" not in json.dumps(found)
    assert (mirror.asked, os.listdir(place)) == ([], [])


@pytest.mark.parametrize("given", ARCHIVES, ids=[name for name, _archive, _member in ARCHIVES])
def test_each_format(run: Run, place: Path, mirror: Mirror, given: tuple[str, bytes, str | None]) -> None:
    name, archive, member = given
    announced = run(name, archive, check=True, member=member)
    assert (announced["changed"], announced["downloaded"], announced["binary_sha256"]) == (True, True, None)
    assert "downloaded and verified by the real run only" in announced["not_checked"][0]
    assert (mirror.asked, os.listdir(place)) == ([], [])
    real = run(name, archive, member=member)
    assert not real["failed"], real
    assert (real["changed"], real["binary_sha256"], real["archive_sha256"]) == (True, sha(PROGRAM), sha(archive))
    assert real["diff"] == announced["diff"]
    assert (place / "bin/tool").read_bytes() == PROGRAM
    assert stat.S_IMODE((place / "bin/tool").stat().st_mode) == 0o755
    for check in (True, False):
        again = run(name, archive, check=check, member=member)
        assert (again["changed"], again["downloaded"], again["binary_sha256"]) == (False, False, sha(PROGRAM))
    assert mirror.asked == [name], "a converged run downloads nothing"


def test_altered_missing_and_other_programs_are_installed_anew(run: Run, place: Path, mirror: Mirror) -> None:
    run("tool", PROGRAM)
    (place / "bin/tool").write_bytes(PROGRAM + b"!")
    assert run("tool", check=True)["changed"]
    assert run("tool")["downloaded"]
    assert (place / "bin/tool").read_bytes() == PROGRAM
    (place / "bin/tool").unlink()
    assert run("tool")["changed"]
    (place / "lib/tool.json").unlink()
    assert run("tool")["changed"]
    assert len(mirror.asked) == 4
    other = run("tool-2", b"another")
    assert (other["changed"], (place / "bin/tool").read_bytes()) == (True, b"another")
    assert json.loads((place / "lib/tool.json").read_text())["binary_sha256"] == sha(b"another")


def test_owner_and_mode_alone_download_nothing(run: Run, place: Path, mirror: Mirror) -> None:
    run("tool", PROGRAM)
    args = {"owner": "nobody", "group": "nogroup", "mode": "0750"}
    for check in (True, False):
        result = run("tool", check=check, **args)
        assert (result["changed"], result["downloaded"]) == (True, False)
    info = (place / "bin/tool").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (65534, 65534, 0o750)
    assert not run("tool", **args)["changed"]
    assert len(mirror.asked) == 1


def test_another_address_of_the_same_archive_downloads_nothing(run: Run, mirror: Mirror) -> None:
    run("tool", PROGRAM)
    assert not run("tool", url="http://192.0.2.1/tool")["changed"]
    assert len(mirror.asked) == 1


def test_wrong_hash_names_both_and_touches_nothing(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("tool", PROGRAM)

    def never(*_args: Any) -> bytes:
        raise AssertionError("unpacked before it was verified")

    monkeypatch.setattr(release, "unpack", never)
    wrong = sha(b"expected")
    message = run("tool", b"tampered", sha256=wrong.upper())["msg"]
    assert wrong in message
    assert sha(b"tampered") in message
    assert (place / "bin/tool").read_bytes() == PROGRAM


def test_download_errors(run: Run, place: Path, mirror: Mirror) -> None:
    assert "cannot be downloaded: HTTP Error 404" in run("none")["msg"]
    mirror.cut = 10
    assert "is expected: nothing was installed" in run("tool", PROGRAM[:5], sha256=sha(PROGRAM))["msg"]
    assert "cannot be downloaded" in run("tool", url="http://127.0.0.1:1/tool")["msg"]
    assert os.listdir(place) == []


@pytest.mark.parametrize("error", [http.client.IncompleteRead(b""), TimeoutError("timed out")])
def test_download_that_breaks_off(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    class Response:
        def read(self, _size: int) -> bytes:
            raise error

    monkeypatch.setattr(release, "fetch_url", lambda *_args, **_options: (Response(), {"status": 200}))
    assert "broke off" in run("tool", PROGRAM)["msg"]


def test_killed_before_the_record_downloads_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_args: Any, **_options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "write_json", killed)
        with pytest.raises(Killed):
            run("tool", PROGRAM)
    assert run("tool")["downloaded"]
    assert not run("tool")["changed"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"url": "ftp://x/tool"}, "is not an http or https address"),
        ({"url": "http:///tool"}, "is not an http or https address"),
        ({"url": "http://x/tool.tar.xz"}, "cannot be unpacked: use one of"),
        ({"url": "http://x/tool.zip"}, "member is needed to unpack zip"),
        ({"sha256": "abc"}, "is not 64 hex digits"),
        ({"path": "/a/../b"}, "contains '..'"),
        ({"record_dir": "/a/../b"}, "contains '..'"),
        ({"record": "../x"}, "record '../x'"),
        ({"mode": 493}, "octal digits in quotes"),
        ({"owner": "no-such"}, "its owner no-such does not exist: make the account"),
        ({"group": "no-such"}, "its group no-such does not exist"),
    ],
)
def test_bad_input(run: Run, place: Path, mirror: Mirror, args: dict[str, Any], said: str) -> None:
    assert said in run("tool", PROGRAM, **args)["msg"]
    assert (mirror.asked, os.listdir(place)) == ([], [])


def test_check_mode_without_the_account(run: Run) -> None:
    result = run("tool", PROGRAM, check=True, owner="no-such", group="no-such")
    assert (result["changed"], len(result["not_checked"])) == (True, 3)


def test_directory_link_and_unsafe_places(run: Run, place: Path) -> None:
    (place / "bin").mkdir(mode=0o755)
    (place / "bin/tool").mkdir()
    assert "is not a file" in run("tool", PROGRAM)["msg"]
    (place / "bin/tool").rmdir()
    (place / "bin/victim").write_text("precious")
    (place / "bin/tool").symlink_to("victim")
    assert run("tool", PROGRAM)["changed"]
    assert (place / "bin/victim").read_text() == "precious"
    os.chown(place / "bin", 65534, 65534)
    assert "belongs to uid 65534" in run("tool", PROGRAM)["msg"]


def test_write_error_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in run("tool", PROGRAM)["msg"]


def test_formats_by_name() -> None:
    assert format_of("https://x/a.tar.gz?token=1#x") == "tar.gz"
    assert format_of("https://x/restic_0.19.1_linux_amd64.bz2") == "bz2"
    assert format_of("https://x/rclone-v1.75.2-linux-amd64.zip") == "zip"
    assert format_of("https://x/age_1.2") == "binary"
    for name in ("a.tar.bz2", "a.tar.xz", "a.deb"):
        with pytest.raises(ValueError, match="cannot be unpacked"):
            format_of(f"https://x/{name}")


@pytest.mark.parametrize("form", ["bz2", "tar.gz", "zip"])
@pytest.mark.parametrize(
    "damage", [lambda _archive: b"junk", lambda archive: archive[: len(archive) // 2], lambda _archive: b""]
)
def test_damaged_archives(form: str, damage: Callable[[bytes], bytes]) -> None:
    archive = {"bz2": bz2.compress(PROGRAM), "tar.gz": tar_gz(tool=PROGRAM * 99), "zip": zipped(tool=PROGRAM)}[form]
    with pytest.raises(ValueError, match=r"is not a sound|member 'tool' is not in the archive"):
        unpack(damage(archive), form, "tool")


def test_members() -> None:
    with pytest.raises(ValueError, match="member is needed"):
        unpack(tar_gz(tool=PROGRAM), "tar.gz", None)
    with pytest.raises(ValueError, match=r"is not in the archive: it has tool-1\.0/tool"):
        unpack(tar_gz(tool=PROGRAM), "tar.gz", "nope")
    with pytest.raises(ValueError, match="is there more than once"):
        unpack(zipped(**{"a/tool": PROGRAM, "b/tool": PROGRAM}), "zip", "tool")
    # A link is no program, wherever it leads.
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("tool")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/shadow"
        tar.addfile(info)
    with pytest.raises(ValueError, match="is not in the archive"):
        unpack(out.getvalue(), "tar.gz", "tool")


def test_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_release, "MAXIMUM_SIZE", 1000)
    assert unpack(bz2.compress(b"0" * 1000), "bz2", None)
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        unpack(bz2.compress(b"0" * 1001), "bz2", None)
