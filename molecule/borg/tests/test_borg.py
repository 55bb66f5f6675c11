"""Jobs of borg, in order: each step builds on the one before.

Fleet.converge runs the playbook site in check mode, for real and again: what is announced is what is done, and then
nothing is left to do.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import guide
from tests.attack.fleet_side import Protected
from tests.fleet import ROOT, Fleet, escrow_key
from tests.hosts import assert_exposure, assert_usable_meanwhile, look
from tests.lab import mirror
from tests.lab.services import MIRROR_NAME_URL
from tests.lab.state import lab_directory

ARCHIVE = "/var/backups/holdfast/archive"
LOCKED_AWAY = "/var/backups/holdfast/sealed"
SERVICE = "holdfast-system--archive.service"
SECRETS = "/etc/holdfast/secrets"
PLACES = ["/home", "/root", "/tmp", "/var/tmp", "/srv/other"]
JOBS: dict[str, dict[str, Any]] = {
    "system": {
        "paths": [*PLACES, "/etc", "/srv/odd/with space", "/srv/odd/glob*[a]?", "/srv/odd/dollar $HOME ${PATH} $$"],
        "exclude": ["/root/restored*", "*.nothing", "/etc/skel"],
        "tags": ["night"],
        "retry_lock": 1,
        "dumps": [
            {
                "kind": "command",
                "name": "words",
                "user": "nobody",
                "command": ["sh", "-c", "id -un; grep Cap /proc/self/status"],
            }
        ],
    },
    # A job whose name goes on where that of the other ends.
    "system-more": {"paths": ["/etc/skel"], "repositories": ["archive"]},
}


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    fleet = Fleet("borg", folder, {"backup_clients": ["web1", "web2", "web3"]})
    fleet.variables = {
        "backup_jobs": JOBS,
        "backup_escrow": {"recipients": [escrow_key(folder)[1]]},
        "backup_repositories": {
            "archive": {"engine": "borg"},
            "sealed": {"engine": "borg", "encryption": "keyfile-blake2"},
        },
    }
    return fleet


@pytest.fixture(scope="session")
def host(fleet: Fleet) -> Any:
    return fleet.on("web1")


def tree(host: Any, directory: str) -> dict[str, Any]:
    """Every file below a directory but sockets, which borg does not save, with content and metadata."""
    script = (ROOT / "tests/demo/tree.py").read_text()
    found = json.loads(host.check_output("python3 -c %s %s", script, directory))
    return {path: each for path, each in found.items() if not each[0].startswith("0o14")}


def ran(host: Any, unit: str = "system--archive") -> tuple[str, str | None]:
    """Run a unit now; outcome and reason, and that the unit failed if it is not ok."""
    done = host.run(f"holdfast run {unit} --wait")
    outcome = json.loads(host.file(f"/var/lib/holdfast/outcomes/{unit}.json").content_string)
    assert (done.rc == 0) == (outcome["outcome"] == "ok"), done
    assert (host.run(f"systemctl is-failed holdfast-{unit}.service").rc == 0) == (outcome["outcome"] != "ok")
    return outcome["outcome"], outcome["reason"]


def archives(host: Any, unit: str = "system--archive") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(host.check_output(f"holdfast snapshots {unit} --json"))["snapshots"]
    return found


def test_a_host_below_the_floor_says_what_is_missing(fleet: Fleet) -> None:
    """Bookworm's borg and borgmatic: nothing of that host is changed, and every other goes on. Then what is said is done."""
    done = fleet.run("site", "--check")
    assert set(done.failed) == {"web2", "web3"}
    for words in (
        "borg_package = 'borgbackup': is version 1.2.4",
        "borg_borgmatic_package = 'borgmatic': is version 1.7",
    ):
        assert words in done.text
    assert not [task for name, task in done.changed if name != "web1"]
    fleet.on("web2").check_output(
        "sed -n 's/ bookworm main/ bookworm-backports main/p' /etc/apt/sources.list >/etc/apt/sources.list.d/backports.list"
        "; apt-get update"
    )
    requirements = Path(__file__).parents[1] / "borgmatic.txt"
    borgmatic = {
        "borg_borgmatic_install": "venv",
        "borg_borgmatic_requirements": requirements.read_text(),
        "borg_borgmatic_index": mirror.wheels(requirements),
    }
    fleet.host_variables["web2"] = {**borgmatic, "borg_package_release": "bookworm-backports"}
    release = mirror.borg()
    fleet.host_variables["web3"] = {
        **borgmatic,
        "borg_install": "release",
        "borg_release_version": release.version,
        "borg_release_url": f"{MIRROR_NAME_URL}{release.path}",
        "borg_release_sha256": {"x86_64": release.sha256},
    }


