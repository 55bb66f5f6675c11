"""The host program on real hosts: each way a run can end, by the recorded outcome.

Needs root and the lab (tests/lab). bookworm: restic 0.19.1 out of the lab's mirror and systemd 252; trixie: its own
restic 0.18 and systemd 257.
"""

from __future__ import annotations

import bz2
import io
import json
import os
import tarfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _units
from ansible_collections.holdfast.backup.plugins.plugin_utils import _borgmatic, _jobs, _zipapp

from tests.lab import mirror
from tests.lab.api import Lab

from . import cheap_key

COLLECTION = Path(__file__).resolve().parents[2]
UNIT = "system--vault"
SERVICE = f"holdfast-{UNIT}.service"
PASSWORD = "the password of this repository"

RECORD = "HOLDFAST_REPOSITORY_ID={}\n" + f"RESTIC_KEY_HINT={'0' * 64}\nHOLDFAST_FINGERPRINT={'0' * 32}-{'0' * 32}\n"
SERVICE_TEXT = """\
[Unit]
OnSuccess=holdfast-record@{unit}.service
OnFailure=holdfast-record@{unit}{failed}.service

[Service]
Type=oneshot
User=holdfast
Group=holdfast
CacheDirectory=holdfast
CacheDirectoryMode=0700
UMask=0077
Environment=RESTIC_CACHE_DIR=%C/holdfast/vault TMPDIR=%C/holdfast
LoadCredential=password:/etc/holdfast/secrets/vault.password
LoadCredential=repository:/etc/holdfast/secrets/vault.repository
EnvironmentFile=-/etc/holdfast/secrets/vault.environment
EnvironmentFile=/var/lib/holdfast/repositories/vault.env
Environment=RESTIC_PASSWORD_FILE=%d/password RESTIC_REPOSITORY_FILE=%d/repository
Environment=RESTIC_PROGRESS_FPS=0.016
ExecStartPre=+/usr/local/bin/holdfast prepare {unit}
{start}
ExecStopPost=+/usr/local/bin/holdfast finish {unit}
TimeoutStartSec={timeout}
TimeoutStopSec=90
KillMode=mixed
AmbientCapabilities=CAP_DAC_READ_SEARCH
CapabilityBoundingSet=CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateDevices=yes
SystemCallFilter=@system-service
ReadWritePaths=-/srv/repository
LogRateLimitIntervalSec=0
{extra}
"""
START = """\
ExecStart={binary} \\
  backup --json --retry-lock=0s --host=web1 --tag=job:system \\
  --files-from-raw=/run/holdfast/{unit}.sources {more} \\
  -- {paths}
ExecStartPost=+/usr/local/bin/holdfast verify {unit}"""
# As the roles write it where a job has only dumps.
START_DUMPS = "ExecStart=+/usr/local/bin/holdfast verify {unit}"
INTERRUPTED = """\
[Service]
Type=oneshot
ExecStart=/usr/local/bin/holdfast interrupted
[Install]
WantedBy=multi-user.target
"""
RECORDER = """\
[Service]
Type=oneshot
ExecStart=/usr/local/bin/holdfast record %i
"""
DUMP = """\
[Service]
Type=oneshot
ExecStart={command}
"""
DUMP_UNIT = f"holdfast-{UNIT}--database.service"
# A real one, without the change of the account.
REAL_DUMP = """\
User=holdfast
Environment=RESTIC_CACHE_DIR=%C/holdfast/vault
Environment=RESTIC_PASSWORD_FILE=%d/password RESTIC_REPOSITORY_FILE=%d/repository
LoadCredential=password:/etc/holdfast/secrets/vault.password
LoadCredential=repository:/etc/holdfast/secrets/vault.repository
TimeoutStartSec=60
"""


