# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a job may say, and the restic command it becomes."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _jobs
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput, shorten

REPOSITORY = {"options": {"rest.connections": "5"}}


def made(**keys: t.Any) -> dict[str, t.Any]:
    return _jobs.job("jobs.system", {"paths": ["/etc"], **keys}, "web1")


def refused(**keys: t.Any) -> BadInput:
    with pytest.raises(BadInput) as caught:
        made(**keys)
    assert caught.value.cure
    return caught.value


def test_defaults() -> None:
    job = made()
    assert job == {**_jobs.DEFAULTS, "paths": ["/etc"], "host": "web1"}
    assert "repositories" not in job


def test_null_is_the_default() -> None:
    assert made(exclude=None, compression=None, schedule=None) == made()


@pytest.mark.parametrize("key", sorted(_jobs.FIELDS))
def test_every_key_refuses_what_it_cannot_be(key: str) -> None:
    for value in (
        object(),
        float("inf"),
        {"a": {"b": []}},
        [[]],
        [None],
        {1: 2},
        b"x",
        "\ud800",
        "\0",
        int("f" * 6000, 16),
    ):
        if key == "environment" and isinstance(value, dict):
            continue
        bad = refused(**{key: value})
        assert bad.where.startswith(f"jobs.system.{key}")
        assert len(shorten(bad.value)) < 200


@pytest.mark.parametrize("value", [None, [], "x", 5, True])
def test_a_job_is_a_dictionary(value: t.Any) -> None:
    with pytest.raises(BadInput, match="not a dictionary"):
        _jobs.job("jobs.system", value, "web1")


def test_something_is_to_be_saved() -> None:
    empty: list[dict[str, t.Any]] = [{}, {"optional_paths": [], "dumps": []}, {"exclude": ["x"]}]
    for nothing in empty:
        with pytest.raises(BadInput) as caught:
            _jobs.job("jobs.system", nothing, "web1")
        assert (caught.value.where, caught.value.wrong) == ("jobs.system", "has nothing to save")
    assert refused(paths=[]).wrong == "is empty"


def test_a_job_without_paths() -> None:
    optional = _jobs.job("jobs.system", {"optional_paths": ["/srv"]}, "web1")
    assert _jobs.backup_arguments("s--v", "s", optional, REPOSITORY, [])[-1] == "--"
    dumps = _jobs.job("jobs.system", {"dumps": [{"kind": "postgresql"}]}, "web1")
    assert dumps["paths"] == []
    # Each dump is a command of its own, and there is no other.
    assert _jobs.backup_arguments("s--v", "s", dumps, REPOSITORY, []) == []


def test_paths_are_literal() -> None:
    odd = ["/a b", "/a\nb", "/%h$x'\"\\", "/-rf", "/é"]
    assert made(paths=odd)["paths"] == odd


def test_the_inventory_name_is_checked_where_it_is_used() -> None:
    with pytest.raises(BadInput) as caught:
        _jobs.job("jobs.system", {"paths": ["/etc"]}, "we b\n1")
    assert caught.value.where == "jobs.system.host (from the inventory name)"
    assert _jobs.job("jobs.system", {"paths": ["/etc"], "host": "web"}, "we b\n1")["host"] == "web"


# --- options and variables that would go around what we set


@pytest.mark.parametrize(
    "argument",
    [
        "--skip-if-unchanged",
        *sorted(_jobs.OWN_OPTIONS),
        *(f"{option}=x" for option in sorted(_jobs.OWN_OPTIONS)),
        *["-r", "-r/x", "-rfoo", "-fr/x", "-f=true", "-o", "-vv", "-n", "-h", "-f"],
        *["--", "-", "/etc/shadow", "x", " --repo=x", "--parent", "--http-user-agent", "--=x", "---repo=x", "--Repo=x"],
    ],
)
def test_extra_args_refused(argument: str) -> None:
    assert refused(extra_args=["--force", argument]).where == "jobs.system.extra_args[1]"


def test_extra_args_that_are_left() -> None:
    arguments = ["--force", "--no-scan", "--parent=1234", "--ignore-inode", "--stuck-request-timeout=1m"]
    assert made(extra_args=arguments)["extra_args"] == arguments


