"""A private copy of restic that may read every file, in order: each step builds on the one before."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import ROOT, Fleet, released_restic
from tests.guide import blocks
from tests.hosts import assert_exposure
from tests.lab import mirror

CLIENTS = ("web1", "web2")
INSTALLED = {"web1": "/usr/bin/restic", "web2": "/usr/local/bin/restic"}
DIRECTORY = "/usr/local/lib/holdfast-capable"
COPY = f"{DIRECTORY}/restic"
PATHS = ("/home", "/srv/data", "/var/spool/odd")
SERVICE = "holdfast-system--local.service"
SCHEDULE = {"calendar": "Mon *-*-1..7 04:00"}
# What web1 has besides, over REST, on itself.
OVER_REST: dict[str, Any] = {
    "backup_repositories": {"local": {}, "vault": {"server": "web1"}},
    "backup_jobs__rest": {
        "system": {"repositories": ["local"]},
        "rest": {"paths": ["/etc/hostname"], "repositories": ["vault"], "schedule": SCHEDULE},
    },
}
STARTED_ELSEWHERE = "Jobs that something else than systemd starts"
CAPABLE = "holdfast-restic-capable"
DAC_READ_SEARCH = 1 << 2
OLD, NEW = "restic 0.18.0", "restic 0.19.1"
CANARIES = """
useradd --create-home alice; useradd --create-home mallory
mkdir -p /srv/data/shut /var/spool/odd
printf secret >/home/alice/diary; chown alice: /home/alice/diary; chmod 0000 /home/alice/diary; chmod 0700 /home/alice
printf root >/srv/data/shut/roots; chmod 0000 /srv/data/shut/roots /srv/data/shut
printf theirs >'/var/spool/odd/$name %n "q"'; chown 12345:12345 /var/spool/odd/*; chmod 0600 /var/spool/odd/*; chmod 0000 /var/spool/odd
"""
# What a cron job of the account would say: restic reads root's files of secrets itself.
ENVIRONMENT = (
    "env -i PATH=/usr/bin:/bin RESTIC_REPOSITORY_FILE=/etc/holdfast/secrets/local.repository "
    "RESTIC_PASSWORD_FILE=/etc/holdfast/secrets/local.password RESTIC_CACHE_DIR=/var/cache/holdfast TMPDIR=/var/cache/holdfast"
)
AS_ACCOUNT = "runuser -u holdfast --"


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """Local repositories, and one over REST: what may be read is the question here, not where it goes."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    fleet = Fleet("setcap", folder, {"backup_clients": ["web1", "web2"], "backup_servers": ["web1"]})
    fleet.variables = {
        "backup_escrow": {"recipients": [(folder / "escrow.pub").read_text().strip()]},
        "restic_privilege": "setcap",
        "backup_jobs": {
            "system": {
                "paths": ["/home", "/srv/data", "/var/spool/odd"],
                "schedule": SCHEDULE,
            }
        },
    }
    fleet.host_variables.update(web1=OVER_REST, web2=released_restic("trixie"))
    return fleet


def tree(host: Any, directory: str) -> dict[str, Any]:
    """Every file below a directory, with content and metadata."""
    script = (ROOT / "tests/demo/tree.py").read_text()
    return dict(json.loads(host.check_output("python3 -c %s %s", script, directory)))


def capability(host: Any, path: str) -> str:
    """The file capability as the kernel has it, in hex; empty without one."""
    script = "import os,sys\nprint(os.getxattr(sys.argv[1], 'security.capability').hex() if 'security.capability' in os.listxattr(sys.argv[1]) else '')"
    return str(host.check_output("python3 -c %s %s", script, path))


def is_capable(host: Any) -> bool:
    """Whether the copy is the installed restic, private, with exactly the capability to read."""
    installed = INSTALLED[host.check_output("hostname")]
    return bool(
        host.run("cmp %s %s", installed, COPY).rc == 0
        and host.check_output("stat -c '%%U:%%G %%a' %s %s", DIRECTORY, COPY).split("\n") == ["root:holdfast 750"] * 2
        and capability(host, COPY) == "01000002" + "04000000" + "00" * 12
        and host.check_output("ls -A %s", DIRECTORY) == "restic"
    )


def version(host: Any, program: str = COPY) -> str:
    """The first words that restic says of itself."""
    return " ".join(host.check_output("%s version", program).split()[:2])


def show(host: Any, unit: str, name: str) -> str:
    """A property of a unit."""
    return str(host.check_output("systemctl show --value --property=%s %s", name, unit))


def release(suite: str) -> str:
    """Shell commands that put a release of the lab's mirror next to nothing, as dpkg does: a new file, renamed."""
    variables = released_restic(suite)
    number = variables["restic_release_version"]
    url = f"{variables['restic_release_mirror']}/v{number}/restic_{number}_linux_amd64.bz2"
    script = (
        f"import bz2,sys,urllib.request as u;open(sys.argv[1],'wb').write(bz2.decompress(u.urlopen('{url}').read()))"
    )
    return f'replace() {{ python3 -c "{script}" $1.new && chmod 755 $1.new && mv $1.new $1; }}; replace'


def within(seconds: float, question: Any) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if question():
            return True
        time.sleep(0.3)
    return bool(question())


def backup(host: Any, repository: str = "local") -> dict[str, Any]:
    """Back up now, and what was recorded."""
    done = host.run("holdfast run system --wait")
    assert done.rc == 0, done.stdout + done.stderr + host.run("journalctl -u %s -n 30 --no-pager", SERVICE).stdout
    return dict(json.loads(host.file(f"/var/lib/holdfast/outcomes/system--{repository}.json").content_string))


def started_elsewhere(host: Any, tag: str) -> None:
    """A job by cron, say, with the copy: it saves what only root may read."""
    restic = f"{AS_ACCOUNT} {ENVIRONMENT} {COPY}"
    done = host.run(f"{restic} backup --quiet --tag {tag} {' '.join(PATHS)}")
    assert done.rc == 0, done.stderr
    snapshots = json.loads(host.check_output(f"{restic} snapshots --json --tag {tag}"))
    assert [(each["username"], each["paths"]) for each in snapshots] == [("holdfast", sorted(PATHS))]
    for path, content in (("/home/alice/diary", "secret"), ("/srv/data/shut/roots", "root")):
        assert host.check_output(f"{restic} dump --tag {tag} latest {path}") == content


def complete(host: Any) -> None:
    """The newest snapshot has every file and directory with all its metadata."""
    host.check_output("rm -rf /root/restored; holdfast restore system --target /root/restored")
    for path in PATHS:
        assert tree(host, f"/root/restored{path}") == tree(host, path)
    host.check_output("rm -rf /root/restored")


def test_provisioned_from_nothing(fleet: Fleet) -> None:
    """Check mode on bare hosts tells the truth, the second run is idle."""
    for name in CLIENTS:
        fleet.on(name).check_output(CANARIES)
    real = fleet.converge()
    assert {host for host, task in real.changed if task.endswith("Make the capable copy")} == set(CLIENTS)
    for name in CLIENTS:
        host = fleet.on(name)
        assert is_capable(host)
        assert show(host, f"{CAPABLE}.path", "ActiveState") == "active"
        assert show(host, f"{CAPABLE}.path", "UnitFileState") == "enabled"
        assert show(host, f"{CAPABLE}.service", "UnitFileState") == "enabled"


@pytest.mark.parametrize("name", CLIENTS)
def test_a_backup_is_complete(fleet: Fleet, name: str) -> None:
    host = fleet.on(name)
    found = backup(host)
    assert found["outcome"] == "ok", found
    assert show(host, SERVICE, "User") == "holdfast"
    # What systemd starts has its capability from the unit, and is shut in as without a copy.
    assert f"{INSTALLED[name]} " in show(host, SERVICE, "ExecStart")
    assert COPY not in show(host, SERVICE, "ExecStart")
    assert show(host, SERVICE, "NoNewPrivileges") == "yes"
    assert_exposure(host, SERVICE, 2.0)
    complete(host)


@pytest.mark.parametrize("name", CLIENTS)
def test_only_the_group_may_execute_or_read_it(fleet: Fleet, name: str) -> None:
    host = fleet.on(name)
    host.check_output(
        "rm -rf /home/mallory/stolen; install -d -o mallory -m 0700 /home/mallory/.cache /home/mallory/stolen"
    )
    mallory = "runuser -u mallory --"
    member = "runuser -u mallory -G holdfast --"
    read = f"{COPY} --no-cache -r /home/mallory/stolen/r --insecure-no-password backup /srv/data"
    for command in (
        f"{COPY} version",
        f"cat {COPY}",
        f"cp {COPY} /home/mallory/mine",
        f"ls {DIRECTORY}",
        f"test -e {COPY}",
    ):
        assert host.run(f"{member} {command}").rc == 0, command
        assert host.run(f"{mallory} {command}").rc != 0, command
    # What a member takes away has lost the capability.
    assert capability(host, "/home/mallory/mine") == ""
    init = "-r /home/mallory/stolen/r --insecure-no-password init"
    assert host.run(f"{mallory} {INSTALLED[name]} {init}").rc == 0
    for program in (INSTALLED[name], "/home/mallory/mine"):
        assert host.run(f"{mallory} {read.replace(COPY, program)}").rc in (1, 3), program
    assert "failed to execute" in host.run(f"{mallory} {read}").stderr
    allowed = host.run(f"{member} {read}")
    assert allowed.rc == 0, allowed.stderr
    host.check_output("rm -rf /home/mallory/stolen /home/mallory/mine /home/mallory/.cache")


@pytest.mark.parametrize("name", CLIENTS)
def test_something_else_than_systemd_starts_a_job(fleet: Fleet, name: str) -> None:
    host = fleet.on(name)
    started_elsewhere(host, "cron")
    # The installed restic, by the same account, cannot even read the password.
    refused = host.run(f"{AS_ACCOUNT} {ENVIRONMENT} {INSTALLED[name]} backup --quiet --tag cron {' '.join(PATHS)}")
    assert refused.rc != 0
    assert "permission denied" in refused.stderr
    # The same from another starter of jobs, which hands over what root has.
    starter = "setpriv --reuid=holdfast --regid=holdfast --clear-groups"
    assert host.run(f"{starter} {ENVIRONMENT} {COPY} snapshots --quiet").rc == 0


def test_what_the_guide_has_cron_say(fleet: Fleet) -> None:
    """Of a repository over REST, whose user and password are in its location."""
    host, command = fleet.on("web1"), blocks(STARTED_ELSEWHERE)[0]
    done = host.run(command)
    assert done.rc == 0, done.stderr
    restic = command.partition(" backup ")[0]
    (snapshot,) = json.loads(host.check_output(f"{restic} snapshots --json --tag cron"))
    assert (snapshot["username"], snapshot["paths"]) == ("holdfast", ["/srv/data"])
    assert host.check_output(f"{restic} dump --tag cron latest /srv/data/shut/roots") == "root"


def test_who_is_not_root_may_start_a_unit_and_nothing_else(fleet: Fleet) -> None:
    """What is left to starters of jobs for repositories over SSH."""
    host, line = fleet.on("web1"), blocks(STARTED_ELSEWHERE)[1]
    host.check_output(
        "umask 337; printf %%s %s >/etc/sudoers.d/scheduler && visudo -c", line.replace("scheduler", "mallory", 1)
    )
    command = line.partition("NOPASSWD: ")[2].strip()
    before = host.file("/var/lib/holdfast/outcomes/system--local.json").content_string
    assert host.run(f"runuser -u mallory -- sudo -n {command}").rc == 0
    after = host.file("/var/lib/holdfast/outcomes/system--local.json").content_string
    assert (json.loads(after)["outcome"], after != before) == ("ok", True)
    for other in (
        "/usr/local/bin/holdfast run",
        f"{command} --verbose",
        "/usr/local/bin/holdfast restore system --target /",
    ):
        assert "password is required" in host.run(f"runuser -u mallory -- sudo -n {other}").stderr
    host.check_output("rm /etc/sudoers.d/scheduler")


@pytest.mark.parametrize("name", CLIENTS)
def test_what_restic_starts_has_no_capability(fleet: Fleet, name: str) -> None:
    host = fleet.on(name)
    host.check_output("rm -rf /run/caps; install -d -o holdfast -m 0700 /run/caps")
    child = "sh -c 'cat /proc/self/status >/run/caps/child; cat /proc/\\$PPID/status >/run/caps/restic; cat /etc/holdfast/secrets/local.password'"
    environment = ENVIRONMENT.replace("RESTIC_PASSWORD_FILE=/etc/holdfast/secrets/local.password", "")
    host.check_output(
        "printf '%%s\\n' %s >/run/caps/run; chmod 644 /run/caps/run",
        f'exec {AS_ACCOUNT} {environment} RESTIC_PASSWORD_COMMAND="{child}" {COPY} snapshots',
    )
    refused = host.run("sh /run/caps/run")
    assert refused.rc != 0
    assert "Permission denied" in refused.stderr
    sets = {}
    for who in ("restic", "child"):
        lines = host.file(f"/run/caps/{who}").content_string.splitlines()
        sets[who] = {line.split(":")[0]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}
    # The control: the very restic that started it has the capability, and root's child could read the password.
    assert sets["restic"]["CapEff"] == sets["restic"]["CapPrm"] == DAC_READ_SEARCH
    for which in ("CapEff", "CapPrm", "CapAmb"):
        assert sets["child"][which] == 0, sets
    assert sets["restic"]["CapAmb"] == 0
    assert host.run("sed -i 's/runuser -u holdfast --//' /run/caps/run; sh /run/caps/run").rc == 0
    host.check_output("rm -rf /run/caps")


def test_the_copy_is_made_anew_when_the_program_is_replaced(fleet: Fleet) -> None:
    host = fleet.on("web1")
    replace = release("sid")
    assert version(host) == OLD
    # Without the path unit the copy would stay what it was.
    host.check_output(f"systemctl stop {CAPABLE}.path; {replace} /usr/bin/restic")
    assert not within(4, lambda: version(host) != OLD)
    assert version(host, "/usr/bin/restic") == NEW
    host.check_output(f"systemctl start {CAPABLE}.path; {replace} /usr/bin/restic")
    assert within(20, lambda: is_capable(host)), host.run(f"journalctl -u {CAPABLE}.service --no-pager").stdout
    assert version(host) == NEW
    started_elsewhere(host, "replaced")


def test_what_changes_while_the_copy_is_made_is_not_missed(fleet: Fleet) -> None:
    """systemd does not watch while its service runs: dpkg renames the new file when the first event was handled."""
    host = fleet.on("web1")
    drop_in = f"/etc/systemd/system/{CAPABLE}.service.d"
    slow = f"printf '[Service]\\nExecStartPost=/bin/sleep 5\\n' >{drop_in}/slow.conf"
    host.check_output(f"mkdir -p {drop_in}; {slow}; systemctl daemon-reload; cp /usr/bin/restic /root/new")
    start = "touch /usr/bin/restic; sleep 2.5; printf x >>/root/new; install /root/new /usr/bin/.new; mv /usr/bin/.new /usr/bin/restic"
    host.check_output(start)
    assert show(host, f"{CAPABLE}.service", "ActiveState") == "activating"
    assert not is_capable(host)
    assert within(30, lambda: is_capable(host))
    # Without the second look it is missed.
    again = f"/etc/systemd/system/{CAPABLE}-again.service.d"
    deaf = f"mkdir {again}; printf '[Service]\\nExecStart=\\nExecStart=/bin/true\\n' >{again}/deaf.conf; systemctl daemon-reload"
    host.check_output(f"{deaf}; {start}")
    assert not within(10, lambda: is_capable(host))
    assert show(host, f"{CAPABLE}.service", "ActiveState") == "inactive"
    host.check_output(f"rm -r {drop_in} {again}; systemctl daemon-reload; touch /usr/bin/restic")
    assert within(20, lambda: is_capable(host))


def test_the_copy_is_made_anew_by_an_upgrade_of_the_package(fleet: Fleet) -> None:
    host = fleet.on("web1")
    assert version(host) == NEW
    host.check_output("apt-get install -qq --reinstall restic")
    assert within(20, lambda: is_capable(host)), host.run(f"journalctl -u {CAPABLE}.service --no-pager").stdout
    assert version(host) == OLD
    started_elsewhere(host, "upgraded")
    assert not fleet.good("site", "--limit", "web1").changed


def test_the_copy_is_made_anew_at_boot(fleet: Fleet) -> None:
    """For what changed while nobody watched: another system had the disk."""
    host = fleet.on("web2")
    host.check_output(f"systemctl stop {CAPABLE}.path; {release('sid')} {INSTALLED['web2']}")
    assert version(host) == OLD
    fleet.lab.restart("web2")
    fleet.forget_connections()
    host = fleet.on("web2")
    assert within(20, lambda: is_capable(host)), host.run(f"journalctl -u {CAPABLE}.service --no-pager").stdout
    assert version(host) == NEW
    host.check_output(f"{release('trixie')} {INSTALLED['web2']}")
    assert within(20, lambda: is_capable(host))
    assert version(host) == OLD


def test_another_release_and_back_to_systemd(fleet: Fleet) -> None:
    """The playbook replaces restic on web2 and the copy with it; web1 needs no copy any more."""
    fleet.host_variables["web2"] = released_restic()
    fleet.host_variables["web1"] = {**OVER_REST, "restic_privilege": "systemd"}
    real = fleet.converge()
    assert {host for host, task in real.changed if task.endswith("Make the capable copy")} == {"web2"}
    web1, web2 = (fleet.on(name) for name in CLIENTS)
    assert version(web2) == NEW
    assert is_capable(web2)
    assert backup(web2)["outcome"] == "ok"
    started_elsewhere(web2, "released")
    assert not web1.file(DIRECTORY).exists
    for kind in ("path", "service"):
        assert show(web1, f"{CAPABLE}.{kind}", "LoadState") == "not-found"
    assert web1.check_output("systemctl is-system-running") == "running"
    assert backup(web1)["outcome"] == "ok"
    complete(web1)


def test_root(fleet: Fleet) -> None:
    """With a repository of its own: what another account wrote before stays that account's."""
    fleet.host_variables["web2"] |= {"restic_privilege": "root", "backup_repositories": {"fresh": {}}}
    fleet.converge("--limit", "web2")
    host = fleet.on("web2")
    assert not host.file(DIRECTORY).exists
    assert show(host, f"{CAPABLE}.path", "LoadState") == "not-found"
    assert show(host, "holdfast-system--fresh.service", "User") in ("", "root")
    assert_exposure(host, "holdfast-system--fresh.service", 2.2)
    assert backup(host, "fresh")["outcome"] == "ok"
    complete(host)


def test_restic_from_the_users_own_apt_repository(fleet: Fleet) -> None:
    """Debian 12's is refused; with the repository what apt offers is installed, or the version that is pinned."""
    fleet.host_variables["web2"] = {"restic_privilege": "systemd"}
    host = fleet.on("web2")
    refused = fleet.refused("site", "--limit", "web2").failed["web2"]
    assert "restic_package = 'restic': is version 0.14.0" in refused
    assert not host.package("restic").is_installed
    url = mirror.describe()["apt"]
    host.check_output("echo %s >/etc/apt/sources.list.d/own.list; apt-get update -qq", f"deb [trusted=yes] {url} ./")
    lines = [
        line.split(" | ") for line in host.check_output("apt-cache madison restic").splitlines() if url[:-1] in line
    ]
    newest, older = [parts[1].strip() for parts in lines]
    assert host.check_output("dpkg --compare-versions %s gt %s && echo yes", newest, older) == "yes"
    for version, pinned in ((newest, ""), (older, older)):
        fleet.host_variables["web2"]["restic_package_version"] = pinned
        fleet.converge("--limit", "web2")
        assert host.package("restic").version == version
        assert "/usr/bin/restic" in show(host, SERVICE, "ExecStart")
        assert backup(host)["outcome"] == "ok"
    complete(host)
