# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a module in this process, as Ansible would with these arguments."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils import _internal, basic
from ansible.module_utils.common import parameters, warnings
from ansible.module_utils.testing import patch_module_args

RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let modules return warnings and invocation, whatever other tests import and whichever ansible-core this is."""
    # Other tests import the controller's side, after which warnings would be shown instead of returned.
    monkeypatch.setattr(_internal, "is_controller", False)
    warnings._global_warnings.clear()
    # Versions that return the invocation on request only look at what was parsed, then at this.
    real = basic._load_params

    def load() -> Any:
        params = real()
        if "inject_invocation" in parameters.PASS_VARS:
            basic._PARSED_MODULE_ARGS["_ansible_inject_invocation"] = True
        return params

    monkeypatch.setattr(basic, "_load_params", load)


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory) -> RunModule:
    """Return the JSON that a module prints; ``failed`` is always set."""
    remote: Path = tmp_path_factory.mktemp("remote")

    def run(module: ModuleType, args: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        special = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": str(remote)}
        capsys.readouterr()
        with patch_module_args({**args, **special}), pytest.raises(SystemExit) as ended:
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert bool(ended.value.code) == result.get("failed", False), result
        assert not list(remote.glob("*/holdfast-*")), "the module leaves scratch files"
        return {"failed": False, **result}

    return run


@pytest.fixture
def place() -> Any:
    """A directory below /tmp that only root can reach (pytest's own parents belong to the user)."""
    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as path:
        yield Path(path)
