# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathers what is known of one invocation of a run unit; used while it ends (finish) and after it (record)."""

from __future__ import annotations

import dataclasses
import os

from .. import _floors, _secrets
from . import journal
from . import state as states
from .assess import Assessment, Ending, assess
from .definition import Definition
from .engine import restic_version
from .host import Host
from .journal import Digest
from .mounts import mounted
from .state import State


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that is known of an invocation, and what it amounts to."""

    invocation: str
    ending: Ending
    state: State | None
    digest: Digest
    assessment: Assessment


def gather(host: Host, definition: Definition, invocation: str, ending: Ending) -> Evidence:
    """Read journal and findings of `invocation`, and assess them."""
    digest = _digest(host, definition, invocation, expected=ending.exit_status in (0, 3) and not definition.dumps_only)
    return weigh(host, definition, invocation, ending, digest)


def weigh(host: Host, definition: Definition, invocation: str, ending: Ending, digest: Digest) -> Evidence:
    """Assess `digest` together with what this invocation found itself."""
    state = states.load(host, definition.unit, invocation)
    found = assess(definition, ending, state, digest, lost(host, definition))
    return Evidence(invocation, ending, state, digest, found)


def lost(host: Host, definition: Definition) -> str | None:
    """The reason of the outcome if something without which systemd cannot start the unit is not there."""
    if definition.mount is not None and not mounted(host, definition.mount):
        return "unreachable"
    if not host.path(definition.record).is_file():
        return "no record"
    if any(not host.path(path).is_file() for path in definition.secret_files):
        return "lost key file"
    return None


def _digest(host: Host, definition: Definition, invocation: str, *, expected: bool) -> Digest:
    program = os.path.basename(definition.binary)

    def ask() -> Digest:
        # A hook may say more than is read.
        return journal.digest(journal.read(host, invocation, program=program), program, definition.service)

    found = journal.until_summary(host, ask, expected=expected)
    if found.summary is None:
        return found
    if definition.borg is None:
        found.lines += [line for line in journal.skipped(host, invocation, program) if line not in found.lines]
    # Only the journal knows what borg warned of. Of restic the exit code says it, too, but for a path that is not there.
    found.whole = journal.has_beginning(host, invocation) or (
        definition.borg is None and not _floors.below("restic-warns", restic_version(host, definition) or "0")
    )
    return found


def without_secrets(host: Host, definition: Definition, text: str) -> str:
    """A message without any of the repository's secrets, should a tool have repeated one."""
    for secret in _secrets_of(host, definition):
        text = text.replace(secret, "***")
    return text


def _secrets_of(host: Host, definition: Definition) -> list[str]:
    secrets = []
    for path in (definition.password_file, definition.environment_file, definition.identity_file):
        try:
            text = host.path(path).read_text(encoding="utf-8") if path else ""
            if path == definition.password_file:
                secrets.append(text.rstrip("\n"))
            elif path == definition.environment_file:
                secrets += _secrets.parse_environment(text).values()
            else:
                identity = _secrets.Identity.parse(text)
                secrets += [each.password for each in (identity.rest_current, identity.rest_next) if each]
        except (OSError, ValueError, _secrets.SecretsError):
            continue
    # Short values are words that messages hold for other reasons.
    return [secret for secret in secrets if len(secret) >= 6]
