#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_authority
short_description: Make and keep the private CA and the certificate of a server
version_added: '0.1.0'
author: holdfast contributors (@holdfast-backup)
description:
  - Keeps a CA of the server's own, which is valid for 10 years and permits exactly the declared names, and a short-lived certificate
    signed by it. Keys are EC P-256 and never leave the server.
  - A name that the CA does not permit needs a new CA. The first run announces it in RV(ca) and goes on serving the old names. A later
    run lets it take over, so that clients that have been given RV(ca) in the meantime never fail. After that clients
    keep the former CA for 30 days.
  - With O(mode=provided) it checks a certificate of the user's and changes nothing.
options:
  directory:
    description: Where the CA is; owned by root.
    type: path
    default: /etc/holdfast/tls
  mode:
    description: V(private) keeps a CA, V(provided) checks O(certificate_file) and O(key_file).
    type: str
    choices: [private, provided]
    default: private
  names:
    description: DNS names and IP addresses that clients dial.
    type: list
    elements: str
    required: true
  leaf_days:
    description: Lifetime of the certificate in days. It is renewed when a third of it remains.
    type: int
    default: 90
  group:
    description: Group that may read the certificate's key. Without it only root may.
    type: str
  switch:
    description: Whether a new CA that an earlier run announced may take over now.
    type: bool
    default: true
  certificate_file:
    description: The user's certificate with its chain, for O(mode=provided).
    type: path
  key_file:
    description: The user's key, for O(mode=provided).
    type: path
  ca_file:
    description: CA certificates that clients have to trust, for O(mode=provided). Without it they use those of their system.
    type: path
attributes:
  check_mode:
    description: Can run in check mode and tell what would change.
    support: full
  diff_mode:
    description: Shows what is made or removed, never a key.
    support: full
  platform:
    description: Linux with openssl 3.0 or newer.
    support: full
    platforms: linux
"""

EXAMPLES = r"""
- name: Keep the CA and the certificate of a rest-server
  holdfast.backup.tls_authority:
    names: [vault1.example.net, 192.0.2.10, "2001:db8::10"]
    group: rest-server
  register: tls

- name: Check a certificate of one's own
  holdfast.backup.tls_authority:
    mode: provided
    names: [backup.example.net]
    certificate_file: /etc/ssl/certs/backup.pem
    key_file: /etc/ssl/private/backup.key
"""

RETURN = r"""
ca:
  description:
    - CA certificates that clients have to trust, in PEM. Null where the system's are enough.
    - C(<made in the first real run>) where check mode cannot know.
  returned: success
  type: str
  sample: "-----BEGIN CERTIFICATE-----\n..."
leaf_not_after:
  description: When the certificate ends, in seconds since 1970. Null where check mode cannot know.
  returned: success
  type: int
  sample: 1803254400
fingerprint:
  description: SHA-256 of the certificate in hexadecimal. It changes when the server has to load a new one.
  returned: success
  type: str
  sample: 40808e6c0fcd11235f0c4c60d6805f2945bca40246ee54ca305db832f9052703
pending:
  description: Whether a new CA waits for the clients to know it. The certificate does not have all names until then.
  returned: success
  type: bool
  sample: false
served_names:
  description: The names of the certificate.
  returned: success
  type: list
  elements: str
  sample: [192.0.2.10, vault1.example.net]
certificate_file:
  description: The file for the server's option for the certificate.
  returned: success
  type: str
  sample: /etc/holdfast/tls/leaf.pem
key_file:
  description: The file for the server's option for the key. With O(mode=private) it is the same file.
  returned: success
  type: str
  sample: /etc/holdfast/tls/leaf.pem
