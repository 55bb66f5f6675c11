# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The private CA on a real server, judged by restic against a real rest-server."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.api import Lab

from .conftest import RunModule

DIRECTORY = "/etc/holdfast/tls"
SERVER = "holdfast-test-rest-server"

Sh = Callable[[str], str]


@pytest.fixture
def sh(lab: Lab) -> Iterator[Sh]:
    """Run a script on the trixie host, where restic and rest-server are."""

    def run(script: str) -> str:
        return lab.exec("tx", ["sh", "-c", script], check=True).stdout

    run(
        "command -v restic restic-rest-server openssl >/dev/null ||"
        " apt-get install -qy --no-install-recommends restic restic-rest-server openssl >/dev/null 2>&1;"
        f"rm -rf {DIRECTORY} /srv/tls-test; mkdir -p /srv/tls-test; echo pw >/srv/tls-test/pw;"
        "grep -q vault-alias /etc/hosts || echo '127.0.0.1 vault-alias other-alias' >>/etc/hosts"
    )
    yield run
    run(f"systemctl stop {SERVER} 2>/dev/null; rm -rf {DIRECTORY} /srv/tls-test; sed -i '/vault-alias/d' /etc/hosts")


def serve(sh: Sh) -> None:
    """Start rest-server with the certificate; certificate and key are the same file."""
    sh(
        f"systemctl stop {SERVER} 2>/dev/null; systemd-run --quiet --collect --unit {SERVER} --property Type=exec"
        " restic-rest-server --path /srv/tls-test/data --no-auth --listen :8443"
        f" --tls --tls-cert {DIRECTORY}/leaf.pem --tls-key {DIRECTORY}/leaf.pem;"
        "for i in $(seq 50); do ss -ltn | grep -q :8443 && exit 0; sleep 0.1; done; exit 1"
    )


def restic(sh: Sh, name: str, ca: str) -> str:
    """What restic says to a repository that is not there: exit code 10 if it accepts the certificate."""
    sh(f"printf %s {shlex.quote(ca)} >/srv/tls-test/ca.pem")
    return sh(
        f"timeout 20 restic -r rest:https://{name}:8443/x/ --cacert /srv/tls-test/ca.pem --no-cache"
        " -p /srv/tls-test/pw cat config 2>&1; echo code $?"
    )


ACCEPTED = "code 10"


def keep(run_module: RunModule, names: list[str], *, check: bool = False, **options: Any) -> dict[str, Any]:
    result = run_module("tx", "tls_authority", {"names": names, **options}, check=check)
    assert not result["failed"], result
    return result


def test_restic_accepts_the_names_and_nothing_else(lab: Lab, sh: Sh, run_module: RunModule) -> None:
    ipv4, ipv6 = lab.addresses("tx")
    names = ["vault-alias", ipv4, ipv6]
    assert keep(run_module, names, check=True)["changed"] is True
    made = keep(run_module, names)
    assert keep(run_module, names)["changed"] is False
    serve(sh)
    for name in ("vault-alias", ipv4, f"[{ipv6}]"):
        assert ACCEPTED in restic(sh, name, made["ca"]), name
    refused = restic(sh, "other-alias", made["ca"])
    assert ACCEPTED not in refused
    assert "x509" in refused


def test_restic_refuses_names_that_the_authority_does_not_permit(sh: Sh, run_module: RunModule) -> None:
    """What a thief of the CA's key could do: sign a certificate for another name."""
    made = keep(run_module, ["vault-alias"])
    sh(
        f"cd {DIRECTORY} && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /srv/tls-test/k"
        " -subj '/CN=thief' -out /srv/tls-test/csr 2>/dev/null &&"
        " printf 'subjectAltName=DNS:other-alias,DNS:vault-alias\\nextendedKeyUsage=serverAuth\\n' >/srv/tls-test/ext &&"
        " openssl x509 -req -in /srv/tls-test/csr -CA authority.pem -CAkey authority.pem -days 5"
        " -extfile /srv/tls-test/ext -out /srv/tls-test/crt 2>/dev/null && cat /srv/tls-test/k /srv/tls-test/crt >leaf.pem"
    )
    serve(sh)
    refused = restic(sh, "other-alias", made["ca"])
    assert ACCEPTED not in refused
    assert "not permitted" in refused
    # The control: without the forged name the same way of signing is accepted.
    sh("sed -i 's/DNS:other-alias,//' /srv/tls-test/ext")
    sh(
        f"cd {DIRECTORY} && openssl x509 -req -in /srv/tls-test/csr -CA authority.pem -CAkey authority.pem -days 5"
        " -extfile /srv/tls-test/ext -out /srv/tls-test/crt 2>/dev/null && cat /srv/tls-test/k /srv/tls-test/crt >leaf.pem"
    )
    serve(sh)
    assert ACCEPTED in restic(sh, "vault-alias", made["ca"])


def test_a_new_name_never_locks_clients_out(sh: Sh, run_module: RunModule) -> None:
    first = keep(run_module, ["vault-alias"])
    second = keep(run_module, ["other-alias"])
    assert second["pending"] is True
    serve(sh)
    assert ACCEPTED in restic(sh, "vault-alias", first["ca"])
    assert ACCEPTED in restic(sh, "vault-alias", second["ca"])
    third = keep(run_module, ["other-alias"])
    assert (third["changed"], third["pending"]) == (True, False)
    serve(sh)
    assert ACCEPTED in restic(sh, "other-alias", second["ca"])
    assert keep(run_module, ["other-alias"])["changed"] is False


@pytest.mark.parametrize("host", ["bw", "tx"])
def test_openssl_of_each_release(lab: Lab, run_module: RunModule, host: str) -> None:
    lab.exec(host, ["sh", "-c", "command -v openssl >/dev/null || apt-get install -qy openssl >/dev/null"], check=True)
    args = {"names": ["x", "192.0.2.1", "2001:db8::1"], "directory": "/srv/tls-release"}
    try:
        assert run_module(host, "tls_authority", args)["changed"] is True
        again = run_module(host, "tls_authority", args)
        assert (again["failed"], again["changed"]) == (False, False)
    finally:
        lab.exec(host, ["rm", "-rf", "/srv/tls-release"], check=True)
