"""The playbook rotate, in order: a change that is cut off and gone on with, one client of two, and everything at once."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import ROOT, Fleet, Run
from tests.lab import mirror

SECRETS = "/etc/holdfast/secrets"
RECORDS = "/var/lib/holdfast/repositories"
RESTIC = ("vault", "disk")
BORG = ("archive", "sealed")
REPOSITORIES: dict[str, dict[str, Any]] = {
    "vault": {"server": "vault1"},
    "disk": {},
    "archive": {"engine": "borg", "access": "ssh", "server": "vault1"},
    "sealed": {"engine": "borg", "encryption": "keyfile-blake2"},
}
# Of the second client, which comes later: every other way to a server.
SECOND: dict[str, dict[str, Any]] = {
    "vault": {"server": "vault1"},
    "proxied": {"access": "rclone", "server": "vault1"},
    "store": {"access": "rclone", "server": "vault1", "remote": "s3:bucket/fleet"},
    "plain": {"access": "sftp", "server": "vault1"},
}
SECOND_KEYS = {
    "vault": "/srv/holdfast/web2--vault/keys",
    "proxied": "/srv/holdfast-ssh/web2--proxied/keys",
    "store": "/srv/store/bucket/fleet/web2--store/keys",
    "plain": "/srv/holdfast-ssh/web2--plain/keys",
}
STORE_SECRET = "canary-7a1e90-store-secret"
VAULT_KEYS = "/srv/holdfast/web1--vault/keys"
DISK_KEYS = "/var/backups/holdfast/disk/keys"
RETIRED = "/var/lib/holdfast/retired_keys/web1--vault"
# A backup does not go on while this is there.
HELD = "/run/held"
HOOK = f"while test -e {HELD}; do sleep 0.2; done"
MAINTENANCE = "/etc/holdfast/serve/maintenance/web1--archive"


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    fleet = Fleet("rotate", folder, {"backup_servers": ["vault1"], "backup_clients": ["web1"]})
    fleet.variables = {
        "backup_escrow": {"recipients": [(folder / "escrow.pub").read_text().strip()]},
        "backup_repositories": REPOSITORIES,
        "backup_jobs": {
            "files": {"paths": ["/srv/data"], "schedule": {"calendar": "Mon *-*-1..7 04:00"}, "pre": [HOOK]}
        },
    }
    return fleet


@pytest.fixture(scope="session")
def web1(fleet: Fleet) -> Any:
    return fleet.on("web1")


@pytest.fixture(scope="session")
def web2(fleet: Fleet, first: dict[str, str]) -> Any:
    """A second client with a backup, and what a user has before: an S3 store with a bucket, beside the proxy here."""
    vault1, web2 = fleet.on("vault1"), fleet.on("web2")
    fleet.lab.put(
        "vault1", "/usr/local/bin/rclone-store", (Path(sys.executable).parent / "rclone").read_bytes(), mode=0o755
    )
    # An account that does not own the directory of the keys may be kept from deleting there.
    vault1.check_output(
        "install -d -o nobody /srv/store /srv/store/bucket && systemd-run --unit store -p User=nobody -E HOME=/nonexistent"
        " /usr/local/bin/rclone-store serve s3 --addr 127.0.0.1:9000 --config /dev/null --dir-cache-time 1s"
        f" --auth-key HOLDFASTLAB,{STORE_SECRET} /srv/store"
    )
    mirrored = mirror.describe()
    release = next(each for each in mirrored["releases"] if (each["tool"], each["suite"]) == ("rclone", "sid"))
    fleet.host_variables["vault1"] = {
        "rclone_proxy_install": "release",
        "rclone_proxy_release_version": release["version"],
        "rclone_proxy_release_mirror": f"{mirrored['url_by_name']}rclone",
        "rclone_proxy_release_sha256": {"x86_64": release["sha256"]},
        "rclone_proxy_remotes": {
            "s3": {
                "type": "s3", "provider": "Other", "endpoint": "http://127.0.0.1:9000", "region": "us-east-1",
                "force_path_style": True, "access_key_id": "HOLDFASTLAB", "secret_access_key": STORE_SECRET,
            }
        },
    }  # fmt: skip
    fleet.host_variables["web2"] = {"backup_repositories": SECOND}
    fleet.groups["backup_clients"].append("web2")
    web2.check_output("mkdir -p /srv/data && echo first >/srv/data/note")
    announced, real = fleet.good("site", "--check"), fleet.good("site")
    assert announced.changed == real.changed
    # A remote is listed by the account that will serve it.
    done = [event["task"] for event in real.events if event["host"] == "vault1" and event["changed"]]
    accounts, listed = (
        next(number for number, task in enumerate(done) if task.endswith(f" : {name}"))
        for name in ("Make the accounts", "Write the remotes that could be listed")
    )
    assert accounts < listed
    back_up(web2, SECOND)
    web2.check_output("echo second >/srv/data/note")
    return web2


def password(host: Any, name: str, which: str = "password") -> str | None:
    """A password file of a repository, None if there is none."""
    file = host.file(f"{SECRETS}/{name}.{which}")
    return str(file.content_string).strip() if file.exists else None


def restic(host: Any, definition: dict[str, Any], location: str) -> Any:
    """restic of a unit's repository as a person runs it, with the password in /run/tried."""
    environment = " ".join(f"{key}={value}" for key, value in definition["environment"].items() if "CACERT" in key)
    options = " ".join(f"-o '{key}={value}'" for key, value in (definition["options"] or {}).items())
    return host.run(
        f"env {environment} RESTIC_REPOSITORY_FILE={location} RESTIC_PASSWORD_FILE=/run/tried"
        f" timeout 60 restic {options} --no-cache --no-lock cat config"
    )


