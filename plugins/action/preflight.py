# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the whole inventory once, on the controller, before anything on any host is changed."""

from __future__ import annotations

import hashlib
import typing as t
from pathlib import Path

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.holdfast.backup.plugins.plugin_utils import (
    _fleet,
    _handover,
    _handover_file,
    _limit,
    _role_variables,
    _state,
    _zipapp,
)
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import Problem, said, shorten

COLLECTION = Path(__file__).resolve().parents[2]


def _places(
    state_dir: str, groups: t.Mapping[str, t.Sequence[str]]
) -> tuple[dict[str, dict[str, t.Any]], list[dict[str, t.Any]]]:
    """Where each client is served by servers that are managed elsewhere, and problems of clients of which that is damaged."""
    places, problems = {}, []
    for host in groups.get(_fleet.CLIENTS, []) if groups.get(_fleet.SERVERS_ELSEWHERE) else []:
        try:
            places[host] = _handover_file.places(_state.read_handed_over(state_dir, host))
        except ValueError as error:
            problems += _limit.damaged(host, [str(error)])
    return places, problems


def _state_dirs(variables: dict[str, t.Any], named: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """A problem where the hosts of the model name several state directories, or this one, whose value is taken, another."""
    host = variables.get("inventory_hostname")
    if named and host and host not in named:
        try:
            named = {**named, host: variables["hostvars"][host].get("backup_state_dir")}
        except Exception as error:  # whatever a template raises: it is the user's text
            wrong = f"cannot be evaluated: {said(error)}"
            message = str(Problem((host,), "backup_state_dir", "", wrong, "Correct the template"))
            return [{"hosts": ["all"], "variable": "backup_state_dir", "message": message}]
    message = _state.disagreement(named, list(variables.get("ansible_inventory_sources") or []))
    return [{"hosts": ["all"], "variable": "backup_state_dir", "message": message, "made": True}] if message else []


def _used(problem: dict[str, t.Any], state_dir: str) -> dict[str, t.Any]:
    """A problem that does not stop this run; of several state directories it says which one is used."""
    if problem["variable"] != "backup_state_dir":
        return problem
    return {**problem, "message": f"{problem['message']}. This run takes {shorten(state_dir)}"}


class ActionModule(ActionBase):
    """Computes the model of the fleet, refuses bad input, and returns the model for every play."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Read the variables of all hosts; nothing is written."""
        variables = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, variables)
        _unused, arguments = self.validate_argument_spec(
            {
                "state_dir": {"type": "str", "default": _state.DEFAULT},
                "limit": {"type": "list", "elements": "str"},
                "fleet_id": {"type": "str"},
                "revoke": {"type": "str"},
                "mode": {"type": "str", "choices": ["site", "read"], "default": "site"},
            }
        )
        hostvars, groups = variables["hostvars"], variables["groups"]
        try:
            state_dir = _state.resolve_state_dir(
                arguments["state_dir"], list(variables.get("ansible_inventory_sources") or [])
            )
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from None
        places, damaged = _places(state_dir, groups)
        model = _fleet.fleet(hostvars, groups, places)
        told = {(host, problem["variable"]) for problem in model["errors"] for host in problem["hosts"]}
        model["errors"] += _state_dirs(variables, model["state_dirs"])
        model["errors"] += [
            _fleet.plain(problem) for problem in _role_variables.problems(hostvars, model["hosts"], told)
        ]
        limited, revoked = set(arguments["limit"] or variables.get("ansible_play_hosts_all", [])), arguments["revoke"]
        known = {}
        try:
            # A client that is to be decommissioned may have left the inventory.
            for host in dict.fromkeys([*model["hosts"], *([revoked] if revoked else [])]):
                known[host], errors = _state.examine_host(state_dir, host)
                damaged += _limit.damaged(host, errors)
            fleet_id = _state.read_fleet_id(state_dir)
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from None
        if arguments["mode"] == "read":
            # Nothing is written there, and what is taken of it is what can be opened.
            model["warnings"] += [problem for problem in damaged if _limit.is_of_bundle(problem)]
            damaged = [problem for problem in damaged if not _limit.is_of_bundle(problem)]
            # What goes wrong only with what is made keeps nobody from reading, nor a client its access.
            model["warnings"] += [_used(problem, state_dir) for problem in model["errors"] if problem.get("made")]
            model["errors"] = [problem for problem in model["errors"] if not problem.get("made")]
        model["errors"] += damaged
        unsure = {host for problem in model["errors"] for host in problem["hosts"]}
        _limit.keep(model["hosts"], known, unsure)
        if C.config.get_config_value("INJECT_FACTS_AS_VARS"):
            model["errors"] += _limit.delivered(hostvars, model["hosts"])
        concerned = _limit.concerned(model["hosts"], limited)
        stopping = [problem for problem in model["errors"] if concerned & set(problem["hosts"])]
        if revoked:
            # Which servers let it in has to be known.
            asked = {revoked} | {host for host, entry in model["hosts"].items() if entry["server"] is not None}
            stopping += [problem for problem in damaged if problem not in stopping and asked & set(problem["hosts"])]
        elsewhere = [problem for problem in model["errors"] if problem not in stopping]
        messages = [problem["message"] for problem in stopping]
        warnings = [problem["message"] for problem in elsewhere + model["warnings"]]
        if arguments["mode"] == "site":
            messages += _limit.problems(model["hosts"], known, limited)
            (warnings if groups.get("all") else messages).extend(_limit.nobody(model["hosts"], limited))
            untold, unlet = _handover.missing(model["hosts"], known, limited)
            messages += untold
            warnings += unlet
        if revoked:
            clients = [*groups.get(_fleet.CLIENTS, []), *groups.get(_fleet.CLIENTS_ELSEWHERE, [])]
            messages += _limit.no_client(revoked, clients, known[revoked])
            messages += _limit.still_let_in(model["hosts"], known, revoked, limited)
            result["lets_in"] = _limit.lets_in(model["hosts"], known, revoked)
        if messages:
            raise AnsibleActionFail(
                "nothing was changed; correct the inventory:\n" + "\n".join(f"- {message}" for message in messages)
            )
        _limit.forget_others({host: entry for host, entry in model["hosts"].items() if host not in unsure}, known)
        result.update(changed=False, hosts=model["hosts"], state_dir=state_dir, known=known, warnings=warnings)
        # With -v nobody wants to read it, and hashes of passwords are in it.
        result["_ansible_verbose_override"] = True
        result.update(fleet_id=fleet_id, wanted_fleet_id=arguments["fleet_id"])
        if arguments["mode"] == "site":
            # Once for the fleet: building it for each host would cost more than everything else of that host's units.
            result["program_sha256"] = hashlib.sha256(_zipapp.build(COLLECTION)).hexdigest()
        return result
