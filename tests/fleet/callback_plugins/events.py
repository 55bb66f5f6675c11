"""Writes what happened to which host, a line of JSON for each result, to the file that HOLDFAST_EVENTS names."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Appends results as they come."""

    CALLBACK_VERSION = 2.0
    CALLBACK_NAME = "events"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._path = os.environ.get("HOLDFAST_EVENTS", os.devnull)
        self._play = ""

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Tasks of the same name in two plays are two tasks."""
        self._play = play.get_name()

    def _write(self, result: Any, what: str) -> None:
        content = result.result if hasattr(result, "result") else result._result
        task = result.task if hasattr(result, "task") else result._task
        host = result.host if hasattr(result, "host") else result._host
        event = {
            "what": what,
            "host": host.get_name(),
            "task": f"{self._play} / {task.get_name()}",
            "changed": bool(content.get("changed")),
            "delegated": bool(content.get("_ansible_delegated_vars")),
            "ignored": bool(task.ignore_errors),
            "message": str(content.get("msg", "")),
            "result": {
                key: value for key, value in content.items() if key in ("deferred", "switched", "revoked", "state")
            },
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(event, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task that went well."""
        self._write(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A task that failed."""
        self._write(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host that did not answer."""
        self._write(result, "unreachable")
