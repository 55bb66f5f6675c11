# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The private CA of a server and its short-lived leaf, made with `openssl`.

Files in the directory (all of root):

    authority.json          what was declared, for `renew` without Ansible
    authority.pem           key and certificate of the CA that signs the leaf
    authority-next.pem      key and certificate of the CA that takes over, once the clients know it
    authority-previous.pem  certificate of the CA before, which clients keep for a while
    ca.pem                  what clients have to trust
    leaf.pem              key and certificate of the leaf in one file, so that they change in one step

A CA permits exactly the names that were declared when it was made. A name that it does not permit needs a new CA, and the
new one takes over in a later run than the one that announces it, because clients that do not know it would fail.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import ipaddress
import json
import os
import posixpath
import re
import secrets
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable
from typing import Any

from ._files import Tree, group_id

FORMAT = 1
DAY = 86400
AUTHORITY_DAYS = 3650
# A CA that ends within this time is replaced.
AUTHORITY_MARGIN = 365 * DAY
# How long clients go on trusting the CA before.
OVERLAP = 30 * DAY
# Certificates begin in the past, for clients whose clock is late.
BACKDATE = 2 * DAY

_LOCK_SECONDS = 60.0
_DNS = re.compile(
    r"\A(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?)*\Z"
)
# Without an entry of its kind a constraint permits every DNS name, or every address.
_NO_DNS = "holdfast.invalid"
_NO_IP = "0.0.0.0"  # noqa: S104 - written into a certificate, nothing listens on it
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n.+?-----END CERTIFICATE-----\n", re.DOTALL)
_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----\n.+?-----END ([A-Z]+ )?PRIVATE KEY-----\n", re.DOTALL)

_CONFIGURATION = """\
[req]
distinguished_name = subject
prompt = no
[subject]
CN = {subject}
[ca]
default_ca = this
[this]
new_certs_dir = .
database = index
rand_serial = yes
default_md = sha256
policy = policy
unique_subject = no
[policy]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, @names
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = @names
[names]
{names}
"""


class TlsError(Exception):
    """Certificates cannot be made or used; the message names the cure and holds no key."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What matters of a certificate; times are seconds since 1970. `permitted` is None where it is no CA's."""

    not_after: int
    names: frozenset[str]
    permitted: frozenset[str] | None
    fingerprint: str
    not_before: int = 0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What was declared: names, lifetime of the leaf in days, and the group that may read its key."""

    names: frozenset[str]
    leaf_days: int
    group: str | None
    previous_until: int = 0

    def render(self) -> str:
        """The text of authority.json."""
        content = dataclasses.asdict(self)
        content.update(format=FORMAT, names=sorted(self.names))
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str) -> Settings:
        """Read the text of authority.json. Raises TlsError when it is damaged."""
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise ValueError("format")
            return cls(**dict(content, names=frozenset(content["names"])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TlsError("authority.json is damaged: remove it, and the next run writes it again") from error


@dataclasses.dataclass(frozen=True)
class Found:
    """What is on the server. `leaf` is None as well where the present CA did not sign it or its key does not match."""

    authority: Certificate | None = None
    following: Certificate | None = None
    previous: Certificate | None = None
    leaf: Certificate | None = None
    previous_until: int = 0


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is to be done, and whether a new CA waits for the clients to know it afterwards."""

    create: bool = False
    announce: bool = False
    switch: bool = False
    drop_following: bool = False
    drop_previous: bool = False
    leaf_names: frozenset[str] | None = None
    pending: bool = False


def parse_names(names: Iterable[str]) -> frozenset[str]:
    """DNS names in lower case and addresses in their one spelling. Raises TlsError naming a bad one."""
    parsed = set()
    for name in names:
        text = name[1:-1] if name.startswith("[") and name.endswith("]") else name
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            if not _DNS.match(text.lower()) or text.rpartition(".")[2].isdigit():
                raise TlsError(f"`names`: {name!r} is no DNS name and no IP address") from None
            parsed.add(text.lower())
            continue
        if "%" in text:
            raise TlsError(f"`names`: {name!r} has a zone, which no certificate can hold: use a global address")
        parsed.add(str(address))
    if not parsed:
        raise TlsError("`names` is empty: give what clients dial, DNS names or IP addresses")
    return frozenset(parsed)


