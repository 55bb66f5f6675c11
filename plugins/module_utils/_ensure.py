# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make sure that a declared repository is there, and that its record says which one it is."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import _borg, _causes, _owner, _record, _restic, _source
from ._borg import Borg
from ._files import Tree, UnsafePathError
from ._location import mount_problem, redact
from ._model import Repository
from ._outcome import ABSENT, DAMAGED, LOCKED, PRESENT, UNREACHABLE, WRONG_KEY
from ._record import Record
from ._restic import EngineError, Look, MissingBinaryError, Restic, find_binary
from ._run import Result, account
from ._run import run as run_program
from ._source import MissingFileError, Source

RECORDS = "/var/lib/holdfast/repositories"
NAME = re.compile(r"\A[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
NAME_LENGTH = 28
# Several repositories are done at once, and the first makes the key of all fingerprints.
_WRITING = threading.Lock()
# What a server says that cannot read its own files; a disk that was kept belongs to the accounts of the system before.
_UNREADABLE = ("HTTP 500", "permission denied")
_GIVE = (
    "look at whom it belongs to on its server, chown -R it to the account that serves it, and run again (docs/operating.md, "
    '"A server was lost or moved")'
)
PLACEHOLDER = "<made in the first real run>"

ENGINES = (_restic.ENGINE, _borg.ENGINE)
_MINIMUM = {_restic.ENGINE: _restic.INIT_MINIMUM, _borg.ENGINE: _borg.INIT_MINIMUM}
# What only one of the engines has.
_ONLY = {
    _restic.ENGINE: ("options", "cacert", "proxy", "repository_version", "from_repo", "cache_directory"),
    _borg.ENGINE: ("encryption", "key_file", "base_directory", "ssh_command"),
}

CURES = {
    LOCKED: "let the other process end; a lock that nobody holds any more is removed by 'holdfast unlock JOB' on the host"
    " ('restic unlock', 'borg break-lock')",
    WRONG_KEY: "put the repository's own password into the password file; it is never initialised again",
    UNREACHABLE: "make it reachable and run again",
    DAMAGED: "repair it where it lies, or restore it from a copy",
    ABSENT: "see the reason",
}


@dataclass(frozen=True)
class Target:
    """A declared repository with what its files say.

    `opening` is whether the repository has to be opened: no record applies, or somebody wants to be sure. `unchecked`
    is why it cannot be looked at yet (check mode). `misowned` is whether it belongs to another account than `user`.
    """

    name: str
    options: Mapping[str, Any]
    record_path: str
    binary: str = ""
    source: Source | None = None
    from_source: Source | None = None
    record: Record | None = None
    fingerprint: str | None = None
    opening: bool = True
    unchecked: str | None = None
    misowned: bool = False

    @property
    def current(self) -> bool:
        """Whether the record was made for this location and password, and by this way to it."""
        return (
            self.record is not None
            and self.record.fingerprint == self.fingerprint
            and self.options.get("way") in (None, self.record.way)
        )

    @property
    def recorded_here(self) -> bool:
        """Whether the record is, or may be, about this very location."""
        return self.record is not None and (self.fingerprint is None or self.record.same_location(self.fingerprint))


@dataclass(frozen=True)
class Done:
    """What was found and done (in check mode: would be done) for one repository.

    `key` is the id of the key that the password opens.
    """

    name: str
    repository: Repository
    action: str = "none"
    changed: bool = False
    error: str | None = None
    warning: str | None = None
    key: str | None = None
    record_path: str = ""
    before: str = ""
    after: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the module's result for this repository."""
        result = {"name": self.name, "action": self.action, "changed": self.changed, "key": self.key}
        return {**result, **self.repository.to_dict()}


def _from_source(options: Mapping[str, Any], source: Source, where: str) -> Source | None:
    if not options.get("from_repo"):
        return None
    other = _source.load(options["from_repo"], f"{where}from_repo.")
    clash = sorted(name for name, value in other.environment.items() if source.environment.get(name, value) != value)
    if clash:
        raise ValueError(
            f"{where}from_repo.environment_file: {', '.join(clash)} has another value in environment_file, and restic "
            "takes one value for both repositories: make them equal"
        )
    return other


def prepare(options: Mapping[str, Any], *, check_mode: bool, verify: bool) -> Target:
    """Return the target that one entry of `repositories` declares; nothing is opened or changed.

    In check mode a file, an account or a program that is not there yet makes it unchecked. Raises ValueError (or
    UnsafePathError, MissingBinaryError) naming option, value and cure.
    """
    name = options["name"]
    if NAME.match(name) is None or len(name) > NAME_LENGTH:
        raise ValueError(
            f"repositories: the name {name!r} is not lower case letters, digits and single hyphens, beginning with a "
            f"letter, {NAME_LENGTH} characters at most: rename it"
        )
    where = f"repositories[{name}]."
    _check_engine(options, where)
    path = options["record"] or f"{RECORDS}/{name}.env"
    if not os.path.isabs(path):
        raise ValueError(f"{where}record: {path!r} is not an absolute path: write the whole path")
    with Tree() as tree:
        record = _record.read(tree, path)
        key = _record.read_key(tree, os.path.dirname(path))
    target = Target(name, options, path, record=record)
    try:
        source = _source.load(options, where)
        fingerprint = None if key is None else _record.fingerprint(key, source)
        target = replace(target, source=source, fingerprint=fingerprint)
        target = replace(target, opening=verify or not target.current or not _key_is_kept(options, record))
        if options["mount"]:
            mount_problem(options["mount"], source.path)
        if options["user"]:
            if source.path is None:
                raise ValueError(f"{where}user: only a local repository can belong to an account: remove it")
            try:
                owner = account(options["user"])
                target = replace(target, misowned=_owner.belongs_to_another(source.path, owner))
            except ValueError as error:
                if not check_mode:
                    raise
                target = replace(target, unchecked=str(error))
        if not target.opening:
            return target
        return replace(
            target,
            from_source=_from_source(options, source, where),
            binary=find_binary(options["binary"] or options["engine"]),
        )
    except (MissingFileError, MissingBinaryError) as error:
        if not check_mode:
            raise
        return replace(target, unchecked=str(error))


def _check_engine(options: Mapping[str, Any], where: str) -> None:
    engine = options["engine"]
    if engine not in ENGINES:
        raise ValueError(f"{where}engine: {engine!r} is not supported: use {' or '.join(ENGINES)}")
    for other, names in _ONLY.items():
        for name in names:
            if other != engine and options.get(name):
                raise ValueError(f"{where}{name}: it is for engine {other} only, and this one is {engine}: remove it")
    if engine == _borg.ENGINE and not options.get("key_file"):
        raise ValueError(f"{where}key_file: it is missing: name the file that keeps the exported key for the escrow")


def tool(
    target: Target,
    source: Source,
    *,
    timeout: float,
    user: str | None,
    key_hint: str | None = None,
    key: str | None = None,
    runner: Callable[..., Result] = run_program,
) -> Restic | Borg:
    """Return the engine on `source`. `key_hint` is for restic, `key` the exported key of a keyfile repository of borg."""
    options = target.options
    if options["engine"] == _borg.ENGINE:
        return Borg(
            source,
            binary=target.binary,
            timeout=timeout,
            base_directory=options["base_directory"] or _borg.BASE_DIRECTORY,
            rsh=options["ssh_command"],
            key=key,
            user=user,
            runner=runner,
        )
    return Restic(
        source,
        binary=target.binary,
        timeout=timeout,
        options=options["options"],
        cache_directory=options["cache_directory"],
        key_hint=key_hint,
        proxy=options["proxy"],
        user=user,
        runner=runner,
    )


class Ensure:
    """Bring one target to `present`."""

    def __init__(
        self, target: Target, *, check_mode: bool, timeout: float, runner: Callable[..., Result] = run_program
    ) -> None:
        if target.source is None:
            raise ValueError("an unchecked target cannot be opened")
        self._target = target
        self._source = target.source
        self._check_mode = check_mode
        self._timeout = timeout
        self._runner = runner

    def _tool(self, key_hint: str | None) -> Restic | Borg:
        options = self._target.options
        return tool(
            self._target,
            self._source,
            timeout=self._timeout,
            key_hint=key_hint,
            key=_borg.read_key(options["key_file"]) if options.get("encryption") == "keyfile-blake2" else None,
            user=self._user,
            runner=self._runner,
        )

    @property
    def _user(self) -> str | None:
        """Until it belongs to its account, root looks at it (borg as whom it belongs to)."""
        return None if self._target.misowned else self._target.options["user"]

    def _repository(self, look: Look) -> Repository:
        return Repository(
            self._source.public_location,
            self._target.options["engine"],
            state=look.state,
            reason=look.reason,
            id=look.id,
            format_version=look.format_version,
        )

    def _failed(self, look: Look, why: str) -> Done:
        return Done(
            self._target.name,
            self._repository(look),
            error=f"{self._target.name} ({self._source.public_location}) is {look.state}: {why}",
        )

    def run(self) -> Done:
        """Look, initialise what is absent, adopt what is present, refuse everything else. Raises EngineError."""
        target = self._target
        if target.options["mount"]:
            problem = mount_problem(target.options["mount"], self._source.path)
            if problem is not None:
                return self._failed(Look(UNREACHABLE, problem), f"{problem}; mount it and run again")
        look = self._tool(target.record.key if target.record else None).look(key=True)
        if look.state == ABSENT:
            return self._absent(look)
        if look.state == PRESENT:
            return self._present(look, "adopt")
        if look.state == UNREACHABLE and self._check_mode:
            changed = not target.current
            return Done(
                target.name,
                self._repository(look),
                action="init" if changed and target.record is None else "none",
                changed=changed,
                warning=f"{target.name} ({self._source.public_location}) could not be checked: {look.reason}",
            )
        return self._failed(look, f"{look.reason}; {self._cure(look)}")

    def _cure(self, look: Look) -> str:
        if self._source.path is None and look.state == UNREACHABLE and look.reason in _UNREADABLE:
            return _GIVE
        return _cure(self._target.name, look)

    def _absent(self, look: Look) -> Done:
        target = self._target
        record = target.record
        if record is not None and target.recorded_here:
            return self._failed(
                look,
                f"the record {target.record_path} says that repository {record.id} was here; bring it back, or remove "
                "the record to have a new one made",
            )
        if self._check_mode:
            return self._done(look, "init", None)
        tool = self._tool(None)
        version, minimum = tool.version(), _MINIMUM[target.options["engine"]]
        if version < minimum:
            return self._failed(
                look,
                f"{target.options['engine']} {'.'.join(map(str, version))} cannot prove absence: initialising needs "
                f"{'.'.join(map(str, minimum))} or later; install it",
            )
        if isinstance(tool, Borg):
            if _borg.read_key(target.options["key_file"]) is not None:
                return self._failed(
                    look,
                    f"{target.options['key_file']} holds the key of a repository that is not here; bring it back, or move"
                    " that file away to have a new one made",
                )
            result = tool.init(target.options["encryption"] or _borg.ENCRYPTIONS[0])
        else:
            result = tool.init(repository_version=target.options["repository_version"], from_source=target.from_source)
        # Only the repository itself is proof: somebody else may have been faster.
        seen = self._tool(None).look(key=True)
        if result.code != 0:
            why = tool.explain(result)
            if seen.state == PRESENT:
                return self._present(seen, "adopt")
            leftovers = tool.leftovers(result)
            if leftovers is not None:
                seen = Look(DAMAGED, leftovers)
                why = f"{why}; restore the config file, or remove the left-overs of an init that was interrupted"
            return self._failed(seen, f"init failed: {why}")
        if seen.state != PRESENT:
            return self._failed(seen, f"init succeeded, but then: {seen.reason}; {_cure(target.name, seen)}")
        made = _made_id(result.stdout)
        if made is not None and made != seen.id:
            return self._failed(seen, f"init made {made}, but {seen.id} is there: two runs met; run again")
        # The record that is left over is about another location.
        return self._done(seen, "init", None)

    def _present(self, look: Look, action: str) -> Done:
        target = self._target
        record = target.record
        if record is None:
            if not target.options["adopt"]:
                return self._failed(
                    look,
                    f"there is a repository {look.id} without a record and adopt is false; allow it, or remove one",
                )
            return self._done(look, action, None)
        if record.id != look.id:
            return self._failed(
                look,
                f"it has the id {look.id}, but the record {target.record_path} says {record.id}; correct the location, "
                "or remove the record if the repository was replaced on purpose",
            )
        if not _same_key(record.key, look.key or ""):
            return self._failed(
                look,
                f"the password opens its key {look.key}, but the record {target.record_path} says {record.key}; put "
                "the recorded password back, or remove the record if the password was changed on purpose",
            )
        return self._done(look, action, record)

    def _done(self, look: Look, action: str, record: Record | None) -> Done:
        """Write the record if it is not what it should be, and return what was done."""
        target = self._target
        before = target.record.render() if target.record else ""
        # Who does not say by which way leaves it as it is.
        way = target.options.get("way") or (target.record.way if target.record else None)
        key = None
        if look.state == PRESENT:
            # The longer spelling of the same id.
            key = max(record.key if record else "", look.key or "", key=len)
            after = self._write(Record(look.id or "", key, target.fingerprint or PLACEHOLDER, way))
        else:
            after = Record(PLACEHOLDER, PLACEHOLDER, target.fingerprint or PLACEHOLDER, way).render()
        kept = self._keep_key(look)
        changed = after != before or kept
        if target.record is not None and not kept and after == replace(target.record, way=way).render():
            # By another way, to what is on record: that teaches nothing that the escrow lacks.
            action = "way"
        return Done(
            target.name,
            self._repository(look),
            action=action if changed else "none",
            changed=changed,
            key=key,
            record_path=target.record_path,
            before=before,
            after=after,
        )

    def _keep_key(self, look: Look) -> bool:
        """Keep borg's exported key where the escrow takes it from; return whether it was not there, or another one."""
        path = self._target.options.get("key_file")
        if path is None or (look.exported is not None and look.exported == _borg.read_key(path)):
            return False
        if look.exported is not None and not self._check_mode:
            with Tree() as tree:
                tree.make_parents(path)
                tree.write(path, look.exported.encode("ascii"), uid=os.geteuid(), gid=os.getegid(), mode=0o400)
        return True

    def _write(self, record: Record) -> str:
        target = self._target
        if record == target.record or self._check_mode:
            return record.render()
        with _WRITING, Tree() as tree:
            key = _record.make_key(tree, os.path.dirname(target.record_path))
            record = replace(record, fingerprint=_record.fingerprint(key, self._source))
            _record.write(tree, target.record_path, record)
        return record.render()


def _key_is_kept(options: Mapping[str, Any], record: Record | None) -> bool:
    """Tell whether the exported key on this host is the recorded one (restic has none)."""
    if options["engine"] != _borg.ENGINE:
        return True
    stored = _borg.read_key(options["key_file"])
    return stored is not None and record is not None and _borg.key_hash(stored) == record.key


def _cure(name: str, look: Look) -> str:
    return (_causes.cure(look.reason) or CURES[look.state]).format(name=name)


def _made_id(stdout: str) -> str | None:
    """Return the id that `init --json` printed, None if it printed none."""
    try:
        return str(json.loads(stdout)["id"])
    except (ValueError, KeyError, TypeError):
        return None


def _same_key(one: str, other: str) -> bool:
    """Compare key ids; restic before 0.17 shows the beginning only."""
    return one.startswith(other) or other.startswith(one)


def ensure(target: Target, *, check_mode: bool, timeout: float, runner: Callable[..., Result] = run_program) -> Done:
    """Bring `target` to `present` and return what was done; a failure is in `error`, never raised."""
    done = _ensure(target, check_mode=check_mode, timeout=timeout, runner=runner)
    if done.error is not None and not check_mode:
        done = _doubt(target, done)
    if not target.misowned or done.error is not None or target.source is None or target.source.path is None:
        return done
    # After it was found to be the right one.
    path, user = target.source.path, target.options["user"]
    try:
        if not check_mode:
            _owner.give(path, account(user))
    except (UnsafePathError, OSError) as error:
        return replace(done, error=f"{target.name}: {error}")
    if done.changed:
        return done
    return replace(done, action="own", changed=True, record_path=path, before="", after=f"belongs to {user}\n")


def _doubt(target: Target, done: Done) -> Done:
    """Let each run look again until it is found as recorded: one that nobody tells to would otherwise end well."""
    if target.record is None or not target.current:
        return done
    try:
        with _WRITING, Tree() as tree:
            _record.write(tree, target.record_path, target.record.doubted())
    except (UnsafePathError, OSError) as error:
        return replace(done, error=f"{done.error}; {error}")
    return done


def _ensure(target: Target, *, check_mode: bool, timeout: float, runner: Callable[..., Result]) -> Done:
    if target.unchecked is not None or target.source is None:
        location = target.source.public_location if target.source else redact(target.options["repository"] or "")
        repository = Repository(
            location, target.options["engine"], state=None, reason=f"not checked: {target.unchecked}"
        )
        return Done(
            target.name,
            repository,
            action="init" if target.record is None else "adopt",
            changed=True,
            record_path=target.record_path,
            before=target.record.render() if target.record else "",
            after=Record(PLACEHOLDER, PLACEHOLDER, PLACEHOLDER).render(),
        )
    if not target.opening and target.record is not None:
        reason = "not checked: the record applies, so the repository was not opened"
        repository = Repository(
            target.source.public_location, target.options["engine"], reason=reason, id=target.record.id
        )
        return Done(target.name, repository, key=target.record.key)
    path = target.source.path
    try:
        if target.misowned and path is not None and not check_mode:
            owner = account(target.options["user"])
            if _owner.is_begun(path, owner):
                # The role has given the directory, or it was cut off: its former account reaches nothing of it any more, and
                # what two accounts own neither can open.
                _owner.give(path, owner)
        return Ensure(target, check_mode=check_mode, timeout=timeout, runner=runner).run()
    except (EngineError, UnsafePathError, OSError) as error:
        repository = Repository(
            target.source.public_location, target.options["engine"], state=UNREACHABLE, reason=str(error)
        )
        return Done(target.name, repository, error=f"{target.name}: {error}")


def clash(targets: Sequence[Target]) -> str | None:
    """Return in words what two targets share and must not, None if nothing."""
    shared = {
        "name": [target.name for target in targets],
        "record": [target.record_path for target in targets],
        "repository": [target.source.public_location for target in targets if target.source is not None],
    }
    for what, values in shared.items():
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            return f"repositories: {what} {twice[0]!r} is given more than once: every repository needs its own"
    return None
