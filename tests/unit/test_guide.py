# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/operating.md says to type when the client and the controller are gone, and when a server is full."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests import guide

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwQ1vO8nJ9d6yqQpuyXkFBr1dVXtn9Pfx9YlyoHRTOY"
TOOLS = ("jq", "ssh", "ssh-keygen", "bash")
needs_tools = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}")


def typed(folder: Path) -> list[str]:
    """The blocks of commands of the section, for the state directory and the programs of this test."""
    blocks = guide.blocks("Restore without the client, the controller and this collection")
    return [block.replace("/path/to", str(folder)).replace("backup_id=web1", "backup_id=web-1") for block in blocks]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state directory, whose bundles a program called age prints; restic and borg print what they are given."""
    (tmp_path / "bin").mkdir()
    said = 'echo "${0##*/} $BORG_RSH $*"; exit 0'
    for name, text in (("age", 'for last; do :; done; cat "$last"'), ("restic", said), ("borg", said)):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "made")], check=True, timeout=30
    )
    (tmp_path / "holdfast-state/hosts/web1/escrow/vault").mkdir(parents=True)
    kept: list[dict[str, Any]] = [
        {"password": "wanted"},
        {"password": "before", "made": 4},
        {"password": "before init", "made": 9, "repository_id": None},
        # The client had another backup_id later, and somebody forged a bundle whose time has not come.
        {"password": "of another identity", "made": 8, "host": "web-2"},
        {"password": "forged", "made": time.time() + 10 * 86400},
    ]
    for number, more in enumerate(kept):
        keep(tmp_path, number, more)
    (tmp_path / "holdfast-state/hosts/vault1").mkdir()
    (tmp_path / "holdfast-state/hosts/vault1/ssh_host_keys").write_text(f"{HOST_KEY}\n")
    return tmp_path


def keep(folder: Path, number: int, more: dict[str, Any]) -> None:
    """Put a bundle into the state directory; the files' times say the contrary of what is true."""
    bundle = {"host": "web-1", "rest_user": "web-1--vault", "rest_password": "rest-_9", "made": 5, "repository_id": "1"}
    bundle |= {"location": "rest:https://vault1:8000/web-1--vault/", "ssh_key": (folder / "made").read_text(), **more}
    path = folder / f"holdfast-state/hosts/web1/escrow/vault/{number}.age"
    path.write_text(json.dumps(bundle))
    os.utime(path, (1e9 + number, 1e9 + number))


def run(folder: Path, *blocks: str) -> str:
    done = subprocess.run(
        ["bash", "-euc", "\n".join(blocks)],
        cwd=folder,
        env={"PATH": f"{folder}/bin:/usr/bin:/bin", "BORG_RSH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@needs_tools
def test_the_newest_bundle_and_the_location_over_rest(folder: Path) -> None:
    newest, _server, _restore, rest, _ssh = typed(folder)
    said = run(folder, newest, rest)
    assert (folder / "restore/password").read_text() == "wanted"
    assert (folder / "restore/password").stat().st_mode & 0o77 == 0
    assert (folder / "restore/location").read_text() == "rest:https://web-1--vault:rest-_9@vault1:8000/web-1--vault/\n"
    assert f"--cacert {folder}/holdfast-state/hosts/vault1/ca.pem" in said


@needs_tools
def test_the_way_over_ssh(folder: Path) -> None:
    newest, _server, _restore, _rest, ssh = typed(folder)
    said = run(folder, newest, ssh).splitlines()
    place = folder / "restore"
    dial = f"ssh -F {place}/ssh.conf"
    assert f"-o sftp.command={dial} holdfast-vault sftp snapshots" in said[0]
    assert f"-o rclone.program={dial} holdfast-vault snapshots" in said[1]
    assert said[2].startswith(f"borg {dial} list ")
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(place / "ssh_key")], capture_output=True, text=True, check=True, timeout=30
    )
    assert derived.stdout.split()[:2] == (folder / "made.pub").read_text().split()[:2]
    asked = subprocess.run(
        [*dial.split(), "-G", "holdfast-vault"], capture_output=True, text=True, check=True, timeout=30
    )
    for line in ("hostname vault1.example.net", "user bk-web-1", "port 22", f"userknownhostsfile {place}/known_hosts"):
        assert f"{line}\n" in asked.stdout
    assert (place / "known_hosts").read_text() == f"holdfast-vault {HOST_KEY}\n"


def bundles(folder: Path) -> Path:
    return folder / "holdfast-state/hosts/web1/escrow/vault"


@needs_tools
def test_a_bundle_from_the_future_is_taken_where_there_is_no_other(folder: Path) -> None:
    for name in ("0", "1", "2"):
        (bundles(folder) / f"{name}.age").unlink()
    run(folder, typed(folder)[0])
    assert (folder / "restore/password").read_text() == "forged"


@needs_tools
def test_what_is_no_bundle_keeps_nobody_from_the_others(folder: Path) -> None:
    """Whoever had the client may have brought anything to the escrow."""
    for name, text in (("00", "{"), ("3a", "[1]"), ("9", '"x"')):
        (bundles(folder) / f"{name}.age").write_text(text)
    script = f"set +e\n{typed(folder)[0]}"
    run(folder, script)
    assert (folder / "restore/password").read_text() == "wanted"


@needs_tools
def test_no_bundle_of_this_backup_id_is_no_password(folder: Path) -> None:
    newest = typed(folder)[0].replace("backup_id=web-1", "backup_id=web-3")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(folder, newest)
    assert f"no bundle in {bundles(folder)} has this backup_id and opens with this key" in failed.value.stderr
    assert not (folder / "restore/password").exists()


