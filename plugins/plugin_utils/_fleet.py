# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model of the whole fleet, merged and validated from the variables of all hosts.

Pure: it reads mappings and returns plain data, so it is tested without Ansible. No secret is in the model; the
identities of a host are asked for with :func:`repository_secrets`.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.holdfast.backup.plugins.plugin_utils import _fields as f
from ansible_collections.holdfast.backup.plugins.plugin_utils import _jobs, _repositories
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput, Problem, shorten

Variables = t.Mapping[str, t.Any]

CLIENTS = "backup_clients"
SERVERS = "backup_servers"
DEFAULT_REPOSITORY = "local"
CACHE = "/var/cache/holdfast*"


class _Collector:
    """Collects problems and evaluates variables of one host."""

    def __init__(self, host: str, variables: Variables, problems: list[Problem]) -> None:
        self.host = host
        self.variables = variables
        self.problems = problems

    def add(self, bad: BadInput) -> None:
        shown = "" if bad.value is None or bad.value == "" else shorten(bad.value)
        self.problems.append(Problem((self.host,), bad.where, shown, bad.wrong, bad.cure))

    def value(self, name: str, default: t.Any = None) -> t.Any:
        """A variable of the host, templates rendered; a template that fails is a problem."""
        if name not in self.variables:
            return default
        try:
            value = self.variables[name]
        except Exception as error:  # whatever a template raises: it is the user's text
            self.add(BadInput(name, "", f"cannot be evaluated: {error}", "Correct the template"))
            return default
        return default if value is None else value

    def checked(self, name: str, checker: f.Checker, default: t.Any) -> t.Any:
        try:
            value = self.value(name)
            return default if value is None else checker(name, value)
        except BadInput as bad:
            self.add(bad)
            return default


def merged(host: _Collector, variable: str) -> dict[str, tuple[str, dict[str, t.Any]]]:
    """One dictionary of dictionaries out of ``variable`` and every ``variable__<anything>``, by name.

    Merged one level deep, the later wins; null removes an inherited entry. Returns for each name the variable that
    spoke last (for messages) and the merged value.
    """
    result: dict[str, tuple[str, dict[str, t.Any]]] = {}
    for source in sorted(name for name in host.variables if name == variable or name.startswith(f"{variable}__")):
        value = host.value(source, {})
        if not isinstance(value, dict):
            host.add(BadInput(source, value, "is not a dictionary", "Write name: {…}"))
            continue
        for name, entry in value.items():
            try:
                f.name(f"{source}.{name}", name)
            except BadInput as bad:
                host.add(bad)
                continue
            if entry is None:
                result.pop(name, None)
            elif not isinstance(entry, dict):
                host.add(
                    BadInput(
                        f"{source}.{name}",
                        entry,
                        "is not a dictionary",
                        "Write its keys below the name, or null to remove it",
                    )
                )
            else:
                result[str(name)] = (source, {**result.get(name, ("", {}))[1], **entry})
    return result


def backup_id(host: _Collector) -> str | None:
    """The name under which a host's data is kept."""
    given = host.value("backup_id")
    variable, value = (
        ("backup_id", given)
        if given is not None
        else ("backup_id (from the inventory name)", host.host.lower().replace(".", "-"))
    )
    try:
        return f.name(variable, value)
    except BadInput as bad:
        bad.cure = f"{bad.cure}; set backup_id for this host"
        host.add(bad)
        return None


def fleet(hostvars: t.Mapping[str, Variables], groups: t.Mapping[str, t.Sequence[str]]) -> dict[str, t.Any]:
    """The model: ``hosts`` (client and server side of each), ``errors`` and ``warnings`` (lists of problems as dicts)."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    clients = list(groups.get(CLIENTS, []))
    servers = list(groups.get(SERVERS, []))
    collectors = {host: _Collector(host, hostvars[host], problems) for host in dict.fromkeys([*clients, *servers])}
    ids = {host: backup_id(collector) for host, collector in collectors.items()}
    model: dict[str, dict[str, t.Any]] = {
        host: {"name": host, "backup_id": ids[host], "client": None, "server": None} for host in collectors
    }
    if not clients:
        warnings.append(
            Problem(
                ("all",),
                CLIENTS,
                "",
                "the inventory has no client",
                f"Put the hosts to be backed up into the group {CLIENTS}",
            )
        )
    for host in servers:
        model[host]["server"] = _server(collectors[host])
    for host in clients:
        identity = ids[host]
        if identity is not None:
            model[host]["client"] = _client(collectors[host], identity, servers, collectors, model, warnings)
    problems += _collisions(ids, model)
    for host in servers:
        model[host]["server"]["names"] = sorted(model[host]["server"]["names"])
    return {
        "hosts": model,
        "errors": [_plain(problem) for problem in dict.fromkeys(problems)],
        "warnings": [_plain(problem) for problem in dict.fromkeys(warnings)],
    }


def _plain(problem: Problem) -> dict[str, t.Any]:
    return {"hosts": list(problem.hosts), "variable": problem.variable, "message": str(problem)}


def dialled_address(host: _Collector) -> str:
    """What clients dial: the server's ``backup_address``, else ``ansible_host``, else its inventory name."""
    for variable in ("backup_address", "ansible_host"):
        if host.value(variable) is not None:
            return str(host.checked(variable, f.address, host.host))
    return host.host


