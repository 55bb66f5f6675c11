"""What happens to a fleet in its life, in order: each step builds on the one before.

Fleet.converge runs the playbook site in check mode, for real and again: what is announced is what is done, and then
nothing is left to do.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet, Run

SERVED = "/srv/holdfast"
COPIES = "/var/lib/holdfast/escrow"
# The second run, which changes nothing: two tests look at it.
IDLE: list[Run] = []
# The run before it, which made everything.
FIRST: list[Run] = []
STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"  # the journal's message "a unit is about to start"


def secret(fleet: Fleet, name: str) -> str:
    """The location of a client's repository, with user and password."""
    return str(fleet.on(name).file("/etc/holdfast/secrets/vault.repository").content_string.strip())


def answer(fleet: Fleet, location: str) -> int:
    """What the server says to a client that reads its repository's config."""
    url = urllib.parse.urlsplit(location[len("rest:") :])
    token = base64.b64encode(f"{url.username}:{urllib.parse.unquote(url.password or '')}".encode()).decode()
    request = urllib.request.Request(
        f"https://{url.hostname}:{url.port}{url.path}config", headers={"Authorization": f"Basic {token}"}
    )
    authority = json.loads((fleet.folder / "authority.json").read_text())
    try:
        with urllib.request.urlopen(request, timeout=20, context=ssl.create_default_context(cadata=authority)) as got:  # noqa: S310 - https, to the lab
            return int(got.status)
    except urllib.error.HTTPError as error:
        return error.code


def trusts(fleet: Fleet, name: str) -> bool:
    """Whether a client would accept the server's certificate: restic tries again for a quarter of an hour."""
    context = ssl.create_default_context(
        cadata=fleet.on(name).file("/etc/holdfast/repositories/vault.pem").content_string
    )
    address = fleet.lab.addresses("vault1")[0]
    try:
        with socket.create_connection((address, 8000), timeout=20) as plain:
            context.wrap_socket(plain, server_hostname=address).close()
    except ssl.SSLCertVerificationError:
        return False
    return True


def starts(fleet: Fleet, name: str, unit: str) -> int:
    """How often a unit was started since the host booted."""
    said = fleet.on(name).check_output(
        f"journalctl --sync && journalctl -q -b -o cat UNIT={unit} MESSAGE_ID={STARTING}"
    )
    return len(said.splitlines())


def snapshots(fleet: Fleet, user: str) -> set[str]:
    """The snapshots that the server has of a user."""
    return set(fleet.on("vault1").check_output(f"ls {SERVED}/{user}/snapshots").split())


def users(fleet: Fleet) -> set[str]:
    """The users of the server."""
    lines = fleet.on("vault1").file("/etc/holdfast/rest-server/htpasswd").content_string.splitlines()
    return {line.split(":")[0] for line in lines}


def just_passed() -> str:
    """A time of today that has just passed."""
    return datetime.now(timezone.utc).strftime("*-*-* %H:%M:%S UTC")


def more(fleet: Fleet, **jobs: dict[str, Any]) -> None:
    """Declare these jobs on web1, besides that of all hosts."""
    fleet.host_variables["web1"] = {"backup_jobs__more": jobs}


def copies(fleet: Fleet) -> dict[str, str]:
    """Digests of the copies of the escrow on the server, by their names."""
    said = fleet.on("vault1").check_output(f"cd {COPIES} && find . -type f -exec sha256sum {{}} +")
    return {name: digest for digest, name in (line.split("  ./") for line in said.splitlines())}


def bundles(fleet: Fleet, *hosts: str) -> set[str]:
    """The escrow of these hosts' repository on the controller, by the names that copies have."""
    return {
        f"{host}--vault/{path.name}"
        for host in hosts
        for path in (fleet.state / "hosts" / host / "escrow/vault").iterdir()
    }


def read_json(path: Path) -> dict[str, Any]:
    """A file of the state directory."""
    return dict(json.loads(path.read_text()))


