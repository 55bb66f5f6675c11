"""Two clients, one proxy, a directory of it and a bucket: own data served, everything else refused, errors told apart."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from tests.scenario import Scenario

SECRET = "canary-0b7c2f-s3-secret"
# What web1 itself holds for its repository `direct`.
DIRECT_SECRET = "canary-5e9d31-web1-secret"
DIRECT = "/srv/store/company-backups/direct/web1"
BUCKET = "/srv/store/company-backups/fleet"
PORT = 9900
# A lock that is none of restic's, with a name like those of restic.
LOCK = f"/locks/{hashlib.sha256(b'x').hexdigest()}"
LEGITIMATE = [("GET", "/config", ""), ("POST", LOCK, "x"), ("DELETE", LOCK, "")]
LAYOUT = "/usr/local/libexec/holdfast/restic-layout"
# A program that passes on everything.
PASSES = "#!/bin/sh\nexec cat\n"
# What curl says when the session ended instead of an answer.
ENDED = 0
SSH = ["ssh", "-F", "/etc/holdfast/ssh/{0}.conf", "-i", "/etc/holdfast/secrets/{0}.ssh_key", "holdfast-{0}", "anything"]
KINDS = {"offsite": ("store1", f"{BUCKET}/{{0}}--offsite"), "directory": ("proxy1", "/srv/holdfast-ssh/{0}--directory")}


@pytest.fixture(scope="module")
def scenario() -> Iterator[Scenario]:
    found = Scenario()
    for name in ("bridge.py", "hold.py"):
        found.lab.put("web1", f"/root/{name}", Path(__file__).with_name(name).read_bytes())
    yield found
    fault(found, "")


def fault(scenario: Scenario, text: str) -> None:
    """What the store answers with from now on; nothing for its own answers."""
    scenario.on("store1", f"echo '{text}' >/run/fault")


def backup(
    scenario: Scenario, client: str, repository: str, *, job: str = "system", limit: float = 120
) -> dict[str, Any]:
    """Back up once and return the outcome."""
    unit = f"{job}--{repository}"
    scenario.run(client, f"timeout {limit} holdfast run {unit} --wait", timeout=limit + 60)
    return dict(json.loads(scenario.on(client, f"cat /var/lib/holdfast/outcomes/{unit}.json")))


@contextmanager
def replaced_layout(scenario: Scenario, text: str, edit: str = "") -> Iterator[None]:
    """Another program, if any, in the place of what reads along, or an edited one."""
    scenario.on("proxy1", f"cp -a {LAYOUT} /root/layout")
    if text:
        scenario.run("proxy1", f"cat >{LAYOUT}", stdin=text.encode())
    elif edit:
        scenario.on("proxy1", f"{edit} {LAYOUT}; ! cmp -s {LAYOUT} /root/layout")
    try:
        yield
    finally:
        scenario.on("proxy1", f"cp -a /root/layout {LAYOUT}")


def files(scenario: Scenario, host: str, path: str) -> dict[str, str]:
    """SHA-256 of every file below a directory, by path."""
    lines = scenario.on(host, f"cd {path} && find . -type f -exec sha256sum {{}} +").splitlines()
    return {line[66:]: line[:64] for line in lines}


def snapshots(scenario: Scenario, path: str) -> list[str]:
    """Snapshots of a repository in the store."""
    return [name for name in files(scenario, "store1", path) if name.startswith("./snapshots/")]


def requests(scenario: Scenario, repository: str, *asked: tuple[str, str, str], user: str = "root") -> list[int]:
    """HTTP statuses of requests with the client's own key, paths as they are.

    All of them are one SSH session, and what comes after the end of one has a new session. Standard error is in /tmp/said.
    """
    command = shlex.join(word.format(repository) for word in SSH)
    words = []
    for method, path, body in asked:
        words.append(
            f"--next --http2-prior-knowledge -s -m 60 -o /tmp/answer -w '%{{http_code}}\\n' --path-as-is -X {method}"
        )
        words.append(
            f"{f'--data-binary {shlex.quote(body)} ' if body else ''}{shlex.quote(f'http://127.0.0.1:{PORT}{path}')}"
        )
    script = (
        f"python3 /root/bridge.py {PORT} {command} 2>/tmp/said & bridge=$!\n"
        f"until ss -Hltn sport = :{PORT} | grep -q .; do sleep 0.1; done\n"
        f"curl {' '.join(words).removeprefix('--next ')}; kill $bridge; wait $bridge 2>/dev/null; true"
    )
    return [int(line) for line in scenario.on("web1", script).split()]


def cut_off(scenario: Scenario, repository: str, attacks: list[tuple[str, str, str]], words: str = "") -> None:
    """Each request ends its session with the server's own words, and what is asked just before and just after is answered."""
    asked = [request for attack in attacks for request in (*LEGITIMATE, attack)]
    statuses = requests(scenario, repository, *asked, *LEGITIMATE)
    said = scenario.on("web1", "cat /tmp/said")
    assert statuses == [*[200, 200, 200, ENDED] * len(attacks), 200, 200, 200], said
    for method, path, _body in attacks:
        why = words.format(path) if words else f"{method!r} {path!r} is no part of restic's layout"
        assert f"holdfast: web1--{repository}: refused: {why}" in said


