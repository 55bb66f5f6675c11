# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of a repository's own location, from the inventory to everything that runs restic on it."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _secrets, _source
from ansible_collections.holdfast.backup.plugins.module_utils._program import cli, same
from ansible_collections.holdfast.backup.plugins.module_utils._program import definition as definitions
from ansible_collections.holdfast.backup.plugins.module_utils._restic import Restic
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result
from ansible_collections.holdfast.backup.plugins.plugin_utils import _fleet, _templates

from tests.unit.plugins.module_utils.program.program_host import ID, ME, NOW, RECORD, FakeHost

TEMPLATES = Path(__file__).parents[5] / "roles/jobs/templates"
UNIT, FILE = "system--cloud", "/etc/holdfast/secrets/cloud.environment"


def rendered(url: str, environment: dict[str, str]) -> tuple[dict[str, str], str, dict[str, t.Any]]:
    """Of a repository at this location: its variables as identity is given them, and its unit and definition as the role jobs writes them."""
    variables = {
        "backup_escrow": {"mode": "none"},
        "backup_repositories": {"cloud": {"access": "url", "url": url, "environment": environment}},
        "backup_jobs": {"system": {"paths": ["/etc"]}},
    }
    model = _fleet.fleet({"web1": variables}, {"backup_clients": ["web1"]})
    assert model["errors"] == []
    client = model["hosts"]["web1"]["client"]
    values = {
        "unit": client["units"][0],
        "__job": client["jobs"]["system"],
        "__repository": client["repositories"][0],
        "__account": ME,
        "jobs_cas": {},
        "jobs_escrow_mode": "none",
        "jobs_on_failure": [],
        "jobs_privilege": "systemd",
        "jobs_program": "/usr/local/bin/holdfast",
        "jobs_restic_binary": "/usr/bin/restic",
        "jobs_sandbox": "full",
    }
    of = _templates.environment(str(TEMPLATES)).get_template
    service, definition = of("run.service.j2").render(values), json.loads(of("unit.json.j2").render(values))
    return _fleet.repository_secrets(variables)["cloud"]["environment"], service, definition


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("b2:bucket:path", {"B2_ACCOUNT_ID": "0012ab", "B2_ACCOUNT_KEY": 'K001$"x y'}),
        ("azure:container:/", {"AZURE_ACCOUNT_NAME": "company", "AZURE_ACCOUNT_KEY": "c2VjcmV0/+=="}),
        (
            "gs:bucket:/",
            {"GOOGLE_PROJECT_ID": "company-123", "GOOGLE_APPLICATION_CREDENTIALS": "/etc/backup/gs-secret.json"},
        ),
    ],
)
def test_everything_that_runs_restic_gets_them(host: FakeHost, url: str, environment: dict[str, str]) -> None:
    wanted, service, definition = rendered(url, environment)
    # As the module identity writes it.
    written = _secrets.render_environment(wanted)
    # The run itself: systemd reads the file, and nothing of it is in the unit or the definition.
    assert f"EnvironmentFile=-{FILE}\n" in service
    assert definition["environment_file"] == FILE
    assert not [value for value in environment.values() if value in f"{service}{definition}"]
    # People, and what looks after a run whether it saved into the repository on record.
    host.put(f"/etc/holdfast/units/{UNIT}.json", definition)
    host.put("/var/lib/holdfast/repositories/cloud.env", RECORD)
    host.put(FILE, written, mode=0o600)
    host.answer("snapshots", stdout="[]")
    cli.main(["snapshots", UNIT], host)
    assert host.calls[-1][:2] == ["/usr/bin/restic", "snapshots"]
    assert environment.items() <= host.environments[-1].items()
    host.answer("cat", stdout=json.dumps({"id": ID}))
    assert same.doubt(host, definitions.load(host, UNIT), NOW) is None
    assert host.calls[-1][:3] == ["/usr/bin/restic", "cat", "config"]
    assert environment.items() <= host.environments[-1].items()
    # The playbook, as root.
    ran: list[dict[str, str]] = []

    def runner(_argv: list[str], *, environment: dict[str, str], **_more: t.Any) -> Result:
        ran.append(environment)
        return Result(10, "", "")

    password = host.put("/root/password", "secret")
    files = {"password_file": str(password), "environment_file": str(host.path(FILE))}
    source = _source.load({"repository": url, **files})
    Restic(source, binary="/usr/bin/restic", timeout=30, runner=runner).look()
    assert ran
    assert all(environment.items() <= each.items() for each in ran)
