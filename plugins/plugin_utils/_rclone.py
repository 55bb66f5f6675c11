# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remotes of rclone as their user writes them, and the rclone that may serve them."""

from __future__ import annotations

import base64
import re
import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.holdfast.backup.plugins.module_utils import _floors, _rclone
from ansible_collections.holdfast.backup.plugins.plugin_utils import _fields as f
from ansible_collections.holdfast.backup.plugins.plugin_utils import _rclone_tls
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import (
    BadInput,
    Problem,
    below,
    shorten,
    type_of,
)

VARIABLE = "rclone_proxy_remotes"
GROUP = "hfr-"
# systemd-sysusers and useradd take no longer one.
LONGEST_GROUP = 31
HIDDEN = "<hidden>"
_OPTION = re.compile(r"\A[a-z][a-z0-9_]{0,63}\Z")
# Options that say who may read, and what each type may say there: more are made, and some stores take words of their own.
_ACCESS = ("acl", "bucket_acl", "object_acl", "public_access")
_PRIVATE: dict[str, tuple[str, ...]] = {
    "s3": ("private", "bucket-owner-read", "bucket-owner-full-control", "default"),
    "google cloud storage": ("private", "projectPrivate", "bucketOwnerRead", "bucketOwnerFullControl"),
}


def group(name: str) -> str:
    """The group whose members may read a remote's configuration."""
    return f"{GROUP}{name}"


def remotes(where: str, value: t.Any) -> dict[str, dict[str, str]]:
    """Checked remotes by name, each with rclone's options as text. No message holds a secret."""
    if not isinstance(value, dict):
        raise BadInput(where, type_of(value), "is not a dictionary", "Write name: {type: …}")
    return {_name(below(where, name), name): remote(below(where, name), entry) for name, entry in value.items()}


def _name(where: str, value: t.Any) -> str:
    name = f.name(where, value)
    if len(group(name)) > LONGEST_GROUP:
        most = LONGEST_GROUP - len(GROUP)
        raise BadInput(
            where,
            "",
            f"is longer than {most} characters, and the name of its group on the server would be too long",
            "Shorten it",
        )
    return name


def remote(where: str, value: t.Any) -> dict[str, str]:
    """One checked remote: its options as rclone's configuration file takes them, defaults filled in."""
    if not isinstance(value, dict):
        raise BadInput(where, type_of(value), "is not a dictionary", "Write rclone's own options: {type: …}")
    given = {key: entry for key, entry in value.items() if entry is not None}
    options = {_option(where, key): _text(below(where, key), key, entry) for key, entry in given.items()}
    kind = options.pop("type", "")
    if not kind:
        raise BadInput(f"{where}.type", "", "is missing", "Give rclone's type of the remote, s3 for instance")
    allowed = f"Types that may be served: {', '.join(_rclone.ALLOWED)}"
    if kind in _rclone.REFUSED:
        raise BadInput(f"{where}.type", kind, _rclone.REFUSED[kind], allowed)
    if kind not in _rclone.ALLOWED:
        raise BadInput(f"{where}.type", kind, "is not a type that is known to be safe here", allowed)
    _judge(where, kind, options)
    return {"type": kind, **{**_rclone.DEFAULTS.get(kind, {}), **options}}


def _option(where: str, key: t.Any) -> str:
    if not isinstance(key, str) or not _OPTION.match(key):
        raise BadInput(
            below(where, key),
            "",
            "is not an option of rclone",
            "Use rclone's own spelling: lower-case letters, digits and _",
        )
    reason = _rclone.refused_option(key)
    if reason:
        raise BadInput(below(where, key), "", reason, "Use credentials that last, and leave this option out")
    return str(key)


def _text(where: str, key: t.Any, value: t.Any) -> str:
    """The value as the file takes it: one line that nothing in it can end, quote or expand."""
    shown = key in _rclone.SHOWN
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    try:
        text = str(f.line(where, value))
    except BadInput as bad:
        if not shown:
            bad.value = HIDDEN
        raise
    if "%(" in text or not text.isprintable():
        raise BadInput(
            where,
            value if shown else HIDDEN,
            "holds %( or a character that cannot be printed, which rclone's configuration cannot say",
            "Use another value",
        )
    return text


def _judge(where: str, kind: str, options: dict[str, str]) -> None:
    private = _PRIVATE.get(kind, ())
    for option in _ACCESS:
        if option in options and options[option] not in private:
            cure = f"Use {private[0]}" if private else "Leave it out"
            wrong = "is not known to be an access list that keeps the backups private"
            raise BadInput(f"{where}.{option}", options[option], wrong, cure)
    checked = options.get("known_hosts_file", "none") != "none" or "pin_host_key" in options
    if kind == "sftp" and not checked:
        raise BadInput(
            f"{where}.known_hosts_file",
            options.get("known_hosts_file", ""),
            "is missing, and without it rclone takes any host for the server",
            "Name a file on this server with the host key of the other one, /etc/ssh/ssh_known_hosts for instance",
        )
    _rclone_tls.refuse(where, kind, options)


