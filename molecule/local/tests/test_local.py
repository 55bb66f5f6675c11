"""Without a server, in order: each step builds on the one before.

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

from tests.fleet import ROOT, Fleet

GALAXY = ROOT / ".venv/bin/ansible-galaxy"
ROOT_OF_REPOSITORIES = "/var/backups/holdfast"
LOCAL = f"{ROOT_OF_REPOSITORIES}/local"
SERVICE = "holdfast-system--local.service"
MOUNT = "/mnt/usb"
USB = f"{MOUNT}/holdfast/usb"
UNPLUG = f"mkdir -p /run/plug && mount --bind {MOUNT} /run/plug && umount {MOUNT}"
PLUG = f"mount --bind /run/plug {MOUNT} && umount /run/plug"
FILES = """
useradd --create-home alice
printf secret >/home/alice/diary; chown alice: /home/alice/diary; chmod 0000 /home/alice/diary; chmod 0700 /home/alice
mkdir -p /var/backups /var/cache/mine; echo 1 >/var/backups/mine; echo 1 >/var/cache/mine/file
"""


def galaxy(folder: Path, *arguments: str) -> None:
    """Run ansible-galaxy collection, with nothing of this repository on its path."""
    subprocess.run(
        [str(GALAXY), "collection", *arguments],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=True,
    )


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """What a newcomer has: no variable but the jobs."""
    fleet = Fleet("local", Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]), {"backup_clients": ["web1"]})
    fleet.collections = tmp_path_factory.mktemp("collections")
    fleet.variables = {
        "backup_jobs": {"system": {"paths": ["/etc", "/home", "/var"]}},
        # Not where it is by default.
        "jobs_program": "/usr/local/sbin/holdfast",
    }
    return fleet


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built collection."""
    folder = tmp_path_factory.mktemp("tarball")
    galaxy(folder, "build", str(ROOT), "--output-path", str(folder))
    (built,) = folder.glob("*.tar.gz")
    return built


def tree(host: Any, directory: str) -> dict[str, Any]:
    """Every file below a directory, with content and metadata."""
    script = (ROOT / "tests/demo/tree.py").read_text()
    return dict(json.loads(host.check_output("python3 -c %s %s", script, directory)))


def show(host: Any, unit: str, name: str) -> str:
    """A property of a unit."""
    return str(host.check_output("systemctl show --value --property=%s %s", name, unit))


def restic(host: Any, repository: str, arguments: str) -> str:
    """What restic says of a repository, as root with its secrets."""
    secrets = f"/etc/holdfast/secrets/{repository}"
    environment = f"RESTIC_REPOSITORY_FILE={secrets}.repository RESTIC_PASSWORD_FILE={secrets}.password"
    return str(host.check_output(f"{environment} restic --no-cache --no-lock {arguments}"))


def outcome(host: Any, unit: str) -> dict[str, Any]:
    """What was recorded of the last run."""
    return dict(json.loads(host.file(f"/var/lib/holdfast/outcomes/{unit}.json").content_string))


def test_the_tarball_is_all_that_is_needed(fleet: Fleet, tarball: Path) -> None:
    nothing = fleet.run("site")
    assert nothing.code != 0
    assert "could not be found" in nothing.text
    galaxy(fleet.collections, "install", "--offline", str(tarball), "-p", str(fleet.collections))
    assert (fleet.collections / "ansible_collections/holdfast/backup/MANIFEST.json").exists()


def test_check_mode_passes_where_apt_was_never_updated(fleet: Fleet) -> None:
    """The real run updates it, and goes on."""
    host = fleet.on("web1")
    host.check_output("mv /var/lib/apt/lists /var/lib/apt/away && mkdir -p /var/lib/apt/lists/partial")
    said = fleet.good("site", "--check")
    assert "web1: apt: has no package lists on this host" in said.text
    assert not host.file("/etc/holdfast").exists
    host.check_output("rm -r /var/lib/apt/lists && mv /var/lib/apt/away /var/lib/apt/lists")


