# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What crosses the network in clear between rclone and a store, by the options of a remote."""

from __future__ import annotations

import ipaddress
import typing as t
import urllib.parse

from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput

WITHOUT_TLS = "is dialled without TLS: whoever is on the way can answer in the store's place"
UNCHECKED = "lets whoever is on the way take the store's place, and have its credentials"
REMOVE = (
    "Remove it, and trust the store's certificate on this host: put it into /usr/local/share/ca-certificates"
    " and run update-ca-certificates"
)
# Addresses to which a password, a token or a secret URL is sent as it is.
_SENT: dict[str, tuple[str, ...]] = {
    "webdav": ("url",),
    "swift": ("auth", "storage_url"),
    "b2": ("endpoint", "download_url"),
    "google cloud storage": ("endpoint",),
    "s3": ("sts_endpoint", "ibm_iam_endpoint"),
    "azureblob": ("sas_url",),
}
# To these only a signature is, unless one of the options says otherwise.
_SIGNED: dict[str, tuple[str, ...]] = {"s3": ("endpoint", "download_url"), "azureblob": ("endpoint",)}
_SENT_IF: dict[str, tuple[str, ...]] = {"s3": ("ibm_api_key", "sse_customer_key", "sse_customer_key_base64")}
TRUE = ("1", "t", "true")
FALSE = ("0", "f", "false")


def refuse(where: str, kind: str, options: t.Mapping[str, str]) -> None:
    """Raise BadInput where secrets cross the network in clear, or go to whoever answers. A tunnel's end on this host is no network."""
    local = kind == "ftp" and is_loopback(options.get("host", ""))
    unchecked = options.get("no_check_certificate", "false")
    if unchecked.lower() not in FALSE and not local:
        raise BadInput(
            f"{where}.no_check_certificate",
            unchecked,
            UNCHECKED,
            REMOVE,
        )
    encrypted = any(options.get(option, "").lower() in TRUE for option in ("tls", "explicit_tls"))
    if kind == "ftp" and not encrypted and not local:
        raise BadInput(
            f"{where}.explicit_tls",
            options.get("explicit_tls", ""),
            "is not true, and neither is tls: the password would cross the network in clear",
            "Set explicit_tls: true, or tls: true where the server has a port for it; or use another protocol",
        )
    for option, shown in _in_clear(kind, options, sent=True):
        raise BadInput(
            f"{where}.{option}",
            shown,
            "is no https:// address, and credentials would cross the network in clear",
            "Use https://, or an address of this host (127.0.0.1) where a tunnel to the store begins",
        )


def without_tls(kind: str, options: t.Mapping[str, str]) -> tuple[str, str] | None:
    """The option that has a store dialled without TLS, and its address; no secret is sent there, only what is signed."""
    return next(iter(_in_clear(kind, options, sent=False)), None)


def _in_clear(kind: str, options: t.Mapping[str, str], *, sent: bool) -> list[tuple[str, str]]:
    """Options with an http:// address of another host, and the address as it may be shown, where secrets are sent or where none is."""
    secret, signed = _SENT.get(kind, ()), _SIGNED.get(kind, ())
    if any(option in options for option in _SENT_IF.get(kind, ())):
        secret, signed = secret + signed, ()
    found = [(option, options[option]) for option in (secret if sent else signed) if option in options]
    if kind == "azureblob" and "connection_string" in options:
        address, token = _connection(options["connection_string"])
        found += [("connection_string", address)] if token == sent else []
    return [(option, shown) for option, url in found for shown in [_clear(url)] if shown]


def _connection(text: str) -> tuple[str, bool]:
    """The address in a connection string of Azure, and whether a token that is sent as it is belongs to it."""
    parts = {
        key.strip().lower(): value.strip() for key, _equals, value in (each.partition("=") for each in text.split(";"))
    }
    protocol = parts.get("defaultendpointsprotocol", "https")
    address = parts.get("blobendpoint") or f"{protocol}://{parts.get('accountname', '')}.blob.core.windows.net"
    return address, "sharedaccesssignature" in parts


def _clear(url: str) -> str:
    """Scheme and host of an http:// address, as far as it is no secret; empty where it is another, or of this host."""
    if not url.strip().lower().startswith("http:"):
        return ""
    try:
        host = urllib.parse.urlsplit(url.strip()).hostname or ""
    except ValueError:
        host = ""
    return "" if is_loopback(host) else f"http://{host}"


def is_loopback(host: str) -> bool:
    """Whether a name or an address leads each host to itself."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        return host.lower() == "localhost"
