#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: repository
short_description: Make sure that backup repositories are there
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Initialises a repository on proof that there is none, and adopts one that is there already. In any other state it
    changes nothing of that repository, does the others, and fails with the state and its cure.
  - What that taught is written to a record, a file that backup units load. Its fingerprint says for which location and
    password it was made; it is keyed with a random key that only root can read, so that the password cannot be guessed
    from it. The password of a REST server is no part of it and may be rotated.
  - With a record that applies nothing is opened, so a converged run costs no time. A repository that is not the recorded
    one is an error, and so is one that a record knows and that is gone. It is looked at by each run then, until it is
    found as recorded. No record is ever removed.
  - Safe when two runs start at once on a host. Two hosts must not share a repository.
  - Several repositories are looked at and made at the same time.
  - borg's questions (a repository at another location than before, an unencrypted one in its place) are never answered;
    they are states with their reason.
extends_documentation_fragment: [holdfast.backup.attributes.host]
attributes:
  check_mode:
    support: full
    description:
      - Looks, and changes nothing. A repository whose files, account or program are not there yet, and may be made by the
        same run, is reported as changed and not checked. A server that does not answer is a warning.
  diff_mode:
    support: full
    description: Shows the records.
options:
  repositories:
    description: The repositories.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Lower case letters, digits and single hyphens, beginning with a letter, 28 characters at most.
        type: str
        required: true
      engine:
        description: The tool.
        type: str
        choices: [restic, borg]
        default: restic
      repository:
        description:
          - Location as the tool takes it. A local path must be absolute.
          - Exactly one of O(repositories[].repository) and O(repositories[].repository_file) is needed. A location with a
            password in it belongs into the latter.
        type: str
      repository_file:
        description: File that holds the location, credentials included.
        type: path
      password_file:
        description: File that holds the repository's password, for borg the passphrase of its key.
        type: path
        required: true
      environment_file:
        description: File with the backend's credentials as C(NAME=value) lines, quoted as in C(EnvironmentFile=) of systemd.
        type: path
      options:
        description: Extended options, restic's C(-o NAME=VALUE). They are visible in the process list, so no secrets.
        type: dict
        default: {}
      cacert:
        description: File with the certificates to trust instead of the system's.
        type: path
      proxy:
        description:
          - URL of the proxy by which restic reaches the repository (and that of O(repositories[].from_repo)), C(HTTP_PROXY) and C(HTTPS_PROXY).
            Variables in O(repositories[].environment_file) count more. Without credentials.
        type: str
      mount:
        description:
          - Directory that must be a mount point, the one of a local repository or above it.
          - If nothing is mounted there, nothing is initialised.
        type: path
      binary:
        description:
          - The program, as a name or an absolute path. By default it is named like the engine.
          - Initialising needs restic 0.17.1, or borg 1.2.8, or later.
        type: str
      repository_version:
        description: Format of a new repository. By default restic's own default.
        type: str
        choices: ['1', '2', stable, latest]
      from_repo:
        description: Repository whose chunker parameters a new one gets, so that snapshots can be copied without growing.
        type: dict
        suboptions:
          repository:
            description: Its location.
            type: str
          repository_file:
            description: File that holds its location.
            type: path
          password_file:
            description: File that holds its password.
            type: path
            required: true
          environment_file:
            description: File with the credentials of its backend. A variable must not differ from the new one's.
            type: path
          cacert:
            description: File with the certificates to trust for it.
            type: path
      user:
        description:
          - Account to run restic as, so that a local repository belongs to it. It must be able to use the path.
          - A repository that belongs to another account is given to it, files and directories, after it was found to be the right one.
          - The secret files need not be readable by it, they are handed over in memory.
        type: str
      cache_directory:
        description: Cache directory of restic. Without one no cache is used.
        type: path
      encryption:
        description:
          - Encryption of a new borg repository. With V(repokey-blake2), the default, its key lies in the repository, with
            V(keyfile-blake2) on the client only.
        type: str
        choices: [repokey-blake2, keyfile-blake2]
      key_file:
        description:
          - File that keeps what C(borg key export) prints, for the escrow; needed for borg. It is made, only root may read
            it, and its contents are no part of the result. A keyfile repository is opened with it.
        type: path
      base_directory:
        description: Directory of borg's own state, C(BORG_BASE_DIR). By default C(/var/lib/holdfast/borg).
        type: path
      ssh_command:
        description: Command by which borg reaches a server, C(BORG_RSH).
        type: str
      record:
        description:
          - Where the record goes. By default C(/var/lib/holdfast/repositories/<name>.env). Its directory, and the one key
            of its fingerprints in C(fingerprint.key), are made when they are missing.
        type: path
      way:
        description:
          - The digest that the module M(holdfast.backup.identity) returns of the way to a repository behind an account of a
            server. With another one than in the record the repository is opened. Without this option the record's stays.
        type: str
      adopt:
        description: Whether a repository that is there and has no record may be taken over.
        type: bool
        default: true
  state:
    description: The repositories are there.
    type: str
    choices: [present]
    default: present
  verify:
    description: Open every repository, also with a record that applies, and compare id and key.
    type: bool
    default: false
  timeout:
    description: Seconds that looking at one repository, and making it, may take each.
    type: int
    default: 60