# --- what is there


def test_rclone_is_the_pinned_release(scenario: Scenario) -> None:
    assert "rclone v1.75" in scenario.on("proxy1", "/usr/local/bin/rclone version")
    assert scenario.run("proxy1", "test -e /usr/bin/rclone").returncode == 1


def test_a_shell_as_a_client_gets_no_other_remotes_secret(scenario: Scenario) -> None:
    for remote, group, members in (
        ("s3-offsite", "hfr-s3-offsite", {"bk-web1", "bk-db1"}),
        ("s3-second", "hfr-s3-second", {"bk-db1"}),
    ):
        path = f"/etc/holdfast/rclone/{remote}.conf"
        assert scenario.on("proxy1", f"stat -c '%U %G %a' {path}").split() == ["root", group, "640"]
        assert set(scenario.on("proxy1", f"getent group {group}").strip().split(":")[3].split(",")) == members
        for account in ("bk-web1", "bk-db1", "nobody"):
            read = scenario.run("proxy1", f"setpriv --reuid={account} --regid=nogroup --init-groups cat {path}")
            assert (SECRET in read.stdout) == (account in members), (remote, account)


def test_backup_restored_and_compared(scenario: Scenario) -> None:
    web1, db1 = ("offsite", "directory", "direct"), ("offsite", "second")
    for client, repository in [*(("web1", each) for each in web1), *(("db1", each) for each in db1)]:
        assert backup(scenario, client, repository)["outcome"] == "ok", (client, repository)
    for repository in web1:
        scenario.on("web1", f"holdfast restore system--{repository} --target /root/back-{repository}")
        # The job itself may write below /etc between the backup and now; nothing here does.
        scenario.on("web1", f"diff -r --no-dereference /etc /root/back-{repository}/etc")


