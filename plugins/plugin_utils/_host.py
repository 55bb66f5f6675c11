# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host itself delivers, judged before anything on it is changed."""

from __future__ import annotations

import fnmatch
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils import _btrfs, _floors, _htpasswd, _run
from ansible_collections.holdfast.backup.plugins.plugin_utils import _rclone
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import Problem, shorten

Report = t.Callable[[str, t.Any, str, str], None]

TESTED = {"bookworm", "trixie"}
ANALYZE_SECONDS = 10.0
# Where the package borgbackup puts it, which a server of borg gets.
PACKAGED_BORG = "/usr/bin/borg"
# Which remotes the module rclone_remotes has written.
LISTED = "/var/lib/holdfast/rclone_remotes.json"


class Place(t.NamedTuple):
    """A directory that a run gives to an account; ``private`` where nobody else may use it then."""

    variable: str
    path: str
    account: str
    private: bool = True


def _local_places(client: dict[str, t.Any] | None, tool: dict[str, t.Any]) -> list[tuple[Place, str | None]]:
    """The local repositories of a client, each with the mount that it needs; none where no account is to have any."""
    return [
        (Place(f"backup_repositories.{each['name']}.path", each["path"], tool["account"]), each["mount"])
        for each in (client or {}).get("repositories", ())
        if tool.get("account") and each.get("path")
    ]


def _rest_place(server: dict[str, t.Any]) -> Place:
    return Place("rest_server_path", server["path"], server["account"])


def _ssh_place(server: dict[str, t.Any]) -> Place:
    """Below it each client's account has a directory of its own."""
    return Place("ssh_access_path", server["ssh_path"], "root", private=False)


def places_to_see(
    client: dict[str, t.Any] | None, tool: dict[str, t.Any], server: dict[str, t.Any] | None
) -> list[dict[str, t.Any]]:
    """What host_info has to be asked for, so that the directories which a run gives away can be judged."""
    server = server or {}
    places = [place for place, _mount in _local_places(client, tool)]
    places += [_rest_place(server)] if server.get("rest") else []
    places += [_ssh_place(server)] if server.get("serves_ssh") else []
    return [{"path": each.path, "account": each.account, "private": each.private} for each in places]


def subvolumes_to_see(server: dict[str, t.Any] | None) -> list[str]:
    """The directories of the repositories that have a quota, where a run may set it."""
    server = server or {}
    return [f"{server['path']}/{each['name']}" for each in server["quotas"]] if server.get("rest") else []


