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


@dataclass(frozen=True)
class Meaning:
    """Outcome of the run, state of the repository where the code alone proves one, and the code in words."""

    outcome: str
    state: str | None
    words: str


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
}


def meaning(engine: str, code: int) -> Meaning:
    """Return what exit code `code` of `engine` means; a code or an engine that is not in the table is a failure."""
    known = TABLE.get(engine, {}).get(code)
    if known is not None:
        return known
    cause = f"signal {-code}" if code < 0 else f"unknown exit code {code}"
    return Meaning(FAILED, None, cause)


def outcome_of(engine: str, code: int) -> str:
    """Return the outcome of a run of `engine` that ended with `code`: ok, incomplete or failed."""
    return meaning(engine, code).outcome