def test_what_is_announced_is_done(fleet: Fleet, host: Any) -> None:
    canary = (ROOT / "tests/canary.py").read_text()
    for name in fleet.groups["backup_clients"]:
        fleet.on(name).check_output("mkdir -p /srv/other; python3 -c %s", canary)
    fleet.converge()
    assert not host.file("/usr/bin/restic").exists
    for path in (ARCHIVE, "/var/lib/holdfast/borg"):
        assert host.check_output(f"stat -c '%U %a' {path}") == "holdfast 700"
        assert host.check_output(f"find {path} -not -user holdfast") == ""
    # No secret in what everybody may read, and nothing that answers borg's questions.
    password = host.check_output(f"cat {SECRETS}/archive.password")
    seen = host.check_output("cat /etc/holdfast/borgmatic/*.yaml /etc/systemd/system/holdfast-*")
    assert password not in seen
    assert "IS_OK" not in seen
    assert "{credential systemd password}" in seen


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("web1", "system--archive"),
        ("web1", "system--sealed"),
        ("web2", "system--archive"),
        ("web3", "system--archive"),
    ],
)
def test_everything_comes_back(fleet: Fleet, name: str, unit: str) -> None:
    host = fleet.on(name)
    host.check_output("for each in /etc /etc/holdfast; do echo saved >$each/probe; done")
    assert ran(host, unit) == ("ok", None)
    for service in (unit, f"{unit}--words"):
        assert_exposure(host, f"holdfast-{service}.service", 2.0)
    found = archives(host, unit)
    assert [each["dump"] for each in found] == ["words", None]
    recorded = json.loads(host.check_output(f"cat /var/lib/holdfast/outcomes/{unit}.json"))
    assert recorded["dumps"] == {"words": found[0]["id"]}
    assert "borg: files: 1, " in host.check_output(f"holdfast log {unit}")
    assert found[1]["hostname"] == name
    assert found[1]["tags"] == ["job:system", "night"]
    host.check_output(f"holdfast restore {unit} --target /root/restored")
    for path in (*PLACES[2:], "/home", "/root/canary", "/srv/odd/glob*[a]?", "/srv/odd/dollar $HOME ${PATH} $$"):
        expected, restored = tree(host, path), tree(host, f"/root/restored{path}")
        for each in (expected, restored):
            # The directories that others write to meanwhile.
            each.pop(b".".hex())
        assert {path: each for path, each in expected.items() if restored.get(path) != each} == {}
    # A path with wildcards is taken literally, and what is excluded is not there.
    assert set(host.check_output("ls /root/restored/srv/odd").splitlines()) == {
        "with space",
        "glob*[a]?",
        "dollar $HOME ${PATH} $$",
    }
    assert not host.file("/root/restored/etc/skel").exists
    assert host.file("/root/restored/etc/passwd").exists
    dump = host.check_output(
        f"holdfast restore {unit} --dump words --target /root/restored-dump; cat /root/restored-dump/words"
    )
    assert "\nnobody\n" in dump
    assert "CapEff:\t0000000000000000" in dump
    host.check_output(f"holdfast restore {unit} --path /root/canary --target /root/restored-part")
    assert host.check_output("ls /root/restored-part /root/restored-part/root").split() == [
        "/root/restored-part:",
        "root",
        "/root/restored-part/root:",
        "canary",
    ]
    # In place, what this host's backups go by today stays.
    host.check_output("for each in /etc /etc/holdfast; do echo today >$each/probe; done")
    told = host.check_output(f"holdfast restore {unit} --path /etc --target / --force")
    assert "/etc/holdfast and /var/lib/holdfast stay as they are on this host" in told
    assert host.check_output("cat /etc/probe /etc/holdfast/probe").split() == ["saved", "today"]
    host.check_output("rm /etc/probe /etc/holdfast/probe")
    # The flag that makes a file immutable comes back where it could be set.
    host.run("chattr -R -i /root/restored")
    host.check_output("rm -rf /root/restored*")


