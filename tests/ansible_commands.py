"""Run `ansible` and `ansible-playbook` for tests that do so many times: see tests/ansible_server.py.

The program is Ansible's own, from its arguments on. It is not measured for the coverage.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# HARNESS of that file.
NOT_STARTED = 254
# Read when they are needed; what else is for Ansible or Python counts when it is loaded.
LATE = ("ANSIBLE_SSH_CONTROL_PATH_DIR",)


def run(
    program: str, arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str], timeout: int
) -> subprocess.CompletedProcess[str]:
    """Exit code, and all that one command says."""
    kind = tuple(
        sorted(
            (name, value)
            for name, value in environment.items()
            if name.startswith(("ANSIBLE_", "PYTHON", "HOME", "LANG", "LC_")) and name not in LATE
        )
    )
    idle = _idle.setdefault(kind, [])
    server = idle.pop() if idle else _Server(environment)
    with tempfile.NamedTemporaryFile() as output:
        code = server.ask(
            {
                "program": program,
                "arguments": list(arguments),
                "cwd": str(cwd),
                "environment": dict(environment),
                "output": output.name,
                "timeout": timeout,
            }
        )
        said = output.read().decode(errors="replace")
    idle.append(server)
    assert code != NOT_STARTED, f"{program} was not started:\n{said}"
    assert code >= 0, f"{program} {' '.join(arguments)} did not end within {timeout} s, or was killed:\n{said}"
    return subprocess.CompletedProcess([program, *arguments], code, said)


class _Server:
    """One process with Ansible loaded, for one command at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            # Plugins find no module of the tests: the program's folder is not theirs (-P).
            [sys.executable, "-P", str(Path(__file__).with_name("ansible_server.py"))],
            cwd=ROOT,
            env={name: value for name, value in environment.items() if not name.startswith("COVERAGE_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, order: Mapping[str, object]) -> int:
        """Have a command run; its exit code, negative for a signal."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that has loaded Ansible has ended"
        return int(json.loads(answer))

    def end(self) -> None:
        """No more commands."""
        self._process.communicate(timeout=30)


_idle: dict[tuple[tuple[str, str], ...], list[_Server]] = {}


@atexit.register
def _end() -> None:
    for servers in _idle.values():
        for server in servers:
            server.end()