def test_a_file_larger_than_a_part_is_uploaded_in_parts(scenario: Scenario) -> None:
    """As chunk_size says; rclone's own limit for one part is above any pack."""
    scenario.on("web1", "head -c 30000000 /dev/urandom >/etc/large")
    scenario.on("store1", "rm /run/requests")
    assert backup(scenario, "web1", "offsite")["outcome"] == "ok"
    parts: dict[str, list[int]] = {}
    for line in scenario.on("store1", "cat /run/requests").splitlines():
        method, _space, location = line.partition(" ")
        path, _mark, query = location.partition("?")
        asked = parse_qs(query)
        if method == "PUT" and {"uploadId", "partNumber"} <= set(asked):
            parts.setdefault(path, []).append(int(asked["partNumber"][0]))
    size = f"stat -c %s {BUCKET}/web1--offsite/data"
    for path, numbers in parts.items():
        pack = path.partition("/web1--offsite/data")[2]
        assert pack, path
        wanted = -(-int(scenario.on("store1", f"{size}{pack}")) // (5 * 1024 * 1024))
        assert sorted(numbers) == list(range(1, wanted + 1)), path
    assert parts


def test_files_are_the_accounts_own(scenario: Scenario) -> None:
    modes = scenario.on("proxy1", "find /srv/holdfast-ssh/web1--directory -printf '%U %m\\n' | sort -u").split("\n")
    uid = scenario.on("proxy1", "id -u bk-web1").strip()
    assert {line for line in modes if line} == {f"{uid} 700", f"{uid} 600"}


# --- what a client with its own key cannot do


@pytest.mark.parametrize("repository", KINDS)
def test_append_only_and_nothing_outside_the_own_repository(scenario: Scenario, repository: str) -> None:
    host, pattern = KINDS[repository]
    own, other = pattern.format("web1"), pattern.format("db1")
    before, others = files(scenario, host, own), files(scenario, host, other)
    key = next(name for name in before if name.startswith("./keys/"))[1:]
    pack = "/data/" + next(name for name in before if name.startswith("./data/")).rsplit("/", 1)[1]
    snapshot = next(name for name in before if name.startswith("./snapshots/"))[1:]
    index = next(name for name in before if name.startswith("./index/"))[1:]
    victim = f"/db1--{repository}"
    positive = [("GET", key, ""), *LEGITIMATE]
    objects = (key, pack, index, snapshot)
    attacks = [("POST", "/config", "x"), *(("DELETE", path, "") for path in ("/config", *objects))]
    changed = [("POST", path, "x") for path in objects]
    tricks = [
        ("GET", f"/..{victim}/config", ""), ("GET", f"/%2e%2e{victim}/config", ""), ("GET", f"/..%2fdb1--{repository}/config", ""),
        ("POST", f"/..{victim}/keys/new", "x"), ("POST", f"/%2e%2e{victim}/keys/new", "x"), ("POST", f"/keys/../..{victim}/keys/n", "x"),
        ("POST", f"//..{victim}/keys/new", "x"), ("DELETE", f"/locks/..{key}", ""), ("DELETE", f"/keys/../locks/../{key[1:]}", ""),
        ("POST", f"/.{key}", "x"), ("POST", f"/{key}", "x"), ("DELETE", f"{key}/../locks/x", ""), ("GET", f"{victim}/config", ""),
        ("POST", "/data/" + pack.rsplit("/", 1)[1][:2] + "/" + pack.rsplit("/", 1)[1], "x"),
    ]  # fmt: skip
    statuses = requests(scenario, repository, *positive, *attacks, *positive)
    assert statuses == [*[200] * 4, *[403] * len(attacks), *[200] * 4]
    cut_off(scenario, repository, changed, "another content than {!r} has by its name")
    cut_off(scenario, repository, tricks)
    assert files(scenario, host, own) == before
    assert files(scenario, host, other) == others
    assert backup(scenario, "web1", repository)["outcome"] == "ok"


ODD = [
    "/junk", "/data/xyz", "/snapshots/../x", "/foo/bar", "/elsewhere/x", f"/data/{'A' * 64}", f"/data/{'a' * 63}", f"/keys/{'a' * 64}/x",
    "/config/x", "/?create=false", "/file-1", "/snapshots/",
]  # fmt: skip


@pytest.mark.parametrize("repository", KINDS)
def test_only_restics_own_layout(scenario: Scenario, repository: str) -> None:
    host, pattern = KINDS[repository]
    below = pattern.rsplit("/", 1)[0]
    before = files(scenario, host, below)
    cut_off(scenario, repository, [("POST", path, "junk") for path in ODD])
    assert files(scenario, host, below) == before
    listed = scenario.on(host, f"ls {pattern.format('web1')}").split()
    assert set(listed) <= {"config", "data", "index", "keys", "locks", "snapshots"}
    assert backup(scenario, "web1", repository)["outcome"] == "ok"


def held(scenario: Scenario, repository: str, kind: str, seconds: int = 0) -> str:
    """What hold.py is answered."""
    command = shlex.join(word.format(repository) for word in SSH)
    return scenario.on("web1", f"python3 /root/hold.py {kind} {seconds} {command} 2>/tmp/said").strip()


@pytest.mark.parametrize("reads_along", [True, False])
def test_an_upload_that_began_before_a_file_was_there_does_not_replace_it(
    scenario: Scenario, reads_along: bool
) -> None:
    """Without what reads along it does: rclone looks when an upload begins, and only for its own session."""
    host, own = KINDS["offsite"][0], KINDS["offsite"][1].format("web1")
    before = files(scenario, host, own)
    with replaced_layout(scenario, "" if reads_along else PASSES):
        statuses = held(scenario, "offsite", "late").split()
    (added,) = set(files(scenario, host, own).items()) - set(before.items())
    name, digest = added
    scenario.on(host, f"rm {own}/{name}")
    assert statuses == ["200", "ended" if reads_along else "200"]
    assert (name.rsplit("/", 1)[1] == digest) == reads_along
    if reads_along:
        said = scenario.on("web1", "cat /tmp/said")
        assert f"holdfast: web1--offsite: refused: another content than '/data/{digest}' has by its name" in said


@pytest.mark.parametrize("limited", [True, False])
def test_a_file_that_is_there_for_long_is_not_taken_back(scenario: Scenario, limited: bool) -> None:
    """Rclone removes what an upload that is broken off has left in a directory: it may not be held open for long."""
    host, own = KINDS["directory"][0], KINDS["directory"][1].format("web1")
    before = files(scenario, host, own)
    shorter = "s/^UPLOAD_SECONDS = 86400$/UPLOAD_SECONDS = 3/; s/^LOOK_SECONDS = 60$/LOOK_SECONDS = 1/"
    with replaced_layout(scenario, "" if limited else PASSES, f"sed -i '{shorter}'"):
        statuses = held(scenario, "directory", "long", 6).split()
    # It could be read; then it is dropped and the session goes on, or it goes when the client says so.
    assert statuses == ["200", "404" if limited else "200", "200", "404"]
    assert files(scenario, host, own) == before


def test_the_same_names_are_taken_where_nothing_reads_along(scenario: Scenario) -> None:
    """The control: rclone itself takes them."""
    own = KINDS["directory"][1].format("web1")
    with replaced_layout(scenario, PASSES):
        assert requests(scenario, "directory", ("POST", "/foo/bar", "junk")) == [200]
        assert scenario.on("proxy1", f"cat {own}/foo/bar") == "junk"
    scenario.on("proxy1", f"rm -rf {own}/foo")
    assert requests(scenario, "directory", ("POST", "/foo/bar", "junk")) == [ENDED]


@pytest.mark.parametrize("said", ["GET /config HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\5\0\0\0\0\1"])
def test_what_is_not_understood_ends_the_session(scenario: Scenario, said: str) -> None:
    command = shlex.join(word.format("directory") for word in SSH)
    done = scenario.run(
        "web1", f"cat >/root/said; (cat /root/said; sleep 30) | timeout 20 {command} >/dev/null", stdin=said.encode()
    )
    assert done.returncode == 77
    assert "holdfast: web1--directory: refused: " in done.stderr


@pytest.mark.parametrize(("client", "repository"), [("web1", "directory"), ("db1", "offsite")])
def test_what_people_do_with_restic_works(scenario: Scenario, client: str, repository: str) -> None:
    """Other commands than those of a job: of restic 0.18 and of 0.19."""
    ssh = shlex.join(word.format(repository) for word in SSH)
    secrets = f"/etc/holdfast/secrets/{repository}"
    restic = f"timeout 200 restic -r rclone: -o rclone.program='{ssh}' --password-file {secrets}.password"
    again = f"printf other >/root/other; {restic} key add --new-password-file /root/other"
    for command in (
        f"{restic} check --read-data",
        f"{restic} snapshots",
        f"{restic} key list",
        again,
        f"{restic} unlock --remove-all",
    ):
        scenario.on(client, command, timeout=300)
    # What is append-only refuses, restic is told so, and what it leaves behind stops no backup.
    added = scenario.on(client, f"{restic} key list --json | python3 -c 'import json, sys; print(*[k[\"id\"] for k in json.load(sys.stdin)"
                        " if not k[\"current\"]])'").split()  # fmt: skip
    refused = scenario.run(client, f"{restic} key remove {added[0]}", timeout=300)
    assert refused.returncode != 0
    assert "403" in refused.stderr
    assert backup(scenario, client, repository)["outcome"] == "ok"


@pytest.mark.parametrize("victim", ["client", "rclone", "restic-layout", "serve"])
@pytest.mark.parametrize("repository", KINDS)
def test_a_session_ends_as_a_whole(scenario: Scenario, repository: str, victim: str) -> None:
    # sshd itself and the shell that it starts the command with are no part of it.
    running = "ps -u bk-web1 -o stat=,comm= | grep -v -e sshd -e ' sh$' || true"
    count = "$(ps -u bk-web1 -o comm= | grep -Ecx 'rclone|restic-layout|serve')"
    wait = f"n=0; until [ {count} = {{0}} ]; do n=$((n+1)); [ $n -lt 100 ] || exit 1; sleep 0.1; done"
    unit = f"idle-{repository}-{victim}"
    command = shlex.join(word.format(repository) for word in SSH)
    idle = f"systemd-run -q --collect --unit {unit} sh -c 'sleep 300 | exec {command} >/dev/null'"
    scenario.on("web1", idle)
    try:
        scenario.on("proxy1", wait.format(3))
        alive = [line.split() for line in scenario.on("proxy1", running).splitlines()]
        assert {name for _state, name in alive} == {"rclone", "restic-layout", "serve"}
        assert not [each for each in alive if each[0].startswith("Z")]
        if victim == "client":
            scenario.on("web1", f"systemctl kill -s KILL {unit}")
        else:
            scenario.on("proxy1", f"pkill -KILL -u bk-web1 -x {victim}")
        scenario.on("proxy1", wait.format(0))
        assert scenario.on("proxy1", running) == ""
    finally:
        scenario.on("web1", f"systemctl stop {unit} || true")


def test_the_other_clients_repository_is_refused(scenario: Scenario) -> None:
    assert requests(scenario, "offsite", ("GET", "/config", "")) == [200]
    scenario.on("db1", "cp /etc/holdfast/secrets/second.ssh_key /root/second.ssh_key")
    stolen = scenario.on("db1", "cat /root/second.ssh_key")
    scenario.on("web1", "umask 077; cat >/root/second.ssh_key", stdin=stolen.encode())
    # A stolen key opens what it opened before, and as that account only.
    login = "ssh -F /etc/holdfast/ssh/offsite.conf -i /root/second.ssh_key -o User=bk-web1 holdfast-offsite x </dev/null 2>&1"
    assert "Permission denied" in scenario.on("web1", f"{login} || true")


def test_who_holds_the_stores_credentials_can_overwrite(scenario: Scenario) -> None:
    """The control: it is the proxy that refuses, and the store does not."""
    name = snapshots(scenario, f"{BUCKET}/db1--second")[0]
    target = f"s3-second:company-backups/fleet/db1--second/{name[2:]}"
    rclone = "/usr/local/bin/rclone --config /etc/holdfast/rclone/s3-second.conf"
    scenario.on("proxy1", f"{rclone} copyto {target} /root/kept && echo other | {rclone} rcat {target}")
    assert files(scenario, "store1", f"{BUCKET}/db1--second")[name] == hashlib.sha256(b"other\n").hexdigest()
    scenario.on("proxy1", f"{rclone} copyto /root/kept {target}")


def test_a_client_without_the_proxy_can_erase_its_history_and_the_report_says_so(scenario: Scenario) -> None:
    report = scenario.playbook("status").output
    assert (
        "web1: direct: the client holds credentials that can delete; whoever takes over this host can erase its history"
        in report
    )
    assert "web1: direct is dialled without TLS" in report
    duties = "its proxy proxy1 holds credentials of the store and has other duties (webservers), each a way to them"
    assert f"db1, web1: offsite: {duties}" in report
    assert f"db1: second: {duties}" in report
    assert snapshots(scenario, DIRECT)
    secrets = "/etc/holdfast/secrets/direct"
    restic = f"set -a; . {secrets}.environment; restic --repository-file {secrets}.repository --password-file {secrets}.password"
    scenario.on("web1", f"{restic} -o s3.bucket-lookup=path forget --unsafe-allow-remove-all --tag job:system --prune")
    assert not snapshots(scenario, DIRECT)
    assert backup(scenario, "web1", "direct")["outcome"] == "ok"
    # What people do on the host dials the store as the unit does.
    definition = json.loads(scenario.on("web1", "cat /etc/holdfast/units/*--direct.json"))
    assert definition["options"] == {"s3.bucket-lookup": "path"}


# --- what goes wrong at the store is told apart


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        ("403 InvalidAccessKeyId GET,HEAD,PUT,POST", "wrong credentials", "refuses the server's credentials"),
        ("400 ExpiredToken GET,HEAD,PUT,POST", "wrong credentials", "refuses the server's credentials"),
        ("403 AccessDenied PUT,POST", "wrong credentials", "refuses the server's credentials"),
        ("403 QuotaExceeded PUT,POST", "quota", "store is used up"),
    ],
)
def test_what_only_people_can_mend_ends_at_once(scenario: Scenario, answer: str, reason: str, words: str) -> None:
    fault(scenario, answer)
    try:
        found = backup(scenario, "web1", "offsite", limit=60)
    finally:
        fault(scenario, "")
    assert (found["outcome"], found["reason"]) == ("failed", reason), found
    assert words in found["message"]