def test_check_mode_on_bare_hosts_announces_what_the_first_run_does(fleet: Fleet) -> None:
    announced = fleet.good("site", "--check", "--diff")
    assert not fleet.state.exists()
    for name in ("vault1", "web1", "web2"):
        assert not fleet.on(name).file("/etc/holdfast").exists
    real = fleet.good("site")
    FIRST.append(real)
    assert announced.changed == real.changed
    assert {"vault1", "web1", "web2"} <= {host for host, _task in real.changed}
    IDLE.append(fleet.good("site"))
    assert not IDLE[0].changed
    (fleet.folder / "authority.json").write_text(json.dumps((fleet.state / "hosts/vault1/ca.pem").read_text()))
    for name in ("web1", "web2"):
        host = fleet.on(name)
        host.check_output("mkdir -p /home/alice && cd /home/alice && umask 077 && head -c 200000 /dev/urandom >photo")
        assert starts(fleet, name, "holdfast-system--vault.service") == 0
        host.check_output("holdfast run --wait system")
        assert starts(fleet, name, "holdfast-system--vault.service") == 1
        assert answer(fleet, secret(fleet, name)) == 200
    assert answer(fleet, secret(fleet, "web1").replace("web1--vault:", "web1--vault:x")) == 401


def test_L5_the_work_of_a_server_is_done_once_and_on_the_server(fleet: Fleet) -> None:
    """Two clients do not race for the server's package lock: nothing is delegated, each task runs there once."""
    assert not [event["task"] for event in FIRST[0].events + IDLE[0].events if event["delegated"]]
    events = [event for event in IDLE[0].events if event["what"] == "ok"]
    serving = [(event["host"], event["task"]) for event in events if event["task"].startswith("Serve the repositories")]
    assert {host for host, _task in serving} == {"vault1"}
    assert len(serving) == len(set(serving)) > 3


def test_a_converged_host_runs_few_modules(fleet: Fleet) -> None:
    """At most a dozen, fact gathering included."""
    assert set(IDLE[0].executions) == {"vault1", "web1", "web2"}
    assert all(len(ran) <= 12 for ran in IDLE[0].executions.values()), IDLE[0].executions


TIMER, SERVICE = "holdfast-extra--vault.timer", "holdfast-extra--vault.service"


def test_a_job_is_added(fleet: Fleet) -> None:
    """And is not started, though its time has just passed (L7)."""
    more(fleet, extra={"paths": ["/etc"], "schedule": {"calendar": just_passed(), "spread": 0}})
    real = fleet.converge("--limit", "web1")
    assert {host for host, _task in real.changed} == {"web1"}
    assert fleet.on("web1").service(TIMER).is_running
    assert starts(fleet, "web1", SERVICE) == 0


def test_a_job_is_changed(fleet: Fleet) -> None:
    """Its calendar to a time that has just passed, and its timer was stopped for a week: no deploy starts it (L7)."""
    web1 = fleet.on("web1")
    web1.check_output(f"systemctl stop {TIMER} && touch -d '7 days ago' /var/lib/systemd/timers/stamp-{TIMER}")
    more(fleet, extra={"paths": ["/etc"], "exclude": ["*.tmp"], "schedule": {"calendar": just_passed(), "spread": 0}})
    fleet.converge("--limit", "web1")
    assert "--exclude=*.tmp" in web1.check_output(f"systemctl cat {SERVICE}")
    assert web1.service(TIMER).is_running
    assert starts(fleet, "web1", SERVICE) == 0
    # What would have started it is real: a miss that is no deploy catches up.
    web1.check_output(f"systemctl stop {TIMER} && touch -d '7 days ago' /var/lib/systemd/timers/stamp-{TIMER}")
    web1.check_output(f"systemctl start {TIMER}")
    web1.check_output(
        "for try in $(seq 60); do test -s /var/lib/holdfast/outcomes/extra--vault.json && break; sleep 1; done"
    )
    assert starts(fleet, "web1", SERVICE) == 1


