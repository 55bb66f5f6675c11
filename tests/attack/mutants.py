# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may be taken away from a server, each as a script for it: with one of them, tests have to fail."""

from __future__ import annotations

_RELOAD = "systemctl reload ssh; sleep 0.5"
_NO_RESTRICT = "sed -i 's/^restrict,//' /etc/ssh/authorized_keys.d/bk-*"
# The keys still have to be found, else nothing could be attacked.
_NO_MATCH = (
    "printf 'Match User bk-*\\n  AuthorizedKeysFile /etc/ssh/authorized_keys.d/%%u\\n  AllowUsers bk-*\\nMatch all\\n'"
    f" >/etc/ssh/sshd_config.d/10-holdfast.conf; {_RELOAD}"
)
MUTANTS = {
    "no-restrict": _NO_RESTRICT,
    "no-match": _NO_MATCH,
    "neither": f"{_NO_RESTRICT}; {_NO_MATCH}",
    "no-command": 'sed -i \'s/command="[^"]*",\\?//; s/^restrict, /restrict /\' /etc/ssh/authorized_keys.d/bk-*',
}
