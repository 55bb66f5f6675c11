# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables of the roles that users set, checked for the whole fleet at once by the roles' own argument specs.

Ansible would check each role in a task of its own for every host, after the first hosts were changed.
"""

from __future__ import annotations

import functools
import pathlib
import re
import typing as t

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.holdfast.backup.plugins.module_utils._location import has_credentials
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import Problem, said, shorten

ROLES = pathlib.Path(__file__).resolve().parents[2] / "roles"
FACADE = ROLES.parent / "playbooks/vars/facade.yml"
CURE = "docs/reference/{role}_role.md says what it may be"
CREDENTIALS = "contains credentials, which the host and a run's output would show"
_MIRROR = (
    "Name one that asks for none, inside your network say, or set {}_install: none and put the program there yourself"
)
_INDEX = (
    "Name one that asks for none, inside your network say, or leave it {}, with the index in /etc/pip.conf of the host"
)
# Where hosts download from, and what to do where that asks for a password.
DOWNLOADS = {
    **{f"{role}_release_mirror": _MIRROR.format(role) for role in ("restic", "rest_server", "rclone_proxy")},
    "borg_release_url": _MIRROR.format("borg"),
    "borg_borgmatic_index": _INDEX.format("empty"),
    "borg_borgmatic_requirements": _INDEX.format("out"),
}
# In an expression of the facade, the variable of users that it is made of.
_SOURCE = re.compile(r"(?<![\w.'])backup_\w+|(?<=\A{{ )restic_\w+(?= }}\Z)")


@functools.lru_cache(maxsize=1)
def specs() -> dict[str, tuple[str, dict[str, t.Any]]]:
    """Role and argument spec of every variable of the roles' main entry points; nothing is required of users."""
    found: dict[str, tuple[str, dict[str, t.Any]]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        main = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].get("main", {})
        for name, spec in main.get("options", {}).items():
            found[name] = (path.parts[-3], {**spec, "required": False})
    return found


@functools.lru_cache(maxsize=1)
def set_by_playbooks() -> dict[str, str]:
    """The cure for each variable of a role that the playbooks set: a play's variables outrank the inventory, so a user's would do nothing."""
    found = {}
    for name, value in yaml.safe_load(FACADE.read_text(encoding="utf-8")).items():
        # The role common is for the playbooks alone, and many users have one of that name.
        if not name.startswith(("__", "common_")):
            sources = set(_SOURCE.findall(str(value)))
            found[name] = f"Set {sources.pop()}" if len(sources) == 1 else "docs/jobs.md says what a user sets"
    return found


def problems(
    hostvars: t.Mapping[str, t.Mapping[str, t.Any]], hosts: t.Iterable[str], told: t.Container[tuple[str, str]] = ()
) -> list[Problem]:
    """What is wrong with the variables that the users of these hosts set; equal problems of several hosts are one.

    ``told`` are hosts and variables of which the model has said already what is wrong.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    ours = set_by_playbooks()
    wanted = {**dict.fromkeys(ours, ("", {})), **specs()}
    for host in hosts:
        variables = hostvars[host]
        for name, (_role, spec) in wanted.items():
            if name not in variables or (host, name) in told:
                continue
            try:
                value = variables[name]
            except Exception as error:  # whatever a template raises: it is the user's text
                found.setdefault((name, "", f"cannot be evaluated: {said(error)}"), []).append(host)
                continue
            if value is None:
                continue
            shown = "<hidden>" if spec.get("no_log") else shorten(value)
            if name in ours:
                found.setdefault((name, shown, "is set by the playbooks themselves"), []).append(host)
                continue
            if name in DOWNLOADS and has_credentials(str(value)):
                found.setdefault((name, "<hidden>", CREDENTIALS), []).append(host)
                continue
            errors = (
                ArgumentSpecValidator({name: spec})
                .validate({name: value}, validate_role_argument_spec=True)
                .error_messages
            )
            if errors:
                wrong = "is not what it has to be" if spec.get("no_log") else said(ValueError("; ".join(errors)))
                found.setdefault((name, shown, wrong), []).append(host)
    return [
        Problem(tuple(concerned), name, shown, wrong, ours.get(name) or _cure(name, wrong))
        for (name, shown, wrong), concerned in found.items()
    ]


def _cure(name: str, wrong: str) -> str:
    return DOWNLOADS[name] if wrong == CREDENTIALS else CURE.format(role=specs()[name][0])
