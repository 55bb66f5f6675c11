"""Roles alone: what converge.yml made of a server and a client with nothing but the roles' own variables."""

from __future__ import annotations

import pytest

from tests.scenario import Scenario

SERVICE = "holdfast-rest-server.service"
# The HTTP status of a request from the client, without and with the user's password.
ASK = """python3 - <<'END'
import base64, ssl, urllib.error, urllib.request
trust = ssl.create_default_context(cafile="/root/ca.pem")
for password in {passwords!r}:
    request = urllib.request.Request("https://vault1:8000/laptop/config")
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(("laptop:" + password).encode()).decode())
    try:
        print(urllib.request.urlopen(request, timeout=10, context=trust).status)
    except urllib.error.HTTPError as error:
        print(error.code)
END
"""
PASSWORD = "correct horse"
RESTIC = "RESTIC_PASSWORD=test restic --cacert /root/ca.pem -r rest:https://laptop:correct%20horse@vault1:8000/laptop/"


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    """The hosts; the client has the authority that its administrator took from the server."""
    scenario = Scenario()
    authority = scenario.on("vault1", "cat /etc/holdfast/tls/ca.pem")
    scenario.on("six", "cat >/root/ca.pem", stdin=authority.encode())
    return scenario


def ask(scenario: Scenario, *passwords: str) -> list[str]:
    return scenario.on("six", ASK.format(passwords=passwords)).split()


def test_the_server_serves_its_users_and_nobody_else(scenario: Scenario) -> None:
    assert ask(scenario, "", "wrong", PASSWORD) == ["401", "401", "404"]
    server = scenario.host("vault1")
    assert server.service(SERVICE).is_running
    assert server.socket("tcp://8000").is_listening
    assert server.service("holdfast-rest-server.socket").is_enabled
    assert server.service("holdfast-certificate.timer").is_running
    # The package's own service would want the same port.
    assert server.service("restic-rest-server.service").is_masked
    shown = server.check_output("systemctl show --property=User,ActiveState,Result %s", SERVICE).split()
    assert sorted(shown) == ["ActiveState=active", "Result=success", "User=holdfast-rest"]


def test_the_client_has_restic_and_the_account(scenario: Scenario) -> None:
    client = scenario.host("six")
    assert client.package("restic").is_installed
    installed = client.package("restic").version.split("+")[0].split("-")[0]
    assert client.check_output("restic version").startswith(f"restic {installed} ")
    account = client.user("holdfast")
    assert account.shell == "/usr/sbin/nologin"
    assert account.home == "/var/lib/holdfast"
    # Nothing of a job, nor of a fleet: that is other roles' work.
    assert client.run("systemctl list-unit-files --no-legend 'holdfast-*'").stdout == ""
    assert not client.file("/etc/holdfast").exists


def test_they_go_together(scenario: Scenario) -> None:
    """And what is there stays: the server is append-only."""
    scenario.on("six", f"{RESTIC} init && {RESTIC} backup /etc/hostname")
    assert ask(scenario, PASSWORD) == ["200"]
    scenario.run("six", f"{RESTIC} forget --prune latest")
    assert len(scenario.on("vault1", "ls /srv/holdfast/laptop/snapshots").split()) == 1