def opens(host: Any, name: str, secret: str) -> bool:
    """Whether this password opens the repository; that the other way round is no other error is seen, too."""
    definition = json.loads(host.file(f"/etc/holdfast/units/files--{name}.json").content_string)
    location = host.file(definition["repository_file"]).content_string.strip()
    if definition["engine"] == "restic":
        host.check_output("umask 077; printf %%s %s >/run/tried", secret)
        done = restic(host, definition, definition["repository_file"])
        assert done.rc in (0, 12), done
        return bool(done.rc == 0)
    borg = definition["borg"]
    environment = "BORG_BASE_DIR=/run/tried-borg BORG_EXIT_CODES=modern BORG_PASSPHRASE=" + secret
    environment += f" BORG_RSH='{borg['ssh_command']}'" if borg["ssh_command"] else ""
    environment += f" BORG_KEY_FILE={borg['key_file']}" if borg["encryption"] == "keyfile-blake2" else ""
    environment += " BORG_RELOCATED_REPO_ACCESS_IS_OK=yes"
    done = host.run(f"env {environment} borg list --bypass-lock {location}")
    assert done.rc in (0, 52), done
    return bool(done.rc == 0)


def escrow(fleet: Fleet, name: str, client: str = "web1") -> list[dict[str, Any]]:
    """All bundles of a repository, the newest last."""
    bundles = []
    for path in (fleet.state / "hosts" / client / "escrow" / name).iterdir():
        argv = ["age", "--decrypt", "--identity", str(fleet.folder / "escrow.key"), str(path)]
        bundles.append(json.loads(subprocess.run(argv, check=True, capture_output=True).stdout))
    return sorted(bundles, key=lambda bundle: bundle["made"])


def back_up(host: Any, names: Iterable[str] = tuple(REPOSITORIES)) -> None:
    """All repositories take a backup."""
    host.check_output("holdfast run --wait files")
    status = json.loads(host.check_output("holdfast status --json"))["units"]
    assert {unit["unit"]: unit["outcome"] for unit in status} == {f"files--{name}": "ok" for name in names}


def first_restored(host: Any, names: Iterable[str] = tuple(REPOSITORIES)) -> None:
    """The first snapshot of each repository, made with the first passwords, restores."""
    host.check_output("rm -rf /root/first")
    for name in names:
        found = json.loads(host.check_output(f"holdfast snapshots files--{name} --json"))["snapshots"]
        first = min(found, key=lambda snapshot: snapshot["time"])["id"]
        host.check_output(f"holdfast restore files--{name} --snapshot {first} --target /root/first/{name}")
        host.check_output(f"echo first | cmp - /root/first/{name}/srv/data/note")


