# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Types of the values that users write in jobs and repositories.

Each checker takes ``(where, value)`` and returns the normalised value or raises :class:`BadInput`.
"""

from __future__ import annotations

import re
import typing as t
import urllib.parse

from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput

Checker = t.Callable[[str, t.Any], t.Any]

NAME = re.compile(r"\A[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
NAME_LENGTH = 28
RESERVED = frozenset({"data", "index", "keys", "locks", "snapshots", "config", "metrics"})
LABEL = r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
HOSTNAME = re.compile(rf"\A(?=.{{1,253}}\Z){LABEL}(\.{LABEL})*\Z")
ACCOUNT = re.compile(r"\A[a-z_][a-z0-9_-]{0,31}\Z")
VARIABLE = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")
SPAN = re.compile(r"\A(?P<count>[1-9][0-9]{0,4})(?P<unit>[smhdw])\Z")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def name(where: str, value: t.Any) -> str:
    """A name of a job, a repository or a host's ``backup_id``."""
    if not isinstance(value, str) or not NAME.match(value) or len(value) > NAME_LENGTH:
        raise BadInput(
            where,
            value,
            "is not a name",
            f"Use lower-case letters, digits and single hyphens, a letter first, {NAME_LENGTH} characters at most",
        )
    if value in RESERVED:
        raise BadInput(
            where, value, "is a reserved name (restic and rest-server use it themselves)", "Choose another name"
        )
    return value


def text(pattern: str, what: str, cure: str) -> Checker:
    """A string that matches the whole of ``pattern``."""
    compiled = re.compile(rf"\A(?:{pattern})\Z")

    def check(where: str, value: t.Any) -> str:
        if not isinstance(value, str) or not compiled.match(value):
            raise BadInput(where, value, f"is not {what}", cure)
        return str(value)

    return check


def choice(*values: str) -> Checker:
    """One of the given strings."""

    def check(where: str, value: t.Any) -> str:
        if value not in values or not isinstance(value, str):
            raise BadInput(where, value, "is not one of the choices", f"Use one of: {', '.join(values)}")
        return str(value)

    return check


def integer(low: int, high: int, unit: str = "") -> Checker:
    """A whole number in a range; a string of digits counts, as Ansible's templates return it."""

    def check(where: str, value: t.Any) -> int:
        if isinstance(value, str) and re.match(r"\A-?[0-9]{1,18}\Z", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadInput(where, value, "is out of range", f"Use a whole number from {low} to {high}{unit}")
        return int(value)

    return check


def boolean(where: str, value: t.Any) -> bool:
    """True or false, never a string."""
    if not isinstance(value, bool):
        raise BadInput(where, value, "is not a boolean", "Use true or false without quotes")
    return value


def absolute_path(where: str, value: t.Any) -> str:
    """An absolute path; every character but NUL is taken literally, a component ``..`` is refused."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise BadInput(where, value, "is not an absolute path", "Write the path from the root, /like/this")
    if ".." in value.split("/"):
        raise BadInput(where, value, "contains a '..' component", "Write the path that is meant")
    return value if value == "/" else value.rstrip("/") or "/"


def plain_path(where: str, value: t.Any) -> str:
    """An absolute path of our own choosing: no odd characters, since it goes into unit files and URLs."""
    value = absolute_path(where, value)
    if not re.match(r"\A/[A-Za-z0-9._/@+-]*\Z", value):
        raise BadInput(
            where,
            value,
            "contains characters that a repository's path may not have",
            "Use letters, digits and . _ @ + - /",
        )
    return str(value)


def line(where: str, value: t.Any) -> str:
    """One line of text that is not empty."""
    if not isinstance(value, str) or not value or re.search(r"[\x00-\x1f\x7f]", value):
        raise BadInput(where, value, "is not one line of text", "Remove line breaks and control characters")
    return value


def listing(item: Checker, empty: bool = True) -> Checker:
    """A list of values of one type."""

    def check(where: str, value: t.Any) -> list[t.Any]:
        if not isinstance(value, (list, tuple)):
            raise BadInput(where, value, "is not a list", "Write it as a list, [like, this]")
        if not value and not empty:
            raise BadInput(where, value, "is empty", "Give at least one")
        return [item(f"{where}[{number}]", entry) for number, entry in enumerate(value)]

    return check


def seconds(where: str, value: t.Any) -> int:
    """A span of time in seconds: a whole number or ``90s``, ``5m``, ``2h``, ``7d``, ``1w``."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**9:
        return int(value)
    if isinstance(value, str):
        if re.match(r"\A[0-9]{1,9}\Z", value):
            return int(value)
        match = SPAN.match(value)
        if match:
            return int(match["count"]) * SECONDS[match["unit"]]
    raise BadInput(
        where, value, "is not a span of time", "Use seconds or a number with s, m, h, d or w, like 90s or 2h"
    )


def address(where: str, value: t.Any) -> str:
    """A host name, an IPv4 or an IPv6 address (without brackets)."""
    import ipaddress

    if isinstance(value, str):
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            if HOSTNAME.match(value) and not re.match(r"\A[0-9.]+\Z", value):
                return str(value)
    raise BadInput(
        where,
        value,
        "is not a host name or an IP address",
        "Give a name or an address without port, brackets or scheme",
    )


def url_host(value: str) -> str:
    """An address as a URL takes it: IPv6 in brackets."""
    return f"[{value}]" if ":" in value else value


def proxy(where: str, value: t.Any) -> str:
    """The URL of a proxy without credentials, since it stands in a unit file."""
    parsed = urllib.parse.urlsplit(line(where, value))
    if parsed.scheme not in ("http", "https", "socks5") or not parsed.hostname or parsed.username or parsed.password:
        raise BadInput(
            where,
            value if "@" not in str(value) else "<hidden>",
            "is not the URL of a proxy without credentials",
            "Use http://host:port",
        )
    return str(value)


def mapping(fields: dict[str, Checker], where: str, value: t.Any, required: tuple[str, ...] = ()) -> dict[str, t.Any]:
    """A dictionary of known keys; keys set to null count as not given."""
    if not isinstance(value, dict):
        raise BadInput(where, value, "is not a dictionary", f"Use the keys: {', '.join(sorted(fields))}")
    for key in value:
        if key not in fields:
            raise BadInput(f"{where}.{key}", "", "is not a known key", f"Known keys: {', '.join(sorted(fields))}")
    result = {str(key): fields[key](f"{where}.{key}", entry) for key, entry in value.items() if entry is not None}
    for key in required:
        if key not in result:
            raise BadInput(f"{where}.{key}", "", "is missing", "It is required")
    return result
