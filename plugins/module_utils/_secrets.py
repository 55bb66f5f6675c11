# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets of one repository on a client: their files, and the rule by which they are made, kept and rotated.

Nothing here writes. `plan` says what the files should hold; the module `identity` writes them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any, Callable

from . import _bcrypt, _borg, _escrow, _location, _ssh

FORMAT = 1
# What check mode shows for values that are born in the real run.
UNBORN = "<made in the first real run>"
# In the order in which the files are to be written: what cannot be made again comes first.
SUFFIXES = (
    "password",
    "password_next",
    "password_old",
    "borg_key",
    "ssh_key",
    "ssh_next",
    "identity",
    "repository",
    "environment",
)
# How long a run unit may still go by the bundle it knew before, while a playbook brings the new one to the controller.
GRACE_SECONDS = 3600
# While a repository's password is changed, the bundle from before opens what there is until the old key is removed, which is
# not before the new bundle is known here; a REST password and an SSH key open no data, and the next ones are on the controller
# before a server hears of them. So a run that is cut off stops no backup, however long nobody looks. (Where borg's one key is
# encrypted anew no old key is left, and the shorter time counts.)
ROTATION_SECONDS = 365 * 24 * 3600
# While a file of the repository's name is here, a playbook gives client and server a new REST password or SSH key: a run that
# begins waits. It does not wait for a playbook that was cut off: the time is more than most fleets take.
HELD = "/run/holdfast/held"
HELD_SECONDS = 900
# More changes than any run of a playbook makes.
PREVIOUS = 8

_NAME = re.compile(r"\A[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")
_VARIABLE = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")
_REST_LOCATION = re.compile(r"\A(rest:https?://)([^/@\s]+)(/\S*)\Z")
_PLAIN_VALUE = re.compile(r"\A[A-Za-z0-9_@%+=:,./-]*\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CURES = (
    "no new ones are made, because they would not open the backups there are. Bring the old ones back with"
    " the playbook `restore_identity` and the escrow, or give this host another `backup_id` to start anew in a location of"
    " its own, which keeps the old one"
)


class SecretsError(Exception):
    """Secrets cannot be made or kept as asked; the message names option and cure, and holds no secret."""


@dataclasses.dataclass(frozen=True)
class RestPassword:
    """A password of a rest-server and its bcrypt hash."""

    password: str
    hash: str


