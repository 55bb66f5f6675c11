# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast unlock`: what is run, as whom, and when it is refused. What restic and borg say is recorded from 0.18.0 and 1.4.0."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _borg
from ansible_collections.holdfast.backup.plugins.module_utils._program import cli
from ansible_collections.holdfast.backup.plugins.module_utils._program.host import Done, Host

from tests.unit.plugins.module_utils import recorded_borg as said
from tests.unit.plugins.module_utils.program.program_host import ID, ME, UNIT, FakeHost, define

Capture = pytest.CaptureFixture[str]
HOLD = f"holdfast-unlock{os.getpid()}-vault.service"
# As `restic cat lock` prints it.
LOCK = {
    "time": "2026-11-21T12:58:00.1Z",
    "exclusive": True,
    "hostname": os.uname().nodename,
    "username": "root",
    "pid": 4711,
}
BORG = {
    "binary": "/usr/bin/borg",
    "encryption": "repokey-blake2",
    "key_file": "/etc/holdfast/secrets/vault.borg_key",
    "ssh_command": None,
}


def unlock(host: FakeHost, job: str = "system") -> int:
    return cli.main(["unlock", job], host)


def tool(host: FakeHost, name: str) -> list[tuple[list[str], str | None, dict[str, str]]]:
    """The calls of a program: its arguments, the account and the environment."""
    calls = zip(host.calls, host.users, host.environments, strict=True)
    return [(argv, user, dict(environment)) for argv, user, environment in calls if argv[0] == name]


def borg(host: FakeHost, **changes: Any) -> None:
    host.put("/etc/systemd/system/holdfast-system--vault.service")
    define(host, engine="borg", binary="/usr/bin/borgmatic", borg={**BORG, **changes.pop("borg", {})}, **changes)


def locked(host: FakeHost, *locks: dict[str, Any]) -> None:
    """What restic says of the locks there are."""
    names = [f"{number:064x}" for number in range(len(locks))]
    host.answer("list", "locks", stdout="".join(f"{line}\n" for line in ["repository opened", *names]))
    for name, lock in zip(names, locks):
        host.answer(
            "cat",
            "lock",
            name,
            status=0 if lock is not None else 1,
            stdout="" if lock is None else json.dumps({**LOCK, **lock}),
        )


def test_restic_removes_what_nobody_holds(host: FakeHost, capsys: Capture) -> None:
    """With the options and the environment of the unit, as root. A run that began meanwhile would lose its lock: they wait."""
    host.put("/etc/systemd/system/holdfast-system--vault.service")
    define(host, access="sftp", options={"sftp.command": "ssh -F /c holdfast-vault sftp"})
    locked(host, {})
    assert unlock(host) == 0
    option = "--option=sftp.command=ssh -F /c holdfast-vault sftp"
    calls = tool(host, "/usr/bin/restic")
    assert [argv[2:] for argv, _user, _environment in calls] == [
        ["list", "locks", "--no-lock", "--no-cache"],
        ["cat", "lock", "0" * 64, "--no-lock", "--no-cache"],
        ["list", "locks", "--no-lock", "--no-cache"],
        ["unlock", "--remove-all", "--no-cache"],
    ]
    for argv, user, environment in calls:
        assert argv[:2] == ["/usr/bin/restic", option]
        assert (user, environment["RESTIC_PASSWORD_FILE"]) == (None, "/etc/holdfast/secrets/vault.password")
        assert "RESTIC_CACHE_DIR" not in environment
    assert capsys.readouterr().out == f"{UNIT}: locks that were removed: 1\n"
    verbs = [" ".join(each[:2]) for each in host.calls]
    assert verbs == [
        "systemctl is-active", "systemctl list-units", "systemctl stop", "systemd-run --quiet", "systemctl list-units",
        *[f"/usr/bin/restic {option}"] * 2, "systemctl list-units", *[f"/usr/bin/restic {option}"] * 2, "systemctl stop",
    ]  # fmt: skip
    assert "--property=Before=holdfast-system--vault.service" in host.calls[3]


def test_on_the_host_itself_the_account_removes_them(host: FakeHost) -> None:
    """It may put a link in the place of a lock, and restic makes what it removes writable to all."""
    define(host, access="local")
    host.put("/etc/holdfast/secrets/vault.repository", "/srv/repository\n", 0o400)
    host.put("/etc/holdfast/secrets/vault.password", "geheim\n", 0o400)
    locked(host, {})
    assert unlock(host) == 0
    *looked, (argv, user, environment) = tool(host, "/usr/bin/restic")
    # A lock of root's the account cannot read.
    assert [user for _argv, user, _environment in looked] == [None, None, None]
    assert argv == ["/usr/bin/restic", "unlock", "--remove-all", "--no-cache"]
    assert (user, environment["RESTIC_REPOSITORY"]) == (ME, "/srv/repository")
    # What only root can read, and what is root's.
    assert {"RESTIC_PASSWORD_FILE", "RESTIC_REPOSITORY_FILE", "HOME"}.isdisjoint(environment)
    assert [files for files in host.files if files] == [{"RESTIC_PASSWORD_FILE": b"geheim\n"}]


