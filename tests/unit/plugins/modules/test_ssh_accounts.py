# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ssh_accounts as Ansible runs it, on a host whose accounts are kept in memory; tests/attack has real ones."""

from __future__ import annotations

import base64
import json
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.modules import ssh_accounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners: needs root")
Run = Callable[..., dict[str, Any]]


def public(letter: str) -> str:
    return "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + letter.encode() * 32).decode()


def account(name: str, letter: str = "a", groups: tuple[str, ...] = ()) -> dict[str, Any]:
    keys = [{"repository": "vault", "public_keys": [public(letter)] if letter else []}]
    return {"name": f"bk-{name}", "backup_id": name, "groups": list(groups), "keys": keys}


class Host:
    """A host: its programs change /etc/passwd and /etc/group as the real ones do."""

    def __init__(self, place: Path) -> None:
        self.etc = place / "etc"
        self.etc.mkdir()
        self.users: dict[str, list[str]] = {}
        self.groups: dict[str, str] = {"root": "", "hfr-old": "bk-gone"}
        self.calls: list[list[str]] = []
        self.fails = ""
        self.ended: list[set[int]] = []
        self.alive: set[int] = set()
        self.write()

    def write(self) -> None:
        lines = [f"{name}:{each[3]}:20000:::::{each[4]}:\n" for name, each in self.users.items()]
        (self.etc / "shadow").write_text("root:*:20000::::::\n" + "".join(lines))
        (self.etc / "group").write_text("".join(f"{name}:x:1:{each}\n" for name, each in self.groups.items()))

    def getpwnam(self, name: str) -> Any:
        comment, home, shell, _password, _expires, uid = self.users[name]
        return SimpleNamespace(pw_uid=int(uid), pw_gecos=comment, pw_dir=home, pw_shell=shell)

    def run(self, argv: list[str], data: str | None = None, **_more: Any) -> tuple[int, str, str]:
        self.calls.append(argv)
        if self.fails and self.fails == argv[0]:
            return 1, "", "first\nit broke\n"
        if argv[0] == "systemd-sysusers":
            for line in (data or "").splitlines():
                kind, name, *rest = line.split(" ", 3)
                if kind == "g":
                    self.groups[name] = ""
                else:
                    _quote, comment, places = rest[1].split('"')
                    home, shell = places.split()
                    self.users[name] = [comment, home, shell, "!*", "", str(900 + len(self.users))]
        elif argv[0] == "chpasswd":
            for line in (data or "").splitlines():
                self.users[line.split(":")[0]][3] = line.split(":")[1]
        elif argv[0] == "gpasswd":
            self.groups[argv[3]] = argv[2]
        elif argv[1] == "-L":
            self.users[argv[4]][3:5] = ["!" + self.users[argv[4]][3], argv[3]]
        elif argv[1] == "-e":
            self.users[argv[3]][4] = argv[2]
        else:
            self.users[argv[5]][1:3] = [argv[2], argv[4]]
        self.write()
        return 0, "", ""

    def end(self, uids: set[int]) -> frozenset[int]:
        self.ended.append(uids)
        found = self.alive & uids
        self.alive -= uids
        return frozenset(found)


@pytest.fixture
def host(place: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(place)
    monkeypatch.setattr(ssh_accounts, "ETC", str(made.etc))
    monkeypatch.setattr(pwd, "getpwnam", made.getpwnam)
    monkeypatch.setattr(ssh_accounts.AnsibleModule, "run_command", made.run)
    monkeypatch.setattr(ssh_accounts, "end_sessions", made.end)
    monkeypatch.setattr(ssh_accounts, "processes", lambda uids: {uid: [1] for uid in made.alive & set(uids)})
    return made


@pytest.fixture
def run(run_module: Run, place: Path, host: Host) -> Run:
    def call(*accounts: dict[str, Any], check: bool = False, **args: Any) -> dict[str, Any]:
        paths = {
            "directory": str(place / "keys"),
            "home": str(place / "home"),
            "manifest": str(place / "lib/ssh_accounts.json"),
        }
        return run_module(ssh_accounts, {**paths, "fleet_id": "f1", "accounts": list(accounts), **args}, check=check)

    return call


def facts(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("invocation", "warnings")}


def both(run: Run, place: Path, *accounts: dict[str, Any], **args: Any) -> dict[str, Any]:
    """Check mode writes nothing and says what the real run does, which the run after it does not do again."""
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    announced = run(*accounts, check=True, **args)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    real = run(*accounts, **args)
    assert facts(announced) == facts(real)
    assert real["changed"]
    assert not run(*accounts, **args)["changed"]
    assert not run(*accounts, check=True, **args)["changed"]
    return {
        key: value
        for key, value in real.items()
        if isinstance(value, list) and value and key not in ("diff", "warnings")
    }


def test_create_change_revoke_and_come_back(run: Run, place: Path, host: Host) -> None:
    assert both(run, place, account("web1"), account("db1", "b", ("hfr-s3",))) == {
        "created": ["bk-db1", "bk-web1"], "created_keys": ["bk-db1 vault", "bk-web1 vault"],
        "groups_created": ["hfr-s3"], "groups_changed": ["hfr-old", "hfr-s3"],
    }  # fmt: skip
    # One execution of each program, however many accounts there are.
    assert [call[0] for call in host.calls] == ["systemd-sysusers", "chpasswd", "gpasswd", "gpasswd"]
    assert host.users["bk-web1"][:5] == ["holdfast web1", str(place / "home"), "/bin/sh", "*", ""]
    assert host.groups == {"root": "", "hfr-old": "", "hfr-s3": "bk-db1"}
    info = (place / "keys/bk-web1").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o644, 0)
    assert (place / "keys/bk-web1").read_text() == (
        f'restrict,command="/usr/local/libexec/holdfast/serve vault" {public("a")} web1 vault\n'
    )
    assert stat.S_IMODE((place / "lib/ssh_accounts.json").stat().st_mode) == 0o600
    host.alive = {int(host.users["bk-db1"][5])}
    assert both(run, place, account("web1", "c")) == {
        "changed_keys": ["bk-web1 vault"], "revoked": ["bk-db1"], "revoked_keys": ["bk-db1 vault"], "locked": ["bk-db1"],
        "groups_changed": ["hfr-s3"], "sessions_ended": ["bk-db1"],
    }  # fmt: skip
    assert host.users["bk-db1"][3:5] == ["!*", "1"]
    assert not (place / "keys/bk-db1").exists()
    host.alive = {int(host.users["bk-db1"][5])}  # somebody started something as it
    assert both(run, place, account("web1", "c")) == {"sessions_ended": ["bk-db1"]}
    uid = host.users["bk-db1"][5]
    assert both(run, place, account("web1", "c"), account("db1", "d")) == {
        "unlocked": ["bk-db1"], "created_keys": ["bk-db1 vault"],
    }  # fmt: skip
    assert host.users["bk-db1"][3:] == ["*", "", uid]