def _server(host: _Collector) -> dict[str, t.Any]:
    tls = host.checked("rest_server_tls", f.choice("private", "provided", "off"), "private")
    address = dialled_address(host)
    extra = host.value("rest_server_users", [])
    extra_users = (
        [str(user.get("name")) for user in extra if isinstance(user, dict)] if isinstance(extra, (list, tuple)) else []
    )
    return {
        "address": address,
        "port": host.checked("rest_server_port", f.integer(1, 65535), _repositories.REST_PORT),
        "tls": tls,
        "names": {address, host.host} if f.HOSTNAME.match(host.host) else {address},
        "users": [],
        "extra_users": extra_users,
    }


def _client(
    host: _Collector,
    identity: str,
    servers: list[str],
    collectors: dict[str, _Collector],
    model: dict[str, dict[str, t.Any]],
    warnings: list[Problem],
) -> dict[str, t.Any]:
    repositories: dict[str, dict[str, t.Any]] = {}
    written = merged(host, "backup_repositories") or {DEFAULT_REPOSITORY: ("backup_repositories", {})}
    for name, (source, value) in sorted(written.items()):
        try:
            repositories[name] = _repository(
                f"{source}.{name}", name, value, host, identity, servers, collectors, model
            )
        except BadInput as bad:
            host.add(bad)
    for name, repository in repositories.items():
        origin = repository["from_repo"]
        if origin and (origin == name or origin not in written):
            host.add(
                BadInput(
                    f"{written[name][0]}.{name}.from_repo",
                    origin,
                    "is not another repository of this host",
                    "Name one of its repositories",
                )
            )
    own = [CACHE, *sorted(repository["path"] for repository in repositories.values() if repository["path"])]
    jobs: dict[str, dict[str, t.Any]] = {}
    units: list[dict[str, t.Any]] = []
    for name, (source, value) in sorted(merged(host, "backup_jobs").items()):
        where = f"{source}.{name}"
        try:
            job = _jobs.job(where, value, host.host)
        except BadInput as bad:
            host.add(bad)
            continue
        jobs[name] = job
        for used in job.setdefault("repositories", sorted(written)):
            if used not in written:
                host.add(
                    BadInput(
                        f"{where}.repositories",
                        used,
                        "is not a repository of this host",
                        f"Declared are: {', '.join(sorted(written))}",
                    )
                )
            elif used in repositories:
                try:
                    units.append(_unit(where, name, job, repositories[used], own))
                except BadInput as bad:
                    host.add(bad)
    if not jobs:
        warnings.append(
            Problem(
                (host.host,),
                "backup_jobs",
                "",
                "no job is declared: nothing of this host is backed up",
                "Declare what is to be backed up",
            )
        )
    used_names = {unit["repository"] for unit in units}
    used_names |= {repositories[name]["from_repo"] for name in used_names if repositories[name]["from_repo"]}
    escrow = host.value("backup_escrow")
    result = {
        "repositories": [repositories[name] for name in sorted(repositories) if name in used_names],
        "jobs": jobs,
        "units": units,
        "escrow": _escrow(host, escrow, [repositories[name] for name in used_names if name in repositories]),
    }
    for repository in result["repositories"]:
        if repository["access"] == "rest":
            model[repository["server"]]["server"]["users"].append(
                {
                    "name": repository["rest_user"],
                    "host": host.host,
                    "backup_id": identity,
                    "repository": repository["name"],
                    "quota": repository["quota"],
                }
            )
            model[repository["server"]]["server"]["names"].add(repository["address"])
    return result


def _repository(
    where: str,
    name: str,
    value: dict[str, t.Any],
    host: _Collector,
    identity: str,
    servers: list[str],
    collectors: dict[str, _Collector],
    model: dict[str, dict[str, t.Any]],
) -> dict[str, t.Any]:
    written = _repositories.repository(where, value)
    result: dict[str, t.Any] = {
        "name": name,
        "engine": written["engine"],
        "access": written["access"],
        "server": None,
        "address": None,
        "address_variable": None,
        "rest_user": None,
        "rest_url": None,
        "tls": None,
        "path": None,
        "mount": written.get("mount"),
        "options": written["options"],
        "repository_version": written.get("repository_version"),
        "from_repo": written.get("from_repo"),
        "quota": written.get("quota"),
        "append_only": written["access"] == "rest",
        "adopted": "password" in written,
        "has_environment": bool(written.get("environment")),
    }
    if written["access"] == "rest":
        server = written["server"]
        if server not in servers:
            raise BadInput(
                f"{where}.server",
                server,
                f"is not a host of the group {SERVERS}",
                f"The group has: {', '.join(servers) or 'no host'}",
            )
        side = model[server]["server"]
        variable = (
            f"{where}.address"
            if "address" in written
            else "backup_address"
            if collectors[server].value("backup_address") is not None
            else "ansible_host"
        )
        result.update(
            server=server,
            address=written.get("address", side["address"]),
            address_variable=variable if variable.startswith(where) else f"{variable} of {server}",
            port=written.get("port", side["port"]),
            tls=side["tls"],
            rest_user=f"{identity}--{name}",
        )
        result["location"] = _repositories.rest_location(
            result["address"], result["port"], result["rest_user"], side["tls"] != "off", written.get("url_prefix", "")
        )
        result["rest_url"] = result["location"][len("rest:") :]
    elif written["access"] == "local":
        result["location"] = result["path"] = _repositories.local_path(written, name)
    else:
        result["location"] = written["url"]
    if result["mount"] and result["path"] and not result["path"].startswith(result["mount"].rstrip("/") + "/"):
        raise BadInput(
            f"{where}.path",
            result["path"],
            "does not lie below the repository's mount",
            f"Put it below {result['mount']}",
        )
    return result