@pytest.mark.parametrize(
    ("lock", "comm", "held"),
    [
        ({}, "restic", True),
        ({}, None, False),
        # After a boot another program has the process id: restic itself would end it by a SIGHUP, and leave the lock.
        ({}, "sshd", False),
        ({"pid": "x/../1"}, "restic", False),
        ({"hostname": "vault1"}, None, True),
        ({"hostname": "vault1", "time": "2026-11-21T12:29:00Z"}, None, False),
        ({"hostname": "vault1", "time": "yesterday"}, None, False),
    ],
)
def test_the_locks_of_the_living_stay(
    host: FakeHost, capsys: Capture, lock: dict[str, Any], comm: str | None, held: bool
) -> None:
    """Who is on this host is there or not; who is on another one makes the lock anew every five minutes."""
    define(host)
    if comm:
        host.put("/proc/4711/comm", f"{comm}\n")
    locked(host, {"pid": 1}, lock)
    assert unlock(host) == (1 if held else 0)
    assert any("--remove-all" in argv for argv, *_ in tool(host, "/usr/bin/restic")) != held
    if held:
        said = capsys.readouterr().err
        assert f"vault is in use by root on {lock.get('hostname', host.name())} (process 4711, since 2026" in said


@pytest.mark.parametrize("answer", [(1, ""), (0, ""), (0, "[]")])
def test_a_lock_that_cannot_be_read_may_be_held(host: FakeHost, capsys: Capture, answer: tuple[int, str]) -> None:
    """The connection broke, or it was made anew just now."""
    define(host)
    locked(host, {})
    host.answer("cat", "lock", status=answer[0], stdout=answer[1])
    assert unlock(host) == 1
    assert f"{UNIT} cannot be unlocked: " in capsys.readouterr().err
    assert not any("--remove-all" in argv for argv, *_ in tool(host, "/usr/bin/restic"))


def test_a_lock_that_another_host_makes_meanwhile_stays(host: FakeHost, capsys: Capture) -> None:
    """Its runs nobody holds off."""
    define(host)
    locked(host, {})
    found = iter(["0" * 64, f"{'0' * 64}\n{'6' * 64}"])
    host.answers.insert(0, (("list", "locks"), lambda _argv: Done(0, next(found))))
    assert unlock(host) == 1
    assert "vault is in use: another lock was made meanwhile" in capsys.readouterr().err
    assert not any("--remove-all" in argv for argv, *_ in tool(host, "/usr/bin/restic"))


def test_where_there_is_none_nothing_is_removed(host: FakeHost, capsys: Capture) -> None:
    define(host)
    locked(host)
    assert unlock(host) == 0
    assert capsys.readouterr().out == f"{UNIT}: there is no lock\n"
    assert len(tool(host, "/usr/bin/restic")) == 1


def test_more_locks_than_anybody_makes(host: FakeHost, capsys: Capture) -> None:
    define(host)
    locked(host, *[{}] * 51)
    assert unlock(host) == 1
    assert "vault has 51 locks" in capsys.readouterr().err
    assert len(tool(host, "/usr/bin/restic")) == 1


@pytest.mark.parametrize("words", [("--remove-all",), ("list", "locks")])
def test_restic_that_fails(host: FakeHost, capsys: Capture, words: tuple[str, ...]) -> None:
    define(host)
    locked(host, {})
    host.answer(*words, status=12)
    assert unlock(host) == 1
    printed = capsys.readouterr()
    assert printed.err == (f"holdfast: {UNIT} cannot be unlocked: the repository does not take this host's password\n")
    assert printed.out == ""


def test_which_repository(host: FakeHost, capsys: Capture) -> None:
    define(host)
    define(host, repository="offsite")
    assert unlock(host) == 2
    assert "say which: system--offsite, system--vault" in capsys.readouterr().err
    assert not host.calls
    assert unlock(host, UNIT) == 0


@pytest.mark.parametrize("engine", ["restic", "borg"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            ("list-units", 0, "holdfast-files--vault.service loaded activating start Backup\n"),
            "vault is in use by holdfast-files--vault.service, whose lock it is; wait until that has ended, or end it: systemctl stop",
        ),
        (("list-units", 1, ""), "systemctl does not say which backups run"),
        (("is-active", 3, "activating\n"), "a playbook changes the passphrase of vault now"),
    ],
)
def test_it_is_refused_while_somebody_uses_it(
    host: FakeHost, capsys: Capture, engine: str, answer: tuple[str, int, str], words: str
) -> None:
    """Also by another job of this host."""
    if engine == "borg":
        borg(host)
    else:
        define(host)
    word, status, stdout = answer
    host.answer("systemctl", word, status=status, stdout=stdout)
    assert unlock(host) == 1
    assert words in capsys.readouterr().err
    assert not tool(host, "/usr/bin/restic")
    assert not tool(host, "/usr/bin/borg")
    assert not tool(host, "systemd-run")