def test_L15_a_job_is_removed(fleet: Fleet) -> None:
    """Timer, unit and definition are gone (L15); what it saved stays."""
    web1 = fleet.on("web1")
    assert web1.file("/etc/holdfast/units/extra--vault.json").exists
    before = snapshots(fleet, "web1--vault")
    more(fleet)
    fleet.converge("--limit", "web1")
    assert web1.check_output("find /etc /var/lib/systemd -name '*extra--vault*'") == ""
    assert web1.check_output(f"systemctl show -p LoadState --value {TIMER} {SERVICE}").split() == [
        "not-found",
        "not-found",
    ]
    assert len(before) == 2
    assert snapshots(fleet, "web1--vault") == before


def test_a_repository_is_removed(fleet: Fleet) -> None:
    """What opens it is kept and told, until its user lets it go; then the escrow has it."""
    web1, secrets = fleet.on("web1"), "/etc/holdfast/secrets/spare"
    fleet.host_variables["web1"] = {"backup_repositories__more": {"spare": {"access": "local", "path": "/srv/spare"}}}
    fleet.converge("--limit", "web1")
    password = web1.file(f"{secrets}.password").content_string
    bundles = list(fleet.state.glob("hosts/web1/escrow/spare/*"))
    assert len(password) > 20
    assert bundles
    more(fleet)
    told = "web1: spare is declared no more, and its secrets are kept"
    assert told in fleet.converge("--limit", "web1").text
    assert web1.file(f"{secrets}.password").content_string == password
    again = fleet.good("site", "--limit", "web1")
    assert told in again.text
    assert not again.changed
    gone = fleet.converge("--limit", "web1", "-e", "backup_prune_secrets=true")
    assert told not in gone.text
    assert web1.check_output("ls -A /etc/holdfast/secrets | grep -c '^spare' || true") == "0"
    assert web1.file("/etc/holdfast/secrets/vault.password").exists
    assert web1.file("/srv/spare/config").exists
    assert list(fleet.state.glob("hosts/web1/escrow/spare/*")) == bundles


def test_a_job_is_declared_again(fleet: Fleet) -> None:
    """Nothing counts as missed (L7)."""
    before = starts(fleet, "web1", SERVICE)
    more(
        fleet,
        extra={"paths": ["/etc"], "schedule": {"calendar": just_passed(), "spread": 0}},
        # For the rotation below: a backup that takes a while.
        slow={"paths": ["/srv/slow"], "limit_upload": 300, "schedule": {"calendar": "2099-01-01", "spread": 0}},
    )
    # That it leaves nothing to do is seen with the next change that reaches web1.
    fleet.good("site", "--limit", "web1")
    assert fleet.on("web1").service(TIMER).is_running
    assert starts(fleet, "web1", SERVICE) == before


def test_a_host_is_added_with_limit(fleet: Fleet) -> None:
    fleet.groups["backup_clients"].append("web3")
    said = fleet.refused("site", "--limit", "web3")
    assert "Run again with --limit vault1,web3" in said.text
    # It cannot start the sandbox of units: that stops it alone, and it is told the cure.
    said = fleet.run("site", "--check", "--limit", "vault1,web3")
    assert set(said.failed) == {"web3"}
    assert "web3: jobs_sandbox = 'full': the sandbox of the units cannot start on this host" in said.text
    assert "Set jobs_sandbox: reduced for this host" in said.text
    fleet.host_variables["web3"] = {"jobs_sandbox": "reduced", "backup_escrow": {"mode": "controller"}}
    real = fleet.converge("--limit", "vault1,web3")
    assert {host for host, _task in real.changed} == {"vault1", "web3"}
    assert "web3: vault: the escrow lies in plaintext on the controller" in real.text
    assert answer(fleet, secret(fleet, "web3")) == 200
    assert answer(fleet, secret(fleet, "web1")) == 200
    assert users(fleet) == {"web1--vault", "web2--vault", "web3--vault"}


