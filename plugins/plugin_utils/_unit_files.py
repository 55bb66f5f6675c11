# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a client's run units, rendered from the templates of the role jobs."""

from __future__ import annotations

import os
import typing as t

import jinja2
from ansible.errors import AnsibleFilterError
from ansible_collections.holdfast.backup.plugins.plugin_utils._templates import environment

# As keep_loaded is given it: symbolic links are followed.
_COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
TEMPLATES = os.path.join(_COLLECTION, "roles/jobs/templates")
_SYSTEMD = "/etc/systemd/system/"


def unit_files(
    units: list[dict[str, t.Any]],
    jobs: dict[str, t.Any],
    repositories: list[dict[str, t.Any]],
    values: dict[str, t.Any],
) -> list[dict[str, t.Any]]:
    """The files of the run `units`, as the module file_tree takes them, and of what all units of a host share.

    `jobs` by name and `repositories` are those of the model of the fleet; `values` is what the templates know besides.
    Raises AnsibleFilterError for values that do not fit a template.
    """
    shared = {**_plain(values), "__account": "" if values["jobs_privilege"] == "root" else str(values["jobs_account"])}
    by_name = {each["name"]: each for each in _plain(repositories)}
    jobs = _plain(jobs)
    files = [
        _unit("holdfast-record@.service", "record.service.j2", shared),
        _unit("holdfast-interrupted.service", "interrupted.service.j2", shared),
    ]
    if shared["jobs_privilege"] == "setcap":
        for name, again in (("capable.path", False), ("capable.service", False), ("capable-again.service", True)):
            template = f"{name.replace('-again', '')}.j2"
            files.append(_unit(f"holdfast-restic-{name}", template, {**shared, "__again": again}))
    for unit in _plain(units):
        files += _of_unit(unit, {**shared, "unit": unit, "__job": jobs[unit["job"]]}, by_name[unit["repository"]])
    return files


def _of_unit(unit: dict[str, t.Any], values: dict[str, t.Any], repository: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """Definition, service, timer, what borgmatic reads, and the services of the dumps."""
    name, borg = unit["unit"], "borgmatic" in unit
    program = (repository.get("ssh") or {}).get("program") or ""
    # The unit is given its secrets by systemd.
    command = program.replace(f"/etc/holdfast/secrets/{repository['name']}.", "%d/")
    values = {**values, "__repository": repository, "__ssh_command": command}
    files = [
        # It has the user's commands in it, and root's program alone reads it.
        _file(f"/etc/holdfast/units/{name}.json", "unit.json.j2", values, mode="0600"),
        _unit(f"holdfast-{name}.service", "borg.service.j2" if borg else "run.service.j2", values),
        _unit(f"holdfast-{name}.timer", "run.timer.j2", values),
    ]
    if borg:
        check = f"{values['jobs_borgmatic_binary']} config validate --config %s"
        files.append(_file(f"/etc/holdfast/borgmatic/{name}.yaml", "borgmatic.yaml.j2", values, validate=check))
    template = "borg_dump.service.j2" if borg else "dump.service.j2"
    files += [_unit(dump["unit"], template, {**values, "dump": dump}) for dump in unit["dumps"]]
    return files


def _unit(name: str, template: str, values: dict[str, t.Any]) -> dict[str, t.Any]:
    return _file(f"{_SYSTEMD}{name}", template, values, validate="systemd-unit")


def _file(path: str, template: str, values: dict[str, t.Any], **more: str) -> dict[str, t.Any]:
    try:
        content = environment(TEMPLATES).get_template(template).render(values)
    except jinja2.TemplateError as error:
        raise AnsibleFilterError(f"the template {template} cannot be rendered for {path}: {error}") from error
    return {"path": path, "mode": "0644", "content": f"{content.rstrip()}\n", **more}


def _plain(value: t.Any) -> t.Any:
    """The value in Python's own containers: Ansible's own look at each value again whenever a template does."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