class Client:
    """A host with one run unit, in a state where a run is `ok`."""

    def __init__(self, lab: Lab, name: str, binary: str) -> None:
        self.lab, self.name, self.binary = lab, name, binary

    def sh(self, script: str, *, check: bool = True, timeout: float = 120) -> str:
        """Run a shell script; returns both its outputs."""
        done = self.lab.exec(self.name, ["bash", "-c", script], timeout=timeout)
        assert not check or done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file."""
        self.lab.put(self.name, path, text.encode(), mode=mode)

    def define(
        self, *, unit: str = "", more: str = "", timeout: int = 60, failed: str = "--failed", **changes: Any
    ) -> None:
        """Write definition and service; `changes` go into the definition."""
        definition = {
            "format": 1,
            "job": "system",
            "repository": "vault",
            "engine": "restic",
            "binary": self.binary,
            "user": "holdfast",
            "paths": ["/srv/data"],
            "optional_paths": ["/srv/optional"],
            "sources_d": "/etc/holdfast/sources.d/system.d",
            "host": "web1",
            "tags": [],
            "environment": {"RESTIC_CACHE_DIR": "/var/cache/holdfast/vault"},
            "password_file": "/etc/holdfast/secrets/vault.password",
            "repository_file": "/etc/holdfast/secrets/vault.repository",
            "environment_file": None,
            "record": "/var/lib/holdfast/repositories/vault.env",
            "escrow": {"mode": "local"},
            "pre": [],
            "post": [],
            "dumps": [],
            "on_failure": None,
            "incomplete_is": "failed",
            "mount": None,
            "access": "local",
            "rest": None,
            "timeout_seconds": timeout,
            **changes,
        }
        files = definition["paths"] or definition["optional_paths"]
        start = (START if files else START_DUMPS).format(
            unit=UNIT, binary=self.binary, more=more, paths=" ".join(definition["paths"])
        )
        text = SERVICE_TEXT.format(
            unit=UNIT,
            start=start,
            failed=failed,
            timeout=timeout,
            extra=unit,
        )
        self.put(f"/etc/holdfast/units/{UNIT}.json", json.dumps(definition))
        self.put(f"/etc/systemd/system/{SERVICE}", text)
        self.sh("systemctl daemon-reload")

    def dump(self, command: str) -> list[dict[str, str]]:
        """Write the companion unit of a dump that saves what `command` says; returns the definition's `dumps`."""
        restic = (
            f"{self.binary} backup --json --tag=job:system --tag=dump:database --stdin-filename=/database.sql"
            f" --stdin-from-command -- {command}"
        )
        self.put(f"/etc/systemd/system/{DUMP_UNIT}", DUMP.format(command=restic) + REAL_DUMP)
        self.sh("systemctl daemon-reload")
        return [{"name": "database", "unit": DUMP_UNIT}]

    def init(self) -> None:
        """A new repository in the place of the one that was there."""
        self.sh("find /srv/repository -mindepth 1 -delete")
        self.restic("init")
        # Each test opens it several times.
        keys = "/srv/repository/keys"
        key = self.sh(f"ls {keys}").strip()
        content = cheap_key.cheap(self.lab.get(self.name, f"{keys}/{key}"), PASSWORD)
        self.sh(f"rm -f {keys}/{key}")
        self.lab.put(self.name, f"{keys}/{cheap_key.name(content)}", content, mode=0o400)
        self.sh("chown -R holdfast: /srv/repository")

    def know(self) -> str:
        """Put the repository that is there on record; returns its id."""
        identity = str(json.loads(self.restic("cat", "config", "--no-lock", "2>/dev/null"))["id"])
        self.put("/var/lib/holdfast/repositories/vault.env", RECORD.format(identity))
        return identity

    def outcome(self) -> dict[str, Any]:
        """The recorded outcome."""
        found: dict[str, Any] = json.loads(self.lab.get(self.name, f"/var/lib/holdfast/outcomes/{UNIT}.json"))
        return found

    def told(self) -> bool:
        """Whether the user's command went well; the outcome is on record before it is called."""
        deadline = time.monotonic() + 30
        while (told := self.outcome()["told"]) is None:
            assert time.monotonic() < deadline, self.journal()
            time.sleep(0.2)
        return bool(told)

    def recorded(self) -> str:
        """Something that changes with every run on record, and not when somebody was told of it."""
        text = self.sh(f"cat /var/lib/holdfast/outcomes/{UNIT}.json 2>/dev/null || true")
        # Two refused runs may be on record within one second, without an invocation id: their journal cursors differ.
        return " ".join(str(json.loads(text)[key]) for key in ("invocation_id", "ended", "refusal")) if text else ""

    def wait_recorded(self, before: str) -> dict[str, Any]:
        """The outcome that is recorded after `before`."""
        deadline = time.monotonic() + 60
        while self.recorded() == before:
            if time.monotonic() > deadline:
                pytest.fail("nothing was recorded:\n" + self.journal())
            time.sleep(0.2)
        return self.outcome()

    def run(self, *, fails: bool) -> dict[str, Any]:
        """Start the unit as its timer would; returns the outcome recorded after it."""
        before = self.recorded()
        done = self.lab.exec(self.name, ["systemctl", "start", SERVICE], timeout=120)
        found = self.wait_recorded(before)
        print(found)
        assert (done.returncode != 0) == fails, self.journal()
        return found

    def journal(self) -> str:
        """What a person debugging this wants to see."""
        return self.sh(f"journalctl --no-pager -n 60 -u {SERVICE} -u 'holdfast-record@*'")

    def restic(self, *arguments: str) -> str:
        """restic on the repository, without holdfast."""
        secrets = "/etc/holdfast/secrets/vault"
        env = f"RESTIC_PASSWORD_FILE={secrets}.password RESTIC_REPOSITORY_FILE={secrets}.repository"
        return self.sh(f"{env} {self.binary} --no-cache {' '.join(arguments)}")

    def snapshot_ids(self) -> list[str]:
        """Ids of all snapshots, by restic itself."""
        listing = self.restic("snapshots", "--json", "--no-lock")
        return [each["id"] for each in json.loads(listing.splitlines()[-1])]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Both hosts."""
    lab = Lab(f"program-{os.getpid()}")
    try:
        lab.up(["bookworm1=bookworm:fuse,layer=borg", "trixie1=trixie:fuse,layer=restic+borg"], owner=os.getpid())
        yield lab
    finally:
        lab.down()


@pytest.fixture(
    scope="module", params=["bookworm1", "trixie1"] if os.environ.get("HOLDFAST_ALL_SUITES") else ["trixie1"]
)
def host(lab: Lab, request: pytest.FixtureRequest) -> Client:
    """A host with program, recorder, account, repository and record."""
    name = request.param
    binary = "/usr/bin/restic"
    if name == "bookworm1":
        binary = "/usr/local/bin/restic"
        lab.put(name, binary, bz2.decompress(_release("restic", "0.19.1")), mode=0o755)
    client = Client(lab, name, binary)
    lab.put(name, "/usr/local/bin/holdfast", _zipapp.build(COLLECTION), mode=0o755)
    client.sh(
        "useradd --system --no-create-home holdfast; mkdir -p /etc/holdfast/units /etc/holdfast/sources.d/system.d"
        " /var/lib/holdfast/repositories /srv/data /srv/repository; install -d -m 700 /etc/holdfast/secrets;"
        " chown holdfast: /srv/repository"
    )
    client.put("/etc/systemd/system/holdfast-record@.service", RECORDER)
    client.put("/etc/holdfast/secrets/vault.password", PASSWORD + "\n", 0o400)
    client.put("/etc/holdfast/secrets/vault.repository", "/srv/repository\n", 0o400)
    client.put("/etc/systemd/system/holdfast-interrupted.service", INTERRUPTED)
    client.sh("systemctl -q enable holdfast-interrupted.service")
    client.init()
    client.know()
    return client


def _release(tool: str, version: str) -> bytes:
    mirror.build()
    found = mirror.describe()
    path = next(each["path"] for each in found["releases"] if (each["tool"], each["version"]) == (tool, version))
    with urllib.request.urlopen(found["url"] + path, timeout=60) as answer:  # noqa: S310 - the lab's own mirror
        content: bytes = answer.read()
    return content


def _install_rest_server(client: Client) -> None:
    with tarfile.open(fileobj=io.BytesIO(_release("rest-server", "0.14.0"))) as archive:
        member = next(each for each in archive.getmembers() if each.name.endswith("/rest-server"))
        stream = archive.extractfile(member)
        assert stream is not None
        client.lab.put(client.name, "/usr/local/bin/rest-server", stream.read(), mode=0o755)


@pytest.fixture
def client(host: Client) -> Client:
    """The host with sources in place and the definition of an ordinary run."""
    host.sh(
        f"systemctl stop {SERVICE} 2>/dev/null; systemctl reset-failed 2>/dev/null; rm -rf /srv/data /srv/optional"
        " /etc/holdfast/sources.d/system.d/*; mkdir -p /srv/data/sub; echo one >/srv/data/one; echo two >/srv/data/sub/two;"
        " chmod 000 /srv/data/one",
        check=False,
    )
    host.define()
    return host


def test_ok(client: Client) -> None:
    """A run is recorded with its snapshot; optional and dropped-in sources are in it, taken literally."""
    client.sh(
        "mkdir /srv/optional; echo x >/srv/optional/x; mkdir '/srv/odd * $HOME %n'; echo y >'/srv/odd * $HOME %n/y'"
    )
    client.put("/etc/holdfast/sources.d/system.d/app.paths", "# of an application\n/srv/odd * $HOME %n\n")
    found = client.run(fails=False)
    assert (found["outcome"], found["reason"], found["message"]) == ("ok", None, "")
    assert client.snapshot_ids()[-1] == found["snapshot"]
    assert found["summary"]["files_new"] + found["summary"]["files_unmodified"] == 4
    assert found["versions"]["restic"] == ("0.19.1" if client.name == "bookworm1" else "0.18.0")
    assert found["exit_status"] == 0
    assert found["last_ok"] == found["ended"]
    listing = client.restic("ls", found["snapshot"])
    assert "/srv/odd * $HOME %n/y" in listing
    assert "/srv/optional/x" in listing


def test_what_did_not_change_is_not_read_again(client: Client) -> None:
    """By the commands that the roles write, with a dump just before the files: it is no parent of theirs."""
    dump = {"kind": "command", "name": "database", "user": "holdfast", "command": ["echo", "x"]}
    job = _jobs.job("job", {"paths": ["/srv/data"], "dumps": [dump]}, "web1")
    arguments = {
        DUMP_UNIT: _jobs.dump_arguments("system", job, {"options": {}}, job["dumps"][0]),
        SERVICE: _jobs.backup_arguments(UNIT, "system", job, {"options": {}}, []),
    }
    client.define(dumps=client.dump("true"))
    for unit, words in arguments.items():
        text = f"[Service]\nExecStart=\nExecStart={client.binary} {_units.command_line(words)}\n"
        text += "AmbientCapabilities=CAP_SETUID CAP_SETGID\n" if unit == DUMP_UNIT else ""
        client.sh(f"mkdir /etc/systemd/system/{unit}.d")
        client.put(f"/etc/systemd/system/{unit}.d/roles.conf", text)
    client.sh("systemctl daemon-reload")
    try:
        first, second = client.run(fails=False), client.run(fails=False)
    finally:
        client.sh(f"rm -r /etc/systemd/system/{DUMP_UNIT}.d /etc/systemd/system/{SERVICE}.d; systemctl daemon-reload")
    assert (second["summary"]["files_new"], second["summary"]["files_unmodified"]) == (0, 2)
    snapshot = json.loads(client.restic("cat", "snapshot", second["snapshot"], "--no-lock", "2>/dev/null"))
    assert snapshot["parent"] == first["snapshot"]


def test_optional_missing_is_ok(client: Client) -> None:
    """An optional path that is not there is no error on any restic."""
    assert client.run(fails=False)["outcome"] == "ok"


def test_missing_declared_path(client: Client) -> None:
    """A declared path that is not there makes the run incomplete on every restic; the rest is saved."""
    client.define(paths=["/srv/data", "/srv/gone"])
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"]) == ("incomplete", "source missing")
    assert "/srv/gone" in found["message"]
    assert found["snapshot"] in client.snapshot_ids()


def test_missing_accepted(client: Client) -> None:
    """`incomplete_is: ok` keeps the word and leaves the unit alone."""
    client.define(
        paths=["/srv/data", "/srv/gone"],
        incomplete_is="ok",
        unit="SuccessExitStatus=3",
        on_failure={"command": ["/usr/bin/touch", "/run/told"]},
    )
    found = client.run(fails=False)
    assert (found["outcome"], found["told"]) == ("incomplete", None)


def test_all_missing(client: Client) -> None:
    """Nothing to save at all is a failure."""
    client.define(paths=["/srv/gone"])
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"], found["snapshot"]) == ("failed", "source missing", None)


def test_bad_drop_in(client: Client) -> None:
    """A list that others could write is not used, and that is said."""
    client.put("/etc/holdfast/sources.d/system.d/bad.paths", "/etc/shadow\n", 0o666)
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"]) == ("incomplete", "source missing")
    assert "bad.paths" in found["message"]
    assert "/etc/shadow" not in client.restic("ls", found["snapshot"])


def test_what_is_dropped_in_and_excluded(client: Client) -> None:
    """Restic says nothing of a path that it was given and that a pattern takes, and ends well."""
    patterns = ["tmp", "*.old", "/srv/a.old/*", "!b"]
    client.sh("mkdir -p /srv/tmp/app /srv/a.old/b /srv/c; touch /srv/tmp/app/x /srv/a.old/b/x /srv/c/x")
    client.put("/etc/holdfast/sources.d/system.d/app.paths", "/srv/tmp/app\n/srv/a.old/b\n/srv/c\n")
    client.define(
        excluded=_borgmatic.expressions(patterns), more=" ".join(f"'--exclude={pattern}'" for pattern in patterns)
    )
    try:
        found = client.run(fails=True)
        assert (found["outcome"], found["reason"]) == ("incomplete", "source missing")
        listing = client.restic("ls", found["snapshot"])
        for path, saved in {"/srv/tmp/app": False, "/srv/a.old/b": True, "/srv/c": True}.items():
            assert (f"{path}/x" in listing) == saved, listing
            assert (f"{path} (" in found["message"]) != saved, found["message"]
    finally:
        client.sh("rm -r /srv/tmp /srv/a.old /srv/c")


def test_a_file_system_that_is_not_mounted(client: Client) -> None:
    """Its directory is there, and empty."""
    client.sh(
        "mkdir /srv/data/disk; cp -p /etc/fstab /root/fstab; echo 'disk /srv/data/disk ramfs nofail 0 0' >>/etc/fstab"
    )
    try:
        found = client.run(fails=True)
        assert (found["outcome"], found["reason"]) == ("incomplete", "source missing")
        assert "declared but not there: /srv/data/disk (its file system is not mounted" in found["message"]
        client.sh("mount /srv/data/disk")
        assert client.run(fails=False)["outcome"] == "ok"
    finally:
        client.sh("umount /srv/data/disk; mv /root/fstab /etc/fstab", check=False)


def test_a_run_whose_recorder_was_killed(client: Client) -> None:
    """The next one records it first."""
    drop_in = "/run/systemd/system/holdfast-record@.service.d/killed.conf"
    client.sh(f"mkdir -p {drop_in.rpartition('/')[0]}")
    client.put(drop_in, "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -9 $$$$'\n")
    killed = f"for i in $(seq 100); do systemctl is-failed -q holdfast-record@{UNIT} && exit; sleep 0.1; done; exit 1"
    client.sh(f"systemctl daemon-reload; systemctl start {SERVICE}; {killed}")
    client.sh(f"rm {drop_in}; systemctl daemon-reload")
    client.sh("holdfast run system --wait")
    lines = client.sh(f"tail -2 /var/lib/holdfast/outcomes/{UNIT}.history.jsonl").splitlines()
    before, after = (json.loads(line) for line in lines)
    assert (before["outcome"], before["reason"]) == ("failed", "unknown")
    assert before["snapshot"] in client.snapshot_ids()
    assert after["outcome"] == "ok"


def test_unreadable(client: Client) -> None:
    """Without the capability one file cannot be read: exit code 3."""
    client.define(unit="AmbientCapabilities=\nCapabilityBoundingSet=")
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"], found["exit_status"]) == ("incomplete", "source unreadable", 3)
    assert "/srv/data/one" in found["message"]
    assert found["snapshot"] in client.snapshot_ids()


def test_wrong_password(client: Client) -> None:
    """restic's own refusal, and the user's command learns of it."""
    client.put("/etc/holdfast/secrets/vault.password", "another password\n", 0o400)
    client.define(on_failure={"command": ["/bin/sh", "-c", "env | grep ^HOLDFAST_ | sort >/run/told"]})
    try:
        found = client.run(fails=True)
    finally:
        client.put("/etc/holdfast/secrets/vault.password", PASSWORD + "\n", 0o400)
    assert (found["outcome"], found["reason"], found["exit_status"]) == ("failed", "wrong password", 12)
    client.sh("for i in $(seq 50); do [ -s /run/told ] && exit; sleep 0.1; done")
    told = client.sh("cat /run/told")
    assert "HOLDFAST_OUTCOME=failed\n" in told
    assert "HOLDFAST_REASON=wrong password\n" in told
    assert "HOLDFAST_JOB=system\n" in told
    assert client.told()


def test_telling_fails(client: Client) -> None:
    """A command that fails itself is noted."""
    client.define(paths=["/srv/gone"], on_failure={"command": ["/bin/false"]})
    assert client.run(fails=True)["outcome"] == "failed"
    assert not client.told()


def test_no_record(client: Client) -> None:
    """The unit cannot even start: systemd says `resources`, the outcome says why."""
    client.sh("mv /var/lib/holdfast/repositories/vault.env /var/lib/holdfast/repositories/away")
    try:
        found = client.run(fails=True)
    finally:
        client.sh("mv /var/lib/holdfast/repositories/away /var/lib/holdfast/repositories/vault.env")
    assert (found["outcome"], found["reason"], found["service_result"]) == ("failed", "no record", "resources")


def test_lost_key_file(client: Client) -> None:
    """systemd cannot load a credential."""
    client.sh("mv /etc/holdfast/secrets/vault.password /etc/holdfast/secrets/away")
    try:
        found = client.run(fails=True)
    finally:
        client.sh("mv /etc/holdfast/secrets/away /etc/holdfast/secrets/vault.password")
    assert (found["outcome"], found["reason"]) == ("failed", "lost key file")


def test_no_repository(client: Client) -> None:
    """The repository is gone: exit code 10."""
    client.sh("mv /srv/repository/config /srv/repository/away")
    try:
        found = client.run(fails=True)
    finally:
        client.sh("mv /srv/repository/away /srv/repository/config")
    assert (found["outcome"], found["reason"], found["exit_status"]) == ("failed", "no repository", 10)


def test_unmounted(client: Client) -> None:
    """A mount that is not there is `unreachable`, and restic does not run."""
    client.define(mount="/srv/usb")
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"], found["exit_status"]) == ("failed", "unreachable", None)
    client.sh("mkdir -p /srv/usb; mount -t tmpfs none /srv/usb")
    try:
        assert client.run(fails=False)["outcome"] == "ok"
    finally:
        client.sh("umount /srv/usb")


def test_dependency(client: Client) -> None:
    """A unit that was never started because something it requires failed is recorded too, after a good run."""
    # What a timer keeps loaded has the run before for systemd's last word.
    client.put(f"/run/systemd/system/holdfast-{UNIT}.timer", "[Timer]\nOnCalendar=2099-01-01\n")
    client.sh(f"systemctl daemon-reload; systemctl start holdfast-{UNIT}.timer")
    good = client.run(fails=False)
    assert good["outcome"] == "ok"
    # Its clock was ahead, as far as the record shows.
    outcomes = f"/var/lib/holdfast/outcomes/{UNIT}.json"
    client.sh(f"""sed -i 's/"ended": "20/"ended": "21/' {outcomes}""")
    client.define(unit="[Unit]\nRequires=holdfast-test-broken.service\nAfter=holdfast-test-broken.service")
    client.put("/etc/systemd/system/holdfast-test-broken.service", DUMP.format(command="/bin/false"))
    client.sh("systemctl daemon-reload")
    for _time in range(2):
        found = client.run(fails=True)
        assert (found["outcome"], found["reason"], found["service_result"]) == ("failed", "unknown", "dependency")
        assert (found["last_ok"], found["invocation_id"]) == (good["last_ok"], None)
    client.define()
    assert client.run(fails=False)["outcome"] == "ok"
    client.sh(
        f"systemctl stop holdfast-{UNIT}.timer; rm /run/systemd/system/holdfast-{UNIT}.timer; systemctl daemon-reload"
    )


def test_a_path_that_became_a_link(client: Client) -> None:
    """The data moved to a bigger disk, and a link was left: restic saves the link."""
    client.sh("mv /srv/data /srv/bigger; ln -s bigger /srv/data")
    try:
        found = client.run(fails=True)
        assert (found["outcome"], found["reason"]) == ("incomplete", "source missing")
        assert found["missing"] == ["/srv/data (is a link to /srv/bigger, which is not saved: declare that path)"]
        assert "/srv/bigger/one" not in client.restic("ls", "latest")
        client.define(paths=["/srv/data", "/srv/bigger"])
        assert client.run(fails=False)["outcome"] == "ok"
    finally:
        client.sh("rm /srv/data; mv /srv/bigger /srv/data")


def test_one_recorder(client: Client) -> None:
    """The recorder finds out for itself where systemd tells it nothing, because it has two triggers."""
    client.define(paths=["/srv/gone"], failed="")
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"], found["exit_status"]) == ("failed", "source missing", 1)
    client.define(failed="")
    assert client.run(fails=False)["outcome"] == "ok"
    before = client.recorded()
    client.sh(f"systemctl start holdfast-record@{UNIT}.service")
    assert client.outcome()["outcome"] == "ok"
    assert client.recorded() == before


def test_no_escrow(client: Client) -> None:
    """Without a valid bundle there is no backup; with it there is one."""
    identity = {
        "format": 1,
        "rest": {"user": None, "current": None, "next": None},
        "escrow": {"salt": "00" * 32, "fingerprint": "ab" * 16, "previous": None, "previous_until": 0},
    }
    client.put("/etc/holdfast/secrets/vault.identity", json.dumps(identity), 0o400)
    client.put("/etc/holdfast/escrow.json", json.dumps({"mode": "age", "repositories": {"vault": "cd" * 16}}))
    client.define(escrow={"mode": "age"})
    before = client.snapshot_ids()
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"]) == ("failed", "no escrow")
    assert client.snapshot_ids() == before
    client.put("/etc/holdfast/escrow.json", json.dumps({"mode": "age", "repositories": {"vault": "ab" * 16}}))
    assert client.run(fails=False)["outcome"] == "ok"


def test_hooks(client: Client) -> None:
    """`pre` runs as its account before, `post` after with the outcome in its environment."""
    client.sh("rm -f /tmp/pre /run/post")
    client.define(
        pre=[{"command": ["/bin/sh", "-c", "id -un >/tmp/pre; test ! -w /etc"], "user": "ops"}],
        post=[{"command": ["/bin/sh", "-c", 'echo "$HOLDFAST_OUTCOME $HOLDFAST_SNAPSHOT" >/run/post']}],
    )
    found = client.run(fails=False)
    assert client.sh("cat /tmp/pre") == "ops\n"
    assert client.sh("cat /run/post") == f"ok {found['snapshot']}\n"


def test_pre_hook_fails(client: Client) -> None:
    """A failing `pre` hook stops the run; `post` still runs."""
    client.sh("rm -f /run/post")
    before = client.snapshot_ids()
    client.define(
        pre=[{"command": ["/bin/sh", "-c", "exit 7"]}],
        post=[{"command": ["/bin/sh", "-c", 'echo "$HOLDFAST_OUTCOME, $HOLDFAST_REASON" >/run/post']}],
    )
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"]) == ("failed", "pre hook")
    assert "exit status 7" in found["message"]
    assert client.sh("cat /run/post") == "failed, pre hook\n"
    assert client.snapshot_ids() == before


def test_post_hook_fails(client: Client) -> None:
    """A failing `post` hook is a failed run with a snapshot."""
    client.define(post=[{"command": ["/bin/sh", "-c", "exit 8"]}])
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"]) == ("failed", "post hook")
    assert found["snapshot"] in client.snapshot_ids()


def test_dump_fails(client: Client) -> None:
    """Files are saved when a dump fails, and the run is failed."""
    client.define(dumps=client.dump("/bin/false"))
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"], found["dumps_failed"]) == ("failed", "dump", ["database"])
    assert found["snapshot"] in client.snapshot_ids()
    client.dump("/bin/echo good")
    found = client.run(fails=False)
    assert (found["outcome"], found["dumps_failed"]) == ("ok", [])
    assert {found["snapshot"], found["dumps"]["database"]} <= set(client.snapshot_ids())
    # However much its command says before.
    client.dump("/bin/sh -c 'seq 2500 >&2; echo good'")
    found = client.run(fails=False)
    assert found["dumps"]["database"] in client.snapshot_ids()
    # A pipe ends well although what writes into it did not.
    client.dump("/bin/sh -c 'false | cat'")
    found = client.run(fails=True)
    assert (found["reason"], found["dumps"], found["dumps_failed"]) == ("dump", {}, ["database"])
    assert "no data read" in client.sh("holdfast log system")
    # A dump that ends well and makes no snapshot is none.
    client.put(f"/etc/systemd/system/{DUMP_UNIT}", DUMP.format(command="/bin/true"))
    client.sh("systemctl daemon-reload")
    found = client.run(fails=True)
    assert (found["reason"], found["dumps"], found["dumps_failed"]) == ("dump", {}, ["database"])


def test_only_dumps(client: Client) -> None:
    """A job without files: its dump's snapshot makes the run ok, and nothing else does."""
    only: dict[str, Any] = {"paths": [], "optional_paths": [], "dumps": client.dump("/bin/echo all of it")}
    client.define(**only)
    before = client.snapshot_ids()
    found = client.run(fails=False)
    assert (found["outcome"], found["reason"], found["snapshot"], found["exit_status"]) == ("ok", None, None, None)
    assert client.snapshot_ids() == [*before, found["dumps"]["database"]]
    assert found["last_ok"] == found["ended"]
    assert "dump database: snapshot " in client.sh("holdfast run system --wait")
    assert "it has only dumps" in client.sh("holdfast run system --dry-run")
    log = client.sh("holdfast log system")
    assert "files: " in log
    assert f"snapshot {client.outcome()['dumps']['database'][:8]}" in log
    assert log.endswith("outcome: ok\n")
    client.sh("mkdir /srv/only")
    for wanted in ("--dump database", f"--snapshot {found['dumps']['database'][:8]}"):
        refused = client.sh(f"holdfast restore system --target /srv/only {wanted}", check=False)
        assert "could read the whole dump database there: choose a directory that does not exist yet" in refused
    client.sh("chmod 700 /srv/only; holdfast restore system --target /srv/only --dump database")
    assert client.sh("cat /srv/only/database.sql; rm -r /srv/only") == "all of it\n"
    # What somebody drops in is not saved, and not passed over.
    client.put("/etc/holdfast/sources.d/system.d/app.paths", "/srv/data\n")
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"]) == ("incomplete", "source missing")
    assert "the job has only dumps" in found["message"]
    client.sh("rm /etc/holdfast/sources.d/system.d/app.paths")
    client.dump("/bin/false")
    before = client.snapshot_ids()
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"], found["dumps"]) == ("failed", "dump", {})
    assert client.snapshot_ids() == before