def test_a_reduced_sandbox_reads_everything_all_the_same(fleet: Fleet) -> None:
    """It starts where the full one does not, and saves a file that its account may not read."""
    web3, unit = fleet.on("web3"), "holdfast-system--vault.service"
    shown = web3.check_output(f"systemctl show -p ProtectSystem,User,AmbientCapabilities,NoNewPrivileges {unit}")
    assert sorted(shown.split()) == [
        "AmbientCapabilities=cap_dac_read_search", "NoNewPrivileges=yes", "ProtectSystem=no", "User=holdfast",
    ]  # fmt: skip
    web3.check_output("mkdir -p /home/alice && cd /home/alice && umask 077 && head -c 200000 /dev/urandom >photo")
    assert web3.run("runuser -u holdfast -- cat /home/alice/photo").rc != 0
    web3.check_output("holdfast run --wait system")
    assert json.loads(web3.file("/var/lib/holdfast/outcomes/system--vault.json").content_string)["outcome"] == "ok"


@pytest.mark.parametrize("left", [["web1"], []])
def test_half_an_inventory_revokes_nobody(fleet: Fleet, left: list[str]) -> None:
    half = fleet.with_groups({"backup_servers": ["vault1"], "backup_clients": left})
    said = half.refused("site")
    assert f"{3 - len(left)} hosts would lose access" in said.text
    assert f"set backup_revoke_max to {3 - len(left)} for this run" in said.text
    assert users(fleet) == {"web1--vault", "web2--vault", "web3--vault"}


def test_the_rest_password_is_rotated_during_a_running_backup(fleet: Fleet) -> None:
    web1 = fleet.on("web1")
    # A backup that cannot end before we let it: throttled, and stopped while it uploads.
    web1.check_output("mkdir -p /srv/slow && head -c 3M /dev/urandom >/srv/slow/data")
    old = {name: secret(fleet, name) for name in ("web1", "web2")}
    have = snapshots(fleet, "web1--vault")
    outcome = "/var/lib/holdfast/outcomes/slow--vault.json"
    assert not web1.file(outcome).exists
    web1.check_output("systemctl start --no-block holdfast-slow--vault.service")
    web1.check_output(
        "for try in $(seq 300); do pid=$(systemctl show -p MainPID --value holdfast-slow--vault.service);"
        ' test "$pid" != 0 && break; sleep 0.2; done; sleep 2; kill -STOP "$pid"; echo "$pid" >/run/stopped'
    )
    try:
        real = fleet.converge("-e", "backup_rotate_rest=true")
        assert real.results("deferred")["vault1"] == ["web1--vault"]
        assert real.results("switched")["vault1"] == ["web2--vault", "web3--vault"]
        assert answer(fleet, old["web1"]) == 200
        assert answer(fleet, old["web2"]) == 401
        assert answer(fleet, secret(fleet, "web2")) == 200
        assert secret(fleet, "web2") != old["web2"]
        state = web1.check_output("systemctl show -p ActiveState --value holdfast-slow--vault.service")
        assert state == "activating"
        assert snapshots(fleet, "web1--vault") == have
    finally:
        web1.check_output('kill -CONT "$(cat /run/stopped)"')
    web1.check_output(f"for try in $(seq 120); do test -s {outcome} && break; sleep 1; done")
    assert json.loads(web1.file(outcome).content_string)["outcome"] == "ok"
    assert len(snapshots(fleet, "web1--vault") - have) == 1
    real = fleet.converge()
    assert real.results("switched")["vault1"] == ["web1--vault"]
    assert answer(fleet, old["web1"]) == 401
    assert answer(fleet, secret(fleet, "web1")) == 200
    for name in ("web1", "web2"):
        fleet.on(name).check_output("holdfast run --wait system")


