# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ssh_accounts as Ansible runs it, on a host whose accounts are kept in memory; tests/attack has real ones."""

from __future__ import annotations

import base64
import calendar
import itertools
import json
import os
import pwd
import stat
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _sessions
from ansible_collections.holdfast.backup.plugins.module_utils._public_key import fingerprint
from ansible_collections.holdfast.backup.plugins.modules import ssh_accounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners: needs root")
Run = Callable[..., dict[str, Any]]


def public(letter: str) -> str:
    return "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + letter.encode() * 32).decode()


def account(name: str, letter: str = "a", groups: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    keys = [{"repository": "vault", "public_keys": [public(letter)] if letter else [], **more}]
    return {"name": f"bk-{name}", "backup_id": name, "groups": list(groups), "keys": keys}


class Host:
    """A host: its programs change /etc/passwd and /etc/group as the real ones do."""

    def __init__(self, place: Path) -> None:
        self.etc = place / "etc"
        self.etc.mkdir()
        self.users: dict[str, list[str]] = {}
        self.groups: dict[str, str] = {"root": "", "hfr-old": "bk-gone"}
        self.calls: list[list[str]] = []
        # Programs, and when sessions were ended.
        self.order: list[str] = []
        self.fails = ""
        self.keys = place / "keys"
        # Each time, whose sessions ended, and whether somebody could log in meanwhile.
        self.ended: list[dict[str, bool]] = []
        self.alive: set[int] = set()
        self.stuck: set[int] = set()
        # What the last execution warned of, however Ansible passes it on.
        self.warned: list[str] = []
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
        self.order.append(argv[0])
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
        elif argv[1] == "-s":
            self.users[argv[3]][2] = argv[2]
        elif int(self.users[argv[3]][5]) in self.alive:
            return 8, "", f"usermod: user {argv[3]} is currently used by process 7\n"
        else:
            self.users[argv[3]][1] = argv[2]
        self.write()
        return 0, "", ""

    def end(
        self, accounts: dict[int, str], *, ended: Callable[[int], None]
    ) -> tuple[frozenset[int], dict[int, list[int]]]:
        self.ended.append({name: self.readable(name) for name in accounts.values()})
        self.order.append("end")
        found = self.alive & set(accounts)
        self.alive -= set(accounts) - self.stuck
        for uid in accounts:
            if uid not in self.alive:
                ended(uid)
        return frozenset(found), {uid: [uid * 10, uid * 10 + 1] for uid in self.alive & set(accounts)}

    def readable(self, name: str) -> bool:
        """Whether sshd, which does it as the account, can read its key file."""
        path = self.keys / name
        return path.exists() and stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.fixture
def host(place: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(place)
    monkeypatch.setattr(ssh_accounts, "ETC", str(made.etc))
    monkeypatch.setattr(pwd, "getpwnam", made.getpwnam)
    monkeypatch.setattr(ssh_accounts.AnsibleModule, "run_command", made.run)
    monkeypatch.setattr(ssh_accounts, "end_sessions", made.end)
    warn = ssh_accounts.AnsibleModule.warn

    def record(module: ssh_accounts.AnsibleModule, text: str) -> None:
        made.warned.append(text)
        warn(module, text)

    monkeypatch.setattr(ssh_accounts.AnsibleModule, "warn", record)
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
        host.warned.clear()
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
    # Who loses a group has no session with it, nor begins one.
    assert host.order[:5] == ["gpasswd", "end", "systemd-sysusers", "chpasswd", "gpasswd"]
    assert "gpasswd" not in host.order[5:]
    assert host.users["bk-web1"][:5] == ["holdfast web1", str(place / "home"), "/bin/sh", "*", ""]
    assert host.groups == {"root": "", "hfr-old": "", "hfr-s3": "bk-db1"}
    info = (place / "keys/bk-web1").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o644, 0)
    text, _space, since = (place / "keys/bk-web1").read_text().rpartition(" ")
    assert text == f'restrict,command="/usr/local/libexec/holdfast/serve vault" {public("a")} web1 vault'
    assert abs(time.time() - calendar.timegm(time.strptime(since, "%Y-%m-%d\n"))) < 2 * 86400
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


def test_what_somebody_else_has_is_left_alone(run: Run, place: Path, host: Host) -> None:
    run(account("web1"))
    host.users["bk-olga"] = ["Olga O.", "/home/bk-olga", "/bin/bash", "$y$hash", "", "1001"]
    host.alive = {1001}
    host.write()
    path = place / "keys/bk-olga"
    path.write_text("ssh-ed25519 hers\n")
    path.chmod(0o600)
    for declared in ((account("web1"),), (account("web1"), account("olga", "o"))):
        for phase in ("all", "revoke"):
            result = run(*declared, phase=phase)
            assert (result["changed"], result["sessions_ended"], result["diff"]) == (False, [], [])
            assert any("bk-olga: is an account of somebody else" in text for text in host.warned)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode), host.alive) == ("ssh-ed25519 hers\n", 0o600, {1001})
    assert host.users["bk-olga"][3:5] == ["$y$hash", ""]