def test_borg_breaks_the_locks_on_the_host_itself_as_the_account(
    host: FakeHost, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may put a link in the place of a lock: root would remove what is there. Runs are held off meanwhile."""
    monkeypatch.setattr(_borg, "host_id", lambda: "holdfast-0123456789abcdef")
    borg(host)
    assert unlock(host) == 0
    ((argv, user, environment),) = tool(host, "/usr/bin/borg")
    assert argv == ["/usr/bin/borg", "--log-json", "break-lock", "--", "/srv/repository"]
    assert (user, environment["BORG_BASE_DIR"]) == (ME, "/var/lib/holdfast/borg")
    # It opens no key, and the account could not read root's files.
    assert {"BORG_PASSCOMMAND", "HOME"}.isdisjoint(environment)
    verbs = [" ".join(each[:2]) for each in host.calls]
    assert verbs == [
        "systemctl is-active", "systemctl list-units", "systemctl stop", "systemd-run --quiet", "systemctl list-units",
        "/usr/bin/borg --log-json", "systemctl stop",
    ]  # fmt: skip
    assert f"--unit={HOLD}" in host.calls[3]
    assert "--property=Before=holdfast-system--vault.service" in host.calls[3]
    printed = capsys.readouterr().out
    assert "also that of somebody who works in it by hand now, the server's administrator say" in printed
    assert printed.endswith(f"{UNIT}: neither the repository nor its cache on this host is locked any more\n")


def test_borg_over_ssh_as_root_and_the_cache_as_the_account(host: FakeHost) -> None:
    borg(host, access="ssh", borg={"ssh_command": "ssh -F /c -i /k"})
    host.put("/etc/holdfast/secrets/vault.repository", "ssh://holdfast-vault/./web1--vault\n", 0o600)
    assert unlock(host) == 0
    ((argv, user, environment),) = tool(host, "/usr/bin/borg")
    assert argv[-1] == "ssh://holdfast-vault/./web1--vault"
    assert (user, environment["BORG_BASE_DIR"]) == (None, "/var/lib/holdfast/borg-root")
    assert environment["BORG_RSH"] == "ssh -F /c -i /k"
    cache = f"/var/lib/holdfast/borg/.cache/borg/{ID}"
    ((removed, remover, _),) = tool(host, "rm")
    assert removed == ["rm", "-rf", "--", f"{cache}/lock.exclusive", f"{cache}/lock.roster"]
    assert remover == ME


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (13, "", said.error(13, "Repository.DoesNotExist", "Repository /srv/repository does not exist.").stderr),
            "there is no repository",
        ),
        (
            (2, "", said.error(2, "", "PermissionError: [Errno 13] Permission denied: '/srv/repository/lock.exclusive'").stderr),
            "permission denied; give back what root wrote there: chown -R --reference=/srv/repository /srv/repository",
        ),
    ],
)  # fmt: skip
def test_borg_that_fails(host: FakeHost, capsys: Capture, answer: tuple[int, str, str], words: str) -> None:
    """Who was held off is let go."""
    borg(host)
    host.answers.insert(0, (("break-lock",), Done(*answer)))
    assert unlock(host) == 1
    printed = capsys.readouterr()
    assert f"holdfast: {UNIT} cannot be unlocked: {words}" in printed.err
    assert "any more" not in printed.out
    assert host.calls[-1] == ["systemctl", "stop", HOLD]


@pytest.mark.parametrize(("engine", "seen"), [("borg", 1), ("restic", 1), ("restic", 2)])
def test_a_run_that_began_meanwhile_keeps_its_lock(host: FakeHost, capsys: Capture, engine: str, seen: int) -> None:
    if engine == "borg":
        borg(host)
    else:
        define(host)
        locked(host, {})
    answers = iter([*[""] * seen, "holdfast-system--vault.service loaded activating start Backup\n"])
    host.answers.insert(0, (("systemctl", "list-units"), lambda _argv: Done(0, next(answers))))
    assert unlock(host) == 1
    assert "vault is in use by" in capsys.readouterr().err
    assert not tool(host, "/usr/bin/borg")
    assert not any("unlock" in argv for argv, *_ in tool(host, "/usr/bin/restic"))
    assert host.calls[-1] == ["systemctl", "stop", HOLD]


def test_two_at_a_time_hold_runs_off_each_for_itself(
    host: FakeHost, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to end would let runs go while the other one looks at locks."""
    define(host)
    locked(host)
    assert unlock(host) == 0
    mine = host.calls[-1]
    monkeypatch.setattr(os, "getpid", lambda: 99999999)
    assert unlock(host) == 0
    assert mine[:2] == host.calls[-1][:2] == ["systemctl", "stop"]
    assert host.calls.count(mine) == 2
    assert mine != host.calls[-1]


def test_borg_without_a_record(host: FakeHost, capsys: Capture) -> None:
    borg(host, access="ssh")
    host.path("/var/lib/holdfast/repositories/vault.env").unlink()
    assert unlock(host) == 1
    assert "vault.env cannot be used" in capsys.readouterr().err


def test_an_account_that_is_not_there() -> None:
    done = Host().command(["true"], timeout=10, user="nobody-of-this-name")
    assert done == Done(127, "", "there is no account 'nobody-of-this-name' on this host")
