# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of run units, of the real model and the real templates."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.holdfast.backup.plugins.modules import host_info
from ansible_collections.holdfast.backup.plugins.plugin_utils import _fleet, _unit_files

SYSTEMD = "/etc/systemd/system"
RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
VALUES = {
    "jobs_account": "holdfast",
    "jobs_borg_binary": "/usr/bin/borg",
    "jobs_borgmatic_binary": "/usr/bin/borgmatic",
    "jobs_cas": {},
    "jobs_capable_binary": "/usr/local/lib/holdfast-capable/restic",
    "jobs_escrow_mode": "age",
    "jobs_on_failure": [],
    "jobs_privilege": "systemd",
    "jobs_program": "/usr/local/bin/holdfast",
    "jobs_restic_binary": "/usr/bin/restic",
    "jobs_sandbox": "full",
}


def files(jobs: dict[str, t.Any], repositories: dict[str, t.Any], **values: t.Any) -> dict[str, dict[str, t.Any]]:
    """The files of a client, by path."""
    variables = {
        "backup_escrow": {"recipients": [RECIPIENT]},
        "backup_repositories": repositories,
        "backup_jobs": jobs,
    }
    model = _fleet.fleet({"vault1": {}, "web1": variables}, {"backup_clients": ["web1"], "backup_servers": ["vault1"]})
    assert model["errors"] == []
    client = model["hosts"]["web1"]["client"]
    found = _unit_files.unit_files(client["units"], client["jobs"], client["repositories"], {**VALUES, **values})
    by_path = {each["path"]: each for each in found}
    assert len(by_path) == len(found)
    return by_path


VAULT = {"vault": {"server": "vault1"}}
WEB = {"web": {"paths": ["/srv/{{ x }}"], "exclude": ["a b"]}}


def test_a_job() -> None:
    found = files(WEB, VAULT)
    assert sorted(found) == [
        "/etc/holdfast/units/web--vault.json",
        f"{SYSTEMD}/holdfast-interrupted.service",
        f"{SYSTEMD}/holdfast-record@.service",
        f"{SYSTEMD}/holdfast-web--vault.service",
        f"{SYSTEMD}/holdfast-web--vault.timer",
    ]
    definition = found["/etc/holdfast/units/web--vault.json"]
    assert "validate" not in definition
    # It has the user's commands in it, and root's program alone reads it.
    assert definition["mode"] == "0600"
    said = json.loads(definition["content"])
    assert (said["user"], said["paths"]) == ("holdfast", ["/srv/{{ x }}"]), "a value is no template"
    assert said["excluded"] == ["(^|/)a\\ b(/|$)"]
    service = found[f"{SYSTEMD}/holdfast-web--vault.service"]
    assert (service["mode"], service["validate"]) == ("0644", "systemd-unit")
    assert "User=holdfast\n" in service["content"]
    assert '"--exclude=a b"' in service["content"]
    assert re.search(r"^After=(.*) remote-fs.target ", service["content"], re.MULTILINE), "or a boot's run comes first"
    assert service["content"].endswith("\n")
    assert not service["content"].endswith("\n\n")


def test_a_job_of_root() -> None:
    found = files(WEB, VAULT, jobs_privilege="root")
    assert "User=" not in found[f"{SYSTEMD}/holdfast-web--vault.service"]["content"]
    assert json.loads(found["/etc/holdfast/units/web--vault.json"]["content"])["user"] == "root"


def test_the_capable_copy_has_units_of_its_own() -> None:
    found = files(WEB, VAULT, jobs_privilege="setcap")
    capable = {path: found[path]["content"] for path in found if "/holdfast-restic-capable" in path}
    assert sorted(capable) == [
        f"{SYSTEMD}/holdfast-restic-capable-again.service",
        f"{SYSTEMD}/holdfast-restic-capable.path",
        f"{SYSTEMD}/holdfast-restic-capable.service",
    ]
    assert len(set(capable.values())) == 3
    service = capable[f"{SYSTEMD}/holdfast-restic-capable.service"]
    assert f"capable-copy {VALUES['jobs_restic_binary']} {VALUES['jobs_capable_binary']} holdfast\n" in service
    # What systemd starts has its capability from the unit.
    run = f"{SYSTEMD}/holdfast-web--vault.service"
    assert found[run] == files(WEB, VAULT)[run]


