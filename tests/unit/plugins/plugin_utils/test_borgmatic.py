# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _borgmatic, _jobs
from ansible_collections.holdfast.backup.plugins.plugin_utils._fleet import fleet
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput

REPOSITORY = {"name": "archive", "engine": "borg", "access": "local", "location": "/var/backups/holdfast/archive"}
COMMAND = {"kind": "command", "name": "x", "user": "x", "command": ["true"]}
REMOTE = {**REPOSITORY, "access": "ssh", "location": "ssh://holdfast-archive/./web1--archive"}


def job(**keys: t.Any) -> dict[str, t.Any]:
    return _jobs.job("backup_jobs.system", {"paths": ["/etc"], **keys}, "web1")


def configuration(repository: dict[str, t.Any] | None = None, **keys: t.Any) -> dict[str, t.Any]:
    repository = REPOSITORY if repository is None else repository
    definition = job(**keys)
    _borgmatic.check("backup_jobs.system", definition, repository)
    return _borgmatic.configuration("system--archive", "system", definition, repository, ["/var/cache/holdfast*"])


def test_the_whole_configuration() -> None:
    assert configuration(exclude=["*.cache"], tags=["red"], paths=["/etc", "/srv/${X}", "/srv/odd[1]"]) == {
        "source_directories": ["/etc", "/srv/\\${X}"],
        "repositories": [{"path": "/var/backups/holdfast/archive", "label": "archive"}],
        "exclude_patterns": [
            "re:^/?var/cache/holdfast[^/]*(/|$)",
            "re:(^|/)[^/]*\\.cache(/|$)",
        ],
        "encryption_passphrase": "{credential systemd password}",
        "borg_base_directory": "/var/lib/holdfast/borg",
        "archive_name_format": "web1--system--{utcnow:%Y-%m-%dT%H:%M:%S.%f}",
        "match_archives": "sh:web1--system--*T??:??:??.??????",
        "compression": "auto,zstd",
        "lock_wait": 300,
        "relocated_repo_access_is_ok": False,
        "unknown_unencrypted_repo_access_is_ok": False,
        "bootstrap": {"store_config_files": False},
        "extra_borg_options": {
            "create": "--comment holdfast,job:system,red --patterns-from /run/holdfast/system--archive.sources"
        },
    }


@pytest.mark.parametrize(
    ("keys", "where", "value"),
    [
        ({"host": "db.checkpoint.example.org"}, "host", "db.checkpoint.example.org"),
        ({"dumps": [{"kind": "postgresql"}, COMMAND | {"name": "checkpoint-2"}]}, "dumps[1].name", "checkpoint-2"),
    ],
)
def test_borg_hides_archives_of_such_a_name(keys: dict[str, t.Any], where: str, value: str) -> None:
    """Borg lists none that has it anywhere in its name: what a night saved could not be restored."""
    with pytest.raises(BadInput) as raised:
        configuration(**keys)
    assert (raised.value.where, raised.value.value) == (f"backup_jobs.system.{where}", value)
    configuration(host="checkpoint.example.org", dumps=[COMMAND | {"name": "a-checkpoint"}])


def test_what_a_job_may_say() -> None:
    found = configuration(
        REMOTE,
        exclude_caches=True,
        one_file_system=True,
        exclude_if_present=[".nobackup"],
        limit_upload=512,
        compression="max",
        retry_lock=0,
        paths=["/srv/*"],
    )
    assert "source_directories" not in found
    assert found["exclude_if_present"] == [".nobackup"]
    assert (found["exclude_caches"], found["one_file_system"]) == (True, True)
    assert (found["upload_rate_limit"], found["compression"], found["lock_wait"]) == (512, "auto,zstd,19", 1)


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"exclude_larger_than": "1G"}, "exclude_larger_than"),
        ({"pack_size": 16}, "pack_size"),
        ({"read_concurrency": 2}, "read_concurrency"),
        ({"limit_download": 100}, "limit_download"),
        ({"limit_upload": 100}, "limit_upload"),
        ({"proxy": "http://proxy:3128"}, "proxy"),
        ({"extra_args": ["--ignore-inode"]}, "extra_args"),
        ({"paths": ["/srv/new\nline"]}, "paths"),
        ({"optional_paths": ["/srv/space "]}, "optional_paths"),
        ({"exclude": ["!/keep"]}, "exclude"),
        ({"exclude_if_present": ["x:header"]}, "exclude_if_present"),
        ({"exclude_if_present": ["a b"]}, "exclude_if_present"),
        ({"host": "a:b"}, "host"),
    ],
)
def test_what_borg_cannot_do_is_one_clear_error(keys: dict[str, t.Any], where: str) -> None:
    with pytest.raises(BadInput) as caught:
        configuration(**keys)
    assert caught.value.where == f"backup_jobs.system.{where}"
    assert "archive, which is a repository of borg" in str(caught.value.wrong)
    # All of it is well for restic, and all but what was said for borg.
    configuration()


