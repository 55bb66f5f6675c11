# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the user, run around a backup: as the account they ask for, with a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

from .._run import PATH
from .._run import account as account_of
from .definition import Definition, Hook


class _Ending:
    """systemd tells us alone that it is over (KillMode=mixed). The hook is told, may clean up, and then we end."""

    def __init__(self) -> None:
        self.told = False
        self._process: subprocess.Popen[bytes] | None = None

    def begun(self, process: subprocess.Popen[bytes]) -> None:
        """From now on there is somebody to tell."""
        self._process = process
        if self.told:
            self.pass_on()

    def pass_on(self, *_signal: Any) -> None:
        """The handler of the signal."""
        self.told = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)


def environment(definition: Definition, **more: str) -> dict[str, str]:
    """What a hook learns of the run: HOLDFAST_UNIT, HOLDFAST_JOB, HOLDFAST_REPOSITORY, and `more` as HOLDFAST_<NAME>."""
    return {
        "HOLDFAST_UNIT": definition.unit,
        "HOLDFAST_JOB": definition.job,
        "HOLDFAST_REPOSITORY": definition.repository,
        **{f"HOLDFAST_{name.upper()}": value.replace("\0", "") for name, value in more.items()},
    }


def run(hook: Hook, variables: Mapping[str, str]) -> str | None:
    """Run a hook; its output goes where ours goes. Returns None, or what went wrong."""
    program = hook.command[0]
    try:
        account = account_of(hook.user)
    except ValueError as error:
        return f"{program}: {error}"
    switch: dict[str, Any] = {}
    if account.pw_uid != os.geteuid():
        switch = {
            "user": account.pw_uid,
            "group": account.pw_gid,
            "extra_groups": os.getgrouplist(account.pw_name, account.pw_gid),
        }
    env = {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        **variables,
    }
    ending = _Ending()
    before = signal.signal(signal.SIGTERM, ending.pass_on)
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function # no AnsibleModule here
            list(hook.command), stdin=subprocess.DEVNULL, cwd="/", env=env, start_new_session=True, **switch
        )
        ending.begun(process)
        status = _wait(process, hook.timeout)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{program} cannot be started: {error}"
    finally:
        signal.signal(signal.SIGTERM, before)
        if ending.told:
            # As it would have been without a hook.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
    if status is None:
        return f"{program} did not end within {hook.timeout} s"
    if status < 0:
        return f"{program} was ended by signal {abs(status)}"
    return f"{program} ended with exit status {status}" if status else None


def _wait(process: subprocess.Popen[bytes], timeout: float) -> int | None:
    """The exit status; None where the time limit ended the hook and what it started."""
    try:
        return process.wait(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None
