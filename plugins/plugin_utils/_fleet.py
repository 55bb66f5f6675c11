# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model of the whole fleet, merged and validated from the variables of all hosts.

Pure: it reads mappings and returns plain data, so it is tested without Ansible. No secret is in the model; the
identities of a host are asked for with :func:`repository_secrets`.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import ipaddress
import json
import posixpath
import re
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils import _bcrypt, _units
from ansible_collections.holdfast.backup.plugins.module_utils._program.sources import excluding, swallowed
from ansible_collections.holdfast.backup.plugins.module_utils._serve import sets_itself
from ansible_collections.holdfast.backup.plugins.plugin_utils import (
    _borgmatic,
    _jobs,
    _rclone,
    _rclone_tls,
    _repositories,
)
from ansible_collections.holdfast.backup.plugins.plugin_utils import _fields as f
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import (
    BadInput,
    Problem,
    below,
    said,
    shorten,
    type_of,
)

Variables = t.Mapping[str, t.Any]

CLIENTS = "backup_clients"
SERVERS = "backup_servers"
# Hosts that another controller manages: this one never logs in to them.
CLIENTS_ELSEWHERE = "backup_clients_elsewhere"
SERVERS_ELSEWHERE = "backup_servers_elsewhere"
GROUPS = (CLIENTS, SERVERS, CLIENTS_ELSEWHERE, SERVERS_ELSEWHERE)
DEFAULT_REPOSITORY = "local"
# How every ed25519 key begins in base64: the length and name of its type.
SSH_ED25519 = "AAAAC3NzaC1lZDI1NTE5AAAAI"
# The role rest_server's own default; a server that backs itself up must not save what it is writing.
SERVER_PATH = "/srv/holdfast"
# The same of the role ssh_access.
SSH_PATH = "/srv/holdfast-ssh"
# How the account of every client on a server begins.
SSH_ACCOUNT = "bk-"
CACHE = "/var/cache/holdfast*"
# Where borg keeps what it can make anew; the rest of its directory is worth saving.
BORG_CACHE = "/var/lib/holdfast/borg*/.cache"
# What a client's administrator cannot decide where the server is somebody else's.
OPERATORS = ("path", "quota", "remote", "source")
ASKS_THE_HOST = (
    "has rclone ask the instance's metadata service for credentials, which every account on this host can ask, those of clients"
    " without a repository there too"
)
# Almost the variables of jobs and repositories: of which several are merged, with two underscores.
_ALMOST = re.compile(r"\Abackup_(?P<what>jobs?|repository|repositories)(?:_+(?P<rest>.*))?\Z")
PLURAL = {
    **dict.fromkeys(("job", "jobs"), "backup_jobs"),
    **dict.fromkeys(("repository", "repositories"), "backup_repositories"),
}
# Seconds that a host has to answer, where nobody says otherwise.
ANSWER_TIMEOUT = 600
# A line of a unit file has 1 MiB at most; a character takes up to 16 bytes there.
COMMAND_BYTES = 1_000_000


def _listen(where: str, value: t.Any) -> str:
    """One address of a server; empty for all. rest-server takes no more than one socket of systemd."""
    try:
        return "" if value == "" else str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise BadInput(
            where, value, "is not one IP address", "Give one address without brackets, or nothing to listen on all"
        ) from None


def _place(where: str, value: t.Any) -> str:
    """A path that stands in unit files as it is; empty for none."""
    return "" if value == "" else f.plain_path(where, value)


# What rest-server is told anyway; the last one counts for it, so that one more would undo a promise.
SERVER_OPTIONS = frozenset(
    "--append-only --cpu-profile --htpasswd-file --listen --no-auth --path --private-repos --prometheus --prometheus-no-auth"
    " --proxy-auth-username --tls --tls-cert --tls-key".split()
)


def _server_args(where: str, value: t.Any) -> list[str]:
    arguments: list[str] = f.listing(f.line)(where, value)
    for number, argument in enumerate(arguments):
        option = argument.split("=", 1)[0]
        if option == "--no-verify-upload":
            wrong = (
                "would let a client save under a name what is not what it says, and nobody sees that before a restore"
            )
            raise BadInput(f"{where}[{number}]", argument, wrong, "Remove it", made=True)
        if option in SERVER_OPTIONS:
            raise BadInput(
                f"{where}[{number}]", argument, "is an option that holdfast sets itself", "Use the role's own variable"
            )
    return arguments


def _rclone_arguments(where: str, value: t.Any) -> list[str]:
    arguments: list[str] = f.listing(f.line)(where, value)
    for number, argument in enumerate(arguments):
        at, option = f"{where}[{number}]", argument.partition("=")[0]
        if argument.startswith("-") and not re.match(r"\A--[a-z0-9-]+\Z", option):
            cure = "Write --option, or --option=value as one word"
            raise BadInput(at, option, "is not an option in its long form", cure)
        if sets_itself(argument):
            wrong = "is an option that holdfast sets itself, or that would undo what it promises"
            cure = "Remove it; what is for a store is said without its type in rclone_proxy_remotes"
            raise BadInput(at, option, wrong, cure, made=True)
    return arguments


def _account(where: str, value: t.Any) -> str:
    """An account of holdfast's own on a host."""
    account = str(_account_text(where, value))
    if account.startswith(SSH_ACCOUNT):
        raise BadInput(
            where,
            value,
            f"begins with {SSH_ACCOUNT}, as the account of a client on a server does",
            "Choose another name",
        )
    return account


_account_text = f.text(f.ACCOUNT.pattern[2:-2], "the name of an account", "Use lower-case letters, digits, _ and -")