def test_a_wiped_client_is_provisioned_again_and_restores(fleet: Fleet) -> None:
    before = fleet.on("web1").check_output("sha256sum /home/alice/photo").split()[0]
    have = snapshots(fleet, "web1--vault")
    fleet.lab.wipe("web1")
    fleet.forget_connections()
    for arguments in (["--check"], []):
        said = fleet.run("site", *arguments, "--limit", "web1")
        assert said.code != 0
        assert "restore_identity" in said.failed["web1"]
        assert "backup_id" in said.failed["web1"]
    assert not fleet.on("web1").file("/etc/holdfast/secrets/vault.password").exists
    # What the controller knew is gone, too: the server still knows of the client's secrets, and its copies take the escrow's place.
    fleet_id = json.loads((fleet.state / "fleet.json").read_text())["fleet_id"]
    there = bundles(fleet, "web1")
    assert there
    assert there <= set(copies(fleet))
    shutil.rmtree(fleet.state)
    said = fleet.run("site", "-e", f"backup_fleet_id={fleet_id}")
    assert set(said.failed) == {"web1"}
    assert "restore_identity" in said.failed["web1"]
    escrow = fleet.state / "hosts/web1/escrow/vault"
    escrow.mkdir(parents=True)
    for name in there:
        sealed = fleet.on("vault1").check_output(f"base64 -w0 {COPIES}/{name}")
        (escrow / Path(name).name).write_bytes(base64.b64decode(sealed))
    restore_identity = ("restore_identity", "--limit", "web1", "-e", f"escrow_key={fleet.folder / 'escrow.key'}")
    # A repository that was declared when the client was gone already is no obstacle.
    more = json.dumps({"backup_repositories": {"vault": {"server": "vault1"}, "later": {"access": "local"}}})
    assert "knows nothing of later" in fleet.good(*restore_identity, "--check", "-e", more).text
    fleet.good(*restore_identity)
    fleet.converge()
    fleet.good("restore", "--limit", "web1", "-e", "job=system", "-e", "target=/root/restored")
    assert fleet.on("web1").check_output("sha256sum /root/restored/home/alice/photo").split()[0] == before
    assert snapshots(fleet, "web1--vault") == have


def test_a_lost_client_comes_back_out_of_an_escrow_in_plaintext(fleet: Fleet) -> None:
    """No key opens it, only the controller has it, and no run shows what is in it."""
    web3 = fleet.on("web3")
    before = web3.check_output("sha256sum /home/alice/photo").split()[0]
    passwords = [web3.file("/etc/holdfast/secrets/vault.password").content_string.strip()]
    passwords.append(str(urllib.parse.urlsplit(secret(fleet, "web3")[len("rest:") :]).password))
    kept = list((fleet.state / "hosts/web3/escrow/vault").iterdir())
    assert {(path.suffix, path.stat().st_mode & 0o777) for path in kept} == {(".json", 0o600)}
    assert passwords in [[bundle["password"], bundle["rest_password"]] for bundle in map(read_json, kept)]
    assert not [name for name in copies(fleet) if name.startswith("web3--")]
    have = snapshots(fleet, "web3--vault")
    fleet.lab.wipe("web3")
    fleet.forget_connections()
    said = fleet.run("site", "--limit", "web3")
    assert set(said.failed) == {"web3"}
    # The result itself is hidden.
    assert "web3: repository `vault`:" in said.text
    assert "restore_identity" in said.text
    announced = fleet.good("restore_identity", "--limit", "web3", "--check", "--diff")
    real = fleet.good("restore_identity", "--limit", "web3", "--diff")
    assert announced.changed == real.changed
    assert real.changed
    # The hash of its REST password is a new one.
    protected = fleet.converge("--limit", "vault1,web3")
    shown = [run.output for run in (said, announced, real, protected)]
    assert not [output for output in shown if any(password in output for password in passwords)]
    assert fleet.on("web3").file("/etc/holdfast/secrets/vault.password").content_string.strip() == passwords[0]
    fleet.good("restore", "--limit", "web3", "-e", "job=system", "-e", "target=/root/restored")
    assert fleet.on("web3").check_output("sha256sum /root/restored/home/alice/photo").split()[0] == before
    assert snapshots(fleet, "web3--vault") == have


