# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Accounts and key lines of a server that is reached over SSH: who gets which line, who loses it; no side effects."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Union

from ._htpasswd import NEWEST, REMEMBERED, few, too_many
from ._public_key import TYPE, fingerprint, parse_public_key

PLACEHOLDER = "<made in the first real run>"
PREFIX = "bk-"
SHELL = "/bin/sh"
# Groups are made and their members decided here, so no other may be named.
GROUP_PREFIX = "hfr-"
_VERSION = 1
_NAME = re.compile(r"\A[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_NAME_LENGTH = 28
_Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
_GROUP = re.compile(r"\Ahfr-[a-z0-9][a-z0-9_-]{0,26}\Z")
_COMMAND = re.compile(r"\A/[A-Za-z0-9._/-]+\Z")
_SIZE = re.compile(r"\A([0-9]{1,15})([KMGT]?)\Z")
_BLOB = re.compile(r"(?<![A-Za-z0-9+/])AAAA[A-Za-z0-9+/]{16,}={0,3}")


@dataclass(frozen=True)
class Key:
    """The keys of one repository; no `public_keys` means that the server keeps those that it has."""

    repository: str
    public_keys: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    # What its client may do there: another text ends what began under this one, unless it allows all of that. Empty is not known.
    definition: str = ""
    # Whether the client itself said them in this run: what is only remembered brings nothing back that was replaced.
    heard: bool = True


@dataclass(frozen=True)
class Account:
    """A declared account."""

    name: str
    backup_id: str
    keys: tuple[Key, ...]
    groups: frozenset[str]


@dataclass(frozen=True)
class Known:
    """What the manifest says of an account: whose it is, and which fingerprints each repository was served with."""

    backup_id: str
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    locked: bool = False
    # Of each repository, under which definition its sessions run: no older one does any more.
    definitions: Mapping[str, str] = field(default_factory=dict)
    # Whether sessions have to end, and no run has seen them ended yet.
    end: bool = False
    # Fingerprints of what was replaced or revoked, the latest last.
    retired: tuple[str, ...] = ()
    # Whether they are all: the version before wrote none.
    remembers: bool = True


@dataclass(frozen=True)
class Manifest:
    """Which fleet made which account here; accounts that lost access stay, since their data and UID do."""

    fleet_id: str
    accounts: Mapping[str, Known] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """An account as the host has it; `expires` is the field of /etc/shadow."""

    uid: int
    comment: str
    home: str
    shell: str
    password: str
    expires: str


@dataclass(frozen=True)
class Current:
    """What is on the host: accounts, key files by account's name, members of the groups that are ours."""

    system: Mapping[str, System]
    files: Mapping[str, str]
    groups: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Policy:
    """How the lines are made, and how much may be taken away."""

    fleet_id: str
    command: str
    home: str
    revoke_max: int | None = None
    check_mode: bool = False
    # Whether the definitions of the keys are what the host serves by now.
    in_force: bool = False
    # Whether access is taken away only, and nobody gets any.
    revoke_only: bool = False
    # Since when a key is served that is new here, for its line.
    today: str = ""


@dataclass
class Outcome:
    """The new state and what happened to whom; names of keys are `account repository`."""

    files: dict[str, str] = field(default_factory=dict)
    manifest: dict[str, Known] = field(default_factory=dict)
    memberships: dict[str, frozenset[str]] = field(default_factory=dict)
    groups_created: list[str] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)
    unlocked: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    created_keys: list[str] = field(default_factory=list)
    changed_keys: list[str] = field(default_factory=list)
    revoked_keys: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    # Accounts of somebody else that have a key file.
    theirs: list[str] = field(default_factory=list)
    # Of those that are kept or missing, whose keys were replaced or revoked before.
    stale: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)
    # Accounts whose sessions have to end: a connection that is open could go on with a key that is gone.
    end: set[str] = field(default_factory=set)
    # The same, as soon as their new definitions are in force.
    sessions_pending: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self, account: str, why: str) -> None:
        """Note why something of an account was refused."""
        self.refused.setdefault(account, []).append(why)

    def served(self) -> dict[str, dict[str, list[str]]]:
        """Return the fingerprints that open each repository now, by account."""
        return {
            name: {repository: list(prints) for repository, prints in known.keys.items()}
            for name, known in sorted(self.manifest.items())
            if not known.locked
        }

    def report(self) -> dict[str, Any]:
        """Return the lists that the module returns."""
        internal = ("files", "manifest", "memberships", "end", "refused", "warnings", "theirs", "stale")
        lists = {key: sorted(value) for key, value in vars(self).items() if key not in internal}
        return {**lists, "refused": self.refused, "served": self.served(), "groups_changed": sorted(self.memberships)}


