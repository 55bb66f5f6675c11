#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: units
short_description: Exact set of enabled and started systemd units of one namespace
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Enables and starts exactly the declared units, and stops and disables those that the namespace once declared and that
    are gone, in one execution.
  - Never starts what a timer triggers. Timers whose files changed are stopped before systemd reads them again, and every
    timer that is started gets a stamp of now first, so a calendar time that has just passed, or that passed while the
    timer was not there, does not count as missed. Running timers that did not change are left alone, so a boot or a real
    miss still catches up.
  - A service of a retired timer that runs is waited for and never killed. A oneshot service is never stopped.
attributes:
  check_mode:
    support: full
    description: Reports what the real run would do, also for units whose files the same play would write.
  diff_mode:
    support: none
    description: The returned lists say what changes.
  platform:
    support: full
    platforms: posix
    description: Needs a Linux host with systemd as its first process and runs as root.
options:
  namespace:
    description: Name of the owner of this set of units. Lower case letters, digits and C(_), beginning with a letter.
    type: str
    required: true
  units:
    description: The units of this namespace.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Full name of the unit, no template.
        type: str
        required: true
      enabled:
        description: Whether it is started at boot. A unit without an C([Install]) section needs V(false).
        type: bool
        default: true
      state:
        description: What it should be now. Not given, it is left as it is.
        type: str
        choices: [started, stopped]
      masked:
        description: Whether it is masked. Not given, it is left as it is.
        type: bool
      restart:
        description: Restart it if it runs.
        type: bool
        default: false
      reload:
        description: Reload it if it runs and is not restarted.
        type: bool
        default: false
      restart_on:
        description:
          - Files that it reads when it starts. It is restarted if it runs and one of them is in O(changed_files) or is not
            what it was when this module last started it, so a run that was killed in between loses nothing.
        type: list
        elements: path
        default: []
      reload_on:
        description: Files that it reads when it is reloaded, as for O(units[].restart_on).
        type: list
        elements: path
        default: []
  changed_files:
    description:
      - Files that M(holdfast.backup.file_tree) created, changed or removed. They decide which timers changed, and whether
        systemd has to read its files again. What systemd itself says about changed files counts as well.
    type: list
    elements: path
    default: []
  phase:
    description:
      - V(retire) only stops and disables what is gone, V(converge) only does the declared units, V(all) does both.
      - Retire before the files of the units are removed, converge after the files are written.
    type: str
    choices: [all, retire, converge]
    default: all
  retire:
    description: Units that are gone.
    type: list
    elements: str
    default: []
  retire_absent:
    description: Whether units that the namespace once declared, and that are not in O(units), are gone.
    type: bool
    default: false
  wait:
    description: Seconds to wait for a running service of a retired timer to end.
    type: int
    default: 3600
  daemon_reload:
    description: Whether systemd reads its files again. V(auto) does so when something changed.
    type: str
    choices: [auto, always, never]
    default: auto
  manifest_dir:
    description: Directory of the manifests on the host.
    type: path
    default: /var/lib/holdfast/units
  status_program:
    description:
      - The host program. It is asked for the outcomes of the run units when everything else is done, in check mode too, which saves
        an execution of its own.
    type: path
"""

EXAMPLES = r"""
- name: Stop the timers that are not declared any more, before their files go
  holdfast.backup.units:
    namespace: jobs
    units: "{{ timers }}"
    phase: retire
    retire_absent: true

- name: Start exactly the declared timers
  holdfast.backup.units:
    namespace: jobs
    units:
      - name: holdfast-system--vault.timer
        state: started
    phase: converge
    changed_files: "{{ written.created + written.changed_files + written.removed }}"
"""

RETURN = r"""
started:
  description: Units that were not running and were started.
  returned: success
  type: list
  elements: str
  sample: [holdfast-system--vault.timer]
stopped:
  description: Units that were stopped.
  returned: success
  type: list
  elements: str
restarted:
  description: Units that were running and were restarted, timers with changed files among them.
  returned: success
  type: list
  elements: str
reloaded:
  description: Units that were reloaded.
  returned: success
  type: list
  elements: str
enabled:
  description: Units that were enabled.
  returned: success
  type: list
  elements: str
disabled:
  description: Units that were disabled.
  returned: success
  type: list
  elements: str
masked:
  description: Units that were masked.
  returned: success
  type: list
  elements: str
unmasked:
  description: Units that were unmasked.
  returned: success
  type: list
  elements: str
retired:
  description: Units that are gone and were stopped, disabled or cleared of a failure.
  returned: success
  type: list
  elements: str
waited_for:
  description: Running services whose end was waited for.
  returned: success
  type: list
  elements: str
daemon_reload:
  description: Whether systemd read its unit files again.
  returned: success
  type: bool
status:
  description: What C(status --json) of O(status_program) said, null where it is not there or fails.
  returned: success, with O(status_program)
  type: str
