# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _record
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree, UnsafePathError
from ansible_collections.holdfast.backup.plugins.module_utils._record import Record
from ansible_collections.holdfast.backup.plugins.module_utils._source import Source

RECORD = Record("a" * 64, "b" * 64, f"{'c' * 32}-{'d' * 32}")
KEY = b"k" * 32


def source(location: str = "rest:https://u:p@h/u/", password: bytes = b"pw", **environment: str) -> Source:
    return Source(location, "/p", password=password, environment=environment)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    # Directories above must be writable by root only, /tmp itself is sticky.
    tmp_path.chmod(0o755)
    return tmp_path / "records"


def test_a_record_knows_the_way_if_there_is_one(directory: Path) -> None:
    way = _record.way_of("0123", "ssh-ed25519 AAAA")
    assert way != _record.way_of("0123", "ssh-ed25519 BBBB")
    behind = Record(RECORD.id, RECORD.key, RECORD.fingerprint, way)
    assert _record.parse(behind.render()) == behind
    assert _record.parse(RECORD.render()).way is None
    # What somebody wrote there is never loaded by a unit as something else.
    assert _record.parse(behind.render().replace(way, "x")).way is None


def test_written_and_read_back(directory: Path) -> None:
    path = directory / "vault.env"
    with Tree() as tree:
        assert _record.read(tree, str(path)) is None
        _record.write(tree, str(path), RECORD)
        assert _record.read(tree, str(path)) == RECORD
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.stat().st_uid == os.geteuid()
    assert path.read_text() == (
        f"HOLDFAST_REPOSITORY_ID={'a' * 64}\nRESTIC_KEY_HINT={'b' * 64}\nHOLDFAST_FINGERPRINT={'c' * 32}-{'d' * 32}\n"
    )
    assert os.listdir(directory) == ["vault.env"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "junk",
        RECORD.render().replace("a" * 64, "not hex"),
        RECORD.render().replace("RESTIC_KEY_HINT", "OTHER"),
        RECORD.render().replace("-", ""),
        "\xff",
    ],
)
def test_anything_else_is_an_error_with_the_cure(directory: Path, text: str) -> None:
    directory.mkdir()
    path = directory / "vault.env"
    path.write_bytes(text.encode("latin-1"))
    with Tree() as tree, pytest.raises(ValueError, match=f"record {path}: it is not a record of holdfast; look at it"):
        _record.read(tree, str(path))


def test_a_link_or_a_file_that_others_write_is_refused(directory: Path) -> None:
    directory.mkdir()
    real, link = directory / "real", directory / "link"
    real.write_text(RECORD.render())
    link.symlink_to(real)
    with Tree() as tree:
        with pytest.raises(ValueError, match="only root can change"):
            _record.read(tree, str(link))
        real.chmod(0o666)
        with pytest.raises(ValueError, match="only root can change"):
            _record.read(tree, str(real))


def test_a_directory_that_others_write_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with Tree() as tree, pytest.raises(UnsafePathError):
        _record.write(tree, str(directory / "vault.env"), RECORD)
    assert os.listdir(directory) == []


def test_key_is_made_once_and_for_root_only(directory: Path) -> None:
    with Tree() as tree:
        assert _record.read_key(tree, str(directory)) is None
        key = _record.make_key(tree, str(directory))
        assert _record.make_key(tree, str(directory)) == key
    assert len(key) == 32
    path = directory / "fingerprint.key"
    assert path.read_bytes() == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_a_key_that_others_may_know_is_replaced(directory: Path) -> None:
    with Tree() as tree:
        key = _record.make_key(tree, str(directory))
        (directory / "fingerprint.key").chmod(0o444)
        assert _record.read_key(tree, str(directory)) is None
        assert _record.make_key(tree, str(directory)) != key
        (directory / "fingerprint.key").write_bytes(b"short")
        assert _record.read_key(tree, str(directory)) is None


def test_a_key_that_cannot_be_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_tree: Tree, _path: str) -> None:
        raise PermissionError

    monkeypatch.setattr(Tree, "entry", refuse)
    with Tree() as tree:
        assert _record.read_key(tree, "/x") is None


def test_fingerprint_follows_location_password_and_environment() -> None:
    base = _record.fingerprint(KEY, source())
    record = Record("a" * 64, "b" * 64, base)
    assert _record.fingerprint(KEY, source("rest:https://u:rotated@h/u/")) == base
    elsewhere = _record.fingerprint(KEY, source("rest:https://u:p@h/other/"))
    assert not record.same_location(elsewhere)
    for other in (source(password=b"other"), source(AWS_KEY="x")):
        changed = _record.fingerprint(KEY, other)
        assert changed != base
        assert record.same_location(changed)


def test_fingerprint_cannot_be_guessed_without_the_key() -> None:
    assert _record.fingerprint(b"x" * 32, source()) != _record.fingerprint(KEY, source())
    _record.parse(Record("a" * 64, "b" * 64, _record.fingerprint(KEY, source())).render())


def test_find(directory: Path) -> None:
    path = str(directory / "vault.env")
    with Tree() as tree:
        assert _record.find(tree, path, source()) == (None, False)
        _record.write(tree, path, RECORD)
        assert _record.find(tree, path, source()) == (RECORD, False)
        key = _record.make_key(tree, str(directory))
        assert _record.find(tree, path, source()) == (RECORD, False)
        good = Record(RECORD.id, RECORD.key, _record.fingerprint(key, source()))
        _record.write(tree, path, good)
        assert _record.find(tree, path, source()) == (good, True)
        assert _record.find(tree, path, source(password=b"other")) == (good, False)
