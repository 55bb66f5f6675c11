# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""rclone: which remotes it may serve, their configuration files, and what its errors mean."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# What every option of these may hold is said in a message; of the others nobody sees the value.
SHOWN = frozenset(
    "type provider env_auth region endpoint location_constraint acl bucket_acl object_acl public_access storage_class"
    " server_side_encryption chunk_size upload_cutoff upload_concurrency copy_cutoff force_path_style no_check_bucket list_version v2_auth"
    " host port vendor tls explicit_tls known_hosts_file disable_hashcheck concurrency".split()
)
# Values that rclone is given where the user says nothing.
DEFAULTS: dict[str, dict[str, str]] = {
    # The bucket is made by whoever owns the store: credentials that may only write objects are enough.
    "s3": {"acl": "private", "bucket_acl": "private", "no_check_bucket": "true"},
}

ALLOWED = ("s3", "b2", "azureblob", "google cloud storage", "swift", "sftp", "webdav", "ftp", "smb")
_WRITES_BACK = "keeps a token that rclone must write back into its configuration, which no serving account may change"
_WRAPPER = "is a layer over another remote or directory, which this file does not have"
# Why a type cannot be served; any other that is not in ALLOWED is not known here.
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        "amazon cloud drive|box|drive|dropbox|fichier|filefabric|google photos|hidrive|huaweidrive|iclouddrive|jottacloud"
        "|linkbox|mailru|onedrive|pcloud|pikpak|premiumizeme|protondrive|putio|sharefile|sugarsync|yandex|zoho".split(
            "|"
        ),
        _WRITES_BACK,
    ),
    **dict.fromkeys("alias cache chunker combine compress hasher union archive".split(), _WRAPPER),
    "crypt": f"encrypts what restic has encrypted already, and {_WRAPPER}",
    "local": "is a directory of the server, which needs no remote: leave `remote` out of the repository, and set ssh_access_path",
    "memory": "forgets everything when a backup ends",
    "http": "can only be read",
}
# In each type: options that keep a token, or run a command.
_TOKEN_OPTIONS = re.compile(r"\A(token|token_url|auth_code|auth_url|client_credentials|config_.*)\Z")
_COMMAND_OPTIONS = re.compile(r"\A(ssh|.*_command)\Z")

# A value that rclone's reader would take for a quoted one, or expand.
_BACKQUOTE = "`"


def refused_option(option: str) -> str | None:
    """Why an option may not be set, None if it may."""
    if _TOKEN_OPTIONS.match(option):
        return _WRITES_BACK
    if _COMMAND_OPTIONS.match(option):
        return "would run a command of its own"
    return None


def render(name: str, options: Mapping[str, str]) -> str:
    """The configuration file of one remote. Values are one line each, without ``%(``: the caller has checked them."""
    lines = [f"[{name}]"]
    for key, value in options.items():
        quoted = value != value.strip() or value[:1] in (_BACKQUOTE, '"')
        lines.append(f"{key} = {_BACKQUOTE}{value}{_BACKQUOTE}" if quoted else f"{key} = {value}")
    return "# Written by holdfast.backup.\n" + "\n".join(lines) + "\n"


def parse(text: str) -> dict[str, str]:
    """The options in a file that :func:`render` made."""
    options = {}
    for line in text.splitlines():
        key, separator, value = line.partition(" = ")
        if separator and not line.startswith(("#", "[")):
            quoted = value[:1] == _BACKQUOTE and value[-1:] == _BACKQUOTE and len(value) > 1
            options[key] = value[1:-1] if quoted else value
    return options


def unknown_options(providers: str, kind: str, options: Iterable[str]) -> tuple[list[str], list[str]] | None:
    """Options that this rclone does not have for a type, and those it has; None when it does not have the type.

    ``providers`` is the standard output of ``rclone config providers``. Raises ValueError when it is no such answer.
    """
    try:
        found = {entry["Name"]: [option["Name"] for option in entry["Options"]] for entry in json.loads(providers)}
    except (KeyError, TypeError, ValueError):
        raise ValueError("rclone config providers did not answer in JSON") from None
    if kind not in found:
        return None
    known = sorted({*found[kind], "type", "description"})
    return [option for option in options if option not in known], known


@dataclass(frozen=True)
class Cause:
    """Why a remote could not be listed: a word, what it means, the option that says so (if one does), and the cure."""

    word: str
    meaning: str
    option: str | None
    cure: str