def test_only_optional_and_dropped_in_paths(client: Client) -> None:
    """Nothing is there, or what is there is empty: that is said."""
    client.define(paths=[], optional_paths=["/srv/optional"])
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"], found["snapshot"]) == ("failed", "source missing", None)
    client.put("/etc/holdfast/sources.d/system.d/app.paths", "/srv/dropped\n")
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"], found["missing"]) == ("failed", "source missing", ["/srv/dropped"])
    client.sh("mkdir /srv/dropped")
    found = client.run(fails=False)
    assert (found["outcome"], found["summary"]["total_files_processed"]) == ("ok", 0)
    assert "no file is in this snapshot" in client.sh("holdfast status")
    client.sh("touch /srv/dropped/file")
    assert client.run(fails=False)["message"] == ""
    client.sh("rm -r /srv/dropped")


def test_another_repository_in_its_place(client: Client) -> None:
    """A repository that was made anew, with the same password, is not the one on record."""
    assert client.run(fails=False)["outcome"] == "ok"
    first = client.know()
    client.init()
    try:
        found = client.run(fails=True)
        assert (found["outcome"], found["reason"]) == ("failed", "another repository")
        assert first[:8] in found["message"]
        assert "run the site playbook" in found["message"]
        # A dump alone has no better chance.
        client.define(paths=[], optional_paths=[], dumps=client.dump("/bin/echo all of it"))
        assert client.run(fails=True)["reason"] == "another repository"
        client.define()
    finally:
        second = client.know()
    assert second != first
    assert client.run(fails=False)["outcome"] == "ok"
    # Without a cache the repository is opened: it proves the same.
    client.define(more="--no-cache")
    client.sh("rm -r /var/cache/holdfast/vault")
    assert client.run(fails=False)["outcome"] == "ok"
    client.put("/var/lib/holdfast/repositories/vault.env", RECORD.format(first))
    assert client.run(fails=True)["reason"] == "another repository"
    client.know()


