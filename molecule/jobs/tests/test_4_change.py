"""Later runs: altered hosts, an added job, changed calendars, a boot."""

from __future__ import annotations

import datetime
import json
import time

import pytest
from conftest import HOSTS, Client, elapse, starts

from tests.fleet import Fleet

pytestmark = pytest.mark.usefixtures("watches")
MANIFESTS = "/var/lib/holdfast/file_tree"


def modes(client: Client) -> dict[str, list[str]]:
    """Owner and mode of everything that is holdfast's, but for what runs leave."""
    said = client.sh(
        "find /etc/holdfast /var/lib/holdfast /usr/local/bin /usr/local/lib/holdfast /var/backups/holdfast -maxdepth 2"
        " -printf '%p %u:%g %m\\n'; find /etc/systemd/system -maxdepth 1 -name 'holdfast-*' -printf '%p %u:%g %m\\n'"
    )
    return {line.rsplit(" ", 2)[0]: line.rsplit(" ", 2)[1:] for line in said.splitlines()}


def test_L3_changed_comes_from_state(fleet: Fleet, clients: dict[str, Client]) -> None:
    web1 = clients["web1"]
    before = modes(web1)
    web1.sh(
        "systemctl disable --now holdfast-exact--main.timer 2>/dev/null; echo Nice=0 >>/etc/systemd/system/holdfast-plain--main.service;"
        " rm /etc/holdfast/units/odd--main.json; chmod 600 /etc/systemd/system/holdfast-plain--far.timer; systemctl daemon-reload"
    )
    real = fleet.good("site")
    assert {host for host, _task in real.changed} == {"web1"}
    state = web1.show("holdfast-exact--main.timer", "ActiveState", "UnitFileState")
    assert state == {"ActiveState": "active", "UnitFileState": "enabled"}
    assert web1.show("holdfast-plain--main.service", "Nice", "NeedDaemonReload") == {
        "Nice": "10",
        "NeedDaemonReload": "no",
    }
    # L6: nobody else sets another owner or mode.
    assert modes(web1) == before


def test_L14_check_mode_tells_the_truth_when_a_job_is_added(fleet: Fleet, clients: dict[str, Client]) -> None:
    """And L7: neither a new job nor a calendar that has just passed starts a backup."""
    spread = {name: elapse(client, "spread--main") for name, client in clients.items()}
    ran = {name: starts(client) for name, client in clients.items()}
    before = {name: modes(client) for name, client in clients.items()}
    passed = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=20)
    jobs = fleet.variables["backup_jobs"]
    kept = ["/srv/options/otherwise"]
    jobs["plain"]["schedule"] = {"calendar": f"{passed:%H:%M:%S} UTC", "spread": 0}
    jobs["added"] = {"paths": kept, "repositories": ["main"], "schedule": {"calendar": "*-02-29", "spread": 0}}
    jobs["often"] = {"paths": kept, "repositories": ["main"], "schedule": {"calendar": "*:*:00/20", "spread": 0}}
    real = fleet.converge()
    assert {host for host, _task in real.changed} == set(HOSTS)
    for name, client in clients.items():
        now = starts(client)
        now.pop("holdfast-often--main.service", None)
        assert now == ran[name]
        # The new ones are there to start.
        assert client.show("holdfast-added--main.timer", "ActiveState")["ActiveState"] == "active"
        assert elapse(client, "plain--main") == passed.replace(microsecond=0).timestamp() + 86400
        assert elapse(client, "spread--main") == spread[name]
        after = modes(client)
        assert {path: after[path] for path in before[name]} == before[name]


def test_L7_the_same_change_by_hand_would_have_started_it(client: Client) -> None:
    """The positive control of the test above, with a timer that nobody sets aside."""
    timer = "[Timer]\\nOnCalendar={}\\nAccuracySec=1us\\nPersistent=yes\\n"
    client.sh(
        "cd /run/systemd/system; printf '[Service]\\nType=oneshot\\nExecStart=/bin/true\\n' >control.service;"
        f" printf '{timer.format('*-02-29')}' >control.timer; systemctl daemon-reload; systemctl start control.timer"
    )
    assert client.show("control.service", "ExecMainExitTimestampMonotonic")["ExecMainExitTimestampMonotonic"] == "0"
    time.sleep(3)
    client.sh(
        f"cd /run/systemd/system; now=$(date -u -d '1 second ago' +%H:%M:%S); printf '{timer.format('%s UTC')}' $now >control.timer;"
        " systemctl daemon-reload; systemctl restart control.timer; sleep 2"
    )
    assert client.show("control.service", "ExecMainExitTimestampMonotonic")["ExecMainExitTimestampMonotonic"] != "0"