def parse_accounts(items: Iterable[Mapping[str, Any]]) -> tuple[Account, ...]:
    """Return the declared accounts. Raises ValueError that names option, value and cure; public keys are not judged."""
    accounts: dict[str, Account] = {}
    for number, item in enumerate(items):
        where = f"accounts[{number}]"
        backup_id = _name(item["backup_id"], f"{where}.backup_id")
        if item["name"] != PREFIX + backup_id:
            raise ValueError(f"{where}.name: {item['name']!r} is not {PREFIX}{backup_id}: name it after its backup_id")
        if item["name"] in accounts:
            raise ValueError(f"{where}.name: {item['name']} is declared twice: keep one of the entries")
        for group in item["groups"]:
            if not _GROUP.match(group):
                raise ValueError(
                    f"{where}.groups: {group!r} is not {GROUP_PREFIX} and a name of at most 27 letters, digits, - and _"
                )
        keys: dict[str, Key] = {}
        for key in item["keys"]:
            repository = _name(key["repository"], f"{where}.keys.repository")
            if repository in keys:
                raise ValueError(f"{where}.keys: {repository} is declared twice: keep one of the entries")
            sources = tuple(_source(source, f"{where}.keys[{repository}].from") for source in key["from"])
            definition, heard = key.get("definition") or "", key.get("heard", True)
            keys[repository] = Key(repository, tuple(key["public_keys"]), sources, definition, heard)
        ordered = tuple(keys[repository] for repository in sorted(keys))
        accounts[item["name"]] = Account(item["name"], backup_id, ordered, frozenset(item["groups"]))
    return tuple(accounts[name] for name in sorted(accounts))


def _name(value: str, where: str) -> str:
    if len(value) > _NAME_LENGTH or not _NAME.match(value):
        raise ValueError(
            f"{where}: {value!r} is not a name: use lower-case letters, digits and single hyphens, a letter first, "
            f"{_NAME_LENGTH} characters at most"
        )
    return value