def test_killed_after_the_manifest(run: Run, place: Path, host: Host) -> None:
    host.fails = "chpasswd"
    result = run(account("web1"))
    assert result["msg"] == "chpasswd ended with 1: it broke: mend this and run again"
    assert "bk-web1" in json.loads((place / "lib/ssh_accounts.json").read_text())["accounts"]
    host.fails = ""
    host.groups.pop("hfr-old")
    host.write()
    assert both(run, place, account("web1")) == {"unlocked": ["bk-web1"]}
    assert host.readable("bk-web1")


@pytest.mark.parametrize("program", ["systemd-sysusers", "chpasswd", "gpasswd", "usermod"])
def test_nobody_keeps_access_because_others_cannot_have_theirs(run: Run, place: Path, host: Host, program: str) -> None:
    """No UID is left, say, in this run and in all that follow."""
    host.groups.pop("hfr-old")
    host.write()
    run(account("web1"), account("gone", "g", ("hfr-s3",)), account("back", "b"))
    run(account("web1"), account("gone", "g", ("hfr-s3",)))
    line = (place / "keys/bk-web1").read_text()
    host.alive = {int(host.users["bk-gone"][5])}
    host.fails = program
    # A client that is new, one that comes back, and one that gets a remote.
    wanted = (account("web1", "a", ("hfr-s3",)), account("new", "n"), account("back", "b"))
    result = run(*wanted)
    assert result["failed"]
    assert result["msg"] == f"{program} ended with 1: it broke: mend this and run again"
    assert not (place / "keys/bk-gone").exists()
    assert not host.alive
    assert (host.users["bk-gone"][3:5] == ["!*", "1"]) == (program != "usermod")
    assert ("bk-gone" in host.groups["hfr-s3"]) == (program == "gpasswd")
    assert (place / "keys/bk-web1").read_text() == line
    assert host.readable("bk-web1")
    # Nothing of it is forgotten.
    host.fails = ""
    assert not run(*wanted)["failed"]
    assert host.users["bk-gone"][3:5] == ["!*", "1"]
    assert host.groups["hfr-s3"] == "bk-web1"
    assert host.readable("bk-new")
    assert not run(*wanted)["changed"]


def test_a_session_keeps_no_home_that_was_changed(run: Run, place: Path, host: Host) -> None:
    """usermod refuses another home while its account has processes."""
    run(account("web1"), account("db1", "b"))
    uid = int(host.users["bk-web1"][5])
    host.users["bk-web1"][1:3] = ["/root", "/bin/bash"]
    host.write()
    host.alive = {uid}
    assert both(run, place, account("web1"), account("db1", "b")) == {
        "corrected": ["bk-web1"],
        "sessions_ended": ["bk-web1"],
    }
    # What does not end, or comes again at once, stops nobody else.
    host.users["bk-web1"][1:3] = ["/root", "/bin/bash"]
    host.write()
    host.alive = host.stuck = {uid}
    result = run(account("web1"), account("db1", "c"))
    assert not result["failed"]
    assert (result["corrected"], result["changed_keys"]) == (["bk-web1"], ["bk-db1 vault"])
    assert host.users["bk-web1"][1:3] == ["/root", "/bin/sh"]
    assert "bk-web1: its home stays /root: usermod ended with 8: usermod: user bk-web1 is currently used" in str(
        host.warned
    )
    host.alive = host.stuck = set()
    assert both(run, place, account("web1"), account("db1", "c")) == {"corrected": ["bk-web1"]}
    assert host.users["bk-web1"][1] == str(place / "home")
    # Where access is only taken away nothing is corrected, and nobody ended for it.
    host.users["bk-web1"][1] = "/root"
    host.write()
    host.alive = {uid}
    assert not run(account("web1"), account("db1", "c"), phase="revoke")["changed"]