@pytest.mark.parametrize(
    ("pattern", "matches", "leaves"),
    [
        ("*.cache", ["a.cache", "home/x/b.cache", "home/c.cache/deep/file"], ["a.cachex", "cache"]),
        ("cache", ["cache", "home/cache", "cache/x"], ["mycache", "caches"]),
        ("/home/*/x", ["home/a/x", "home/a/x/y"], ["home/a/b/x", "srv/home/a/x"]),
        ("/a/**/b", ["a/b", "a/x/b", "a/x/y/b/c"], ["a/xb", "x/a/b"]),
        ("/a/**", ["a", "a/b", "a/b/c"], ["b/a/c", "ab"]),
        ("*/**", ["a", "a/b"], []),
        ("./a//b/", ["a/b", "x/a/b/c"], ["a", "ab"]),
        ("//a/./b", ["a/b"], ["x/a/b"]),
        ("[a-c]x", ["ax", "home/bx"], ["dx", "abx"]),
        ("[^a]x", ["bx"], ["ax", "/x"]),
        ("f?o", ["foo", "srv/fxo/deep"], ["fo", "f/o"]),
        ("a\\*b", ["a*b"], ["axb"]),
        ("sub/dir", ["sub/dir", "x/sub/dir/y"], ["xsub/dir"]),
        ("#a (b)+ ", ["#a (b)+ "], ["#a bb "]),
        ("[[]x", ["[x"], ["x"]),
    ],
)
def test_patterns_mean_what_they_mean_for_restic(pattern: str, matches: list[str], leaves: list[str]) -> None:
    expression = re.compile(_borgmatic.expression(pattern))
    assert [path for path in matches if not expression.search(path)] == []
    assert [path for path in leaves if expression.search(path)] == []


def test_a_dump_runs_as_its_own_account_only() -> None:
    definition = job(dumps=[{"kind": "postgresql", "name": "pg"}], limit_upload=10)
    arguments = _borgmatic.dump_arguments("system", definition, REMOTE, definition["dumps"][0])
    assert arguments[:10] == [
        "--log-json",
        "create",
        "--json",
        "--lock-wait=300",
        "--compression=auto,zstd",
        "--upload-ratelimit=10",
        "--comment=holdfast,job:system,dump:pg",
        "--stdin-name=pg.sql",
        "--content-from-command",
        "--",
    ]
    assert arguments[10] == f"{REMOTE['location']}::web1--system--{_borgmatic.TIME}.pg"
    assert arguments[11:15] == ["/bin/sh", "-c", _jobs.SWITCH, "postgres"]
    assert "--upload-ratelimit=10" not in _borgmatic.dump_arguments("system", job(), REPOSITORY, definition["dumps"][0])


def test_keep() -> None:
    assert _borgmatic.keep_options("w", {"within": "36h", "daily": 7, "last": 3}, False) == [
        "--keep-daily=7",
        "--keep-last=3",
        "--keep-within=36H",
    ]
    assert _borgmatic.keep_options("w", {"within": "8w"}, True) == ["--keep-within=8w"]
    for keep, append_only in (({"within_daily": "14d"}, False), ({"daily": 7}, True)):
        with pytest.raises(BadInput):
            _borgmatic.keep_options("w", keep, append_only)


def test_a_fleet_with_both_engines() -> None:
    model = fleet(
        {
            "web1": {
                "backup_repositories": {"archive": {"engine": "borg"}, "local": {}},
                "backup_jobs": {"system": {"paths": ["/etc"], "dumps": [{"kind": "postgresql"}]}},
            }
        },
        {"backup_clients": ["web1"]},
    )
    assert model["errors"] == []
    archive, local = model["hosts"]["web1"]["client"]["units"]
    assert archive["arguments"][:2] == ["--config", "/etc/holdfast/borgmatic/system--archive.yaml"]
    assert archive["borgmatic"]["repositories"][0]["path"] == "/var/backups/holdfast/archive"
    assert "re:^/?var/backups/holdfast/local(/|$)" in archive["borgmatic"]["exclude_patterns"]
    assert archive["dumps"][0]["arguments"][1] == "create"
    assert "borgmatic" not in local
    assert local["arguments"][0] == "backup"
