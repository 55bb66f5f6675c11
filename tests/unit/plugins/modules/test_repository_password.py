# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module repository_password: what it does in which order, and that it goes on wherever it was cut off."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.holdfast.backup.plugins.module_utils import _borg, _locks, _record, _secrets
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree
from ansible_collections.holdfast.backup.plugins.module_utils._rotate import rotate
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result
from ansible_collections.holdfast.backup.plugins.modules import repository_password

from tests.unit.plugins.module_utils import recorded, recorded_borg
from tests.unit.plugins.module_utils.recorded import ID

OLD, NEW = "first-password", "second-password"
BINARY = "/bin/true"
# As `restic cat lock` prints it; no process has such an id.
LOCK = {
    "time": "2020-11-21T12:58:00.1Z",
    "exclusive": True,
    "hostname": os.uname().nodename,
    "username": "root",
    "pid": 2**22 + 1,
}


def key_of(password: str) -> str:
    """The id of the key that a password opens."""
    return hashlib.sha256(password.encode()).hexdigest()


def kept(done: dict[str, Any]) -> str:
    """Why nothing was done."""
    assert done["changed"] is False
    return str(done["repositories"][0]["kept"])


class CutOffError(BaseException):
    """The power went."""


class Host:
    """A host whose tools are simulated: a repository that passwords open, and units that run."""

    def __init__(self, root: Path, engine: str) -> None:
        self.root = root
        self.engine = engine
        self.opened_by = [OLD]
        self.append_only = False
        self.running: list[str] = []
        self.calls: list[str] = []
        self.environments: list[dict[str, str]] = []
        self.cut_off_at: str | None = None
        # Whether there is a lock that nobody holds.
        self.locked = False
        # What such a lock says, beside what LOCK does.
        self.lock: dict[str, Any] | None = {}
        # borg does it, and then says that it failed.
        self.broken = False
        for name, text in {"password": OLD, "password_next": NEW}.items():
            (root / f"vault.{name}").write_text(f"{text}\n")
            (root / f"vault.{name}").chmod(0o400)
        if engine == "borg":
            (root / "vault.borg_key").write_text(self.exported(OLD))
            identity = _secrets.Identity("ab", fingerprint="f" * 32, borg_key=_borg.key_hash(self.exported(OLD)))
            (root / "vault.identity").write_text(identity.render())

    @staticmethod
    def exported(password: str) -> str:
        return f"BORG_KEY {recorded_borg.ID}\n{key_of(password)}\n"

    def text(self, suffix: str) -> str | None:
        path = self.root / f"vault.{suffix}"
        return path.read_text().strip() if path.exists() else None

    def __call__(self, argv: Sequence[str], **given: Any) -> Result:
        self.environments.append(dict(given.get("environment") or {}))
        self.calls.append(" ".join(word for word in argv if not word.startswith(("-", "/", str(self.root)))))
        if argv[0] in ("systemctl", "systemd-run"):
            return Result(0, "".join(f"{unit} loaded activating\n" for unit in self.running if "list-units" in argv))
        done = self._borg(argv, given) if self.engine == "borg" else self._restic(argv, given)
        if self.cut_off_at is not None and self.cut_off_at in self.calls[-1]:
            raise CutOffError
        return done

    def _restic(self, argv: Sequence[str], given: dict[str, Any]) -> Result:
        password = Path(given["environment"]["RESTIC_PASSWORD_FILE"]).read_text().strip()
        if password not in self.opened_by:
            return recorded.WRONG_KEY_18
        if "lock" in argv:
            said = None if self.lock is None else json.dumps({**LOCK, **self.lock})
            return Result(0, said) if said else Result(1, "", "Fatal: unable to load lock\n")
        if "cat" in argv:
            return recorded.config()
        if "locks" in argv:
            return Result(0, f"{'5' * 64}\n" if self.locked else "")
        if "list" in argv:
            return recorded.keys(key_of(password))
        if "add" in argv:
            self.opened_by.append(given["arguments"]["--new-password-file"].decode().strip())
            return Result(0, "saved new key\n")
        if "unlock" in argv:
            assert "--remove-all" in argv, "restic would send a SIGHUP to the process id in the lock"
            assert self.calls[-3].startswith("systemctl list-units"), "runs are held off, and none runs"
            assert self.calls[-2].startswith("list locks"), "nobody made another lock meanwhile"
            self.locked = False
            return Result(0, "successfully removed 1 locks\n")
        if self.locked:
            return Result(
                11, "", "unable to create lock in backend: repository is already locked exclusively by PID 7\n"
            )
        if self.append_only:
            return Result(1, "", "Fatal: removing key failed: unexpected HTTP response (403): 403 Forbidden\n")
        self.opened_by = [each for each in self.opened_by if key_of(each) != argv[-1]]
        return Result(0, f"removed key {argv[-1]}\n")

    def _borg(self, argv: Sequence[str], given: dict[str, Any]) -> Result:
        password = given["descriptors"]["BORG_PASSPHRASE_FD"].decode().strip()
        keyfile = given["environment"].get("BORG_KEY_FILE")
        if keyfile is not None:
            key = Path(keyfile).read_text()
        else:
            key = given["files"].get("BORG_KEY_FILE", b"").decode() or self.exported(self.opened_by[0])
        if key != self.exported(password):
            return recorded_borg.error(2, "PassphraseWrong", "passphrase supplied is incorrect.")
        if "list" in argv:
            return recorded_borg.listing()
        if "export" in argv:
            return Result(0, key)
        following = given["environment"]["BORG_NEW_PASSPHRASE"]
        if keyfile is not None:
            Path(keyfile).write_text(self.exported(following))
        else:
            self.opened_by = [following]
        return (
            recorded_borg.error(80, "ConnectionClosed", "Connection closed by remote host")
            if self.broken
            else Result(0)
        )