def test_bookworm_runs_what_it_was_told_to_install(fleet: Fleet) -> None:
    """borg from backports or in one file, and borgmatic at its floor from wheels. Nothing was compiled: there is no compiler."""
    for name, borg in (("web2", "/usr/bin/borg"), ("web3", "/usr/local/bin/borg")):
        host = fleet.on(name)
        versions = json.loads(host.file("/var/lib/holdfast/outcomes/system--archive.json").content_string)["versions"]
        assert (versions["borg"], versions["borgmatic"]) == ("1.4.0", "1.9.10")
        assert host.check_output("command -v borg; borg --version") == f"{borg}\nborg 1.4.0"
        assert host.check_output("/usr/local/lib/holdfast-borgmatic/bin/borgmatic --version") == "1.9.10"
        assert host.run("command -v cc || command -v gcc || command -v borgmatic").rc != 0
    fleet.groups["backup_clients"] = ["web1"]


def test_a_dry_run_lists_what_would_be_saved(host: Any) -> None:
    before = archives(host), segments(host, ARCHIVE)
    done = host.run("holdfast run system--archive --dry-run")
    assert done.rc == 0, done
    listed = {line.strip() for line in done.stdout.splitlines()}
    assert {"/etc/passwd", "/root/canary", "/srv/odd/glob*[a]?", "/srv/odd/dollar $HOME ${PATH} $$"} <= listed
    assert "/etc/skel" not in listed
    assert host.run("mv '/srv/odd/with space' /srv/gone; holdfast run system--archive --dry-run").rc == 1
    host.check_output("mv /srv/gone '/srv/odd/with space'")
    assert (archives(host), segments(host, ARCHIVE)) == before
    assert (
        host.check_output(f"ls {ARCHIVE} /run/systemd/system /var/lib/holdfast | grep -E 'lock|dry-run' || true") == ""
    )


def looked(host: Any, unit: str, script: str) -> str:
    """What a script prints that looks into the mounted archives in /mnt; backups go on meanwhile."""
    found = look(host, unit, f"{script}\nholdfast run {unit} --wait >/dev/null")
    assert host.run("pgrep -f '[b]org mount'").rc == 1
    return found


def test_archives_can_be_mounted(host: Any) -> None:
    host.check_output("apt-get remove -q -y python3-pyfuse3")
    assert "apt install python3-pyfuse3" in host.run("holdfast mount system--archive /mnt").stderr
    host.check_output("apt-get install -q -y python3-pyfuse3 >/dev/null")
    assert ran(host, "system-more--archive") == ("ok", None)
    assert [each["tags"] for each in archives(host, "system-more--archive")] == [["job:system-more"]]
    found = looked(host, "system--archive", "ls /mnt; cat /mnt/web1--system--*[0-9]/etc/hostname").splitlines()
    assert found[:-1] == sorted(each["name"] for each in archives(host)[:2])
    assert found[-1] == "web1"


def test_the_key_is_in_the_escrow_and_no_backup_is_made_without(fleet: Fleet, host: Any) -> None:
    key = host.check_output(f"cat {SECRETS}/archive.borg_key")
    assert key.startswith("BORG_KEY ")
    assert host.check_output(f"stat -c '%U %a' {SECRETS}/archive.borg_key") == "root 400"
    bundles = []
    for path in sorted((fleet.state / "hosts/web1/escrow/archive").iterdir()):
        argv = ["age", "--decrypt", "--identity", str(fleet.folder / "backup-escrow.key"), str(path)]
        bundles.append(json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=30).stdout)["borg_key"])
    assert sorted(str(each).strip() for each in bundles) == sorted(["None", key])
    host.check_output(r"sed -i.kept 's/: \"[0-9a-f]*\"/: \"00\"/' /etc/holdfast/escrow.json")
    assert ran(host) == ("failed", "no escrow")
    host.check_output("mv /etc/holdfast/escrow.json.kept /etc/holdfast/escrow.json")
    assert ran(host) == ("ok", None)


