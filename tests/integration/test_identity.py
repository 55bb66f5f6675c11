# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets and escrow on real hosts: real age, real libxcrypt, and an independent bcrypt as judge."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import bcrypt
import pytest

from tests.lab.api import Lab

from .conftest import RunModule

DIRECTORY = "/etc/holdfast/secrets"
REST = {
    "name": "vault",
    "access": "rest",
    "location": "rest:https://vault1:8000/web1--vault/",
    "rest_user": "web1--vault",
}
CANARY = "canary-b7d1f0"
S3 = {
    "name": "s3",
    "access": "url",
    "location": "s3:https://s3.example/bucket",
    "password": f"{CANARY}-password",
    "environment": {"AWS_SECRET_ACCESS_KEY": f"{CANARY}-environment", "AWS_DEFAULT_REGION": "e"},
}


class Client:
    """A host with age, and the module."""

    def __init__(self, lab: Lab, name: str, run_module: RunModule) -> None:
        self._lab, self._name, self._run_module = lab, name, run_module

    def sh(self, script: str) -> str:
        return self._lab.exec(self._name, ["sh", "-c", script], check=True).stdout

    def run(self, *repositories: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        args = {"fleet_id": "fleet-0001", "host": "web1", "repositories": list(repositories), **options}
        return self._run_module(self._name, "identity", args, check=check)

    def read(self, name: str) -> str:
        return self.sh(f"cat {DIRECTORY}/{name}")

    def decrypt(self, bundle: str, key: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.sh(f"echo {bundle} | base64 -d | age --decrypt -i {key}"))
        return content


@pytest.fixture
def client(lab: Lab, host: str, run_module: RunModule) -> Iterator[Client]:
    made = Client(lab, host, run_module)
    made.sh(
        "command -v age ssh-keygen >/dev/null || apt-get install -qy --no-install-recommends age openssh-client >/dev/null;"
        f"rm -rf {DIRECTORY} /root/escrow*; umask 077; age-keygen -o /root/escrow.key 2>/dev/null;"
        "ssh-keygen -q -t ed25519 -N '' -f /root/escrow-ssh"
    )
    yield made
    made.sh(f"rm -rf {DIRECTORY} /root/escrow*")


@pytest.fixture
def recipients(client: Client) -> list[str]:
    return [client.sh("age-keygen -y /root/escrow.key").strip(), client.sh("cat /root/escrow-ssh.pub").strip()]


def test_from_bare_to_restored(client: Client, recipients: list[str]) -> None:
    escrow = {"mode": "age", "recipients": recipients}
    announced = client.run(REST, S3, escrow=escrow, check=True)
    assert announced["changed"] is True
    assert client.sh(f"test -e {DIRECTORY} || echo none") == "none\n"
    made = client.run(REST, S3, escrow=escrow)
    assert made["changed"] is True
    assert set(made["repositories"]) == set(announced["repositories"])
    again = client.run(REST, S3, escrow=escrow)
    assert again["changed"] is False

    # Only root gets at the secrets.
    assert client.sh(f"stat -c '%U %a' {DIRECTORY} {DIRECTORY}/*") == "root 700\n" + "root 400\n" * 8
    vault = made["repositories"]["vault"]
    identity = json.loads(client.read("vault.identity"))
    password = identity["rest"]["current"]["password"]
    assert vault["rest_hash"].startswith("$2b$12$")
    assert bcrypt.checkpw(password.encode(), vault["rest_hash"].encode())
    assert client.read("vault.repository") == f"rest:https://web1--vault:{password}@vault1:8000/web1--vault/\n"

    # Each recipient opens the bundle, and finds in it what a restore needs.
    for key in ("/root/escrow.key", "/root/escrow-ssh"):
        content = client.decrypt(vault["bundle"], key)
        assert content["password"] == client.read("vault.password").strip()
        assert content["rest_password"] == password
    assert client.decrypt(made["repositories"]["s3"]["bundle"], "/root/escrow.key")["environment"] == S3["environment"]

    # A wiped client makes no new secrets, and comes back with the old ones.
    client.sh(f"rm -rf {DIRECTORY}")
    for check in (True, False):
        refused = client.run(dict(REST, known=True), check=check)
        assert refused["failed"] is True
        assert "restore_identity" in refused["msg"]
        assert client.sh(f"ls -A {DIRECTORY} 2>/dev/null || true") == ""
    old = dict(REST, known=True, password=content["password"], rest_password=content["rest_password"])
    assert client.run(old)["failed"] is False
    assert client.read("vault.password").strip() == content["password"]
    assert client.read("vault.repository").startswith(f"rest:https://web1--vault:{password}@")


def test_no_secret_leaks(client: Client, recipients: list[str]) -> None:
    result = client.run(
        dict(REST, rest_password=f"{CANARY}-rest"), S3, escrow={"mode": "age", "recipients": recipients}
    )
    assert result["failed"] is False
    assert CANARY in client.read("s3.environment")  # the canaries were delivered
    assert CANARY not in json.dumps(result)
    assert "***" not in json.dumps(result)
    for repository in result["repositories"].values():
        assert base64.b64decode(repository["bundle"]).startswith(b"age-encryption.org/v1\n")
    assert client.sh(f"journalctl --no-pager | grep -c {CANARY} || true") == "0\n"
    assert client.sh(f"grep -rl {CANARY} /tmp /var/tmp /run /root/.ansible 2>/dev/null || true") == ""


def test_age_is_asked_about_recipients_before_anything_is_made(client: Client) -> None:
    failed = client.run(REST, escrow={"mode": "age", "recipients": ["age1qqqqqqqqqq"]})
    assert failed["failed"] is True
    assert "backup_escrow.recipients" in failed["msg"]
    assert client.sh(f"ls -A {DIRECTORY}") == ""


def test_environment_is_read_by_systemd_as_it_was_given(client: Client) -> None:
    value = " two words, \"quotes\", 'more', $HOME `id` \\ back% # ; "
    client.run(dict(S3, environment={"ODD": value, "PLAIN": "a/b+c="}))
    properties = f"systemd-run --wait --pipe --quiet --collect -p EnvironmentFile={DIRECTORY}/s3.environment"
    assert client.sh(f"{properties} /usr/bin/printenv ODD") == f"{value}\n"
    assert client.sh(f"{properties} /usr/bin/printenv PLAIN") == "a/b+c=\n"
