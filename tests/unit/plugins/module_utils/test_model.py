# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._model import (
    Lock,
    Repository,
    Snapshot,
    Snapshots,
    age,
    format_time,
    parse_time,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-21T12:55:25.367965896Z", 1795265725.367965896),
        ("2026-11-21T13:55:25+01:00", 1795265725),
        ("2026-11-21T07:25:25.5-05:30", 1795265725.5),
        ("2026-11-21 12:55:25", 1795265725),
    ],
)
def test_parse_time(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-21T12:55:25Z", "2026-11-21T12:55:25Z\n", "2026-11-21"])
def test_parse_time_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(text)


def test_format_time_and_age() -> None:
    assert format_time(1795265725.9) == "2026-11-21T12:55:25Z"
    assert age("2026-11-21T12:55:25Z", 1795265735.9) == 10
    assert age("2026-11-21T12:55:25Z", 1795265715) == -10


def test_every_key_is_there_whatever_is_known() -> None:
    nothing = Repository("/r").to_dict()
    everything = Repository(
        "/r", snapshots=Snapshots(1, Snapshot("a", "2026-11-21T12:55:25Z", tags=["x"])), locks=[Lock(5)]
    ).to_dict()
    assert list(nothing) == list(everything)
    assert nothing == {
        "location": "/r",
        "engine": "restic",
        "state": None,
        "reason": None,
        "id": None,
        "format_version": None,
        "snapshots": {"count": None, "last": None},
        "age_seconds": None,
        "locks": None,
        "keys": None,
        "size": None,
        "modified": None,
    }
    assert everything["snapshots"]["last"] == {
        "id": "a",
        "time": "2026-11-21T12:55:25Z",
        "hostname": None,
        "paths": None,
        "username": None,
        "tags": ["x"],
        "total_bytes_processed": None,
    }
    assert everything["locks"] == [{"age_seconds": 5, "exclusive": None, "hostname": None}]
