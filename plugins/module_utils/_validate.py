# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Validators of ``file_tree``: any command, and ``systemd-analyze verify`` for all unit files at once."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

UNIT = "systemd-unit"
_TIMEOUT = 60
_MISSING = re.compile(r"\A(?P<unit>\S+): Command (?P<command>/\S+) is not executable: ")
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True)
class Verdict:
    """What validation said: errors as ready messages, and what could not be checked (with the reason)."""

    errors: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()


def _run(argv: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function # no AnsibleModule here
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_ENVIRONMENT,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {_TIMEOUT} s"
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _put(directory: str, name: str, content: bytes) -> str:
    path = posixpath.join(directory, name)
    os.makedirs(posixpath.dirname(path), mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(content)
    return path


def validate_command(path: str, content: bytes, command: str, directory: str, *, secret: bool) -> Verdict:
    """Run one file's validator on a copy below ``directory`` (private to root); what it prints of a secret is dropped."""
    argv = shlex.split(command)
    if not argv or shutil.which(argv[0], path=_ENVIRONMENT["PATH"]) is None:
        return Verdict(not_checked=(f"{path}: the validator {command!r} is not installed",))
    copy = _put(directory, posixpath.basename(path), content)
    try:
        code, output = _run([argument.replace("%s", copy) for argument in argv])
    finally:
        os.unlink(copy)
    if code == 0:
        return Verdict()
    said = "output not shown" if secret else output.replace(copy, path).strip()
    return Verdict(errors=(f"{path}: {command!r} refuses it (status {code}): {said}",))


def validate_units(files: Mapping[str, bytes], provided: Iterable[str], directory: str) -> Verdict:
    """Verify unit files together, because they refer to each other.

    ``files`` maps the installed path to the content; ``provided`` are the paths this execution installs, so that a
    command among them is not missing; ``directory`` is an empty directory private to root. A drop-in is verified with
    its unit, or reported as not checked when the unit is not among the files.
    """
    if shutil.which("systemd-analyze", path=_ENVIRONMENT["PATH"]) is None:
        return Verdict(not_checked=tuple(f"{path}: systemd-analyze is not installed" for path in sorted(files)))
    units = {posixpath.basename(path): path for path in files if not _is_drop_in(path)}
    not_checked = []
    names: dict[str, str] = {}
    for path, content in sorted(files.items()):
        name = posixpath.basename(path)
        if _is_drop_in(path):
            parent = posixpath.basename(posixpath.dirname(path))
            if parent[: -len(".d")] not in units:
                not_checked.append(f"{path}: its unit {parent[: -len('.d')]} is not among the files")
                continue
            name = posixpath.join(parent, name)
        names[_put(directory, name, content)] = path
    arguments = [posixpath.join(directory, name) for name in sorted(units)]
    if not arguments:
        return Verdict(not_checked=tuple(not_checked))
    code, output = _run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *arguments])
    verdict = judge_units(code, output, names, units, frozenset(provided))
    return Verdict(verdict.errors, (*not_checked, *verdict.not_checked))


def _is_drop_in(path: str) -> bool:
    return posixpath.dirname(path).endswith(".d")


def judge_units(
    code: int, output: str, names: Mapping[str, str], units: Mapping[str, str], provided: frozenset[str]
) -> Verdict:
    """Judge what ``systemd-analyze verify`` printed: its status is 0 for unknown keys, so every line about us counts.

    ``names`` maps the verified copies to the installed paths, ``units`` the unit names to them.
    """
    errors: list[str] = []
    not_checked: list[str] = []
    known = False
    for line in dict.fromkeys(output.splitlines()):
        missing = _MISSING.match(line)
        if missing:
            path = units.get(_template(missing["unit"], units))
            known = known or path is not None
            if path is not None and missing["command"] not in provided:
                not_checked.append(f"{path}: its command {missing['command']} is not installed")
            continue
        copy = next((copy for copy in names if line.startswith(copy + ":")), None)
        name = _template(line.split(":", 1)[0].replace("Unit ", "", 1).split(" ", 1)[0], units)
        if copy is not None:
            known = True
            errors.append(line.replace(copy, names[copy], 1))
        elif name in units:
            known = True
            errors.append(f"{units[name]}: {line}")
    if code != 0 and not known:
        errors.append(f"systemd-analyze verify refuses {', '.join(sorted(units.values()))}: {output.strip()}")
    return Verdict(tuple(errors), tuple(not_checked))


def _template(name: str, units: Mapping[str, str]) -> str:
    """Return the unit's name, of an instance that is not among the files its template's."""
    if name in units or "@" not in name:
        return name
    prefix, rest = name.split("@", 1)
    return f"{prefix}@{posixpath.splitext(rest)[1]}"