# Variables of the facade and of roles that end in unit files, or decide what is revoked.
SETTINGS: dict[str, f.Checker] = {
    **dict.fromkeys(("restic_binary", "restic_release_path", "restic_home", "jobs_program"), _place),
    **dict.fromkeys(("rest_server_binary", "rest_server_release_path", "rest_server_mount"), _place),
    **dict.fromkeys(("rest_server_tls_certificate", "rest_server_tls_key", "rest_server_tls_ca"), _place),
    **dict.fromkeys(
        ("rest_server_private_repos", "rest_server_prometheus", "rest_server_prometheus_no_auth"), f.boolean
    ),
    "rest_server_extra_args": _server_args,
    "ssh_access_rclone_arguments": _rclone_arguments,
    "ssh_access_sftp_confine": f.choice("required", "if_possible"),
    "ssh_access_max_startups": f.text(
        r"[0-9]{1,6}(:[0-9]{1,3}:[0-9]{1,6})?|",
        "what sshd_config(5) says of MaxStartups",
        "Write it like '60:30:100', in quotes",
    ),
    "ssh_access_per_source_max_startups": f.integer(1, 10**6),
    "restic_account": _account,
    "restic_privilege": f.choice("systemd", "setcap", "root"),
    **dict.fromkeys(("jobs_sandbox", "rest_server_sandbox"), f.choice("full", "reduced")),
    "rest_server_account": _account,
    "backup_on_failure": f.listing(f.text(r"[^\0]+", "an argument", "Give the command as a list of texts")),
    "rest_server_listen": _listen,
    "backup_revoke_max": f.integer(0, 10**6),
    "backup_answer_timeout": f.integer(1, 86400, "s"),
}


class _Collector:
    """Collects problems and evaluates variables of one host."""

    def __init__(self, host: str, variables: Variables, problems: list[Problem]) -> None:
        self.host = host
        self.variables = variables
        self.problems = problems
        self.refused: set[tuple[str, str]] = set()

    def add(self, bad: BadInput) -> None:
        shown = "" if bad.value is None or bad.value == "" else shorten(bad.value)
        self.problems.append(Problem((self.host,), bad.where, shown, bad.wrong, bad.cure, bad.made))

    def value(self, name: str, default: t.Any = None) -> t.Any:
        """A variable of the host, templates rendered; a template that fails is a problem."""
        if name not in self.variables:
            return default
        try:
            value = self.variables[name]
        except Exception as error:  # whatever a template raises: it is the user's text
            self.add(BadInput(name, "", f"cannot be evaluated: {said(error)}", "Correct the template"))
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
    sources = (name for name in host.variables if isinstance(name, str))
    for source in sorted(name for name in sources if name == variable or name.startswith(f"{variable}__")):
        value = host.value(source, {})
        if not isinstance(value, dict):
            host.add(BadInput(source, type_of(value), "is not a dictionary", "Write name: {…}"))
            continue
        for name, entry in value.items():
            try:
                f.name(below(source, name), name)
            except BadInput as bad:
                host.add(bad)
                continue
            if entry is None:
                result.pop(name, None)
            elif not isinstance(entry, dict):
                host.refused.add((variable, str(name)))
                host.add(
                    BadInput(
                        f"{source}.{name}",
                        type_of(entry),
                        "is not a dictionary",
                        "Write its keys below the name, or null to remove it",
                    )
                )
            else:
                result[str(name)] = (source, {**result.get(name, ("", {}))[1], **entry})
    return result


def _misspelt(host: _Collector, variables: t.Iterable[str]) -> t.Iterator[tuple[str, str, tuple[str, ...]]]:
    """Variables that are almost one of these, with the right name and what is in them that nothing else declares.

    Users may have any variables of their own, and make jobs out of them; what they have in use is declared.
    """
    for name in sorted(name for name in host.variables if isinstance(name, str)):
        match = _ALMOST.match(name)
        right = PLURAL[match["what"]] if match else ""
        if not match or right not in variables or name == right or name.startswith(f"{right}__"):
            continue
        value = None
        # A template that fails: nobody may need it.
        with contextlib.suppress(Exception):
            value = host.variables[name]
        entries = {key for key, entry in value.items() if isinstance(entry, dict)} if isinstance(value, dict) else set()
        lost = tuple(sorted(below("", key).lstrip(".") for key in entries - set(merged(host, right))))
        if lost:
            yield name, f"{right}__{match['rest']}" if match["rest"] else right, lost


def _misspelt_warnings(hosts: t.Iterable[tuple[_Collector, bool]]) -> list[Problem]:
    """What is told of such variables; of a client that is managed elsewhere no job counts."""
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for host, elsewhere in hosts:
        for each in _misspelt(host, ("backup_repositories",) if elsewhere else ("backup_jobs", "backup_repositories")):
            found.setdefault(each, []).append(host.host)
    return [
        Problem(
            tuple(concerned),
            name,
            "",
            f"is no variable of holdfast, so {', '.join(lost)} in it count{'s' if len(lost) == 1 else ''} for nothing",
            f"Call it {right}",
        )
        for (name, right, lost), concerned in found.items()
    ]


def backup_id(host: _Collector) -> str | None:
    """The name under which a client's data is kept."""
    given = host.value("backup_id")
    try:
        if given is not None:
            return f.name("backup_id", given)
        return f.name("backup_id (from the inventory name)", host.host.lower().replace(".", "-"))
    except BadInput as bad:
        bad.cure = f"{bad.cure}; set backup_id for this host{_short(host.host)}"
        host.add(bad)
        return None


def _short(host: str) -> str:
    """The cure where the inventory has whole names, which are often too long, for all hosts at once."""
    first, dot, _domain = host.partition(".")
    if dot and len(first) <= f.NAME_LENGTH and f.NAME.match(first):
        return ': backup_id: "{{ inventory_hostname_short }}", say'
    return ""


