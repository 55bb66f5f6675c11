#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_accounts
short_description: All accounts and key lines of a server that clients reach over SSH
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Makes one account per client, its groups, and its file of authorized keys, in one execution for all clients.
  - Each key line lets its key run one command for one repository, and nothing else. Key files are written whole. Lines
    that somebody else put there, and second lines of the same key, are removed and reported.
  - Access is taken away before anybody gets any, so that what fails for somebody new keeps nobody the access that they lost.
  - Only what the manifest on the server says this fleet made is revoked. An account that lost access is locked, its
    sessions are ended, and it keeps its UID, since its data stays.
  - A public key that is not exactly one ed25519 key is refused for its client. The other clients are served.
  - The sessions of an account end too when one of its keys is replaced, removed or good from fewer addresses, a foreign line
    is found, or a definition changed. While they end, nobody can log in as it, for a moment. What does not end is warned of
    and tried again by the next run, and stops nobody else.
  - Warns of foreign lines and key files, with the fingerprint, and of clients whose key is not known.
attributes:
  check_mode:
    support: full
    description: A public key may be C(<made in the first real run>).
  diff_mode:
    support: full
    description: Shows key lines, members of groups and names of accounts.
  platform:
    support: full
    platforms: posix
    description: Needs a Linux host with C(systemd-sysusers), and runs as root.
options:
  accounts:
    description: The accounts of all clients that are served.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the account, C(bk-) and the client's backup_id.
        type: str
        required: true
      backup_id:
        description: The client.
        type: str
        required: true
      groups:
        description: Groups that the account is a member of, each with the prefix C(hfr-). They are made if they are missing.
        type: list
        elements: str
        default: []
      keys:
        description: What the client's keys open.
        type: list
        elements: dict
        default: []
        suboptions:
          repository:
            description: Name of the repository.
            type: str
            required: true
          public_keys:
            description:
              - The client's public keys for it, two while it changes its key.
              - Without any, or with one that is refused, the repository keeps the lines that the server has.
            type: list
            elements: str
            default: []
          from:
            description: Addresses and networks that the client may come from. Empty allows all.
            type: list
            elements: str
            default: []
          definition:
            description:
              - What the client may do there, in any words. Where they change, sessions that began before have to end, see
                RV(sessions_pending). Of a JSON object sessions outlive a C(quota) that grows or goes, C(append_only) that becomes false,
                and C(confine) that becomes V(if_possible). Empty is not known.
            type: str
            default: ''
          heard:
            description:
              - Whether the client said its keys itself in this run. Keys that are only remembered, and that this server replaced or revoked
                before, are of an old state directory, and let nobody in again. The repository keeps the lines that this module wrote since.
            type: bool
            default: true
  command:
    description: The program that a key runs, with the repository's name as its argument.
    type: path
    default: /usr/local/libexec/holdfast/serve
  directory:
    description:
      - Directory of the key files, one for each account. Files of other accounts than C(bk-) are left alone, and so is one of an account
        that this module did not make.
    type: path
    default: /etc/ssh/authorized_keys.d
  home:
    description: Home directory of all accounts. It belongs to root and stays empty.
    type: path
    default: /var/lib/holdfast/home
  manifest:
    description: JSON file on the server that says which account belongs to this fleet.
    type: path
    default: /var/lib/holdfast/ssh_accounts.json
  fleet_id:
    description: Id of the fleet. A server that serves another one is an error.
    type: str
    required: true
  revoke_max:
    description: Taking access from more hosts than this is an error before any change. Not given, there is no limit.
    type: int
  phase:
    description:
      - V(accounts) makes accounts and groups only, so that something can be tried as an account before its keys work.
      - V(all) does everything that can be done before the new definitions are in force.
      - V(sessions), when they are, ends the sessions that the definitions of before allowed.
      - V(revoke) only takes away what a host, a key or a repository lost. It is for a server where V(all) cannot follow. Nobody gets
        an account, a group or a line, and lines that are still good stay as they are.
    type: str
    choices: [all, accounts, sessions, revoke]
    default: all
"""

EXAMPLES = r"""
- name: Render accounts and keys of the server
  holdfast.backup.ssh_accounts:
    fleet_id: "{{ fleet_id }}"
    accounts:
      - name: bk-web1
        backup_id: web1
        keys:
          - repository: offsite
            public_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJxTCxVUEmYLbMIvQJYHbEXPoyVLXTwDrN0qcvVVBTZY web1 offsite"]
            from: [192.0.2.7]
    revoke_max: 1
"""

RETURN = r"""
created:
  description: Accounts that did not exist.
  returned: success
  type: list
  elements: str
  sample: [bk-web1]
corrected:
  description: Accounts whose home, shell or password had been changed.
  returned: success
  type: list
  elements: str
