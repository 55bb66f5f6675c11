"""rest-server on two suites: what it serves, to whom, how it is confined, killed, renewed, filled and renamed."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests import guide
from tests.hosts import assert_exposure
from tests.scenario import Scenario

Done = subprocess.CompletedProcess[str]
SERVICE = "holdfast-rest-server.service"
# Answers with the HTTP status of a request, 0 where there was no connection; no proxy, no retries.
CURL = """python3 - <<'END'
import base64, ssl, sys, time, urllib.error, urllib.request
method, url, user, password, cafile = {arguments!r}
request = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
if user:
    request.add_header("Authorization", "Basic " + base64.b64encode((user + ":" + password).encode()).decode())
try:
    with urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(cafile=cafile)) as answer:
        print(answer.status)
        print(answer.read().decode(errors="replace"))
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    print(0)
    print(error)
END
"""
CA = "/etc/holdfast/repositories/vault.pem"
LAPTOP = "correct horse"


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario()


def ask(
    scenario: Scenario,
    host: str,
    url: str,
    *,
    method: str = "GET",
    user: str = "",
    password: str = "",
    ca: str | None = None,
) -> tuple[int, str]:
    answer = scenario.on(host, CURL.format(arguments=(method, url, user, password, ca)))
    status, _newline, text = answer.partition("\n")
    return int(status), text


def own(scenario: Scenario, client: str, repository: str) -> tuple[str, str, str]:
    """URL, user and password of a client on a server."""
    location = scenario.host(client).file(f"/etc/holdfast/secrets/{repository}.repository").content_string.strip()
    found = re.match(r"rest:(https?)://([^:]+):([^@]+)@(.*)$", location)
    assert found, location
    return f"{found[1]}://{found[4]}", found[2], found[3]


def backup(scenario: Scenario, client: str, unit: str) -> Done:
    return scenario.run(client, f"holdfast run {unit} --wait", timeout=180)


def outcome(scenario: Scenario, client: str, unit: str) -> dict[str, Any]:
    return dict(json.loads(scenario.host(client).file(f"/var/lib/holdfast/outcomes/{unit}.json").content_string))


def fingerprint(scenario: Scenario, server: str, port: int) -> str:
    return scenario.on(
        server,
        f"openssl s_client -connect {scenario.lab.addresses(server)[0]}:{port} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256",
    ).strip()


def show(scenario: Scenario, host: str, unit: str, name: str) -> str:
    return scenario.on(host, f"systemctl show --value --property={name} {unit}").strip()


# --- what is there


def test_check_mode_on_bare_hosts_announces_what_the_first_run_does(scenario: Scenario) -> None:
    scenario.first_run()


@pytest.mark.parametrize(
    ("server", "program"), [("vault1", "/usr/bin/restic-rest-server"), ("vault2", "/usr/local/bin/rest-server")]
)
def test_socket_activated_from_package_and_release(scenario: Scenario, server: str, program: str) -> None:
    host = scenario.host(server)
    assert host.service("holdfast-rest-server.socket").is_running
    assert host.service("holdfast-rest-server.socket").is_enabled
    properties = host.service(SERVICE).systemd_properties
    assert program in properties["ExecStart"]
    assert properties["User"] == "holdfast-rest"
    assert ("0.13" if server == "vault1" else "0.14") in host.check_output(f"{program} --version")
    assert host.package("restic-rest-server").is_installed == (server == "vault1")


def test_it_listens_where_it_was_told_and_nowhere_else(scenario: Scenario) -> None:
    def listening(server: str, *ports: int) -> list[str]:
        sockets = scenario.host(server).socket.get_listening_sockets()
        return [each for each in sockets if each.endswith(tuple(f":{port}" for port in ports))]

    assert listening("vault1", 9443, 8000) == [f"tcp://{scenario.lab.addresses('vault1')[0]}:9443"]
    assert listening("vault2", 8001, 8000) == ["tcp://127.0.0.1:8001"]


def test_htpasswd_is_outside_the_data_with_bcrypt_of_cost_12(scenario: Scenario) -> None:
    for server, path in (("vault1", "/srv/repositories"), ("vault2", "/home/backup/holdfast")):
        file = scenario.host(server).file("/etc/holdfast/rest-server/htpasswd")
        lines = file.content_string.splitlines()
        assert lines
        assert all(re.match(r"\A[a-z0-9-]+:\$2[aby]\$12\$", line) for line in lines), lines
        assert scenario.on(server, f"find {path} -name '*htpasswd*'") == ""
        assert (file.user, file.mode) == ("root", 0o640)
    file = scenario.host("vault1").file("/etc/holdfast/rest-server/htpasswd")
    assert {line.split(":")[0] for line in file.content_string.splitlines()} == {
        "web1--vault", "db1--vault", "laptop", "metrics",
    }  # fmt: skip


def test_backups_through_tls_and_through_the_proxy(scenario: Scenario) -> None:
    for client in ("web1", "db1"):
        done = backup(scenario, client, "system")
        assert done.returncode == 0, done.stdout + done.stderr
        for repository in ("vault", "proxied"):
            assert outcome(scenario, client, f"system--{repository}")["outcome"] == "ok"
    location = own(scenario, "web1", "proxied")[0]
    assert location == "https://proxy.example:443/backup/rest/web1--proxied/"
    assert len(scenario.host("vault2").file("/home/backup/holdfast/web1--proxied/snapshots").listdir()) == 1


def test_of_home_the_server_sees_its_repositories_alone(scenario: Scenario) -> None:
    scenario.on("vault2", "mkdir -p /home/olga && echo secret >/home/olga/diary")
    pid = scenario.on("vault2", f"systemctl show --value --property=MainPID {SERVICE}").strip()
    seen = scenario.on("vault2", f"nsenter --target {pid} --mount find /home /root -maxdepth 2")
    assert sorted(seen.split()) == ["/home", "/home/backup", "/home/backup/holdfast", "/root"]


def test_a_client_without_the_authority_refuses(scenario: Scenario) -> None:
    url, user, password = own(scenario, "web1", "vault")
    script = (
        "export RESTIC_PASSWORD_FILE=/etc/holdfast/secrets/vault.password RESTIC_REPOSITORY_FILE=/etc/holdfast/secrets/vault.repository;"
        " timeout 20 restic --no-cache --no-lock snapshots 2>&1"
    )
    refused = scenario.run("web1", script)
    assert refused.returncode != 0
    assert "certificate" in refused.stdout
    assert scenario.run("web1", f"export RESTIC_CACERT={CA}; {script}").returncode == 0
    assert ask(scenario, "web1", f"{url}config", user=user, password=password)[0] == 0
    assert ask(scenario, "web1", f"{url}config", user=user, password=password, ca=CA)[0] == 200


def test_private_repositories(scenario: Scenario) -> None:
    url, user, password = own(scenario, "web1", "vault")
    other = url.replace("web1--vault", "db1--vault")
    assert ask(scenario, "web1", f"{url}config", user=user, password=password, ca=CA)[0] == 200
    assert ask(scenario, "web1", f"{other}config", user=user, password=password, ca=CA)[0] in (401, 403)
    assert ask(scenario, "web1", f"{url}config", user=user, password=user, ca=CA)[0] == 401
    assert ask(scenario, "web1", f"{url}config", ca=CA)[0] == 401


def test_an_extra_user_works_and_stays(scenario: Scenario) -> None:
    root = (
        own(scenario, "web1", "vault")[0]
        .replace("https://", "rest:https://laptop:correct%20horse@")
        .replace("web1--vault/", "laptop/")
    )
    script = (
        f"export RESTIC_PASSWORD=x RESTIC_CACERT={CA} RESTIC_REPOSITORY='{root}';"
        " restic --no-cache init >/dev/null && restic --no-cache backup -q /etc/hostname"
    )
    done = scenario.run("web1", script)
    assert done.returncode == 0, done.stderr
    assert len(scenario.host("vault1").file("/srv/repositories/laptop/snapshots").listdir()) == 1
    mine = own(scenario, "web1", "vault")[0]
    assert ask(scenario, "web1", f"{mine}config", user="laptop", password=LAPTOP, ca=CA)[0] in (401, 403)


def test_prometheus(scenario: Scenario) -> None:
    url = own(scenario, "web1", "vault")[0]
    metrics = url.replace("web1--vault/", "metrics")
    assert ask(scenario, "web1", metrics, ca=CA)[0] == 401
    # No client's password is good for it.
    assert ask(scenario, "web1", metrics, user="laptop", password=LAPTOP, ca=CA)[0] == 401
    status, text = ask(scenario, "web1", metrics, user="metrics", password=LAPTOP, ca=CA)
    assert status == 200
    assert "rest_server_blob_write_total" in text
    status, text = ask(scenario, "vault2", "http://127.0.0.1:8001/metrics")
    assert status == 200
    assert "rest_server_blob_write_total" in text


# --- confinement


def test_exposure(scenario: Scenario) -> None:
    for host, unit, most in (
        ("vault1", SERVICE, 1.0),
        ("vault2", SERVICE, 1.0),
        ("web1", "holdfast-system--vault.service", 2.0),
        ("web1", "holdfast-system--proxied.service", 2.0),
    ):
        assert_exposure(scenario.host(host), unit, most)
    assert "IPAddressDeny" not in scenario.on("web1", "systemctl cat holdfast-system--vault.service")


# --- quotas


def test_quotas_are_limits_of_qgroups(scenario: Scenario) -> None:
    shown = scenario.on("vault1", "btrfs qgroup show -re --raw /srv/repositories")
    limits = {line.split()[-1]: line.split()[3] for line in shown.splitlines() if line.startswith("0/")}
    assert limits["db1--vault"] == str(24 << 20), shown
    assert "web1--vault" not in limits, shown
    assert scenario.on("vault1", "stat -c '%U %a %i' /srv/repositories/db1--vault").split() == [
        "holdfast-rest",
        "700",
        "256",
    ]


def test_a_full_quota_hits_only_the_one_who_filled_it(scenario: Scenario) -> None:
    scenario.on("db1", "head -c 40M /dev/urandom >/etc/too-much")
    try:
        full = backup(scenario, "db1", "system--vault")
        assert full.returncode != 0
        found = outcome(scenario, "db1", "system--vault")
        assert (found["outcome"], found["reason"]) == ("failed", "disk full"), found
        other = backup(scenario, "web1", "system--vault")
        assert other.returncode == 0, other.stdout + other.stderr
    finally:
        scenario.on("db1", "rm /etc/too-much")


def test_what_the_guide_says_of_a_full_server(scenario: Scenario) -> None:
    """docs/operating.md, as root on the server: clients are kept out meanwhile, and can use what root wrote afterwards."""
    place = "/srv/repositories/db1--vault"
    url, user, password = own(scenario, "db1", "vault")
    secret = scenario.host("db1").file("/etc/holdfast/secrets/vault.password").content
    stop, shut, look, forget, start = (
        block.replace("/srv/holdfast/web1--vault", place) for block in guide.blocks("The server is full")
    )
    # The other lines are for servers over SSH.
    stop, start = (next(line for line in each.splitlines() if "holdfast-rest-server" in line) for each in (stop, start))
    scenario.on("vault1", "apt-get install -y -q restic >/dev/null", timeout=300)
    scenario.on("vault1", "umask 077; mkdir /root/restore; cat >/root/restore/password", stdin=secret)
    scenario.on("vault1", stop)
    assert ask(scenario, "db1", f"{url}config", user=user, password=password, ca=CA)[0] == 0
    # Whoever was that account may have left a link, which root's restic would follow.
    assert scenario.on("vault1", f"ln -s /etc/shadow {place}/locks/link; cd /root\n{shut}") == f"{place}/locks/link\n"
    scenario.on("vault1", f"rm {place}/locks/link; chown holdfast-rest: {place}")
    said = scenario.on("vault1", f"set -e; cd /root\n{shut}{look}{forget}", timeout=300)
    assert "no errors were found" in said
    assert scenario.on("vault1", f"find {place} ! -user holdfast-rest") == ""
    scenario.on("vault1", f"{start}\nrm -r /root/restore")
    done = backup(scenario, "db1", "system--vault")
    assert done.returncode == 0, done.stdout + done.stderr


# --- killed


def test_killed_twenty_times_in_a_row_it_serves_again(scenario: Scenario) -> None:
    url, user, password = own(scenario, "web1", "vault")
    address = f"{scenario.lab.addresses('vault1')[0]}:9443"
    script = f"""