def test_a_store_that_is_busy_for_a_while_is_waited_for(scenario: Scenario) -> None:
    scenario.on("web1", "head -c 3000000 /dev/urandom >/etc/new")
    fault(scenario, "503 SlowDown PUT,POST 3")
    assert backup(scenario, "web1", "offsite")["outcome"] == "ok"
    assert scenario.on("store1", "cat /run/fault").strip() == ""


def test_a_store_that_stays_busy_is_unreachable(scenario: Scenario) -> None:
    """In a job with a time limit; restic itself would try for a quarter of an hour."""
    fault(scenario, "503 SlowDown GET,HEAD,PUT,POST")
    try:
        found = backup(scenario, "web1", "offsite", job="brief")
    finally:
        fault(scenario, "")
    assert (found["outcome"], found["reason"]) == ("failed", "unreachable"), found
    assert "it was ended by its time limit" in found["message"]
    journal = scenario.on("web1", f"journalctl _SYSTEMD_INVOCATION_ID={found['invocation_id']} -o cat")
    assert "unexpected HTTP response (500)" in journal
    assert "store1" not in journal
    assert backup(scenario, "web1", "offsite", job="brief")["outcome"] == "ok"


def test_append_only_while_the_store_fails_to_say_what_it_has(scenario: Scenario) -> None:
    """rclone before 1.75.2 takes the store's error for an absence, and overwrites: seen with 1.75.0 and 1.75.1."""
    own = f"{BUCKET}/web1--offsite"
    before = files(scenario, "store1", own)
    # As many as rclone asks: the upload itself would succeed.
    fault(scenario, "503 SlowDown HEAD 6")
    statuses = requests(scenario, "offsite", ("POST", "/config", "x"))
    assert scenario.on("store1", "cat /run/fault").strip() == "", "rclone gave up before the store was well again"
    assert statuses == [500]
    assert files(scenario, "store1", own) == before


