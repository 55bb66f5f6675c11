# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _keyless
from ansible_collections.holdfast.backup.plugins.module_utils._keyless import probe, probe_all

from tests.unit.plugins.module_utils.recorded import NOW, make, name


def test_present(tmp_path: Path) -> None:
    found = probe(str(make(tmp_path / "r", snapshots=3, locks=2)), now=NOW)
    assert found.to_dict() == {
        "location": str(tmp_path / "r"),
        "engine": "restic",
        "state": "present",
        "reason": None,
        "id": None,
        "format_version": None,
        "snapshots": {
            "count": 3,
            "last": {
                "id": name(1),
                "time": "2026-11-21T11:55:25Z",
                "hostname": None,
                "paths": None,
                "username": None,
                "tags": None,
                "total_bytes_processed": None,
            },
        },
        "age_seconds": 3600,
        "locks": [
            {"age_seconds": 60, "exclusive": None, "hostname": None},
            {"age_seconds": 120, "exclusive": None, "hostname": None},
        ],
        "keys": 1,
        "size": None,
        "modified": None,
    }


def test_without_snapshots(tmp_path: Path) -> None:
    found = probe(str(make(tmp_path, snapshots=0)))
    assert (found.state, found.snapshots.count, found.snapshots.last, found.age_seconds) == ("present", 0, None, None)


def test_size_counts_files_and_follows_no_link(tmp_path: Path) -> None:
    path = make(tmp_path / "r", snapshots=2)
    (tmp_path / "big").write_bytes(b"x" * 100000)
    (path / "data/01").symlink_to(tmp_path)
    (path / "data/00" / name(9)).symlink_to(tmp_path / "big")
    assert probe(str(path), size=True).size == 155 + 400 + 1000 + 200 + 20


def test_junk_does_not_count(tmp_path: Path) -> None:
    path = make(tmp_path, snapshots=1)
    (path / "snapshots" / "upload.tmp").write_bytes(b"x")
    (path / "snapshots" / name(7)[:40]).write_bytes(b"x")
    (path / "snapshots" / name(8)).mkdir()
    (path / "snapshots" / name(9)).symlink_to(path / "config")
    assert probe(str(path)).snapshots.count == 1


def test_absent(tmp_path: Path) -> None:
    assert probe(str(tmp_path / "no")).state == "absent"
    assert probe(str(tmp_path / "no")).reason == "the directory does not exist"
    assert probe(str(tmp_path)).state == "absent"
    (tmp_path / "keys").mkdir()
    assert probe(str(tmp_path)).state == "absent"


@pytest.mark.parametrize("kept", ["keys", "snapshots", "index"])
def test_without_config_is_damaged_never_absent(tmp_path: Path, kept: str) -> None:
    path = make(tmp_path)
    (path / "config").unlink()
    for part in {"keys", "snapshots", "index"} - {kept}:
        for file in (path / part).iterdir():
            file.unlink()
    found = probe(str(path))
    assert found.state == "damaged"
    assert "no config file" in str(found.reason)


def test_empty_config_and_no_keys_are_damaged(tmp_path: Path) -> None:
    path = make(tmp_path)
    (path / "config").write_bytes(b"")
    assert (probe(str(path)).state, probe(str(path)).reason) == (
        "damaged",
        "the config file is empty: restore it from a copy",
    )
    (path / "config").write_bytes(b"x")
    (path / "keys" / name(1)).unlink()
    assert probe(str(path)).state == "damaged"
    assert "no key file" in str(probe(str(path)).reason)


def test_a_file_is_no_repository(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    assert probe(str(tmp_path / "f")).state == "absent"


def test_what_cannot_be_read_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_keyless.os, "stat", refuse)
    found = probe(str(tmp_path))
    assert (found.state, found.reason) == ("unreachable", "the directory cannot be read: Permission denied")


def _vanish(monkeypatch: pytest.MonkeyPatch, gone: Path) -> None:
    """Take `gone` away right after its directory was listed."""
    scandir = os.scandir

    @contextlib.contextmanager
    def listed(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            found = list(entries)
        if path == str(gone.parent):
            shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
        yield iter(found)

    monkeypatch.setattr(_keyless.os, "scandir", listed)


def test_a_lock_that_goes_meanwhile_takes_no_other_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, locks=2)
    _vanish(monkeypatch, path / "locks" / name(2))
    found = probe(str(path), now=NOW)
    assert (found.state, len(found.locks or [])) == ("present", 1)


def test_a_key_that_goes_meanwhile_is_not_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path)
    (path / "keys" / name(7)).write_bytes(b"x")
    _vanish(monkeypatch, path / "keys" / name(7))
    found = probe(str(path))
    assert (found.state, found.reason, found.keys) == ("present", None, 1)


def test_a_snapshot_that_goes_meanwhile_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, snapshots=3)
    _vanish(monkeypatch, path / "snapshots" / name(1))
    assert probe(str(path)).snapshots.count == 2


@pytest.mark.parametrize("gone", ["index/" + name(3), "data/00"])
def test_what_goes_while_it_is_summed_up_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    path = make(tmp_path)
    _vanish(monkeypatch, path / gone)
    found = probe(str(path), size=True)
    assert (found.state, found.size) == ("present", probe(str(path), size=True).size)


def test_many(tmp_path: Path) -> None:
    make(tmp_path / "b")
    make(tmp_path / "a")
    make(tmp_path / "user/repo", snapshots=5)
    make(tmp_path / "deep/er/than/servers/make")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".htpasswd").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = probe_all(str(tmp_path), now=NOW)
    assert found is not None
    assert [each.location for each in found] == [str(tmp_path / each) for each in ("a", "b", "user/repo")]
    assert [each.snapshots.count for each in found] == [2, 2, 5]


def test_what_cannot_be_looked_into_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotten disk is when somebody asks; root is refused nothing, so the kernel's answer is made here."""
    make(tmp_path / "a")
    shut = [str(make(tmp_path / "b")), str(make(tmp_path / "user/repo"))]
    (tmp_path / "lost+found").mkdir()
    scan, look = os.scandir, os.lstat

    def allowed(path: str) -> str:
        if any((path + "/").startswith(f"{each}/") for each in [*shut, str(tmp_path / "lost+found")]):
            raise OSError(5, "Input/output error")
        return path

    def there(path: str) -> bool:
        return not any(path.startswith(each) for each in shut) and os.path.exists(path)

    monkeypatch.setattr(_keyless.os, "scandir", lambda path: scan(allowed(path)))
    monkeypatch.setattr(_keyless.os, "lstat", lambda path: look(allowed(path)))
    monkeypatch.setattr(_keyless.os.path, "lexists", there)
    found = probe_all(str(tmp_path))
    assert found is not None
    assert [(each.location, each.state) for each in found] == [
        (str(tmp_path / "a"), "present"),
        (shut[0], "unreachable"),
        (shut[1], "unreachable"),
    ]


def test_a_broken_one_among_many_is_reported(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (make(tmp_path / "b") / "config").unlink()
    found = probe_all(str(tmp_path))
    assert found is not None
    assert [each.state for each in found] == ["present", "damaged"]


def test_one_or_none_is_not_many(tmp_path: Path) -> None:
    assert probe_all(str(make(tmp_path / "r"))) is None
    assert probe_all(str(tmp_path / "no")) is None
    (tmp_path / "empty").mkdir()
    assert probe_all(str(tmp_path / "empty")) is None
