# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hand-over file says to whom: made from the state directory of one controller, taken into that of another."""

from __future__ import annotations

import posixpath
import typing as t
import urllib.parse

from ansible_collections.holdfast.backup.plugins.module_utils._public_key import fingerprint
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.plugin_utils import _limit
from ansible_collections.holdfast.backup.plugins.plugin_utils._fleet import (
    CLIENTS_ELSEWHERE,
    SERVERS,
    SERVERS_ELSEWHERE,
)
from ansible_collections.holdfast.backup.plugins.plugin_utils._handover_file import FORMAT, KIND, Document

PLAYBOOK = "ansible-playbook holdfast.backup.handover"

Hosts = dict[str, t.Any]


def offered(hosts: Hosts, known: Hosts, limited: t.Container[str], *, check_mode: bool = False) -> Document:
    """The document for the other side about the clients in ``limited``: of one's own their public halves, of theirs the places
    where they are served.

    ``hosts`` is the fleet's model, ``known`` what the state directory has of each host now. Raises ValueError for what is not
    there yet; check mode cannot know what the real run will make.
    """
    clients: dict[str, t.Any] = {}
    servers: dict[str, t.Any] = {}
    problems = []
    for host, repository in _between(hosts, limited):
        server, name, identity = repository["server"], repository["name"], hosts[host]["backup_id"]
        if hosts[server]["elsewhere"]:
            current, following = _publics(known[host], repository)
            if not current and not check_mode:
                problems.append(f"{host}: has no secret for the repository {name} yet, see above why")
                continue
            clients.setdefault(identity, {})[name] = _half(repository, current or UNBORN, following)
        elif _limit.serves(hosts, host, repository, known):
            last, served = known[server], f"{identity}--{name}"
            empty: dict[str, t.Any] = {"ca": last["ca"], "host_keys": last["ssh_host_keys"], "repositories": {}}
            servers.setdefault(server, empty)["repositories"][served] = _place(served, known[host], repository, last)
        else:
            problems.append(
                f"{host}: {server} does not serve its repository {name} yet. Import the hand-over file of {host}, run the"
                " playbook site, then export"
            )
    if problems:
        raise ValueError("\n".join(["nothing was exported:", *(f"- {problem}" for problem in problems)]))
    if not clients and not servers:
        raise ValueError(
            "there is nothing to hand over: no client of this run has a job into a repository on a server of"
            f" {SERVERS_ELSEWHERE}, and none of {CLIENTS_ELSEWHERE} has a repository on a server of {SERVERS}"
        )
    return {"format": FORMAT, "clients": clients, "servers": servers}


def _between(hosts: Hosts, limited: t.Container[str]) -> t.Iterator[tuple[str, dict[str, t.Any]]]:
    """Clients of this run and those of their repositories whose server is managed by somebody else than they are."""
    for host, entry in sorted(hosts.items()):
        for repository in (entry["client"] or {}).get("repositories", []):
            if (
                repository["server"]
                and host in limited
                and hosts[repository["server"]]["elsewhere"] != entry["elsewhere"]
            ):
                yield host, repository


def _half(repository: t.Mapping[str, t.Any], public: str, following: str | None) -> dict[str, t.Any]:
    """A client's side of a repository in a document."""
    entry = {**{key: repository[key] for key in ("server", *KIND)}, "public": public}
    return {**entry, "next_public": following} if following else entry


def _publics(known: Hosts, repository: t.Mapping[str, t.Any]) -> tuple[str | None, str | None]:
    """The public half of a client's secret for a repository, and the next one."""
    half = "hash" if repository["access"] == "rest" else "key"
    found = known["rest" if half == "hash" else "ssh"].get(repository["name"], {})
    return found.get(half), found.get(f"next_{half}")


def _place(served: str, client: Hosts, repository: t.Mapping[str, t.Any], server: Hosts) -> dict[str, t.Any]:
    """Where a repository is; ``client`` and ``server`` are what the state directory has of both."""
    publics = [each for each in _publics(client, repository) if each]
    place = {key: repository[key] for key in ("engine", "access", "address", "port", "append_only")}
    if repository["access"] == "rest":
        user = repository["rest_user"]
        prefix = urllib.parse.urlsplit(repository["rest_url"]).path[: -len(f"/{user}/")]
        taken = [each for each in publics if _limit.digest(each) == server["rendered"]["users"][user]]
        return {**place, "tls": repository["tls"], "accepts": taken, **({"url_prefix": prefix} if prefix else {})}
    ssh = repository["ssh"]
    keys = server["ssh_rendered"]["repositories"][served]["keys"]
    taken = [each for each in publics if fingerprint(each.split(" ")[1]) in keys]
    path = {"path": posixpath.dirname(ssh["path"])} if ssh["kind"] == "sftp" else {}
    return {**place, "accepts": taken, **path}


