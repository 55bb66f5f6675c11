"""The program as people on a host use it."""

from __future__ import annotations

import json
import re

import pytest
from conftest import ODD, Client

pytestmark = pytest.mark.usefixtures("watches")


def test_status(client: Client) -> None:
    code, said, _wrong = client.holdfast("status")
    assert code == 0
    header, *rows = said.split("\n\n")[0].splitlines()
    assert header.split() == ["UNIT", "OUTCOME", "REASON", "LAST", "OK", "AGE", "NEXT", "RUNNING"]
    shown = {row.split()[0]: row for row in rows}
    assert " ok " in shown["plain--main"]
    assert " in " in shown["plain--main"]
    assert " incomplete  source missing " in shown["strict--main"]
    assert "declared but not there: /srv/missing" in said
    assert "no timer" not in said


def test_unknown_jobs(client: Client) -> None:
    for command in (["status", "nosuch"], ["run", "nosuch"], ["log", "nosuch"], ["snapshots", "nosuch"],
                    ["restore", "nosuch", "--target", "/srv/nowhere"]):  # fmt: skip
        code, said, wrong = client.holdfast(*command)
        assert (code, said) == (2, ""), command
        assert wrong.startswith("holdfast: there is no job 'nosuch' on this host; there are: bad-dump, canary,"), wrong
        assert len(wrong.splitlines()) == 1


@pytest.mark.parametrize("command", ["status", "run plain", "run --dry-run plain", "log plain", "snapshots plain--main",
                                     "restore plain--main --target /tmp/mine"])  # fmt: skip
def test_without_being_root(client: Client, command: str) -> None:
    done = client.host.run(f"timeout 60 runuser -u nobody -- holdfast {command}")
    assert done.rc not in (0, 124)
    assert done.stdout == ""
    assert "root" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_dry_run(client: Client) -> None:
    before = (
        client.restic("main", "snapshots", "--json"),
        client.outcome("hooks--main"),
        client.sh("cat /run/hooks.log"),
    )
    code, said, wrong = client.holdfast("run", "--dry-run", "hooks")
    assert code == 0, wrong
    assert "would add" in said
    assert before == (
        client.restic("main", "snapshots", "--json"), client.outcome("hooks--main"), client.sh("cat /run/hooks.log"),
    )  # fmt: skip
    assert "holdfast-dry-run" not in client.sh("systemctl list-units --all --plain --no-legend 'holdfast-dry*'")


@pytest.mark.parametrize(
    ("job", "expected", "word"), [("plain", 0, "ok"), ("lenient", 0, "incomplete"), ("strict", 1, "incomplete")]
)
def test_run_and_wait(client: Client, job: str, expected: int, word: str) -> None:
    code, said, wrong = client.holdfast("run", job, "--wait")
    assert code == expected, said + wrong
    for unit in {"plain": ["plain--main", "plain--far"]}.get(job, [f"{job}--main"]):
        assert f"{unit}: {word}" in said


def test_log(client: Client) -> None:
    code, said, _wrong = client.holdfast("log", "databases--main")
    assert code == 0
    assert "files: " in said
    assert said.rstrip().endswith("outcome: ok")
    assert "message_type" not in said
    # The dumps, too.
    assert said.count("snapshot ") >= 6, said


def test_snapshots(client: Client) -> None:
    code, _said, wrong = client.holdfast("snapshots", "plain")
    assert code == 2
    assert "plain--far, plain--main" in wrong
    code, said, _wrong = client.holdfast("snapshots", "databases--main")
    assert code == 0
    assert said.splitlines()[0].split() == ["ID", "TIME", "HOST", "WHAT", "SIZE", "PATHS"]
    assert {line.split()[4] for line in said.splitlines()[1:]} >= {"files", "postgresql", "mariadb"}


def test_restore_one_path(client: Client) -> None:
    for number, path in enumerate(path for path in ODD if re.search("[*\n$]", path)):
        target = f"/srv/one/{number}"
        code, said, wrong = client.holdfast("restore", "odd", "--target", target, "--path", path)
        assert code == 0, said + wrong
        found = json.loads(
            client.sh(
                f'python3 -c \'import json,os; print(json.dumps([d+"/"+x for d,_,f in os.walk("{target}") for x in f]))\''
            )
        )
        assert found == [f"{target}{path}/inside"]
    code, _said, wrong = client.holdfast("restore", "odd", "--target", "/srv/one/0")
    assert code == 2
    assert "not empty" in wrong
