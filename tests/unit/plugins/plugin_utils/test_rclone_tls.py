# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remotes that would send a secret over the network in clear, and those that only lack TLS."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _rclone, _rclone_tls
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput

SECRET = "geheim"
FTP = {"type": "ftp", "host": "nas", "user": "u", "pass": SECRET}
HTTP = f"http://u:{SECRET}@store:8080/{SECRET}?sig={SECRET}"
AZURE = f"AccountName=a;AccountKey={SECRET};"


def of(kind: str, **options: Any) -> dict[str, Any]:
    return {"type": kind, "user": "u", "key": SECRET, **options}


@pytest.mark.parametrize(
    ("remote", "option", "shown"),
    [
        (FTP, "explicit_tls", ""),
        ({**FTP, "tls": False, "explicit_tls": "no"}, "explicit_tls", "no"),
        ({**FTP, "tls": True, "no_check_certificate": True}, "no_check_certificate", "true"),
        ({**FTP, "explicit_tls": "1", "no_check_certificate": "T"}, "no_check_certificate", "T"),
        (of("webdav", url="https://nas", no_check_certificate=True), "no_check_certificate", "true"),
        (of("webdav", url=HTTP), "url", "http://store"),
        (of("webdav", url="HTTP://STORE"), "url", "http://store"),
        (of("webdav", url="http://127.0.0.1.example.net"), "url", "http://127.0.0.1.example.net"),
        (of("webdav", url=f"http://[{SECRET}"), "url", "http://"),
        (of("swift", auth=HTTP), "auth", "http://store"),
        (of("swift", auth="https://store", storage_url=HTTP), "storage_url", "http://store"),
        (of("b2", endpoint=HTTP), "endpoint", "http://store"),
        (of("b2", download_url=HTTP), "download_url", "http://store"),
        (of("google cloud storage", endpoint=HTTP), "endpoint", "http://store"),
        (of("s3", sts_endpoint=HTTP), "sts_endpoint", "http://store"),
        (of("s3", endpoint=HTTP, ibm_api_key=SECRET), "endpoint", "http://store"),
        (of("s3", endpoint=HTTP, sse_customer_key=SECRET), "endpoint", "http://store"),
        (of("azureblob", sas_url=HTTP), "sas_url", "http://store"),
        (
            of("azureblob", connection_string=f"BlobEndpoint={HTTP};SharedAccessSignature=sig={SECRET}"),
            "connection_string",
            "http://store",
        ),
    ],
)
def test_secrets_in_clear_are_refused_and_not_shown(remote: dict[str, Any], option: str, shown: str) -> None:
    with pytest.raises(BadInput) as refused:
        _rclone.remote("r", remote)
    assert (refused.value.where, refused.value.value) == (f"r.{option}", shown)
    assert refused.value.cure
    assert SECRET not in f"{refused.value.wrong}{refused.value.cure}"


@pytest.mark.parametrize(
    "remote",
    [
        {**FTP, "explicit_tls": True},
        {**FTP, "tls": "true", "no_check_certificate": False},
        # The end of a tunnel.
        {**FTP, "host": "127.0.0.1"},
        {**FTP, "host": "::1", "explicit_tls": True, "no_check_certificate": True},
        of("webdav", url="http://localhost:8080/dav"),
        of("webdav", url="http://[::1]:8080/dav"),
        of("webdav", url="https://nas/dav"),
        of("swift", auth="https://store", storage_url="https://store"),
        of("b2"),
        of("smb", host="nas"),
        of("s3", endpoint="https://store", ibm_api_key=SECRET, download_url="store"),
        of("s3", endpoint="http://127.0.0.1:9000", sse_customer_key=SECRET),
        of("azureblob", account="a", use_emulator=True),
        of("azureblob", connection_string=AZURE),
        of("azureblob", connection_string=f"DefaultEndpointsProtocol=https;{AZURE}"),
    ],
)
def test_what_is_encrypted_or_stays_on_the_host(remote: dict[str, Any]) -> None:
    options = _rclone.remote("r", remote)
    assert _rclone_tls.without_tls(options["type"], options) is None


@pytest.mark.parametrize(
    ("remote", "found"),
    [
        (of("s3", endpoint=HTTP), ("endpoint", "http://store")),
        (of("s3", download_url=HTTP), ("download_url", "http://store")),
        (of("azureblob", account="a", endpoint=HTTP), ("endpoint", "http://store")),
        (
            of("azureblob", connection_string=f"DefaultEndpointsProtocol=http;{AZURE}"),
            ("connection_string", "http://a.blob.core.windows.net"),
        ),
    ],
)
def test_what_only_signs_is_told(remote: dict[str, Any], found: tuple[str, str]) -> None:
    options = _rclone.remote("r", remote)
    assert _rclone_tls.without_tls(options["type"], options) == found