class Play:
    """The module on a simulated host."""

    def __init__(self, host: Host, capsys: pytest.CaptureFixture[str], **options: Any) -> None:
        self.host = host
        self._capsys = capsys
        self._options = {
            "name": "vault",
            "engine": host.engine,
            "repository": "rest:https://h/vault/" if host.engine == "restic" else "ssh://h/./vault",
            "password_file": str(host.root / "vault.password"),
            "binary": BINARY,
            "record": str(host.root / "records/vault.env"),
            **({"key_file": str(host.root / "vault.borg_key")} if host.engine == "borg" else {}),
            **options,
        }
        key = key_of(OLD) if host.engine == "restic" else _borg.key_hash(host.exported(OLD))
        identity = ID if host.engine == "restic" else recorded_borg.ID
        with Tree() as tree:
            _record.write(tree, self._options["record"], _record.Record(identity, key, f"{'0' * 32}-{'0' * 32}"))

    def __call__(self, phase: str = "use", *, check: bool = False) -> dict[str, Any]:
        arguments = {
            "repositories": [self._options],
            "phase": phase,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            repository_password.main()
        text = self._capsys.readouterr().out
        assert OLD not in text
        assert NEW not in text
        result: dict[str, Any] = json.loads(text)
        assert not result.get("failed"), result
        return result

    @property
    def record(self) -> _record.Record:
        return _record.parse(Path(self._options["record"]).read_text())


@pytest.fixture
def make(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(engine: str = "restic", **options: Any) -> Play:
        host = Host(tmp_path, engine)
        monkeypatch.setattr(repository_password, "LOCK_DIRECTORY", str(tmp_path / "lock"))
        monkeypatch.setattr(repository_password, "rotate", functools.partial(rotate, runner=host))
        return Play(host, capsys, **options)

    return made


def test_restic_gets_another_key_and_loses_the_old_one(make: Any) -> None:
    play = make()
    host = play.host
    announced = play(check=True)
    assert host.calls == ["cat config"]
    assert announced["changed"]
    host.calls.clear()
    done = play()
    assert done["repositories"] == [
        {"name": "vault", "action": "use", "changed": True, "kept": None, "id": ID, "key": key_of(NEW), "old_key": None}
    ]
    assert host.calls == ["cat config", "key add", "cat config", "key list"]
    assert (host.text("password"), host.text("password_old"), host.text("password_next")) == (NEW, OLD, None)
    assert (host.root / "vault.password").stat().st_mode & 0o777 == 0o400
    assert play.record.key == key_of(NEW)
    assert host.opened_by == [OLD, NEW]
    assert play()["changed"] is False

    assert play("retire", check=True)["changed"]
    assert host.opened_by == [OLD, NEW]
    assert play("retire")["repositories"][0]["action"] == "remove"
    assert host.opened_by == [NEW]
    assert host.text("password_old") is None
    assert play("retire")["changed"] is False


def test_a_password_is_changed_through_the_proxy_of_its_repository(make: Any) -> None:
    play = make(proxy="http://proxy:3128")
    play()
    used = {each.get("HTTPS_PROXY") for each in play.host.environments if "RESTIC_PASSWORD_FILE" in each}
    assert used == {"http://proxy:3128"}


def test_the_server_removes_what_the_client_may_not(make: Any) -> None:
    play = make(remove="server")
    play()
    first = play("retire")
    assert first["repositories"][0]["old_key"] == key_of(OLD)
    assert first["changed"] is False
    # Nothing is forgotten until the old password was seen to open nothing.
    assert play("forget")["changed"] is False
    assert play.host.text("password_old") == OLD
    play.host.opened_by = [NEW]
    assert play("forget")["changed"] is True
    assert play.host.text("password_old") is None


def test_check_mode_announces_what_the_server_and_the_client_will_do(make: Any) -> None:
    play = make(remove="server")
    found = [play(phase, check=True) for phase in ("use", "retire", "forget")]
    assert [each["changed"] for each in found] == [True, False, True]
    assert found[1]["repositories"][0]["old_key"] == _secrets.UNBORN


@pytest.mark.parametrize("engine", ["restic", "borg"])
@pytest.mark.parametrize("pending", [False, True])
def test_check_mode_foresees_what_will_wait(make: Any, engine: str, pending: bool) -> None:
    """Also where the real run has yet to make the next password."""
    play = make(engine, remove="server" if engine == "restic" else "client")
    if not pending:
        (play.host.root / "vault.password_next").unlink()
    play.host.running = ["holdfast-system--vault.service"]
    busy = "a backup runs (holdfast-system--vault.service)"
    if engine == "borg":
        assert kept(play(check=True)) == busy
    else:
        # Only its old key waits.
        assert play(check=True)["changed"] is True
        for phase in ("retire", "forget"):
            found = play(phase, check=True)
            assert kept(found) == busy
            assert found["repositories"][0]["old_key"] is None
    play.host.running = []
    play.host.opened_by = ["another"]
    assert "its password does not open it" in kept(play(check=True))
    assert play.host.text("password") == OLD


@pytest.mark.parametrize("engine", ["restic", "borg"])
def test_check_mode_looks_with_the_password_that_opens_it(make: Any, engine: str) -> None:
    play = make(engine)
    play.host.opened_by = [NEW]
    assert play(check=True)["changed"] is True
    # Where nothing is there yet that could look, the real run will see.
    os.unlink(play._options["record"])
    assert play(check=True)["changed"] is True


def test_a_client_that_cannot_delete_keeps_the_old_password_and_says_why(make: Any) -> None:
    play = make()
    play.host.append_only = True
    play()
    done = play("retire")
    assert done["changed"] is False
    assert "403" in kept(done)
    assert play.host.text("password_old") == OLD


@pytest.mark.parametrize("point", ["cat config", "key add", "key list"])
def test_a_run_that_is_cut_off_leaves_a_password_that_opens(make: Any, point: str) -> None:
    play = make()
    play.host.cut_off_at = point
    with pytest.raises(CutOffError):
        play()
    assert play.host.text("password") in play.host.opened_by
    play.host.cut_off_at = None
    play()
    assert play.host.text("password") == NEW
    assert play.host.opened_by == [OLD, NEW]


@pytest.mark.parametrize("engine", ["restic", "borg"])
@pytest.mark.parametrize("writes", range(1, 7))
def test_a_run_that_is_cut_off_while_it_writes_is_gone_on_with(
    make: Any, monkeypatch: pytest.MonkeyPatch, engine: str, writes: int
) -> None:
    play = make(engine)
    left = writes
    really = Tree.write

    def write(tree: Tree, path: str, content: bytes, **options: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise CutOffError
        really(tree, path, content, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "write", write)
        try:
            play()
        except CutOffError:
            if engine == "restic":
                assert play.host.text("password") in play.host.opened_by
        else:
            assert left > 0
    play()
    assert play.host.text("password") == NEW
    assert play.host.text("password_next") is None
    expected = key_of(NEW) if engine == "restic" else _borg.key_hash(play.host.exported(NEW))
    assert play.record.key == expected


def test_a_run_that_is_cut_off_before_the_next_password_is_unlinked_keeps_the_old_one(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what opens the old key says which one is still to be removed."""
    play = make()

    def unlink(tree: Tree, path: str) -> None:
        raise CutOffError

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "unlink", unlink)
        with pytest.raises(CutOffError):
            play()
    assert (play.host.text("password"), play.host.text("password_next")) == (NEW, NEW)
    play()
    assert (play.host.text("password_next"), play.host.text("password_old")) == (None, OLD)
    play("retire")
    assert play.host.opened_by == [NEW]


@pytest.mark.parametrize("encryption", ["repokey-blake2", "keyfile-blake2"])
def test_borg_gets_another_passphrase(make: Any, encryption: str) -> None:
    play = make("borg", encryption=encryption)
    host = play.host
    done = play()
    exported = host.exported(NEW)
    assert done["repositories"][0]["key"] == _borg.key_hash(exported)
    assert host.text("borg_key") == exported.strip()
    assert (host.text("password"), host.text("password_next"), host.text("password_old")) == (NEW, None, None)
    identity = _secrets.Identity.parse((host.root / "vault.identity").read_text())
    # The escrow is as good as before, so a backup is not refused.
    assert (identity.borg_key, identity.fingerprint) == (_borg.key_hash(exported), "f" * 32)
    assert host.opened_by == ([NEW] if encryption == "repokey-blake2" else [OLD])
    # Backups are kept from starting first, and let go last.
    assert host.calls[1].startswith("systemd-run")
    assert host.calls[-1].startswith("systemctl stop holdfast-hold-vault.service")
    # The new passphrase is in the environment of the one process that needs it.
    assert sum("BORG_NEW_PASSPHRASE" in each for each in host.environments) == 1
    assert play("retire")["changed"] is False


@pytest.mark.parametrize("encryption", ["repokey-blake2", "keyfile-blake2"])
def test_a_passphrase_that_was_changed_is_used_whatever_borg_said_then(make: Any, encryption: str) -> None:
    """A client that kept the old one could back up no more until the next run."""
    play = make("borg", encryption=encryption)
    play.host.broken = True
    assert play()["changed"] is True
    assert (play.host.text("password"), play.host.text("password_next")) == (NEW, None)


def test_a_passphrase_that_cannot_be_changed_stays(make: Any) -> None:
    play = make("borg")
    really = play.host._borg

    def refused(argv: Sequence[str], given: dict[str, Any]) -> Result:
        if "change-passphrase" in argv:
            return recorded_borg.error(73, "LockTimeout", "Failed to create/acquire the lock (timeout).")
        return really(argv, given)

    play.host._borg = refused
    assert "its passphrase cannot be changed: Failed to create/acquire the lock" in kept(play())
    assert (play.host.text("password"), play.host.text("password_next")) == (OLD, NEW)


@pytest.mark.parametrize("unit", ["holdfast-system--vault.service", "holdfast-system--vault--pg.service"])
def test_a_backup_that_runs_is_not_disturbed(make: Any, unit: str) -> None:
    borg = make("borg")
    borg.host.running = ["holdfast-record@system--vault.service", unit]
    done = borg()
    assert done["changed"] is False
    assert kept(done) == f"a backup runs ({unit})"
    assert borg.host.text("password") == OLD
    assert not any("change-passphrase" in call for call in borg.host.calls)


def test_an_old_key_stays_while_a_backup_runs(make: Any) -> None:
    play = make()
    play.host.running = ["holdfast-system--vault.service"]
    # It has a key of its own, so a next one does not disturb it.
    assert play()["changed"] is True
    assert kept(play("retire")) == "a backup runs (holdfast-system--vault.service)"
    assert play.host.opened_by == [OLD, NEW]
    play.host.running = ["holdfast-record@system--vault.service"]
    assert play("retire")["changed"] is True


def test_a_lock_that_nobody_holds_is_removed_first(make: Any) -> None:
    """Left by a backup that was killed, or by a run that was cut off while, or after, it removed the key."""
    play = make()
    play()
    play.host.locked = True
    assert play("retire", check=True)["changed"]
    assert play.host.locked
    play.host.cut_off_at = "key remove"
    with pytest.raises(CutOffError):
        play("retire")
    play.host.cut_off_at = None
    play.host.locked = True
    assert play("retire")["changed"]
    assert (play.host.locked, play.host.opened_by) == (False, [NEW])


@pytest.mark.parametrize(
    ("lock", "why"),
    [
        ({"pid": os.getpid()}, None),
        (
            {"pid": os.getpid(), "comm": "restic"},
            f"in use by root on {os.uname().nodename} (process {os.getpid()}, since ",
        ),
        ({"hostname": "web2"}, None),
        ({"hostname": "web2", "time": "2126-11-21T12:58:00Z"}, "in use by root on web2 (process 4194305, since 2126"),
        (None, "what its lock 55555555 says cannot be read"),
        ("busy", "a backup runs (holdfast-system--vault.service)"),
    ],
)
def test_the_locks_of_the_living_stay(make: Any, monkeypatch: pytest.MonkeyPatch, lock: Any, why: str | None) -> None:
    """Of this host, who is a restic; of another one, who made the lock within half an hour. The process id alone says nothing."""
    play = make()
    play()
    play.host.locked = True
    if lock == "busy":
        really = play.host.__class__.__call__

        def call(host: Host, argv: Sequence[str], **given: Any) -> Result:
            if argv[0] == "systemd-run":
                host.running = ["holdfast-system--vault.service"]
            return really(host, argv, **given)

        monkeypatch.setattr(play.host.__class__, "__call__", call)
    else:
        comm = (lock or {}).pop("comm", None)
        if comm:
            monkeypatch.setattr(_locks, "program", lambda _pid: comm)
        play.host.lock = lock
    done = play("retire")
    if why is None:
        assert done["changed"]
        assert play.host.opened_by == [NEW]
    else:
        assert why in kept(done)
        assert play.host.opened_by == [OLD, NEW]
    assert play.host.locked == (why is not None)
    assert play.host.calls[-1].startswith("systemctl stop") or why is None


@pytest.mark.parametrize("unknown", [False, True])
def test_a_lock_that_another_host_makes_meanwhile_stays(
    make: Any, monkeypatch: pytest.MonkeyPatch, unknown: bool
) -> None:
    """Its runs nobody holds off."""
    play = make()
    play()
    play.host.locked = True
    really = play.host.__class__.__call__
    looked: list[str] = []

    def call(host: Host, argv: Sequence[str], **given: Any) -> Result:
        done = really(host, argv, **given)
        looked.extend(argv[-1:] if "cat" in argv and "lock" in argv else [])
        if "locks" in argv and looked:
            return Result(1, "", "Fatal: no") if unknown else Result(0, f"{done.stdout}{'6' * 64}\n")
        return done

    monkeypatch.setattr(play.host.__class__, "__call__", call)
    assert "another lock was made meanwhile" in kept(play("retire"))
    assert play.host.locked
    assert play.host.opened_by == [OLD, NEW]


def test_where_there_is_no_lock_nobody_is_held_off(make: Any) -> None:
    play = make()
    play()
    play.host.calls.clear()
    assert play("retire")["changed"]
    assert not any(each.startswith(("systemd-run", "unlock")) for each in play.host.calls)


def test_another_repository_is_not_taken_for_the_one_on_record(make: Any) -> None:
    play = make()
    other = recorded.OTHER_ID
    play.host._restic = lambda argv, given: recorded.config(other) if "cat" in argv else recorded.keys(key_of(NEW))
    assert f"it has the id {other}" in kept(play())
    assert play.host.text("password") == OLD


@pytest.mark.parametrize("remove", ["client", "server"])
def test_no_key_is_removed_from_another_repository(make: Any, remove: str) -> None:
    """That has come to be where the one on record was, and knows the old password."""
    play = make(remove=remove)
    play()
    really, other = play.host._restic, recorded.config(recorded.OTHER_ID)
    play.host._restic = lambda argv, given: other if "cat" in argv else really(argv, given)
    done = play("retire")
    assert kept(done) == "the old password does not open a key of its own there"
    assert done["repositories"][0]["old_key"] is None
    assert play.host.opened_by == [OLD, NEW]


@pytest.mark.parametrize("remove", ["client", "server"])
def test_the_key_in_use_is_not_taken_for_the_old_one(make: Any, remove: str) -> None:
    """Of an old password that is the new one, but for the end of its line."""
    play = make(remove=remove)
    play()
    path = play.host.root / "vault.password_old"
    path.chmod(0o600)
    path.write_text(NEW)
    done = play("retire")
    assert kept(done) == "the old password does not open a key of its own there"
    assert done["repositories"][0]["old_key"] is None
    assert play.host.opened_by == [OLD, NEW]


@pytest.mark.parametrize("engine", ["restic", "borg"])
@pytest.mark.parametrize("used", [False, True])
def test_a_client_that_was_lost_goes_on_with_what_the_escrow_had(make: Any, engine: str, used: bool) -> None:
    """Without a record: whether the repository knew the next password before, it does so afterwards, and has no other key."""
    play = make(engine)
    os.unlink(play._options["record"])
    if used:
        play.host.opened_by = [NEW] if engine == "borg" else [OLD, NEW]
    assert play()["changed"]
    old = OLD if engine == "restic" else None
    host = play.host
    assert (host.text("password"), host.text("password_next"), host.text("password_old")) == (NEW, None, old)
    assert play.record.key == (key_of(NEW) if engine == "restic" else _borg.key_hash(host.exported(NEW)))
    assert host.opened_by == ([OLD, NEW] if engine == "restic" else [NEW])


@pytest.mark.parametrize("engine", ["restic", "borg"])
def test_without_a_record_and_with_no_password_that_opens_it_nothing_is_done(make: Any, engine: str) -> None:
    play = make(engine)
    os.unlink(play._options["record"])
    play.host.opened_by = ["another"]
    assert "it has no record, and its password does not open it" in kept(play())
    assert (play.host.text("password"), play.host.text("password_next")) == (OLD, NEW)
    assert not Path(play._options["record"]).exists()


@pytest.mark.parametrize("phase", ["retire", "forget"])
def test_without_a_record_no_key_is_removed(make: Any, phase: str) -> None:
    """Only a record says which key is the one in use."""
    play = make()
    play()
    os.unlink(play._options["record"])
    assert "run the playbook site first" in kept(play(phase))
    assert play.host.opened_by == [OLD, NEW]


def test_an_empty_or_foreign_next_password_is_refused(make: Any) -> None:
    play = make()
    path = play.host.root / "vault.password_next"
    path.chmod(0o600)
    path.write_text("\n")
    assert "is no password of root's" in kept(play())
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert "is no password of root's" in kept(play())
    assert play.host.calls == []


@pytest.mark.parametrize("engine", ["restic", "borg"])
def test_root_writes_nothing_where_another_account_may_have_put_links(make: Any, tmp_path: Path, engine: str) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/config").touch()
    play = make(engine, repository=str(tmp_path / "repository"), user="nobody")
    assert "belongs to another account: run the playbook site" in kept(play())
    assert not [call for call in play.host.calls if not call.startswith("system")]