def keys(host: Any, directory: str) -> set[str]:
    return set(host.check_output(f"ls {directory}").split())


def kept(fleet: Fleet) -> set[str]:
    """All that check mode must not touch, hashed. Not what runs write meanwhile, nor borg's own state: it writes there when it looks."""
    look = (
        "find $(ls -d /etc/holdfast /var/lib/holdfast /run/holdfast/held /etc/ssh/authorized_keys.d 2>/dev/null)"
        " -regex '/var/lib/holdfast/\\(outcomes\\|running\\|borg.*\\)' -prune"
        " -o -type f -printf '%T@ %m %u:%g %p\\n' -exec sha256sum {} +"
    )
    hosts = [*fleet.groups["backup_servers"], *fleet.groups["backup_clients"]]
    found = {name: fleet.on(name).check_output(look).splitlines() for name in hosts}
    for name, path in (
        ("web1", f"{SECRETS}/vault.identity"),
        ("web1", f"{RECORDS}/vault.env"),
        ("web1", "/var/lib/holdfast/file_tree/jobs.json"),
        ("vault1", "/var/lib/holdfast/htpasswd.json"),
        ("vault1", "/etc/ssh/authorized_keys.d/bk-web1"),
    ):
        assert len([line for line in found[name] if line.endswith(path)]) == 2, (path, found[name])
    return {f"{name} {line}" for name, lines in found.items() for line in lines}


def as_announced(fleet: Fleet, playbook: str, *arguments: str) -> Run:
    """Run a playbook in check mode, and then for real: it changes nothing, and announces what the other does."""
    before = kept(fleet)
    announced = fleet.run(playbook, "--check", *arguments)
    assert not kept(fleet) ^ before
    real = fleet.run(playbook, *arguments)
    assert (announced.code, announced.changed) == (real.code, real.changed), (
        f"only announced: {sorted(announced.changed - real.changed)}\nonly done: {sorted(real.changed - announced.changed)}\n"
        f"{announced.output}\n{real.output}"
    )
    return real


@pytest.fixture(scope="session")
def first(fleet: Fleet, web1: Any) -> dict[str, str]:
    """A fleet with a backup; its passwords."""
    web1.check_output("mkdir -p /srv/data && echo first >/srv/data/note")
    fleet.good("site")
    back_up(web1)
    web1.check_output("echo second >/srv/data/note")
    return {name: password(web1, name) or "" for name in REPOSITORIES}


def test_a_backup_that_starts_while_a_passphrase_of_borg_changes_waits(
    fleet: Fleet, web1: Any, first: dict[str, str]
) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("holdfast/__init__.py", "")
        for path in (ROOT / "plugins/module_utils").glob("_*.py"):
            archive.write(path, f"holdfast/{path.name}")
    fleet.lab.put("web1", "/root/holdfast.zip", stream.getvalue())
    script = (
        "import subprocess, time\n"
        "from holdfast._hold import held_off, running\n"
        "start = ['systemctl', 'start', 'holdfast-files--sealed.service']\n"
        "with held_off('sealed'):\n"
        "    first = subprocess.Popen(start)\n"
        "    time.sleep(3)\n"
        "    assert first.poll() is None\n"
        "    assert running('sealed') == []\n"
        "assert first.wait() == 0\n"
    )
    web1.check_output("PYTHONPATH=/root/holdfast.zip timeout 300 python3 -c %s", script)