@pytest.mark.parametrize(
    ("damage", "repair", "outcome", "reason"),
    [
        ("mv '/srv/odd/with space' /srv/gone", "mv /srv/gone '/srv/odd/with space'", "incomplete", "source missing"),
        (
            f"echo other >{SECRETS}/archive.password",
            f"cp /root/password {SECRETS}/archive.password",
            "failed",
            "wrong password",
        ),
        (f"sed -i '/^key =/,$d' {ARCHIVE}/config", f"cp -p /root/config {ARCHIVE}/config", "failed", "wrong password"),
        (f"mv {ARCHIVE}/config /root/c", f"mv /root/c {ARCHIVE}/config", "failed", "no repository"),
        (
            f"mkdir {ARCHIVE}/lock.exclusive; touch {ARCHIVE}/lock.exclusive/other@1.99-0; chown -R holdfast: {ARCHIVE}",
            f"holdfast unlock system--archive && ! test -e {ARCHIVE}/lock.exclusive || exit 1",
            "failed",
            "locked",
        ),
        (f"rm {SECRETS}/archive.password", f"cp /root/password {SECRETS}/archive.password", "failed", "lost key file"),
    ],
)
def test_what_goes_wrong_is_noticed_as_what_it_is(
    host: Any, damage: str, repair: str, outcome: str, reason: str
) -> None:
    host.check_output(f"cp -p {SECRETS}/archive.password /root/password; cp -p {ARCHIVE}/config /root/config; {damage}")
    assert ran(host) == (outcome, reason)
    host.check_output(f"{repair}; rm -f /root/password /root/config")


def test_another_key_in_the_repository_is_an_error(fleet: Fleet, host: Any) -> None:
    """Whoever may write there may replace the key; who looks notices."""
    before = host.check_output(f"sha256sum {ARCHIVE}/config")
    environment = f"BORG_BASE_DIR=/var/lib/holdfast/borg BORG_PASSCOMMAND='cat {SECRETS}/archive.password'"
    script = f"export {environment}; cp -p {ARCHIVE}/config /root/config; export BORG_NEW_PASSPHRASE=other;"
    host.check_output(
        f"{script} borg key change-passphrase {ARCHIVE}; chown -R holdfast: {ARCHIVE} /var/lib/holdfast/borg"
    )
    assert host.check_output(f"sha256sum {ARCHIVE}/config") != before
    done = fleet.run("site", "-e", "backup_verify_repositories=true")
    assert done.code != 0
    assert "the passphrase does not open the key" in done.text
    host.check_output(f"mv /root/config {ARCHIVE}/config")
    assert ran(host) == ("ok", None)


def test_a_lost_client_gets_its_key_back(fleet: Fleet, host: Any) -> None:
    before = {name: host.check_output(f"sha256sum {SECRETS}/{name}.borg_key") for name in ("archive", "sealed")}
    host.check_output(f"rm -r {SECRETS} /var/lib/holdfast/repositories /var/lib/holdfast/borg/.config/borg/keys")
    assert "bring the old ones back" in fleet.run("site").text.lower()
    fleet.good("restore_identity", "--limit", "web1", "-e", f"escrow_key={fleet.folder}/backup-escrow.key")
    assert {name: host.check_output(f"sha256sum {SECRETS}/{name}.borg_key") for name in before} == before
    fleet.good("site")
    assert ran(host) == ("ok", None)
    assert ran(host, "system--sealed") == ("ok", None)
    assert len(archives(host, "system--sealed")) == 4


# --- over SSH --------------------------------------------------------------------------------------------------------