set -e
when() {{ systemctl show --value -p $1 {SERVICE}; }}
for i in $(seq 20); do
  systemctl kill --kill-whom=main -s KILL {SERVICE} || true
  until printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 2 openssl s_client -quiet -connect {address} 2>/dev/null | grep -q '401 Unauth'
  do sleep 0.05; done
  echo $(( ($(when ActiveEnterTimestampMonotonic) - $(when ActiveExitTimestampMonotonic)) / 1000 ))
done
"""
    before = show(scenario, "vault1", SERVICE, "NRestarts")
    took = [int(line) for line in scenario.on("vault1", script, timeout=110).split()]
    assert len(took) == 20
    # By systemd's own record, from one main process to the next: that it serves then was seen above.
    assert min(took) > 0, took
    assert max(took) < 5000, took
    assert scenario.host("vault1").service(SERVICE).is_running
    journal = scenario.on("vault1", f"journalctl -u {SERVICE} --no-pager")
    assert journal.count("status=9/KILL") >= 20, (before, journal)
    assert "start-limit-hit" not in journal
    assert ask(scenario, "web1", f"{url}config", user=user, password=password, ca=CA)[0] == 200


# --- the certificate

DUE = """
import sys, time
sys.path.insert(0, "/usr/local/lib/holdfast/server.pyz")
from holdfast import _tls
from holdfast._files import Tree
with Tree() as tree:
    authority = _tls.Authority(tree, "/etc/holdfast/tls")
    settings = authority.settings()
    # A leaf that was issued long ago: less than a third of its life is left.
    names = authority.find().leaf.names
    authority.write_leaf(names, settings, time.time() - (settings.leaf_days - 5) * 86400)
