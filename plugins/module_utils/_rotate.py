# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take a repository from its password to the next one, and its old key away.

Which files there are says how far a change is, so that a run that was cut off is gone on with: `password_next` until it is
the current one, `password_old` until its key is gone. The files are written in such an order that what is there opens the
repository, but for the moment in which borg's one key has the new passphrase and the file has not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from . import _borg, _hold, _record, _secrets
from ._borg import Borg
from ._ensure import PLACEHOLDER, prepare, tool
from ._files import Tree, UnsafePathError
from ._outcome import PRESENT, WRONG_KEY
from ._record import Record
from ._restic import EngineError, Look, Restic
from ._run import Result
from ._run import run as run_program
from ._source import Source

KEY = re.compile(r"\A[0-9a-f]{64}\Z")
KEYFILE = "keyfile-blake2"
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Rotated:
    """What became of one repository's password.

    `kept` says in words why the old password, or its key, stays for now; `old_key` is the id of a key that somebody else
    has to remove.
    """

    name: str
    action: str = "none"
    changed: bool = False
    kept: str | None = None
    id: str | None = None
    key: str | None = None
    old_key: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the module's result for this repository."""
        return asdict(self)


class Rotation:
    """One repository. `options` are those of the module, and name no secret. Raises ValueError, UnsafePathError."""

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        check_mode: bool,
        timeout: float,
        runner: Callable[..., Result] = run_program,
    ) -> None:
        self.name: str = options["name"]
        self._options = options
        self._check_mode = check_mode
        self._timeout = timeout
        self._runner = runner
        self._target = prepare(options, check_mode=check_mode, verify=True)
        self._password_file: str = options["password_file"]
        self._next_file = f"{self._password_file}_next"
        self._old_file = f"{self._password_file}_old"

    def use(self) -> Rotated:
        """Make the next password the current one, if there is one. Raises EngineError, UnsafePathError, OSError."""
        following = self._read(self._next_file)
        if self._check_mode:
            return self._foreseen(following)
        if following is None:
            return Rotated(self.name)
        source, record = self._source(), self._target.record
        new = replace(source, password_file=self._next_file, password=following)
        if self._target.options["engine"] == _borg.ENGINE:
            return self._use_borg(source, new, record)
        look = self._tool(new).look(key=True)
        if look.state == WRONG_KEY:
            record = record or self._adopted(source)
            added = self._restic(source, record.key).key_add(following)
            look = self._tool(new).look(key=True)
            if look.state != PRESENT and added.code != 0:
                raise EngineError(f"its next key cannot be made: {self._tool(new).explain(added)}")
        return self._switch(look, source, new, record)

    def _foreseen(self, following: bytes | None) -> Rotated:
        """What the real run will do. Without a next password it will have made one by then."""
        record = self._target.record
        used = Rotated(self.name, "use", True, id=record.id if record is not None else PLACEHOLDER, key=PLACEHOLDER)
        if record is None or self._target.source is None:
            # Nothing is here yet that could look.
            return used
        borg = self._target.options["engine"] == _borg.ENGINE
        busy = _hold.running(self.name, runner=self._runner) if borg else []
        if busy:
            return self._wait(record, f"a backup runs ({', '.join(busy)})")
        source = self._target.source
        key = self._kept_key()
        look = self._tool(source, key).look()
        if look.state != PRESENT and following is not None:
            look = self._tool(replace(source, password_file=self._next_file, password=following), key).look()
        return used if look.state == PRESENT else self._wait(record, f"its password does not open it: {look.reason}")

    def _use_borg(self, source: Source, new: Source, record: Record | None) -> Rotated:
        # borg has one key: a backup that has begun would go on with a passphrase that opens nothing.
        with _hold.held_off(self.name, runner=self._runner):
            busy = _hold.running(self.name, runner=self._runner)
            if busy:
                return self._wait(record, f"a backup runs ({', '.join(busy)})")
            key = self._kept_key()
            # A run that was cut off may have changed it.
            look = self._tool(new, key).look(key=True)
            if look.state != PRESENT:
                record = record or self._adopted(source, key)
                result, key = self._borg(source, key).change_passphrase(new.password)
                # Whatever it says, it may have got so far: a connection that broke after the server wrote the key, say.
                look = self._tool(new, key).look(key=True)
                if look.state != PRESENT and result.code != 0:
                    raise EngineError(f"its passphrase cannot be changed: {self._borg(source).explain(result)}")
            return self._switch(look, source, new, record)

    def _adopted(self, source: Source, key: str | None = None) -> Record:
        """What the password in use opens, of a client that was lost and has no record yet."""
        look = self._tool(source, key).look(key=True)
        if look.state != PRESENT or look.id is None or look.key is None:
            raise EngineError(f"it has no record, and its password does not open it: {look.reason}")
        return Record(look.id, look.key, PLACEHOLDER)

    def _switch(self, look: Look, source: Source, new: Source, record: Record | None) -> Rotated:
        """Write down what the next password was seen to open."""
        if look.state != PRESENT or look.id is None or look.key is None:
            raise EngineError(f"its next password does not open it: {look.reason}")
        if record is not None and look.id != record.id:
            raise EngineError(f"it has the id {look.id}, but the record says {record.id}: run the playbook site")
        directory = os.path.dirname(self._password_file)
        with Tree() as tree:
            tree.lock(directory, timeout=_LOCK_SECONDS)
            if look.exported is not None:
                _write(tree, self._options["key_file"], look.exported.encode("ascii"))
                self._keep_key_hash(tree, look.key)
            made = _record.make_key(tree, os.path.dirname(self._target.record_path))
            learnt = Record(look.id, look.key, _record.fingerprint(made, new), record.way if record else None)
            _record.write(tree, self._target.record_path, learnt)
            if look.exported is None and source.password != new.password:
                _write(tree, self._old_file, source.password)
            _write(tree, self._password_file, new.password)
            tree.unlink(self._next_file)
        return Rotated(self.name, "use", True, id=look.id, key=look.key)

    def _kept_key(self) -> str | None:
        """The key of a keyfile repository of borg, which is on this host alone."""
        return _borg.read_key(self._options["key_file"]) if self._options["encryption"] == KEYFILE else None

    def _keep_key_hash(self, tree: Tree, key_hash: str) -> None:
        """Say in the identity that the escrow holds today's key of borg: its bundle has both passphrases, and either opens it."""
        path = f"{os.path.splitext(self._password_file)[0]}.identity"
        entry = tree.entry(path)
        if entry is not None and entry.kind == "file":
            identity = _secrets.Identity.parse(entry.content.decode("utf-8"))
            _write(tree, path, replace(identity, borg_key=key_hash).render().encode("utf-8"))

    def retire(self, *, forget: bool = False) -> Rotated:
        """Remove the key of the password before, or say which one it is. Raises EngineError, UnsafePathError, OSError.

        `forget` is whether the server removed it just now, which check mode cannot see.
        """
        old = self._read(self._old_file)
        if old is None:
            return self._announced(forget) if self._check_mode else Rotated(self.name)
        source, record = self._known()
        mine = replace(source, password_file=self._old_file, password=old)
        if old == source.password:
            # Left by a run that was cut off before the next one was the current one.
            return self._forget(record)
        busy = _hold.running(self.name, runner=self._runner)
        if busy:
            # It may have begun with the old password, and not have opened the repository yet.
            return self._wait(record, f"a backup runs ({', '.join(busy)})")
        if self._options["engine"] != _borg.ENGINE and self._options["remove"] == "client" and not self._check_mode:
            held = self._unlocked(self._restic(source, record.key), record)
            if held is not None:
                return held
        look = self._tool(mine).look(key=True)
        if look.state == WRONG_KEY:
            return self._forget(record)
        if look.state != PRESENT:
            return self._wait(record, f"it is {look.state}: {look.reason}")
        key = look.key or ""
        if look.id != record.id or KEY.match(key) is None or key == record.key:
            return self._wait(record, "the old password does not open a key of its own there")
        if self._options["remove"] == "server" and not (forget and self._check_mode):
            return replace(self._wait(record, f"its server has to remove keys/{key}"), old_key=key)
        if self._check_mode:
            return Rotated(self.name, "remove", True, id=record.id, key=record.key)
        removed = self._restic(source, record.key).key_remove(key)
        if self._tool(mine).look().state == WRONG_KEY:
            return self._forget(record)
        return self._wait(record, f"keys/{key} cannot be removed: {self._tool(source).explain(removed)}")

    def _unlocked(self, restic: Restic, record: Record) -> Rotated | None:
        """Remove locks that nobody holds; returns what waits where somebody holds one.

        To remove a key restic locks out everybody. A run that was cut off meanwhile left that lock, which stops all backups;
        and one that a killed backup left would keep the key.
        """
        if not restic.ids("locks"):
            return None
        # A run that begins meanwhile would lose its lock.
        with _hold.held_off(self.name, runner=self._runner):
            looked = restic.ids("locks") or []
            holders = restic.holders(looked)
            if holders:
                return self._wait(record, f"it is in use by {'; '.join(holders)}")
            busy = _hold.running(self.name, runner=self._runner)
            if busy:
                return self._wait(record, f"a backup runs ({', '.join(busy)})")
            # To look at many locks takes long, and the runs of other hosts nobody holds off.
            now = restic.ids("locks")
            if now is None or set(now).difference(looked):
                return self._wait(record, "it is in use: another lock was made meanwhile")
            restic.remove_locks()
        return None

    def _announced(self, forget: bool) -> Rotated:
        """What there will be to do in the real run, which comes here with a new password."""
        if self._options["engine"] == _borg.ENGINE:
            return Rotated(self.name)
        busy = _hold.running(self.name, runner=self._runner)
        if busy:
            return Rotated(self.name, kept=f"a backup runs ({', '.join(busy)})")
        if self._options["remove"] == "server" and not forget:
            return Rotated(self.name, key=PLACEHOLDER, old_key=PLACEHOLDER, kept="its server has to remove it")
        return Rotated(self.name, "remove", True, key=PLACEHOLDER)

    def _forget(self, record: Record) -> Rotated:
        if not self._check_mode:
            with Tree() as tree:
                tree.unlink(self._old_file)
        return Rotated(self.name, "remove", True, id=record.id, key=record.key)

    def _wait(self, record: Record | None, why: str) -> Rotated:
        waits = Rotated(self.name, kept=why)
        return waits if record is None else replace(waits, id=record.id, key=record.key)

    def _source(self) -> Source:
        if self._target.source is None:
            raise EngineError(f"it cannot be opened yet: {self._target.unchecked}")
        if self._target.misowned:
            # Who may have put links where root would write.
            raise EngineError("it belongs to another account: run the playbook site first")
        return self._target.source

    def _known(self) -> tuple[Source, Record]:
        if self._target.record is None:
            raise EngineError("it has no record yet: run the playbook site first")
        return self._source(), self._target.record

    def _read(self, path: str) -> bytes | None:
        with Tree() as tree:
            entry = tree.entry(path)
        if entry is None:
            return None
        if entry.kind != "file" or entry.uid not in (0, os.geteuid()) or not entry.content.strip():
            raise EngineError(f"{path} is no password of root's: restore it from a backup of this host, or remove it")
        return entry.content

    def _tool(self, source: Source, key: str | None = None, key_hint: str | None = None) -> Restic | Borg:
        return tool(
            self._target,
            source,
            timeout=self._timeout,
            key_hint=key_hint,
            key=key,
            user=None if self._target.misowned else self._options["user"],
            runner=self._runner,
        )

    def _restic(self, source: Source, key_hint: str) -> Restic:
        return cast(Restic, self._tool(source, key_hint=key_hint))

    def _borg(self, source: Source, key: str | None = None) -> Borg:
        return cast(Borg, self._tool(source, key))


def _write(tree: Tree, path: str, content: bytes) -> None:
    tree.write(path, content, uid=os.geteuid(), gid=os.getegid(), mode=0o400)


def rotate(
    options: Mapping[str, Any],
    phase: str,
    *,
    check_mode: bool,
    timeout: float,
    runner: Callable[..., Result] = run_program,
) -> Rotated:
    """Do one phase (`use`, `retire`, `forget`) of one repository; a failure is why something is `kept`, never raised."""
    try:
        rotation = Rotation(options, check_mode=check_mode, timeout=timeout, runner=runner)
        return rotation.use() if phase == "use" else rotation.retire(forget=phase == "forget")
    except (EngineError, UnsafePathError, OSError, ValueError, _secrets.SecretsError) as error:
        return Rotated(options["name"], kept=str(error))