def host_problems(
    info: dict[str, t.Any],
    facts: dict[str, t.Any],
    client: dict[str, t.Any] | None,
    tool: dict[str, t.Any],
    host: str,
    server: dict[str, t.Any] | None = None,
    check_mode: bool = False,
) -> dict[str, list[str]]:
    """Messages by weight: ``errors`` stop this host, ``warnings`` are shown.

    ``info`` is the result of the module host_info, ``client`` the host's side of the fleet's model, ``tool`` how its
    restic is installed (``install``, ``package``, ``version``, ``binary``, ``checksums``) and which ``account`` is to
    have its local repositories, ``server`` what is asked of it as a server (``path``, and ``quotas``, the users that
    have one).
    """
    errors: list[Problem] = []
    warnings: list[Problem] = []

    def error(variable: str, value: t.Any, wrong: str, cure: str) -> None:
        errors.append(Problem((host,), variable, shorten(value) if value not in (None, "") else "", wrong, cure))

    def warn(variable: str, value: t.Any, wrong: str, cure: str) -> None:
        warnings.append(Problem((host,), variable, shorten(value) if value not in (None, "") else "", wrong, cure))

    if info.get("systemd") is None:
        error(
            "systemd",
            "",
            "systemd is not running as PID 1 on this host, and jobs are systemd timers",
            "Use a host that boots with systemd",
        )
    elif _floors.below("systemd", str(info["systemd"])):
        floor = _floors.floor("systemd")
        error(
            "systemd", info["systemd"], f"is below {floor.minimum}: {floor.reason}", "Upgrade the host's distribution"
        )
    if str(facts.get("distribution_release")) not in TESTED:
        warn(
            "ansible_distribution",
            f"{facts.get('distribution')} {facts.get('distribution_version')}",
            "is not a tested platform",
            "Tested are Debian 12 and 13",
        )
    if info.get("selinux") == "enforcing":
        warn("SELinux", "enforcing", "is untested with this collection", "Watch the first run, and report what you see")
    probe = info.get("sandbox") or {}
    if probe.get("works") is False:
        error(
            "jobs_sandbox",
            "full",
            f"the sandbox of the units cannot start on this host ({probe.get('error', 'no reason given')})",
            "Set jobs_sandbox: reduced for this host (see docs/operating.md for what it gives up)",
        )
    if info.get("apt_lists") is False and check_mode:
        # The real run fetches them, and goes on.
        warn(
            "apt",
            "",
            "has no package lists on this host, so this check leaves out what cannot be foreseen of these packages:"
            f" {', '.join(unknown_packages(info))}",
            "Run apt update there, or run without --check, which does",
        )
    elif info.get("apt_lists") is False:
        error(
            "apt",
            "",
            "has no package lists on this host, so nothing can be said of what would be installed",
            "Run apt update there, and look at its sources",
        )
    if client is not None and not (server or {}).get("rest"):
        _without_apt(info, tool, {}, error)
    if client is not None:
        if info.get("reads_everything") is False:
            error(
                "CAP_DAC_READ_SEARCH",
                "",
                "is withheld from this host, a container, so no job could read the files of every user",
                "Give the container this capability (docker and podman: --cap-add DAC_READ_SEARCH)",
            )
        if tool.get("wanted", True):
            _tool(info, "restic", tool, error)
        if (tool.get("borg") or {}).get("wanted"):
            _borg(info, tool["borg"], error)
        _calendars(_refused(info, client), "this host", error)
        for variable, calendar in _wanted_calendars(client):
            if (info.get("calendars") or {}).get(calendar, {}).get("never") is True:
                warn(
                    variable,
                    calendar,
                    "never comes again, so this job would never run by itself",
                    "See systemd.time(7), or run it with the playbook backup",
                )
        _addresses(info, client, error)
        for place, mount in _local_places(client, tool):
            # What lies below a mount that is not there is not touched.
            if not mount or (info.get("mounts") or {}).get(mount):
                _given(info, place, error)
    rest = (server or {}).get("rest")
    if rest and rest_served(info, rest):
        _server_sandbox(info, error)
    if server is not None and server.get("quotas"):
        _quotas(info, server, error)
    return {"errors": [str(problem) for problem in errors], "warnings": [str(problem) for problem in warnings]}


def inventory_problems(
    info: dict[str, t.Any],
    client: dict[str, t.Any] | None,
    tool: dict[str, t.Any],
    server: dict[str, t.Any] | None,
    host: str,
) -> list[str]:
    """Messages about the inventory and the state directory; they stop every host, unless access is only taken away.

    A client is believed nothing here, it could so stop everybody: a calendar that it refuses counts when this controller
    refuses it too. A server is: that it serves another fleet, or more users than this run knows, protects all its
    clients; and without a rest-server, rclone or borg that can serve them, they would be changed for nothing.

    ``client`` and ``tool`` are those of :func:`host_problems`. ``server`` has the ``fleet_id`` of this run (null before the
    first), its ``state_dir``, the names of the ``users`` that the server is to have, and ``revoke_max`` (null for no limit);
    ``ssh_accounts``, with the repositories of each, and ``ssh_revoke_max`` are the same over SSH. ``rest`` says how its rest-server is
    installed, as ``tool`` does of restic, and for :func:`rest_served` whether it has ``users`` and serves over ``ssh``.
    ``rclone`` says the same of rclone, for what it serves (``remotes``), and for :func:`rclone_served` whether it does (``served``).
    ``borg`` is the program that serves, where it has to be append-only, and ``serves_ssh`` whether anything is served over SSH.
    ``path`` is what rest-server's ``account`` is to have, and ``ssh_path`` what repositories over SSH lie below.
    """
    errors: list[Problem] = []

    def error(variable: str, value: t.Any, wrong: str, cure: str) -> None:
        errors.append(Problem((host,), variable, shorten(value) if value not in (None, "") else "", wrong, cure))

    if client is not None:
        _named_version("restic", tool, error)
        refused = [each for each in _refused(info, client) if _refused_here(each[1])]
        _calendars(refused, "this host and of this controller", error)
    rest = (server or {}).get("rest")
    if rest:
        _without_apt(info, tool if client is not None else {}, server or {}, error)
    if rest and rest_served(info, rest):
        _tool(info, "rest-server", rest, error)
        _given(info, _rest_place(server or {}), error)
        _subvolumes(info, server or {}, error)
    rclone = (server or {}).get("rclone")
    if rclone and rclone_served(info, rclone):
        seen = {name: info.get(name) or {} for name in ("packages", "binaries")}
        seen.update(apt=info.get("apt"), apt_lists=info.get("apt_lists"))
        errors += _rclone.tool_problems({**rclone, **seen}, host, remotes=rclone["remotes"])
    if server is not None and server.get("borg"):
        _borg_served(info, server["borg"], error)
    served = info.get("htpasswd")
    if server is not None and served is not None:
        _served(served, server, error, "/var/lib/holdfast/htpasswd.json")
    foreign = info.get("foreign_accounts")
    if server is not None and server.get("serves_ssh"):
        _given(info, _ssh_place(server), error)
    if server is not None and server.get("serves_ssh") and foreign:
        error(
            "accounts",
            ", ".join(foreign),
            "begin with bk- on this server, and are not holdfast's, whose accounts of clients do: nobody could log in as them"
            " any more, but for serving repositories",
            "Rename them (usermod -l), or serve over SSH elsewhere; one that holdfast made has the comment 'holdfast <backup_id>'"
            " (usermod -c)",
        )
    accounts = info.get("ssh_accounts")
    if server is not None and accounts is not None:
        wanted = {key for name, names in server["ssh_accounts"].items() for key in _keys(name, names)}
        _served(
            {
                "fleet_id": accounts["fleet_id"],
                "users": {
                    key: each["backup_id"]
                    for name, each in accounts["accounts"].items()
                    for key in _keys(name, each["repositories"])
                },
            },
            {**server, "users": wanted, "revoke_max": server["ssh_revoke_max"]},
            error,
            "/var/lib/holdfast/ssh_accounts.json",
        )
    return [str(problem) for problem in errors]