def fleet(
    hostvars: t.Mapping[str, Variables],
    groups: t.Mapping[str, t.Sequence[str]],
    places: t.Mapping[str, dict[str, t.Any]] | None = None,
) -> dict[str, t.Any]:
    """The model: ``hosts`` (client and server side of each), ``errors`` and ``warnings`` (lists of problems as dicts),
    and the state directory that each host names (``state_dirs``).

    ``places`` says of each client where servers that are managed elsewhere serve its repositories, as hand-over files had it.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    clients = list(dict.fromkeys([*groups.get(CLIENTS, []), *groups.get(CLIENTS_ELSEWHERE, [])]))
    servers = list(dict.fromkeys([*groups.get(SERVERS, []), *groups.get(SERVERS_ELSEWHERE, [])]))
    collectors = {host: _Collector(host, hostvars[host], problems) for host in dict.fromkeys([*clients, *servers])}
    elsewhere = _elsewhere(collectors, groups)
    ids = {host: backup_id(collectors[host]) for host in clients}
    model: dict[str, dict[str, t.Any]] = {
        host: {
            "name": host,
            "backup_id": ids.get(host),
            "elsewhere": host in elsewhere,
            "places": (places or {}).get(host, {}),
            "client": None,
            "server": None,
        }
        for host in collectors
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
    for host, collector in collectors.items():
        settings = {variable: collector.checked(variable, checker, None) for variable, checker in SETTINGS.items()}
        # Out of the model, since a fact that the host delivers later outranks the inventory.
        model[host]["answer_timeout"] = settings["backup_answer_timeout"] or ANSWER_TIMEOUT
        if model[host]["server"] is not None:
            # What serves refuses them, too: who would be written with them is served no more.
            arguments = "ssh_access_rclone_arguments"
            refused = settings[arguments] is None and collector.value(arguments) is not None
            model[host]["server"]["rclone_arguments_refused"] = refused
    for host in clients:
        identity = ids[host]
        if identity is not None:
            build = _client_elsewhere if host in elsewhere else _client
            model[host]["client"] = build(collectors[host], identity, model, warnings)
    warnings += _misspelt_warnings((collectors[host], host in elsewhere) for host in clients)
    problems += _collisions(ids, model)
    problems += _leads_home(collectors, servers, model)
    for host in servers:
        _close(collectors[host], model[host]["server"])
        _proxy_duties(collectors[host], groups, model)
        _stores(collectors[host], model, warnings)
        _login(collectors[host], model[host]["server"])
        _unconfined(collectors[host], model[host]["server"])
        _unlimited(host, model)
        _stores_unchecked(collectors[host], model[host]["server"], warnings)
        _shown_over_rest(collectors[host], model[host]["server"], warnings)
    return {
        "hosts": model,
        # Here, where the variables of each host are at hand: to ask for them again takes its time in a large fleet.
        "state_dirs": {host: collector.value("backup_state_dir") for host, collector in collectors.items()},
        "errors": [plain(problem) for problem in dict.fromkeys(problems)],
        "warnings": [plain(problem) for problem in dict.fromkeys(warnings)],
    }


def _elsewhere(collectors: dict[str, _Collector], groups: t.Mapping[str, t.Sequence[str]]) -> set[str]:
    """The hosts that another controller manages."""
    found = {*groups.get(CLIENTS_ELSEWHERE, []), *groups.get(SERVERS_ELSEWHERE, [])}
    for host in sorted(found & {*groups.get(CLIENTS, []), *groups.get(SERVERS, [])}):
        cure = f"Take it out of {CLIENTS} and {SERVERS}, or out of {CLIENTS_ELSEWHERE} and {SERVERS_ELSEWHERE}"
        collectors[host].add(BadInput("groups", "", "is managed from here and elsewhere, by its groups", cure))
    return found


def _proxy_duties(
    host: _Collector, groups: t.Mapping[str, t.Sequence[str]], model: dict[str, dict[str, t.Any]]
) -> None:
    """Tells each repository behind a proxy what else the proxy does: whatever it is, it is a way to the store's credentials."""
    if host.checked("rclone_proxy_dedicated", f.boolean, False):
        return
    everybody = set(model)
    duties = [
        name
        for name, members in sorted(groups.items())
        if host.host in members and name not in ("all", "ungrouped", *GROUPS) and not everybody <= set(members)
    ]
    own = model[host.host]
    duties += ["backups of its own"] if own["client"] else []
    duties += sorted({each["kind"] for each in own["server"]["definitions"]} - {"rclone"})
    duties += ["rest-server"] if own["server"]["users"] else []
    for entry in model.values():
        for repository in (entry["client"] or {}).get("repositories", []):
            if repository["remote"] and repository["server"] == host.host:
                repository["proxy_duties"] = duties


def _stores(host: _Collector, model: dict[str, dict[str, t.Any]], warnings: list[Problem]) -> None:
    """Warns of remotes in use that are dialled without TLS, which each repository is told, or have no credentials of their own."""
    for name, options in host.checked("rclone_proxy_remotes", _rclone.remotes, {}).items():
        found = _rclone_tls.without_tls(options["type"], options)
        served = [
            repository
            for entry in model.values()
            for repository in (entry["client"] or {}).get("repositories", [])
            if repository["server"] == host.host and (repository["remote"] or "").partition(":")[0] == name
        ]
        asks = _rclone.asks_the_host(options)
        if asks and served:
            where, cure = f"rclone_proxy_remotes.{name}.{asks}", "Give it credentials of its own, for this store alone"
            warnings.append(Problem((host.host,), where, shorten(options[asks]), ASKS_THE_HOST, cure))
        if not found or not served:
            continue
        for repository in served:
            repository["proxy_without_tls"] = True
        where, cure = f"rclone_proxy_remotes.{name}.{found[0]}", "Use https:// where the store has it"
        warnings.append(Problem((host.host,), where, shorten(found[1]), _rclone_tls.WITHOUT_TLS, cure))


def _login(host: _Collector, server: dict[str, t.Any]) -> None:
    """As whom Ansible logs in to a server over SSH: sshd lets the accounts of clients do nothing else."""
    for variable in ("ansible_user", "ansible_ssh_user") if server["ssh"]["accounts"] else ():
        user = host.value(variable)
        if str(user).startswith(SSH_ACCOUNT):
            wrong = (
                f"begins with {SSH_ACCOUNT}, as the accounts of clients do, and Ansible would be locked out as they are"
            )
            host.add(BadInput(variable, user, wrong, "Let Ansible use another account on this server"))


def _unlimited(server: str, model: dict[str, dict[str, t.Any]]) -> None:
    """Tells each repository that has no quota, and no way to one, that other clients are in the same directory of its server."""
    if model[server]["elsewhere"]:
        return  # what its operator limits is not known here
    clients: dict[str, set[str]] = {}
    for definition in model[server]["server"]["definitions"]:
        if definition["path"]:
            clients.setdefault(posixpath.dirname(definition["path"]), set()).add(definition["account"])
    for entry in model.values():
        for repository in (entry["client"] or {}).get("repositories", []):
            ssh = repository["ssh"] if repository["server"] == server else None
            if ssh and ssh["path"] and ssh["kind"] != "borg" and len(clients[posixpath.dirname(ssh["path"])]) > 1:
                repository["unlimited_beside_others"] = True