# Backups as unlucky as can be, until the playbook is over: one opens its repository when the password has just become invalid,
# one has a connection open when the server takes the key away.
UNLUCKY = {
    "vault": f"""
import os, ssl, time, urllib.error, urllib.parse, urllib.request
place = urllib.parse.urlsplit(open("{SECRETS}/vault.repository").read().strip().removeprefix("rest:"))
url = f"https://{{place.hostname}}:{{place.port}}{{place.path}}config"
logins = urllib.request.HTTPPasswordMgrWithPriorAuth()
logins.add_password(None, url, place.username, urllib.parse.unquote(place.password), is_authenticated=True)
trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile="/etc/holdfast/repositories/vault.pem"))
opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(logins), trust)
while not os.path.exists("/root/over"):
    try:
        opener.open(url).close()
    except urllib.error.HTTPError as error:
        print("unlucky: the server answers", error.code)
        break
    time.sleep(0.1)
""",
    "archive": f"""
import os, subprocess, time
dial = ["ssh", "-F", "/etc/holdfast/ssh/archive.conf", "-i", "{SECRETS}/archive.ssh_key", "holdfast-archive"]
with subprocess.Popen(dial, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as session:
    while not os.path.exists("/root/over"):
        if session.poll() is not None:
            print("unlucky: the connection is cut, with status", session.returncode)
            break
        time.sleep(0.1)
""",
}


def test_backups_that_begin_while_servers_are_told_are_neither_refused_nor_cut_off(
    fleet: Fleet, web1: Any, first: dict[str, str]
) -> None:
    used = (f"{SECRETS}/vault.repository", f"{SECRETS}/archive.ssh_key")
    before = [web1.file(path).content_string for path in used]
    units = "/run/systemd/system"
    for name, script in UNLUCKY.items():
        unit = f"holdfast-files--{name}.service"
        fleet.lab.put("web1", f"/root/{name}.py", script.encode())
        late = f"[Service]\nExecStartPre=+/usr/bin/python3 /root/{name}.py\n"
        # It begins as soon as the client has a next secret.
        start = f"[Path]\nPathChanged={SECRETS}/{name}.identity\nUnit={unit}\n"
        web1.check_output(f"mkdir {units}/{unit}.d && printf '{late}' >{units}/{unit}.d/late.conf")
        web1.check_output(
            f"printf '{start}' >{units}/{name}.path && systemctl daemon-reload && systemctl start {name}.path"
        )
    fleet.good("site", "-e", "backup_rotate_rest=true", "-e", "backup_rotate_ssh=true")
    web1.check_output("touch /root/over")
    for name in UNLUCKY:
        unit = f"holdfast-files--{name}"
        history = f"/var/lib/holdfast/outcomes/files--{name}.history.jsonl"
        web1.check_output(f"systemctl stop {name}.path && rm -r {units}/{unit}.service.d {units}/{name}.path")
        web1.check_output(f"timeout 120 sh -c 'until test $(wc -l <{history}) -gt 1; do sleep 0.5; done'")
        said = web1.check_output(f"journalctl -o cat --no-pager -u {unit}")
        assert "unlucky" not in said, said
        assert "the run waits until it goes by them" in said, said
        ran = [json.loads(line) for line in web1.file(history).content_string.splitlines()]
        assert {run["outcome"] for run in ran} == {"ok"}, ran
    web1.check_output("systemctl daemon-reload")
    # Nobody had to wait for another run.
    assert not [path for path, content in zip(used, before) if web1.file(path).content_string == content]


def test_a_change_that_is_cut_off_stops_no_backup(fleet: Fleet, web1: Any, first: dict[str, str]) -> None:
    """`site` stops before old keys are removed, one server refuses, and two backups run that began before."""
    location = f"{SECRETS}/vault.repository"
    before = web1.file(location).content_string
    running = "holdfast-files--disk.service holdfast-files--sealed.service"
    web1.check_output(f"touch {HELD} && systemctl start --no-block {running}")
    fleet.on("vault1").check_output(f"touch {MAINTENANCE}")
    said = as_announced(fleet, "site", "-e", "backup_rotate_passwords=true", "-e", "backup_rotate_rest=true")
    assert said.code == 0, said.output
    assert "maintenance" in said.text
    assert "sealed: its password stays for now, since a backup runs (holdfast-files--sealed.service)" in said.text
    fleet.on("vault1").check_output(f"rm {MAINTENANCE}")
    web1.check_output(f"rm {HELD} && timeout 300 systemctl start {running}")
    for name in BORG:
        following = password(web1, name, "password_next")
        assert password(web1, name) == first[name]
        assert following not in (None, first[name])
        # What is not in use yet is in the escrow already.
        assert escrow(fleet, name)[-1]["next_password"] == following
        assert escrow(fleet, name)[-1]["password"] == first[name]
    for name in RESTIC:
        assert password(web1, name, "password_old") == first[name]
        assert opens(web1, name, first[name])
        assert opens(web1, name, password(web1, name) or "")
    assert web1.file(location).content_string != before
    back_up(web1)


