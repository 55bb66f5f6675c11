# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run units of a repository run, and how they are held off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _hold
from ansible_collections.holdfast.backup.plugins.module_utils._restic import EngineError
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result


class Runner:
    def __init__(self, *results: Result) -> None:
        self.calls: list[list[str]] = []
        self._results = list(results)

    def __call__(self, argv: Sequence[str], **_options: Any) -> Result:
        self.calls.append(list(argv))
        return self._results.pop(0) if self._results else Result(0)


def test_units_of_this_repository_that_run() -> None:
    listed = (
        "holdfast-system--vault--pg.service loaded activating start Dump\n"
        "holdfast-record@system--vault.service loaded activating start Record\n"
        "holdfast-files--vault.service loaded activating start Backup\n"
    )
    runner = Runner(Result(0, listed))
    found = _hold.running("vault", runner=runner)
    assert found == ["holdfast-files--vault.service", "holdfast-system--vault--pg.service"]
    assert runner.calls[0][-2:] == ["holdfast-*--vault.service", "holdfast-*--vault--*.service"]
    with pytest.raises(EngineError, match="does not say which backups run: no bus"):
        _hold.running("vault", runner=Runner(Result(1, "", "no bus")))


def test_starts_are_held_off_for_as_long_as_it_takes(tmp_path: Path) -> None:
    for name in ("system--vault", "files--vault", "files--vault--pg", "files--other"):
        (tmp_path / f"holdfast-{name}.service").touch()
    runner = Runner()
    with _hold.held_off("vault", units=str(tmp_path), runner=runner):
        assert [call[0] for call in runner.calls] == ["systemctl", "systemd-run"]
        assert "--property=Before=holdfast-files--vault.service holdfast-system--vault.service" in runner.calls[1]
        assert runner.calls[1][-2:] == ["sleep", "300"]
    assert runner.calls[-1] == ["systemctl", "stop", "holdfast-hold-vault.service"]


def test_they_are_let_go_whatever_happens(tmp_path: Path) -> None:
    runner = Runner()
    with pytest.raises(RuntimeError), _hold.held_off("vault", units=str(tmp_path), runner=runner):
        raise RuntimeError
    assert runner.calls[-1][:2] == ["systemctl", "stop"]
    runner = Runner(Result(0), Result(1, "", "no"))
    with pytest.raises(EngineError, match="cannot be held off: no"), _hold.held_off("vault", runner=runner):
        pytest.fail("it was not held off")