class Taken(t.NamedTuple):
    """What an import keeps: by host, contents and paths to remove as the state directory takes them; and what it leaves."""

    write: dict[str, dict[str, t.Any]]
    remove: dict[str, list[str]]
    notes: list[str]


def taken(document: Document, hosts: Hosts, limited: t.Container[str]) -> Taken:
    """What of a document is for this inventory; it may speak for hosts in ``limited`` only.

    Raises ValueError where anything of it is wrong here, and then nothing of it counts.
    """
    found = Taken({}, {}, [])
    problems = [
        *_take_clients(document["clients"], hosts, limited, found),
        *_take_servers(document["servers"], hosts, limited, found),
    ]
    if problems:
        raise ValueError("\n".join(["nothing of it was taken:", *(f"- {problem}" for problem in problems)]))
    return found


def _take_clients(clients: Hosts, hosts: Hosts, limited: t.Container[str], found: Taken) -> t.Iterator[str]:
    """Keep the public halves of clients that are managed elsewhere; the problems."""
    elsewhere = {entry["backup_id"]: host for host, entry in hosts.items() if entry["elsewhere"] and entry["client"]}
    declared = _declared(hosts)
    for identity, repositories in sorted(clients.items()):
        host = elsewhere.get(identity)
        if host is None or host not in limited:
            yield _stranger(f"the client {identity}", host, CLIENTS_ELSEWHERE)
            continue
        for name, entry in sorted(repositories.items()):
            server, wanted = entry["server"], declared.get((identity, name), (host, None))[1]
            if hosts.get(server, {}).get("server") is None or hosts[server]["elsewhere"]:
                found.notes.append(
                    f"{host}: its repository {name} is on {server}, which is no server of this inventory"
                )
            elif wanted is None or _described(wanted) != _described(entry):
                yield _differs(host, name, entry, wanted)
            else:
                path, content = _kept(wanted, entry["public"], entry.get("next_public"))
                found.write.setdefault(host, {})[path] = content


def _kept(repository: t.Mapping[str, t.Any], public: str, following: str | None) -> tuple[str, t.Any]:
    """The file of the state directory for the public halves of a repository; whose they are is for the model to say."""
    if repository["access"] == "rest":
        content = {"user": repository["rest_user"], "hash": public, "next_hash": following}
        return f"rest/{repository['name']}.json", content
    return f"ssh/{repository['name']}.pub", "".join(f"{key}\n" for key in (public, following) if key)


def _take_servers(servers: Hosts, hosts: Hosts, limited: t.Container[str], found: Taken) -> t.Iterator[str]:
    """Keep where servers that are managed elsewhere serve one's own clients; the problems."""
    declared = _declared(hosts)
    for server, said in sorted(servers.items()):
        there = server in hosts and hosts[server]["elsewhere"] and hosts[server]["server"] is not None
        if not there or server not in limited:
            yield _stranger(f"the server {server}", server if there else None, SERVERS_ELSEWHERE)
            continue
        files = {"ca.pem": said["ca"], "ssh_host_keys": "".join(f"{key}\n" for key in said["host_keys"])}
        found.write[server] = {path: content for path, content in files.items() if content}
        found.remove[server] = [path for path, content in files.items() if not content]
        for served, place in sorted(said["repositories"].items()):
            identity, _dashes, name = served.rpartition("--")
            host, wanted = declared.get((identity, name), ("", None))
            if wanted is None or wanted["server"] != server:
                found.notes.append(f"{server}: serves {served}, into which no client of this inventory backs up there")
                continue
            told = {"server": server, **place}
            if _described(wanted) != _described(told):
                yield _differs(host, name, told, wanted)
                continue
            if place.get("tls") == "off" and wanted["tls"] != "off":
                yield (
                    f"{host}: the file has the repository {name} without TLS, and its REST password would cross the network in"
                    f" plaintext. If that is meant, say tls: false in backup_repositories.{name}"
                )
                continue
            # A file about one repository takes nothing from the others.
            known = dict(hosts[host]["places"])
            places = found.write.setdefault(host, {"handed_over.json": {"repositories": known}})
            places["handed_over.json"]["repositories"][served] = told
        yield from _bereft(server, said, declared)


