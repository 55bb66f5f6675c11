# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One lab for the whole session: a bookworm and a trixie host, and a way to run a module on one of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ansible_commands
from tests.lab.api import Lab

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"bookworm": "bw", "trixie": "tx"}
# Everything runs on the older systemd; both releases, which takes twice as long, is a campaign of its own.
SUITES = sorted(HOSTS) if os.environ.get("HOLDFAST_ALL_SUITES") else ["bookworm"]

RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Two booted hosts; they end with this process at the latest."""
    made = Lab(f"pytest-{os.getpid()}")
    try:
        made.up([f"{name}={suite}" for suite, name in HOSTS.items()], owner=os.getpid())
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def inventory(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's Ansible inventory."""
    path = tmp_path_factory.mktemp("inventory") / "hosts.json"
    path.write_text(json.dumps(lab.inventory()))
    return path


@pytest.fixture(params=SUITES)
def host(request: pytest.FixtureRequest) -> str:
    """The name of a host in the lab, of each release in turn."""
    return HOSTS[request.param]


@pytest.fixture
def run_module(inventory: Path, tmp_path: Path) -> RunModule:
    """Run a module of the collection on a host as Ansible does, and return its result."""

    def run(host: str, module: str, args: dict[str, Any], *, check: bool = False, user: str = "root") -> dict[str, Any]:
        arguments = [host, "-i", str(inventory), "-t", str(tmp_path / "tree"), "-m", f"holdfast.backup.{module}"]
        arguments += ["-a", json.dumps(args), *(["--check"] if check else []), "--diff"]
        arguments += ["-e", f"ansible_user={user}"]
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_PIPELINING": "1"}
        environment["ANSIBLE_DEPRECATION_WARNINGS"] = "0"
        done = ansible_commands.run("ansible", arguments, cwd=tmp_path, environment=environment, timeout=300)
        path = tmp_path / "tree" / host
        assert path.exists(), done.stdout
        result: dict[str, Any] = json.loads(path.read_text())
        path.unlink()
        return {"failed": done.returncode != 0, **result}

    return run