def test_changed_by_hand(run: Run, place: Path, host: Host) -> None:
    run(account("web1"))
    path = place / "keys/bk-web1"
    with path.open("a") as stream:
        stream.write(public("z") + "\n")
    (place / "keys/bk-nobody").write_text(public("y") + "\n")
    (place / "keys/somebody").write_text("theirs\n")
    assert both(run, place, account("web1")) == {"foreign": ["bk-nobody", "bk-web1 line 2"]}
    assert sorted(each.name for each in (place / "keys").iterdir()) == ["bk-web1", "somebody"]
    path.chmod(0o666)
    assert both(run, place, account("web1")) == {}
    text = path.read_text()
    path.unlink()
    path.symlink_to(place / "keys/somebody")
    assert both(run, place, account("web1")) == {"changed_keys": ["bk-web1 vault"]}
    assert path.read_text() == text
    host.users["bk-web1"][2] = "/bin/bash"
    assert both(run, place, account("web1")) == {"corrected": ["bk-web1"]}
    host.users["bk-web1"][3] = "$y$a-password"
    host.write()
    assert both(run, place, account("web1")) == {"corrected": ["bk-web1"]}
    host.users["bk-web1"][4] = "20000"
    host.write()
    assert both(run, place, account("web1")) == {"unlocked": ["bk-web1"]}
    (place / "home").chmod(0o777)
    assert both(run, place, account("web1")) == {}
    path.unlink()
    path.mkdir()
    assert "is not a file" in run(account("web1"))["msg"]


def test_killed_after_the_manifest(run: Run, place: Path, host: Host) -> None:
    host.fails = "chpasswd"
    result = run(account("web1"))
    assert result["msg"] == "chpasswd ended with 1: it broke: mend this and run again"
    assert "bk-web1" in json.loads((place / "lib/ssh_accounts.json").read_text())["accounts"]
    host.fails = ""
    host.groups.pop("hfr-old")
    host.write()
    assert both(run, place, account("web1")) == {"unlocked": ["bk-web1"], "changed_keys": ["bk-web1 vault"]}


def test_refused_is_told_and_stops_nobody(run: Run, host: Host) -> None:
    result = run(
        account("web1") | {"keys": [{"repository": "vault", "public_keys": ["https://x"]}]}, account("db1", "b")
    )
    assert not result["failed"]
    assert list(result["refused"]) == ["bk-web1"]
    assert result["created_keys"] == ["bk-db1 vault"]
    assert f"bk-web1: {result['refused']['bk-web1'][0]}" in str(result["warnings"])
    assert result["served"]["bk-web1"] == {}


def test_accounts_before_keys(run: Run, place: Path, host: Host) -> None:
    found = both(run, place, account("web1", groups=("hfr-s3",)), phase="accounts")
    assert found == {"created": ["bk-web1"], "groups_created": ["hfr-s3"], "groups_changed": ["hfr-old", "hfr-s3"]}
    assert not (place / "keys").exists()
    assert not (place / "lib").exists()
    assert run(account("web1", groups=("hfr-s3",)))["created_keys"] == ["bk-web1 vault"]
    # Nobody loses anything in this phase.
    assert not run(phase="accounts", check=True)["revoked"]


def test_errors(run: Run, place: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not a name" in run(account("Web1"))["msg"]
    assert "command" in run(command='/bin/sh"')["msg"]
    assert "home" in run(home="relative")["msg"]
    assert not host.calls
    run(account("web1"), account("web2", "b"))
    assert "2 hosts would lose access" in run(revoke_max=1)["msg"]
    assert "serves the fleet 'f1'" in run(fleet_id="f2")["msg"]
    (place / "lib/ssh_accounts.json").write_text("{}")
    assert "is not a manifest" in run()["msg"]

    def broken(*_args: Any) -> None:
        raise PermissionError(13, "Permission denied", "/etc/shadow")

    monkeypatch.setattr(ssh_accounts, "_system", broken)
    (place / "lib/ssh_accounts.json").unlink()
    assert run(account("web1"))["msg"] == "/etc/shadow: Permission denied: mend this and run again"