def _bereft(server: str, said: Hosts, declared: dict[tuple[str, str], tuple[str, dict[str, t.Any]]]) -> t.Iterator[str]:
    """Problems where a file takes away what repositories of which it is silent trust, and which would then trust anybody."""
    for (identity, name), (host, wanted) in sorted(declared.items()):
        if wanted["server"] != server or wanted["accepts"] is None or f"{identity}--{name}" in said["repositories"]:
            continue
        missing = "host_keys" if wanted["ssh"] else "ca" if wanted["tls"] == "private" else None
        if missing and not said[missing]:
            yield (
                f"{host}: the file has no {missing} of {server}, which the repository {name} needs, and is silent about it. Ask"
                f" for a file about all repositories of {host}"
            )


def _declared(hosts: Hosts) -> dict[tuple[str, str], tuple[str, dict[str, t.Any]]]:
    """What files may speak of: host and repository, by the identity of the client and the repository's name."""
    between = _between(hosts, hosts)
    return {(hosts[host]["backup_id"], repository["name"]): (host, repository) for host, repository in between}


def _stranger(what: str, host: str | None, group: str) -> str:
    """Why a file may not speak for somebody."""
    if host is None:
        return f"it speaks for {what}, which is none of the group {group}"
    return f"it speaks for {what}, and {host} is outside --limit: name all hosts that the file may speak for"


def _differs(host: str, name: str, entry: t.Mapping[str, t.Any], wanted: t.Mapping[str, t.Any] | None) -> str:
    there = f"has {_described(wanted)}" if wanted else "has none of this name"
    return (
        f"{host}: the file has the repository {name} as {_described(entry)}, the inventory {there}. Declare the same in"
        " backup_repositories on both sides"
    )


def _described(repository: t.Mapping[str, t.Any]) -> str:
    """What both sides have to declare alike."""
    return f"engine: {repository['engine']}, access: {repository['access']}, server: {repository['server']}"


def before(document: Document, hosts: Hosts, known: Hosts) -> Document:
    """What the state directory has of that of which a document speaks."""
    clients: dict[str, t.Any] = {}
    servers: dict[str, t.Any] = {}
    for host, repository in _between(hosts, hosts):
        identity, name, server = hosts[host]["backup_id"], repository["name"], repository["server"]
        served = f"{identity}--{name}"
        current, following = _publics(known[host], repository)
        if current and name in document["clients"].get(identity, {}):
            clients.setdefault(identity, {})[name] = _half(repository, current, following)
        if served in hosts[host]["places"] and served in document["servers"].get(server, {}).get("repositories", {}):
            last = {"ca": known[server]["ca"], "host_keys": known[server]["ssh_host_keys"], "repositories": {}}
            servers.setdefault(server, last)["repositories"][served] = hosts[host]["places"][served]
    return {"format": FORMAT, "clients": clients, "servers": servers}


def unexpected(document: Document, before: Document) -> list[str]:
    """Warnings where a client's secret follows from none that is known: an older file would take away what is used now."""
    return [
        f"{identity}: the file has a secret for the repository {name} that is neither the one known here nor its next one."
        " Unless the client began anew, the file is older than one that was imported already: ask for a new one"
        for identity, repositories in before["clients"].items()
        for name, was in repositories.items()
        if document["clients"][identity][name]["public"] not in (was["public"], was.get("next_public"))
    ]


def missing(hosts: Hosts, known: Hosts, limited: t.Container[str]) -> tuple[list[str], list[str]]:
    """Messages for what has to be imported first: errors about own clients, warnings about those of others."""
    errors, warnings = [], []
    for host, repository in _between(hosts, hosts):
        server, name = repository["server"], repository["name"]
        if hosts[server]["elsewhere"]:
            if host in limited and repository["accepts"] is None:
                errors.append(
                    f"{host}: {server} is not managed from here, and no hand-over file was imported that says where it serves"
                    f" {hosts[host]['backup_id']}--{name} (engine: {repository['engine']}, access: {repository['access']})."
                    f" Export one for its operator with {PLAYBOOK} -e export_to=FILE, and import theirs with"
                    f" -e import_from=FILE --limit {server}"
                )
        elif server in limited and not any(_publics(known[host], repository)):
            warnings.append(
                f"{host}: is not managed from here, and {server} does not let it in to {name} before its hand-over file is"
                f" imported: {PLAYBOOK} -e import_from=FILE --limit {host}"
            )
    return errors, warnings
