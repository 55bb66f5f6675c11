# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Types of the values that users write in jobs and repositories.

Each checker takes ``(where, value)`` and returns the normalised value or raises :class:`BadInput`.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import typing as t

from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput, below

Checker = t.Callable[[str, t.Any], t.Any]

NAME = re.compile(r"\A[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
NAME_LENGTH = 28
RESERVED = frozenset({"data", "index", "keys", "locks", "snapshots", "config", "metrics"})
LABEL = r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
HOSTNAME = re.compile(rf"\A(?=.{{1,253}}\Z){LABEL}(\.{LABEL})*\Z")
ACCOUNT = re.compile(r"\A[a-z_][a-z0-9_-]{0,31}\Z")
VARIABLE = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")
SPAN = re.compile(r"\A(?P<count>[1-9][0-9]{0,4})(?P<unit>[smhdw])\Z")
# The kernel takes no argument and no path that is longer; a line is ours to bound.
ARGUMENT_BYTES = 128 * 1024 - 1
LINE_BYTES = 8192
PATH_BYTES = 4095
LONGEST_SPAN = 10**9
PROXY = re.compile(r"\A(?:https?|socks5)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^][:/@?#%]+)(?::(?P<port>[0-9]{1,5}))?/?\Z")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def string(where: str, value: t.Any, longest: int = ARGUMENT_BYTES) -> str:
    """Text as it can be written into a file: plain, valid UTF-8, and of bounded length in bytes."""
    if not isinstance(value, str):
        raise BadInput(
            where, value, "is not text", "Write text, in quotes where YAML reads a number, a date or a boolean"
        )
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise BadInput(where, value, "holds half a character (a surrogate)", "Write it in UTF-8") from None
    if size > longest:
        raise BadInput(where, value, f"is {size} bytes long", f"Use {longest} bytes at most")
    return str(value)


def name(where: str, value: t.Any) -> str:
    """A name of a job, a repository or a host's ``backup_id``."""
    if not isinstance(value, str) or len(value) > NAME_LENGTH or not NAME.match(value):
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
    return str(value)


def text(pattern: str, what: str, cure: str) -> Checker:
    """A string that matches the whole of ``pattern``."""
    compiled = re.compile(rf"\A(?:{pattern})\Z")

    def check(where: str, value: t.Any) -> str:
        if not isinstance(value, str) or not compiled.match(value):
            raise BadInput(where, value, f"is not {what}", cure)
        return string(where, value)

    return check


def size(what: str, units: str) -> Checker:
    """A number of bytes, alone or with one of the unit letters."""
    check_text = text(
        rf"[1-9][0-9]{{0,14}}|[1-9][0-9]{{0,5}}[{units}]", what, "Use a number with K, M, G or T, like 500M"
    )

    def check(where: str, value: t.Any) -> str:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return str(check_text(where, str(value) if whole and 0 <= value < 10**15 else value))

    return check


def choice(*values: str) -> Checker:
    """One of the given strings."""

    def check(where: str, value: t.Any) -> str:
        if value is False and "off" in values:
            raise BadInput(
                where, value, "is a boolean: YAML reads off without quotes as false", "Write it in quotes: 'off'"
            )
        if value not in values or not isinstance(value, str):
            raise BadInput(where, value, "is not one of the choices", f"Use one of: {', '.join(values)}")
        return str(value)

    return check


def integer(low: int, high: int, unit: str = "") -> Checker:
    """A whole number in a range; a string of digits counts, as Ansible's templates return it."""

    def check(where: str, value: t.Any) -> int:
        if isinstance(value, str) and re.match(r"\A-?[0-9]{1,18}\Z", value):
            value = int(value)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not low <= value <= high:
            wrong = "is out of range" if whole else "is not a whole number"
            raise BadInput(where, value, wrong, f"Use a whole number from {low} to {high}{unit}")
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
    path = string(where, value, PATH_BYTES)
    return path.rstrip("/") or "/"


def plain_path(where: str, value: t.Any) -> str:
    """An absolute path of our own choosing: no odd characters, since it goes into unit files, and one spelling."""
    value = absolute_path(where, value)
    if not re.match(r"\A/[A-Za-z0-9._/@+-]*\Z", value):
        raise BadInput(
            where,
            value,
            "contains characters that a repository's path may not have",
            "Use letters, digits and . _ @ + - /",
        )
    path: str = posixpath.normpath(value).lstrip("/")
    if not path:
        raise BadInput(where, value, "is the root directory", "Name a directory below it")
    return f"/{path}"


def line(where: str, value: t.Any) -> str:
    """One line of text that is not empty."""
    if isinstance(value, str) and (not value or re.search(r"[\x00-\x1f\x7f]", value)):
        raise BadInput(where, value, "is not one line of text", "It may not be empty nor hold control characters")
    return string(where, value, LINE_BYTES)


def listing(item: Checker, empty: bool = True) -> Checker:
    """A list of values of one type."""

    def check(where: str, value: t.Any) -> list[t.Any]:
        if not isinstance(value, (list, tuple)):
            raise BadInput(where, value, "is not a list", "Write it as a list, [like, this]")
        if not value and not empty:
            raise BadInput(where, value, "is empty", "Give at least one")
        return [item(f"{where}[{number}]", entry) for number, entry in enumerate(value)]

    return check


def seconds(low: int) -> Checker:
    """A span of time in seconds, from ``low``: a whole number or ``90s``, ``5m``, ``2h``, ``7d``, ``1w``."""

    def check(where: str, value: t.Any) -> int:
        found = None
        if isinstance(value, int) and not isinstance(value, bool):
            found = int(value)
        elif isinstance(value, str):
            match = SPAN.match(value)
            if match:
                found = int(match["count"]) * SECONDS[match["unit"]]
            elif re.match(r"\A[0-9]{1,10}\Z", value):
                found = int(value)
        if found is None:
            cure = "Use seconds or a number with s, m, h, d or w, like 90s or 2h"
            raise BadInput(where, value, "is not a span of time", cure)
        if not low <= found <= LONGEST_SPAN:
            raise BadInput(where, value, "is out of range", f"Use from {low} to {LONGEST_SPAN} seconds")
        return found

    return check


def address(where: str, value: t.Any) -> str:
    """A host name, an IPv4 or an IPv6 address (without brackets and zone), in one spelling."""
    if isinstance(value, str):
        try:
            found = None if "%" in value else ipaddress.ip_address(value)
        except ValueError:
            found = None
        if found is not None and (found.is_unspecified or found.is_multicast):
            raise BadInput(where, value, "is an address that nobody can dial", "Give the address of one host")
        if found is not None:
            return str(found)
        if HOSTNAME.match(value) and not re.match(r"\A[0-9.]+\Z", value):
            return str(value)
    raise BadInput(
        where,
        value,
        "is not a host name or an IP address",
        "Give a name or an address without port, brackets, zone or scheme",
    )


def network(value: t.Any) -> str:
    """An IP address, or a network without bits of a host, in one spelling. Raises ValueError."""
    if not isinstance(value, str) or "%" in value or not re.match(r"\A[0-9A-Fa-f.:]+(/[0-9]{1,3})?\Z", value):
        raise ValueError(value)
    found = ipaddress.ip_network(value)
    return str(found) if "/" in value else str(found.network_address)


def url_host(value: str) -> str:
    """An address as a URL takes it: IPv6 in brackets."""
    return f"[{value}]" if ":" in value else value


def proxy(where: str, value: t.Any) -> str:
    """The URL of a proxy without credentials, since it stands in a unit file."""
    match = PROXY.match(value) if isinstance(value, str) else None
    try:
        if match is None or int(match["port"] or 1) > 65535:
            raise ValueError
        address(where, match["host"].strip("[]"))
    except ValueError:
        shown = "<hidden>" if isinstance(value, str) and "@" in value else value
        raise BadInput(
            where, shown, "is not the URL of a proxy without credentials", "Use http://host:port, https:// or socks5://"
        ) from None
    return str(value)


def mapping(fields: dict[str, Checker], where: str, value: t.Any, required: tuple[str, ...] = ()) -> dict[str, t.Any]:
    """A dictionary of known keys; keys set to null count as not given."""
    if not isinstance(value, dict):
        raise BadInput(where, value, "is not a dictionary", f"Use the keys: {', '.join(sorted(fields))}")
    for key in value:
        if key not in fields:
            raise BadInput(below(where, key), "", "is not a known key", f"Known keys: {', '.join(sorted(fields))}")
    result = {str(key): fields[key](f"{where}.{key}", entry) for key, entry in value.items() if entry is not None}
    for key in required:
        if key not in result:
            raise BadInput(f"{where}.{key}", "", "is missing", "It is required")
    return result