def decide(found: Found, wanted: Settings, now: float, *, switch: bool = True) -> Decision:
    """What has to be done to serve `wanted.names`. With `switch` false an announced CA does not take over yet."""
    current = found.authority
    if current is None or current.permitted is None or current.not_after <= now:
        return Decision(
            create=True,
            drop_following=found.following is not None,
            drop_previous=found.previous is not None,
            leaf_names=wanted.names,
        )
    needed = not _lasts(current, wanted, now)
    ready = found.following is not None and _lasts(found.following, wanted, now)
    switching = needed and ready and switch
    return Decision(
        announce=needed and not ready,
        switch=switching,
        drop_following=not needed and found.following is not None,
        drop_previous=not switching and found.previous is not None and found.previous_until <= now,
        leaf_names=wanted.names if switching else leaf_names(current, found.leaf, wanted, now),
        pending=needed and not switching,
    )


def leaf_names(authority: Certificate, leaf: Certificate | None, wanted: Settings, now: float) -> frozenset[str] | None:
    """The names of the leaf to be issued by this CA; None while the present leaf is good enough."""
    permitted = (authority.permitted or frozenset()) - {_NO_DNS, _NO_IP}
    names = wanted.names
    if not names <= permitted:
        # A new CA is on its way. Until then clients dial the names that they know.
        names = permitted & (names | leaf.names) if leaf is not None else permitted
    lifetime = wanted.leaf_days * DAY
    if leaf is None or leaf.names != names:
        return names
    remaining = leaf.not_after - now
    return names if remaining < lifetime / 3 or remaining > lifetime + DAY else None


def _lasts(authority: Certificate, wanted: Settings, now: float) -> bool:
    return wanted.names <= (authority.permitted or frozenset()) and authority.not_after - now > AUTHORITY_MARGIN