"""


def test_the_certificate_is_renewed_without_ansible(scenario: Scenario) -> None:
    url, user, password = own(scenario, "web1", "vault")
    timer = scenario.host("vault1").service("holdfast-certificate.timer")
    assert timer.is_running
    assert timer.systemd_properties["Unit"] == "holdfast-certificate.service"
    assert timer.systemd_properties["NextElapseUSecRealtime"]
    ca = scenario.host("vault1").file("/etc/holdfast/tls/ca.pem").content_string
    scenario.on("vault1", "python3 -", stdin=DUE.encode())
    scenario.on("vault1", f"systemctl restart {SERVICE}; sleep 1")
    old = fingerprint(scenario, "vault1", 9443)
    invocation = show(scenario, "vault1", SERVICE, "InvocationID")
    scenario.on("vault1", "systemctl start holdfast-certificate.service")
    renewed = fingerprint(scenario, "vault1", 9443)
    assert renewed != old
    assert show(scenario, "vault1", SERVICE, "InvocationID") != invocation
    assert scenario.host("vault1").file("/etc/holdfast/tls/ca.pem").content_string == ca
    assert ask(scenario, "web1", f"{url}config", user=user, password=password, ca=CA)[0] == 200
    # Not due now: nothing happens.
    invocation = show(scenario, "vault1", SERVICE, "InvocationID")
    scenario.on("vault1", "systemctl start holdfast-certificate.service")
    assert fingerprint(scenario, "vault1", 9443) == renewed
    assert show(scenario, "vault1", SERVICE, "InvocationID") == invocation
    assert "needs no renewal" in scenario.on("vault1", "journalctl -u holdfast-certificate.service --no-pager")


LIVE = "/etc/letsencrypt/live/backup"
UNITS = "cd /etc/systemd/system && find . -name '*holdfast-*' | sort; systemctl list-unit-files --state=enabled 'holdfast-*' --no-legend"


def link(scenario: Scenario, server: str, **numbers: int) -> None:
    """Have certbot's links lead to the files of these numbers, as it does itself."""
    for name, number in numbers.items():
        scenario.on(server, f"ln -sfn ../../archive/backup/{name}{number}.pem {LIVE}/{name}.pem")