def test_errors_of_the_store_never_make_rclone_serve_the_directory_above(scenario: Scenario) -> None:
    """Without a slash at the end rclone takes a path that it cannot look at for a file, and serves what is around it."""
    above = files(scenario, "store1", BUCKET)
    wrong = "503 SlowDown GET,HEAD 12"
    fault(scenario, wrong)
    statuses = requests(
        scenario,
        "offsite",
        ("GET", "/config", ""),
        *[("POST", LOCK, "x"), ("DELETE", LOCK, "")] * 2,
        ("POST", LOCK, "x"),
    )
    # The store counts down what it answers so.
    assert scenario.on("store1", "cat /run/fault").strip() != wrong, statuses
    fault(scenario, "")
    added = set(files(scenario, "store1", BUCKET)) - set(above)
    assert added <= {f"./web1--offsite{LOCK}"}, statuses
    assert requests(scenario, "offsite", ("GET", "/config", ""), ("DELETE", LOCK, "")) == [200, 200]


# --- what the playbook does with it


def test_converged_and_a_wrong_secret_changes_nothing(scenario: Scenario) -> None:
    before = scenario.on("proxy1", "cat /etc/holdfast/rclone/s3-offsite.conf; md5sum /etc/ssh/authorized_keys.d/*")
    refused = scenario.playbook("site", "-e", "lab_wrong_secret=W0ng-canary", "-vvv", "--diff", fails=True)
    assert (
        "rclone_proxy_remotes.s3-offsite.secret_access_key: s3-offsite:company-backups/fleet/ cannot be listed"
        in refused.output
    )
    assert "W0ng-canary" not in refused.output.replace("lab_wrong_secret=W0ng-canary", "")
    assert (
        scenario.on("proxy1", "cat /etc/holdfast/rclone/s3-offsite.conf; md5sum /etc/ssh/authorized_keys.d/*") == before
    )
    again = scenario.playbook("site", "-vvvvv", "--diff")
    assert set(again.changed.values()) == {0}
    assert SECRET not in again.output
    assert DIRECT_SECRET not in again.output


