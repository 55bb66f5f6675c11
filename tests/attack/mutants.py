# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may be taken away, from a host or from the collection itself, and the tests that have to fail then."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.tools import tree

# Where a host keeps what it was before.
_BEFORE = "/root/before-mutant"
# What attacks destroy where they succeed, by host.
_DATA = {"vault1": "/srv/holdfast /srv/holdfast-ssh"}
_TAR = "tar --xattrs --xattrs-include='*' -p -P"


@dataclass(frozen=True)
class Mutant:
    """A script that takes something away from a host: from each of `places` and nothing else; they are words of a shell."""

    tests: tuple[str, ...]
    places: tuple[str, ...]
    script: str
    # Of the fleet. Elsewhere it is the one server that there is.
    host: str = ""

    def take(self) -> str:
        """The script, which fails where it leaves one of the places as it was."""
        look = "look() { find \"$@\" -printf '%p %m %u\\n' -type f -exec sha256sum {} + | sort; }"
        seen = [(f"look {place}", f"{_BEFORE}.{number}") for number, place in enumerate(self.places)]
        return "\n".join(
            [
                "set -e",
                look,
                f"{_TAR} -cf {_BEFORE}.tar {' '.join(self.places)} {_DATA.get(self.host, '')}",
                *[f"{command} >{before}" for command, before in seen],
                self.script,
                *[
                    f'if {command} | cmp -s - {before}; then echo "{command[5:]} is as it was" >&2; exit 1; fi'
                    for command, before in seen
                ],
            ]
        )

    def give_back(self) -> str:
        """The script that makes the host what it was before, and brings back what attacks destroyed."""
        data = _DATA.get(self.host)
        return "\n".join(
            [
                f"find {data} -mindepth 1 -delete" if data else ":",
                f"{_TAR} -xf {_BEFORE}.tar && rm {_BEFORE}.*",
                "systemctl daemon-reload; systemctl try-restart ssh",
                # Not every host has it.
                "systemctl try-restart holdfast-rest-server.service 2>/dev/null || :",
            ]
        )


@contextlib.contextmanager
def mutated(run: Callable[[str], object], mutant: Mutant) -> Iterator[None]:
    """Take it away, and give it back."""
    try:
        run(mutant.take())
        yield
    finally:
        run(mutant.give_back())


@dataclass(frozen=True)
class Edit:
    """Another text in a file of the collection."""

    tests: tuple[str, ...]
    file: str
    old: str
    new: str

    def apply(self, folder: Path) -> Path:
        """Copy the collection with that text below a folder, and return where Ansible finds it."""
        file = tree.copy(folder) / self.file
        text = file.read_text()
        assert text.count(self.old) == 1, f"{self.file} has not exactly once: {self.old}"
        file.write_text(text.replace(self.old, self.new))
        return folder


_KEYS = "/etc/ssh/authorized_keys.d/bk-*"
_DROP_IN = "/etc/ssh/sshd_config.d/10-holdfast.conf"
_SERVE = "/usr/local/libexec/holdfast/serve"
_RELOAD = "systemctl reload ssh; sleep 0.5"
_NO_RESTRICT = f"sed -i 's/^restrict,//' {_KEYS}"
# The keys still have to be found, else nothing could be attacked.
_NO_MATCH = (
    "printf 'Match User bk-*\\n  AuthorizedKeysFile /etc/ssh/authorized_keys.d/%%u\\n  AllowUsers bk-*\\nMatch all\\n'"
    f" >{_DROP_IN}; {_RELOAD}"
)
_LAYERS = ("test_ssh.py::test_both_layers_are_there[vault1]",)


def _attacks(*names: str) -> tuple[str, ...]:
    return tuple(f"test_ssh.py::test_only_the_account_that_may[vault1-{name}]" for name in names)


# Of a server that has the role ssh_access alone.
MUTANTS = {
    "no-restrict": Mutant(_LAYERS, (_KEYS,), _NO_RESTRICT),
    "no-match": Mutant(_LAYERS, (_DROP_IN,), _NO_MATCH),
    "neither": Mutant(
        _attacks("terminal", "TCP (-L)", "listen on the server (-R)", "rc file"),
        (_KEYS, _DROP_IN),
        f"{_NO_RESTRICT}; {_NO_MATCH}",
    ),
    "no-command": Mutant(
        ("test_ssh.py::test_each_key_runs_its_one_command[vault1-web1-serve restic]",),
        (_KEYS,),
        f'sed -i \'s/command="[^"]*",\\?//; s/^restrict, /restrict /\' {_KEYS}',
    ),
    "any-command": Mutant(
        _attacks("command", "command instead of serve"),
        (_SERVE,),
        f'sed -i \'s|^def main() -> None:$|&\\n    if "SSH_ORIGINAL_COMMAND" in os.environ:\\n'
        f'        os.execl("/bin/sh", "sh", "-c", os.environ.pop("SSH_ORIGINAL_COMMAND"))|\' {_SERVE}',
    ),
    "writable-keys": Mutant(
        ("test_ssh.py::test_nothing_that_sshd_reads_can_be_written[vault1]",),
        ("/etc/ssh/authorized_keys.d/bk-web1",),
        "chown bk-web1 /etc/ssh/authorized_keys.d/bk-web1",
    ),
}