def test_a_dozen_lines_protect_a_host(fleet: Fleet) -> None:
    """No escrow, no server, no path is asked for."""
    host = fleet.on("web1")
    host.check_output(FILES)
    real = fleet.converge()
    assert "local is on the host itself: a start, not a backup" in real.text
    assert "has no escrow" not in real.text
    assert not list(fleet.state.glob("hosts/*/escrow/*"))
    # Only the account may look into it.
    assert host.check_output(f"stat -c '%U:%G %a' {ROOT_OF_REPOSITORIES} {LOCAL}").split("\n") == [
        "root:root 755",
        "holdfast:holdfast 700",
    ]
    assert host.check_output(f"find {LOCAL} -not -user holdfast") == ""
    assert host.run(f"runuser -u alice -- ls {LOCAL}").rc != 0
    assert host.run(f"runuser -u holdfast -- ls {LOCAL}").rc == 0
    assert host.run(f"runuser -u holdfast -- touch {ROOT_OF_REPOSITORIES}/x").rc != 0
    # Confined: it may write there and to its cache, nowhere else.
    assert show(host, SERVICE, "User") == "holdfast"
    assert show(host, SERVICE, "ProtectSystem") == "strict"
    assert show(host, SERVICE, "ReadWritePaths") == f"-{LOCAL}"
    assert LOCAL in show(host, SERVICE, "RequiresMountsFor").split()
    assert host.service("holdfast-system--local.timer").is_running
    assert host.service("holdfast-system--local.timer").is_enabled


def test_backup_and_restore(fleet: Fleet) -> None:
    host = fleet.on("web1")
    done = fleet.good("backup")
    assert "a start, not a backup" in done.text
    assert outcome(host, "system--local")["outcome"] == "ok"
    (status,) = json.loads(host.check_output("holdfast status --json"))["units"]
    assert status["outcome"] == "ok"
    # Neither the repository nor restic's cache is in it; what lies beside them is.
    names = set(restic(host, "local", "ls latest").splitlines())
    assert {"/home/alice/diary", "/var/backups/mine", "/var/cache/mine/file", "/etc/passwd"} <= names
    assert not [name for name in names if name.startswith((f"{LOCAL}/", "/var/cache/holdfast/"))]
    restore = ("restore", "--limit", "web1", "-e", "job=system", "-e")
    assert "would be restored" in fleet.good(*restore, "target=/root/restored", "--check").text
    assert not host.file("/root/restored").exists
    cut = fleet.run(*restore, "target=/root/restored dir")
    assert "A value with a space needs quotes" in "".join(cut.failed.values())
    assert not host.file("/root/restored").exists
    fleet.good(*restore, "target=/root/restored")
    refused = fleet.run(*restore, "target=/root/restored", "--check")
    assert refused.failed
    assert "is not empty" in refused.text
    for path in ("/home", "/etc"):
        assert tree(host, f"/root/restored{path}") == tree(host, path)
    host.check_output("rm -rf /root/restored")
    assert not host.file("/usr/local/bin/holdfast").exists


def usb(fleet: Fleet, **repositories: Any) -> None:
    """Declare more repositories than the default one."""
    fleet.variables["backup_repositories"] = {"local": {}, **repositories}


def test_an_unmounted_disk_is_unreachable_and_never_initialised(fleet: Fleet) -> None:
    host = fleet.on("web1")
    host.check_output(UNPLUG)
    usb(fleet, usb={"mount": MOUNT})
    failed = fleet.run("site")
    assert failed.code != 0
    assert f"unreachable: nothing is mounted on {MOUNT}" in failed.text
    assert host.check_output(f"ls -A {MOUNT}") == ""
    assert not host.file("/var/lib/holdfast/repositories/usb.env").exists
    # The other repository's timer goes on.
    assert host.service("holdfast-system--local.timer").is_running