def _unconfined(host: _Collector, server: dict[str, t.Any]) -> None:
    """A key for sftp that is not confined reaches whatever its account does: what is append-only, and the credentials of a store."""
    variable = "ssh_access_sftp_confine"
    if host.value(variable) != "if_possible":
        return
    sftp = {definition["account"] for definition in server["definitions"] if definition["kind"] == "sftp"}
    for definition in server["definitions"]:
        account, name = definition["account"], definition["name"]
        if definition["append_only"] and account in sftp:
            wrong = (
                f"lets the sftp keys of {account[len(SSH_ACCOUNT) :]} into {name}, of which nothing is to be deleted:"
                f" both are of the account {account}"
            )
            cure = "Set it to required, or give up sftp there"
            host.add(BadInput(variable, "if_possible", wrong, cure, made=True))


def _stores_unchecked(host: _Collector, server: dict[str, t.Any], warnings: list[Problem]) -> None:
    """Warns where rclone is told to take any certificate for that of a store."""
    variable = "ssh_access_rclone_arguments"
    if not any(definition["remote"] for definition in server["definitions"]):
        return
    try:
        arguments = _rclone_arguments(variable, host.value(variable, []))
    except BadInput:
        return  # it is told already
    for argument in arguments:
        option, _equals, value = argument.partition("=")
        if option == "--no-check-certificate" and value.lower() not in _rclone_tls.FALSE:
            warnings.append(
                Problem((host.host,), variable, shorten(argument), _rclone_tls.UNCHECKED, _rclone_tls.REMOVE)
            )


def _shown_over_rest(host: _Collector, server: dict[str, t.Any], warnings: list[Problem]) -> None:
    """Warns of metrics for nobody, and of repositories for everybody."""
    private = host.value("rest_server_private_repos", True)
    metrics = host.value("rest_server_prometheus") is True and host.value("rest_server_prometheus_no_auth") is not True
    if private is False:
        warnings.append(
            Problem(
                (host.host,),
                "rest_server_private_repos",
                "False",
                "lets every client read the encrypted files of all others, and add to them",
                "Remove it, unless they are meant to share",
            )
        )
    elif metrics and "metrics" not in server["extra_users"]:
        warnings.append(
            Problem(
                (host.host,),
                "rest_server_prometheus",
                "True",
                "shows the metrics to the user 'metrics' alone, and rest_server_users has none",
                "Add that user with its hash, or set rest_server_prometheus_no_auth: true, which shows them to everybody",
            )
        )


def plain(problem: Problem) -> dict[str, t.Any]:
    """A problem as the model carries it."""
    made = {"made": True} if problem.made else {}
    return {"hosts": list(problem.hosts), "variable": problem.variable, "message": str(problem), **made}


def dialled_address(host: _Collector) -> tuple[str, str]:
    """What clients dial, and the variable that says so: ``backup_address``, else ``ansible_host``, else the inventory name."""
    for variable in ("backup_address", "ansible_host"):
        if host.value(variable) is not None:
            return variable, str(host.checked(variable, f.address, host.host))
    try:
        return "backup_address", f.address("backup_address (from the inventory name)", host.host)
    except BadInput as bad:
        bad.cure = f"{bad.cure}; set backup_address for this host"
        host.add(bad)
        return "backup_address", host.host


def _leads_home(
    collectors: dict[str, _Collector], servers: t.Iterable[str], model: dict[str, dict[str, t.Any]]
) -> list[Problem]:
    """Servers that Ansible reaches by a way of its own, a forwarded port say, by which no client does."""
    found = []
    for name in servers:
        host, side = collectors[name], model[name]["server"]
        if host.value("backup_address") is not None or not _rclone_tls.is_loopback(side["address"]):
            continue
        clients = tuple(
            client
            for client, entry in model.items()
            if client != name
            and any(
                each["server"] == name and each["address_variable"] == side["address_variable"]
                for each in (entry["client"] or {}).get("repositories", [])
            )
        )
        if clients:
            named = host.value("ansible_host") is not None
            found.append(
                Problem(
                    clients,
                    f"{'ansible_host' if named else 'backup_address (from the inventory name)'} of {name}",
                    shorten(side["address"]),
                    "is where clients would dial this server, and leads each to itself",
                    f"Set backup_address of {name}, or address of the repository, to what its clients reach it by",
                    made=True,
                )
            )
    return found


def _server(host: _Collector) -> dict[str, t.Any]:
    variable, address = dialled_address(host)
    tls = host.checked("rest_server_tls", f.choice("private", "provided", "off"), "private")
    own = {address, host.host} if f.HOSTNAME.match(host.host) else {address}
    return {
        "address": address,
        "address_variable": f"{variable} of {host.host}",
        "port": host.checked("rest_server_port", f.integer(1, 65535), _repositories.REST_PORT),
        "tls": tls,
        "path": _server_path(host),
        "append_only": host.checked("rest_server_append_only", f.boolean, True),
        # A certificate that somebody else made has to have what clients dial, and no more.
        "names": set() if tls == "provided" else own,
        "users": [],
        "extra_users": [user["name"] for user in host.checked("rest_server_users", _extra_users, [])],
        "ssh": {
            "port": host.checked("backup_ssh_port", f.integer(1, 65535), _repositories.SSH_PORT),
            "path": host.checked("ssh_access_path", f.plain_path, SSH_PATH),
            "accounts": [],
        },
        "rclone": {"remotes": {name: [] for name in host.checked("rclone_proxy_remotes", _rclone.remotes, {})}},
        "definitions": [],
    }


# Why rest-server, an account of its own in a sandbox, could not serve what lies there: it is refused. Below /home it can.
_UNSERVED = {
    "/root": "which rest-server may not enter",
    "/tmp": "of which rest-server has one of its own",  # noqa: S108 - refused, not used
    "/var/tmp": "of which rest-server has one of its own",  # noqa: S108 - the same
    "/run": "which is empty after each boot",
    "/var/run": "which is empty after each boot",
}


def _server_path(host: _Collector) -> str:
    """Where rest-server's repositories are, also where it could not serve them."""
    where = "rest_server_path"
    path = str(host.checked(where, f.plain_path, SERVER_PATH))
    cure = f"Name a directory elsewhere, {SERVER_PATH} for instance"
    if path == "/home":
        wrong = "is where the homes are, and would be the account's alone"
        host.add(BadInput(where, path, wrong, cure, made=True))
    for top, reason in _UNSERVED.items():
        if f"{path}/".startswith(f"{top}/"):
            wrong = f"is below {top}, {reason}" if path != top else f"is {top}, {reason}"
            host.add(BadInput(where, path, wrong, cure, made=True))
    return path