SERVED = "/srv/holdfast-ssh/web1--vault"
DROPBEAR_PORT = 2222


def as_root(host: Any, unit: str, command: str) -> Any:
    """Run borg as root of the client does, with the client's own key; REPOSITORY stands for the location."""
    borg = json.loads(host.file(f"/etc/holdfast/units/{unit}.json").content_string)["borg"]
    name = unit.split("--")[1]
    variables = {
        "BORG_BASE_DIR": "/var/lib/holdfast/borg-root",
        "BORG_PASSCOMMAND": f"cat {SECRETS}/{name}.password",
        "BORG_RSH": borg["ssh_command"] or "",
    }
    exports = " ".join(f"{key}='{value}'" for key, value in variables.items())
    return host.run(f"export {exports}; REPOSITORY=$(cat {SECRETS}/{name}.repository); {command}")


def segments(host: Any, path: str) -> dict[str, str]:
    """Content of every segment of a repository."""
    lines = host.check_output(f"find {path}/data -type f -exec sha256sum {{}} +").splitlines()
    return {line.split()[1]: line.split()[0] for line in lines}


def known_hosts(fleet: Fleet, name: str, *keys: str, port: int = 22) -> None:
    """Let this machine know other host keys of a host."""
    address = fleet.lab.addresses(name)[0]
    with (lab_directory(fleet.lab.name) / "known_hosts").open("a") as stream:
        stream.writelines(f"{address if port == 22 else f'[{address}]:{port}'} {key}\n" for key in keys)


def without_sshd(fleet: Fleet, name: str) -> str:
    """Let a host be reached by dropbear alone: it has no sshd, and so no host keys of it. Returns the key it had."""
    server = fleet.on(name)
    before = str(server.check_output("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub"))
    server.check_output("apt-get install -y -q dropbear-bin >/dev/null")
    server.check_output("dropbearkey -t ed25519 -f /etc/dropbear.key >/dev/null")
    server.check_output(f"systemd-run --quiet dropbear -F -r /etc/dropbear.key -p {DROPBEAR_PORT}")
    key = server.check_output("dropbearkey -y -f /etc/dropbear.key | grep ^ssh-")
    known_hosts(fleet, name, " ".join(key.split()[:2]), port=DROPBEAR_PORT)
    server.check_output(
        "apt-get purge -y -q openssh-server >/dev/null 2>&1; rm -f /etc/ssh/ssh_host_*; ! command -v sshd"
    )
    return before


def test_one_key_reaches_one_repository(fleet: Fleet, host: Any) -> None:
    fleet.groups["backup_servers"] = ["vault1"]
    fleet.variables["backup_repositories"]["vault"] = {"engine": "borg", "server": "vault1", "quota": "20M"}
    fleet.host_variables["vault1"] = {"ssh_access_borg": "/bin/true"}
    done = fleet.refused("site", "--limit", "vault1")
    assert "ssh_access_borg = '/bin/true': is no Python program, which could not be kept from destroying" in done.text
    before = without_sshd(fleet, "vault1")
    fleet.host_variables["vault1"] = {"ansible_port": DROPBEAR_PORT}
    fleet.variables["backup_jobs"] = {
        "system": {**JOBS["system"], "paths": ["/etc"], "optional_paths": ["/srv/filler"]}
    }
    fleet.converge()
    pinned = (fleet.state / "hosts/vault1/ssh_host_keys").read_text().splitlines()
    assert pinned
    assert before not in pinned
    known_hosts(fleet, "vault1", *pinned)
    fleet.host_variables = {}
    assert ran(host, "system--vault") == ("ok", None)
    assert len(archives(host, "system--vault")) == 2
    host.check_output("holdfast restore system--vault --target /root/restored")
    assert tree(host, "/root/restored/etc/ssh") == tree(host, "/etc/ssh")
    assert looked(host, "system--vault", "cat /mnt/web1--system--*[0-9]/etc/hostname") == "web1"
    assert as_root(host, "system--vault", "borg list $REPOSITORY").rc == 0
    other = as_root(host, "system--vault", "borg init -e none ${REPOSITORY%/*}/elsewhere")
    assert other.rc != 0
    assert "Repository path not allowed" in other.stderr
    assert fleet.on("vault1").check_output("ls /srv/holdfast-ssh") == "web1--vault"


