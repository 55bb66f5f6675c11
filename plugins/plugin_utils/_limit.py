# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``--limit`` leaves out, clients that were decommissioned, and hosts whose state is damaged."""

from __future__ import annotations

import hashlib
import re
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils._program.text import one_line
from ansible_collections.holdfast.backup.plugins.module_utils._public_key import fingerprint
from ansible_collections.holdfast.backup.plugins.plugin_utils._fleet import CLIENTS, CLIENTS_ELSEWHERE, SERVERS
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import below

OURS = re.compile(
    r"\A(?:backup|restic|rest_server|jobs|escrow|common|ssh_identity|ssh_access|rclone|rclone_proxy|borg)_|\A__"
)
_BUNDLE = re.compile(r"/escrow/[^/]+/[0-9a-f]{32}(?:-[0-9a-f]{16}(\.age)|\.json)")
# What a server does for a repository over SSH, as the model and the state directory have it.
SERVED = ("account", "kind", "path", "remote", "quota", "append_only")


def problems(hosts: dict[str, t.Any], known: dict[str, t.Any], limited: set[str]) -> list[str]:
    """Messages for servers that have to change but are outside the limit, and for decommissioned clients still declared.

    ``hosts`` is the fleet's model, ``known`` what the state directory has for each host, ``limited`` the hosts of this run.
    """
    messages = [
        f"{host}: was decommissioned on {entry['decommissioned'].get('time', 'an unknown day')} and is still a client in the"
        f" inventory. Take it out of {CLIENTS_ELSEWHERE if hosts[host].get('elsewhere') else CLIENTS}, or delete"
        f" hosts/{host}/decommissioned.json in the state directory to take it back"
        for host, entry in sorted(known.items())
        # Whatever else it is, a server say, it goes on to be.
        if entry.get("decommissioned") and host in limited and host in hosts and hosts[host]["client"]
    ]
    missing: dict[str, list[str]] = {}
    for host in sorted(limited & set(hosts)):
        for repository in (hosts[host]["client"] or {}).get("repositories", []):
            server = repository["server"]
            if not server or server in limited or hosts[server].get("elsewhere"):
                continue
            if not serves(hosts, host, repository, known):
                missing.setdefault(server, []).append(host)
    for server, clients in missing.items():
        names = sorted(set(clients))
        messages.append(
            f"{', '.join(names)}: the server {server} has to change for this, and is outside the limit."
            f" Run again with --limit {','.join(sorted(limited & set(hosts) | set(missing)))}"
        )
    return messages


def nobody(hosts: dict[str, t.Any], limited: set[str]) -> list[str]:
    """A message where a run does nothing, and ends well, since none of its hosts is one that it manages.

    In a playbook of the user's own that imports ours, other hosts have other things to be done.
    """
    managed = {host for host, entry in hosts.items() if not entry.get("elsewhere")}
    if limited & managed:
        return []
    return [
        f"no host of {CLIENTS} or {SERVERS} is in this run, so nothing is done. The inventory has there:"
        f" {', '.join(sorted(managed)) or 'none'}"
    ]


def no_client(client: str, clients: t.Container[str], known: dict[str, t.Any]) -> list[str]:
    """A message where ``client``, which is to be decommissioned, is none: a typing error, or a server only.

    ``clients`` are those of the inventory. One that has left it is known by its secrets, which ``known`` has of no other host.
    """
    if client in clients or known["rest"] or known["ssh"] or known["escrow"]:
        return []
    return [
        f"client = {client}: is no host of {CLIENTS} or {CLIENTS_ELSEWHERE}, and the state directory has no secret of it from"
        " when it was one. Give the inventory name of a client: -e client=web1"
    ]


def damaged(host: str, errors: t.Iterable[str]) -> list[dict[str, t.Any]]:
    """Problems of a host whose files in the state directory are damaged, as the model has problems."""
    return [
        {"hosts": [host], "variable": "backup_state_dir", "message": f"{host}: {error}. {_cure(host, error)}"}
        for error in errors
    ]


def is_of_bundle(problem: t.Mapping[str, t.Any]) -> bool:
    """Whether what is damaged is an escrow bundle, of which there are others."""
    return bool(_BUNDLE.search(problem["message"]))


def _cure(host: str, error: str) -> str:
    back = "Bring it back, from version control say, or"
    if "decommissioned.json" in error:
        # Without it the next run of `site` would let the client in again.
        return f"{back} take {host} out of {CLIENTS}, remove the file, and run decommission -e client={host}"
    bundle = _BUNDLE.search(error)
    if not bundle:
        return f"{back} remove it: the playbook that wrote it writes it again"
    if bundle[1]:
        back = "Bring it back, from version control or what its server has in /var/lib/holdfast/escrow, or"
    # One that was replaced since is not written again, but with what is no bundle nothing is lost.
    return f"{back}, if {host} is not lost, remove it and run site again, which writes today's anew"