def test_disk_full(client: Client) -> None:
    """The repository's file system is full; restores need no space there."""
    client.sh("mkdir -p /srv/full; mount -t tmpfs -o size=4M none /srv/full")
    client.sh(
        f"RESTIC_PASSWORD_FILE=/etc/holdfast/secrets/vault.password {client.binary} --no-cache -r /srv/full/r init;"
        " chown -R holdfast: /srv/full"
    )
    client.put("/etc/holdfast/secrets/vault.repository", "/srv/full/r\n", 0o400)
    client.define(unit="ReadWritePaths=/srv/full")
    try:
        client.know()
        assert client.run(fails=False)["outcome"] == "ok"
        client.sh("head -c 30000000 /dev/urandom >/srv/data/big")
        found = client.run(fails=True)
        assert (found["outcome"], found["reason"]) == ("failed", "disk full")
        client.sh("cat /dev/zero >/srv/full/rest 2>/dev/null", check=False)
        client.sh("rm -rf /root/restored; holdfast restore system --target /root/restored")
        assert client.sh("cat /root/restored/srv/data/sub/two") == "two\n"
    finally:
        client.put("/etc/holdfast/secrets/vault.repository", "/srv/repository\n", 0o400)
        client.sh("umount /srv/full")
        client.know()


TELL = {"command": ["/bin/sh", "-c", 'sleep 12; echo "$HOLDFAST_OUTCOME, $HOLDFAST_REASON" >>/run/told']}