def test_each_dump_has_a_unit() -> None:
    dumps = [{"name": "db", "kind": "postgresql", "database": "shop"}]
    found = files({"web": {"dumps": dumps}}, VAULT)
    (unit,) = json.loads(found["/etc/holdfast/units/web--vault.json"]["content"])["dumps"]
    assert unit["name"] == "db"
    assert "pg_dump" in found[f"{SYSTEMD}/{unit['unit']}"]["content"]


def test_units_of_borg_have_a_memory_of_files_of_their_own() -> None:
    """Borg forgets a file that 20 archives of the same memory did not have, those of other jobs and of dumps too."""
    dump = {"kind": "command", "name": "x", "user": "x", "command": ["true"]}
    found = files({"web": {**WEB["web"], "dumps": [dump]}}, {"vault": {"engine": "borg", "access": "local"}})
    for unit, suffix in {"web--vault": "web--vault", "web--vault--x": "dumps"}.items():
        lines = found[f"{SYSTEMD}/holdfast-{unit}.service"]["content"].splitlines()
        assert f"Environment=BORG_FILES_CACHE_SUFFIX={suffix}" in lines


def test_borgmatic_checks_its_configuration() -> None:
    found = files(WEB, {"vault": {"engine": "borg", "access": "ssh", "server": "vault1"}})
    configuration = found["/etc/holdfast/borgmatic/web--vault.yaml"]
    assert configuration["validate"] == "/usr/bin/borgmatic config validate --config %s"
    assert "/etc/holdfast/secrets/vault." not in configuration["content"]
    # ssh is given the key that systemd hands to the unit, not the file that only root reads.
    service = found[f"{SYSTEMD}/holdfast-web--vault.service"]["content"]
    (dialled,) = [line for line in service.splitlines() if "BORG_RSH" in line]
    assert "-i %d/ssh_key" in dialled


def test_a_proxy_of_the_repository_or_of_the_job() -> None:
    job = {"paths": ["/srv"], "dumps": [{"kind": "postgresql"}]}
    vault = {"vault": {"server": "vault1", "proxy": "http://proxy:3128"}}
    for jobs, proxy in (
        ({"web": job}, "http://proxy:3128"),
        ({"web": {**job, "proxy": "http://other:1"}}, "http://other:1"),
    ):
        found = files(jobs, vault)
        for name in ("holdfast-web--vault", "holdfast-web--vault--postgresql"):
            content = found[f"{SYSTEMD}/{name}.service"]["content"]
            assert f"Environment=HTTPS_PROXY={proxy} HTTP_PROXY={proxy}\n" in content
        # What holdfast snapshots, restore and mount run with.
        said = json.loads(found["/etc/holdfast/units/web--vault.json"]["content"])["environment"]
        assert (said["HTTPS_PROXY"], said["HTTP_PROXY"]) == (proxy, proxy)


DUMPS = [{"name": "db", "kind": "postgresql", "database": "shop"}]
# borg is not to be had with setcap: test_host.py.
PRIVILEGES = [("systemd", "restic"), ("systemd", "borg"), ("root", "restic"), ("root", "borg"), ("setcap", "restic")]
RUN = {"systemd": 2.0, "setcap": 2.0, "root": 2.2}
DUMP = {"systemd": 2.0, "setcap": 2.0, "root": 2.4}


def services(privilege: str, engine: str, **values: t.Any) -> tuple[str, str]:
    """The service of a run unit and the one of its dump."""
    found = files(
        {"web": {"paths": ["/srv"], "dumps": DUMPS}}, {"vault": {"engine": engine}}, jobs_privilege=privilege, **values
    )
    run, dump = (found[f"{SYSTEMD}/holdfast-web--vault{end}.service"]["content"] for end in ("", "--db"))
    return run, dump


def said(service: str, name: str) -> list[str]:
    """Every value of a setting, in order."""
    return [line.partition("=")[2] for line in service.splitlines() if line.partition("=")[0] == name]