def test_a_client_without_an_escrow_is_told_of_in_red(fleet: Fleet) -> None:
    """In each run and table, of a new repository and one that had an escrow; backups are accepted all the same."""
    web3 = fleet.host_variables["web3"]
    kept = bundles(fleet, "web3")
    web3["backup_escrow"] = {"mode": "none"}
    web3["backup_repositories__more"] = {"bare": {"server": "vault1"}}
    real = fleet.converge("--limit", "vault1,web3")
    told = [f"web3: {name} has no escrow: when this host is gone, nobody can restore" for name in ("vault", "bare")]
    assert [note for note in told if note in real.text] == told
    assert "plaintext" not in real.text
    assert not (fleet.state / "hosts/web3/escrow/bare").exists()
    # What somebody may still need stays.
    assert bundles(fleet, "web3") == kept
    fleet.on("web3").check_output("holdfast run --wait system")
    status = fleet.run("status", environment={"ANSIBLE_NOCOLOR": "false", "ANSIBLE_FORCE_COLOR": "true"})
    assert [note for note in told if f"\x1b[0;31m{note}\x1b[0m" in status.output] == told, status.output
    del web3["backup_repositories__more"]


def test_L15_a_host_is_removed(fleet: Fleet) -> None:
    """Its access is revoked, to each repository, its line is gone (L15), its data stays."""
    web3 = secret(fleet, "web3")
    fleet.on("web3").check_output("holdfast run --wait system")
    have = snapshots(fleet, "web3--vault")
    assert have
    assert answer(fleet, web3) == 200
    fleet.groups["backup_clients"].remove("web3")
    real = fleet.converge()
    assert real.results("revoked")["vault1"] == ["web3--bare", "web3--vault"]
    assert answer(fleet, web3) == 401
    assert users(fleet) == {"web1--vault", "web2--vault"}
    assert answer(fleet, secret(fleet, "web1")) == 200
    assert snapshots(fleet, "web3--vault") == have


def test_the_only_client_that_fails_keeps_nobody_the_access_that_they_lost(fleet: Fleet) -> None:
    """Ansible ends a playbook where all hosts of a play fail, and web1 is all that is left of the clients."""
    fleet.groups["backup_clients"].append("web3")
    fleet.good("site", "--limit", "web3,vault1")
    web3 = secret(fleet, "web3")
    assert answer(fleet, web3) == 200
    fleet.groups["backup_clients"].remove("web3")
    fleet.on("web1").check_output("mv /etc/holdfast/secrets /root/")
    try:
        done = fleet.run("site", "--limit", "web1,vault1")
        assert done.code != 0, done.text
        assert done.results("revoked")["vault1"] == ["web3--vault"]
        assert answer(fleet, web3) == 401
    finally:
        fleet.on("web1").check_output("rm -rf /etc/holdfast/secrets; mv /root/secrets /etc/holdfast/")
    assert not fleet.good("site").changed


def test_the_only_server_that_fails_keeps_no_client_from_its_jobs(fleet: Fleet) -> None:
    authority = "/etc/holdfast/tls/authority.pem"
    fleet.on("vault1").check_output(f"cp -a {authority} /root/ && echo damaged >{authority}")
    more(fleet, extra={"paths": ["/etc"]})
    try:
        done = fleet.run("site")
        assert set(done.failed) == {"vault1"}, done.output
        assert fleet.on("web1").service(TIMER).is_running
        assert "OUTCOME" in done.output
    finally:
        fleet.on("vault1").check_output(f"mv /root/authority.pem {authority}")
    more(fleet)
    fleet.good("site")
    assert not fleet.good("site").changed


def test_a_damaged_file_of_one_client_stops_nobody_else(fleet: Fleet) -> None:
    damaged, rendered = (fleet.state / f"hosts/{name}" for name in ("web2/rest/vault.json", "vault1/rendered.json"))
    before, served = damaged.read_text(), rendered.read_text()
    damaged.write_text("<<<<<<< HEAD\n")
    try:
        assert f"web2: {damaged}: not a JSON object" in fleet.refused("site").text
        done = fleet.good("site", "--limit", "vault1,web1")
        assert f"web2: {damaged}: not a JSON object" in done.text
        assert not done.changed
        assert rendered.read_text() == served
        assert answer(fleet, secret(fleet, "web2")) == 200
    finally:
        damaged.write_text(before)
    assert not fleet.good("site").changed


