# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a temporary directory whose commands answer what real ones once did."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Union

from ansible_collections.holdfast.backup.plugins.module_utils._program import definition as definitions
from ansible_collections.holdfast.backup.plugins.module_utils._program.definition import Definition
from ansible_collections.holdfast.backup.plugins.module_utils._program.host import Done, Host

NOW = 1795266000.0  # 2026-11-21T13:00:00Z
ME = pwd.getpwuid(os.geteuid()).pw_name
INVOCATION = "f4bb76ed71e34b7ba93b333f427db795"
UNIT = "system--vault"
SERVICE = f"holdfast-{UNIT}.service"
ID = "1" * 64
RECORD = f"HOLDFAST_REPOSITORY_ID={ID}\nRESTIC_KEY_HINT={'2' * 64}\nHOLDFAST_FINGERPRINT={'3' * 32}-{'4' * 32}\n"
IDENTITY: dict[str, Any] = {
    "format": 1,
    "rest": {"user": None, "current": None, "next": None},
    "escrow": {"salt": "00" * 32, "fingerprint": "ab" * 16, "previous": [], "previous_until": 0},
}

# Recorded from restic 0.18.0 and 0.19.1.
SUMMARY = (
    '{"message_type":"summary","files_new":2,"files_changed":0,"files_unmodified":1,"dirs_new":4,"dirs_changed":0,'
    '"dirs_unmodified":0,"data_blobs":3,"tree_blobs":5,"data_added":3002177,"data_added_packed":3001867,'
    '"total_files_processed":3,"total_bytes_processed":3000003,"total_duration":0.894492457,'
    '"backup_start":"2026-11-21T13:00:23.534339398Z","backup_end":"2026-11-21T13:00:24.428831858Z",'
    '"snapshot_id":"331fa3bbb3a94a1817a1074357bf2c94c98a4dbf5b7a3a699bdadb1e47482a24"}'
)
SNAPSHOT = "331fa3bbb3a94a1817a1074357bf2c94c98a4dbf5b7a3a699bdadb1e47482a24"
STATUS = (
    '{"message_type":"status","percent_done":0.17961515371817963,"total_files":2,"files_done":1,"total_bytes":3000003,'
    '"bytes_done":538846,"current_files":["/src/a"]}'
)
UNREADABLE = (
    '{"message_type":"error","error":{"message":"open /src/b: permission denied"},"during":"archival","item":"/src/b"}'
)
FATAL = '{{"message_type":"exit_error","code":{0},"message":"{1}"}}'
SKIPPED = "/srv/gone does not exist, skipping"
RETRY = (
    'Stat(<config/>) returned error, retrying after 851.299959ms: Head "http://web1:secret@127.0.0.1:9/config":'
    " dial tcp 127.0.0.1:9: connect: connection refused"
)

Answer = Union[Done, Callable[[Sequence[str]], Done]]


class FakeHost(Host):
    """Commands are answered by the first entry of `answers` whose words all occur; all calls are in `calls`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, owner=os.geteuid())
        self.answers: list[tuple[tuple[str, ...], Answer]] = []
        self.calls: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []
        self.files: list[Mapping[str, bytes]] = []
        self.users: list[str | None] = []
        self.directories: list[str | None] = []
        self.slept = 0.0
        self.clock = NOW
        # What the kernel says to whoever writes below /var: that the disk is full, say.
        self.broken: int | None = None

    def answer(self, *words: str, status: int = 0, stdout: str = "", stderr: str = "") -> None:
        """Later answers go before earlier ones."""
        self.answers.insert(0, (words, Done(status, stdout, stderr)))

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def command(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Done:
        assert timeout > 0
        self.files.append(files or {})
        self.calls.append(list(argv))
        self.environments.append(env or {})
        self.users.append(user)
        for words, answer in self.answers:
            if all(word in argv for word in words):
                return answer(argv) if callable(answer) else answer
        return Done(0)

    def attached(
        self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, directory: str | None = None
    ) -> int:
        self.directories.append(directory)
        return self.command(argv, timeout=timeout, env=env).status

    def write(self, absolute: str, content: bytes, *, mode: int, group: int | None = None) -> None:
        if self.broken is not None and absolute.startswith("/var/"):
            raise OSError(self.broken, os.strerror(self.broken), absolute)
        super().write(absolute, content, mode=mode, group=group)

    def opened(self, repository: str = ID, seconds: float = NOW) -> None:
        """Leave in the unit's cache what restic does when it opens a repository."""
        directory = self.path(f"/var/cache/holdfast/vault/{repository}")
        directory.mkdir(parents=True, exist_ok=True)
        os.utime(directory, (seconds, seconds))

    def put(self, absolute: str, content: str | dict[str, Any] = "", mode: int = 0o644) -> Path:
        """Write a file."""
        path = self.path(absolute)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        path.chmod(mode)
        return path

    def journal(self, *lines: str | tuple[str, str], invocation: str = "") -> None:
        """What journalctl says; a line is restic's, or (program, text), where program `systemd` is PID 1."""
        self.answer(
            "journalctl",
            "--output=json",
            *([f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else []),
            stdout=entries(*lines),
        )


def entries(*lines: str | tuple[str, str]) -> str:
    """Lines as journalctl prints them."""
    text = ""
    for number, line in enumerate(lines):
        program, message = ("restic", line) if isinstance(line, str) else line
        pid1 = program == "systemd"
        text += json.dumps(
            {
                "__REALTIME_TIMESTAMP": str(int((NOW - 60 + number) * 1e6)),
                "SYSLOG_IDENTIFIER": program,
                "MESSAGE": message,
                "PRIORITY": "4" if pid1 else "6",
                "_PID": "1" if pid1 else "4711",
            }
        )
        text += "\n"
    return text


def raw(**changes: Any) -> dict[str, Any]:
    """A definition as the roles write it."""
    return {
        "format": 1,
        "job": "system",
        "repository": "vault",
        "engine": "restic",
        "binary": "/usr/bin/restic",
        "user": ME,
        "paths": ["/srv/data"],
        "optional_paths": ["/srv/optional"],
        "sources_d": "/etc/holdfast/sources.d/system.d",
        "host": "web1",
        "tags": ["night"],
        "environment": {"RESTIC_CACHE_DIR": "/var/cache/holdfast/vault"},
        "password_file": "/etc/holdfast/secrets/vault.password",
        "repository_file": "/etc/holdfast/secrets/vault.repository",
        "environment_file": "/etc/holdfast/secrets/vault.environment",
        "record": "/var/lib/holdfast/repositories/vault.env",
        "escrow": {"mode": "local"},
        "pre": [],
        "post": [],
        "dumps": [],
        "on_failure": None,
        "incomplete_is": "failed",
        "mount": None,
        "access": "local",
        "rest": None,
        "timeout_seconds": 3600,
        **changes,
    }


def hook(script: str, **more: Any) -> dict[str, Any]:
    """A hook that runs a shell script as whoever runs the tests."""
    return {"command": ["/bin/sh", "-c", script], "user": ME, **more}


def define(host: FakeHost, **changes: Any) -> Definition:
    """Write a definition and read it."""
    content = raw(**changes)
    unit = f"{content['job']}--{content['repository']}"
    host.put(f"/etc/holdfast/units/{unit}.json", content)
    return definitions.load(host, unit)
