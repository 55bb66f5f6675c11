# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets that Ansible would not find in what it writes to the host's log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.backup.plugins.module_utils import _quiet
from ansible_collections.holdfast.backup.plugins.modules import file_tree, identity

RunModule = Callable[..., dict[str, object]]

ODD = "first-canary\nsecond-canary\\\"'"


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was written to the log of the host."""
    lines: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _module, text, log_args=None: lines.append(f"{text} {log_args}"))
    return lines


def test_ansible_itself_would_show_them(
    logged: list[str], run_module: RunModule, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: where this fails, Ansible has learned it, and the class can go."""
    monkeypatch.delattr(_quiet.QuietModule, "_log_invocation")
    run_module(file_tree, tree(place), check=True)
    assert any("first-canary" in line for line in logged)


def test_file_tree(logged: list[str], run_module: RunModule, place: Path) -> None:
    run_module(file_tree, tree(place), check=True)
    assert logged == ["Invoked with options that are not logged None"]


def test_identity(logged: list[str], run_module: RunModule, place: Path) -> None:
    repository = {"name": "vault", "access": "url", "location": "rest:http://vault1:8000/x/"}
    secrets = {"password": ODD, "ssh_key": ODD, "borg_key": ODD, "environment": {"AWS_SECRET_ACCESS_KEY": ODD}}
    run_module(
        identity,
        {"fleet_id": "f1", "host": "web1", "directory": str(place / "x"), "repositories": [{**repository, **secrets}]},
        check=True,
    )
    assert logged == ["Invoked with options that are not logged None"]


def tree(place: Path) -> dict[str, object]:
    secret = {"path": str(place / "secret"), "content": ODD, "mode": "0600"}
    return {"namespace": "test", "secret_files": [secret], "manifest_dir": str(place)}