def _told(client: Client) -> list[str]:
    """What the user's command was told, once it was."""
    return client.sh("for i in $(seq 300); do [ -s /run/told ] && break; sleep 0.1; done; cat /run/told").splitlines()


def test_no_space_for_the_outcome(client: Client) -> None:
    """A bad run is told of and shown all the same, and the next good one takes place."""
    assert client.run(fails=False)["outcome"] == "ok"
    snapshots = client.snapshot_ids()
    client.define(paths=["/srv/gone"], on_failure=TELL)
    client.sh(
        "rm -f /run/told; cp -a /var/lib/holdfast /run/kept; mount -t tmpfs -o size=1M none /var/lib/holdfast;"
        " cp -a /run/kept/. /var/lib/holdfast/; rm -r /run/kept; cat /dev/zero >/var/lib/holdfast/rest 2>/dev/null",
        check=False,
    )
    try:
        client.sh(f"! systemctl start {SERVICE}")
        assert _told(client) == ["failed, source missing"]
        (unit,) = json.loads(client.sh("holdfast status --json"))["units"]
        assert (unit["outcome"], unit["reason"], unit["last_ok"]) == ("failed", "unknown", client.outcome()["last_ok"])
        assert "do not exist" in client.sh("holdfast log system")
        assert "No space left on device" in client.sh(f"journalctl -u 'holdfast-record@{UNIT}*'")
        client.define()
        client.sh(f"systemctl start {SERVICE}")
        assert len(client.snapshot_ids()) == len(snapshots) + 1
        # This waits for the one that is at work.
        client.sh(f"systemctl start holdfast-record@{UNIT}.service", check=False)
    finally:
        client.sh("umount /var/lib/holdfast")
    assert client.run(fails=False)["outcome"] == "ok"


def test_runs_end_while_somebody_is_told(client: Client) -> None:
    """A good one is the last on record afterwards; a bad one, whose recorder systemd does not start, is recorded too."""
    client.sh("rm -f /run/told")
    client.define(paths=["/srv/gone"], on_failure=TELL)
    first = client.run(fails=True)["invocation_id"]
    client.define(on_failure=TELL)
    good = client.run(fails=False)
    assert (good["outcome"], _told(client)) == ("ok", ["failed, source missing"])
    client.sh("sleep 1; rm -f /run/told")
    assert client.outcome() == good
    history = [
        json.loads(line) for line in client.sh(f"tail -n2 /var/lib/holdfast/outcomes/{UNIT}.history.jsonl").splitlines()
    ]
    assert [(each["invocation_id"], each["told"]) for each in history] == [(first, True), (good["invocation_id"], None)]
    client.define(paths=["/srv/gone"], on_failure=TELL)
    assert client.run(fails=True)["reason"] == "source missing"
    client.define(pre=[{"command": ["/bin/false"]}], on_failure=TELL)
    assert client.run(fails=True)["reason"] == "pre hook"
    assert client.told()
    assert _told(client) == ["failed, source missing", "failed, pre hook"]


SLOW = """\
[Service]
ExecStart=
ExecStart=/bin/sh -c 'sleep 4; exec /usr/local/bin/holdfast record %i'
"""


def test_run_waits_for_its_own_outcome(client: Client) -> None:
    """The recorder of the run before is slow."""
    client.sh("mkdir -p /etc/systemd/system/holdfast-record@.service.d")
    client.put("/etc/systemd/system/holdfast-record@.service.d/slow.conf", SLOW)
    client.define(pre=[{"command": ["/bin/false"]}])
    try:
        client.sh("holdfast run system --wait", check=False)
        client.define()
        client.sh(f"systemctl start {SERVICE}")
        client.define(paths=["/srv/gone"])
        said = client.sh("holdfast run system --wait && echo it is ok", check=False)
    finally:
        client.sh("rm -r /etc/systemd/system/holdfast-record@.service.d; systemctl daemon-reload")
    assert f"{UNIT}: failed, source missing" in said
    assert "it is ok" not in said


def _start_slow(client: Client) -> str:
    """Start a run that is still on its way when this returns; returns what was recorded before."""
    client.sh("head -c 60000000 /dev/urandom >/srv/data/big")
    before = client.recorded()
    client.sh(f"systemctl start --no-block {SERVICE}")
    client.sh("for i in $(seq 100); do pgrep -u holdfast restic && exit 0; sleep 0.1; done; exit 1")
    return before


def test_killed(client: Client) -> None:
    """SIGKILL of restic."""
    client.define(more="--limit-upload=3000 --pack-size=4")
    before = _start_slow(client)
    client.sh("sleep 1; pkill -KILL -u holdfast restic")
    found = client.wait_recorded(before)
    assert (found["outcome"], found["reason"], found["snapshot"]) == ("failed", "killed", None)


def test_stopped(client: Client) -> None:
    """systemctl stop in the middle."""
    client.define(more="--limit-upload=3000 --pack-size=4")
    before = _start_slow(client)
    client.sh(f"sleep 1; systemctl stop {SERVICE}")
    found = client.wait_recorded(before)
    assert (found["outcome"], found["reason"]) == ("failed", "interrupted")


def test_time_limit(client: Client) -> None:
    """The job's own time limit; restic has the time to remove its lock."""
    client.define(more="--limit-upload=3000 --pack-size=4", timeout=8)
    client.sh("head -c 60000000 /dev/urandom >/srv/data/big; rm -f /srv/repository/locks/*")
    before = client.recorded()
    client.sh(f"systemctl start --no-block {SERVICE}")
    client.sh("for i in $(seq 600); do ls /srv/repository/locks | grep -q . && exit; sleep 0.05; done; exit 1")
    found = client.wait_recorded(before)
    assert (found["outcome"], found["reason"], found["service_result"]) == ("failed", "timeout", "timeout")
    assert client.sh("ls /srv/repository/locks") == ""


