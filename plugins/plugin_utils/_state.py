# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state directory on the controller: where it is, what is in it, and how it is changed.

    fleet.json                                {"fleet_id": …}
    hosts/<host>/rest/<repository>.json       {"user": …, "hash": …, "next_hash": …}
    hosts/<host>/ssh/<repository>.pub         public key of a client, and the next one on a second line
    hosts/<host>/identity.json                the backup_id that the secrets of each repository of a client were made for
    hosts/<host>/ssh_host_keys                public host keys of a server, one a line
    hosts/<host>/escrow/<repository>/<bundle> add-only
    hosts/<host>/ca.pem                       CA certificates of a server
    hosts/<host>/rendered.json                what a server was last rendered with
    hosts/<host>/ssh_rendered.json            the same for repositories over SSH
    hosts/<host>/decommissioned.json          when a host was given up
    hosts/<host>/handed_over.json             where servers that are managed elsewhere serve a client's repositories

Hosts deliver some of the contents, so each is checked before it is written. All errors are ValueError.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import errno
import json
import os
import re
import secrets
import ssl
import stat
import typing as t
import urllib.parse

from ansible_collections.holdfast.backup.plugins.module_utils import _bcrypt, _escrow, _ssh
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree, UnsafePathError
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import shorten

DEFAULT = "holdfast-state"
# Hosts that a message names where a whole group means the same.
NAMED = 5
MAX_BYTES = 64 * 1024
# What the controller itself computes of a server grows with its clients: about 300 bytes for a repository.
MAX_RENDERED_BYTES = 16 * 1024 * 1024
MAX_FILES = 1000
MAX_CERTIFICATES = 4
LOCK_SECONDS = 120.0

_RUNNER = "/runner"
_PLAIN_HOST = re.compile(r"\A[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_REPOSITORY = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
_REPOSITORY_NAME = re.compile(rf"\A{_REPOSITORY}\Z")
_REST_FILE = re.compile(rf"\Arest/({_REPOSITORY})\.json\Z")
_SSH_FILE = re.compile(rf"\Assh/({_REPOSITORY})\.pub\Z")
_ESCROW_FILE = re.compile(rf"\Aescrow/({_REPOSITORY})/([^/]+)\Z")
_REST_USER = re.compile(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")
_FLEET_ID = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9-]{7,63}\Z")
_CERTIFICATES = re.compile(
    r"\A(?:-----BEGIN CERTIFICATE-----\n(?:[A-Za-z0-9+/=]{1,76}\n)+-----END CERTIFICATE-----\n)+\Z"
)
_RENDERED = ("rendered.json", "ssh_rendered.json")
# What is read of each repository in ssh_rendered.json, beside two lists.
_SERVED: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("account", "kind", "host"), (str,)),
    **dict.fromkeys(("path", "remote", "quota"), (str, type(None))),
    "append_only": (bool,),
}
_REMOVABLE = (
    "ca.pem",
    "identity.json",
    "ssh_host_keys",
    *_RENDERED,
    "decommissioned.json",
    "handed_over.json",
)
_LINK = "{} is a link: the state directory holds none, replace it by what it leads to"
_ABSENT = (errno.ENOENT, errno.ENOTDIR)

T = t.TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Change:
    """What an update did, or would do in check mode; paths are relative to the state directory."""

    written: list[str]
    removed: list[str]
    directories: list[str]
    fleet_id: str | None


def resolve_state_dir(value: str, inventory_sources: t.Sequence[str]) -> str:
    """The absolute path of the state directory.

    A relative `value` is taken beside the one inventory file or directory. ValueError where no place is durable (no
    inventory file, several inventory directories, an execution environment that is thrown away), or where Ansible would
    read the state as inventory.
    """
    if not value or any(ord(character) < 32 for character in value):
        raise ValueError(f"backup_state_dir: {value!r} is no path: give an absolute directory on the controller")
    expanded = os.path.expanduser(value)
    if not os.path.isabs(expanded):
        expanded = os.path.join(_beside(inventory_sources), expanded)
    path = os.path.normpath(expanded)
    check_outside_inventory(path, inventory_sources)
    return path


