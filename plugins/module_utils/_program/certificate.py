# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast certificate`: what the rest-server on this host serves, renewed or taken up without Ansible."""

from __future__ import annotations

from collections.abc import Sequence

from .. import _tls
from .._files import UnsafePathError
from .host import Host, ProgramError
from .text import say

# Seconds within which a server that refuses a certificate has ended.
_SETTLED = 2.0


def renew(host: Host, directory: str, service: str | None) -> int:
    """Issue a new certificate of the private CA when it is due."""
    try:
        renewed = _tls.renew(directory)
    except (_tls.TlsError, UnsafePathError, OSError) as error:
        raise ProgramError(f"the certificate in {directory} cannot be renewed: {error}") from error
    say("a new certificate was issued" if renewed else "the certificate needs no renewal")
    if renewed and service:
        _restart(host, service)
    return 0


def load(host: Host, certificate: str, key: str, names: Sequence[str], service: str) -> int:
    """Restart `service` where the user's certificate and key are usable and not what it was started with."""
    try:
        files = {"certificate": _read(host, certificate), "key": _read(host, key)}
        wanted = _tls.parse_names(names) if names else frozenset()
        leaf = _tls.check_usable(
            (certificate, _text(files["certificate"])), (key, _text(files["key"])), wanted, host.now()
        )
    except _tls.TlsError as error:
        raise ProgramError(f"{service} is left as it is: {error}") from error
    until = f"it ends on {_tls.utc(leaf.not_after)}"
    state, _run = _seen(host, service)
    if state == "inactive":
        say(f"{service} does not run, and reads {certificate} when it starts; {until}")
        return 0
    if state != "active":
        raise ProgramError(
            f"{service} is {state or 'unknown to systemd'}, and serves nobody: see journalctl -u {service}"
        )
    if _loaded(host, service) == files:
        say(f"{service} serves {certificate} as it is; {until}")
        return 0
    _restart(host, service)
    run = _seen(host, service)
    host.sleep(_SETTLED)
    # One that ends is started again and again by systemd, and is active in between.
    if run[0] != "active" or _seen(host, service) != run or _loaded(host, service) != files:
        raise ProgramError(f"{service} was restarted and does not serve {certificate}: see journalctl -u {service}")
    say(f"{service} serves the new {certificate}; {until}")
    return 0


def _seen(host: Host, service: str) -> tuple[str, str]:
    """The state of the service, as systemd calls it, and systemd's id of this run of it."""
    done = host.command(["systemctl", "show", "--property=ActiveState,InvocationID", "--", service], timeout=30)
    values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return values.get("ActiveState", ""), values.get("InvocationID", "")


def _loaded(host: Host, service: str) -> dict[str, bytes]:
    """What systemd copied for the service when it started."""
    names = ("certificate", "key")
    try:
        return {name: host.path(f"/run/credentials/{service}/{name}").read_bytes() for name in names}
    except OSError as error:
        raise ProgramError(f"what {service} serves cannot be seen: {error.filename}: {error.strerror}") from error


def _restart(host: Host, service: str) -> None:
    done = host.command(["systemctl", "try-restart", "--", service], timeout=120)
    if done.status:
        raise ProgramError(f"{service} could not be restarted: {done.stderr.strip()}")


def _read(host: Host, path: str) -> bytes:
    try:
        return host.path(path).read_bytes()
    except OSError as error:
        raise _tls.TlsError(f"{path}: {error.strerror}") from error


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
