# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a repository may say, and the location that a client dials."""

from __future__ import annotations

import contextlib
import ipaddress
import posixpath
import re
import shlex
import typing as t
import urllib.parse

from ansible_collections.holdfast.backup.plugins.plugin_utils import _fields as f
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput, below

LOCAL_ROOT = "/var/backups/holdfast"
LATER_ENGINES: tuple[str, ...] = ("rsync",)
LATER_ACCESS: tuple[str, ...] = ("pull",)
# What each engine is reached by; the first is the default where a server is named, the last where nothing is.
ENGINES: dict[str, tuple[str, ...]] = {
    "restic": ("rest", "rclone", "sftp", "s3", "url", "local"),
    "borg": ("ssh", "local"),
}
# Reached by a key of the client's own, and a forced command of the server.
SSH_ACCESS = ("rclone", "sftp", "ssh")
# Reached over HTTP, for all that is known, so perhaps through a proxy.
OVER_HTTP = ("rest", "s3", "url")
SSH_PORT = 22
REST_PORT = 8000
# `borg serve` does not start with less.
BORG_LEAST_QUOTA = 10_000_000
SCHEMES = ("rest", "s3", "sftp", "b2", "azure", "gs", "swift", "rclone")
IN_BUCKETS = ("b2", "azure", "gs", "swift")
DEFAULT_PORTS = {"http": 80, "https": 443, "sftp": 22}
# What a unit sets itself, or what would change which code runs in it.
OWN_VARIABLES = re.compile(
    r"\A(RESTIC_(?!(REST_(USERNAME|PASSWORD)|CACERT)\Z).*|HOLDFAST_.*|LD_.*|PATH|TMPDIR|LC_ALL|CREDENTIALS_DIRECTORY)\Z"
)
# A user in a URL (of sftp only a password: its user is part of the address), and rclone's parameters in a location.
_CREDENTIALS = re.compile(
    r"\A(?!sftp:)[^/]*//[^/]*@|\A(?:rest|s3):[^/]*@|\Asftp:(?://)?[^@/:]*:[^@/]*@|\Arclone:.*(?:pass|secret|token|key)[a-z_]*=",
    re.IGNORECASE | re.DOTALL,
)
_REST = re.compile(
    r"\Arest:https?://(?:\[(?P<ip>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?(?:/.*)?\Z"
)
# As wide as restic, to whose client of S3 these are in no name of a host; of escapes it takes those of letters beyond ASCII.
_S3_ADDRESS = re.compile(
    r"\As3:(?:https?://|//|(?!http))"
    r"(?:\[(?P<ip>[0-9A-Fa-f:.]+)\]|(?P<name>(?:[^]\[`~!@#$%^&*()+={}|\\\"';:><?/]|%[89A-Fa-f][0-9A-Fa-f])+))"
    r"(?::(?P<port>[0-9]{0,5}))?/[^/]"
)
# Narrower than restic, which unquotes a path and cuts off ?query and #fragment only where the protocol is given, and takes
# any name that begins with http for a protocol.
_S3 = re.compile(
    r"\As3:(?:https?://|//|(?!http))(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
    r"/[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9](?P<path>(?:/[A-Za-z0-9._@+=~-]+)*/?)\Z"
)
S3_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# Both spellings of restic's: sftp://user@host:port/path and sftp:user@host:path.
_SFTP = re.compile(
    r"\Asftp:(?://(?:(?P<user>[^/@:]+)@)?(?:\[(?P<ip>[^]/@]+)\]|(?P<host>[^][/@:?#]+))(?::(?P<port>[0-9]{1,5}))?/"
    r"|(?!//)(?:(?P<login>[^/:]+)@)?(?P<name>[^][/@:]+):)"
)
# What neither ssh takes for an option nor restic's own splitters, of words and of options, for more than one word.
_SSH_WORD = re.compile(r"""\A(?!-)[^\s\x00-\x1f\x7f'",]*[^\s\x00-\x1f\x7f'",\\]\Z""")
# What a backup starts does not inherit that it reads every file. env looks for the program as restic would.
_WITHOUT_CAPABILITY = "capsh --noamb --shell=/usr/bin/env --"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _engine(where: str, value: t.Any) -> str:
    if value in LATER_ENGINES:
        raise BadInput(
            where, value, "is not available in this version of holdfast.backup", f"Use engine: {' or '.join(ENGINES)}"
        )
    return str(f.choice(*ENGINES)(where, value))