def _unit(
    where: str, name: str, job: dict[str, t.Any], repository: dict[str, t.Any], own: list[str]
) -> dict[str, t.Any]:
    unit = f"{name}--{repository['name']}"
    return {
        "unit": unit,
        "job": name,
        "repository": repository["name"],
        "arguments": _jobs.backup_arguments(unit, name, job, repository, own),
        "dumps": [
            {
                "name": dump["name"],
                "unit": f"holdfast-{unit}--{dump['name']}",
                "user": dump["user"],
                "arguments": _jobs.dump_arguments(name, job, repository, dump),
            }
            for dump in job["dumps"]
        ],
        "keep": _jobs.keep_options(f"{where}.keep", job["keep"], repository["append_only"]),
    }


def _escrow(host: _Collector, value: t.Any, repositories: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    """How key material is kept for the day when the client is gone."""
    if value is None:
        needed = sorted(repository["name"] for repository in repositories if repository["access"] != "local")
        if needed:
            host.add(
                BadInput(
                    "backup_escrow",
                    "",
                    f"is missing, and without it nobody can restore {', '.join(needed)} when this host is gone",
                    "Make a key with 'age-keygen -o backup-escrow.key', keep that file away from the fleet, and set"
                    " backup_escrow: {recipients: [<the public key it prints>]}",
                )
            )
        return {"mode": "none", "recipients": []}
    try:
        escrow = f.mapping(
            {"mode": f.choice("age", "none", "controller"), "recipients": f.listing(_recipient)}, "backup_escrow", value
        )
        escrow.setdefault("mode", "age")
        escrow.setdefault("recipients", [])
        if escrow["mode"] == "age" and not escrow["recipients"]:
            raise BadInput("backup_escrow.recipients", "", "is empty", "Give the public key that age-keygen prints")
        return escrow
    except BadInput as bad:
        host.add(bad)
        return {"mode": "none", "recipients": []}


_recipient = f.text(
    r"age1[02-9ac-hj-np-z]{58}|ssh-ed25519 [A-Za-z0-9+/=]{68}( .{0,100})?",
    "a public key of age",
    "Give the line 'age1…' that age-keygen prints, or an ssh-ed25519 public key; the secret key never belongs here",
)


def _collisions(ids: dict[str, str | None], model: dict[str, dict[str, t.Any]]) -> list[Problem]:
    """One name for two hosts, one location for two repositories."""
    found = []
    by_id: dict[str, list[str]] = {}
    by_location: dict[str, list[tuple[str, str]]] = {}
    for host, entry in model.items():
        identity = ids[host]
        if identity is not None:
            by_id.setdefault(identity, []).append(host)
        for repository in (entry["client"] or {}).get("repositories", []):
            where = f"{host}:" if repository["access"] == "local" or repository["location"].startswith("/") else ""
            by_location.setdefault(where + repository["location"].rstrip("/"), []).append((host, repository["name"]))
    for identity, hosts in by_id.items():
        if len(hosts) > 1:
            found.append(
                Problem(
                    tuple(hosts),
                    "backup_id",
                    shorten(identity),
                    "is used by two hosts",
                    "Give each host a backup_id of its own",
                )
            )
    for location, users in by_location.items():
        if len(users) > 1:
            names = ", ".join(f"{name} of {host}" for host, name in users)
            found.append(
                Problem(
                    tuple(dict.fromkeys(host for host, unused in users)),
                    "backup_repositories",
                    shorten(re.sub(r"\A[^/:]*:(?=/)", "", location)),
                    f"is the location of two repositories ({names})",
                    "Give each repository of each client a location of its own",
                )
            )
    return found


def repository_secrets(variables: Variables) -> dict[str, dict[str, t.Any]]:
    """What one host's user gave as secrets: for each repository its password and its backend's environment, where given."""
    host = _Collector("", variables, [])
    return {
        name: {key: value[key] for key in _repositories.SECRETS if value.get(key) is not None}
        for name, (source, value) in merged(host, "backup_repositories").items()
    }