def unknown_packages(info: dict[str, t.Any]) -> list[str]:
    """The packages that were asked for, and are neither installed nor known to apt."""
    packages = info.get("packages") or {}
    return sorted(name for name, each in packages.items() if not each.get("installed") and not each.get("candidate"))


def _without_apt(info: dict[str, t.Any], tool: dict[str, t.Any], server: dict[str, t.Any], error: Report) -> None:
    """The packages that a run would need apt for, where there is none; those of the programs themselves are told of each."""
    if info.get("apt") is not False:
        return
    rest, borg, rclone = (each or {} for each in (server.get("rest"), tool.get("borg"), server.get("rclone")))
    told = {borg["package"], borg["borgmatic_package"]} if borg.get("wanted") else set()
    told |= {each["package"] for each in (tool, rest, rclone) if each.get("install") == "package"}
    if rest and not rest_served(info, rest):
        told |= set(rest.get("packages", ()))
    due = [name for name in unknown_packages(info) if name not in told]
    if due:
        error(
            "packages",
            ", ".join(due),
            "are not on this host, and it has no apt to install them",
            "Install what it has in their place by hand",
        )


def _needs_apt(info: dict[str, t.Any], variable: str, install: str, cure: str, error: Report) -> bool:
    """Whether a program was to come out of a package, and there is no apt."""
    if install != "package" or info.get("apt") is not False:
        return False
    error(variable, "package", "needs apt, which this host does not have", cure)
    return True


def unforeseen(info: dict[str, t.Any], tool: dict[str, t.Any]) -> dict[str, t.Any]:
    """What is known of packages, with those of which apt knows nothing yet as if they were there.

    Of a host without package lists check mode cannot know more, and apt would fail for each of them.
    """
    pinned = {tool["package"]: tool["pinned"]} if tool.get("pinned") else {}
    there = {name: {"installed": pinned.get(name, "unforeseen")} for name in unknown_packages(info)}
    return {name: {**each, **there.get(name, {})} for name, each in info["packages"].items()}


def rest_served(info: dict[str, t.Any], rest: dict[str, t.Any]) -> bool:
    """Whether a server serves over REST, as ``__holdfast_rest_served`` of the playbooks says after this look."""
    over_ssh = rest["ssh"] or info.get("ssh_accounts") is not None
    return not over_ssh or bool(rest["users"]) or info.get("htpasswd") is not None


def rclone_served(info: dict[str, t.Any], rclone: dict[str, t.Any]) -> bool:
    """Whether a server makes rclone ready, as ``__holdfast_rclone_served`` of the playbooks says after this look."""
    return bool(rclone["served"] or (info.get("files") or {}).get(LISTED))


def _keys(account: str, repositories: t.Iterable[str]) -> list[str]:
    """What an account over SSH may lose: itself, and each of its repositories."""
    return [account, *(f"{account} {repository}" for repository in repositories)]