@needs_tools
def test_the_state_directory_is_lost_too(folder: Path) -> None:
    """The bundles, CA and host keys of the server, in the words of the guide, open the same."""
    newest, _server, _restore, rest, ssh = typed(folder)
    escrow, ca = "/var/lib/holdfast/escrow/$backup_id--$repository", "/etc/holdfast/tls/ca.pem"
    for text, block in (f"# or {escrow}", newest), (ca, rest), ("cat /etc/ssh/ssh_host_*.pub", ssh):
        assert block.count(text) == 1
    bundles(folder).rename(folder / "web-1--vault")
    (folder / "ssh_host_ed25519_key.pub").write_text(f"{HOST_KEY} root@vault1\n")
    shutil.rmtree(folder / "holdfast-state")
    # Without it, what is wrong is said, and no wrong password is found.
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(folder, newest)
    assert f"no bundle in {bundles(folder)} has" in failed.value.stderr
    place = escrow.replace("/var/lib/holdfast/escrow", str(folder))
    newest = newest.replace("bundles=$state/hosts/$client/escrow/$repository", f"bundles={place}")
    rest = rest.replace("ca=$state/hosts/$server/ca.pem", f"ca={ca}")
    ssh = ssh.replace("host_keys=$state/hosts/$server/ssh_host_keys", f"host_keys={folder}/ssh_host_ed25519_key.pub")
    said = run(folder, newest, rest, ssh)
    assert (folder / "restore/password").read_text() == "wanted"
    assert f"--cacert {ca}" in said
    known = ["ssh-keygen", "-l", "-F", "holdfast-vault", "-f", str(folder / "restore/known_hosts")]
    assert "ED25519" in subprocess.run(known, capture_output=True, text=True, check=True, timeout=30).stdout


@needs_tools
def test_what_restores(folder: Path) -> None:
    newest, server, restore, _rest, _ssh = typed(folder)
    (folder / "bin/borg").write_text('#!/bin/sh\necho "$0 $PWD $BORG_RSH $BORG_PASSCOMMAND $*"\n')
    server = "\n".join(line for line in server.splitlines() if line.startswith("export BORG_RSH"))
    target = folder / "restored"
    said = run(folder, newest, server, restore.replace("/root/restored", str(target))).splitlines()
    repository = "--password-file password --no-lock --no-cache restore latest --tag job:system"
    assert said[0].startswith("restic ")
    assert said[0].endswith(f" -r /srv/holdfast/web1--vault {repository} --target {target}")
    assert said[1].startswith(f"{folder}/bin/borg {target} setsid")
    assert f"cat {folder}/restore/password --bypass-lock extract" in said[1]


@needs_tools
def test_bundles_in_plain_text(folder: Path) -> None:
    """As the guide says of backup_escrow.mode: controller."""
    for path in bundles(folder).iterdir():
        path.rename(path.with_suffix(".json"))
    asked = 'age --decrypt --identity "$key" "$bundle"'
    newest = typed(folder)[0]
    assert asked in newest
    run(folder, newest.replace(asked, 'cat "$bundle"').replace("*.age", "*.json"))
    assert (folder / "restore/password").read_text() == "wanted"


def test_a_full_server(folder: Path) -> None:
    """In the order of the guide: out, shut, look, forget, in. What is kept is a time and no number, and all is given back."""
    blocks = guide.blocks("The server is full")
    programs = ("systemctl", "touch", "pgrep", "stat", "chown", "find", "rm", "restic")
    for name in programs:
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >>{folder}/said\n')
        if name == "stat":
            path.write_text("#!/bin/sh\necho holdfast-rest:\n")
        path.chmod(0o755)
    (folder / "restore").mkdir()
    run(folder, *blocks)
    place, flag = "/srv/holdfast/web1--vault", "/etc/holdfast/serve/maintenance/web1--offsite"
    policy = "forget --group-by host,tags --keep-within 1y"
    service = "holdfast-rest-server"
    assert (folder / "said").read_text().splitlines() == [
        f"systemctl stop {service}.socket {service}.service", f"touch {flag}", "pgrep -a -u bk-web1",
        f"chown root: {place}", f"find {place} ! -type d ( ! -type f -o -links +1 )",
        "restic snapshots --no-lock", "restic unlock --remove-all", f"restic {policy} --dry-run",
        f"restic {policy} --prune", "restic check", f"chown -R holdfast-rest: {place}",
        f"systemctl start {service}.socket", f"rm {flag}",
    ]  # fmt: skip


def test_a_server_that_was_lost(folder: Path) -> None:
    """Each repository to its account, whatever its name; what is removed of a client is the record, and of borg the key."""
    blocks = guide.blocks("A server was lost or moved")
    for name in ("find", "chown", "ansible", "ansible-playbook"):
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >>{folder}/said\n')
        path.chmod(0o755)
    for place in ("rest/web1--vault", "rest/web-2--vault", "ssh/web1--offsite", "ssh/web-2--my-archive"):
        (folder / place).mkdir(parents=True)
    run(folder, *(each.replace("/srv/holdfast-ssh", "ssh").replace("/srv/holdfast", "rest") for each in blocks))
    remove = "ansible backup_clients -b -m shell -a rm -f /var/lib/holdfast/repositories"
    assert (folder / "said").read_text().splitlines() == [
        "find rest ssh ! -type d ( ! -type f -o -links +1 )",
        "chown -R holdfast-rest: rest/web-2--vault rest/web1--vault",
        "chown -R bk-web-2: ssh/web-2--my-archive", "chown -R bk-web1: ssh/web1--offsite",
        "ansible-playbook holdfast.backup.site -e backup_verify_repositories=true",
        f"{remove}/vault.env", f"{remove}/archive.env /etc/holdfast/secrets/archive.borg_key",
        "ansible-playbook holdfast.backup.site",
    ]  # fmt: skip