def test_archives_can_be_used_while_a_run_goes_on(fleet: Fleet, host: Any) -> None:
    marker = "/etc/marker"
    for content in ("first", "second"):
        host.check_output(f"echo {content} >{marker}")
        assert ran(host, "system--vault") == ("ok", None)
    host.check_output(f"echo first >/root/first; head -c 5000000 /dev/urandom >{marker}")
    assert_usable_meanwhile(
        host, "system--vault", fleet.on("vault1"), f"{SERVED}/lock.exclusive/*", marker, "/root/first"
    )
    host.check_output(f"rm {marker} /root/first")


def test_another_address_of_the_server_is_the_same_repository(fleet: Fleet, host: Any) -> None:
    """Borg does not open what it takes for relocated without being told to, and nobody is there who could tell it."""
    address = fleet.lab.addresses("vault1")[1]
    fleet.host_variables["vault1"] = {"backup_address": address}
    fleet.good("site")
    dialled = host.check_output("ssh -G -F /etc/holdfast/ssh/vault.conf holdfast-vault").splitlines()
    assert f"hostname {address}" in dialled
    assert ran(host, "system--vault") == ("ok", None)
    # Control: dialled by that address, it is another place.
    options = "-o HostKeyAlias=holdfast-vault -o UserKnownHostsFile=/etc/holdfast/ssh/vault.known_hosts"
    dial = f"export BORG_RSH='ssh -F none -i {SECRETS}/vault.ssh_key {options}'"
    refused = as_root(host, "system--vault", f"{dial}; borg list 'ssh://bk-web1@[{address}]/./web1--vault' </dev/null")
    assert refused.rc != 0
    assert "previously located at ssh://holdfast-vault/" in refused.stderr


def test_nothing_of_it_can_be_deleted(fleet: Fleet, host: Any) -> None:
    """Borg says that it deleted, and ends with 0; only the files tell. On the host itself the same commands do delete."""
    server = fleet.on("vault1")
    erase = "borg delete -a '*' $REPOSITORY && borg compact --threshold 0 $REPOSITORY"
    before = segments(server, SERVED)
    assert before
    assert as_root(host, "system--vault", erase).rc == 0
    after = segments(server, SERVED)
    assert {path: content for path, content in before.items() if after.get(path) != content} == {}
    assert ran(host, "system--vault") == ("ok", None)
    local = f"{LOCKED_AWAY}-copy"
    copied = f"cp -a {ARCHIVE} {local}; REPOSITORY={local}; export BORG_RELOCATED_REPO_ACCESS_IS_OK=yes"
    before = segments(host, ARCHIVE)
    assert as_root(host, "system--archive", f"{copied}; {erase}").rc == 0
    assert len(set(segments(host, local).values()) & set(before.values())) < len(before)
    host.check_output(f"rm -r {local} /var/lib/holdfast/borg-root/.config/borg/security")


LOCKED_OUT = "/etc/holdfast/serve/maintenance/web1--vault"
# Of a program on another host that was killed: borg cannot know.
LEFT = f"mkdir {SERVED}/lock.exclusive; touch {SERVED}/lock.exclusive/other@1.99-0; chown -R --reference={SERVED} {SERVED}/lock.exclusive"


def test_a_lock_that_nobody_holds_is_removed_over_ssh(fleet: Fleet, host: Any) -> None:
    """Also where nothing else can be deleted."""
    fleet.on("vault1").check_output(LEFT)
    assert ran(host, "system--vault") == ("failed", "locked")
    host.check_output("holdfast unlock system--vault")
    assert ran(host, "system--vault") == ("ok", None)


