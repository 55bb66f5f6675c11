# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a repository was not reached, from what the tools on the way to it say."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Why a repository was not reached: the reason of an outcome, what it means, and the cure, with {name} of the repository."""

    reason: str
    words: str
    cure: str


# What ssh, the server's own program and an S3 store say; the first that matches counts.
_CAUSES: tuple[tuple[re.Pattern[str], Cause], ...] = (
    (
        re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed|No \S+ host key is known for"),
        Cause(
            "host key",
            "the SSH server has another host key than the pinned one",
            "nothing was sent to it; what it is known by is read on the server itself: run again with the server in the limit. If it"
            " stays, backup_repositories.{name}.address or the server's backup_address and backup_ssh_port lead to another host",
        ),
    ),
    (
        re.compile(r"Permission denied \([a-z,-]+\)"),
        Cause(
            "key refused",
            "the SSH server refused this host's key",
            "run again with the server in the limit; where backup_repositories.{name}.source is set, it has to hold the address"
            " that the server sees; see what sshd says: journalctl -u ssh on the server",
        ),
    ),
    (
        re.compile(r"holdfast: \S+ is in maintenance"),
        Cause("locked", "the server has it in maintenance", "run again when that has ended"),
    ),
    (
        re.compile(r"holdfast: \S+: this client has \d+ sessions here already"),
        Cause(
            "unreachable",
            "this host has as many sessions on the server as it may have",
            "let fewer of its units begin at a time, with a spread, and see what else uses its keys",
        ),
    ),
    (
        re.compile(r"holdfast: \S+: the store's quota is used up"),
        Cause("quota", "the quota of the server's store is used up", "raise it at the store, or free space there"),
    ),
    (
        re.compile(
            r"holdfast: \S+: (?:the store refuses this server's credentials|the credentials for the store have expired)"
        ),
        Cause(
            "wrong credentials",
            "the store behind the server refuses the server's credentials",
            "correct rclone_proxy_remotes of the server, and run again",
        ),
    ),
    (
        re.compile(r"holdfast: \S+: this server's clock and that of the store differ"),
        Cause("unreachable", "the server's clock and that of its store differ", "set the clock of the server"),
    ),
    (
        re.compile(r"ssh: connect to host \S+ port \d+: Connection refused"),
        Cause(
            "unreachable",
            "no SSH server listens there",
            "let sshd listen there, or correct backup_ssh_port of the server or backup_repositories.{name}.port",
        ),
    ),
    # An S3 store's own words, or those that restic's library has for a store without any; what the store behind an rclone
    # proxy denies names its code before.
    (
        re.compile(
            r"(?i)access key id you provided does not exist|request signature we calculated does not match|"
            r"provided token has expired|(?<!AccessDenied): Access Denied\b|is not authorized to perform: s3:"
        ),
        Cause(
            "wrong credentials",
            "the store refuses this host's credentials",
            "correct backup_repositories.{name}.environment, or what the store permits them, and run again",
        ),
    ),
    (
        re.compile(r"The specified bucket does not exist"),
        Cause("unreachable", "the bucket does not exist", "make it, or correct backup_repositories.{name}.url"),
    ),
    (
        re.compile(r"difference between the request time and the (?:server's|current) time is too large"),
        Cause("unreachable", "this host's clock and that of the store differ", "set the clock of this host"),
    ),
)


# What S3 stores say instead of their status 500 or 503. It may have passed: whatever else ended a command comes first.
STORE_TROUBLE = r"reduce your request rate|We encountered an internal error|Service is unable to handle request|Server not initialized yet"


def cause(text: str) -> Cause | None:
    """What a tool's messages say of the connection below it, None where that is not what failed."""
    for pattern, found in _CAUSES:
        if pattern.search(text):
            return found
    return None


def cure(words: str | None) -> str | None:
    """The cure for a cause of these words."""
    return next((each.cure for _pattern, each in _CAUSES if each.words == words), None)
