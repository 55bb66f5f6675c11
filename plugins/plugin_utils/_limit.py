# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``--limit`` leaves out, and hosts that were decommissioned."""

from __future__ import annotations

import hashlib
import re
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils._program.text import one_line
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import below

OURS = re.compile(r"\A(?:backup|restic|rest_server|jobs|escrow|common)_|\A__")


def problems(hosts: dict[str, t.Any], known: dict[str, t.Any], limited: set[str]) -> list[str]:
    """Messages for servers that have to change but are outside the limit, and for decommissioned hosts still declared.

    ``hosts`` is the fleet's model, ``known`` what the state directory has for each host, ``limited`` the hosts of this run.
    """
    messages = [
        f"{host}: was decommissioned on {entry['decommissioned'].get('time', 'an unknown day')} and is still in the inventory."
        f" Remove it from the inventory, or delete hosts/{host}/decommissioned.json in the state directory to take it back"
        for host, entry in sorted(known.items())
        if entry.get("decommissioned") and host in limited
    ]
    missing: dict[str, list[str]] = {}
    for host in sorted(limited & set(hosts)):
        for repository in (hosts[host]["client"] or {}).get("repositories", []):
            server = repository["server"]
            if server and server not in limited and not _rendered(repository, known[host], known[server]):
                missing.setdefault(server, []).append(host)
    for server, clients in missing.items():
        names = sorted(set(clients))
        messages.append(
            f"{', '.join(names)}: the server {server} has to change for this, and is outside the limit."
            f" Run again with --limit {','.join(sorted(limited & set(hosts) | set(missing)))}"
        )
    return messages


def concerned(hosts: dict[str, t.Any], limited: set[str]) -> set[str]:
    """Hosts whose bad input stops this run: those of the limit, and the servers that their clients use."""
    used = {
        repository["server"]
        for host in limited & set(hosts)
        for repository in (hosts[host]["client"] or {}).get("repositories", [])
        if repository["server"]
    }
    return limited | used | {"all"}


def delivered(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str]) -> list[dict[str, t.Any]]:
    """Variables of ours that a host delivered itself, as a fact that a cache kept: facts outrank the inventory.

    A host could name itself so, like one that is gone, whose data is still there. It concerns everybody.
    """
    found = []
    for host in hosts:
        for name in sorted(name for name in hostvars[host].get("ansible_facts") or {} if OURS.match(str(name))):
            shown = below("", name).lstrip(".")
            message = (
                f"{one_line(host)}: {shown}: is among the facts that this host delivered, which outrank the inventory. Run"
                " again with --flush-cache, and look at what delivers it (ansible -m setup, set_fact with cacheable)"
            )
            found.append({"hosts": [host, "all"], "variable": str(name), "message": message})
    return found


def keep(hosts: dict[str, t.Any], known: dict[str, t.Any], unsure: set[str]) -> None:
    """Give servers back what bad input hides from the model: users and names of clients in ``unsure``, as last rendered.

    The error of a client outside the limit is a warning, and its server is rendered whole all the same: a typing error
    must not revoke anybody. ``hosts`` is changed.
    """
    for entry in (known[name] | {"server": hosts[name]["server"]} for name in hosts if hosts[name]["server"]):
        last = entry["rendered"] or {}
        users = entry["server"]["users"]
        there = {user["name"] for user in users}
        for host in sorted(unsure & set(known)):
            entry["server"]["names"] = sorted({*entry["server"]["names"], *last.get("names", [])})
            for repository, identity in sorted(known[host]["rest"].items()):
                name = identity["user"]
                if name in last.get("users", {}) and name not in there:
                    there.add(name)
                    same = {"name": name, "host": host, "repository": repository, "quota": None}
                    users.append({**same, "backup_id": name.rpartition("--")[0]})


def rendered(accounts: list[dict[str, t.Any]], names: list[str], htpasswd: dict[str, t.Any]) -> dict[str, t.Any]:
    """What a server was last rendered with, as the state directory keeps it: a digest for each user, and its names.

    ``accounts`` are the declared users with ``hash`` and ``next_hash``, ``htpasswd`` is what the module of that name said.
    """
    switched, refused = set(htpasswd.get("switched", [])), set(htpasswd.get("refused", []))
    users = {}
    for account in accounts:
        current = account["next_hash"] if account["name"] in switched else account["hash"]
        if current and account["name"] not in refused:
            users[account["name"]] = _digest(current)
    return {"users": users, "names": sorted(names)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _rendered(repository: dict[str, t.Any], client: dict[str, t.Any], server: dict[str, t.Any]) -> bool:
    """Whether the server already has what this client's repository needs."""
    identity = client["rest"].get(repository["name"])
    last = server.get("rendered") or {}
    return (
        identity is not None
        and last.get("users", {}).get(repository["rest_user"])
        in (_digest(identity["hash"]), _digest(identity.get("next_hash") or identity["hash"]))
        and repository["address"] in last.get("names", [])
    )