def test_the_next_run_goes_on_with_it(fleet: Fleet, web1: Any, first: dict[str, str]) -> None:
    """One repository that cannot be reached keeps nothing else from its end."""
    following = {name: password(web1, name, "password_next") for name in BORG}
    used = {name: password(web1, name) for name in RESTIC}
    old = keys(fleet.on("vault1"), VAULT_KEYS)
    assert len(old) == 2
    fleet.on("vault1").check_output(f"touch {MAINTENANCE}")
    said = as_announced(fleet, "rotate", "-e", "rotate=passwords")
    fleet.on("vault1").check_output(f"rm {MAINTENANCE}")
    assert said.code != 0
    assert "archive: its old password still opens it" in said.failed["web1"], said.output
    assert "maintenance" in said.failed["web1"]
    # What was asked for and is not done is no success either.
    for name in RESTIC:
        assert f"{name}: got no new password: this run ended the change before" in said.failed["web1"]
    assert len(said.failed["web1"].splitlines()) == 2 + len(RESTIC), said.output
    assert (password(web1, "archive"), password(web1, "archive", "password_next")) == (
        first["archive"],
        following["archive"],
    )
    assert {name: password(web1, name) for name in (*RESTIC, "sealed")} == {**used, "sealed": following["sealed"]}
    for name in (*RESTIC, "sealed"):
        ended(fleet, web1, name, first[name])
    # The server keeps what it took away, where only root can read it.
    assert keys(fleet.on("vault1"), VAULT_KEYS) | keys(fleet.on("vault1"), RETIRED) == old
    assert fleet.on("vault1").file("/var/lib/holdfast/retired_keys").mode == 0o700
    hint = f"RESTIC_KEY_HINT={keys(fleet.on('vault1'), VAULT_KEYS).pop()}"
    assert hint in web1.file(f"{RECORDS}/vault.env").content_string.splitlines()


def ended(fleet: Fleet, host: Any, name: str, old: str, client: str = "web1") -> None:
    """A change is over: the old password opens nothing, the new one is in the escrow with what it opens."""
    secret = password(host, name) or ""
    assert secret != old
    assert opens(host, name, secret), name
    assert not opens(host, name, old), name
    assert password(host, name, "password_next") is password(host, name, "password_old") is None
    bundles = escrow(fleet, name, client)
    newest = bundles[-1]
    assert newest["password"] == secret
    assert "next_password" not in newest
    assert old in {bundle["password"] for bundle in bundles}
    if name in BORG:
        assert newest["borg_key"] == host.file(f"{SECRETS}/{name}.borg_key").content_string
    elif name == "disk":
        assert keys(host, DISK_KEYS) == {newest["key_id"]}
    else:
        where = SECOND_KEYS[name] if client == "web2" else VAULT_KEYS
        assert keys(fleet.on("vault1"), where) == {newest["key_id"]}


