#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Install one program out of an upstream release archive
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Downloads an archive, verifies its SHA-256, unpacks one program in memory and installs it atomically.
  - Nothing is unpacked before it is verified, and nothing is ever executed.
  - A record on the host says what was installed, so a converged run downloads nothing, and a program that was altered on
    disk is installed anew.
extends_documentation_fragment: [holdfast.backup.attributes.host]
attributes:
  check_mode:
    support: full
    description: Downloads nothing.
  diff_mode:
    support: full
    description: Shows hashes, owner and mode.
options:
  url:
    description:
      - Address of the archive, HTTP or HTTPS. Proxies are taken from the environment. One with a user or a password is
        refused, since it would be shown.
      - When only the address changes and O(sha256) does not, nothing is downloaded.
    type: str
    required: true
  sha256:
    description: SHA-256 of the archive, 64 hex digits.
    type: str
    required: true
  format:
    description: Format of the archive. By default it is what the end of O(url) says.
    type: str
    choices: [bz2, tar.gz, zip, binary]
  member:
    description: Path of the program in the archive, or its base name when that occurs once. Needed for tar.gz and zip.
    type: str
  path:
    description: Where the program is installed. Its directory is made when it is missing.
    type: path
    required: true
  owner:
    description: Name or number of its owner.
    type: str
    default: root
  group:
    description: Name or number of its group.
    type: str
    default: root
  mode:
    description: Its mode as three or four octal digits in quotes. A number is an error.
    type: raw
    default: '0755'
  record:
    description: Name of the record. By default it is the base name of O(path).
    type: str
  record_dir:
    description: Directory of the records on the host.
    type: path
    default: /var/lib/holdfast/release
  timeout:
    description: Seconds to wait for an answer of the server.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Install restic from a mirror
  holdfast.backup.release:
    url: https://mirror.example.org/restic_0.19.1_linux_amd64.bz2
    sha256: "{{ restic_sha256 }}"
    path: /usr/local/bin/restic
"""

RETURN = r"""
path:
  description: Where the program is installed.
  returned: success
  type: str
  sample: /usr/local/bin/restic
archive_sha256:
  description: SHA-256 of the archive.
  returned: success
  type: str
binary_sha256:
  description: SHA-256 of the installed program, null in check mode when it would be downloaded.
  returned: success
  type: str
downloaded:
  description: Whether the archive was downloaded, in check mode whether it would be.
  returned: success
  type: bool
not_checked:
  description: What only the real run can check, the archive among it.
  returned: success
  type: list
  elements: str
"""

import posixpath
import re
from http.client import HTTPException
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url

from ..module_utils._failures import told
from ..module_utils._files import (
    Entry,
    Tree,
    check_path,
    group_id,
    parse_mode,
    sha256,
    user_id,
)
from ..module_utils._location import refuse_credentials
from ..module_utils._release import FORMATS, MAXIMUM_SIZE, format_of, unpack

_SHA256 = re.compile(r"\A[0-9a-f]{64}\Z")
_RECORD = re.compile(r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")
_NO_ID = -1


def _download(module: AnsibleModule, url: str, expected: str) -> bytes:
    """Return the verified archive. Raises ValueError that names both hashes when it is another one."""
    response, info = fetch_url(module, url, timeout=module.params["timeout"])
    if info["status"] != 200 or response is None:
        raise ValueError(f"{url} cannot be downloaded: {info['msg']}: check url, or set up a mirror or proxy")
    try:
        content: bytes = response.read(MAXIMUM_SIZE + 1)
    except (OSError, HTTPException) as error:
        raise ValueError(f"{url} broke off: {error}: run again") from None
    actual = sha256(content)
    if actual != expected:
        raise ValueError(
            f"{url} has the SHA-256 {actual}, and {expected} is expected: nothing was installed; correct sha256 only "
            f"when upstream's own list says so"
        )
    return content


def _run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    path = check_path(params["path"], "path")
    expected = params["sha256"].lower()
    if not _SHA256.match(expected):
        raise ValueError(f"sha256 {params['sha256']!r} is not 64 hex digits: take it from upstream's list")
    if not re.match(r"\Ahttps?://[^/\s]", params["url"]):
        raise ValueError(f"url {params['url']!r} is not an http or https address")
    form = params["format"] or format_of(params["url"])
    member = params["member"]
    if form in ("tar.gz", "zip") and not member:
        raise ValueError(f"member is needed to unpack {form}: give the name of the program in the archive")
    mode = parse_mode(params["mode"], "mode")
    name = params["record"] or posixpath.basename(path)
    if not _RECORD.match(name):
        raise ValueError(f"record {name!r} must be lower case letters, digits and . _ -")
    record_path = posixpath.join(check_path(params["record_dir"], "record_dir"), f"{name}.json")
    uid, gid = user_id(params["owner"]), group_id(params["group"])
    not_checked = [f"{path}: its owner {params['owner']} does not exist"] if uid is None else []
    not_checked += [f"{path}: its group {params['group']} does not exist"] if gid is None else []
    if not_checked and not module.check_mode:
        raise ValueError("; ".join(not_checked) + ": make the account first")
    uid, gid = _NO_ID if uid is None else uid, _NO_ID if gid is None else gid
    with Tree() as tree:
        record = tree.read_json(record_path) or {}
        before = tree.entry(path)
        if before is not None and before.kind not in ("file", "link"):
            raise ValueError(f"{path} is not a file: remove it, or give another path")
        there = sha256(before.content) if before is not None and before.kind == "file" else None
        known = {"archive_sha256": expected, "binary_sha256": there, "path": path, "member": member, "format": form}
        download = there is None or record != known
        content: bytes | None = None if download or before is None else before.content
        if download and not module.check_mode:
            content = unpack(_download(module, params["url"], expected), form, member)
        elif download:
            not_checked.append(f"{path}: the archive {params['url']} is downloaded and verified by the real run only")
        changed = download or before != Entry("file", uid, gid, mode, content or b"")
        if not module.check_mode and changed and content is not None:
            tree.make_parents(path)
            tree.write(path, content, uid=uid, gid=gid, mode=mode)
            # Last, so that a killed run downloads again.
            tree.write_json(record_path, {**known, "binary_sha256": sha256(content)}, mode=0o644)
    return {
        "changed": changed,
        "path": path,
        "archive_sha256": expected,
        "binary_sha256": None if content is None else sha256(content),
        "downloaded": download,
        "not_checked": not_checked,
        "diff": {
            "before_header": path,
            "after_header": path,
            "before": _describe(before, record.get("archive_sha256")),
            "after": f"file {params['owner']}:{params['group']} mode {mode:04o} of archive {expected}\n",
        },
    }


def _describe(entry: Entry | None, archive: object) -> str:
    if entry is None:
        return ""
    return f"{entry.kind} {entry.uid}:{entry.gid} mode {entry.mode:04o} of archive {archive}\n"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "sha256": {"type": "str", "required": True},
            "format": {"type": "str", "choices": list(FORMATS)},
            "member": {"type": "str"},
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "raw", "default": "0755"},
            "record": {"type": "str"},
            "record_dir": {"type": "path", "default": "/var/lib/holdfast/release"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    with told(module):
        refuse_credentials(module.params, "url")
        result = _run(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