def test_what_was_hid_comes_back(fleet: Fleet, host: Any) -> None:
    """As docs/borg.md says, with a look by docs/operating.md before the client is let in again: root leaves nothing there."""
    server, unit = fleet.on("vault1"), "system--vault"
    assert ran(host, unit) == ("ok", None)
    have = {each["id"] for each in archives(host, unit)}
    good = int(server.check_output(f"sed -n '$s/^transaction \\([0-9]*\\),.*/\\1/p' {SERVED}/transactions"))
    assert as_root(host, unit, "borg delete -a '*' $REPOSITORY").rc == 0
    assert archives(host, unit) == []
    server.check_output(f"touch {LOCKED_OUT}")
    assert ran(host, unit) == ("failed", "locked")
    server.check_output(
        f"set -e; mkdir /root/away; cd {SERVED}; mv index.* hints.* integrity.* /root/away;"
        f" for each in data/*/*; do [ ${{each##*/}} -le {good} ] || mv $each /root/away; done"
    )
    password = host.file(f"{SECRETS}/vault.password").content_string.strip()
    server.check_output("umask 077; mkdir /root/restore; printf %%s %s >/root/restore/password", password)
    commands = guide.blocks("Restore without the client, the controller and this collection")[1].splitlines()
    look = "\n".join(each for each in commands if "BORG_" in each).replace("web1--archive", "web1--vault")
    # Whoever was the client's account on the server may have left a link where borg will write.
    server.check_output(f"echo kept >/root/victim; ln -s /root/victim {SERVED}/index.{good}.tmp")
    assert server.run(f"cd /root/restore; {look}").rc != 0
    assert server.check_output("cat /root/victim") == "kept"
    server.check_output(f"rm {SERVED}/index.{good}.tmp")
    assert len(server.check_output(f"cd /root/restore; {look}").splitlines()) == len(have)
    # Control: borg wrote there.
    assert server.check_output(f"ls {SERVED}/index.*")
    assert server.check_output(f"find {SERVED} ! -user bk-web1") == ""
    server.check_output(f"rm {LOCKED_OUT}")
    identity = host.check_output("sed -n 's/^HOLDFAST_REPOSITORY_ID=//p' /var/lib/holdfast/repositories/vault.env")
    host.check_output(guide.blocks("On a server", "borg.md")[0].replace("/ID", f"/{identity}"))
    assert ran(host, unit) == ("ok", None)
    assert {each["id"] for each in archives(host, unit)} > have


def test_space_is_freed_on_the_server(fleet: Fleet, host: Any) -> None:
    """As docs/borg.md says: what was deleted goes, what is young stays, and the client goes on."""
    server, unit = fleet.on("vault1"), "system--vault"
    have = {each["id"] for each in archives(host, unit)}
    size = f"du -s {SERVED} | cut -f1"
    before = int(server.check_output(size))
    typed = "".join(guide.blocks("On a server", "borg.md")[1:]).replace("web1--archive", "web1--vault")
    assert "borg compact" in typed
    server.check_output(f"{LEFT}; touch {LOCKED_OUT}; set -e; cd /root\n{typed}\nrm {LOCKED_OUT}")
    assert int(server.check_output(size)) < before
    assert ran(host, unit) == ("ok", None)
    assert {each["id"] for each in archives(host, unit)} > have
    server.check_output("rm -r /root/restore /root/away")


def test_what_an_intruder_tries(fleet: Fleet) -> None:
    """Calls that no borg makes; more of it is `make attack`'s."""
    server, client = fleet.on("vault1"), Protected(fleet)
    before = segments(server, SERVED)
    for attack, path, refused in (
        ("open", "", False),
        ("destroy", "", True),
        ("destroy after create", "", True),
        ("open", "/..", True),
    ):
        answers = client.borg_calls(attack, f"/./web1--vault{path}", client.dial("vault"))
        assert bool(answers[-1][1]) is refused, answers
    assert segments(server, SERVED) == before


def test_a_quota_that_is_met_is_told(host: Any) -> None:
    host.check_output("head -c 40M /dev/urandom >/srv/filler")
    assert ran(host, "system--vault") == ("failed", "disk full")
    assert ran(host, "system--archive") == ("ok", None)
    host.check_output("rm /srv/filler")
    assert ran(host, "system--vault") == ("ok", None)