@pytest.mark.parametrize(
    "name",
    [
        "RESTIC_REPOSITORY",
        "restic_password",
        "HOLDFAST_X",
        "TMPDIR",
        "https_proxy",
        "HTTP_PROXY",
        "LD_PRELOAD",
        "PYTHONPATH",
    ]
    + [
        "AWS_SECRET_ACCESS_KEY",
        "B2_ACCOUNT_KEY",
        "PGPASSWORD",
        "MYSQL_PWD",
        "mysqlpwd",
        "RCLONE_CONFIG_PASS",
        "AZURE_ACCOUNT_SAS",
        "API_TOKEN",
        "apikey",
    ]
    + ["", "1A", "A B", "A=B", "A\nB", "Ä", 5, None, "A" * 200],
)
def test_environment_names_refused(name: t.Any) -> None:
    bad = refused(environment={name: "geheim"})
    assert "geheim" not in f"{bad.where}{bad.value}{bad.wrong}{bad.cure}"


@pytest.mark.parametrize("value", ["a\nb", True, None, [], {}, "http://user:geheim@host/", "\x7f", "\ud800"])
def test_environment_values_refused(value: t.Any) -> None:
    assert "geheim" not in str(refused(environment={"A": value}).value)


def test_environment() -> None:
    wanted = {"GOGC": 20, "B": "", "PGPASSFILE": "/x", "C": 1.5, "AUTHOR": "%h $x \"'\\"}
    expected = {"GOGC": "20", "B": "", "PGPASSFILE": "/x", "C": "1.5", "AUTHOR": "%h $x \"'\\"}
    assert made(environment=wanted)["environment"] == expected
    assert refused(environment="A=B").wrong == "is not a dictionary"
    assert set(made(environment={"PWD": "/", "OLDPWD": "/", "PWDX": "1"})["environment"]) == {"PWD", "OLDPWD", "PWDX"}


# --- keys of their own


@pytest.mark.parametrize(
    "pattern", ["*.cache", "/a/**/b", "[a-z]", "[^a-z]x", "!keep", r"\[x", "[[]", "[^^]", "a]", r"[\]]", "é", "a\\*/b"]
)
def test_patterns(pattern: str) -> None:
    assert made(exclude=[pattern])["exclude"] == [pattern]


@pytest.mark.parametrize(
    "pattern", ["[", "[]", "[]a]", "[^]", "[a", "a\\", "[a-]", "[-a]", "[^-a]", "x/[/]", "[\\]", "", "a\n"]
)
def test_patterns_that_restic_would_refuse(pattern: str) -> None:
    assert refused(exclude=[pattern]).where == "jobs.system.exclude[0]"


@pytest.mark.parametrize("marker", [":x", "a/b", "/a", "a/b:c", ""])
def test_markers_refused(marker: str) -> None:
    refused(exclude_if_present=[marker])


def test_markers() -> None:
    markers = [".nobackup", "CACHEDIR.TAG:Signature: 8a/b"]
    assert made(exclude_if_present=markers)["exclude_if_present"] == markers


@pytest.mark.parametrize("tag", ["a,b", "a b", "", "job:x", "dump:x", "files", "a\n", "x" * 101, "$x", "%h"])
def test_tags_refused(tag: str) -> None:
    assert refused(tags=[tag]).where == "jobs.system.tags[0]"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("timeout", 0),
        ("timeout", "0"),
        ("timeout", "99999w"),
        ("retry_lock", "99999w"),
        ("compression", False),
        ("compression", "fastest"),
        ("pack_size", 3),
        ("pack_size", 129),
        ("read_concurrency", 0),
        ("limit_upload", 0),
        ("nice", 20),
        ("io_class", "realtime"),
        ("cpu_quota", "50"),
        ("cpu_quota", 50),
        ("memory_max", "9999999T"),
        ("memory_max", "1g"),
        ("exclude_larger_than", "1P"),
        ("host", "a b"),
        ("host", "%H"),
        ("one_file_system", "yes"),
        ("incomplete", "warn"),
        ("proxy", "http://u:p@x"),
        ("repositories", []),
        ("repositories", ["vault", "vault"]),
        ("repositories", ["Vault"]),
        ("repositories", "vault"),
        ("no_such_key", 1),
    ],
)
def test_values_refused(key: str, value: t.Any) -> None:
    assert refused(**{key: value}).where.startswith(f"jobs.system.{key}")


