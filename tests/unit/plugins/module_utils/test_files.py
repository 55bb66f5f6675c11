# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Safe walking and atomic writing, against links and owners that an attacker could plant."""

from __future__ import annotations

import errno
import os
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _files
from ansible_collections.holdfast.backup.plugins.module_utils._files import (
    Entry,
    Tree,
    UnsafePathError,
    check_path,
    group_id,
    parse_mode,
    user_id,
)

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners: needs root")


@pytest.fixture
def tree() -> Iterator[Tree]:
    with Tree() as made:
        yield made


def write(tree: Tree, path: Path, content: bytes = b"x") -> None:
    tree.write(str(path), content, uid=0, gid=0, mode=0o640)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (5, "must be a string"),
        ("a/b", "not absolute"),
        ("/a/../b", "contains '..'"),
        ("/a\0b", "control character"),
        ("/a\nb", "control character"),
        ("/a\x7f", "control character"),
        ("/a//b", "short form"),
        ("//a", "short form"),
        ("/a/", "short form"),
        ("/", "short form"),
        ("/a/./b", "short form"),
        ("/" + "a" * 256, "longer than 255"),
    ],
)
def test_bad_paths_are_named(path: object, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        check_path(path, "files[3]")
    assert "files[3]" in str(caught.value)
    assert repr(path) in str(caught.value)


def test_good_paths() -> None:
    assert check_path("/a/..b/ü x", "files[0]") == "/a/..b/ü x"


@pytest.mark.parametrize(("mode", "number"), [("0644", 0o644), ("700", 0o700), ("4755", 0o4755)])
def test_good_modes(mode: str, number: int) -> None:
    assert parse_mode(mode, "x") == number


@pytest.mark.parametrize("mode", [420, "420x", "64", "0888", "00644", "u=rw", None, "０６４４"])
def test_bad_modes(mode: object) -> None:
    with pytest.raises(ValueError, match="octal digits in quotes"):
        parse_mode(mode, "files[0]")


def test_ids() -> None:
    assert user_id("root") == group_id("root") == 0
    assert user_id("4711") == group_id("4711") == 4711
    assert user_id("no-such-user") is None
    assert group_id("no-such-group") is None


def test_write_is_a_new_inode_with_owner_and_mode(tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    hard_link = tmp_path / "link"
    os.link(path, hard_link)
    tree.write(str(path), b"new", uid=NOBODY, gid=NOBODY, mode=0o4750)
    info = path.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode), path.read_bytes()) == (NOBODY, NOBODY, 0o4750, b"new")
    assert hard_link.read_text() == "old"
    assert os.listdir(tmp_path) in (["file", "link"], ["link", "file"])


def test_entries_of_all_kinds(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o604)
    (tmp_path / "dir").mkdir(mode=0o710)
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert tree.entry(str(tmp_path / "file")) == Entry("file", 0, 0, 0o604, b"x")
    assert tree.entry(str(tmp_path / "dir")) == Entry("directory", 0, 0, 0o710)
    assert tree.directory_entry(str(tmp_path / "dir")) == Entry("directory", 0, 0, 0o710)
    link = tree.entry(str(tmp_path / "link"))
    assert link is not None
    assert (link.kind, link.target) == ("link", "file")
    fifo = tree.entry(str(tmp_path / "fifo"))
    assert fifo is not None
    assert fifo.kind == "other"
    assert tree.entry(str(tmp_path / "none")) is None
    assert tree.entry(str(tmp_path / "none/below")) is None
    assert tree.directory_entry(str(tmp_path / "none")) is None
    assert tree.names(str(tmp_path)) == {"file", "dir", "link", "fifo"}
    assert tree.names(str(tmp_path / "none")) == frozenset()


def test_link_at_the_end_is_replaced_not_followed(tree: Tree, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "file").symlink_to(victim)
    write(tree, tmp_path / "file", b"new")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "file").is_symlink()


