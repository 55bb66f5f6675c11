# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _keyless_borg
from ansible_collections.holdfast.backup.plugins.module_utils._keyless_borg import probe, probe_all
from ansible_collections.holdfast.backup.plugins.module_utils._model import Lock

from tests.unit.plugins.module_utils.recorded_borg import ID, NOW, make


def test_present(tmp_path: Path) -> None:
    make(tmp_path / "r")
    assert probe(str(tmp_path / "r"), now=NOW).to_dict() == {
        "location": str(tmp_path / "r"),
        "engine": "borg",
        "state": "present",
        "reason": None,
        "id": ID,
        "format_version": 1,
        "snapshots": {"count": None, "last": None},
        "age_seconds": None,
        "locks": [],
        "keys": 1,
        "size": None,
        "modified": "2026-11-21T16:28:10Z",
    }


def test_size_and_a_key_that_lies_elsewhere(tmp_path: Path) -> None:
    found = probe(str(make(tmp_path / "r", key=False)), size=True, now=NOW)
    assert found.keys == 0
    assert found.size == sum(path.stat().st_size for path in (tmp_path / "r").rglob("*") if path.is_file())


def test_an_index_that_is_lost_is_made_anew_by_borg(tmp_path: Path) -> None:
    path = make(tmp_path / "r")
    (path / "index.9").unlink()
    found = probe(str(path), now=NOW)
    assert (found.state, found.modified) == ("present", None)


def test_locks(tmp_path: Path) -> None:
    path = make(tmp_path / "r")
    (path / "lock.exclusive").mkdir()
    (path / "lock.exclusive/web1.example@123456.999-0").touch()
    os.utime(path / "lock.exclusive", (NOW - 60, NOW - 60))
    (path / "lock.roster").write_text('{"exclusive": [], "shared": []}')
    assert probe(str(path), now=NOW).locks == [Lock(60, True, "web1.example")]
    (path / "lock.roster").write_text('{"exclusive": [], "shared": [["web2", 1, 0]]}')
    os.utime(path / "lock.roster", (NOW - 5, NOW - 5))
    assert probe(str(path), now=NOW).locks == [Lock(60, True, "web1.example"), Lock(5)]
    (path / "lock.exclusive/web1.example@123456.999-0").unlink()
    assert (probe(str(path), now=NOW).locks or [])[0] == Lock(
        int(NOW - (path / "lock.exclusive").stat().st_mtime), True
    )


def _empty(path: Path) -> None:
    (path / "config").write_text("")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / "config").unlink(), "is not empty, and has no config file"),
        (_empty, "the config file is damaged"),
        (lambda path: (path / "config").write_text("[repository]\nversion = x\n"), "the config file is damaged"),
        (
            lambda path: (path / "config").write_text("[repository]\nversion = 1\nsegments_per_dir = x\n"),
            "config file is",
        ),
        (lambda path: shutil.rmtree(path / "data"), "the directory data is missing"),
        (lambda path: (path / "data/0/9").unlink(), "segment 9, which ends the last transaction, is missing"),
    ],
)
def test_damaged(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    path = make(tmp_path / "r")
    damage(path)
    found = probe(str(path), now=NOW)
    assert found.state == "damaged"
    assert words in str(found.reason)


def test_a_transaction_that_ends_meanwhile_is_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "r")
    listdir = os.listdir
    moved: list[Path] = []

    def listed(where: str) -> list[str]:
        names = listdir(where)
        if not moved:
            moved.append((path / "index.9").rename(path / "index.11"))
            (path / "data/0/9").rename(path / "data/0/11")
        return names

    monkeypatch.setattr(_keyless_borg.os, "listdir", listed)
    found = probe(str(path), now=NOW)
    assert (found.state, found.reason, found.modified) == ("present", None, "2026-11-21T16:28:10Z")


def test_a_segment_that_goes_while_borg_writes_is_no_damage(tmp_path: Path) -> None:
    path = make(tmp_path / "r")
    (path / "lock.exclusive").mkdir()
    (path / "data/0/9").rename(path / "data/0/11")
    assert probe(str(path), now=NOW).state == "present"


def test_absent(tmp_path: Path) -> None:
    assert probe(str(tmp_path / "x")).state == "absent"
    assert probe(str(tmp_path)).state == "absent"


def test_what_cannot_be_read_is_unreachable(tmp_path: Path) -> None:
    path = make(tmp_path / "r")
    (path / "config").unlink()
    (path / "config").symlink_to("/etc/passwd")
    assert probe(str(path)).state == "unreachable"
    file = tmp_path / "file"
    file.touch()
    assert probe(str(file)).state == "unreachable"


def test_a_directory_of_many(tmp_path: Path) -> None:
    for name in ("b/web2--archive", "web1--archive"):
        make(tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / "web1--archive")
    found = probe_all(str(tmp_path), now=NOW) or []
    assert [os.path.relpath(each.location, tmp_path) for each in found] == ["b/web2--archive", "web1--archive"]
    assert probe_all(str(tmp_path / "web1--archive")) is None
    assert probe_all(str(tmp_path / "missing")) is None