seealso:
  - module: holdfast.backup.repository_info
"""

EXAMPLES = r"""
- name: Make sure that the repositories are there
  holdfast.backup.repository:
    repositories:
      - name: vault
        repository_file: /etc/holdfast/secrets/vault.repository
        password_file: /etc/holdfast/secrets/vault.password
        cacert: /etc/holdfast/repositories/vault.pem
      - name: disk
        repository: /mnt/disk/backup
        mount: /mnt/disk
        password_file: /etc/holdfast/secrets/disk.password
        user: holdfast

- name: Make sure of a repository of borg, and keep its key for the escrow
  holdfast.backup.repository:
    repositories:
      - name: archive
        engine: borg
        repository: /mnt/disk/archive
        password_file: /etc/holdfast/secrets/archive.password
        key_file: /etc/holdfast/secrets/archive.borg_key
        user: holdfast

- name: Make sure that they still are what they were
  holdfast.backup.repository:
    verify: true
    repositories:
      - name: vault
        repository_file: /etc/holdfast/secrets/vault.repository
        password_file: /etc/holdfast/secrets/vault.password
"""

RETURN = r"""
repositories:
  description:
    - All repositories, in the order of O(repositories), also when the module fails. Beside what is listed here the keys of
      the RV(holdfast.backup.repository_info#module:repository) structure, null where they would cost a further opening.
  returned: success or failure after the input was accepted
  type: list
  elements: dict
  contains:
    name:
      description: Name of the repository.
      type: str
      returned: always
    action:
      description: What was done, or would be. V(adopt) also stands for a record that was brought up to
        date, V(way) for one of which only O(repositories[].way) is another, V(own) for nothing but a new owner.
      type: str
      returned: always
      sample: init
    changed:
      description: Whether this one was changed.
      type: bool
      returned: always
    location:
      description: Location without credentials.
      type: str
      returned: always
    state:
      description: State after the run. Null when it was not looked at.
      type: str
      returned: always
    reason:
      description: Why the state is not V(present), in words.
      type: str
      returned: always
    id:
      description: Id of the repository.
      type: str
      returned: always
    key:
      description:
        - Id of the key that the password opens, null where it is not known yet. For borg, the SHA-256 of the exported key.
      type: str
      returned: always
    format_version:
      description: Format of the repository, if it was opened.
      type: int
      returned: always
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.backup.plugins.module_utils._ensure import Done, Target, clash, ensure, prepare
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree, UnsafePathError
from ansible_collections.holdfast.backup.plugins.module_utils._location import redact
from ansible_collections.holdfast.backup.plugins.module_utils._restic import EngineError

# One lock for the host and not for a record: restic's own init is not safe against a second one. Only root may take it.
LOCK_DIRECTORY = "/run/holdfast-repository"
# Opening a repository costs half a second of one processor; more of them at once only get in each other's way.
WORKERS = 4

LOCATION: dict[str, dict[str, Any]] = {
    "repository": {"type": "str"},
    "repository_file": {"type": "path"},
    "password_file": {"type": "path", "required": True, "no_log": False},
    "environment_file": {"type": "path"},
    "cacert": {"type": "path"},
}
ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "repositories": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            **LOCATION,
            "name": {"type": "str", "required": True},
            "engine": {"type": "str", "choices": ["restic", "borg"], "default": "restic"},
            "options": {"type": "dict", "default": {}},
            "proxy": {"type": "str"},
            "mount": {"type": "path"},
            "binary": {"type": "str"},
            "repository_version": {"type": "str", "choices": ["1", "2", "stable", "latest"]},
            "from_repo": {"type": "dict", "options": LOCATION},
            "user": {"type": "str"},
            "cache_directory": {"type": "path"},
            "encryption": {"type": "str", "choices": ["repokey-blake2", "keyfile-blake2"]},
            "key_file": {"type": "path", "no_log": False},
            "base_directory": {"type": "path"},
            "ssh_command": {"type": "str"},
            "record": {"type": "path"},
            "way": {"type": "str"},
            "adopt": {"type": "bool", "default": True},
        },
    },
    "state": {"type": "str", "choices": ["present"], "default": "present"},
    "verify": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 60},
}


