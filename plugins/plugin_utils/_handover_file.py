# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of hand-over files, with which two controllers tell each other about hosts that only one of them logs in to.

    {"format": 1,
     "clients": {<backup_id>: {<repository>: {"server", "engine", "access", "public", "next_public"}}},
     "servers": {<inventory name>: {"ca", "host_keys", "repositories": {<backup_id>--<repository>:
                    {"engine", "access", "address", "port", "append_only", "accepts", "tls", "url_prefix", "path"}}}}}

``public`` is the bcrypt hash of a REST password or a public key of SSH, ``accepts`` those that the server takes now. No secret is
in such a file. It is read as strictly as what a host delivers: the other side may be in anybody's hands.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils import _bcrypt, _ssh
from ansible_collections.holdfast.backup.plugins.module_utils._public_key import fingerprint
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.plugin_utils import _fields as f
from ansible_collections.holdfast.backup.plugins.plugin_utils import _limit, _repositories, _state
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput, below, shorten

FORMAT = 1
MAX_BYTES = 4 * 1024 * 1024
# The secret in use, and the next one.
MOST_ACCEPTED = 2
AGAIN = "Ask for a file that the playbook handover has written"

Document = dict[str, t.Any]


def parse(content: bytes) -> Document:
    """A checked document. Raises ValueError that names the place in the file, its value and the cure."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"is longer than {MAX_BYTES} bytes. {AGAIN}")
    try:
        said = json.loads(content.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not a hand-over file ({shorten(str(error))}). {AGAIN}") from None
    try:
        return f.mapping(
            {
                "format": _format,
                "clients": _named(f.name, _named(f.name, _client)),
                "servers": _named(_server_name, _server),
            },
            "file",
            said,
            required=("format", "clients", "servers"),
        )
    except BadInput as bad:
        raise ValueError(_refused(bad)) from None


def read(path: str) -> bytes:
    """The content of a file, never more than a little too much. Raises OSError."""
    with open(path, "rb") as stream:
        return stream.read(MAX_BYTES + 1)


def serialise(document: Document) -> bytes:
    """The file's content; the same document always gives the same."""
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")


