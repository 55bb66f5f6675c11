# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast mount`: processes and signals are real, what is mounted is only written down."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._program import cli, mount
from ansible_collections.holdfast.backup.plugins.module_utils._program.host import Done

from tests.unit.plugins.module_utils.program.program_host import FakeHost, define

Capture = pytest.CaptureFixture[str]
NOTHING = "22 1 0:21 / /proc rw - proc proc rw\n"
MOUNTED = "1247 733 0:186 / /mnt ro,nosuid,nodev,relatime shared:776 - fuse restic ro,user_id=0,group_id=0\n"
INFO = "Borg: 1.4.0  Python: CPython 3.13.5 msgpack: 1.0.3 fuse: {} [pyfuse3,llfuse]\n"


class MountingHost(FakeHost):
    """A host whose tool is a shell script: `$M` is the table of mounts, `up` mounts, and `served` lasts as long as that."""

    script = "up; served"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.table = self.put("/proc/self/mountinfo", NOTHING)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.put("/dev/fuse")
        self.put("/usr/bin/fusermount")
        self.path("/mnt").mkdir()
        self.answers.insert(0, (("umount",), self._umount))
        self.looked = 0
        self.person: Callable[[], object] = lambda: self._umount([])

    def _umount(self, _argv: Sequence[str]) -> Done:
        self.table.write_text(NOTHING)
        return Done(0)

    def started(self, argv: Sequence[str], *, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        self.calls.append(list(argv))
        self.environments.append(env)
        helpers = (
            'up() { echo "$MOUNTED" >>$M; }; served() { while grep -q fuse $M; do sleep 0.02; done; };'
            " asleep() { sleep 600 & wait; };"
        )
        shell = ["/bin/sh", "-c", helpers + self.script]
        process = super().started(shell, env={"M": str(self.table), "MOUNTED": MOUNTED.rstrip()})
        self.processes.append(process)
        return process

    def sleep(self, seconds: float) -> None:
        """Real time passes, and once it is mounted the person does what the test says."""
        super().sleep(seconds)
        time.sleep(0.02)
        if "fuse" in self.table.read_text():
            # The first time the program has not looked yet.
            self.looked += 1
            if self.looked > 1:
                self.person()


def ends(number: int = signal.SIGINT) -> Callable[[], None]:
    """A person who ends the program."""
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture
def host(tmp_path: Path) -> MountingHost:
    fake = MountingHost(tmp_path)
    fake.put("/etc/holdfast/secrets/vault.repository", "/srv/repository\n")
    fake.put("/etc/holdfast/secrets/vault.environment", "AWS_SECRET_ACCESS_KEY=backend-secret\n")
    define(fake, options={"sftp.command": "ssh -F /c -s sftp"})
    return fake


def call(host: FakeHost, mountpoint: str = "/mnt") -> int:
    return cli.main(["mount", "system", mountpoint], host)


def borg(host: FakeHost) -> None:
    own = {"binary": "/usr/bin/borg", "encryption": "repokey-blake2", "key_file": "/k", "ssh_command": "ssh -i /key"}
    define(host, engine="borg", binary="/usr/bin/borgmatic", access="ssh", environment={}, borg=own)
    host.put("/etc/holdfast/secrets/vault.repository", "ssh://holdfast-vault/./web1--vault\n")


def test_until_it_is_unmounted(host: MountingHost, capsys: Capture) -> None:
    assert call(host) == 0
    assert capsys.readouterr().out == "system--vault is mounted on /mnt, for root alone; end it with Ctrl-C or umount\n"
    assert host.calls == [
        [
            "/usr/bin/restic",
            "--option=sftp.command=ssh -F /c -s sftp",
            "mount",
            "--no-lock",
            "--no-cache",
            "--tag=job:system",
            "--",
            str(host.path("/mnt")),
        ]
    ]
    (environment,) = host.environments
    assert environment["RESTIC_PASSWORD_FILE"] == "/etc/holdfast/secrets/vault.password"
    assert environment["AWS_SECRET_ACCESS_KEY"] == "backend-secret"
    assert "RESTIC_CACHE_DIR" not in environment


def test_borg(host: MountingHost) -> None:
    borg(host)
    host.answer("debug", stdout=INFO.format("pyfuse3 3.4.0"))
    assert call(host) == 0
    assert host.calls[-1] == [
        "/usr/bin/borg",
        "mount",
        "--foreground",
        "--bypass-lock",
        "--numeric-ids",
        "--glob-archives=*--system--????-??-??T??:??:??.??????*",
        "--",
        "ssh://holdfast-vault/./web1--vault",
        str(host.path("/mnt")),
    ]
    assert host.environments[-1]["BORG_RSH"] == "ssh -i /key"
    assert host.environments[-1]["BORG_PASSCOMMAND"] == "cat /etc/holdfast/secrets/vault.password"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_until_it_is_ended(host: MountingHost, number: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    host.person = ends(number)
    assert call(host) == 0
    assert host.table.read_text() == NOTHING
    assert host.calls[-1] == ["umount", "--lazy", "--", str(host.path("/mnt"))]
    assert signal.getsignal(signal.SIGINT) is before
    # By itself, as nothing was mounted any more.
    assert host.processes[0].returncode == 0


@pytest.mark.parametrize("script", ["up; asleep", "trap '' TERM; up; asleep"])
def test_a_tool_that_does_not_end(host: MountingHost, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Somebody may still look into it: then it serves on."""
    monkeypatch.setattr(mount, "PATIENCE", 0.2)
    host.script, host.person = script, ends()
    assert call(host) == 0
    assert host.processes[0].returncode in (-signal.SIGTERM, -signal.SIGKILL)
    os.killpg(host.processes[0].pid, signal.SIGKILL)


def test_a_tool_that_crashes_leaves_no_mount(host: MountingHost, capsys: Capture) -> None:
    host.script = "up; until test -e $M.crash; do sleep 0.02; done; exit 2"
    host.person = lambda: host.put("/proc/self/mountinfo.crash")
    assert call(host) == 1
    assert "is not mounted any more: restic ended with exit status 2" in capsys.readouterr().err
    assert host.table.read_text() == NOTHING


def test_what_cannot_be_mounted(host: MountingHost, capsys: Capture) -> None:
    host.script = "exit 12"
    assert call(host) == 1
    assert "system--vault cannot be mounted: the repository does not take this host's" in capsys.readouterr().err
    assert not any("umount" in words for words in host.calls)


def test_what_cannot_be_unmounted(host: MountingHost, capsys: Capture) -> None:
    host.script, host.person = "up", ends()
    host.answer("umount", status=32, stderr="umount: /mnt: no\n")
    assert call(host) == 1
    assert "/mnt cannot be unmounted: umount: /mnt: no" in capsys.readouterr().err
    assert host.processes[0].returncode is not None


@pytest.mark.parametrize(
    ("mountpoint", "words"),
    [
        ("mnt", "'mnt' is not absolute"),
        ("/mnt/missing", "is not there; make it: mkdir /mnt/missing"),
        ("/etc", "MOUNTPOINT /etc is not empty"),
        ("/dev/fuse", "is not a directory"),
        ("/link/place", "leads over a link"),
        ("/open", "only root may write to"),
    ],
)
def test_where_nothing_is_mounted(host: MountingHost, capsys: Capture, mountpoint: str, words: str) -> None:
    host.path("/true/place").mkdir(parents=True)
    host.path("/link").symlink_to("true")
    host.path("/open").mkdir()
    host.path("/open").chmod(0o777)
    assert call(host, mountpoint) == 2
    assert words in capsys.readouterr().err
    assert host.calls == []


def test_never_over_another_mount(host: MountingHost, capsys: Capture) -> None:
    host.table.write_text(NOTHING + MOUNTED)
    assert call(host) == 2
    assert "something is mounted on MOUNTPOINT /mnt already" in capsys.readouterr().err
    assert host.calls == []


def test_without_fuse(host: MountingHost, capsys: Capture) -> None:
    """What is missing, and what to install."""
    host.path("/usr/bin/fusermount").unlink()
    assert call(host) == 1
    assert "apt install fuse3" in capsys.readouterr().err
    borg(host)
    host.answer("debug", stdout=INFO.format("None"))
    assert call(host) == 1
    assert "apt install python3-pyfuse3" in capsys.readouterr().err
    host.path("/dev/fuse").unlink()
    assert call(host) == 1
    assert "/dev/fuse cannot be opened: No such file or directory" in capsys.readouterr().err
    assert host.processes == []
