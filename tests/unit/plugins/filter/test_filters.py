# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters are what the playbooks call them."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.holdfast.backup.plugins.filter import fleet, host, jobs, process, rclone, units
from ansible_collections.holdfast.backup.plugins.module_utils import _units
from ansible_collections.holdfast.backup.plugins.plugin_utils import (
    _delivered,
    _fleet,
    _limit,
    _rclone,
    _sources,
    _templates,
    _tree,
    _unit_files,
)


def test_filters() -> None:
    modules = (fleet, host, jobs, process, rclone, units)
    found = {name: function for module in modules for name, function in module.FilterModule().filters().items()}
    assert found == {
        "fleet": _fleet.fleet,
        "repository_secrets": _fleet.repository_secrets,
        "rest_rendered": _limit.rendered,
        "ssh_rendered": _limit.ssh_rendered,
        "rest_accounts": _delivered.rest_accounts,
        "shared_sources": _sources.shared_sources,
        "ssh_accounts": _delivered.ssh_accounts,
        "ssh_host_keys": _delivered.ssh_host_keys,
        "rclone_files": _rclone.files,
        "rclone_problems": _rclone.problems,
        "tree_differs": _tree.tree_differs,
        "hold_state": process.hold_state,
        "keep_loaded": process.keep_loaded,
        "unit_command": _units.command_line,
        "unit_files": _unit_files.unit_files,
        "unit_environment": _units.environment,
        "unit_word": _units.quote,
    }


def test_the_state_directory_is_held_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/integration/test_playbooks.py shows whom it keeps out, and for how long."""
    monkeypatch.setattr(process, "_held", {})
    inventory, hosts = tmp_path / "inventory.yml", tmp_path / "state/hosts"
    inventory.touch()

    def hold(path: str = "state", *, check_mode: bool = False) -> object:
        return process.hold_state([1], path, [str(inventory)], check_mode)

    # Before the first run there is nothing to hold, and a bad path is the task's to refuse.
    assert hold() == hold("\0") == [1]
    hosts.mkdir(parents=True)
    other = os.open(hosts, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert hold(check_mode=True) == [1]
        with pytest.raises(
            AnsibleFilterError, match=f"another run of site, rotate or decommission works with {tmp_path}/state"
        ):
            hold()
        fcntl.flock(other, fcntl.LOCK_UN)
        assert hold() == hold() == [1]
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Where the file system knows no locks, nobody can be kept out.
        process._held.clear()
        monkeypatch.setattr(process.fcntl, "flock", lambda *_args: (_ for _ in ()).throw(OSError(errno.ENOTSUP, "no")))
        assert hold() == [1]
        assert not process._held
    finally:
        os.close(other)


def test_what_is_loaded_is_not_looked_at_again() -> None:
    value: list[list[object]] = [[]]
    value[0].append(value)
    try:
        assert process.keep_loaded(value) is value
        assert gc.get_freeze_count() > 0
        assert all(each is not value for each in gc.get_objects()), "the collector still knows it"
    finally:
        gc.unfreeze()
    assert any(each is value for each in gc.get_objects())


def test_templates_of_units_are_compiled_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.j2").write_text("{{ 1 + 1 }}")
    (tmp_path / "README").write_text("{% no template")
    monkeypatch.setattr(_unit_files, "TEMPLATES", str(tmp_path))
    try:
        assert process.keep_loaded(True, units=True)
    finally:
        gc.unfreeze()
    # The file is not read again.
    (tmp_path / "a.j2").write_text("other")
    assert _templates.environment(str(tmp_path)).get_template("a.j2").render() == "2"