def _served(served: dict[str, t.Any], server: dict[str, t.Any], error: Report, manifest: str) -> None:
    """What this run would take away from those that the server serves already."""
    if served["fleet_id"] != server["fleet_id"]:
        has, first = "has no fleet id", ""
        if server["fleet_id"]:
            # Made by a run that did not reach this server, say.
            has, first = f"is of the fleet {server['fleet_id']}", f" remove {server['state_dir']}/fleet.json, then"
        error(
            "backup_state_dir",
            server["state_dir"],
            f"{has}, and this server serves the fleet {served['fleet_id']}",
            f"Use the state directory of that fleet, out of version control or a backup. If it is lost,{first} run once with"
            f" -e backup_fleet_id={served['fleet_id']}, and what the hosts still have is collected anew. If that fleet is gone"
            f" for good, remove {manifest} on this server",
        )
        return
    gone = set(served["users"]) - set(server["users"])
    # On the command line (-e) a number is text.
    most = None if server["revoke_max"] in (None, "") else int(server["revoke_max"])
    problem = _htpasswd.too_many(gone, served["users"], most)
    if problem:
        wrong, _colon, cure = problem.partition(": ")
        error("backup_revoke_max", server["revoke_max"], wrong, cure[0].upper() + cure[1:])


def _server_sandbox(info: dict[str, t.Any], error: Report) -> None:
    probe = info.get("server_sandbox") or {}
    if probe.get("works") is False:
        error(
            "rest_server_sandbox",
            "full",
            f"rest-server's sandbox cannot start on this host ({probe.get('error') or 'no reason given'}), and it"
            " would fail at each connection",
            "Let the container nest (LXC: nesting), or set rest_server_sandbox: reduced for this host (see"
            " docs/operating.md for what it gives up)",
        )


def _tool(info: dict[str, t.Any], name: str, tool: dict[str, t.Any], error: Report) -> None:
    """The version of restic or rest-server that the run would install or find, against the floor."""
    floor = _floors.floor(name)
    prefix = name.replace("-", "_")
    # Of restic's package a version or a suite may be named.
    pinnable = "pinned" in tool
    cure = (
        f"Set {prefix}_install: release with {prefix}_release_version ({floor.minimum} or later)"
        f" and {prefix}_release_sha256"
    )
    by_hand = f"{cure}, or {prefix}_install: none where {name} is there"
    if _needs_apt(info, f"{prefix}_install", tool["install"], by_hand, error):
        return
    if pinnable:
        cure += f", or {prefix}_package_release to a suite that has it"
    if tool["install"] == "release" or (tool["install"] == "package" and tool.get("pinned")):
        _named_version(name, tool, error)
        if tool["install"] == "package" and not _floors.below(name, tool["pinned"]):
            _offered(info, name, tool, error)
        if tool["install"] == "release" and tool["checksums"] and not tool.get("sha256"):
            error(
                f"{prefix}_release_sha256",
                ", ".join(map(str, tool["checksums"])),
                f"has no checksum for the architecture {tool.get('architecture')} of this host",
                "Give the SHA-256 of its archive, from upstream's SHA256SUMS",
            )
        return
    if tool["install"] == "none":
        found = (info.get("binaries") or {}).get(tool["binary"])
        if not found:
            error(
                f"{prefix}_binary",
                tool["binary"],
                "is not on this host, or tells no version",
                f"Install {name} there, or leave {prefix}_binary out and let {prefix}_install do it",
            )
        elif _floors.below(name, found):
            error(
                f"{prefix}_binary",
                tool["binary"],
                f"is version {found}, below the floor {floor.minimum}: {floor.reason}",
                f"Install a later version, or leave {prefix}_binary out and let {prefix}_install do it",
            )
        return
    package = (info.get("packages") or {}).get(tool["package"]) or {}
    version, candidate = package.get("installed") or package.get("candidate"), package.get("candidate")
    if candidate and candidate != version and not _floors.below(name, candidate):
        if pinnable:
            cure = f"Upgrade it there, or set {prefix}_package_version: {candidate} and let holdfast do it"
        else:
            cure = f"Upgrade it there: apt offers {candidate}"
    if not version and info.get("apt_lists") is False:
        return
    if not version:
        error(
            f"{prefix}_package",
            tool["package"],
            "is not known to apt on this host",
            "Run apt update there, or " + cure[0].lower() + cure[1:],
        )
    elif _floors.below(name, version):
        error(
            f"{prefix}_package",
            tool["package"],
            f"is version {version}, below the floor {floor.minimum}: {floor.reason}",
            cure,
        )