def provided(scenario: Scenario, server: str, number: int) -> str:
    """The user's certificate of this number."""
    path = f"/etc/letsencrypt/archive/backup/fullchain{number}.pem"
    return scenario.on(server, f"openssl x509 -in {path} -noout -fingerprint -sha256").strip()


def assert_takes_up_what_was_replaced(scenario: Scenario, server: str, port: int, unit: str) -> None:
    """The links lead to the first certificate before, and to the second one afterwards."""

    def saved() -> None:
        done = backup(scenario, "web1", unit)
        assert done.returncode == 0, done.stdout + done.stderr

    def started() -> tuple[int, str, str]:
        done = scenario.run(server, "systemctl start holdfast-certificate.service")
        said = scenario.on(
            server, "journalctl --sync; journalctl -u holdfast-certificate.service --no-pager -o cat -n 5"
        )
        return done.returncode, show(scenario, server, SERVICE, "InvocationID"), said

    timer = scenario.host(server).service("holdfast-certificate.timer")
    assert timer.is_running
    assert timer.is_enabled
    first, second = provided(scenario, server, 1), provided(scenario, server, 2)
    assert fingerprint(scenario, server, port) == first
    saved()
    invocation = show(scenario, server, SERVICE, "InvocationID")
    assert started()[:2] == (0, invocation)
    link(scenario, server, fullchain=2, privkey=2)
    status, renewed, said = started()
    assert (status, fingerprint(scenario, server, port)) == (0, second), said
    assert renewed != invocation
    saved()
    # What does not belong together is left where it is, and so is what is not there.
    for break_it, reason in (
        (f"ln -sfn ../../archive/backup/privkey1.pem {LIVE}/privkey.pem", "the key does not belong to the certificate"),
        (f"rm {LIVE}/privkey.pem", "No such file or directory"),
    ):
        scenario.on(server, break_it)
        status, invocation, said = started()
        assert status != 0
        assert f"{LIVE}/privkey.pem: {reason}" in said
        assert f"{SERVICE} is left as it is" in said
        assert (invocation, fingerprint(scenario, server, port)) == (renewed, second)
    link(scenario, server, privkey=2)
    assert started()[:2] == (0, renewed)
    assert_exposure(scenario.host(server), SERVICE, 1.0)


