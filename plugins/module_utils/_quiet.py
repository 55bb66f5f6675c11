# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module whose options hold secrets."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


class QuietModule(AnsibleModule):  # type: ignore[misc] # Ansible has no types
    """Writes none of its options to the host's log.

    Ansible writes options in lists as Python shows them, and looks for secrets as they are: one with a line break, a
    backslash or both kinds of quotes is not found there, and would be readable in the journal.
    """

    def _log_invocation(self) -> None:
        self.log("Invoked with options that are not logged")