def _offered(info: dict[str, t.Any], name: str, tool: dict[str, t.Any], error: Report) -> None:
    """Whether apt has the version of a package that a variable names, which may be a pattern."""
    versions = ((info.get("packages") or {}).get(tool["package"]) or {}).get("versions") or []
    if info.get("apt_lists") is False or any(fnmatch.fnmatchcase(each, tool["pinned"]) for each in versions):
        return
    error(
        f"{name.replace('-', '_')}_package_version",
        tool["pinned"],
        "is not a version that apt offers on this host",
        f"Run apt update there, or name one of: {', '.join(versions) or 'none that apt knows'}",
    )


def _borg(info: dict[str, t.Any], tool: dict[str, t.Any], error: Report) -> None:
    """What borg and borgmatic would be installed as or are, against their floors."""
    if tool["privilege"] == "setcap":
        error(
            "borg_privilege",
            "setcap",
            "is not to be had for borg: the capability would be the whole Python interpreter's",
            "Use systemd or root (borg_privilege follows restic_privilege)",
        )
    cure = {
        "borg": "Set borg_package_release to a suite that has it (bookworm-backports, say), or borg_install: release",
        "borgmatic": "Set borg_borgmatic_install: venv with borg_borgmatic_requirements (wheels with hashes)",
    }
    ways = {
        "borg": ("", tool["install"], tool["package"], tool["binary"]),
        "borgmatic": ("borgmatic_", tool["borgmatic_install"], tool["borgmatic_package"], tool["borgmatic_binary"]),
    }
    for name, (prefix, install, package, binary) in ways.items():
        floor = _floors.floor(name)
        other = "release" if name == "borg" else "venv"
        by_hand = f"Set borg_{prefix}install: {other}, or none where {name} is there"
        if _needs_apt(info, f"borg_{prefix}install", install, by_hand, error):
            continue
        if install == "package":
            known = (info.get("packages") or {}).get(package) or {}
            variable, value, version = (
                f"borg_{prefix}package",
                package,
                known.get("installed") or known.get("candidate"),
            )
        elif install == "none":
            variable, value = f"borg_{prefix}binary", binary
            version = (info.get("binaries") or {}).get(binary)
        else:
            continue
        if not version and install == "package" and info.get("apt_lists") is False:
            continue
        if not version:
            error(variable, value, "is not known on this host", cure[name])
        elif _floors.below(name, version):
            error(variable, value, f"is version {version}, below the floor {floor.minimum}: {floor.reason}", cure[name])
    if tool["install"] == "release":
        if not tool["url"]:
            error(
                "borg_release_url", "", "is missing", "Give the address of the release, or of a copy of it on a mirror"
            )
        if not tool["sha256"]:
            error(
                "borg_release_sha256",
                "",
                f"has no checksum for {tool['architecture']}",
                "Give the SHA-256 of the release",
            )
        if not tool["version"] or _floors.below("borg", tool["version"]):
            minimum = _floors.floor("borg").minimum
            error(
                "borg_release_version",
                tool["version"],
                "is no version at or above the floor",
                f"Name {minimum} or later",
            )
    if tool["borgmatic_install"] == "venv" and not tool["borgmatic_requirements"].strip():
        error(
            "borg_borgmatic_requirements", "", "is empty", "Give the lines of a requirements file, each with its hashes"
        )


def _named_version(name: str, tool: dict[str, t.Any], error: Report) -> None:
    """The version that a variable names, against the floor."""
    floor = _floors.floor(name)
    prefix = name.replace("-", "_")
    variable = f"{prefix}_release_version" if tool["install"] == "release" else f"{prefix}_package_version"
    version = tool["version"] if tool["install"] == "release" else tool.get("pinned")
    if tool["install"] == "release" and not tool["checksums"]:
        error(
            f"{prefix}_release_sha256",
            "",
            "has no checksum",
            "Give the SHA-256 of the archive of each architecture, from upstream's SHA256SUMS",
        )
    if tool["install"] != "none" and version and _floors.below(name, version):
        error(
            variable, version, f"is below the floor {floor.minimum}: {floor.reason}", f"Name {floor.minimum} or later"
        )
    elif tool["install"] == "release" and not version:
        error(variable, "", "is missing", f"Name the version of the release, {floor.minimum} or later")


