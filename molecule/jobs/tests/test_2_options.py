"""Every option of a job: what is in the snapshot, and what systemd and restic say."""

from __future__ import annotations

import calendar
import datetime
import json
import zoneinfo
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import CANARIES, CANARY_USER, ODD, VARIABLE, Client, elapse

from tests.fleet import Fleet
from tests.hosts import assert_exposure

pytestmark = pytest.mark.usefixtures("watches")


def test_everything_is_as_it_should_be(client: Client) -> None:
    expected = {
        "pre-fails--main": ("failed", "pre hook"),
        "post-fails--main": ("failed", "post hook"),
        "bad-dump--main": ("failed", "dump"),
        "dumps-broken--main": ("failed", "dump"),
        "lenient--main": ("incomplete", "source missing"),
        "strict--main": ("incomplete", "source missing"),
    }
    found = {unit: each for unit, each in client.outcomes().items() if unit != "slow--narrow"}
    assert len(found) > 17
    for unit, outcome in found.items():
        assert (outcome["outcome"], outcome["reason"]) == expected.get(unit, ("ok", None)), outcome
    # A unit that systemd shows as good saved everything, or was told that less is enough.
    failed = client.sh("systemctl list-units --failed --plain --no-legend 'holdfast-*--*.service'").split()
    units = {name[len("holdfast-") : -len(".service")] for name in failed if name.startswith("holdfast-")}
    assert units - {"slow--narrow", "bad-dump--main--broken", "dumps-broken--main--broken"} == set(expected) - {
        "lenient--main"
    }
    told = {line.split()[0] for line in client.sh("cat /run/told.log").splitlines()}
    assert told - {"slow--narrow"} == set(expected) - {"lenient--main"}


# --- what is saved


def test_paths_are_taken_literally(client: Client) -> None:
    found = client.nodes("odd--main")
    for path in ODD:
        assert f"{path}/inside" in found, sorted(found)
    assert "/srv/odd/globbed" not in found
    assert sorted(client.snapshot("odd--main")["paths"]) == sorted(ODD)


LEFT = {
    "exclude by name": ["/srv/options/left.skip", "/srv/options/deep/er/left.skip"],
    "exclude by path": ["/srv/options/no way/left.txt"],
    "exclude_if_present": ["/srv/options/marked/left.txt", "/srv/options/labelled/left.txt"],
    "exclude_caches": ["/srv/options/cache/left.bin"],
    "exclude_larger_than": ["/srv/options/large.bin"],
    "one_file_system": ["/srv/options/disk/left.txt"],
}
KEPT = ["/srv/options/kept.txt", "/srv/options/small.bin", "/srv/options/otherwise/kept.txt", "/srv/options/cache"]


def test_what_is_left_out(client: Client) -> None:
    found, control = client.nodes("options--main"), client.nodes("plain--main")
    for option, paths in LEFT.items():
        for path in paths:
            assert path not in found, option
            assert path in control, option
    for path in KEPT:
        assert path in found


def test_optional_and_dropped_in_paths(client: Client) -> None:
    found = client.nodes("options--main")
    assert "/srv/optional/there" in found
    assert "/srv/dropped in/there" in found
    assert client.outcome("options--main")["missing"] == []
    assert client.outcome("strict--main")["missing"] == ["/srv/missing"]
    assert "/srv/missing" in client.outcome("strict--main")["message"]


def test_tags_and_host_are_fixed(client: Client) -> None:
    snapshot = client.snapshot("options--main")
    assert set(snapshot["tags"]) == {"job:options", "files", "first", "b=c"}
    assert snapshot["hostname"] == "fixed.name"
    assert snapshot["username"] == "holdfast"
    assert client.snapshot("plain--main")["hostname"] == client.name
    # What a host says of itself names nothing: one of them calls itself otherwise.
    assert (client.sh("hostname").strip() == client.name) == (client.name == "web1")


