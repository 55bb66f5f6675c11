# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What would be lost where a directory that is there becomes a place of repositories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _place_seen
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree
from ansible_collections.holdfast.backup.plugins.plugin_utils import _delivered

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners: needs root")


def seen(path: Path, account: str = "daemon", private: bool = True) -> Any:
    found = _place_seen.look(str(path), account, private)
    # What is believed of a host includes it.
    assert _delivered.RESULTS["host_info"]["places"].fits({str(path): found})
    return found


def repository(path: Path) -> None:
    (path / "data").mkdir(parents=True)
    (path / "config").write_text("x")


def test_what_is_not_there_or_has_nothing_of_anybody(place: Path) -> None:
    assert seen(place / "absent") is None
    assert seen(place) is None
    for name in ("lost+found", ".snapshots"):
        (place / name).mkdir()
    (place / "aquota.user").write_text("")
    assert seen(place) is None
    # An init that was cut off: restic writes its config last.
    (place / "olga/laptop/data").mkdir(parents=True)
    (place / "olga/laptop/keys").mkdir()
    assert seen(place) is None
    (place / "file").write_text("")
    assert seen(place / "file") is None


def test_what_is_there_besides_is_named_with_whose_it_is(place: Path) -> None:
    (place / "lost+found").mkdir()
    (place / "a file").write_text("")
    assert seen(place) == {"owner": "root", "foreign": "a file"}
    (place / "a file").unlink()
    (place / "photos").mkdir()
    assert seen(place) == {"owner": "root", "foreign": "photos"}
    # A directory that looks like a repository, and holds more.
    repository(place)
    assert seen(place)["foreign"] == "photos"
    os.chown(place, 2, 2)
    assert seen(place)["owner"] == "bin"
    os.chown(place, 4_000_000, 0)
    assert seen(place)["owner"] == "4000000"


def test_a_name_may_be_anything(place: Path) -> None:
    (place / "x\udcff\n").mkdir()
    assert seen(place) == {"owner": "root", "foreign": "x\ufffd\n"}


def test_what_the_account_has_already_is_not_looked_into(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "snapshots").mkdir()
    os.chown(place, 1, 1)
    place.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", None)
        assert seen(place) is None


@pytest.mark.parametrize(
    ("mode", "private", "lost"), [(0o755, True, True), (0o700, True, False), (0o755, False, False)]
)
def test_what_is_to_be_root_s_is_root_s_mostly(place: Path, mode: int, private: bool, lost: bool) -> None:
    """Jobs that run as root have a directory of root's shut to everybody else; that of accounts over SSH stays open."""
    (place / "www").mkdir()
    place.chmod(mode)
    assert (seen(place, "root", private) is not None) is lost
    os.chown(place, 1, 1)
    assert seen(place, "root", private)["owner"] == "daemon"


def test_repositories_are_no_loss(place: Path) -> None:
    repository(place / "itself")
    (place / "itself/index.12").write_text("")
    assert seen(place / "itself") is None
    # As a rest-server set up by hand has them, and what it keeps beside them.
    served = place / "served"
    for name in ("web1", "olga/laptop", "olga/phone"):
        repository(served / name)
    for name in (".htpasswd", "public_key", "private_key"):
        (served / name).write_text("")
    assert seen(served) is None
    # Of a client that has not made its own yet.
    (served / "db1--vault").mkdir()
    assert seen(served) is None
    for name in ("olga/notes", "empty", "web2/config"):
        (served / name).mkdir(parents=True)
        assert seen(served)["foreign"] == name.partition("/")[0]
        (served / name).rmdir()
    # Not everything with a file `config` is one: a bare repository of git has objects.
    (served / "web2/objects").mkdir()
    (served / "web2/config").write_text("")
    assert seen(served)["foreign"] == "web2"


def test_links_lead_nowhere(place: Path) -> None:
    repository(place / "elsewhere")
    (place / "there").mkdir()
    (place / "there/link").symlink_to(place / "elsewhere")
    assert seen(place / "there")["foreign"] == "link"
    (place / "half/data").mkdir(parents=True)
    (place / "half/config").symlink_to(place / "elsewhere/config")
    assert seen(place / "half") is not None
    # Of the place itself root's are followed, as file_tree does, and no others.
    (place / "root").symlink_to(place / "there")
    assert seen(place / "root")["foreign"] == "link"
    os.chown(place / "root", 1, 1, follow_symlinks=False)
    assert seen(place / "root") is None


def test_what_file_tree_refuses_to_touch_is_its_to_say(place: Path) -> None:
    (place / "below/photos").mkdir(parents=True)
    os.chown(place, 1, 1)
    assert seen(place / "below") is None
    assert _place_seen.look("relative", "daemon", True) is None


def test_the_look_is_bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        repository(place / f"web{number}/deep")
    looked: list[int] = []
    scandir = os.scandir

    def look(directory: int) -> Any:
        looked.append(directory)
        return scandir(directory)

    monkeypatch.setattr(os, "scandir", look)
    monkeypatch.setattr(_place_seen, "MOST", 4)
    assert seen(place) is None
    assert len(looked) == 3
    monkeypatch.undo()
    repository(place / "a/b/c/d/e")
    assert seen(place)["foreign"] == "a"


def test_what_cannot_be_read_is_no_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "photos").mkdir()

    def refuse(*_arguments: Any, **_options: Any) -> Any:
        raise PermissionError

    monkeypatch.setattr(Tree, "directory", refuse)
    assert seen(place) is None
    monkeypatch.undo()
    opened = os.open
    monkeypatch.setattr(os, "open", lambda name, *a, **k: refuse() if name == "photos" else opened(name, *a, **k))
    assert seen(place) is None
    monkeypatch.undo()