def _extra_users(where: str, value: t.Any) -> list[dict[str, t.Any]]:
    """Users of a rest-server that are no clients; their hashes are never shown."""
    fields: dict[str, f.Checker] = {"name": _extra_user, "hash": _extra_hash}
    try:
        users: list[dict[str, t.Any]] = f.listing(
            lambda at, user: f.mapping(fields, at, user, required=("name", "hash"))
        )(where, value)
        return users
    except BadInput as bad:
        bad.value = "" if isinstance(bad.value, (dict, list, tuple)) else bad.value
        raise


def _extra_user(where: str, value: t.Any) -> str:
    user = _extra_user_text(where, value)
    # With private repositories rest-server shows its metrics to the user of that name only.
    if user in f.RESERVED - {"metrics"}:
        raise BadInput(where, value, "is a name that rest-server uses itself", "Choose another name")
    return str(user)


def _extra_hash(where: str, value: t.Any) -> str:
    # The module htpasswd refuses another cost.
    if not isinstance(value, str) or not re.match(rf"\A\$2[aby]\${_bcrypt.COST}\$[./A-Za-z0-9]{{53}}\Z", value):
        wrong = f"is not a bcrypt hash of cost {_bcrypt.COST}"
        raise BadInput(where, "<hidden>", wrong, f"Make it with htpasswd -B -C {_bcrypt.COST}")
    return str(value)


def _close(host: _Collector, server: dict[str, t.Any]) -> None:
    """What can be said of a server only when all its clients are known."""
    server["names"] = sorted(server["names"])
    server["ssh"]["accounts"].sort(key=lambda account: account["name"])
    server["definitions"].sort(key=lambda definition: definition["name"])
    taken = {user["name"] for user in server["users"]}
    for name in server["extra_users"]:
        if name in taken:
            host.add(BadInput("rest_server_users", name, "is declared twice, or is the user of a client", "Remove it"))
        taken.add(name)


