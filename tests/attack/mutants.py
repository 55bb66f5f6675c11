# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may be taken away from a host, each as a script for it: with one of them, tests have to fail."""

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

_SERVED = "/etc/holdfast/serve/bk-*/"
_REST = "/etc/systemd/system/holdfast-rest-server.service"
_UNITS = "/etc/systemd/system/holdfast-system--*.service"
_RELOAD_REST = "systemctl daemon-reload; systemctl restart holdfast-rest-server.service"
# Of the fleet: the host, and its script.
FLEET_MUTANTS = {
    "rest-not-append-only": ("vault1", f"sed -i '/--append-only/d' {_REST}; {_RELOAD_REST}"),
    "rest-not-private": ("vault1", f"sed -i '/--private-repos/d' {_REST}; {_RELOAD_REST}"),
    "rclone-not-append-only": ("vault1", f'sed -i \'s/"append_only": true/"append_only": false/\' {_SERVED}proxy.json'),
    "rclone-any-name": (
        "vault1",
        "printf '#!/bin/sh\\nexec cat\\n' >/usr/local/libexec/holdfast/restic-layout",
    ),
    "borg-not-append-only": ("vault1", f'sed -i \'s/"append_only": true/"append_only": false/\' {_SERVED}archive.json'),
    "borg-not-confined": (
        "vault1",
        "sed -i '/\"--restrict-to-repository\"/d' /usr/local/libexec/holdfast/serve; ! grep -q restrict-to /usr/local/libexec/holdfast/serve",
    ),
    # The repository's own configuration has it too, from when it was made.
    "no-quota": (
        "vault1",
        f'sed -i \'s/"quota": "20M"/"quota": null/\' {_SERVED}archive.json;'
        " sed -i 's/^storage_quota = .*/storage_quota = 0/' /srv/holdfast-ssh/*--archive/config",
    ),
    "accept-new": (
        "web1",
        "sed -i 's/StrictHostKeyChecking yes/StrictHostKeyChecking accept-new/' /etc/holdfast/ssh/*.conf",
    ),
    "inherited-capability": (
        "web1",
        f"sed -i 's,capsh --noamb --shell=/usr/bin/ssh --,ssh,; s,capsh --noamb --shell=/usr/bin/env -- ,,' {_UNITS};"
        " systemctl daemon-reload",
    ),
    "hidden-home": ("web1", f"sed -i 's/^ProtectHome=.*/ProtectHome=yes/' {_UNITS}; systemctl daemon-reload"),
    "no-capability": ("web1", f"sed -i '/^AmbientCapabilities=/d' {_UNITS}; systemctl daemon-reload"),
    "world-executable-copy": ("db1", "chmod -R a+rx /usr/local/lib/holdfast-capable"),
    "readable-secrets": ("web1", "chmod -R a+rX /etc/holdfast/secrets"),
}