def disagreement(named: t.Mapping[str, t.Any], inventory_sources: t.Sequence[str]) -> str:
    """What is wrong where hosts name several state directories, None for the default; empty where all mean the same."""
    places: dict[str | None, str] = {}
    hosts: dict[str, list[str]] = {}
    for host, given in named.items():
        value = None if given is None else str(given)
        if value not in places:
            # What is wrong with a single one is told elsewhere.
            with contextlib.suppress(ValueError):
                places[value] = resolve_state_dir(DEFAULT if value is None else value, inventory_sources)
        place = places.setdefault(value, str(value))
        hosts.setdefault(place, []).append(host)
    if len(hosts) < 2:
        return ""
    told = []
    for found in hosts.values():
        some = ", ".join(found[:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
        given = named[found[0]]
        told.append(f"{f'not set ({DEFAULT!r})' if given is None else shorten(str(given))} of {some}")
    return (
        f"backup_state_dir: is {', and '.join(told)}: a run has one state directory, and takes what its first host says."
        " Set it once for all hosts, in group_vars/all, or for one run with -e backup_state_dir="
    )


def check_outside_inventory(state_dir: str, inventory_sources: t.Sequence[str]) -> None:
    """ValueError if the state directory is inside an inventory directory: hosts could write the inventory."""
    real = os.path.realpath(state_dir)
    for source in inventory_sources:
        directory = os.path.realpath(source)
        if os.path.isdir(directory) and os.path.commonpath([real, directory]) == directory:
            raise ValueError(
                f"backup_state_dir: {state_dir} is inside the inventory directory {source}, where Ansible would read what"
                " hosts deliver as inventory: set it to a directory outside"
            )


def _beside(inventory_sources: t.Sequence[str]) -> str:
    cure = "set backup_state_dir to an absolute directory that is kept"
    directories, beside = set(), ""
    for source in inventory_sources:
        if not os.path.exists(source):
            raise ValueError(
                f"backup_state_dir: the inventory source {source!r} is no file, so there is nothing to keep state"
                f" beside: {cure}"
            )
        absolute = os.path.abspath(source)
        beside = os.path.dirname(absolute)
        directories.add(absolute if os.path.isdir(absolute) else beside)
    if len(directories) != 1:
        found = ", ".join(sorted(directories)) or "none"
        raise ValueError(f"backup_state_dir: there is not exactly one inventory directory ({found}): {cure}")
    if beside == _RUNNER or beside.startswith(_RUNNER + "/"):
        raise ValueError(
            f"backup_state_dir: {beside} is inside an execution environment, which is thrown away: {cure}, mounted into"
            " the execution environment"
        )
    return beside


def host_directory(host: str) -> str:
    """The directory name of a host: its inventory name, percent-encoded where that is no plain file name."""
    name = host if _PLAIN_HOST.match(host) else urllib.parse.quote(host, safe="").replace(".", "%2E")
    if not 0 < len(name) <= 200:
        raise ValueError(f"host name {host[:80]!r} is empty or too long for the state directory")
    return name


def read_fleet_id(state_dir: str) -> str | None:
    """The fleet's id, None before the first run."""
    content = _read_json(state_dir, "fleet.json")
    if content is None:
        return None
    fleet_id = content.get("fleet_id")
    if not isinstance(fleet_id, str) or not _FLEET_ID.match(fleet_id):
        raise ValueError(f"{state_dir}/fleet.json holds no valid fleet_id: restore it, from version control say")
    return fleet_id


def read_host(state_dir: str, host: str) -> dict[str, t.Any]:
    """What the state directory has of a host: rest, ssh, escrow, identities, ca, ssh_host_keys, rendered, ssh_rendered, decommissioned.

    Missing things are empty.
    """
    found, damaged = examine_host(state_dir, host)
    if damaged:
        raise ValueError(damaged[0])
    return found


def examine_host(state_dir: str, host: str) -> tuple[dict[str, t.Any], list[str]]:
    """The same, and what is wrong with files of this host, which then count as missing: they must not stop the others."""
    look = _Look(state_dir, f"hosts/{host_directory(host)}")
    found = {
        "rest": look.each("rest", _REST_FILE, _check_rest),
        "ssh": look.each("ssh", _SSH_FILE, _check_keys),
        "escrow": {repository: bundles for repository in look.names("escrow") if (bundles := look.bundles(repository))},
        "identities": look.one("identity.json", _check_identity) or {},
        "ca": look.one("ca.pem", _check_ca),
        "ssh_host_keys": look.one("ssh_host_keys", _check_host_keys) or [],
        "rendered": look.one("rendered.json", _check_rendered),
        "ssh_rendered": look.one("ssh_rendered.json", _check_ssh_rendered),
        "decommissioned": look.one("decommissioned.json", _parse_json),
    }
    if found["decommissioned"] is None and os.path.lexists(look.path("decommissioned.json")):
        # Whatever it said: that it is there is enough to let nobody in again.
        found["decommissioned"] = {"damaged": True}
    return found, list(dict.fromkeys(look.damaged))


class _Look:
    """Reads the files of one host, and notes which are damaged."""

    def __init__(self, state_dir: str, base: str) -> None:
        self._dir = state_dir
        self._base = base
        self.damaged: list[str] = []

    def path(self, name: str) -> str:
        return f"{self._dir}/{self._base}/{name}"

    def names(self, folder: str) -> list[str]:
        try:
            return _names(self._dir, f"{self._base}/{folder}")
        except ValueError as error:
            self.damaged.append(str(error))
            return []

    def one(self, name: str, check: t.Callable[[str, bytes], T]) -> T | None:
        """What `check` makes of a file; None where there is none, or it is damaged."""
        try:
            content = _read(self._dir, f"{self._base}/{name}")
            return None if content is None else check(self.path(name), content)
        except ValueError as error:
            self.damaged.append(str(error))
            return None

    def each(self, folder: str, pattern: re.Pattern[str], check: t.Callable[[str, bytes], T]) -> dict[str, T]:
        """The same of each file of a folder, by the name of its repository."""
        matches = [pattern.match(f"{folder}/{name}") for name in self.names(folder)]
        checked = {match.group(1): self.one(match.group(), check) for match in matches if match}
        return {repository: value for repository, value in checked.items() if value is not None}

    def bundles(self, repository: str) -> list[str]:
        """The names of those bundles that are some. From an empty file, or a pointer of git-lfs, nobody restores."""
        found, damaged = [], []
        for name in filter(_is_bundle, self.names(f"escrow/{repository}")):
            path = self.path(f"escrow/{repository}/{name}")
            try:
                _check_bundle(path, _content(path, MAX_BYTES) or b"")
                found.append(name)
            except ValueError as error:
                damaged.append(str(error))
        if damaged:
            # Of a checkout that went wrong all may be.
            others = f", and {len(damaged) - 1} more in that directory" if damaged[1:] else ""
            self.damaged.append(f"{damaged[0]}{others}")
        return found


def bundles(state_dir: str, host: str, repository: str) -> list[str]:
    """The names of the escrow bundles of a repository."""
    names = _names(state_dir, f"hosts/{host_directory(host)}/escrow/{repository}")
    return [name for name in names if _is_bundle(name)]


def read_bundle(state_dir: str, host: str, repository: str, name: str) -> bytes | None:
    """An escrow bundle, None if there is none."""
    return _read(state_dir, f"hosts/{host_directory(host)}/escrow/{repository}/{name}") if _is_bundle(name) else None


def read_handed_over(state_dir: str, host: str) -> dict[str, t.Any] | None:
    """What hand-over files said of a client's repositories on servers that are managed elsewhere, None before any was imported."""
    return _read_json(state_dir, f"hosts/{host_directory(host)}/handed_over.json")


def update(
    state_dir: str,
    host: str | None,
    *,
    write: t.Mapping[str, t.Any],
    remove: t.Sequence[str] = (),
    make_fleet_id: bool = False,
    fleet_id: str | None = None,
    check_mode: bool = False,
) -> Change:
    """Bring the state directory to what is asked for; in check mode only tell what that would change.

    `write` has contents by path below the host's directory: a string, ``{"b64": …}``, or a mapping to be kept as JSON.
    Everything is checked before anything is written. A bundle that is there stays as it is.
    """
    if not os.path.isabs(state_dir):
        raise ValueError(f"path: {state_dir!r} is not absolute")
    if (write or remove) and host is None:
        raise ValueError("host: needed to write or remove")
    if len(write) > MAX_FILES:
        raise ValueError(f"write: {len(write)} files are more than {MAX_FILES}")
    base = f"hosts/{host_directory(host)}" if host is not None else ""
    contents: dict[str, bytes | None] = {}
    for relative, value in write.items():
        if check_mode and UNBORN in relative + json.dumps(value):
            _check_name(relative.replace(UNBORN, "0" * 32 + ".json"))
            contents[f"{base}/{relative}"] = None
        else:
            contents[f"{base}/{relative}"] = _check_content(relative, value)
    for relative in remove:
        if relative not in _REMOVABLE and not _REST_FILE.match(relative) and not _SSH_FILE.match(relative):
            raise ValueError(f"remove: {relative!r} is nothing that may be removed; escrow bundles never are")
    if fleet_id is not None and not _FLEET_ID.match(fleet_id):
        raise ValueError(f"fleet_id: {fleet_id!r} is not 8 to 64 letters, digits and hyphens")
    real = os.path.realpath(state_dir)
    try:
        return _Update(real, check_mode).run(
            contents, [f"{base}/{relative}" for relative in remove], make_fleet_id=make_fleet_id, fleet_id=fleet_id
        )
    except (UnsafePathError, OSError) as error:
        raise ValueError(str(error)) from None


class _Update:
    """One locked change of the state directory."""

    def __init__(self, state_dir: str, check_mode: bool) -> None:
        self._dir = state_dir
        self._check_mode = check_mode
        self._written: list[str] = []
        self._removed: list[str] = []
        self._directories: list[str] = []

    def run(
        self, contents: dict[str, bytes | None], remove: list[str], *, make_fleet_id: bool, fleet_id: str | None
    ) -> Change:
        directories = self._needed_directories([*contents, *remove])
        # Whoever may write above the state directory is trusted like the user who runs Ansible: it is their project.
        trusted = [os.path.join(self._dir, directory) for directory in directories]
        trusted += _ancestors(self._dir)
        with Tree() as tree:
            tree.trust(trusted)
            present = tree.directory_entry(self._dir) is not None
            if contents or make_fleet_id or fleet_id is not None or (remove and present):
                self._directory(tree, "")
                if not self._check_mode:
                    tree.lock(self._dir, timeout=LOCK_SECONDS)
                found = self._fleet(tree, make_fleet_id, fleet_id)
                for directory in self._needed_directories(list(contents)):
                    if directory:
                        self._directory(tree, directory)
                for path, content in contents.items():
                    self._write(tree, path, content)
                for path in remove:
                    self._remove(tree, path)
            else:
                found = read_fleet_id(self._dir)
        return Change(self._written, self._removed, self._directories, found)

    @staticmethod
    def _needed_directories(paths: list[str]) -> list[str]:
        needed = {""}
        for path in paths:
            parts = path.split("/")[:-1]
            needed.update("/".join(parts[: length + 1]) for length in range(len(parts)))
        return sorted(needed)

    def _full(self, relative: str) -> str:
        return os.path.join(self._dir, relative) if relative else self._dir

    def _directory(self, tree: Tree, relative: str) -> None:
        entry = tree.entry(self._full(relative))
        if entry is not None and entry.kind != "directory":
            raise ValueError(f"{self._full(relative)} is no directory (links are refused): move it away")
        if entry is not None and (entry.uid, entry.mode) == (os.geteuid(), 0o700):
            return
        self._directories.append(relative or ".")
        if self._check_mode:
            return
        owner = {"uid": os.geteuid(), "gid": os.getegid()}
        for missing in _missing(self._full(relative)):
            # Another controller, or another host's task of this one, may be making the same state directory.
            with contextlib.suppress(FileExistsError):
                tree.make_directory(missing, **owner, mode=0o700)
        tree.set_directory(self._full(relative), **owner, mode=0o700)

    def _fleet(self, tree: Tree, make: bool, wanted: str | None) -> str | None:
        found = read_fleet_id(self._dir)
        if wanted is not None and found not in (None, wanted):
            raise ValueError(
                f"fleet_id: the state directory {self._dir} belongs to the fleet {found}, not {wanted}:"
                f" set backup_state_dir to the directory of this fleet or, where that is lost, remove {self._dir}/fleet.json"
            )
        if found is not None or not (make or wanted):
            return found
        new = wanted or secrets.token_hex(16)
        self._write(tree, "fleet.json", _json({"fleet_id": new}))
        return UNBORN if self._check_mode and wanted is None else new

    def _write(self, tree: Tree, relative: str, content: bytes | None) -> None:
        path = self._full(relative)
        entry = tree.entry(path)
        if entry is not None and entry.kind != "file":
            raise ValueError(f"{path} is no regular file (links are refused): move it away")
        # hosts/<host>/escrow/<repository>/<bundle>; a host may be called escrow, too.
        if entry is not None and _ESCROW_FILE.match(relative.split("/", 2)[-1]):
            return
        if entry is not None and (entry.uid, entry.mode, entry.content) == (os.geteuid(), 0o600, content):
            return
        self._written.append(relative)
        if not self._check_mode and content is not None:
            tree.write(path, content, uid=os.geteuid(), gid=os.getegid(), mode=0o600)

    def _remove(self, tree: Tree, relative: str) -> None:
        if tree.entry(self._full(relative)) is not None:
            self._removed.append(relative)
            if not self._check_mode:
                tree.unlink(self._full(relative))


def _ancestors(path: str) -> list[str]:
    found = []
    while path != "/":
        path = os.path.dirname(path)
        found.append(path)
    return found


def _missing(path: str) -> list[str]:
    return [each for each in [*reversed(_ancestors(path)), path] if not os.path.exists(each)]


def _json(value: t.Mapping[str, t.Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def _is_bundle(name: str) -> bool:
    return _escrow.BUNDLE_NAME.match(name) is not None


def _check_name(relative: str) -> None:
    bundle = _ESCROW_FILE.match(relative)
    if relative in _REMOVABLE or _REST_FILE.match(relative) or _SSH_FILE.match(relative):
        return
    if bundle and _is_bundle(bundle.group(2)):
        return
    raise ValueError(
        f"write: {relative[:200]!r} is none of rest/<repository>.json, ssh/<repository>.pub, escrow/<repository>/<bundle>,"
        f" {', '.join(_REMOVABLE)}"
    )


def _check_content(relative: str, value: t.Any) -> bytes:
    """The bytes to keep at `relative`. ValueError names the path, and never shows the content."""
    _check_name(relative)
    where = f"write: {relative}"
    content = _bytes(where, value)
    if len(content) > _most(relative):
        raise ValueError(f"{where}: {len(content)} bytes are more than {_most(relative)}")
    if relative == "ca.pem":
        check_certificates(where, content)
    elif _REST_FILE.match(relative):
        content = _json(_check_rest(where, content))
    elif _SSH_FILE.match(relative):
        _check_keys(where, content)
    elif relative == "ssh_host_keys":
        _check_host_keys(where, content)
    elif _ESCROW_FILE.match(relative):
        _check_bundle(where, content)
    elif relative == "identity.json":
        content = _json({"repositories": _check_identity(where, content)})
    else:
        content = _json(_CHECKS.get(relative, _parse_json)(where, content))
    return content


def _check_bundle(where: str, content: bytes) -> None:
    if not where.endswith(".age"):
        _parse_json(where, content)
    elif not content.startswith(_escrow.AGE_MAGIC):
        raise ValueError(f"{where}: not encrypted by age")


def _most(relative: str) -> int:
    """The largest size of a file, in bytes."""
    return MAX_RENDERED_BYTES if os.path.basename(relative) in _RENDERED else MAX_BYTES


def _bytes(where: str, value: t.Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error:
            raise ValueError(f"{where}: `b64` is not base64") from None
    if isinstance(value, dict):
        return _json(value)
    raise ValueError(f"{where}: give a string, a mapping, or a mapping with `b64`")


def _parse_json(where: str, content: bytes) -> dict[str, t.Any]:
    try:
        parsed = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError(f"{where}: not a JSON object")
    return parsed


def _check_rest(where: str, content: bytes) -> dict[str, t.Any]:
    parsed = _parse_json(where, content)
    hashes = [parsed.get("hash")] + ([parsed["next_hash"]] if parsed.get("next_hash") is not None else [])
    user = parsed.get("user")
    if not set(parsed) <= {"user", "hash", "next_hash"} or not isinstance(user, str) or not _REST_USER.match(user):
        raise ValueError(f"{where}: not {{user, hash, next_hash}} with a valid user")
    for each in hashes:
        cost = _bcrypt.cost_of(each) if isinstance(each, str) else None
        if cost is None or not _bcrypt.MIN_COST <= cost <= _bcrypt.MAX_COST:
            raise ValueError(
                f"{where}: a hash is not bcrypt ($2b$) of a cost between {_bcrypt.MIN_COST} and {_bcrypt.MAX_COST}"
            )
    return {"user": user, "hash": hashes[0], "next_hash": parsed.get("next_hash")}


def _check_rendered(where: str, content: bytes) -> dict[str, t.Any]:
    parsed = _parse_json(where, content)
    if not (
        _is_map(parsed.get("users", {})) and _is_map(parsed.get("quotas", {})) and _is_list(parsed.get("names", []))
    ):
        raise ValueError(f"{where}: not what a server was rendered with")
    return parsed


def _check_ssh_rendered(where: str, content: bytes) -> dict[str, t.Any]:
    parsed = _parse_json(where, content)
    served = parsed.get("repositories", {})
    if not isinstance(served, dict) or not all(map(_is_served, served.values())):
        raise ValueError(f"{where}: not what a server was rendered with")
    return parsed


def _is_served(value: t.Any) -> bool:
    if not isinstance(value, dict) or not _is_list(value.get("from")) or not _is_list(value.get("keys")):
        return False
    return all(key in value and isinstance(value[key], kinds) for key, kinds in _SERVED.items())


def _is_list(value: t.Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_map(value: t.Any) -> bool:
    return isinstance(value, dict) and _is_list(list(value.values()))


def _check_identity(where: str, content: bytes) -> dict[str, str]:
    found = _parse_json(where, content).get("repositories")
    names = [*found, *found.values()] if isinstance(found, dict) else [None]
    if not all(isinstance(name, str) and _REPOSITORY_NAME.match(name) for name in names):
        raise ValueError(f"{where}: not {{repositories}} with a backup_id for each")
    return t.cast("dict[str, str]", found)


def _check_keys(where: str, content: bytes) -> dict[str, str | None]:
    """The key in use and the next one of a client's file."""
    lines = _lines(where, content)
    try:
        keys = [_ssh.public_key(line) for line in lines]
    except _ssh.SshError as error:
        raise ValueError(f"{where}: no public key of SSH: {error}") from None
    if not 1 <= len(keys) <= 2 or len(set(keys)) != len(keys):
        raise ValueError(f"{where}: not one or two different public keys of SSH, one a line")
    return {"key": keys[0], "next_key": keys[1] if len(keys) > 1 else None}


def _check_host_keys(where: str, content: bytes) -> list[str]:
    lines = _lines(where, content)
    try:
        found = _ssh.host_keys(lines)
    except _ssh.SshError as error:
        raise ValueError(f"{where}: no host keys of SSH: {error}") from None
    if found != lines:
        raise ValueError(f"{where}: the host keys are not sorted, or one is there twice")
    return found


_CHECKS = {"rendered.json": _check_rendered, "ssh_rendered.json": _check_ssh_rendered}


def _lines(where: str, content: bytes) -> list[str]:
    """The lines of a text that consists of whole lines of ASCII."""
    text = content.decode("ascii", "replace")
    if not text.endswith("\n") or not text.isascii():
        raise ValueError(f"{where}: not lines of ASCII")
    return text[:-1].split("\n")


def _check_ca(where: str, content: bytes) -> str:
    check_certificates(where, content)
    return content.decode("ascii")


def check_certificates(where: str, content: bytes) -> None:
    text = content.decode("ascii", "replace")
    count = text.count("BEGIN CERTIFICATE")
    if len(content) > MAX_BYTES or not _CERTIFICATES.match(text) or count > MAX_CERTIFICATES:
        raise ValueError(f"{where}: not 1 to {MAX_CERTIFICATES} PEM certificates of less than {MAX_BYTES} bytes")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=text)
    except ssl.SSLError:
        raise ValueError(f"{where}: not PEM certificates") from None
    if len(context.get_ca_certs()) != count:
        raise ValueError(f"{where}: a certificate is none of a CA, or is there twice")


def _names(state_dir: str, relative: str) -> list[str]:
    _refuse_links(state_dir, relative)
    try:
        return sorted(os.listdir(os.path.join(state_dir, relative)))
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise ValueError(f"{state_dir}/{relative}: {error.strerror}") from None


def _read_json(state_dir: str, relative: str) -> dict[str, t.Any] | None:
    content = _read(state_dir, relative)
    return None if content is None else _parse_json(f"{state_dir}/{relative}", content)


def _read(state_dir: str, relative: str) -> bytes | None:
    _refuse_links(state_dir, relative)
    return _content(os.path.join(state_dir, relative), _most(relative))


def _content(path: str, most: int) -> bytes | None:
    """What a file holds in a directory that was seen not to be behind a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise ValueError(_LINK.format(path) if error.errno == errno.ELOOP else f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is no regular file: move it away")
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} is larger than {most} bytes")
    return content


def _refuse_links(state_dir: str, relative: str) -> None:
    path = state_dir
    for part in relative.split("/"):
        path = os.path.join(path, part)
        if os.path.islink(path):
            raise ValueError(_LINK.format(path))