def asks_the_host(options: t.Mapping[str, str]) -> str | None:
    """The option by which a remote has no credentials of its own; its rclone's environment is clean, and its home empty."""
    if "shared_credentials_file" in options:
        return None
    return next((name for name in ("env_auth", "use_msi") if options.get(name, "").lower() in _rclone_tls.TRUE), None)


def files(value: t.Any, served: t.Sequence[dict[str, str]]) -> list[dict[str, t.Any]]:
    """What the module rclone_remotes takes: name, type, file and group of each remote in use, and who has what there.

    ``served`` has ``account`` and ``remote`` (name:path) of each repository. Raises AnsibleFilterError.
    """
    try:
        found = remotes(VARIABLE, value)
    except BadInput as bad:
        raise AnsibleFilterError(_message(bad)) from None
    result = []
    for name, options in sorted(found.items()):
        here = [entry for entry in served if entry["remote"].partition(":")[0] == name]
        # Credentials that serve nobody stay away from the host.
        if not here:
            continue
        result.append(
            {
                "name": name,
                "type": options["type"],
                # One line: Ansible hides a value in what it logs of a module only as the text it is.
                "config": base64.b64encode(_rclone.render(name, options).encode()).decode(),
                "group": group(name),
                "accounts": sorted({entry["account"] for entry in here}),
                "places": sorted({entry["remote"].partition(":")[2] for entry in here}),
            }
        )
    return result


def problems(value: t.Any, tool: dict[str, t.Any], host: str) -> list[str]:
    """What is wrong with the remotes of a server, and with the rclone that is to serve them, ``tool`` of :func:`tool_problems`."""
    found: list[Problem] = []
    declared: dict[str, dict[str, str]] = {}
    try:
        declared = remotes(VARIABLE, value)
    except BadInput as bad:
        found.append(_problem(bad, host))
    return [str(problem) for problem in found + tool_problems(tool, host, remotes=bool(declared))]


def tool_problems(tool: dict[str, t.Any], host: str, *, remotes: bool) -> list[Problem]:
    """What is wrong with the rclone that a server installs or finds; nothing is said of what nobody has looked at.

    ``tool`` has ``install``, ``version`` (of a release), ``sha256``, ``architecture``, ``package``, ``binary``, and ``packages``,
    ``binaries``, ``apt`` and ``apt_lists`` (of host_info). ``remotes`` says whether it is to serve more than directories of the server.
    """
    found: list[Problem] = []
    floor = _floors.floor("rclone" if remotes else "rclone-directories")
    cure = (
        f"Set rclone_proxy_install: release with rclone_proxy_release_version ({floor.minimum} or later) and"
        " rclone_proxy_release_sha256"
    )
    if tool["install"] == "release":
        variable, value, version = "rclone_proxy_release_version", tool["version"], tool["version"]
        if not version:
            found.append(_tool(host, variable, "", "is missing", cure))
        if not tool["sha256"]:
            wrong = f"has no checksum for the architecture {tool['architecture']}"
            found.append(_tool(host, "rclone_proxy_release_sha256", "", wrong, "Take it from upstream's SHA256SUMS"))
    elif tool["install"] == "package" and tool.get("apt") is False:
        wrong, none = (
            "needs apt, which this host does not have",
            f"{cure}, or rclone_proxy_install: none where rclone is there",
        )
        return [_tool(host, "rclone_proxy_install", "package", wrong, none)]
    elif tool["install"] == "package" and tool.get("apt_lists") is False:
        # The real run fetches them, and judges it then.
        return []
    elif tool["install"] == "package":
        variable, value = "rclone_proxy_package", tool["package"]
        package = (tool["packages"] or {}).get(value)
        version = (package or {}).get("installed") or (package or {}).get("candidate")
        if package is not None and not version:
            wrong, again = "is not known to apt on this host", f"Run apt update there, or s{cure[1:]}"
            found.append(_tool(host, variable, value, wrong, again))
    else:
        variable, value = "rclone_proxy_binary", tool["binary"]
        version = (tool["binaries"] or {}).get(value, "")
        if version is None:
            wrong, again = (
                "is not on this host, or tells no version",
                "Install it there, or leave rclone_proxy_binary out and let rclone_proxy_install do it",
            )
            found.append(_tool(host, variable, value, wrong, again))
    if version and _floors.below(floor.tool, version):
        wrong = f"is version {version}, below the floor {floor.minimum}: {floor.reason}"
        found.append(_tool(host, variable, value, wrong, cure))
    return found


def _tool(host: str, variable: str, value: str, wrong: str, cure: str) -> Problem:
    return Problem((host,), variable, shorten(value) if value else "", wrong, cure)


def _problem(bad: BadInput, host: str) -> Problem:
    return Problem((host,), bad.where, "" if bad.value in (None, "") else shorten(bad.value), bad.wrong, bad.cure)


def _message(bad: BadInput) -> str:
    return str(_problem(bad, VARIABLE)).partition(": ")[2]