unlocked:
  description: Accounts that were locked and have access again.
  returned: success
  type: list
  elements: str
locked:
  description: Accounts that were locked in this run.
  returned: success
  type: list
  elements: str
revoked:
  description: Accounts of this fleet that are not declared any more and lost access in this run.
  returned: success
  type: list
  elements: str
created_keys:
  description: Account and repository whose key works from now on.
  returned: success
  type: list
  elements: str
  sample: [bk-web1 offsite]
changed_keys:
  description: Account and repository whose lines changed.
  returned: success
  type: list
  elements: str
revoked_keys:
  description: Account and repository that lost their lines.
  returned: success
  type: list
  elements: str
kept:
  description: Account and repository that keep the lines which the server has, since no good key was given, or one that was replaced before.
  returned: success
  type: list
  elements: str
missing:
  description: Account and repository that have no line, since the server has none either.
  returned: success
  type: list
  elements: str
refused:
  description: What was refused, by account, with the reason.
  returned: success
  type: dict
  sample: {bk-web1: ["offsite: the public key is more than one line: 'ssh-ed25519 AAAA'"]}
foreign:
  description: Lines (account and number) and key files of unknown origin, which were removed.
  returned: success
  type: list
  elements: str
  sample: [bk-web1 line 2]
served:
  description: Fingerprints of the keys that open each repository now, by account and repository.
  returned: success
  type: dict
  sample: {bk-web1: {offsite: ["SHA256:TMpN2SpJMQ8sG/GiNYR/YZaNqE2IfuBz6qK7dBpxntQ"]}}
groups_created:
  description: Groups that did not exist.
  returned: success
  type: list
  elements: str
groups_changed:
  description: Groups whose members changed.
  returned: success
  type: list
  elements: str
sessions_ended:
  description: Accounts that had processes which were ended.
  returned: success
  type: list
  elements: str
sessions_left:
  description: Accounts with processes that do not end. It is warned of them, and the next run tries again.
  returned: success
  type: list
  elements: str
sessions_pending:
  description: Accounts that may do less by their new definitions, or something else. When these are in force, O(phase=sessions) ends what began before.
  returned: success
  type: list
  elements: str
"""

import dataclasses
import posixpath
import pwd
import time
from collections.abc import Collection, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._failures import told
from ..module_utils._files import Entry, Tree, check_path
from ..module_utils._htpasswd import check_fleet
from ..module_utils._sessions import end_sessions, processes
from ..module_utils._ssh_accounts import (
    GROUP_PREFIX,
    PREFIX,
    SHELL,
    Account,
    Current,
    Manifest,
    Outcome,
    Policy,
    System,
    check_command,
    comment_of,
    make_diff,
    parse_accounts,
    parse_manifest,
    plan_accounts,
    render_manifest,
    unite,
)

# Where the host keeps its accounts; read as text, since Python has no module for shadow any more.
ETC = "/etc"


def _system(names: set[str]) -> dict[str, System]:
    shadow: dict[str, list[str]] = {}
    with open(f"{ETC}/shadow", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            fields = line.rstrip("\n").split(":")
            if fields[0] in names:
                shadow[fields[0]] = fields
    found: dict[str, System] = {}
    for name in names:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        fields = shadow.get(name, [name, *[""] * 8])
        found[name] = System(entry.pw_uid, entry.pw_gecos, entry.pw_dir, entry.pw_shell, fields[1], fields[7])
    return found


def _groups() -> dict[str, frozenset[str]]:
    groups: dict[str, frozenset[str]] = {}
    with open(f"{ETC}/group", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            fields = line.rstrip("\n").split(":")
            if fields[0].startswith(GROUP_PREFIX):
                groups[fields[0]] = frozenset(filter(None, fields[3].split(",")))
    return groups


class _Host:
    """Changes of accounts and groups, as few programs as possible for as many accounts as there are."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def _run(self, argv: list[str], data: str | None = None) -> None:
        code, out, err = self.module.run_command(argv, data=data, binary_data=True)
        if code != 0:
            last = (err or out).strip().splitlines()[-1:] or ["no message"]
            raise ValueError(f"{argv[0]} ended with {code}: {last[0]}: mend this and run again")

    def apply(self, accounts: dict[str, Account], current: Current, outcome: Outcome, home: str) -> None:
        lines = [f"g {group} -\n" for group in sorted(outcome.groups_created)]
        for name in sorted(outcome.created):
            lines.append(f'u {name} - "{comment_of(accounts[name].backup_id)}" {home} {SHELL}\n')
        if lines:
            self._run(["systemd-sysusers", "-"], "".join(lines))
        # No password is right, and the account is not locked: sshd refuses a locked one whatever its key.
        free = sorted({*outcome.created, *outcome.unlocked, *outcome.corrected})
        if free:
            self._run(["chpasswd", "-e"], "".join(f"{name}:*\n" for name in free))
        for name in outcome.unlocked:
            if current.system[name].expires:
                self._run(["usermod", "-e", "", name])
        for name in outcome.corrected:
            now = current.system[name]
            if now.shell != SHELL:
                self._run(["usermod", "-s", SHELL, name])
            if now.home != home:
                try:
                    self._run(["usermod", "-d", home, name])
                except ValueError as error:
                    # It refuses that while the account has processes, and nobody else is to wait for their end.
                    self.module.warn(f"{name}: its home stays {now.home}: {error}")
        for group, members in outcome.memberships.items():
            if members - current.groups.get(group, frozenset()):
                self._run(["gpasswd", "-M", ",".join(sorted(members)), group])

    def leave_groups(self, current: Current, outcome: Outcome) -> None:
        for group, members in outcome.memberships.items():
            now = current.groups.get(group, frozenset())
            if now - members:
                self._run(["gpasswd", "-M", ",".join(sorted((now & members) - {*outcome.created})), group])

    def lock(self, names: list[str]) -> None:
        for name in names:
            self._run(["usermod", "-L", "-e", "1", name])