@pytest.mark.parametrize(
    "calendar",
    [
        *(
            "daily",
            "daily UTC",
            "weekly",
            "02:00",
            "2:0:0",
            "Mon..Fri",
            "Mon *-*-1..7 04:00",
            "2099-01-01",
            "*-*-* 00/6:00:00",
        ),
        *("Mon..Fri 02:30 Europe/Berlin", "Sat *-*-1..7 18:00:00 UTC", "8,20:30", "0,2,4:00", "00/2:15"),
    ],
)
def test_calendars(calendar: str) -> None:
    """Hosts are spread over two hours unless their user says otherwise: not all of a fleet at a time."""
    wanted = {"calendar": calendar, "spread": 7200, "persistent": True}
    assert made(schedule={"calendar": calendar})["schedule"] == wanted
    assert made(schedule={"calendar": calendar, "spread": 0})["schedule"] == {**wanted, "spread": 0}


@pytest.mark.parametrize(
    "calendar",
    [
        *("hourly", "minutely", "Hourly UTC", "*:0/15", "*:00", "*-*-* *:00:00", "*:*:00/20", "02:0,30", "02:00:0/20"),
        *("8,9:00", "0,23:00", "0/1:00", "8..18:00", "8..18/3:00", "8,10,10:00", "0/23:00"),
    ],
)
def test_a_calendar_that_comes_round_soon_has_no_spread_by_default(calendar: str) -> None:
    """Systemd looks for the next time after the delayed one: within a longer delay, times are left out."""
    assert made(schedule={"calendar": calendar})["schedule"]["spread"] == 0
    assert made(schedule={"calendar": calendar, "spread": "5m"})["schedule"]["spread"] == 300


def test_each_key_of_a_schedule_has_its_default() -> None:
    daily = {"calendar": "daily", "spread": 7200, "persistent": True}
    assert made()["schedule"] == daily
    assert made(schedule={"calendar": "daily", "spread": "1h"})["schedule"] == {**daily, "spread": 3600}
    assert made(schedule={"calendar": "daily", "persistent": False})["schedule"] == {**daily, "persistent": False}
    # A variable that only spreads what another one says would make daily of its hourly.
    for schedule in ({}, {"spread": "1h"}, {"calendar": None}):
        assert refused(schedule=schedule).where.startswith("jobs.system.schedule")


@pytest.mark.parametrize(
    "calendar",
    [
        "",
        " ",
        " daily",
        "-x",
        "daily\n",
        "daily\nOnBootSec=1",
        "%i",
        "daily;x",
        "$x",
        '"daily"',
        "@0",
        "d" * 201,
        5,
    ],
)
def test_calendars_refused(calendar: t.Any) -> None:
    assert refused(schedule={"calendar": calendar}).where == "jobs.system.schedule.calendar"


def test_schedules_refused() -> None:
    assert refused(schedule="daily").where == "jobs.system.schedule"
    assert refused(schedule={"calendar": "daily", "spread": "-1"}).where == "jobs.system.schedule.spread"
    assert refused(schedule={"calendar": "daily", "persistent": "no"}).where == "jobs.system.schedule.persistent"
    assert made(schedule={"calendar": "daily", "spread": "2h", "persistent": False})["schedule"]["spread"] == 7200


# --- hooks and dumps


def test_hooks() -> None:
    assert made(pre=["a; b"])["pre"] == [{"command": ["/bin/sh", "-c", "a; b"], "user": "root", "timeout": 3600}]
    assert made(post=[{"command": "x\ny", "user": "www-data"}])["post"][0]["command"] == ["/bin/sh", "-c", "x\ny"]
    assert made(pre=[{"command": ["a", "b c"], "timeout": "5m"}])["pre"] == [
        {"command": ["a", "b c"], "user": "root", "timeout": 300}
    ]


