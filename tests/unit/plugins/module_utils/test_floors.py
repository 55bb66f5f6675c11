# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Version floors."""

from __future__ import annotations

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _floors


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("0.18.0", (0, 18, 0)),
        ("1:0.18.0-1+b6", (0, 18, 0)),
        ("252.39-1~deb12u1", (252, 39)),
        ("0.17.1~rc1-1", (0, 17, 1)),
        ("v0.17.1", (0, 17, 1)),
        ("0.17.1+ds1", (0, 17, 1)),
        ("", ()),
        ("unknown", ()),
    ],
)
def test_parse(version: str, numbers: tuple[int, ...]) -> None:
    assert _floors.parse(version) == numbers


@pytest.mark.parametrize(
    ("tool", "version", "below"),
    [
        ("restic", "0.17.0", True),
        ("restic", "0.17.1", False),
        ("restic", "0.18.0-1+b6", False),
        ("restic", "0.9.6", True),
        ("restic", "1.0", False),
        ("restic", "", True),
        ("restic", None, True),
        ("restic", 0.18, False),
        ("systemd", "247.3", True),
        ("systemd", "252.39-1~deb12u1", False),
        ("rest-server", "0.13.0", False),
        ("rest-server", "0.12.1", True),
    ],
)
def test_below(tool: str, version: object, below: bool) -> None:
    assert _floors.below(tool, version) is below


def test_floors_say_why() -> None:
    for floor in _floors.FLOORS:
        assert _floors.floor(floor.tool) is floor
        assert floor.reason
        assert not _floors.below(floor.tool, floor.minimum)
    with pytest.raises(KeyError):
        _floors.floor("tar")
