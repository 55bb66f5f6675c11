"""The commands `ansible` and `ansible-playbook`, many times: a process that has loaded Ansible forks for each.

To start Python and load Ansible costs 0.4 s of processor time, as much as to run a module. tests/ansible_commands.py starts
this, and gives it a line of JSON for each command.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from ansible import constants, plugins
from ansible.cli.adhoc import AdHocCLI
from ansible.cli.playbook import PlaybookCLI

# Not a code of Ansible: the command was not started at all.
HARNESS = 254
PROGRAMS = {"ansible": AdHocCLI, "ansible-playbook": PlaybookCLI}


def main() -> None:
    """Until there are no more orders; answers each with the exit code."""
    # What a command loads before its first task.
    for name in (
        "ansible.executor.playbook_executor",
        "ansible.plugins.strategy.linear",
        "ansible.plugins.connection.ssh",
    ):
        importlib.import_module(name)
    for kind in ("filter", "test"):
        for module in pkgutil.iter_modules([f"{path}/{kind}" for path in plugins.__path__]):
            importlib.import_module(f"ansible.plugins.{kind}.{module.name}")
    with tempfile.TemporaryDirectory(prefix="holdfast-templates-") as templates:
        # By its path: no plugin is to find a module of the tests.
        here = Path(__file__)
        runpy.run_path(str(here.with_name("ansible_templates.py")))["keep"](Path(templates))
        runpy.run_path(str(here.with_name("ansible_yaml.py")))["keep"](collection())
        runpy.run_path(str(here.with_name("ansible_payload.py")))["keep"](here.parents[1] / ".cache/payload")
        serve()


def collection() -> Path:
    """Where Ansible finds it."""
    return Path(os.environ["ANSIBLE_COLLECTIONS_PATH"]) / "ansible_collections/holdfast/backup"


def serve() -> None:
    """Fork for each order."""
    # What is there stays: collecting garbage in a command need not look at it.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            command(json.loads(line))
        _pid, status = os.waitpid(pid, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


def command(order: dict[str, Any]) -> None:
    """Be one command; does not return."""
    code = HARNESS
    try:
        signal.alarm(order["timeout"])
        output = os.open(order["output"], os.O_WRONLY | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["cwd"])
        code = 1
        os.makedirs(constants.DEFAULT_LOCAL_TMP, mode=0o700, exist_ok=True)
        PROGRAMS[order["program"]].cli_executor([order["program"], *order["arguments"]])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # What was registered before the fork is not this process's to clean up.
    os._exit(code)


if __name__ == "__main__":
    main()