def still_let_in(hosts: dict[str, t.Any], known: dict[str, t.Any], client: str, limited: set[str]) -> list[str]:
    """A message where a server outside the limit lets a client in whose access is to be revoked."""
    serving = set(lets_in(hosts, known, client))
    outside = sorted(serving - limited)
    if not outside:
        return []
    return [
        f"{client}: {', '.join(outside)} would still let it in, being outside the limit. Run again without --limit, or with"
        f" --limit {','.join(sorted({client} | serving))}"
    ]


def lets_in(hosts: dict[str, t.Any], known: dict[str, t.Any], client: str) -> dict[str, list[str]]:
    """Over what (``rest``, ``ssh``) each server that is managed from here lets a client in, as last rendered.

    As declared where the state directory has nothing of that: it may be lost.
    """
    found: dict[str, set[str]] = {
        host: set() for host, entry in hosts.items() if entry["server"] is not None and not entry.get("elsewhere")
    }
    model = hosts.get(client) or {}
    users = {identity["user"] for identity in known.get(client, {}).get("rest", {}).values()}
    for repository in (model.get("client") or {}).get("repositories", []):
        users |= {repository["rest_user"]} if repository.get("rest_user") else set()
        server, way = repository["server"], "ssh" if repository.get("ssh") else "rest"
        if server in found and known[server]["ssh_rendered" if way == "ssh" else "rendered"] is None:
            found[server].add(way)
    for server, ways in found.items():
        rendered_users = (known[server]["rendered"] or {}).get("users", {})
        if any(name in users or name.rpartition("--")[0] == model.get("backup_id") for name in rendered_users):
            ways.add("rest")
        served = ((known[server]["ssh_rendered"] or {}).get("repositories") or {}).values()
        if any(each["host"] == client for each in served):
            ways.add("ssh")
    return {server: sorted(ways) for server, ways in sorted(found.items()) if ways}


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
    """Give servers back what bad input hides from the model: users, quotas and names of clients in ``unsure``, as last rendered.

    The error of a client outside the limit is a warning, and its server is rendered whole all the same: a typing error
    must not revoke anybody, nor lift a limit. ``hosts`` is changed.
    """
    for entry in (known[name] | {"server": hosts[name]["server"]} for name in hosts if hosts[name]["server"]):
        last = entry["rendered"] or {}
        users = entry["server"]["users"]
        there = {user["name"] for user in users}
        for host in sorted(unsure & set(known)):
            entry["server"]["names"] = sorted({*entry["server"]["names"], *last.get("names", [])})
            own = {identity["user"] for identity in known[host]["rest"].values()}
            for name in sorted(last.get("users", {})):
                # Its secrets may be what cannot be read.
                identity, _dashes, repository = name.rpartition("--")
                if (name in own or identity == hosts.get(host, {}).get("backup_id")) and name not in there:
                    there.add(name)
                    same = {"name": name, "host": host, "repository": repository, "backup_id": identity}
                    users.append({**same, "quota": last.get("quotas", {}).get(name)})
        _keep_ssh(entry, unsure & set(known))


def _keep_ssh(entry: dict[str, t.Any], unsure: set[str]) -> None:
    """The same for accounts, keys and definitions of repositories over SSH."""
    served = (entry["ssh_rendered"] or {}).get("repositories") or {}
    if not served:
        return
    there = {definition["name"] for definition in entry["server"]["definitions"]}
    accounts = {account["name"]: account for account in entry["server"]["ssh"]["accounts"]}
    for name, last in sorted(served.items()):
        if name in there or last["host"] not in unsure:
            continue
        entry["server"]["definitions"].append({"name": name, **{key: last[key] for key in SERVED}})
        identity, _dashes, repository = name.rpartition("--")
        account = accounts.setdefault(
            last["account"], {"name": last["account"], "host": last["host"], "backup_id": identity, "keys": []}
        )
        account["keys"].append({"repository": repository, "kind": last["kind"], "from": last["from"]})
    entry["server"]["ssh"]["accounts"] = [accounts[name] for name in sorted(accounts)]


