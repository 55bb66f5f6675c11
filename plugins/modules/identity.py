#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: identity
short_description: Make and keep the secrets of a backup client, and their escrow bundles
version_added: '0.1.0'
author: holdfast contributors (@holdfast-backup)
description:
  - Makes the repository passwords and REST passwords of one client on that client, and keeps them. They never leave it in
    plaintext; what travels are bcrypt hashes and bundles encrypted with C(age).
  - Every repository is checked before any is changed.
  - New secrets are never made where the controller's state directory or the client itself shows that there have been
    some. An existing password is never overwritten.
options:
  directory:
    description: Where the secrets are; owned by root, mode C(0700).
    type: path
    default: /etc/holdfast/secrets
  records:
    description: Where the records of the module M(holdfast.backup.repository) are.
    type: path
    default: /var/lib/holdfast/repositories
  fleet_id:
    description: Identifier of the fleet, as the state directory has it.
    type: str
    required: true
  host:
    description: The client's C(backup_id).
    type: str
    required: true
  bcrypt_cost:
    description: Cost of the bcrypt hashes of REST passwords. A hash of another cost is made anew, of the same password.
    type: int
    default: 12
  prune:
    description:
      - Remove the secrets of repositories that are no longer declared.
      - Only those go whose present escrow bundle, for the recipients of today, is listed in O(escrow.have); the others stay, are in
        RV(stale) and warned of.
    type: bool
    default: false
  repositories:
    description: All repositories of the client.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the repository.
        type: str
        required: true
      engine:
        description: The backup tool.
        type: str
        default: restic
      access:
        description: How the repository is reached. Only V(rest) has REST passwords.
        type: str
        required: true
      location:
        description:
          - Location as the tool takes it, without credentials.
          - For O(repositories[].access=rest) of the form C(rest:https://HOST:PORT/PATH/); user and password are put in.
        type: str
        required: true
      rest_user:
        description: User of the rest-server; needed for O(repositories[].access=rest).
        type: str
      rest_password:
        description: REST password from the escrow, for a client that has none. It never replaces another one.
        type: str
      password:
        description:
          - Password of a repository that exists already, or the one from the escrow.
          - Without it one is made on the client.
        type: str
      next_password:
        description:
          - Password from the escrow that was to replace O(repositories[].password), for a client that was lost. It is kept in
            C(<name>.password_next), and the change is gone on with.
        type: str
      old_password:
        description:
          - Password from the escrow that O(repositories[].password) replaced, for a client that was lost. Its key may not have been
            removed, so it is kept in C(<name>.password_old). Not for borg, which has one key.
        type: str
      environment:
        description: Credentials of the storage, as environment variables.
        type: dict
        default: {}
      known:
        description: Whether the controller's state directory has a hash or an escrow bundle of this repository.
        type: bool
        default: false
      hold:
        description:
          - Let runs of this repository that begin wait, if there is a next REST password or SSH key of any repository with this option,
            since servers are told of it now, and end connections that were made with the one before. They wait until this
            module is run without this option, a quarter of an hour at most.
        type: bool
        default: false
      password_rotate:
        description:
          - Make a next password of the repository, unless one is there or the key of the one before has not been removed yet. It
            is kept in C(<name>.password_next) and is part of the bundle; the module M(holdfast.backup.repository_password)
            takes it into use.
        type: bool
        default: false
      password_used:
        description:
          - The module M(holdfast.backup.repository_password) took the next password into use, or would have. In check mode it has not,
            and what is to follow is announced by this.
        type: bool
        default: false
      rest_rotate:
        description: Make a next REST password if there is none.
        type: bool
        default: false
      rest_promote:
        description: Make the next REST password the current one if O(repositories[].rest_server_hash) is its hash.
        type: bool
        default: false
      rest_server_hash:
        description: The bcrypt hash that the server has now.
        type: str
      ssh_key:
        description:
          - Private SSH key from the escrow, for a client that has none. It never replaces another one.
          - For O(repositories[].access) V(rclone), V(sftp) and V(ssh) an ed25519 key is made on the client without it.
        type: str
      ssh_way:
        description:
          - A digest of what else decides whether the key is let in, and what it then reaches. Where that or the key is another
            than in the record of the repository, C(recorded) is V(false).
        type: str
      ssh_known:
        description: Whether the controller's state directory has a public SSH key of this repository.
        type: bool
        default: false
      ssh_rotate:
        description: Make a next SSH key if there is none.
        type: bool
        default: false
      ssh_promote:
        description: Make the next SSH key the current one. The server takes both.
        type: bool
        default: false
      borg_key:
        description:
          - Exported key of a borg repository from the escrow, for a client that has none. It never replaces another one.
          - The module M(holdfast.backup.repository) keeps it in C(<name>.borg_key) of O(directory), from where it gets into the
            bundle.
        type: str
      bundle_made:
        description: C(made) of the escrow bundle that these secrets are out of. That of the next bundle is higher.
        type: int
      repository_id:
        description: Id of the repository, once it is initialised.
        type: str
      key_id:
        description: Id of the client's key in the repository, once it is initialised.
        type: str
  escrow:
    description: What is to be kept so that somebody can restore when the client is gone.
    type: dict
    default: {}
    suboptions:
      mode:
        description:
          - V(age) makes bundles encrypted to O(escrow.recipients).
          - V(controller) makes bundles in plaintext. RV(repositories) then holds secrets, so the task needs C(no_log=true).
          - V(none) makes no bundles.
        type: str
        choices: [age, none, controller]
        default: none
      recipients:
        description: Public keys, as C(age1…), C(ssh-ed25519 …) or C(ssh-rsa …).
        type: list
        elements: str
        default: []
      have:
        description: Names of the bundles that the state directory has, by repository.
        type: dict
        default: {}
      age_binary:
        description: Name or path of C(age).
        type: str
        default: age
attributes:
  check_mode:
    description: Can run in check mode and tell what would change. What is born in the real run is shown as such.
    support: full
  diff_mode:
    description: Shows which files change; their contents are secret and hidden.
    support: full
  platform:
    description: Linux with libxcrypt.
    support: full
    platforms: linux
requirements:
  - C(ssh-keygen) where a key of SSH is to be made
"""

EXAMPLES = r"""
- name: Make the secrets of a client
  holdfast.backup.identity:
    fleet_id: 6f1c1f0e9a3b4d53
    host: web1
    repositories:
      - name: vault
        access: rest
        location: rest:https://vault1:8000/web1--vault/
        rest_user: web1--vault
    escrow:
      mode: age
      recipients:
        - age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p
      have:
        vault: [0123456789abcdef0123456789abcdef-0123456789abcdef.age]
  register: identity

- name: Say which repositories have a valid escrow
  ansible.builtin.debug:
    msg: "{{ identity.repositories | dict2items | selectattr('value.bundle_valid') | map(attribute='key') }}"
"""

RETURN = r"""
repositories:
  description: The public side of each declared repository, by name.
  returned: success
  type: dict
  contains:
    rest_user:
      description: User of the rest-server, null for other accesses.
      type: str
      returned: success
    rest_hash:
      description: bcrypt hash of the current REST password. C(<made in the first real run>) where check mode cannot know.
      type: str
      returned: success
    rest_next_hash:
      description: bcrypt hash of the next REST password, null unless a rotation is under way.
      type: str
      returned: success
    busy:
      description: Whether a run of the repository had begun before the others were made to wait; null where this run made none wait.
      type: bool
      returned: success
    held:
      description: Whether runs that begin are waiting now.
      type: bool
      returned: success
    ssh_public_key:
      description:
        - Public half of the SSH key, as C(ssh-ed25519 BASE64). Null for accesses without one, C(<made in the first real run>) where
          check mode cannot know.
      type: str
      returned: success
    ssh_next_public_key:
      description: Public half of the next SSH key, null unless a rotation is under way.
      type: str
      returned: success
    password_next:
      description: Whether there is a password that is to replace the repository's current one.
      type: bool
      returned: success
    password_old:
      description: Whether the key of the password before the current one is to be removed.
      type: bool
      returned: success
    made:
      description: Whether this run made secrets for the repository.
      type: bool
      returned: success
    fingerprint:
      description: Fingerprint of the plaintext of the escrow bundle.
      type: str
      returned: success
    bundle_name:
      description: File name of today's bundle in the state directory, null with O(escrow.mode=none).
      type: str
      returned: success
    bundle:
      description: Today's bundle in base64, null if the state directory has it. Plaintext with O(escrow.mode=controller).
      type: str
      returned: success
    bundle_valid:
      description: Whether the state directory has today's bundle, null with O(escrow.mode=none).
      type: bool
      returned: success
    way:
      description: Digest of O(repositories[].ssh_way) and the public SSH key, null for a repository without.
      type: str
      returned: success
    recorded:
      description:
        - Whether the record of the module M(holdfast.backup.repository) was made for this location and these secrets, by this way,
          so that it would have nothing to do. Always V(false) for borg.
      type: bool
      returned: success
  sample:
    vault:
      rest_user: web1--vault
      rest_hash: $2b$12$0123456789abcdefghijkeO8mDmXLRuzh7s5tvMpwBkjMlBsM.1k6
      rest_next_hash: null
      busy: null
      held: false
      ssh_public_key: null
      ssh_next_public_key: null
      password_next: false
      password_old: false
      made: true
      fingerprint: 0123456789abcdef0123456789abcdef
      bundle_name: 0123456789abcdef0123456789abcdef-0123456789abcdef.age
      bundle: YWdlLWVuY3J5cHRpb24ub3JnL3YxCg==
      bundle_valid: false
      way: null
      recorded: false
stale:
  description: Repositories that are no longer declared and whose secrets are still on the client.
  returned: success
  type: list
  elements: str
  sample: [attic]
pruned:
  description: Repositories whose secrets this run removed.
  returned: success
  type: list
  elements: str
  sample: []
"""

import base64
import dataclasses
import posixpath
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.backup.plugins.module_utils import _bcrypt, _escrow, _hold, _record, _secrets, _ssh
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree, UnsafePathError
from ansible_collections.holdfast.backup.plugins.module_utils._location import parse_environment
from ansible_collections.holdfast.backup.plugins.module_utils._quiet import QuietModule
from ansible_collections.holdfast.backup.plugins.module_utils._restic import EngineError
from ansible_collections.holdfast.backup.plugins.module_utils._source import Source

_CENSORED = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
_SECRET_OPTIONS = ("password", "next_password", "old_password", "rest_password", "ssh_key", "borg_key", "environment")
_LOCK_SECONDS = 60.0
# One line each.
_PASSWORDS = ("password", "password_next", "password_old")

ARGUMENT_SPEC: dict[str, Any] = {
    "directory": {"type": "path", "default": "/etc/holdfast/secrets"},
    "records": {"type": "path", "default": "/var/lib/holdfast/repositories"},
    "fleet_id": {"type": "str", "required": True},
    "host": {"type": "str", "required": True},
    "bcrypt_cost": {"type": "int", "default": _bcrypt.COST},
    "prune": {"type": "bool", "default": False},
    "repositories": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "engine": {"type": "str", "default": "restic"},
            "access": {"type": "str", "required": True},
            "location": {"type": "str", "required": True},
            "rest_user": {"type": "str"},
            "rest_password": {"type": "str", "no_log": True},
            "password": {"type": "str", "no_log": True},
            "next_password": {"type": "str", "no_log": True},
            "old_password": {"type": "str", "no_log": True},
            "environment": {"type": "dict", "default": {}, "no_log": True},
            "known": {"type": "bool", "default": False},
            "hold": {"type": "bool", "default": False},
            "password_rotate": {"type": "bool", "default": False, "no_log": False},
            "password_used": {"type": "bool", "default": False, "no_log": False},
            "rest_rotate": {"type": "bool", "default": False},
            "rest_promote": {"type": "bool", "default": False},
            "rest_server_hash": {"type": "str"},
            "ssh_key": {"type": "str", "no_log": True},
            "ssh_way": {"type": "str"},
            "ssh_known": {"type": "bool", "default": False},
            "ssh_rotate": {"type": "bool", "default": False},
            "ssh_promote": {"type": "bool", "default": False},
            "borg_key": {"type": "str", "no_log": True},
            "bundle_made": {"type": "int"},
            "repository_id": {"type": "str"},
            "key_id": {"type": "str", "no_log": False},
        },
    },
    "escrow": {
        "type": "dict",
        "default": {},
        "options": {
            "mode": {"type": "str", "choices": ["age", "none", "controller"], "default": "none"},
            "recipients": {"type": "list", "elements": "str", "default": []},
            "have": {"type": "dict", "default": {}},
            "age_binary": {"type": "str", "default": "age"},
        },
    },
}


class _Run:
    """One execution: read everything, plan everything, make the bundles, then write."""

    def __init__(self, module: AnsibleModule, tree: Tree) -> None:
        self._module = module
        self._tree = tree
        self._check_mode: bool = module.check_mode
        self._directory: str = module.params["directory"]
        self._escrow: dict[str, Any] = module.params["escrow"]
        self._changes: list[tuple[str, str]] = []
        self.warnings: list[str] = []

    def run(self) -> dict[str, Any]:
        """Do it, and return the result. Raises the errors of `_secrets`, `_escrow`, `_bcrypt` and `_files`."""
        wanted = [self._wanted(each) for each in self._module.params["repositories"]]
        self._check_options(wanted)
        self._prepare_directory()
        stored = {each.name: self._read(each.name) for each in wanted}
        errors = [error for each in wanted for error in _secrets.check(each, stored[each.name], self._directory)]
        if errors:
            raise _secrets.SecretsError("\n".join(errors))
        if self._check_mode:
            stored = {each.name: _secrets.foreseen(each, stored[each.name]) for each in wanted}
        plans = {each.name: self._plan(each, stored[each.name]) for each in wanted}
        repositories = {name: self._public(name, each) for name, each in plans.items()}
        for one in wanted:
            way = self._way(one, plans[one.name].files)
            repositories[one.name]["way"] = way
            repositories[one.name]["recorded"] = self._is_recorded(one, plans[one.name].files, way)
        waiting = {each.name for each in wanted if each.hold}
        if not any(_is_rotated(plans[name]) for name in waiting):
            waiting = set()
        for name in waiting:
            self._let_wait(name)
        # Only now: who is not seen finds the file, and goes by what is there afterwards.
        busy = {name: _is_busy(name) for name in waiting}
        for one in wanted:
            if not one.hold:
                self._let_go(one.name)
            repositories[one.name].update(busy=busy.get(one.name), held=one.name in waiting or self._waits(one.name))
        for name, each in plans.items():
            self._write(name, stored[name], each.files)
            if each.warning:
                self.warnings.append(each.warning)
        stale, pruned = self._clear(set(plans))
        return {
            "changed": bool(self._changes),
            "repositories": repositories,
            "stale": stale,
            "pruned": pruned,
            "diff": self._diff(),
        }

    def _wanted(self, options: dict[str, Any]) -> _secrets.Wanted:
        options = dict(options, environment={key: str(value) for key, value in options["environment"].items()})
        if options["rest_server_hash"] == _secrets.UNBORN and not self._check_mode:
            options["rest_server_hash"] = None
        return _secrets.Wanted(**options)

    def _check_options(self, wanted: list[_secrets.Wanted]) -> None:
        names = [each.name for each in wanted]
        for name in names:
            if names.count(name) > 1:
                raise _secrets.SecretsError(f"`repositories`: {name!r} is there more than once")
        cost = self._module.params["bcrypt_cost"]
        if not _bcrypt.MIN_COST <= cost <= _bcrypt.MAX_COST:
            raise _bcrypt.BcryptError(f"`bcrypt_cost` {cost} is not between {_bcrypt.MIN_COST} and {_bcrypt.MAX_COST}")
        if self._escrow["mode"] == "age":
            _escrow.check_recipients(self._escrow["recipients"])

    def _prepare_directory(self) -> None:
        entry = self._tree.directory_entry(self._directory)
        if entry is not None and (entry.uid, entry.gid, entry.mode) == (0, 0, 0o700):
            pass
        elif self._check_mode:
            self._changes.append((self._directory, "directory root:root 0700"))
        elif entry is None:
            self._tree.make_parents(self._directory)
            self._tree.make_directory(self._directory, uid=0, gid=0, mode=0o700)
            self._changes.append((self._directory, "directory root:root 0700"))
        else:
            self._tree.set_directory(self._directory, uid=0, gid=0, mode=0o700)
            self._changes.append((self._directory, "directory root:root 0700"))
        if not self._check_mode:
            self._tree.lock(self._directory, timeout=_LOCK_SECONDS)

    def _read(self, name: str) -> _secrets.Stored:
        return _secrets.Stored(**{suffix: self._read_file(name, suffix) for suffix in _secrets.SUFFIXES})

    def _read_file(self, name: str, suffix: str) -> str | None:
        path = self._path(name, suffix)
        entry = self._tree.entry(path)
        if entry is None:
            return None
        if entry.kind != "file":
            raise UnsafePathError(f"{path} is no regular file: move it away")
        try:
            text = entry.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _secrets.SecretsError(f"{path} is not UTF-8: restore it from a backup of this host") from error
        # An empty password file is none: something has emptied it.
        return text.rstrip("\r\n") or None if suffix in _PASSWORDS else text

    def _plan(self, wanted: _secrets.Wanted, stored: _secrets.Stored) -> _secrets.Plan:
        if self._check_mode and wanted.ssh_promote and stored.ssh_next is None:
            # What the real run would have made before.
            stored = dataclasses.replace(stored, ssh_next=_secrets.UNBORN)
        return _secrets.plan(
            wanted,
            stored,
            fleet=(self._module.params["fleet_id"], self._module.params["host"]),
            now=time.time(),
            cost=self._module.params["bcrypt_cost"],
            hasher=self._hash,
            keymaker=self._key,
            **({"passwordmaker": lambda: _secrets.UNBORN} if self._check_mode else {}),
        )

    def _key(self, comment: str) -> str:
        return _secrets.UNBORN if self._check_mode else _ssh.make_key(self._directory, comment)

    def _hash(self, password: str) -> str:
        if self._check_mode:
            return _secrets.UNBORN
        hashed = _bcrypt.hash_password(password, self._module.params["bcrypt_cost"])
        if not _bcrypt.verify(password, hashed):
            raise _bcrypt.BcryptError("libcrypt made a hash that does not verify")
        return hashed

    def _public(self, name: str, plan: _secrets.Plan) -> dict[str, Any]:
        mode = self._escrow["mode"]
        identity = plan.identity
        fingerprint = str(identity.fingerprint)
        bundle_name = _escrow.bundle_name(mode, fingerprint, self._escrow["recipients"])
        valid = None if bundle_name is None else bundle_name in self._have(name)
        bundle = None if valid in (None, True) else self._bundle(plan)
        if self._check_mode and plan.unborn:
            fingerprint = _secrets.UNBORN
            bundle_name, bundle = (_secrets.UNBORN, _secrets.UNBORN) if bundle_name else (None, None)
        return {
            "rest_user": identity.rest_user if identity.rest_current else None,
            "rest_hash": identity.rest_current.hash if identity.rest_current else None,
            "rest_next_hash": identity.rest_next.hash if identity.rest_next else None,
            "ssh_public_key": _secrets.public_half(plan.files.ssh_key) if plan.over_ssh else None,
            "ssh_next_public_key": _secrets.public_half(plan.files.ssh_next) if plan.over_ssh else None,
            "password_next": plan.files.password_next is not None,
            "password_old": plan.files.password_old is not None,
            "made": plan.made,
            "fingerprint": fingerprint,
            "bundle_name": bundle_name,
            "bundle": bundle,
            "bundle_valid": valid,
        }

    @staticmethod
    def _way(wanted: _secrets.Wanted, files: _secrets.Stored) -> str | None:
        public = _secrets.public_half(files.ssh_key) if wanted.over_ssh else None
        return _record.way_of(wanted.ssh_way, public) if wanted.ssh_way and public else None

    def _is_recorded(self, wanted: _secrets.Wanted, files: _secrets.Stored, way: str | None) -> bool:
        # Of borg the module `repository` also compares the exported key.
        if wanted.engine != "restic" or not files.repository or not files.password:
            return False
        record = posixpath.join(self._module.params["records"], f"{wanted.name}.env")
        try:
            source = Source(
                location=files.repository.strip(),
                password_file=self._path(wanted.name, "password"),
                environment=parse_environment(files.environment or ""),
                password=f"{files.password}\n".encode(),
            )
            return _record.find(self._tree, record, source, way)[1]
        except (ValueError, UnsafePathError):
            # The module `repository` says what is wrong with it.
            return False

    def _bundle(self, plan: _secrets.Plan) -> str:
        # When it was made is not part of the fingerprint: it only tells which bundle is the newest.
        content = {**plan.bundle, "made": plan.identity.made or int(time.time())}
        if self._escrow["mode"] == "controller":
            return base64.b64encode(_escrow.canonical(content) + b"\n").decode("ascii")
        try:
            ciphertext = _escrow.encrypt(content, self._escrow["recipients"], self._escrow["age_binary"])
        except _escrow.AgeMissing:
            if self._check_mode:
                return _secrets.UNBORN
            raise
        return base64.b64encode(ciphertext).decode("ascii")

    def _have(self, name: str) -> list[str]:
        return list(self._escrow["have"].get(name) or [])

    def _write(self, name: str, stored: _secrets.Stored, files: _secrets.Stored) -> None:
        before = stored.files()
        wanted = files.files()
        if before["identity"] is not None:
            # Should the second write not happen, the next run of a unit finds the location's password among those of the identity.
            wanted = {"repository": wanted["repository"], **wanted}
        for suffix, text in wanted.items():
            path = self._path(name, suffix)
            if text is None:
                self._remove(path, before[suffix])
                continue
            entry = self._tree.entry(path)
            # Without an entry it is what check mode foresees to be there by now.
            safe = entry is None or (entry.uid, entry.gid, entry.mode) == (0, 0, 0o400)
            if safe and before[suffix] == text:
                continue
            self._changes.append((path, "file root:root 0400 (content hidden)"))
            if not self._check_mode:
                content = f"{text}\n" if suffix in _PASSWORDS else text
                self._tree.write(path, content.encode("utf-8"), uid=0, gid=0, mode=0o400)

    def _let_wait(self, name: str) -> None:
        if not self._check_mode:
            path = posixpath.join(_secrets.HELD, name)
            self._tree.make_parents(path)
            self._tree.write(path, b"", uid=0, gid=0, mode=0o400)

    def _let_go(self, name: str) -> None:
        if not self._check_mode and self._waits(name):
            self._tree.unlink(posixpath.join(_secrets.HELD, name))

    def _waits(self, name: str) -> bool:
        return self._tree.entry(posixpath.join(_secrets.HELD, name)) is not None

    def _remove(self, path: str, before: str | None) -> None:
        if before is not None:
            self._changes.append((path, "absent"))
            if not self._check_mode:
                self._tree.unlink(path)

    def _clear(self, declared: set[str]) -> tuple[list[str], list[str]]:
        found = set()
        for file_name in self._tree.names(self._directory):
            name, dot, suffix = file_name.partition(".")
            if dot and name and suffix in _secrets.SUFFIXES and name not in declared:
                found.add(name)
        wanted = sorted(found) if self._module.params["prune"] else []
        pruned = [name for name in wanted if self._is_in_escrow(name)]
        self.warnings += [self._unproved(name) for name in wanted if name not in pruned]
        # What a write of the host program left that was killed.
        for file_name in self._tree.names(self._directory):
            if file_name[:1] == "." and file_name[1:].partition(".")[0] in pruned and not self._check_mode:
                self._tree.unlink(posixpath.join(self._directory, file_name))
        for name in pruned:
            # The identity goes last: it holds the proof that the next run needs to finish an interrupted one.
            for suffix in ("repository", "environment", "ssh_next", "ssh_key", "borg_key", *_PASSWORDS, "identity"):
                self._remove(self._path(name, suffix), self._read_file(name, suffix))
        return sorted(found - set(pruned)), pruned

    def _is_in_escrow(self, name: str) -> bool:
        text = self._read_file(name, "identity")
        try:
            fingerprint = _secrets.Identity.parse(text).fingerprint if text is not None else None
        except _secrets.SecretsError:
            return False
        if fingerprint is None:
            return False
        # One for earlier recipients proves nothing: their key may be gone.
        return _escrow.bundle_name(self._escrow["mode"], fingerprint, self._escrow["recipients"]) in self._have(name)

    def _unproved(self, name: str) -> str:
        if self._escrow["mode"] == "none":
            return f"{name}: its secrets are kept: without an escrow nobody else has them"
        who = " for today's recipients" if self._escrow["mode"] == "age" else ""
        return (
            f"{name}: its secrets are kept: the state directory has no bundle of them{who}. Declare it once more and run the"
            " site playbook for this host, which makes one; then take it out again"
        )

    def _path(self, name: str, suffix: str) -> str:
        return posixpath.join(self._directory, f"{name}.{suffix}")

    def _diff(self) -> dict[str, str]:
        return {
            "before": "",
            "after": "".join(f"{path}: {what}\n" for path, what in self._changes),
            "before_header": self._directory,
            "after_header": self._directory,
        }


def _is_rotated(plan: _secrets.Plan) -> bool:
    return plan.identity.rest_next is not None or plan.files.ssh_next is not None


def _is_busy(name: str) -> bool:
    try:
        return bool(_hold.running(name))
    except (EngineError, OSError):
        return True


def _keep_short_values_out_of_masking(module: AnsibleModule) -> dict[str, Any]:
    # Ansible replaces each secret value wherever it occurs in a result. A storage credential like `1` or `eu` would so
    # break hashes and bundles. The result holds no secrets of ours; only long values stay masked, as a second net, and
    # the echo of the options is censored here as a whole.
    module.no_log_values = {value for value in module.no_log_values if len(value) >= 8}
    censored = [
        {key: _CENSORED if key in _SECRET_OPTIONS and value else value for key, value in repository.items()}
        for repository in module.params["repositories"]
    ]
    return {"module_args": dict(module.params, repositories=censored)}


def main() -> None:
    """Run the module."""
    module = QuietModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    invocation = _keep_short_values_out_of_masking(module)
    with Tree() as tree:
        run = _Run(module, tree)
        try:
            result = run.run()
        except (
            _secrets.SecretsError,
            _escrow.EscrowError,
            _bcrypt.BcryptError,
            _ssh.SshError,
            UnsafePathError,
            OSError,
        ) as error:
            module.fail_json(msg=str(error), invocation=invocation)
    for warning in run.warnings:
        module.warn(warning)
    module.exit_json(invocation=invocation, **result)


if __name__ == "__main__":
    main()
