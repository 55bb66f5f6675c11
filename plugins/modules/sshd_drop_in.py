#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd_drop_in
short_description: One file of sshd's configuration, verified before it is installed
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Tries the file in a copy of the configuration, with C(sshd -t), and asks C(sshd -T -C) what holds for O(users) then.
  - A setting of another file that would win for some clients only, since it is under C(Match) with an address, a host, a port or the
    like, is refused where it comes first and is not what O(require) says. No question to sshd would cover every client. Blocks that
    C(User) or C(Group) keep from all of O(users) are no matter.
  - Only when that is what O(require) says, the file is installed and sshd is reloaded. Otherwise nothing is changed.
  - What holds is verified in every run, so that a change of another file is noticed.
attributes:
  check_mode:
    support: full
    description: Verifies as the real run does. Where there is no sshd yet, RV(not_checked) says so.
  diff_mode:
    support: full
    description: Shows the file before and after.
  platform:
    support: full
    platforms: posix
    description: Needs a Linux host with OpenSSH and systemd, and runs as root.
options:
  path:
    description: The file, in a directory that the main file includes.
    type: path
    required: true
  content:
    description: Its content.
    type: str
    required: true
  where_known:
    description:
      - Lines for the beginning of the file, each only where sshd knows its keyword. sshd refuses a configuration with a keyword that it does
        not know.
    type: list
    elements: str
    default: []
  where_default:
    description:
      - Lines for the beginning of the file, each only where sshd knows its keyword and no other file says anything else of it than sshd does by
        itself. What another file says holds, wherever it comes.
    type: list
    elements: dict
    default: []
    suboptions:
      line:
        description: The line.
        type: str
        required: true
      default:
        description: What sshd does by itself, as C(sshd -T) prints it.
        type: str
        required: true
  users:
    description: Accounts to ask sshd about. All are asked about where another file has C(Match) blocks, else the first.
    type: list
    elements: str
    default: []
  require:
    description:
      - Keywords and values as C(sshd -T) prints them. Values of a keyword that is printed several times are joined by
        spaces.
    type: dict
    default: {}
  service:
    description: The unit to reload, if it runs.
    type: str
    default: ssh.service
"""

EXAMPLES = r"""
- name: Allow no forwarding to the accounts of clients
  holdfast.backup.sshd_drop_in:
    path: /etc/ssh/sshd_config.d/10-holdfast.conf
    content: |
      Match User bk-*
        DisableForwarding yes
    users: [bk-web1]
    require:
      disableforwarding: 'yes'
"""

RETURN = r"""
reloaded:
  description: Whether sshd was (in check mode, would be) told to read its configuration again.
  returned: success
  type: bool
not_checked:
  description: What only the real run can check.
  returned: success
  type: list
  elements: str