class Authority:
    """The files of the CA in one directory. The tree is the caller's."""

    def __init__(self, tree: Tree, directory: str) -> None:
        self._tree = tree
        self._directory = directory

    def path(self, name: str) -> str:
        """Full path of one of the files."""
        return posixpath.join(self._directory, name)

    def lock(self) -> None:
        """Wait until no other run works on the directory, and clear what a killed one left."""
        self._tree.lock(self._directory, timeout=_LOCK_SECONDS)
        for name in self._tree.names(self._directory):
            if name.startswith(".work-"):
                shutil.rmtree(self.path(name))

    def settings(self) -> Settings | None:
        """What was declared last, None if nothing was."""
        text = self.text("authority.json")
        return Settings.parse(text) if text is not None else None

    def find(self) -> Found:
        """Read all certificates. Raises TlsError for a CA that cannot be read: making another would cut off clients."""
        settings = self._previous_settings()
        authority = self._authority("authority.pem")
        leaf = None
        text = self.text("leaf.pem")
        authority_text = self.text("authority.pem")
        if text is not None and authority_text is not None:
            # A leaf of another CA, or a damaged one, is made again.
            with contextlib.suppress(TlsError):
                check_pair(text, text)
                check_signature(text, authority_text)
                leaf = read_certificate(text)
        previous = self.text("authority-previous.pem")
        return Found(
            authority=authority,
            following=self._authority("authority-next.pem"),
            previous=read_certificate(previous) if previous is not None else None,
            leaf=leaf,
            previous_until=settings.previous_until if settings else 0,
        )

    def _previous_settings(self) -> Settings | None:
        try:
            return self.settings()
        except TlsError:
            return None

    def _authority(self, name: str) -> Certificate | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            check_pair(text, text)
            return read_certificate(text)
        except TlsError as error:
            raise TlsError(
                f"{self.path(name)} cannot be used ({error}): restore it from a backup of this server, or remove it to"
                " make a new CA, which clients refuse until they have it"
            ) from error

    def text(self, name: str) -> str | None:
        """The text of a file, None if it is missing."""
        entry = self._tree.entry(self.path(name))
        if entry is None:
            return None
        if entry.kind != "file":
            raise TlsError(f"{self.path(name)} is no regular file: move it away")
        return entry.content.decode("utf-8", "replace")

    def apply(self, decision: Decision, settings: Settings, now: float) -> Settings:
        """Do what was decided, one atomic step after the other; returns the settings as they are to be kept."""
        if decision.create:
            self._write("authority.pem", make_authority(settings.names, now, self._directory), 0o600)
        if decision.announce:
            self._write("authority-next.pem", make_authority(settings.names, now, self._directory), 0o600)
        if decision.switch:
            settings = dataclasses.replace(settings, previous_until=int(now) + OVERLAP)
            self._write("authority-previous.pem", certificate_part(self._required("authority.pem")), 0o644)
            # Before the CA changes: an interrupted switch must not forget how long the previous one stays.
            self._write("authority.json", settings.render(), 0o600)
            self._write("authority.pem", self._required("authority-next.pem"), 0o600)
        if decision.switch or decision.drop_following:
            self._tree.unlink(self.path("authority-next.pem"))
        if decision.drop_previous:
            self._tree.unlink(self.path("authority-previous.pem"))
            settings = dataclasses.replace(settings, previous_until=0)
        if decision.leaf_names is not None:
            self.write_leaf(decision.leaf_names, settings, now)
        return settings

    def write_leaf(self, names: frozenset[str], settings: Settings, now: float) -> None:
        """Issue and install a leaf with a new key."""
        leaf = issue(self._required("authority.pem"), names, now, settings.leaf_days, self._directory)
        gid, mode = leaf_access(settings.group)
        self._tree.write(self.path("leaf.pem"), leaf.encode("ascii"), uid=0, gid=gid, mode=mode)

    def bundle(self, decision: Decision | None = None) -> str:
        """What clients have to trust, after `decision` if given: previous, present and next CA, in the order of their age."""
        names = ["authority-previous.pem", "authority.pem", "authority-next.pem"]
        if decision is not None and decision.drop_following:
            names.remove("authority-next.pem")
        if decision is not None and (decision.drop_previous or decision.switch):
            names.remove("authority-previous.pem")
        return "".join(certificate_part(text) for text in map(self.text, names) if text is not None)

    def _required(self, name: str) -> str:
        text = self.text(name)
        if text is None:
            raise TlsError(f"{self.path(name)} is missing")
        return text

    def _write(self, name: str, text: str, mode: int) -> None:
        self._tree.write(self.path(name), text.encode("utf-8"), uid=0, gid=0, mode=mode)


def renew(directory: str, now: float | None = None) -> bool:
    """Issue a new leaf when a third of its lifetime remains; True if the server has to load it.

    False also where no CA of ours is declared. Never makes or changes a CA. Raises TlsError, OSError, UnsafePathError.
    """
    moment = time.time() if now is None else now
    with Tree() as tree:
        authority = Authority(tree, directory)
        settings = authority.settings()
        if settings is None:
            return False
        authority.lock()
        found = authority.find()
        if found.authority is None or found.authority.not_after <= moment:
            raise TlsError(f"{directory} has no valid CA: run the playbook on this server")
        names = leaf_names(found.authority, found.leaf, settings, moment)
        if names is None:
            return False
        authority.write_leaf(names, settings, moment)
        return True


def leaf_access(group: str | None) -> tuple[int, int]:
    """Group id and mode of the leaf's file. Raises TlsError for a group that does not exist."""
    if group is None:
        return 0, 0o600
    gid = group_id(group)
    if gid is None:
        raise TlsError(f"`group`: there is no group {group!r} on this host")
    return gid, 0o640


