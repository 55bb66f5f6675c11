# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast unlock`: what is run, as whom, and when it is refused. What restic and borg say is recorded from 0.18.0 and 1.4.0."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _borg
from ansible_collections.holdfast.backup.plugins.module_utils._program import cli
from ansible_collections.holdfast.backup.plugins.module_utils._program.host import Done, Host

from tests.unit.plugins.module_utils import recorded_borg as said
from tests.unit.plugins.module_utils.program.program_host import ID, ME, UNIT, FakeHost, define

Capture = pytest.CaptureFixture[str]
HOLD = "holdfast-hold-vault.service"
REMOVED = "successfully removed 1 locks\n"
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


def test_restic_removes_what_nobody_holds(host: FakeHost, capsys: Capture) -> None:
    """With the options and the environment of the unit, as root; nobody is held off, since it leaves the locks of the living."""
    define(host, access="sftp", options={"sftp.command": "ssh -F /c holdfast-vault sftp"})
    host.answer("unlock", stdout=REMOVED)
    assert unlock(host) == 0
    option = "--option=sftp.command=ssh -F /c holdfast-vault sftp"
    (first, user, environment), (second, *_) = tool(host, "/usr/bin/restic")
    assert first == ["/usr/bin/restic", option, "unlock", "--no-cache"]
    assert second == ["/usr/bin/restic", option, "list", "locks", "--no-lock", "--no-cache"]
    assert (user, environment["RESTIC_PASSWORD_FILE"]) == (None, "/etc/holdfast/secrets/vault.password")
    assert "RESTIC_CACHE_DIR" not in environment
    assert capsys.readouterr().out == f"{UNIT}: successfully removed 1 locks\n"
    assert not tool(host, "systemd-run")


def test_restic_leaves_the_locks_of_the_living(host: FakeHost, capsys: Capture) -> None:
    """It ends with 0 all the same, and says nothing."""
    define(host)
    host.answer("list", "locks", stdout=f"repository opened\n{'a' * 64}\n")
    assert unlock(host) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{UNIT}: there is no lock that nobody holds\n  locks that are left: 1; ")
    assert "try again when that is over" in printed


@pytest.mark.parametrize("words", [("unlock",), ("list", "locks")])
def test_restic_that_fails(host: FakeHost, capsys: Capture, words: tuple[str, ...]) -> None:
    define(host)
    host.answer("unlock", stdout=REMOVED)
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


def test_a_run_that_began_meanwhile_keeps_its_lock(host: FakeHost, capsys: Capture) -> None:
    borg(host)
    answers = iter(["", "holdfast-system--vault.service loaded activating start Backup\n"])
    host.answers.insert(0, (("systemctl", "list-units"), lambda _argv: Done(0, next(answers))))
    assert unlock(host) == 1
    assert "vault is in use by" in capsys.readouterr().err
    assert not tool(host, "/usr/bin/borg")
    assert host.calls[-1] == ["systemctl", "stop", HOLD]


def test_borg_without_a_record(host: FakeHost, capsys: Capture) -> None:
    borg(host, access="ssh")
    host.path("/var/lib/holdfast/repositories/vault.env").unlink()
    assert unlock(host) == 1
    assert "vault.env cannot be used" in capsys.readouterr().err


def test_an_account_that_is_not_there() -> None:
    done = Host().command(["true"], timeout=10, user="nobody-of-this-name")
    assert done == Done(127, "", "there is no account 'nobody-of-this-name' on this host")