@dataclasses.dataclass(frozen=True)
class Identity:
    """What `<repository>.identity` holds."""

    salt: str
    fingerprint: str | None = None
    # Several, since a rotation changes the fingerprint twice in one run of a playbook.
    previous: tuple[str, ...] = ()
    previous_until: int = 0
    rest_user: str | None = None
    rest_current: RestPassword | None = None
    rest_next: RestPassword | None = None
    # SHA-256 of the exported key of borg that today's bundle holds.
    borg_key: str | None = None
    # When today's bundle was made, in seconds since 1970, but always later than the one before: clocks are set.
    made: int = 0

    def render(self) -> str:
        """The text of the file."""
        rest = {
            "user": self.rest_user,
            "current": dataclasses.asdict(self.rest_current) if self.rest_current else None,
            "next": dataclasses.asdict(self.rest_next) if self.rest_next else None,
        }
        escrow = {
            "salt": self.salt,
            "fingerprint": self.fingerprint,
            "previous": list(self.previous),
            "previous_until": self.previous_until,
            **({"made": self.made} if self.made else {}),
            **({"borg_key": self.borg_key} if self.borg_key else {}),
        }
        return json.dumps({"format": FORMAT, "rest": rest, "escrow": escrow}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Read the text of the file. Raises SecretsError when it is damaged or of a newer format."""
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise SecretsError(f"it has format {content['format']!r}, this version reads format {FORMAT}")
            rest, escrow = content["rest"], content["escrow"]
            bytes.fromhex(escrow["salt"])
            return cls(
                salt=escrow["salt"],
                fingerprint=escrow["fingerprint"],
                previous=tuple(escrow["previous"] or ()),
                previous_until=int(escrow["previous_until"]),
                made=int(escrow.get("made") or 0),
                rest_user=rest["user"],
                rest_current=RestPassword(**rest["current"]) if rest["current"] else None,
                rest_next=RestPassword(**rest["next"]) if rest["next"] else None,
                borg_key=escrow.get("borg_key"),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise SecretsError(f"it is damaged ({type(error).__name__})") from error

    def accepted_fingerprints(self, now: float) -> list[str]:
        """Fingerprints of bundles that are good enough for a backup at `now` (seconds since 1970)."""
        earlier = self.previous if now < self.previous_until else ()
        return [*([self.fingerprint] if self.fingerprint else []), *earlier]


@dataclasses.dataclass(frozen=True)
class Stored:
    """The texts of a repository's files; None where there is no file."""

    password: str | None = None
    repository: str | None = None
    environment: str | None = None
    identity: str | None = None
    ssh_key: str | None = None
    ssh_next: str | None = None
    # The password that is to replace the current one, and the one before it until its key is removed: the module
    # `repository_password` takes them further.
    password_next: str | None = None
    password_old: str | None = None
    # What `borg key export` printed: the module `repository` keeps it here.
    borg_key: str | None = None

    def files(self) -> dict[str, str | None]:
        """Text by suffix, in the order in which the files are to be written."""
        return {suffix: getattr(self, suffix) for suffix in SUFFIXES}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One repository as declared, with what the controller knows of it."""

    name: str
    engine: str
    access: str
    location: str
    rest_user: str | None = None
    rest_password: str | None = None
    password: str | None = None
    # Out of the escrow beside `password`: the one that was to replace it, and the one before it.
    next_password: str | None = dataclasses.field(default=None, repr=False)
    old_password: str | None = dataclasses.field(default=None, repr=False)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    known: bool = False
    hold: bool = False
    password_rotate: bool = False
    # The module `repository_password` took the next one into use, or would have: only check mode needs to be told.
    password_used: bool = False
    rest_rotate: bool = False
    rest_promote: bool = False
    rest_server_hash: str | None = None
    ssh_key: str | None = dataclasses.field(default=None, repr=False)
    ssh_way: str | None = None
    ssh_known: bool = False
    ssh_rotate: bool = False
    ssh_promote: bool = False
    borg_key: str | None = dataclasses.field(default=None, repr=False)
    # Of the bundle that these are out of.
    bundle_made: int | None = None
    repository_id: str | None = None
    key_id: str | None = None

    @property
    def over_ssh(self) -> bool:
        """Whether the client has a key of its own for this repository."""
        return self.access in _ssh.ACCESS


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a repository's files should hold, and the plaintext of its escrow bundle."""

    files: Stored
    identity: Identity
    bundle: dict[str, Any]
    made: bool
    # Whether passwords or the salt were made just now: check mode cannot know the bundle's name.
    unborn: bool
    warning: str | None
    over_ssh: bool = False


def rest_location(location: str, user: str, password: str) -> str:
    """`rest:https://host/path/` with user and password percent-encoded into it. Raises SecretsError for another form."""
    found = _REST_LOCATION.match(location)
    if not found:
        raise SecretsError(
            f"`location` {location!r} is not of the form rest:https://HOST:PORT/PATH/ without credentials"
        )
    scheme, host, path = found.groups()
    return f"{scheme}{urllib.parse.quote(user, safe='')}:{urllib.parse.quote(password, safe='')}@{host}{path}"


def render_environment(values: Mapping[str, str]) -> str:
    """`NAME=value` lines as systemd's EnvironmentFile= and `parse_environment` read them."""
    lines = []
    for name in sorted(values):
        value = values[name]
        if not _PLAIN_VALUE.match(value):
            value = '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
        lines.append(f"{name}={value}\n")
    return "".join(lines)


def parse_environment(text: str) -> dict[str, str]:
    """The inverse of `render_environment`. Raises SecretsError for a line of another form."""
    try:
        return _location.parse_environment(text)
    except ValueError as error:
        raise SecretsError(str(error)) from None


def check(wanted: Wanted, stored: Stored, directory: str) -> list[str]:
    """What forbids to serve this repository: messages with option and cure, none if all is well."""
    errors = _check_form(wanted)
    if errors:
        return errors
    try:
        identity = _kept_identity(wanted, stored)
    except SecretsError as error:
        return [
            f"repository `{wanted.name}`: {directory}/{wanted.name}.identity cannot be used: {error};"
            " restore it from a backup of this host, or move it away"
        ]
    return _check_loss(wanted, stored, identity, directory) + _check_conflict(wanted, stored, identity)


def plan(
    wanted: Wanted,
    stored: Stored,
    *,
    fleet: tuple[str, str],
    now: float,
    cost: int,
    hasher: Callable[[str], str],
    keymaker: Callable[[str], str],
    passwordmaker: Callable[[], str] = lambda: secrets.token_urlsafe(32),
) -> Plan:
    """What the files should hold; `check` must have passed.

    `fleet` is (fleet id, host), `now` seconds since 1970, `hasher` makes the bcrypt hash of a REST password. It is called
    for new passwords and for hashes that have another cost than `cost` only. `keymaker` makes a private key of SSH with
    the comment that it is given, `passwordmaker` a next password of the repository.
    """
    old = _kept_identity(wanted, stored)
    identity = old or Identity(salt=secrets.token_hex(32))
    password = stored.password or wanted.password or secrets.token_urlsafe(32)
    repository, warnings = wanted.location, []
    if wanted.access == "rest":
        identity, warning = _plan_rest(wanted, identity, cost, hasher)
        warnings += [warning] if warning else []
        repository = rest_location(wanted.location, *_rest_login(identity))
    stored = _with_escrow(wanted, stored)
    password_next, password_old = _plan_password(wanted, stored, password, passwordmaker)
    warnings += _password_warnings(wanted, password_old)
    ssh_key, ssh_next = stored.ssh_key, stored.ssh_next
    if wanted.over_ssh:
        comment = f"{fleet[1]} {wanted.name} {time.strftime('%Y-%m-%d', time.gmtime(now))}"
        ssh_key, ssh_next = _plan_ssh(wanted, stored, lambda: keymaker(comment))
    bundle = _bundle(wanted, identity, password, fleet)
    if password_next is not None:
        # In the escrow before it is used.
        bundle.update(next_password=password_next)
    if wanted.over_ssh:
        # Not null for other accesses: their bundles stay what they are.
        bundle.update(ssh_key=ssh_key, ssh_next_key=ssh_next)
    borg_key = None
    if wanted.engine == _borg.ENGINE:
        borg_key = stored.borg_key or wanted.borg_key
        bundle.update(borg_key=borg_key)
        kept = _borg.key_hash(borg_key) if borg_key is not None else None
        if identity.borg_key != kept:
            # A bundle without today's key opens nothing: it is not good enough for a while, either.
            identity = dataclasses.replace(identity, borg_key=kept, fingerprint=None, previous=())
    changing = (password_next, password_old, identity.rest_next, old and old.rest_next, ssh_next, stored.ssh_next)
    grace = ROTATION_SECONDS if any(changing) else GRACE_SECONDS
    identity = dataclasses.replace(identity, made=max(identity.made, wanted.bundle_made or 0))
    identity = _with_fingerprint(identity, _escrow.fingerprint(bundle, identity.salt), now, grace)
    return Plan(
        files=Stored(
            password=password,
            password_next=password_next,
            password_old=password_old,
            repository=repository + "\n",
            environment=render_environment(wanted.environment),
            identity=identity.render(),
            ssh_key=ssh_key,
            ssh_next=ssh_next,
            borg_key=borg_key,
        ),
        identity=identity,
        bundle=bundle,
        made=stored.password is None
        or bool(identity.rest_current and not (old and old.rest_current))
        or (wanted.over_ssh and stored.ssh_key is None),
        unborn=old is None
        or not _rest_passwords(identity) <= _rest_passwords(old) | {wanted.rest_password}
        or UNBORN in (ssh_key, ssh_next, password, password_next, wanted.key_id),
        warning="\n".join(warnings) or None,
        over_ssh=wanted.over_ssh,
    )


def _kept_identity(wanted: Wanted, stored: Stored) -> Identity | None:
    # An identity without its repository password belongs to a repository that is left behind.
    if stored.identity is None or (stored.password is None and wanted.password is None):
        return None
    return Identity.parse(stored.identity)


def _check_form(wanted: Wanted) -> list[str]:
    errors = []
    if not _NAME.match(wanted.name) or len(wanted.name) > 28:
        return [
            f"`name` {wanted.name!r} is no repository name: lower case letters, digits and single hyphens, 28 at most"
        ]
    if _location.passwords(wanted.location):
        errors.append(
            "`location` holds a password; give it without, and the credentials in `environment`"
            " (RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD for a rest-server)"
        )
    elif not wanted.location or _CONTROL.search(wanted.location):
        errors.append("`location` is empty or holds control characters")
    elif wanted.access == "rest" and not _REST_LOCATION.match(wanted.location):
        errors.append(f"`location` {wanted.location!r} is not of the form rest:https://HOST:PORT/PATH/")
    if wanted.access == "rest" and not wanted.rest_user:
        errors.append("`rest_user` is missing: access `rest` needs one")
    for option in ("password", "next_password", "old_password"):
        value = getattr(wanted, option)
        if value is not None and (not value or value != value.strip() or _CONTROL.search(value)):
            errors.append(
                f"`{option}` is empty, has spaces around it or control characters: restic cannot read it from a file"
            )
    if wanted.ssh_key is not None and _public(wanted.ssh_key) is None:
        errors.append("`ssh_key` is no private ed25519 key of OpenSSH without a passphrase")
    if wanted.borg_key is not None and not _borg.is_key(wanted.borg_key):
        errors.append("`borg_key` is not what `borg key export` prints")
    for name, value in wanted.environment.items():
        if not _VARIABLE.match(name) or _location.RESERVED.match(name):
            errors.append(f"`environment`: {name!r} is no name for a variable, or one that the collection sets itself")
        if _CONTROL.search(value):
            errors.append(f"`environment`: the value of {name} holds a line end or another control character")
    return [f"repository `{wanted.name}`: {error}" for error in errors]


def _check_loss(wanted: Wanted, stored: Stored, identity: Identity | None, directory: str) -> list[str]:
    path = f"{directory}/{wanted.name}"
    if stored.password is None and wanted.password is None:
        if wanted.known:
            return [
                f"repository `{wanted.name}`: the controller's state directory, or its server, knows its escrow, but this host has no"
                f" {path}.password; {_CURES}"
            ]
        if stored.identity is not None or wanted.repository_id:
            return [
                f"repository `{wanted.name}`: it has been set up on this host, but {path}.password is gone; {_CURES}"
            ]
    lost_rest = wanted.access == "rest" and (identity is None or identity.rest_current is None)
    if wanted.known and lost_rest and wanted.rest_password is None:
        return [
            f"repository `{wanted.name}`: the controller's state directory knows its REST password, but this host has no"
            f" {path}.identity with it; {_CURES}"
        ]
    if wanted.over_ssh and wanted.ssh_known and stored.ssh_key is None and wanted.ssh_key is None:
        return [
            f"repository `{wanted.name}`: the controller's state directory knows its SSH key, but this host has no"
            f" {path}.ssh_key; {_CURES}"
        ]
    return []


def _check_conflict(wanted: Wanted, stored: Stored, identity: Identity | None) -> list[str]:
    errors = []
    if wanted.engine == _borg.ENGINE and stored.borg_key is not None and not _borg.is_key(stored.borg_key):
        errors.append(
            f"repository `{wanted.name}`: its file {wanted.name}.borg_key holds no exported key of borg; restore it with the"
            " playbook `restore_identity`, or remove it to have the key exported again"
        )
    # This host may have taken the next one of that bundle into use.
    if stored.password not in (None, wanted.next_password) and wanted.password not in (None, stored.password):
        errors.append(
            f"repository `{wanted.name}`: `password` is another one than this host uses, which is never overwritten."
            " Add the new one with `restic key add`, replace the password file by hand and remove the old key; or take"
            " `password` out of the inventory"
        )
    current = identity.rest_current if identity is not None else None
    if current is not None and wanted.rest_password not in (None, current.password):
        errors.append(
            f"repository `{wanted.name}`: `rest_password` is another one than this host uses, which is never overwritten."
            " Take it out, and rotate with `rest_rotate`"
        )
    for suffix, text in (("ssh_key", stored.ssh_key), ("ssh_next", stored.ssh_next)):
        if wanted.over_ssh and text is not None and _public(text) is None:
            errors.append(
                f"repository `{wanted.name}`: its file {wanted.name}.{suffix} holds no private ed25519 key of OpenSSH without a"
                " passphrase; restore it from a backup of this host or with the playbook `restore_identity`, or remove it"
            )
    if stored.ssh_key is not None and wanted.ssh_key is not None and _public(wanted.ssh_key) != _public(stored.ssh_key):
        errors.append(
            f"repository `{wanted.name}`: `ssh_key` is another one than this host uses, which is never overwritten."
            " Take it out, and rotate with `ssh_rotate`"
        )
    return errors


def _public(private: str) -> str | None:
    """The public half, None where the text is no private key."""
    try:
        return public_half(private)
    except _ssh.SshError:
        return None


def public_half(private: str | None) -> str | None:
    """The public half of a private key as a server takes it. Raises SshError for text that is no private key."""
    return private if private in (None, UNBORN) else _ssh.public_of(str(private))


def foreseen(wanted: Wanted, stored: Stored) -> Stored:
    """What is there, as the module `repository_password` would have left it: check mode plans with that."""
    if not wanted.password_used or stored.password is None:
        return stored
    used = dataclasses.replace(stored, password=stored.password_next or UNBORN, password_next=None)
    if wanted.engine == _borg.ENGINE:
        return dataclasses.replace(used, borg_key=UNBORN)
    return dataclasses.replace(used, password_old=stored.password)


def _with_escrow(wanted: Wanted, stored: Stored) -> Stored:
    """What is there, with what the escrow says of a change of the password that may not have ended; nothing is replaced."""
    # The identity is written last. A client that has all of it knows best what has ended.
    lost = stored.password is None or (stored.password == wanted.password and stored.identity is None)
    if wanted.password is None or not lost:
        return stored
    return dataclasses.replace(
        stored,
        password_next=stored.password_next or wanted.next_password,
        # borg has one key, and no old one.
        password_old=stored.password_old or (wanted.old_password if wanted.engine != _borg.ENGINE else None),
    )


def _password_warnings(wanted: Wanted, old: str | None) -> list[str]:
    where = f"repository `{wanted.name}`:"
    if wanted.old_password is not None and old == wanted.old_password:
        return [
            f"{where} the escrow does not say whether the key of the password before this one was removed. After the playbook"
            " `site`, `rotate -e rotate=pending` looks, and removes it"
        ]
    if wanted.password_rotate and wanted.password is not None:
        return [f"{where} its `password` is in the inventory, so it is not this host that makes a new one"]
    if wanted.password_rotate and old is not None:
        return [
            f"{where} the key of its password before is still to be removed, so no new one is made now: rotate again"
        ]
    return []


def _plan_password(
    wanted: Wanted, stored: Stored, current: str, make: Callable[[], str]
) -> tuple[str | None, str | None]:
    """The password that is to replace the current one, and the one before it. One change is ended before the next begins."""
    # The same as the current one: left by a run that was cut off while it put one in the place of the other.
    following, old = (None if each == current else each for each in (stored.password_next, stored.password_old))
    if (
        wanted.password_rotate
        and wanted.password is None
        and following is None
        and old is None
        and stored.password is not None
    ):
        following = make()
    return following, old


def _plan_ssh(wanted: Wanted, stored: Stored, make: Callable[[], str]) -> tuple[str, str | None]:
    """The private key that is used, and the one that is to replace it."""
    current, following = stored.ssh_key or wanted.ssh_key, stored.ssh_next
    if current is None:
        return make(), None
    if following is not None and _public(following) == _public(current):
        # A run that was interrupted while it made the next one the current one.
        following = None
    if wanted.ssh_promote and following is not None:
        return following, None
    if wanted.ssh_rotate and following is None and stored.ssh_key is not None and not wanted.ssh_promote:
        following = make()
    return current, following


def _plan_rest(
    wanted: Wanted, identity: Identity, cost: int, hasher: Callable[[str], str]
) -> tuple[Identity, str | None]:
    def made(password: str) -> RestPassword:
        return RestPassword(password, hasher(password))

    def at_cost(each: RestPassword) -> RestPassword:
        return each if _bcrypt.cost_of(each.hash) == cost else made(each.password)

    warning = None
    current, following = identity.rest_current, identity.rest_next
    promoted = False
    if current is None:
        current, following = made(wanted.rest_password or secrets.token_urlsafe(32)), None
    elif wanted.rest_promote and wanted.rest_server_hash is not None:
        if wanted.rest_server_hash == UNBORN and following is None:
            following = RestPassword(secrets.token_urlsafe(32), UNBORN)
        if following is not None and wanted.rest_server_hash in (following.hash, UNBORN):
            current, following, promoted = following, None, True
        elif wanted.rest_server_hash != current.hash:
            warning = f"repository `{wanted.name}`: the server holds a REST hash that is not of this host's passwords"
    if wanted.rest_rotate and following is None and not promoted and identity.rest_current is not None:
        following = made(secrets.token_urlsafe(32))
    changed = dataclasses.replace(
        identity,
        rest_user=wanted.rest_user,
        rest_current=at_cost(current),
        rest_next=at_cost(following) if following is not None else None,
    )
    return changed, warning


def _rest_login(identity: Identity) -> tuple[str, str]:
    if identity.rest_user is None or identity.rest_current is None:
        raise SecretsError("the identity has no REST user and password")
    return identity.rest_user, identity.rest_current.password


def _rest_passwords(identity: Identity) -> set[str | None]:
    return {each.password for each in (identity.rest_current, identity.rest_next) if each is not None}


def _bundle(wanted: Wanted, identity: Identity, password: str, fleet: tuple[str, str]) -> dict[str, Any]:
    return {
        "format": _escrow.FORMAT,
        "fleet_id": fleet[0],
        "host": fleet[1],
        "repository": wanted.name,
        "engine": wanted.engine,
        "access": wanted.access,
        "location": wanted.location,
        "password": password,
        "rest_user": identity.rest_user,
        "rest_password": identity.rest_current.password if identity.rest_current else None,
        "rest_next_password": identity.rest_next.password if identity.rest_next else None,
        "environment": dict(wanted.environment),
        "repository_id": wanted.repository_id,
        "key_id": wanted.key_id,
    }


def _with_fingerprint(identity: Identity, fingerprint: str, now: float, grace: int) -> Identity:
    if fingerprint == identity.fingerprint:
        return identity
    earlier = [each for each in identity.accepted_fingerprints(now) if each != fingerprint][:PREVIOUS]
    return dataclasses.replace(
        identity,
        fingerprint=fingerprint,
        previous=tuple(earlier),
        previous_until=int(now) + grace if earlier else 0,
        made=max(int(now), identity.made + 1),
    )