def test_L10_timers_start_backups_and_cron_does_not(client: Client) -> None:
    client.wait(["often--main"], 60)
    timer = client.show("holdfast-often--main.timer", "LastTriggerUSec")["LastTriggerUSec"]
    assert timer not in ("", "n/a")
    assert client.outcome("often--main")["outcome"] == "ok"
    assert client.host.run("grep -rl -i -e holdfast -e restic /etc/cron* /var/spool/cron 2>/dev/null").stdout == ""
    client.sh("systemctl stop holdfast-often--main.timer")


def test_another_repository_in_its_place(client: Client) -> None:
    """Made anew at the same location with the same password, it opens and takes a backup; it is not the one on record."""
    known = client.outcome("loose--small")
    secrets, place = "/etc/holdfast/secrets/small", "/var/backups/holdfast/small"
    client.sh(
        f"cd {place}; mkdir /srv/small; mv * /srv/small; RESTIC_PASSWORD_FILE={secrets}.password"
        f" RESTIC_REPOSITORY_FILE={secrets}.repository restic --no-cache init; chown -R holdfast: {place}"
    )
    assert client.holdfast("run", "loose", "--wait")[0] == 1
    found = client.outcome("loose--small")
    assert (found["outcome"], found["reason"], found["last_ok"]) == ("failed", "another repository", known["last_ok"])
    client.sh(f"cd {place}; rm -r *; mv /srv/small/* .")
    assert client.holdfast("run", "loose", "--wait")[0] == 0


def test_L6_every_path_has_one_owner(client: Client) -> None:
    owners: dict[str, list[str]] = {}
    for name in client.sh(f"ls {MANIFESTS}/*.json").split():
        manifest = json.loads(client.sh(f"cat {name}"))
        for path in [*manifest["files"], *manifest["directories"]]:
            owners.setdefault(path, []).append(name)
    assert len(owners) > 50
    assert {path: names for path, names in owners.items() if len(names) > 1} == {}


def test_L8_the_program_is_found_and_not_assumed(client: Client) -> None:
    expected = {"web1": "/usr/bin/restic", "db1": "/usr/local/bin/restic"}[client.name]
    other = {"db1": "/usr/bin/restic", "web1": "/usr/local/bin/restic"}[client.name]
    for unit in ("plain--main", "databases--main--postgresql"):
        assert f"path={expected} " in client.show(f"holdfast-{unit}.service", "ExecStart")["ExecStart"]
    assert "restic" in client.sh(f"{expected} version")
    assert client.host.run(f"{other} version").rc != 0


def test_L12_no_key_is_in_the_wrong_section(client: Client) -> None:
    units = client.sh("cd /etc/systemd/system; ls -d holdfast-*.service holdfast-*.timer").split()
    assert len(units) > 40
    said = client.sh(f"cd /etc/systemd/system; systemd-analyze verify --man=no {' '.join(units)} 2>&1; true")
    wrong = "Unknown (key|section|lvalue)"
    assert client.host.run(f"printf '%s' {json.dumps(said)} | grep -E '{wrong}'").stdout == ""
    assert client.host.run(f"journalctl -b _PID=1 | grep holdfast- | grep -E '{wrong}'").stdout == ""
    # Positive control: it is seen, and file_tree refuses it.
    client.sh("printf '[Unit]\\nNice=5\\n[Service]\\nExecStart=/bin/true\\n' >/run/wrong.service")
    assert "Unknown key" in client.sh("systemd-analyze verify --man=no /run/wrong.service 2>&1; true")


def test_L13_nothing_collides_with_the_distribution(client: Client) -> None:
    paths: list[str] = []
    for name in client.sh(f"ls {MANIFESTS}/*.json").split():
        paths += json.loads(client.sh(f"cat {name}"))["files"]
    assert len(paths) > 50
    assert all("holdfast" in path for path in paths), paths
    owned = client.host.run(f"dpkg -S {' '.join(paths)} 2>/dev/null").stdout
    assert owned == ""
    # Positive control: dpkg does tell whose a file is.
    assert client.host.run("dpkg -S /usr/bin/systemctl /bin/systemctl 2>/dev/null").stdout != ""


def test_L7_a_boot_starts_what_was_missed_and_nothing_else(fleet: Fleet, clients: dict[str, Client]) -> None:
    db1 = clients["db1"]
    # As if the last one had been long ago, before the calendar's last time.
    stamp = "/var/lib/systemd/timers/stamp-holdfast-exact--main.timer"
    db1.sh(
        f"systemctl stop holdfast-exact--main.timer; touch -d 2000-01-01 {stamp}; systemctl disable -q holdfast-often--main.timer"
    )
    before = db1.outcome("exact--main")["ended"]
    fleet.lab.restart("db1")
    fleet.forget_connections()
    # The recorder comes last.
    db1.sh(
        "systemctl is-system-running --wait; for i in $(seq 60); do"
        f" grep -q {before} /var/lib/holdfast/outcomes/exact--main.json || exit 0; sleep 1; done; exit 1"
    )
    assert starts(db1) == {"holdfast-exact--main.service": 1, "holdfast-interrupted.service": 1}
