# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one table that says what an engine's exit code means."""

from __future__ import annotations

from dataclasses import dataclass

OK = "ok"
INCOMPLETE = "incomplete"
FAILED = "failed"
NEVER_RAN = "never_ran"

ABSENT = "absent"
PRESENT = "present"
LOCKED = "locked"
WRONG_KEY = "wrong_key"
UNREACHABLE = "unreachable"
DAMAGED = "damaged"

# What a repository that older borgs wrote needs before borg 1.2.5 and later open it.
TAM = (
    "make sure that nobody else wrote to it, then 'borg upgrade --tam' and 'borg upgrade --archives-tam' (docs/borg.md)"
)


@dataclass(frozen=True)
class Meaning:
    """Outcome of the run, state of the repository where the code alone proves one, and the code in words."""

    outcome: str
    state: str | None
    words: str


# Warnings of borg, also those that a later version will add.
BORG_WARNINGS = range(100, 128)

TABLE: dict[str, dict[int, Meaning]] = {
    "restic": {
        0: Meaning(OK, PRESENT, "success"),
        1: Meaning(FAILED, None, "the command failed"),
        2: Meaning(FAILED, None, "restic crashed"),
        3: Meaning(INCOMPLETE, PRESENT, "some source data could not be read"),
        10: Meaning(FAILED, ABSENT, "there is no repository at this location"),
        11: Meaning(FAILED, LOCKED, "the repository is locked"),
        12: Meaning(FAILED, WRONG_KEY, "the password opens no key of this repository"),
        130: Meaning(FAILED, None, "restic was interrupted"),
    },
    # BORG_EXIT_CODES=modern, from 1.4; older ones say 1 or 2, and the message id tells (module_utils/_borg.py).
    "borg": {
        0: Meaning(OK, PRESENT, "success"),
        1: Meaning(INCOMPLETE, None, "borg warned"),
        2: Meaning(FAILED, None, "the command failed"),
        10: Meaning(FAILED, PRESENT, "there is a repository already"),
        11: Meaning(FAILED, DAMAGED, "it is a repository of attic: convert it with 'borg upgrade'"),
        12: Meaning(FAILED, DAMAGED, "index and segments do not fit together: run 'borg check'"),
        13: Meaning(FAILED, ABSENT, "there is no repository at this location"),
        14: Meaning(FAILED, None, "there is too little space left where the repository lies"),
        15: Meaning(FAILED, None, "there is no config file of a repository"),
        16: Meaning(FAILED, DAMAGED, "the config file cannot be read: restore it from a copy"),
        17: Meaning(FAILED, DAMAGED, "an object is missing in the repository: run 'borg check'"),
        18: Meaning(FAILED, UNREACHABLE, "the directory above the repository does not exist"),
        19: Meaning(FAILED, DAMAGED, "something else lies where the repository should be"),
        20: Meaning(FAILED, None, "the repository's storage quota is used up"),
        21: Meaning(FAILED, UNREACHABLE, "permission denied"),
        25: Meaning(FAILED, UNREACHABLE, "the repository needs a later borg"),
        26: Meaning(FAILED, DAMAGED, "the manifest is missing: run 'borg check'"),
        27: Meaning(FAILED, UNREACHABLE, "the repository needs a later borg"),
        40: Meaning(FAILED, DAMAGED, "the key file is damaged: restore it from the escrow"),
        41: Meaning(FAILED, WRONG_KEY, "the key file belongs to another repository"),
        42: Meaning(FAILED, WRONG_KEY, "there is no key file for this repository: restore it from the escrow"),
        44: Meaning(
            FAILED, DAMAGED, "the repository has lost its key: bring it back with 'borg key import' from the escrow"
        ),
        48: Meaning(FAILED, UNREACHABLE, "the repository needs a later borg"),
        50: Meaning(FAILED, WRONG_KEY, "there is no passphrase"),
        51: Meaning(FAILED, WRONG_KEY, "the passphrase cannot be read"),
        52: Meaning(FAILED, WRONG_KEY, "the passphrase does not open the key of this repository"),
        53: Meaning(FAILED, WRONG_KEY, "the passphrase does not open the key of this repository"),
        60: Meaning(FAILED, DAMAGED, "an unencrypted repository that this host does not know is in its place"),
        61: Meaning(FAILED, DAMAGED, "its encryption is not what it was: another repository is in its place"),
        62: Meaning(
            FAILED, UNREACHABLE, "it was at another location before, and borg asks a person whether that is meant"
        ),
        63: Meaning(FAILED, DAMAGED, "two repositories have the same id"),
        64: Meaning(
            FAILED, DAMAGED, "it is older than what this host saw before: it was replaced, or put back from a copy"
        ),
        70: Meaning(FAILED, LOCKED, "the repository is locked"),
        71: Meaning(FAILED, LOCKED, "the repository is locked"),
        72: Meaning(FAILED, UNREACHABLE, "the lock cannot be made: permission denied, or no space"),
        73: Meaning(FAILED, LOCKED, "the repository is locked"),
        80: Meaning(FAILED, UNREACHABLE, "the connection was closed"),
        81: Meaning(FAILED, UNREACHABLE, "the connection was closed"),
        82: Meaning(FAILED, UNREACHABLE, "borg of the server is too old or too new"),
        83: Meaning(FAILED, UNREACHABLE, "the server does not serve this path"),
        84: Meaning(FAILED, UNREACHABLE, "borg of the server is too old"),
        85: Meaning(FAILED, UNREACHABLE, "the server did not understand"),
        86: Meaning(FAILED, UNREACHABLE, "what answered is no borg"),
        87: Meaning(FAILED, UNREACHABLE, "the connection broke"),
        90: Meaning(FAILED, DAMAGED, "data in it is damaged: run 'borg check'"),
        91: Meaning(FAILED, DAMAGED, "a file of the repository is damaged: run 'borg check'"),
        92: Meaning(FAILED, DAMAGED, "data in it cannot be unpacked: run 'borg check'"),
        95: Meaning(
            FAILED, DAMAGED, f"an archive is not authentic; borg before 1.2.5 left renamed and recreated ones so: {TAM}"
        ),
        96: Meaning(FAILED, DAMAGED, f"archives from before borg 1.2.5: {TAM}"),
        97: Meaning(FAILED, DAMAGED, "the manifest is not authentic: it was forged or damaged"),
        98: Meaning(FAILED, DAMAGED, f"a manifest from before borg 1.0.9: {TAM}"),
        99: Meaning(FAILED, UNREACHABLE, "the repository needs a later borg"),
        100: Meaning(INCOMPLETE, PRESENT, "a file changed while it was read"),
        101: Meaning(INCOMPLETE, PRESENT, "a pattern matched nothing"),
        102: Meaning(INCOMPLETE, PRESENT, "some source data could not be read"),
        103: Meaning(INCOMPLETE, PRESENT, "a file was replaced while it was read"),
        104: Meaning(INCOMPLETE, PRESENT, "some source data could not be read"),
        105: Meaning(INCOMPLETE, PRESENT, "permission to read some source data was denied"),
        106: Meaning(INCOMPLETE, PRESENT, "some source data could not be read"),
        107: Meaning(INCOMPLETE, PRESENT, "a source was not there"),
        130: Meaning(FAILED, None, "borg was interrupted"),
    },
    # It swallows borg's warnings and codes: those are in what borg said.
    "borgmatic": {
        0: Meaning(OK, PRESENT, "success"),
        1: Meaning(FAILED, None, "borgmatic failed"),
    },
}


def meaning(engine: str, code: int) -> Meaning:
    """Return what exit code `code` of `engine` means; a code or an engine that is not in the table is a failure."""
    known = TABLE.get(engine, {}).get(code)
    if known is not None:
        return known
    if engine == "borg" and code in BORG_WARNINGS:
        return Meaning(INCOMPLETE, PRESENT, f"warning {code}")
    cause = f"signal {-code}" if code < 0 else f"unknown exit code {code}"
    return Meaning(FAILED, None, cause)


def outcome_of(engine: str, code: int) -> str:
    """Return the outcome of a run of `engine` that ended with `code`: ok, incomplete or failed."""
    return meaning(engine, code).outcome
