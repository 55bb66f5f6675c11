# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host as the program sees it: its files, clock and commands, in one place that tests can stand in for."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import glob
import importlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import _locks
from .._run import PATH, run

UNITS = "/etc/holdfast/units"
OUTCOMES = "/var/lib/holdfast/outcomes"
RUNNING = "/var/lib/holdfast/running"
RUNTIME = "/run/holdfast"
SECRETS = "/etc/holdfast/secrets"
ESCROW = "/etc/holdfast/escrow.json"


class ProgramError(Exception):
    """Something the caller has to know: one line that says what is wrong and what helps. `status` is the exit code."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Done:
    """A command that ended; 124 stands for one that did not end in time, 127 for one that could not be started."""

    status: int
    stdout: str = ""
    stderr: str = ""


def version() -> str:
    """The version of holdfast this program was built from, '0' outside a built program."""
    package = importlib.import_module(__name__.rsplit(".", 2)[0])
    return str(getattr(package, "__version__", "0"))


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as UTC in ISO 8601, to the second."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(stamp: str | None) -> float | None:
    """The inverse of `timestamp`; None for None and for what is no time stamp."""
    try:
        parsed = datetime.datetime.strptime(stamp or "", "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return None
    return parsed.replace(tzinfo=datetime.timezone.utc).timestamp()


class Host:
    """Files below `root`, which belong to `owner` (uid) when they can be trusted; the clock; commands."""

    def __init__(self, root: Path = Path("/"), owner: int = 0) -> None:
        self.root = root
        self.owner = owner

    def path(self, absolute: str) -> Path:
        """Where the absolute path `absolute` is to be found."""
        return self.root / absolute.lstrip("/")

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def name(self) -> str:
        """What this host calls itself."""
        return os.uname().nodename

    def program(self, pid: object) -> str:
        """The name of the program that a process runs, as far as the kernel keeps it; empty where there is no such process."""
        return _locks.program(pid, str(self.path("/proc")))

    def boot(self) -> str:
        """The kernel's id of this boot; empty if it does not say."""
        try:
            return self.path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return ""

    def userspace(self) -> str:
        """When systemd began to start the system, as it counts; empty if it does not say. A boot may keep the kernel."""
        argv = ["systemctl", "show", "--property=UserspaceTimestampMonotonic", "--value"]
        done = self.command(argv, timeout=30)
        return "" if done.status else done.stdout.strip()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def command(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Done:
        """Run a command for its output, with a clean environment and `timeout` in seconds, as `user` (root only).

        Each of `files` becomes a file that only `user` can read, and whose name the variable holds.
        """
        try:
            done = run(argv, timeout=timeout, environment={"LC_ALL": "C.UTF-8", **(env or {})}, user=user, files=files)
        except ValueError as error:
            return Done(127, stderr=str(error))
        except OSError as error:
            return Done(127, stderr=f"{argv[0]} cannot be started: {error.strerror}")
        if done.timed_out:
            return Done(124, stderr=f"{argv[0]} did not end within {timeout:g} s")
        return Done(done.code, done.stdout, done.stderr)

    def attached(
        self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, directory: str | None = None
    ) -> int:
        """Run a command whose output the caller's terminal or journal gets; returns its exit status (124, 127 as in Done)."""
        try:
            done = subprocess.run(  # pylint: disable=ansible-bad-function # no AnsibleModule here
                list(argv),
                stdin=subprocess.DEVNULL,
                check=False,
                timeout=timeout,
                cwd=directory,
                env={"PATH": PATH, "LC_ALL": "C.UTF-8", **(env or {})},
            )
        except subprocess.TimeoutExpired:
            return 124
        except OSError:
            return 127
        return done.returncode

    def started(self, argv: Sequence[str], *, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a command that only the caller ends: Ctrl-C does not reach it. Raises OSError if it cannot be started."""
        return subprocess.Popen(  # pylint: disable=ansible-bad-function # no AnsibleModule here
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", **env},
        )

    def read_json(self, absolute: str) -> dict[str, Any] | None:
        """The object in a JSON file; None when there is none, or none that can be read."""
        try:
            content = json.loads(self.path(absolute).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def write(self, absolute: str, content: bytes, *, mode: int, group: int | None = None) -> None:
        """Replace a file atomically. Its directory is made if it is missing (0755)."""
        target = self.path(absolute)
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # What a write that was killed left; a living one takes no hour.
        for left in target.parent.glob(f".{glob.escape(target.name)}.????????"):
            with contextlib.suppress(FileNotFoundError):
                if self.now() - left.lstat().st_mtime > 3600:
                    left.unlink()
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                if group is not None:
                    os.fchown(stream.fileno(), -1, group)
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
        # A power cut must not undo one of two files whose order counts.
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def write_json(self, absolute: str, content: Mapping[str, Any], *, mode: int = 0o644) -> None:
        """Replace a JSON file atomically."""
        self.write(absolute, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode("utf-8"), mode=mode)
