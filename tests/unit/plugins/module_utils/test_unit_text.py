# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text in unit files. That systemd reads it so is shown in tests/integration/test_unit_quoting.py."""

from __future__ import annotations

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _units


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("--tag=a:b", "--tag=a:b"),
        ("", '""'),
        (" ", '" "'),
        ("a\nb", '"a\\x0ab"'),
        ("%n", '"%%n"'),
        ("$HOME", '"$$HOME"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("a'b", '"a\'b"'),
        (";", '";"'),
        ("#", '"#"'),
        ("é", '"é"'),
        ("\uffff", '"\\xef\\xbf\\xbf"'),
        ("a\n", '"a\\x0a"'),
    ],
)
def test_words(text: str, quoted: str) -> None:
    assert _units.quote(text) == quoted


def test_a_dollar_is_special_in_commands_only() -> None:
    assert _units.quote("$x%", command=False) == '"$x%%"'


def test_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        _units.quote("a\0b")


def test_one_argument_a_line() -> None:
    assert _units.command_line(["a", "b c"]) == 'a \\\n  "b c"'
    assert "\n" not in _units.command_line(["a\nb"])


def test_environment() -> None:
    assert _units.environment({"B": "x y", "A": "$1"}) == 'Environment="A=$1"\nEnvironment="B=x y"\n'
    assert _units.environment({}) == ""