def _source(value: str, where: str) -> str:
    """Return a source address or network in the spelling that goes into the line."""
    try:
        # A mask in another spelling is none that sshd reads everywhere.
        if "%" in value or ("/" in value and not value.partition("/")[2].isdigit()):
            raise ValueError
        return str(ipaddress.ip_network(value) if "/" in value else ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(
            f"{where}: {value!r} is neither an address nor a network: write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/64"
        ) from None


def check_command(command: str) -> str:
    """Return the path of the wrapper if it can stand in a key line. Raises ValueError."""
    if not _COMMAND.match(command) or ".." in command.split("/"):
        raise ValueError(f"command: {command!r} is not a plain absolute path: use letters, digits and . _ - /")
    return command


def comment_of(backup_id: str) -> str:
    """Return the comment field by which an account is known as ours."""
    return f"holdfast {backup_id}"


def parse_manifest(value: Mapping[str, Any] | None, path: str) -> Manifest | None:
    """Return the manifest of a JSON object. Raises ValueError when it is not one."""
    if value is None:
        return None
    try:
        if value["version"] != _VERSION or not isinstance(value["fleet_id"], str):
            raise ValueError
        accounts = {
            str(name): Known(
                str(item["backup_id"]),
                {str(repository): tuple(map(str, prints)) for repository, prints in item["keys"].items()},
                bool(item["locked"]),
                {str(repository): str(text) for repository, text in item.get("definitions", {}).items()},
                bool(item.get("end", False)),
                tuple(map(str, item.get("retired", ()))),
                "retired" in item,
            )
            for name, item in value["accounts"].items()
        }
        if not all(
            name == PREFIX + known.backup_id and _NAME.match(known.backup_id) for name, known in accounts.items()
        ):
            raise ValueError
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError(f"{path} is not a manifest of version {_VERSION}: restore it from a backup") from None
    return Manifest(value["fleet_id"], accounts)


def render_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return the JSON object of a manifest."""
    accounts = {
        name: {
            "backup_id": known.backup_id,
            "keys": {repository: list(prints) for repository, prints in known.keys.items()},
            "locked": known.locked,
            **({"definitions": dict(known.definitions)} if known.definitions else {}),
            **({"end": True} if known.end else {}),
            **({"retired": list(known.retired)} if known.remembers else {}),
        }
        for name, known in manifest.accounts.items()
    }
    return {"version": _VERSION, "fleet_id": manifest.fleet_id, "accounts": accounts}


def unite(before: Manifest | None, after: Mapping[str, Known], fleet_id: str, end: Iterable[str] = ()) -> Manifest:
    """Return the manifest that holds while lines are written: what was there, what will be, and whose sessions have to end."""
    accounts = dict(before.accounts) if before is not None else {}
    for name, known in after.items():
        was = accounts.get(name, Known(known.backup_id))
        old, retired = was.keys, tuple(dict.fromkeys((*was.retired, *known.retired)))
        keys = {
            repository: tuple(dict.fromkeys((*old.get(repository, ()), *known.keys.get(repository, ()))))
            for repository in sorted({*old, *known.keys})
        }
        # What lost access is ended in every run.
        end_ = known.end or (name in end and not known.locked)
        accounts[name] = replace(known, keys=keys, end=end_, retired=retired, remembers=was.remembers)
    return Manifest(fleet_id, accounts)


def render_line(command: str, backup_id: str, key: Key, blob: str, since: str) -> str:
    """Return the line of one key. Every part was checked: nothing here can end an option or the line."""
    sources = f',from="{",".join(key.sources)}"' if key.sources else ""
    comment = f"{backup_id} {key.repository} {since}".rstrip()
    return f'restrict,command="{command} {key.repository}"{sources} {TYPE} {blob} {comment}'


@dataclass(frozen=True)
class _Line:
    number: int
    text: str
    blob: str | None
    repository: str | None
    sources: tuple[str, ...] = ()
    since: str = ""


def _parse_lines(text: str, command: str) -> list[_Line]:
    """Return the lines of a key file; `repository` only of one that is written exactly as we do."""
    ours = re.compile(
        rf'\Arestrict,command="{re.escape(command)} (?P<repository>[a-z0-9-]+)"(,from="(?P<sources>[0-9A-Fa-f.:/,]+)")? '
        rf"{TYPE} (?P<blob>[A-Za-z0-9+/]{{68}}) [a-z0-9-]+ (?P=repository)(?: (?P<since>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}))?\Z"
    )
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        found = ours.match(line)
        blob = found["blob"] if found else next(iter(_BLOB.findall(line)), None)
        sources = tuple(found["sources"].split(",")) if found and found["sources"] else ()
        since = (found["since"] if found else None) or ""
        lines.append(_Line(number, line, blob, found["repository"] if found else None, sources, since))
    return lines


def _narrower(before: Iterable[str], after: Iterable[str]) -> bool:
    """Tell whether some address that a key was good from is none any more; no addresses are all of them."""
    old, new = tuple(before) or ("0.0.0.0/0", "::/0"), tuple(after) or ("0.0.0.0/0", "::/0")
    try:
        allowed = [ipaddress.ip_network(each, strict=False) for each in new]
        return not all(_within(ipaddress.ip_network(each, strict=False), allowed) for each in old)
    except ValueError:
        return True  # written by hand


def _within(network: _Network, allowed: Iterable[_Network]) -> bool:
    return any(
        each.version == network.version
        and int(each.network_address) <= int(network.network_address)
        and int(network.broadcast_address) <= int(each.broadcast_address)
        for each in allowed
    )


def _shown(line: _Line) -> str:
    """Return a line's number and the fingerprint of its key, never the key."""
    try:
        return f"{line.number} ({fingerprint(line.blob) if line.blob else 'no key'})"
    except ValueError:
        return f"{line.number} (no key)"


def plan_accounts(accounts: Iterable[Account], current: Current, manifest: Manifest | None, policy: Policy) -> Outcome:
    """Return the new state. Raises ValueError when this is another fleet's server, or too many hosts would lose access."""
    outcome = Outcome()
    known = manifest.accounts if manifest is not None else {}
    declared = {account.name: account for account in accounts}
    usable = {name: account for name, account in declared.items() if _usable(account, current, outcome)}
    lines = {name: _parse_lines(text, policy.command) for name, text in current.files.items()}
    blobs = _choose(usable, lines, known, manifest is None, policy, outcome)
    for name, account in usable.items():
        _plan_account(account, current, policy, outcome)
        _plan_file(
            account, blobs[name], lines.get(name, []), known.get(name, Known(account.backup_id)), policy, outcome
        )
    _revoke(declared, current, lines, known, outcome)
    _wait(usable, known, policy, outcome)
    _plan_groups(usable, current, outcome)
    lost = {name.split(" ")[0] for name in outcome.revoked_keys} | set(outcome.revoked)
    if manifest is None:
        # The manifest was lost: whoever has a key file may be ours.
        lost |= {name.split(" ")[0] for name in outcome.foreign}
    problem = too_many(lost, {name: name[len(PREFIX) :] for name in lost}, policy.revoke_max)
    if problem:
        raise ValueError(problem)
    if policy.revoke_only:
        _take_away_only(usable, blobs, current, lines, known, outcome)
    _warn(outcome)
    return outcome


def _warn(outcome: Outcome) -> None:
    """Say what somebody should look at; what was refused is said with its reason."""
    told = {f"{name} {why.partition(':')[0]}" for name, reasons in outcome.refused.items() for why in reasons}
    stale = set(outcome.stale) - told
    kept, missing = (sorted(set(labels) - told - stale) for labels in (outcome.kept, outcome.missing))
    if stale:
        stay, out = (", ".join(sorted(stale & set(labels))) for labels in (outcome.kept, outcome.missing))
        what = [f"the lines of {stay} that this server has stay"] * bool(stay) + [f"{out} is not served"] * bool(out)
        outcome.warnings.append(
            f"{', '.join(sorted(stale))}: the state directory has a public key that this server replaced or revoked, so it is "
            f"older than that: {', and '.join(what)}: {NEWEST}"
        )
    cure = "run the playbook where these clients can be reached, and without a --limit that leaves them out"
    if kept:
        outcome.warnings.append(
            f"no public key was delivered for {', '.join(kept)}: the lines that this server has for them stay: {cure}"
        )
    if missing:
        outcome.warnings.append(f"no public key is known for {', '.join(missing)}: they are not served: {cure}")


def _usable(account: Account, current: Current, outcome: Outcome) -> bool:
    """Tell whether the account is ours or not there yet; an account of somebody else is never taken over."""
    there = current.system.get(account.name)
    if there is None or _is_ours(there, account.backup_id):
        return True
    outcome.refuse(
        account.name,
        f"the host has an account {account.name} (uid {there.uid}) that is not ours: remove it, or choose another backup_id",
    )
    return False


def _is_ours(system: System, backup_id: str) -> bool:
    """Tell whether we made this account: nothing is done to another, nor to its processes."""
    return system.comment == comment_of(backup_id) and system.uid != 0


def _choose(
    accounts: Mapping[str, Account],
    lines: Mapping[str, list[_Line]],
    known: Mapping[str, Known],
    lost: bool,
    policy: Policy,
    outcome: Outcome,
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the blobs of each account's repositories. A blob opens one repository; who had it first keeps it."""
    chosen: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in accounts}
    for name, account in accounts.items():
        for key in account.keys:
            blobs: list[str] = []
            problems = []
            for text in key.public_keys:
                if policy.check_mode and text == PLACEHOLDER:
                    blobs.append(PLACEHOLDER)
                    continue
                try:
                    blobs.append(parse_public_key(text))
                except ValueError as error:
                    problems.append(f"{key.repository}: the public key {error}")
            if problems or not blobs:
                blobs = _served(key.repository, lines.get(name, []), known.get(name), lost)
                (outcome.kept if blobs else outcome.missing).append(f"{name} {key.repository}")
            old = _outdated(key, blobs, known.get(name))
            if old and not problems:
                served = _served(key.repository, lines.get(name, []), known.get(name), lost)
                # One that is neither is newer than what was replaced: handed over to bring the client back.
                blobs = [*served, *(blob for blob in blobs if blob not in old)]
                if set(blobs) <= set(served):
                    (outcome.kept if blobs else outcome.missing).append(f"{name} {key.repository}")
                    outcome.stale.append(f"{name} {key.repository}")
            for problem in problems:
                outcome.refuse(name, problem)
            chosen[name][key.repository] = tuple(dict.fromkeys(blobs))
    owners: dict[str, list[tuple[str, str]]] = {}
    for name, repositories in chosen.items():
        for repository, found in repositories.items():
            for blob in found:
                if blob != PLACEHOLDER:
                    owners.setdefault(blob, []).append((name, repository))
    for blob, claimants in owners.items():
        if len(claimants) < 2:
            continue
        first = [
            (name, repository)
            for name, repository in claimants
            if fingerprint(blob) in known.get(name, Known("")).keys.get(repository, ())
        ]
        if not first and not lost:
            # Who is served already has no need of the key that somebody new comes with.
            first = [claim for claim in claimants if not any(known.get(claim[0], Known("")).keys.values())]
        for name, repository in claimants:
            if len(first) == 1 and (name, repository) in first:
                continue
            left = tuple(each for each in chosen[name][repository] if each != blob)
            if not left:
                served = _served(repository, lines.get(name, []), known.get(name), lost)
                left = tuple(each for each in served if each != blob)
                label = f"{name} {repository}"
                if label not in (*outcome.kept, *outcome.missing):
                    (outcome.kept if left else outcome.missing).append(label)
            chosen[name][repository] = left
            others = ", ".join(f"{other} {its}" for other, its in claimants if (other, its) != (name, repository))
            cure = "let its host make one for each"
            if any(other != name for other, _its in claimants):
                cure = (
                    "one of these hosts copied it, and is hostile: decommission that one; the other has its private key, "
                    f"ssh-keygen -yf /etc/holdfast/secrets/{repository}.ssh_key shows"
                )
            outcome.refuse(name, f"{repository}: the public key {fingerprint(blob)} is also that of {others}: {cure}")
    return chosen


def _outdated(key: Key, blobs: Iterable[str], known: Known | None) -> set[str]:
    """Return what is only remembered of a client, and was replaced or revoked before: an old state directory has it."""
    retired = known.retired if known is not None and not key.heard else ()
    return {blob for blob in blobs if blob != PLACEHOLDER and fingerprint(blob) in retired}


def _retired(before: Known, wanted: Mapping[str, tuple[str, ...]], keys: Iterable[Key] = ()) -> tuple[str, ...]:
    """Return what an account was let in by once, and is not any more. Of a repository with nothing, nothing was replaced.

    Nor by a key that nobody heard, where nothing is remembered: that one may be the older one.
    """
    now = {_print(blob) for blobs in wanted.values() for blob in blobs}
    unsure = {key.repository for key in keys if not key.heard and not before.remembers}
    once = [
        each for name, prints in before.keys.items() if wanted.get(name, ("",)) for each in prints if name not in unsure
    ]
    return tuple(each for each in dict.fromkeys((*before.retired, *once)) if each not in now)[-REMEMBERED:]


def _served(repository: str, lines: Iterable[_Line], known: Known | None, lost: bool) -> list[str]:
    """Return the blobs that the server has for a repository, if it was us who put them there."""
    prints = known.keys.get(repository, ()) if known is not None else ()
    return [
        line.blob
        for line in lines
        if line.blob is not None and line.repository == repository and (lost or fingerprint(line.blob) in prints)
    ]


def _plan_account(account: Account, current: Current, policy: Policy, outcome: Outcome) -> None:
    there = current.system.get(account.name)
    if there is None:
        outcome.created.append(account.name)
        return
    if there.password.startswith("!") or there.expires not in ("", "-1"):
        outcome.unlocked.append(account.name)
    if there.password.lstrip("!") != "*" or (there.home, there.shell) != (policy.home, SHELL):
        outcome.corrected.append(account.name)
    # usermod refuses another home as long as the account has processes. Where none is given, nobody has to end for it.
    if there.home != policy.home and not policy.revoke_only and not policy.in_force:
        outcome.end.add(account.name)


def _plan_file(
    account: Account,
    blobs: Mapping[str, tuple[str, ...]],
    lines: list[_Line],
    known: Known,
    policy: Policy,
    outcome: Outcome,
) -> None:
    """Plan an account's key file, and say what was in it that does not belong there."""
    name = account.name
    wanted: list[str] = []
    since = {(line.repository, line.blob): line.since for line in lines}
    for key in account.keys:
        label = f"{name} {key.repository}"
        texts = [
            render_line(policy.command, account.backup_id, key, blob, since.get((key.repository, blob), policy.today))
            for blob in blobs[key.repository]
        ]
        wanted += texts
        before = [line.text for line in lines if line.repository == key.repository]
        if texts and (name in outcome.created or (not before and not known.keys.get(key.repository))):
            outcome.created_keys.append(label)
        elif texts != before and (texts or before):
            outcome.changed_keys.append(label)
    for repository in sorted(set(known.keys) - {key.repository for key in account.keys}):
        outcome.revoked_keys.append(f"{name} {repository}")
    declared = {blob for found in blobs.values() for blob in found}
    ours = {print_ for prints in known.keys.values() for print_ in prints}
    seen: set[str | None] = {None}
    odd: list[str] = []
    sources = {key.repository: key.sources for key in account.keys}
    for line in lines:
        known_key = line.blob in declared or (line.blob is not None and _print(line.blob) in ours)
        # A second line of a key, or one that somebody edited, lets the key do something else.
        if not known_key or line.blob in seen or line.repository is None:
            outcome.foreign.append(f"{name} line {line.number}")
            odd.append(_shown(line))
            outcome.end.add(name)
        elif line.blob not in blobs.get(line.repository, ()) or _narrower(line.sources, sources[line.repository]):
            outcome.end.add(name)
        seen.add(line.blob)
    if odd:
        outcome.warnings.append(
            f"{name}: lines of its key file do not belong there: {few(odd)}: they are removed, and its sessions are ended"
        )
    if known.end or ours - {_print(blob) for blob in declared}:
        outcome.end.add(name)
    outcome.files[name] = "".join(f"{line}\n" for line in wanted)
    keys = {
        key.repository: tuple(_print(blob) for blob in blobs[key.repository] if blob != PLACEHOLDER)
        for key in account.keys
        if blobs[key.repository]
    }
    definitions = {key.repository: key.definition for key in account.keys if key.definition}
    outcome.manifest[name] = Known(
        account.backup_id, keys, definitions=definitions, retired=_retired(known, blobs, account.keys)
    )


def _print(blob: str) -> str:
    """Return the fingerprint of whatever looks like a blob."""
    try:
        return fingerprint(blob)
    except ValueError:
        return blob


def _rights(definition: str) -> dict[str, Any] | None:
    """Return what the role says of a client's rights, None where it is other words."""
    try:
        rights = json.loads(definition)
    except ValueError:
        return None
    return rights if isinstance(rights, dict) else None


def _loses(before: str, after: str) -> bool:
    """Tell whether a session that began under one definition may do what it could not under the other one."""
    old, new = _rights(before), _rights(after)
    if old is None or new is None:
        return before != after
    # Was recorded once, and gives nobody anything.
    keys = {*old, *new} - {"arguments"}
    return not all(old.get(key) == new.get(key) or _wider(key, old.get(key), new.get(key)) for key in keys)


def _wider(key: str, old: Any, new: Any) -> bool:
    """Tell whether the new value of a right allows whatever the old one does. A quota is raised where a backup does not fit."""
    if key == "quota":
        return _size(old) <= _size(new)
    return (key, old, new) in (("append_only", True, False), ("confine", "required", "if_possible"))


def _size(quota: Any) -> float:
    """Return the bytes of a quota as borg counts them; of another spelling what is neither more nor less than anything."""
    if quota is None:
        return math.inf
    found = _SIZE.match(str(quota))
    return float(int(found[1]) * 1000 ** " KMGT".index(found[2] or " ")) if found else math.nan


def _wait(accounts: Mapping[str, Account], known: Mapping[str, Known], policy: Policy, outcome: Outcome) -> None:
    """Plan the end of sessions that a definition of before allowed. It stays on record until that one is out of force."""
    for name, account in accounts.items():
        before = known[name].definitions if name in known else {}
        other = [
            key
            for key in account.keys
            if key.definition and _loses(before.get(key.repository, key.definition), key.definition)
        ]
        if not other:
            continue
        outcome.sessions_pending.append(name)
        if not policy.in_force:
            kept = {key.repository: before[key.repository] for key in other}
            now = outcome.manifest[name]
            outcome.manifest[name] = replace(now, definitions={**now.definitions, **kept})
    if policy.in_force:
        # The lines are, too: what they end, the execution that wrote them did, or tried to.
        failed = {name for name in accounts if name in known and known[name].end}
        for name in failed:
            outcome.manifest[name] = replace(outcome.manifest[name], end=True)
        outcome.end = set(outcome.sessions_pending) - outcome.end
        outcome.sessions_pending = []


def _revoke(
    declared: Mapping[str, Account],
    current: Current,
    lines: Mapping[str, list[_Line]],
    known: Mapping[str, Known],
    outcome: Outcome,
) -> None:
    """Take access from accounts of ours that are not declared, and key files from accounts that nobody knows."""
    for name, before in known.items():
        if name in declared:
            if name in outcome.refused and name not in outcome.manifest:
                outcome.manifest[name] = before
            continue
        outcome.manifest[name] = Known(before.backup_id, {}, locked=True, retired=_retired(before, {}))
        there = current.system.get(name)
        if not before.locked:
            outcome.revoked.append(name)
            outcome.revoked_keys += [f"{name} {repository}" for repository in before.keys]
        elif name in current.files:
            _foreign_file(name, lines, outcome)
        if there is not None and _is_ours(there, before.backup_id):
            if not there.password.startswith("!") or there.expires != "1":
                outcome.locked.append(name)
            outcome.end.add(name)
    for name in current.files:
        if name in known or name in outcome.manifest:
            continue
        there = current.system.get(name)
        if there is not None and not _is_ours(there, name[len(PREFIX) :]):
            outcome.theirs.append(name)
            outcome.warnings.append(
                f"{name}: is an account of somebody else, so its key file stays, and sshd lets every {PREFIX}* only serve "
                "repositories: rename the account (usermod -l)"
            )
            continue
        _foreign_file(name, lines, outcome)
        if there is not None:
            outcome.end.add(name)


def _foreign_file(name: str, lines: Mapping[str, list[_Line]], outcome: Outcome) -> None:
    outcome.foreign.append(name)
    shown = few([_shown(line) for line in lines[name]])
    outcome.warnings.append(f"{name}: is not served here, and has a key file: it is removed, with its lines {shown}")


def _plan_groups(accounts: Mapping[str, Account], current: Current, outcome: Outcome) -> None:
    wanted: dict[str, set[str]] = {group: set() for group in current.groups}
    for name, account in accounts.items():
        for group in account.groups:
            wanted.setdefault(group, set()).add(name)
    for group, members in sorted(wanted.items()):
        if group not in current.groups:
            outcome.groups_created.append(group)
        if members != current.groups.get(group, frozenset()):
            outcome.memberships[group] = frozenset(members)


def _take_away_only(
    accounts: Mapping[str, Account],
    blobs: Mapping[str, Mapping[str, tuple[str, ...]]],
    current: Current,
    lines: Mapping[str, list[_Line]],
    known: Mapping[str, Known],
    outcome: Outcome,
) -> None:
    """Leave of a plan what somebody loses. Who has a line that is still good keeps it as it is, whatever else would change."""
    given = "created corrected unlocked groups_created created_keys changed_keys kept missing sessions_pending"
    for each in given.split():
        setattr(outcome, each, [])
    for name, account in accounts.items():
        before = known.get(name, Known(account.backup_id))
        left: dict[str, list[_Line]] = {repository: [] for repository in blobs[name]}
        seen: set[str | None] = set()
        for line in lines.get(name, []) if not before.locked else ():
            if line.repository in left and line.blob in blobs[name][line.repository] and line.blob not in seen:
                left[line.repository].append(line)
                seen.add(line.blob)
        for repository, found in left.items():
            if found != [line for line in lines.get(name, []) if line.repository == repository]:
                outcome.changed_keys.append(f"{name} {repository}")
        outcome.files[name] = "".join(f"{line.text}\n" for found in left.values() for line in found)
        keys = {
            repository: tuple(_print(str(line.blob)) for line in found) for repository, found in left.items() if found
        }
        definitions = {repository: text for repository, text in before.definitions.items() if repository in left}
        retired = _retired(before, blobs[name], account.keys)
        outcome.manifest[name] = replace(
            before, keys=keys, definitions=definitions, end=False, retired=retired, remembers=True
        )
        if name not in known and not keys:
            del outcome.manifest[name]
    members = {group: names & set(accounts) for group, names in current.groups.items()}
    outcome.memberships = {group: names for group, names in members.items() if names != current.groups[group]}


def make_diff(current: Current, outcome: Outcome) -> list[dict[str, str]]:
    """Return the differences of key files and groups; public keys are no secrets."""
    differences = [
        _diff(name, current.files.get(name, ""), outcome.files.get(name, ""))
        for name in sorted({*current.files, *outcome.files})
        if current.files.get(name, "") != outcome.files.get(name, "") and name not in outcome.theirs
    ]
    for group, members in outcome.memberships.items():
        before = "".join(f"{name}\n" for name in sorted(current.groups.get(group, ())))
        differences.append(_diff(f"group {group}", before, "".join(f"{name}\n" for name in sorted(members))))
    for verb in ("created", "corrected", "locked", "unlocked"):
        names = getattr(outcome, verb)
        if names:
            differences.append({"prepared": f"accounts {verb}: {', '.join(sorted(names))}\n"})
    return differences


def _diff(header: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": header, "after_header": header, "before": before, "after": after}
