# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for the tests of the host program."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.plugins.module_utils.program.program_host import RECORD, FakeHost


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """A host on which a run can take place."""
    fake = FakeHost(tmp_path)
    fake.put("/etc/holdfast/secrets/vault.password", "the-password\n", 0o400)
    fake.put("/etc/holdfast/secrets/vault.repository", "/srv/repository\n", 0o400)
    fake.put("/etc/holdfast/secrets/vault.environment", "AWS_SECRET_ACCESS_KEY=backend-secret\n", 0o400)
    fake.put("/var/lib/holdfast/repositories/vault.env", RECORD)
    fake.put("/srv/data/one", "1")
    fake.answer("/usr/bin/restic", "version", stdout="restic 0.18.0 compiled with go1.24.4 on linux/amd64\n")
    return fake
