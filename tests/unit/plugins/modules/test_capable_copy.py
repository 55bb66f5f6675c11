# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""capable_copy as Ansible runs it, with real files, owners and capabilities, and the host program's command."""

from __future__ import annotations

import fcntl
import grp
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _capable
from ansible_collections.holdfast.backup.plugins.module_utils._program.cli import main
from ansible_collections.holdfast.backup.plugins.modules import capable_copy

GROUP = "daemon"
NOBODY = 65534
PROGRAM = b"\x7fELF one"
Run = Callable[..., dict[str, Any]]


def capabilities_work() -> bool:
    """Whether this place lets root set file capabilities."""
    if os.geteuid() != 0:
        return False
    path = Path(__file__).with_suffix(".probe")
    try:
        path.write_bytes(b"")
        os.setxattr(path, _capable.ATTRIBUTE, _capable.CAPABILITY)
    except OSError:
        return False
    finally:
        path.unlink(missing_ok=True)
    return True


pytestmark = pytest.mark.skipif(not capabilities_work(), reason="sets owners and file capabilities: needs root")


@pytest.fixture
def source(place: Path) -> Path:
    path = place / "program"
    path.write_bytes(PROGRAM)
    path.chmod(0o755)
    return path


@pytest.fixture
def copy(place: Path) -> Path:
    return place / "capable" / "program"


@pytest.fixture
def run(run_module: Run, source: Path, copy: Path) -> Run:
    def call(*, check: bool = False, **args: Any) -> dict[str, Any]:
        return run_module(capable_copy, {"source": str(source), "path": str(copy), "group": GROUP, **args}, check=check)

    return call


def is_right(copy: Path, content: bytes = PROGRAM) -> bool:
    group = grp.getgrnam(GROUP).gr_gid
    if os.listdir(copy.parent) != [copy.name]:
        return False
    for path in (copy, copy.parent):
        info = path.lstat()
        if (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) != (0, group, 0o750):
            return False
    return (
        copy.read_bytes() == content
        and "security.capability" in os.listxattr(copy)
        and os.getxattr(copy, "security.capability") == _capable.CAPABILITY
    )


def test_the_capability_is_the_kernels_struct() -> None:
    magic, permitted, inheritable, high, high_inheritable = struct.unpack("<5I", _capable.CAPABILITY)
    assert magic == 0x02000001
    assert (permitted, inheritable, high, high_inheritable) == (4, 0, 0, 0)


@pytest.mark.skipif(not Path("/usr/sbin/getcap").exists(), reason="libcap2-bin is not installed")
def test_getcap_reads_it_as_meant(run: Run, copy: Path) -> None:
    run()
    said = subprocess.run(["/usr/sbin/getcap", str(copy)], capture_output=True, text=True, timeout=10, check=True)
    assert said.stdout.split(maxsplit=1)[1].strip() in ("cap_dac_read_search=ep", "= cap_dac_read_search+ep")


def test_made_once_and_announced(run: Run, copy: Path) -> None:
    announced = run(check=True)
    assert announced["changed"]
    assert not copy.parent.exists()
    made = run()
    assert (made["changed"], made["differs"], made["not_checked"]) == (True, ["directory", "copy"], [])
    assert made["diff"]["after"] == announced["diff"]["after"]
    assert is_right(copy)
    inode = copy.stat().st_ino
    for check in (False, True):
        again = run(check=check)
        assert (again["changed"], again["differs"]) == (False, [])
        assert again["diff"]["before"] == again["diff"]["after"]
    assert copy.stat().st_ino == inode


def content(source: Path, copy: Path) -> None:
    source.write_bytes(b"\x7fELF two")


def copied(source: Path, copy: Path) -> None:
    copy.write_bytes(b"\x7fELF mine")
    os.setxattr(copy, _capable.ATTRIBUTE, _capable.CAPABILITY)


def executable_by_all(source: Path, copy: Path) -> None:
    copy.chmod(0o755)


def open_directory(source: Path, copy: Path) -> None:
    copy.parent.chmod(0o755)


def owned_directory(source: Path, copy: Path) -> None:
    os.chown(copy.parent, NOBODY, NOBODY)


def owner(source: Path, copy: Path) -> None:
    os.chown(copy, 0, 0)
    os.setxattr(copy, _capable.ATTRIBUTE, _capable.CAPABILITY)


def no_capability(source: Path, copy: Path) -> None:
    os.removexattr(copy, _capable.ATTRIBUTE)


def inheritable(source: Path, copy: Path) -> None:
    os.setxattr(copy, _capable.ATTRIBUTE, struct.pack("<5I", 0x02000001, 4, 4, 0, 0))


def link(source: Path, copy: Path) -> None:
    copy.unlink()
    copy.symlink_to(source)


def gone(source: Path, copy: Path) -> None:
    copy.unlink()


@pytest.mark.parametrize(
    ("harm", "differs"),
    [
        (content, ["content"]),
        (copied, ["content"]),
        (executable_by_all, ["owner or mode"]),
        (open_directory, ["directory"]),
        (owned_directory, ["directory"]),
        (owner, ["owner or mode"]),
        (no_capability, ["capability"]),
        (inheritable, ["capability"]),
        (link, ["content", "owner or mode", "capability"]),
        (gone, ["copy"]),
    ],
)
def test_what_differs_is_mended(
    run: Run, source: Path, copy: Path, harm: Callable[[Path, Path], None], differs: list[str]
) -> None:
    run()
    harm(source, copy)
    announced = run(check=True)
    assert not is_right(copy, source.read_bytes())
    done = run()
    assert announced["differs"] == done["differs"] == differs
    assert announced["diff"] == done["diff"]
    assert ", ".join(differs) in done["diff"]["before"]
    assert is_right(copy, source.read_bytes())
    assert source.read_bytes().startswith(b"\x7fELF")
    assert not run()["changed"]