def _wanted_calendars(client: dict[str, t.Any]) -> list[tuple[str, str]]:
    """Variable and calendar of each job."""
    return [
        (f"backup_jobs.{name}.schedule.calendar", job["schedule"]["calendar"]) for name, job in client["jobs"].items()
    ]


def _refused(info: dict[str, t.Any], client: dict[str, t.Any]) -> list[tuple[str, str, str]]:
    """Variable, calendar and reason of each calendar that the host refuses."""
    answers = info.get("calendars") or {}
    return [
        (variable, calendar, answers[calendar].get("error") or "no reason given")
        for variable, calendar in _wanted_calendars(client)
        if calendar in answers and answers[calendar]["valid"] is False
    ]


def _calendars(refused: list[tuple[str, str, str]], by: str, error: Report) -> None:
    for variable, calendar, reason in refused:
        error(
            variable,
            calendar,
            f"is refused by systemd-analyze of {by}: {reason}",
            "See systemd.time(7), for instance daily or Mon..Fri 02:30 Europe/Berlin",
        )


def _refused_here(calendar: str) -> bool:
    """Whether systemd-analyze of this controller refuses a calendar; one that has none refuses nothing."""
    try:
        done = _run.run(["systemd-analyze", "calendar", "--", calendar], timeout=ANALYZE_SECONDS)
    except OSError:
        return False
    return done.code != 0 and not done.timed_out


def _quotas(info: dict[str, t.Any], server: dict[str, t.Any], error: Report) -> None:
    kind = (info.get("file_systems") or {}).get(server["path"])
    if kind == "btrfs":
        return
    quotas = server["quotas"]
    error(
        "rest_server_path",
        server["path"],
        f"lies on {kind or 'an unknown file system'}, and needs btrfs for the quota of"
        f" {', '.join(sorted(quota['name'] for quota in quotas))}",
        "Put rest_server_path on a btrfs file system (is it mounted?), or remove `quota` of these repositories",
    )


def _subvolumes(info: dict[str, t.Any], server: dict[str, t.Any], error: Report) -> None:
    kinds = info.get("subvolumes") or {}
    for each in server.get("quotas", ()):
        directory = f"{server['path']}/{each['name']}"
        if kinds.get(directory) == _btrfs.OTHER:
            error(
                f"backup_repositories.{each['name'].partition('--')[2]}.quota",
                each.get("quota"),
                f"cannot be set for {each['name']}: its files lie in a directory that is no subvolume",
                _btrfs.how_to_move(directory),
            )


def _given(info: dict[str, t.Any], place: Place, error: Report) -> None:
    """A directory that others use and that the run would take from them."""
    seen = (info.get("places") or {}).get(place.path)
    if not seen:
        return
    path, account = place.path, place.account
    lost = "shut to everybody else" if place.private else "others could not list it any more"
    cure = f"Name a directory of its own below it, {path}/holdfast say; or move out of it what is no repository"
    if seen["owner"] == account:
        cure += f"; or, if it is for this alone, shut it first: chmod 0700 {path}"
    elif (info.get("accounts") or {}).get(account, True):
        cure += f"; or, if it is for this alone, give it to {account} first: chown {account} {path}"
    error(
        place.variable,
        path,
        f"is there already, belongs to {seen['owner'][:32]} and holds {shorten(seen['foreign'])}, which is no"
        f" repository: it would be {account}'s, and {lost}",
        cure,
    )


def _borg_served(info: dict[str, t.Any], program: str, error: Report) -> None:
    """The program that has to be kept from destroying what it serves; the package would be one of Python's."""
    found = (info.get("interpreters") or {}).get(program)
    if found or (found is None and program == PACKAGED_BORG):
        return
    wrong = (
        "is not on this host"
        if found is None
        else "is no Python program, which could not be kept from destroying a repository of a client"
    )
    error(
        "ssh_access_borg",
        program,
        wrong,
        f"Install borg as a package on this server, and leave ssh_access_borg out, or set it to {PACKAGED_BORG}",
    )


def _addresses(info: dict[str, t.Any], client: dict[str, t.Any], error: Report) -> None:
    for repository in client["repositories"]:
        if repository.get("proxy"):
            continue  # the proxy resolves it
        answer = (info.get("resolve") or {}).get(repository["address"]) or {}
        if repository["address"] and answer.get("error"):
            error(
                repository["address_variable"],
                repository["address"],
                f"does not resolve on this host: {answer['error']}",
                f"Give the server {repository['server']} a backup_address that its clients can dial",
            )