def _access(where: str, value: t.Any) -> str:
    offered = dict.fromkeys(access for accesses in ENGINES.values() for access in accesses)
    if value in LATER_ACCESS:
        raise BadInput(
            where, value, "is not available in this version of holdfast.backup", f"Use access: {', '.join(offered)}"
        )
    return str(f.choice(*offered)(where, value))


def _url(where: str, value: t.Any) -> str:
    if isinstance(value, str) and _CREDENTIALS.search(value):
        raise BadInput(
            where,
            "<hidden>",
            "contains credentials",
            "Put them into the repository's environment: RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD for rest:,"
            f" {' and '.join(S3_CREDENTIALS)} for s3:",
        )
    url = str(f.line(where, value))
    if not re.match(rf"\A(?:{'|'.join(SCHEMES)}):\S+\Z", url):
        raise BadInput(
            where,
            value,
            "is not the location of a repository elsewhere, as restic writes it",
            f"Begin with {', '.join(f'{scheme}:' for scheme in SCHEMES)}, no spaces; a directory of the host is access: local with path",
        )
    found = _REST.match(url)
    if url.startswith("rest:") and not (found and _is_address(**found.groupdict())):
        raise BadInput(where, value, "is not the location of a rest-server", "Use rest:https://host:port/path/")
    found = _S3_ADDRESS.match(url)
    if url.startswith("s3:") and not (found and _is_address(**found.groupdict())):
        raise BadInput(
            where,
            value,
            "is not the location of a repository in S3",
            "Use s3:https://host/bucket/path, or s3:https://host:port/bucket/path",
        )
    return url


def _is_address(ip: str | None, name: str | None, port: str | None) -> bool:
    """Whether a host may be there. What was between brackets, else a name, which may be one that only the client knows."""
    if ip is not None:
        try:
            ipaddress.ip_address(ip)
        except ValueError:
            return False
    elif name is not None and re.search(r"\A\.|\.\.", name):
        return False
    return not port or 1 <= int(port) <= 65535


def identity_of(location: str) -> str:
    """One spelling for all spellings of a location, to see whether two repositories have the same."""
    scheme, separator, rest = location.partition(":")
    if not separator or location.startswith("/"):
        return posixpath.normpath(location)
    if scheme in ("rest", "s3", "sftp"):
        kind, authority, path = _parts(scheme, rest)
        user, at, host = authority.rpartition("@")
        found = re.match(r"\A(\[[^]]*\]|[^:]*)(?::([0-9]*))?\Z", host)
        if not found:
            return location
        name = urllib.parse.unquote(found[1]).lower().rstrip(".")
        port = int(found[2] or DEFAULT_PORTS[kind])
        with contextlib.suppress(ValueError):
            name = ipaddress.ip_address(name.strip("[]")).compressed
        relative = scheme == "sftp" and not path.startswith("/")
        return f"{scheme}:{user + at if relative else ''}{name}:{port}/{_plain_path(path, relative)}"
    if scheme in IN_BUCKETS:
        # The first colon ends the bucket's name. Nothing after it, or not even the colon, is all of the bucket.
        bucket, _colon, path = rest.partition(":")
        return f"{scheme}:{bucket}:{_normal(path)}"
    remote, colon, path = rest.rpartition(":")
    return f"{scheme}:{remote}{colon}{_plain_path(path, False)}"


def _parts(scheme: str, rest: str) -> tuple[str, str, str]:
    """Protocol, authority and path of what follows the scheme."""
    if scheme == "sftp":
        url = rest.startswith("//")
        parts = _before_query(rest[2:]).split("/", 1) if url else rest.split(":", 1)
        return "sftp", parts[0], parts[-1]
    found = re.match(r"\A(?:(https?):)?//", rest, re.IGNORECASE)
    if found and found[1]:
        rest = _before_query(rest)
    authority, slash, path = rest[found.end() if found else 0 :].partition("/")
    return (found[1] or "https").lower() if found else "https", authority, slash + path


