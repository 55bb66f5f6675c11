# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a program with a clean environment, a time limit and secrets in files only."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What a process gets to clean up between SIGTERM and SIGKILL.
GRACE_SECONDS = 2.0
# How long a pipe may stay open by a left-over child after the program itself has ended.
DRAIN_SECONDS = 0.5
# How often a program that says nothing is looked at.
POLL_SECONDS = 0.1
# What is kept of the beginning and of the end of standard error: how much there is, a server may decide.
STDERR_BYTES = 256 * 1024
LEFT_OUT = "[lines left out]"
# More than any list of snapshots has.
STDOUT_BYTES = 256 * 1024 * 1024
# The longest line in which it is looked for what to stop on.
_LINE_BYTES = 65536


@dataclass(frozen=True)
class Result:
    """What a program did: exit code (negative: signal), its texts, and whether it was ended early."""

    code: int
    stdout: str = ""
    stderr: str = ""
    timed_out: bool = False
    stopped: bool = False


class _Ends:
    """The beginning and the end of a text, whose middle is left out where it is too long."""

    def __init__(self) -> None:
        self._begin, self._end = bytearray(), bytearray()
        self._complete = True

    def add(self, chunk: bytes) -> None:
        room = STDERR_BYTES - len(self._begin)
        self._begin += chunk[:room]
        self._end += chunk[room:]
        if len(self._end) > STDERR_BYTES:
            del self._end[:-STDERR_BYTES]
            self._complete = False

    def text(self) -> str:
        if self._complete:
            return (self._begin + self._end).decode("utf-8", "replace")
        return f"{self._begin.decode('utf-8', 'replace')}\n{LEFT_OUT}\n{self._end.decode('utf-8', 'replace')}"


class _Watch:
    """Counts what a pattern matches in whole lines."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._rest = bytearray()
        self.found = 0

    def add(self, chunk: bytes) -> None:
        self._rest += chunk
        end = self._rest.rfind(b"\n") + 1
        self.found += len(self._pattern.findall(self._rest[:end].decode("utf-8", "replace")))
        del self._rest[:end]
        del self._rest[:-_LINE_BYTES]


def account(user: str) -> pwd.struct_passwd:
    """Return the account named `user`; ValueError when there is none."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise ValueError(f"there is no account {user!r} on this host") from None


def base_environment(user: str | None = None) -> dict[str, str]:
    """Return PATH, LC_ALL and, where the account has one, HOME: nothing is taken over from the caller."""
    environment = {"PATH": PATH, "LC_ALL": "C"}
    if user is not None:
        environment["HOME"] = account(user).pw_dir
    else:
        with contextlib.suppress(KeyError):
            environment["HOME"] = pwd.getpwuid(os.geteuid()).pw_dir
    return environment


@contextlib.contextmanager
def _memory_files(files: Mapping[str, bytes], owner: pwd.struct_passwd | None) -> Iterator[dict[str, int]]:
    """Put each content into a file without a name that only `owner` may read; yield descriptor by variable."""
    descriptors: dict[str, int] = {}
    try:
        for name, content in files.items():
            descriptor = os.memfd_create("secret")
            descriptors[name] = descriptor
            os.fchmod(descriptor, 0o400)
            with os.fdopen(os.dup(descriptor), "wb") as stream:
                stream.write(content)
            os.lseek(descriptor, 0, os.SEEK_SET)
            if owner is not None:
                os.fchown(descriptor, owner.pw_uid, owner.pw_gid)
        yield descriptors
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the program and everything it started: SIGTERM, a short wait, SIGKILL."""
    _signal_group(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    _signal_group(process, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _ended_when_interrupted(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """It has a session of its own: Ctrl-C of a person who waits for it reaches this program alone."""
    try:
        yield
    except BaseException:
        _end_group(process)
        raise


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    descriptors: Mapping[str, bytes] | None = None,
    arguments: Mapping[str, bytes] | None = None,
    user: str | None = None,
    stop_on: re.Pattern[str] | None = None,
    stop_after: int = 1,
    umask: int = 0o077,
) -> Result:
    """Run `argv` and return what it did; a failing program is a result, not an error.

    The environment is :func:`base_environment` plus `environment`. Each entry of `files` becomes a file in memory
    that only the program's account can read; the variable holds its name, for `descriptors` the number of the open file,
    which can be read once; each of `arguments` is an option that is followed by the name of such a file. With `user`
    (root only) the program runs as that account with its groups. After `timeout` seconds, once `stop_on` matched
    `stop_after` times in whole lines of standard error, or with more than STDOUT_BYTES of output, the whole process group
    is ended. So much output is given to nobody, and the program counts as killed. Raises OSError when the program cannot
    be started, ValueError when the account does not exist.
    """
    owner = account(user) if user is not None else None
    complete = {**base_environment(user), **(environment or {})}
    stdout, stderr = bytearray(), _Ends()
    watch = None if stop_on is None else _Watch(stop_on)
    timed_out = stopped = False
    deadline = time.monotonic() + timeout
    memory = {**(files or {}), **(descriptors or {}), **(arguments or {})}
    with _memory_files(memory, owner) as opened, selectors.DefaultSelector() as selector:
        complete.update({name: f"/proc/self/fd/{opened[name]}" for name in files or {}})
        complete.update({name: str(opened[name]) for name in descriptors or {}})
        options = [word for name in arguments or {} for word in (name, f"/proc/self/fd/{opened[name]}")]
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function # no AnsibleModule here
            [*argv, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=complete,
            cwd="/",
            start_new_session=True,
            pass_fds=tuple(opened.values()),
            umask=umask,
            user=None if owner is None else owner.pw_uid,
            group=None if owner is None else owner.pw_gid,
            extra_groups=None if owner is None else os.getgrouplist(owner.pw_name, owner.pw_gid),
        )
        with process, _ended_when_interrupted(process):
            selector.register(cast(Any, process.stdout), selectors.EVENT_READ, "stdout")
            selector.register(cast(Any, process.stderr), selectors.EVENT_READ, "stderr")
            while selector.get_map():
                now = time.monotonic()
                if now >= deadline:
                    # A program that has ended is not late: only a child of its own still holds a pipe.
                    timed_out = process.poll() is None
                    break
                for key, _events in selector.select(min(POLL_SECONDS, deadline - now)):
                    chunk = os.read(key.fd, 65536)
                    if not chunk:
                        selector.unregister(key.fileobj)
                        continue
                    if key.data == "stdout":
                        stdout += chunk
                        continue
                    stderr.add(chunk)
                    if watch is not None:
                        watch.add(chunk)
                        stopped = watch.found >= stop_after
                if stopped or len(stdout) > STDOUT_BYTES:
                    break
                if process.poll() is not None:
                    deadline = min(deadline, time.monotonic() + DRAIN_SECONDS)
            if selector.get_map():
                _end_group(process)
            else:
                # Both pipes are closed, so all is said; a daemonised program still gets no more than its time.
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    timed_out = True
                    _end_group(process)
    if len(stdout) > STDOUT_BYTES:
        return Result(code=-signal.SIGKILL, stderr=f"{argv[0]} printed more than {STDOUT_BYTES} bytes")
    return Result(
        code=process.returncode,
        stdout=stdout.decode("utf-8", "replace"),
        stderr=stderr.text(),
        timed_out=timed_out,
        stopped=stopped,
    )
