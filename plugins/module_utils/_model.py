# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of a repository: the same keys for every engine, null for what cannot be known."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

_RFC3339 = re.compile(r"\A(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?(?:Z|([+-])(\d\d):(\d\d))?\Z")


def parse_time(text: str) -> float:
    """Return the seconds since 1970 of an RFC 3339 time (no zone: UTC); else ValueError."""
    match = _RFC3339.match(text)
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    day, clock, fraction, sign, hours, minutes = match.groups()
    moment = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
    if sign is not None:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        moment = moment - offset if sign == "+" else moment + offset
    return moment.timestamp() + float(fraction or "0")


def format_time(seconds: float) -> str:
    """Return seconds since 1970 as RFC 3339 in UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Snapshot:
    """A snapshot; `time` is RFC 3339 in UTC."""

    id: str
    time: str
    hostname: str | None = None
    paths: list[str] | None = None
    username: str | None = None
    tags: list[str] | None = None
    total_bytes_processed: int | None = None


@dataclass(frozen=True)
class Snapshots:
    """How many snapshots there are, and the newest."""

    count: int | None = None
    last: Snapshot | None = None


@dataclass(frozen=True)
class Lock:
    """A lock that lies in the repository, stale or not."""

    age_seconds: int | None = None
    exclusive: bool | None = None
    hostname: str | None = None


@dataclass(frozen=True)
class Repository:
    """A repository as far as it is known. `reason` says in words why `state` is not `present`."""

    location: str
    engine: str = "restic"
    state: str | None = None
    reason: str | None = None
    id: str | None = None
    format_version: int | None = None
    snapshots: Snapshots = field(default_factory=Snapshots)
    age_seconds: int | None = None
    locks: list[Lock] | None = None
    keys: int | None = None
    size: int | None = None
    # When something was last written, RFC 3339 in UTC: where archives are encrypted it is all that the files tell.
    modified: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with every key, whatever is known."""
        return asdict(self)


def age(time: str, now: float) -> int:
    """Return whole seconds from the RFC 3339 `time` to `now`; negative for a time that lies ahead."""
    return int(now - parse_time(time))