def _before_query(url: str) -> str:
    """What restic looks at where it takes a location for a URL."""
    return re.split("[?#]", url)[0]


def _plain_path(path: str, relative: bool) -> str:
    path = _normal(urllib.parse.unquote(path))
    return f"~/{path}" if relative else path


def _normal(path: str) -> str:
    return posixpath.normpath(f"/{path}").lstrip("/")


def _secret(where: str, value: t.Any) -> str:
    if not isinstance(value, str):
        raise BadInput(where, "<hidden>", "is not text", "Write the password in quotes")
    if not value or value != value.strip() or _CONTROL.search(value):
        raise BadInput(
            where,
            "<hidden>",
            "is not one line of text",
            "A password is not empty, and has no line break and no space around it",
        )
    return _hidden(where, value)


def _hidden(where: str, value: str) -> str:
    try:
        return f.string(where, value, f.LINE_BYTES)
    except BadInput as bad:
        bad.value = "<hidden>"
        raise


def _secret_environment(where: str, value: t.Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadInput(where, "<hidden>", "is not a dictionary", "Use NAME: value")
    result = {}
    for key, entry in value.items():
        if not isinstance(key, str) or not f.VARIABLE.match(key):
            raise BadInput(
                where, "<hidden>", "has a key that is not the name of a variable", "Use letters, digits and _"
            )
        at = below(where, key)
        if OWN_VARIABLES.match(key):
            raise BadInput(
                at,
                "<hidden>",
                "is a variable that holdfast sets itself",
                "Remove it; the password has a key of its own",
            )
        if isinstance(entry, bool) or not isinstance(entry, (str, int)) or _CONTROL.search(str(entry)):
            raise BadInput(at, "<hidden>", "is not one line of text", "Write it in quotes, without line breaks")
        # restic takes several, between commas.
        if key == "RESTIC_CACERT" and not re.match(r"\A/[^,]*\Z", str(entry)):
            raise BadInput(
                at,
                "<hidden>",
                "is not the absolute path of one file",
                "Name the file on the client that holds the certificates to trust, without a comma in its path",
            )
        result[str(key)] = _hidden(at, str(entry))
    return result


def _options(where: str, value: t.Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadInput(
            where, value, "is not a dictionary", "Use restic's names of extended options: rest.connections: 5"
        )
    result = {}
    for key, entry in value.items():
        at = below(where, key)
        if not isinstance(key, str) or not re.match(r"\A[a-z0-9]+\.[a-z0-9-]+\Z", key):
            raise BadInput(at, "", "is not an extended option of restic", "See 'restic options'")
        if re.search(r"command|program|args", key):
            raise BadInput(at, "", "would run a command of its own", "It cannot be set here")
        content = f.line(at, str(entry).lower() if isinstance(entry, (bool, int)) else entry)
        # restic reads -o as a line of CSV: what follows a comma is an option of its own.
        if re.search(r'[",]', content):
            raise BadInput(
                at, content, "has a comma or a quote, at which restic begins another option", "Leave them out"
            )
        result[str(key)] = content
    return result


def _url_prefix(where: str, value: t.Any) -> str:
    prefix = str(_prefix_text(where, value))
    if re.search(r"/\.{1,2}(/|\Z)", prefix):
        raise BadInput(where, value, "contains a '.' or '..' component", "Write the path that is meant")
    return prefix


_prefix_text = f.text(
    r"(/[A-Za-z0-9._~-]{1,200}){1,20}", "the path of a URL", "Use /like/this, without a slash at the end"
)


def _remote(where: str, value: t.Any) -> str:
    """A remote of rclone on the server and a path in it, as the proxy is started with it."""
    if isinstance(value, str) and re.search(r"(?i)(?:pass|secret|token|key)[a-z_]*=", value):
        raise BadInput(where, "<hidden>", "contains credentials", "Put them into rclone_proxy_remotes of the server")
    remote = str(_remote_text(where, value))
    name, _colon, path = remote.partition(":")
    f.name(where, name)
    if any(part in (".", "..") for part in path.split("/")):
        raise BadInput(where, value, "contains a '.' or '..' component", "Write the path that is meant")
    return remote


_remote_text = f.text(
    r"[a-z][a-z0-9-]{0,26}:/?([A-Za-z0-9_.@+=-]{1,200}(/[A-Za-z0-9_.@+=-]{1,200}){0,20})?",
    "a remote of rclone and a path in it",
    "Use name:path, as s3-offsite:company-backups, with letters, digits and . _ @ + = - /, and no slash at the end",
)


def source(where: str, value: t.Any) -> str:
    """An address or network from which a key may be used, in one spelling."""
    try:
        return f.network(value)
    except ValueError:
        raise BadInput(
            where,
            value,
            "is not an IP address or a network",
            "Give 192.0.2.10, 2001:db8::7 or 192.0.2.0/24: as the server sees the client, without names and patterns",
        ) from None


FIELDS: dict[str, f.Checker] = {
    "engine": _engine,
    "access": _access,
    "server": f.line,
    "address": f.address,
    "port": f.integer(1, 65535),
    "url_prefix": _url_prefix,
    "tls": f.boolean,
    "url": _url,
    "path": f.plain_path,
    "mount": f.plain_path,
    "remote": _remote,
    "source": f.listing(source, empty=False),
    "encryption": f.choice("repokey-blake2", "keyfile-blake2"),
    "password": _secret,
    "environment": _secret_environment,
    "options": _options,
    "proxy": f.proxy,
    "repository_version": f.integer(1, 2),
    "from_repo": f.name,
    "quota": f.size("a size", "KMGT"),
}
SECRETS = ("password", "environment")
# Keys that go with some accesses only, and the accesses that need them.
ONLY_FOR: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("server", "address", "port"), ("rest", *SSH_ACCESS)),
    **dict.fromkeys(("url_prefix", "tls"), ("rest",)),
    "quota": ("rest", "ssh"),
    "remote": ("rclone",),
    "source": SSH_ACCESS,
    "path": ("local", "sftp"),
    "mount": ("local",),
    **dict.fromkeys(("url", "environment"), ("url", "s3")),
    "proxy": OVER_HTTP,
}
NEEDED: dict[str, tuple[str, ...]] = {"server": ("rest", *SSH_ACCESS), "url": ("url", "s3")}
ONLY_FOR_ENGINE = {"encryption": "borg", "repository_version": "restic", "from_repo": "restic", "options": "restic"}


