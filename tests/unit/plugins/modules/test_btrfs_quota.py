# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""btrfs_quota as Ansible runs it, with a btrfs that keeps its subvolumes and limits in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _btrfs
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result
from ansible_collections.holdfast.backup.plugins.modules import btrfs_quota

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners: needs root")
Run = Callable[..., dict[str, Any]]
M = 1 << 20

# What btrfs-progs 6.14 prints; 6.2 has the same columns under other names.
SHOWN = """\
Qgroupid    Referenced    Exclusive  Max referenced   Path
--------    ----------    ---------  --------------   ----
0/5              16384        16384            none   <toplevel>
0/256            81920        81920        10485760   x
0/257            16384        16384            none   y
1/1                  0            0            none   <0 member qgroups>
"""


class Btrfs:
    """A file system: ids of subvolumes by inode of their directory, limits by id."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids: dict[int, int] = {}
        self.limits: dict[int, str] = {}
        self.quotas = True
        self.installed = True
        self.is_btrfs = True
        self.fails: str | None = None
        self.calls: list[list[str]] = []

    def run(self, argv: list[str], *, timeout: float) -> Result:
        assert timeout > 0
        self.calls.append(argv)
        if not self.installed:
            raise FileNotFoundError(argv[0])
        if self.fails and self.fails in argv:
            return Result(1, "", "ERROR: it broke\n")
        verb = argv[1:3]
        if verb == ["qgroup", "show"]:
            if not self.quotas:
                return Result(1, "", "ERROR: can't list qgroups: quotas not enabled\n")
            rows = [f"0/{each} 16384 16384 {self.limits.get(each, 'none')}" for each in self.ids.values()]
            return Result(0, "\n".join(["qgroupid rfer excl max_rfer", *rows]) + "\n")
        if verb == ["quota", "enable"]:
            self.quotas = True
        elif verb == ["subvolume", "create"]:
            os.mkdir(argv[3])
            self.ids[os.stat(argv[3]).st_ino] = 256 + len(self.ids)
        elif verb == ["qgroup", "limit"]:
            self.limits[int(argv[4].split("/")[1])] = argv[3]
        return Result(0)

    def subvolume_id(self, descriptor: int) -> int | None:
        return self.ids.get(os.fstat(descriptor).st_ino, 5) if self.is_btrfs else None

    def is_subvolume(self, status: os.stat_result) -> bool:
        return status.st_ino in self.ids


@pytest.fixture
def btrfs(place: Path, monkeypatch: pytest.MonkeyPatch) -> Btrfs:
    fake = Btrfs(place / "srv")
    fake.path.mkdir()
    monkeypatch.setattr(_btrfs, "run", fake.run)
    monkeypatch.setattr(_btrfs, "subvolume_id", fake.subvolume_id)
    monkeypatch.setattr(_btrfs, "is_subvolume", fake.is_subvolume)
    return fake


@pytest.fixture
def run(run_module: Run, btrfs: Btrfs, place: Path) -> Run:
    def call(*, check: bool = False, **quotas: str) -> dict[str, Any]:
        args = {
            "path": str(btrfs.path),
            "manifest": str(place / "manifest.json"),
            "owner": "daemon",
            "group": "daemon",
            "repositories": [{"name": name, "quota": quota} for name, quota in quotas.items()],
        }
        return run_module(btrfs_quota, args, check=check)

    return call


def both(run: Run, **quotas: str) -> dict[str, Any]:
    """Check mode announces what the real run does, and the run after it does nothing."""
    announced, real, again = run(check=True, **quotas), run(**quotas), run(**quotas)
    for key in ("changed", "created", "limited", "lifted", "diff"):
        assert announced[key] == real[key], key
    assert not again["changed"], again
    return real


def test_what_btrfs_prints_is_read() -> None:
    found = _btrfs.parse_groups(SHOWN)
    assert found == _btrfs.Groups(True, {5: None, 256: 10 * M, 257: None}, {5: 16384, 256: 81920, 257: 16384})


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("24M", 24 * M), ("200G", 200 << 30), ("3T", 3 << 40), ("5K", 5120)]
)
def test_sizes(text: str, size: int) -> None:
    assert _btrfs.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5G", "1GB", "1 G", "none", "1g", "1G\n"])
def test_bad_sizes_are_refused(run: Run, text: str) -> None:
    result = run(a=text)
    assert result["failed"]
    assert "repositories[a].quota" in result["msg"]


def test_a_repository_becomes_a_limited_subvolume_of_its_account(run: Run, btrfs: Btrfs) -> None:
    result = both(run, a="10M", b="2G")
    assert (result["changed"], result["created"], result["limited"]) == (True, ["a", "b"], ["a", "b"])
    assert sorted(btrfs.limits.values()) == [str(10 * M), str(2 << 30)]
    status = os.stat(btrfs.path / "a")
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1, 1, 0o700)
    assert "a: no subvolume, no limit" in result["diff"]["before"]
    assert f"a: subvolume, limit {10 * M} bytes" in result["diff"]["after"]


def test_an_empty_directory_is_replaced(run: Run, btrfs: Btrfs) -> None:
    (btrfs.path / "a").mkdir()
    assert both(run, a="10M")["created"] == ["a"]


def test_a_changed_quota_changes_the_limit_only(run: Run, btrfs: Btrfs) -> None:
    run(a="10M", b="1M")
    result = both(run, a="20M", b="1M")
    assert (result["created"], result["limited"]) == ([], ["a"])
    assert result["used"] == {"a": 16384, "b": 16384}


def test_a_limit_changed_by_hand_is_put_right(run: Run, btrfs: Btrfs) -> None:
    run(a="10M")
    btrfs.limits[256] = "5"
    assert both(run, a="10M")["limited"] == ["a"]


def test_an_owner_changed_by_hand_is_put_right(run: Run, btrfs: Btrfs) -> None:
    run(a="10M")
    os.chown(btrfs.path / "a", 0, 0)
    assert both(run, a="10M")["changed"]
    assert os.stat(btrfs.path / "a").st_uid == 1


def test_a_quota_that_is_gone_is_lifted_and_others_limits_stay(run: Run, btrfs: Btrfs, place: Path) -> None:
    run(a="10M", b="10M")
    btrfs.run(["btrfs", "subvolume", "create", str(btrfs.path / "theirs")], timeout=1)
    btrfs.limits[258] = "77"
    result = both(run, b="10M")
    assert (result["lifted"], result["limited"]) == (["a"], [])
    assert btrfs.limits == {256: "none", 257: str(10 * M), 258: "77"}
    assert "a: subvolume, limited" in result["diff"]["before"]
    assert "a: subvolume, no limit" in result["diff"]["after"]
    assert both(run)["lifted"] == ["b"]
    assert not (place / "manifest.json").exists()


def test_a_repository_that_vanished_needs_no_lifting(run: Run, btrfs: Btrfs) -> None:
    run(a="10M")
    os.rmdir(btrfs.path / "a")
    assert not run()["changed"]


def test_without_quotas_nothing_is_asked(run: Run, btrfs: Btrfs) -> None:
    btrfs.is_btrfs = False
    assert not run()["changed"]
    assert btrfs.calls == []


def test_quotas_are_enabled_when_the_first_is_declared(run: Run, btrfs: Btrfs) -> None:
    btrfs.quotas = False
    result = both(run, a="10M")
    assert ["btrfs", "quota", "enable", str(btrfs.path)] in btrfs.calls
    assert "quotas of the file system: on" in result["diff"]["after"]


def test_another_file_system_is_refused_with_the_cure(run: Run, btrfs: Btrfs) -> None:
    btrfs.is_btrfs = False
    for check in (True, False):
        result = run(a="10M", check=check)
        assert result["failed"]
        assert "does not lie on btrfs" in result["msg"]
        assert "rest_server_path" in result["msg"]


@pytest.mark.parametrize("kind", ["files", "link", "file"])
def test_what_is_no_subvolume_is_refused_and_left_alone(run: Run, btrfs: Btrfs, place: Path, kind: str) -> None:
    there = btrfs.path / "a"
    if kind == "files":
        there.mkdir()
        (there / "config").write_text("data")
    elif kind == "link":
        (place / "etc").mkdir()
        there.symlink_to(place / "etc")
    else:
        there.write_text("")
    result = run(a="10M", b="1M")
    assert result["failed"]
    assert "reflink" in result["msg"]
    assert btrfs.ids == {}
    assert [each.name for each in btrfs.path.iterdir()] == ["a"]


def test_check_mode_before_btrfs_is_installed(run: Run, btrfs: Btrfs) -> None:
    run(a="10M")
    btrfs.installed = False
    result = run(check=True, a="10M", b="1M")
    assert (result["created"], result["not_checked"]) == (["b"], ["a"])
    real = run(a="10M", b="1M")
    assert real["failed"]
    assert "install btrfs-progs" in real["msg"]


def test_check_mode_before_the_directory_and_the_account_are_there(run_module: Run, btrfs: Btrfs, place: Path) -> None:
    args = {
        "path": str(place / "later/srv"),
        "manifest": str(place / "manifest.json"),
        "owner": "no-such-account",
        "group": "no-such-group",
        "repositories": [{"name": "a", "quota": "1M"}],
    }
    result = run_module(btrfs_quota, args, check=True)
    assert result["created"] == ["a"]
    assert result["not_checked"] == ["owner no-such-account", "group no-such-group"]
    real = run_module(btrfs_quota, args)
    assert real["failed"]
    assert "make the account first" in real["msg"]


@pytest.mark.parametrize("verb", ["show", "create", "limit"])
def test_a_failing_btrfs_fails_with_what_it_said(run: Run, btrfs: Btrfs, verb: str) -> None:
    btrfs.fails = verb
    result = run(a="10M")
    assert result["failed"]
    assert "it broke" in result["msg"]
    btrfs.fails = None
    assert run(a="10M")["changed"]
    assert not run(a="10M")["changed"]


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b"])
def test_bad_names_are_refused(run_module: Run, btrfs: Btrfs, place: Path, name: str) -> None:
    args = {"path": str(btrfs.path), "owner": "daemon", "group": "daemon", "manifest": str(place / "m")}
    result = run_module(btrfs_quota, {**args, "repositories": [{"name": name, "quota": "1M"}]})
    assert result["failed"]
    assert "is not the name of a directory" in result["msg"]


def test_twice_the_same_is_refused(run_module: Run, btrfs: Btrfs, place: Path) -> None:
    args = {"path": str(btrfs.path), "owner": "daemon", "group": "daemon", "manifest": str(place / "m")}
    result = run_module(btrfs_quota, {**args, "repositories": [{"name": "a", "quota": "1M"}] * 2})
    assert "is there twice" in result["msg"]


@pytest.mark.parametrize(
    "text", ['{"format": 2, "limited": []}', '{"format": 1, "limited": "a"}', '{"format": 1, "limited": [1]}']
)
def test_a_damaged_manifest_is_named(run: Run, place: Path, text: str) -> None:
    (place / "manifest.json").write_text(text)
    result = run(a="1M")
    assert result["failed"]
    assert "manifest.json is damaged" in result["msg"]


def test_a_repository_replaced_meanwhile_is_not_limited(
    run: Run, btrfs: Btrfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(a="10M")
    find, looks = _btrfs.Storage.find, iter([False, True, True])

    def fickle(self: _btrfs.Storage, name: str) -> _btrfs.Found:
        return _btrfs.Found(_btrfs.OTHER) if next(looks) else find(self, name)

    monkeypatch.setattr(_btrfs.Storage, "find", fickle)
    result = run(a="20M")
    assert result["failed"]
    assert "was replaced" in result["msg"]


def test_errors_of_the_system_are_told(run: Run, btrfs: Btrfs, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: _btrfs.Storage, name: str) -> _btrfs.Found:
        raise OSError(errno.EIO, "Input/output error", str(btrfs.path))

    monkeypatch.setattr(_btrfs.Storage, "find", broken)
    assert "Input/output error" in run(a="1M")["msg"]


class TestTheKernelsAnswer:
    """The one system call, without a btrfs."""

    def test_another_file_system(self, place: Path) -> None:
        descriptor = os.open("/proc", os.O_RDONLY)
        try:
            assert _btrfs.subvolume_id(descriptor) is None
        finally:
            os.close(descriptor)

    def test_the_id_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def answer(_descriptor: int, _request: int, buffer: bytearray) -> int:
            buffer[:8] = (261).to_bytes(8, "little")
            return 0

        monkeypatch.setattr(_btrfs.fcntl, "ioctl", answer)
        assert _btrfs.subvolume_id(0) == 261

    def test_other_errors_are_errors(self) -> None:
        with pytest.raises(OSError, match="Bad file descriptor"):
            _btrfs.subvolume_id(999)

    def test_an_inode_number_tells_a_subvolume(self) -> None:
        assert not _btrfs.is_subvolume(os.stat("/"))
