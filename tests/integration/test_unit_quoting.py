# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What we write into unit files arrives as it was meant: run by real systemd of each release, byte for byte."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Callable

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _units
from ansible_collections.holdfast.backup.plugins.plugin_utils import _fleet

from tests.lab.api import Lab

RECORDED = [
    "",
    " ",
    ";",
    "#",
    "\\",
    "\\;",
    "; rm",
    "# comment",
    "a\\",
    '"',
    "'",
    '"\'"',
    "%",
    "%%",
    "%n",
    "%h/x",
    "$",
    "$$",
    "$HOME",
    "${HOME}",
    "$HOME/x",
    "a$HOME",
    "$(id)",
    "`id`",
    "{}",
    "@x",
    "-x",
    "+x",
    "!x",
    ":x",
    "|x",
    "\n",
    "a\nb",
    "a\\\nb",
    "\nExecStart=/bin/false",
    "\r",
    "\t",
    "\x01\x1b[31m\x7f",
    "\\x41",
    "\\u0041",
    "\\101",
    "é",
    "日本語",
    "\u0085\u2028\u2029\u202e\ufeff",
    "\ufdd0\ufffe\uffff\U0001ffff",
    "😀",
    "*?[a]",
    "~",
    "~root",
    "a=b",
    "A=$B",
    "[Service]",
    "x" * 5000,
    " leading and trailing ",
]
ALPHABET = "ab/ \t\n\r;#\\\"'%$`{}()[]<>|&*?!~^=:,.@-+\x01\x1f\x7f\x80é\u0085\u2028\ufeff日😀\ufdd0\uffff"

Run = Callable[[str, str], bytes]


def strings(seed: int, count: int) -> list[str]:
    """Random text, most of it of the characters that mean something to systemd."""
    chosen = random.Random(seed)
    return ["".join(chosen.choice(ALPHABET) for _each in range(chosen.randrange(12))) for _number in range(count)]


@pytest.fixture
def run_unit(lab: Lab, host: str) -> Run:
    """Start a one-shot unit on the host and return what it printed."""

    def run(settings: str, command: str) -> bytes:
        unit = f"[Service]\nType=oneshot\nStandardOutput=truncate:/run/quoting.out\n{settings}ExecStart={command}\n"
        lab.put(host, "/etc/systemd/system/quoting.service", unit.encode())
        script = (
            "set -e; systemctl daemon-reload; systemd-analyze verify quoting.service;"
            " systemctl start quoting.service || { journalctl --no-pager -n 30; exit 1; }; base64 /run/quoting.out"
        )
        done = lab.exec(host, ["sh", "-c", script], check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert not done.stderr, done.stderr
        return base64.b64decode(done.stdout)

    return run


@pytest.mark.parametrize("seed", [1, 2])
def test_arguments_arrive(run_unit: Run, seed: int) -> None:
    wanted = [*RECORDED, *strings(seed, 400)]
    printed = run_unit("", "/usr/bin/printf " + _units.command_line(["%s\\0", *wanted]))
    assert printed.decode().split("\0")[:-1] == wanted


def test_a_missing_escape_would_be_seen(run_unit: Run) -> None:
    """The control: what is not quoted does change on its way."""
    printed = run_unit("", '/usr/bin/printf "%%s\\\\0" "%n" "$HOME"')
    assert printed.decode().split("\0")[:-1] != ["%n", "$HOME"]


def test_environment_arrives(run_unit: Run) -> None:
    lines = [
        text
        for text in [*RECORDED, *strings(3, 300)]
        if not re.search("[\x00-\x1f\x7f\ufdd0\ufffe\uffff\U0001ffff]", text)
    ]
    wanted = {f"V{number}": text for number, text in enumerate(lines)}
    printed = run_unit(_units.environment(wanted), "/usr/bin/env -0")
    found = dict(each.split("=", 1) for each in printed.decode().split("\0") if each)
    assert {name: found.get(name) for name in wanted} == wanted


def test_the_longest_command_that_the_fleet_accepts(run_unit: Run) -> None:
    path = "/" + "\n" * 1000
    wanted = [path] * (_fleet.COMMAND_BYTES // len(_units.command_line([path, path]).encode()) * 2)
    lines = _units.command_line([*wanted, "end"])
    assert 0.95 < len(lines) / _fleet.COMMAND_BYTES <= 1
    printed = run_unit("", f"/bin/sh -c 'for last; do :; done; printf %%s,%%s $# \"$last\"' sh {lines}")
    assert printed == f"{len(wanted) + 1},end".encode()