def repository(where: str, value: t.Any) -> dict[str, t.Any]:
    """A checked repository as its user wrote it, with engine and access filled in."""
    result = f.mapping(FIELDS, where, value)
    engine = result.setdefault("engine", "restic")
    accesses = ENGINES[engine]
    access = result.setdefault(
        "access", accesses[0] if "server" in result else "url" if "url" in result and engine == "restic" else "local"
    )
    if access not in accesses:
        raise BadInput(
            f"{where}.access", access, f"does not go with engine: {engine}", f"Use access: {', '.join(accesses)}"
        )
    for key, owner in ONLY_FOR_ENGINE.items():
        if key in result and engine != owner:
            raise BadInput(f"{where}.{key}", result[key], f"does not go with engine: {engine}", f"It is for {owner}")
    for key, owners in ONLY_FOR.items():
        if key in result and access not in owners:
            raise BadInput(
                f"{where}.{key}",
                "<hidden>" if key in SECRETS else result[key],
                f"does not go with access: {access}",
                f"It is for access: {', '.join(owners)}",
            )
    for key, owners in NEEDED.items():
        if access in owners and key not in result:
            raise BadInput(f"{where}.{key}", "", "is missing", f"access: {access} needs it")
    if access == "s3":
        _in_s3(where, result)
    if engine == "borg":
        if "quota" in result and _borg_bytes(result["quota"]) < BORG_LEAST_QUOTA:
            raise BadInput(
                f"{where}.quota", result["quota"], "is too small for borg", "Use 10M or more, or leave it out"
            )
        result.setdefault("encryption", "repokey-blake2")
    result.setdefault("options", {})
    return result


def _borg_bytes(size: str) -> int:
    """What borg takes a size for."""
    factor = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}.get(size[-1], 1)
    return int(size.rstrip("KMGT")) * factor