def without(inventory: Path, host: str) -> Path:
    """An inventory beside this one that has everything but one host."""

    def left(value: Any) -> Any:
        return {key: left(each) for key, each in value.items() if key != host} if isinstance(value, dict) else value

    made = inventory.with_name(f"without_{host}.yml")
    made.write_text(yaml.safe_dump(left(yaml.safe_load(inventory.read_text()))))
    return made


def idle(scenario: Scenario, client: str, repository: str) -> str:
    """Begin a session that asks for nothing until it is ended; the name of its unit."""
    unit = f"idle-{repository}"
    command = shlex.join(word.format(repository) for word in SSH)
    # How HTTP/2 begins: who does not say it is ended by rclone after ten seconds.
    begin = "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\000\\000\\000\\004\\000\\000\\000\\000\\000"
    script = f"(printf '{begin}'; sleep 600) | exec {command} >/dev/null"
    scenario.on(client, f"systemd-run -q --collect --unit {unit} sh -c {shlex.quote(script)}")
    wait = f"n=0; until pgrep -u bk-{client} -x rclone; do n=$((n+1)); [ $n -lt 100 ] || exit 1; sleep 0.1; done"
    scenario.on("proxy1", wait)
    return unit


def test_a_store_that_cannot_be_listed_keeps_nobody_the_access_that_they_lost(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client leaves the inventory in the run that has a wrong secret: it loses everything, and nobody else anything."""
    look = (
        "md5sum /etc/ssh/authorized_keys.d/bk-web1 /etc/holdfast/rclone/s3-offsite.conf /etc/holdfast/serve/*/*;"
        " cat /etc/holdfast/rclone/s3-offsite.conf"
    )
    state = scenario.state / "hosts/proxy1/ssh_rendered.json"
    sessions = [("db1", idle(scenario, "db1", "second")), ("web1", idle(scenario, "web1", "directory"))]
    before, rendered = scenario.on("proxy1", look), json.loads(state.read_text())["repositories"]
    assert {name.split("--")[0] for name in rendered} == {"web1", "db1"}
    wrong = ("site", "-e", "lab_wrong_secret=W0ng-canary")
    with monkeypatch.context() as patch:
        patch.setenv("MOLECULE_INVENTORY_FILE", str(without(Path(os.environ["MOLECULE_INVENTORY_FILE"]), "db1")))
        refused = scenario.playbook(*wrong, fails=True)
        assert (
            "Write the remotes that could be listed: rclone_proxy_remotes.s3-offsite.secret_access_key"
            in refused.output
        )
        assert "what lost access is taken away all the same" in refused.output
        assert "W0ng-canary" not in refused.output
        assert "proxy1" in refused.failed
        # Its keys, its account and its session are gone, and the secret of the remote that only it had.
        for repository in ("offsite", "second"):
            command = shlex.join(word.format(repository) for word in SSH)
            assert "Permission denied (publickey)" in scenario.on("db1", f"{command} </dev/null 2>&1 || true")
        assert scenario.run("proxy1", "test -e /etc/ssh/authorized_keys.d/bk-db1").returncode == 1
        shadow = scenario.on("proxy1", "getent shadow bk-db1").split(":")
        assert (shadow[1][0], shadow[7]) == ("!", "1")
        assert scenario.on("proxy1", "pgrep -u bk-db1 || true") == ""
        assert scenario.run("proxy1", "test -e /etc/holdfast/rclone/s3-second.conf").returncode == 1
        # The others go on as they were, also in what the controller knows of them.
        assert scenario.on("proxy1", look) == before
        assert scenario.on("proxy1", "pgrep -u bk-web1 -x rclone")
        left = {name: each for name, each in rendered.items() if name.startswith("web1--")}
        assert json.loads(state.read_text())["repositories"] == left
        assert backup(scenario, "web1", "offsite")["outcome"] == "ok"
        assert scenario.playbook(*wrong, fails=True).changed["proxy1"] == 0
        scenario.playbook("site")
        assert scenario.on("proxy1", "ls /etc/holdfast/serve").split() == ["bk-web1", "maintenance"]
        assert set(scenario.playbook("site").changed.values()) == {0}
        assert json.loads(state.read_text())["repositories"] == left
    for client, unit in sessions:
        scenario.on(client, f"systemctl stop {unit} || true")
    scenario.playbook("site")
    assert json.loads(state.read_text())["repositories"] == rendered
    assert backup(scenario, "db1", "second")["outcome"] == "ok"


def test_check_mode_says_what_the_real_run_does(scenario: Scenario) -> None:
    scenario.on("proxy1", "chmod 644 /etc/holdfast/rclone/s3-second.conf")
    announced = scenario.playbook("site", "--check", "--diff")
    assert announced.changed["proxy1"] == 1
    assert SECRET not in announced.output
    assert scenario.on("proxy1", "stat -c %a /etc/holdfast/rclone/s3-second.conf").strip() == "644"
    assert scenario.playbook("site").changed == announced.changed
    assert scenario.on("proxy1", "stat -c %a /etc/holdfast/rclone/s3-second.conf").strip() == "640"


def test_old_versions_are_refused_before_any_change(scenario: Scenario) -> None:
    refused = scenario.playbook("site", "-e", "rclone_proxy_release_version=1.75.1", fails=True)
    assert "nothing was changed; correct the inventory" in refused.output
    assert "below the floor 1.75.2" in refused.output
    assert "CVE-2026-71309" in refused.output
    # For the clients, too; molecule/bad_input has it with bare hosts.
    assert set(refused.changed.values()) == {0}


def test_the_secret_is_where_it_belongs_and_nowhere_else(scenario: Scenario) -> None:
    for host in ("proxy1", "web1", "db1"):
        said = scenario.on(host, "journalctl -b --no-pager; cat /var/log/*.log 2>/dev/null || true")
        assert SECRET not in said
        assert DIRECT_SECRET not in said
    found = scenario.on(
        "proxy1", f"grep -rlF {SECRET} /etc /var/lib /usr/local /srv /run /tmp /root 2>/dev/null || true"
    )
    assert set(found.split()) == {f"/etc/holdfast/rclone/{name}.conf" for name in ("s3-offsite", "s3-second")}
    for client in ("web1", "db1"):
        assert scenario.on(client, f"grep -rlF {SECRET} /etc /var /usr/local /root 2>/dev/null || true") == ""
    # Below /root is what was restored, which has it, too.
    found = scenario.on("web1", f"grep -rlF {DIRECT_SECRET} /etc /var /usr/local 2>/dev/null || true")
    assert found.split() == ["/etc/holdfast/secrets/direct.environment"]
    kept = "".join(path.read_text(errors="replace") for path in scenario.state.rglob("*") if path.is_file())
    assert SECRET not in kept
    assert DIRECT_SECRET not in kept


# Last, since db1 is no client any more.
def test_the_secret_of_a_remote_goes_with_its_last_client(scenario: Scenario) -> None:
    names = "cd /etc/holdfast/rclone && ls"
    assert scenario.on("proxy1", names).split() == ["s3-offsite.conf", "s3-second.conf"]
    announced = scenario.playbook("decommission", "--check", "-e", "client=db1")
    assert scenario.on("proxy1", names).split() == ["s3-offsite.conf", "s3-second.conf"]
    assert scenario.playbook("decommission", "-e", "client=db1").changed == announced.changed
    assert scenario.on("proxy1", names).split() == ["s3-offsite.conf"]
    assert not set(scenario.playbook("decommission", "-e", "client=db1").changed.values()) - {0}
    assert backup(scenario, "web1", "offsite")["outcome"] == "ok"