"""

import contextlib
import os
import posixpath
import time
from collections.abc import Iterable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._failures import told
from ..module_utils._files import Tree
from ..module_utils._systemd import STAMPS, Request, Systemctl, SystemdError, UnitsPlan, kind_of
from ..module_utils._unit_requests import manifest, prepare, save, status

_BOOTED = "/run/systemd/system"
_POLL = 0.5
_STATUS_TIMEOUT = 120


def _wait(systemctl: Systemctl, names: tuple[str, ...], seconds: int) -> None:
    deadline = time.monotonic() + seconds
    while True:
        working = sorted(name for name, state in systemctl.show(names).items() if state.works)
        if not working:
            return
        if time.monotonic() >= deadline:
            raise SystemdError(
                f"{', '.join(working)} still runs after {seconds} s: run again when it has ended, or raise wait; "
                f"its timer is stopped already, nothing was killed"
            )
        time.sleep(_POLL)


def _stamp(timers: Iterable[str]) -> None:
    """Tell systemd that timers have just elapsed, so that nothing counts as missed when they start."""
    for name in timers:
        os.makedirs(STAMPS, mode=0o755, exist_ok=True)
        fd = os.open(
            posixpath.join(STAMPS, f"stamp-{name}"), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
        os.utime(fd)
        os.close(fd)


def _start(systemctl: Systemctl, plan: UnitsPlan) -> None:
    said = [systemctl.restart(plan.restart) if plan.restart else ""]
    # Sockets first, for a socket cannot be bound when its service is up; timers last, with a stamp of that moment.
    groups = [
        [name for name in plan.start if kind_of(name) == "socket"],
        [name for name in plan.start if kind_of(name) not in ("socket", "timer")],
        [name for name in plan.start if kind_of(name) == "timer"],
    ]
    for names in groups:
        if names:
            _stamp(name for name in names if kind_of(name) == "timer")
            said.append(systemctl.start(names))
    states = systemctl.show({*plan.restart, *plan.start})
    broken = [name for name, state in states.items() if not state.healthy]
    if broken:
        details = [
            f"{name} is {states[name].active} ({states[name].sub}):\n{systemctl.journal(name)}" for name in broken
        ]
        raise SystemdError("\n".join([f"{', '.join(broken)} did not start", *filter(None, said), *details]))


def _apply(systemctl: Systemctl, plan: UnitsPlan, wait: int) -> None:
    if plan.stop:
        systemctl.stop(plan.stop)
    if plan.wait_for:
        _wait(systemctl, plan.wait_for, wait)
    for step, names in (
        (systemctl.stop, plan.stop_later),
        (systemctl.disable, plan.disable),
        (systemctl.unmask, plan.unmask),
        (systemctl.enable, plan.enable),
        (systemctl.mask, plan.mask),
        (systemctl.reset_failed, plan.reset),
    ):
        if names:
            step(names)
    if plan.daemon_reload:
        systemctl.daemon_reload()
    _start(systemctl, plan)
    if plan.reload:
        systemctl.reload(plan.reload)


def _forget(systemctl: Systemctl, request: Request, waited: tuple[str, ...]) -> None:
    """Remove what systemd remembers of units that are gone."""
    failed = [name for name, state in systemctl.show({*request.retire, *waited}).items() if state.active == "failed"]
    if failed:
        systemctl.reset_failed(failed)
    for name in request.retire:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(posixpath.join(STAMPS, f"stamp-{name}"))


def _run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    path = manifest(params)
    if not os.path.isdir(_BOOTED):
        raise SystemdError(f"systemd does not run on this host ({_BOOTED} is missing): boot it with systemd")
    systemctl = Systemctl()
    with Tree() as tree:
        found = prepare(tree, systemctl, params)
        if not module.check_mode:
            if found.union != found.own:
                save(tree, path, found.union)
            _apply(systemctl, found.plan, params["wait"])
            if found.request.retire:
                _forget(systemctl, found.request, found.plan.wait_for)
            if found.final != found.union:
                save(tree, path, found.final)
    return found.plan.result()


def main() -> None:
    """Run the module."""
    unit = {
        "name": {"type": "str", "required": True},
        "enabled": {"type": "bool", "default": True},
        "state": {"type": "str", "choices": ["started", "stopped"]},
        "masked": {"type": "bool"},
        "restart": {"type": "bool", "default": False},
        "reload": {"type": "bool", "default": False},
        "restart_on": {"type": "list", "elements": "path", "default": []},
        "reload_on": {"type": "list", "elements": "path", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "namespace": {"type": "str", "required": True},
            "units": {"type": "list", "elements": "dict", "default": [], "options": unit},
            "changed_files": {"type": "list", "elements": "path", "default": []},
            "phase": {"type": "str", "choices": ["all", "retire", "converge"], "default": "all"},
            "retire": {"type": "list", "elements": "str", "default": []},
            "retire_absent": {"type": "bool", "default": False},
            "wait": {"type": "int", "default": 3600},
            "daemon_reload": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
            "manifest_dir": {"type": "path", "default": "/var/lib/holdfast/units"},
            "status_program": {"type": "path"},
        },
        supports_check_mode=True,
    )
    with told(module, SystemdError):
        result = _run(module)
        if module.params["status_program"] is not None:
            result["status"] = status(module.params["status_program"], _STATUS_TIMEOUT)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