def _in_s3(where: str, written: dict[str, t.Any]) -> None:
    """Refuse a location that restic would take for another one or for none, and credentials that are not there.

    With ``access: url`` all but the host is restic's to judge, which tries a wrong one again for a quarter of an hour.
    """
    found = _S3.match(written["url"])
    if not found or any(part in (".", "..") for part in found["path"].split("/")):
        raise BadInput(
            f"{where}.url",
            written["url"],
            "is not the location of a repository in S3",
            "Use s3:https://host/bucket/path: a bucket of 3 to 63 letters, digits and . _ -, in the path these and @ + = ~",
        )
    for variable in S3_CREDENTIALS:
        if not written.get("environment", {}).get(variable):
            raise BadInput(
                f"{where}.environment.{variable}",
                "",
                "is missing",
                f"Give {' and '.join(S3_CREDENTIALS)} (from a vault), or use access: url where the host itself has credentials",
            )


def own_program(where: str, url: str) -> dict[str, str]:
    """The extended option with which restic starts the rclone or ssh of a user's own location as it would, but without the capability."""
    if url.startswith("rclone:"):
        return {"rclone.program": f"{_WITHOUT_CAPABILITY} rclone"}
    if url.startswith("sftp:"):
        return {"sftp.command": f"{_WITHOUT_CAPABILITY} {shlex.join(['ssh', *_ssh_words(where, url)])}"}
    return {}


def _ssh_words(where: str, url: str) -> list[str]:
    """What restic itself would tell ssh."""
    found = _SFTP.match(url)
    if found:
        ip, port = found["ip"] and urllib.parse.unquote(found["ip"]), found["port"]
        host = ip or found["host"] or found["name"]
        user = urllib.parse.unquote(found["user"] or "") or found["login"]
        # A name may be one of the client's ssh_config, whatever it looks like.
        if _is_address(ip, None, port) and all(_SSH_WORD.match(word) for word in (host, user) if word):
            return [host, *(["-p", port] if port else []), *(["-l", user] if user else []), "-s", "sftp"]
    raise BadInput(
        f"{where}.url",
        url,
        "is not the location of a repository over sftp",
        "Use sftp:user@host:/path or sftp://user@host:port//path, with no quotes and commas in user and host",
    )


def rest_location(address: str, port: int, user: str, tls: bool, prefix: str = "") -> str:
    """The location of a repository on a rest-server as restic takes it, without credentials."""
    return f"rest:{'https' if tls else 'http'}://{f.url_host(address)}:{port}{prefix}/{user}/"


def alias(name: str) -> str:
    """What a repository's server is called in the client's own ssh_config, whatever its address is."""
    return f"holdfast-{name}"


def ssh_program(name: str) -> str:
    """How root of a client logs in with the key of this repository; ssh does not inherit that a backup reads every file.

    capsh needs no more than prctl(2) for that. setpriv would need capset(2), which the sandbox of the units withholds.
    There is nothing in it that restic's own splitter of words, a shell or systemd would read as anything else.
    """
    dial = f"-F /etc/holdfast/ssh/{name}.conf -i /etc/holdfast/secrets/{name}.ssh_key"
    return f"capsh --noamb --shell=/usr/bin/ssh -- {dial}"


def ssh_options(access: str, name: str) -> dict[str, str]:
    """The extended option of restic that makes it use that, none for borg.

    What it asks for is ignored by the server's forced command. Asked for as a subsystem (-s), sshd would throw away what
    the server has to say when it refuses.
    """
    dial = f"{ssh_program(name)} {alias(name)}"
    return {"rclone": {"rclone.program": dial}, "sftp": {"sftp.command": f"{dial} sftp"}}.get(access, {})


def ssh_location(access: str, name: str, directory: str, path: str) -> str:
    """The location as the engine takes it. ``directory`` is the repository's own one, ``path`` where it lies for sftp.

    For rclone the server's forced command decides where the data is; what stands here only tells repositories apart.
    """
    if access == "rclone":
        return f"rclone:holdfast:{directory}"
    return f"sftp:{alias(name)}:{path}" if access == "sftp" else f"ssh://{alias(name)}/./{directory}"


def local_path(written: dict[str, t.Any], name: str) -> str:
    """Where a local repository lies: the user's path, else below its mount, else the default."""
    if "path" in written:
        return str(written["path"])
    return f"{written['mount'].rstrip('/')}/holdfast/{name}" if "mount" in written else f"{LOCAL_ROOT}/{name}"
