# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module host_info: output recorded from real tools, and time limits."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.holdfast.backup.plugins.module_utils import _btrfs, _run
from ansible_collections.holdfast.backup.plugins.modules import host_info

POLICY = """\
restic:
  Installed: (none)
  Candidate: 0.14.0-1+b5
  Version table:
     0.16.4-1~bpo12+1 100
        100 http://mirror.example/debian bookworm-backports/main amd64 Packages
     0.14.0-1+b5 500
        500 http://mirror.example/debian bookworm/main amd64 Packages
age:
  Installed: 1.1.1-1+b3
  Candidate: 1.1.1-1+b3
  Version table:
 *** 1.1.1-1+b3 500
        100 /var/lib/dpkg/status
"""
# Where a host has never run apt update, and where it has.
NO_LISTS = "Package files:\n 100 /var/lib/dpkg/status\n     release a=now\nPinned packages:\n"
LISTS = """\
Package files:
 100 /var/lib/dpkg/status
     release a=now
 500 http://mirror.example/debian bookworm/main amd64 Packages
     release v=12.12,o=Debian,a=oldstable,n=bookworm,l=Debian,c=main,b=amd64
     origin mirror.example
Pinned packages:
"""
CALENDARS = """\
  Original form: daily
Normalized form: *-*-* 00:00:00
    Next elapse: Sun 2026-11-22 00:00:00 CET
       (in UTC): Sat 2026-11-21 23:00:00 UTC
       From now: 9h left

Normalized form: *-02-30 00:00:00
    Next elapse: never

  Original form: Mon..Fri 02:30 Europe/Berlin
Normalized form: Mon..Fri *-*-* 02:30:00 Europe/Berlin
    Next elapse: Mon 2026-11-23 01:30:00 UTC
       From now: 1 day 12h left
"""
NOTHING: dict[str, Any] = {"installed": None, "candidate": None, "versions": []}
HOURLY = "Normalized form: *-*-* *:00:00\n    Next elapse: Sat 2026-11-21 14:00:00 UTC\n"


