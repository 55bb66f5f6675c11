# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""prepare, verify and finish: what stops a run, what makes it fail later, and the hooks."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _secrets
from ansible_collections.holdfast.backup.plugins.module_utils._program import hooks, rest, same, sources, state
from ansible_collections.holdfast.backup.plugins.module_utils._program.definition import Definition, Hook, Rest
from ansible_collections.holdfast.backup.plugins.module_utils._program.finish import finish
from ansible_collections.holdfast.backup.plugins.module_utils._program.mounts import mounted
from ansible_collections.holdfast.backup.plugins.module_utils._program.prepare import prepare
from ansible_collections.holdfast.backup.plugins.module_utils._program.verify import verify

from tests.unit.plugins.module_utils.program.program_host import (
    FATAL,
    ID,
    IDENTITY,
    INVOCATION,
    ME,
    NOW,
    SNAPSHOT,
    STATUS,
    SUMMARY,
    UNIT,
    FakeHost,
    define,
    entries,
    hook,
)

ENVIRONMENT = {"INVOCATION_ID": INVOCATION}
ENDED = {**ENVIRONMENT, "SERVICE_RESULT": "success", "EXIT_CODE": "exited", "EXIT_STATUS": "0"}
DUMPS = [{"name": "pg", "unit": "pg.service"}]


def found(host: FakeHost) -> state.State:
    """What this invocation left."""
    left = state.load(host, UNIT, INVOCATION)
    assert left is not None
    return left