@pytest.mark.parametrize(
    "hook",
    [
        None,
        5,
        [],
        "",
        "a\0",
        {},
        {"command": []},
        {"command": ""},
        {"command": [5]},
        {"command": "a", "user": "root\n"},
        {"command": "a", "user": "0"},
        {"command": "a", "timeout": 0},
        {"command": "a", "x": 1},
    ],
)
def test_hooks_refused(hook: t.Any) -> None:
    assert refused(pre=[hook]).where.startswith("jobs.system.pre[0]")


@pytest.mark.parametrize(
    ("dump", "user", "path", "command"),
    [
        ({"kind": "postgresql"}, "postgres", "/postgresql.sql", ["pg_dumpall", "--clean", "--if-exists"]),
        (
            {"kind": "postgresql", "database": "My db", "extra_args": ["-Z0"], "name": "my-db"},
            "postgres",
            "/my-db.dump",
            ["pg_dump", "--format=custom", "-Z0", "--", "My db"],
        ),
        (
            {"kind": "mariadb", "database": "x", "user": "root", "filename": "x.sql"},
            "root",
            "/x.sql",
            [*_jobs.DUMP_COMMANDS["mariadb"]["one"], "x"],
        ),
        (
            {"kind": "command", "name": "ldap", "user": "openldap", "command": ["slapcat"], "extra_args": ["-n1"]},
            "openldap",
            "/ldap",
            ["slapcat", "-n1"],
        ),
    ],
)
def test_dumps(dump: dict[str, t.Any], user: str, path: str, command: list[str]) -> None:
    found = made(dumps=[dump])["dumps"][0]
    assert (found["user"], found["path"], found["command"]) == (user, path, command)


@pytest.mark.parametrize(
    "dump",
    [
        None,
        "postgresql",
        {},
        {"kind": "oracle"},
        {"kind": "postgresql", "command": ["x"]},
        {"kind": "command", "name": "x", "command": ["--password=geheim"]},
        {"kind": "command", "user": "x", "command": ["x"]},
        {"kind": "command", "name": "x", "user": "x"},
        {"kind": "postgresql", "database": "host=evil password=geheim"},
        {"kind": "postgresql", "database": "postgresql://x"},
        {"kind": "postgresql", "database": "-x"},
        {"kind": "postgresql", "database": "a\n"},
        {"kind": "postgresql", "database": "a" * 64},
        {"kind": "postgresql", "filename": ".."},
        {"kind": "postgresql", "filename": "a/b"},
        {"kind": "postgresql", "name": "A"},
        {"kind": "postgresql", "user": "postgres;x"},
        {"kind": "mariadb", "extra_args": ["--password=geheim"]},
        {"kind": "mariadb", "extra_args": ["--quick", "--login-pass=geheim"]},
    ],
)
def test_dumps_refused(dump: t.Any) -> None:
    bad = refused(dumps=[dump])
    assert bad.where.startswith("jobs.system.dumps[0]")
    assert "geheim" not in shorten(bad.value)


def test_options_of_dumps_that_hold_no_password() -> None:
    for argument in ("--no-password", "--password", "--skip-password", "--passphrase-file", "--exclude-table=pass=x"):
        assert argument in made(dumps=[{"kind": "postgresql", "extra_args": [argument]}])["dumps"][0]["command"]


def test_dumps_have_names_of_their_own() -> None:
    assert (
        refused(dumps=[{"kind": "postgresql"}, {"kind": "postgresql", "database": "x"}]).where == "jobs.system.dumps[1]"
    )


# --- retention


def test_keep_becomes_options_of_restic() -> None:
    keep = made(
        keep={
            "within_weekly": "8w",
            "within_daily": "14d",
            "within_monthly": "12m",
            "within": "2y",
            "within_hourly": "6h",
        }
    )["keep"]
    assert _jobs.keep_options("here", keep, append_only=True) == [
        "--keep-within=2y",
        "--keep-within-daily=14d",
        "--keep-within-hourly=6h",
        "--keep-within-monthly=12m",
        "--keep-within-weekly=56d",
    ]
    assert _jobs.keep_options("here", {"last": 3, "daily": 7}, append_only=False) == ["--keep-daily=7", "--keep-last=3"]
    assert _jobs.keep_options("here", {}, append_only=True) == []