def _key_files(tree: Tree, directory: str) -> dict[str, Entry]:
    files: dict[str, Entry] = {}
    for name in tree.names(directory):
        entry = tree.entry(posixpath.join(directory, name)) if name.startswith(PREFIX) else None
        if entry is None:
            continue
        if entry.kind not in ("file", "link"):
            raise ValueError(f"{posixpath.join(directory, name)} is not a file: remove it")
        files[name] = entry
    return files


def _write_keys(
    tree: Tree, directory: str, texts: Mapping[str, str], files: Mapping[str, Entry], closed: Collection[str]
) -> None:
    """Write key files whole, without a text none; sshd, which reads them as their account, cannot read the closed ones."""
    for name, text in sorted(texts.items()):
        path, content = posixpath.join(directory, name), text.encode("utf-8")
        mode = 0o600 if name in closed else 0o644
        if not text and name in files:
            tree.unlink(path)
        elif text and files.get(name) != Entry("file", 0, 0, mode, content):
            tree.make_parents(path)
            tree.write(path, content, uid=0, gid=0, mode=mode)


def _home(tree: Tree, home: str, *, change: bool) -> bool:
    """Make sure of the home that nobody can write to; tell whether it was otherwise."""
    now = tree.directory_entry(home)
    if now is not None and (now.uid, now.gid, now.mode) == (0, 0, 0o755):
        return False
    if change:
        tree.make_parents(home)
        tree.make_directory(home, uid=0, gid=0, mode=0o755)
    return True


def _having(ids: dict[int, str]) -> set[str]:
    return {ids[uid] for uid in processes(ids)}


def _end(tree: Tree, directory: str, outcome: Outcome, ids: dict[int, str]) -> tuple[list[str], dict[str, list[int]]]:
    """End the sessions of accounts whose key files are closed, and open those; tell who had any, and what does not end."""

    def opened(uid: int) -> None:
        text = outcome.files.get(ids[uid])
        if text:
            tree.write(posixpath.join(directory, ids[uid]), text.encode("utf-8"), uid=0, gid=0, mode=0o644)

    had, left = end_sessions(ids, ended=opened)
    for uid in left:
        # It would stay closed until somebody has ended them.
        opened(uid)
    return sorted(ids[uid] for uid in had), {ids[uid]: pids for uid, pids in sorted(left.items())}


def _tell(module: AnsibleModule, outcome: Outcome, left: dict[str, list[int]]) -> None:
    phase = module.params["phase"]
    if phase != "sessions":
        for name, reasons in sorted(outcome.refused.items()):
            for why in reasons:
                module.warn(f"{name}: {why}")
    for text in outcome.warnings if phase in ("all", "revoke") else ():
        module.warn(text)
    for name, pids in sorted(left.items()):
        module.warn(
            f"{name}: what its sessions may do was taken away, and processes {', '.join(map(str, pids))} do not end: end "
            "them by hand; the next run tries again"
        )


