# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Problems of an inventory: which variable of which host, its value, what is wrong, and the cure."""

from __future__ import annotations

import dataclasses
import typing as t

SHOWN = 80


class BadInput(ValueError):
    """A value that is refused; the caller knows which variable of which host it came from.

    ``where`` is the path below the variable (``system.schedule.calendar``), ``value`` what was given.
    """

    def __init__(self, where: str, value: t.Any, wrong: str, cure: str) -> None:
        super().__init__(wrong)
        self.where = where
        self.value = value
        self.wrong = wrong
        self.cure = cure


@dataclasses.dataclass(frozen=True)
class Problem:
    """One line for the user; ``hosts`` are the inventory names it concerns."""

    hosts: tuple[str, ...]
    variable: str
    value: str
    wrong: str
    cure: str

    def __str__(self) -> str:
        """The one message with host, variable, value and cure."""
        shown = f" = {self.value}" if self.value else ""
        return f"{', '.join(self.hosts)}: {self.variable}{shown}: {self.wrong}. {self.cure}"


def shorten(value: t.Any) -> str:
    """A value as a message shows it: quoted, control characters escaped, bounded."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