def test_time_limit_over_rclone(client: Client) -> None:
    """What restic talks through is ended after it, or its lock would stay."""
    with zipfile.ZipFile(io.BytesIO(_release("rclone", "1.75.2"))) as archive:
        name = next(each for each in archive.namelist() if each.endswith("/rclone"))
        client.lab.put(client.name, "/usr/local/bin/rclone", archive.read(name), mode=0o755)
    client.put("/etc/holdfast/secrets/vault.repository", "rclone:/srv/repository/remote\n", 0o400)
    try:
        client.restic("init")
        client.sh("chown -R holdfast: /srv/repository/remote; head -c 60000000 /dev/urandom >/srv/data/big")
        client.know()
        client.define(more="--limit-upload=2000 --pack-size=4", timeout=10)
        before = client.recorded()
        client.sh(f"systemctl start --no-block {SERVICE}")
        client.sh(
            "for i in $(seq 600); do ls /srv/repository/remote/locks | grep -q . && exit; sleep 0.05; done; exit 1"
        )
        assert client.wait_recorded(before)["reason"] == "timeout"
        assert client.sh("ls /srv/repository/remote/locks") == ""
    finally:
        client.put("/etc/holdfast/secrets/vault.repository", "/srv/repository\n", 0o400)
        client.know()
        client.sh("rm -r /srv/repository/remote")


def test_time_limit_of_a_run_that_dumps(client: Client) -> None:
    """The dump is ended with its run, its command with restic, and no lock stays."""
    dumps = client.dump("/bin/sleep 600")
    client.define(paths=[], optional_paths=[], dumps=dumps, timeout=4)
    client.sh("rm -f /srv/repository/locks/*")
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"]) == ("failed", "timeout")
    client.sh(
        f"for i in $(seq 100); do systemctl -q is-active {DUMP_UNIT} || pgrep -x sleep || exit 0; sleep 0.1; done; exit 1"
    )
    assert client.sh("ls /srv/repository/locks") == ""


def test_hooks_are_told_of_the_time_limit(client: Client) -> None:
    """SIGTERM goes to the main process only, which passes it on to the hook."""
    command = "trap 'echo cleaned >/run/hook; exit' TERM; while :; do sleep 0.1; done"
    client.sh("rm -f /run/hook")
    client.define(pre=[{"command": ["/bin/sh", "-c", command]}], timeout=3)
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"]) == ("failed", "timeout")
    assert client.sh("cat /run/hook") == "cleaned\n"


def test_power_loss(client: Client) -> None:
    """A run that ended with the host itself is recorded at the next boot, and told of once."""
    client.define(
        more="--limit-upload=3000 --pack-size=4",
        on_failure={"command": ["/bin/sh", "-c", "echo $HOLDFAST_OUTCOME, $HOLDFAST_REASON >>/root/told"]},
    )
    assert client.run(fails=False)["outcome"] == "ok"
    last_ok = client.outcome()["last_ok"]
    before = _start_slow(client)
    client.sh("sync")
    client.lab.kill(client.name)
    client.lab.restart(client.name)
    client.sh("systemctl is-system-running --wait", check=False)
    found = client.wait_recorded(before)
    assert (found["outcome"], found["reason"]) == ("failed", "interrupted")
    assert client.told()
    assert found["started"] < found["ended"]
    assert (found["last_ok"], found["duration_seconds"]) == (last_ok, None)
    assert "the host went down" in client.sh("holdfast status")
    client.sh("systemctl start holdfast-interrupted.service; rm /srv/data/big")
    assert client.sh("cat /root/told; rm /root/told") == "failed, interrupted\n"
    # The lock of a process that is gone hinders nobody.
    assert client.run(fails=False)["outcome"] == "ok"


def _lock(client: Client) -> None:
    """Let somebody hold the repository for himself until the process in /run/locker ends."""
    locker = "RESTIC_PASSWORD_FILE=/etc/holdfast/secrets/vault.password"
    # `check` holds an exclusive lock; stopped in the middle, it holds it for as long as the test needs.
    client.sh(
        f"rm -f /srv/repository/locks/*; {locker} {client.binary} -r /srv/repository --no-cache --limit-download=100 check --read-data"
        " >/dev/null 2>&1 & echo $! >/run/locker;"
        # A longer name is that of a lock which is not whole yet.
        " for i in $(seq 1500); do ls /srv/repository/locks | grep -Eqx '.{64}' && kill -STOP $(cat /run/locker) && exit; sleep 0.02;"
        " done; exit 1"
    )


def test_locked(client: Client) -> None:
    """Somebody else holds the repository for himself."""
    _lock(client)
    try:
        found = client.run(fails=True)
    finally:
        client.sh("kill -CONT $(cat /run/locker); while kill -0 $(cat /run/locker) 2>/dev/null; do sleep 0.1; done")
    assert (found["outcome"], found["reason"], found["exit_status"]) == ("failed", "locked", 11)


def test_unlock(client: Client) -> None:
    """The exclusive lock of a check that was killed stops every run until somebody removes it; that of a living one stays."""
    _lock(client)
    try:
        assert "vault is in use by root on " in client.sh("holdfast unlock system", check=False)
        assert client.sh("ls /srv/repository/locks") != ""
    finally:
        client.sh("kill -KILL $(cat /run/locker); while kill -0 $(cat /run/locker) 2>/dev/null; do sleep 0.1; done")
    found = client.run(fails=True)
    assert (found["outcome"], found["reason"]) == ("failed", "locked")
    # Another program has its process id by now, as after a boot: it goes on.
    client.sh(
        "echo $(($(cat /run/locker) - 1)) >/proc/sys/kernel/ns_last_pid; sleep 300 </dev/null >/dev/null 2>&1 & echo $! >/run/other"
    )
    assert "locks that were removed: 1" in client.sh(f"holdfast unlock {UNIT}")
    client.sh("kill $(cat /run/other)")
    assert client.sh("ls /srv/repository/locks") == ""
    assert client.run(fails=False)["outcome"] == "ok"


def test_unlock_is_refused_while_a_run_goes_on(client: Client) -> None:
    """Its lock is there for as long as it runs."""
    client.define(more="--limit-upload=10000 --pack-size=4")
    before = _start_slow(client)
    refused = client.sh("holdfast unlock system", check=False)
    assert f"vault is in use by {SERVICE}, whose lock it is" in refused
    assert client.wait_recorded(before)["outcome"] == "ok"
    client.sh("rm /srv/data/big")


def test_people(client: Client) -> None:
    """run, status, log, snapshots and restore, as root on the host, without a password anywhere."""
    client.sh("chmod 640 /srv/data/sub/two; chown ops:ops /srv/data/sub/two; setfacl -m u:ops:r /srv/data/one")
    client.sh("truncate -s 64M /srv/data/hole; echo end >>/srv/data/hole")
    said = client.sh("holdfast run system --wait")
    assert f"{UNIT}: ok in" in said
    client.define(paths=["/srv/data", "/srv/gone"])
    assert "incomplete, source missing" in client.sh("holdfast run system --wait", check=False)
    client.define()

    before = client.snapshot_ids()
    history = client.recorded()
    dry = client.sh("holdfast run system --dry-run")
    assert "dry run, nothing is saved" in dry
    assert "would add" in dry
    assert client.snapshot_ids() == before
    assert client.recorded() == history
    assert client.sh("systemctl list-units --all --plain --no-legend 'holdfast-dry-run*'") == ""

    state = json.loads(client.sh("holdfast status --json"))
    (unit,) = state["units"]
    assert (unit["unit"], unit["outcome"], unit["reason"]) == (UNIT, "incomplete", "source missing")
    assert unit["running"] is False
    assert unit["age_seconds"] < 120
    assert "source missing" in client.sh("holdfast status")
    log = client.sh("holdfast log system")
    assert "outcome: incomplete, source missing" in log
    assert "message_type" not in log

    listed = json.loads(client.sh("holdfast snapshots system --json"))
    assert [each["id"] for each in listed["snapshots"]] == before
    assert before[-1][:8] in client.sh("holdfast snapshots system")

    client.sh("rm -rf /srv/out; holdfast restore system --target /srv/out", timeout=60)
    client.sh("diff -r /srv/data /srv/out/srv/data")
    stat = "cd {}; find . -printf '%p %m %u %g %T@\\n' | sort; getfacl -R ."
    assert client.sh(stat.format("/srv/data")) == client.sh(stat.format("/srv/out/srv/data"))
    # What was a hole takes no room.
    assert int(client.sh("stat -c %b /srv/out/srv/data/hole")) * 512 < 1_000_000
    client.sh("rm /srv/data/hole")
    refused = client.sh("holdfast restore system --target /srv/out", check=False)
    assert "not empty" in refused
    client.sh("echo changed >/srv/data/sub/two; holdfast restore system --target / --force --path /srv/data/sub/two")
    assert client.sh("cat /srv/data/sub/two") == "two\n"
    assert "only root" in client.lab.exec(client.name, ["holdfast", "status"], user="ops").stderr
    assert client.sh("holdfast log nothing", check=False).startswith("holdfast: there is no job 'nothing'")