# What rclone's log says; the first that matches counts.
_CAUSES: tuple[tuple[str, Cause], ...] = (
    (
        r"Failed to load config",
        Cause("file", "the account cannot read its file", None, "Let the group of the remote reach the directory"),
    ),
    (
        r"is it obscured|when revealing password|illegal base64",
        Cause("credentials", "the password is not obscured", "pass", "Write what `rclone obscure -` prints for it"),
    ),
    (
        r"ExpiredToken|TokenRefreshRequired|token (?:has|is) expired|\bInvalidToken\b",
        Cause("credentials", "the credentials have expired", "session_token", "Give new ones, of a kind that lasts"),
    ),
    (
        r"RequestTimeTooSkewed|clock skew",
        Cause("clock", "the clock of this host and that of the store differ", None, "Set the clock of this host"),
    ),
    (
        r"InvalidAccessKeyId|NoCredentialProviders|failed to refresh cached credentials",
        Cause(
            "credentials",
            "the store does not know the access key",
            "access_key_id",
            "Give the key that the store shows",
        ),
    ),
    (
        r"SignatureDoesNotMatch",
        Cause(
            "credentials", "the secret key is wrong", "secret_access_key", "Give the one that belongs to the access key"
        ),
    ),
    (
        r"knownhosts: key|host key (?:mismatch|verification)",
        Cause(
            "credentials",
            "the host key of the server is not the one expected",
            "known_hosts_file",
            "Compare it, and correct the file",
        ),
    ),
    (
        r"QuotaExceeded|InsufficientStorage|StatusCode: 507|insufficient storage|\bEDQUOT\b|Quota exceeded",
        Cause("quota", "the store's quota is used up", None, "Raise the quota, or free space there"),
    ),
    (
        r"NoSuchBucket|directory not found|container not found",
        Cause("absent", "it does not exist", None, "Make the bucket or directory at the store, or correct its name"),
    ),
    (
        r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|StatusCode: 30[1278]",
        Cause(
            "region", "the bucket is in another region, or at another endpoint", "region", "Correct region and endpoint"
        ),
    ),
    (
        r"AccessDenied|AllAccessDisabled|unable to authenticate|StatusCode: 40[13]|40[13] (?:Forbidden|Unauthorized)|530 |Login incorrect"
        r"|logon failure|permission denied",
        Cause(
            "credentials",
            "the store refuses these credentials here",
            None,
            "Allow them to list, read and write there, or correct them",
        ),
    ),
    (
        r"SlowDown|ServiceUnavailable|TooManyRequests|StatusCode: (?:429|50[0234])|50[0234] (?:Internal|Bad|Service|Gateway)",
        Cause(
            "unavailable",
            "the store answers that it cannot serve now",
            None,
            "Run again later; if it stays, ask whoever runs the store",
        ),
    ),
    (
        r"no such host|server misbehaving|name resolution",
        Cause(
            "dns",
            "the name of the store does not resolve on this host",
            "endpoint",
            "Correct the name, or this host's DNS",
        ),
    ),
    (
        r"server gave HTTP response to HTTPS client|x509: |tls: ",
        Cause(
            "tls", "TLS with the store fails", "endpoint", "Correct the endpoint, or trust its certificate on this host"
        ),
    ),
    (
        r"connection refused|no route to host|network is unreachable|i/o timeout|deadline exceeded|connection reset|\bEOF\b|connect: ",
        Cause(
            "unreachable", "the store does not answer", "endpoint", "Correct the endpoint, or let this host reach it"
        ),
    ),
)
_UNKNOWN = Cause("unknown", "it cannot be listed", None, "Try it by hand with the same configuration file")
_TIMED_OUT = Cause(
    "unreachable", "the store does not answer in time", "endpoint", "Correct the endpoint, or let this host reach it"
)
_ABSENT_CODE = 3


def cause(code: int, stderr: str, *, timed_out: bool = False) -> Cause:
    """Why ``rclone lsf`` failed, from its exit code and its log."""
    for pattern, known in _CAUSES:
        if re.search(pattern, stderr, re.IGNORECASE):
            return known
    if timed_out:
        return _TIMED_OUT
    return next(known for _pattern, known in _CAUSES if known.word == "absent") if code == _ABSENT_CODE else _UNKNOWN


def said(stderr: str, options: Mapping[str, str]) -> str:
    """The last line of rclone's log in one bounded line, without the values that nobody is to see."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    text = re.sub(r"\A[0-9/]+ [0-9:]+ [A-Z]+ *: ", "", lines[-1]) if lines else ""
    text = re.sub(r"\AFailed to lsf with \d+ errors: last error was: (?:error in ListJSON: )?", "", text)
    # A request's words around a secret in it are others than the option's.
    text = re.sub(r"(\w://[^\s\"'?]*\?)[^\s\"']+", r"\1***", text)
    hidden: Sequence[str] = sorted((v for k, v in options.items() if k not in SHOWN and v), key=len, reverse=True)
    for value in hidden:
        text = text.replace(value, "***")
    return "".join(character if character.isprintable() else " " for character in text)[:200]
