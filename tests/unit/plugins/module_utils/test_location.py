# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._location import (
    has_credentials,
    local_path,
    mount_problem,
    parse_environment,
    passwords,
    redact,
    refuse_credentials,
)


@pytest.mark.parametrize(
    ("location", "shown", "secrets"),
    [
        ("/srv/r", "/srv/r", []),
        ("/srv/a@b:c/d", "/srv/a@b:c/d", []),
        ("rest:https://h:8000/u/", "rest:https://h:8000/u/", []),
        ("rest:https://u:pw@h:8000/u/", "rest:https://h:8000/u/", ["pw"]),
        ("rest:https://u:p%40w@h/u/", "rest:https://h/u/", ["p%40w", "p@w"]),
        ("rest:https://u:p@w@h/u/", "rest:https://h/u/", ["p@w"]),
        ("rest:https://u:p/w@h/u/", "rest:https://h/u/", ["p/w"]),
        ("rest:https://h:8000/a@b/", "rest:https://h:8000/a@b/", []),
        ("rest:https://u:pw@[fd00::1]:8000/u/", "rest:https://[fd00::1]:8000/u/", ["pw"]),
        ("rest:https://[fd00::1]:8000/a@b/", "rest:https://[fd00::1]:8000/a@b/", []),
        ("rest:https://u:pw@h", "rest:https://h", ["pw"]),
        ("s3:https://h/bucket", "s3:https://h/bucket", []),
        ("sftp:me@h:/srv/r", "sftp:me@h:/srv/r", []),
        ("sftp://me:pw@h:22//srv/r", "sftp://me@h:22//srv/r", ["pw"]),
        ("rclone:remote:path", "rclone:remote:path", []),
    ],
)
def test_redact(location: str, shown: str, secrets: list[str]) -> None:
    assert redact(location) == shown
    assert passwords(location) == sorted(secrets)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/srv/r", "/srv/r"),
        ("/srv/a:b/", "/srv/a:b"),
        ("local:/srv//r", "/srv/r"),
        ("rest:https://h/", None),
        ("sftp:h:/srv", None),
        ("s3:bucket", None),
    ],
)
def test_local_path(location: str, path: str | None) -> None:
    assert local_path(location) == path


@pytest.mark.parametrize("location", ["srv/r", "./r", "local:r", "../a:b"])
def test_relative_paths_are_refused(location: str) -> None:
    with pytest.raises(ValueError, match="absolute"):
        local_path(location)


def test_environment_is_read_as_systemd_does() -> None:
    text = """# a comment
; another

AWS_ACCESS_KEY_ID=AKIA
  AWS_SECRET_ACCESS_KEY = x
EMPTY=
EQUALS=a=b
SINGLE='a "b" \\c'
DOUBLE="a \\"b\\" \\\\ \\$x 'c'"
PLAIN=a\\ b
HASH=a#b
"""
    with pytest.raises(ValueError, match="line 5 is not NAME=value"):
        parse_environment(text)
    assert parse_environment(text.replace("  AWS_SECRET_ACCESS_KEY = x", " AWS_SECRET_ACCESS_KEY=x ")) == {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "x",
        "EMPTY": "",
        "EQUALS": "a=b",
        "SINGLE": 'a "b" \\c',
        "DOUBLE": "a \"b\" \\ $x 'c'",
        "PLAIN": "a b",
        "HASH": "a#b",
    }


@pytest.mark.parametrize("line", ["export A=secret", "secret", "1A=secret", "=secret"])
def test_bad_lines_are_named_and_not_shown(line: str) -> None:
    with pytest.raises(ValueError, match=r"\Aline 2 is not NAME=value\Z"):
        parse_environment(f"A=1\n{line}\n")


@pytest.mark.parametrize(
    "name", ["RESTIC_REPOSITORY", "RESTIC_PASSWORD", "RESTIC_FROM_PASSWORD_FILE", "LD_PRELOAD", "PATH"]
)
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"line 1 sets {name}"):
        parse_environment(f"{name}=x")


MOUNTINFO = """22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 8:17 / /mnt/my\\040disk rw - ext4 /dev/sdb1 rw
31 22 0:40 / /mnt/auto rw - autofs systemd-1 rw
32 22 0:41 / /mnt/both rw - autofs systemd-1 rw
33 32 8:33 / /mnt/both rw - ext4 /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("mount", "mounted"),
    [("/mnt/my disk", True), ("/mnt/my disk/", True), ("/mnt/auto", False), ("/mnt/both", True), ("/mnt/none", False)],
)
def test_mount(tmp_path: Path, mount: str, mounted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "mountinfo"
    info.write_text(MOUNTINFO)
    monkeypatch.setattr("os.stat", lambda _path: None)
    problem = mount_problem(mount, mount.rstrip("/") + "/repo", str(info))
    assert problem == (None if mounted else f"nothing is mounted on {mount}")


def test_what_somebody_else_mounted_has_any_name(tmp_path: Path) -> None:
    """A user's own (FUSE): the kernel writes what ends a line for Python as it is, and a name need not be UTF-8."""
    names = [b"a\x0cb", b"a\rb", b"a\r", "a\u2028b\x85".encode(), b"a\xffb", b"a\x1cb"]
    theirs = b"".join(b"90 22 0:50 / /home/mallory/%b rw - fuse.sshfs x rw\n" % name for name in names)
    info = tmp_path / "mountinfo"
    info.write_bytes(theirs + f"31 22 8:17 / {tmp_path} rw - ext4 /dev/sdb1 rw\n".encode() + theirs)
    assert mount_problem(str(tmp_path), f"{tmp_path}/r", str(info)) is None
    info.write_bytes(theirs)
    assert mount_problem(str(tmp_path), f"{tmp_path}/r", str(info)) == f"nothing is mounted on {tmp_path}"


def test_a_missing_mount_point_is_not_mounted(tmp_path: Path) -> None:
    assert mount_problem(str(tmp_path / "no"), str(tmp_path / "no/r")) == f"nothing is mounted on {tmp_path / 'no'}"


def test_the_root_is_mounted() -> None:
    assert mount_problem("/", "/srv/r") is None


@pytest.mark.parametrize("path", ["/srv/r", "/mnt/diskette/r", None])
def test_a_mount_elsewhere_is_refused(path: str | None) -> None:
    with pytest.raises(ValueError, match="mount '/mnt/disk'"):
        mount_problem("/mnt/disk", path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://bob:s3cret@mirror.example.net/restic", True),
        ("https://token@mirror.example.net", True),
        ("HTTPS://bob:s3cret@[::1]:8080/x", True),
        # Written wrongly, which no program takes; shown it would be all the same.
        ("https://bob:s3/cret@mirror.example.net/x", True),
        ("https:/bob:s3cret@mirror/x", True),
        ("bob:s3cret@mirror/x", True),
        ("tool==1 --hash=sha256:00\n--index-url=https://bob:s3cret@mirror/simple", True),
        ("tool @ https://bob:s3cret@mirror/tool.whl", True),
        ("https://mirror.example.net/@scope/x@1", False),
        ("http://mirror:8080/@scope", False),
        ("http://[::1]:8080/@scope", False),
        ("tool@https://mirror/tool.whl --hash=sha256:00\nother @ https://mirror/other@1.whl", False),
        ("", False),
    ],
)
def test_addresses_with_credentials(text: str, found: bool) -> None:
    assert has_credentials(text) is found
    params = {"url": text}
    if not found:
        refuse_credentials(params, "url")
        return
    with pytest.raises(ValueError, match="url contains credentials") as refused:
        refuse_credentials(params, "url")
    assert "s3" not in f"{refused.value}{params}"