@pytest.mark.parametrize("wanted", ["", "--path /etc/ --path /var"])
def test_an_older_snapshot_in_place_takes_no_password_back(client: Client, wanted: str) -> None:
    """The repository's password was changed since, and nobody else has the new one."""
    secret = "/etc/holdfast/secrets/vault.password"
    client.sh("mkdir -p /etc/probe /var/lib/probe; for each in /etc /var/lib; do echo old >$each/probe/one; done")
    client.define(paths=["/srv/data", "/etc/holdfast", "/etc/probe", "/var/lib/holdfast", "/var/lib/probe"])
    client.run(fails=False)
    saved = client.sh(f"cat {secret}")
    record = client.sh("cat /var/lib/holdfast/repositories/vault.env")
    client.sh(
        f"printf 'the next one' >/root/next; {client.binary} -r /srv/repository --password-file {secret} --quiet key add"
        f" --new-password-file /root/next; cat /root/next >{secret}; chown -R holdfast: /srv/repository;"
        " for each in /etc /var/lib; do echo new >$each/probe/one; done; echo new >/var/lib/holdfast/repositories/vault.env"
    )
    try:
        refused = client.sh(f"holdfast restore system --target / --force --path {secret}", check=False)
        assert f"--path {secret} is what this host's backups go by today" in refused
        refused = client.sh(f"holdfast restore system --target / --force {wanted}", check=False)
        assert "others than root may change /" in refused
        wanted += " --trust-users"
        dry = client.sh(f"holdfast restore system --target / --force --dry-run {wanted}")
        assert "would stay as they are on this host" in dry
        said = client.sh(f"holdfast restore system --target / --force {wanted}")
        assert "/etc/holdfast and /var/lib/holdfast stay as they are on this host" in said
        assert client.sh("cat /etc/probe/one /var/lib/probe/one") == "old\nold\n"
        assert client.sh(f"cat {secret}; cat /var/lib/holdfast/repositories/vault.env") == "the next onenew\n"
        client.sh(f"rm -rf /srv/out; holdfast restore system --target /srv/out {wanted}")
        assert client.sh(f"cat /srv/out{secret}") == saved
    finally:
        client.put(secret, saved, 0o400)
        client.put("/var/lib/holdfast/repositories/vault.env", record)
        client.sh("rm -rf /etc/probe /var/lib/probe /srv/out /root/next")
        client.define()


def test_people_look_while_a_backup_runs(client: Client) -> None:
    """snapshots and restore answer in the middle of a run, with its lock there, and the run goes on to its end."""
    client.sh("rm -f /srv/repository/locks/*; rm -rf /srv/out /srv/before")
    client.run(fails=False)
    have = client.snapshot_ids()
    client.sh("cp -a /srv/data /srv/before")
    client.define(more="--limit-upload=10000 --pack-size=4")
    before = _start_slow(client)
    # Stopped in the middle, it holds its lock for as long as the test needs. A longer name is that of a lock which is not whole yet.
    client.sh(
        "for i in $(seq 1500); do ls /srv/repository/locks | grep -Eqx '.{64}' && pkill -STOP -u holdfast restic && exit; sleep 0.02;"
        " done; exit 1"
    )
    try:
        locks = client.sh("ls /srv/repository/locks")
        listed = json.loads(client.sh("holdfast snapshots system --json"))["snapshots"]
        assert {each["id"] for each in listed} == set(have)
        client.sh("holdfast restore system --target /srv/out", timeout=60)
        client.sh("diff -r /srv/before /srv/out/srv/data")
        # It ran all the while, and nothing of who looked is left in its way.
        assert client.sh(f"systemctl is-active {SERVICE}", check=False).strip() == "activating"
        assert client.sh("ls /srv/repository/locks") == locks
    finally:
        client.sh("pkill -CONT -u holdfast restic")
    found = client.wait_recorded(before)
    assert found["outcome"] == "ok", found
    assert len(client.snapshot_ids()) == len(have) + 1


def test_holes_stay_holes_beside_what_is_there(client: Client) -> None:
    """What lies where a hole is to be is no part of the file, and what is new takes no space for its holes."""
    client.sh(
        """
        truncate -s 64M /srv/data/there /srv/data/new; echo end | tee -a /srv/data/there >>/srv/data/new
        rm -rf /srv/out; mkdir -p /srv/out/srv/data; head -c 70M /dev/urandom >/srv/out/srv/data/there
        """
    )
    client.run(fails=False)
    said = client.sh(
        "holdfast restore system --target /srv/out --force; diff -r /srv/data /srv/out/srv/data; du -k /srv/out/srv/data/new"
    )
    assert int(said.splitlines()[-1].split()[0]) < 1024, said
    client.sh("rm -rf /srv/out")


def test_people_ask_a_distant_repository_for_little(client: Client) -> None:
    """Without a cache restic asks once for each directory and pass. Root's is its own, and a disk without room for it is none in the way."""
    _install_rest_server(client)
    url = "rest:http://127.0.0.1:8001/"
    client.sh(
        """
        systemd-run -q --unit=distant rest-server --no-auth --listen 127.0.0.1:8001 --path /srv/distant --log /run/distant.log
        sleep 1; mkdir -p /srv/data/many/{1..50}; for each in /srv/data/many/*; do echo $each >$each/file; done
        rm -rf /var/cache/holdfast-root
        """
    )
    ask = """
        : >/run/distant.log; rm -rf /srv/out
        holdfast snapshots system >/dev/null
        holdfast restore system --target /srv/out >/dev/null 2>&1
        diff -r /srv/data /srv/out/srv/data
        grep -c GET /run/distant.log
    """
    cache = "/var/cache/holdfast-root"
    try:
        client.put("/etc/holdfast/secrets/vault.repository", f"{url}\n", 0o400)
        client.restic("init")
        client.restic("backup", "--tag=job:system", "/srv/data")
        client.define(access="url")
        asked = int(client.sh(ask))
        assert asked < 40, client.sh("cat /run/distant.log")
        assert client.sh(f"stat -c '%a %U' {cache}") == "700 root\n"
        # Neither what cannot be written nor what is full is a reason not to restore.
        for options in ("ro", "size=16k"):
            client.sh(f"rm -rf {cache}/*; mount -t tmpfs -o {options} none {cache}")
            try:
                client.sh(f"holdfast restore system --target /srv/out --dry-run; {ask}")
            finally:
                client.sh(f"umount {cache}")
    finally:
        client.put("/etc/holdfast/secrets/vault.repository", "/srv/repository\n", 0o400)
        client.sh("systemctl stop distant; rm -rf /srv/distant /srv/out")
        client.define()


# Root's borg, by that of the account that the repository belongs to.
BORG = """
set -e
run() {
    BORG_BASE_DIR=/run/other-borg BORG_PASSCOMMAND='cat /etc/holdfast/secrets/vault.password' \\
        BORG_RSH='setsid -w setpriv --reset-env --init-groups --regid=holdfast --reuid=holdfast env -u' borg "$@"
}
"""


