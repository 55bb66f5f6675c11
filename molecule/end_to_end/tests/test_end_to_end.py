"""What is saved comes back, what an intruder tries is refused, and what goes wrong is noticed as what it is."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.lab.state import CACHE
from tests.scenario import Scenario

T = TypeVar("T")
# What tests/demo/tree.py prints: names in hexadecimal, and what each is.
Tree = dict[str, list[Any]]
Done = subprocess.CompletedProcess[str]
TREE = Path(__file__).resolve().parents[3] / "tests/demo/tree.py"
ATTACK = Path(__file__).with_name("attack.py")
WATCH = Path(__file__).with_name("watch.py")
FAULTY = ["web1", "db1"]
CLIENTS = [*FAULTY, "six"]
# In a password and a variable of the environment that come with the inventory (group_vars/faulty.yml).
INVENTORY_SECRETS = ["Kahz4ahng9", "Eith2aiqu7"]
PLACES = ["/home/canary", "/root/canary", "/tmp/canary", "/var/tmp/canary"]
SERVER = "/srv/holdfast"
# The files' pages leave the cache, so that the disk is asked.
FORGET = """
import os
for each in os.scandir("/srv/bad"):
    if each.is_file():
        os.posix_fadvise(os.open(each.path, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
"""
RESTIC = (
    "export RESTIC_REPOSITORY_FILE=/etc/holdfast/secrets/vault.repository RESTIC_PASSWORD_FILE=/etc/holdfast/secrets/vault.password"
    " RESTIC_CACERT=/etc/holdfast/repositories/vault.pem; "
)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario()


def places(client: str) -> list[str]:
    return [*PLACES, *(["/srv/other/canary"] if client in FAULTY else [])]


def tree(scenario: Scenario, host: str, directory: str) -> Tree:
    return dict(json.loads(scenario.on(host, f"python3 - {directory}", stdin=TREE.read_bytes())))


def different(before: Tree, after: Tree) -> list[tuple[bytes, list[Any] | None, list[Any] | None]]:
    """Names whose description differs, for people."""
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return [(bytes.fromhex(key), before.get(key), after.get(key)) for key in changed]


def saved_as(found: Tree) -> Tree:
    """A tree as a snapshot can hold it: restic leaves sockets out."""
    return {key: value for key, value in found.items() if not value[0].startswith("0o14")}


def backup(scenario: Scenario, client: str, unit: str, timeout: float = 180) -> Done:
    return scenario.run(client, f"holdfast run {unit} --wait", timeout=timeout)


def outcome(scenario: Scenario, client: str, unit: str) -> dict[str, Any]:
    return dict(json.loads(scenario.host(client).file(f"/var/lib/holdfast/outcomes/{unit}.json").content_string))


def everywhere(hosts: list[str], call: Callable[[str], T]) -> dict[str, T]:
    with ThreadPoolExecutor(len(hosts)) as pool:
        return dict(zip(hosts, pool.map(call, hosts), strict=True))


@pytest.fixture(scope="module")
def canaries(scenario: Scenario) -> dict[str, dict[str, Tree]]:
    """The planted trees of all clients, backed up."""
    before = everywhere(CLIENTS, lambda host: {place: tree(scenario, host, place) for place in places(host)})
    done = everywhere(CLIENTS, lambda host: backup(scenario, host, "canary"))
    for host, each in done.items():
        assert each.returncode == 0, (host, each.stdout, each.stderr)
    return before


def test_check_mode_on_bare_hosts_announces_what_the_first_run_does(scenario: Scenario) -> None:
    scenario.first_run()


# --- what is saved comes back


@pytest.mark.parametrize("client", CLIENTS)
def test_every_odd_file_comes_back(scenario: Scenario, canaries: dict[str, dict[str, Tree]], client: str) -> None:
    """Through holdfast restore into an empty directory: content and metadata, places that hide things included."""
    assert outcome(scenario, client, "canary--vault")["outcome"] == "ok"
    scenario.on(client, "rm -rf /srv/restored && holdfast restore canary --target /srv/restored", timeout=200)
    for place, before in canaries[client].items():
        after = tree(scenario, client, f"/srv/restored{place}")
        assert len(saved_as(before)) > 30
        assert not different(saved_as(before), after), place
    scenario.on(client, "rm -rf /srv/restored")


def test_damage_is_undone_in_place_by_the_playbook(scenario: Scenario, canaries: dict[str, dict[str, Tree]]) -> None:
    """Deleted, changed, truncated, taken over, attributes gone: the playbook restore puts it all back."""
    damage = (
        "cd /home/canary; rm -rf private one-name -- '-leading dash'; echo changed >listed; : >random; chmod 777 mode-0000;"
        " chown daemon setuid; setcap -r capable; setfacl -b listed; setfattr -x user.mood empty; rm dangling; mkdir dangling"
    )
    scenario.on("web1", f"set -e; {damage}")
    before = saved_as(canaries["web1"]["/home/canary"])
    assert different(before, saved_as(tree(scenario, "web1", "/home/canary")))
    common = ("--limit", "web1", "-e", "job=canary", "-e", "path=/home/canary")
    refused = scenario.playbook("restore", *common, "-e", "target=/", fails=True)
    assert "not empty" in refused.output
    assert different(before, saved_as(tree(scenario, "web1", "/home/canary")))
    # The directory is the user's, who could lead root elsewhere meanwhile.
    refused = scenario.playbook("restore", *common, "-e", "target=/", "-e", "force=true", fails=True)
    assert "others than root may change /home/canary" in refused.output
    assert different(before, saved_as(tree(scenario, "web1", "/home/canary")))
    scenario.playbook("restore", *common, "-e", "target=/", "-e", "force=true", "-e", "trust_users=true")
    assert not different(before, saved_as(tree(scenario, "web1", "/home/canary")))
    scenario.playbook("restore", *common, "-e", "target=/srv/beside")
    assert not different(before, tree(scenario, "web1", "/srv/beside/home/canary"))


@pytest.mark.parametrize("client", FAULTY)
def test_odd_paths_are_taken_literally(scenario: Scenario, client: str) -> None:
    """Every odd character in `paths`, a line that is no UTF-8 in sources.d, and nothing that a careless reading would save."""
    scenario.on(client, r"printf '/srv/odd/invalid \377 utf-8\n' >/etc/holdfast/sources.d/odd.d/raw.paths")
    done = backup(scenario, client, "odd")
    assert done.returncode == 0, done.stdout + done.stderr
    scenario.on(client, "rm -rf /srv/restored && holdfast restore odd --target /srv/restored")
    before, after = tree(scenario, client, "/srv/odd"), tree(scenario, client, "/srv/restored/srv/odd")
    decoys = {b"globXa1", b"percent", b"with", b"back", b"new", b"quote", b"trailing space"}
    wanted = {key: value for key, value in before.items() if bytes.fromhex(key).split(b"/")[0] not in decoys}
    assert len(wanted) == 2 * 14 + 1
    assert not different(wanted, after)


def test_from_escrow_alone_on_an_empty_machine(scenario: Scenario, canaries: dict[str, dict[str, Tree]]) -> None:
    """The age key, the bundle and the CA of the state directory, and plain restic: no holdfast, no controller."""
    for path in ("/etc/holdfast", "/usr/local/bin/holdfast"):
        assert not scenario.host("blank").file(path).exists
    scenario.lab.put("blank", "/root/key", (scenario.folder / "escrow.key").read_bytes(), mode=0o600)
    scenario.lab.put("blank", "/root/ca.pem", (scenario.state / "hosts/vault1/ca.pem").read_bytes())
    bundles = []
    for sealed in (scenario.state / "hosts/web1/escrow/vault").glob("*.age"):
        scenario.lab.put("blank", "/root/bundle", sealed.read_bytes())
        bundles.append(json.loads(scenario.on("blank", "age -d -i /root/key /root/bundle")))
    # The files' times say nothing, after a git clone say.
    bundle = max(bundles, key=lambda each: (each["repository_id"] is not None, each["made"]))
    scenario.lab.put("blank", "/root/password", bundle["password"].encode(), mode=0o600)
    scenario.lab.put("blank", "/root/repository", location_of(bundle).encode(), mode=0o600)
    scenario.on(
        "blank",
        "restic --cacert /root/ca.pem --repository-file /root/repository --password-file /root/password --no-lock --no-cache"
        " restore latest --tag job:canary --target /srv/restored",
    )
    for place, before in canaries["web1"].items():
        assert not different(saved_as(before), tree(scenario, "blank", f"/srv/restored{place}")), place
    # Without the key the bundle says nothing.
    assert scenario.run("blank", "age-keygen -o /root/other 2>&1; age -d -i /root/other /root/bundle").returncode != 0


def location_of(bundle: dict[str, str]) -> str:
    assert bundle["location"].startswith("rest:https://")
    if "@" in bundle["location"]:
        return bundle["location"]
    return bundle["location"].replace("https://", f"https://{bundle['rest_user']}:{bundle['rest_password']}@")


# --- what an intruder with a client's credentials tries


def test_append_only_and_private(scenario: Scenario, canaries: dict[str, dict[str, Tree]]) -> None:
    """Each attack is delivered: the legitimate request works just before and just after; every object stays as it was."""
    before = tree(scenario, "vault1", SERVER)
    tried = json.loads(scenario.on("web1", "python3 - db1--vault", stdin=ATTACK.read_bytes()))
    after = tree(scenario, "vault1", SERVER)
    assert len(tried["refused"]) > 40
    assert set(tried["controls"].values()) == {200}, tried["controls"]
    let_in = {what: status for what, status in tried["refused"].items() if status not in (400, 401, 403, 404, 405)}
    assert not let_in
    assert_kept(before, after, least=20)
    assert not [bytes.fromhex(key) for key in after.keys() - before.keys() if b"web1--vault" not in bytes.fromhex(key)]


def assert_kept(before: Tree, after: Tree, least: int) -> None:
    """Every object that was there is there, with the same content; locks come and go, and directories' times with them."""
    kept = {key: value for key, value in before.items() if value[8] and b"/locks/" not in bytes.fromhex(key)}
    assert len(kept) >= least
    assert not different(kept, {key: value for key, value in after.items() if key in kept})


def test_forget_and_prune_say_what_they_like(scenario: Scenario, canaries: dict[str, dict[str, Tree]]) -> None:
    """restic's words and exit code prove nothing: the server's files do. What is forgotten still restores."""
    before = tree(scenario, "vault1", f"{SERVER}/web1--vault")
    count = json.loads(scenario.on("web1", f"{RESTIC} restic --no-cache snapshots --json --no-lock"))
    said = scenario.run(
        "web1", f"{RESTIC} timeout 100 restic --no-cache forget --prune --keep-last 1 --group-by host 2>&1"
    )
    assert re.search(r"removed|forget|403|Forbidden", said.stdout), said.stdout
    assert_kept(before, tree(scenario, "vault1", f"{SERVER}/web1--vault"), least=8)
    assert json.loads(scenario.on("web1", f"{RESTIC} restic --no-cache snapshots --json --no-lock")) == count
    done = backup(scenario, "web1", "canary")
    assert done.returncode == 0, done.stdout + done.stderr


# --- what goes wrong is noticed as what it is

VAULT = "/etc/holdfast/secrets/vault"
FAULTS = {
    "missing": ("missing--vault", "true", "true", "incomplete", "source missing"),
    "pre hook": ("pre-hook--vault", "true", "true", "failed", "pre hook"),
    "post hook": ("post-hook--vault", "true", "true", "failed", "post hook"),
    "dump": ("dump--vault", "true", "true", "failed", "dump"),
    "full disk": ("full--small", "true", "true", "failed", "disk full"),
    "unmounted": (
        "unmounted--mounted",
        "umount /srv/mounted",
        "mount --bind /srv/store /srv/mounted",
        "failed",
        "unreachable",
    ),
    "wrong password": (
        "good--vault",
        f"cp -p {VAULT}.password /root/kept; echo wrong >{VAULT}.password",
        f"cp -p /root/kept {VAULT}.password; rm /root/kept",
        "failed",
        "wrong password",
    ),
    "lost key file": (
        "good--vault",
        f"mv {VAULT}.password /root/kept",
        f"mv /root/kept {VAULT}.password",
        "failed",
        "lost key file",
    ),
    "no record": (
        "good--vault",
        "mv /var/lib/holdfast/repositories/vault.env /root/kept",
        "mv /root/kept /var/lib/holdfast/repositories/vault.env",
        "failed",
        "no record",
    ),
}


def assert_noticed(scenario: Scenario, client: str, unit: str, expected: str, reason: str) -> None:
    found = outcome(scenario, client, unit)
    assert (found["outcome"], found["reason"]) == (expected, reason), json.dumps(found, indent=1)
    # The outcome is on record before anybody is told of it.
    for _try in range(60):
        if found["told"] is not None:
            break
        time.sleep(0.5)
        found = outcome(scenario, client, unit)
    assert found["told"] is True
    state = scenario.host(client).service(f"holdfast-{unit}.service").systemd_properties["ActiveState"]
    assert state == "failed" or found["service_result"] == "dependency", state
    told = scenario.host(client).file(f"/var/log/told/{unit}").content_string
    assert f"HOLDFAST_OUTCOME={expected}\n" in told, told
    assert f"HOLDFAST_REASON={reason}\n" in told, told


@pytest.mark.parametrize("fault", FAULTS)
def test_L1_a_fault_is_noticed_as_what_it_is(scenario: Scenario, fault: str) -> None:
    """The unit is failed, the outcome says why, and somebody was told; before and after it the job is as good as it was."""
    unit, break_it, mend_it, expected, reason = FAULTS[fault]

    def one(client: str) -> None:
        scenario.on(client, f"rm -f /var/log/told/{unit}")
        scenario.on(client, f"set -e; {break_it}")
        try:
            done = backup(scenario, client, unit)
        finally:
            scenario.on(client, mend_it)
        assert done.returncode == 1, done.stdout + done.stderr
        assert_noticed(scenario, client, unit, expected, reason)

    everywhere(FAULTY, one)


def test_after_the_faults_the_job_is_good(scenario: Scenario) -> None:
    """The control of the faults above: the same job with nothing broken."""

    def one(client: str) -> None:
        done = backup(scenario, client, "good")
        assert done.returncode == 0, done.stdout + done.stderr
        assert outcome(scenario, client, "good--vault")["outcome"] == "ok"
        unit = scenario.host(client).service("holdfast-good--vault.service")
        assert unit.systemd_properties["ActiveState"] == "inactive"

    everywhere(FAULTY, one)


def test_a_backup_that_fails_is_in_the_table(scenario: Scenario) -> None:
    """The playbook backup fails for that client, and says what became of it."""
    done = scenario.playbook("backup", "--limit", "web1,db1", "-e", "job=missing", fails=True)
    assert done.failed == {"web1", "db1"}
    for client in done.failed:
        assert re.search(rf"^{client} +missing +vault +incomplete +source missing ", done.output, re.MULTILINE)
    told = done.output[done.output.index("Tell why a backup") :]
    assert "missing--vault: incomplete, source missing" in told
    # One client has no such job, and is left out.
    assert not scenario.playbook("backup", "-e", "job=good").failed


def test_the_status_is_read_by_a_program(scenario: Scenario) -> None:
    path = scenario.folder / "status.json"
    scenario.playbook("status", "-e", f"output={path}")
    hosts = json.loads(path.read_text())["hosts"]
    assert sorted(hosts) == sorted(CLIENTS)
    assert [unit["outcome"] for unit in hosts["web1"]["units"] if unit["job"] == "missing"] == ["incomplete"]
    scenario.playbook("status", "-e", f"output={path}", "-e", "query=hosts.six.units[].job")
    assert json.loads(path.read_text()) == ["canary"]


def test_files_are_saved_when_only_the_dump_failed(scenario: Scenario) -> None:
    assert outcome(scenario, "web1", "dump--vault")["snapshot"]
    assert outcome(scenario, "web1", "missing--vault")["snapshot"]


def test_L1_a_disk_error_is_noticed(scenario: Scenario) -> None:
    """Blocks of the source are gone: restic reads EIO, and the run is incomplete."""

    def one(client: str) -> None:
        # The lab's disks are loop devices of this machine.
        loop = scenario.on(client, "findmnt -no SOURCE /srv/bad").strip()
        image = ["losetup", "--noheadings", "--output=BACK-FILE", loop]
        path = subprocess.run(image, check=True, capture_output=True, text=True).stdout.strip()
        assert Path(path).is_relative_to(CACHE / "disks" / scenario.name / client)
        scenario.on(client, "sync; python3 -", stdin=FORGET.encode())
        subprocess.run(["truncate", "--size=24M", path], check=True)
        subprocess.run(["losetup", "--set-capacity", loop], check=True)
        assert scenario.run(client, "cat /srv/bad/[0-9]* >/dev/null").returncode != 0
        assert backup(scenario, client, "unreadable").returncode == 1
        assert_noticed(scenario, client, "unreadable--vault", "incomplete", "source unreadable")

    everywhere(FAULTY, one)


def test_L1_an_unreachable_server_is_noticed(scenario: Scenario) -> None:
    scenario.on("vault1", "systemctl stop holdfast-rest-server.socket holdfast-rest-server.service")
    try:
        done = everywhere(FAULTY, lambda client: backup(scenario, client, "good", timeout=300))
    finally:
        scenario.on("vault1", "systemctl start holdfast-rest-server.socket")
    for client, each in done.items():
        assert each.returncode == 1, each.stdout + each.stderr
        assert_noticed(scenario, client, "good--vault", "failed", "unreachable")


# --- repositories that were there before


@pytest.mark.parametrize("client", FAULTY)
def test_a_repository_of_the_users_own_is_adopted(scenario: Scenario, client: str) -> None:
    config = scenario.on("vault1", f"sha256sum /srv/theirs/{client}/config; ls /srv/theirs/{client}/keys | wc -l")
    done = backup(scenario, client, "theirs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        scenario.on("vault1", f"sha256sum /srv/theirs/{client}/config; ls /srv/theirs/{client}/keys | wc -l") == config
    )
    assert config.endswith("1\n")
    assert len(scenario.host("vault1").file(f"/srv/theirs/{client}/snapshots").listdir()) == 1


# --- a client without IPv4, with a login that is not root


def test_ipv6_only_with_become(scenario: Scenario, canaries: dict[str, dict[str, Tree]]) -> None:
    address = scenario.lab.addresses("vault1")[1]
    location = scenario.host("six").file("/etc/holdfast/secrets/vault.repository").content_string
    assert f"@[{address}]:8000/" in location
    certificate = scenario.on("vault1", "openssl x509 -in /etc/holdfast/tls/leaf.pem -noout -ext subjectAltName")
    assert "IP Address:" in certificate
    assert not [each for each in scenario.host("six").interface("host0").addresses if ":" not in each]
    assert outcome(scenario, "six", "canary--vault")["outcome"] == "ok"


# --- secrets


def secrets_of(scenario: Scenario, client: str) -> list[str]:
    """What must appear nowhere: every password of a client, as it is and in base64."""
    text = scenario.on(client, "cd /etc/holdfast/secrets; cat vault.password; cat vault.repository; cat *.identity")
    lines = text.split("\n")
    found = {lines[0].strip()}
    found |= set(re.findall(r"://[^:/]+:([^@]+)@", text))
    found |= set(re.findall(r'"password":\s*"([^"]+)"', text))
    assert len(found) >= 2
    return sorted(found)


def shapes(secret: str) -> list[str]:
    return [secret, base64.b64encode(secret.encode()).decode().rstrip("=")]


def test_secrets_appear_nowhere(scenario: Scenario, canaries: dict[str, dict[str, Tree]]) -> None:
    secrets = {client: secrets_of(scenario, client) for client in CLIENTS}
    every = [shape for client in CLIENTS for secret in secrets[client] for shape in shapes(secret)]
    for client in FAULTY:
        kept = scenario.on(client, "cat /etc/holdfast/secrets/mine.password /etc/holdfast/secrets/mine.environment")
        assert all(secret in kept for secret in INVENTORY_SECRETS)
    every += INVENTORY_SECRETS
    # In a run that rotates, opens every repository and shows everything.
    arguments = ("-vvvvv", "--diff", "-e", "backup_verify_repositories=true", "-e", "backup_rotate_rest=true")
    output = scenario.playbook("site", *arguments).output
    assert "diff" in output
    every += [shape for client in CLIENTS for secret in secrets_of(scenario, client) for shape in shapes(secret)]
    # In process lists, seen by an ordinary user and by root, while a backup runs.
    for client in FAULTY:
        scenario.on(client, "head -c 60M /dev/urandom >/root/canary/large; touch /root/started")
        patterns = "\n".join(every)
        seen = scenario.on(
            client, f"python3 - {client}", stdin=WATCH.read_bytes().replace(b"@SECRETS@", patterns.encode())
        )
        found = json.loads(seen)
        assert found["control"] is True
        assert found["samples"] > 20
        assert found["restic_seen"] > 5
        assert found["leaks"] == []
        scenario.on(client, "rm /root/canary/large")
    assert not [secret for secret in every if secret in output]
    # In journals, temporary files, and files of the system that others may read.
    for host in [*CLIENTS, "vault1"]:
        scenario.lab.put(host, "/run/patterns", ("\n".join(every) + "\n").encode(), mode=0o600)
        journal = scenario.run(host, "journalctl --no-pager -o verbose | grep -aF -f /run/patterns | head -3")
        assert journal.stdout == ""
        where = "find /tmp /var/tmp /dev/shm /run/holdfast /var/lib/holdfast /var/log /etc/systemd /etc/holdfast /var/cache/holdfast"
        spared = r"-type f -not -path '/etc/holdfast/secrets/*' -not -path '*/canary/*' -print0 2>/dev/null"
        files = scenario.run(host, f"{where} {spared} | xargs -0 grep -laF -f /run/patterns --")
        assert files.stdout == ""
        # The control: the same search finds them where they belong.
        if host in CLIENTS:
            assert scenario.on(host, "grep -rlaF -f /run/patterns /etc/holdfast/secrets").count("\n") >= 2
        scenario.on(host, "rm /run/patterns")
    # In the state directory there are hashes and ciphertext.
    content = b"".join(path.read_bytes() for path in scenario.state.rglob("*") if path.is_file())
    assert len(content) > 5000
    assert not [secret for secret in every if secret.encode() in content]
    assert b"age-encryption.org" in content


def test_L4_systemctl_show_leaks_nothing(scenario: Scenario) -> None:
    for client in CLIENTS:
        secrets = [shape for secret in secrets_of(scenario, client) for shape in shapes(secret)]
        shown = scenario.on(client, "systemctl show 'holdfast-*' --all; systemctl cat 'holdfast-*'", user="ops")
        assert "RESTIC_PASSWORD_FILE" in shown
        assert not [secret for secret in secrets if secret in shown]
        for path in ("vault.password", "vault.repository", "vault.identity"):
            assert scenario.run(client, f"cat /etc/holdfast/secrets/{path}", user="ops").returncode != 0


# --- init and schedules


def test_L2_a_wrong_password_fails_the_play_with_the_state(scenario: Scenario) -> None:
    scenario.on("web1", f"cp -p {VAULT}.password /root/kept; echo wrong >{VAULT}.password")
    try:
        done = scenario.playbook("site", "--limit", "web1,vault1", "-e", "backup_verify_repositories=true", fails=True)
    finally:
        scenario.on("web1", f"cp -p /root/kept {VAULT}.password; rm /root/kept")
    assert done.failed == {"web1"}
    assert re.search(r"wrong[_ ]key|wrong[_ ]password|another password", done.output), done.output


def test_L2_refused_credentials_fail_the_first_run_of_a_repository(scenario: Scenario) -> None:
    """What refuses them is no repository that is missing: nothing is initialised, recorded or scheduled."""
    login = {"RESTIC_REST_USERNAME": "{{ inventory_hostname }}", "RESTIC_REST_PASSWORD": "not this one"}
    url = "rest:http://vault1:8999/{{ inventory_hostname }}/new/"
    never = {"calendar": "2099-01-01"}
    extra = {
        "backup_repositories__new": {"new": {"url": url, "environment": login}},
        "backup_jobs__new": {"new": {"paths": ["/srv/good"], "repositories": ["new"], "schedule": never}},
    }
    run = ("site", "--limit", "web1,vault1", "-e")
    done = scenario.playbook(*run, json.dumps(extra), fails=True)
    assert done.failed == {"web1"}, done.output
    assert (
        "new (rest:http://vault1:8999/web1/new/) is unreachable: HTTP 401: the server refused user or password"
        in done.output
    )
    for made in ("/etc/systemd/system/holdfast-new--new.timer", "/var/lib/holdfast/repositories/new.env"):
        assert not scenario.host("web1").file(made).exists
    assert not scenario.host("vault1").file("/srv/theirs/web1/new").exists
    # The control: the same with the credentials that are right.
    login["RESTIC_REST_PASSWORD"] = "correct horse Eith2aiqu7"
    scenario.playbook(*run, json.dumps(extra))
    assert scenario.host("vault1").file("/srv/theirs/web1/new/config").exists
    assert scenario.host("web1").file("/etc/systemd/system/holdfast-new--new.timer").exists
    scenario.playbook(*run, "backup_prune_secrets=true")


def test_L11_nothing_is_scheduled_against_a_repository_that_was_never_made(scenario: Scenario) -> None:
    extra = json.dumps(
        {
            "backup_repositories__never": {"never": {"url": "rest:http://127.0.0.1:9/{{ inventory_hostname }}/"}},
            "backup_jobs__never": {
                "never": {
                    "paths": ["/srv/good"],
                    "repositories": ["never"],
                    "schedule": {"calendar": "minutely", "spread": 0},
                }
            },
        }
    )
    done = scenario.playbook("site", "--limit", "web1,vault1", "-e", extra, fails=True)
    assert done.failed == {"web1"}, done.output
    assert "unreachable" in done.output
    host = scenario.host("web1")
    timers = host.check_output("systemctl list-timers --all --no-pager")
    assert "never" not in timers
    assert not [name for name in host.file("/etc/systemd/system").listdir() if "never" in name]
    # The control: what was made is scheduled.
    assert "holdfast-canary--vault.timer" in timers
    assert host.file("/etc/systemd/system/holdfast-canary--vault.timer").exists


def test_the_next_run_changes_nothing(scenario: Scenario) -> None:
    done = scenario.playbook("site")
    assert set(done.changed.values()) == {0}, done.output