def forget_others(hosts: dict[str, t.Any], known: dict[str, t.Any]) -> None:
    """Leave out of ``known`` what a client had under another ``backup_id``: it has no secrets yet, and the old ones open nothing.

    Where nothing is on record of it, the user of a rest-server says it. ``known`` is changed.
    """
    for name in set(hosts) & set(known):
        entry, identity = known[name], hosts[name]["backup_id"]
        if identity is None:
            continue
        left = {repository for repository, was in entry["identities"].items() if was != identity}
        left |= {name for name, told in entry["rest"].items() if told["user"] != f"{identity}--{name}"}
        for half in ("ssh", "escrow", "rest"):
            entry[half] = {repository: told for repository, told in entry[half].items() if repository not in left}


def rendered(
    accounts: list[dict[str, t.Any]],
    names: list[str],
    htpasswd: dict[str, t.Any],
    last: dict[str, t.Any] | None = None,
) -> dict[str, t.Any]:
    """What a server was last rendered with, as the state directory keeps it: a digest for each user, its quota where it has one,
    and the server's names.

    ``accounts`` are the declared users with ``hash``, ``next_hash`` and ``quota``, ``htpasswd`` is what the module of that name said.
    ``last`` is the same of the run before: whose hash is not known now keeps its line, and its digest.
    """
    switched, refused = set(htpasswd.get("switched", [])), set(htpasswd.get("refused", []))
    kept, missing = set(htpasswd.get("kept", [])), set(htpasswd.get("missing", []))
    before = (last or {}).get("users", {})
    users = {name: before[name] for name in kept if name in before}
    for account in accounts:
        name = account["name"]
        current = account["next_hash"] if name in switched else account["hash"]
        if current and name not in refused | missing:
            # Of one that is known and kept, the server has a newer one, which nobody here knows.
            users[name] = digest("" if name in kept else current)
    quotas = {each["name"]: each["quota"] for each in accounts if each.get("quota") and each["name"] in users}
    return {"users": users, "quotas": quotas, "names": sorted(names)}


def ssh_rendered(
    accounts: list[dict[str, t.Any]],
    definitions: list[dict[str, t.Any]],
    said: dict[str, t.Any],
    host_keys: list[str],
) -> dict[str, t.Any]:
    """The files that the state directory keeps of a server of repositories over SSH: what it serves to which keys, its own.

    ``said`` is what the module ssh_accounts said; of the clients' keys the fingerprints are kept.
    """
    keys = {
        (account["name"], key["repository"]): (account["host"], key) for account in accounts for key in account["keys"]
    }
    repositories = {}
    for definition in definitions:
        repository = definition["name"].rpartition("--")[2]
        served = ((said.get("served") or {}).get(definition["account"]) or {}).get(repository)
        host, key = keys.get((definition["account"], repository), ("", {}))
        if served and host:
            repositories[definition["name"]] = {
                **{name: definition[name] for name in SERVED},
                "host": host,
                "from": key["from"],
                "keys": sorted(served),
            }
    files: dict[str, t.Any] = {"ssh_rendered.json": {"repositories": repositories}}
    return {**files, "ssh_host_keys": "".join(f"{key}\n" for key in host_keys)} if host_keys else files


def digest(text: str) -> str:
    """What the state directory keeps of a hash that a server was rendered with."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def serves(hosts: dict[str, t.Any], host: str, repository: dict[str, t.Any], known: dict[str, t.Any]) -> bool:
    """Whether the server already has what this client's repository needs."""
    client, server = known[host], known[repository["server"]]
    if repository.get("ssh"):
        return _ssh_rendered(hosts, host, repository, client, server)
    identity = client["rest"].get(repository["name"])
    last = server.get("rendered") or {}
    return (
        identity is not None
        and last.get("users", {}).get(repository["rest_user"])
        in (digest(identity["hash"]), digest(identity.get("next_hash") or identity["hash"]))
        and last.get("quotas", {}).get(repository["rest_user"]) == repository["quota"]
        and repository["address"] in last.get("names", [])
    )


def _ssh_rendered(
    hosts: dict[str, t.Any],
    host: str,
    repository: dict[str, t.Any],
    client: dict[str, t.Any],
    server: dict[str, t.Any],
) -> bool:
    name = f"{hosts[host]['backup_id']}--{repository['name']}"
    key = client["ssh"].get(repository["name"])
    last = ((server["ssh_rendered"] or {}).get("repositories") or {}).get(name)
    if key is None or last is None or not server["ssh_host_keys"]:
        return False
    wanted = next(each for each in hosts[repository["server"]]["server"]["definitions"] if each["name"] == name)
    return (
        all(wanted[field] == last[field] for field in SERVED)
        and repository["ssh"]["from"] == last["from"]
        and fingerprint(key["key"].split(" ")[1]) in last["keys"]
    )