# Of what runs on that server.
EDITS = {
    "foreign-lines-unseen": Edit(
        ("test_ssh.py::test_a_line_inserted_by_hand[vault1]",),
        "plugins/module_utils/_ssh_accounts.py",
        "        if not known_key or line.blob in seen or line.repository is None:\n",
        "        if False:\n",
    ),
    "foreign-lines-stay": Edit(
        ("test_ssh.py::test_a_line_inserted_by_hand[vault1]",),
        "plugins/module_utils/_ssh_accounts.py",
        'outcome.files[name] = "".join(f"{line}\\n" for line in wanted)',
        'outcome.files[name] = "".join(f"{line}\\n" for line in ([each.text for each in lines] if odd else wanted))',
    ),
    "sessions-go-on": Edit(
        ("test_ssh.py::test_revocation_ends_sessions_and_keeps_data[vault1]",),
        "plugins/modules/ssh_accounts.py",
        "_end(tree, directory, outcome, ids) if real else",
        "_end(tree, directory, outcome, ids) if False else",
    ),
    "any-number-of-sessions": Edit(
        ("test_ssh.py::test_sessions_of_one_client_are_bounded[vault1]",),
        "plugins/module_utils/_serve.py",
        "    if sessions(account) > MOST_SESSIONS:\n",
        "    if False:\n",
    ),
    "not-locked": Edit(
        ("test_ssh.py::test_revocation_ends_sessions_and_keeps_data[vault1]",),
        "plugins/modules/ssh_accounts.py",
        "host.lock(sorted(outcome.locked))",
        "host.lock([])",
    ),
}

_REST = "/etc/systemd/system/holdfast-rest-server.service"
_RELOAD_REST = "systemctl daemon-reload; systemctl restart holdfast-rest-server.service"
_COMPLETE = ("test_capability.py::test_the_backup_is_complete[vault]",)


def _served(repository: str) -> str:
    return f"/etc/holdfast/serve/bk-web1/{repository}.json"


def _unit(repository: str) -> str:
    return f"/etc/systemd/system/holdfast-system--{repository}.service"