def test_nobody_can_log_in_while_sessions_end(run: Run, host: Host) -> None:
    """Else a client with its new key could start sessions as fast as they are ended."""
    run(account("web1"), account("db1", "b"))
    assert host.ended == [{}]
    assert run(account("web1", "c"), account("db1", "b"))["changed_keys"] == ["bk-web1 vault"]
    assert host.ended == [{}, {"bk-web1": False}]
    assert host.readable("bk-web1")
    # Killed in between: the next run opens the file, and ends what was not ended yet.
    (host.keys / "bk-web1").chmod(0o600)
    assert run(account("web1", "c"), account("db1", "b"))["changed"]
    assert host.readable("bk-web1")


def test_who_keeps_coming_stops_nobody(run: Run, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever somebody looks there is another session of a client whose new key is good, if it can log in."""
    run(account("web1"), account("db1", "b"))
    uid = int(host.users["bk-web1"][5])
    # No process has such a number.
    pids = itertools.count(2**23)
    looked = itertools.count()

    def processes(uids: Collection[int]) -> dict[int, list[int]]:
        comes = uid in uids and (next(looked) < 2 or host.readable("bk-web1"))
        return {uid: [next(pids)]} if comes else {}

    monkeypatch.setattr(_sessions, "processes", processes)
    monkeypatch.setattr(_sessions, "logins", lambda _accounts: {}, raising=False)
    monkeypatch.setattr(_sessions, "LIMIT_SECONDS", 1.0)
    monkeypatch.setattr(ssh_accounts, "end_sessions", _sessions.end_sessions)
    result = run(account("web1", "c"), account("db1", "d"))
    assert not result["failed"], result["msg"]
    assert (result["sessions_ended"], result["sessions_left"]) == (["bk-web1"], [])
    assert not host.warned
    assert host.readable("bk-web1")
    assert not run(account("web1", "c"), account("db1", "d"))["changed"]


def test_what_does_not_end_is_told_and_tried_again(run: Run, place: Path, host: Host) -> None:
    run(account("web1"), account("db1", "b"))
    host.alive = host.stuck = {int(host.users["bk-web1"][5])}
    pid = 10 * int(host.users["bk-web1"][5])
    for _run in range(2):
        result = run(account("web1", "c"), account("db1", "d"))
        assert not result["failed"]
        assert (result["sessions_ended"], result["sessions_left"]) == ([], ["bk-web1"])
        assert result["changed"]
        assert host.warned == [
            f"bk-web1: what its sessions may do was taken away, and processes {pid}, {pid + 1} do not end: end them by hand; "
            "the next run tries again"
        ]
        assert host.readable("bk-web1")
        # Everything else is done, for everybody.
        manifest = json.loads((place / "lib/ssh_accounts.json").read_text())["accounts"]
        assert (manifest["bk-web1"]["end"], "end" in manifest["bk-db1"]) == (True, False)
        assert result["served"] == {name: manifest[name]["keys"] for name in ("bk-db1", "bk-web1")}
    host.stuck = set()
    assert both(run, place, account("web1", "c"), account("db1", "d")) == {"sessions_ended": ["bk-web1"]}
    assert '"end"' not in (place / "lib/ssh_accounts.json").read_text()
    # Whoever lost access is locked all the same, and tried in each run.
    host.alive = host.stuck = {int(host.users["bk-db1"][5])}
    result = run(account("web1", "c"))
    assert (result["locked"], result["sessions_left"]) == (["bk-db1"], ["bk-db1"])
    assert (host.users["bk-db1"][3:5], (place / "keys/bk-db1").exists()) == (["!*", "1"], False)
    assert run(account("web1", "c"))["sessions_left"] == ["bk-db1"]


def test_another_definition_ends_sessions_when_it_is_in_force(run: Run, place: Path, host: Host) -> None:
    run(account("web1", definition="sftp"), account("db1", "b"))
    host.alive = {int(host.users["bk-web1"][5])}
    narrowed = account("web1", definition="append-only")
    for _run in range(2):  # the second, since the first was killed before the definition was in force
        result = run(narrowed, account("db1", "b", definition="was not known"))
        assert (result["sessions_pending"], result["sessions_ended"], result["changed"]) == (["bk-web1"], [], False)
    announced = run(narrowed, account("db1", "b", definition="was not known"), phase="sessions", check=True)
    assert host.alive
    host.ended.clear()
    ended = run(narrowed, account("db1", "b", definition="was not known"), phase="sessions")
    assert facts(announced) == facts(ended)
    assert (ended["sessions_ended"], ended["changed"]) == (["bk-web1"], True)
    assert host.ended == [{"bk-web1": False}]
    assert host.readable("bk-web1")
    result = run(narrowed, account("db1", "b", definition="was not known"))
    assert (result["sessions_pending"], result["changed"]) == ([], False)
    # It does not end there either: the next run knows.
    wider = account("web1", definition="sftp")
    host.alive = host.stuck = {int(host.users["bk-web1"][5])}
    assert run(wider, account("db1", "b"))["sessions_pending"] == ["bk-web1"]
    assert run(wider, account("db1", "b"), phase="sessions")["sessions_left"] == ["bk-web1"]
    assert run(wider, account("db1", "b"), phase="sessions")["sessions_left"] == []
    host.stuck = set()
    assert run(wider, account("db1", "b"))["sessions_ended"] == ["bk-web1"]


def test_what_a_key_change_ends_is_announced_once(run: Run, host: Host) -> None:
    """The first execution of the real run ends it, and the second finds nothing."""
    run(account("web1", definition="sftp"))
    host.alive = {int(host.users["bk-web1"][5])}
    changed = account("web1", "b", definition="append-only")
    assert [run(changed, check=True, phase=phase)["changed"] for phase in ("all", "sessions")] == [True, False]
    assert [run(changed, phase=phase)["changed"] for phase in ("all", "sessions")] == [True, False]


def test_hand_edits_are_told(run: Run, place: Path, host: Host) -> None:
    run(account("web1"))
    assert not host.warned
    path = place / "keys/bk-web1"
    path.write_text(f"{public('a')}\n{path.read_text()}nonsense\n")
    (place / "keys/bk-nobody").write_text(public("y") + "\n" * 2 + "# mine\n" * 6)
    mine, theirs = (fingerprint(public(letter).split()[1]) for letter in "ay")
    texts = [
        f"bk-web1: lines of its key file do not belong there: 1 ({mine}), 2 ({mine}), 3 (no key): they are removed, and its "
        "sessions are ended",
        f"bk-nobody: is not served here, and has a key file: it is removed, with its lines 1 ({theirs}), 3 (no key), "
        "4 (no key), 5 (no key), 6 (no key) and 2 more",
    ]
    for check in (True, False):
        run(account("web1"), check=check)
        assert host.warned == texts
    run(account("web1"))
    assert not host.warned


def test_unknown_keys_are_told_in_one_line_each(run: Run, host: Host) -> None:
    run(account("web1"))
    cure = "run the playbook where these clients can be reached, and without a --limit that leaves them out"
    everybody = account("web1", ""), account("web2", ""), account("web3", ""), account("web4", "x" * 100)
    for check in (True, False):
        run(*everybody, check=check)
        assert host.warned[0].startswith("bk-web4: vault: the public key")
        assert host.warned[1:] == [
            f"no public key was delivered for bk-web1 vault: the lines that this server has for them stay: {cure}",
            f"no public key is known for bk-web2 vault, bk-web3 vault: they are not served: {cure}",
        ]


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


def test_revoke_only_takes_away(run: Run, place: Path, host: Host) -> None:
    host.groups.pop("hfr-old")
    host.write()
    assert not run(account("web1"), phase="revoke")["changed"]
    assert [each.name for each in place.iterdir()] == ["etc"]
    run(account("web1"), account("web2", "b"))
    line = (place / "keys/bk-web1").read_text()
    host.alive = {int(host.users["bk-web2"][5])}
    host.calls.clear()
    wanted = (account("web1", "a", ("hfr-s3",), **{"from": ["192.0.2.7"]}), account("web3", "c"))
    assert "2 hosts would lose access" in run(phase="revoke", revoke_max=1)["msg"]
    assert both(run, place, *wanted, phase="revoke", revoke_max=1) == {
        "revoked": ["bk-web2"], "revoked_keys": ["bk-web2 vault"], "locked": ["bk-web2"], "sessions_ended": ["bk-web2"],
    }  # fmt: skip
    assert [call[:2] for call in host.calls] == [["usermod", "-L"]]
    assert {each.name: each.read_text() for each in (place / "keys").iterdir()} == {"bk-web1": line}
    known = json.loads((place / "lib/ssh_accounts.json").read_text())["accounts"]
    assert (known["bk-web2"]["locked"], list(known["bk-web1"]["keys"]), len(known)) == (True, ["vault"], 2)
    # What does not end is on record, as in a whole run.
    run(account("web1"), account("web2", "b"))
    host.alive = host.stuck = {int(host.users["bk-web1"][5])}
    changed = (account("web1", "d"), account("web2", "b"))
    assert run(*changed, phase="revoke")["sessions_left"] == ["bk-web1"]
    assert not (place / "keys/bk-web1").exists()
    host.stuck = set()
    assert run(*changed)["sessions_ended"] == ["bk-web1"]
    assert host.readable("bk-web1")


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