def test_a_client_that_was_lost_in_mid_change(fleet: Fleet, web1: Any, first: dict[str, str]) -> None:
    """Its secrets come back from the escrow, with what tells which password opens what, and which key is one too many."""
    disk = DISK_KEYS.removesuffix("/keys")
    fleet.on("vault1").check_output(f"touch {MAINTENANCE}")
    web1.check_output(f"mv {disk}/config {disk}/config.away")
    fleet.good("site", "-e", "backup_rotate_passwords=true")
    fleet.on("vault1").check_output(f"rm {MAINTENANCE}")
    web1.check_output(f"mv {disk}/config.away {disk}/config")
    used = {name: password(web1, name) for name in REPOSITORIES}
    following = {name: password(web1, name, "password_next") for name in REPOSITORIES}
    old = password(web1, "vault", "password_old")
    assert [name for name in REPOSITORIES if following[name]] == ["disk", "archive"]
    assert old
    # What a run does before it is cut off: the repositories know the next password, and nobody was told.
    key_add = (
        f"restic --no-cache --repository-file {SECRETS}/disk.repository --password-file {SECRETS}/disk.password key add"
    )
    web1.check_output(f"{key_add} --new-password-file {SECRETS}/disk.password_next && chown -R holdfast: {DISK_KEYS}")
    web1.check_output(
        f"BORG_BASE_DIR=/run/tried-borg BORG_PASSPHRASE={used['archive']} BORG_NEW_PASSPHRASE={following['archive']}"
        f' BORG_RSH="ssh -F /etc/holdfast/ssh/archive.conf -i {SECRETS}/archive.ssh_key"'
        f" borg key change-passphrase $(cat {SECRETS}/archive.repository)"
    )
    web1.check_output(
        "systemctl stop 'holdfast-*.timer'; rm -r /etc/holdfast /var/lib/holdfast /var/cache/holdfast /usr/local/bin/holdfast"
        " /etc/systemd/system/holdfast-* && systemctl daemon-reload"
    )
    said = fleet.good("restore_identity", "--limit", "web1", "-e", f"escrow_key={fleet.folder / 'escrow.key'}")
    assert "rotate -e rotate=pending" in said.text
    assert not [secret for secret in {old, *used.values(), *following.values()} if secret and secret in said.output]
    assert {name: password(web1, name) for name in REPOSITORIES} == used
    assert {name: password(web1, name, "password_next") for name in REPOSITORIES} == following
    assert password(web1, "vault", "password_old") == old
    fleet.good("site")
    now = {name: password(web1, name) for name in REPOSITORIES}
    assert now == {name: following[name] or used[name] for name in REPOSITORIES}
    assert not fleet.good("site").changed
    back_up(web1)
    # One key too many each; the client and the server remove theirs.
    assert len(keys(web1, DISK_KEYS)) == len(keys(fleet.on("vault1"), VAULT_KEYS)) == 2
    said = as_announced(fleet, "rotate", "-e", "rotate=pending")
    assert said.code == 0, said.output
    for name, before in (("vault", old), ("disk", used["disk"]), ("archive", used["archive"])):
        ended(fleet, web1, name, before or "")
    # Nothing else was begun.
    assert {name: password(web1, name) for name in REPOSITORIES} == now


def of_one(fleet: Fleet, client: str) -> set[str]:
    """All that is one client's and that nobody else's rotation may touch: its secrets and state, and what servers take and have."""
    look = "find {} -printf '%p %m %u:%g %s %T@\\n' -type f -exec sha256sum {{}} +"
    mine = fleet.on(client).check_output(look.format(f"/etc/holdfast {RECORDS}"))
    theirs = fleet.on("vault1").check_output(
        look.format(f"/etc/ssh/authorized_keys.d/bk-{client} $(ls -d /srv/holdfast*/{client}--*/keys)")
        + f" && grep ^{client}-- /etc/holdfast/rest-server/htpasswd"
    )
    assert "ssh-ed25519" in fleet.on("vault1").check_output(f"cat /etc/ssh/authorized_keys.d/bk-{client}")
    escrowed = {str(path) for path in (fleet.state / "hosts" / client / "escrow").rglob("*.age")}
    assert escrowed
    return {*mine.splitlines(), *theirs.splitlines(), *escrowed}