def _client(
    host: _Collector,
    identity: str,
    model: dict[str, dict[str, t.Any]],
    warnings: list[Problem],
) -> dict[str, t.Any]:
    written = merged(host, "backup_repositories")
    declared = sorted({*written, *(name for variable, name in host.refused if variable == "backup_repositories")})
    if not declared:
        written, declared = {DEFAULT_REPOSITORY: ("backup_repositories", {})}, [DEFAULT_REPOSITORY]
    repositories = _repositories_of(host, written, identity, model)
    for name, repository in repositories.items():
        if repository["access"] == "s3" and repository["tls"] == "off":
            warnings.append(
                Problem(
                    (host.host,),
                    f"{written[name][0]}.{name}.url",
                    shorten(repository["location"]),
                    _rclone_tls.WITHOUT_TLS,
                    "Use s3:https:// where the store has it",
                )
            )
        origin = repository["from_repo"]
        if origin and (origin not in declared or name in _origins(origin, repositories)):
            host.add(
                BadInput(
                    f"{written[name][0]}.{name}.from_repo",
                    origin,
                    "is not another repository of this host that begins without this one",
                    f"Name one of its repositories: {', '.join(declared)}",
                )
            )
        elif (
            origin in repositories
            and _dialled_by(repository)
            and _dialled_by(repository) == _dialled_by(repositories[origin])
            and (repository["ssh"] or repositories[origin]["ssh"])
        ):
            host.add(
                BadInput(
                    f"{written[name][0]}.{name}.from_repo",
                    origin,
                    f"is reached over {_dialled_by(repository)}, too, and restic opens both in one command with one such connection",
                    "Begin without it, or from a repository of another access",
                )
            )
    # The cache of borg's jobs grows with the files, whichever engine saves it.
    borg = [BORG_CACHE] if any(each["engine"] == "borg" for each in repositories.values()) else []
    own = [CACHE, *borg, *sorted(repository["path"] for repository in repositories.values() if repository["path"])]
    # A disk for backups may be away: the runs that save there say so.
    disks = sorted({f"/{each['mount'].strip('/')}" for each in repositories.values() if each["mount"]})
    jobs: dict[str, dict[str, t.Any]] = {}
    units: list[dict[str, t.Any]] = []
    said = merged(host, "backup_jobs")
    for name, (source, value) in sorted(said.items()):
        where = f"{source}.{name}"
        try:
            job = _jobs.job(where, value, host.host)
        except BadInput as bad:
            host.add(bad)
            continue
        jobs[name] = job
        job.setdefault("repositories", list(declared))
    shared = collections.Counter(used for job in jobs.values() for used in job["repositories"])
    for name, job in jobs.items():
        source, value = said[name]
        where = f"{source}.{name}"
        for used in job["repositories"]:
            if used not in declared:
                host.add(
                    BadInput(
                        f"{where}.repositories",
                        used,
                        "is not a repository of this host",
                        f"Declared are: {', '.join(declared)}",
                    )
                )
            elif used in repositories:
                try:
                    repository = repositories[used]
                    server = model[host.host]["server"] if repository["server"] == host.host else None
                    here = _written_here(repository, server) if server else []
                    patience = {}
                    if repository["engine"] == "borg" and shared[used] > 1 and "retry_lock" not in value:
                        # Borg locks out all others for as long as it saves; restic does not.
                        patience = {"retry_lock": max(job["retry_lock"], job["timeout"] // 2)}
                    unit = _unit(where, name, {**job, **patience}, repository, [*own, *here])
                    units.append({**unit, "disks": disks})
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
    used_names |= {origin for name in used_names for origin in _origins(repositories[name]["from_repo"], repositories)}
    needed = [repositories[name] for name in sorted(repositories) if name in used_names]
    _proxies(host, written, needed, units)
    for repository in needed:
        if repository["server"]:
            _ask(model, host.host, repository)
    return {"repositories": needed, "jobs": jobs, "units": units, "escrow": _escrow(host, needed)}


def _client_elsewhere(
    host: _Collector,
    identity: str,
    model: dict[str, dict[str, t.Any]],
    warnings: list[Problem],
) -> dict[str, t.Any]:
    """A client that another controller manages: what is declared is served, its jobs and secrets are not for this one to know."""
    written = merged(host, "backup_repositories")
    served = []
    for name, repository in sorted(_repositories_of(host, written, identity, model).items()):
        where = f"{written[name][0]}.{name}"
        if repository["server"] and model[repository["server"]]["elsewhere"]:
            wrong = "is not managed from here, nor is this client"
            host.add(BadInput(f"{where}.server", repository["server"], wrong, "Remove the repository"))
        elif repository["adopted"]:
            wrong = "would open the repository of a client that is managed elsewhere"
            host.add(BadInput(f"{where}.password", "<hidden>", wrong, "Remove it, only its own administrator has it"))
        elif repository["server"]:
            served.append(repository)
            _ask(model, host.host, repository)
    if not served:
        wrong = f"has no repository on a server of the group {SERVERS}, so nothing is served to this client"
        warnings.append(Problem((host.host,), "backup_repositories", "", wrong, "Declare what it may use"))
    return {"repositories": served, "jobs": {}, "units": [], "escrow": {"mode": "none", "recipients": []}}


def _repositories_of(
    host: _Collector,
    written: dict[str, tuple[str, dict[str, t.Any]]],
    identity: str,
    model: dict[str, dict[str, t.Any]],
) -> dict[str, dict[str, t.Any]]:
    """The repositories of a client, without those that are wrong."""
    found: dict[str, dict[str, t.Any]] = {}
    for name, (source, value) in sorted(written.items()):
        try:
            place = model[host.host]["places"].get(f"{identity}--{name}")
            found[name] = _repository(name, source, value, identity, model, place)
        except BadInput as bad:
            host.add(bad)
    return found


def _ask(model: dict[str, dict[str, t.Any]], host: str, repository: dict[str, t.Any]) -> None:
    """Tell the server of a client's repository what it has to serve."""
    server, identity = model[repository["server"]]["server"], model[host]["backup_id"]
    if repository["ssh"]:
        _serve(server, host, identity, repository)
        return
    user = {
        "name": repository["rest_user"],
        "host": host,
        "backup_id": identity,
        "repository": repository["name"],
        "quota": repository["quota"],
    }
    server["users"].append({**user, "elsewhere": True} if model[host]["elsewhere"] else user)
    server["names"].add(repository["address"])


def _written_here(repository: dict[str, t.Any], server: dict[str, t.Any]) -> list[str]:
    """What a server that backs itself up is writing while it does."""
    if repository["ssh"]:
        return [posixpath.dirname(repository["ssh"]["path"])] if repository["ssh"]["path"] else []
    return [server["path"]]


def _serve(server: dict[str, t.Any], host: str, identity: str, repository: dict[str, t.Any]) -> None:
    """The server's side of a repository over SSH: one account for the client, one key and one definition for each."""
    ssh, name = repository["ssh"], repository["name"]
    key = {"repository": name, "kind": ssh["kind"], "from": ssh["from"]}
    for account in server["ssh"]["accounts"]:
        if account["name"] == ssh["account"]:
            account["keys"].append(key)
            break
    else:
        server["ssh"]["accounts"].append({"name": ssh["account"], "host": host, "backup_id": identity, "keys": [key]})
    remote = repository["remote"]
    if remote and ssh["account"] not in server["rclone"]["remotes"][remote.partition(":")[0]]:
        server["rclone"]["remotes"][remote.partition(":")[0]].append(ssh["account"])
    server["definitions"].append(
        {
            "name": f"{identity}--{name}",
            "account": ssh["account"],
            "kind": ssh["kind"],
            "path": ssh["path"],
            "remote": remote,
            "quota": repository["quota"],
            "append_only": repository["append_only"],
        }
    )


def _origins(name: str | None, repositories: dict[str, dict[str, t.Any]]) -> list[str]:
    """A repository and those that it was made from, each once."""
    found: list[str] = []
    while name and name not in found:
        found.append(name)
        name = repositories.get(name, {}).get("from_repo")
    return found


def _proxies(
    host: _Collector,
    written: dict[str, tuple[str, dict[str, t.Any]]],
    repositories: list[dict[str, t.Any]],
    units: list[dict[str, t.Any]],
) -> None:
    """A repository that names no proxy is reached through the one that all of its jobs name."""
    over_http = {each["name"]: each for each in repositories if each["access"] in _repositories.OVER_HTTP}
    for name, repository in over_http.items():
        used = {unit["proxy"] for unit in units if unit["repository"] == name}
        if repository["proxy"] is None and len(used) == 1:
            repository["proxy"] = used.pop()
    for name, repository in over_http.items():
        origin = over_http.get(repository["from_repo"])
        if origin and origin["proxy"] != repository["proxy"]:
            host.add(
                BadInput(
                    f"{written[name][0]}.{name}.from_repo",
                    origin["name"],
                    "is reached by another proxy or none, and restic opens both in one command",
                    "Give both the same proxy, or begin without it",
                )
            )


def _dialled_by(repository: dict[str, t.Any]) -> str | None:
    """``rclone`` or ``sftp``, the backends of restic that start a program for the connection, which an option names."""
    scheme = repository["location"].partition(":")[0]
    return scheme if scheme in ("rclone", "sftp") else None


def _repository(
    name: str,
    source: str,
    value: dict[str, t.Any],
    identity: str,
    model: dict[str, dict[str, t.Any]],
    place: dict[str, t.Any] | None,
) -> dict[str, t.Any]:
    where = f"{source}.{name}"
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
        "proxy": written.get("proxy"),
        "own_program": {},
        "repository_version": written.get("repository_version"),
        "from_repo": written.get("from_repo"),
        "quota": written.get("quota"),
        "encryption": written.get("encryption"),
        "remote": None,
        "proxy_duties": [],
        "proxy_without_tls": False,
        "unlimited_beside_others": False,
        "ssh": None,
        "append_only": False,
        # What a server that is managed elsewhere takes from the client; null of other servers, and before it was handed over.
        "accepts": None,
        "adopted": "password" in written,
        "has_environment": bool(written.get("environment")),
    }
    if "server" in written:
        side = _side(f"{where}.server", written["server"], model)
        if model[written["server"]]["elsewhere"]:
            side, result["accepts"] = _side_elsewhere(where, written, side, place)
        result.update(
            server=written["server"],
            address=written.get("address", side["address"]),
            address_variable=f"{where}.address" if "address" in written else side["address_variable"],
        )
    if written["access"] == "rest":
        # A reverse proxy in front of the server has a certificate of its own, or none.
        secure = written.get("tls", side["tls"] != "off")
        result.update(
            port=written.get("port", side["port"]),
            tls=side["tls"] if secure == (side["tls"] != "off") else "proxy" if secure else "off",
            append_only=side["append_only"],
            rest_user=f"{identity}--{name}",
        )
        result["location"] = _repositories.rest_location(
            result["address"],
            result["port"],
            result["rest_user"],
            secure,
            written.get("url_prefix", side.get("url_prefix", "")),
        )
        result["rest_url"] = result["location"][len("rest:") :]
    elif written["access"] in _repositories.SSH_ACCESS:
        _over_ssh(where, written, identity, side, result)
    elif written["access"] == "local":
        result["location"] = result["path"] = _repositories.local_path(written, name)
    else:
        result["location"] = written["url"]
        result["own_program"] = _repositories.own_program(where, written["url"])
        if written["access"] == "s3" and written["url"].startswith("s3:http://"):
            result["tls"] = "off"
    if result["mount"] and result["path"] and not result["path"].startswith(result["mount"].rstrip("/") + "/"):
        raise BadInput(
            f"{where}.path",
            result["path"],
            "does not lie below the repository's mount",
            f"Put it below {result['mount']}",
        )
    return result


def _side(where: str, server: str, model: dict[str, dict[str, t.Any]]) -> dict[str, t.Any]:
    """The server side of a host that a repository names."""
    if (model.get(server) or {}).get("server") is None:
        servers = [host for host, entry in model.items() if entry["server"] is not None]
        raise BadInput(
            where, server, f"is not a host of the group {SERVERS}", f"The group has: {', '.join(servers) or 'no host'}"
        )
    found: dict[str, t.Any] = model[server]["server"]
    return found


def _side_elsewhere(
    where: str, written: dict[str, t.Any], side: dict[str, t.Any], place: dict[str, t.Any] | None
) -> tuple[dict[str, t.Any], list[str] | None]:
    """The side of a server that is managed elsewhere, for one repository, and what it accepts, as a hand-over file told (``place``).

    Until then null and what the inventory says of it: the client's secrets are made before their public halves can be exported.
    """
    server = written["server"]
    for key in OPERATORS:
        if key in written:
            wrong = f"is for the operator of {server} to say, which is not managed from here"
            raise BadInput(f"{where}.{key}", written[key], wrong, "Remove it")
    if not place or any(place[key] != written[key] for key in ("server", "engine", "access")):
        return side, None
    told: dict[str, t.Any] = {
        key: place[key] for key in ("address", "port", "append_only", "tls", "url_prefix") if key in place
    }
    told["address_variable"] = f"address of {server} in its hand-over file"
    told["ssh"] = {**side["ssh"], "port": place["port"], "path": place.get("path", side["ssh"]["path"])}
    return {**side, **told}, place["accepts"]


def _over_ssh(
    where: str, written: dict[str, t.Any], identity: str, side: dict[str, t.Any], result: dict[str, t.Any]
) -> None:
    """What a repository is that a key of the client's own opens on a server; ``result`` is filled in."""
    name, access = result["name"], written["access"]
    remote = written.get("remote")
    if remote and remote.partition(":")[0] not in side["rclone"]["remotes"]:
        declared = ", ".join(side["rclone"]["remotes"]) or "none"
        raise BadInput(
            f"{where}.remote",
            remote,
            f"names no remote of {written['server']}",
            f"Declare it in rclone_proxy_remotes of {written['server']}, which has: {declared}",
        )
    directory = f"{identity}--{name}"
    # Below the user's own directory too: the same variable may speak for many clients.
    path = f"{written.get('path', side['ssh']['path'])}/{directory}"
    result.update(
        port=written.get("port", side["ssh"]["port"]),
        remote=remote,
        append_only=access != "sftp",
        location=_repositories.ssh_location(access, name, directory, path),
        ssh={
            "account": f"{SSH_ACCOUNT}{identity}",
            "alias": _repositories.alias(name),
            "kind": "borg" if access == "ssh" else access,
            "address": result["address"],
            "address_variable": result["address_variable"],
            "port": written.get("port", side["ssh"]["port"]),
            "from": written.get("source", []),
            # How a person finds the pinned key in known_hosts.
            "known_as": _known_as(result["address"], written.get("port", side["ssh"]["port"])),
            # As root of the client dials it; in a unit the key is a credential of its own.
            "program": _repositories.ssh_program(name),
            "options": _repositories.ssh_options(access, name),
            # Where the data lies on the server; null where a remote of rclone has it.
            "path": None if remote else path,
        },
    )
    # What the location does not say of where it leads, and what the server lets in.
    told = {key: result["ssh"][key] for key in ("account", "kind", "address", "port", "from", "path")}
    told |= {"server": written["server"], "remote": remote}
    result["ssh"]["way"] = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _known_as(address: str, port: int) -> str:
    return address if port == _repositories.SSH_PORT else f"[{address}]:{port}"


def _unit(
    where: str, name: str, job: dict[str, t.Any], repository: dict[str, t.Any], own: list[str]
) -> dict[str, t.Any]:
    unit = f"{name}--{repository['name']}"
    if repository["repository_version"] == 1 and job["compression"] == "max":
        raise BadInput(
            f"{where}.compression",
            job["compression"],
            f"does nothing in {repository['name']}, which is to have repository_version 1",
            "Use compression: auto, or repository_version: 2",
        )
    for key in ("paths", "optional_paths"):
        for path in job[key]:
            if inside := swallowed(own, path):
                raise BadInput(
                    f"{where}.{key}",
                    path,
                    f"lies in {inside}, which holdfast writes itself, and no run into {repository['name']} saves it",
                    "Leave it out here. A local repository has a directory of its own, and a job saves into it and others by"
                    " naming all in repositories; of what this host serves to others make a job of its own, into repositories"
                    " that lie elsewhere",
                )
    excluded = _borgmatic.expressions(job["exclude"])
    for path in job["paths"]:
        if (number := excluding(excluded, path)) is not None:
            raise BadInput(
                f"{where}.paths",
                path,
                f"is left out by {job['exclude'][number]!r} of exclude, and no run saves it",
                "Write a pattern that leaves out less, or remove the path",
            )
    if repository["engine"] == "borg":
        _borgmatic.check(where, job, repository)
        # Where a job has only dumps there is nothing for borgmatic to do.
        arguments = _borgmatic.run_arguments(unit) if job["paths"] or job["optional_paths"] else []
        return {
            **_described(unit, name, job, repository, own, arguments, _borgmatic.dump_arguments),
            "borgmatic": _borgmatic.configuration(unit, name, job, repository, own),
            "keep": _borgmatic.keep_options(f"{where}.keep", job["keep"], repository["append_only"]),
        }
    # Only here: what root starts, modules and holdfast, has no such capability to hand down.
    repository = {**repository, "options": {**repository["options"], **repository["own_program"]}}
    arguments = _jobs.backup_arguments(unit, name, job, repository, own)
    length = sum(map(len, arguments)) * 16
    if length > COMMAND_BYTES and (length := len(_units.command_line(arguments).encode())) > COMMAND_BYTES:
        raise BadInput(
            where,
            "",
            f"has paths and patterns that take {length} bytes in its unit, which can hold {COMMAND_BYTES}",
            "Name the directories above them, or split the job",
        )
    return {
        **_described(unit, name, job, repository, own, arguments, _jobs.dump_arguments),
        "keep": _jobs.keep_options(f"{where}.keep", job["keep"], repository["append_only"]),
    }


def _described(
    unit: str,
    name: str,
    job: dict[str, t.Any],
    repository: dict[str, t.Any],
    own: list[str],
    arguments: list[str],
    dump_arguments: t.Callable[..., list[str]],
) -> dict[str, t.Any]:
    return {
        "unit": unit,
        "job": name,
        "repository": repository["name"],
        "proxy": job["proxy"] or repository["proxy"],
        "left_out": own,
        "excluded": _borgmatic.expressions(job["exclude"]),
        "arguments": arguments,
        "dumps": [
            {
                "name": dump["name"],
                "unit": f"holdfast-{unit}--{dump['name']}.service",
                "user": dump["user"],
                "arguments": dump_arguments(name, job, repository, dump),
            }
            for dump in job["dumps"]
        ],
    }


def _escrow(host: _Collector, repositories: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    """How key material is kept for the day when the client is gone."""
    value = host.value("backup_escrow")
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
        if not isinstance(value, dict):
            raise BadInput("backup_escrow", type_of(value), "is not a dictionary", "Use {recipients: [age1…]}")
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


_extra_user_text = f.text(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}", "a user name", "Use letters, digits and . _ @ -")
_recipient_text = f.text(
    r"age1[02-9ac-hj-np-z]{58}|ssh-ed25519 [A-Za-z0-9+/=]{68}( .{0,100})?",
    "a public key of age",
    "Give the line 'age1…' that age-keygen prints, or an ssh-ed25519 public key; the secret key never belongs here",
)


def _recipient(where: str, value: t.Any) -> str:
    """A public key of age, its checksum verified: a typing error must not show only when the first bundle is made."""
    key = str(_recipient_text(where, value))
    if not (_bech32(key) if key.startswith("age1") else key.split(" ")[1].startswith(SSH_ED25519)):
        raise BadInput(
            where, value, "is damaged: its checksum or type is wrong", "Copy the whole line that age-keygen prints"
        )
    return key


def _bech32(text: str) -> bool:
    """Whether the checksum of a bech32 string is right (BIP 173)."""
    human, data = text.rsplit("1", 1)
    values = [ord(each) >> 5 for each in human] + [0] + [ord(each) & 31 for each in human]
    checksum = 1
    for value in [*values, *("qpzry9x8gf2tvdw0s3jn54khce6mua7l".index(each) for each in data)]:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum == 1


def _collisions(ids: dict[str, str | None], model: dict[str, dict[str, t.Any]]) -> list[Problem]:
    """One name for two hosts, one location for two repositories."""
    found = []
    by_id: dict[str, list[str]] = {}
    by_location: dict[str, list[tuple[str, str, str]]] = {}
    for host, entry in model.items():
        identity = ids.get(host)
        if identity is not None:
            by_id.setdefault(identity, []).append(host)
        local: dict[str, str] = {}
        for repository in (entry["client"] or {}).get("repositories", []):
            location, name = repository["location"], repository["name"]
            if repository["access"] == "local":
                found += _nested(host, name, location, local)
                local[location] = name
            else:
                by_location.setdefault(_place_of(repository), []).append((host, name, location))
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
    for users in by_location.values():
        if len(users) > 1:
            names = ", ".join(f"{name} of {host}" for host, name, unused in users)
            found.append(
                Problem(
                    tuple(dict.fromkeys(host for host, unused, unused in users)),
                    "backup_repositories",
                    shorten(users[0][2]),
                    f"is the location of two repositories ({names})",
                    "Give each repository of each client a location of its own",
                )
            )
    return found


def _place_of(repository: dict[str, t.Any]) -> str:
    """One spelling of where a repository is, also of one that another spells with the server's address."""
    ssh = repository["ssh"]
    if ssh and ssh["kind"] == "sftp":
        return _repositories.identity_of(f"sftp://{f.url_host(ssh['address'])}:{ssh['port']}/{ssh['path']}")
    return _repositories.identity_of(repository["location"])


def _nested(host: str, name: str, path: str, others: dict[str, str]) -> list[Problem]:
    """Local repositories of one host that are the same directory, or lie in each other."""
    return [
        Problem(
            (host,),
            f"backup_repositories.{name}.path",
            shorten(path),
            f"is the location of two repositories, or lies in one or around it ({other} is {there})",
            "Give each repository a directory of its own",
        )
        for there, other in others.items()
        if f"{path}/".startswith(f"{there}/") or f"{there}/".startswith(f"{path}/")
    ]


def repository_secrets(variables: Variables) -> dict[str, dict[str, t.Any]]:
    """What one host's user gave as secrets: for each repository its password and its backend's environment, where given.

    Raises BadInput, which never shows them, where preflight would have refused them.
    """
    host = _Collector("", variables, [])
    return {
        name: {
            key: _repositories.FIELDS[key](f"{source}.{name}.{key}", value[key])
            for key in _repositories.SECRETS
            if value.get(key) is not None
        }
        for name, (source, value) in merged(host, "backup_repositories").items()
    }
