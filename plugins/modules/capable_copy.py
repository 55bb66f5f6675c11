#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: capable_copy
short_description: A private copy of a program that may read every file, for one group
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Copies a program into a directory of its own, both C(root) and the group with mode C(0750), and gives the copy the file
    capability C(cap_dac_read_search=ep). Members of the group can read every file with it, others cannot execute it.
  - The copy is replaced atomically when its content, owner, mode or capability is not as it should be.
  - The capability is not inheritable, so programs that the copy starts do not have it. C(NoNewPrivileges) of a systemd unit
    disables it.
extends_documentation_fragment: [holdfast.backup.attributes.host]
attributes:
  check_mode:
    support: full
    description: A program or group that the same play would install is listed in RV(not_checked).
  diff_mode:
    support: full
    description: Says what differs, never the content.
options:
  source:
    description:
      - The program, an ELF file that only root can write. Links are followed. Needed unless O(state=absent).
    type: path
  path:
    description: The copy. Nothing else may be in its directory, which is made and removed with it.
    type: path
    required: true
  group:
    description: Name or number of the group that may execute the copy. Needed unless O(state=absent).
    type: str
  state:
    description: Whether the copy is there.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Let the account holdfast read every file through a copy of restic
  holdfast.backup.capable_copy:
    source: /usr/bin/restic
    path: /usr/local/lib/holdfast-capable/restic
    group: holdfast
"""

RETURN = r"""
differs:
  description:
    - What was not as it should be, C(directory), C(copy), C(content), C(owner or mode) or C(capability). With O(state=absent)
      what was there.
  returned: success
  type: list
  elements: str
  sample: [content]
not_checked:
  description: In check mode, what does not exist yet.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._capable import Outcome, make, remove
from ..module_utils._failures import told


def _result(outcome: Outcome, path: str, after: str) -> dict[str, Any]:
    differs = list(outcome.differs)
    return {
        "changed": bool(differs),
        "differs": differs,
        "not_checked": list(outcome.not_checked),
        "diff": {
            "before_header": path,
            "after_header": path,
            "before": f"differs in: {', '.join(differs)}\n" if differs and after else "there\n" if differs else after,
            "after": after,
        },
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path"},
            "path": {"type": "path", "required": True},
            "group": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("source", "group"))],
        supports_check_mode=True,
    )
    params = module.params
    path, after = params["path"], ""
    with told(module, place=path):
        if params["state"] == "absent":
            outcome = remove(path, check_mode=module.check_mode)
        else:
            after = f"copy of {params['source']} root:{params['group']} 0750 cap_dac_read_search=ep\n"
            outcome = make(params["source"], path, params["group"], check_mode=module.check_mode)
    module.exit_json(**_result(outcome, path, after))


if __name__ == "__main__":
    main()
