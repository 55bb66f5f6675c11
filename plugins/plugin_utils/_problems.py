# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Problems of an inventory: which variable of which host, its value, what is wrong, and the cure."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils._program.text import one_line

SHOWN = 80
SAID = 300
SEARCHED = 4096

# What nobody wants to see in a message, wherever a user may have put it by mistake.
_SECRET = re.compile(
    r"AGE-SECRET-KEY|PRIVATE KEY|://[^/\s]*:[^/\s]*@|(?i:password|passphrase|secret|token)['\"]?\s*[=:]"
)


class BadInput(ValueError):
    """A value that is refused; the caller knows which variable of which host it came from.

    ``where`` is the path below the variable (``system.schedule.calendar``), ``value`` what was given, and ``made`` whether
    only what is made with it goes wrong: it keeps nobody from reading, nor from taking a client its access.
    """

    def __init__(self, where: str, value: t.Any, wrong: str, cure: str, made: bool = False) -> None:
        super().__init__(wrong)
        self.where = where
        self.value = value
        self.wrong = wrong
        self.cure = cure
        self.made = made


@dataclasses.dataclass(frozen=True)
class Problem:
    """One line for the user; ``hosts`` are the inventory names it concerns."""

    hosts: tuple[str, ...]
    variable: str
    value: str
    wrong: str
    cure: str
    made: bool = False

    def __str__(self) -> str:
        """The one message with host, variable, value and cure."""
        shown = f" = {self.value}" if self.value else ""
        return one_line(f"{', '.join(self.hosts)}: {self.variable}{shown}: {self.wrong}. {self.cure}")


def shorten(value: t.Any) -> str:
    """A value as a message shows it: quoted, bounded, and hidden where it looks like a secret."""
    try:
        text = repr(str(value)) if isinstance(value, str) else str(value)
    except Exception:  # a value that cannot even be shown: a number of thousands of digits, something undefined
        return f"<{type(value).__name__}>"
    if _SECRET.search(text[:SEARCHED]):
        return "<hidden>"
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def type_of(value: t.Any) -> str:
    """The type of a value that is not shown itself, as its user knows it: Ansible reads an inventory into types of its own."""
    plain = next((each for each in (str, bool, int, float, list, dict) if isinstance(value, each)), type(value))
    return f"<{plain.__name__}>"


def below(where: str, key: t.Any) -> str:
    """The path of a key below another path, as a message shows it."""
    plain = isinstance(key, str) and re.match(r"\A[A-Za-z0-9_.-]{1,60}\Z", key)
    return f"{where}.{key if plain else shorten(key)}"


def said(error: BaseException) -> str:
    """What an exception says, in one bounded line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= SAID else text[: SAID - 1] + "…"