def _plan(options: dict[str, Any], check_mode: bool) -> list[Target]:
    """Return the targets, with what their files say now. Raises ValueError, UnsafePathError, EngineError."""
    targets = [prepare(entry, check_mode=check_mode, verify=options["verify"]) for entry in options["repositories"]]
    shared = clash(targets)
    if shared is not None:
        raise ValueError(shared)
    return targets


def _apply(targets: list[Target], options: dict[str, Any], check_mode: bool) -> list[Done]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda target: ensure(target, check_mode=check_mode, timeout=options["timeout"]), targets))


def bring(options: dict[str, Any], check_mode: bool) -> list[Done]:
    """Bring all repositories to `present`. Raises ValueError, UnsafePathError, EngineError before anything is changed."""
    if options["timeout"] < 1:
        raise ValueError(f"timeout: {options['timeout']} is less than a second: give a positive number of seconds")
    targets = _plan(options, check_mode)
    if check_mode or not any(target.opening or target.misowned for target in targets):
        return _apply(targets, options, check_mode)
    with Tree() as tree:
        if tree.directory_entry(LOCK_DIRECTORY) is None:
            tree.make_directory(LOCK_DIRECTORY, uid=0, gid=0, mode=0o700)
        # The other run may need its time for every repository, more than once.
        tree.lock(LOCK_DIRECTORY, timeout=3 * options["timeout"] * len(targets))
        # The other run may have done it all.
        return _apply(_plan(options, check_mode), options, check_mode)


def _hide(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of the arguments without the credentials in its locations."""
    shown = {**entry, "repository": redact(entry["repository"]) if entry["repository"] else None}
    if entry.get("from_repo"):
        shown["from_repo"] = _hide(entry["from_repo"])
    return shown


def main() -> None:
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    options = dict(module.params)
    # What Ansible returns as the module's arguments.
    module.params["repositories"] = [_hide(entry) for entry in options["repositories"]]
    try:
        done = bring(options, module.check_mode)
    except (ValueError, UnsafePathError, EngineError, OSError) as error:
        module.fail_json(msg=str(error))
    for each in done:
        if each.warning is not None:
            module.warn(each.warning)
    result: dict[str, Any] = {
        "changed": any(each.changed for each in done),
        "repositories": [each.to_dict() for each in done],
    }
    if module._diff:
        result["diff"] = [
            {
                "before_header": each.record_path,
                "after_header": each.record_path,
                "before": each.before,
                "after": each.after,
            }
            for each in done
            if each.changed
        ]
    errors = [each.error for each in done if each.error is not None]
    if errors:
        module.fail_json(
            msg=f"{len(errors)} of {len(done)} repositories cannot be used: " + "; ".join(errors), **result
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