def _run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    paths = {option: check_path(params[option], option) for option in ("directory", "home", "manifest")}
    directory, manifest_path = paths["directory"], paths["manifest"]
    declared = parse_accounts(params["accounts"])
    policy = Policy(
        fleet_id=params["fleet_id"],
        command=check_command(params["command"]),
        home=check_command(paths["home"]),
        revoke_max=params["revoke_max"],
        check_mode=module.check_mode,
        in_force=params["phase"] == "sessions",
        revoke_only=params["phase"] == "revoke",
        today=time.strftime("%Y-%m-%d", time.gmtime()),
    )
    real = not module.check_mode
    with Tree() as tree:
        tree.trust([paths["home"]])
        value = tree.read_json(manifest_path)
        manifest = parse_manifest(value, manifest_path)
        check_fleet(manifest, policy.fleet_id, manifest_path)
        files = _key_files(tree, directory)
        names = {account.name for account in declared} | set(files) | set(manifest.accounts if manifest else ())
        texts = {name: entry.content.decode("utf-8", "surrogateescape") for name, entry in files.items()}
        current = Current(_system(names), texts, _groups())
        outcome = plan_accounts(declared, current, manifest, policy)
        everything = params["phase"] in ("all", "revoke")
        if policy.revoke_only and manifest is None:
            # A server that served nobody yet stays one.
            manifest = Manifest(policy.fleet_id)
        files = {name: entry for name, entry in files.items() if name not in outcome.theirs}
        union = unite(manifest, outcome.manifest, policy.fleet_id, outcome.end)
        keys = {**dict.fromkeys(files, ""), **outcome.files}
        rewritten = any(
            files.get(name) != Entry("file", 0, 0, 0o644, text.encode("utf-8")) if text else name in files
            for name, text in keys.items()
        )
        if real and everything and union != manifest:
            # The manifest knows an account before the host does.
            tree.write_json(manifest_path, render_manifest(union), mode=0o600)
            manifest = union
        host = _Host(module)
        had: list[str] = []
        left: dict[str, list[int]] = {}
        ids: dict[int, str] = {}
        if params["phase"] != "accounts":
            ids = {current.system[name].uid: name for name in outcome.end if name in current.system}
            if real:
                closed = set(ids.values())
                texts = {name: text for name, text in keys.items() if everything or name in closed}
                _write_keys(tree, directory, texts, files, closed)
        try:
            # Before its sessions end: who comes back meanwhile comes without the group.
            if real and params["phase"] != "sessions":
                host.leave_groups(current, outcome)
        finally:
            if params["phase"] != "accounts":
                had, left = _end(tree, directory, outcome, ids) if real else (sorted(_having(ids)), {})
                for name in left:
                    if name in outcome.manifest and not outcome.manifest[name].locked:
                        outcome.manifest[name] = dataclasses.replace(outcome.manifest[name], end=True)
            if real and everything:
                host.lock(sorted(outcome.locked))
        final = Manifest(policy.fleet_id, outcome.manifest)
        if real and params["phase"] != "accounts" and final != manifest:
            tree.write_json(manifest_path, render_manifest(final), mode=0o600)
        # Last: where no UID is left for somebody new, say, who lost access has lost it all the same.
        changed = params["phase"] in ("all", "accounts") and _home(tree, paths["home"], change=real)
        if real and params["phase"] != "sessions":
            host.apply({account.name: account for account in declared}, current, outcome, paths["home"])
    _tell(module, outcome, left)
    result = outcome.report()
    accounts_only = ("created", "corrected", "unlocked", "groups_created", "groups_changed", "refused")
    if not everything:
        told = accounts_only if params["phase"] == "accounts" else ()
        result = {key: value if key in told else type(value)() for key, value in result.items()}
    done = [key for key in (*accounts_only[:-1], "locked") if result[key]]
    return {
        **result,
        "changed": changed or bool(done or had) or (everything and rewritten),
        "sessions_ended": [name for name in had if name not in left],
        "sessions_left": sorted(left),
        "diff": make_diff(current, outcome) if everything else [],
    }


def main() -> None:
    """Run the module."""
    key = {
        "repository": {"type": "str", "required": True},
        "public_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
        "from": {"type": "list", "elements": "str", "default": []},
        "definition": {"type": "str", "default": ""},
        "heard": {"type": "bool", "default": True},
    }
    account = {
        "name": {"type": "str", "required": True},
        "backup_id": {"type": "str", "required": True},
        "groups": {"type": "list", "elements": "str", "default": []},
        "keys": {"type": "list", "elements": "dict", "default": [], "options": key, "no_log": False},
    }
    module = AnsibleModule(
        argument_spec={
            "accounts": {"type": "list", "elements": "dict", "default": [], "options": account},
            "command": {"type": "path", "default": "/usr/local/libexec/holdfast/serve"},
            "directory": {"type": "path", "default": "/etc/ssh/authorized_keys.d"},
            "home": {"type": "path", "default": "/var/lib/holdfast/home"},
            "manifest": {"type": "path", "default": "/var/lib/holdfast/ssh_accounts.json"},
            "fleet_id": {"type": "str", "required": True},
            "revoke_max": {"type": "int"},
            "phase": {"type": "str", "choices": ["all", "accounts", "sessions", "revoke"], "default": "all"},
        },
        supports_check_mode=True,
    )
    with told(module):
        result = _run(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
