"""Counts module executions by host: what runs on a managed host, delegated ones for the host they run on."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: executions
type: aggregate
short_description: counts module executions by host
description: Writes a JSON file that says how many modules ran on each host; its path is in EXECUTIONS_FILE.
"""

# These do their work on the controller; nothing of them runs on the host.
CONTROLLER_ONLY = frozenset(
    f"ansible.builtin.{name}"
    for name in (
        "add_host assert debug fail group_by import_playbook import_role import_tasks include_role include_tasks include_vars"
        " meta set_fact set_stats validate_argument_spec"
    ).split()
) | {f"holdfast.backup.{name}" for name in ("escrow_read", "preflight", "report", "state")}


class CallbackModule(CallbackBase):
    """One count for each host, and the names of what ran."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "executions"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._ran: dict[str, list[str]] = {}

    def _count(self, result: Any) -> None:
        action = result.task.resolved_action or result.task.action
        if action in CONTROLLER_ONLY:
            return
        delegated = (result.result.get("_ansible_delegated_vars") or {}).get("ansible_delegated_host")
        times = (
            len(result.result["results"]) if isinstance(result.result.get("results"), list) and result.task.loop else 1
        )
        self._ran.setdefault(delegated or result.host.get_name(), []).extend(
            [f"{action}: {result.task.get_name()}"] * times
        )

    def v2_runner_on_ok(self, result: Any) -> None:
        """A module ran."""
        self._count(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A module ran and failed."""
        self._count(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the counts."""
        with open(os.environ["EXECUTIONS_FILE"], "w", encoding="utf-8") as file:
            json.dump(self._ran, file)