@pytest.mark.parametrize("key", _jobs.KEEP_COUNTS)
def test_counts_are_refused_where_snapshots_can_be_forged(key: str) -> None:
    with pytest.raises(BadInput, match="forged") as caught:
        _jobs.keep_options("here", {key: 3}, append_only=True)
    assert caught.value.where == f"here.{key}"


@pytest.mark.parametrize(
    "keep",
    ["14d", [], {"within_daily": 14}, {"within_daily": "0d"}, {"within_daily": "14"}, {"within_daily": "1d\n"}]
    + [{"within_daily": "90s"}, {"within_minutely": "1h"}, {"last": 0}, {"last": "all"}, {1: 2}],
)
def test_keep_refused(keep: t.Any) -> None:
    assert refused(keep=keep).where.startswith("jobs.system.keep")


# --- the command


def test_the_command_has_every_key() -> None:
    job = made(
        exclude=["*.o"],
        exclude_if_present=[".no"],
        exclude_caches=True,
        exclude_larger_than="1G",
        one_file_system=True,
        tags=["x"],
        compression="max",
        pack_size=64,
        read_concurrency=4,
        limit_upload=100,
        limit_download=200,
        retry_lock="1m",
        extra_args=["--no-scan"],
        host="w",
    )
    assert _jobs.backup_arguments("system--vault", "system", job, REPOSITORY, ["/own"]) == [
        *["backup", "--json", "--option=rest.connections=5", "--retry-lock=60s", "--compression=max", "--pack-size=64"],
        *[
            "--limit-upload=100",
            "--limit-download=200",
            "--host=w",
            "--tag=job:system",
            "--tag=files",
            "--tag=x",
            "--group-by=host,tags",
        ],
        *[
            "--exclude=/own",
            "--exclude=*.o",
            "--exclude-if-present=.no",
            "--exclude-caches",
            "--exclude-larger-than=1G",
        ],
        *[
            "--one-file-system",
            "--read-concurrency=4",
            "--files-from-raw=/run/holdfast/system--vault.sources",
            "--no-scan",
        ],
        *["--", "/etc"],
    ]


def test_the_least_command() -> None:
    assert _jobs.backup_arguments("s--v", "s", made(), {"options": {}}, []) == [
        *[
            "backup",
            "--json",
            "--retry-lock=300s",
            "--compression=auto",
            "--host=web1",
            "--tag=job:s",
            "--tag=files",
            "--group-by=host,tags",
        ],
        *["--files-from-raw=/run/holdfast/s--v.sources", "--", "/etc"],
    ]


def test_the_command_of_a_dump() -> None:
    job = made(dumps=[{"kind": "postgresql", "database": "x"}], tags=["t"])
    arguments = _jobs.dump_arguments("s", job, {"options": {}}, job["dumps"][0])
    assert arguments[-4:] == ["pg_dump", "--format=custom", "--", "x"]
    assert "--tag=dump:postgresql" in arguments
    assert "--tag=t" in arguments
    assert "--tag=files" not in arguments
    assert "--stdin-filename=/postgresql.dump" in arguments


@pytest.mark.parametrize("repository", [{"options": {}}, {"options": {}, "path": "/var/backups/x"}])
def test_only_the_command_of_a_dump_is_the_databases_account(repository: dict[str, t.Any]) -> None:
    """Restic as that account would show it the repository's password."""
    job = made(dumps=[{"kind": "postgresql", "user": "pg"}], environment={"PGPORT": 5433, "LANG": "C"})
    arguments = _jobs.dump_arguments("s", job, repository, job["dumps"][0])
    command = arguments[arguments.index("--stdin-from-command") + 2 :]
    assert command[:2] == ["/bin/sh", "-c"]
    for part in (
        '--reuid="$0"',
        '--regid="$(id -g -- "$0")"',
        "--init-groups",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--reset-env",
    ):
        assert part in command[2]
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert command[3:] == ["pg", "env", "LANG=C", path, "PGPORT=5433", "pg_dumpall", "--clean", "--if-exists"]