def certificate_part(pem: str) -> str:
    """The certificates of a PEM text, without keys."""
    return "".join(_CERTIFICATE.findall(pem))


def read_certificate(pem: str) -> Certificate:
    """Read the first certificate of a PEM text. Raises TlsError."""
    argv = [
        "x509",
        "-noout",
        "-startdate",
        "-enddate",
        "-fingerprint",
        "-sha256",
        "-ext",
        "subjectAltName,nameConstraints",
    ]
    text = _openssl(argv, certificate_part(pem))
    begin = re.search(r"^notBefore=(.+)$", text, re.MULTILINE)
    end = re.search(r"^notAfter=(.+)$", text, re.MULTILINE)
    digest = re.search(r"Fingerprint=([0-9A-F:]+)", text)
    if begin is None or end is None or digest is None:
        raise TlsError("openssl does not tell when the certificate begins and ends")
    names = re.search(r"Subject Alternative Name:.*\n(.+)", text)
    permitted = re.search(r"Permitted:\n((?: +\S.*\n?)+)", text)
    return Certificate(
        not_after=int(ssl.cert_time_to_seconds(end.group(1))),
        names=frozenset(_names_in(names.group(1) if names else "", "DNS:", "IP Address:")),
        permitted=frozenset(_names_in(permitted.group(1), "DNS:", "IP:")) if permitted else None,
        fingerprint=digest.group(1).replace(":", "").lower(),
        not_before=int(ssl.cert_time_to_seconds(begin.group(1))),
    )


def covers(names: Iterable[str], wanted: str) -> bool:
    """Whether a certificate with these names is good for one name; `*.` stands for one label."""
    return wanted in names or (not _is_address(wanted) and "*." + wanted.partition(".")[2] in names)


def _names_in(text: str, dns: str, address: str) -> Iterable[str]:
    for line in text.splitlines():
        for entry in line.strip().split(", "):
            if entry.startswith(dns):
                yield entry[len(dns) :].lower()
            elif entry.startswith(address):
                yield str(ipaddress.ip_address(entry[len(address) :].split("/")[0]))


def check_pair(certificate: str, key: str) -> None:
    """Raise TlsError unless the private key belongs to the first certificate, and needs no passphrase."""
    public = _openssl(["x509", "-noout", "-pubkey"], certificate_part(certificate))
    if _openssl(["pkey", "-pubout", "-passin", "pass:"], _key_part(key)) != public:
        raise TlsError("the key does not belong to the certificate")


def check_usable(certificate: tuple[str, str], key: tuple[str, str], names: Iterable[str], now: float) -> Certificate:
    """Read a certificate of the user's, given as (what it is called, PEM) like its key.

    Raises TlsError unless they belong together, it is good now, and it has the names that clients dial.
    """
    file, text = certificate
    try:
        leaf = read_certificate(text)
        check_pair(text, key[1])
    except TlsError as error:
        raise TlsError(f"{file} and {key[0]}: {error}") from error
    if leaf.not_after <= now:
        raise TlsError(f"{file} ended on {utc(leaf.not_after)}: renew it")
    if leaf.not_before > now:
        raise TlsError(f"{file} begins on {utc(leaf.not_before)} only: wait until then, or set the clock of this host")
    missing = sorted(name for name in names if not covers(leaf.names, name))
    if missing:
        raise TlsError(
            f"{file} does not have {', '.join(missing)}, which clients dial:"
            " use a certificate with these names, or set `address` of the repositories to a name that it has"
        )
    return leaf