def test_mounted_it_works(fleet: Fleet) -> None:
    """So do the parameters of another repository, and the old format."""
    host = fleet.on("web1")
    host.check_output(PLUG)
    usb(fleet, usb={"mount": MOUNT}, second={"from_repo": "local"}, old={"repository_version": 1})
    fleet.variables["backup_jobs"]["system"]["paths"] = ["/etc", "/home", "/mnt"]
    fleet.converge()
    assert host.check_output(f"stat -c '%U:%G %a' {MOUNT}/holdfast {USB}").split("\n") == [
        "root:root 755",
        "holdfast:holdfast 700",
    ]
    assert show(host, "holdfast-system--usb.service", "ReadWritePaths") == f"-{USB}"
    assert MOUNT in show(host, "holdfast-system--usb.service", "RequiresMountsFor").split()
    host.check_output("holdfast run system --wait")
    configs = {}
    for name in ("local", "usb", "second", "old"):
        assert outcome(host, f"system--{name}")["outcome"] == "ok"
        names = set(restic(host, name, "ls latest").splitlines())
        assert "/home/alice/diary" in names
        assert MOUNT in names
        assert not [each for each in names if each.startswith(f"{USB}/")]
        configs[name] = json.loads(restic(host, name, "cat config"))
    polynomial = {name: config["chunker_polynomial"] for name, config in configs.items()}
    assert polynomial["second"] == polynomial["local"]
    assert len(set(polynomial.values())) == 3, "each other repository has parameters of its own"
    assert {name: config["version"] for name, config in configs.items()} == {
        "local": 2,
        "usb": 2,
        "second": 2,
        "old": 1,
    }
    assert len({config["id"] for config in configs.values()}) == 4


def test_unmounted_later_its_runs_fail_with_the_reason(fleet: Fleet) -> None:
    host = fleet.on("web1")
    before = tree(host, USB)
    host.check_output(UNPLUG)
    assert host.run("holdfast run system--usb --wait").rc != 0
    found = outcome(host, "system--usb")
    assert (found["outcome"], found["reason"]) == ("failed", "unreachable"), found
    assert f"{MOUNT} is not mounted" in found["message"], found
    asked = fleet.run("site", "-e", "backup_verify_repositories=true")
    assert asked.code != 0
    assert f"nothing is mounted on {MOUNT}" in asked.text
    assert host.check_output(f"ls -A {MOUNT}") == ""
    assert host.run("holdfast run system--local --wait").rc == 0
    host.check_output(PLUG)
    assert tree(host, USB) == before
    assert host.run("holdfast run system--usb --wait").rc == 0
    assert outcome(host, "system--usb")["outcome"] == "ok"
    assert len(json.loads(restic(host, "usb", "snapshots --json"))) == 2


def test_a_repository_that_is_no_longer_declared_stays(fleet: Fleet) -> None:
    host = fleet.on("web1")
    before = tree(host, USB)
    usb(fleet)
    fleet.converge()
    for kind in ("service", "timer"):
        assert show(host, f"holdfast-system--usb.{kind}", "LoadState") == "not-found"
    assert tree(host, USB) == before
    assert host.file(f"{ROOT_OF_REPOSITORIES}/second/config").exists
    assert host.run("holdfast run system --wait").rc == 0


def test_another_privilege_and_back(fleet: Fleet) -> None:
    """The repository's files belong to whom the units run as."""
    host = fleet.on("web1")
    for privilege, owner in (("root", "root"), ("systemd", "holdfast")):
        fleet.variables["restic_privilege"] = privilege
        fleet.converge()
        assert host.check_output(f"find {LOCAL} -printf '%u\\n' | sort -u") == owner
        assert host.run("holdfast run system --wait").rc == 0
        assert outcome(host, "system--local")["outcome"] == "ok"
        assert host.check_output(f"find {LOCAL} -printf '%u\\n' | sort -u") == owner
