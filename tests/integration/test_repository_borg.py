# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`repository` and `repository_info` with the real borg of trixie: what is there is the proof."""

from __future__ import annotations

import base64
import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import ROOT
from tests.lab.api import Lab

HOST = "bt"
# Its borg, 1.2.4, does not authenticate archives yet.
OLDER = "bo"
SECRETS = "/etc/holdfast/secrets"
Do = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Hosts with borg; the first has the account that local repositories belong to."""
    made = Lab(f"pytest-borg-{os.getpid()}")
    try:
        made.up([f"{HOST}=trixie:layer=borg", f"{OLDER}=bookworm:layer=borg"], owner=os.getpid())
        script = f"""
        useradd --system --home-dir /var/lib/holdfast holdfast
        install -d -m 700 {SECRETS}; echo 'correct horse battery' >{SECRETS}/a.password
        install -d -o holdfast -m 700 /var/lib/holdfast/borg
        """
        shell(made, script)
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def inventory(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's Ansible inventory."""
    path = tmp_path_factory.mktemp("inventory") / "hosts.json"
    path.write_text(json.dumps(lab.inventory()))
    return path


def shell(lab: Lab, script: str, host: str = HOST) -> str:
    done = lab.exec(host, ["sh", "-ec", script], timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def borg(lab: Lab, script: str) -> str:
    """Run borg as the account that the repository belongs to."""
    shell(lab, f"install -o holdfast -m 400 {SECRETS}/a.password /run/a.password")
    environment = "BORG_BASE_DIR=/var/lib/holdfast/borg BORG_PASSCOMMAND='cat /run/a.password'"
    return shell(lab, f"cd /; export {environment}; runuser -u holdfast -- {script}")


@pytest.fixture
def bring(run_module: Do, lab: Lab) -> Do:
    """The module `repository` on one repository; what is asked of it in check mode is what it does."""

    def run(name: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        shell(lab, f"install -d -o holdfast -m 700 /srv/{name}")
        entry = {
            "name": name,
            "engine": "borg",
            "repository": f"/srv/{name}",
            "password_file": f"{SECRETS}/a.password",
            "key_file": f"{SECRETS}/{name}.borg_key",
            "user": "holdfast",
            **options,
        }
        return run_module(HOST, "repository", {"repositories": [entry], "verify": True}, check=check)

    return run


@pytest.fixture
def look(run_module: Do) -> Callable[..., dict[str, Any]]:
    def run(name: str, **options: Any) -> dict[str, Any]:
        asked = {
            "engine": "borg",
            "repository": f"/srv/{name}",
            "password_file": f"{SECRETS}/a.password",
            "user": "holdfast",
        }
        result = run_module(HOST, "repository_info", {**asked, **options})
        assert not result["failed"], result
        return dict(result["repository"])

    return run


@pytest.mark.parametrize("encryption", ["repokey-blake2", "keyfile-blake2"])
def test_init_adopt_and_a_key_for_the_escrow(bring: Do, look: Do, lab: Lab, encryption: str) -> None:
    name = encryption.partition("-")[0]
    announced = bring(name, encryption=encryption, check=True)
    assert announced["changed"]
    assert shell(lab, f"ls -A /srv/{name}") == ""
    made = bring(name, encryption=encryption)
    (found,) = made["repositories"]
    assert (found["action"], found["state"]) == ("init", "present")
    assert shell(lab, f"find /srv/{name} /var/lib/holdfast/borg -not -user holdfast") == ""
    exported = borg(lab, f"borg key export /srv/{name} -")
    assert shell(lab, f"cat {SECRETS}/{name}.borg_key") == exported
    assert exported.splitlines()[1] not in json.dumps(made)
    assert not bring(name, encryption=encryption)["changed"]
    shell(lab, f"rm {SECRETS}/{name}.borg_key /var/lib/holdfast/repositories/{name}.env")
    adopted = bring(name, encryption=encryption)
    assert (adopted["changed"], adopted["repositories"][0]["action"]) == (True, "adopt")
    assert shell(lab, f"cat {SECRETS}/{name}.borg_key") == exported
    borg(lab, f"borg create --comment holdfast,job:system,red /srv/{name}::one /etc/hostname")
    seen = look(name, size=True)
    assert (seen["state"], seen["id"], seen["snapshots"]["count"]) == ("present", found["id"], 1)
    assert seen["snapshots"]["last"]["tags"] == ["job:system", "red"]
    assert 0 <= seen["age_seconds"] < 300
    assert (seen["keys"], seen["locks"]) == (1 if name == "repokey" else 0, [])
    keyless = look(name, keyless=True)
    assert (keyless["id"], keyless["modified"]) == (found["id"], seen["modified"])
    assert keyless["snapshots"] == {"count": None, "last": None}


def test_a_keyfile_repository_opens_with_the_key_of_the_escrow_alone(bring: Do, look: Do, lab: Lab) -> None:
    bring("sealed", encryption="keyfile-blake2")
    shell(lab, "rm -r /var/lib/holdfast/borg/.config/borg/keys")
    assert look("sealed")["state"] == "wrong_key"
    assert look("sealed", key_file=f"{SECRETS}/sealed.borg_key")["state"] == "present"
    assert not bring("sealed", encryption="keyfile-blake2")["failed"]


@pytest.mark.parametrize(
    ("damage", "state", "words"),
    [
        ("rm /srv/d/config", "damaged", "has no config file"),
        (": >/srv/d/config", "damaged", "config file"),
        ("sed -i '/^key =/,$d' /srv/d/config", "damaged", "lost its key"),
        ("for i in /srv/d/index.*; do : >$i; done; rm -r /srv/d/data/0", "damaged", "run 'borg check'"),
        ("chmod 000 /srv/d/config", "unreachable", "permission denied"),
        ("rm -r /srv/d; install -d -o holdfast /srv/d", "absent", "no repository in this directory"),
    ],
)
def test_damage_is_told_and_never_initialised_over(
    bring: Do, look: Do, lab: Lab, damage: str, state: str, words: str
) -> None:
    shell(lab, f"rm -rf /srv/d {SECRETS}/d.borg_key /var/lib/holdfast/repositories/d.env")
    assert bring("d")["changed"]
    shell(lab, damage)
    seen = look("d")
    assert (seen["state"], words in seen["reason"]) == (state, True), seen
    before = shell(lab, "find /srv/d -type f -exec sha256sum {} +")
    refused = bring("d")
    assert refused["failed"]
    assert refused["repositories"][0]["action"] == "none"
    assert shell(lab, "find /srv/d -type f -exec sha256sum {} +") == before


def test_locks_and_a_wrong_passphrase(bring: Do, look: Do, lab: Lab) -> None:
    bring("l")
    shell(lab, "mkdir /srv/l/lock.exclusive; touch /srv/l/lock.exclusive/web9@1.99-0; chown -R holdfast: /srv/l")
    seen = look("l")
    assert seen["locks"], seen
    assert (seen["state"], seen["locks"][0]["hostname"], seen["locks"][0]["exclusive"]) == ("present", "web9", True)
    shell(lab, f"echo other >{SECRETS}/other.password")
    assert look("l", password_file=f"{SECRETS}/other.password")["state"] == "wrong_key"


def test_archives_from_before_1_2_5(bring: Do, look: Do, lab: Lab) -> None:
    """borg 1.2.4 renames without authentication: damaged until its owner looked and upgraded, as docs/borg.md says, and nothing is lost."""
    made = """
    export BORG_PASSPHRASE='correct horse battery'
    borg init -e repokey-blake2 /srv/old
    borg create /srv/old::first /etc/hostname
    borg rename /srv/old::first renamed
    tar -C /srv -c old | base64
    """
    assert "borg 1.2.4" in shell(lab, "borg --version", OLDER)
    lab.put(HOST, "/srv/old.tar", base64.b64decode(shell(lab, made, OLDER)))
    shell(lab, "tar -C /srv -xf /srv/old.tar; chown -R holdfast: /srv/old")

    seen = look("old")
    assert seen["state"] == "damaged"
    assert "borg upgrade --archives-tam" in seen["reason"]
    # It opens, so new archives may go there; nothing is initialised over it.
    assert bring("old")["repositories"][0]["action"] == "adopt"
    assert borg(lab, "borg list --format '{name}{NL}' /srv/old") == "renamed\n"

    borg(lab, "borg upgrade --archives-tam /srv/old")
    assert borg(lab, "borg list --format '{name} {tam}{NL}' /srv/old") == "renamed verified\n"
    seen = look("old")
    assert (seen["state"], seen["snapshots"]["count"]) == ("present", 1)


# What a client's key runs, for one directory; as there, what the client asks for is not looked at.
SERVED = """#!/usr/bin/python3 -I
import os, sys
sys.path.insert(0, "/root")
import _serve
made = _serve.command({"name": "web1--served", "kind": "borg", "program": None, "path": "/srv/served", "quota": "20M",
                       "append_only": True, "borg_major": 1, "arguments": []})
os.chdir(made.directory)
os.execv(made.argv[0], made.argv)
"""


@pytest.mark.parametrize("host", [HOST, OLDER])
def test_the_borg_of_each_release_is_served_append_only_and_with_its_quota(lab: Lab, host: str) -> None:
    """What is run before it reaches into borg: also 1.2.4, below the floor of jobs, on a server of Debian 12."""
    lab.put(host, "/root/_serve.py", (ROOT / "plugins/module_utils/_serve.py").read_bytes())
    lab.put(host, "/root/borg_calls.py", (ROOT / "tests/attack/borg_calls.py").read_bytes())
    lab.put(host, "/root/served", SERVED.encode(), mode=0o755)

    def call(attack: str, path: str, *command: str) -> list[list[str]]:
        words = shlex.join([attack, path, *command])
        return list(json.loads(shell(lab, f"python3 /root/borg_calls.py {words}", host)))

    data = "find {}/data -type f -size +4k"
    plain = ["borg", "serve", "--append-only", "--restrict-to-repository", "/srv/plain"]
    shell(lab, "rm -rf /srv/plain /srv/served; mkdir /srv/plain /srv/served", host)
    call("delete what it made", "/srv/plain", *plain)
    assert shell(lab, data.format("/srv/plain"), host) == "", "not delivered"
    assert {error for _method, error in call("delete what it made", "/./served", "/root/served")} == {""}
    assert shell(lab, data.format("/srv/served"), host)

    # Sessions beside each other, with a quota and without. borg 1.2.4 refuses to wait for a lock that was broken.
    lab.put(host, "/root/free", SERVED.replace('"20M"', "None").encode(), mode=0o755)
    for attack in ("before others saved", "while others save", "with files of before"):
        shell(lab, "rm -rf /srv/plain; mkdir /srv/plain", host)
        call("make", "/srv/plain", *plain)
        broken = attack == "before others saved" and host == OLDER
        assert (["get", ""] in call(attack, "/srv/plain", *plain)) is broken, "not delivered"
        for served in ("/root/served", "/root/free"):
            shell(lab, "rm -rf /srv/served; mkdir /srv/served", host)
            call("make", "/./served", served)
            refused = ["put", "KeyError" if broken else "LockTimeout"]
            assert call(attack, "/./served", served)[-4:] == [refused, *[["get", ""]] * 3]

    shell(lab, "rm -rf /srv/served; mkdir /srv/served", host)
    call("make", "/./served", "/root/served")
    shell(lab, f"{data.format('/srv/served')} -exec sha256sum {{}} + >/root/sums; test -s /root/sums", host)
    for attack in ("destroy", "destroy after create", "overwrite", "delete"):
        assert ["open", "closed"] not in call(attack, "/./served", "/root/served")
        shell(lab, "sha256sum -c --quiet /root/sums", host)

    shell(
        lab,
        f"""
        export BORG_RSH=/root/served BORG_BASE_DIR=/root/base BORG_PASSPHRASE=x
        vault=ssh://any/./served
        rm -rf /srv/served /root/base; mkdir /srv/served
        head -c 30000000 /dev/urandom >/root/big
        borg init -e repokey-blake2 $vault
        head -c 1000000 /root/big >/root/small
        borg create $vault::one /root/small
        {data.format("/srv/served")} -exec sha256sum {{}} + >/root/sums
        test -s /root/sums
        ! borg create $vault::two /root/big 2>/root/said || exit 1
        grep -qi 'quota.*exceeded' /root/said
        borg delete $vault::one
        borg compact $vault
        sha256sum -c --quiet /root/sums
        """,
        host,
    )
    # Whoever goes on after that. What was not committed is the next session's to delete.
    taken = "find /srv/served -printf '%s\\n' | awk '{ sum += $1 > 16384 ? $1 : 16384 } END { print sum }'"
    for attack in ("fill", "fill with files") * 2:
        answers = call(attack, "/./served", "/root/served")
        assert ["put", ""] in answers
        assert answers[-1] == ["put", "StorageQuotaExceeded"]
        assert int(shell(lab, taken, host)) < 21_000_000
    assert call("key", "/./served", "/root/served")[-1] == ["save_key", "ValueError"]
    assert call("open", "/./served", "/root/served")[-1] == ["open", ""]