def test_one_client_of_two(fleet: Fleet, web1: Any, web2: Any) -> None:
    """`--limit`: one client gets new secrets for each way to a server, and nothing of the other one changes.

    Its store lets nobody delete a key: that is said, with the file's name, keeps nothing else, and ends when somebody who may
    has removed the file.
    """
    vault1 = fleet.on("vault1")
    over_ssh = ("proxied", "store", "plain")
    limit = ("--limit", "web2,vault1")
    old = {name: password(web2, name) or "" for name in SECOND}
    old_keys = {name: keys(vault1, where) for name, where in SECOND_KEYS.items()}
    web2.check_output("install -d -m 700 /root/stolen && cp -a %s/. /root/stolen", SECRETS)
    # What is not the store's own account's cannot be deleted by it in such a directory.
    vault1.check_output(
        f"chown root {SECOND_KEYS['store']} {SECOND_KEYS['store']}/* && chmod 1777 {SECOND_KEYS['store']}"
    )
    before = of_one(fleet, "web1")

    said = fleet.run("rotate", *limit)
    assert said.code != 0
    (kept_key,) = old_keys["store"]
    assert said.failed["web2"].splitlines() == [
        f"store: its old password still opens it: its server has to remove keys/{kept_key}",
        "Run again, with -e rotate=pending, to go on",
    ]
    assert (
        f"the old key of web2--store stays: s3:bucket/fleet/web2--store/keys/{kept_key} cannot be removed" in said.text
    )
    assert opens(web2, "store", old["store"])
    for name in ("vault", "proxied", "plain"):
        ended(fleet, web2, name, old[name], "web2")
    back_up(web2, SECOND)
    vault1.check_output(f"rm {SECOND_KEYS['store']}/{kept_key}")
    assert fleet.good("rotate", "-e", "rotate=pending", *limit).changed
    ended(fleet, web2, "store", old["store"], "web2")

    assert of_one(fleet, "web1") == before
    # What the server takes away it keeps, and a client that may delete has done so itself.
    for name in ("vault", "proxied", "store"):
        assert keys(vault1, f"/var/lib/holdfast/retired_keys/web2--{name}") == old_keys[name]
    assert not vault1.file("/var/lib/holdfast/retired_keys/web2--plain").exists
    # Who has the old secrets comes no further than the server's door.
    for name in over_ssh:
        used = web2.file(f"{SECRETS}/{name}.ssh_key").content_string
        assert used != web2.file(f"/root/stolen/{name}.ssh_key").content_string
        dial = f"ssh -F /etc/holdfast/ssh/{name}.conf -i /root/stolen/{name}.ssh_key holdfast-{name}"
        # 255 is ssh's own: no session was begun. Today's key begins one.
        refused = web2.run(f"timeout 60 {dial} </dev/null; test $? = 255")
        assert refused.rc == 0, refused
        assert "Permission denied (publickey)" in refused.stderr, refused
        web2.check_output(f"timeout 60 {dial} </dev/null >/dev/null; test $? != 255".replace("/root/stolen", SECRETS))
    definition = json.loads(web2.file("/etc/holdfast/units/files--vault.json").content_string)
    web2.check_output(f"cp {SECRETS}/vault.password /run/tried")
    assert restic(web2, definition, f"{SECRETS}/vault.repository").rc == 0
    refused = restic(web2, definition, "/root/stolen/vault.repository")
    assert refused.rc != 0
    assert "401" in refused.stderr, refused

    assert not fleet.good("site").changed
    back_up(web2, SECOND)
    first_restored(web2, SECOND)
    back_up(web1)


def test_everything_at_once(fleet: Fleet, web1: Any, web2: Any, first: dict[str, str]) -> None:
    def secrets() -> dict[str, str]:
        names = [f"{name}.password" for name in REPOSITORIES] + ["vault.repository", "archive.ssh_key"]
        second = [f"{name}.password" for name in SECOND] + ["vault.repository"]
        second += [f"{name}.ssh_key" for name in SECOND if name != "vault"]
        return {
            **{name: web1.file(f"{SECRETS}/{name}").content_string for name in names},
            **{f"web2 {name}": web2.file(f"{SECRETS}/{name}").content_string for name in second},
        }

    before = secrets()
    real = as_announced(fleet, "rotate", "--diff")
    assert real.code == 0, real.output
    after = secrets()
    assert {name for name in before if before[name] == after[name]} == set()
    assert not [name for name, secret in {**before, **after}.items() if secret.strip() in real.output]
    for name in REPOSITORIES:
        ended(fleet, web1, name, before[f"{name}.password"].strip())
        assert not opens(web1, name, first[name]), name
    for name in SECOND:
        ended(fleet, web2, name, before[f"web2 {name}.password"].strip(), "web2")
    assert not fleet.good("site").changed
    for host, names in ((web1, REPOSITORIES), (web2, SECOND)):
        back_up(host, names)
        first_restored(host, names)