def test_a_certificate_of_the_users_is_served_and_its_renewal_taken_up(scenario: Scenario) -> None:
    assert_takes_up_what_was_replaced(scenario, "vault3", 8000, "provided--provided")
    scenario.on("web1", "holdfast restore provided --target /root/restored && diff -r /etc/apt /root/restored/etc/apt")


def test_from_a_private_certificate_to_the_users_and_back(scenario: Scenario) -> None:
    units, before = scenario.on("vault1", UNITS), fingerprint(scenario, "vault1", 9443)
    limit = ("--limit", "vault1,web1")
    scenario.playbook("site", *limit, "-e", "lab_vault_tls=provided")
    assert scenario.on("vault1", UNITS) == units
    assert_takes_up_what_was_replaced(scenario, "vault1", 9443, "system--vault")
    scenario.playbook("site", *limit)
    assert scenario.on("vault1", UNITS) == units
    assert fingerprint(scenario, "vault1", 9443) == before
    assert "Description=Renew" in scenario.on("vault1", "systemctl cat holdfast-certificate.service")
    done = backup(scenario, "web1", "system--vault")
    assert done.returncode == 0, done.stdout + done.stderr


def test_who_loses_access_loses_it_whatever_else_fails(scenario: Scenario) -> None:
    """The certificate authority cannot be used, and comes before the users."""
    db1, web1 = own(scenario, "db1", "vault"), own(scenario, "web1", "vault")

    def let_in(client: str, given: tuple[str, str, str]) -> int:
        url, user, password = given
        return ask(scenario, client, f"{url}config", method="HEAD", user=user, password=password, ca=CA)[0]

    def rendered() -> set[str]:
        return set(json.loads((scenario.state / "hosts/vault1/rendered.json").read_text())["users"])

    assert (let_in("db1", db1), let_in("web1", web1)) == (200, 200)
    assert db1[1] in rendered()
    lines = "sort /etc/holdfast/rest-server/htpasswd"
    before = scenario.on("vault1", lines).splitlines()
    path = "/etc/holdfast/tls/authority.pem"
    scenario.on("vault1", f"cp -a {path} /root/authority.pem && echo damaged >{path}")
    refused = scenario.playbook("decommission", "-e", "client=db1", fails=True)
    assert "vault1" in refused.failed
    assert "what lost access is taken away all the same" in refused.output
    assert (let_in("db1", db1), let_in("web1", web1)) == (401, 200)
    # The others' lines are as they were, also in what the controller knows.
    assert scenario.on("vault1", lines).splitlines() == [each for each in before if not each.startswith("db1--")]
    assert not {user for user in rendered() if user.startswith("db1--")}
    assert web1[1] in rendered()
    scenario.on("vault1", f"mv /root/authority.pem {path}")
    scenario.playbook("decommission", "-e", "client=db1")
    (scenario.state / "hosts/db1/decommissioned.json").unlink()
    scenario.playbook("site")
    assert let_in("db1", db1) == 200
    assert set(scenario.playbook("site").changed.values()) == {0}


def authority(scenario: Scenario) -> str:
    """The certificate authority that signs for vault1 now."""
    return scenario.on("vault1", "openssl x509 -in /etc/holdfast/tls/authority.pem -noout -fingerprint -sha256").strip()


def test_a_new_address_takes_one_run(scenario: Scenario) -> None:
    """The new name needs a new authority: announced, given to all clients and taken over in one run."""
    extra = ("-e", "lab_vault_address=backup.example")
    before = authority(scenario)
    scenario.playbook("site", *extra)
    assert authority(scenario) != before
    for client in ("web1", "db1"):
        assert own(scenario, client, "vault")[0] == f"https://backup.example:9443/{client}--vault/"
        # The authority before is trusted for a while, so that nobody is cut off.
        assert scenario.host(client).file(CA).content_string.count("BEGIN CERTIFICATE") == 2
        done = backup(scenario, client, "system--vault")
        assert done.returncode == 0, done.stdout + done.stderr
    second = scenario.playbook("site", *extra)
    assert set(second.changed.values()) == {0}, second.output
