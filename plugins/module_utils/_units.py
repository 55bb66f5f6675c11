# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How systemd wants text to be written in unit files (systemd.syntax(7), systemd.service(5))."""

from __future__ import annotations

import re

PLAIN = re.compile(r"\A[A-Za-z0-9_@/.:,=+-]+\Z")
# Control characters, and the non-characters for which systemd refuses a whole line as no valid UTF-8.
ESCAPED = re.compile(
    "[\x01-\x1f\x7f\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}-{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)


def quote(text: str, command: bool = True) -> str:
    """One word of a unit file, every character literal.

    Specifiers (``%``) are doubled; in a command line variables (``$``) too. Raises ValueError on NUL.
    """
    if "\0" in text:
        raise ValueError("a unit file cannot hold a NUL character")
    if PLAIN.match(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if command:
        escaped = escaped.replace("$", "$$")
    escaped = ESCAPED.sub(lambda match: "".join(f"\\x{byte:02x}" for byte in match[0].encode()), escaped)
    return f'"{escaped}"'


def command_line(arguments: list[str]) -> str:
    """Arguments as the value of ``ExecStart=``, one a line so that a person can read them."""
    return " \\\n  ".join(quote(argument) for argument in arguments)


def environment(variables: dict[str, str]) -> str:
    """``Environment=`` lines for variables that are no secret, sorted."""
    return "".join(
        f"Environment={quote(f'{name}={value}', command=False)}\n" for name, value in sorted(variables.items())
    )