@pytest.fixture
def archive(client: Client) -> str:
    """A repository of borg on the host itself, with an archive; the job's definition is of it. Returns borg's name of it."""
    client.put("/etc/holdfast/secrets/archive.repository", "/srv/archive\n", 0o400)
    borg = {
        "binary": "/usr/bin/borg",
        "encryption": "repokey-blake2",
        "key_file": "/etc/holdfast/secrets/archive.borg_key",
        "ssh_command": None,
    }
    client.define(
        engine="borg",
        binary="/usr/bin/borgmatic",
        borg=borg,
        repository_file="/etc/holdfast/secrets/archive.repository",
    )
    place = "ssh://holdfast/srv/archive"
    client.sh(
        f"""
        {BORG}
        rm -rf /srv/archive /srv/out /run/feed
        install -d -o holdfast -g holdfast -m 700 /srv/archive
        run init --encryption repokey-blake2 {place}
        run create --comment holdfast,job:system {place}::web1--system--2026-01-01T00:00:00.000000 /srv/data
        """
    )
    return place


def test_people_look_while_a_backup_of_borg_runs(client: Client, archive: str) -> None:
    """Borg, whose lock lets nobody else in: snapshots and restore go past it, and the backup goes on to its end."""
    said = client.sh(
        f"""
        {BORG}
        mkfifo /run/feed
        # It reads until it is told that this is all.
        run create --comment holdfast,job:system {archive}::web1--system--2026-01-02T00:00:00.000000 - </run/feed & pid=$!
        exec 9>/run/feed
        for each in $(seq 300); do ls /srv/archive/lock.exclusive 2>/dev/null | grep . && break; sleep 0.1; done
        holdfast snapshots system --json >/run/looked
        timeout 60 holdfast restore system --target /srv/out
        diff -r /srv/data /srv/out/srv/data
        ls /srv/archive/lock.exclusive | grep .
        kill -0 $pid
        echo end of it >&9
        exec 9>&-
        wait $pid
        ! test -e /srv/archive/lock.exclusive
        """
    )
    (listed,) = json.loads(client.sh("cat /run/looked"))["snapshots"]
    assert f"snapshot {listed['id'][:8]} is restored" in said
    after = json.loads(client.sh("holdfast snapshots system --json"))["snapshots"]
    assert [each["id"] for each in after][:1] == [listed["id"]]
    assert len(after) == 2


@pytest.mark.usefixtures("archive")
def test_what_the_account_plants_in_a_repository_of_borg_leads_root_nowhere(client: Client) -> None:
    """An index that is missing is made anew by whoever opens the repository, through a link that may lie there."""
    asked = "holdfast snapshots system --json", "holdfast restore system --target /srv/out"
    for ask in asked:
        said = client.sh(
            f"""
            echo kept >/run/victim; cd /srv/archive; last=$(ls | sed -n 's/^index\\.//p')
            for each in index hints integrity; do rm $each.$last; ln -s /run/victim $each.$last.tmp; done
            cd /; {ask} >/dev/null 2>&1 || echo refused
            cat /run/victim; rm /srv/archive/*.tmp; {ask} >/dev/null 2>&1 && echo done
            find /srv/archive ! -user holdfast
            """
        )
        assert said == "refused\nkept\ndone\n"


def test_mount(client: Client) -> None:
    """What was saved is there to look at for root alone, backups go on meanwhile, and nothing is left mounted."""
    assert "apt install fuse3" in client.sh("holdfast mount system /mnt", check=False)
    client.sh("apt-get install -q -y fuse3 >/dev/null; mkdir -p /srv/look")
    client.run(fails=False)
    look = """
        rm -f /run/look
        holdfast mount system /srv/look </dev/null >/run/look 2>&1 & pid=$!
        for each in $(seq 300); do grep -qs 'is mounted on' /run/look && break; sleep 0.1; done
        set -e
        diff -r /srv/data /srv/look/snapshots/latest/srv/data
        ! runuser -u nobody -- ls /srv/look 2>/dev/null
        ! ls /srv/repository/locks | grep .
        systemctl start {service}
        {end}
        wait $pid
        ! mountpoint -q /srv/look
        ! pgrep -x restic
        cat /run/look
    """
    # The last one with somebody in it.
    for end in ("kill -INT $pid", "umount /srv/look", "cd /srv/look; kill -TERM $pid"):
        said = client.sh(look.format(service=SERVICE, end=end))
        assert f"{UNIT} is mounted on /srv/look" in said
    assert "is not empty" in client.sh("holdfast mount system /srv", check=False)


def test_status_of_a_running_one(client: Client) -> None:
    """The share of a run that is on its way."""
    client.define(more="--limit-upload=3000 --pack-size=4", unit="Environment=RESTIC_PROGRESS_FPS=5")
    before = _start_slow(client)
    try:
        deadline = time.monotonic() + 60
        unit: dict[str, Any] = {}
        while not unit.get("percent_done") and time.monotonic() < deadline:
            (unit,) = json.loads(client.sh("holdfast status --json"))["units"]
        assert unit["running"] is True
        assert 0 < unit["percent_done"] <= 100
        assert "already running" in client.sh("holdfast run system")
    finally:
        client.sh(f"systemctl stop {SERVICE}")
        client.wait_recorded(before)


def test_rest_password_rotation(client: Client) -> None:
    """When the server has switched to the next password, the run finds out, promotes it and uses it at once."""
    _install_rest_server(client)
    hashes = {word: bcrypt.hashpw(word.encode(), bcrypt.gensalt(5)).decode() for word in ("first-word", "second-word")}
    url = "rest:http://127.0.0.1:8000/web1--vault/"
    identity = {
        "format": 1,
        "rest": {
            "user": "web1--vault",
            "current": {"password": "first-word", "hash": hashes["first-word"]},
            "next": {"password": "second-word", "hash": hashes["second-word"]},
        },
        "escrow": {"salt": "00" * 32, "fingerprint": "ab" * 16, "previous": None, "previous_until": 0},
    }
    client.put("/etc/holdfast/secrets/vault.identity", json.dumps(identity), 0o400)
    with_first = url.replace("://", "://web1--vault:first-word@")
    client.put("/etc/holdfast/secrets/vault.repository", with_first + "\n", 0o400)
    client.put("/run/htpasswd", f"web1--vault:{hashes['first-word']}\n")
    client.sh(
        "systemd-run --unit=rest /usr/local/bin/rest-server --listen 127.0.0.1:8000 --path /srv/rest --private-repos"
        " --htpasswd-file /run/htpasswd; sleep 1"
    )
    try:
        client.restic("init")
        client.know()
        client.define(access="rest", rest={"user": "web1--vault", "url": url})
        assert client.run(fails=False)["outcome"] == "ok"
        assert json.loads(client.sh("cat /etc/holdfast/secrets/vault.identity"))["rest"]["next"] is not None

        client.put("/run/htpasswd", f"web1--vault:{hashes['second-word']}\n")
        client.sh("systemctl kill --signal=HUP rest; sleep 1")
        assert client.run(fails=False)["outcome"] == "ok"
        rest = json.loads(client.sh("cat /etc/holdfast/secrets/vault.identity"))["rest"]
        assert (rest["current"]["password"], rest["next"]) == ("second-word", None)
        modes = client.sh("stat -c '%a %U' /etc/holdfast/secrets/vault.identity /etc/holdfast/secrets/vault.repository")
        assert modes == "400 root\n400 root\n"

        client.put("/run/htpasswd", f"web1--vault:{bcrypt.hashpw(b'third', bcrypt.gensalt(5)).decode()}\n")
        client.sh("systemctl kill --signal=HUP rest; sleep 1")
        found = client.run(fails=True)
        assert (found["outcome"], found["reason"]) == ("failed", "wrong credentials")
        assert "second-word" not in json.dumps(found)

        client.sh("systemctl stop rest")
        client.define(access="rest", rest={"user": "web1--vault", "url": url}, timeout=5)
        found = client.run(fails=True)
        assert (found["outcome"], found["reason"]) == ("failed", "unreachable")
        assert "second-word" not in client.sh("journalctl --no-pager")
    finally:
        client.put("/etc/holdfast/secrets/vault.repository", "/srv/repository\n", 0o400)
        client.know()
        client.sh("systemctl stop rest; rm -rf /srv/rest /etc/holdfast/secrets/vault.identity", check=False)
