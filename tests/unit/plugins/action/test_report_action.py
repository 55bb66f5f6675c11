# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin report."""

from __future__ import annotations

import json
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.holdfast.backup.plugins.action import report
from ansible_collections.holdfast.backup.plugins.action.report import ActionModule

from tests.unit.plugins.action.acting import perform

HOSTS: dict[str, Any] = {
    "web1": {
        "backup_id": "web1",
        "client": {
            "units": [{"unit": "s--v", "job": "s", "repository": "v", "keep": []}],
            "repositories": [],
            "escrow": {"mode": "age"},
        },
    }
}


act = partial(perform, ActionModule)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []

    def display(line: str, color: str | None = None) -> None:
        lines.append(f"{color}: {line}" if color else line)

    monkeypatch.setattr(report.display, "display", display)
    return lines


def test_the_table(shown: list[str]) -> None:
    result = act({"hosts": HOSTS, "answers": {"web1": None}})
    assert (result["changed"], result["state"]["hosts"]["web1"]["answered"]) == (False, False)
    assert any(line.startswith("web1  s    v           not asked") for line in shown)


def test_no_escrow_is_red(shown: list[str]) -> None:
    client = {**HOSTS["web1"]["client"], "escrow": {"mode": "none"}}
    client["repositories"] = [{"name": "v", "access": "rest", "tls": "private", "append_only": True}]
    act({"hosts": {"web1": {"backup_id": "web1", "client": client}}, "answers": {"web1": None}})
    assert "red: web1: v has no escrow: when this host is gone, nobody can restore" in shown
    assert len([line for line in shown if line.startswith("red: ")]) == 1


def test_json(shown: list[str]) -> None:
    result = act({"hosts": HOSTS, "answers": {}, "format": "json"})
    assert json.loads(shown[0]) == result["state"]


def test_a_query(shown: list[str]) -> None:
    assert act({"hosts": HOSTS, "answers": {}, "query": "keys(hosts)"})["answer"] == ["web1"]
    assert json.loads(shown[0]) == ["web1"]


@pytest.mark.parametrize("rest", [{"_raw_params": "| sort(@)"}, {"[?outcome": "='ok']"}, {"=": "3"}, {"==": "'3'"}])
def test_a_query_that_the_command_line_cut(shown: list[str], rest: dict[str, str]) -> None:
    """As ansible-playbook takes it apart: -e query='keys(hosts) | sort(@)'."""
    with pytest.raises(AnsibleActionFail) as raised:
        act({"hosts": HOSTS, "answers": {}, "query": "keys(hosts)"}, rest)
    assert str(raised.value) == (
        "query = 'keys(hosts)': is only the beginning of what was given, which Ansible cut at a space."
        """ Write it as JSON: -e '{"query": "hosts.*.units[] | length(@)"}'"""
    )
    assert not shown
    assert act({"hosts": HOSTS, "answers": {}}, rest)["state"]


def test_a_bad_query(shown: list[str]) -> None:
    with pytest.raises(AnsibleActionFail, match="query = 'hosts\\['"):
        act({"hosts": HOSTS, "answers": {}, "query": "hosts["})
    assert shown == []


# --- a file of its own


def test_the_state_goes_to_a_file(shown: list[str], tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    given = {"hosts": HOSTS, "answers": {}, "output": str(path)}
    assert act(given, check_mode=True)["changed"] is True
    assert not path.exists()
    result = act(given)
    assert (result["changed"], json.loads(path.read_text())) == (True, result["state"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # The table is shown all the same.
    assert any(line.startswith("web1  s    v ") for line in shown)
    path.chmod(0o644)
    assert act(given)["changed"] is False
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert act({**given, "query": "keys(hosts)"})["changed"] is True
    assert json.loads(path.read_text()) == ["web1"]
    assert list(tmp_path.iterdir()) == [path]


def test_where_no_file_can_be(shown: list[str], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nothing")
    for path, wrong in (
        (tmp_path, "is no file"),
        (link, "is no file"),
        (tmp_path / "a/b", f"there is no directory {tmp_path}/a"),
    ):
        for check_mode in (True, False):
            with pytest.raises(AnsibleActionFail, match=f"output = {path}: {wrong}"):
                act({"hosts": HOSTS, "answers": {}, "output": str(path)}, check_mode=check_mode)
    assert list(tmp_path.iterdir()) == [link]
    assert not shown


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(AnsibleActionFail, match="Permission denied"):
        act({"hosts": HOSTS, "answers": {}, "output": str(tmp_path / "status.json")})
    assert not list(tmp_path.iterdir())