class Tools:
    """Answers in the place of the host's programs and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.answers: dict[str, Callable[[list[str]], _run.Result]] = {}

    def __call__(self, argv: list[str], *, timeout: float) -> _run.Result:
        self.calls.append(argv)
        assert timeout > 0
        if argv[0] not in self.answers:
            raise FileNotFoundError(argv[0])
        return self.answers[argv[0]](argv)

    def say(self, program: str, stdout: str = "", code: int = 0, stderr: str = "", timed_out: bool = False) -> None:
        self.answers[program] = lambda _argv: _run.Result(code, stdout, stderr, timed_out=timed_out)


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tools:
    made = Tools()
    monkeypatch.setattr(_run, "run", made)
    monkeypatch.setattr(host_info, "_BOOTED", str(tmp_path))
    monkeypatch.setattr(host_info, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(host_info, "SSH", str(tmp_path / "ssh"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


@pytest.fixture
def info(tools: Tools, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(**options: Any) -> dict[str, Any]:
        with patch_module_args(options), pytest.raises(SystemExit):
            host_info.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert result.get("changed", False) is False
        return result

    return run


Info = Callable[..., dict[str, Any]]


def test_a_host_without_anything(info: Info, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_info, "_SELINUX", "/nonexistent")
    monkeypatch.setattr(host_info, "_SELINUX_CONFIGURATION", "/nonexistent")
    result = info(packages=["restic"], binaries=["restic"], calendars=["daily"], running=["x*"], sandbox_probe=True)
    expected = {
        "changed": False,
        "packages": {"restic": NOTHING},
        "apt": False,
        "apt_lists": None,
        "binaries": {"restic": None},
        "calendars": {"daily": {"valid": None, "error": None, "never": None}},
        "resolve": {},
        "accounts": {},
        "files": {},
        "interpreters": {},
        "mounts": {},
        "file_systems": {},
        "places": {},
        "running": None,
        "manifests": {"file_tree": {}, "units": {}},
        "records": {},
        "htpasswd": None,
        "sandbox": None,
        "server_sandbox": None,
        "systemd": None,
        "selinux": None,
        "virtualization": None,
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    assert {key: result[key] for key in expected} == expected


def test_a_login_that_is_not_root(tools: Tools, info: Info, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked at: what only root may see would be told as missing, or as a sandbox that cannot start."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    result = info(packages=["restic"], sandbox_probe=True)
    assert result["failed"] is True
    assert result["msg"] == (
        "ansible_become: Ansible is 'nobody' on this host (uid 65534), and not root. Set ansible_become: true for it, or log in"
        " as root"
    )
    assert tools.calls == []
    monkeypatch.setattr(os, "geteuid", lambda: 99999999)
    assert "is 'somebody' on this host (uid 99999999)" in info()["msg"]


def test_copies_of_the_escrow(info: Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_info, "ESCROW", str(tmp_path / "escrow"))
    assert info()["escrow_copies"] == {}
    first, second = (f"{digit * 32}-{'a' * 16}.age" for digit in "01")
    (tmp_path / "escrow/web1--vault").mkdir(parents=True)
    (tmp_path / "escrow/web2--vault").mkdir()
    (tmp_path / "escrow/odd\udcff").mkdir()
    for name in (second, first, ".tmp0", "x\udcff"):
        (tmp_path / "escrow/web1--vault" / name).touch()
        (tmp_path / "escrow/odd\udcff" / name).touch()
    (tmp_path / "escrow/file").touch()
    assert info()["escrow_copies"] == {"web1--vault": [first, second]}
    # However many there are of one repository, it is an answer.
    monkeypatch.setattr(host_info, "MOST_COPIES", 1)
    assert info()["escrow_copies"] == {"web1--vault": [first]}


def test_host_keys_of_ssh(info: Info, tmp_path: Path) -> None:
    assert info()["ssh_host_keys"] == []
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwQ1vO8nJ9d6yqQpuyXkFBr1dVXtn9Pfx9YlyoHRTOY"
    for name, text in (
        ("ssh_host_ed25519_key.pub", f"{key} root@vault1\n"),
        ("ssh_host_ed25519_key", "PRIVATE"),
        ("ssh_host_again_key.pub", f"{key} root@vault1\n"),
        ("ssh_host_rsa_key.pub", "ssh-rsa AAAA root@vault1\n"),
        ("ssh_host_empty_key.pub", ""),
        ("other_key.pub", key.replace("TOY", "TOZ")),
    ):
        (tmp_path / "ssh").mkdir(exist_ok=True)
        (tmp_path / "ssh" / name).write_text(text)
    assert info()["ssh_host_keys"] == [key]


def test_what_runs_a_program(info: Info, tmp_path: Path) -> None:
    expected = {}
    for name, content, interpreter in (
        ("package", b"#!/usr/bin/python3\nimport borg\n", "/usr/bin/python3"),
        ("script", b"#!/bin/sh\n", ""),
        ("binary", b"\x7fELF\x00\xff", ""),
        ("missing", None, None),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        expected[str(path)] = interpreter
    assert info(interpreters=list(expected))["interpreters"] == expected


def test_accounts(info: Info) -> None:
    assert info(accounts=["root", "nosuch"])["accounts"] == {"root": True, "nosuch": False}


def test_packages(tools: Tools, info: Info) -> None:
    tools.say("apt-cache", POLICY)
    names = ["restic", "age", "nosuch", "-o=x"]
    result = info(packages=names, package_releases=dict.fromkeys([*names, "borg"], "trixie"))
    assert result["packages"] == {
        "restic": {"installed": None, "candidate": "0.14.0-1+b5", "versions": ["0.16.4-1~bpo12+1", "0.14.0-1+b5"]},
        "age": {"installed": "1.1.1-1+b3", "candidate": "1.1.1-1+b3", "versions": ["1.1.1-1+b3"]},
        "nosuch": NOTHING,
        "-o=x": NOTHING,
    }
    assert ["apt-cache", "-o", "APT::Default-Release=trixie", "policy", "restic", "age", "nosuch"] in tools.calls
    assert info(packages=["-x"])["packages"] == {"-x": NOTHING}
    info(packages=["restic"], package_releases={"restic": ""})
    assert ["apt-cache", "policy", "restic"] in tools.calls


def test_each_package_is_asked_for_in_the_suite_that_it_is_installed_from(tools: Tools, info: Info) -> None:
    def policy(argv: list[str]) -> _run.Result:
        candidate = "2" if "APT::Default-Release=trixie" in argv else "1"
        names = argv[argv.index("policy") + 1 :]
        return _run.Result(
            0, "".join(f"{name}:\n  Installed: (none)\n  Candidate: {candidate}\n" for name in names), ""
        )

    tools.answers["apt-cache"] = policy
    found = info(packages=["restic", "borgbackup", "age"], package_releases={"restic": "trixie", "age": "trixie"})
    assert {name: each["candidate"] for name, each in found["packages"].items()} == {
        "restic": "2",
        "borgbackup": "1",
        "age": "2",
    }
    assert len([argv for argv in tools.calls if argv[0] == "apt-cache"]) == 2


def test_what_is_there_of_packages_where_there_is_no_apt(
    tools: Tools, info: Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the program that is used of each."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host_info, "_MORE_PATHS", (str(tmp_path / "sbin"),))
    (tmp_path / "sbin").mkdir()
    for name in ("age", "sbin/sshd", "other"):
        (tmp_path / name).touch(0o755)
    (tmp_path / "openssl").touch(0o644)
    found = info(packages=["age", "openssh-server", "openssl", "libcap2-bin", "other", "python3-venv"])
    by_hand: dict[str, Any] = {"installed": "by hand", "candidate": None, "versions": []}
    assert found["packages"] == {
        **dict.fromkeys(("age", "openssh-server", "other", "python3-venv"), by_hand),
        **dict.fromkeys(("openssl", "libcap2-bin"), NOTHING),
    }
    assert (found["apt"], found["apt_lists"], info()["apt"]) == (False, None, None)
    tools.say("apt-cache", POLICY)
    assert info(packages=["age"])["apt"] is True


@pytest.mark.parametrize(("said", "lists"), [(NO_LISTS, False), (LISTS, True)])
def test_whether_apt_has_lists_is_asked_where_a_package_is_unknown(
    tools: Tools, info: Info, said: str, lists: bool
) -> None:
    tools.answers["apt-cache"] = lambda argv: _run.Result(0, said if argv[-1] == "policy" else POLICY, "")
    assert info(packages=["restic", "rclone"])["apt_lists"] is lists
    tools.calls.clear()
    assert info(packages=["restic", "age"])["apt_lists"] is None
    assert ["apt-cache", "policy"] not in tools.calls


@pytest.mark.parametrize(
    ("argv", "texts", "version"),
    [
        (["restic", "version"], ("restic 0.18.0 compiled with go1.24.4 on linux/amd64\n", ""), "0.18.0"),
        (["/opt/restic_0.19.1_linux_amd64", "version"], ("restic 0.19.1-dev compiled", ""), "0.19.1-dev"),
        (["restic-rest-server", "--version"], ("rest-server 0.13.0 compiled with go1.24", ""), "0.13.0"),
        (["/opt/restic-server", "--version"], ("rest-server 0.14.0 compiled with go1.24", ""), "0.14.0"),
        (["/usr/bin/age", "--version"], ("1.1.1\n", ""), "1.1.1"),
        (["java", "--version"], ("", "openjdk 17.0.1"), "17.0.1"),
        (["rclone", "--version"], ("rclone v1.60.1-DEV\n- os/version: debian 12.5 (64 bit)\n", ""), "1.60.1-DEV"),
        (["odd", "--version"], ("no number", ""), None),
    ],
)
def test_versions(tools: Tools, info: Info, argv: list[str], texts: tuple[str, str], version: str | None) -> None:
    tools.say(argv[0], texts[0], stderr=texts[1])
    assert info(binaries=[argv[0]])["binaries"] == {argv[0]: version}
    assert argv in tools.calls


def test_calendars_in_one_call(tools: Tools, info: Info) -> None:
    tools.say("systemd-analyze", CALENDARS)
    wanted = ["daily", "*-02-30", "Mon..Fri 02:30 Europe/Berlin"]
    assert info(calendars=[*wanted, "daily"])["calendars"] == {
        "daily": {"valid": True, "error": None, "never": False},
        "*-02-30": {"valid": True, "error": None, "never": True},
        "Mon..Fri 02:30 Europe/Berlin": {"valid": True, "error": None, "never": False},
    }
    assert [call for call in tools.calls if "calendar" in call] == [["systemd-analyze", "calendar", "--", *wanted]]


def test_bad_calendars_are_told_apart(tools: Tools, info: Info) -> None:
    bad = "Failed to parse calendar specification 'bogus': Invalid argument"

    def answer(argv: list[str]) -> _run.Result:
        return _run.Result(1, HOURLY if "hourly" in argv else "", bad) if "bogus" in argv else _run.Result(0, HOURLY)

    tools.answers["systemd-analyze"] = answer
    assert info(calendars=["bogus", "hourly"])["calendars"] == {
        "bogus": {"valid": False, "error": bad, "never": None},
        "hourly": {"valid": True, "error": None, "never": False},
    }
    tools.say("systemd-analyze", code=-15, timed_out=True)
    assert info(calendars=["x"])["calendars"] == {"x": {"valid": None, "error": "no output", "never": None}}


def test_addresses(info: Info, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: None, **_options: Any) -> list[Any]:
        if host == "nosuch":
            raise socket.gaierror(-2, "Name or service not known")
        if host == "bad":
            raise UnicodeError("label too long")
        assert port is None
        return [(2, 1, 6, "", (host, 0)), (2, 1, 6, "", (host, 0)), (2, 1, 6, "", ("192.0.2.9", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    result = info(resolve=["[2001:db8::1]", {"address": "nosuch", "variable": "backup_address"}, "bad"])["resolve"]
    assert result == {
        "[2001:db8::1]": {"addresses": ["192.0.2.9", "2001:db8::1"], "error": None, "variable": None},
        "nosuch": {"addresses": [], "error": "Name or service not known", "variable": "backup_address"},
        "bad": {"addresses": [], "error": "label too long", "variable": None},
    }
    assert "neither a string" in info(resolve=[{"name": "x"}])["msg"]


def test_no_answer_of_apt_is_not_that_there_is_no_such_package(info: Info, tools: Tools) -> None:
    tools.say("apt-cache", "restic:\n", code=-15, timed_out=True)
    result = info(packages=["restic"], timeout=0.5)
    assert result["failed"]
    assert "apt-cache policy: no answer within 0.5 s" in result["msg"]


def test_what_hangs_is_not_waited_for(info: Info, monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    answered = []

    def hang(name: str, *_arguments: Any, **_options: Any) -> list[Any]:
        end.wait(300)
        answered.append(name)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    result = info(resolve=["slow1", "slow2"], timeout=0.1)["resolve"]
    assert not answered
    end.set()
    assert result["slow1"] == result["slow2"] == {"addresses": [], "error": "no answer within 0.1 s", "variable": None}


def test_a_thread_that_hangs_does_not_hold_up_the_end_of_the_module() -> None:
    script = (
        "import time\n"
        "from ansible_collections.holdfast.backup.plugins.modules.host_info import together\n"
        "print(together({'slow': lambda: time.sleep(60)}, 0.1))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "{'slow': None}\n"


def test_files_and_mounts(info: Info, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    result = info(
        files=[str(file), str(tmp_path), "/dev/null", "/nonexistent"], mounts=["/proc", str(tmp_path), "/proc/"]
    )
    assert result["files"] == {
        str(file): "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
        str(tmp_path): None,
        "/dev/null": None,
        "/nonexistent": None,
    }
    assert result["mounts"] == {"/proc": True, str(tmp_path): False, "/proc/": True}


def test_file_systems(tools: Tools, info: Info, tmp_path: Path) -> None:
    """Of the nearest directory that is there."""
    tools.say("stat", "btrfs\n")
    path = f"{tmp_path}/not/there"
    assert info(file_systems=[path])["file_systems"] == {path: "btrfs"}
    assert ["stat", "--file-system", "--format=%T", "--", str(tmp_path)] in tools.calls
    tools.say("stat", "", code=1)
    assert info(file_systems=["/"])["file_systems"] == {"/": None}


def test_what_a_quota_would_find(info: Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("full/data", "empty", "limited/data"):
        (tmp_path / name).mkdir(parents=True)
    limited = (tmp_path / "limited").stat().st_ino
    monkeypatch.setattr(_btrfs, "is_subvolume", lambda status: status.st_ino == limited)
    wanted = {"full": "other", "empty": "empty", "limited": "subvolume", "new": "absent", "not/there": "absent"}
    expected = {f"{tmp_path}/{name}": kind for name, kind in wanted.items()}
    assert info(subvolumes=list(expected))["subvolumes"] == expected


def test_places(info: Info, place: Path) -> None:
    (place / "photos").mkdir()
    wanted = [{"path": str(place), "account": "nosuch"}, {"path": str(place / "photos"), "account": "root"}]
    seen = info(places=wanted)["places"]
    assert seen == {str(place): {"owner": "root", "foreign": "photos"}, str(place / "photos"): None}
    assert info(places=[{**wanted[0], "account": "root", "private": False}])["places"] == {str(place): None}


def test_systemd_and_running_units(tools: Tools, info: Info) -> None:
    def systemctl(argv: list[str]) -> _run.Result:
        if argv[1] == "--version":
            return _run.Result(0, "systemd 257 (257.8-1~deb13u2)\n+PAM")
        assert argv[-2:] == ["--", "holdfast-*.service"]
        assert "--state=active,activating,deactivating,reloading" in argv
        lines = ("holdfast-b--v.service loaded activating start Backup", "holdfast-a--v.service loaded active x", "")
        return _run.Result(0, "\n".join(lines))

    tools.answers["systemctl"] = systemctl
    tools.say("systemd-detect-virt", "none\n", code=1)
    result = info(running=["holdfast-*.service"])
    assert result["systemd"] == 257
    assert result["running"] == ["holdfast-a--v.service", "holdfast-b--v.service"]
    assert result["virtualization"] == "none"
    tools.say("systemctl", "nonsense", code=1)
    result = info(running=["x"])
    assert (result["systemd"], result["running"]) == (None, None)


def test_systemd_that_is_not_pid_1(tools: Tools, info: Info, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.say("systemctl", "systemd 252 (252.39)")
    tools.say("systemd-run")
    monkeypatch.setattr(host_info, "_BOOTED", "/nonexistent")
    result = info(sandbox_probe=True)
    assert (result["systemd"], result["sandbox"]) == (None, None)


def test_sandbox_probe(tools: Tools, info: Info) -> None:
    tools.say("systemd-run")
    assert info()["sandbox"] is None
    assert not [call for call in tools.calls if call[0] == "systemd-run"]
    assert info(sandbox_probe=True)["sandbox"] == {"works": True, "error": None}
    call = next(call for call in tools.calls if call[0] == "systemd-run")
    assert "ProtectSystem=strict" in call
    assert call[-2:] == ["--", "/bin/true"]
    tools.say("systemd-run", code=226, stderr="Failed at step NAMESPACE\nmore")
    assert info(sandbox_probe=True)["sandbox"] == {"works": False, "error": "Failed at step NAMESPACE"}
    tools.say("systemd-run", code=226)
    assert info(sandbox_probe=True)["sandbox"]["error"] == "exit status 226"
    tools.say("systemd-run", code=-15, timed_out=True)
    # A host that is slow says nothing of its sandbox.
    late = info(sandbox_probe=True, server_sandbox_probe=True, timeout=3)
    assert (late["sandbox"], late["server_sandbox"]) == (None, None)


def test_sandbox_probe_of_a_server(tools: Tools, info: Info) -> None:
    """A server may be no client."""
    assert info()["server_sandbox"] is None
    tools.say("systemd-run", code=226, stderr="Failed at step NAMESPACE")
    result = info(server_sandbox_probe=True)
    assert (result["sandbox"], result["server_sandbox"]) == (
        None,
        {"works": False, "error": "Failed at step NAMESPACE"},
    )
    (call,) = [call for call in tools.calls if call[0] == "systemd-run"]
    assert "PrivateNetwork=yes" in call


@pytest.mark.parametrize(
    ("text", "can"),
    [
        # As root of a virtual machine, and of a container of docker, had them.
        ("Name:\tsystemd\nCapBnd:\t000001ffffffffff\n", True),
        ("Name:\tsystemd\nCapBnd:\t00000000a80425fb\n", False),
        ("Name:\tsystemd\n", None),
        ("CapBnd:\tmany\n", None),
        ("CapBnd:\n", None),
        (None, None),
    ],
)
def test_what_a_container_withholds(
    info: Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, can: bool | None
) -> None:
    status = tmp_path / "status"
    if text is not None:
        status.write_text(text)
    monkeypatch.setattr(host_info, "_INIT_STATUS", str(status))
    assert info()["reads_everything"] is can


@pytest.mark.parametrize(("text", "mode"), [("1", "enforcing"), ("0", "permissive"), (None, "disabled")])
def test_selinux(info: Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, mode: str) -> None:
    if text is not None:
        (tmp_path / "enforce").write_text(text)
    monkeypatch.setattr(host_info, "_SELINUX", str(tmp_path / "enforce"))
    monkeypatch.setattr(host_info, "_SELINUX_CONFIGURATION", "/")
    assert info()["selinux"] == mode


def test_manifests_and_records(info: Info, tmp_path: Path) -> None:
    for name, text in {
        "file_tree/jobs.json": '{"version": 1, "files": ["/b", "/a"], "directories": {}}',
        "file_tree/broken.json": "{",
        "file_tree/odd.json": "[]",
        "file_tree/empty.json": "{}",
        "file_tree/.jobs.json.tmp": "x",
        "file_tree/.hidden.json": "{}",
        "units/jobs.json": '{"version": 1, "units": {"holdfast-a--v.timer": {}}}',
        "repositories/vault.env": "HOLDFAST_REPOSITORY_ID=0f\nRESTIC_KEY_HINT=1e\nHOLDFAST_FINGERPRINT=a-b\n# x\nODD=$(x)\n",
    }.items():
        path = tmp_path / "state" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    result = info()
    assert result["manifests"] == {
        "file_tree": {"jobs": ["/a", "/b"], "empty": []},
        "units": {"jobs": ["holdfast-a--v.timer"]},
    }
    assert result["records"] == {
        "vault": {"HOLDFAST_REPOSITORY_ID": "0f", "RESTIC_KEY_HINT": "1e", "HOLDFAST_FINGERPRINT": "a-b"}
    }


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ('{"version": 1, "fleet_id": "f1", "users": {"a--v": "a"}}', {"fleet_id": "f1", "users": {"a--v": "a"}}),
        ('{"version": 2}', None),
        ("{", None),
    ],
)
def test_whom_a_server_serves(info: Info, tmp_path: Path, text: str, served: dict[str, object] | None) -> None:
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state/htpasswd.json").write_text(text)
    assert info()["htpasswd"] == served


def test_whom_a_server_serves_over_ssh(info: Info, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(exist_ok=True)
    assert info()["ssh_accounts"] is None
    keys = {"offsite": ["SHA256:a"], "archive": ["SHA256:b", "SHA256:c"]}
    accounts = {
        "bk-web1": {"backup_id": "web1", "keys": keys, "locked": False},
        "bk-old": {"backup_id": "old", "keys": {}, "locked": True},
    }
    manifest = {"version": 1, "fleet_id": "f1", "accounts": accounts}
    (tmp_path / "state/ssh_accounts.json").write_text(json.dumps(manifest))
    served = {"bk-web1": {"backup_id": "web1", "repositories": ["archive", "offsite"]}}
    assert info()["ssh_accounts"] == {"fleet_id": "f1", "accounts": served}
    (tmp_path / "state/ssh_accounts.json").write_text("{}")
    assert info()["ssh_accounts"] is None


def test_accounts_that_look_like_those_of_clients(info: Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_info, "ACCOUNTS", str(tmp_path / "passwd"))
    # What cannot be read is not taken for empty: somebody would be locked out.
    assert "foreign_accounts" not in info()
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    assert info()["foreign_accounts"] == []
    (tmp_path / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/bash\nbk-web1:x:990:990:holdfast web1:/var/lib/holdfast/home:/bin/sh\n"
        "bk-olga:x:1001:1001:Olga B.,,,:/home/bk-olga:/bin/bash\nbk-web2:x:0:0:holdfast web2:/:/bin/sh\nbk-odd:x\n"
    )
    assert info()["foreign_accounts"] == ["bk-odd", "bk-olga", "bk-web2"]
