# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a repository is: a location without its credentials, its local path, the variables of its backend."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote

_AUTHORITY = re.compile(r"\A(?P<before>[^/]*//)(?P<authority>[^/]*)(?P<after>.*)\Z", re.DOTALL)
_HOST = re.compile(r"\A(?:\[[^\]]*\]|[^:]*)(?::\d*)?\Z")
_NAME = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")
# In an address, or in lines of a requirements file, also where it is written so that no program takes it.
_CREDENTIALS = re.compile(
    r"\A[^/\s]*:[^/\s]*@|:/{1,2}(?:[^/\s]*@|[^/\s:[]*:(?!\d*(?:[/\s]|\Z))\S*@)",
)

# What the modules set themselves: a backend's environment must not point restic elsewhere.
RESERVED = re.compile(
    r"\A(?:RESTIC_(?:FROM_)?(?:REPOSITORY|PASSWORD)(?:_FILE|_COMMAND)?|RESTIC_KEY_HINT|RESTIC_CACHE_DIR|LD_.*|PATH|LC_ALL)\Z"
)


def _split(location: str) -> tuple[str, str, str]:
    """Return what is before the user information of a URL, the user information, and what is after it."""
    match = _AUTHORITY.match(location)
    if match is None:
        return location, "", ""
    before, authority, after = match.group("before", "authority", "after")
    user, separator, host = authority.rpartition("@")
    if separator:
        return before, user, host + after
    if _HOST.match(authority) is None and "@" in after:
        # A password with a slash in it: no engine takes that URL, but it must not be shown either.
        user, _separator, rest = (authority + after).rpartition("@")
        return before, user, rest
    return before, "", authority + after


def redact(location: str) -> str:
    """Return `location` without user name and password (for sftp, where the user is part of the address, only the latter)."""
    before, user, after = _split(location)
    if location.startswith("sftp:") and user:
        return f"{before}{user.partition(':')[0]}@{after}"
    return before + after


def passwords(location: str) -> list[str]:
    """Return the spellings of the password inside `location`: as it is written there and decoded."""
    password = _split(location)[1].partition(":")[2]
    return sorted({password, unquote(password)} - {""})


def has_credentials(text: str) -> bool:
    """Tell whether an address to download from, or a line with one, holds a user, a password or a token."""
    return _CREDENTIALS.search(text) is not None


def refuse_credentials(params: dict[str, Any], *names: str) -> None:
    """Raise ValueError where one of these options of a module has credentials, and hide it in what Ansible returns."""
    for name in names:
        if has_credentials(params[name]):
            params[name] = "<hidden>"
            raise ValueError(
                f"{name} contains credentials, which the host and a run's output would show: name an address that"
                " asks for none"
            )


def local_path(location: str) -> str | None:
    """Return the directory of a local repository, None for every other backend.

    Raises ValueError for a relative path, which would depend on where somebody stands.
    """
    path = location[len("local:") :] if location.startswith("local:") else location
    if path == location and ":" in location and not location.startswith(("/", "./", "../")):
        return None
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is no absolute path: write the whole path of a local repository")
    return os.path.normpath(path)


def _unquote(value: str) -> str:
    """Return a value as systemd's EnvironmentFile= reads it."""
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r'\\(["\\`$])', r"\1", value[1:-1])
    return re.sub(r"\\(.)", r"\1", value)


def parse_environment(text: str) -> dict[str, str]:
    """Return the variables of NAME=value lines, quoted as in systemd's EnvironmentFile=.

    Raises ValueError naming the line (never its value) that is not of that form, or sets what the module sets itself.
    """
    variables: dict[str, str] = {}
    # As systemd does, which takes what else may end a line for Python (U+0085, say) as it is.
    for number, line in enumerate(re.split(r"\r\n|[\r\n]", text), start=1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        name, separator, value = stripped.partition("=")
        if not separator or _NAME.match(name) is None:
            raise ValueError(f"line {number} is not NAME=value")
        if RESERVED.match(name) is not None:
            raise ValueError(f"line {number} sets {name}, which has an option of its own or is not allowed here")
        variables[name] = _unquote(value)
    return variables


def _mount_points(mountinfo: str) -> dict[str, str]:
    """Return type of file system by mount point; of several on one point the last, which is the visible one."""
    points = {}
    # Not splitlines(): of what may end a line for Python, the kernel writes all but the newline as it is.
    for line in mountinfo.split("\n")[:-1]:
        fields, _separator, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields.split(" ")[4])
        points[point] = rest.split(" ")[0]
    return points


def mount_problem(mount: str, path: str | None, mountinfo: str = "/proc/self/mountinfo") -> str | None:
    """Return in words why a repository at `path` must not be touched because `mount` is not mounted, else None.

    Raises ValueError when `mount` is not the path or one of its parents.
    """
    point = os.path.normpath(mount)
    if path is None or not (path + "/").startswith(point.rstrip("/") + "/"):
        raise ValueError(f"mount {mount!r} is not the directory of the repository or one above it: correct it")
    try:
        os.stat(os.path.join(point, "."))  # lets an automounter do its work
    except OSError:
        return f"nothing is mounted on {point}"
    with open(mountinfo, encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
        kind = _mount_points(stream.read()).get(point)
    return f"nothing is mounted on {point}" if kind in (None, "autofs") else None