"""

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._failures import told
from ..module_utils._files import Entry, Tree, check_path
from ..module_utils._run import run
from ..module_utils._sshd import (
    MAIN,
    SSHD,
    Candidate,
    check_user,
    differences,
    make_candidate,
    parse_settings,
    probes,
    unproven,
)

# A run that was killed between the file and the reload left it.
PENDING = "/var/lib/holdfast/sshd_reload"
PRIVATE = "/run/sshd"
_TIMEOUT = 30.0


def _check_lines(lines: list[str], option: str) -> None:
    for line in lines:
        if len(line.splitlines()) != 1 or len(line.split(None, 1)) != 2:
            raise ValueError(f"{option}: {line!r} is not one line with a keyword and a value")


def _known(lines: list[str]) -> list[str]:
    """Those of the lines that this sshd knows. Raises ValueError for what is no line."""
    _check_lines(lines, "where_known")
    # Asked without the configuration of this host, which may be what has to be mended. Before -G (9.3) nothing is known.
    known = parse_settings(run([SSHD, "-G", "-f", "/dev/null"], timeout=_TIMEOUT).stdout) if lines else {}
    return [line for line in lines if line.split()[0].lower() in known]


def _prepare(params: dict[str, Any], tree: Tree, scratch: str, content: str) -> tuple[Candidate, str, str]:
    """Write the configuration with the new file; return it, its path, and that of the file in it. Raises ValueError."""
    main = tree.entry(MAIN)
    if main is None or main.kind != "file":
        raise ValueError(f"{MAIN} is not there: install openssh-server")
    copy, whole = os.path.join(scratch, "drop-in.conf"), os.path.join(scratch, "sshd_config")
    candidate = make_candidate(main.content.decode("utf-8", "surrogateescape"), params["path"], copy)
    if not candidate.included:
        raise ValueError(
            f"{MAIN} does not include {params['path']}: put 'Include {os.path.dirname(params['path'])}/*.conf' at its beginning"
        )
    for path, text in ((copy, content), (whole, candidate.text)):
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
    return candidate, whole, copy


def _unset(params: dict[str, Any], tree: Tree, scratch: str, content: str) -> list[str]:
    """Those of the lines whose keyword no other file sets. Raises ValueError for what is no line."""
    lines = {each["line"]: each["default"] for each in params["where_default"]}
    _check_lines(list(lines), "where_default")
    if not lines:
        return []
    _candidate, whole, _copy = _prepare(params, tree, scratch, content)
    # These hold for everybody, so it is no matter who is asked about.
    probe = probes([check_user(user) for user in params["users"][:1]] or ["root"], False)[0]
    now = parse_settings(run([SSHD, "-T", "-f", whole, "-C", probe], timeout=_TIMEOUT).stdout)
    return [line for line, default in lines.items() if now.get(line.split()[0].lower()) == [default]]


def _verify(module: AnsibleModule, tree: Tree, scratch: str, content: str, require: dict[str, str]) -> None:
    """Raise ValueError unless the configuration with the new file is right."""
    params = module.params
    candidate, whole, copy = _prepare(params, tree, scratch, content)
    tested = run([SSHD, "-t", "-f", whole], timeout=_TIMEOUT)
    if tested.code != 0:
        said = tested.stderr.replace(copy, params["path"]).replace(whole, MAIN).strip()
        raise ValueError(f"sshd refuses the configuration, nothing was changed: {said}")
    users = [check_user(user) for user in params["users"]]
    unsure = unproven(candidate, users, require)
    if unsure:
        raise ValueError(
            f"what is needed would not hold for clients from everywhere, nothing was changed: {'; '.join(unsure)}. Let that "
            f"come after {params['path']}, in a file whose name sorts after it, or except the accounts there: "
            "Match ... User *,!bk-*"
        )
    for probe in probes(users, bool(candidate.others)):
        shown = run([SSHD, "-T", "-f", whole, "-C", probe], timeout=_TIMEOUT)
        wrong = differences(parse_settings(shown.stdout), require)
        if shown.code != 0 or wrong:
            what = "; ".join(wrong) if shown.code == 0 else shown.stderr.strip()
            raise ValueError(
                f"sshd would not do what is needed for {probe.split(',host')[0]}, nothing was changed: {what}. Look for "
                f"a Match block or a setting before that of {params['path']} in {MAIN} and what it includes"
            )


def _run(module: AnsibleModule, scratch: str) -> dict[str, Any]:
    params = module.params
    path = check_path(params["path"], "path")
    params["require"] = {str(keyword): str(value) for keyword, value in params["require"].items()}
    content = str(params["content"])
    with Tree() as tree:
        not_checked = []
        # sshd wants its directory even to test, and only its unit makes it.
        missing = [needed for needed in (SSHD, PRIVATE) if not os.path.exists(needed)]
        if module.check_mode and missing:
            not_checked.append(f"{path}: {missing[0]} is not there")
        else:
            os.makedirs(PRIVATE, mode=0o755, exist_ok=True)
            known = _known(params["where_known"])
            lines = [*_unset(params, tree, scratch, content), *known]
            content = "".join(f"{line}\n" for line in lines) + content
            written = {keyword.lower(): value for keyword, value in (line.split(None, 1) for line in known)}
            _verify(module, tree, scratch, content, {**params["require"], **written})
        wanted = Entry("file", 0, 0, 0o644, content.encode("utf-8", "surrogateescape"))
        before = tree.entry(path)
        pending = tree.entry(PENDING) is not None
        changed = before != wanted or pending
        if changed and not module.check_mode:
            tree.make_parents(PENDING)
            tree.write(PENDING, b"", uid=0, gid=0, mode=0o600)
            tree.make_parents(path)
            tree.write(path, wanted.content, uid=0, gid=0, mode=0o644)
            done = run(["systemctl", "try-reload-or-restart", params["service"]], timeout=_TIMEOUT)
            if done.code != 0:
                raise ValueError(f"{params['service']} cannot be reloaded: {done.stderr.strip()}")
            tree.unlink(PENDING)
    text = "" if before is None else before.content.decode("utf-8", "replace")
    return {
        "changed": changed,
        "reloaded": changed,
        "not_checked": not_checked,
        "diff": {"before_header": path, "after_header": path, "before": text, "after": content},
    }


def main() -> None:
    """Run the module."""
    line = {"line": {"type": "str", "required": True}, "default": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "where_known": {"type": "list", "elements": "str", "default": []},
            "where_default": {"type": "list", "elements": "dict", "default": [], "options": line},
            "users": {"type": "list", "elements": "str", "default": []},
            "require": {"type": "dict", "default": {}},
            "service": {"type": "str", "default": "ssh.service"},
        },
        supports_check_mode=True,
    )
    with tempfile.TemporaryDirectory(dir=module.tmpdir, prefix="holdfast-") as scratch, told(module):
        result = _run(module, scratch)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