"""

import dataclasses
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.backup.plugins.module_utils import _tls
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree, UnsafePathError, group_id
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN

ARGUMENT_SPEC: dict[str, Any] = {
    "directory": {"type": "path", "default": "/etc/holdfast/tls"},
    "mode": {"type": "str", "choices": ["private", "provided"], "default": "private"},
    "names": {"type": "list", "elements": "str", "required": True},
    "leaf_days": {"type": "int", "default": 90},
    "group": {"type": "str"},
    "switch": {"type": "bool", "default": True},
    "certificate_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "ca_file": {"type": "path"},
}
REQUIRED_IF = [("mode", "provided", ("certificate_file", "key_file"))]
_EXPIRES_SOON = 14 * _tls.DAY


class _Private:
    """One execution with the private CA."""

    def __init__(self, module: AnsibleModule, tree: Tree) -> None:
        self._tree = tree
        self._check_mode: bool = module.check_mode
        self._directory: str = module.params["directory"]
        self._params = module.params
        self._authority = _tls.Authority(tree, self._directory)
        self._changes: list[str] = []

    def run(self, now: float) -> dict[str, Any]:
        """Do it, and return the result."""
        declared = _settings(self._params)
        if not self._check_mode:
            _tls.leaf_access(declared.group)
        self._prepare_directory()
        found = self._authority.find()
        settings = dataclasses.replace(declared, previous_until=found.previous_until)
        decision = _tls.decide(found, settings, now, switch=self._params["switch"])
        self._note(decision)
        if not self._check_mode:
            settings = self._authority.apply(decision, settings, now)
        self._keep_files(settings, rewritten=decision.leaf_names is not None)
        unborn = self._check_mode and (decision.create or decision.announce)
        ca = UNBORN if unborn else self._authority.bundle(decision if self._check_mode else None)
        if not unborn:
            self._keep("ca.pem", ca, 0o644)
        else:
            self._changes.append("ca.pem: mode 0644")
        leaf = found.leaf if self._check_mode else self._authority.find().leaf
        born = leaf is not None and not (self._check_mode and decision.leaf_names is not None)
        return {
            "changed": bool(self._changes),
            "ca": ca,
            "leaf_not_after": leaf.not_after if leaf is not None and born else None,
            "fingerprint": leaf.fingerprint if leaf is not None and born else UNBORN,
            "pending": decision.pending,
            "served_names": sorted(decision.leaf_names or (leaf.names if leaf is not None else ())),
            "certificate_file": self._authority.path("leaf.pem"),
            "key_file": self._authority.path("leaf.pem"),
            "diff": {
                "before": "",
                "after": "".join(f"{line}\n" for line in self._changes),
                "after_header": self._directory,
            },
        }

    def _prepare_directory(self) -> None:
        entry = self._tree.directory_entry(self._directory)
        if entry is None or (entry.uid, entry.gid, entry.mode) != (0, 0, 0o755):
            self._changes.append(f"{self._directory}: directory root:root 0755")
            if self._check_mode:
                return
            if entry is None:
                self._tree.make_parents(self._directory)
                self._tree.make_directory(self._directory, uid=0, gid=0, mode=0o755)
            else:
                self._tree.set_directory(self._directory, uid=0, gid=0, mode=0o755)
        if not self._check_mode:
            self._authority.lock()

    def _note(self, decision: _tls.Decision) -> None:
        texts = {
            "create": "authority.pem: a new CA",
            "announce": "authority-next.pem: a new CA, to take over in a later run",
            "switch": "authority.pem: the announced CA takes over",
            "drop_following": "authority-next.pem: absent",
            "drop_previous": "authority-previous.pem: absent",
        }
        self._changes += [text for field, text in texts.items() if getattr(decision, field)]
        if decision.leaf_names is not None:
            self._changes.append(f"leaf.pem: a new certificate for {', '.join(sorted(decision.leaf_names))}")

    def _keep_files(self, settings: _tls.Settings, *, rewritten: bool) -> None:
        self._keep("authority.json", settings.render(), 0o600)
        for name in ("authority.pem", "authority-next.pem"):
            text = self._authority.text(name)
            if text is not None:
                self._keep(name, text, 0o600)
        leaf = self._authority.text("leaf.pem")
        if leaf is not None and not (rewritten and self._check_mode):
            gid, mode = (0, 0o600) if settings.group is None else (group_id(settings.group) or -1, 0o640)
            self._keep("leaf.pem", leaf, mode, gid)

    def _keep(self, name: str, text: str, mode: int, gid: int = 0) -> None:
        path = self._authority.path(name)
        entry = self._tree.entry(path)
        content = text.encode("utf-8")
        if entry is not None and (entry.uid, entry.gid, entry.mode, entry.content) == (0, gid, mode, content):
            return
        self._changes.append(f"{name}: mode {mode:04o}")
        if not self._check_mode:
            self._tree.write(path, content, uid=0, gid=gid, mode=mode)


def _settings(params: dict[str, Any]) -> _tls.Settings:
    if not 1 <= params["leaf_days"] <= _tls.AUTHORITY_DAYS - _tls.AUTHORITY_MARGIN // _tls.DAY:
        raise _tls.TlsError(f"`leaf_days` {params['leaf_days']} is not between 1 and 3285")
    return _tls.Settings(names=_tls.parse_names(params["names"]), leaf_days=params["leaf_days"], group=params["group"])


def _provided(module: AnsibleModule, now: float) -> dict[str, Any]:
    params = module.params
    # Nobody may dial it yet.
    wanted = _tls.parse_names(params["names"]) if params["names"] else frozenset()
    texts = {option: _read(option, params[option]) for option in ("certificate_file", "key_file", "ca_file")}
    certificate, key = ((f"`{name}` {params[name]}", str(texts[name])) for name in ("certificate_file", "key_file"))
    leaf = _tls.check_usable(certificate, key, wanted, now)
    if leaf.not_after - now < _EXPIRES_SOON:
        module.warn(f"{params['certificate_file']} ends on {_tls.utc(leaf.not_after)}")
    return {
        "changed": False,
        "ca": _tls.certificate_part(texts["ca_file"]) if texts["ca_file"] is not None else None,
        "leaf_not_after": leaf.not_after,
        "fingerprint": leaf.fingerprint,
        "pending": False,
        "served_names": sorted(leaf.names),
        "certificate_file": params["certificate_file"],
        "key_file": params["key_file"],
    }


def _read(option: str, path: str | None) -> str | None:
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError as error:
        raise _tls.TlsError(f"`{option}` {path}: {os.strerror(error.errno or 0)}") from error


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF, supports_check_mode=True)
    now = time.time()
    try:
        if module.params["mode"] == "provided":
            result = _provided(module, now)
        else:
            with Tree() as tree:
                result = _Private(module, tree).run(now)
    except (_tls.TlsError, UnsafePathError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
