# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Version floors of the tools: data, with the reason for each."""

from __future__ import annotations

import re
import typing as t


class Floor(t.NamedTuple):
    """The lowest version of a tool that a feature works with."""

    tool: str
    feature: str
    minimum: str
    reason: str


FLOORS: tuple[Floor, ...] = (
    Floor(
        "restic",
        "jobs",
        "0.17.1",
        "older versions return 1 for a missing repository, a wrong password and a lock alike, have no --stdin-from-command,"
        " and below 0.16.4 zstd could corrupt data",
    ),
    Floor(
        "restic-warns",
        "the outcome of a run whose journal is lost",
        "0.19",
        "older versions leave out a path that they do not see and end with 0: only a line at the beginning says so",
    ),
    Floor(
        "rest-server",
        "append-only repositories",
        "0.13",
        "the first version whose socket activation and options are tested here",
    ),
    Floor(
        "rclone",
        "remotes",
        "1.75.2",
        "before 1.75 a client reads and writes the repositories of other clients with ../ in a path (CVE-2026-71309), and"
        " before 1.75.2 it overwrites its history where a store fails to say what it has",
    ),
    Floor(
        "rclone-directories",
        "directories of the server",
        "1.60",
        "the first version whose serve restic is tested here",
    ),
    Floor(
        "borg",
        "jobs",
        "1.4.0",
        "older versions name no warning (and before 1.2.5 take a forged archive for a true one, CVE-2023-36811)",
    ),
    Floor(
        "borg-restore",
        "restore",
        "1.4.5",
        "an archive that an intruder may have written is not safe to restore with it, unless its distribution has fixed that"
        " (CVE-2026-62268)",
    ),
    Floor("borgmatic", "jobs", "1.9.10", "older versions do not read systemd's credentials in a configuration"),
    Floor(
        "systemd", "run units", "251", "OnSuccess= and OnFailure= tell the recorder the result (MONITOR_*) since 251"
    ),
)


def parse(version: str) -> tuple[int, ...]:
    """The numbers of a version; a Debian epoch and revision are dropped (``1:0.18.0-1+b6`` is 0.18.0)."""
    upstream = version.split(":", 1)[-1].split("-", 1)[0]
    return tuple(int(number) for number in re.findall(r"[0-9]+", re.split(r"[~+]", upstream, maxsplit=1)[0]))


def floor(tool: str) -> Floor:
    """The floor of a tool. Raises KeyError for a tool without one."""
    for entry in FLOORS:
        if entry.tool == tool:
            return entry
    raise KeyError(tool)


def below(tool: str, version: t.Any) -> bool:
    """Whether a version of a tool is below its floor; a number that YAML read is taken as it is written."""
    return parse(str(version)) < parse(floor(tool).minimum)
