# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules bring back from hosts: checked here, before anything on the controller believes, keeps or renders it.

A host may be in anybody's hands, and then answers what it likes in the place of a module.
"""

from __future__ import annotations

import base64
import binascii
import re
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils import _bcrypt, _escrow, _ssh
from ansible_collections.holdfast.backup.plugins.module_utils._rotate import KEY
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.plugin_utils import _state
from ansible_collections.holdfast.backup.plugins.plugin_utils._fields import ACCOUNT, NAME
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import shorten

LONGEST = 4096
LONGEST_DOCUMENT = 1 << 20
MOST = 10000

# What Ansible itself obeys in the result of any module: facts outrank the inventory.
OBEYED = ("add_group", "add_host", "ansible_facts", "ansible_stats")
# What a task of any module may return.
COMMON = frozenset(
    "changed deprecations diff exception failed invocation module_stderr module_stdout msg rc skipped warnings".split()
)
_USER = re.compile(r"\A[A-Za-z0-9._@-]{1,128}\Z")
_FLEET_ID = re.compile(r"\A[A-Za-z0-9._-]{1,64}\Z")
_ID = re.compile(r"\A[0-9a-f]{8,64}\Z")
_DIGITS = re.compile(r"\A[0-9a-f]{32}\Z")

Check = t.Callable[[t.Any], bool]


class Field(t.NamedTuple):
    """What one key of a result has to be, in words and as a check; `hidden` where its value must not be shown."""

    what: str
    fits: Check
    hidden: bool = False


def _text(value: t.Any, longest: int = LONGEST) -> bool:
    if not isinstance(value, str) or len(value) > longest:
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _flag(value: t.Any) -> bool:
    return isinstance(value, bool)


def _number(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18


def _or_none(fits: Check) -> Check:
    return lambda value: value is None or fits(value)


def _like(pattern: re.Pattern[str]) -> Check:
    return lambda value: _text(value) and pattern.match(value) is not None


def _list(fits: Check) -> Check:
    return lambda value: isinstance(value, list) and len(value) <= MOST and all(map(fits, value))


def _map(fits: Check, key: Check = _text) -> Check:
    return lambda value: (
        isinstance(value, dict) and len(value) <= MOST and all(map(key, value)) and all(map(fits, value.values()))
    )


def _with(**fields: Check) -> Check:
    """A dictionary that has these keys; what else is in it nobody reads."""
    return lambda value: (
        isinstance(value, dict) and all(name in value and fits(value[name]) for name, fits in fields.items())
    )


def _unborn(fits: Check) -> Check:
    """Check mode cannot know what the real run will make."""
    return lambda value: value == UNBORN or fits(value)


def _hash(value: t.Any) -> bool:
    cost = _bcrypt.cost_of(value) if isinstance(value, str) else None
    return cost is not None and _bcrypt.MIN_COST <= cost <= _bcrypt.MAX_COST


def _base64(value: t.Any) -> bool:
    if not isinstance(value, str) or len(value) > 2 * _state.MAX_BYTES:
        return False
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _certificates(value: t.Any) -> bool:
    try:
        _state.check_certificates("ca", value.encode("ascii") if isinstance(value, str) else b"")
    except ValueError:
        return False
    return True


def _public_key(value: t.Any) -> bool:
    try:
        _ssh.public_key(value if isinstance(value, str) else "")
    except _ssh.SshError:
        return False
    return True


def _host_keys(value: t.Any) -> bool:
    """None where no server of SSH runs; else in the form in which the state directory keeps them."""
    try:
        return bool(value == [] or _ssh.host_keys(each if isinstance(each, str) else "" for each in value) == value)
    except (_ssh.SshError, TypeError):
        return False


def _document(value: t.Any) -> bool:
    return _text(value, LONGEST_DOCUMENT)


_maybe_text = _or_none(_text)
_texts = Field("a list of texts", _list(_text))
# Together they may be many: they are never removed.
_copies = Field("lists of texts by repository", _map(_list(_text)))

RESULTS: dict[str, dict[str, Field]] = {
    "host_info": {
        "packages": Field(
            "versions by package", _map(_with(installed=_maybe_text, candidate=_maybe_text, versions=_list(_text)))
        ),
        "apt": Field("true, false or null", _or_none(_flag)),
        "apt_lists": Field("true, false or null", _or_none(_flag)),
        "binaries": Field("versions by program", _map(_maybe_text)),
        "calendars": Field(
            "validity by calendar",
            _map(_with(valid=_or_none(_flag), error=_maybe_text, never=_or_none(_flag))),
        ),
        "resolve": Field("answers by address", _map(_with(addresses=_list(_text), error=_maybe_text))),
        "accounts": Field("true or false by account", _map(_flag)),
        "files": Field("SHA-256 by path", _map(_maybe_text)),
        "interpreters": Field("interpreters by program", _map(_maybe_text)),
        "mounts": Field("true, false or null by path", _map(_or_none(_flag))),
        "file_systems": Field("types of file systems by path", _map(_maybe_text)),
        "subvolumes": Field("what is there by path", _map(_maybe_text)),
        "places": Field(
            "an owner and a foreign name, or null, by path", _map(_or_none(_with(owner=_text, foreign=_text)))
        ),
        "running": Field("a list of units or null", _or_none(_list(_text))),
        "manifests": Field("lists of texts by namespace", _map(_map(_list(_text)))),
        "trees": Field(
            "what file_tree would find by namespace or null",
            _map(_or_none(_with(files=_list(_text), directories=_map(_flag), entries=_map(_or_none(_list(_text)))))),
        ),
        "settled": _texts,
        "status": Field("a document or null", _or_none(_document)),
        "records": Field("variables by repository", _map(_map(_text), _like(NAME))),
        "htpasswd": Field(
            "the fleet_id and the users of a server or null",
            _or_none(_with(fleet_id=_like(_FLEET_ID), users=_map(_maybe_text, _like(_USER)))),
        ),
        "ssh_accounts": Field(
            "the fleet_id and the accounts of a server or null",
            _or_none(
                _with(
                    fleet_id=_like(_FLEET_ID),
                    accounts=_map(_with(backup_id=_like(NAME), repositories=_list(_like(NAME))), _like(ACCOUNT)),
                )
            ),
        ),
        "foreign_accounts": _texts,
        "escrow_copies": _copies,
        "ssh_host_keys": Field(f"a sorted list of {_ssh.MAX_HOST_KEYS} public host keys at most", _host_keys),
        "sandbox": Field("the answer of a probe or null", _or_none(_with(works=_flag, error=_maybe_text))),
        "server_sandbox": Field("the answer of a probe or null", _or_none(_with(works=_flag, error=_maybe_text))),
        "reads_everything": Field("a boolean or null", _or_none(_flag)),
        "systemd": Field("a version number or null", _or_none(_number)),
        "selinux": Field("a text or null", _maybe_text),
        "virtualization": Field("a text or null", _maybe_text),
        "python": Field("a text", _text),
    },
    "identity": {
        # With escrow.mode=controller a bundle is plaintext.
        "repositories": Field(
            "the public side of each repository (user, bcrypt hashes, public keys, fingerprint, bundle)",
            _map(
                _with(
                    rest_user=_or_none(_like(_USER)),
                    rest_hash=_or_none(_unborn(_hash)),
                    rest_next_hash=_or_none(_unborn(_hash)),
                    busy=_or_none(_flag),
                    held=_flag,
                    ssh_public_key=_or_none(_unborn(_public_key)),
                    ssh_next_public_key=_or_none(_unborn(_public_key)),
                    password_next=_flag,
                    password_old=_flag,
                    made=_flag,
                    fingerprint=_unborn(_like(_DIGITS)),
                    bundle_name=_or_none(_unborn(_like(_escrow.BUNDLE_NAME))),
                    bundle=_or_none(_unborn(_base64)),
                    bundle_valid=_or_none(_flag),
                    way=_or_none(_like(_DIGITS)),
                    recorded=_flag,
                ),
                _like(NAME),
            ),
            hidden=True,
        ),
        "stale": _texts,
        "pruned": _texts,
    },
    "repository_password": {
        "repositories": Field(
            "what became of the password of each repository",
            _list(
                _with(
                    name=_like(NAME),
                    action=_text,
                    changed=_flag,
                    kept=_maybe_text,
                    id=_or_none(_unborn(_like(_ID))),
                    key=_or_none(_unborn(_like(_ID))),
                    old_key=_or_none(_unborn(_like(KEY))),
                )
            ),
        ),
    },
    "tls_authority": {
        "ca": Field("PEM certificates of a CA or null", _or_none(_unborn(_certificates))),
        "leaf_not_after": Field("a time in seconds or null", _or_none(_number)),
        "fingerprint": Field("a text", _maybe_text),
        "pending": Field("true or false", _flag),
        "served_names": _texts,
        "certificate_file": Field("a path", _text),
        "key_file": Field("a path", _text),
    },
    "ssh_accounts": {
        **dict.fromkeys(
            "created corrected unlocked locked revoked created_keys changed_keys revoked_keys kept missing foreign"
            " groups_created groups_changed sessions_ended sessions_left sessions_pending".split(),
            _texts,
        ),
        "refused": Field("lists of texts by account", _map(_list(_text), _like(ACCOUNT))),
        "served": Field(
            "fingerprints by account and repository", _map(_map(_list(_text), _like(NAME)), _like(ACCOUNT))
        ),
    },
    "escrow_copies": {"added": _copies},
    "htpasswd": dict.fromkeys(
        "created changed_users revoked kept missing refused foreign switched deferred not_checked".split(), _texts
    ),
}


def accept(module: str, said: dict[str, t.Any], *, check_mode: bool = False) -> dict[str, t.Any]:
    """What of a result may be believed. Raises ValueError that names the key, its value and the cure.

    `module` is its short name. Of one without a schema everything is kept but what Ansible would obey.
    """
    fields = RESULTS.get(module)
    if fields is None:
        return {key: value for key, value in said.items() if key not in OBEYED}
    common = {key: value for key, value in said.items() if key in COMMON}
    if said.get("failed") or said.get("skipped"):
        return common
    for key, field in fields.items():
        value = said.get(key)
        if not field.fits(value) or (not check_mode and _holds_unborn(value)):
            shown = "" if field.hidden else f" = {shorten(value)}"
            raise ValueError(
                f"{module}.{key}{shown}: is not {field.what}, so this is not the answer of the module {module}: look at what"
                " answers on this host; nothing of it was kept"
            )
    return {**common, **{key: said[key] for key in fields}}


def born(hostvars: t.Mapping[str, t.Any], host: str, repository: str) -> dict[str, t.Any]:
    """What the client said in this run of the secrets of a repository, empty where it said nothing that may be believed."""
    said = hostvars.get(host, {}).get("__escrow_identity")
    found: dict[str, t.Any] = _believed("identity", said).get("repositories", {}).get(repository, {})
    return found


def rest_accounts(
    users: list[dict[str, t.Any]], known: dict[str, t.Any], hostvars: t.Mapping[str, t.Any], given_up: str = ""
) -> list[dict[str, t.Any]]:
    """The users of a server with their hashes, as this run or an earlier one (``known``) learnt them from their clients.

    ``heard`` is whether the client said it in this run. A client may say anything, also by way of a fact that is called like a
    result, and must not stop its server.
    """
    accounts = []
    for user in users:
        last = known[user["host"]]
        if last["decommissioned"] or user["host"] == given_up:
            continue
        said = hostvars.get(user["host"], {})
        born = _believed("identity", said.get("__escrow_identity")).get("repositories", {}).get(user["repository"], {})
        stored = last["rest"].get(user["repository"], {})
        seen = said.get("__holdfast_host")
        # Of a client that is managed elsewhere nobody knows; the server itself sees whether its repository is locked.
        elsewhere = user.get("elsewhere", False)
        running = seen.get("running") if isinstance(seen, dict) else [] if elsewhere else None
        unit = re.compile(rf"--{re.escape(user['repository'])}(--|\.service)")
        busy = born.get("busy")
        if busy is None:
            busy = not isinstance(running, list) or any(unit.search(str(each)) for each in running)
        accounts.append(
            {
                **{key: user[key] for key in ("name", "host", "backup_id", "quota")},
                "hash": born.get("rest_hash") or stored.get("hash") or "",
                # A next one that an older state directory remembers is none of a client that said what it has.
                "next_hash": born["rest_next_hash"] if born.get("rest_hash") else stored.get("next_hash"),
                "busy": busy,
                "heard": bool(born.get("rest_hash")),
            }
        )
    return accounts


def ssh_accounts(
    accounts: list[dict[str, t.Any]], known: dict[str, t.Any], hostvars: t.Mapping[str, t.Any], given_up: str = ""
) -> list[dict[str, t.Any]]:
    """The accounts of a server with the ``public_keys`` of each repository, as :func:`rest_accounts` has hashes.

    Without any the server keeps the lines that it has; ``heard`` is whether the client said them in this run.
    """
    found = []
    for account in accounts:
        last = known[account["host"]]
        if last["decommissioned"] or account["host"] == given_up:
            continue
        said = hostvars.get(account["host"], {})
        born = _believed("identity", said.get("__escrow_identity")).get("repositories", {})
        keys = []
        for key in account["keys"]:
            new, old = born.get(key["repository"], {}), last["ssh"].get(key["repository"], {})
            pair = (
                (new["ssh_public_key"], new["ssh_next_public_key"])
                if new.get("ssh_public_key")
                else (old.get("key"), old.get("next_key"))
            )
            heard = bool(new.get("ssh_public_key"))
            keys.append({**key, "public_keys": [each for each in pair if each], "heard": heard})
        found.append({**account, "keys": keys})
    return found


def ssh_host_keys(
    repositories: list[dict[str, t.Any]], known: dict[str, t.Any], hostvars: t.Mapping[str, t.Any]
) -> dict[str, list[str]]:
    """The host keys to pin for each repository over SSH, as this run read them on the server, or an earlier one."""
    found = {}
    for repository in repositories:
        if repository["ssh"]:
            server = repository["server"]
            said = hostvars.get(server, {})
            # Of a server that had no sshd before, only the second look saw some.
            looks = (_believed("host_info", said.get(name)) for name in ("__holdfast_host", "__ssh_access_seen"))
            keys = next((seen["ssh_host_keys"] for seen in looks if seen.get("ssh_host_keys")), None)
            found[repository["name"]] = keys or known[server]["ssh_host_keys"]
    return found


def _believed(module: str, said: t.Any) -> dict[str, t.Any]:
    """A registered result, empty where it is none."""
    try:
        return accept(module, said, check_mode=True) if isinstance(said, dict) else {}
    except ValueError:
        return {}


def _holds_unborn(value: t.Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_unborn, value.values()))
    if isinstance(value, list):
        return any(map(_holds_unborn, value))
    return bool(value == UNBORN)