def test_planted_temporary_link_is_not_followed(tree: Tree, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / _files._temporary_name("file")).symlink_to(victim)
    write(tree, tmp_path / "file", b"new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "file").read_text() == "new"


def test_links_that_only_root_can_have_made_are_followed(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative" / "deep")
    write(tree, tmp_path / "absolute" / "file")
    assert (tmp_path / "real" / "deep" / "file").exists()


def test_link_of_somebody_else_is_refused(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    os.lchown(tmp_path / "link", NOBODY, NOBODY)
    with pytest.raises(UnsafePathError, match="symbolic link"):
        write(tree, tmp_path / "link" / "file")
    assert not (tmp_path / "real" / "file").exists()


@pytest.mark.parametrize(("uid", "mode"), [(0, 0o1777), (0, 0o777), (NOBODY, 0o755)])
def test_link_in_a_directory_that_others_write_is_refused_even_as_roots(
    tree: Tree, tmp_path: Path, uid: int, mode: int
) -> None:
    # A hard link to a link of root's could have been planted.
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    os.chown(tmp_path / "open", uid, 0)
    (tmp_path / "open" / "link").symlink_to("/etc")
    tree.trust([str(tmp_path / "open")])
    with pytest.raises(UnsafePathError, match="symbolic link"):
        tree.entry(str(tmp_path / "open" / "link" / "passwd"))


def test_endless_links_are_refused(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UnsafePathError, match="symbolic link"):
        tree.entry(str(tmp_path / "a" / "file"))


def test_file_on_the_way_is_refused(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnsafePathError, match="is not a directory"):
        write(tree, tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("owner", "mode", "safe"),
    [
        ((0, 0), 0o755, True),
        ((0, 0), 0o775, True),
        ((0, NOBODY), 0o755, True),
        ((0, 0), 0o1777, True),
        ((0, NOBODY), 0o775, False),
        ((0, 0), 0o777, False),
        ((NOBODY, NOBODY), 0o700, False),
        ((NOBODY, NOBODY), 0o1777, False),
    ],
)
def test_directories_of_others(tree: Tree, tmp_path: Path, owner: tuple[int, int], mode: int, safe: bool) -> None:
    directory = tmp_path / "dir"
    directory.mkdir()
    os.chown(directory, *owner)
    directory.chmod(mode)
    if safe:
        write(tree, directory / "file")
    else:
        with pytest.raises(UnsafePathError, match="chmod go-w"):
            write(tree, directory / "file")
        assert not (directory / "file").exists()
        tree.trust([str(directory)])
        write(tree, directory / "file")
    assert (directory / "file").exists()


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access ACL as the kernel keeps it: tag, permissions and id of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.mark.parametrize(("rights", "safe"), [(7, False), (5, True)])
def test_directories_that_an_acl_gives_to_others(tree: Tree, tmp_path: Path, rights: int, safe: bool) -> None:
    """What looks like the right of root's group is the most that those have whom the ACL names."""
    directory = tmp_path / "dir"
    directory.mkdir()
    directory.chmod(0o755)
    nobody = 0xFFFFFFFF
    named = [(1, 7, nobody), (2, rights, NOBODY), (4, 5, nobody), (0x10, rights, nobody), (0x20, 5, nobody)]
    os.setxattr(directory, "system.posix_acl_access", acl(*named))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o705 | rights << 3
    if safe:
        write(tree, directory / "file")
    else:
        with pytest.raises(UnsafePathError, match="writable by others"):
            write(tree, directory / "file")
        (directory / "link").symlink_to("/")
        with pytest.raises(UnsafePathError):
            write(tree, directory / "link/etc/file")
    # A mode of which no ACL tells is the group's own.
    os.removexattr(directory, "system.posix_acl_access")
    directory.chmod(0o775)
    with Tree() as again:
        write(again, directory / "file")


def test_link_planted_below_a_trusted_directory_is_refused(tree: Tree, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    (theirs / "sub").symlink_to(victim)
    os.lchown(theirs / "sub", NOBODY, NOBODY)
    tree.trust([str(theirs), str(theirs / "sub")])
    with pytest.raises(UnsafePathError, match="symbolic link"):
        write(tree, theirs / "sub" / "file")
    assert os.listdir(victim) == []


def test_swapped_directory_cannot_lead_a_write_elsewhere(tree: Tree, tmp_path: Path) -> None:
    directory = tmp_path / "dir"
    directory.mkdir()
    assert tree.entry(str(directory / "file")) is None  # the check
    directory.rename(tmp_path / "moved")
    (tmp_path / "victim").mkdir()
    directory.symlink_to(tmp_path / "victim")
    write(tree, directory / "file")  # the use
    assert os.listdir(tmp_path / "victim") == []
    assert os.listdir(tmp_path / "moved") == ["file"]


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tree, tmp_path / "file", b"new")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_directories_are_made_set_and_removed(tree: Tree, tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b" / "file")
    tree.make_parents(path)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o755
    tree.set_directory(str(tmp_path / "a" / "b"), uid=NOBODY, gid=NOBODY, mode=0o2750)
    info = (tmp_path / "a" / "b").stat()
    assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (NOBODY, 0o2750)
    (tmp_path / "a" / "b" / "other").write_text("x")
    assert not tree.remove_directory(str(tmp_path / "a" / "b"))
    (tmp_path / "a" / "b" / "other").unlink()
    assert tree.remove_directory(str(tmp_path / "a" / "b"))
    assert tree.remove_directory(str(tmp_path / "a" / "b"))
    assert tree.directory_entry(str(tmp_path / "a" / "b")) is None


def test_directory_that_cannot_be_removed_is_an_error(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dir").mkdir()

    def refuse(_name: str, dir_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(OSError, match="Input/output"):
        tree.remove_directory(str(tmp_path / "dir"))


def test_unlink(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    tree.unlink(str(tmp_path / "file"))
    tree.unlink(str(tmp_path / "file"))
    tree.unlink(str(tmp_path / "none" / "file"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff"])
def test_damaged_json_is_named(tree: Tree, tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="is not a JSON file of holdfast: restore it") as caught:
        tree.read_json(str(path))
    assert str(path) in str(caught.value)


def test_json(tree: Tree, tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "x.json")
    assert tree.read_json(path) is None
    tree.write_json(path, {"b": 1, "a": "ü"}, mode=0o600)
    assert tree.read_json(path) == {"a": "ü", "b": 1}
    os.mkdir(tmp_path / "dir.json")
    with pytest.raises(ValueError, match="not a JSON file"):
        tree.read_json(str(tmp_path / "dir.json"))


def test_lock_waits_and_gives_up(tree: Tree, tmp_path: Path) -> None:
    tree.lock(str(tmp_path), timeout=0)
    waited: list[float] = []
    with Tree() as other:
        with pytest.raises(TimeoutError, match="another run"):
            other.lock(str(tmp_path), timeout=0)

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            tree.close()

        other.lock(str(tmp_path), timeout=5, sleep=sleep)
    assert waited == [0.1]


def test_making_a_directory_that_exists_sets_it(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir(mode=0o755)
    tree.make_directory(str(tmp_path / "dir"), uid=0, gid=NOBODY, mode=0o710)
    assert tree.directory_entry(str(tmp_path / "dir")) == Entry("directory", 0, NOBODY, 0o710)


def test_extended_attributes_are_there_when_the_file_appears(tree: Tree) -> None:
    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as place:
        path = f"{place}/file"
        tree.write(path, b"x", uid=0, gid=0, mode=0o600)
        assert tree.attribute(path, "trusted.holdfast") is None
        tree.write(path, b"x", uid=0, gid=0, mode=0o600, attributes={"trusted.holdfast": b"\0y"})
        assert tree.attribute(path, "trusted.holdfast") == b"\0y"
        with pytest.raises(OSError, match=r"File name too long|Numerical result out of range"):
            tree.attribute(path, "trusted." + "x" * 300)
        with pytest.raises(FileNotFoundError):
            tree.attribute(f"{place}/gone", "trusted.holdfast")


def test_many_directories_need_few_descriptors(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "_MAXIMUM_OPEN", 12)
    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as name:
        place = Path(name)
        before = len(os.listdir("/proc/self/fd"))
        tree.lock(name, timeout=0)
        for number in range(60):
            tree.make_directory(str(place / str(number)), uid=0, gid=0, mode=0o755)
            write(tree, place / str(number) / "file")
        assert all((place / str(number) / "file").read_bytes() == b"x" for number in range(60))
        assert len(os.listdir("/proc/self/fd")) <= before + 16
        # The lock was not among what was closed.
        with Tree() as other, pytest.raises(TimeoutError):
            other.lock(name, timeout=0)