def _once(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _format(where: str, value: t.Any) -> int:
    if value != FORMAT or isinstance(value, bool):
        raise BadInput(
            where, value, "is not a format that this version reads", f"It reads format {FORMAT}: use the same version"
        )
    return FORMAT


def _named(name: f.Checker, entry: f.Checker) -> f.Checker:
    """A dictionary of entries by name."""

    def check(where: str, value: t.Any) -> dict[str, t.Any]:
        if not isinstance(value, dict):
            raise BadInput(where, f"<{type(value).__name__}>", "is not a dictionary", AGAIN)
        return {name(below(where, key), key): entry(below(where, key), each) for key, each in value.items()}

    return check


def _public(access: str) -> f.Checker:
    """What a server may know of a client: the hash of its REST password, or its public key."""

    def rest(where: str, value: t.Any) -> str:
        cost = _bcrypt.cost_of(value) if isinstance(value, str) else None
        if cost is None or not _bcrypt.MIN_COST <= cost <= _bcrypt.MAX_COST:
            wrong = f"is not a bcrypt hash ($2b$) of a cost from {_bcrypt.MIN_COST} to {_bcrypt.MAX_COST}"
            raise BadInput(where, "<hidden>", wrong, AGAIN)
        return str(value)

    def key(where: str, value: t.Any) -> str:
        try:
            return _ssh.public_key(value if isinstance(value, str) else "")
        except _ssh.SshError as error:
            raise BadInput(where, value, f"is no public key of SSH: {error}", AGAIN) from None

    return rest if access == "rest" else key


def _later(_where: str, value: t.Any) -> t.Any:
    """Anything: it is checked when the access is known."""
    return value


KIND: dict[str, f.Checker] = {
    "engine": f.choice(*_repositories.ENGINES),
    "access": f.choice("rest", *_repositories.SSH_ACCESS),
}


def _kind(where: str, entry: dict[str, t.Any], only_for: t.Mapping[str, str]) -> None:
    """Refuse an access that the engine does not have, and keys that belong to another access."""
    engine, access = entry["engine"], entry["access"]
    if access not in _repositories.ENGINES[engine]:
        raise BadInput(f"{where}.access", access, f"does not go with engine: {engine}", AGAIN)
    for key, owner in only_for.items():
        if key in entry and access != owner:
            raise BadInput(f"{where}.{key}", "", f"does not go with access: {access}", AGAIN)


def _server_name(where: str, value: t.Any) -> str:
    """An inventory name, which messages show: nothing in it may move a cursor."""
    name = f.line(where, value)
    if not name.isprintable():
        raise BadInput(where, value, "has characters that cannot be printed", AGAIN)
    return str(name)


def _client(where: str, value: t.Any) -> dict[str, t.Any]:
    fields = {"server": _server_name, **KIND, "public": _later, "next_public": _later}
    entry = f.mapping(fields, where, value, required=("server", *KIND, "public"))
    _kind(where, entry, {})
    public = _public(entry["access"])
    return {**entry, **{key: public(f"{where}.{key}", entry[key]) for key in ("public", "next_public") if key in entry}}


NEEDED: dict[str, f.Checker] = {
    **KIND,
    "address": f.address,
    "port": f.integer(1, 65535),
    "append_only": f.boolean,
    "accepts": f.listing(_later),
}
OPTIONAL: dict[str, f.Checker] = {
    "tls": f.choice("private", "provided", "proxy", "off"),
    "url_prefix": _repositories.FIELDS["url_prefix"],
    "path": f.plain_path,
}


def _place(where: str, value: t.Any, **more: f.Checker) -> dict[str, t.Any]:
    """Where and how one repository is served."""
    entry = f.mapping({**NEEDED, **OPTIONAL, **more}, where, value, required=(*NEEDED, *more))
    _kind(where, entry, {"tls": "rest", "url_prefix": "rest", "path": "sftp"})
    for key, access in (("tls", "rest"), ("path", "sftp")):
        if entry["access"] == access and key not in entry:
            raise BadInput(f"{where}.{key}", "", "is missing", f"access: {access} needs it")
    if len(entry["accepts"]) > MOST_ACCEPTED:
        raise BadInput(f"{where}.accepts", "", f"has more than {MOST_ACCEPTED} entries", AGAIN)
    return {**entry, "accepts": f.listing(_public(entry["access"]))(f"{where}.accepts", entry["accepts"])}


def _served_name(where: str, value: t.Any) -> str:
    identity, _dashes, repository = str(value).rpartition("--")
    return f"{f.name(where, identity)}--{f.name(where, repository)}"


def _server(where: str, value: t.Any) -> dict[str, t.Any]:
    fields = {"ca": _authority, "host_keys": _host_keys, "repositories": _named(_served_name, _place)}
    said = {"ca": None, "host_keys": [], **f.mapping(fields, where, value, required=("repositories",))}
    for place in said["repositories"].values():
        # Without it the client would trust whom its system trusts.
        if place.get("tls") == "private" and not said["ca"]:
            raise BadInput(f"{where}.ca", "", "is missing", "tls: private needs it")
        if place["access"] != "rest" and not said["host_keys"]:
            raise BadInput(f"{where}.host_keys", "", "is missing", f"access: {place['access']} needs it")
    return said


def _authority(where: str, value: t.Any) -> str:
    try:
        _state.check_certificates(where, value.encode("ascii") if isinstance(value, str) else b"")
    except ValueError:
        raise BadInput(where, "<hidden>", "is not PEM certificates of a CA", AGAIN) from None
    return str(value)


def _host_keys(where: str, value: t.Any) -> list[str]:
    keys: list[str] = f.listing(f.line)(where, value)
    try:
        return _ssh.host_keys(keys) if keys else []
    except _ssh.SshError as error:
        raise BadInput(where, "", f"are no host keys of SSH: {error}", AGAIN) from None


def places(state: dict[str, t.Any] | None) -> dict[str, t.Any]:
    """Where a client's repositories are served, as the state directory keeps it: by name on the server, with the ``server``.

    Raises ValueError.
    """
    known = _named(_served_name, lambda where, value: _place(where, value, server=_server_name))
    try:
        found: dict[str, t.Any] = f.mapping({"repositories": known}, "handed_over.json", state or {})
    except BadInput as bad:
        raise ValueError(_refused(bad)) from None
    served: dict[str, t.Any] = found.get("repositories", {})
    return served


def _refused(bad: BadInput) -> str:
    shown = f" = {shorten(bad.value)}" if bad.value not in (None, "") else ""
    return f"{bad.where}{shown}: {bad.wrong}. {bad.cure}"


def lines(document: Document) -> list[str]:
    """A document in words, with the fingerprints that two people compare. Hashes of passwords are not shown."""
    found = []
    for identity, repositories in sorted(document["clients"].items()):
        for name, entry in sorted(repositories.items()):
            publics = [entry["public"], *([entry["next_public"]] if "next_public" in entry else [])]
            shown = ", then ".join(map(_shown, publics))
            found.append(
                f"client {identity}: {name} on {entry['server']}, {entry['engine']} over {entry['access']}, {shown}"
            )
    for server, said in sorted(document["servers"].items()):
        if said["ca"]:
            found.append(f"server {server}: CA, SHA-256 of the file {hashlib.sha256(said['ca'].encode()).hexdigest()}")
        found += [f"server {server}: host key {_shown(key)}" for key in said["host_keys"]]
        for name, place in sorted(said["repositories"].items()):
            extra = [f"{key} {place[key]}" for key in ("tls", "url_prefix", "path") if key in place]
            extra += ["append-only"] if place["append_only"] else ["not append-only"]
            extra += [f"accepts {_shown(each)}" for each in place["accepts"]]
            found.append(
                f"server {server}: {name} at {f.url_host(place['address'])}:{place['port']},"
                f" {place['engine']} over {place['access']}, {', '.join(extra)}"
            )
    return found


def _shown(public: str) -> str:
    if public == UNBORN:
        return public
    kind, space, blob = public.partition(" ")
    return f"{kind} {fingerprint(blob)}" if space else f"REST password (digest {_limit.digest(public)})"