def test_a_client_is_decommissioned(fleet: Fleet) -> None:
    web2 = secret(fleet, "web2")
    have = snapshots(fleet, "web2--vault")
    assert answer(fleet, web2) == 200
    for nobody in ("vault1", "wbe2"):
        said = fleet.refused("decommission", "-e", f"client={nobody}")
        assert f"client = {nobody}: is no host of backup_clients" in said.text
    said = fleet.refused("decommission", "-e", "client=web2", "--limit", "web2")
    assert "web2: vault1 would still let it in, being outside the limit" in said.text
    assert not (fleet.state / "hosts/web2/decommissioned.json").exists()
    announced = fleet.good("decommission", "--check", "-e", "client=web2")
    assert answer(fleet, web2) == 200
    real = fleet.good("decommission", "-e", "client=web2")
    assert announced.changed == real.changed
    assert not fleet.good("decommission", "-e", "client=web2").changed
    assert answer(fleet, web2) == 401
    assert not fleet.on("web2").service("holdfast-system--vault.timer").is_running
    said = fleet.refused("site")
    assert "web2: was decommissioned on" in said.text
    assert answer(fleet, web2) == 401
    fleet.groups["backup_clients"].remove("web2")
    assert not fleet.good("site").changed
    assert answer(fleet, web2) == 401
    assert users(fleet) == {"web1--vault"}
    assert snapshots(fleet, "web2--vault") == have != set()


def test_the_state_directory_is_lost(fleet: Fleet) -> None:
    fleet_id = json.loads((fleet.state / "fleet.json").read_text())["fleet_id"]
    before, kept = secret(fleet, "web1"), copies(fleet)
    shutil.rmtree(fleet.state)
    for arguments in (["--check"], []):
        said = fleet.refused("site", *arguments)
        assert f"-e backup_fleet_id={fleet_id}" in said.text
        assert not fleet.state.exists()
    fleet.converge("-e", f"backup_fleet_id={fleet_id}")
    assert json.loads((fleet.state / "fleet.json").read_text())["fleet_id"] == fleet_id
    assert secret(fleet, "web1") == before
    assert answer(fleet, before) == 200
    # The escrow is whole again: a backup is accepted.
    assert bundles(fleet, "web1")
    assert bundles(fleet, "web1") <= set(copies(fleet))
    # And what the server had stays as it was.
    assert kept.items() <= copies(fleet).items()
    fleet.on("vault1").check_output(f"rm -r {COPIES}/web1--vault")
    fleet.converge()
    assert bundles(fleet, "web1") <= set(copies(fleet))
    have = snapshots(fleet, "web1--vault")
    time.sleep(1)
    fleet.on("web1").check_output("holdfast run --wait system")
    assert len(snapshots(fleet, "web1--vault") - have) == 1


@pytest.mark.parametrize("forced", [False, True])
def test_a_new_name_of_the_server_waits_for_a_client_that_is_down(fleet: Fleet, forced: bool) -> None:
    """Or not, where its user says so; the client is cut off until the playbook reaches it."""

    def authority() -> str:
        return str(fleet.on("vault1").check_output("openssl x509 -in /etc/holdfast/tls/authority.pem -noout -serial"))

    before = authority()
    assert trusts(fleet, "web1")
    fleet.host_variables["vault1"] = {"rest_server_tls_names": ["forced.example" if forced else "waits.example"]}
    fleet.host_variables["web1"] = {"ansible_host": "127.0.0.9", "ansible_port": 1}
    # It goes on to wait.
    for _run in range(1 if forced else 2):
        said = fleet.run("site")
        assert set(said.failed) == {"web1"}, said.output
        assert "waits for clients that this run did not reach" in said.text
        assert "web1. Run again when they are up, or with -e backup_switch_authority=true" in said.text
        assert authority() == before
        assert fleet.on("web1").run("systemctl start holdfast-system--vault.service").rc == 0
    if forced:
        said = fleet.run("site", "-e", "backup_switch_authority=true")
        assert "takes over now, and cuts off until this playbook has run for them: web1" in said.text
        assert authority() != before
        assert not trusts(fleet, "web1")
    fleet.host_variables["web1"] = {}
    fleet.good("site")
    assert authority() != before
    assert not fleet.good("site").changed
    assert fleet.on("web1").run("systemctl start holdfast-system--vault.service").rc == 0
