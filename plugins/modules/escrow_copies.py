#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: escrow_copies
short_description: Keep copies of encrypted escrow bundles on a server
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - The escrow is on the controller. Where that and a client are lost together, what opens the client's repositories is still beside them.
  - Bundles are encrypted with age; the server cannot open them. Only root can read them there.
  - Add-only. A bundle that is there is never overwritten or removed.
extends_documentation_fragment: [holdfast.backup.attributes.host]
attributes:
  check_mode:
    support: full
    description: A bundle that is born in the real run, given as an empty content, is said to be added.
  diff_mode:
    support: full
    description: Shows the names of the bundles.
options:
  bundles:
    description: Contents in base64 by C(<backup_id>--<repository>/<bundle name>).
    type: dict
    required: true
  directory:
    description: Where they are kept, in a directory for each repository.
    type: path
    default: /var/lib/holdfast/escrow
seealso:
  - module: holdfast.backup.state
  - module: holdfast.backup.host_info
"""

EXAMPLES = r"""
- name: Keep a copy of a bundle beside the repository that it opens
  holdfast.backup.escrow_copies:
    bundles:
      web1--vault/0123456789abcdef0123456789abcdef-0123456789abcdef.age: YWdlLWVuY3J5cHRpb24ub3JnL3YxCg==
"""

RETURN = r"""
added:
  description: Names of the bundles that were not there, or in check mode would be added, by C(<backup_id>--<repository>).
  returned: success
  type: dict
  sample: {web1--vault: [0123456789abcdef0123456789abcdef-0123456789abcdef.age]}
"""

import base64
import binascii
import posixpath
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._escrow import AGE_MAGIC, COPIES
from ..module_utils._failures import told
from ..module_utils._files import Tree
from ..module_utils._secrets import UNBORN

# More than any bundle has.
BYTES = 65536
_NAME = re.compile(rf"\A{COPIES}/[0-9a-f]{{32}}-[0-9a-f]{{16}}\.age\Z")
_UNBORN = re.compile(rf"\A{COPIES}/{re.escape(UNBORN)}\Z")


def _contents(bundles: dict[str, Any], check_mode: bool) -> dict[str, bytes]:
    """The bundles, checked. Raises ValueError that names one."""
    found = {}
    for name, text in bundles.items():
        if not _NAME.match(name) and not (check_mode and _UNBORN.match(name)):
            raise ValueError(
                f"bundles: {name[:100]!r} is not <backup_id>--<repository>/<name of a bundle encrypted with age>"
            )
        try:
            content = base64.b64decode(str(text), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"bundles[{name}]: its content is not base64") from None
        unborn = check_mode and not content
        if not unborn and (not content.startswith(AGE_MAGIC) or len(content) > BYTES):
            raise ValueError(f"bundles[{name}]: not encrypted by age, or longer than {BYTES} bytes")
        found[name] = content
    return found


def _work(params: dict[str, Any], check_mode: bool) -> list[str]:
    contents, directory = _contents(params["bundles"], check_mode), params["directory"]
    with Tree() as tree:
        added = [name for name in sorted(contents) if tree.entry(posixpath.join(directory, name)) is None]
        if added and not check_mode:
            tree.make_parents(directory)
            for place in sorted({directory, *(posixpath.dirname(posixpath.join(directory, name)) for name in added)}):
                tree.make_directory(place, uid=0, gid=0, mode=0o700)
            for name in added:
                tree.write(posixpath.join(directory, name), contents[name], uid=0, gid=0, mode=0o400)
    return added


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            # What nobody can read need not be in every server's journal.
            "bundles": {"type": "dict", "required": True, "no_log": True},
            "directory": {"type": "path", "default": "/var/lib/holdfast/escrow"},
        },
        supports_check_mode=True,
    )
    added: list[str] = []
    with told(module, place=module.params["directory"]):
        added = _work(module.params, module.check_mode)
    lines = "".join(f"{name}\n" for name in added)
    grouped: dict[str, list[str]] = {}
    for name in added:
        repository, _slash, bundle = name.partition("/")
        grouped.setdefault(repository, []).append(bundle)
    module.exit_json(
        changed=bool(added),
        added=grouped,
        diff={"before": "", "after": lines, "after_header": module.params["directory"]},
    )


if __name__ == "__main__":
    main()