def test_what_a_running_backup_keeps_is_said_and_gone_on_with(fleet: Fleet, web1: Any, first: dict[str, str]) -> None:
    """A password of a rest-server and a key of SSH: `rotate` fails at its end, `site` does not."""

    def used() -> list[str]:
        return [web1.file(f"{SECRETS}/{name}").content_string for name in ("vault.repository", "archive.ssh_key")]

    before = used()
    running = "holdfast-files--vault.service holdfast-files--archive.service"
    web1.check_output(f"touch {HELD} && systemctl start --no-block {running}")
    said = as_announced(fleet, "rotate", "-e", "rotate=rest,ssh")
    assert said.code != 0, said.output
    assert said.failed["web1"].splitlines() == [
        "archive: its old SSH key stays in use: a backup runs over SSH into its server",
        "vault: its old REST password stays in use: a backup runs, or seems to (-e backup_rotate_now=true cuts it off)",
        "Run again, with -e rotate=pending, to go on",
    ]
    fleet.good("site")
    assert used() == before
    web1.check_output(f"rm {HELD} && timeout 300 systemctl start {running}")
    said = as_announced(fleet, "rotate", "-e", "rotate=pending")
    assert said.code == 0, said.output
    assert not set(used()) & set(before)
    assert not fleet.good("site").changed
    back_up(web1)


def key_lines(fleet: Fleet, client: str) -> list[str]:
    """The keys that the server takes from a client."""
    return list(fleet.on("vault1").file(f"/etc/ssh/authorized_keys.d/bk-{client}").content_string.splitlines())


def test_who_hangs_keeps_no_old_key_of_the_others_good(fleet: Fleet, web1: Any, web2: Any) -> None:
    """It answers until it has a next SSH key and the servers take it, and then never. The bounds are an hour; here a minute."""
    hurried = fleet.folder / "hurried"
    shutil.copytree(ROOT / "playbooks", hurried)
    for name in ("site.yml", "rotate.yml"):
        path = hurried / name
        path.write_text(path.read_text().replace("timeout: 3600", "timeout: 60"))
    wrapper = f'#!/bin/sh\ntest -e {SECRETS}/archive.ssh_next && exec sleep 600\nexec /usr/bin/python3 "$@"\n'
    fleet.lab.put("web1", "/root/python", wrapper.encode(), mode=0o755)
    before = {client: key_lines(fleet, client) for client in ("web1", "web2")}
    fleet.host_variables["web1"] = {"ansible_python_interpreter": "/root/python"}
    said = fleet.run(str(hurried / "rotate.yml"), "-e", "rotate=ssh")
    del fleet.host_variables["web1"]
    assert said.code != 0
    (hung,) = [event for event in said.events if event["what"] == "failed"]
    assert (hung["host"], hung["task"].split(" / ")[0]) == ("web1", "Let the clients know what is new"), hung
    assert "Timed out after 60" in hung["message"], hung
    # Who answers has new keys, and the old ones are gone; of the other both are good, so its backups go on.
    after = {client: key_lines(fleet, client) for client in before}
    assert len(after["web2"]) == len(before["web2"])
    assert not set(after["web2"]) & set(before["web2"])
    assert set(after["web1"]) > set(before["web1"])
    back_up(web2, SECOND)
    fleet.good("rotate", "-e", "rotate=pending")
    assert len(key_lines(fleet, "web1")) == len(before["web1"])
    assert not set(key_lines(fleet, "web1")) & set(before["web1"])
    assert not fleet.good("site").changed
    back_up(web1)


def test_a_kind_that_does_not_exist_is_refused(fleet: Fleet, first: dict[str, str]) -> None:
    for words in ("keys", "ssh,pending"):
        assert f"rotate = {words}" in fleet.refused("rotate", "-e", f"rotate={words}").text
