# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/operating.md says to type when the client and the controller are gone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs/operating.md"
HEADING = "## Restore without the client, the controller and this collection\n"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwQ1vO8nJ9d6yqQpuyXkFBr1dVXtn9Pfx9YlyoHRTOY"
TOOLS = ("jq", "ssh", "ssh-keygen", "bash")
needs_tools = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}")


def typed(folder: Path) -> list[str]:
    """The blocks of commands of the section, for the state directory and the programs of this test."""
    section = GUIDE.read_text().partition(HEADING)[2].partition("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return [block.replace("/path/to", str(folder)) for block in blocks]


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
    bundle = {"host": "web-1", "rest_user": "web-1--vault", "rest_password": "rest-_9", "made": 5, "repository_id": "1"}
    bundle |= {"location": "rest:https://vault1:8000/web-1--vault/", "ssh_key": (tmp_path / "made").read_text()}
    place = tmp_path / "holdfast-state/hosts/web1/escrow/vault"
    place.mkdir(parents=True)
    for name, more in (
        ("0", {"password": "wanted"}),
        ("1", {"password": "before", "made": 4}),
        ("2", {"password": "before init", "made": 9, "repository_id": None}),
    ):
        (place / f"{name}.age").write_text(json.dumps({**bundle, **more}))
        os.utime(place / f"{name}.age", (1e9 + int(name), 1e9 + int(name)))
    (tmp_path / "holdfast-state/hosts/vault1").mkdir()
    (tmp_path / "holdfast-state/hosts/vault1/ssh_host_keys").write_text(f"{HOST_KEY}\n")
    return tmp_path


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
    newest, _server, rest, _ssh = typed(folder)
    said = run(folder, newest, rest)
    assert (folder / "restore/password").read_text() == "wanted"
    assert (folder / "restore/password").stat().st_mode & 0o77 == 0
    assert (folder / "restore/location").read_text() == "rest:https://web-1--vault:rest-_9@vault1:8000/web-1--vault/\n"
    assert f"--cacert {folder}/holdfast-state/hosts/vault1/ca.pem" in said


@needs_tools
def test_the_way_over_ssh(folder: Path) -> None:
    newest, _server, _rest, ssh = typed(folder)
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
