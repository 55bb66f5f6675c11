# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._outcome import meaning, outcome_of


@pytest.mark.parametrize(
    ("code", "outcome", "state"),
    [
        (0, "ok", "present"),
        (1, "failed", None),
        (2, "failed", None),
        (3, "incomplete", "present"),
        (10, "failed", "absent"),
        (11, "failed", "locked"),
        (12, "failed", "wrong_key"),
        (130, "failed", None),
        (4, "failed", None),
        (255, "failed", None),
        (-9, "failed", None),
    ],
)
def test_restic(code: int, outcome: str, state: str | None) -> None:
    assert outcome_of("restic", code) == outcome
    assert meaning("restic", code).outcome == outcome
    assert meaning("restic", code).state == state


def test_unknown_codes_are_named() -> None:
    assert meaning("restic", 77).words == "unknown exit code 77"
    assert meaning("restic", -9).words == "signal 9"


def test_an_engine_without_a_table_never_succeeds() -> None:
    assert outcome_of("tar", 0) == "failed"


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0, "ok"),
        (1, "incomplete"),
        (2, "failed"),
        (52, "failed"),
        (100, "incomplete"),
        (107, "incomplete"),
        (127, "incomplete"),
        (99, "failed"),
        (128, "failed"),
        (-9, "failed"),
    ],
)
def test_warnings_of_borg_are_incomplete(code: int, outcome: str) -> None:
    assert outcome_of("borg", code) == outcome