def test_what_is_not_there_yet(run: Run, source: Path, copy: Path) -> None:
    source.unlink()
    checked = run(check=True, group="nobody-has-it")
    assert checked["changed"]
    assert checked["not_checked"] == [f"source {source} does not exist yet", "group nobody-has-it does not exist yet"]
    failed = run(group="nobody-has-it")
    assert f"source {source} and group nobody-has-it does not exist" in failed["msg"]
    assert not copy.parent.exists()


def test_a_program_that_others_can_write_gets_no_capability(run: Run, source: Path, copy: Path) -> None:
    for mode, owner in ((0o775, 0), (0o755, NOBODY)):
        source.chmod(mode)
        os.chown(source, owner, 0)
        assert "may be written by others than root" in run()["msg"]
        assert "may be written by others than root" in run(check=True)["msg"]
    os.chown(source, 0, 0)
    assert run()["changed"]


def test_links_to_the_program_are_followed_where_only_root_can_make_them(
    run: Run, source: Path, place: Path, copy: Path
) -> None:
    (place / "link").symlink_to("program")
    assert run(source=str(place / "link"))["changed"]
    assert is_right(copy)
    theirs = place / "theirs"
    theirs.mkdir()
    (theirs / "link").symlink_to("../program")
    os.chown(theirs, NOBODY, NOBODY)
    (place / "link").unlink()
    (place / "link").symlink_to("theirs/link")
    assert "uid 65534" in run(source=str(place / "link"))["msg"]
    loop = place / "loop"
    loop.symlink_to("loop")
    assert "not a program" in run(source=str(loop))["msg"]


@pytest.mark.parametrize("bad", [b"#!/bin/sh\n", b""])
def test_a_script_gets_no_capability(run: Run, source: Path, bad: bytes) -> None:
    source.write_bytes(bad)
    assert "not a program (ELF)" in run()["msg"]


def test_the_directory_is_for_the_copy_alone(run: Run, source: Path, place: Path, copy: Path) -> None:
    """Its owner and mode are ours: /usr/local/bin must not become 0750."""
    for path, said in (
        (place / "restic", "also holds 'program'"),
        (Path("/restic"), "not in a directory of its own"),
        (source / "restic", "not in a directory of its own"),
    ):
        for state in ("present", "absent"):
            assert said in run(path=str(path), state=state)["msg"]
    assert "a path of its own" in run(path=str(source))["msg"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    copy.parent.symlink_to(place)
    assert "not in a directory of its own" in run()["msg"]
    for option in ("source", "path"):
        assert f"{option}: 'relative/restic' is not absolute" in run(**{option: "relative/restic"})["msg"]


def test_options_that_are_needed(run_module: Run, copy: Path) -> None:
    assert "source, group" in run_module(capable_copy, {"path": str(copy)})["msg"]


def test_removed_with_its_directory(run: Run, copy: Path) -> None:
    assert not run(state="absent")["changed"]
    run()
    announced = run(check=True, state="absent")
    assert announced["differs"] == ["copy", "directory"]
    assert copy.exists()
    done = run(state="absent")
    assert (done["changed"], done["differs"], done["diff"]) == (True, ["copy", "directory"], announced["diff"])
    assert not copy.parent.exists()
    assert not run(state="absent")["changed"]


def test_two_at_once_wait_for_each_other(run: Run, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setattr(_capable, "_LOCK_TIMEOUT", 0.2)
    fd = os.open(copy.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert "another run holds" in run()["msg"]
    finally:
        os.close(fd)
    assert not run()["changed"]


def test_a_program_that_goes_while_we_wait(run: Run, source: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setattr(_capable.Tree, "lock", lambda *_arguments, **_options: source.unlink())
    assert "removed in the meantime" in run()["msg"]


def test_the_disk_is_full(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_capable.Tree, "write", full)
    assert "No space left on device: mend this" in run()["msg"]


def test_the_host_programs_command(source: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["capable-copy", str(source), str(copy), GROUP]
    assert main(command) == 0
    assert "made anew (directory" in capsys.readouterr().out
    assert is_right(copy)
    assert main(command) == 0
    assert "as it should be" in capsys.readouterr().out
    content(source, copy)
    assert main(command) == 0
    assert "made anew (content)" in capsys.readouterr().out
    assert is_right(copy, b"\x7fELF two")
    assert main(["capable-copy", str(source), str(copy), "nobody-has-it"]) == 1
    assert "group nobody-has-it does not exist" in capsys.readouterr().err


def test_what_it_copies_runs(run: Run, source: Path, copy: Path) -> None:
    """A real program, as a member of the group and as somebody else."""
    shutil.copyfile("/usr/bin/id", source)
    run()
    copy.parent.parent.chmod(0o755)
    as_member = subprocess.run(
        [str(copy), "-u"], user=NOBODY, group=GROUP, extra_groups=[], timeout=10, check=False, capture_output=True
    )
    assert as_member.stdout == b"65534\n"
    with pytest.raises(PermissionError):
        subprocess.run([str(copy)], user=NOBODY, group=NOBODY, extra_groups=[], timeout=10, check=False)