def test_extra_args(client: Client) -> None:
    assert client.nodes("options--main")["/srv/options/kept.txt"]["atime"].startswith("2020-01-01")
    assert not client.nodes("plain--main")["/srv/options/kept.txt"]["atime"].startswith("2020-01-01")


def test_compression_and_pack_size(client: Client) -> None:
    squeezed, loose = client.outcome("squeezed--main")["summary"], client.outcome("loose--small")["summary"]
    assert squeezed["data_added"] - squeezed["data_added_packed"] > 1_500_000
    assert loose["data_added_packed"] >= loose["data_added"]
    # A pack is full with the blob that takes it over the limit, and a blob may have up to 8 MiB: only the usual pack is small.
    sizes = {
        name: sorted(
            map(int, client.sh(f"find /var/backups/holdfast/{name}/data -type f -size +1M -printf '%s\\n'").split())
        )
        for name in ("main", "small")
    }
    assert sizes["main"][-1] > 8 * 2**20
    assert sizes["small"][len(sizes["small"]) // 2] < 7 * 2**20


def test_two_jobs_in_two_repositories(client: Client) -> None:
    for repository in ("main", "far"):
        snapshots = json.loads(client.restic(repository, "snapshots", "--json"))
        jobs = {tag for each in snapshots for tag in each["tags"] if tag.startswith("job:")}
        assert {"job:plain", "job:databases"} <= jobs, jobs
    assert "/srv/options/kept.txt" in client.nodes("plain--far")


def test_the_sandbox_hides_nothing(client: Client) -> None:
    found = client.nodes("canary--main")
    secret = {path for path in CANARIES if not path.endswith(".canary")}
    for path in [*CANARIES, *secret, f"/home/{CANARY_USER}/own/canary", "/etc/shadow"]:
        assert path in found, path
    # Positive control: the account itself may not read them.
    for path in ("/root/.canary", "/etc/canary", "/etc/shadow", f"/home/{CANARY_USER}/own/canary"):
        assert client.host.run(f"runuser -u holdfast -- cat {path}").rc != 0
    code, said, wrong = client.holdfast("restore", "canary", "--target", "/srv/restored")
    assert code == 0, said + wrong
    for path, mode in CANARIES.items():
        client.sh(f"cmp {path} /srv/restored{path}")
        assert client.sh(f"stat -c %a /srv/restored{path}").strip() == str(int(mode)), path
    client.sh(
        f"cmp /etc/shadow /srv/restored/etc/shadow; cmp /home/{CANARY_USER}/own/canary /srv/restored/home/{CANARY_USER}/own/canary"
    )


def test_exposure(client: Client) -> None:
    """A job's unit and those of its dumps, into a local and a remote repository."""
    units = (
        "canary--main",
        "plain--far",
        "options--main",
        "databases--main--postgresql",
        "databases--far--my-app",
        "bad-dump--main--good",
    )
    for unit in units:
        assert_exposure(client.host, f"holdfast-{unit}.service", 2.0)
        assert "IPAddressDeny" not in client.sh(f"systemctl cat holdfast-{unit}.service")


# --- how it runs


def test_resources(client: Client) -> None:
    names = (
        "Nice",
        "IOSchedulingClass",
        "CPUWeight",
        "IOWeight",
        "CPUQuotaPerSecUSec",
        "MemoryMax",
        "TimeoutStartUSec",
        # Thousands of files that cannot be read are thousands of lines, and the summary comes last.
        "LogRateLimitIntervalUSec",
    )
    default = dict(zip(names, ("10", "3", "20", "20", "infinity", "infinity", "1d", "0")))
    assert client.show("holdfast-plain--main.service", *names) == default
    options = {**default, "CPUQuotaPerSecUSec": "500ms", "MemoryMax": str(1 << 30), "TimeoutStartUSec": "15min"}
    assert client.show("holdfast-options--main.service", *names) == options
    slow = {**default, "Nice": "15", "IOSchedulingClass": "2", "TimeoutStartUSec": "1min 15s"}
    assert client.show("holdfast-slow--narrow.service", *names) == slow


def test_limits_and_locks_reach_restic(client: Client) -> None:
    command = client.show("holdfast-options--main.service", "ExecStart")["ExecStart"]
    assert {"--limit-download=100000", "--retry-lock=0s"} <= set(command.split())
    assert "--retry-lock=300s" in client.show("holdfast-plain--main.service", "ExecStart")["ExecStart"].split()


def test_proxy(client: Client, clients: dict[str, Client]) -> None:
    """A repository that nobody reaches directly was made and is used through its proxy, by one job through its own."""
    refused = client.host.run("python3 -c 'import socket; socket.getaddrinfo(\"far.invalid\", 8500)'")
    assert refused.rc != 0
    said = {name: clients["web1"].sh(f"cat /run/{name}.log").splitlines() for name in ("proxy", "other-proxy")}
    saved = {
        name: [line for line in lines if line.startswith("POST") and f"/{client.name}/snapshots/" in line]
        for name, lines in said.items()
    }
    assert len(saved["other-proxy"]) == 1, said
    assert str(client.outcome("proxied--far")["snapshot"]) in saved["other-proxy"][0]
    assert len(saved["proxy"]) + 1 == len(json.loads(client.restic("far", "snapshots", "--json"))) > 5
    assert any(line.startswith("POST") and f"/{client.name}/config" in line for line in said["proxy"])


# --- hooks


def hooks(client: Client, unit: str) -> list[str]:
    """What the hooks of a unit wrote, in order."""
    return [
        line.rsplit(" ", 1)[0] for line in client.sh("cat /run/hooks.log").splitlines() if line.endswith(f" {unit}")
    ]


def test_hooks(client: Client) -> None:
    assert hooks(client, "hooks--main") == [
        "pre1 root none none",
        "pre2 nobody none none",
        "post1 root ok none",
        "post2 nobody ok none",
    ]
    assert "/srv/made" in client.nodes("hooks--main")


def test_a_failing_pre_hook(client: Client) -> None:
    outcome = client.outcome("pre-fails--main")
    assert outcome["snapshot"] is None
    assert "exit status 7" in outcome["message"]
    assert hooks(client, "pre-fails--main") == ["post root failed pre hook"]
    assert client.restic("main", "snapshots", "--json", "--tag=job:pre-fails").strip() == "[]"
    assert "unwell" in client.holdfast("log", "pre-fails")[1]


def test_a_failing_post_hook(client: Client) -> None:
    outcome = client.outcome("post-fails--main")
    assert "exit status 8" in outcome["message"]
    assert client.snapshot("post-fails--main")["id"] == outcome["snapshot"]
    assert hooks(client, "post-fails--main") == ["post root ok none"]


# --- schedule


def next_leap_days(hour: int, zone: datetime.tzinfo) -> Iterator[datetime.datetime]:
    """The coming 29ths of February at that hour."""
    now = datetime.datetime.now(zone)
    for year in filter(calendar.isleap, range(now.year, now.year + 50)):
        when = datetime.datetime(year, 2, 29, hour, tzinfo=zone)
        if when > now:
            yield when


def test_schedule_with_a_time_zone(client: Client) -> None:
    leap_days = next_leap_days(4, zoneinfo.ZoneInfo("America/New_York"))
    expected = next(when for when in leap_days if when.weekday() == 6)
    assert elapse(client, "exact--main") == expected.timestamp()
    (unit,) = json.loads(client.holdfast("status", "--json", "exact")[1])["units"]
    assert unit["next"] == expected.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    shown = client.show("holdfast-exact--main.timer", "NextElapseUSecRealtime")["NextElapseUSecRealtime"]
    assert ("IST" in shown) == (client.name == "db1"), shown


def test_spread(clients: dict[str, Client]) -> None:
    begin = next(next_leap_days(0, datetime.timezone.utc)).timestamp()
    delays = [elapse(client, "spread--main") - begin for client in clients.values()]
    assert all(0 < delay < 6 * 3600 for delay in delays), delays
    assert delays[0] != delays[1]


# --- dumps


def test_dumps_are_snapshots_of_their_own(client: Client) -> None:
    for repository in ("main", "far"):
        found = json.loads(client.holdfast("snapshots", f"databases--{repository}", "--json")[1])["snapshots"]
        paths = {each["dump"]: each["paths"] for each in found}
        assert paths == {
            None: ["/srv/options/otherwise"],
            "postgresql": ["/postgresql.sql"],
            "pg-app": ["/pg-app.dump"],
            "mariadb": ["/mariadb.sql"],
            "my-app": ["/my-app.sql"],
            "who": ["/who"],
        }
        assert all(("dump:" + str(each["dump"]) in each["tags"]) == (each["dump"] is not None) for each in found)
        assert {each["hostname"] for each in found} == {client.name}


@pytest.mark.parametrize("repository", ["main", "far"])
def test_the_dump_runs_as_the_databases_account_without_capability(client: Client, repository: str) -> None:
    target = f"/srv/who-{repository}"
    code, said, wrong = client.holdfast("restore", f"databases--{repository}", "--dump", "who", "--target", target)
    assert code == 0, said + wrong
    status = dict(line.split(":\t", 1) for line in client.sh(f"cat {target}/who").splitlines())
    uid, gid = client.sh("id -u postgres; id -g postgres").split()
    assert status["Uid"].split() == [uid] * 4
    assert status["Gid"].split() == [gid] * 4
    groups = client.sh("id -G postgres").split()
    assert sorted(status["Groups"].split()) == sorted(groups)
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(status[name], 16) == 0, status
    assert status["NoNewPrivs"] == "1"
    unit = client.show(f"holdfast-databases--{repository}--who.service", "User", "CapabilityBoundingSet")
    # restic itself is another account: the database's could read its secrets.
    assert (unit["User"], sorted(unit["CapabilityBoundingSet"].split())) == ("holdfast", ["cap_setgid", "cap_setuid"])


def dumped(client: Client, name: str, path: str) -> str:
    """Restore a dump as a person would; where it is."""
    target = f"/srv/dump-{name}"
    code, said, wrong = client.holdfast("restore", "databases--main", "--dump", name, "--target", target)
    assert code == 0, said + wrong
    client.sh(f"chmod -R a+rX {target}")
    return f"{target}{path}"


ROWS = ["1", "apple", "2", 'pear\'s "ü"', "3"]


def test_postgresql_comes_back(client: Client) -> None:
    whole, one = dumped(client, "postgresql", "/postgresql.sql"), dumped(client, "pg-app", "/pg-app.dump")
    version = client.sh("ls /usr/lib/postgresql").split()[-1]
    client.sh(f"pg_createcluster --port 5999 --start {version} empty", timeout=120)
    postgres = "runuser -u postgres -- "
    fruit = f"{postgres}psql -qXAtF'|' -p {{}} -c 'select * from fruit order by id' {{}}"
    rows = client.sh(fruit.format(5432, "app"))
    assert '2|pear\'s "ü"' in rows
    assert client.host.run(fruit.format(5999, "app")).rc != 0
    client.sh(f"{postgres}psql -qX -p 5999 -f {whole} postgres 2>/srv/psql.log")
    for database in ("app", "other"):
        assert client.sh(fruit.format(5999, database)) == rows
    assert "clerk" in client.sh(f"{postgres}psql -qXAt -p 5999 -c 'select rolname from pg_roles'")
    client.sh(f"{postgres}createdb again; {postgres}pg_restore --dbname again {one}")
    assert client.sh(fruit.format(5432, "again")) == rows
    client.sh(f"pg_dropcluster --stop {version} empty")


def test_mariadb_comes_back(client: Client) -> None:
    whole, one = dumped(client, "mariadb", "/mariadb.sql"), dumped(client, "my-app", "/my-app.sql")
    start = (
        "mkdir -p /srv/mysql; chown mysql: /srv/mysql;"
        " mariadb-install-db --user=mysql --datadir=/srv/mysql --auth-root-authentication-method=socket >/dev/null;"
        " systemd-run --quiet --unit=empty-mariadb mariadbd --no-defaults --user=mysql --datadir=/srv/mysql"
        " --socket=/srv/mysql/socket --skip-networking --pid-file=/srv/mysql/pid;"
        " for i in $(seq 60); do mariadb-admin --no-defaults -S /srv/mysql/socket ping >/dev/null 2>&1 && break; sleep 0.5; done"
    )
    client.sh(start)
    other = "mariadb --no-defaults --default-character-set=utf8mb4 -S /srv/mysql/socket"
    fruit = "{} -N -B -e 'select * from fruit order by id' {}"
    rows = client.sh(fruit.format("mariadb --default-character-set=utf8mb4", "app"))
    assert 'pear\'s "ü"' in rows
    assert client.host.run(fruit.format(other, "app")).rc != 0
    client.sh(f"{other} <{one}")
    assert client.sh(fruit.format(other, "app")) == rows
    assert client.host.run(fruit.format(other, "other")).rc != 0
    client.sh(f"{other} -e 'drop database app'; {other} <{whole}")
    for database in ("app", "other"):
        assert client.sh(fruit.format(other, database)) == rows
    client.sh("systemctl stop empty-mariadb")


def test_a_failing_dump(client: Client) -> None:
    outcome = client.outcome("bad-dump--main")
    assert outcome["dumps_failed"] == ["broken"]
    assert "/srv/options/otherwise/kept.txt" in client.nodes("bad-dump--main")
    found = json.loads(client.holdfast("snapshots", "bad-dump", "--json")[1])["snapshots"]
    # Half a dump is not a snapshot; the one after it is there.
    assert sorted(str(each["dump"]) for each in found) == ["None", "good"]


def test_only_dumps(client: Client) -> None:
    outcome = client.outcome("dumps-only--main")
    assert (outcome["snapshot"], outcome["dumps_failed"]) == (None, [])
    (snapshot,) = json.loads(client.holdfast("snapshots", "dumps-only", "--json")[1])["snapshots"]
    assert (snapshot["dump"], outcome["dumps"]) == ("one", {"one": snapshot["id"]})
    assert client.holdfast("restore", "dumps-only", "--dump", "one", "--target", "/srv/dumps-only")[0] == 0
    assert client.sh("cat /srv/dumps-only/one") == "all of it\n"
    code, said, _wrong = client.holdfast("log", "dumps-only")
    assert code == 0
    assert f"snapshot {snapshot['id'][:8]}" in said
    (unit,) = json.loads(client.holdfast("status", "--json", "dumps-only")[1])["units"]
    assert (unit["outcome"], unit["repository_state"], bool(unit["next"])) == ("ok", "present", True)
    broken = client.outcome("dumps-broken--main")
    assert (broken["dumps"], broken["dumps_failed"], broken["last_ok"]) == ({}, ["broken"], None)
    assert client.restic("main", "snapshots", "--json", "--tag=job:dumps-broken").strip() == "[]"


# --- history


def test_outcomes_are_one_file_for_each_run_unit(client: Client, fleet: Fleet) -> None:
    jobs: dict[str, dict[str, Any]] = fleet.variables["backup_jobs"]
    units = {f"{job}--{name}" for job, value in jobs.items() for name in value["repositories"]}
    found = set(client.sh("cd /var/lib/holdfast/outcomes; ls").split())
    expected = {f"{unit}{end}" for unit in units for end in (".json", ".history.jsonl")}
    assert expected - found <= {
        f"{unit}{end}" for unit in ("slow--narrow", "patient--small") for end in (".json", ".history.jsonl")
    }
    assert found <= expected


def test_the_history_is_bounded(client: Client) -> None:
    path = "/var/lib/holdfast/outcomes/spread--main.history.jsonl"
    client.sh(f"for i in $(seq 150); do cat {path}; done | head -150 >/run/long; cp /run/long {path}")
    assert client.holdfast("run", "spread", "--wait")[0] == 0
    lines = client.sh(f"cat {path}").splitlines()
    assert len(lines) == 100
    assert json.loads(lines[-1])["invocation_id"] == client.outcome("spread--main")["invocation_id"]
    assert json.loads(lines[0])["invocation_id"] != json.loads(lines[-1])["invocation_id"]


# --- locks


def test_retry_lock(client: Client) -> None:
    """Somebody holds the repository; a job waits as long as it was told to."""
    secrets = "/etc/holdfast/secrets/small"
    check = (
        f"systemd-run --quiet --collect --unit=holder --setenv=RESTIC_PASSWORD_FILE={secrets}.password --setenv=RESTIC_REPOSITORY_FILE={secrets}.repository"
        " --uid=root restic check --read-data --limit-download 5 --no-cache --retry-lock 1m;"
        " for i in $(seq 300); do journalctl -u holder -o cat | grep -q 'read all data' && exit 0; sleep 0.2; done; exit 1"
    )
    client.sh(check)
    assert client.holdfast("run", "patient", "--wait")[0] == 1
    locked = client.outcome("patient--small")
    assert (locked["outcome"], locked["reason"]) == ("failed", "locked")
    assert locked["duration_seconds"] >= 12
    client.sh(
        "systemd-run --quiet sh -c 'sleep 3; systemctl kill --signal=KILL holder; rm -f /var/backups/holdfast/small/locks/*'"
    )
    assert client.holdfast("run", "patient", "--wait")[0] == 0
    assert client.outcome("patient--small")["outcome"] == "ok"


# --- the slow one, which went on all the time


def test_a_throttled_run_tells_its_share_and_is_ended(client: Client, watches: dict[str, Any]) -> None:
    watch = watches[client.name].result(timeout=200)
    shares = [share for share in watch.shares if share is not None]
    assert shares, watch.shares
    assert 0 <= shares[-1] <= 100
    assert any(f"{share:.0f} %" in watch.shown for share in shares), watch.shown
    outcome = client.outcome("slow--narrow")
    assert (outcome["outcome"], outcome["reason"], outcome["service_result"]) == ("failed", "timeout", "timeout")
    assert outcome["snapshot"] is None
    # It had the time to remove its lock.
    assert client.sh("ls /var/backups/holdfast/narrow/locks") == ""
    # restic ends when what is under way is sent.
    assert outcome["duration_seconds"] >= 75
    assert "\x1b" not in outcome["message"]
    journal = client.sh(f"journalctl -o cat _SYSTEMD_INVOCATION_ID={outcome['invocation_id']}")
    progress = [line for line in journal.splitlines() if '"message_type":"status"' in line]
    assert 1 <= len(progress) <= outcome["duration_seconds"] / 60, journal
    # So much in that time, and what was under way; the rest is there, too.
    size = int(client.sh("du -sk /var/backups/holdfast/narrow/data").split()[0])
    assert 5000 < size < outcome["duration_seconds"] * 300 + 10000
    assert client.host.file("/srv/slow/random").size > 40_000_000


def test_what_its_process_was_given(client: Client, watches: dict[str, Any]) -> None:
    process = watches[client.name].result(timeout=200).process
    assert f"ODD={VARIABLE}" in process["environment"].splitlines()
    assert "GOMAXPROCS=2" in process["environment"].splitlines()
    assert {"--read-concurrency=3", "--limit-upload=300", "--pack-size=4"} <= set(process["arguments"].splitlines())
    assert process["nice"] == "15"
    assert process["io"].startswith("best-effort")
    # CAP_DAC_READ_SEARCH and nothing else.
    assert int(process["capabilities"], 16) == 1 << 2
    # A dump of its memory would hold the keys.
    assert client.show("holdfast-slow--narrow.service", "LimitCORE") == {"LimitCORE": "0"}