# Of a whole fleet.
FLEET_MUTANTS = {
    "rest-not-append-only": Mutant(
        ("test_append_only.py::test_rest_server",),
        (_REST,),
        f"sed -i '/--append-only/d' {_REST}; {_RELOAD_REST}",
        "vault1",
    ),
    "rest-not-private": Mutant(
        ("test_append_only.py::test_rest_server",),
        (_REST,),
        f"sed -i '/--private-repos/d' {_REST}; {_RELOAD_REST}",
        "vault1",
    ),
    "rclone-not-append-only": Mutant(
        ("test_append_only.py::test_rclone",),
        (_served("proxy"),),
        f'sed -i \'s/"append_only": true/"append_only": false/\' {_served("proxy")}',
        "vault1",
    ),
    "rclone-any-name": Mutant(
        ("test_append_only.py::test_rclone", "test_append_only.py::test_rclone_takes_no_other_name"),
        ("/usr/local/libexec/holdfast/restic-layout",),
        "printf '#!/bin/sh\\nexec cat\\n' >/usr/local/libexec/holdfast/restic-layout",
        "vault1",
    ),
    "borg-not-append-only": Mutant(
        ("test_append_only.py::test_borg",),
        (_served("archive"),),
        f'sed -i \'s/"append_only": true/"append_only": false/\' {_served("archive")}',
        "vault1",
    ),
    "borg-not-confined": Mutant(
        ("test_append_only.py::test_borg_opens_no_other_path",),
        (_SERVE,),
        f"sed -i '/\"--restrict-to-repository\"/d' {_SERVE}; ! grep -q restrict-to {_SERVE}",
        "vault1",
    ),
    "sftp-not-confined": Mutant(
        (
            "test_append_only.py::test_the_key_of_one_repository_opens_no_other_of_the_account[proxy]",
            "test_append_only.py::test_the_key_of_one_repository_opens_no_other_of_the_account[archive]",
        ),
        (_SERVE,),
        f"sed -i 's/landlock(wanted.confine)/pass/' {_SERVE}",
        "vault1",
    ),
    "sftp-any-mode": Mutant(
        ("test_append_only.py::test_the_key_of_one_repository_opens_no_other_of_the_account[proxy]",),
        ("/usr/local/libexec/holdfast/restic-layout",),
        "printf '#!/bin/sh\\nexec cat\\n' >/usr/local/libexec/holdfast/restic-layout",
        "vault1",
    ),
    # Before what fills repositories: the backup that it begins with would not be taken after that.
    "borg-any-key": Mutant(
        ("test_append_only.py::test_a_borg_key_is_nothing_else",),
        (_SERVE,),
        f"sed -i 's/^server.open, server.save_key = opened, save_key$/server.open = opened/' {_SERVE}",
        "vault1",
    ),
    "borg-quota-compared-after": Mutant(
        (
            "test_append_only.py::test_a_borg_quota_stops_whoever_goes_on_after_it[fill]",
            "test_append_only.py::test_a_borg_quota_stops_whoever_goes_on_after_it[fill with files]",
        ),
        (_SERVE,),
        f"sed -i 's/^    bounded(name)$/    pass/' {_SERVE}",
        "vault1",
    ),
    # As borg itself does it: without a quota nobody waits for anybody.
    "borg-saves-together": Mutant(
        (
            "test_append_only.py::test_a_borg_session_deletes_nothing_that_another_one_saves[before others saved-free]",
            "test_append_only.py::test_a_borg_session_deletes_nothing_that_another_one_saves[while others save-free]",
        ),
        (_SERVE,),
        "sed -i 's/^        begin(here)$/        pass/; /^Repository.prepare_txn, /d; /^LoggedIO.get_segments_transaction_id, /d'"
        f" {_SERVE}; ! grep -q ' = looked, cleaned, emptied\\|^        begin(here)$\\| = prepared, checked' {_SERVE}",
        "vault1",
    ),
    "borg-old-files": Mutant(
        (
            "test_append_only.py::test_a_borg_session_deletes_nothing_that_another_one_saves[with files of before-archive]",
            "test_append_only.py::test_a_borg_session_deletes_nothing_that_another_one_saves[with files of before-free]",
        ),
        (_SERVE,),
        f"sed -i 's/^        del self.fds.segment.$/        pass/' {_SERVE}",
        "vault1",
    ),
    "accept-new": Mutant(
        ("test_network.py::test_no_host_key_is_trusted_on_first_use",),
        ("/etc/holdfast/ssh/proxy.conf", "/etc/holdfast/ssh/archive.conf"),
        "sed -i 's/StrictHostKeyChecking yes/StrictHostKeyChecking accept-new/' /etc/holdfast/ssh/proxy.conf /etc/holdfast/ssh/archive.conf",
        "web1",
    ),
    "inherited-capability": Mutant(
        (
            "test_capability.py::test_what_a_backup_starts_has_no_capability[proxy-ssh]",
            "test_capability.py::test_what_a_backup_starts_has_no_capability[archive-ssh]",
            "test_capability.py::test_what_a_backup_starts_has_no_capability[own-rclone]",
        ),
        (_unit("proxy"), _unit("archive"), _unit("own")),
        f"sed -i 's,capsh --noamb --shell=/usr/bin/ssh --,ssh,; s,capsh --noamb --shell=/usr/bin/env -- ,,'"
        f" {_unit('proxy')} {_unit('archive')} {_unit('own')}; systemctl daemon-reload",
        "web1",
    ),
    "hidden-home": Mutant(
        _COMPLETE,
        (_unit("vault"),),
        f"sed -i 's/^ProtectHome=.*/ProtectHome=yes/' {_unit('vault')}; systemctl daemon-reload",
        "web1",
    ),
    "no-capability": Mutant(
        _COMPLETE,
        (_unit("vault"),),
        f"sed -i '/^AmbientCapabilities=/d' {_unit('vault')}; systemctl daemon-reload",
        "web1",
    ),
    "world-executable-copy": Mutant(
        ("test_capability.py::test_nobody_else_can_run_the_capable_copy",),
        ("/usr/local/lib/holdfast-capable",),
        "chmod -R a+rx /usr/local/lib/holdfast-capable",
        "app1",
    ),
    "readable-secrets": Mutant(
        ("test_capability.py::test_another_user", "test_capability.py::test_the_account_alone_reads_nothing"),
        ("/etc/holdfast/secrets",),
        "chmod -R a+rX /etc/holdfast/secrets",
        "web1",
    ),
    # The last: what a backup saves without it is over the quota afterwards. The repository's own configuration has it too, from
    # when it was made.
    "no-quota": Mutant(
        (
            "test_append_only.py::test_a_full_quota_is_its_owners_alone",
            "test_append_only.py::test_a_borg_quota_stops_whoever_goes_on_after_it[fill]",
            "test_append_only.py::test_a_borg_quota_stops_whoever_goes_on_after_it[fill with files]",
        ),
        (_served("archive"), "/srv/holdfast-ssh/web1--archive/config"),
        f'sed -i \'s/"quota": "20M"/"quota": null/\' {_served("archive")};'
        " sed -i 's/^storage_quota = .*/storage_quota = 0/' /srv/holdfast-ssh/web1--archive/config",
        "vault1",
    ),
}
ALL: dict[str, Mutant | Edit] = {**MUTANTS, **EDITS, **FLEET_MUTANTS}