def refused(host: FakeHost, definition: Definition, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """(reason, message) of a run that prepare stopped, with what it said."""
    assert prepare(host, definition, ENVIRONMENT) == 1
    left = found(host)
    assert left.stopped is not None
    assert capsys.readouterr().err == f"{left.stopped}: {left.message}\n"
    return left.stopped, left.message


def test_prepared(host: FakeHost) -> None:
    host.put("/srv/optional")
    assert prepare(host, define(host), ENVIRONMENT) == 0
    left = found(host)
    assert (left.started, left.stopped, left.missing) == (NOW, None, [])
    listing = host.path(f"/run/holdfast/{UNIT}.sources")
    assert listing.read_bytes() == b"/srv/optional\0"
    assert listing.stat().st_mode & 0o777 == 0o640
    assert host.path(f"/run/holdfast/{UNIT}.json").stat().st_mode & 0o777 == 0o600


def test_files_that_are_lost(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    definition = define(host)
    host.path(definition.record).unlink()
    assert refused(host, definition, capsys)[0] == "no record"
    host.path(definition.password_file).unlink()
    reason, message = refused(host, definition, capsys)
    assert (reason, definition.password_file in message) == ("lost key file", True)


MOUNTINFO = "36 35 98:0 / {} rw,noatime master:1 - ext3 /dev/root rw\n"


def test_mount(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    definition = define(host, mount="/mnt/usb disk/")
    assert not mounted(host, "/mnt/usb disk")
    host.put("/proc/self/mountinfo", MOUNTINFO.format("/mnt/usb"))
    assert refused(host, definition, capsys)[0] == "unreachable"
    host.put("/proc/self/mountinfo", MOUNTINFO.format("/mnt/usb\\040disk"))
    assert prepare(host, definition, ENVIRONMENT) == 0


def test_escrow(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    definition = define(host, escrow={"mode": "age"})
    assert refused(host, definition, capsys)[0] == "lost key file"
    host.put(definition.identity_file, "{}")
    assert "damaged" in refused(host, definition, capsys)[1]
    host.put(definition.identity_file, IDENTITY)
    assert refused(host, definition, capsys)[0] == "no escrow"
    host.put("/etc/holdfast/escrow.json", {"mode": "age", "repositories": {"vault": "cd" * 16}})
    assert refused(host, definition, capsys)[0] == "no escrow"
    host.put("/etc/holdfast/escrow.json", {"mode": "age", "repositories": {"vault": "ab" * 16}})
    assert prepare(host, definition, ENVIRONMENT) == 0
    # The bundle before the last change is good enough for a while.
    changed = {**IDENTITY["escrow"], "fingerprint": "ef" * 16, "previous": ["ab" * 16], "previous_until": int(NOW) + 1}
    host.put(definition.identity_file, {**IDENTITY, "escrow": changed})
    assert prepare(host, definition, ENVIRONMENT) == 0
    host.clock = NOW + 2
    assert refused(host, definition, capsys)[0] == "no escrow"


def test_pre_hooks(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    trace = host.path("/trace")
    definition = define(
        host, pre=[hook(f'echo "$HOLDFAST_JOB $PWD" >>{trace}'), hook("exit 3"), hook(f"echo never >>{trace}")]
    )
    assert refused(host, definition, capsys) == ("pre hook", "pre hook 2: /bin/sh ended with exit status 3")
    assert trace.read_text() == "system /\n"


def test_hooks_make_sources(host: FakeHost) -> None:
    definition = define(host, paths=["/srv/made"], pre=[hook(f"touch {host.path('/srv/made')}")])
    assert prepare(host, definition, ENVIRONMENT) == 0
    assert found(host).missing == []


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        (Hook(("/bin/true",), ME), None),
        (Hook(("/bin/sh", "-c", "kill -9 $$"), ME), "/bin/sh was ended by signal 9"),
        (Hook(("/bin/sh", "-c", "sleep 60 & wait"), ME, 1), "/bin/sh did not end within 1 s"),
        (Hook(("/nothing",), ME), "/nothing cannot be started: [Errno 2] No such file or directory: '/nothing'"),
        (Hook(("/bin/true",), "no-such-account"), "/bin/true: there is no account 'no-such-account' on this host"),
    ],
)
def test_hook(what: Hook, problem: str | None) -> None:
    assert hooks.run(what, {}) == problem


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_hook_as_another_account(tmp_path_factory: pytest.TempPathFactory) -> None:
    script = 'test "$(id -un)" = nobody && test "$HOME" = /nonexistent && test "$(id -G)" = "$(id -G nobody)"'
    assert hooks.run(Hook(("/bin/sh", "-c", script), "nobody"), {}) is None


def dump_says(host: FakeHost, unit: str, *lines: str) -> None:
    """What the journal has of a dump after the place where it began."""
    host.answer("--show-cursor", stdout="-- cursor: s=1;i=2\n")
    host.answer(f"_SYSTEMD_UNIT={unit}", "--cursor=s=1;i=2", stdout=entries(*lines))


def test_dumps(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    dumps = [{"name": name, "unit": f"{name}.service"} for name in ("good", "bad", "slow", "silent", "blank")]
    host.answer("systemctl", "bad.service", status=1, stderr="Job for bad.service failed.\n")
    host.answer("systemctl", "start", "slow.service", status=124)
    for name in ("good", "bad", "slow"):
        dump_says(host, f"{name}.service", STATUS, SUMMARY)
    dump_says(host, "blank.service", SUMMARY.replace(SNAPSHOT, ""))
    assert prepare(host, define(host, dumps=dumps), ENVIRONMENT) == 0
    assert found(host).dumps == {"good": SNAPSHOT}
    assert found(host).dumps_failed == ["bad", "slow", "silent", "blank"]
    assert ["systemctl", "start", "--", "good.service"] in host.calls
    assert ["systemctl", "stop", "--", "slow.service"] in host.calls
    # With a cursor, --lines= is about the first ones: the summary comes last.
    asked = [call for call in host.calls if "--cursor=s=1;i=2" in call]
    assert asked
    assert not [word for call in asked for word in call if word.startswith("--lines")]
    said = capsys.readouterr().err
    assert "dump bad failed: Job for bad.service failed.; see: journalctl -u bad.service" in said
    assert "dump slow failed: systemctl ended with exit status 124" in said
    assert "dump silent failed: it ended well, but made no snapshot" in said


def test_a_dump_without_a_journal(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.answer(f"_SYSTEMD_UNIT={DUMPS[0]['unit']}", stdout=entries(SUMMARY))
    assert prepare(host, define(host, dumps=DUMPS), ENVIRONMENT) == 0
    assert found(host).dumps_failed == ["pg"]
    assert "the journal cannot be read" in capsys.readouterr().err


def test_paths_for_a_job_that_has_only_dumps(host: FakeHost) -> None:
    name = "/etc/holdfast/sources.d/system.d/app.paths"
    host.put(name, "/srv/data\n")
    definition = define(host, paths=[], optional_paths=[], dumps=DUMPS)
    extra, missing = sources.gather(host, definition)
    assert extra == []
    assert missing == [f"/srv/data ({name}: the job has only dumps, give it paths or optional_paths)"]


def test_sources(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    directory = "/etc/holdfast/sources.d/system.d"
    host.put(f"{directory}/a.paths", "# comment\n\n/srv/data\n/srv/odd * \\n\n/srv/data\n")
    host.put("/srv/odd * \\n")
    host.put(f"{directory}/b.paths", "relative\n/srv/none\n")
    host.put(f"{directory}/c.paths", "/srv/data/one\n", 0o664)
    host.put(f"{directory}/ignored.txt", "/srv/data/one\n")
    host.path(f"{directory}/d.paths").symlink_to(host.path(f"{directory}/a.paths"))
    host.path(f"{directory}/e.paths").mkdir()
    host.put(f"{directory}/f.paths", "/" * (sources.LARGEST + 1))
    assert prepare(host, define(host, paths=["/srv/data", "/srv/gone"]), ENVIRONMENT) == 0
    assert host.path(f"/run/holdfast/{UNIT}.sources").read_bytes() == b"/srv/data\0/srv/odd * \\n\0"
    missing = found(host).missing
    assert missing == [
        "/srv/gone",
        f"{directory}/b.paths (line 1 is not an absolute path)",
        "/srv/none",
        f"{directory}/c.paths (must belong to root and be writable by nobody else)",
        f"{directory}/d.paths (cannot be read: Too many levels of symbolic links)",
        f"{directory}/e.paths (is not a plain file)",
        f"{directory}/f.paths (is larger than 1048576 bytes)",
    ]
    assert "declared but not there: /srv/gone" in capsys.readouterr().err


def test_a_path_that_is_dropped_in_below_a_repository_is_missing(host: FakeHost) -> None:
    """It is left out of every run, and neither engine says so."""
    name = "/etc/holdfast/sources.d/system.d/app.paths"
    host.put("/srv/usb/photos/one", "x")
    host.put("/srv/usb2/one", "x")
    host.put(name, "/srv/usb/photos\n/srv//usb\n/srv/usb2\n")
    host.path("/srv/link").symlink_to(host.path("/srv/usb/photos"))
    definition = define(
        host, paths=["/srv", "/srv/link"], optional_paths=[], left_out=["/var/cache/holdfast*", "/srv/usb"]
    )
    extra, missing = sources.gather(host, definition)
    assert extra == ["/srv/usb2"]
    assert missing == [
        *(f"{path} ({name}: lies in /srv/usb, which is never saved)" for path in ("/srv/usb/photos", "/srv//usb")),
        "/srv/link (is a link to /srv/usb/photos, which is not saved: declare that path)",
    ]


def test_a_link_to_what_nothing_else_saves_is_missing(host: FakeHost) -> None:
    """Neither engine follows the paths that it is given: the disk was full, and the data moved."""
    host.put("/mnt/big/mysql/data", "x")
    host.put("/var/lib/real", "x")
    host.path("/var/lib/mysql").symlink_to(host.path("/mnt/big/mysql"))
    host.path("/var/lib/far").symlink_to("mysql")
    host.path("/var/lib/nowhere").symlink_to("gone")
    words = "{0} (is a link to {1}, which is not saved: declare that path)"
    linked = words.format("/var/lib/mysql", "/mnt/big/mysql")
    host.put("/etc/holdfast/sources.d/system.d/a.paths", "/var/lib/far\n")
    definition = define(host, paths=["/var/lib/mysql"], optional_paths=["/var/lib/nowhere", "/var/lib/real"])
    extra, missing = sources.gather(host, definition)
    assert extra == ["/var/lib/nowhere", "/var/lib/real", "/var/lib/far"]
    assert missing == [linked, words.format("/var/lib/far", "/mnt/big/mysql")]
    assert sources.gather(host, define(host, paths=["/srv"], optional_paths=["/var/lib/mysql"]))[1][:1] == [linked]
    assert sources.gather(host, define(host, paths=["/var/lib/nowhere"]))[1][0] == words.format(
        "/var/lib/nowhere", "/var/lib/gone"
    )


@pytest.mark.parametrize("path", ["/mnt/big/mysql", "/mnt", "/", "/var/lib/disk/mysql"])
def test_a_link_to_what_another_path_saves_is_nothing(
    host: FakeHost, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put("/mnt/big/mysql/data", "x")
    host.put("/var/lib/real", "x")
    host.path("/var/lib/mysql").symlink_to(host.path("/mnt/big/mysql"))
    host.path("/var/lib/disk").symlink_to(host.path("/mnt/big"))
    assert sources.gather(host, define(host, paths=["/var/lib/mysql", path])) == ([], [])
    # What stops at the borders of file systems does not save it there.
    definition = define(host, paths=["/var/lib/mysql", path], one_file_system=True)
    assert sources.gather(host, definition) == ([], [])
    other = os.path.realpath(host.path("/mnt/big/mysql"))
    real = os.lstat

    def lstat(name: str | Path) -> os.stat_result:
        found = list(real(name))
        if str(name) == other:
            found[stat.ST_DEV] += 1
        return os.stat_result(found)

    monkeypatch.setattr(os, "lstat", lstat)
    assert bool(sources.gather(host, definition)[1]) == (path in ("/mnt", "/"))


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.ESTALE, errno.EIO, errno.EACCES])
def test_what_cannot_be_looked_at_is_missing_even_if_it_is_optional(
    host: FakeHost, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = "/etc/holdfast/sources.d/system.d"
    real, listed = os.lstat, os.listdir

    def lstat(name: str | Path) -> os.stat_result:
        if name == host.path("/srv/optional"):
            raise OSError(code, os.strerror(code))
        return real(name)

    def listdir(name: str | Path) -> list[str]:
        if name == host.path(directory):
            raise OSError(code, os.strerror(code))
        return listed(name)

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(os, "listdir", listdir)
    words = f"(cannot be looked at: {os.strerror(code)})"
    assert sources.gather(host, define(host)) == ([], [f"/srv/optional {words}", f"{directory} {words}"])
    assert (
        sources.gather(host, define(host, paths=["/srv/optional"], optional_paths=[]))[1][0] == f"/srv/optional {words}"
    )


@pytest.mark.parametrize("above", ["nothing", "a file"])
def test_an_optional_path_may_be_missing(host: FakeHost, above: str) -> None:
    if above == "a file":
        host.put("/srv/above")
    assert sources.gather(host, define(host, optional_paths=["/srv/above/x"])) == ([], [])


FSTAB = r"""# <file system> <mount point> <type> <options>
UUID=1 / ext4 errors=remount-ro 0 1
UUID=2 /boot ext4 defaults 0 2
  # /dev/sdx /srv/commented ext4 defaults 0 2
vault1:/pool /srv/nas/photos nfs4 nofail,_netdev 0 0
UUID=4 /srv/big\040disk ext4 nofail
UUID=5 none swap sw 0 0
UUID=6 /srv/away ext4 nofail,noauto 0 0
/dev/sr0 /srv/disc udf,iso9660 user,noauto 0 0
tmpfs /srv/scratch tmpfs size=1g 0 0
broken
"""
UNMOUNTED = (
    "{} (its file system is not mounted: mount it, or say that it may be missing: noauto in /etc/fstab, exclude)"
)


@pytest.mark.parametrize(
    ("more", "lacking"),
    [
        ({"paths": ["/srv"]}, ["/srv/nas/photos", "/srv/big disk"]),
        ({"paths": ["/"]}, ["/srv/nas/photos", "/srv/big disk", "/mnt/by-unit"]),
        ({"paths": ["/srv/nas/photos"]}, ["/srv/nas/photos"]),
        ({"paths": ["/srv/nas/photos/2025/", "/srv/data"]}, ["/srv/nas/photos"]),
        ({"paths": ["/srv/nas/photos2", "/srv/away", "/srv/disc", "/srv/scratch", "/srv/commented", "/boot"]}, []),
        # What is not saved is not missing.
        ({"paths": ["/srv"], "one_file_system": True}, []),
        ({"paths": ["/srv", "/srv/big disk"], "one_file_system": True}, ["/srv/big disk"]),
        ({"paths": ["/srv"], "left_out": ["/srv/big*"]}, ["/srv/nas/photos"]),
        ({"paths": ["/srv"], "excluded": ["^/?srv/nas(/|$)"]}, ["/srv/big disk"]),
        ({"paths": ["/srv"], "excluded": ["(^|/)nas(/|$)", "(^|/)big\\ disk(/|$)"]}, []),
        ({"paths": ["/srv"], "excluded": ["(^|/)nas(/|$)", "!^/?srv/nas(/|$)"]}, ["/srv/nas/photos", "/srv/big disk"]),
        # All that is in it, but not the directory; not so where some of it is taken in again, or some is left out.
        ({"paths": ["/srv"], "excluded": ["^/?srv/nas/photos/[^/]*(/|$)"]}, ["/srv/big disk"]),
        ({"paths": ["/srv"], "left_out": ["/srv/big disk/*"]}, ["/srv/nas/photos"]),
        (
            {"paths": ["/srv"], "excluded": ["^/?srv/nas/photos/[^/]*(/|$)", "!^/?srv/nas/photos/a(/|$)"]},
            ["/srv/nas/photos", "/srv/big disk"],
        ),
        ({"paths": ["/srv"], "excluded": ["^/?srv/nas/photos/[^/]*\\.tmp(/|$)"]}, ["/srv/nas/photos", "/srv/big disk"]),
        # An optional path may be missing as a whole.
        ({"paths": ["/etc"], "optional_paths": ["/srv/nas/photos", "/srv/big disk/x"]}, []),
        ({"paths": ["/etc"], "optional_paths": ["/srv"]}, ["/srv/nas/photos", "/srv/big disk"]),
        # The directory is on the disk, whatever link leads there.
        ({"paths": ["/link/x"]}, ["/srv/big disk"]),
    ],
)
def test_a_file_system_that_is_not_mounted_is_missing(host: FakeHost, more: dict[str, Any], lacking: list[str]) -> None:
    """All that is there is the empty directory that it should be mounted on."""
    host.put("/etc/fstab", FSTAB)
    system = "/etc/systemd/system"
    unit = host.put(f"{system}/mnt-by\\x2dunit.mount", "[Mount]\n")
    host.put(f"{system}/mnt-not\\x2denabled.mount", "[Mount]\n")
    wants = host.path(f"{system}/remote-fs.target.wants")
    wants.mkdir()
    (wants / unit.name).symlink_to(f"{system}/{unit.name}")
    (wants / "mnt-removed.mount").symlink_to(f"{system}/mnt-removed.mount")
    host.path("/link").symlink_to(host.path("/srv/big disk"))
    for path in ("/etc", "/boot", "/srv/big disk/x", *more["paths"], *more.get("optional_paths", ())):
        host.path(path).mkdir(parents=True, exist_ok=True)
    definition = define(host, **{"optional_paths": [], **more})
    # Where the kernel does not say what is mounted nobody knows.
    assert sources.gather(host, definition)[1] == []
    host.put("/proc/self/mountinfo", MOUNTINFO.format("/") + MOUNTINFO.format("/boot"))
    assert sources.gather(host, definition)[1] == [UNMOUNTED.format(each) for each in lacking]
    if "/" not in more["paths"]:
        # What somebody else drops in counts as declared.
        host.put("/etc/holdfast/sources.d/system.d/app.paths", "/mnt/by-unit/\n")
        expected = [UNMOUNTED.format(each) for each in [*lacking, "/mnt/by-unit"]]
        host.path("/mnt/by-unit").mkdir(parents=True)
        assert sources.gather(host, definition)[1] == expected
    points = ["/", "/boot", "/srv/nas/photos", "/srv/big\\040disk", "/mnt/by-unit"]
    host.put("/proc/self/mountinfo", "".join(MOUNTINFO.format(each) for each in points))
    assert sources.gather(host, definition)[1] == []


@pytest.mark.parametrize(
    ("directory", "boot"),
    [
        ("local-fs.target.wants", True),
        ("multi-user.target.requires", True),
        # A removable disk, which is mounted once it is there; and what a service needs, once that starts.
        ("dev-disk-by\\x2duuid-1.device.wants", False),
        ("app.service.requires", False),
    ],
)
def test_only_what_a_target_wants_is_mounted_at_boot(host: FakeHost, directory: str, boot: bool) -> None:
    system = host.path("/etc/systemd/system")
    host.put("/etc/systemd/system/srv-data.mount", "[Mount]\n")
    (system / directory).mkdir()
    (system / directory / "srv-data.mount").symlink_to("/etc/systemd/system/srv-data.mount")
    host.put("/proc/self/mountinfo", MOUNTINFO.format("/"))
    definition = define(host, paths=["/srv/data"])
    assert sources.gather(host, definition)[1] == ([UNMOUNTED.format("/srv/data")] if boot else [])


def test_what_is_masked_is_not_mounted_at_boot(host: FakeHost) -> None:
    """Whoever declares it: /etc/fstab, or a unit of a package."""
    vendor = host.put("/usr/lib/systemd/system/srv-unit\\x2da.mount", "[Mount]\n")
    wants = host.path("/etc/systemd/system/local-fs.target.wants")
    wants.mkdir(parents=True)
    (wants / vendor.name).symlink_to(f"/usr/lib/systemd/system/{vendor.name}")
    host.put("/etc/fstab", "UUID=1 /srv/data ext4 nofail 0 2\n")
    host.put("/proc/self/mountinfo", MOUNTINFO.format("/"))
    definition = define(host, paths=["/srv"])
    points = ["/srv/data", "/srv/unit-a"]
    assert sources.gather(host, definition)[1] == [UNMOUNTED.format(each) for each in points]
    for name in ("srv-data.mount", vendor.name):
        (wants.parent / name).symlink_to("/dev/null")
        del points[0]
        assert sources.gather(host, definition)[1] == [UNMOUNTED.format(each) for each in points]


@pytest.mark.parametrize("what", ["/dev/sdb1", "UUID=1", "LABEL=a", "PARTUUID=1", "PARTLABEL=a", "vault1:/pool"])
@pytest.mark.parametrize(
    ("sys", "container"),
    [
        ("31 30 0:22 / /sys ro,nosuid - sysfs sysfs rw\n", True),
        ("31 30 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs ro\n", True),
        ("31 30 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n", False),
        ("31 30 0:22 / /sys ro - sysfs sysfs ro\n32 31 0:22 / /sys rw - sysfs sysfs rw\n", False),
        ("", False),
    ],
)
def test_systemd_mounts_no_device_in_a_container(host: FakeHost, what: str, sys: str, container: bool) -> None:
    """/etc/fstab is that of an image: with a read-only /sys its devices are none of the container's."""
    host.put("/etc/fstab", f"{what} /srv/data ext4 nofail 0 2\n")
    host.put("/proc/self/mountinfo", MOUNTINFO.format("/") + sys)
    skipped = container and ":" not in what
    expected = [] if skipped else [UNMOUNTED.format("/srv/data")]
    assert sources.gather(host, define(host, paths=["/srv/data"]))[1] == expected


def test_a_mount_point_with_two_slashes_is_that_with_one(host: FakeHost) -> None:
    host.put("/etc/fstab", "UUID=1 //srv//data/ ext4 nofail 0 2\n")
    host.put("/proc/self/mountinfo", MOUNTINFO.format("/"))
    definition = define(host, paths=["/srv/data"])
    assert sources.gather(host, definition)[1] == [UNMOUNTED.format("/srv/data")]
    host.put("/proc/self/mountinfo", MOUNTINFO.format("/srv/data"))
    assert sources.gather(host, definition)[1] == []


def test_a_mount_point_behind_a_link_is_mounted_where_it_is(host: FakeHost) -> None:
    host.put("/data/lib/mysql/x")
    host.path("/var").mkdir(exist_ok=True)
    host.path("/var/lib2").symlink_to(host.path("/data/lib"))
    host.put("/etc/fstab", "UUID=1 /var/lib2/mysql ext4 nofail 0 2\n")
    definition = define(host, paths=["/var/lib2/mysql"])
    host.put("/proc/self/mountinfo", MOUNTINFO.format("/data/lib"))
    assert sources.gather(host, definition)[1] == [UNMOUNTED.format("/var/lib2/mysql")]
    assert sources.gather(host, define(host, paths=["/data"]))[1] == [UNMOUNTED.format("/var/lib2/mysql")]
    host.put("/proc/self/mountinfo", MOUNTINFO.format("/data/lib/mysql"))
    assert sources.gather(host, definition)[1] == []


def test_verify(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    definition, accepting = define(host), define(host, incomplete_is="ok")
    assert verify(host, definition, ENVIRONMENT) == 1
    assert "not prepared" in capsys.readouterr().err
    left = state.State(UNIT, INVOCATION, NOW)
    left.save(host)
    assert verify(host, definition, ENVIRONMENT) == 0
    assert verify(host, definition, {"INVOCATION_ID": "another"}) == 1
    left.missing = ["/srv/gone"]
    left.save(host)
    assert verify(host, definition, ENVIRONMENT) == 1
    assert "declared but not there: /srv/gone" in capsys.readouterr().err
    assert verify(host, accepting, ENVIRONMENT) == 0
    with_dump = define(host, dumps=DUMPS, incomplete_is="ok")
    assert verify(host, with_dump, ENVIRONMENT) == 1
    assert "dump pg failed" in capsys.readouterr().err
    left.dumps = {"pg": SNAPSHOT}
    left.save(host)
    assert verify(host, with_dump, ENVIRONMENT) == 0
    host.put(f"/run/holdfast/{UNIT}.json", {"invocation": INVOCATION, "surprise": 1})
    assert state.load(host, UNIT, INVOCATION) is None


def test_finish(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    trace = host.path("/trace")
    tell = hook(f'echo "$HOLDFAST_OUTCOME/$HOLDFAST_REASON/$HOLDFAST_SNAPSHOT" >>{trace}')
    host.journal(SUMMARY)
    host.opened()
    state.State(UNIT, INVOCATION, NOW).save(host)
    assert finish(host, define(host), ENDED) == 0
    assert host.calls == []
    assert finish(host, define(host, post=[tell]), ENDED) == 0
    assert finish(host, define(host, post=[hook("exit 9"), tell]), ENDED) == 1
    assert found(host).post_failed == ["post hook 1: /bin/sh ended with exit status 9"]
    assert "post hook 1" in capsys.readouterr().err
    assert trace.read_text() == f"ok//{SNAPSHOT}\n" * 2


def test_hooks_are_told_no_secret(host: FakeHost) -> None:
    """They may run as somebody else."""
    trace = host.path("/trace")
    host.journal(FATAL.format(1, "it said the-password"))
    host.opened()
    state.State(UNIT, INVOCATION, NOW).save(host)
    tell = hook(f'printf %s "$HOLDFAST_MESSAGE" >{trace}')
    finish(host, define(host, post=[tell]), {**ENDED, "EXIT_STATUS": "1", "SERVICE_RESULT": "exit-code"})
    assert trace.read_text() == "it said ***"


def test_a_dump_does_not_outlast_its_run(host: FakeHost) -> None:
    state.State(UNIT, INVOCATION, NOW).save(host)
    host.opened()
    stop = ["systemctl", "stop", "--no-block", "--", "pg.service"]
    finish(host, define(host, dumps=DUMPS), ENDED)
    assert stop not in host.calls
    finish(host, define(host, dumps=DUMPS), {**ENVIRONMENT, "SERVICE_RESULT": "timeout"})
    assert stop in host.calls


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the program")
@pytest.mark.parametrize("trap", ["exit 0", "sleep 0.2; exit 3", ""])
def test_a_hook_is_told_when_the_program_is_to_end(tmp_path: Path, trap: str) -> None:
    """systemd tells the program alone; it lets the hook end, and is ended by the signal itself."""
    command = f"trap 'echo told >{tmp_path}/told; {trap}' TERM; echo >{tmp_path}/ready; while :; do sleep 0.05; done"
    command = command if trap else f"echo >{tmp_path}/ready; exec sleep 60"
    code = f"from {hooks.__name__} import run; from {hooks.__package__}.definition import Hook; run(Hook(('/bin/sh', '-c', {command!r})), {{}})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, env=environment)
    try:
        late = time.monotonic() + 20
        while not (tmp_path / "ready").exists() and time.monotonic() < late:
            time.sleep(0.02)
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
        assert (tmp_path / "told").exists() == bool(trap)
    finally:
        process.kill()


# --- is it the repository that is on record?


def config(identity: str) -> str:
    """restic cat config, as 0.18 and 0.19 print it."""
    return json.dumps({"version": 2, "id": identity, "chunker_polynomial": "2b7ee6bae3e8e3"}, indent=2)


def doubted(host: FakeHost) -> tuple[str, str] | None:
    """What finish makes of a good run that began at NOW; None for nothing."""
    state.State(UNIT, INVOCATION, NOW).save(host)
    status = finish(host, define(host), ENDED)
    left = found(host)
    assert status == (1 if left.stopped else 0)
    return (left.stopped, left.message) if left.stopped else None


def asked(host: FakeHost) -> bool:
    """Whether the repository was opened once more."""
    opened = any("config" in call for call in host.calls)
    host.calls.clear()
    return opened


def test_restics_cache_says_that_it_is_the_repository_on_record(host: FakeHost) -> None:
    host.opened("2" * 64, NOW - 90)
    host.opened(seconds=int(NOW))
    assert doubted(host) is None
    assert not asked(host)


@pytest.mark.parametrize("case", ["no cache", "an old cache", "a cache of the future"])
def test_where_the_cache_proves_nothing_the_repository_is_opened(host: FakeHost, case: str) -> None:
    if case == "an old cache":
        host.opened(seconds=NOW - 2)
    if case == "a cache of the future":
        host.opened("2" * 64, NOW + 3600)
    host.answer("/usr/bin/restic", "config", stdout=config(ID))
    assert doubted(host) is None
    assert asked(host)


@pytest.mark.parametrize("both", [True, False])
def test_another_repository_that_is_gone_by_now(host: FakeHost, both: bool) -> None:
    """A mount that came late, say: what was saved is in the other one."""
    host.opened("2" * 64)
    if both:
        host.opened()
    host.answer("/usr/bin/restic", "config", stdout=config(ID))
    reason, message = doubted(host) or ("", "")
    assert reason == "another repository"
    assert "22222222, and 11111111 is on record" in message


def test_another_repository(host: FakeHost) -> None:
    host.opened(seconds=NOW - 90)
    host.opened("2" * 64)
    host.answer("/usr/bin/restic", "config", stdout=config("2" * 64))
    reason, message = doubted(host) or ("", "")
    assert reason == "another repository"
    assert "22222222, and 11111111 is on record" in message
    assert "remove /var/lib/holdfast/repositories/vault.env and run the site playbook" in message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": 12}, "does not take"),
        ({"status": 124, "stderr": "late\n"}, "late"),
        ({"stdout": "{}"}, "cannot be read"),
    ],
)
def test_what_cannot_be_found_out_is_no_success(host: FakeHost, answer: dict[str, Any], message: str) -> None:
    host.answer("/usr/bin/restic", "config", **answer)
    reason, said = doubted(host) or ("", "")
    assert reason == "unknown"
    assert message in said


def test_a_record_that_is_gone_or_a_unit_without_a_cache(host: FakeHost) -> None:
    definition = define(host, environment={})
    host.opened()
    host.answer("/usr/bin/restic", "config", stdout=config(ID))
    assert same.doubt(host, definition, NOW) is None
    assert asked(host)
    host.path(definition.record).unlink()
    assert (doubted(host) or [""])[0] == "no record"


def test_a_bad_run_is_not_compared(host: FakeHost) -> None:
    state.State(UNIT, INVOCATION, NOW).save(host)
    assert finish(host, define(host), {**ENDED, "SERVICE_RESULT": "exit-code", "EXIT_STATUS": "10"}) == 0
    assert not asked(host)


def test_what_is_written_outlasts_a_power_cut(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    host.write("/etc/new/file", b"x", mode=0o400)
    assert synced == ["file", "directory"]
    assert host.path("/etc/new/file").stat().st_mode & 0o777 == 0o400


# --- the password of a rest-server


class _Server(BaseHTTPRequestHandler):
    """Answers as rest-server does: 401 for another password than `accepted`, else `answer`."""

    accepted, answer, seen = "", 200, [""]

    def do_HEAD(self) -> None:
        import base64

        self.seen.append(self.path)
        login = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
        self.send_response(self.answer if login == f"web1--vault:{self.accepted}" else 401)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A rest-server's front on a free port."""
    _Server.accepted, _Server.answer, _Server.seen = "first", 200, []
    http = HTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield http
    http.shutdown()
    thread.join(10)
    http.server_close()


def _rotating(host: FakeHost, port: int, following: str | None = "second/:%") -> Definition:
    url = f"rest:http://127.0.0.1:{port}/web1--vault/"
    passwords = {
        "user": "web1--vault",
        "current": {"password": "first", "hash": "h1"},
        "next": {"password": following, "hash": "h2"} if following else None,
    }
    host.put("/etc/holdfast/secrets/vault.identity", {**IDENTITY, "rest": passwords}, 0o400)
    host.put("/etc/holdfast/secrets/vault.repository", url.replace("//", "//web1--vault:first@") + "\n", 0o400)
    return define(host, access="rest", rest={"user": "web1--vault", "url": url}, environment={"NO_PROXY": "*"})


def _passwords(host: FakeHost) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(host.path("/etc/holdfast/secrets/vault.identity").read_text())["rest"]
    return content


def test_the_current_password_stays(host: FakeHost, server: HTTPServer) -> None:
    definition = _rotating(host, server.server_port)
    assert prepare(host, definition, ENVIRONMENT) == 0
    assert _passwords(host)["next"] is not None
    assert set(_Server.seen) == {"/web1--vault/config"}


def test_without_a_next_password_nothing_is_asked(host: FakeHost, server: HTTPServer) -> None:
    assert prepare(host, _rotating(host, server.server_port, None), ENVIRONMENT) == 0
    assert _Server.seen == []


def test_a_run_waits_while_the_server_may_switch(
    host: FakeHost, server: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = _rotating(host, server.server_port)
    held = host.put("/run/holdfast/held/vault", "")
    os.utime(held, (NOW, NOW))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            _Server.accepted = "second/:%"
            held.unlink()

    host.sleep = sleep  # type: ignore[method-assign]
    assert prepare(host, definition, ENVIRONMENT) == 0
    assert len(slept) == 3
    assert (_passwords(host)["current"]["password"], _passwords(host)["next"]) == ("second/:%", None)
    assert capsys.readouterr().out.count("waits") == 1


@pytest.mark.parametrize("seconds", [-_secrets.HELD_SECONDS, _secrets.HELD_SECONDS])
def test_a_run_does_not_wait_for_a_playbook_that_was_cut_off(host: FakeHost, server: HTTPServer, seconds: int) -> None:
    definition = _rotating(host, server.server_port)
    os.utime(host.put("/run/holdfast/held/vault", ""), (NOW + seconds, NOW + seconds))
    os.utime(host.put("/run/holdfast/held/other", ""), (NOW, NOW))
    assert prepare(host, definition, ENVIRONMENT) == 0


@pytest.mark.parametrize(
    ("timeout", "longest"), [(None, _secrets.HELD_SECONDS), (3600, _secrets.HELD_SECONDS), (600, 300)]
)
def test_a_run_does_not_wait_for_playbooks_that_fail_again_and_again(
    host: FakeHost, timeout: int | None, longest: int
) -> None:
    """Each makes the time begin anew; and systemd would end the run at its timeout."""
    held = host.put("/run/holdfast/held/vault", "")
    os.utime(held, (NOW, NOW))

    def sleep(seconds: float) -> None:
        host.slept += seconds
        host.clock += seconds
        os.utime(held, (host.clock, host.clock))
        assert host.slept <= longest

    host.sleep = sleep  # type: ignore[method-assign]
    assert prepare(host, define(host, timeout_seconds=timeout), ENVIRONMENT) == 0
    assert host.slept == longest


def test_a_password_that_changed_while_hooks_ran_is_noticed(
    host: FakeHost, server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server of somebody else, who knows of no run here."""
    definition = dataclasses.replace(_rotating(host, server.server_port), pre=(Hook(("/bin/hook",)),))
    monkeypatch.setattr(hooks, "run", lambda *_arguments: setattr(_Server, "accepted", "second/:%"))
    assert prepare(host, definition, ENVIRONMENT) == 0
    assert _passwords(host)["current"]["password"] == "second/:%"


@pytest.mark.parametrize("answer", [200, 404])
def test_the_next_password_is_promoted(host: FakeHost, server: HTTPServer, answer: int) -> None:
    definition = _rotating(host, server.server_port)
    _Server.accepted, _Server.answer = "second/:%", answer
    assert prepare(host, definition, ENVIRONMENT) == 0
    assert (_passwords(host)["current"]["password"], _passwords(host)["next"]) == ("second/:%", None)
    location = host.path(definition.repository_file)
    assert (
        location.read_text() == f"rest:http://web1--vault:second%2F%3A%25@127.0.0.1:{server.server_port}/web1--vault/\n"
    )
    assert location.stat().st_mode & 0o777 == 0o400
    assert host.path(definition.identity_file).stat().st_mode & 0o777 == 0o400
    # What the escrow's fingerprint says of the bundle does not change with it.
    assert json.loads(host.path(definition.identity_file).read_text())["escrow"]["fingerprint"] == "ab" * 16


def test_what_a_playbook_wrote_meanwhile_stays(
    host: FakeHost, server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it knows of the escrow, say: without it the next run would end in `no escrow`."""
    definition = _rotating(host, server.server_port)
    _Server.accepted = "second/:%"
    known = {**json.loads(host.path(definition.identity_file).read_text()), "escrow": {"new": True}}
    real = rest.probe

    def probe(*arguments: Any) -> bool | None:
        host.put(definition.identity_file, known, 0o600)
        return real(*arguments)

    monkeypatch.setattr(rest, "probe", probe)
    assert rest.settle(host, definition) is None
    assert json.loads(host.path(definition.identity_file).read_text()) == known
    # The run goes by the one that the server takes all the same.
    assert "second" in host.path(definition.repository_file).read_text()


def _openssl(directory: Path, words: str) -> None:
    subprocess.run(["openssl", *words.split()], cwd=directory, check=True, capture_output=True)


def test_an_ordinary_private_ca_is_trusted(host: FakeHost, server: HTTPServer, tmp_path: Path) -> None:
    """As restic trusts it: one of `openssl req -x509` has no keyUsage, which Python calls no CA's from 3.13 on."""
    (tmp_path / "leaf.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    (tmp_path / "ca.ext").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n[ca]\nbasicConstraints=critical,CA:true\n"
    )
    new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    _openssl(tmp_path, f"req -x509 {new} -config ca.ext -subj /CN=ours -days 3 -keyout ca.key -out ca.pem")
    _openssl(tmp_path, f"req {new} -subj /CN=vault -keyout leaf.key -out leaf.csr")
    _openssl(
        tmp_path,
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -extfile leaf.ext -out leaf.pem",
    )
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "leaf.pem", tmp_path / "leaf.key")
    server.socket = served.wrap_socket(server.socket, server_side=True)
    definition = _rotating(host, server.server_port)
    assert definition.rest is not None
    secure = Rest(definition.rest.user, definition.rest.url.replace("http:", "https:"))
    asked = dataclasses.replace(definition, environment={"NO_PROXY": "*", "RESTIC_CACERT": str(tmp_path / "ca.pem")})
    assert rest.probe(asked, secure, "first") is True
    assert rest.probe(asked, secure, "another") is False
    # Who has no certificate of it is not asked.
    assert rest.probe(definition, secure, "first") is None


def test_neither_password(host: FakeHost, server: HTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    definition = _rotating(host, server.server_port)
    _Server.accepted = "third"
    reason, message = refused(host, definition, capsys)
    assert reason == "wrong credentials"
    assert "second" not in message
    assert _passwords(host)["next"] is not None


def test_unclear_answers_change_nothing(host: FakeHost, server: HTTPServer) -> None:
    definition = _rotating(host, server.server_port)
    assert definition.rest is not None
    _Server.accepted, _Server.answer = "second/:%", 302
    assert rest.settle(host, definition) is None
    assert _passwords(host)["next"] is not None
    _Server.answer = 503
    assert rest.probe(definition, definition.rest, "second/:%") is None
    assert rest.probe(definition, Rest("u", "rest:http://127.0.0.1:1/x/"), "p") is None


def test_identity_is_damaged(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    definition = _rotating(host, 1)
    host.put(definition.identity_file, "{}")
    assert "cannot be used" in refused(host, definition, capsys)[1]


@pytest.mark.parametrize(
    ("environment", "proxies"),
    [
        ({}, {}),
        ({"HTTPS_PROXY": "http://proxy:3128"}, {"https": "http://proxy:3128"}),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "example.org"}, {}),
        ({"http_proxy": "http://proxy:3128"}, {}),
    ],
)
def test_proxies(environment: dict[str, str], proxies: dict[str, str]) -> None:
    assert rest._proxies(environment, "https://vault.example.org:8000/x/config") == proxies


def test_what_a_killed_write_left_goes_with_the_next_one(host: FakeHost) -> None:
    """A secret in a file that nobody looks for would stay for ever."""
    target = "/etc/holdfast/secrets/vault.repository"
    kept = [host.put(f"/etc/holdfast/secrets/.vault.{name}", "secret") for name in ("password.x1y2z3_4", "repository")]
    old = [host.put(f"{target.replace('vault', '.vault')}.{name}", "secret") for name in ("x1y2z3_4", "abcdefgh")]
    os.utime(old[0], (NOW - 3601, NOW - 3601))
    os.utime(old[1], (NOW - 10, NOW - 10))
    host.write(target, b"new", mode=0o400)
    assert sorted(host.path(target).parent.glob(".*")) == sorted([*kept, old[1]])
    assert host.path(target).read_bytes() == b"new"