@pytest.mark.parametrize(("privilege", "engine"), PRIVILEGES)
def test_what_a_unit_runs_as(privilege: str, engine: str) -> None:
    run, dump = services(privilege, engine)
    for service in (run, dump):
        assert said(service, "User") == ([] if privilege == "root" else ["holdfast"])
    assert said(run, "AmbientCapabilities") == ([] if privilege == "root" else ["CAP_DAC_READ_SEARCH"])
    assert said(run, "CapabilityBoundingSet") == ["CAP_DAC_READ_SEARCH"]
    assert said(run, "NoNewPrivileges") == ["yes"]
    # Whoever dumps may become the database's account, and reads nobody's files.
    assert said(dump, "AmbientCapabilities") == said(dump, "CapabilityBoundingSet") == ["CAP_SETUID CAP_SETGID"]
    assert said(dump, "NoNewPrivileges") == ["yes"]


@pytest.mark.parametrize(("privilege", "engine"), PRIVILEGES)
def test_a_dump_is_shut_in_as_its_job(privilege: str, engine: str) -> None:
    run, dump = (
        set(full.splitlines()) - set(reduced.splitlines())
        for full, reduced in zip(
            services(privilege, engine), services(privilege, engine, jobs_sandbox="reduced"), strict=True
        )
    )
    run, dump = ({line for line in lines if not line.startswith(("#", "ReadWritePaths="))} for lines in (run, dump))
    assert run - dump == {"MemoryDenyWriteExecute=yes", "SystemCallFilter=~@privileged @resources open_by_handle_at"}
    assert dump - run == {"ProtectKernelModules=yes", "SystemCallFilter=~@resources open_by_handle_at"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize(("privilege", "engine"), PRIVILEGES)
def test_exposure(privilege: str, engine: str, tmp_path: Path) -> None:
    """Without address filters; molecule/jobs and molecule/setcap measure the same in force."""
    for service, most in zip(services(privilege, engine), (RUN[privilege], DUMP[privilege]), strict=True):
        file = tmp_path / "measured.service"
        file.write_text(service)
        argv = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(file)]
        shown = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown)
        assert found, shown
        assert float(found[1]) <= most, shown


def test_what_a_template_is_not_given_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(VALUES, "jobs_sandbox")
    expected = (
        r"run\.service\.j2 cannot be rendered for /etc/systemd/system/holdfast-web--vault\.service: 'jobs_sandbox' is"
    )
    with pytest.raises(AnsibleFilterError, match=expected):
        files(WEB, VAULT)


@pytest.mark.parametrize(("engine", "privilege"), [("restic", "systemd"), ("restic", "setcap"), ("borg", "systemd")])
def test_a_reduced_sandbox_needs_no_mounts(engine: str, privilege: str) -> None:
    """Where none starts, a unit that may write to a local repository does not either."""
    dumps = [{"name": "db", "kind": "postgresql", "database": "shop"}]
    local = {"local": {"engine": engine, "access": "local", "path": "/srv/local"}}
    found = files({"web": {"paths": ["/srv"], "dumps": dumps}}, local, jobs_sandbox="reduced", jobs_privilege=privilege)
    services = {path: each["content"] for path, each in found.items() if path.endswith(".service")}
    assert len(services) > 2
    mounts = re.compile(r"^(?:\w*Paths|Private\w+|Protect\w+)=", re.MULTILINE)
    assert not [path for path, content in services.items() if mounts.search(content)]


def test_what_host_info_tries_is_the_sandbox() -> None:
    """A reduced sandbox is what such a probe would not need."""
    name = f"{SYSTEMD}/holdfast-web--vault.service"
    full, reduced = (
        {line for line in files(WEB, VAULT, jobs_sandbox=each)[name]["content"].splitlines() if line[:1] != "#"}
        for each in ("full", "reduced")
    )
    assert reduced < full
    assert set(host_info.SANDBOX) == full - reduced | {
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
    }
    assert "AmbientCapabilities=CAP_DAC_READ_SEARCH" in reduced