def utc(moment: float) -> str:
    """A moment as people read it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


def check_signature(leaf: str, authority: str) -> None:
    """Raise TlsError unless the CA signed the certificate and permits its names."""
    with tempfile.TemporaryDirectory(prefix="holdfast-") as directory:
        path = os.path.join(directory, "ca.pem")
        with open(path, "w", encoding="ascii") as stream:
            stream.write(certificate_part(authority))
        argv = ["verify", "-no_check_time", "-no-CApath", "-no-CAstore", "-CAfile", path]
        _openssl(argv, certificate_part(leaf))


def make_authority(names: Iterable[str], now: float, directory: str) -> str:
    """Key and certificate of a new CA that permits `names` only, in PEM. Work files are made below `directory`."""
    permitted = set(names)
    addresses = {name for name in permitted if _is_address(name)}
    # One entry of each kind, else the other kind is not constrained at all.
    permitted |= (set() if addresses else {_NO_IP}) | (set() if permitted - addresses else {_NO_DNS})
    lines = [_constraint(index, name) for index, name in enumerate(sorted(permitted))]
    subject = f"holdfast backup CA {secrets.token_hex(4)}"
    return _make(subject, lines, _period(now, AUTHORITY_DAYS), directory)


def issue(authority: str, names: Iterable[str], now: float, days: int, directory: str) -> str:
    """Key and certificate of a leaf signed by the CA `authority` (PEM with its key), in PEM."""
    lines = [f"{'IP' if _is_address(name) else 'DNS'}.{index} = {name}" for index, name in enumerate(sorted(names))]
    # A common name with spaces is never taken for a host name.
    return _make("holdfast backup server", lines, _period(now, days), directory, authority)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _constraint(index: int, name: str) -> str:
    if not _is_address(name):
        return f"permitted;DNS.{index} = {name}"
    mask = "255.255.255.255" if ipaddress.ip_address(name).version == 4 else ":".join(["ffff"] * 8)
    return f"permitted;IP.{index} = {name}/{mask}"


def _period(now: float, days: int) -> list[str]:
    def stamp(moment: float) -> str:
        return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y%m%d%H%M%SZ")

    return ["-startdate", stamp(now - BACKDATE), "-enddate", stamp(now + days * DAY)]


def _make(subject: str, names: list[str], period: list[str], directory: str, authority: str | None = None) -> str:
    # The key must never be where others could read it, not even for a moment: hence below the CA's own directory.
    work = tempfile.mkdtemp(prefix=".work-", dir=directory)
    try:
        _save(work, "conf", _CONFIGURATION.format(subject=subject, names="\n".join(names)))
        _save(work, "index", "")
        _openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key"], cwd=work)
        _openssl(["req", "-new", "-key", "key", "-config", "conf", "-out", "request"], cwd=work)
        argv = ["ca", "-batch", "-notext", "-config", "conf", "-in", "request", "-out", "certificate", *period]
        if authority is None:
            argv += ["-extensions", "authority", "-selfsign", "-keyfile", "key"]
        else:
            _save(work, "authority", authority)
            argv += ["-extensions", "leaf", "-keyfile", "authority", "-cert", "authority"]
        _openssl(argv, cwd=work)
        return _load(work, "key") + _load(work, "certificate")
    finally:
        shutil.rmtree(work)


def _save(directory: str, name: str, text: str) -> None:
    with open(os.path.join(directory, name), "w", encoding="ascii") as stream:
        stream.write(text)


def _load(directory: str, name: str) -> str:
    with open(os.path.join(directory, name), encoding="ascii") as stream:
        return stream.read()


def _key_part(pem: str) -> str:
    found = _PRIVATE_KEY.search(pem)
    if found is None:
        raise TlsError("there is no unencrypted PEM private key in it")
    return found.group(0)


def _openssl(argv: list[str], text: str = "", cwd: str | None = None) -> str:
    environment: dict[str, Any] = {"LC_ALL": "C", "PATH": "/usr/local/bin:/usr/bin:/bin", "RANDFILE": os.devnull}
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function # no AnsibleModule here
            ["openssl", *argv],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment,
            cwd=cwd,
            umask=0o077,
        )
    except FileNotFoundError as error:
        raise TlsError("`openssl` is not installed on this host") from error
    except subprocess.TimeoutExpired as error:
        raise TlsError(f"openssl {argv[0]} did not finish within 60 s") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise TlsError(f"openssl {argv[0]}: {lines[-1]}")
    return done.stdout
