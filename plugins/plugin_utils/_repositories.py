# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a repository may say, and the location that a client dials."""

from __future__ import annotations

import re
import typing as t
import urllib.parse

from ansible_collections.holdfast.backup.plugins.plugin_utils import _fields as f
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput

LOCAL_ROOT = "/var/backups/holdfast"
LATER_ENGINES = ("borg", "rsync")
LATER_ACCESS = ("rclone", "ssh", "sftp", "s3", "pull")
REST_PORT = 8000


def _engine(where: str, value: t.Any) -> str:
    if value in LATER_ENGINES:
        raise BadInput(where, value, "is not available in this version of holdfast.backup", "Use engine: restic")
    return str(f.choice("restic")(where, value))


def _access(where: str, value: t.Any) -> str:
    if value in LATER_ACCESS:
        raise BadInput(
            where, value, "is not available in this version of holdfast.backup", "Use access: rest, local or url"
        )
    return str(f.choice("rest", "local", "url")(where, value))


def _url(where: str, value: t.Any) -> str:
    url = str(f.line(where, value))
    rest = url.split(":", 1)[1] if re.match(r"\A(rest|s3):https?://", url) else url
    if urllib.parse.urlsplit(rest).password or (url.startswith("rest:") and urllib.parse.urlsplit(rest).username):
        raise BadInput(
            where,
            "<hidden>",
            "contains credentials",
            "Put RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD into the repository's environment",
        )
    return url


def _secret(where: str, value: t.Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value or "\n" in value:
        raise BadInput(where, "<hidden>", "is not one line of text", "A password has no line break and is not empty")
    return value


def _secret_environment(where: str, value: t.Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadInput(where, "<hidden>", "is not a dictionary", "Use NAME: value")
    for key, entry in value.items():
        if not isinstance(key, str) or not f.VARIABLE.match(key):
            raise BadInput(
                where, "<hidden>", "has a key that is not the name of a variable", "Use letters, digits and _"
            )
        if not isinstance(entry, (str, int)) or re.search(r"[\x00\r\n]", str(entry)):
            raise BadInput(f"{where}.{key}", "<hidden>", "is not one line of text", "Remove line breaks")
    return {key: str(entry) for key, entry in value.items()}


def _options(where: str, value: t.Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadInput(
            where, value, "is not a dictionary", "Use restic's names of extended options: rest.connections: 5"
        )
    for key, entry in value.items():
        if not isinstance(key, str) or not re.match(r"\A[a-z0-9]+\.[a-z0-9-]+\Z", key):
            raise BadInput(f"{where}.{key}", "", "is not an extended option of restic", "See 'restic options'")
        if re.search(r"command|program|args", key):
            raise BadInput(f"{where}.{key}", "", "would run a command of its own", "It cannot be set here")
        f.line(f"{where}.{key}", str(entry))
    return {key: str(entry) for key, entry in value.items()}


_sha256 = f.text(r"[0-9a-f]{64}", "a SHA-256", "Give 64 hexadecimal digits")

FIELDS: dict[str, f.Checker] = {
    "engine": _engine,
    "access": _access,
    "server": f.line,
    "address": f.address,
    "port": f.integer(1, 65535),
    "url_prefix": f.text(r"(/[A-Za-z0-9._~-]+)+", "the path of a URL", "Use /like/this, without a slash at the end"),
    "url": _url,
    "path": f.plain_path,
    "mount": f.plain_path,
    "password": _secret,
    "environment": _secret_environment,
    "options": _options,
    "repository_version": f.integer(1, 2),
    "from_repo": f.name,
    "quota": f.text(r"[1-9][0-9]{0,14}[KMGT]?", "a size", "Use a number with K, M, G or T, like 200G"),
}
SECRETS = ("password", "environment")
ONLY_FOR = {
    "rest": ("server", "address", "port", "url_prefix", "quota"),
    "local": ("path", "mount"),
    "url": ("url", "mount"),
}


def repository(where: str, value: t.Any) -> dict[str, t.Any]:
    """A checked repository as its user wrote it, with engine and access filled in."""
    result = f.mapping(FIELDS, where, value)
    result.setdefault("engine", "restic")
    result.setdefault("access", "rest" if "server" in result else "url" if "url" in result else "local")
    result.setdefault("options", {})
    access = result["access"]
    for owner, keys in ONLY_FOR.items():
        for key in keys:
            if key in result and key not in ONLY_FOR[access]:
                raise BadInput(
                    f"{where}.{key}", result[key], f"does not go with access: {access}", f"It is for access: {owner}"
                )
    for key, needed_by in (("server", "rest"), ("url", "url")):
        if access == needed_by and key not in result:
            raise BadInput(f"{where}.{key}", "", "is missing", f"access: {access} needs it")
    return result


def rest_location(address: str, port: int, user: str, tls: bool, prefix: str = "") -> str:
    """The location of a repository on a rest-server as restic takes it, without credentials."""
    return f"rest:{'https' if tls else 'http'}://{f.url_host(address)}:{port}{prefix}/{user}/"


def local_path(written: dict[str, t.Any], name: str) -> str:
    """Where a local repository lies: the user's path, else below its mount, else the default."""
    if "path" in written:
        return str(written["path"])
    return f"{written['mount'].rstrip('/')}/holdfast/{name}" if "mount" in written else f"{LOCAL_ROOT}/{name}"
